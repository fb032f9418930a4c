// SPDX-License-Identifier: MIT
// Internal snapshots one behaviour at a time: read beside the live disk, refused, damaged, with the
// state of a machine, under a writer.
#include "drivers/format/qcow2/snapshot_table.h"
#include "drivers/format/raw/raw.h"
#include "graph/io/sleep.h"
#include "graph/io/spawn.h"
#include "graph/model/edit.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"
#include "tests/unit/lib/box_driver.h"
#include "tests/unit/lib/visitor.h"

#include <random>

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

constexpr u64 length = 256 << 10;
const option_list small_clusters{{"cluster_size", "4K"}};

struct snapshot_fixture {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type, &raw_driver_type}};
  memory_disk* disk = nullptr;
  root* way = nullptr;
  std::optional<snapshot_actions> actions;

  explicit snapshot_fixture(const option_list& create = small_clusters) {
    disk = &b.create("d", length, create);
    open();
  }
  void open(const option_list& list = {}, const std::string& backing = {}) {
    way = &b.open("d", list, backing);
    actions.emplace(b.bench, b.top());
  }
  void fill(u64 offset, u64 count, u64 seed) {
    b.bench.must(way->write(offset, pattern(count, seed)));
  }
  [[nodiscard]] std::vector<std::byte> content() { return read_all(b.bench, *way); }
  node& show(const std::string& name, const snapshot_key& which) {
    return b.bench.open(view_spec(name, "img-d", which));
  }
  std::vector<std::byte> read_view(node& shown) {
    root& reader = b.bench.attach(shown, may_read);
    std::vector<std::byte> bytes = read_all(b.bench, reader);
    b.bench.detach(reader);
    return bytes;
  }
  void close_view(node& shown) { b.bench.must(b.bench.graph().close(shown)); }
};

std::string message_of(const result<>& r) {
  return r ? std::string() : r.error().message();
}

} // namespace

TEST_CASE("qcow2 snapshots: several are read beside the live disk, each with its own length") {
  snapshot_fixture f;
  f.fill(0, 50000, 1);
  const auto first = f.content();
  CHECK(f.actions->create("first") == "1");
  f.b.bench.must(f.way->truncate(length * 2));
  f.fill(length, 10000, 2);
  const auto second = f.content();
  CHECK(f.actions->create("second") == "2");
  node& a = f.show("a", named("first"));
  node& again = f.show("again", named("first"));
  node& c = f.show("c", with_id("2"));
  f.fill(0, 100000, 3);
  f.b.bench.must(f.way->discard({0, 65536}));
  f.b.bench.must(f.way->flush());
  f.fill(0, 60000, 4);
  CHECK(a.length() == length);
  CHECK(c.length() == length * 2);
  CHECK(f.read_view(a) == first);
  CHECK(f.read_view(again) == first);
  CHECK(f.read_view(c) == second);
  const block_status s = f.b.bench.must(a.status({60000 / 4096 * 4096 + 4096, 4096}));
  CHECK(!s.is_allocated);
  CHECK(f.b.bench.must(a.status({0, 4096})).is_data);
  for (node* n : {&a, &again, &c})
    f.close_view(*n);
  f.b.close();
  require_sound(*f.disk);
}

TEST_CASE("qcow2 snapshots: one shows the backing file where it has nothing") {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
  b.create("d", length, small_clusters);
  const auto base = pattern(100000, 9);
  b.place("base", base);
  root& way = b.open("d", {}, "base");
  const snapshot_actions actions{b.bench, b.top()};
  b.bench.must(way.write(5000, pattern(3000, 1)));
  const auto kept = read_all(b.bench, way);
  actions.create("s");
  b.bench.must(way.write(0, pattern(100000, 2)));
  node& shown = b.bench.open(view_spec("v", "img-d", named("s")));
  REQUIRE(shown.backing() != nullptr);
  CHECK(&shown.backing()->child() == &b.top().backing()->child());
  root& reader = b.bench.attach(shown, may_read);
  CHECK(read_all(b.bench, reader) == kept);
  CHECK(b.bench.must(reader.status_above({50000, 100})).depth == 2);
  CHECK(b.bench.must(reader.status_above({5000, 100})).depth == 1);
  b.bench.detach(reader);
  b.bench.must(b.bench.graph().close(shown));
}

TEST_CASE("qcow2 snapshots: what somebody reads cannot be deleted, and its image stays as it is") {
  snapshot_fixture f;
  f.fill(0, 50000, 1);
  f.actions->create("s");
  const auto kept = f.content();
  node& a = f.show("a", named("s"));
  node& other = f.show("other", named("s"));
  f.fill(0, 50000, 2);
  const result<> refused = f.actions->try_remove(named("s"));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(refused.error().message() ==
        "deleting snapshot 's': snapshot 's' is being read by node 'a'; close that first");
  // Another backing node would change what the snapshot shows.
  const result<> changed = f.b.bench.run(change_backing(f.b.bench.graph(), f.b.top(), nullptr));
  CHECK(message_of(changed) ==
        "node 'img-d' (qcow2) cannot be changed now: its snapshot 's' is open as node 'a'");
  f.close_view(a);
  CHECK(
      message_of(f.actions->try_remove(named("s"))).ends_with("by node 'other'; close that first"));
  f.actions->rename(named("s"), "t"); // and the hold goes with it
  CHECK(!f.actions->try_remove(named("t")));
  f.actions->revert(named("t"));
  CHECK(f.content() == kept);
  f.fill(0, 50000, 3);
  CHECK(f.read_view(other) == kept);
  f.close_view(other);
  f.actions->remove(named("t"));
  CHECK(f.actions->list().empty());
  f.b.close();
  require_sound(*f.disk);
}

TEST_CASE("qcow2 snapshots: a filter comes and goes over an image while a snapshot is being read") {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type, &pass_driver_type}};
  b.create("d", length, small_clusters);
  root& way = b.open("d");
  const snapshot_actions actions{b.bench, b.top()};
  b.bench.must(way.write(0, pattern(50000, 1)));
  actions.create("s");
  const auto kept = read_all(b.bench, way);
  node& image = b.top();
  node& shown = b.bench.open(view_spec("v", "img-d", named("s")));
  root& reader = b.bench.attach(shown, may_read);
  b.bench.must(way.write(0, pattern(50000, 2)));
  spec_builder over("over", pass_driver_type);
  node* const filter =
      b.bench.must(insert_filter(b.bench.graph(), image, over.child("file", "img-d").build()));
  CHECK(&way.top() == filter);
  CHECK(&shown.child("file")->child() == &image);
  b.bench.must(way.write(0, pattern(60000, 3)));
  CHECK(read_all(b.bench, reader) == kept);
  b.bench.must(remove_filter(b.bench.graph(), *filter));
  CHECK(&way.top() == &image);
  b.bench.must(way.write(0, pattern(70000, 4)));
  CHECK(read_all(b.bench, reader) == kept);
  b.bench.detach(reader);
  b.bench.must(b.bench.graph().close(shown));
}

TEST_CASE("qcow2 snapshots: the list says what they were created with, and renaming keeps it") {
  snapshot_fixture f;
  f.actions->create("same");
  f.actions->create("same");
  f.actions->rename({.id = "2", .name = "same"}, "other");
  f.b.close();
  f.open();
  const auto all = f.actions->list();
  REQUIRE(all.size() == 2);
  CHECK(all[0].name == "same");
  CHECK(all[1] == snapshot_info{.id = "2",
                                .name = "other",
                                .date_seconds = 1'700'000'000,
                                .date_nanoseconds = 5,
                                .vm_clock_nanoseconds = 7,
                                .icount = {},
                                .vm_state_length = 0,
                                .disk_length = length});
}

TEST_CASE("qcow2 snapshots: who may not, or cannot, is told why") {
  snapshot_fixture f;
  const auto refused = [&](node& n) {
    return message_of(f.b.bench.run(f.b.bench.graph().delete_snapshot(n, named("s"))));
  };
  f.b.bench.disk("r", 65536);
  node& raw = f.b.bench.open(spec_builder("raw", raw_driver_type).child("file", disk_spec("r")));
  CHECK(refused(raw) == "node 'raw' (raw) cannot have internal snapshots: driver 'raw' keeps none; "
                        "use a format that does, such as qcow2");
  const auto view_error = [&](spec_builder s) { return f.b.bench.try_open(s).error().message(); };
  CHECK(view_error(view_spec("v", "raw", named("s")))
            .ends_with("node 'raw' (raw) cannot have internal snapshots: driver 'raw' keeps none"));
  CHECK(view_error(view_spec("v", "img-d", named("s")))
            .ends_with("there is no snapshot 's'; there are none"));
  CHECK(view_error(view_spec("v", "img-d", {}))
            .ends_with("which snapshot is meant is said by 'snapshot', or by 'snapshot-id', "
                       "'snapshot-name' or both"));
  CHECK(view_error(view_spec("v", "img-d", named("s")).set("read-only", false))
            .ends_with("a snapshot cannot be written to; open it with 'read-only: true'"));
  CHECK(refused(f.b.top()) == "deleting snapshot 's': there is no snapshot 's'; there are none");
  CHECK(f.actions->try_create("a/b").error().message().contains("neither '/' nor control"));
  CHECK(message_of(f.b.bench.run(f.b.bench.graph().rename_snapshot(f.b.top(), named("s"), ""))) ==
        "a snapshot needs a name");
  f.actions->create("s");
  f.b.close();
  root& reader = f.b.open("d", {{"read-only", "on"}}, "", may_read);
  (void)reader;
  CHECK(refused(f.b.top()) ==
        "node 'img-d' (qcow2) is read-only; open it with 'read-only: false' to write");
  CHECK(f.b.bench.graph().snapshots(f.b.top())->size() == 1);
}

TEST_CASE("qcow2 snapshots: an image that others stand on keeps its snapshots as they are") {
  snapshot_fixture f;
  f.actions->create("s");
  f.b.bench.detach(*f.way);
  f.b.create("top", length, small_clusters);
  spec_builder top = qcow2_bench::image_spec("top");
  top.no_backing = false;
  top.child("backing", "img-d");
  node& overlay = f.b.bench.open(top);
  const result<> refused = f.actions->try_revert(named("s"));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(refused.error().message().contains("reverting to snapshot 's'"));
  CHECK(!f.actions->try_create("t"));
  f.b.bench.must(f.b.bench.graph().close(overlay));
  f.way = &f.b.bench.attach(f.b.top(), may_resize);
  f.actions->revert(named("s"));
}

TEST_CASE("qcow2 snapshots: counts that would overflow are found before anything is written") {
  for (const char* bits : {"1", "2"}) {
    snapshot_fixture f({{"cluster_size", "4K"}, {"refcount_bits", bits}});
    f.actions->create("empty"); // nothing is allocated, so nothing is shared
    f.fill(0, 50000, 1);
    const bool fits_two = std::string(bits) == "2";
    if (fits_two) {
      f.actions->create("a");
      f.actions->create("b"); // three references now
    }
    f.b.bench.must(f.way->flush());
    const auto before = f.disk->bytes;
    const result<std::string> refused = f.actions->try_create("more");
    REQUIRE(!refused);
    CHECK(refused.error().kind() == error_kind::unsupported);
    CHECK_MESSAGE(refused.error().message().contains(
                      fits_two
                          ? "is referred to 3 times already, and refcounts of 2 bits end at "
                            "3; convert the image to one with a larger 'refcount_bits'"
                          : "is referred to 1 times already, and refcounts of 1 bits end at 1"),
                  refused.error().message());
    CHECK(f.disk->bytes == before);
    if (fits_two)
      CHECK(!f.actions->try_revert(named("a"))); // shared by three, for a moment by four
    f.actions->revert(named("empty"));
    CHECK(f.content() == std::vector<std::byte>(length));
    f.b.close();
    require_sound(*f.disk);
  }
}

TEST_CASE("qcow2 snapshots: compressed clusters that share one are counted each") {
  snapshot_fixture f;
  f.fill(0, 4096, 1);
  f.b.close();
  {
    image_editor e(f.disk->bytes);
    e.add_compressed(0x2000, pattern(100, 3));
    const u64 entry = e.number(e.entry_at(0x2000));
    e.put(e.entry_at(0x3000), entry);
    const u64 host = entry & 0xffff000;
    e.add_refcount(host, 65534 - 1);
  }
  f.open();
  const auto before = f.disk->bytes;
  const result<std::string> refused = f.actions->try_create("s");
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("is referred to 65534 times already, and refcounts of "
                                           "16 bits end at 65535"));
  CHECK(f.disk->bytes == before);
}

TEST_CASE("qcow2 snapshots: bitmaps stay when one is taken, and keep the disk from reverting") {
  snapshot_fixture f;
  f.fill(0, 4096, 1);
  f.b.close();
  image_editor(f.disk->bytes).add_bitmap("b");
  f.open();
  f.actions->create("s"); // changes nothing that the bitmap would have to tell
  const result<> refused = f.actions->try_revert(named("s"));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(refused.error().message().ends_with(
      "has dirty bitmaps ('b'), which would not tell what reverting changes; remove them first"));
  f.b.close();
  require_sound(*f.disk);
  f.open();
  f.actions->remove(named("s"));
}

TEST_CASE("qcow2 snapshots: the state of a machine goes with a snapshot and comes back with it") {
  for (const u64 backing : {u64{0}, u64{4} << 20}) {
    qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
    memory_disk& disk = b.create("d", length, small_clusters);
    if (backing != 0)
      b.place("base", pattern(backing, 5));
    root& way = b.open("d", {}, backing != 0 ? "base" : "");
    const snapshot_actions actions{b.bench, b.top()};
    b.bench.must(way.write(0, pattern(9000, 1)));
    const auto state = pattern(3 << 20, 2); // its tables make the L1 table grow
    b.bench.must(b.top().write_vmstate(0, std::span(state).first(5001)));
    b.bench.must(b.top().write_vmstate(5001, std::span(state).subspan(5001)));
    CHECK(way.length() == length);
    std::vector<std::byte> seen(state.size());
    b.bench.must(b.top().read_vmstate(0, seen));
    CHECK(seen == state);
    const auto kept = read_all(b.bench, way);
    actions.create("s", state.size());
    CHECK(actions.list()[0].vm_state_length == state.size());
    b.bench.must(b.top().read_vmstate(0, seen)); // the live disk has given it away
    CHECK(seen == std::vector<std::byte>(state.size()));
    b.bench.must(b.top().write_vmstate(100, pattern(500, 7)));
    b.bench.must(way.write(0, pattern(20000, 3)));
    {
      const auto view =
          b.bench.must(b.top().as_snapshottable()->open_snapshot(named("s"), "this test"));
      b.bench.must(view->read_vmstate(0, seen));
      CHECK(seen == state);
      CHECK(message_of(b.bench.run(view->read_vmstate(1, seen))) ==
            "the VM state of snapshot 's' has 0x300000 bytes; there are no 0x300000 at 0x1");
    }
    actions.revert(named("s"));
    b.bench.must(b.top().read_vmstate(0, seen));
    CHECK(seen == state);
    CHECK(read_all(b.bench, way) == kept);
    // It lies behind the disk, which takes its place when it grows, and takes it along when it
    // shrinks.
    if (backing == 0)
      b.bench.must(way.truncate(length * 16));
    else
      b.bench.must(way.truncate(length / 2));
    std::vector<std::byte> now = kept;
    now.resize(way.length());
    CHECK(read_all(b.bench, way).size() == now.size());
    if (backing == 0)
      CHECK(read_all(b.bench, way) == now);
    actions.remove(named("s"));
    b.close();
    require_sound(disk);
  }
}

TEST_CASE("qcow2 snapshots: the state of a machine has limits, too") {
  snapshot_fixture f;
  const auto bytes = pattern(512, 1);
  CHECK(message_of(f.b.bench.run(f.b.top().write_vmstate(u64{1} << 50, bytes)))
            .contains("the state of a machine up to 0x4000000000200 does not fit behind a disk"));
  CHECK(message_of(f.b.bench.run(f.b.top().write_vmstate(~u64{0} >> 1, bytes)))
            .contains("the state of a machine has no 512 bytes at 0x7fffffffffffffff"));
  f.b.bench.disk("r", 65536);
  node& raw = f.b.bench.open(spec_builder("raw", raw_driver_type).child("file", disk_spec("r")));
  CHECK(message_of(f.b.bench.run(raw.write_vmstate(0, bytes))) ==
        "node 'raw' (raw) cannot hold the state of a machine");
}

TEST_CASE("qcow2 snapshots: a discard that keeps the reference leaves a snapshot's data alone") {
  snapshot_fixture f;
  f.b.close();
  f.open({{"discard-no-unref", "on"}, {"pass-discard-request", "on"}});
  f.fill(0, 40960, 1);
  const auto kept = f.content();
  f.actions->create("s");
  f.b.bench.must(f.way->discard({0, 40960}));
  f.b.bench.must(f.way->flush());
  f.b.bench.must(f.way->flush());
  node& shown = f.show("v", named("s"));
  CHECK(f.read_view(shown) == kept);
  f.close_view(shown);
  f.b.close();
  require_sound(*f.disk);
}

TEST_CASE("qcow2 snapshots: leases forget what may be overwritten, and all that was reverted") {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
  memory_disk& disk = b.create("d", length, small_clusters);
  disk.is_direct = true;
  b.bench.graph().set_lease_queues(2);
  root& way = b.open("d");
  const snapshot_actions actions{b.bench, b.top()};
  lease& by = *way.shared_lease();
  const auto resolve = [&]() -> std::optional<resolved_extent> {
    std::vector<std::byte> bytes(4096);
    b.bench.must(way.read(0, bytes));
    return by.resolve(0);
  };
  b.bench.must(way.write(0, pattern(4096, 1)));
  const auto before = resolve();
  REQUIRE(before);
  CHECK(before->may_write);
  actions.create("s");
  CHECK(!visitor(by).find(0));
  REQUIRE(resolve());
  CHECK(!resolve()->may_write);
  CHECK(resolve()->offset == before->offset);
  b.bench.must(way.write(0, pattern(4096, 2)));
  CHECK(resolve()->may_write);
  CHECK(resolve()->offset != before->offset);
  // A snapshot's own lease stays what it is while the live disk changes.
  node& shown = b.bench.open(view_spec("v", "img-d", named("s")));
  root& reader = b.bench.attach(shown, may_read);
  lease& of_view = *reader.shared_lease();
  std::vector<std::byte> bytes(4096);
  b.bench.must(reader.read(0, bytes));
  REQUIRE(visitor(of_view).find(0));
  b.bench.must(way.write(8192, pattern(4096, 2)));
  REQUIRE(visitor(of_view).find(0));
  CHECK(visitor(of_view).find(0)->offset == before->offset);
  CHECK(!visitor(of_view).find(0)->may_write);
  actions.revert(named("s"));
  CHECK(!visitor(by).find(0));
  CHECK(resolve()->offset == before->offset);
  CHECK(!resolve()->may_write);
  b.bench.detach(reader);
  b.bench.must(b.bench.graph().close(shown));
  actions.remove(named("s"));
  CHECK(resolve()->may_write);
}

namespace {

struct watcher final : root_observer {
  unsigned resizes = 0;
  unsigned changes = 0;
  void resized() override { resizes++; }
  void medium_changed() override { changes++; }
};

} // namespace

TEST_CASE("qcow2 snapshots: who uses a disk is told when it was reverted") {
  snapshot_fixture f;
  watcher seen;
  const auto user = f.b.bench.must(f.b.bench.graph().attach("user", f.b.top(), may_read, &seen));
  f.actions->create("s");
  CHECK(seen.changes == 0);
  f.actions->revert(named("s"));
  CHECK(seen.changes == 1);
  CHECK(seen.resizes == 0);
  f.b.bench.must(f.way->truncate(length * 3));
  seen.resizes = 0;
  f.actions->revert(named("s"));
  CHECK(seen.changes == 2);
  CHECK(seen.resizes == 1);
  CHECK(user->length() == length);
  f.b.bench.must(user->release());
}

namespace {

// Stamps a counter into a place of its own, again and again: never forward of the others.
struct stamping {
  root& way;
  u64 places;
  u64 rounds;
  bool is_done = false;
};

task<void> stamp(stamping& s) {
  u64 counter = 0;
  for (u64 round = 0; round < s.rounds; round++)
    for (u64 place = 0; place < s.places; place++) {
      std::array<std::byte, 512> bytes{};
      store(std::span<std::byte>(bytes), be64(++counter));
      co_await s.way.write(place * 1536, bytes);
    }
  s.is_done = true;
}

task<void> take_snapshots(stamping& s, graph_bench& bench, node& image, unsigned& taken) {
  while (!s.is_done && taken < 12) {
    co_await sleep_for(std::chrono::nanoseconds(0));
    for (unsigned i = 0; i < 7 + taken * 5; i++)
      co_await sleep_for(std::chrono::nanoseconds(0));
    (void)co_await bench.graph().create_snapshot(image, {.name = std::to_string(taken)});
    taken++;
  }
}

} // namespace

TEST_CASE("qcow2 snapshots: one taken under a writer holds what was written before one instant") {
  for (u64 seed = 1; seed <= 5; seed++) {
    CAPTURE(seed);
    qcow2_bench b({.shuffle_seed = seed});
    memory_disk& disk = b.create("d", length, small_clusters);
    root& way = b.open("d");
    stamping s{.way = way, .places = 40, .rounds = 20};
    unsigned taken = 0;
    background tasks(b.bench);
    tasks.start(stamp(s));
    tasks.start(take_snapshots(s, b.bench, b.top(), taken));
    while (tasks.running() > 0)
      tasks.settle();
    CHECK(taken > 5);
    b.close();
    require_sound(disk);
    const auto all = read_snapshots(disk.bytes);
    REQUIRE(all.size() == taken);
    u64 last = 0;
    for (const snapshot_content& one : all) {
      const auto at = [&](u64 place) { return load<be64>(one.disk, place * 1536).get(); };
      u64 newest = 0;
      for (u64 place = 0; place < s.places; place++)
        newest = std::max(newest, at(place));
      // Place p last got the largest number up to `newest` that falls on it.
      for (u64 place = 0; place < s.places; place++) {
        const u64 position = (newest + s.places - place - 1) % s.places;
        const u64 expected = newest > position ? newest - position : 0;
        REQUIRE_MESSAGE(at(place) == expected, "place " << place << " newest " << newest);
      }
      CHECK(newest >= last);
      last = newest;
    }
    CHECK(last > 0);
  }
}

TEST_CASE("qcow2 snapshots: what is wrong with one is told to its readers, not to the live disk") {
  struct damage {
    const char* message;
    void (*spoil)(image_editor& e, u64 entry); // `entry`: the snapshot's, in the table
  };
  const damage all[] = {
      {"the L1 table of snapshot 's' has 0 entries, too few for its disk of 0x40000 bytes",
       [](image_editor& e, u64 entry) { e.put(entry + 8, 0x0000000000010001); }},
      {"snapshot 's' claims a disk of 0xffffffffffffff00 bytes and a VM state of 0x0, more than",
       [](image_editor& e, u64 entry) { e.put(entry + 48, ~u64{0xff}); }},
      {"the L1 table of snapshot 's' at 0x40000000 reaches beyond the end of the file",
       [](image_editor& e, u64 entry) { e.put(entry, 0x40000000); }},
      {"snapshot 's': L2 table 0 at 0x40000000 reaches beyond the end of the file",
       [](image_editor& e, u64 entry) { e.put(e.number(entry), 0x40000000); }},
      {"snapshot 's': L2 table 0 at 0x200 is not aligned to the cluster size 0x1000",
       [](image_editor& e, u64 entry) { e.put(e.number(entry), 0x200); }},
      {"snapshot 's': the L2 entry of guest offset 0x0 (table 0 at 0x",
       [](image_editor& e, u64 entry) {
         const u64 copy = e.append(1);
         e.put(copy, 0x1200);
         e.put(e.number(entry), copy);
       }},
  };
  for (const damage& d : all) {
    CAPTURE(d.message);
    snapshot_fixture f;
    f.fill(0, 9000, 1);
    const auto content = f.content();
    f.b.close();
    {
      image_editor e(f.disk->bytes);
      e.add_snapshot("s");
      d.spoil(e, e.header().snapshots.value);
    }
    f.open();
    const result<node*> shown = f.b.bench.try_open(view_spec("v", "img-d", named("s")));
    std::string said = shown ? std::string() : shown.error().message();
    if (shown) {
      root& reader = f.b.bench.attach(**shown, may_read);
      std::vector<std::byte> bytes(100);
      said = message_of(f.b.bench.run(reader.read(0, bytes)));
      f.b.bench.detach(reader);
      f.close_view(**shown);
    }
    CHECK_MESSAGE(said.contains(d.message), said);
    CHECK(f.content() == content);
    f.fill(0, 9000, 2);
    f.b.bench.must(f.way->flush());
  }
}

TEST_CASE("qcow2 snapshots: one that claims what is not its own is neither deleted nor applied") {
  struct claim {
    const char* message;
    u64 (*target)(const image_editor& e); // what its first data entry refers to
  };
  const claim all[] = {
      {"snapshot 's' refers to the cluster at 0x0, which holds the header",
       [](const image_editor&) -> u64 { return 0x0; }},
      {"which holds the refcount table",
       [](const image_editor& e) { return e.header().refcount_table.value; }},
      {"which holds the active L1 table",
       [](const image_editor& e) { return e.header().l1.value; }},
      {"which holds the snapshot table",
       [](const image_editor& e) { return e.header().snapshots.value; }},
      {", which is in use, is 0", [](const image_editor&) -> u64 { return 0x100000; }},
  };
  for (const claim& c : all)
    for (const bool reverts : {false, true}) {
      CAPTURE(c.message);
      snapshot_fixture f;
      f.fill(0, 9000, 1);
      const auto content = f.content();
      f.b.close();
      {
        image_editor e(f.disk->bytes);
        e.add_snapshot("s");
        const u64 copy = e.append(1);
        const u64 target = c.target(e);
        // An entry at 0 is none; a compressed one there is.
        e.put(copy, target == 0 ? entry_compressed | 0x10 : target);
        e.put(e.number(e.header().snapshots.value), copy);
      }
      f.open();
      const result<> refused =
          reverts ? f.actions->try_revert(named("s")) : f.actions->try_remove(named("s"));
      REQUIRE(!refused);
      CHECK(refused.error().kind() == error_kind::corrupt_image);
      CHECK_MESSAGE(refused.error().message().contains(c.message), refused.error().message());
      CHECK(f.content() == content);
      (void)f.b.try_close();
      CHECK(read_disk(f.disk->bytes) == content);
    }
}

TEST_CASE("qcow2 snapshots: an L2 table outside of the file or at an odd place stops a change") {
  for (const u64 table : {u64{0x200}, u64{0x40000000}}) {
    snapshot_fixture f;
    f.fill(0, 9000, 1);
    f.b.close();
    {
      image_editor e(f.disk->bytes);
      e.add_snapshot("s");
      e.put(e.number(e.header().snapshots.value), table);
    }
    f.open();
    CHECK(message_of(f.actions->try_remove(named("s")))
              .contains(fmt::format("L2 table 0 of snapshot 's' at {:#x} is not at a multiple of "
                                    "the cluster size 0x1000 inside the file",
                                    table)));
    (void)f.b.try_close();
  }
}

TEST_CASE("qcow2 snapshots: extra data that nobody knows survives changes of the list") {
  snapshot_fixture f;
  f.b.close();
  {
    image_editor e(f.disk->bytes);
    e.add_snapshot("s");
    snapshot s{.l1 = host_offset(e.number(e.header().snapshots.value)),
               .l1_entries = e.header().l1_entries,
               .id = "1",
               .name = "s",
               .disk_length = length,
               .icount = {},
               .extra = pattern(200, 4)};
    const auto table = *serialise_snapshots(std::span(&s, 1), 3, length);
    std::ranges::copy(table, f.disk->bytes.begin() + static_cast<i64>(e.header().snapshots.value));
  }
  f.open();
  f.actions->create("t");
  f.actions->rename(named("s"), "u");
  f.actions->remove(named("t"));
  f.b.close();
  const u64 at = load<be64>(f.disk->bytes, 64);
  const auto extra = pattern(200, 4);
  CHECK(load<be32>(f.disk->bytes, at + 36) == 200);
  CHECK(std::ranges::equal(std::span(f.disk->bytes).subspan(at + 40 + 24, 176),
                           std::span(extra).subspan(24)));
  require_sound(*f.disk);
}
