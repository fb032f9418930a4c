// SPDX-License-Identifier: MIT
// Block status: the rules of the reference's section 1.6, by number.
#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/box_driver.h"
#include "tests/unit/lib/layer_driver.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

// "DZAEOC length" for data, zero, allocated, end, offset known, compressed.
std::string text_of(const block_status& s) {
  std::string text;
  text += s.is_data ? "D" : "";
  text += s.is_zero ? "Z" : "";
  text += s.is_allocated ? "A" : "";
  text += s.is_end ? "E" : "";
  text += s.file != nullptr ? fmt::format("O@{}", s.offset) : "";
  text += s.is_compressed ? "C" : "";
  return fmt::format("{} {}", text, s.length);
}

std::string status_of(graph_bench& bench, node& n, byte_range range, bool wants_zero = true) {
  return text_of(bench.must(n.status(range, wants_zero)));
}

std::string above_of(graph_bench& bench, node& n, byte_range range, const node* base = nullptr,
                     bool wants_zero = true) {
  const block_status s = bench.must(n.status_above(range, base, wants_zero));
  return fmt::format("{} depth {}", text_of(s), s.depth);
}

// Status under way while something else happens.
task<void> ask(node& n, byte_range range, std::optional<block_status>& answer) {
  answer = co_await n.status(range);
}

} // namespace

TEST_CASE("status 1: at the end there is nothing, and nothing of nothing") {
  graph_bench bench({});
  bench.disk("d", 1000);
  node& n = bench.open(disk_spec("d"));
  CHECK(status_of(bench, n, {1000, 10}) == "E 0");
  CHECK(status_of(bench, n, {5000, 10}) == "E 0");
  CHECK(status_of(bench, n, {10, 0}) == " 0");
  CHECK(status_of(bench, n, {900, 500}) == "DAEO@900 100"); // clamped
}

TEST_CASE("status 2: a driver that cannot tell has data") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  bench.disk("d", 4096);
  node& through = bench.open(spec_builder("p", pass_driver_type).child("file", disk_spec("d")));
  CHECK(status_of(bench, through, {100, 200}).starts_with("DAO@100 ")); // what its child says
}

TEST_CASE("status 3: the driver is asked for whole blocks, and may answer for more") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.request_alignment = 4096;
  std::vector<byte_range> asked;
  disk.mapping = [&](byte_range r) {
    asked.push_back(r);
    return extent{.length = 16 * KiB, .kind = extent_kind::zero, .offset = r.offset};
  };
  node& n = bench.open(disk_spec("d"));
  CHECK(status_of(bench, n, {5000, 100}) == fmt::format("ZAO@5000 {}", 16 * KiB - 904));
  CHECK(asked == std::vector{byte_range{4096, 4096}});
  // A run that ends before the byte we ask about: in doubt it is data, and something comes back.
  disk.mapping = [](byte_range r) {
    return extent{.length = 512, .kind = extent_kind::zero, .offset = r.offset};
  };
  CHECK(status_of(bench, n, {5000, 100}) == "DAO@5000 3192");
}

TEST_CASE("status 4: a leaf keeps the last run of data it was told of") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  // Data to 32 KiB, then a hole.
  disk.mapping = [](byte_range r) {
    const bool is_data = r.offset < 32 * KiB;
    return extent{.length = (is_data ? 32 * KiB : 64 * KiB) - r.offset,
                  .kind = is_data ? extent_kind::data : extent_kind::zero,
                  .offset = r.offset};
  };
  node& top = bench.open(
      spec_builder("top", raw_driver_type).set("discard", "unmap").child("file", disk_spec("d")));
  root& r = bench.attach(top, may_resize);
  node& leaf = top.child("file")->child();

  CHECK(status_of(bench, leaf, {4096, 10}, false) == fmt::format("DAO@4096 {}", 28 * KiB));
  CHECK(disk.maps == 1);
  status_of(bench, leaf, {4096, 10}); // who did not want zeroes kept nothing
  CHECK(disk.maps == 2);
  for (u64 at = 4096; at < 32 * KiB; at += 1000) // kept whole, not as long as was asked
    CHECK(status_of(bench, leaf, {at, 10}) == fmt::format("DAO@{} {}", at, 32 * KiB - at));
  CHECK(disk.maps == 2);
  CHECK(status_of(bench, leaf, {0, 10}, false) == fmt::format("DAO@0 {}", 32 * KiB)); // before it
  CHECK(disk.maps == 3);
  status_of(bench, leaf, {40 * KiB, 10}); // holes are not kept
  status_of(bench, leaf, {40 * KiB, 10});
  CHECK(disk.maps == 5);

  struct row {
    const char* what;
    std::function<task<void>()> act;
    bool forgets;
  };
  const auto data = pattern(512, 1);
  const row rows[] = {
      {"write", [&] { return r.write(4096, data); }, false},
      {"zero elsewhere", [&] { return r.write_zeroes({48 * KiB, 512}); }, false},
      {"discard elsewhere", [&] { return r.discard({48 * KiB, 512}); }, false},
      {"zero", [&] { return r.write_zeroes({8192, 512}); }, true},
      {"discard", [&] { return r.discard({31 * KiB, 512}); }, true},
      {"growing", [&] { return r.truncate(65 * KiB); }, true},
      {"shrinking", [&] { return r.truncate(64 * KiB); }, true},
  };
  for (const row& at : rows) {
    CAPTURE(at.what);
    status_of(bench, leaf, {4096, 10});
    const u64 before = disk.maps;
    bench.must(at.act());
    status_of(bench, leaf, {5000, 10});
    CHECK(disk.maps == before + (at.forgets ? 1 : 0));
  }
  disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "discard")
      return error(error_kind::io, "half way");
    return std::nullopt;
  };
  status_of(bench, leaf, {4096, 10});
  const u64 before = disk.maps;
  CHECK_FALSE(bench.run(r.discard({8192, 512})).has_value());
  status_of(bench, leaf, {4096, 10}); // a failed one may have done something
  CHECK(disk.maps == before + 1);
}

TEST_CASE("status 4: an answer from before a discard is not kept after it") {
  struct row {
    const char* what;
    std::function<task<void>(node&)> act;
  };
  const row rows[] = {{"discard", [](node& n) { return n.discard({0, 4096}); }},
                      {"zero", [](node& n) { return n.write_zeroes({0, 4096}); }},
                      {"truncate", [](node& n) { return n.truncate(8192); }}};
  for (const row& at : rows) {
    for (const bool status_first : {true, false}) {
      CAPTURE(at.what);
      CAPTURE(status_first);
      graph_bench bench({});
      memory_disk& disk = bench.disk("d", 64 * KiB);
      bool is_hole = false;
      disk.mapping = [&](byte_range r) {
        return extent{.length = 4096 - r.offset % 4096,
                      .kind = is_hole ? extent_kind::zero : extent_kind::data,
                      .offset = r.offset};
      };
      node& n = bench.open(disk_spec("d").set("discard", "unmap"));
      bench.attach(n, may_resize);
      event map_goes_on, change_goes_on;
      disk.hold = [&](std::string_view what, byte_range) {
        return what == "map" ? &map_goes_on : &change_goes_on;
      };
      std::optional<block_status> answer;
      task_group group(bench.home());
      const auto settle = [&] {
        for (int i = 0; i < 10; i++)
          bench.must(sleep_for(std::chrono::nanoseconds(0)));
      };
      // The driver has looked, and the answer is on its way; the other one acts meanwhile.
      if (status_first)
        group.spawn(ask(n, {0, 100}, answer));
      settle();
      group.spawn(at.act(n));
      settle();
      if (!status_first)
        group.spawn(ask(n, {0, 100}, answer)); // while it acts
      settle();
      if (!status_first)
        map_goes_on.set();
      settle();
      is_hole = true;
      change_goes_on.set();
      settle();
      map_goes_on.set();
      bench.must(group.join());
      REQUIRE(answer.has_value());
      CHECK(answer->is_data); // true when it was looked up
      disk.hold = nullptr;
      const block_status now = bench.must(n.status({0, 100}));
      CHECK(now.is_zero);
      CHECK_FALSE(now.is_data);
    }
  }
}

TEST_CASE("status 5: what a node only passes through is asked of the child, at its offset") {
  graph_bench bench({&raw_driver_type, &layer_driver_type});
  test_layer layer(bench, "low", 64 * KiB);
  layer.hold(8192, pattern(4096, 1));
  bench.open(layer.spec());
  node& window = bench.open(spec_builder("window", raw_driver_type)
                                .set("offset", u64{4096})
                                .set("size", u64{8192})
                                .child("file", "low"));
  CHECK(status_of(bench, window, {0, 8192}) == "Z 4096"); // not allocated there
  CHECK(status_of(bench, window, {4096, 8192}) == "DAEO@8192 4096");
  CHECK(status_of(bench, window, {5000, 100}).starts_with("DA"));
}

TEST_CASE("status 6: what is nowhere is zero where nothing is below, or below has ended") {
  graph_bench bench({&layer_driver_type});
  test_layer alone(bench, "alone", 16 * KiB);
  node& a = bench.open(alone.spec());
  CHECK(status_of(bench, a, {0, 4096}) == "Z 4096");
  test_layer over(bench, "over", 16 * KiB);
  bench.disk("short", 8192);
  node& o = bench.open(over.spec().child("backing", disk_spec("short")));
  CHECK(status_of(bench, o, {0, 4096}) == " 4096");
  CHECK(status_of(bench, o, {8192, 4096}) == "Z 4096");
  CHECK(status_of(bench, o, {8192, 4096}, false) == " 4096"); // nobody wanted to know
  over.state.blocks[0] = layer_state::block::zero;
  CHECK(status_of(bench, o, {0, 512}) == "ZA 512");
}

TEST_CASE("status 7: data that the file knows to be a hole is zero, and no error is made of it") {
  graph_bench bench({&layer_driver_type});
  test_layer top(bench, "top", 16 * KiB);
  node& n = bench.open(top.spec());
  top.state.script = [](byte_range r, const edge& file) {
    return extent{.length = 8192,
                  .kind = extent_kind::data,
                  .where = &file,
                  .offset = 1024 + r.offset,
                  .is_recursive = true};
  };
  struct row {
    const char* what;
    extent below;
    const char* expected;
  };
  const row rows[] = {
      {"data", {.length = 9000, .kind = extent_kind::data, .offset = 1024}, "DAO@1024 8192"},
      {"hole", {.length = 9000, .kind = extent_kind::zero, .offset = 1024}, "DZAO@1024 8192"},
      {"short", {.length = 600, .kind = extent_kind::zero, .offset = 1024}, "DZAO@1024 600"},
      {"short data", {.length = 600, .kind = extent_kind::data, .offset = 1024}, "DAO@1024 600"},
  };
  for (const row& at : rows) {
    CAPTURE(at.what);
    top.disk.mapping = [&](byte_range) { return at.below; };
    n.child("file")->child().forget_status();
    CHECK(status_of(bench, n, {0, 8192}) == at.expected);
  }
  CHECK(status_of(bench, n, {0, 8192}, false) == "DAO@1024 8192"); // not asked for
  top.disk.mapping = [](byte_range r) {
    return extent{.length = 16 * KiB - r.offset, .kind = extent_kind::zero, .offset = r.offset};
  };
  top.state.script = [](byte_range, const edge& file) {
    return extent{.length = 8192,
                  .kind = extent_kind::data,
                  .where = &file,
                  .offset = 12 * KiB, // 4 KiB before the end of the file
                  .is_recursive = true};
  };
  CHECK(status_of(bench, n, {0, 8192}) == "DZAO@12288 8192"); // behind the end is zero, too
  top.state.script = [](byte_range, const edge& file) {
    return extent{.length = 8192,
                  .kind = extent_kind::data,
                  .where = &file,
                  .offset = 100 * KiB,
                  .is_recursive = true};
  };
  CHECK(status_of(bench, n, {0, 8192}) == "DZAO@102400 8192");
  top.state.script = [](byte_range r, const edge& file) {
    return extent{.length = 8192,
                  .kind = extent_kind::data,
                  .where = &file,
                  .offset = r.offset,
                  .is_recursive = true};
  };
  top.disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "map")
      return error(error_kind::io, "injected");
    return std::nullopt;
  };
  CHECK(status_of(bench, n, {0, 8192}) == "DAO@0 8192");
}

TEST_CASE("status 8: a run that reaches the end says so") {
  graph_bench bench({&layer_driver_type});
  test_layer top(bench, "top", 4096);
  top.state.blocks[7] = layer_state::block::zero;
  node& n = bench.open(top.spec());
  CHECK(status_of(bench, n, {0, 4096}) == "Z 3584");
  CHECK(status_of(bench, n, {3584, 512}) == "ZAE 512");
  CHECK(status_of(bench, n, {3600, 10}) == "ZAE 496");
}

TEST_CASE("status 9: the chain is asked from the top to the first that decides") {
  graph_bench bench({&layer_driver_type, &pass_driver_type});
  test_layer top(bench, "top", 16 * KiB), mid(bench, "mid", 8 * KiB), low(bench, "low", 12 * KiB);
  top.hold(0, pattern(512, 1));
  mid.hold(512, pattern(512, 2));
  low.hold(0, pattern(12 * KiB, 3));
  low.state.blocks.erase(4);
  bench.open(low.spec());
  bench.open(mid.spec().child("backing", "low"));
  bench.open(spec_builder("pass", pass_driver_type).child("file", "mid"));
  node& n = bench.open(top.spec().child("backing", "pass"));
  node& filter = bench.open(spec_builder("front", pass_driver_type).child("file", "top"));
  const node& low_node = *bench.graph().find("low");
  for (node* from : {&n, &filter}) { // a filter and what it shows are one layer
    CAPTURE(from->name());
    CHECK(above_of(bench, *from, {0, 16 * KiB}) == "DAO@0 512 depth 1");
    CHECK(above_of(bench, *from, {512, 1024}) == "DAO@512 512 depth 2");
    CHECK(above_of(bench, *from, {1024, 1024}) == "DAO@1024 1024 depth 3");
    // Narrowed by each layer that is asked.
    CHECK(above_of(bench, *from, {1024, 16 * KiB}) == "DAO@1024 1024 depth 3");
    CHECK(above_of(bench, *from, {2048, 512}) == "Z 512 depth 3"); // nowhere
    // `mid` ends at 8 KiB: it decides, and `low` does not show through.
    CHECK(above_of(bench, *from, {8192, 4096}) == "ZA 4096 depth 2");
    CHECK(above_of(bench, *from, {8192, 8192}) == "ZAE 8192 depth 2"); // the end of the top
    CHECK(above_of(bench, *from, {1024, 1024}, &low_node) == " 1024 depth 2");
    CHECK(above_of(bench, *from, {512, 512}, bench.graph().find("mid")) == " 512 depth 1");
    CHECK(above_of(bench, *from, {512, 512}, bench.graph().find("pass")) == " 512 depth 1");
    CHECK(above_of(bench, *from, {512, 512}, from) == " 512 depth 1");
    CHECK(above_of(bench, *from, {16 * KiB, 512}) == "E 0 depth 1");
  }
  low.disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "read")
      return error(error_kind::io, "injected");
    return std::nullopt;
  };
  CHECK(bench.run(n.status_above({1024, 1024})).has_value()); // nothing is read for it
}

TEST_CASE("status 10: what the combinations mean, and what reads then give") {
  graph_bench bench({&layer_driver_type});
  test_layer top(bench, "top", 4096);
  memory_disk& base = bench.disk("base", 4096);
  base.bytes = pattern(4096, 9);
  top.disk.bytes = pattern(4096, 5);
  node& n = bench.open(top.spec().child("backing", disk_spec("base")));
  root& r = bench.attach(n);
  struct row {
    extent_kind kind;
    bool has_place;
    const char* expected;
    int reads; // 0: zeroes, 5: our bytes, 9: the backing's
  };
  const row rows[] = {
      {extent_kind::data, true, "DAO@0 4096", 5},
      {extent_kind::zero, true, "ZAO@0 4096", 0},
      {extent_kind::zero, false, "ZA 4096", 0},
      {extent_kind::unallocated, true, "O@0 4096", 9},
      {extent_kind::unallocated, false, " 4096", 9},
      {extent_kind::encoded, true, "DAC 4096", 5},
  };
  for (const row& at : rows) {
    CAPTURE(at.expected);
    top.state.script = [&](byte_range range, const edge& file) {
      return extent{.length = 4096 - range.offset,
                    .kind = at.kind,
                    .where = at.has_place ? &file : nullptr,
                    .offset = at.has_place ? range.offset : 0,
                    .is_compressed = at.kind == extent_kind::encoded};
    };
    std::string seen = status_of(bench, n, {0, 4096});
    seen.erase(std::ranges::remove(seen, 'E').begin(), seen.end());
    CHECK(seen == at.expected);
    const auto expected =
        at.reads == 0 ? std::vector<std::byte>(4096) : pattern(4096, static_cast<u64>(at.reads));
    CHECK(read_all(bench, r) == expected);
  }
}
