// SPDX-License-Identifier: MIT
// What becomes of the flags and options of writes: durable, unchanged, may-unmap, no-fallback,
// compressed; discard, detect-zeroes, cache.
#include "drivers/format/raw/raw.h"
#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "tests/unit/lib/box_driver.h"
#include "tests/unit/lib/layer_driver.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

using kind = memory_event::kind;

std::vector<kind> kinds(const memory_disk& disk) {
  std::vector<kind> all;
  for (const memory_event& e : disk.log)
    all.push_back(e.what);
  return all;
}

spec_builder plain(const char* discard = "unmap") {
  return disk_spec("d").set("discard", discard);
}

} // namespace

TEST_CASE("a durable write in several pieces is durable whole") {
  for (const bool is_native : {false, true}) {
    CAPTURE(is_native);
    graph_bench bench({});
    memory_disk& disk = bench.disk("d", 64 * KiB);
    disk.max_transfer = 4096;
    disk.keeps_log = true;
    disk.write_flags_supported = is_native ? write_flag::durable : 0;
    std::vector<write_flags> flags;
    disk.fault = [&](std::string_view what, byte_range) -> std::optional<error> {
      if (what == "write")
        flags.push_back(disk.flags_seen);
      return std::nullopt;
    };
    root& r = bench.attach(bench.open(plain()));
    bench.must(r.write(0, pattern(3 * 4096, 1), write_flag::durable | write_flag::unchanged));
    if (is_native) {
      CHECK(flags == std::vector<write_flags>(3, write_flag::durable));
      CHECK(kinds(disk) == std::vector{kind::write, kind::write, kind::write});
    } else { // one flush after the last
      CHECK(flags == std::vector<write_flags>(3, 0));
      CHECK(kinds(disk) == std::vector{kind::write, kind::write, kind::write, kind::flush});
    }
  }
}

TEST_CASE("a durable zero write ends with one flush, unless each piece was durable") {
  struct row {
    bool can_zero;
    bool is_native;
    bool is_aligned;
    std::vector<kind> expected;
  };
  const row rows[] = {
      {true, true, true, {kind::zero, kind::zero}},
      {true, false, true, {kind::zero, kind::zero, kind::flush}},
      {false, true, true, {kind::write, kind::write, kind::flush}},
      {true, true, false, {kind::write, kind::zero, kind::write, kind::flush}},
  };
  for (const row& at : rows) {
    CAPTURE(at.can_zero);
    CAPTURE(at.is_native);
    graph_bench bench({});
    memory_disk& disk = bench.disk("d", 64 * KiB);
    disk.request_alignment = 512;
    disk.limits = [](block_limits& l) { l.max_write_zeroes = 4096; };
    disk.max_transfer = 4096;
    disk.can_zero = at.can_zero;
    disk.keeps_log = true;
    disk.zero_flags_supported = at.is_native ? write_flag::durable : 0;
    root& r = bench.attach(bench.open(plain()));
    const byte_range range =
        at.is_aligned ? byte_range{0, 8192} : byte_range::between(4096 - 100, 8192 + 100);
    bench.must(r.write_zeroes(range, write_flag::durable));
    CHECK(kinds(disk) == at.expected);
  }
}

TEST_CASE("cache.no-flush makes durable writes plain ones") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.keeps_log = true;
  disk.write_flags_supported = disk.zero_flags_supported = write_flag::durable;
  root& r = bench.attach(bench.open(plain().set("cache", [] {
    value cache;
    cache.set("no-flush", true);
    return cache;
  }())));
  bench.must(r.write(0, pattern(512, 1), write_flag::durable));
  CHECK(disk.flags_seen == 0);
  bench.must(r.write_zeroes({0, 512}, write_flag::durable));
  CHECK(disk.flags_seen == 0);
  bench.must(r.flush());
  CHECK(kinds(disk) == std::vector{kind::write, kind::zero});
}

TEST_CASE("cache.writeback: false makes every write of a root durable, at its top node only") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.keeps_log = true;
  value cache;
  cache.set("writeback", false);
  node& top =
      bench.open(spec_builder("top", raw_driver_type).set("cache", cache).child("file", plain()));
  CHECK_FALSE(top.generic().cache_writeback);
  CHECK(top.child("file")->child().generic().cache_writeback);
  root& r = bench.attach(top);
  bench.must(r.write(0, pattern(512, 1)));
  bench.must(r.write_zeroes({512, 512}));
  CHECK(kinds(disk) == std::vector{kind::write, kind::flush, kind::zero, kind::flush});
}

TEST_CASE("zeroes may be unmapped only where the node discards") {
  for (const bool unmaps : {false, true}) {
    graph_bench bench({});
    memory_disk& disk = bench.disk("d", 64 * KiB);
    root& r = bench.attach(bench.open(plain(unmaps ? "unmap" : "ignore")));
    bench.must(r.write_zeroes({0, 4096}, write_flag::may_unmap));
    CHECK(disk.flags_seen == (unmaps ? write_flag::may_unmap : 0));
  }
}

TEST_CASE("no-fallback is refused at once by a driver that does not list it") {
  graph_bench bench({&pass_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.request_alignment = 512;
  disk.zero_flags_supported = write_flag::may_unmap;
  node& top = bench.open(spec_builder("top", pass_driver_type).child("file", plain()));
  for (node* n : {&top, &top.child("file")->child()}) {
    root& r = bench.attach(*n);
    const result<> refused = bench.run(r.write_zeroes({100, 4096}, write_flag::no_fallback));
    REQUIRE(!refused);
    CHECK(refused.error().kind() == error_kind::unsupported);
    CHECK(refused.error().message() ==
          "driver 'memory' cannot write zeroes without writing a buffer");
    CHECK(disk.operations == 0); // not even the unaligned head
  }
  disk.zero_flags_supported = write_flag::no_fallback;
  disk.can_zero = false; // says so only when asked
  root& r = bench.attach(top);
  CHECK(bench.run(r.write_zeroes({0, 4096}, write_flag::no_fallback)).error().kind() ==
        error_kind::unsupported);
  CHECK(disk.log.empty());
}

TEST_CASE("a driver may refuse pieces that are too small for it, and they are written") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.bytes = pattern(64 * KiB, 1);
  disk.keeps_log = true;
  disk.limits = [](block_limits& l) { l.write_zeroes_alignment = 4096; };
  disk.fault = [](std::string_view what, byte_range r) -> std::optional<error> {
    if (what == "zero" && !r.is_aligned_to(4096))
      return error(error_kind::invalid_argument, "not for me");
    return std::nullopt;
  };
  root& r = bench.attach(bench.open(plain()));
  bench.must(r.write_zeroes(byte_range::between(1000, 10000)));
  CHECK(kinds(disk) == std::vector{kind::write, kind::zero, kind::write});
  CHECK(is_zero(std::span(disk.bytes).subspan(1000, 9000)));
  CHECK(disk.bytes[999] == pattern(64 * KiB, 1)[999]);
  CHECK(disk.bytes[10000] == pattern(64 * KiB, 1)[10000]);
  disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "zero")
      return error(error_kind::invalid_argument, "wrong");
    return std::nullopt;
  };
  CHECK(bench.run(r.write_zeroes({4096, 4096})).error().message() == "wrong"); // not too small
}

TEST_CASE("detect-zeroes needs a driver that writes zeroes, and a buffer that is all zero") {
  graph_bench bench({&box_driver_type, &pass_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.keeps_log = true;
  node& through = bench.open(spec_builder("through", pass_driver_type)
                                 .set("detect-zeroes", "on")
                                 .set("discard", "unmap")
                                 .child("file", plain()));
  root& r = bench.attach(through); // a filter can if its child can
  std::vector<std::byte> zeroes(4096);
  bench.must(r.write(0, zeroes));
  CHECK(disk.flags_seen == 0); // `on` does not unmap
  zeroes.back() = std::byte{1};
  bench.must(r.write(4096, zeroes));
  CHECK(kinds(disk) == std::vector{kind::zero, kind::write});
  box_disk(bench, "box", 8192);
  root& b = bench.attach(bench.open(box_spec("boxed", "box").set("detect-zeroes", "on")));
  bench.must(b.write(0, std::vector<std::byte>(512)));
  CHECK(b.top().statistics().of(operation::write).count == 1);
  CHECK(b.top().statistics().of(operation::zero).count == 0);
}

TEST_CASE("compressed writes go to drivers that can, whole and undetected") {
  graph_bench bench({&layer_driver_type, &pass_driver_type});
  test_layer layer(bench, "top", 64 * KiB);
  node& top = bench.open(layer.spec().set("detect-zeroes", "unmap"));
  root& r = bench.attach(top);
  bench.must(r.write(4096, std::vector<std::byte>(8192), write_flag::compressed));
  CHECK(layer.state.compressed == std::vector{byte_range{4096, 8192}});
  const result<> cut = bench.run(r.write(100, pattern(512, 1), write_flag::compressed));
  REQUIRE(!cut);
  CHECK(cut.error().message() == "512 bytes at 0x64 of node 'top' (layer) cannot be compressed: "
                                 "they are no whole blocks of 512");
  bench.must(r.write(0, pattern(512, 1), write_flag::compressed | write_flag::durable));
  bench.disk("d", 4096);
  root& plain_root = bench.attach(bench.open(plain()));
  CHECK(bench.run(plain_root.write(0, pattern(512, 1), write_flag::compressed)).error().message() ==
        "node '#block001' (memory) cannot write compressed clusters");
  node& filter = bench.open(spec_builder("filter", pass_driver_type).child("file", "top"));
  layer.state.compressed.clear(); // a filter that sees no writes sees none of these
  bench.must(bench.attach(filter).write(0, pattern(512, 1), write_flag::compressed));
  CHECK(layer.state.compressed == std::vector{byte_range{0, 512}});
}

TEST_CASE(
    "discards reach the driver in whole blocks, and one piece that fails to does not matter") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 64 * KiB + 100);
  disk.request_alignment = 512;
  disk.limits = [](block_limits& l) {
    l.max_discard = 10000;
    l.discard_alignment = 4096;
  };
  disk.keeps_log = true;
  disk.fault = [](std::string_view what, byte_range r) -> std::optional<error> {
    if (what == "discard" && r.offset == 4096)
      return error(error_kind::unsupported, "not this one");
    return std::nullopt;
  };
  root& r = bench.attach(bench.open(plain()));
  bench.must(r.discard(byte_range::between(700, 64 * KiB + 100)));
  std::vector<byte_range> pieces;
  for (const memory_event& e : disk.log)
    pieces.push_back(e.range);
  REQUIRE(pieces.size() > 3);
  CHECK(pieces.front() == byte_range::between(1024, 4096)); // the head
  CHECK(pieces[1] == byte_range{12288, 8192});              // 4096 was refused
  CHECK(pieces.back().end() == 64 * KiB + 100);             // the end of the disk may be cut
  bench.must(r.discard({100, 300}));                        // no whole block: nothing
  CHECK(disk.log.size() == pieces.size());
}

TEST_CASE("buffers are registered with all drivers below, or with none") {
  graph_bench bench({&raw_driver_type, &layer_driver_type});
  test_layer layer(bench, "top", 4096);
  memory_disk& base = bench.disk("base", 4096);
  node& top = bench.open(layer.spec().child("backing", disk_spec("base")));
  std::vector<std::byte> memory(4096);
  REQUIRE(top.register_buffer(memory).has_value());
  CHECK(layer.disk.registered.size() == 1);
  CHECK(base.registered.size() == 1);
  top.unregister_buffer(memory);
  CHECK(layer.disk.registered.empty());
  CHECK(base.registered.empty());
  base.refuses_buffers = [] { return true; };
  const result<> refused = top.register_buffer(memory);
  REQUIRE(!refused);
  CHECK(refused.error().message() == "no room for more buffers");
  CHECK(layer.disk.registered.empty());
}

TEST_CASE("requests longer than one may be are refused, and so is what no device could hold") {
  graph_bench bench({});
  bench.disk("d", 4096);
  node& top = bench.open(plain());
  root& r = bench.attach(top, may_resize);
  std::byte one{};
  const std::span<std::byte> huge(&one, request_length_max + 1); // refused before it is touched
  const result<> write = bench.run(r.write(0, huge));
  REQUIRE(!write);
  CHECK(write.error().message() == "cannot write 2147483137 bytes at once; the most is 2147483136");
  CHECK(bench.run(r.read(0, huge)).error().kind() == error_kind::out_of_range);
  for (const byte_range range : {byte_range{device_length_max, 1}, byte_range{1, device_length_max},
                                 byte_range{~u64{0}, ~u64{0}}}) {
    CHECK(bench.run(r.write_zeroes(range)).error().kind() == error_kind::out_of_range);
    CHECK(bench.run(r.discard(range)).error().kind() == error_kind::out_of_range);
  }
  CHECK(
      bench.run(r.truncate(device_length_max + 1))
          .error()
          .message()
          .ends_with("cannot be 9223372035781033985 bytes long; the most is 9223372035781033984"));
  CHECK(top.statistics().of(operation::write).invalid == 1);
  CHECK(top.statistics().of(operation::zero).invalid == 3);
  CHECK(top.statistics().of(operation::discard).invalid == 3);
}

TEST_CASE("unaligned requests longer than a bounce buffer, and blocks longer than one") {
  for (const u32 unit : {u32{4096}, u32{32 * MiB}}) {
    CAPTURE(unit);
    graph_bench bench({});
    memory_disk& disk = bench.disk("d", 64 * MiB);
    disk.request_alignment = unit;
    disk.can_zero = unit == 4096;
    u64 longest_bounce = 0;
    disk.fault = [&](std::string_view what, byte_range r) -> std::optional<error> {
      if (what == "read")
        longest_bounce = std::max(longest_bounce, r.length);
      if (!r.is_aligned_to(unit) && what != "flush")
        return error(error_kind::io, "unaligned");
      return std::nullopt;
    };
    root& r = bench.attach(bench.open(plain()));
    const auto data = pattern(20 * MiB + 77, 1);
    bench.must(r.write(1000, data));
    CHECK(std::equal(data.begin(), data.end(), disk.bytes.begin() + 1000));
    CHECK(is_zero(std::span(disk.bytes).first(1000)));
    CHECK(longest_bounce <= std::max<u64>(unit, 8192));
    bench.must(r.write_zeroes({5000, 3 * MiB}));
    CHECK(is_zero(std::span(disk.bytes).subspan(5000, 3 * MiB)));
    CHECK(disk.bytes[4999] == data[3999]);
    CHECK(disk.bytes[5000 + 3 * MiB] == data[4000 + 3 * MiB]);
    std::vector<std::byte> seen(16 * MiB);
    bench.must(r.read(5000 + 3 * MiB, seen));
    CHECK(std::equal(seen.begin(), seen.end(), data.begin() + 4000 + 3 * MiB));
  }
}
