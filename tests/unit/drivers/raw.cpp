// SPDX-License-Identifier: MIT
#include "drivers/format/raw/raw.h"

#include "tests/unit/lib/graph_bench.h"

using namespace bgfs;
using namespace bgfs::test;

TEST_CASE("raw shows the bytes of its file and writes through") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.bytes = pattern(64 * KiB, 1);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  root& r = bench.attach(top);
  CHECK(r.length() == 64 * KiB);
  CHECK(read_all(bench, r) == disk.bytes);
  const auto data = pattern(1000, 2);
  bench.must(r.write(777, data));
  CHECK(std::equal(data.begin(), data.end(), disk.bytes.begin() + 777));
}

TEST_CASE("a raw window begins at its offset, ends at its size and cannot be left") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.bytes = pattern(64 * KiB, 1);
  node& top = bench.open(spec_builder("top", raw_driver_type)
                             .set("offset", 4096)
                             .set("size", 8192)
                             .child("file", disk_spec("d")));
  root& r = bench.attach(top);
  CHECK(r.length() == 8192);
  const auto seen = read_all(bench, r);
  CHECK(std::equal(seen.begin(), seen.end(), disk.bytes.begin() + 4096));
  const auto before = disk.bytes;
  result<> past = bench.run(r.write(8000, pattern(512, 3)));
  REQUIRE(!past);
  CHECK(past.error().kind() == error_kind::out_of_range);
  CHECK(disk.bytes == before);
}

TEST_CASE("a raw node with a size keeps it, even for a parent that may resize") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 64 * KiB);
  node& top = bench.open(
      spec_builder("top", raw_driver_type).set("size", 8192).child("file", disk_spec("d")));
  root& r = bench.attach(top, may_resize);
  result<> grown = bench.run(r.truncate(16384));
  REQUIRE(!grown);
  CHECK(grown.error().message() == "cannot change the length of a raw node that has a 'size'");
  result<> written = bench.run(r.write(8192, pattern(512, 3)));
  REQUIRE(!written);
  CHECK(written.error().kind() == error_kind::out_of_range);
}

TEST_CASE("raw refuses windows that do not fit") {
  struct row {
    i64 offset;
    i64 size;
    std::string_view message;
  };
  const row rows[] = {
      {131072, 0, "'offset' is 131072, past the end of the file at 65536 bytes"},
      {4096, 65536, "'offset' 4096 and 'size' 65536 reach past the end of the file at 65536 bytes"},
  };
  for (const row& r : rows) {
    graph_bench bench({&raw_driver_type});
    bench.disk("d", 64 * KiB);
    const result<node*> opened = bench.try_open(spec_builder("top", raw_driver_type)
                                                    .set("offset", r.offset)
                                                    .set("size", r.size)
                                                    .child("file", disk_spec("d")));
    REQUIRE(!opened);
    CHECK_MESSAGE(opened.error().message().ends_with(r.message), opened.error().message());
  }
}

TEST_CASE("raw refuses windows that split a sector before anything is opened") {
  const std::array schemas = {raw_driver_type.open_options};
  for (const char* const name : {"offset", "size"}) {
    value given = value::map();
    given.set(name, 100);
    const result<options> validated = validate_options(schemas, given);
    REQUIRE(!validated);
    CHECK(validated.error().message() ==
          fmt::format("option '{}' is 100, which is no multiple of 512", name));
    given.set(name, 512);
    CHECK(validate_options(schemas, given).has_value());
  }
}

TEST_CASE("a raw window moves and changes its length while it is open") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.bytes = pattern(64 * KiB, 1);
  const auto spec = [](i64 offset, i64 size) {
    return spec_builder("top", raw_driver_type)
        .set("offset", offset)
        .set("size", size)
        .child("file", disk_spec("d"));
  };
  node& top = bench.open(spec(4096, 8192));
  auto& face = dynamic_cast<reopenable&>(top.instance());
  auto& maps = dynamic_cast<mappable&>(top.instance());
  const node_spec moved = spec(512, 1024).build();
  bench.must(face.prepare_reopen(moved.given, moved.generic));
  CHECK(top.instance().length() == 8192); // not before the commit
  CHECK(maps.try_map({0, 512})->offset == 4096);
  face.abort_reopen();
  CHECK(top.instance().length() == 8192);
  bench.must(face.prepare_reopen(moved.given, moved.generic));
  face.commit_reopen();
  CHECK(top.instance().length() == 1024);
  CHECK(maps.try_map({0, 512})->offset == 512);

  const node_spec beyond = spec(512, 65536).build();
  const result<> refused = bench.run(face.prepare_reopen(beyond.given, beyond.generic));
  REQUIRE(!refused);
  CHECK(refused.error().message() ==
        "'offset' 512 and 'size' 65536 reach past the end of the file at 65536 bytes");
  CHECK(top.instance().length() == 1024);
}

TEST_CASE("the permissions of a raw node are planned for the window it is going to have") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 64 * KiB);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  auto& face = dynamic_cast<reopenable&>(top.instance());
  const edge& below = *top.child("file");
  CHECK(top.instance().child_permissions(below, may_resize) == may_resize);
  const node_spec window =
      spec_builder("top", raw_driver_type).set("size", 512).child("file", disk_spec("d")).build();
  bench.must(face.prepare_reopen(window.given, window.generic));
  const permissions cut = top.instance().child_permissions(below, may_resize);
  CHECK((cut.shared & permission::resize) == 0); // nobody moves the end of what it lies in
  face.abort_reopen();
  CHECK(top.instance().child_permissions(below, may_resize) == may_resize);
}
