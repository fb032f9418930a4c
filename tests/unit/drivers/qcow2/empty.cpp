// SPDX-License-Identifier: MIT
// An image gives up its content: what is below shows, snapshots stay, and a crash leaves all of the
// content or none.
#include "tests/unit/drivers/qcow2/amend_bench.h"
#include "tests/unit/drivers/qcow2/crash_replay.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct shape {
  const char* name;
  option_list create;
};

const shape shapes[] = {
    {"version 3", {{"cluster_size", "1K"}}},
    {"version 2", {{"cluster_size", "1K"}, {"compat", "0.10"}}},
    {"narrow counts", {{"cluster_size", "512"}, {"refcount_bits", "4"}}},
    {"lazy", {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}},
    {"extended", {{"cluster_size", "16K"}, {"extended_l2", "on"}}},
};

} // namespace

TEST_CASE("qcow2 make-empty: the backing file shows, snapshots stay, and the space is free") {
  for (const shape& s : shapes) {
    CAPTURE(s.name);
    amended_disk d(s.create, true);
    const u64 before = d.disk().bytes.size();
    d.fill();
    d.fill();
    CHECK(d.make_empty() == "");
    d.flush();
    CHECK(d.disk().bytes.size() <= before + 8 * 16384); // cut off, but for the new L1 table
    d.fill();
    d.snapshot("one");
    d.fill();
    CHECK(d.make_empty() == "");
    d.fill();
    CHECK(d.make_empty() == "");
    d.close();
    require_sound(d.disk());
    d.require_content(d.disk().bytes);
    d.open();
    d.fill();
    d.close();
    d.require_content(d.disk().bytes);
  }
}

TEST_CASE("qcow2 make-empty: a crash at any point leaves all of the content or none") {
  std::mt19937_64 random(5);
  for (const shape& s : shapes) {
    CAPTURE(s.name);
    amended_disk d(s.create, true);
    d.fill();
    d.snapshot("one");
    d.fill();
    d.flush();
    const std::vector<std::byte> start = d.disk().bytes;
    const std::vector<std::byte> full = d.model();
    d.disk().keeps_log = true;
    REQUIRE(d.make_empty() == "");
    d.close();
    d.disk().keeps_log = false;
    for_each_cut(start, d.disk().log, random,
                 [&](const std::vector<std::byte>& image, std::size_t cut) {
                   CAPTURE(cut);
                   d.require_content_or(image, full);
                 });
  }
}

TEST_CASE("qcow2 make-empty: whatever fails, the content is there as a whole or gone") {
  for (const shape& s : shapes) {
    CAPTURE(s.name);
    u64 nth = 1;
    for (bool has_failed = true; has_failed; nth++) {
      CAPTURE(nth);
      amended_disk d(s.create, true);
      d.fill();
      d.snapshot("one");
      d.fill();
      d.flush();
      const std::vector<std::byte> full = d.model();
      u64 seen = 0;
      d.disk().fault = [&](std::string_view, byte_range) -> std::optional<error> {
        if (++seen != nth)
          return std::nullopt;
        return error::from_errno(EIO, "the test says so");
      };
      (void)d.make_empty();
      has_failed = seen >= nth;
      d.disk().fault = nullptr;
      (void)d.try_close();
      d.require_content_or(d.disk().bytes, full);
    }
    CHECK(nth > 5);
  }
}

TEST_CASE("qcow2 make-empty: what would go on showing the content is refused") {
  qcow2_bench b;
  b.create("d", 1 << 20, {{"data_file", "x"}, {"data_file_raw", "on"}});
  b.open("d", {{"data-file", "x"}});
  const auto make_empty = [&b] {
    const result<> done = b.bench.run(b.bench.graph().make_empty(b.top()));
    return done ? std::string() : done.error().message();
  };
  CHECK(make_empty().starts_with("the data file of the image is raw, and always holds all"));
  b.close();
  b.create("e", 1 << 20, {{"data_file", "y"}});
  root& way = b.open("e", {{"data-file", "y"}});
  b.bench.must(way.write(0, pattern(200000, 1)));
  CHECK(make_empty() == "");
  std::vector<std::byte> bytes(200000);
  b.bench.must(way.read(0, bytes));
  CHECK(is_same(bytes, std::vector<std::byte>(200000)));
  b.close();
  node& n = b.bench.open(qcow2_bench::image_spec("e", {{"data-file", "y"}, {"read-only", "on"}}));
  const result<> refused = b.bench.run(n.as_emptiable()->make_empty());
  REQUIRE(!refused);
  CHECK(refused.error().message().starts_with("the image is open read-only: it cannot be made"));
}
