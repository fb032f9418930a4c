// SPDX-License-Identifier: MIT
// Bytes as published vectors write them.
#pragma once

#include "graph/base/ints.h"

#include <fmt/format.h>

#include <span>
#include <string>
#include <vector>

namespace bgfs::test {

inline std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(
        static_cast<std::byte>(std::stoul(std::string(text.substr(i, 2)), nullptr, 16)));
  return bytes;
}

inline std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes)
    text += fmt::format("{:02x}", std::to_integer<unsigned>(b));
  return text;
}

inline std::span<const std::byte> text_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

} // namespace bgfs::test
