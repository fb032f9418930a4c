// SPDX-License-Identifier: MIT
// Edits of a graph that serves: filters, replaced nodes, backing files, reopening, and that each of
// their steps can fail without a trace.
#include "graph/model/edit.h"

#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/box_driver.h"

#include <set>

using namespace bgfs;
using namespace bgfs::test;
namespace pm = bgfs::permission;

namespace {

// What a graph looks like from outside: nodes, edges, permissions, options.
std::string shape(const graph& g) {
  std::vector<std::string> lines;
  for (const auto& n : g.nodes()) {
    std::string line = fmt::format("{} {} active={} ro={} given={}", n->name(), n->type().name,
                                   n->is_active(), n->is_read_only(), to_json(n->given().given()));
    for (const auto& e : n->children())
      line += fmt::format(" {}->{}({:x}/{:x})", e->name(), e->child().name(), e->granted().used,
                          e->granted().shared);
    for (const edge* e : n->parents())
      if (e->parent() == nullptr)
        line +=
            fmt::format(" root {}({:x}/{:x})", e->name(), e->granted().used, e->granted().shared);
    lines.push_back(std::move(line));
  }
  std::ranges::sort(lines);
  std::string text;
  for (const std::string& line : lines)
    text += line + "\n";
  return text;
}

void write(graph_bench& bench, root& r, u64 offset, const std::vector<std::byte>& bytes) {
  bench.must(r.write(offset, bytes));
}

std::vector<std::byte> read(graph_bench& bench, root& r, u64 offset, u64 length) {
  std::vector<std::byte> bytes(length);
  bench.must(r.read(offset, bytes));
  return bytes;
}

node_spec pass_over(const char* name, const char* below) {
  return spec_builder(name, pass_driver_type).child("file", below).build();
}

// Writes its own bytes over and over and reads them back, until told to stop.
task<void> keep_writing(root& r, u64 seed, byte_range mine, const bool& stop, u64& rounds) {
  std::vector<std::byte> got(mine.length);
  while (!stop) {
    const auto bytes = pattern(mine.length, seed + rounds);
    co_await r.write(mine.offset, bytes);
    co_await r.read(mine.offset, got);
    if (got != bytes)
      co_await fail(error_kind::io, "round {} of {} read something else", rounds, seed);
    rounds++;
  }
}

} // namespace

TEST_CASE("a filter is put over a node and taken away while requests run") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  box_disk(bench, "d", 8192);
  node& top = bench.open(box_spec("top", "d"));
  root& r = bench.attach(top);
  bool stop = false;
  u64 rounds[2] = {};
  task_group writers(bench.home());
  writers.spawn(keep_writing(r, 1, {0, 512}, stop, rounds[0]));
  writers.spawn(keep_writing(r, 2, {512, 700}, stop, rounds[1]));
  for (int i = 0; i < 20; i++) {
    node* const filter = bench.must(insert_filter(bench.graph(), top, pass_over("f", "top")));
    CHECK(&r.top() == filter);
    CHECK(filter->child("file")->granted().used == (pm::consistent_read | pm::write));
    bench.must(sleep_for(std::chrono::microseconds(50)));
    bench.must(remove_filter(bench.graph(), *filter));
    CHECK(&r.top() == &top);
    CHECK(bench.graph().nodes().size() == 2);
  }
  stop = true;
  bench.must(writers.join());
  CHECK(rounds[0] > 0);
  CHECK(rounds[1] > 0);
  const auto refused = bench.run(remove_filter(bench.graph(), top));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "node 'top' (box) is no filter: what it shows would change");
}

TEST_CASE("a node is replaced by another over the same image, and nothing written is lost") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  memory_disk& disk = box_disk(bench, "d", 4096);
  node& top = bench.open(box_spec("top", "d"));
  root& r = bench.attach(top, {pm::consistent_read | pm::write, pm::consistent_read});
  const auto bytes = pattern(1000, 7);
  write(bench, r, 100, bytes);
  CHECK(disk.bytes[4] == std::byte{'o'});
  for (const bool keeps_file : {true, false}) {
    CAPTURE(keeps_file);
    node* const before = bench.graph().find("top");
    const std::string file = before->child("file")->child().name();
    graph_edit edit;
    edit.leaving = {before};
    if (!keeps_file)
      edit.leaving.push_back(&before->child("file")->child());
    spec_builder again("top", box_driver_type);
    again.set("key", keeps_file ? "kept" : "new");
    if (keeps_file) {
      again.child("file", file.c_str());
    } else {
      again.child("file", disk_spec("d"));
    }
    edit.opens.push_back(again.build());
    edit.roots.push_back({&r, "top", {pm::consistent_read | pm::write, pm::consistent_read}});
    const edit_outcome outcome = bench.must(bench.graph().apply(std::move(edit)));
    CHECK(outcome.warnings.empty());
    CHECK(bench.graph().nodes().size() == 2);
    CHECK(&r.top() == bench.graph().find("top"));
    CHECK(r.top().given().text("key") == (keeps_file ? "kept" : "new"));
    CHECK(read(bench, r, 100, 1000) == bytes);
  }
}

// Whoever shows the root from another thread reads where it leads to at any time.
TEST_CASE("an edit that only changes what a root may do leaves it where it is, and tells nobody") {
  struct watcher final : root_observer {
    unsigned told = 0;
    void resized() override { told++; }
    void medium_changed() override { told++; }
  } seen;
  graph_bench bench({&box_driver_type});
  box_disk(bench, "d", 2048, true);
  node& top = bench.open(box_spec("top", "d"));
  const auto r =
      bench.must(bench.graph().attach("root", top, {pm::consistent_read, pm::all}, &seen));
  const auto may = [&](permissions wanted) {
    graph_edit edit;
    edit.roots.push_back({r.get(), "top", wanted});
    bench.must(bench.graph().apply(std::move(edit)));
  };
  may({pm::consistent_read | pm::write, pm::consistent_read});
  const auto bytes = pattern(100, 7);
  write(bench, *r, 0, bytes);
  CHECK(&r->top() == &top);
  CHECK(top.parents().size() == 1);
  may({pm::consistent_read, pm::all});
  std::vector<std::byte> back(100);
  CHECK(!bench.run(r->write(0, bytes)).has_value());
  bench.must(r->read(0, back));
  CHECK(back == bytes);
  CHECK(seen.told == 0);
  bench.must(r->release());
}

TEST_CASE("a backing node is swapped for a copy, and taken away") {
  graph_bench bench({&box_driver_type});
  for (const char* name : {"base", "copy"}) {
    memory_disk& d = box_disk(bench, name, 2048);
    std::ranges::copy(pattern(2048, 3), d.bytes.begin() + box_head);
  }
  box_disk(bench, "d", 2048, true);
  bench.open(box_spec("base", "base").set("read-only", true));
  node& copy = bench.open(box_spec("copy", "copy").set("read-only", true));
  node& top = bench.open(box_spec("top", "d").child("backing", "base"));
  root& r = bench.attach(top);
  const auto before = read_all(bench, r);
  const auto below = pattern(2048, 3);
  CHECK(
      std::ranges::equal(std::span(before).subspan(512, 512), std::span(below).subspan(512, 512)));
  bench.must(change_backing(bench.graph(), top, &copy));
  CHECK(top.backing()->child().name() == "copy");
  CHECK(read_all(bench, r) == before);
  bench.must(bench.graph().close(*bench.graph().find("base")));
  const auto loop = bench.run(change_backing(bench.graph(), copy, &top));
  REQUIRE(!loop);
  CHECK(loop.error().message() ==
        "making node 'top' (box) the 'backing' of node 'copy' (box) would create a loop");
  bench.must(change_backing(bench.graph(), top, nullptr));
  CHECK(top.backing() == nullptr);
  CHECK(top.has_no_backing());
  CHECK(read(bench, r, 512, 512) == std::vector<std::byte>(512));
  top.child("file")->freeze();
  const auto none = bench.run(bench.graph().apply({.children = {{&top, "file", "copy"}}}));
  REQUIRE(!none);
  CHECK(none.error().message() ==
        "the 'file' of node 'top' (box) cannot be changed while it is open: it holds what the "
        "driver keeps in memory");
  const auto nothing = bench.run(bench.graph().apply({.children = {{&top, "extra", "copy"}}}));
  REQUIRE(!nothing);
  CHECK(nothing.error().message() == "node 'top' (box) has no child 'extra'");
  top.child("file")->thaw();
}

TEST_CASE("a frozen edge is not changed") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  box_disk(bench, "base", 2048);
  box_disk(bench, "copy", 2048);
  box_disk(bench, "d", 2048, true);
  bench.open(box_spec("base", "base").set("read-only", true));
  node& copy = bench.open(box_spec("copy", "copy").set("read-only", true));
  node& top = bench.open(box_spec("top", "d").child("backing", "base"));
  top.backing()->freeze();
  const std::string before = shape(bench.graph());
  const auto changed = bench.run(change_backing(bench.graph(), top, &copy));
  REQUIRE(!changed);
  CHECK(changed.error().kind() == error_kind::busy);
  CHECK(changed.error().message() ==
        "the frozen 'backing' edge from node 'top' (box) to node 'base' (box) cannot be changed: a "
        "job uses it");
  const auto filtered =
      bench.run(insert_filter(bench.graph(), *bench.graph().find("base"), pass_over("f", "base")));
  REQUIRE(!filtered);
  CHECK(shape(bench.graph()) == before);
  top.backing()->thaw();
  bench.must(insert_filter(bench.graph(), *bench.graph().find("base"), pass_over("f", "base")));
  CHECK(top.backing()->child().name() == "f");
}

TEST_CASE("what can stand in for a node") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  box_disk(bench, "d", 2048);
  node& top = bench.open(box_spec("top", "d"));
  node* const f = bench.must(insert_filter(bench.graph(), top, pass_over("", "top")));
  CHECK(can_replace(*f, *f));
  CHECK(can_replace(*f, top));
  CHECK(!can_replace(top, *f));
  CHECK(!can_replace(*f, top.child("file")->child()));
}

TEST_CASE("several nodes are reopened together or not at all") {
  graph_bench bench({&box_driver_type});
  box_disk(bench, "a", 2048);
  box_disk(bench, "b", 2048);
  node& a = bench.open(box_spec("a", "a").set("speed", 1));
  node& b = bench.open(box_spec("b", "b").set("speed", 1));
  const auto step_to = [&](node& n, i64 speed) {
    node_spec s = box_spec("x", "x").set("speed", speed).build();
    return reopen_step{&n, s.given, s.generic};
  };
  box_fault() = {.refused_speed = 13};
  const std::string before = shape(bench.graph());
  const auto refused = bench.run(bench.graph().apply({.reopens = {step_to(a, 2), step_to(b, 13)}}));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "node 'b' (box): speed 13 is too fast");
  CHECK(shape(bench.graph()) == before);
  CHECK(box_fault().aborted == 1);
  bench.must(bench.graph().apply({.reopens = {step_to(a, 2), step_to(b, 3)}}));
  CHECK(dynamic_cast<box_driver&>(a.instance()).speed() == 2);
  CHECK(dynamic_cast<box_driver&>(b.instance()).speed() == 3);
  CHECK(a.given().number("speed") == 2);
  CHECK(box_fault().committed == 2);
  CHECK(box_fault().finished == 2);
  node& file = a.child("file")->child();
  const auto cannot = bench.run(bench.graph().apply({.reopens = {{&file, file.given(), {}}}}));
  REQUIRE(!cannot);
  CHECK(cannot.error().message() ==
        fmt::format("node '{}' (memory) cannot change its options while it is open", file.name()));
  box_fault() = {};
}

TEST_CASE("roots come and go with an edit, and a conflict of permissions undoes it") {
  graph_bench bench({&box_driver_type});
  box_disk(bench, "a", 2048);
  box_disk(bench, "b", 2048);
  node& a = bench.open(box_spec("a", "a"));
  root& r = bench.attach(a, {pm::consistent_read | pm::write, pm::consistent_read});
  const std::string before = shape(bench.graph());
  std::unique_ptr<root> second;
  graph_edit conflict;
  conflict.opens.push_back(box_spec("b", "b").build());
  conflict.attaches.push_back({"export 'two'", "a", may_write, nullptr, &second});
  const auto refused = bench.run(bench.graph().apply(std::move(conflict)));
  REQUIRE(!refused);
  CHECK(refused.error().message() ==
        "export 'two' cannot use node 'a' (box) for 'write': test does not share that; make one of "
        "them read-only");
  CHECK(second == nullptr);
  CHECK(shape(bench.graph()) == before);
  graph_edit swap;
  swap.opens.push_back(box_spec("b", "b").build());
  swap.attaches.push_back({"export 'two'", "b", may_write, nullptr, &second});
  swap.releases.push_back(&r);
  swap.leaving = {&a, &a.child("file")->child()};
  bench.must(bench.graph().apply(std::move(swap)));
  REQUIRE(second != nullptr);
  CHECK(bench.graph().find("a") == nullptr);
  CHECK(bench.graph().nodes().size() == 2);
  std::vector<std::byte> bytes(8);
  const auto gone = bench.run(r.read(0, bytes));
  REQUIRE(!gone);
  CHECK(gone.error().message() == "test is gone");
  CHECK(bench.run(r.write(0, bytes)).error().message() == "test is gone");
  bench.must(second->release());
}

TEST_CASE("a node that is still used is not closed") {
  graph_bench bench({&box_driver_type});
  box_disk(bench, "a", 2048);
  node& a = bench.open(box_spec("a", "a"));
  root& r = bench.attach(a);
  write(bench, r, 0, pattern(100, 1));
  const std::string before = shape(bench.graph());
  const auto refused = bench.run(bench.graph().apply({.leaving = {&a}}));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "node 'a' (box) cannot be closed: test uses it");
  CHECK(shape(bench.graph()) == before);
  CHECK(read(bench, r, 0, 100) == pattern(100, 1));
}

namespace {

// An edit with every kind of step, on a graph with a writable overlay, a filter and two roots.
struct everything {
  graph_bench bench{{&box_driver_type, &pass_driver_type}};
  node* overlay;
  node* plain;
  node* other;
  root* main;
  root* side;
  std::unique_ptr<root> extra;

  everything() {
    for (const char* name : {"base", "copy", "plain", "other"})
      box_disk(bench, name, 4096);
    box_disk(bench, "top", 4096, true);
    bench.open(box_spec("base", "base").set("read-only", true));
    overlay = &bench.open(box_spec("top", "top").child("backing", "base"));
    plain = &bench.open(box_spec("plain", "plain").set("speed", 1));
    other = &bench.open(box_spec("other", "other"));
    main = &bench.attach(*overlay);
    side = &bench.attach(*plain);
    bench.attach(*other);
    write(bench, *main, 0, pattern(300, 1));
    write(bench, *side, 0, pattern(300, 2));
  }
  ~everything() {
    if (extra)
      bench.must(extra->release());
  }
  graph_edit edit() {
    graph_edit e;
    node* const base = bench.graph().find("base");
    e.leaving = {base, &base->child("file")->child(), other};
    e.opens.push_back(box_spec("copy", "copy").set("read-only", true).build());
    e.opens.push_back(spec_builder("other", box_driver_type)
                          .set("key", "k")
                          .child("file", other->child("file")->child().name().c_str())
                          .build());
    e.opens.push_back(pass_over("f", "plain"));
    const node_spec faster = box_spec("x", "x").set("speed", 9).build();
    e.reopens.push_back({overlay, faster.given, faster.generic});
    e.children.push_back({overlay, "backing", "copy"});
    e.replaces.push_back({plain, "f"});
    e.replaces.push_back({other, "other"});
    e.roots.push_back({main, "top", may_resize});
    e.attaches.push_back({"extra", "copy", may_read, nullptr, &extra});
    return e;
  }
};

} // namespace

TEST_CASE("whatever step of an edit fails, the graph goes on as it was") {
  std::set<std::string> failed;
  for (int k = 0;; k++) {
    everything all;
    const std::string before = shape(all.bench.graph());
    int count = 0;
    std::string where;
    all.bench.graph().set_edit_fault([&](std::string_view step) -> std::optional<error> {
      if (count++ != k)
        return std::nullopt;
      where = step;
      return error(error_kind::io, "this step fails");
    });
    const auto outcome = all.bench.run(all.bench.graph().apply(all.edit()));
    all.bench.graph().set_edit_fault(nullptr);
    CAPTURE(where);
    if (where.empty()) {
      REQUIRE(outcome.has_value());
      break;
    }
    failed.insert(where);
    REQUIRE(!outcome);
    CHECK(outcome.error().message().ends_with("this step fails"));
    CHECK(shape(all.bench.graph()) == before);
    CHECK(read(all.bench, *all.main, 0, 300) == pattern(300, 1));
    write(all.bench, *all.main, 1024, pattern(100, 5));
    write(all.bench, *all.side, 0, pattern(300, 6));
    CHECK(read(all.bench, *all.side, 0, 300) == pattern(300, 6));
    // And the same edit goes through afterwards.
    all.bench.must(all.bench.graph().apply(all.edit()));
    CHECK(read(all.bench, *all.main, 1024, 100) == pattern(100, 5));
    CHECK(all.main->top().backing()->child().name() == "copy");
    CHECK(all.side->top().name() == "f");
    CHECK(dynamic_cast<box_driver&>(all.overlay->instance()).speed() == 9);
  }
  for (const char* step : {"flush base", "flush top", "suspend other", "open", "reopen top",
                           "child top", "replace plain", "root", "attach", "permissions", "commit"})
    CHECK_MESSAGE(failed.contains(step), step);
}

TEST_CASE("whatever operation on a disk fails during an edit, nothing is lost") {
  // Not every operation can be undone by reading again; only the disk that is closed and opened is
  // made to fail once, at each of its operations in turn.
  bool is_through = false;
  for (int k = 0; !is_through; k++) {
    everything all;
    memory_disk& disk = *memory_disks()["other"];
    root& r = *[&] {
      for (const edge* e : all.other->parents())
        (void)e;
      return &all.bench.attach(*all.other, may_read);
    }();
    int count = 0;
    bool has_failed = false;
    disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (count++ != k)
        return std::nullopt;
      has_failed = true;
      return error(error_kind::io, "the disk fails");
    };
    const std::string before = shape(all.bench.graph());
    const auto outcome = all.bench.run(all.bench.graph().apply(all.edit()));
    disk.fault = nullptr;
    is_through = !has_failed;
    CAPTURE(k);
    if (!outcome && all.bench.graph().find("other")->loss() == nullptr) {
      CHECK(shape(all.bench.graph()) == before);
    }
    const std::vector<std::byte> nothing(4096);
    if (all.bench.graph().find("other")->loss() == nullptr)
      CHECK(read_all(all.bench, r) == nothing);
    CHECK(read(all.bench, *all.main, 0, 300) == pattern(300, 1));
  }
}

TEST_CASE("a node that cannot be opened again is lost, says why, and can be replaced") {
  graph_bench bench({&box_driver_type});
  memory_disk& disk = box_disk(bench, "d", 2048);
  node& top = bench.open(box_spec("top", "d"));
  root& r = bench.attach(top);
  write(bench, r, 0, pattern(64, 1));
  bench.graph().set_edit_fault([&](std::string_view step) -> std::optional<error> {
    if (step != "open")
      return std::nullopt;
    disk.bytes[0] = std::byte{'?'}; // while it is closed somebody overwrites it
    return error(error_kind::io, "no");
  });
  const node& file = top.child("file")->child();
  const auto edit = [&] {
    graph_edit e;
    e.leaving = {&top};
    e.opens.push_back(
        spec_builder("top", box_driver_type).child("file", file.name().c_str()).build());
    e.roots.push_back({&r, "top", may_write});
    return e;
  };
  REQUIRE(!bench.run(bench.graph().apply(edit())));
  bench.graph().set_edit_fault(nullptr);
  REQUIRE(top.loss() != nullptr);
  std::vector<std::byte> bytes(64);
  const auto lost = bench.run(r.read(0, bytes));
  REQUIRE(!lost);
  CHECK(lost.error().message() ==
        "node 'top' (box) could not be opened again: node 'top' (box): this is no box");
  CHECK(!bench.run(r.write(0, bytes)).has_value());
  CHECK(!bench.run(r.flush()).has_value());
  CHECK(!bench.run(r.status_above({0, 1})).has_value());
  CHECK(!bench.run(r.truncate(100)).has_value());
  disk.bytes[0] = std::byte{'B'};
  bench.must(bench.graph().apply(edit()));
  CHECK(read(bench, r, 0, 64) == pattern(64, 1));
}

TEST_CASE("a deactivated node leaves its image alone until it is activated") {
  graph_bench bench({&box_driver_type});
  memory_disk& disk = box_disk(bench, "d", 2048);
  node& top = bench.open(box_spec("top", "d"));
  root& w = bench.attach(top);
  write(bench, w, 0, pattern(64, 1));
  const auto refused = bench.run(bench.graph().deactivate(top));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "node 'top' (box) cannot be deactivated: test writes to it; "
                                     "make that read-only or release it first");
  bench.detach(w);
  root& r = bench.attach(top, may_read);
  bench.must(bench.graph().deactivate(top));
  CHECK(disk.bytes[4] == std::byte{'c'});
  CHECK(!top.child("file")->child().is_active());
  CHECK(top.child("file")->granted() == permissions{0, pm::all});
  std::vector<std::byte> bytes(64);
  const auto off = bench.run(r.read(0, bytes));
  REQUIRE(!off);
  CHECK(off.error().message() == "node 'top' (box) is deactivated; activate it first");
  disk.bytes.resize(box_head + 4096); // somebody else grows and changes it
  std::ranges::copy(pattern(64, 2), disk.bytes.begin() + box_head);
  disk.bytes[4] = std::byte{'o'}; // and still has it
  const auto taken = bench.run(bench.graph().activate(top));
  REQUIRE(!taken);
  CHECK(taken.error().message().ends_with("somebody else has this box open"));
  CHECK(top.is_deactivated());
  disk.bytes[4] = std::byte{'c'};
  bench.must(bench.graph().activate(top));
  bench.must(r.read(0, bytes));
  CHECK(bytes == pattern(64, 2));
  CHECK(r.length() == 4096);
}

TEST_CASE("what is forbidden for a node is said with the reason") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  box_disk(bench, "base", 2048);
  box_disk(bench, "d", 2048, true);
  node& base = bench.open(box_spec("base", "base").set("read-only", true));
  CHECK(base.check_operation(node_operation::mirror_target).has_value());
  node& top = bench.open(box_spec("top", "d").child("backing", "base"));
  CHECK(base.check_operation(node_operation::stream).has_value());
  const auto blocked = base.check_operation(node_operation::resize);
  REQUIRE(!blocked);
  CHECK(blocked.error().message() == "node 'base' (box) cannot be used for 'resize' now: it is the "
                                     "backing of node 'top' (box)");
  const auto token = top.blockers().add(bit(node_operation::replace) | bit(node_operation::resize),
                                        "job 'copy' reads from it");
  const auto replaced = bench.run(insert_filter(bench.graph(), top, pass_over("f", "top")));
  REQUIRE(!replaced);
  CHECK(replaced.error().message() ==
        "node 'top' (box) cannot be replaced now: job 'copy' reads from it");
  const auto closed = bench.run(bench.graph().apply({.leaving = {&top}}));
  REQUIRE(!closed);
  CHECK(closed.error().message() ==
        "node 'top' (box) cannot be closed now: job 'copy' reads from it");
  root& r = bench.attach(top, may_resize);
  const auto resized = bench.run(r.truncate(4096));
  REQUIRE(!resized);
  CHECK(resized.error().message() == "node 'top' (box) cannot be used for 'resize' now: job 'copy' "
                                     "reads from it");
  top.blockers().remove(token);
  bench.must(insert_filter(bench.graph(), top, pass_over("f", "top")));
}

namespace {

// Shows its first child, keeps at least one, and counts what it is told.
struct bundle_counts {
  int begun = 0;
  int ended = 0;
  std::vector<std::string> children;
};
bundle_counts& counts() {
  static bundle_counts c;
  return c;
}

class bundle_driver final : public driver, public child_keeper, public quiescable {
public:
  explicit bundle_driver(edge& first) : children_{&first} {}
  [[nodiscard]] u64 length() const override { return children_.front()->length(); }
  task<void> close() override { co_return; }
  [[nodiscard]] result<child_slot> slot_for_another() const override {
    if (children_.size() == 3)
      return fail(error_kind::invalid_argument, "a bundle has three children at most");
    return child_slot{names[children_.size()], role::data, false};
  }
  [[nodiscard]] result<> may_remove(const edge& child) const override {
    if (children_.size() == 1)
      return fail(error_kind::busy, "'{}' is the last child of the bundle", child.name());
    return {};
  }
  void child_added(edge& child) noexcept override {
    children_.push_back(&child);
    counts().children.push_back("+" + child.name());
  }
  void child_removed(edge& child) noexcept override {
    std::erase(children_, &child);
    counts().children.push_back("-" + child.name());
  }
  void begin_drain() noexcept override { counts().begun++; }
  void end_drain() noexcept override { counts().ended++; }

private:
  static constexpr std::string_view names[] = {"children.0", "children.1", "children.2"};
  std::vector<edge*> children_;
};

task<std::unique_ptr<driver>> open_bundle(open_request request) {
  co_return std::make_unique<bundle_driver>(*request.children[0]);
}
constexpr child_slot bundle_slots[] = {{"children.0", role::filtered | role::primary}};
constexpr option_schema bundle_options{"driver 'bundle'", {}};
constexpr driver_type bundle_driver_type{.name = "bundle",
                                         .kind = driver_kind::filter,
                                         .summary = "for tests",
                                         .children = bundle_slots,
                                         .open_options = &bundle_options,
                                         .open = open_bundle};

} // namespace

TEST_CASE("children are added and removed where a driver keeps any number of them") {
  graph_bench bench({&box_driver_type, &bundle_driver_type});
  for (const char* name : {"a", "b", "c", "d"}) {
    box_disk(bench, name, 2048);
    bench.open(box_spec(name, name));
  }
  counts() = {};
  node& n = bench.open(spec_builder("n", bundle_driver_type).child("children.0", "a"));
  root& r = bench.attach(n);
  bench.must(bench.graph().apply({.children = {{&n, "", "b"}}}));
  bench.must(bench.graph().apply({.children = {{&n, "", "c"}}}));
  CHECK(n.child("children.1")->child().name() == "b");
  CHECK(n.child("children.2")->child().name() == "c");
  const std::string before = shape(bench.graph());
  const auto full = bench.run(bench.graph().apply({.children = {{&n, "", "d"}}}));
  REQUIRE(!full);
  CHECK(full.error().message() == "a bundle has three children at most");
  const auto swapped = bench.run(bench.graph().apply({.children = {{&n, "children.1", "d"}}}));
  REQUIRE(!swapped);
  CHECK(swapped.error().message() == "the child 'children.1' of node 'n' (bundle) cannot become "
                                     "another; remove it, and add the other one");
  const auto nobody = bench.run(bench.graph().apply({.children = {{&n, "children.7", ""}}}));
  REQUIRE(!nobody);
  CHECK(nobody.error().message() == "node 'n' (bundle) has no child 'children.7'");
  bench.graph().set_edit_fault([](std::string_view step) -> std::optional<error> {
    if (step != "permissions")
      return std::nullopt;
    return error(error_kind::io, "no");
  });
  REQUIRE(!bench.run(bench.graph().apply({.children = {{&n, "children.1", ""}}})));
  bench.graph().set_edit_fault(nullptr);
  CHECK(shape(bench.graph()) == before);
  bench.must(bench.graph().apply({.children = {{&n, "children.1", ""}, {&n, "children.2", ""}}}));
  CHECK(counts().children ==
        std::vector<std::string>{"+children.1", "+children.2", "-children.1", "-children.2"});
  std::vector<std::byte> bytes(16);
  bench.must(r.read(0, bytes));
}

TEST_CASE("a driver is told once when its node is drained, and once when the last drain ends") {
  graph_bench bench({&box_driver_type, &bundle_driver_type, &pass_driver_type});
  box_disk(bench, "a", 2048);
  node& a = bench.open(box_spec("a", "a"));
  node& n = bench.open(spec_builder("n", bundle_driver_type).child("children.0", "a"));
  bench.attach(n);
  counts() = {};
  auto outer = bench.must(bench.graph().drain(a.child("file")->child()));
  CHECK(counts().begun == 1);
  auto inner = bench.must(bench.graph().drain(a));
  CHECK(counts().begun == 1);
  bench.must(inner->release());
  CHECK(counts().ended == 0);
  bench.must(outer->release());
  CHECK(counts().ended == 1);
  // An edit that closes it ends its drain with it.
  bench.must(insert_filter(bench.graph(), n, pass_over("f", "n")));
  CHECK(counts().begun == 2);
  CHECK(counts().ended == 2);
  graph_edit gone;
  gone.replaces.push_back({&n, "a"});
  gone.leaving.push_back(&n);
  bench.must(bench.graph().apply(std::move(gone)));
  CHECK(counts().begun == 3);
  CHECK(counts().ended == 2);
}

TEST_CASE("a zoned device is only put below what keeps its zones") {
  graph_bench bench({&box_driver_type, &raw_driver_type, &pass_driver_type});
  memory_disk& zoned = bench.disk("zoned", 8192);
  zoned.limits = [](block_limits& l) {
    l.zones = {.model = zone_model::host_managed, .zone_length = 4096, .zone_count = 2};
  };
  node& raw = bench.open(spec_builder("raw", raw_driver_type).child("file", disk_spec("zoned")));
  CHECK(raw.limits().zones.zone_count == 2);
  const auto format = bench.try_open(box_spec("x", "zoned"));
  REQUIRE(!format);
  CHECK(format.error().message().ends_with(
      "as its 'file': that is a zoned device (host-managed), and driver 'box' writes in any order; "
      "use one that keeps zones, such as raw"));
  box_disk(bench, "a", 2048, true);
  node& overlay = bench.open(box_spec("a", "a"));
  const std::string before = shape(bench.graph());
  const auto backing = bench.run(change_backing(bench.graph(), overlay, &raw));
  REQUIRE(!backing);
  CHECK(backing.error().message().starts_with(
      "node 'a' (box) cannot have node 'raw' (raw) as its 'backing': that is a zoned device"));
  CHECK(shape(bench.graph()) == before);
}

TEST_CASE("a raw node that shows a part of its file takes no zoned device") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("zoned", 8192);
  disk.limits = [](block_limits& l) {
    l.zones = {.model = zone_model::host_managed, .zone_length = 4096, .zone_count = 2};
  };
  bench.disk("plain", 8192);
  const auto raw_over = [](const char* below) {
    return spec_builder(std::string("raw-") + below, raw_driver_type).child("file", below);
  };
  for (const char* name : {"zoned", "plain"})
    bench.open(spec_builder(name, memory_driver_type).set("filename", name));
  const std::string_view refusal =
      "'offset' and 'size' cannot cut a part out of node 'zoned' (memory), which is a zoned device "
      "(host-managed); leave them out to use all of it";
  for (const char* option : {"offset", "size"}) {
    CAPTURE(option);
    const auto opened = bench.try_open(raw_over("zoned").set(option, 4096));
    REQUIRE(!opened);
    CHECK_MESSAGE(opened.error().message().ends_with(refusal), opened.error().message());
  }
  node& whole = bench.open(raw_over("zoned"));
  node& part = bench.open(raw_over("plain").set("offset", 4096));
  const auto reopen_to = [](node& n, const spec_builder& to) {
    node_spec s = to.build();
    return reopen_step{&n, s.given, s.generic};
  };
  node* const plain = bench.graph().find("plain");
  const auto zoned_below_part = [&](const spec_builder& part_becomes) {
    graph_edit e;
    e.reopens.push_back(reopen_to(part, part_becomes));
    e.replaces.push_back({plain, "zoned"});
    return e;
  };
  const std::function<graph_edit()> edits[] = {
      [&] {
        graph_edit e;
        e.reopens.push_back(reopen_to(whole, raw_over("zoned").set("size", 4096)));
        return e;
      },
      [&] {
        graph_edit e;
        e.replaces.push_back({plain, "zoned"});
        return e;
      },
      [&] { return zoned_below_part(raw_over("plain").set("size", 512)); },
  };
  const std::string before = shape(bench.graph());
  for (const auto& edit : edits) {
    const auto refused = bench.run(bench.graph().apply(edit()));
    REQUIRE(!refused);
    CHECK_MESSAGE(refused.error().message().ends_with(refusal), refused.error().message());
    CHECK(shape(bench.graph()) == before);
  }
  // What it is going to show counts.
  bench.must(bench.graph().apply(zoned_below_part(raw_over("plain"))));
  CHECK(part.limits().zones.model == zone_model::host_managed);
}
