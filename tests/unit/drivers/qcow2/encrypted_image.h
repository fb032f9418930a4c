// SPDX-License-Identifier: MIT
// Encrypted images for tests, and a second way to decrypt them: sector by sector, straight through
// the crypto library, to hold the driver against.
#pragma once

#include "drivers/format/common/luks1_keys.h"
#include "tests/unit/drivers/qcow2/image_checker.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

#include <openssl/evp.h>

namespace bgfs::test {

inline constexpr std::string_view test_passphrase = "passphrase of the tests";

// The least key material, so that images stay small, and the least time.
inline option_list small_luks(option_list create) {
  for (const char* const given :
       {"cipher-alg=aes-128", "cipher-mode=cbc", "ivgen-alg=plain64", "iter-time=1"}) {
    const std::string text = given;
    const auto equals = text.find('=');
    create.emplace_back("encrypt." + text.substr(0, equals), text.substr(equals + 1));
  }
  return create;
}

inline option_list create_options(const std::string& format, option_list create) {
  if (format != "luks")
    return create;
  create.emplace_back("encrypt.format", "luks");
  create.emplace_back("encrypt.key-secret", "sec0");
  return create;
}

inline option_list open_options(const std::string& format, option_list open) {
  if (!format.empty())
    open.emplace_back("encrypt.key-secret", "sec0");
  return open;
}

// Images of this kind are not made any more: an empty one becomes one.
inline void make_legacy(memory_disk& disk) {
  store(std::span(disk.bytes), be32(1), 32);
}

// The LUKS header within an image in memory.
class area_of_image final : public crypt::luks1_area {
public:
  area_of_image(std::span<std::byte> image, u64 at) : bytes_(image.subspan(at)) {}
  task<void> read(u64 offset, std::span<std::byte> out) override {
    std::ranges::copy(bytes_.subspan(offset, out.size()), out.begin());
    co_return;
  }
  task<void> write(u64, std::span<const std::byte>) override { co_return; }
  task<void> flush() override { co_return; }

private:
  std::span<std::byte> bytes_;
};

inline u64 luks_header_at(std::span<const std::byte> image) {
  u64 at = load<be32>(image, 4) < 3 ? 72 : load<be32>(image, 100).get();
  while (load<be32>(image, at) != 0x0537be77)
    at += 8 + (load<be32>(image, at + 4) + 7) / 8 * 8;
  return load<be64>(image, at + 8);
}

inline void decrypt_sectors(const char* name, std::span<const std::byte> key, u64 first,
                            std::span<std::byte> bytes) {
  EVP_CIPHER_CTX* const c = EVP_CIPHER_CTX_new();
  for (u64 at = 0; at < bytes.size(); at += 512) {
    std::array<unsigned char, 16> iv{};
    for (unsigned i = 0; i < 8; i++)
      iv[i] = static_cast<unsigned char>((first + at / 512) >> 8 * i);
    auto* const in_place = reinterpret_cast<unsigned char*>(bytes.data() + at);
    int count = 0;
    REQUIRE(EVP_DecryptInit(c, EVP_get_cipherbyname(name),
                            reinterpret_cast<const unsigned char*>(key.data()), iv.data()) == 1);
    EVP_CIPHER_CTX_set_padding(c, 0);
    REQUIRE(EVP_DecryptUpdate(c, in_place, &count, in_place, 512) == 1);
  }
  EVP_CIPHER_CTX_free(c);
}

// Of images made with create_options or small_luks. Empty: not encrypted.
inline decryption decryption_of(graph_bench& bench, const std::string& format, memory_disk& disk) {
  if (format == "aes")
    return [](u64 guest, u64, std::span<std::byte> bytes) {
      decrypt_sectors("AES-128-CBC", std::as_bytes(std::span(test_passphrase)).first(16),
                      guest / 512, bytes);
    };
  if (format != "luks")
    return {};
  const u64 at = luks_header_at(disk.bytes);
  const auto h = crypt::parse_luks1(std::span(disk.bytes).subspan(at), disk.bytes.size() - at);
  REQUIRE(h.has_value());
  area_of_image area(disk.bytes, at);
  const crypt::opened_slot opened =
      bench.must(crypt::open_luks1(area, *h, std::as_bytes(std::span(test_passphrase))));
  const auto bytes = opened.master_key.bytes();
  const std::vector<std::byte> key(bytes.begin(), bytes.end());
  const char* const name =
      h->cipher.mode == crypt::cipher_mode::xts ? "AES-256-XTS" : "AES-128-CBC";
  return [key, name](u64, u64 host, std::span<std::byte> part) {
    decrypt_sectors(name, key, host / 512, part);
  };
}

} // namespace bgfs::test
