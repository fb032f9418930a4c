// SPDX-License-Identifier: MIT
#include "drivers/format/common/key_derivation.h"

#include "tests/unit/drivers/crypt/hex.h"
#include "tests/unit/lib/graph_bench.h"

using namespace bgfs;
using namespace bgfs::crypt;
using namespace bgfs::test;

TEST_CASE("crypt: PBKDF2 makes the keys of RFC 6070 and RFC 7914") {
  struct row {
    hash_algorithm hash;
    std::string passphrase, salt;
    u32 iterations;
    std::string key;
  };
  const row rows[] = {
      {hash_algorithm::sha1, "password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
      {hash_algorithm::sha1, "password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
      {hash_algorithm::sha1, "password", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1"},
      {hash_algorithm::sha1, "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt",
       4096, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
      {hash_algorithm::sha256, "passwd", "salt", 1,
       "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
       "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
      {hash_algorithm::sha256, "Password", "NaCl", 80000,
       "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"
       "a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"},
  };
  for (const row& r : rows) {
    std::vector<std::byte> key(r.key.size() / 2);
    REQUIRE(pbkdf2(r.hash, text_bytes(r.passphrase), text_bytes(r.salt), r.iterations, key)
                .has_value());
    CHECK(to_hex(key) == r.key);
  }
}

TEST_CASE("crypt: every hash is there, and as long as its name says") {
  for (const std::string_view name : hash_names) {
    CAPTURE(name);
    const auto hash = find_hash(name);
    REQUIRE(hash.has_value());
    CHECK(to_string(*hash) == name);
    std::vector<std::byte> out(digest_length(*hash));
    const result<> done = digest(*hash, text_bytes("abc"), out);
    REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
    if (name == "sha256")
      CHECK(to_hex(out) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    if (name == "ripemd160")
      CHECK(to_hex(out) == "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc");
  }
  CHECK(!find_hash("whirlpool").has_value());
}

TEST_CASE("crypt: a key that was split is found again, and not from a part of it") {
  for (const hash_algorithm hash : {hash_algorithm::sha1, hash_algorithm::sha512}) {
    for (const u64 length : {16u, 24u, 32u, 64u}) {
      const auto key = pattern(length, length);
      for (const u32 stripes : {1u, 2u, 4000u}) {
        std::vector<std::byte> split(length * stripes);
        REQUIRE(af_split(hash, key, stripes, split).has_value());
        const auto merged = af_merge(hash, split, stripes);
        REQUIRE(merged.has_value());
        CHECK(std::ranges::equal(merged->bytes(), key));
        split[length * stripes / 2] ^= std::byte{1};
        const auto damaged = af_merge(hash, split, stripes);
        REQUIRE(damaged.has_value());
        CHECK(!std::ranges::equal(damaged->bytes(), key));
      }
    }
  }
}

TEST_CASE("crypt: iterations follow the time that they may take, and are never few") {
  const auto few = measure_iterations(hash_algorithm::sha512, 64, 0);
  const auto some = measure_iterations(hash_algorithm::sha256, 32, 20);
  const auto many = measure_iterations(hash_algorithm::sha256, 32, 2000);
  REQUIRE(few.has_value());
  REQUIRE(some.has_value());
  REQUIRE(many.has_value());
  CHECK(*few == 1000);
  CHECK(*some >= 1000);
  CHECK(*many > *some * 10);
}

TEST_CASE("secret bytes are compared, shortened and wiped") {
  const auto bytes = pattern(5000, 1);
  secret_bytes s{std::span<const std::byte>(bytes)};
  CHECK(is_equal_secretly(s.bytes(), bytes));
  CHECK(!is_equal_secretly(s.bytes(), std::span(bytes).first(4999)));
  std::byte* const at = s.bytes().data();
  s.shorten(10);
  CHECK(s.length() == 10);
  CHECK(at[10] == std::byte{0});
  CHECK(at[4999] == std::byte{0});
  secret_bytes moved = std::move(s);
  CHECK(moved.bytes().data() == at);
  CHECK(s.length() == 0); // NOLINT: what is left of it
}
