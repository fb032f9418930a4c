// SPDX-License-Identifier: MIT
// The small language of `bgfs io`: how its commands are taken apart and what their results look
// like. Both are those of the tool its users come from, to the byte, since scripts read them.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/result.h"

#include <chrono>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace bgfs {

// Words between spaces; there is no quoting.
[[nodiscard]] std::vector<std::string> split_words(const std::string& line);

// "-P 1 -q 0 64k" against "qP:": letters with a colon take a value.
struct io_words {
  std::map<char, std::string> flags;
  std::vector<std::string> operands;
  [[nodiscard]] bool has(char letter) const { return flags.contains(letter); }
};
// The error is "invalid option -- 'x'" and the like.
[[nodiscard]] result<io_words> parse_io_words(std::span<const std::string> given,
                                              std::string_view letters);

// A size; the error is the sentence scripts know.
[[nodiscard]] result<u64> parse_io_number(const std::string& text);
// A byte: decimal, or 0x and hex digits.
[[nodiscard]] result<u8> parse_pattern(const std::string& text);

// "64 KiB", "3.003 KiB", "0 bytes".
[[nodiscard]] std::string io_size(double bytes);

struct io_outcome {
  std::string_view verb; // "read", "wrote", "discard"
  u64 offset = 0;
  u64 length = 0;
  std::chrono::steady_clock::duration elapsed{};
};
// The two lines for people, or the one for programs.
[[nodiscard]] std::string report_io(const io_outcome& outcome, bool is_for_programs);

// Lines of 16 bytes with their offsets, in hex and as characters.
[[nodiscard]] std::string dump_bytes(u64 offset, std::span<const std::byte> bytes);

// The words of the operating system for what went wrong.
[[nodiscard]] std::string os_words(const error& e);

} // namespace bgfs
