// SPDX-License-Identifier: MIT
// Which nodes are one file of the host as it is, and what follows when others write to that file.
#include "drivers/filter/copy_on_read/copy_on_read.h"
#include "drivers/format/raw/raw.h"
#include "drivers/protocol/file/file.h"
#include "graph/model/edit.h"
#include "tests/unit/lib/graph_bench.h"
#include "tests/unit/lib/scratch_directory.h"
#include "tests/unit/lib/visitor.h"

#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

using namespace bgfs;
using namespace bgfs::test;
namespace fs = std::filesystem;

namespace {

std::vector<const driver_type*> drivers() {
  return {&raw_driver_type, &file_driver_type, &copy_on_read_driver_type};
}

spec_builder raw_over(const std::string& name) {
  return spec_builder("top", raw_driver_type)
      .child("file", spec_builder("medium", file_driver_type).set("filename", name));
}

// What another process does.
void append(const std::string& name, std::string_view bytes) {
  const int fd = open(name.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  REQUIRE(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  close(fd);
}

std::string read_text(graph_bench& bench, root& r, u64 offset, std::size_t length) {
  std::string text(length, '?');
  bench.must(r.read(offset, std::as_writable_bytes(std::span(text))));
  return text;
}

u64 flushes_to_disk(const node& n) {
  return n.statistics().of(operation::flush).count - n.statistics().merged_flushes;
}

} // namespace

TEST_CASE("raw over a file is that file; what looks or shifts in between is named") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 64 * KiB);
  struct row {
    const char* option;
    value setting;
    const char* for_reading;
    const char* for_writing;
  };
  const row rows[] = {
      {"read-only", false, "", ""},
      {"offset", u64{512}, "its 'offset' and 'size' show a part of the file",
       "its 'offset' and 'size' show a part of the file"},
      {"size", u64{512}, "its 'offset' and 'size' show a part of the file",
       "its 'offset' and 'size' show a part of the file"},
      {"detect-zeroes", "on", "", "'detect-zeroes' looks at what is written"},
      {"cache.writeback", false, "", "'cache.writeback: false' makes each write durable"},
      {"cache.direct", true, "'cache.direct' reads and writes past the page cache",
       "'cache.direct' reads and writes past the page cache"},
  };
  for (const row& r : rows) {
    CAPTURE(r.option);
    graph_bench bench(drivers());
    const auto opened = bench.try_open(raw_over(name).set(r.option, r.setting));
    if (!opened)
      continue; // a scratch file system without O_DIRECT
    node& top = **opened;
    for (const bool for_writing : {false, true}) {
      const std::string_view reason = for_writing ? r.for_writing : r.for_reading;
      const auto found = top.whole_host_file(for_writing);
      if (reason.empty()) {
        REQUIRE(found.has_value());
        CHECK(found->where->name() == "medium");
        CHECK(found->path == name);
        CHECK(found->fd >= 0);
      } else {
        REQUIRE(!found);
        CHECK(
            found.error().message().ends_with(fmt::format("is not one file as it is: {}", reason)));
      }
    }
  }
}

TEST_CASE("a driver that says nothing of it is no file, nor is a node that watches its writes") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 64 * KiB);
  graph_bench bench(drivers());
  bench.disk("d", 4096);
  node& memory = bench.open(spec_builder("memory", memory_driver_type).set("filename", "d"));
  const auto none = memory.whole_host_file(false);
  REQUIRE(!none);
  CHECK(none.error().message() ==
        "node 'memory' (memory) is not one file as it is: driver 'memory' "
        "keeps its own bytes in between");
  node& top = bench.open(raw_over(name));
  node& filter = bench.open(spec_builder("copies", copy_on_read_driver_type).child("file", "top"));
  CHECK_FALSE(filter.whole_host_file(false).has_value());
  top.set_write_threshold(4096);
  CHECK(top.whole_host_file(false).has_value());
  const auto watched = top.whole_host_file(true);
  REQUIRE(!watched);
  CHECK(watched.error().message().ends_with("its write threshold watches what is written"));
}

TEST_CASE("while others write the length is followed, and what they wrote can be read") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 1000);
  graph_bench bench(drivers());
  node& top = bench.open(raw_over(name));
  root& r = bench.attach(top, may_resize);
  top.begin_writes_by_others();
  CHECK(top.limits().has_variable_length);
  append(name, "one");
  CHECK(read_text(bench, r, 1000, 3) == "one");
  append(name, "two");
  top.follow_length();
  CHECK(top.length() == 1006);
  append(name, "three");
  const block_status s = bench.must(r.status_above({1006, 100}));
  CHECK(s.length == 5);
  append(name, "end");
  top.end_writes_by_others();
  CHECK(top.length() == 1014);
  CHECK_FALSE(top.limits().has_variable_length);
  CHECK(read_text(bench, r, 1011, 3) == "end");
}

TEST_CASE("while others write each flush goes to the disk, and so does the next one after") {
  const scratch_directory dir;
  graph_bench bench(drivers());
  node& top = bench.open(raw_over(dir.file("disk", 1000)));
  root& r = bench.attach(top, may_resize);
  const node& medium = top.child("file")->child();
  bench.must(r.flush());
  CHECK(flushes_to_disk(medium) == 0);
  top.begin_writes_by_others();
  bench.must(r.flush());
  bench.must(r.flush());
  CHECK(flushes_to_disk(medium) == 2);
  top.end_writes_by_others();
  bench.must(r.flush());
  bench.must(r.flush());
  CHECK(flushes_to_disk(medium) == 3);
}

TEST_CASE("growing cuts nothing off that others have appended meanwhile") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 1000);
  graph_bench bench(drivers());
  node& top = bench.open(raw_over(name));
  root& r = bench.attach(top, may_resize);
  top.begin_writes_by_others();
  bench.must(r.truncate(2000));
  CHECK(fs::file_size(name) == 2000);
  CHECK(read_text(bench, r, 1999, 1) == std::string(1, '\0'));
  bench.must(r.truncate(500));
  CHECK(fs::file_size(name) == 500);
  top.end_writes_by_others();
  CHECK(top.length() == 500);
}

TEST_CASE("a node whose change is forbidden is neither reopened nor given up, a held root stays") {
  const scratch_directory dir;
  graph_bench bench(drivers());
  node& top = bench.open(raw_over(dir.file("disk", 1000)).set("read-only", true));
  root& r = bench.attach(top, may_read);
  const auto token = top.blockers().add(moves_data, "somebody reads its file");
  const auto reopening = [&] {
    graph_edit edit;
    edit.reopens.push_back({&top, top.given(), top.generic()});
    return bench.run(bench.graph().apply(std::move(edit)));
  };
  const auto reopened = reopening();
  REQUIRE(!reopened);
  CHECK(reopened.error().kind() == error_kind::busy);
  CHECK(reopened.error().message().ends_with("cannot be changed now: somebody reads its file"));
  const auto given_up = bench.run(bench.graph().deactivate(top));
  REQUIRE(!given_up);
  CHECK(given_up.error().message().ends_with("cannot be changed now: somebody reads its file"));
  CHECK(top.is_active());
  top.blockers().remove(token);
  CHECK(reopening().has_value());
  r.hold("somebody reads through it");
  graph_edit edit;
  edit.roots.push_back({&r, "top", may_read});
  const auto moved = bench.run(bench.graph().apply(std::move(edit)));
  REQUIRE(!moved);
  CHECK(moved.error().message() == "test cannot be changed now: somebody reads through it");
  graph_edit released;
  released.releases.push_back(&r);
  CHECK_FALSE(bench.run(bench.graph().apply(std::move(released))).has_value());
  r.hold({});
}

TEST_CASE("while others write no visit of a lease enters, afterwards it knows the new length") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 64 * KiB);
  graph_bench bench(drivers());
  bench.graph().set_lease_queues(2);
  node& top = bench.open(raw_over(name));
  root& r = bench.attach(top, may_resize);
  lease& by = *r.shared_lease();
  CHECK(visitor(by).is_inside());
  top.begin_writes_by_others();
  top.begin_writes_by_others(); // another opener
  CHECK_FALSE(visitor(by).is_inside());
  append(name, std::string(64 * KiB, 'x'));
  top.end_writes_by_others();
  CHECK_FALSE(visitor(by).is_inside());
  top.end_writes_by_others();
  CHECK(visitor(by).is_inside());
  CHECK(by.length() == 128 * KiB);
}
