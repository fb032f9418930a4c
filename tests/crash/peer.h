// SPDX-License-Identifier: MIT
// The same states in the eyes of qemu-img.
#pragma once

#include "tests/crash/power_cuts.h"

#include <filesystem>

namespace bgfs::test {

class peer {
public:
  // Files are put into a directory of this object's own below `place`.
  explicit peer(const std::filesystem::path& place);
  ~peer();
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;

  struct state {
    const crash_history& history;
    const file_contents& files;
    const disk_content& disk; // that the image must show
    std::string key;          // the secret that opens it
    // The image needs a repair: it is dirty, or flags are as a crash may leave them.
    bool needs_repair = false;
  };
  // "" if a check finds nothing but leaks and the disk is what it must be.
  [[nodiscard]] std::string objection(const state& s) const;

private:
  struct outcome {
    int status;
    std::string output;
  };
  [[nodiscard]] outcome run(const std::string& verb, const state& s, const std::string& rest) const;
  std::filesystem::path directory_;
};

void save(const std::filesystem::path& directory, const crash_history& h,
          const file_contents& files);

} // namespace bgfs::test
