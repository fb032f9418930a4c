// SPDX-License-Identifier: MIT
// LUKS headers: what they say, headers that lie, and keys in slots.
#include "drivers/format/common/luks1_keys.h"
#include "drivers/format/common/sector_cipher.h"
#include "graph/io/spawn.h"
#include "tests/unit/drivers/crypt/hex.h"
#include "tests/unit/lib/graph_bench.h"

#include <functional>

using namespace bgfs;
using namespace bgfs::crypt;
using namespace bgfs::test;

namespace {

// An area in memory, with what was durable after each flush.
class memory_area final : public luks1_area {
public:
  explicit memory_area(u64 length) : bytes(length) {}
  task<void> read(u64 offset, std::span<std::byte> out) override {
    std::ranges::copy(std::span(bytes).subspan(offset, out.size()), out.begin());
    co_return;
  }
  task<void> write(u64 offset, std::span<const std::byte> in) override {
    if (writes_left && (*writes_left)-- == 0)
      co_await fail(error_kind::io, "the test says so");
    std::ranges::copy(in, bytes.begin() + static_cast<i64>(offset));
    steps.push_back(bytes);
    flushes_.push_back(false);
  }
  task<void> flush() override {
    if (!flushes_.empty())
      flushes_.back() = true;
    co_return;
  }
  // Whether every write was flushed before the next.
  [[nodiscard]] bool is_ordered() const {
    return std::ranges::all_of(flushes_, [](bool b) { return b; });
  }
  std::vector<std::byte> bytes;
  std::vector<std::vector<std::byte>> steps; // after each write
  std::optional<int> writes_left;

private:
  std::vector<bool> flushes_;
};

const cipher_spec small_spec{128, cipher_mode::cbc, iv_generator::essiv, hash_algorithm::sha256};

struct made_area {
  memory_area area;
  luks1_header header;
};

std::unique_ptr<made_area> make_area(graph_bench& bench, std::string_view passphrase,
                                     const cipher_spec& spec = small_spec,
                                     hash_algorithm hash = hash_algorithm::sha256) {
  const luks1_header layout = lay_out_luks1(spec, hash);
  auto made = std::make_unique<made_area>(made_area{memory_area(layout.payload_at), layout});
  made->header = bench.must(create_luks1(made->area, layout, text_bytes(passphrase), 1));
  return made;
}

std::string open_message(graph_bench& bench, luks1_area& area, const luks1_header& h,
                         std::string_view passphrase) {
  const result<opened_slot> opened = bench.run(open_luks1(area, h, text_bytes(passphrase)));
  return opened ? fmt::format("slot {}", opened->index) : opened.error().message();
}

luks1_header parsed(const std::vector<std::byte>& bytes) {
  const auto h = parse_luks1(bytes, bytes.size());
  REQUIRE_MESSAGE(h.has_value(), (h ? std::string() : h.error().message()));
  return *h;
}

using bytes = std::vector<std::byte>;

void put32(bytes& b, u64 at, u32 n) {
  store(std::span(b), be32(n), at);
}

void put_text(bytes& b, u64 at, std::string_view text) {
  std::fill_n(b.begin() + static_cast<i64>(at), 32, std::byte{0});
  std::ranges::copy(text_bytes(text), b.begin() + static_cast<i64>(at));
}

} // namespace

TEST_CASE("luks: a new header says what it was made with, and where everything lies") {
  graph_bench bench({});
  const auto made = make_area(bench, "pw", {});
  const luks1_header h = parsed(made->area.bytes);
  CHECK(h == made->header);
  CHECK(h.payload_at == 2068480);
  CHECK(h.slots[0].material_at == 4096);
  CHECK(h.slots[7].material_at == 1810432);
  CHECK(h.active_count() == 1);
  CHECK(h.digest_iterations == 1000);
  CHECK(h.uuid.size() == 36);
  CHECK(h.uuid[14] == '4');
  const value shown = describe_luks1(h);
  CHECK(*shown.find("cipher-alg")->as_text() == "aes-256");
  CHECK(*shown.find("cipher-mode")->as_text() == "xts");
  CHECK(*shown.find("ivgen-alg")->as_text() == "plain64");
  CHECK(*shown.find("hash-alg")->as_text() == "sha256");
  CHECK(*shown.find("detached-header")->as_bool() == false);
  CHECK(*shown.find("payload-offset")->as_integer() == 2068480);
  CHECK(shown.find("ivgen-hash-alg") == nullptr);
  const value::list& slots = *shown.find("slots")->as_list();
  REQUIRE(slots.size() == 8);
  CHECK(*slots[0].find("active")->as_bool());
  CHECK(*slots[0].find("stripes")->as_integer() == 4000);
  CHECK(*slots[0].find("iters")->as_integer() == h.slots[0].iterations);
  CHECK(!*slots[1].find("active")->as_bool());
  CHECK(*slots[1].find("key-offset")->as_integer() == 262144);
  CHECK(slots[1].find("iters") == nullptr);
}

TEST_CASE("luks: the passphrase opens, any other does not, and nothing says what it was") {
  graph_bench bench({});
  for (const unsigned bits : {128u, 192u, 256u}) {
    for (const hash_algorithm hash : {hash_algorithm::sha1, hash_algorithm::sha512}) {
      const auto made = make_area(bench, "correct horse", {bits}, hash);
      CHECK(open_message(bench, made->area, made->header, "correct horse") == "slot 0");
      const std::string wrong = open_message(bench, made->area, made->header, "battery staple\n");
      CHECK(wrong == "the secret opens none of the 1 active key slots; it ends with a line break, "
                     "which is a part of it");
      CHECK(open_message(bench, made->area, made->header, "") ==
            "the secret opens none of the 1 active key slots");
    }
  }
}

TEST_CASE("luks: slots are filled and erased, and the master key stays") {
  graph_bench bench({});
  const auto made = make_area(bench, "one");
  luks1_header& h = made->header;
  const opened_slot first = bench.must(open_luks1(made->area, h, text_bytes("one")));
  for (unsigned i = 1; i < luks1_slots; i++)
    bench.must(
        fill_slot(made->area, h, i, first.master_key, text_bytes(fmt::format("key {}", i)), 1));
  CHECK(parsed(made->area.bytes) == h);
  CHECK(h.active_count() == 8);
  for (unsigned i = 1; i < luks1_slots; i++) {
    const opened_slot other =
        bench.must(open_luks1(made->area, h, text_bytes(fmt::format("key {}", i))));
    CHECK(other.index == i);
    CHECK(std::ranges::equal(other.master_key.bytes(), first.master_key.bytes()));
    CHECK(bench.must(opens_slot(made->area, h, i, text_bytes(fmt::format("key {}", i)))));
    CHECK(!bench.must(opens_slot(made->area, h, i, text_bytes("one"))));
  }
  bench.must(erase_slot(made->area, h, 0));
  CHECK(open_message(bench, made->area, h, "one") ==
        "the secret opens none of the 7 active key slots");
  CHECK(open_message(bench, made->area, parsed(made->area.bytes), "key 6") == "slot 6");
  for (unsigned i = 1; i < luks1_slots; i++)
    bench.must(erase_slot(made->area, h, i));
  CHECK(open_message(bench, made->area, h, "key 1") ==
        "all key slots of the LUKS header are erased: nothing can decrypt the image any more");
  CHECK(made->area.is_ordered());
}

// A torn write leaves any sectors of it: slot 6 lies across a boundary of two.
TEST_CASE("luks: a crash while a slot is filled or erased leaves the others as they were") {
  graph_bench bench({});
  const auto made = make_area(bench, "one");
  const luks1_header before = made->header;
  const opened_slot first = bench.must(open_luks1(made->area, before, text_bytes("one")));
  made->area.steps = {made->area.bytes};
  for (const unsigned slot : {3u, 6u})
    bench.must(fill_slot(made->area, made->header, slot, first.master_key, text_bytes("two"), 1));
  for (const unsigned slot : {3u, 6u})
    bench.must(erase_slot(made->area, made->header, slot));
  const auto steps = made->area.steps;
  for (std::size_t i = 0; i + 1 < steps.size(); i++) {
    for (const bool takes_first : {false, true}) {
      bytes torn = steps[i]; // one of the first two sectors has landed
      const auto from = std::span(steps[i + 1]).subspan(takes_first ? 0 : 512, 512);
      std::ranges::copy(from, torn.begin() + (takes_first ? 0 : 512));
      memory_area area(torn.size());
      area.bytes = torn;
      const luks1_header h = parsed(torn);
      CHECK(open_message(bench, area, h, "one") == "slot 0");
      const std::string other = open_message(bench, area, h, "two");
      CHECK_MESSAGE((other.starts_with("slot") || other.contains("opens none")), other);
    }
  }
}

TEST_CASE("luks: a slot that cannot be written is not in force") {
  graph_bench bench({});
  const auto made = make_area(bench, "one");
  const opened_slot first = bench.must(open_luks1(made->area, made->header, text_bytes("one")));
  for (int writes = 0; writes < 3; writes++) {
    made->area.writes_left = writes;
    const result<> filled =
        bench.run(fill_slot(made->area, made->header, 2, first.master_key, text_bytes("two"), 1));
    REQUIRE(!filled.has_value());
    CHECK(!made->header.slots[2].is_active);
    made->area.writes_left.reset();
    CHECK(open_message(bench, made->area, parsed(made->area.bytes), "two").contains("opens none"));
  }
}

TEST_CASE("luks: an iteration time that would lock the owner out is refused") {
  graph_bench bench({});
  const luks1_header layout = lay_out_luks1(small_spec, hash_algorithm::sha256);
  luks1_header h = layout;
  for (unsigned i = 1; i < luks1_slots; i++) {
    h.slots[i].is_active = true;
    h.slots[i].iterations = luks1_iterations_max / 7;
  }
  memory_area area(layout.payload_at);
  const secret_bytes key(small_spec.key_bytes());
  const result<> filled = bench.run(fill_slot(area, h, 0, key, text_bytes("two"), 100));
  REQUIRE(!filled.has_value());
  CHECK(filled.error().message().contains("use a shorter one"));
  CHECK(area.steps.empty());
}

TEST_CASE("luks: headers that lie are refused before they cost time or memory") {
  graph_bench bench({});
  const auto made = make_area(bench, "pw");
  const bytes good = made->area.bytes;
  constexpr u64 slot1 = luks1_slots_at + sizeof(luks1_slot_wire);
  struct row {
    std::function<void(bytes&)> change;
    std::string expected;
  };
  const row rows[] = {
      {[](bytes& b) { b.resize(591); }, "there are 591 bytes where a LUKS header has 592"},
      {[](bytes& b) { b[0] = std::byte{0}; }, "there is no LUKS header"},
      {[](bytes& b) { b[7] = std::byte{2}; }, "the LUKS header is of version 2; only version 1"},
      {[](bytes& b) { put_text(b, 8, "twofish"); }, "the cipher 'twofish', which is not available"},
      {[](bytes& b) { std::fill_n(b.begin() + 8, 32, std::byte{'a'}); },
       "an unknown cipher 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'"},
      {[](bytes& b) { put_text(b, 40, "xts"); }, "the cipher mode 'xts' is not known"},
      {[](bytes& b) { put_text(b, 72, "whirlpool"); }, "uses the hash 'whirlpool'"},
      {[](bytes& b) { put32(b, 108, 0xffffffff); }, "a key of 4294967295 bytes does not fit"},
      {[](bytes& b) { put32(b, 108, 0); }, "a key of 0 bytes does not fit"},
      {[](bytes& b) { put32(b, 164, 0); }, "the digest of its key takes 0 iterations"},
      {[](bytes& b) { put32(b, 164, 0xffffffff); },
       "iterations to try all of its keys, more than 200000000"},
      {[](bytes& b) { put32(b, luks1_slots_at + 4, 0xffffffff); },
       "iterations to try all of its keys, more than 200000000"},
      {[](bytes& b) { put32(b, luks1_slots_at + 4, 0); },
       "active key slot 0 of the LUKS header has "
       "0 iterations"},
      {[](bytes& b) { put32(b, luks1_slots_at, 7); },
       "key slot 0 of the LUKS header is neither active (0x00ac71f3) nor inactive (0x0000dead), "
       "but 0x00000007"},
      {[](bytes& b) { put32(b, slot1 + 44, 0xffffffff); },
       "key slot 1 of the LUKS header has 4294967295 stripes; possible are 1 to 16384"},
      {[](bytes& b) { put32(b, slot1 + 44, 0); }, "has 0 stripes"},
      {[](bytes& b) { put32(b, slot1 + 40, 0xffffffff); },
       "the key material of slot 1 at 0x1fffffffe00 of 0xfa00 bytes reaches beyond the end"},
      {[](bytes& b) { put32(b, slot1 + 40, 1); },
       "the key material of slot 1 at 0x200 overlaps the LUKS header"},
      {[](bytes& b) { put32(b, slot1 + 40, 9); },
       "the key material of slots 0 at 0x1000 and 1 at 0x1200 of the LUKS header overlap"},
  };
  for (const row& r : rows) {
    bytes changed = good;
    r.change(changed);
    const auto h = parse_luks1(changed, changed.size());
    REQUIRE_MESSAGE(!h.has_value(), r.expected);
    CHECK_MESSAGE(h.error().message().contains(r.expected), h.error().message());
  }
  // The uuid is shown: it is made fit for that.
  bytes changed = good;
  changed[168] = std::byte{0x1b};
  CHECK(parsed(changed).uuid[0] == '?');
}
