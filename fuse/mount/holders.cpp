// SPDX-License-Identifier: MIT
#include "fuse/mount/holders.h"

#include "fuse/mount/small_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

bool lies_in(const std::string& path, const std::string& directory) {
  return path == directory || path.starts_with(directory + "/");
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code bad;
  for (fs::directory_iterator i(directory, bad), end; !bad && i != end; i.increment(bad))
    names.push_back(i->path().filename());
  return names;
}

bool is_number(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
}

void add_process(const std::string& pid, const std::string& directory,
                 std::vector<std::string>& into) {
  const std::string base = "/proc/" + pid;
  std::string command = read_small_file(base + "/comm").value_or("?");
  command = command.substr(0, command.find('\n'));
  const std::string who = fmt::format("process {} ({})", pid, command);
  const std::string cwd = read_link(base + "/cwd").value_or("");
  if (lies_in(cwd, directory))
    into.push_back(fmt::format("{} works in {}", who, cwd));
  for (const std::string& number : names_in(base + "/fd")) {
    const std::string target = read_link(base + "/fd/" + number).value_or("");
    if (lies_in(target, directory))
      into.push_back(fmt::format("{} has {} open", who, target));
  }
}

} // namespace

std::vector<std::string> holders_of(const std::string& directory) {
  std::vector<std::string> found;
  for (const std::string& name : names_in("/proc"))
    if (is_number(name))
      add_process(name, directory, found);
  for (const std::string& name : names_in("/sys/block")) {
    std::string file = read_small_file("/sys/block/" + name + "/loop/backing_file").value_or("");
    file = file.substr(0, file.find('\n'));
    if (lies_in(file, directory))
      found.push_back(fmt::format("{} is backed by {}", name, file));
  }
  return found;
}

} // namespace bgfs
