// SPDX-License-Identifier: MIT
// What a check finds: every class of contradiction, built into a small image.
#include "tests/unit/drivers/qcow2/check_bench.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/lib/repetitions.h"

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 4096;

// Eight clusters of data from 0 on, one of zeroes that has its place, with `list` besides.
std::vector<std::byte> sample(option_list list = {}) {
  qcow2_bench b;
  list.emplace_back("cluster_size", "4K");
  memory_disk& disk = b.create("d", 1 << 20, list);
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(9 * cluster, 1)));
  b.bench.must(way.write_zeroes({8 * cluster, cluster}));
  b.close();
  return disk.bytes;
}

// 16 KiB clusters with subclusters.
std::vector<std::byte> extended_sample() {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "16K"}, {"extended_l2", "on"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(65536, 1)));
  b.close();
  return disk.bytes;
}

struct finding {
  const char* name;
  void (*spoil)(image_editor& e);
  const char* line; // among the findings
  u64 corruptions;
  u64 leaks = 0;
  u64 left = 0; // corruptions after a repair of all
};

u64 entry_of(image_editor& e, u64 index) {
  return e.number(e.entry_at(index * e.cluster()));
}
void set_entry(image_editor& e, u64 index, u64 value) {
  e.put(e.entry_at(index * e.cluster()), value);
}
u64 host_of(image_editor& e, u64 index) {
  return entry_of(e, index) & entry_offset_mask;
}
u64 l1_at(image_editor& e) {
  return e.header().l1.value;
}

const finding findings[] = {
    {"nothing", [](image_editor&) {}, "", 0},
    {"a leak", [](image_editor& e) { e.append(1); }, "Leaked cluster 14 refcount=1 reference=0", 0,
     1},
    {"a count too high", [](image_editor& e) { e.add_refcount(host_of(e, 0), 4); },
     "refcount=5 reference=1", 1, 1},
    {"a cluster that is used twice", [](image_editor& e) { set_entry(e, 1, entry_of(e, 0)); },
     "refcount=1 reference=2", 1, 1},
    {"a cluster in use without a count", [](image_editor& e) { e.add_refcount(host_of(e, 2), -1); },
     "refcount=0 reference=1", 2},
    {"a missing COPIED flag",
     [](image_editor& e) { set_entry(e, 3, entry_of(e, 3) & ~entry_copied); },
     "ERROR OFLAG_COPIED data cluster: l2_entry=", 1},
    {"a missing COPIED flag of a zero cluster",
     [](image_editor& e) { set_entry(e, 8, entry_of(e, 8) & ~entry_copied); },
     "ERROR OFLAG_COPIED data cluster: l2_entry=", 1},
    {"a missing COPIED flag in the L1 table",
     [](image_editor& e) { e.put(l1_at(e), e.number(l1_at(e)) & ~entry_copied); },
     "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=", 1},
    {"reserved bits in the L1 table",
     [](image_editor& e) { e.put(l1_at(e), e.number(l1_at(e)) | 4); },
     "ERROR found L1 entry with reserved bits set: 80000000000", 1, 0, 1},
    {"reserved bits in an L2 entry", [](image_editor& e) { set_entry(e, 0, entry_of(e, 0) | 4); },
     "ERROR found l2 entry with reserved bits set: 80000000000", 1, 0, 1},
    {"misplaced data", [](image_editor& e) { set_entry(e, 7, entry_of(e, 7) + 512); },
     ": Data cluster is not properly aligned; L2 entry corrupted.", 2, 0, 1},
    {"a misplaced zero cluster",
     [](image_editor& e) { set_entry(e, 7, (entry_of(e, 7) + 512) | 1); }, "ERROR offset=", 2},
    {"a COPIED flag of a compressed cluster",
     [](image_editor& e) {
       e.add_compressed(20 * cluster, pattern(100, 3));
       set_entry(e, 20, entry_of(e, 20) | entry_copied);
     },
     "ERROR: coffset=0xe000: copied flag must never be set for compressed clusters", 1, 0, 1},
    {"a cluster behind the end of the file",
     [](image_editor& e) { set_entry(e, 30, 0x1000000 | entry_copied); },
     "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
     "offset 0x1000000 size 0x1000",
     2, 0, 1},
    {"a refcount table entry with reserved bits",
     [](image_editor& e) {
       const u64 at = e.header().refcount_table.value;
       e.put(at, e.number(at) | 1);
     },
     "ERROR refcount table entry 0 has reserved bits set", 1, 1},
    {"a refcount block outside",
     [](image_editor& e) { e.put(e.header().refcount_table.value + 8, u64{1} << 40); },
     "ERROR refcount block 1 is outside image", 1},
    {"two entries with one refcount block",
     [](image_editor& e) {
       const u64 at = e.header().refcount_table.value;
       e.put(at + 8, e.number(at));
     },
     "ERROR refcount block 1 refcount=2", 2},
    {"snapshots whose L1 table is misplaced",
     [](image_editor& e) {
       e.add_snapshot("s");
       e.put(e.header().snapshots.value, e.number(e.header().snapshots.value) + 512);
     },
     "ERROR snapshot 1 (s) l1_offset=0xe200: L1 table is not cluster aligned; snapshot table entry "
     "corrupted",
     1, 11, 1},
    {"snapshots whose L1 table is absurd",
     [](image_editor& e) {
       e.add_snapshot("s");
       e.put(e.header().snapshots.value + 8, u64{0x7fffffff} << 32 | u64{1} << 16 | 1);
     },
     "ERROR snapshot 1 (s) l1_size=0x7fffffff: L1 table is too large; snapshot table entry "
     "corrupted",
     1, 11, 1},
};

bool is_among(const recorded_findings& found, const std::string& line) {
  return line.empty() || found.text().contains(line);
}

} // namespace

TEST_CASE("qcow2 check: each contradiction is found, told, counted, and repaired if it can be") {
  for (const finding& f : findings) {
    CAPTURE(f.name);
    std::vector<std::byte> bytes = sample();
    image_editor e(bytes);
    f.spoil(e);
    check_bench b(bytes);
    check_result found = b.check();
    CHECK_MESSAGE(is_among(b.findings, f.line), b.findings.text());
    CHECK_MESSAGE(found.corruptions == f.corruptions, b.findings.text());
    CHECK_MESSAGE(found.leaks == f.leaks, b.findings.text());
    CHECK(found.check_errors == 0);
    CHECK(b.findings.lines.size() >= found.corruptions + found.leaks);
    CHECK(b.findings.done == b.findings.total);
    found = b.check(check_mode::repair_all);
    CHECK_MESSAGE(found.corruptions == f.left, b.findings.text());
    CHECK(found.leaks == 0);
    CHECK((found.corruptions_fixed > 0 || f.corruptions == f.left || f.leaks > 0));
    found = b.check();
    CHECK_MESSAGE(found.corruptions == f.left, b.findings.text());
    CHECK_MESSAGE(found.leaks == 0, b.findings.text());
    if (f.left == 0)
      require_sound(b.disk);
  }
}

TEST_CASE("qcow2 check: what is there is counted") {
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  e.add_compressed(20 * cluster, pattern(100, 3));
  check_bench b(bytes);
  const check_result found = b.check();
  CHECK(found.total_clusters == 256);
  CHECK(found.allocated_clusters == 10);
  CHECK(found.compressed_clusters == 1);
  CHECK(found.image_end_offset == bytes.size());
}

namespace {

struct extended_finding {
  const char* name;
  u64 descriptor; // or-ed to that of entry 1, unless `replaces`
  u64 bitmap;
  bool replaces;
  const char* line;
  u64 corruptions;
  u64 left;
};

const extended_finding extended_findings[] = {
    {"subclusters that are both", 0, 0x00000003ffffffff, false,
     ": Allocated cluster has corrupted subcluster allocation bitmap", 1, 1},
    {"subclusters without a cluster", 0, 0xff, true,
     "ERROR: Unallocated cluster has non-zero subcluster allocation map", 1, 1},
    {"misplaced subclusters of zeroes", 0x200, 0x0000000f00000000, false,
     ": Preallocated cluster is not properly aligned; L2 entry corrupted.", 2, 0},
    {"a compressed cluster with subclusters", entry_compressed | 0x18000, 7, true,
     "ERROR compressed cluster 1 with non-zero subcluster allocation bitmap, "
     "entry=0x4000000000018000",
     1, 1},
};

} // namespace

TEST_CASE("qcow2 check: what subclusters contradict is found") {
  for (const extended_finding& f : extended_findings) {
    CAPTURE(f.name);
    std::vector<std::byte> bytes = extended_sample();
    image_editor e(bytes);
    const u64 at = e.entry_at(e.cluster());
    e.put(at, f.replaces ? f.descriptor : e.number(at) | f.descriptor);
    e.put(at + 8, f.bitmap);
    check_bench b(bytes);
    CHECK_MESSAGE(b.check().corruptions == f.corruptions, b.findings.text());
    CHECK_MESSAGE(is_among(b.findings, f.line), b.findings.text());
    CHECK(b.check(check_mode::repair_all).corruptions == f.left);
    const check_result now = b.check();
    CHECK(now.corruptions == f.left);
    CHECK(now.leaks == 0);
    // Subclusters that were neither are not made to read as zeroes.
    if (f.left == 0)
      CHECK(load<be64>(b.disk.bytes, at + 8) == 0x0000000f00000000);
  }
}

TEST_CASE("qcow2 check: a count that does not fit is a contradiction that stays") {
  qcow2_bench made;
  memory_disk& disk = made.create("d", 1 << 20, {{"cluster_size", "4K"}, {"refcount_bits", "1"}});
  root& way = made.open("d");
  made.bench.must(way.write(0, pattern(8 * cluster, 1)));
  made.close();
  const header h = *parse_header(disk.bytes);
  const u64 l2 = load<be64>(disk.bytes, h.l1.value) & entry_offset_mask;
  store(std::span(disk.bytes), load<be64>(disk.bytes, l2), l2 + 8);
  check_bench b(disk.bytes);
  const check_result found = b.check();
  CHECK(found.corruptions == 1);
  CHECK(found.leaks == 1);
  CHECK(is_among(b.findings, "ERROR: overflow cluster offset=0x"));
  CHECK(is_among(b.findings, "Use qemu-img amend to increase the refcount entry width"));
  CHECK(b.check(check_mode::repair_all).corruptions == 1);
  CHECK(b.check().leaks == 0);
}

TEST_CASE("qcow2 check: bitmaps are counted, and what their tables cannot say is told") {
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  e.add_bitmap("b");
  const u64 table = bytes.size() - 2 * cluster;
  CHECK(check_bench(bytes).check().leaks == 0);
  e.put(table, e.append(1));
  CHECK(check_bench(bytes).check() == check_bench(bytes).check());
  CHECK(check_bench(bytes).check().leaks == 0);
  e.put(table, 2);
  check_bench b(bytes);
  const check_result found = b.check();
  CHECK(found.corruptions == 1);
  CHECK(found.leaks == 1);
  CHECK(is_among(b.findings, "ERROR bitmap table entry 0 is invalid: 2"));
  header h = e.header();
  h.autoclear = 0; // then nothing of them counts
  e.write_header(h);
  CHECK(check_bench(bytes).check().leaks == 3);
}

TEST_CASE("qcow2 check: an image with a data file has its data elsewhere") {
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  e.add_compressed(20 * cluster, pattern(100, 3));
  e.add_snapshot("s");
  header h = e.header();
  h.incompatible |= incompatible_bit::data_file;
  e.write_header(h);
  check_bench unnamed(bytes);
  const auto refused = unnamed.try_check(check_mode::report);
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("but does not name it"));
  h.extensions.push_back({extension_type::data_file, {std::byte{'x'}}});
  e.write_header(h);
  check_bench b(bytes);
  b.check();
  CHECK(is_among(b.findings, "ERROR 1 snapshots in image with data file"));
  CHECK(is_among(b.findings, "ERROR compressed cluster 20 with data file, entry=0x40000000000"));
}

namespace {

std::vector<std::byte> with_snapshot(u32 extra, u32 count = 1) {
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  e.add_snapshot("s");
  const u64 at = e.header().snapshots.value + offsetof(snapshot_entry_wire, extra_length);
  store(std::span(bytes), be32(extra), at);
  if (extra < 16) { // its names follow at once
    bytes[e.header().snapshots.value + sizeof(snapshot_entry_wire)] = std::byte{'1'};
    bytes[e.header().snapshots.value + sizeof(snapshot_entry_wire) + 1] = std::byte{'s'};
  }
  store(std::span(bytes), be32(count), 60);
  return bytes;
}

} // namespace

TEST_CASE("qcow2 check: a snapshot without what version 3 demands gets it") {
  check_bench b(with_snapshot(0));
  CHECK(b.check().corruptions == 1);
  CHECK(is_among(b.findings, "ERROR snapshot table entry 0 is incomplete"));
  const check_result done = b.check(check_mode::repair_all);
  CHECK(is_among(b.findings, "Repairing snapshot table entry 0 is incomplete"));
  CHECK(done.corruptions_fixed == 1);
  CHECK(b.check().corruptions == 0);
  require_sound(b.disk);
  const header h = *parse_header(b.disk.bytes);
  const std::span<const std::byte> table = std::span(b.disk.bytes).subspan(h.snapshots.value);
  CHECK(load<be64>(table, sizeof(snapshot_entry_wire) + 8) == u64{1} << 20);
  CHECK(table[sizeof(snapshot_entry_wire) + 17] == std::byte{'s'});
  CHECK(b.b.open_error("d").empty());
}

TEST_CASE("qcow2 check: too much in the snapshot table is refused, and a repair cuts it off") {
  check_bench extra(with_snapshot(2000));
  auto refused = extra.try_check(check_mode::report);
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("snapshot 0 has 2000 bytes of extra data"));
  CHECK(is_among(extra.findings, "ERROR failed to read the snapshot table: Too much extra metadata "
                                 "in snapshot table entry 0"));
  CHECK(extra.check(check_mode::repair_all).corruptions == 0);
  CHECK(is_among(extra.findings, "Discarding too much extra metadata in snapshot table entry 0 "
                                 "(2000 > 1024)"));
  CHECK(extra.check().corruptions == 0);
  CHECK(extra.b.open_error("d").empty());

  check_bench many(with_snapshot(16, 65540));
  refused = many.try_check(check_mode::report);
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("the image claims 65540 snapshots, more than 65536"));
  CHECK(is_among(many.findings, "ERROR Snapshot table too large"));
  many.check(check_mode::repair_all);
  CHECK(is_among(many.findings, "Discarding 4 overhanging snapshots"));
  CHECK(parse_header(many.disk.bytes)->snapshot_count == 65536);

  std::vector<std::byte> bytes = with_snapshot(16);
  store(std::span(bytes), be64(load<be64>(bytes, 64) + 512), 64);
  check_bench misplaced(bytes);
  refused = misplaced.try_check(check_mode::repair_all);
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("is not aligned to the cluster size 0x1000"));
  CHECK(is_among(misplaced.findings, "ERROR Snapshot table offset invalid"));
}

TEST_CASE("qcow2 check: a snapshot table that does not end is cut off") {
  std::vector<std::byte> bytes = sample();
  const u64 table = align_up(bytes.size(), cluster);
  constexpr u64 step = align_up(sizeof(snapshot_entry_wire) + 16 + 2 * 65535, 8);
  constexpr u32 count = 600; // 64 MiB end within
  bytes.resize(table + count * step);
  const snapshot_entry_wire wire{0, 0, 65535, 65535, 0, 0, 0, 0, 16};
  for (u32 i = 0; i < count; i++)
    store(std::span(bytes), wire, table + i * step);
  store(std::span(bytes), be32(count), 60);
  store(std::span(bytes), be64(table), 64);
  check_bench b(std::move(bytes));
  const auto refused = b.try_check(check_mode::report);
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("is longer than 0x4000000 bytes"));
  CHECK(is_among(b.findings, "ERROR failed to read the snapshot table: Snapshot table is too big"));
  b.check(check_mode::repair_all);
  CHECK(is_among(b.findings, "Discarding 89 overhanging snapshots (snapshot table is too big)"));
}

TEST_CASE("qcow2 check: leaks alone are not given back where the refcounts make no sense") {
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  e.add_refcount(host_of(e, 2), -1);
  check_bench b(bytes);
  const auto refused = b.try_check(check_mode::repair_leaks);
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("the refcounts are too broken"));
  CHECK(is_among(b.findings, "ERROR need to rebuild refcount structures"));
  CHECK(b.disk.bytes == bytes);
}

TEST_CASE("qcow2 check: leaks alone are given back beside corruption") {
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  e.append(3);
  set_entry(e, 1, entry_of(e, 0));
  check_bench b(bytes);
  const check_result done = b.check(check_mode::repair_leaks);
  CHECK(done.leaks_fixed == 4);
  CHECK(done.corruptions == 1);
  CHECK(b.check().leaks == 0);
}

TEST_CASE("qcow2 check: a table in whose cluster something else lies is not changed") {
  // The first data cluster is the L2 table itself.
  std::vector<std::byte> bytes = sample();
  image_editor e(bytes);
  const u64 table = e.number(l1_at(e)) & entry_offset_mask;
  set_entry(e, 0, table | entry_copied);
  check_bench b(bytes);
  auto refused = b.try_check(check_mode::repair_all);
  REQUIRE(!refused);
  CHECK_MESSAGE(refused.error().message().contains("an L2 table at 0x4000 cannot be repaired, "
                                                   "because something else lies in its clusters"),
                refused.error().message());
  CHECK(is_among(b.findings, "ERROR: Could not write an L2 table at 0x4000: something else lies"));
  CHECK(std::equal(bytes.begin() + static_cast<i64>(table),
                   bytes.begin() + static_cast<i64>(table + cluster),
                   b.disk.bytes.begin() + static_cast<i64>(table)));

  set_entry(e, 7, (entry_of(e, 7) + 512) | 1);
  check_bench invalid(bytes);
  refused = invalid.try_check(check_mode::repair_all);
  REQUIRE(!refused);
  CHECK_MESSAGE(refused.error().message().contains("the L2 table at 0x4000 cannot be repaired"),
                refused.error().message());
  CHECK(invalid.disk.bytes == bytes);
}

TEST_CASE("qcow2 check: tables on top of each other come to an end") {
  // 2048 snapshots with L1 tables of 32 MiB each, one cluster apart.
  qcow2_bench made;
  memory_disk& disk = made.create("d", 1 << 20, {{"cluster_size", "512"}});
  std::vector<std::byte> bytes = disk.bytes;
  const u64 table = align_up(bytes.size(), 512);
  bytes.resize(table + (1 << 20));
  for (u32 i = 0; i < 2048; i++)
    store(std::span(bytes), snapshot_entry_wire{table + i * 512, 4 << 20, 0, 0, 0, 0, 0, 0, 16},
          table + i * 56);
  store(std::span(bytes), be32(2048), 60);
  store(std::span(bytes), be64(table), 64);
  check_bench b(std::move(bytes));
  const auto refused = b.try_check(check_mode::report);
  REQUIRE(!refused);
  CHECK_MESSAGE(refused.error().message().contains("lie on top of each other"),
                refused.error().message());
}

namespace {

task<void> check_only(edge& file, check_sink& sink) {
  const check_result found = co_await check_file(file, check_mode::report, sink, {});
  (void)found;
}

} // namespace

TEST_CASE("qcow2 check: it can be cancelled") {
  check_bench b(sample());
  b.disk.yields = true;
  node& file = b.b.bench.open(disk_spec("d"));
  root& way = b.b.bench.attach(file, may_read);
  cancel_state cancel;
  b.findings.on_progress = [&] { cancel.request(); };
  std::optional<result<>> outcome;
  spawn(b.b.bench.home(), check_only(way.as_edge(), b.findings), &cancel,
        [&](result<> r) { outcome = std::move(r); });
  while (!outcome)
    b.b.bench.home().run_once();
  REQUIRE(!*outcome);
  CHECK(outcome->error().kind() == error_kind::cancelled);
}

TEST_CASE("qcow2 check: small windows and rounds find the same") {
  const std::size_t stride = is_sanitized ? 3 : 1;
  for (std::size_t nth = 0; nth < std::size(findings); nth += stride) {
    const finding& f = findings[nth];
    CAPTURE(f.name);
    std::vector<std::byte> bytes = sample();
    image_editor e(bytes);
    e.add_snapshot("t");
    f.spoil(e);
    // References far apart, so that there is more than one piece of counts.
    bytes.resize(bytes.size() + reference_counts::piece_length * cluster);
    const auto far = [&](u64 quarter) {
      return align_down(bytes.size(), cluster) -
             (4 - quarter) * reference_counts::piece_length / 4 * cluster;
    };
    for (u64 i = 1; i < 4; i++)
      set_entry(e, 40 + i, far(i) | entry_copied);
    check_bench whole(bytes);
    check_bench parts(bytes, "parts");
    const check_limits small{.count_bytes = 1, .tables_at_once = 1, .blocks_cached = 1};
    check_result one = whole.check();
    check_result other = parts.check(check_mode::report, small);
    CHECK(one == other);
    std::ranges::sort(whole.findings.lines);
    std::ranges::sort(parts.findings.lines);
    CHECK(whole.findings.lines == parts.findings.lines);
    one = whole.check(check_mode::repair_all);
    other = parts.check(check_mode::repair_all, small);
    CHECK(one == other);
    CHECK(is_same(whole.disk.bytes, parts.disk.bytes));
    CHECK(parts.check(check_mode::report, small) == whole.check());
  }
}
