// SPDX-License-Identifier: MIT
// Images that lie: every word of the metadata of a small image, replaced by awkward values, and the
// files of tests/images/bad. Whatever they say, requests end with a result or an error.
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"

#include <filesystem>
#include <fstream>
#include <random>

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 512;

// Data, zeroes, a snapshot, a bitmap and a compressed cluster in 512-byte clusters.
std::vector<std::byte> interesting_image() {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 64 << 10, {{"cluster_size", "512"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(3000, 1)));
  b.bench.must(way.write_zeroes({5120, 1024}));
  b.bench.must(way.write(40000, pattern(700, 2)));
  b.close();
  image_editor e(disk.bytes);
  e.add_compressed(8192, pattern(100, 3));
  e.add_snapshot("s");
  return disk.bytes;
}

task<void> use(root& way, bool writes) {
  const u64 length = std::min<u64>(way.length(), 64 << 10);
  std::vector<std::byte> bytes(length);
  for (u64 at = 0; at < length; at += 4096)
    (void)co_await as_result(
        way.read(at, std::span(bytes).subspan(at, std::min<u64>(4096, length - at))));
  u64 at = 0;
  for (int i = 0; i < 300 && at < way.length(); i++) {
    const result<block_status> s = co_await as_result(way.status_above({at, way.length() - at}));
    if (!s || s->length == 0)
      break;
    at += s->length;
  }
  if (!writes || length < 20000)
    co_return;
  (void)co_await as_result(way.write(100, std::span(bytes).first(5000)));
  (void)co_await as_result(way.write_zeroes({4096, 4096}, write_flag::may_unmap));
  (void)co_await as_result(way.discard({8192, 4096}));
  (void)co_await as_result(way.flush());
  (void)co_await as_result(way.write(12000, std::span(bytes).first(5000)));
  (void)co_await as_result(way.truncate(align_down(length / 2, 512)));
}

// What an image says of its snapshots is used as well: each is read, and some are changed.
void use_snapshots(qcow2_bench& b, node& image, bool writes) {
  graph& g = b.bench.graph();
  const auto all = g.snapshots(image);
  if (!all)
    return;
  for (std::size_t i = 0; i < std::min<std::size_t>(all->size(), 3); i++) {
    const snapshot_key key{.id = (*all)[i].id, .name = (*all)[i].name};
    result<node*> shown = b.bench.try_open(view_spec("view", image.name(), key));
    if (!shown)
      continue;
    root& way = b.bench.attach(**shown, may_read);
    b.bench.must(use(way, false));
    b.bench.detach(way);
    (void)b.bench.run(g.close(**shown));
  }
  if (!writes)
    return;
  (void)b.bench.run(g.create_snapshot(image, {.name = "new"}));
  if (!all->empty()) {
    const snapshot_key key{.id = all->front().id, .name = {}};
    (void)b.bench.run(g.revert_to_snapshot(image, key));
    (void)b.bench.run(g.delete_snapshot(image, key));
  }
  (void)b.bench.run(g.delete_snapshot(image, named("new")));
}

void open_and_use(const std::vector<std::byte>& bytes, bool writes) {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
  memory_disk& disk = b.place("d", bytes);
  disk.yields = false;
  disk.length_max = bytes.size() + (16 << 20);
  option_list list{{"overlap-check", "all"}};
  if (!writes)
    list.push_back({"read-only", "on"});
  result<node*> opened = b.bench.try_open(qcow2_bench::image_spec("d", list));
  if (opened) {
    root& way = b.bench.attach(**opened, writes ? may_resize : may_read);
    u64 sum = 0; // of the content: either order, but the same one each time
    for (const std::byte one : bytes)
      sum += std::to_integer<u64>(one);
    const bool snapshots_first = sum % 2 == 0;
    if (snapshots_first)
      use_snapshots(b, **opened, writes);
    b.bench.must(use(way, writes));
    if (!snapshots_first)
      use_snapshots(b, **opened, writes);
    b.bench.detach(way);
    (void)b.bench.run(b.bench.graph().close(**opened));
  }
  if (!writes)
    CHECK(disk.bytes == bytes);
}

} // namespace

TEST_CASE("qcow2: no word of the metadata, whatever its value, does more than fail a request") {
  const std::vector<std::byte> image = interesting_image();
  std::mt19937_64 random(11);
  const u64 values[] = {0,
                        1,
                        ~u64{0},
                        u64{1} << 63,
                        entry_copied | 0x200,
                        entry_copied | 0x1000,
                        entry_compressed | 0x1200,
                        entry_compressed | ~u64{0} >> 3,
                        entry_offset_mask,
                        0x7ffffffffffffe00};
  for (u64 at = 0; at + 8 <= image.size(); at += 8) {
    // The header and every table has non-zero words; data is only looked at now and then.
    const u64 word = load<be64>(image, at);
    if (at > cluster && (word == 0 || word > u64{1} << 40) && random() % 16 != 0)
      continue;
    CAPTURE(at);
    std::vector<std::byte> spoilt = image;
    const u64 value = random() % 4 == 0 ? random() : values[random() % std::size(values)];
    CAPTURE(value);
    if (random() % 2 == 0) {
      store(std::span(spoilt), be64(value), at);
    } else {
      store(std::span(spoilt), be32(static_cast<u32>(value)), at + 4 * (random() % 2));
    }
    open_and_use(spoilt, false);
    open_and_use(spoilt, true);
  }
}

TEST_CASE("qcow2: an image cut anywhere is an error or an image") {
  const std::vector<std::byte> image = interesting_image();
  for (u64 length = 0; length < image.size(); length += length < 600 ? 13 : 250) {
    CAPTURE(length);
    const std::vector<std::byte> cut(image.begin(), image.begin() + static_cast<i64>(length));
    open_and_use(cut, false);
    open_and_use(cut, true);
  }
}

TEST_CASE("qcow2: every bad image ever met fails in good order") {
  unsigned seen = 0;
  const std::filesystem::path folder = BGFS_SOURCE_DIR "/tests/images/bad";
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".qcow2")
      continue;
    CAPTURE(file.path().string());
    std::ifstream in(file.path(), std::ios::binary);
    std::vector<std::byte> bytes(file.file_size());
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    open_and_use(bytes, false);
    open_and_use(bytes, true);
    seen++;
  }
  CHECK(seen > 0);
}
