// SPDX-License-Identifier: MIT
#include "drivers/filter/copy_on_read/copy_on_read.h"

#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/box_driver.h"
#include "tests/unit/lib/layer_driver.h"

#include <set>

using namespace bgfs;
using namespace bgfs::test;
namespace pm = bgfs::permission;

namespace {

using block = layer_state::block;

// front (copy-on-read) -> top -> mid -> low, of 512-byte blocks and 2048-byte clusters.
struct chain {
  graph_bench bench;
  test_layer top, mid, low;
  node* front = nullptr;

  explicit chain(loop_options how = {})
      : bench({&layer_driver_type, &copy_on_read_driver_type, &pass_driver_type}, how),
        top(bench, "top", 16 * KiB), mid(bench, "mid", 16 * KiB), low(bench, "low", 12 * KiB) {
    top.state.cluster_size = 2048;
    low.hold(0, pattern(12 * KiB, 3));
    mid.hold(4096, pattern(2048, 2));
    bench.open(low.spec());
    bench.open(mid.spec().child("backing", "low"));
    bench.open(top.spec().child("backing", "mid"));
  }
  root& open(const std::string& bottom = {}, permissions wanted = may_write) {
    spec_builder spec("front", copy_on_read_driver_type);
    spec.child("file", "top");
    if (!bottom.empty())
      spec.set("bottom", bottom);
    front = &bench.open(spec);
    return bench.attach(*front, wanted);
  }
  std::vector<std::byte> content() {
    auto bytes = pattern(12 * KiB, 3);
    bytes.resize(16 * KiB);
    std::ranges::copy(pattern(2048, 2), bytes.begin() + 4096);
    return bytes;
  }
  std::set<u64> held() {
    std::set<u64> blocks;
    for (const auto& [index, kind] : top.state.blocks)
      blocks.insert(index);
    return blocks;
  }
};

} // namespace

TEST_CASE("copy-on-read: what is read is stored in whole clusters, and only there") {
  chain c;
  root& r = c.open();
  std::vector<std::byte> bytes(100);
  c.bench.must(r.read(5000, bytes));
  const auto content = c.content();
  CHECK(std::equal(bytes.begin(), bytes.end(), content.begin() + 5000));
  CHECK(c.held() == std::set<u64>{8, 9, 10, 11}); // the cluster from 4096 to 6144
  CHECK(
      std::equal(content.begin() + 4096, content.begin() + 6144, c.top.disk.bytes.begin() + 4096));
  c.mid.disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    return error(error_kind::io, fmt::format("{} below", what));
  };
  c.bench.must(r.read(5900, bytes)); // from the copy
  CHECK(std::equal(bytes.begin(), bytes.end(), content.begin() + 5900));
  c.mid.disk.fault = nullptr;
  bytes.resize(4096);
  c.bench.must(r.read(12 * KiB, bytes));
  CHECK(read_all(c.bench, r) == content);
  CHECK(c.held().size() == 32);
  // What reads as zeroes is stored as such.
  CHECK(c.top.state.blocks.at(24) == block::zero);
  CHECK(c.top.state.blocks.at(23) == block::data);
  CHECK(read_all(c.bench, r) == content);
}

TEST_CASE("copy-on-read: bottom bounds what is copied") {
  chain c;
  root& r = c.open("mid");
  CHECK(read_all(c.bench, r) == c.content());
  CHECK(c.held() == std::set<u64>{8, 9, 10, 11}); // what mid holds; low is read through
  CHECK(read_all(c.bench, r) == c.content());
}

TEST_CASE("copy-on-read: bottom at the base copies what any layer holds, and no more") {
  chain c;
  root& r = c.open("low");
  CHECK(read_all(c.bench, r) == c.content());
  std::set<u64> expected;
  for (u64 i = 0; i < 24; i++)
    expected.insert(i);
  // Past the end of `low` there is nothing to copy - but as a layer that is too short it decides.
  for (u64 i = 24; i < 32; i++)
    if (c.top.state.blocks.contains(i))
      CHECK(c.top.state.blocks.at(i) == block::zero);
  for (const u64 i : expected)
    CHECK(c.top.state.blocks.contains(i));
}

TEST_CASE("copy-on-read: prefetching copies and returns nothing; elsewhere it is not to be had") {
  chain c;
  root& r = c.open();
  node& outer = c.bench.open(spec_builder("outer", pass_driver_type).child("file", "front"));
  c.bench.must(outer.prefetch({4096, 1}));
  CHECK(c.held() == std::set<u64>{8, 9, 10, 11});
  c.bench.must(r.top().prefetch({0, 16 * KiB}));
  CHECK(c.held().size() == 32);
  const result<> refused = c.bench.run(c.bench.graph().find("mid")->prefetch({0, 512}));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "nothing in front of node 'mid' (layer) copies on read; put a "
                                     "'copy-on-read' node there");
  CHECK(c.bench.run(r.top().prefetch({16 * KiB, 1})).error().kind() == error_kind::out_of_range);
}

TEST_CASE("copy-on-read: it writes unchanged, also for a user who only reads") {
  chain c;
  c.open({}, may_read);
  const edge& below = *c.front->child("file");
  CHECK(below.granted().used == (pm::consistent_read | pm::write_unchanged));
  CHECK(below.granted().shared == pm::all);
  CHECK(c.bench.graph().find("top")->statistics().of(operation::write).count == 0);
  root& writer = c.bench.attach(*c.front, {pm::consistent_read | pm::write, pm::consistent_read});
  CHECK(below.granted().used == (pm::consistent_read | pm::write | pm::write_unchanged));
  CHECK(below.granted().shared == (pm::consistent_read | pm::write_unchanged));
  c.bench.detach(writer);
}

TEST_CASE("copy-on-read: a child that is read-only is refused, with what to do") {
  graph_bench bench({&layer_driver_type, &copy_on_read_driver_type});
  test_layer top(bench, "top", 4096);
  bench.open(top.spec().set("read-only", true));
  const auto opened =
      bench.try_open(spec_builder("front", copy_on_read_driver_type).child("file", "top"));
  REQUIRE(!opened);
  CHECK(opened.error().message() ==
        "node 'top' (layer) is read-only; open it with 'read-only: false' to write");
}

TEST_CASE("copy-on-read: a bottom that cannot be is refused") {
  chain c;
  c.bench.open(spec_builder("filter", pass_driver_type).child("file", "low"));
  c.bench.disk("other", 512);
  c.bench.open(spec_builder("aside", memory_driver_type).set("filename", "other"));
  const std::pair<const char*, const char*> rows[] = {
      {"nowhere", "'bottom' names 'nowhere', which is not open"},
      {"filter", "'bottom' names node 'filter' (pass), which is a filter; name the image below it"},
      {"aside", "'bottom' names node 'aside' (memory), which is not below node 'top' (layer)"},
      {"top", "'bottom' names node 'top' (layer), which is what is copied into; name an image "
              "below it"}};
  for (const auto& [name, message] : rows) {
    const auto opened = c.bench.try_open(
        spec_builder("front", copy_on_read_driver_type).set("bottom", name).child("file", "top"));
    REQUIRE(!opened);
    CHECK(opened.error().message().ends_with(message));
  }
  CHECK_FALSE(c.bench.graph().find("top")->backing()->is_frozen());
}

TEST_CASE("copy-on-read: the way to the bottom is frozen while it is open") {
  chain c;
  root& r = c.open("low");
  node& top = *c.bench.graph().find("top");
  node& mid = *c.bench.graph().find("mid");
  CHECK(top.backing()->is_frozen());
  CHECK(mid.backing()->is_frozen());
  c.bench.detach(r);
  c.bench.must(c.bench.graph().close(*c.front));
  CHECK_FALSE(top.backing()->is_frozen());
  CHECK_FALSE(mid.backing()->is_frozen());
}

TEST_CASE(
    "copy-on-read: a copy that cannot be stored fails the read; a broken image is only read") {
  chain c;
  root& r = c.open();
  c.top.disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "write")
      return error(error_kind::no_space, "the test disk is full");
    return std::nullopt;
  };
  std::vector<std::byte> bytes(512);
  CHECK(c.bench.run(r.read(0, bytes)).error().kind() == error_kind::no_space);
  (void)c.bench.graph().find("top")->report_corruption("two tables are one");
  c.bench.must(r.read(0, bytes));
  CHECK(std::equal(bytes.begin(), bytes.end(), c.content().begin()));
  CHECK(c.held().empty());
}

namespace {

task<void> read_it(root& r, u64 offset, std::span<std::byte> bytes) {
  co_await r.read(offset, bytes);
}
task<void> both(std::vector<task<void>> tasks) {
  co_await when_all(std::move(tasks));
}

} // namespace

TEST_CASE("copy-on-read: a write meanwhile is not undone by the copy") {
  // The write may come through the filter, or to its child from elsewhere.
  for (u64 seed = 1; seed <= 60; seed++) {
    CAPTURE(seed);
    chain c({.shuffle_seed = seed});
    root& r = c.open();
    root& direct = c.bench.attach(*c.bench.graph().find("top"));
    std::vector<std::byte> first(512), second(512);
    const auto data = pattern(512, 99);
    std::vector<task<void>> tasks;
    tasks.push_back(read_it(r, 4096, first));
    tasks.push_back(read_it(r, 5632, second));
    tasks.push_back(seed % 2 == 0 ? r.write(4608, data) : direct.write(4608, data));
    c.bench.must(both(std::move(tasks)));
    auto expected = c.content();
    std::ranges::copy(data, expected.begin() + 4608);
    CHECK(read_all(c.bench, r) == expected);
    CHECK(std::equal(first.begin(), first.end(), expected.begin() + 4096));
  }
}

TEST_CASE("copy-on-read: writes, zero writes, discards and lengths pass through") {
  chain c;
  root& r = c.open({}, may_resize);
  auto content = c.content();
  const auto data = pattern(700, 5);
  c.bench.must(r.write(300, data));
  std::ranges::copy(data, content.begin() + 300);
  c.bench.must(r.write_zeroes({9000, 1000}));
  std::fill_n(content.begin() + 9000, 1000, std::byte{0});
  CHECK(read_all(c.bench, r) == content);
  c.bench.must(r.truncate(20 * KiB));
  content.resize(20 * KiB);
  CHECK(r.length() == 20 * KiB);
  CHECK(read_all(c.bench, r) == content);
  c.bench.must(r.write(0, pattern(512, 6), write_flag::compressed));
  CHECK(c.top.state.compressed.size() == 1);
  c.bench.must(r.flush());
}
