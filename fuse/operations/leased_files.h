// SPDX-License-Identifier: MIT
// Which open raw files may be served by lease, by the number of their handle, for every thread that
// takes requests.
//
// One thread adds and removes; any finds. What find returns is there until the handle is removed,
// and the kernel does not release a file before its requests were answered.
#pragma once

#include "fuse/tree/partition_set.h"
#include "graph/model/lease.h"

#include <array>

namespace bgfs {

struct leased_file {
  std::shared_ptr<lease> by; // shared with the root, which may go before its open files
  bool is_writing = false;
  u64 handle = 0;
  // Of a partition; null: the whole disk. Shared with the handle, which may go first.
  std::shared_ptr<const partition_window> part = {};
};

class leased_files {
public:
  leased_files() = default;
  ~leased_files();
  leased_files(const leased_files&) = delete;
  leased_files& operator=(const leased_files&) = delete;

  // Handles past the last that has a place are served the long way.
  void add(u64 handle, std::shared_ptr<lease> by, bool is_writing,
           std::shared_ptr<const partition_window> part = {});
  void remove(u64 handle);
  [[nodiscard]] const leased_file* find(u64 handle) const; // null: not served by lease

private:
  static constexpr std::size_t chunk_length = 1024;
  static constexpr std::size_t chunk_count = 1024;
  using chunk = std::array<std::atomic<leased_file*>, chunk_length>;
  [[nodiscard]] std::atomic<leased_file*>* place_of(u64 handle) const;
  std::array<std::atomic<chunk*>, chunk_count> chunks_{};
};

} // namespace bgfs
