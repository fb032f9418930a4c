// SPDX-License-Identifier: MIT
// Checking an image that is in use, and giving back what leaked in it.
#include "graph/base/text.h"
#include "graph/io/with.h"
#include "tests/unit/drivers/qcow2/check_bench.h"
#include "tests/unit/drivers/qcow2/image_editor.h"

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

// Clusters that are counted and not used; the number of the first.
u64 leak(std::vector<std::byte>& image, u64 count) {
  image_editor e(image);
  return e.append(count) / e.cluster();
}

task<check_result> repair_drained(checkable& face, check_mode mode, check_sink& sink) {
  check_result found = co_await face.check(mode, sink);
  co_return found;
}

result<check_result> try_repair_in_use(qcow2_bench& b, check_sink& sink) {
  return b.bench.run(with(b.bench.graph().drain(b.top()), [&](graph::drained&) {
    return repair_drained(*b.top().as_checkable(), check_mode::repair_leaks, sink);
  }));
}

} // namespace

TEST_CASE("qcow2 check: an image in use is checked, and nothing but leaks is repaired") {
  qcow2_bench b;
  b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(100000, 1)));
  recorded_findings findings;
  checkable* face = b.top().as_checkable();
  REQUIRE(face != nullptr);
  const check_result found = b.bench.must(face->check(check_mode::report, findings));
  CHECK_MESSAGE(found.is_sound(), findings.text());
  CHECK(found.allocated_clusters == 25);
  const auto refused = b.bench.run(face->check(check_mode::repair_all, findings));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::unsupported);
  CHECK(refused.error().message().contains("only leaks are repaired while an image is in use"));
  b.close();
}

TEST_CASE(
    "qcow2 check: leaks of an image in use are given back, taken again, and nothing is mixed") {
  for (const char* lazy : {"off", "on"}) {
    qcow2_bench b;
    memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}, {"lazy_refcounts", lazy}});
    std::vector<std::byte> model(1 << 20);
    const auto write = [&](root& way, u64 offset, u64 length, u64 seed) {
      const auto bytes = pattern(length, seed);
      b.bench.must(way.write(offset, bytes));
      std::ranges::copy(bytes, model.begin() + static_cast<i64>(offset));
    };
    write(b.open("d"), 0, 100000, 1);
    b.close();
    const u64 first = leak(disk.bytes, 40);
    root& way = b.open("d");
    write(way, 200000, 30000, 2); // what is in memory only is in use, too
    recorded_findings findings;
    const result<check_result> found = try_repair_in_use(b, findings);
    REQUIRE_MESSAGE(found.has_value(), (found ? std::string() : found.error().message()));
    CHECK(found->leaks_fixed == 40);
    CHECK(found->leaks == 0);
    CHECK(findings.text().contains(fmt::format("Leaked cluster {}", first)));
    const u64 length = disk.bytes.size();
    write(way, 300000, 160000, 3);
    CHECK(disk.bytes.size() <= length + 4096); // in what was given back
    write(way, 50000, 300000, 4);
    CHECK(read_all(b.bench, way) == model);
    recorded_findings nothing_more;
    const result<check_result> again = try_repair_in_use(b, nothing_more);
    REQUIRE(again.has_value());
    CHECK(again->leaks_fixed == 0);
    b.close();
    require_sound(disk);
    CHECK(read_disk(disk.bytes) == model);
  }
}

TEST_CASE("qcow2 check: a corrupt image in use is left as it is") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  b.bench.must(b.open("d").write(0, pattern(100000, 1)));
  b.close();
  leak(disk.bytes, 5);
  image_editor e(disk.bytes);
  e.add_refcount(e.number(e.entry_at(0)) & entry_offset_mask, -1); // in use and not counted
  b.open("d");
  const std::vector<std::byte> before = disk.bytes;
  recorded_findings findings;
  const result<check_result> found = try_repair_in_use(b, findings);
  REQUIRE(found.has_value());
  CHECK(found->corruptions > 0);
  CHECK(found->leaks_fixed == 0);
  CHECK(disk.bytes == before);
  b.close();
}

TEST_CASE(
    "qcow2 check: whatever fails while leaks are given back in use, nothing is lost or mixed") {
  u64 nth = 1;
  for (bool has_failed = true; has_failed; nth++) {
    CAPTURE(nth);
    qcow2_bench b;
    memory_disk& disk = b.create("d", 256 << 10, {{"cluster_size", "4K"}});
    std::vector<std::byte> model(256 << 10);
    const auto write = [&](root& way, u64 offset, u64 length, u64 seed) {
      const auto bytes = pattern(length, seed);
      const result<> done = b.bench.run(way.write(offset, bytes));
      if (done)
        std::ranges::copy(bytes, model.begin() + static_cast<i64>(offset));
      return done.has_value();
    };
    REQUIRE(write(b.open("d"), 0, 50000, 1));
    b.close();
    leak(disk.bytes, 10);
    root& way = b.open("d");
    REQUIRE(write(way, 100000, 20000, 2));
    u64 seen = 0;
    disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (++seen != nth)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    recorded_findings findings;
    (void)try_repair_in_use(b, findings);
    has_failed = seen >= nth;
    disk.fault = nullptr;
    CHECK(read_all(b.bench, way) == model);
    const bool goes_on = write(way, 150000, 60000, 3); // or it says that it takes no more writes
    CHECK(read_all(b.bench, way) == model);
    const result<> closed = b.try_close();
    check_bench left(disk.bytes);
    CHECK(left.check().corruptions == 0);
    if (goes_on && closed)
      CHECK(read_disk(disk.bytes) == model);
  }
  CHECK(nth > 10);
}
