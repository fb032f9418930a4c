// SPDX-License-Identifier: MIT
#include "fuse/tree/content_time.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <sys/stat.h>
#include <sys/xattr.h>

namespace bgfs {
namespace {

constexpr const char* attribute_name = "user.bgfs.mtime";
constexpr long nanoseconds_per_second = 1'000'000'000;

bool is_before(const std::timespec& a, const std::timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

std::timespec just_after(std::timespec t) {
  if (++t.tv_nsec == nanoseconds_per_second) {
    t.tv_sec++;
    t.tv_nsec = 0;
  }
  return t;
}

std::string to_text(const std::timespec& shown, const std::timespec& of_file) {
  return fmt::format("{} {} {} {}", shown.tv_sec, shown.tv_nsec, of_file.tv_sec, of_file.tv_nsec);
}

// The shown time if the text is one that was kept for a file with this mtime.
std::optional<std::timespec> parse_kept(std::string_view text, const std::timespec& of_file) {
  std::array<i64, 4> numbers{};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (i64& number : numbers) {
    while (at != end && *at == ' ')
      at++;
    const auto [next, bad] = std::from_chars(at, end, number);
    if (bad != std::errc{})
      return std::nullopt;
    at = next;
  }
  const bool belongs = numbers[2] == of_file.tv_sec && numbers[3] == of_file.tv_nsec;
  if (at != end || !belongs || numbers[1] < 0 || numbers[1] >= nanoseconds_per_second)
    return std::nullopt;
  return std::timespec{numbers[0], numbers[1]};
}

} // namespace

std::timespec content_time::shown() {
  if (is_changed_) {
    is_changed_ = false;
    const std::timespec next = just_after(shown_);
    shown_ = is_before(next, last_change_) ? last_change_ : next;
  }
  return shown_;
}

std::optional<std::timespec> load_content_time(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0)
    return std::nullopt;
  std::array<char, 128> text{};
  const ssize_t length = getxattr(path.c_str(), attribute_name, text.data(), text.size());
  if (length > 0) {
    const auto kept = parse_kept({text.data(), static_cast<std::size_t>(length)}, status.st_mtim);
    if (kept)
      return kept;
  }
  return status.st_mtim;
}

void keep_content_time(const std::string& path, std::timespec time) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode))
    return;
  const std::string text = to_text(time, status.st_mtim);
  // Where it cannot be kept, the file's own mtime is shown after a remount: later, never wrong.
  (void)setxattr(path.c_str(), attribute_name, text.data(), text.size(), 0);
}

} // namespace bgfs
