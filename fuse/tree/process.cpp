// SPDX-License-Identifier: MIT
#include "fuse/tree/process.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {
namespace {

std::string text_of(const std::string& path) {
  std::array<char, 4096> text{};
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return {};
  const ssize_t length = ::read(fd, text.data(), text.size());
  ::close(fd);
  return {text.data(), length > 0 ? static_cast<std::size_t>(length) : 0};
}

template<class T>
std::optional<T> number_at(std::string_view text) {
  T number = 0;
  const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), number);
  return bad == std::errc{} ? std::optional(number) : std::nullopt;
}

std::optional<u64> start_of(u32 pid) {
  return start_in_stat(text_of(fmt::format("/proc/{}/stat", pid)));
}

} // namespace

std::optional<u32> process_in_status(std::string_view status) {
  constexpr std::string_view key = "\nTgid:\t";
  const std::size_t at = status.find(key);
  if (at == std::string_view::npos)
    return std::nullopt;
  return number_at<u32>(status.substr(at + key.size()));
}

std::vector<gid_t> groups_in_status(std::string_view status) {
  constexpr std::string_view key = "\nGroups:\t";
  std::vector<gid_t> groups;
  const std::size_t at = status.find(key);
  if (at == std::string_view::npos)
    return groups;
  std::string_view line = status.substr(at + key.size());
  line = line.substr(0, line.find('\n'));
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(' '), line.size());
    if (const auto group = number_at<gid_t>(line.substr(0, end)))
      groups.push_back(*group);
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return groups;
}

std::vector<gid_t> groups_of(u32 thread) {
  if (thread == 0)
    return {};
  return groups_in_status(text_of(fmt::format("/proc/{}/status", thread)));
}

// The command stands in brackets and may hold anything, brackets too: fields are counted behind the
// last one.
std::optional<u64> start_in_stat(std::string_view stat) {
  constexpr unsigned fields_between = 20; // state is the 3rd, starttime the 22nd
  std::size_t at = stat.rfind(')');
  for (unsigned i = 0; i < fields_between && at != std::string_view::npos; i++)
    at = stat.find(' ', at + 1);
  if (at == std::string_view::npos)
    return std::nullopt;
  return number_at<u64>(stat.substr(at + 1));
}

process_identity process_of(u32 thread) {
  if (thread == 0)
    return {};
  const std::optional<u32> pid = process_in_status(text_of(fmt::format("/proc/{}/status", thread)));
  const std::optional<u64> start = pid ? start_of(*pid) : std::nullopt;
  return start ? process_identity{*pid, *start} : process_identity{};
}

bool is_alive(const process_identity& process) {
  if (process == process_identity{})
    return true; // nobody knows
  return start_of(process.pid) == process.start;
}

std::string command_of(u32 thread) {
  const std::string text = text_of(fmt::format("/proc/{}/comm", thread));
  return text.substr(0, text.find('\n'));
}

} // namespace bgfs
