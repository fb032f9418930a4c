// SPDX-License-Identifier: MIT
// The rules of the source tree that a machine can check: who may include whom, how long files get,
// what stands at the top level.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const fs::path source = BGFS_SOURCE_DIR;

std::vector<fs::path> sources_below(const fs::path& directory) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const auto extension = entry.path().extension();
    if (extension == ".h" || extension == ".cpp")
      found.push_back(entry.path());
  }
  return found;
}

// "graph/model/node.h" -> "graph/model"; "drivers/format/raw/raw.h" -> "drivers/format/raw".
std::string layer_of(const std::string& path) {
  const auto first = path.find('/');
  const std::string top = path.substr(0, first);
  if (top == "graph")
    return path.substr(0, path.find('/', first + 1));
  return top;
}

// A driver's own folder: drivers/KIND/NAME.
std::string driver_of(const std::string& path) {
  const auto kind = path.find('/', path.find('/') + 1);
  return path.substr(0, path.find('/', kind + 1));
}

const std::map<std::string, std::set<std::string>> permitted = {
    {"graph/base", {"graph/base"}},
    {"graph/io", {"graph/base", "graph/io"}},
    {"graph/model", {"graph/base", "graph/io", "graph/model"}},
    {"graph/jobs", {"graph/base", "graph/io", "graph/model", "graph/jobs"}},
    {"drivers", {"graph/base", "graph/io", "graph/model", "drivers"}},
    {"config", {"graph/base", "graph/io", "graph/model", "graph/jobs", "config"}},
    {"fuse", {"graph/base", "graph/io", "graph/model", "graph/jobs", "config", "fuse"}},
};

// Libraries that only one place may see.
struct private_library {
  std::string header;
  std::string where;
};
const private_library private_libraries[] = {
    {"yaml-cpp/", "config/yaml."}, {"fuse_lowlevel.h", "fuse/"},
    {"fuse3/", "fuse/"},           {"fuse.h", "fuse/"},
    {"liburing.h", "graph/io/"},   {"openssl/", "drivers/format/common/"},
};

void check_include(const std::string& file, const std::string& included) {
  for (const auto& library : private_libraries) {
    if (included.starts_with(library.header))
      CHECK_MESSAGE(
          file.starts_with(library.where),
          fmt::format("{} includes <{}>, which only {} may", file, included, library.where));
  }
  const std::string from = layer_of(file);
  const std::string to = layer_of(included);
  if (!permitted.contains(to) && to != "tests")
    return; // the system's or a library's
  if (file == "fuse/main.cpp" && to == "drivers")
    return; // the explicit list of drivers
  CHECK_MESSAGE(permitted.at(from).contains(to),
                fmt::format("{} includes {}: {} may not see {}", file, included, from, to));
  if (from == "drivers" && to == "drivers") {
    const bool is_own = driver_of(file) == driver_of(included);
    const bool is_common = included.find("/common/") != std::string::npos;
    CHECK_MESSAGE((is_own || is_common),
                  fmt::format("{} includes {}: a driver never includes another", file, included));
  }
}

} // namespace

TEST_CASE("every include follows an arrow between layers") {
  unsigned seen = 0;
  for (const char* top : {"graph", "drivers", "config", "fuse"}) {
    for (const fs::path& path : sources_below(source / top)) {
      const std::string file = fs::relative(path, source);
      std::ifstream in(path);
      for (std::string line; std::getline(in, line);) {
        if (!line.starts_with("#include "))
          continue;
        const auto begin = line.find_first_of("\"<");
        const auto end = line.find_first_of("\">", begin + 1);
        REQUIRE(end != std::string::npos);
        check_include(file, line.substr(begin + 1, end - begin - 1));
        seen++;
      }
    }
  }
  CHECK(seen > 100);
}

TEST_CASE("no source file is longer than 800 lines, and all say their licence") {
  for (const char* top : {"graph", "drivers", "config", "fuse", "tests"}) {
    for (const fs::path& path : sources_below(source / top)) {
      std::ifstream in(path);
      std::string line;
      std::getline(in, line);
      CHECK_MESSAGE(line.starts_with("// SPDX-License-Identifier: MIT"), path.string());
      unsigned lines = 1;
      while (std::getline(in, line))
        lines++;
      CHECK_MESSAGE(lines <= 800, fmt::format("{} has {} lines", path.string(), lines));
    }
  }
}

TEST_CASE("the top level holds what the design says and nothing else") {
  const std::set<std::string> allowed = {"CMakeLists.txt", "README.md", "LICENSE",
                                         "fuse",           "graph",     "drivers",
                                         "config",         "tests",     "examples"};
  for (const auto& entry : fs::directory_iterator(source)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(".") || name.starts_with("build"))
      continue;
    CHECK_MESSAGE(allowed.contains(name), name);
  }
}
