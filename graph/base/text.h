// SPDX-License-Identifier: MIT
// Text that people write and read: sizes with suffixes, and what they may have meant.
#pragma once

#include "graph/base/result.h"

#include <span>
#include <string>
#include <string_view>

namespace bgfs {

// "4096", "64K", "1.5G", "0x200": suffixes b k K M G T P E are powers of 1024, b is 1; a fraction
// needs a suffix above b and is rounded down to whole bytes, as users of qemu-img are used to. The
// error names the text and what is allowed.
[[nodiscard]] result<u64> parse_size(std::string_view text);
// "64 KiB", "1.5 GiB", "512 B": as qemu-img info prints sizes.
[[nodiscard]] std::string format_size(u64 bytes);
// "5s", "10ms", "2m", "1h" or plain seconds; returns milliseconds.
[[nodiscard]] result<u64> parse_duration(std::string_view text);

// The candidate that differs least from `text`, or "" if none is near enough to suggest.
[[nodiscard]] std::string_view nearest(std::string_view text,
                                       std::span<const std::string_view> candidates);
// "; did you mean 'l2-cache-size'?" or "".
[[nodiscard]] std::string did_you_mean(std::string_view text,
                                       std::span<const std::string_view> candidates);

// How many bytes the UTF-8 character at the front of a text takes; 0: it is none (RFC 3629).
[[nodiscard]] std::size_t character_length(std::string_view text);

// What no file name, or no terminal, should hold is %XX: bytes that are not UTF-8, control
// characters, '/'. "." and ".." begin with %2E.
[[nodiscard]] std::string escape_name(std::string_view name);

} // namespace bgfs
