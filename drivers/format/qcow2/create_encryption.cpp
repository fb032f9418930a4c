// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/create_encryption.h"

#include "drivers/format/common/luks1_keys.h"

#include <algorithm>

namespace bgfs::qcow2 {

namespace {

template<class Enum>
Enum chosen(std::span<const std::string_view> names, const std::string& name) {
  return static_cast<Enum>(std::ranges::find(names, name) - names.begin());
}

result<crypt::cipher_spec> read_cipher(const options& given) {
  crypt::cipher_spec spec;
  const std::string& cipher = given.text("encrypt.cipher-alg");
  spec.key_bits = cipher == "aes-128" ? 128 : cipher == "aes-192" ? 192 : 256;
  spec.mode = chosen<crypt::cipher_mode>(crypt::mode_names, given.text("encrypt.cipher-mode"));
  spec.iv = chosen<crypt::iv_generator>(crypt::iv_generator_names, given.text("encrypt.ivgen-alg"));
  if (spec.mode == crypt::cipher_mode::ecb || spec.mode == crypt::cipher_mode::ctr)
    return fail(error_kind::unsupported,
                "{}'encrypt.cipher-mode' {} shows which sectors are alike or what has changed in "
                "them, so no new images are made with it; use xts, or cbc with essiv",
                given.mark("encrypt.cipher-mode").prefix(), crypt::to_string(spec.mode));
  const std::string& iv_hash = given.text("encrypt.ivgen-hash-alg");
  if (!iv_hash.empty() && spec.iv != crypt::iv_generator::essiv)
    return fail(error_kind::invalid_argument,
                "{}'encrypt.ivgen-hash-alg' is for 'encrypt.ivgen-alg=essiv'; it means nothing "
                "with '{}'",
                given.mark("encrypt.ivgen-hash-alg").prefix(), crypt::to_string(spec.iv));
  if (!iv_hash.empty())
    spec.iv_hash = chosen<crypt::hash_algorithm>(crypt::hash_names, iv_hash);
  BGFS_CHECK(crypt::check_cipher(spec));
  return spec;
}

} // namespace

result<std::optional<new_encryption>> read_encryption(const options& given,
                                                      const secret_store* secrets) {
  const std::string& format = given.text("encrypt.format");
  if (given.is_set("encryption") && !format.empty())
    return fail(error_kind::invalid_argument,
                "{}'encryption' and 'encrypt.format' say the same thing twice; leave 'encryption' "
                "out",
                given.mark("encryption").prefix());
  const bool is_legacy = given.flag("encryption");
  if (format.empty() && !is_legacy) {
    for (const option& o : encryption_options)
      if (given.is_set(o.name) && o.name != "encryption")
        return fail(error_kind::invalid_argument,
                    "{}'{}' is given without 'encrypt.format=luks', so that nothing would be "
                    "encrypted",
                    given.mark(o.name).prefix(), o.name);
    return std::nullopt;
  }
  if (format == "aes" || is_legacy)
    return fail(error_kind::unsupported,
                "{}encryption with aes protects too little to make new images with it: the "
                "passphrase itself is the key, and equal sectors can be told; use luks",
                given.mark(is_legacy ? "encryption" : "encrypt.format").prefix());
  if (!given.is_set("encrypt.key-secret"))
    return fail(error_kind::invalid_argument,
                "{}'encrypt.format' needs 'encrypt.key-secret', the id of the secret to encrypt "
                "with",
                given.mark("encrypt.format").prefix());
  new_encryption made;
  BGFS_TRY(made.passphrase, find_secret(secrets, given, "encrypt.key-secret"));
  BGFS_TRY(made.cipher, read_cipher(given));
  made.hash = chosen<crypt::hash_algorithm>(crypt::hash_names, given.text("encrypt.hash-alg"));
  made.iteration_time_ms = given.number("encrypt.iter-time");
  return made;
}

// Before the names of features, where everybody puts it: all that matters lies in one sector.
result<std::vector<std::byte>> serialise_with_pointer(header h, byte_range place) {
  const auto names =
      std::ranges::find(h.extensions, extension_type::feature_names, &header_extension::type);
  h.extensions.insert(names, make_crypto_header(place));
  if (auto bytes = serialise_header(h))
    return bytes;
  std::erase_if(h.extensions,
                [](const auto& e) { return e.type == extension_type::feature_names; });
  return serialise_header(h);
}

} // namespace bgfs::qcow2
