// SPDX-License-Identifier: MIT
#include "drivers/format/common/cipher_spec.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace bgfs::crypt {

namespace {

constexpr std::string_view mode_list[] = {"xts", "cbc", "ctr", "ecb"};
constexpr std::string_view iv_generator_list[] = {"plain", "plain64", "essiv"};
constexpr std::string_view hash_list[] = {"md5",    "sha1",   "sha224",   "sha256",
                                          "sha384", "sha512", "ripemd160"};
constexpr u64 digest_lengths[] = {16, 20, 28, 32, 48, 64, 20};

// Ciphers that others encrypt images with.
constexpr std::string_view foreign_ciphers[] = {"serpent", "twofish",  "cast5", "cast6",
                                                "des",     "des3_ede", "sm4",   "camellia"};

template<class Enum>
std::optional<Enum> find_name(std::span<const std::string_view> names, std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end())
    return std::nullopt;
  return static_cast<Enum>(found - names.begin());
}

} // namespace

const std::span<const std::string_view> mode_names = mode_list;
const std::span<const std::string_view> iv_generator_names = iv_generator_list;
const std::span<const std::string_view> hash_names = hash_list;

std::string_view to_string(cipher_mode mode) {
  return mode_list[static_cast<std::size_t>(mode)];
}

std::string_view to_string(iv_generator generator) {
  return iv_generator_list[static_cast<std::size_t>(generator)];
}

std::string_view to_string(hash_algorithm hash) {
  return hash_list[static_cast<std::size_t>(hash)];
}

u64 digest_length(hash_algorithm hash) {
  return digest_lengths[static_cast<std::size_t>(hash)];
}

std::optional<hash_algorithm> find_hash(std::string_view name) {
  return find_name<hash_algorithm>(hash_list, name);
}

std::string cipher_spec::cipher_name() const {
  return fmt::format("aes-{}", key_bits);
}

std::string cipher_spec::mode_and_iv() const {
  if (iv != iv_generator::essiv)
    return fmt::format("{}-{}", to_string(mode), to_string(iv));
  return fmt::format("{}-{}:{}", to_string(mode), to_string(iv), to_string(iv_hash));
}

std::string printable(std::string_view text) {
  constexpr std::size_t shown_max = 40;
  std::string shown(text.substr(0, shown_max));
  std::ranges::replace_if(shown, [](char c) { return c < ' ' || c > '~'; }, '?');
  return shown;
}

result<> check_cipher(const cipher_spec& spec) {
  if (spec.iv != iv_generator::essiv)
    return {};
  const u64 length = digest_length(spec.iv_hash);
  if (length == 16 || length == 24 || length == 32)
    return {};
  return fail(error_kind::invalid_argument,
              "the initialisation vectors of 'essiv:{}' need an AES key of {} bytes, and there are "
              "only keys of 16, 24 and 32; a hash that fits is sha256",
              to_string(spec.iv_hash), length);
}

result<cipher_spec> parse_cipher(std::string_view cipher, std::string_view mode, u64 key_bytes) {
  if (cipher != "aes") {
    const bool is_known = std::ranges::find(foreign_ciphers, cipher) != std::end(foreign_ciphers);
    return fail(error_kind::unsupported,
                "it is encrypted with {} '{}', which is not available here; there is aes with keys "
                "of 128, 192 or 256 bits{}",
                is_known ? "the cipher" : "an unknown cipher", printable(cipher),
                is_known ? "; copy the image with a program that has it, such as 'qemu-img convert'"
                         : "");
  }
  const auto dash = mode.find('-');
  const auto colon = mode.find(':');
  const std::string_view iv_name =
      dash == std::string_view::npos ? std::string_view() : mode.substr(dash + 1, colon - dash - 1);
  const auto known_mode = find_name<cipher_mode>(mode_list, mode.substr(0, dash));
  const auto known_iv = find_name<iv_generator>(iv_generator_list, iv_name);
  if (!known_mode || !known_iv)
    return fail(error_kind::unsupported,
                "the cipher mode '{}' is not known; known are {} followed by -{}", printable(mode),
                fmt::join(mode_list, ", "), fmt::join(iv_generator_list, ", -"));
  cipher_spec spec{.mode = *known_mode, .iv = *known_iv};
  if (spec.iv == iv_generator::essiv) {
    const std::string_view name =
        colon == std::string_view::npos ? std::string_view() : mode.substr(colon + 1);
    const auto hash = find_hash(name);
    if (!hash)
      return fail(error_kind::unsupported,
                  "the cipher mode '{}' does not name a hash that is known; known are {}",
                  printable(mode), fmt::join(hash_list, ", "));
    spec.iv_hash = *hash;
  }
  for (const unsigned bits : {128u, 192u, 256u}) {
    spec.key_bits = bits;
    if (spec.key_bytes() != key_bytes)
      continue;
    BGFS_CHECK(check_cipher(spec));
    return spec;
  }
  return fail(error_kind::unsupported,
              "a key of {} bytes does not fit cipher 'aes' in mode '{}', whose keys have {}",
              key_bytes, to_string(spec.mode),
              spec.mode == cipher_mode::xts ? "32, 48 or 64" : "16, 24 or 32");
}

} // namespace bgfs::crypt
