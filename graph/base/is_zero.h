// SPDX-License-Identifier: MIT
// Whether bytes are all zero: what detect-zeroes, convert and copies ask of everything they write.
#pragma once

#include <cstddef>
#include <span>

namespace bgfs {

// True if every byte is zero, so also without any. Looks no further than a block of 256 bytes
// behind the first that is not.
[[nodiscard]] bool is_zero(std::span<const std::byte> bytes);

} // namespace bgfs
