// SPDX-License-Identifier: MIT
#include "graph/base/is_zero.h"

#include "graph/base/ints.h"

#include <doctest/doctest.h>

#include <vector>

using namespace bgfs;

TEST_CASE("is_zero: one byte anywhere counts, at every alignment and in every tail") {
  std::vector<std::byte> memory(2048);
  std::vector<std::size_t> lengths;
  for (std::size_t n = 0; n < 20; n++)
    lengths.push_back(n);
  for (const std::size_t n : {63, 64, 255, 256, 257, 264, 511, 512, 513, 767, 777})
    lengths.push_back(n);
  for (std::size_t at = 32; at < 32 + 33; at++) {
    for (const std::size_t length : lengths) {
      // What lies right before and behind does not matter.
      memory[at - 1] = memory[at + length] = std::byte{0xff};
      const std::span<std::byte> bytes = std::span(memory).subspan(at, length);
      std::size_t wrong = is_zero(bytes) ? 0 : 1;
      for (std::size_t i = 0; i < length; i++) {
        bytes[i] = std::byte{static_cast<unsigned char>(1U << i % 8)};
        wrong += is_zero(bytes) ? 1 : 0;
        bytes[i] = std::byte{0};
      }
      CAPTURE(at);
      CAPTURE(length);
      CHECK(wrong == 0);
      memory[at - 1] = memory[at + length] = std::byte{0};
    }
  }
}
