// SPDX-License-Identifier: MIT
#include "config/commands/io_text.h"

#include "graph/base/text.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace bgfs {

std::vector<std::string> split_words(const std::string& line) {
  std::vector<std::string> words;
  std::size_t at = 0;
  while ((at = line.find_first_not_of(" \t\r\n", at)) != std::string::npos) {
    const std::size_t end = std::min(line.find_first_of(" \t\r\n", at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

namespace {

// Takes the flags of one word "-qP1"; a value may be the next word.
result<> take_flags(std::string_view letters_given, std::span<const std::string>& rest,
                    std::string_view letters, io_words& into) {
  while (!letters_given.empty()) {
    const char letter = letters_given[0];
    letters_given.remove_prefix(1);
    const auto at = letter == ':' ? std::string_view::npos : letters.find(letter);
    if (at == std::string_view::npos)
      return fail(error_kind::invalid_argument, "invalid option -- '{}'", letter);
    const bool has_value = at + 1 < letters.size() && letters[at + 1] == ':';
    if (!has_value) {
      into.flags[letter] = "";
      continue;
    }
    if (letters_given.empty() && rest.empty())
      return fail(error_kind::invalid_argument, "option requires an argument -- '{}'", letter);
    if (letters_given.empty()) {
      into.flags[letter] = rest.front();
      rest = rest.subspan(1);
    } else {
      into.flags[letter] = letters_given;
    }
    return {};
  }
  return {};
}

} // namespace

result<io_words> parse_io_words(std::span<const std::string> given, std::string_view letters) {
  io_words words;
  while (!given.empty()) {
    const std::string& word = given.front();
    given = given.subspan(1);
    if (word == "--") {
      words.operands.insert(words.operands.end(), given.begin(), given.end());
      break;
    }
    if (word.size() > 1 && word[0] == '-') {
      BGFS_CHECK(take_flags(std::string_view(word).substr(1), given, letters, words));
    } else {
      words.operands.push_back(word);
    }
  }
  return words;
}

result<u64> parse_io_number(const std::string& text) {
  const result<u64> number = parse_size(text);
  if (!number)
    return fail(error_kind::invalid_argument,
                "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {}",
                text);
  if (*number > ~u64{0} >> 1)
    return fail(error_kind::invalid_argument, "Parsing error: argument too large -- {}", text);
  return *number;
}

result<u8> parse_pattern(const std::string& text) {
  const bool is_hex = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = std::string_view(text).substr(is_hex ? 2 : 0);
  u32 number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [after, problem] = std::from_chars(digits.data(), end, number, is_hex ? 16 : 10);
  if (digits.empty() || problem != std::errc() || after != end || number > 255)
    return fail(error_kind::invalid_argument, "{} is not a valid pattern byte", text);
  return static_cast<u8>(number);
}

std::string io_size(double bytes) {
  static constexpr std::array<std::string_view, 6> units = {" KiB", " MiB", " GiB",
                                                            " TiB", " PiB", " EiB"};
  if (bytes < 1024) {
    std::string text = fmt::format("{:f}", bytes);
    if (text.ends_with(".000000"))
      text.resize(text.size() - 7);
    return text + " bytes";
  }
  std::size_t unit = 0;
  double number = bytes / 1024;
  while (number >= 1024 && unit + 1 < units.size()) {
    number /= 1024;
    unit++;
  }
  std::string text = fmt::format("{:.3f}", number);
  if (text.ends_with(".000"))
    text.resize(text.size() - 4);
  return text + std::string(units.at(unit));
}

namespace {

struct clock_time {
  u64 hours;
  unsigned minutes;
  unsigned seconds;
  unsigned hundredths;
};

clock_time split_time(double seconds) {
  const auto hundredths = static_cast<u64>(seconds * 100);
  return {hundredths / 360'000, static_cast<unsigned>(hundredths / 6000 % 60),
          static_cast<unsigned>(hundredths / 100 % 60), static_cast<unsigned>(hundredths % 100)};
}

} // namespace

std::string report_io(const io_outcome& outcome, bool is_for_programs) {
  const double seconds =
      std::max(std::chrono::duration<double>(outcome.elapsed).count(), 1e-9); // divided by
  const double per_second = static_cast<double>(outcome.length) / seconds;
  const clock_time t = split_time(seconds);
  const std::string long_time =
      fmt::format("{}:{:02}:{:02}.{:02}", t.hours, t.minutes, t.seconds, t.hundredths);
  if (is_for_programs)
    return fmt::format("{},1,{},{:.3f},{:.3f}\n", outcome.length, long_time, per_second,
                       1 / seconds);
  const bool is_short = t.hours == 0 && t.minutes == 0;
  const std::string time =
      is_short ? fmt::format("{:02}.{:02} sec", t.seconds, t.hundredths) : long_time;
  return fmt::format("{} {}/{} bytes at offset {}\n{}, 1 ops; {} ({}/sec and {:.4f} ops/sec)\n",
                     outcome.verb, outcome.length, outcome.length, outcome.offset,
                     io_size(static_cast<double>(outcome.length)), time, io_size(per_second),
                     1 / seconds);
}

std::string dump_bytes(u64 offset, std::span<const std::byte> bytes) {
  std::string text;
  while (!bytes.empty()) {
    const auto line = bytes.first(std::min<std::size_t>(bytes.size(), 16));
    std::string characters;
    text += fmt::format("{:08x}:  ", offset);
    for (const std::byte b : line) {
      const auto c = static_cast<char>(b);
      text += fmt::format("{:02x} ", static_cast<u8>(b));
      characters += c >= 0x20 && c < 0x7f ? c : '.';
    }
    text += fmt::format(" {}\n", characters);
    bytes = bytes.subspan(line.size());
    offset += line.size();
  }
  return text;
}

namespace {

int errno_of(const error& e) {
  if (e.os_error() != 0)
    return e.os_error();
  switch (e.kind()) {
  case error_kind::io:
  case error_kind::invalid_image:
  case error_kind::corrupt_image:
  case error_kind::out_of_range: // a request past the end, to the tools before this one
    return EIO;
  case error_kind::no_space:
    return ENOSPC;
  case error_kind::invalid_argument:
    return EINVAL;
  case error_kind::unsupported:
    return ENOTSUP;
  case error_kind::permission:
    return EPERM;
  case error_kind::busy:
    return EBUSY;
  case error_kind::not_found:
    return ENOENT;
  case error_kind::cancelled:
    return ECANCELED;
  }
  return EIO;
}

} // namespace

std::string os_words(const error& e) {
  return std::strerror(errno_of(e)); // NOLINT(concurrency-mt-unsafe): glibc's is thread safe
}

} // namespace bgfs
