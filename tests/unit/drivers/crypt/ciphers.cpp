// SPDX-License-Identifier: MIT
// Names of ciphers, sectors held against published vectors, and the splitting of long runs.
#include "drivers/format/common/key_derivation.h"
#include "drivers/format/common/sector_cipher.h"
#include "graph/base/endian.h"
#include "graph/io/spawn.h"
#include "tests/unit/drivers/crypt/hex.h"
#include "tests/unit/lib/graph_bench.h"

using namespace bgfs;
using namespace bgfs::crypt;
using namespace bgfs::test;

namespace {

std::unique_ptr<sector_cipher> make_cipher(const cipher_spec& spec, std::string_view key) {
  result<std::unique_ptr<sector_cipher>> made = sector_cipher::create(spec, from_hex(key));
  REQUIRE_MESSAGE(made.has_value(), (made ? std::string() : made.error().message()));
  return *std::move(made);
}

std::string first_bytes(std::span<const std::byte> bytes, std::size_t count) {
  return to_hex(bytes.first(count));
}

std::vector<std::byte> counting() {
  std::vector<std::byte> bytes(sector_length);
  for (std::size_t i = 0; i < bytes.size(); i++)
    bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

const cipher_spec all_specs[] = {
    {128, cipher_mode::xts, iv_generator::plain64},
    {192, cipher_mode::xts, iv_generator::plain64},
    {256, cipher_mode::xts, iv_generator::essiv, hash_algorithm::sha256},
    {128, cipher_mode::cbc, iv_generator::essiv, hash_algorithm::md5},
    {192, cipher_mode::cbc, iv_generator::plain},
    {256, cipher_mode::cbc, iv_generator::plain64},
    {256, cipher_mode::ctr, iv_generator::plain64},
    {256, cipher_mode::ecb, iv_generator::plain64},
};

} // namespace

TEST_CASE("crypt: sectors in mode XTS are those of IEEE 1619") {
  struct row {
    unsigned bits;
    const char* key;
    u64 sector;
    const char* encrypted;
  };
  const row rows[] = {
      {128, "2718281828459045235360287471352631415926535897932384626433832795", 0,
       "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"},
      {256,
       "2718281828459045235360287471352662497757247093699959574966967627314159265358979323846264338"
       "3"
       "279502884197169399375105820974944592",
       0xff, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"},
  };
  for (const row& r : rows) {
    const auto cipher = make_cipher({r.bits, cipher_mode::xts, iv_generator::plain64}, r.key);
    const std::vector<std::byte> plain = counting();
    std::vector<std::byte> bytes(plain.size());
    REQUIRE(cipher->encrypt_here(r.sector, plain, bytes).has_value());
    CHECK(first_bytes(bytes, 32) == r.encrypted);
    REQUIRE(cipher->decrypt_here(r.sector, bytes).has_value());
    CHECK(bytes == plain);
  }
}

// The first block of a sector in mode CBC is one block of AES over the plain text and the
// initialisation vector: the examples of FIPS 197, with the vector taken out beforehand.
TEST_CASE("crypt: sectors in mode CBC begin with the blocks of FIPS 197") {
  struct row {
    unsigned bits;
    const char* key;
    const char* encrypted;
  };
  const row rows[] = {
      {128, "000102030405060708090a0b0c0d0e0f", "69c4e0d86a7b0430d8cdb78070b4c55a"},
      {192, "000102030405060708090a0b0c0d0e0f1011121314151617", "dda97ca4864cdfe06eaf70a0ec0d7191"},
      {256, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
       "8ea2b7ca516745bfeafc49904b496089"},
  };
  const std::vector<std::byte> text = from_hex("00112233445566778899aabbccddeeff");
  constexpr u64 sector = 0x123456789abc;
  for (const row& r : rows) {
    for (const iv_generator iv : {iv_generator::plain, iv_generator::plain64}) {
      const u64 number = iv == iv_generator::plain ? sector & 0xffffffff : sector;
      std::vector<std::byte> bytes(sector_length);
      std::ranges::copy(text, bytes.begin());
      for (unsigned i = 0; i < 8; i++)
        bytes[i] ^= static_cast<std::byte>(number >> 8 * i);
      const auto cipher = make_cipher({r.bits, cipher_mode::cbc, iv}, r.key);
      REQUIRE(cipher->encrypt_here(sector, bytes, bytes).has_value());
      CHECK(first_bytes(bytes, 16) == r.encrypted);
    }
  }
}

// The vector of ESSIV is AES of the number with the hash of the key, so that ECB undoes it.
TEST_CASE("crypt: essiv encrypts the number of the sector with a hash of the key") {
  const std::string key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
  std::vector<std::byte> hashed(32);
  REQUIRE(digest(hash_algorithm::sha256, from_hex(key), hashed).has_value());
  const auto iv_cipher =
      make_cipher({256, cipher_mode::ecb, iv_generator::plain64}, to_hex(hashed));
  std::vector<std::byte> iv(sector_length);
  store(std::span(iv), le64(77));
  REQUIRE(iv_cipher->encrypt_here(0, iv, iv).has_value());
  const auto cipher =
      make_cipher({256, cipher_mode::cbc, iv_generator::essiv, hash_algorithm::sha256}, key);
  std::vector<std::byte> bytes(sector_length); // the vector itself: it cancels out
  std::copy_n(iv.begin(), 16, bytes.begin());
  REQUIRE(cipher->encrypt_here(77, bytes, bytes).has_value());
  const auto plain = make_cipher({256, cipher_mode::ecb, iv_generator::plain64}, key);
  std::vector<std::byte> zeroes(sector_length);
  REQUIRE(plain->encrypt_here(0, zeroes, zeroes).has_value());
  CHECK(first_bytes(bytes, 16) == first_bytes(zeroes, 16));
}

TEST_CASE("crypt: a run is encrypted sector by sector, however it is cut up") {
  graph_bench bench({});
  for (const cipher_spec& spec : all_specs) {
    CAPTURE(spec.cipher_name() + "-" + spec.mode_and_iv());
    const auto key = pattern(spec.key_bytes(), 3);
    const auto made = sector_cipher::create(spec, key);
    REQUIRE(made.has_value());
    sector_cipher& cipher = **made;
    for (const u64 length : {u64{512}, sector_cipher::here_max, sector_cipher::here_max + 512,
                             sector_cipher::piece_length + 512, u64{3 * MiB + 512}}) {
      const auto plain = pattern(length, length);
      std::vector<std::byte> bytes(length);
      bench.must(cipher.encrypt(1000, plain, bytes));
      CHECK(bytes != plain);
      std::vector<std::byte> single(plain.begin(), plain.end());
      for (u64 at = 0; at < length; at += sector_length) {
        const auto part = std::span(single).subspan(at, sector_length);
        REQUIRE(cipher.encrypt_here(1000 + at / sector_length, part, part).has_value());
      }
      CHECK(bytes == single);
      bench.must(cipher.decrypt(1000, bytes));
      CHECK(bytes == plain);
    }
    if (spec.mode == cipher_mode::ecb)
      continue;
    std::vector<std::byte> twice(2 * sector_length); // equal sectors look different
    REQUIRE(cipher.encrypt_here(5, twice, twice).has_value());
    CHECK(!std::ranges::equal(std::span(twice).first(512), std::span(twice).last(512)));
  }
}

TEST_CASE("crypt: several runs are worked on side by side") {
  graph_bench bench({});
  const cipher_spec spec;
  const auto made = sector_cipher::create(spec, pattern(spec.key_bytes(), 1));
  REQUIRE(made.has_value());
  std::vector<std::vector<std::byte>> all;
  std::vector<task<void>> runs;
  for (u64 i = 0; i < 20; i++)
    all.push_back(pattern(100 * KiB, i));
  const auto before = all;
  for (u64 i = 0; i < all.size(); i++)
    runs.push_back((*made)->encrypt(i * 1000, all[i], all[i]));
  bench.must(when_all(std::move(runs)));
  for (u64 i = 0; i < all.size(); i++) {
    bench.must((*made)->decrypt(i * 1000, all[i]));
    CHECK(all[i] == before[i]);
  }
}

TEST_CASE("crypt: what a header names is taken or refused with what there is") {
  struct row {
    std::string cipher, mode;
    u64 key_bytes;
    std::string expected; // the canonical mode, or a part of the message
  };
  const row rows[] = {
      {"aes", "xts-plain64", 64, "xts-plain64"},
      {"aes", "xts-plain64:sha256", 32, "xts-plain64"}, // a hash without meaning
      {"aes", "xts-plain64", 48, "xts-plain64"},
      {"aes", "cbc-essiv:sha256", 16, "cbc-essiv:sha256"},
      {"aes", "cbc-essiv:md5", 32, "cbc-essiv:md5"},
      {"aes", "cbc-plain", 24, "cbc-plain"},
      {"aes", "ecb-plain64", 32, "ecb-plain64"},
      {"aes", "cbc-essiv:sha1", 32, "need an AES key of 20 bytes"},
      {"aes", "cbc-essiv", 32, "does not name a hash that is known"},
      {"aes", "cbc-essiv:wp512", 32, "'cbc-essiv:wp512' does not name a hash that is known"},
      {"aes", "lrw-plain", 32, "the cipher mode 'lrw-plain' is not known; known are xts, cbc"},
      {"aes", "xts", 64, "the cipher mode 'xts' is not known"},
      {"aes", "xts-benbi", 64, "the cipher mode 'xts-benbi' is not known"},
      {"aes", "", 64, "the cipher mode '' is not known"},
      {"aes", "xts-plain64", 16, "a key of 16 bytes does not fit cipher 'aes' in mode 'xts'"},
      {"aes", "cbc-plain64", 0xffffffff, "whose keys have 16, 24 or 32"},
      {"serpent", "xts-plain64", 64, "the cipher 'serpent', which is not available here"},
      {"twofish", "xts-plain64", 64, "the cipher 'twofish', which is not available here"},
      {"cast5", "cbc-plain64", 16, "the cipher 'cast5', which is not available here"},
      {"\x1b[31m", "xts-plain64", 64, "an unknown cipher '?[31m'"},
  };
  for (const row& r : rows) {
    CAPTURE(r.cipher);
    CAPTURE(r.mode);
    const result<cipher_spec> parsed = parse_cipher(r.cipher, r.mode, r.key_bytes);
    const std::string found = parsed ? parsed->mode_and_iv() : parsed.error().message();
    CHECK_MESSAGE(found.contains(r.expected), found);
    if (parsed)
      CHECK(parsed->key_bytes() == r.key_bytes);
  }
}

TEST_CASE("crypt: a key that the library refuses is an error") {
  // XTS needs two different halves.
  const std::vector<std::byte> twice(64);
  const auto made = sector_cipher::create({}, twice);
  REQUIRE(!made.has_value());
  CHECK(made.error().message().contains("'AES-256-XTS' does not take this key"));
}
