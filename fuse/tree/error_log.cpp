// SPDX-License-Identifier: MIT
#include "fuse/tree/error_log.h"

#include "fuse/reply.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

namespace bgfs {
namespace {

// A sentence is one line of the file: control bytes in names (a path may hold any) are shown.
std::string on_one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out;
}

} // namespace

std::string format_time(const std::timespec& time) {
  std::tm parts{};
  gmtime_r(&time.tv_sec, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

void error_log::add(u32 pid, std::string_view verb, const error& e) {
  std::timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const int os_error = errno_of(e);
  std::string sentence = on_one_line(e.message());
  if (!entries_.empty()) {
    entry& last = entries_.back();
    if (last.pid == pid && last.verb == verb && last.sentence == sentence) {
      last.time = now;
      last.count++;
      return;
    }
  }
  if (entries_.size() == kept_max)
    entries_.pop_front();
  entries_.push_back({now, pid, std::string(verb), os_error, std::move(sentence), 1});
}

std::string error_log::text() const {
  std::string out;
  for (const entry& e : entries_) {
    const char* name = strerrorname_np(e.os_error);
    out += fmt::format("{} {} {} {} {}", format_time(e.time), e.pid, e.verb,
                       name != nullptr ? name : "EIO", e.sentence);
    out += e.count > 1 ? fmt::format(" ({} times)\n", e.count) : "\n";
  }
  return out;
}

} // namespace bgfs
