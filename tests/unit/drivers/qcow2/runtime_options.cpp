// SPDX-License-Identifier: MIT
// What the options of an open image change (reference section 3.5): each on its own, on and off.
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"
#include "tests/unit/lib/bitmap_actions.h"

using namespace bgfs;
using namespace bgfs::test;
using namespace bgfs::qcow2;

namespace {

struct metadata_class {
  const char* option;
  const char* named; // in the message
  u64 (*place)(const image_editor&);
};

u64 active_l2(const image_editor& e) {
  return e.number(e.header().l1.value) & entry_offset_mask;
}
u64 inactive_l1(const image_editor& e) {
  return e.number(e.header().snapshots.value);
}

const metadata_class classes[] = {
    {"active-l1", "the active L1 table", [](const image_editor& e) { return e.header().l1.value; }},
    {"active-l2", "an active L2 table", active_l2},
    {"refcount-table", "the refcount table",
     [](const image_editor& e) { return e.header().refcount_table.value; }},
    {"refcount-block", "a refcount block",
     [](const image_editor& e) { return e.number(e.header().refcount_table.value); }},
    {"snapshot-table", "the snapshot table",
     [](const image_editor& e) { return e.header().snapshots.value; }},
    {"inactive-l1", "the L1 table of a snapshot", inactive_l1},
    {"inactive-l2", "an L2 table of a snapshot",
     [](const image_editor& e) { return e.number(inactive_l1(e)) & entry_offset_mask; }},
    {"bitmap-directory", "the bitmap directory",
     [](const image_editor& e) { return (*e.header().bitmaps())->range.offset; }},
};

// An image with every kind of metadata, whose guest cluster 1 goes over one of them.
void make_overlapping(memory_disk& disk, const metadata_class& over) {
  image_editor e(disk.bytes);
  const u64 shared = active_l2(e);
  e.add_snapshot("s");
  const u64 own = e.append(1); // a table that may be written
  for (u64 i = 0; i < e.cluster(); i += 8)
    e.put(own + i, e.number(shared + i));
  e.put(e.header().l1.value, own | entry_copied);
  e.add_bitmap("b");
  image_editor now(disk.bytes);
  now.put(now.entry_at(e.cluster()), over.place(now) | entry_copied);
}

// "" if the write goes through.
std::string write_over(const metadata_class& over, const option_list& list) {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 256 << 10, {{"cluster_size", "4K"}});
  b.bench.must(b.open("d").write(0, pattern(4096, 1)));
  b.close();
  make_overlapping(disk, over);
  root& way = b.open("d", list);
  const result<> written = b.bench.run(way.write(4096, pattern(4096, 2)));
  disk.fault = [](std::string_view, byte_range) {
    return error::from_errno(EIO, "what was overwritten is not used again");
  };
  (void)b.try_close();
  return written ? std::string() : written.error().message();
}

// What of the file was given back to the host.
struct given_back {
  bool for_request = false;
  bool for_snapshot = false;
  bool for_other = false;
  friend bool operator==(const given_back&, const given_back&) = default;
};

bool has_discard(memory_disk& disk) {
  const bool found = std::ranges::any_of(
      disk.log, [](const memory_event& e) { return e.what == memory_event::kind::discard; });
  disk.log.clear();
  return found;
}

given_back look(const option_list& list, const char* discard) {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 4 << 20, {{"cluster_size", "4K"}});
  spec_builder s = qcow2_bench::image_spec("d", list);
  s.set("discard", discard);
  node& image = b.bench.open(s);
  root& way = b.bench.attach(image, may_resize);
  const snapshot_actions snapshots{b.bench, image};
  b.bench.must(way.write(0, pattern(256 << 10, 1)));
  b.bench.must(way.flush());
  disk.keeps_log = true;
  given_back g;
  b.bench.must(way.discard({0, 64 << 10}));
  b.bench.must(way.flush());
  g.for_request = has_discard(disk);
  snapshots.create("s");
  b.bench.must(way.write(128 << 10, pattern(64 << 10, 2)));
  b.bench.must(way.flush());
  has_discard(disk);
  snapshots.remove(named("s")); // and what only it had
  b.bench.must(way.flush());
  g.for_snapshot = has_discard(disk);
  // The refcount table moves when the file outgrows it, and so does the L1 table here.
  b.bench.must(way.truncate(u64{1} << 40));
  b.bench.must(way.flush());
  g.for_other = has_discard(disk);
  return g;
}

} // namespace

TEST_CASE("qcow2 overlap-check: each class of metadata is watched on its own") {
  for (const metadata_class& c : classes) {
    CAPTURE(c.option);
    const std::string name = std::string("overlap-check.") + c.option;
    const std::string refused = write_over(c, {{"overlap-check.template", "none"}, {name, "on"}});
    CHECK_MESSAGE(refused.contains(std::string("would go over ") + c.named), refused);
    CHECK(write_over(c, {{"overlap-check.template", "all"}, {name, "off"}}) == "");
    CHECK(write_over(c, {{"overlap-check", "none"}}) == "");
    CHECK(write_over(c, {{"overlap-check", "all"}}) == refused);
  }
}

TEST_CASE("qcow2 pass-discard: what is freed for each reason goes to the host or does not") {
  for (const char* discard : {"unmap", "ignore"}) {
    const bool is_unmap = discard == std::string("unmap");
    CAPTURE(discard);
    CHECK(look({}, discard) == given_back{is_unmap, true, false});
    for (const bool request : {false, true})
      for (const bool snapshot : {false, true})
        for (const bool other : {false, true}) {
          CAPTURE(request);
          CAPTURE(snapshot);
          CAPTURE(other);
          const auto word = [](bool is_on) { return is_on ? "on" : "off"; };
          const given_back found = look({{"pass-discard-request", word(request)},
                                         {"pass-discard-snapshot", word(snapshot)},
                                         {"pass-discard-other", word(other)}},
                                        discard);
          CHECK(found.for_request == (is_unmap && request));
          CHECK(found.for_snapshot == (snapshot || other)); // its tables go, too
          CHECK(found.for_other == other);
        }
  }
}
