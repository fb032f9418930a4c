// SPDX-License-Identifier: MIT
// How an encrypted image says what it is encrypted with: names of ciphers, modes, generators of
// initialisation vectors and hashes, as LUKS headers hold them and as create options take them.
#pragma once

#include "graph/base/result.h"

#include <optional>
#include <span>
#include <string>

namespace bgfs::crypt {

enum class cipher_mode : u8 { xts, cbc, ctr, ecb };
// What makes an initialisation vector of a sector's number: its low 32 bits, all of it, or all of
// it encrypted with a hash of the key.
enum class iv_generator : u8 { plain, plain64, essiv };
enum class hash_algorithm : u8 { md5, sha1, sha224, sha256, sha384, sha512, ripemd160 };

[[nodiscard]] std::string_view to_string(cipher_mode mode);
[[nodiscard]] std::string_view to_string(iv_generator generator);
[[nodiscard]] std::string_view to_string(hash_algorithm hash);
[[nodiscard]] u64 digest_length(hash_algorithm hash);
[[nodiscard]] std::optional<hash_algorithm> find_hash(std::string_view name);

// The choices of options; in the order of the enumerations.
extern const std::span<const std::string_view> mode_names;
extern const std::span<const std::string_view> iv_generator_names;
extern const std::span<const std::string_view> hash_names;

// AES is the only cipher: see parse_cipher for what becomes of others.
struct cipher_spec {
  unsigned key_bits = 256; // of AES: 128, 192 or 256; a key in mode XTS is twice as long
  cipher_mode mode = cipher_mode::xts;
  iv_generator iv = iv_generator::plain64;
  hash_algorithm iv_hash = hash_algorithm::sha256; // of essiv

  [[nodiscard]] u64 key_bytes() const {
    return u64{key_bits} / 8 * (mode == cipher_mode::xts ? 2 : 1);
  }
  [[nodiscard]] std::string cipher_name() const; // "aes-256"
  [[nodiscard]] std::string mode_and_iv() const; // "xts-plain64", "cbc-essiv:sha256"
  friend bool operator==(const cipher_spec&, const cipher_spec&) = default;
};

// The longest key of any spec, in bytes.
inline constexpr u64 key_bytes_max = 64;

// Whether the parts fit together: essiv needs a hash as long as an AES key.
[[nodiscard]] result<> check_cipher(const cipher_spec& spec);

// `cipher`: "aes"; `mode`: "xts-plain64"; as a LUKS header has them, which may say anything. Fails
// with error_kind::unsupported for ciphers, modes and hashes that are known but not available here,
// and names what is.
[[nodiscard]] result<cipher_spec> parse_cipher(std::string_view cipher, std::string_view mode,
                                               u64 key_bytes);

// Text of an untrusted header, fit for a message: cut short, and nothing but printable ASCII.
[[nodiscard]] std::string printable(std::string_view text);

} // namespace bgfs::crypt
