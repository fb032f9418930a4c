// SPDX-License-Identifier: MIT
// An image that goes on with other options while it is open.
#include "drivers/format/qcow2/image.h"
#include "graph/model/edit.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 disk_length = 1 << 20;

// An open image whose faces are driven by hand, as a reopen of its node would.
struct open_image {
  explicit open_image(const option_list& create, const option_list& open = {})
      : disk(b.create("d", disk_length, create)), way(b.open("d", open)) {}

  qcow2_bench b;
  memory_disk& disk;
  root& way;
  std::vector<std::byte> model = std::vector<std::byte>(disk_length);

  [[nodiscard]] qcow2::image& driver() { return dynamic_cast<qcow2::image&>(b.top().instance()); }
  result<> prepare(const option_list& list) {
    const node_spec spec = qcow2_bench::image_spec("d", list).build();
    return b.bench.run(driver().prepare_reopen(spec.given, spec.generic));
  }
  void reopen(const option_list& list) {
    const result<> prepared = prepare(list);
    REQUIRE_MESSAGE(prepared.has_value(), (prepared ? std::string() : prepared.error().message()));
    driver().commit_reopen();
    b.bench.must(driver().finish_reopen());
  }
  void write(u64 at, u64 length, u64 seed) {
    const auto bytes = pattern(length, seed);
    b.bench.must(way.write(at, bytes));
    std::ranges::copy(bytes, model.begin() + static_cast<i64>(at));
  }
  void check_content() { CHECK(read_all(b.bench, way) == model); }
};

const option_list read_only{{"read-only", "on"}};

} // namespace

TEST_CASE("qcow2 reopen: what becomes read-only is all on the disk, and clean") {
  for (const option_list& create : {option_list{{"cluster_size", "4K"}},
                                    option_list{{"cluster_size", "4K"}, {"lazy_refcounts", "on"}},
                                    option_list{{"cluster_size", "16K"}, {"extended_l2", "on"}}}) {
    open_image i(create);
    i.write(5000, 100000, 1);
    i.b.bench.must(i.way.discard({16384, 65536}));
    std::fill_n(i.model.begin() + 16384, 65536, std::byte{0});
    REQUIRE(i.prepare(read_only));
    require_sound(i.disk);
    CHECK_FALSE(i.driver().info().is_dirty);
    i.driver().abort_reopen(); // it goes on as it was
    i.write(300000, 50000, 2);
    i.reopen(read_only);
    require_sound(i.disk);
    CHECK(read_disk(i.disk.bytes) == i.model);
    const auto before = i.disk.bytes;
    i.check_content();
    i.b.close();
    CHECK(i.disk.bytes == before); // Q1
  }
}

TEST_CASE("qcow2 reopen: a read-only image becomes writable again") {
  open_image i({{"cluster_size", "4K"}});
  i.write(0, 10000, 1);
  for (u64 round = 0; round < 3; round++) {
    i.reopen(read_only);
    i.reopen({});
    i.write(50000 + round * 9999, 20000, 2 + round);
    i.check_content();
  }
  i.b.close();
  require_sound(i.disk);
  CHECK(read_disk(i.disk.bytes) == i.model);
}

TEST_CASE("qcow2 reopen: an image that may not be written does not become writable") {
  struct row {
    u64 bits;
    error_kind kind;
    const char* message;
  };
  const row rows[] = {
      {qcow2::incompatible_bit::corrupt, error_kind::corrupt_image,
       "the image is marked corrupt and must not be written to; repair it with 'bgfs check -r "
       "all IMAGE', or open it with 'read-only: true'"},
      {qcow2::incompatible_bit::dirty, error_kind::unsupported,
       "the image was not closed properly, and to repair it it has "
       "to be opened anew"},
  };
  for (const row& r : rows) {
    qcow2_bench b;
    memory_disk& disk = b.create("d", disk_length);
    image_editor(disk.bytes).put(qcow2::header_at::incompatible, r.bits);
    node& n = b.bench.open(qcow2_bench::image_spec("d", read_only));
    auto& face = dynamic_cast<reopenable&>(n.instance());
    const node_spec spec = qcow2_bench::image_spec("d").build();
    const auto before = disk.bytes;
    const result<> refused = b.bench.run(face.prepare_reopen(spec.given, spec.generic));
    REQUIRE(!refused);
    CHECK(refused.error().kind() == r.kind);
    CHECK_MESSAGE(refused.error().message().starts_with(r.message), refused.error().message());
    CHECK(disk.bytes == before);
  }
}

TEST_CASE("qcow2 reopen: what may have changed under a reader is opened anew to be written") {
  {
    qcow2_bench b;
    b.create("d", disk_length);
    node& n =
        b.bench.open(qcow2_bench::image_spec("d", {{"read-only", "on"}, {"force-share", "on"}}));
    auto& face = dynamic_cast<reopenable&>(n.instance());
    const node_spec spec = qcow2_bench::image_spec("d").build();
    const result<> refused = b.bench.run(face.prepare_reopen(spec.given, spec.generic));
    REQUIRE(!refused);
    CHECK(refused.error().kind() == error_kind::unsupported);
    CHECK(refused.error().message() ==
          "the image was opened with 'force-share', so that what is known of it may be out of "
          "date; to write it has to be opened anew");
  }
  open_image i({});
  i.reopen(read_only);
  image_editor(i.disk.bytes).put(qcow2::header_at::disk_length, disk_length / 2);
  const result<> refused = i.prepare({});
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::unsupported);
  CHECK(refused.error().message() == "the header has changed since the image was opened; to write "
                                     "it has to be opened anew");
}

namespace {

// An image that is open read-only over a file that may be written, and whose header has an
// autoclear bit that nobody knows beside that of its bitmap.
struct marked_image {
  static constexpr u64 unknown_bit = 0x80;
  static constexpr u64 known_bit = qcow2::autoclear_bit::bitmaps;

  marked_image() {
    image_editor e(disk.bytes);
    e.add_bitmap("b");
    e.put(qcow2::header_at::autoclear, known_bit | unknown_bit);
    b.bench.open(spec_builder("disk", memory_driver_type).set("filename", "d"));
    image = &b.bench.open(spec(true));
  }
  static spec_builder spec(bool is_read_only) {
    spec_builder s("image", qcow2_driver_type);
    s.set("read-only", is_read_only).child("file", "disk");
    return s;
  }
  task<edit_outcome> become_writable() {
    const node_spec s = spec(false).build();
    return b.bench.graph().apply({.reopens = {{image, s.given, s.generic}}});
  }
  [[nodiscard]] u64 autoclear() {
    return image_editor(disk.bytes).number(qcow2::header_at::autoclear);
  }

  qcow2_bench b;
  memory_disk& disk = b.create("d", disk_length);
  node* image = nullptr;
};

} // namespace

TEST_CASE("qcow2 reopen: unknown autoclear bits go when an image becomes writable, not before") {
  marked_image i;
  CHECK(i.autoclear() == (i.known_bit | i.unknown_bit));
  auto expected = i.disk.bytes;
  for (const char* failing : {"permissions", "commit"}) { // prepared, and given up
    i.b.bench.graph().set_edit_fault([&](std::string_view step) -> std::optional<error> {
      return step == failing ? std::optional(error(error_kind::io, "no")) : std::nullopt;
    });
    REQUIRE(!i.b.bench.run(i.become_writable()));
    CHECK(i.disk.bytes == expected);
  }
  i.b.bench.graph().set_edit_fault(nullptr);
  const edit_outcome outcome = i.b.bench.must(i.become_writable());
  CHECK(outcome.warnings.empty());
  image_editor(expected).put(qcow2::header_at::autoclear, i.known_bit);
  CHECK(i.disk.bytes == expected);
}

TEST_CASE("qcow2 reopen: autoclear bits that cannot be cleared at once go before the first write") {
  marked_image i;
  i.disk.fault = [](std::string_view operation, byte_range) -> std::optional<error> {
    return operation == "write" ? std::optional(error(error_kind::io, "no")) : std::nullopt;
  };
  const edit_outcome outcome = i.b.bench.must(i.become_writable());
  REQUIRE(outcome.warnings.size() == 1);
  CHECK(outcome.warnings[0].message().contains("no"));
  CHECK(i.autoclear() == (i.known_bit | i.unknown_bit));
  i.disk.fault = nullptr;
  i.disk.keeps_log = true;
  root& r = i.b.bench.attach(*i.image);
  i.b.bench.must(r.write(0, pattern(512, 1)));
  CHECK(i.autoclear() == i.known_bit);
  REQUIRE(!i.disk.log.empty());
  CHECK(i.disk.log[0].range.offset == qcow2::header_at::autoclear);
}

TEST_CASE("qcow2 reopen: caches change their sizes and nothing is lost") {
  for (const bool is_lazy : {false, true}) {
    open_image i({{"cluster_size", "512"}, {"lazy_refcounts", is_lazy ? "on" : "off"}});
    const option_list sizes[] = {{{"l2-cache-size", "1K"}},
                                 {{"cache-size", "1M"}, {"refcount-cache-size", "4K"}},
                                 {{"l2-cache-entry-size", "512"}, {"cache-size", "2K"}},
                                 {}};
    u64 seed = 0;
    for (const option_list& list : sizes) {
      i.write(seed * 100000, 150000, seed + 1);
      REQUIRE(i.prepare(list));
      i.driver().abort_reopen();
      i.write(seed * 100000 + 777, 3000, seed + 10);
      i.reopen(list);
      i.check_content();
      i.write(seed * 50000 + 5, 30000, seed + 20);
      seed++;
    }
    i.check_content();
    i.b.close();
    require_sound(i.disk);
    CHECK(read_disk(i.disk.bytes) == i.model);
  }
}

TEST_CASE("qcow2 reopen: lazy refcounts come and go") {
  open_image i({{"cluster_size", "4K"}});
  i.write(0, 5000, 1);
  CHECK_FALSE(i.driver().info().is_dirty);
  i.reopen({{"lazy-refcounts", "on"}});
  i.write(100000, 5000, 2);
  CHECK(i.driver().info().is_dirty);
  i.b.bench.must(i.way.flush());
  i.reopen({{"lazy-refcounts", "off"}});
  CHECK_FALSE(i.driver().info().is_dirty);
  require_sound(i.disk);
  i.write(200000, 5000, 3);
  CHECK_FALSE(i.driver().info().is_dirty);
  i.b.bench.must(i.way.flush());
  i.check_content();
  i.b.close();
  require_sound(i.disk);
}

TEST_CASE("qcow2 reopen: overlap checks that are switched on know what is where") {
  for (const char* checks : {"constant", "none"}) {
    open_image i({{"cluster_size", "4K"}}, {{"overlap-check", "none"}});
    i.write(0, 5000, 1);
    i.b.bench.must(i.way.flush());
    i.reopen({{"overlap-check", checks}});
    // A guest cluster claims to live where the L1 table is: a write would go over it.
    image_editor e(i.disk.bytes);
    e.put(e.entry_at(0), e.header().l1.value | u64{1} << 63);
    i.reopen({{"overlap-check", checks}, {"cache-size", "1M"}}); // reads the tables again
    const result<> written = i.b.bench.run(i.way.write(0, pattern(4096, 2)));
    if (checks == std::string("none"))
      continue; // destroyed, as asked for
    REQUIRE(!written);
    CHECK(written.error().kind() == error_kind::corrupt_image);
    CHECK_MESSAGE(written.error().message().contains("the active L1 table"),
                  written.error().message());
    const result<> stopped = i.prepare(read_only);
    REQUIRE(!stopped);
    CHECK(stopped.error().kind() == error_kind::unsupported);
    CHECK(stopped.error().message().starts_with("the image takes no more writes ("));
    CHECK(stopped.error().message().ends_with("), so it has to be opened anew"));
  }
}

TEST_CASE("qcow2 reopen: options that contradict the image are refused, and nothing changes") {
  open_image i({{"compat", "0.10"}});
  const result<> refused = i.prepare({{"lazy-refcounts", "on"}});
  REQUIRE(!refused);
  CHECK(refused.error().message().contains("'lazy-refcounts' needs an image of version 3"));
  i.write(0, 5000, 1);
  i.check_content();
}

TEST_CASE("qcow2 reopen: a preparation that fails anywhere leaves the image working") {
  u64 failures = 0;
  for (u64 fails_at = 0;; fails_at++) {
    open_image i({{"cluster_size", "4K"}, {"lazy_refcounts", "on"}});
    image_editor(i.disk.bytes); // a sound image so far
    i.write(5000, 100000, 1);
    i.b.bench.must(i.way.discard({8192, 8192}));
    std::fill_n(i.model.begin() + 8192, 8192, std::byte{0});
    u64 count = 0;
    i.disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (count++ != fails_at)
        return std::nullopt;
      return error(error_kind::io, "injected");
    };
    const result<> prepared =
        i.prepare({{"read-only", "on"}, {"l2-cache-size", "4K"}, {"overlap-check", "all"}});
    i.disk.fault = nullptr;
    if (!prepared) {
      failures++;
      CHECK(prepared.error().message().contains("injected"));
    } else {
      i.driver().abort_reopen();
    }
    i.check_content();
    i.write(400000, 10000, 2);
    i.b.close();
    require_sound(i.disk, true);
    CHECK(read_disk(i.disk.bytes) == i.model);
    if (count <= fails_at) // nothing was left to fail
      break;
  }
  CHECK(failures >= 5);
}
