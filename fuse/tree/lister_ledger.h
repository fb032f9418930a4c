// SPDX-License-Identifier: MIT
// Which processes have looked into which directories that rmdir(2) deletes: snapshots, bitmaps. A
// recursive delete lists a directory before it removes it, and finds that it is not empty; who
// means to delete a snapshot has no reason to look into it first.
//
// Bounded, and when it is full it errs on the side of refusing.
#pragma once

#include "fuse/tree/process.h"

#include <functional>
#include <map>
#include <set>

namespace bgfs {

class lister_ledger {
public:
  // Directories that are remembered of one process; after that it counts as having listed all.
  static constexpr std::size_t directories_max = 256;
  // Processes that are remembered. While more live, nobody may delete anything.
  static constexpr std::size_t processes_max = 1024;

  using liveness = std::function<bool(const process_identity&)>;
  explicit lister_ledger(liveness lives = &is_alive) : lives_(std::move(lives)) {}

  void note(const process_identity& who, const std::string& directory);
  [[nodiscard]] bool has_listed(const process_identity& who, const std::string& directory);
  // There were more processes than can be remembered, and they live still.
  [[nodiscard]] bool is_overflowing();
  [[nodiscard]] std::size_t process_count() const { return processes_.size(); }

private:
  struct listed {
    std::set<std::string, std::less<>> directories;
    bool is_everything = false;
  };
  void forget_the_dead();
  liveness lives_;
  std::map<process_identity, listed> processes_;
  bool has_overflowed_ = false;
};

} // namespace bgfs
