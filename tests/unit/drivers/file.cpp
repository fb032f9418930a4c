// SPDX-License-Identifier: MIT
#include "drivers/protocol/file/file.h"

#include "drivers/format/raw/raw.h"
#include "drivers/protocol/file/image_lock.h"
#include "drivers/protocol/null/null.h"
#include "graph/base/is_zero.h"
#include "graph/io/file.h"
#include "tests/unit/lib/graph_bench.h"
#include "tests/unit/lib/scratch_directory.h"

#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace bgfs;
using namespace bgfs::test;
namespace fs = std::filesystem;
namespace pm = bgfs::permission;

namespace {

spec_builder file_spec(const std::string& name) {
  return spec_builder("", file_driver_type).set("filename", name);
}
spec_builder raw_file(std::string node_name, const std::string& name) {
  return spec_builder(std::move(node_name), raw_driver_type)
      .set("discard", "unmap")
      .child("file", file_spec(name));
}
std::vector<const driver_type*> drivers() {
  return {&raw_driver_type, &file_driver_type, &host_device_driver_type, &null_co_driver_type};
}

std::vector<std::byte> content(const std::string& name) {
  std::vector<std::byte> bytes(fs::file_size(name));
  std::ifstream(name).read(reinterpret_cast<char*>(bytes.data()),
                           static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

} // namespace

TEST_CASE("a file is read, written, zeroed and grown, with either way of reaching the kernel") {
  const scratch_directory dir;
  for (const char* aio : {"io_uring", "threads"}) {
    for (const bool direct : {false, true}) {
      CAPTURE(aio);
      CAPTURE(direct);
      const std::string name = dir.file("disk", 256 * KiB);
      graph_bench bench(drivers());
      const auto opened = bench.try_open(spec_builder("top", raw_driver_type)
                                             .set("cache.direct", direct)
                                             .child("file", file_spec(name).set("aio", aio)));
      if (!opened) { // a scratch file system without O_DIRECT
        CHECK(opened.error().message().ends_with("does not support 'cache.direct' (O_DIRECT)"));
        continue;
      }
      root& r = bench.attach(**opened, may_resize);
      std::vector<std::byte> model(256 * KiB);
      for (const auto& [offset, length] :
           {std::pair{0u, 4096u}, {777u, 9000u}, {200000u, 50000u}, {4096u, 4096u}}) {
        const auto data = pattern(length, offset);
        bench.must(r.write(offset, data));
        std::copy(data.begin(), data.end(), model.begin() + offset);
      }
      bench.must(r.write_zeroes({1000, 3000}));
      std::fill_n(model.begin() + 1000, 3000, std::byte{0});
      CHECK(read_all(bench, r) == model);
      bench.must(r.write(256 * KiB - 100, pattern(1000, 4))); // grows by 900
      CHECK(r.length() == 256 * KiB + 900);
      bench.must(r.flush());
      CHECK(fs::file_size(name) == 256 * KiB + 900);
      bench.must(r.truncate(1000));
      CHECK(fs::file_size(name) == 1000);
    }
  }
}

TEST_CASE("status tells data from holes, and discarding makes holes") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", MiB);
  graph_bench bench(drivers());
  node& top = bench.open(raw_file("top", name));
  root& r = bench.attach(top);
  bench.must(r.write(256 * KiB, pattern(64 * KiB, 1)));
  const block_status hole = bench.must(r.status_above({0, MiB}));
  CHECK(hole.length == 256 * KiB);
  CHECK(hole.is_zero);
  CHECK_FALSE(hole.is_data);
  CHECK(hole.is_allocated);
  CHECK(hole.offset == 0);
  const block_status data = bench.must(r.status_above({256 * KiB, MiB - 256 * KiB}));
  CHECK(data.length == 64 * KiB);
  CHECK(data.is_data);
  CHECK_FALSE(data.is_zero);
  CHECK(data.offset == 256 * KiB);
  CHECK(data.file == &top.child("file")->child());
  const block_status last = bench.must(r.status_above({900 * KiB, 500 * KiB}));
  CHECK(last.is_end);
  CHECK(last.length == MiB - 900 * KiB);
  bench.must(r.discard({256 * KiB, 64 * KiB}));
  CHECK(
      to_json(r.top().child("file")->child().instance().statistics_specific()) ==
      R"({"driver": "file", "discard-nb-ok": 1, "discard-nb-failed": 0, "discard-bytes-ok": 65536})");
  const block_status all = bench.must(r.status_above({0, MiB}));
  CHECK(all.length == MiB);
  CHECK(all.is_zero);
  CHECK(bench.must(top.allocated_length()) == 0);
}

TEST_CASE("a zero write that lengthens a file runs alone from its offset on") {
  struct row {
    byte_range zeroes;
    u64 write_at;
    bool one_waits;
  };
  const row rows[] = {
      {{64 * KiB, 4096}, 256 * KiB, true},  // both past the end
      {{60 * KiB, 8192}, 256 * KiB, true},  // from before the end on
      {{64 * KiB, 4096}, 48 * KiB, false},  // what stands before is let be
      {{60 * KiB, 4096}, 256 * KiB, false}, // up to the end
  };
  for (const row& given : rows) {
    CAPTURE(given.zeroes.offset);
    CAPTURE(given.write_at);
    const scratch_directory dir;
    const std::string name = dir.file("disk", 64 * KiB);
    graph_bench bench(drivers());
    node& disk = bench.open(file_spec(name));
    root& r = bench.attach(disk, may_resize);
    std::vector<std::byte> model = pattern(64 * KiB, 1);
    bench.must(r.write(0, model));
    const auto data = pattern(4096, 2);
    task_group both(bench.home());
    both.spawn(r.write_zeroes(given.zeroes));
    both.spawn(r.write(given.write_at, data));
    bench.home().run_once(); // both begin, in any order; neither can have ended
    REQUIRE(disk.requests().in_flight() == 2);
    const tracked_request* first = disk.requests().first();
    const tracked_request* second = first->next();
    CHECK((second->waiting_for() == first || first->waiting_for() == second) == given.one_waits);
    bench.must(both.join());
    model.resize(std::max({model.size(), given.zeroes.end(), given.write_at + data.size()}));
    std::fill_n(model.begin() + static_cast<i64>(given.zeroes.offset), given.zeroes.length,
                std::byte{0});
    std::ranges::copy(data, model.begin() + static_cast<i64>(given.write_at));
    CHECK(read_all(bench, r) == model);
    CHECK(content(name) == model);
  }
}

TEST_CASE("what cannot be opened says why") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  struct row {
    const driver_type& type;
    std::string filename;
    std::string message;
  };
  const row rows[] = {
      {file_driver_type, dir.path / "missing",
       fmt::format("cannot open '{}': No such file or directory", (dir.path / "missing").string())},
      {file_driver_type, dir.path,
       fmt::format("cannot open '{}': Is a directory", dir.path.string())},
      {file_driver_type, "/dev/null", "'/dev/null' is neither a file nor a block device"},
      {host_device_driver_type, name,
       fmt::format("'{}' is not a block device; use driver 'file' for files", name)},
  };
  for (const row& r : rows) {
    graph_bench bench(drivers());
    const auto opened = bench.try_open(spec_builder("n", r.type).set("filename", r.filename));
    REQUIRE(!opened);
    CHECK_MESSAGE(opened.error().message().ends_with(r.message), opened.error().message());
  }
}

TEST_CASE("two graphs cannot write one file, and force-share readers can look") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench first(drivers());
  // A format takes writing for itself and does not share it; raw alone would not.
  root& r = first.attach(first.open(raw_file("top", name)),
                         {pm::consistent_read | pm::write, pm::consistent_read});
  graph_bench second(drivers());
  node& top = second.open(raw_file("top", name));
  const auto writer = second.run(second.graph().attach("b", top, may_write));
  REQUIRE(!writer);
  CHECK(writer.error().kind() == error_kind::busy);
  CHECK(writer.error().message().starts_with(
      fmt::format("cannot get the 'write' lock of '{}': another node of this process, or a process "
                  "that cannot be seen from here, uses the image",
                  name)));
  second.attach(top, may_read);
  const auto exclusive =
      second.run(second.graph().attach("c", top, {pm::consistent_read, pm::consistent_read}));
  REQUIRE(!exclusive);
  CHECK(exclusive.error().message().starts_with(
      fmt::format("cannot get the 'no write' lock of '{}'", name)));
  first.detach(r);
  second.attach(top, may_write); // the lock went with the root
}

TEST_CASE("locks taken for a plan that fails are given back") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  const descriptor a(open(name.c_str(), O_RDWR | O_CLOEXEC));
  const descriptor b(open(name.c_str(), O_RDWR | O_CLOEXEC));
  image_lock first(a.get(), name);
  image_lock second(b.get(), name);
  REQUIRE(first.acquire({pm::write, pm::consistent_read}));
  CHECK_FALSE(second.acquire({pm::write, pm::all}).has_value());
  second.release_beyond({});
  first.release_beyond({});
  CHECK(second.acquire({pm::write, pm::consistent_read}).has_value());
}

TEST_CASE("creating a file empties it only if nobody uses it, and preallocates") {
  const scratch_directory dir;
  const std::string name = dir.path / "new";
  graph_bench bench(drivers());
  const option_schema* schemas[] = {file_driver_type.create_options};
  for (const char* how : {"off", "falloc", "full"}) {
    const options given =
        *validate_options(schemas, value(value::map{{"preallocation", how}, {"nocow", "on"}}));
    bench.must(file_driver_type.create(
        {.home = bench.home(), .given = given, .filename = name, .length = 100000}));
    CHECK(fs::file_size(name) == 100000);
    CHECK(is_zero(content(name)));
  }
  const options plain = *validate_options(schemas, value(value::map{}));
  std::ofstream(name) << "precious";
  const descriptor user(open(name.c_str(), O_RDWR | O_CLOEXEC));
  image_lock lock(user.get(), name);
  REQUIRE(lock.acquire({pm::write, pm::consistent_read}));
  const result<> refused = bench.run(file_driver_type.create(
      {.home = bench.home(), .given = plain, .filename = name, .length = 100000}));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(content(name).size() == 8);
}

TEST_CASE("null-co has its length, reads zeroes and forgets") {
  graph_bench bench(drivers());
  node& n = bench.open(spec_builder("n", null_co_driver_type)
                           .set("size", "64T")
                           .set("read-zeroes", true)
                           .set("latency-ns", 1000));
  CHECK(n.length() == 64 * TiB);
  root& r = bench.attach(n);
  bench.must(r.write(TiB, pattern(4096, 1)));
  std::vector<std::byte> seen(4096, std::byte{1});
  bench.must(r.read(TiB, seen));
  CHECK(is_zero(seen));
  const block_status s = bench.must(r.status_above({0, 64 * TiB}));
  CHECK(s.is_zero);
  CHECK(s.length == 64 * TiB);
}

TEST_CASE("null-co changes its length and its speed while it is open") {
  graph_bench bench(drivers());
  const auto spec = [](const char* size) {
    return spec_builder("n", null_co_driver_type).set("size", size);
  };
  node& n = bench.open(spec("1M"));
  auto& face = dynamic_cast<reopenable&>(n.instance());
  const node_spec longer = spec("2M").set("read-zeroes", true).set("latency-ns", 5).build();
  bench.must(face.prepare_reopen(longer.given, longer.generic));
  face.abort_reopen();
  CHECK(n.instance().length() == MiB);
  bench.must(face.prepare_reopen(longer.given, longer.generic));
  face.commit_reopen();
  CHECK(n.instance().length() == 2 * MiB);
  CHECK(dynamic_cast<mappable&>(n.instance()).try_map({0, 1})->kind == extent_kind::zero);
}

TEST_CASE("a file copies from another without the bytes coming here, and says when it cannot") {
  const scratch_directory dir;
  const std::string from = dir.file("from", 256 * KiB);
  const std::string to = dir.file("to", 64 * KiB);
  graph_bench bench(drivers());
  node& source = bench.open(spec_builder("from", file_driver_type).set("filename", from));
  node& target = bench.open(spec_builder("to", file_driver_type).set("filename", to));
  root& written = bench.attach(source);
  std::vector<std::byte> bytes(100000);
  for (std::size_t i = 0; i < bytes.size(); i++)
    bytes[i] = static_cast<std::byte>(i * 31 + 7);
  bench.must(written.write(4096, bytes));
  const root& kept = bench.attach(target);
  CHECK(kept.length() == 64 * KiB);
  auto* const copies = dynamic_cast<copyable*>(&target.instance());
  REQUIRE(copies != nullptr);
  bench.must(copies->copy_from({&source.instance(), {4096, bytes.size()}}, 8192));
  const std::vector<std::byte> now = content(to);
  REQUIRE(now.size() >= 8192 + bytes.size());
  CHECK(std::equal(bytes.begin(), bytes.end(), now.begin() + 8192));
  // Past the end of the source there is nothing to copy.
  const result<> refused = bench.run(copies->copy_from({&source.instance(), {256 * KiB, 4096}}, 0));
  REQUIRE(!refused.has_value());
  CHECK(refused.error().kind() == error_kind::unsupported);
}
