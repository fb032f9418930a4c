// SPDX-License-Identifier: MIT
#include "graph/jobs/compare.h"

#include "tests/unit/drivers/qcow2/qcow2_bench.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

root& open_disk(graph_bench& bench, const std::string& disk) {
  return bench.attach(bench.open(disk_spec(disk)), may_read);
}

// The sector of the first difference, by a plain look at the bytes.
std::optional<u64> first_difference(const std::vector<std::byte>& a,
                                    const std::vector<std::byte>& b) {
  for (u64 i = 0; i < std::max(a.size(), b.size()); i++) {
    const std::byte x = i < a.size() ? a[i] : std::byte{0};
    const std::byte y = i < b.size() ? b[i] : std::byte{0};
    if (x != y)
      return align_down(i, compare_unit);
  }
  return std::nullopt;
}

} // namespace

TEST_CASE("compare: finds the first difference, whatever the parallelism and the lengths") {
  std::mt19937_64 random(3);
  for (unsigned round = 0; round < 60; round++) {
    CAPTURE(round);
    graph_bench bench({});
    memory_disk& a = bench.disk("a");
    memory_disk& b = bench.disk("b");
    a.bytes = pattern(5 * MiB + random() % 3000, round);
    b.bytes = a.bytes;
    if (round % 3 == 0)
      b.bytes.resize(b.bytes.size() + random() % 2 * MiB + random() % 1000); // zeroes
    for (u64 i = random() % 4; i > 0; i--)
      b.bytes[random() % b.bytes.size()] ^= std::byte{1};
    if (round % 2 == 0)
      std::swap(a.bytes, b.bytes);
    compare_plan plan{.disks = {&open_disk(bench, "a"), &open_disk(bench, "b")},
                      .parallel = 1 + static_cast<unsigned>(random() % 16)};
    const comparison found = bench.must(compare_disks(bench.home(), std::move(plan)));
    const auto expected = first_difference(a.bytes, b.bytes);
    CHECK((found.finding == compare_finding::content_differs) == expected.has_value());
    CHECK(found.offset == expected.value_or(0));
  }
}

TEST_CASE("compare: zeroes that are known and what is the same data of one file are not read") {
  qcow2_bench b;
  b.create("base", 8 * MiB);
  root& base = b.open("base");
  b.bench.must(base.write(MiB, pattern(2 * MiB, 1)));
  b.bench.must(base.flush());
  b.bench.detach(base);
  node& below = b.top();
  for (const char* name : {"a", "b"}) {
    b.create(name, 8 * MiB);
    spec_builder s("img-" + std::string(name), qcow2_driver_type);
    s.child("file", disk_spec(name)).child("backing", below.name().c_str());
    b.bench.open(s);
  }
  root& a = b.bench.attach(*b.bench.graph().find("img-a"), may_write);
  root& other = b.bench.attach(*b.bench.graph().find("img-b"), may_write);
  b.bench.must(a.write(5 * MiB, pattern(64 * KiB, 2)));
  b.bench.must(other.write(5 * MiB, pattern(64 * KiB, 2)));
  b.bench.must(a.flush());
  u64 data_read = 0;
  const auto count = [&](std::string_view operation, byte_range range) -> std::optional<error> {
    if (operation == "read" && range.length >= 64 * KiB)
      data_read += range.length;
    return std::nullopt;
  };
  for (const char* disk : {"base", "a", "b"})
    memory_disks()[disk]->fault = count;
  const auto compare = [&] {
    compare_plan plan{.disks = {&a, &other}};
    return b.bench.must(compare_disks(b.bench.home(), std::move(plan)));
  };
  CHECK(compare().finding == compare_finding::same);
  CHECK(data_read == 2 * 64 * KiB);
  b.bench.must(other.write_zeroes({2 * MiB, 64 * KiB}));
  const comparison found = compare();
  CHECK(found.finding == compare_finding::content_differs);
  CHECK(found.offset == 2 * MiB);
}

TEST_CASE("compare: a strict one tells how bytes are stored") {
  qcow2_bench b;
  b.create("a", MiB);
  b.create("b", MiB);
  root& a = b.open("a");
  root& other = b.open("b");
  const auto compare = [&](bool is_strict) {
    compare_plan plan{.disks = {&a, &other}, .is_strict = is_strict};
    return b.bench.must(compare_disks(b.bench.home(), std::move(plan)));
  };
  CHECK(compare(true).finding == compare_finding::same);
  b.bench.must(a.write(256 * KiB, std::vector<std::byte>(64 * KiB)));
  CHECK(compare(false).finding == compare_finding::same);
  const comparison found = compare(true);
  CHECK(found.finding == compare_finding::status_differs);
  CHECK(found.offset == 0); // runs of another length
}

TEST_CASE(
    "compare: what fails is told with where and of which disk, unless a difference is first") {
  graph_bench bench({});
  memory_disk& a = bench.disk("a");
  memory_disk& b = bench.disk("b");
  a.bytes = b.bytes = pattern(6 * MiB, 1);
  root& first = open_disk(bench, "a");
  root& second = open_disk(bench, "b");
  const auto compare = [&] {
    compare_plan plan{.disks = {&first, &second}};
    return bench.must(compare_disks(bench.home(), std::move(plan)));
  };
  b.fault = [](std::string_view operation, byte_range range) -> std::optional<error> {
    if (operation != "read" || !range.contains(3 * MiB))
      return std::nullopt;
    return error::from_errno(EIO, "the test says so");
  };
  const comparison found = compare();
  CHECK(found.finding == compare_finding::unreadable);
  CHECK(found.offset == 3 * MiB);
  CHECK(found.disk == 1);
  REQUIRE(found.why.has_value());
  CHECK(found.why->message().contains("the test says so"));
  b.bytes[5 * MiB] ^= std::byte{1};
  CHECK(compare().finding == compare_finding::unreadable);
  b.bytes[MiB] ^= std::byte{1};
  CHECK(compare().finding == compare_finding::content_differs);
  CHECK(compare().offset == MiB);
}

TEST_CASE("compare: cancelled, it ends with what is in flight") {
  graph_bench bench({});
  bench.disk("a").bytes = pattern(6 * MiB, 1);
  bench.disk("b").bytes = pattern(6 * MiB, 1);
  compare_plan plan{.disks = {&open_disk(bench, "a"), &open_disk(bench, "b")}, .parallel = 2};
  cancel_state cancel;
  plan.progress = [&](u64 done, u64) {
    if (done > 0)
      cancel.request();
  };
  std::optional<result<>> outcome;
  task<comparison> work = compare_disks(bench.home(), std::move(plan));
  static comparison found;
  const auto keep = [](task<comparison> t) -> task<void> { found = co_await std::move(t); };
  spawn(bench.home(), keep(std::move(work)), &cancel, [&](result<> r) { outcome = std::move(r); });
  while (!outcome)
    bench.home().run_once();
  REQUIRE(!outcome->has_value());
  CHECK(outcome->error().kind() == error_kind::cancelled);
  CHECK(outcome->error().message() == "comparing was interrupted");
}
