// SPDX-License-Identifier: MIT
#include "config/path_walk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <deque>
#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {
namespace {

// As the kernel follows: more in one path are a loop.
constexpr int links_max = 40;

// The components of a path go before those that are still to be walked.
void push_front(std::deque<std::string>& rest, const std::string& path) {
  std::deque<std::string> parts;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (end > begin)
      parts.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  rest.insert(rest.begin(), parts.begin(), parts.end());
}

// "" if it is no link.
std::string link_target(const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
  return length < 0 ? std::string() : std::string(target.data(), static_cast<std::size_t>(length));
}

} // namespace

walked_path walk_path(const std::string& path, std::span<const std::string> forbidden) {
  walked_path at{.path = {}};
  std::deque<std::string> rest;
  push_front(rest, path);
  int links = 0;
  while (!rest.empty()) {
    const std::string part = std::move(rest.front());
    rest.pop_front();
    if (part == ".")
      continue;
    if (part == "..") {
      at.path.resize(std::min(at.path.size(), at.path.find_last_of('/')));
      continue;
    }
    const std::string next = at.path + "/" + part;
    if (std::ranges::find(forbidden, next) != forbidden.end())
      return {.path = next, .is_forbidden = true};
    struct stat status{};
    if (at.os_error == 0 && ::lstat(next.c_str(), &status) != 0)
      at.os_error = errno;
    if (at.os_error != 0 || !S_ISLNK(status.st_mode)) {
      at.path = next; // of what does not exist the rest is taken as it is written
      continue;
    }
    if (++links > links_max)
      return {.path = next, .os_error = ELOOP};
    const std::string target = link_target(next);
    if (target.starts_with('/'))
      at.path.clear();
    push_front(rest, target);
  }
  if (at.path.empty())
    at.path = "/";
  return at;
}

} // namespace bgfs
