// SPDX-License-Identifier: MIT
// The race that the reference warns of (3.6): a write has its subcluster allocated and its data
// under way, nothing is linked yet, and somebody discards, zeroes or writes the cluster that it
// lies in. Who looked at the entry without waiting would see it unallocated or zero, and take away
// or miss what is about to be there (Q7).
#include "graph/io/sync.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 16384;
constexpr u64 sub = cluster / 32;
constexpr u64 at = 2 * cluster; // of the cluster everybody wants
constexpr byte_range slow{at + 3 * sub + 100, 200};
constexpr byte_range elsewhere{6 * cluster, cluster};

enum class act : u8 { write, zero, zero_unmapping, discard };

struct contender {
  const char* name;
  act what;
  byte_range range;
};

const contender contenders[] = {
    {"discard of the cluster", act::discard, {at, cluster}},
    {"discard of it and its neighbours", act::discard, {at - cluster, 3 * cluster}},
    {"zeroes over the subcluster", act::zero, {at + 2 * sub, 4 * sub}},
    {"unmapping zeroes over the subcluster", act::zero_unmapping, {at + 2 * sub, 4 * sub}},
    {"unmapping zeroes over the cluster", act::zero_unmapping, {at, cluster}},
    {"unmapping zeroes beside the subcluster", act::zero_unmapping, {at + 8 * sub, 24 * sub}},
    {"zeroes of a part of the subcluster", act::zero, {at + 3 * sub + 50, 100}},
    {"zeroes from within the subcluster on", act::zero_unmapping, {at + 3 * sub + 350, 2 * sub}},
    {"write beside the data", act::write, {at + 3 * sub + 400, 50}},
    {"write over the data", act::write, {at + 3 * sub + 200, 300}},
    {"write of another subcluster", act::write, {at + 10 * sub + 7, 90}},
    {"write of the cluster", act::write, {at, cluster}},
};

// What the cluster is before.
struct condition {
  const char* name;
  std::vector<contender> steps;
};

const condition conditions[] = {
    {"unallocated", {}},
    {"another subcluster is allocated", {{"", act::write, {at, sub}}}},
    {"zero subclusters, no cluster", {{"", act::zero, {at + 2 * sub, 3 * sub}}}},
    {"zero subclusters in a cluster",
     {{"", act::write, {at, 8 * sub}}, {"", act::zero, {at + 2 * sub, 3 * sub}}}},
    {"discarded", {{"", act::write, {at, cluster}}, {"", act::discard, {at, cluster}}}},
};

struct race {
  qcow2_bench b;
  memory_disk& disk;
  root& way;
  std::vector<std::byte> base = pattern(8 * cluster, 9);
  std::vector<std::byte> model = base;
  event gate;
  bool is_held = false;

  explicit race(u64 seed)
      : b({.shuffle_seed = seed}),
        disk(b.create("d", 8 * cluster, {{"cluster_size", "16K"}, {"extended_l2", "on"}})),
        way(open()) {}
  root& open() {
    b.place("base", pattern(8 * cluster, 9));
    return b.open("d", {}, "base");
  }
  task<void> request(const contender& c, std::span<const std::byte> bytes) {
    switch (c.what) {
    case act::write:
      return way.write(c.range.offset, bytes);
    case act::zero:
      return way.write_zeroes(c.range, 0);
    case act::zero_unmapping:
      return way.write_zeroes(c.range, write_flag::may_unmap);
    case act::discard:
      return way.discard(c.range);
    }
    return way.flush();
  }
  static std::vector<std::byte> bytes_of(const contender& c, u64 seed) {
    return c.what == act::write ? pattern(c.range.length, seed)
                                : std::vector<std::byte>(c.range.length);
  }
  static void apply(std::vector<std::byte>& to, byte_range r, std::span<const std::byte> bytes) {
    std::ranges::copy(bytes, to.begin() + static_cast<i64>(r.offset));
  }
  void prepare(const condition& before) {
    for (const contender& c : before.steps) {
      const auto bytes = bytes_of(c, 5);
      b.bench.must(request(c, bytes));
      apply(model, c.range, bytes);
    }
    b.bench.must(way.flush());
    // The first write of this length is that of the data, with what is copied around them or alone.
    disk.hold = [this](std::string_view operation, byte_range range) -> event* {
      if (is_held || operation != "write" || (range.length != sub && range.length != slow.length))
        return nullptr;
      is_held = true;
      return &gate;
    };
  }
};

bool is_any_of(std::span<const std::byte> found,
               std::initializer_list<const std::vector<std::byte>*> allowed) {
  return std::ranges::any_of(allowed, [&](const auto* a) { return is_same(found, *a); });
}

void run_race(const condition& before, const contender& other, u64 seed) {
  race r(seed);
  r.prepare(before);
  const auto data = pattern(slow.length, 1);
  const auto others = race::bytes_of(other, 2);
  const auto third = pattern(elsewhere.length, 3);

  background tasks(r.b.bench);
  tasks.start(r.way.write(slow.offset, data));
  REQUIRE(r.is_held); // or this proves nothing
  tasks.start(r.request(other, others));
  // Should the cluster that the data are on their way to be given away, this takes it.
  tasks.start(r.way.flush());
  tasks.start(r.way.write(elsewhere.offset, third));
  tasks.start(r.way.flush());
  const std::vector<std::byte> crashed = r.disk.bytes;
  r.gate.set();
  const result<> done = tasks.finish();
  REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  r.disk.hold = nullptr;

  const auto old = r.model;
  race::apply(r.model, elsewhere, third);
  auto first_data = r.model;
  race::apply(first_data, slow, data);
  race::apply(first_data, other.range, others);
  auto first_others = r.model;
  race::apply(first_others, other.range, others);
  race::apply(first_others, slow, data);
  const auto found = read_all(r.b.bench, r.way);
  CHECK(is_any_of(found, {&first_data, &first_others}));
  r.b.close();
  require_sound(r.disk);
  CHECK(is_same(read_disk(r.disk.bytes, r.base), found));

  // What a power cut would have found while the data were late: nothing of them. Of the others, who
  // may have got half-way, any part.
  CHECK(check_image(crashed).errors.empty());
  auto with_others = old;
  race::apply(with_others, other.range, others);
  const auto shown = read_disk(crashed, r.base);
  u64 wrong = 0;
  for (u64 i = 0; i < elsewhere.offset; i++)
    wrong += shown[i] != old[i] && shown[i] != with_others[i];
  CHECK(wrong == 0);
}

} // namespace

TEST_CASE("qcow2: nobody takes away or misses a subcluster whose data are on their way") {
  for (const condition& before : conditions) {
    for (const contender& other : contenders) {
      for (u64 seed = 1; seed <= 3; seed++) {
        const std::string pair = std::string(before.name) + ", " + other.name;
        CAPTURE(pair);
        CAPTURE(seed);
        run_race(before, other, seed);
      }
    }
  }
}
