// SPDX-License-Identifier: MIT
// From passphrases to keys and back: PBKDF2 (RFC 8018), and the anti-forensic splitter of LUKS,
// which spreads a key over so many bytes that destroying a few of them destroys it. All of it is
// CPU work without suspension, for the offload pool where it is long. Fails only where the crypto
// library does (no memory, an algorithm that was switched off).
#pragma once

#include "drivers/format/common/cipher_spec.h"
#include "graph/io/secret_bytes.h"

#include <span>

namespace bgfs::crypt {

// Fills `out`. `iterations` is at least 1; the time is proportional to it.
[[nodiscard]] result<> pbkdf2(hash_algorithm hash, std::span<const std::byte> passphrase,
                              std::span<const std::byte> salt, u32 iterations,
                              std::span<std::byte> out);

// Iterations that make a pbkdf2 of this kind take about so many milliseconds of this processor, at
// least 1000. Measures; takes some milliseconds itself.
[[nodiscard]] result<u32> measure_iterations(hash_algorithm hash, u64 key_bytes, u64 milliseconds);

// LUKS on-disk format, section 2.4. `split` is stripes * key.size() bytes long.
[[nodiscard]] result<> af_split(hash_algorithm hash, std::span<const std::byte> key, u32 stripes,
                                std::span<std::byte> split);
[[nodiscard]] result<secret_bytes> af_merge(hash_algorithm hash, std::span<const std::byte> split,
                                            u32 stripes);

// One hash of the bytes; `out` is digest_length(hash) long.
[[nodiscard]] result<> digest(hash_algorithm hash, std::span<const std::byte> bytes,
                              std::span<std::byte> out);

// From the crypto library's generator, which the system seeds.
[[nodiscard]] result<> fill_random(std::span<std::byte> bytes);

} // namespace bgfs::crypt
