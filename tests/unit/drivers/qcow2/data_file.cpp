// SPDX-License-Identifier: MIT
// External data files: what is refused, the order on two disks, and what an old or a kept file
// shows. Their content is held against a byte array in model.cpp.
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 4096;
const option_list with_data{{"cluster_size", "4K"}, {"data_file", "data"}};
const option_list opened{{"data-file", "data"}};

std::string message_of(const result<>& r) {
  return r ? std::string() : r.error().message();
}

std::vector<std::byte> read_some(qcow2_bench& b, root& way, byte_range r) {
  std::vector<std::byte> bytes(r.length);
  b.bench.must(way.read(r.offset, bytes));
  return bytes;
}

bool is_zero_all(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

} // namespace

TEST_CASE("qcow2: an external data file is given exactly where there is one") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 64 * KiB, with_data);
  CHECK(b.open_error("d").contains("names 'data' as its 'data-file', and nothing allows"));
  image_editor e(disk.bytes);
  header unnamed = e.header();
  std::erase_if(unnamed.extensions,
                [](const header_extension& x) { return x.type == extension_type::data_file; });
  e.write_header(unnamed);
  CHECK(b.open_error("d").contains("its header does not say which; give it as 'data-file'"));
  CHECK(b.open_error("d", opened).empty());
  b.create("plain", 64 * KiB);
  CHECK(b.open_error("plain", opened).contains("keeps its data in its own file; leave it out"));
}

TEST_CASE("qcow2: options of data files that contradict each other are refused") {
  qcow2_bench b;
  struct row {
    option_list options;
    std::string expected;
  };
  const row rows[] = {
      {{{"data_file_raw", "on"}}, "'data_file_raw' is given without 'data_file'"},
      {{{"keep_data_file", "on"}}, "'keep_data_file' is given without 'data_file'"},
      {{{"data_file", "data"}, {"compat", "0.10"}}, "'data_file' needs version 3"},
      {{{"data_file", "data"},
        {"data_file_raw", "on"},
        {"backing_file", "base"},
        {"backing_fmt", "raw"}},
       "'data_file_raw' and 'backing_file' contradict each other"},
      {{{"data_file", "data"}, {"data_file_raw", "on"}, {"encrypt.format", "luks"}},
       "'data_file_raw' and 'encrypt.format' contradict each other"},
      {{{"data_file", "data"}, {"keep_data_file", "on"}, {"encrypt.format", "luks"}},
       "'keep_data_file' and 'encrypt.format' contradict each other"},
  };
  b.bench.disk("data");
  for (const row& r : rows) {
    const std::string message = message_of(b.try_create("new", 64 * KiB, r.options));
    CHECK_MESSAGE(message.contains(r.expected), message);
    CHECK(memory_disks()["new"]->bytes.empty());
  }
}

TEST_CASE("qcow2: an image that was opened to be looked at does without its data file") {
  qcow2_bench b;
  b.create("d", 64 * KiB, with_data);
  root& way = b.open("d", opened);
  b.bench.must(way.write(0, pattern(cluster, 1)));
  b.close();
  node_spec spec = qcow2_bench::image_spec("d").build();
  spec.is_info_only = true;
  node& n = *b.bench.must(b.bench.graph().open(std::move(spec)));
  CHECK(*n.instance().info().format_specific.find("data")->find("data-file")->as_text() == "data");
  root& look = b.bench.attach(n);
  std::vector<std::byte> bytes(cluster);
  CHECK(message_of(b.bench.run(look.read(0, bytes))).contains("opened without its data file"));
  CHECK(message_of(b.bench.run(look.write(0, bytes))).contains("opened without its data file"));
  b.bench.detach(look);
  b.bench.must(b.bench.graph().close(n));
}

// R2 over two files: what the tables refer to is durable in the data file before they are in the
// image, although the image's flush alone would satisfy the image's file.
TEST_CASE("qcow2: data around a write are durable in the data file before the table has them") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 64 * KiB, with_data);
  memory_disk& data = *memory_disks()["data"];
  const auto backing = pattern(64 * KiB, 5);
  b.place("base", backing);
  root& way = b.open("d", opened, "base");
  b.bench.must(way.write(0, pattern(100, 1))); // makes the L2 table
  b.bench.must(way.flush());
  const u64 table = image_editor(disk.bytes).entry_at(0) / cluster * cluster;
  bool is_durable = true;
  unsigned linked = 0;
  data.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
    if (operation == "write")
      is_durable = false;
    if (operation == "flush")
      is_durable = true;
    return std::nullopt;
  };
  disk.fault = [&](std::string_view operation, byte_range range) -> std::optional<error> {
    if (operation == "write" && range.overlaps({table, cluster})) {
      linked++;
      CHECK(is_durable);
    }
    return std::nullopt;
  };
  for (u64 at = 2 * cluster + 10; at < 10 * cluster; at += 2 * cluster) {
    b.bench.must(way.write(at, pattern(100, at)));
    b.bench.must(way.flush());
  }
  CHECK(linked >= 4); // or this proves nothing
  data.fault = disk.fault = nullptr;
  b.close();
}

TEST_CASE(
    "qcow2: a table that puts data elsewhere in the data file, or compresses them, is corrupt") {
  struct row {
    u64 entry;
    std::string expected;
  };
  const row rows[] = {
      {(u64{1} << 63) | 3 * cluster, "it places data at 0x3000 of the external data file"},
      {(u64{1} << 62) | 512, "it is compressed, which data in an external data file cannot be"},
  };
  for (const row& r : rows) {
    qcow2_bench b;
    memory_disk& disk = b.create("d", 64 * KiB, with_data);
    root& way = b.open("d", opened);
    b.bench.must(way.write(0, pattern(2 * cluster, 1)));
    b.close();
    image_editor e(disk.bytes);
    e.put(e.entry_at(cluster), r.entry);
    root& again = b.open("d", opened);
    std::vector<std::byte> bytes(cluster);
    const std::string message = message_of(b.bench.run(again.read(cluster, bytes)));
    CHECK_MESSAGE(message.contains(r.expected), message);
    (void)b.try_close();
  }
}

TEST_CASE("qcow2: what a longer disk left in the data file does not come back") {
  qcow2_bench b;
  b.create("d", 64 * KiB, with_data);
  memory_disk& data = *memory_disks()["data"];
  root& way = b.open("d", opened);
  b.bench.must(way.truncate(32 * KiB));
  CHECK(data.bytes.size() == 32 * KiB);
  b.close();
  data.bytes.resize(64 * KiB, std::byte{0xaa}); // somebody else's, or a shrink that was interrupted
  root& again = b.open("d", opened);
  b.bench.must(again.truncate(64 * KiB, {.prealloc = preallocation::metadata}));
  CHECK(is_zero_all(read_some(b, again, {32 * KiB, 32 * KiB})));
  b.close();
}

TEST_CASE("qcow2: a kept data file is shown as it is, raw or not") {
  for (const bool is_raw : {false, true}) {
    qcow2_bench b;
    const auto content = pattern(60 * KiB, 3);
    b.place("data", content);
    option_list how = with_data;
    how.emplace_back("keep_data_file", "on");
    if (is_raw)
      how.emplace_back("data_file_raw", "on");
    memory_disk& disk = b.create("d", 64 * KiB, how);
    root& way = b.open("d", opened);
    CHECK(read_some(b, way, {0, content.size()}) == content);
    CHECK(is_zero_all(read_some(b, way, {content.size(), 64 * KiB - content.size()})));
    b.close();
    require_sound(disk);
  }
}
