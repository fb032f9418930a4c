// SPDX-License-Identifier: MIT
// Repairs that are interrupted, images spoilt at random, images of all shapes.
#include "graph/base/text.h"
#include "tests/unit/drivers/qcow2/check_bench.h"
#include "tests/unit/drivers/qcow2/crash_replay.h"
#include "tests/unit/drivers/qcow2/image_editor.h"

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

struct shape {
  const char* name;
  option_list create;
  u64 cluster;
};

const shape shapes[] = {
    {"512 B", {{"cluster_size", "512"}}, 512},
    {"1 bit", {{"cluster_size", "1K"}, {"refcount_bits", "1"}}, 1024},
    {"4 bits", {{"cluster_size", "2K"}, {"refcount_bits", "4"}}, 2048},
    {"64 bits", {{"cluster_size", "512"}, {"refcount_bits", "64"}}, 512},
    {"64 KiB", {}, 65536},
    {"2 MiB", {{"cluster_size", "2M"}}, 2097152},
    {"version 2", {{"compat", "0.10"}, {"cluster_size", "4K"}}, 4096},
    {"extended", {{"cluster_size", "16K"}, {"extended_l2", "on"}}, 16384},
    {"lazy", {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}, 4096},
};

// An image after some random requests.
std::vector<std::byte> make_image(const shape& s, u64 seed) {
  std::mt19937_64 random(seed);
  qcow2_bench b;
  const u64 length = 60 * s.cluster;
  memory_disk& disk = b.create("d", length, s.create);
  disk.yields = false;
  root& way = b.open("d");
  for (int i = 0; i < 20; i++) {
    const u64 at = random() % length;
    const u64 count = std::min<u64>(1 + random() % (4 * s.cluster), length - at);
    if (random() % 3 != 0)
      b.bench.must(way.write(at, pattern(count, random())));
    else
      b.bench.must(way.write_zeroes({at, count}, random() % 2 == 0 ? write_flag::may_unmap : 0));
  }
  b.close();
  return disk.bytes;
}

struct tables {
  header h;
  std::vector<u64> words; // places of entries

  explicit tables(const std::vector<std::byte>& image) : h(*parse_header(image)) {
    const auto add = [&](u64 at, u64 bytes) {
      for (u64 i = 0; i < bytes; i += 8)
        if (at + i + 8 <= image.size() && (load<be64>(image, at + i) != 0 || i % 64 == 0))
          words.push_back(at + i);
    };
    add(h.l1.value, h.l1_entries * 8);
    for (u64 i = 0; i < h.l1_entries; i++)
      if (const u64 l2 = load<be64>(image, h.l1.value + i * 8) & entry_offset_mask; l2 != 0)
        add(l2, h.g.cluster());
    add(h.refcount_table.value, 256);
    for (u64 i = 0; i < h.refcount_table_clusters * h.g.cluster() / 8; i++)
      if (const u64 block = load<be64>(image, h.refcount_table.value + i * 8); block != 0)
        add(block, std::min<u64>(h.g.cluster(), 4096));
  }
};

void spoil(std::vector<std::byte>& image, std::mt19937_64& random) {
  const tables t(image);
  for (u64 n = 1 + random() % 3; n > 0; n--) {
    const u64 at = t.words[random() % t.words.size()];
    const u64 other = load<be64>(image, t.words[random() % t.words.size()]);
    const u64 now = load<be64>(image, at);
    const u64 values[] = {0,
                          other,
                          now ^ entry_copied,
                          now ^ entry_compressed,
                          now ^ 1,
                          now + t.h.g.cluster(),
                          now ^ u64{1} << random() % 64,
                          now ^ 0x200};
    const u64 value = values[random() % std::size(values)];
    // A COPIED flag of no cluster is nothing to a check, though the specification has it 0.
    const bool is_flag_of_nothing =
        (value & entry_copied) != 0 && (value & entry_offset_mask & ~u64{0x1ff}) == 0;
    store(std::span(image), be64(is_flag_of_nothing ? 0 : value), at);
  }
}

// The same as a check by the driver says that it is.
void require_agreement(const check_bench& b, const check_result& found, u64 seed) {
  CAPTURE(seed);
  const check_report second = check_image(b.disk.bytes);
  // That a cluster is two things at once is for refcounts no contradiction, if it counts twice.
  const bool is_sound =
      std::ranges::all_of(second.errors, [](const std::string& e) { return e.contains(" is a "); });
  if (found.is_sound())
    REQUIRE_MESSAGE(is_sound, second.text());
  // Refcounts of what lies behind the end of the file take no space from anybody.
  REQUIRE_MESSAGE(found.leaks <= second.leaks, b.findings.text() << second.text());
}

// Repairs, and cuts the repair at every event: what is left can be repaired all the same, to the
// same disk.
void cut_repair(const std::vector<std::byte>& spoilt, u64 seed, check_limits limits = {}) {
  check_bench whole(spoilt);
  whole.disk.keeps_log = true;
  const auto done = whole.try_check(check_mode::repair_all, limits);
  whole.disk.keeps_log = false;
  const result<check_result> left = whole.try_check(check_mode::report);
  if (!done || !left || !left->is_sound())
    return; // nothing that is promised
  CHECK(left->leaks == 0);
  const std::vector<std::byte> disk = read_disk(whole.disk.bytes);
  std::mt19937_64 random(seed);
  for_each_cut(spoilt, whole.disk.log, random,
               [&](const std::vector<std::byte>& image, std::size_t cut) {
                 CAPTURE(cut);
                 check_bench again(image);
                 again.check(check_mode::repair_all, limits);
                 const check_result now = again.check();
                 REQUIRE_MESSAGE(now.is_sound(), again.findings.text());
                 REQUIRE(now.leaks == 0);
                 REQUIRE(read_disk(again.disk.bytes) == disk);
               });
}

} // namespace

TEST_CASE("qcow2 check: images of every shape are sound, and spoilt ones counted as they are") {
  for (const shape& s : shapes) {
    CAPTURE(s.name);
    for (u64 seed = 1; seed <= 3; seed++) {
      const std::vector<std::byte> sound = make_image(s, seed);
      check_bench b(sound);
      const check_result found = b.check();
      REQUIRE_MESSAGE((found.is_sound() && found.leaks == 0), b.findings.text());
      CHECK(found.allocated_clusters > 0);
      for (const check_mode mode : {check_mode::repair_all, check_mode::repair_leaks}) {
        b.check(mode);
        CHECK(b.disk.bytes == sound); // nothing to do
      }
    }
  }
}

TEST_CASE("qcow2 check: repairs leave what a second reading of the specification finds sound") {
  u64 repaired = 0;
  for (const shape& s : shapes) {
    if (s.cluster > 65536)
      continue;
    CAPTURE(s.name);
    const std::vector<std::byte> sound = make_image(s, 5);
    for (u64 seed = 1; seed <= 40; seed++) {
      CAPTURE(seed);
      std::mt19937_64 random(seed);
      std::vector<std::byte> image = sound;
      spoil(image, random);
      check_bench b(image);
      const auto done = b.try_check(check_mode::repair_all);
      const result<check_result> found = b.try_check(check_mode::report);
      if (!done || !found || !found->is_sound())
        continue;
      require_agreement(b, *found, seed);
      REQUIRE(read_disk(b.disk.bytes) == read_disk(image));
      repaired++;
    }
  }
  CHECK(repaired > 100);
}

TEST_CASE("qcow2 check: a repair that is cut anywhere can be done again") {
  const shape* const small[] = {&shapes[0], &shapes[1], &shapes[3], &shapes[7]};
  for (const shape* s : small) {
    CAPTURE(s->name);
    const std::vector<std::byte> sound = make_image(*s, 9);
    for (u64 seed = 1; seed <= 12; seed++) {
      CAPTURE(seed);
      std::mt19937_64 random(seed);
      std::vector<std::byte> image = sound;
      spoil(image, random);
      cut_repair(image, seed);
      if (seed % 4 == 0)
        cut_repair(image, seed, {.count_bytes = 1, .tables_at_once = 1, .blocks_cached = 1});
    }
  }
}

TEST_CASE(
    "qcow2 check: a rebuild with a new snapshot table that is cut anywhere can be done again") {
  std::vector<std::byte> image = make_image(shapes[8], 3);
  image_editor e(image);
  e.add_snapshot("s");
  const u64 at = e.header().snapshots.value;
  store(std::span(image), be32(0), at + offsetof(snapshot_entry_wire, extra_length));
  image[at + 40] = std::byte{'1'};
  image[at + 41] = std::byte{'s'};
  header h = e.header();
  h.incompatible |= incompatible_bit::dirty | incompatible_bit::corrupt;
  e.write_header(h);
  cut_repair(image, 1);
  check_bench b(image);
  CHECK(b.check(check_mode::repair_all).corruptions_fixed == 1);
  const header after = *parse_header(b.disk.bytes);
  CHECK(!after.is_dirty());
  CHECK(!after.is_corrupt());
}

TEST_CASE("qcow2 check: any single failure of the file ends a repair, and the next one works") {
  std::vector<std::byte> image = make_image(shapes[0], 4);
  image_editor e(image);
  e.append(2);
  for (const bool rebuilds : {false, true}) {
    CAPTURE(rebuilds);
    const u64 table = e.header().refcount_table.value;
    if (rebuilds)
      e.put(table + 8, e.number(table)); // a block twice: everything is made anew
    bool has_come = true;
    for (u64 nth = 1; has_come; nth++) {
      CAPTURE(nth);
      check_bench b(image);
      u64 seen = 0;
      b.disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
        if (++seen != nth)
          return std::nullopt;
        return error::from_errno(EIO, "the test says so");
      };
      const auto first = b.try_check(check_mode::repair_all);
      has_come = seen >= nth;
      b.disk.fault = nullptr;
      if (!first)
        CHECK_MESSAGE(first.error().message().contains("the test says so"),
                      first.error().message());
      b.check(check_mode::repair_all);
      const check_result now = b.check();
      REQUIRE_MESSAGE((now.is_sound() && now.leaks == 0), b.findings.text());
      REQUIRE(read_disk(b.disk.bytes) == read_disk(image));
    }
  }
}

TEST_CASE("qcow2 check: new refcounts in a file that cannot grow find their place or say so") {
  std::vector<std::byte> image = make_image(shapes[0], 4);
  image_editor e(image);
  const u64 at = e.header().refcount_table.value;
  e.put(at + 8, e.number(at));
  check_bench full(image);
  full.disk.can_resize = false;
  const auto refused = full.try_check(check_mode::repair_all);
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::no_space);
  CHECK_MESSAGE(refused.error().message().contains("and cannot grow"), refused.error().message());
  CHECK(full.disk.bytes == image);
  std::vector<std::byte> longer = image;
  longer.resize(image.size() + 8 * 512);
  check_bench roomy(longer);
  roomy.disk.can_resize = false;
  CHECK(roomy.check(check_mode::repair_all).corruptions == 0);
  CHECK(roomy.disk.bytes.size() == longer.size());
  require_sound(roomy.disk);
}

TEST_CASE("qcow2 check: lazy refcounts are repaired when the image is opened to be written") {
  for (u64 cut = 1; cut < 12; cut++) {
    CAPTURE(cut);
    qcow2_bench b;
    memory_disk& disk =
        b.create("d", 64 * 4096, {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}});
    root& way = b.open("d");
    std::vector<std::byte> model(64 * 4096);
    for (u64 i = 0; i < cut; i++) {
      const auto bytes = pattern(6000, i);
      b.bench.must(way.write(i * 9000, bytes));
      std::ranges::copy(bytes, model.begin() + static_cast<i64>(i * 9000));
    }
    b.bench.must(way.flush());
    const std::vector<std::byte> killed = disk.bytes;
    b.close();
    b.place("killed", killed);
    root& again = b.open("killed");
    require_sound(*memory_disks()["killed"]);
    CHECK(read_all(b.bench, again) == model);
    b.bench.must(again.write(5000, pattern(9000, 99)));
    b.close();
    require_sound(*memory_disks()["killed"]);
  }
}
