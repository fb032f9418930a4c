// SPDX-License-Identifier: MIT
// A directory for one test, gone afterwards.
#pragma once

#include "graph/base/ints.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <stdlib.h>

namespace bgfs::test {

struct scratch_directory {
  std::filesystem::path path;
  scratch_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "bgfs-test-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~scratch_directory() { std::filesystem::remove_all(path); }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;

  // Makes a file of zeroes, or makes an existing one so long.
  [[nodiscard]] std::string file(std::string_view name, u64 length = 0) const {
    const std::filesystem::path p = path / name;
    std::filesystem::create_directories(p.parent_path());
    std::ofstream(p).flush();
    std::filesystem::resize_file(p, length);
    return p;
  }
};

} // namespace bgfs::test
