// SPDX-License-Identifier: MIT
// Opens the input as a qcow2 image, reads it, maps it, writes to it, takes and deletes snapshots,
// reads, changes and stores its bitmaps; then checks and repairs it.
//   cmake -S . -B build/debug -D BGFS_FUZZ=ON ... && ninja fuzz_qcow2_open (tests/run fuzz does it)
#include "drivers/format/qcow2/qcow2.h"
#include "graph/io/spawn.h"
#include "graph/model/bitmap_change.h"
#include "tests/unit/lib/memory_driver.h"

#include <memory>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 bytes_read_max = 256 << 10;

options validated(const option_schema& own, value given) {
  const option_schema* schemas[] = {&own, &generic_node_schema};
  return *validate_options(schemas, given);
}

enum class use_kind : u8 { read, write, check, repair };

constexpr bool only_reads(use_kind use) {
  return use == use_kind::read || use == use_kind::check;
}

child_spec disk_child(const char* slot, const char* disk, bool is_read_only) {
  node_spec file;
  value file_options = value::map();
  file_options.set("filename", disk);
  file.type = &memory_driver_type;
  file.given = validated(memory_options, file_options);
  file.generic.is_read_only = is_read_only;
  child_spec child;
  child.slot = slot;
  child.target = std::make_unique<node_spec>(std::move(file));
  return child;
}

node_spec image_spec(use_kind use, bool has_data_file) {
  node_spec image;
  value image_options = value::map();
  image_options.set("discard", "unmap");
  image_options.set("overlap-check", "all");
  image_options.set("cache-clean-interval", "0");
  image.node_name = "image";
  image.type = &qcow2_driver_type;
  image.given = validated(*qcow2_driver_type.open_options, image_options);
  image.generic.is_read_only = only_reads(use);
  image.generic.is_for_check = use == use_kind::check || use == use_kind::repair;
  image.is_info_only = image.generic.is_for_check;
  image.generic.discard = discard_mode::unmap;
  image.has_no_backing = true;
  image.children.push_back(disk_child("file", "input", only_reads(use)));
  if (has_data_file && !image.is_info_only)
    image.children.push_back(disk_child("data-file", "data", only_reads(use)));
  return image;
}

struct silent_sink final : check_sink {
  void message(std::string_view) override {}
  void progress(u64, u64) override {}
};

task<void> change_snapshots(graph& nodes, node& image) {
  const auto all = nodes.snapshots(image);
  if (!all)
    co_return;
  for (std::size_t i = 0; i < std::min<std::size_t>(all->size(), 2); i++) {
    const snapshot_key key{.id = (*all)[i].id, .name = {}};
    (void)co_await as_result(nodes.revert_to_snapshot(image, key));
    (void)co_await as_result(nodes.delete_snapshot(image, key));
  }
  const result<std::string> id =
      co_await as_result(nodes.create_snapshot(image, {.name = "fuzzed"}));
  if (id)
    (void)co_await as_result(nodes.revert_to_snapshot(image, {.id = *id, .name = {}}));
}

// As many as can be read in a moment.
std::vector<std::string> bitmap_names(const node& image) {
  std::vector<std::string> names;
  for (const auto& b : image.bitmaps().all())
    if (names.size() < 3)
      names.push_back(b->name());
  return names;
}

task<void> read_bitmaps(graph& nodes, node& image) {
  for (std::string& name : bitmap_names(image))
    (void)co_await as_result(nodes.read_bitmap(image, std::move(name)));
}

task<void> change_bitmaps(graph& nodes, node& image) {
  using kind = bitmap_change::kind;
  for (const std::string& name : bitmap_names(image)) {
    for (const kind what : {kind::clear, kind::disable, kind::enable, kind::merge}) {
      bitmap_change c{.what = what, .where = &image, .name = name};
      c.source = &image;
      c.source_name = image.bitmaps().all().back()->name();
      (void)co_await as_result(nodes.change_bitmaps({std::move(c)}));
    }
  }
  if (const auto names = bitmap_names(image); !names.empty())
    (void)co_await as_result(
        nodes.change_bitmaps({{.what = kind::remove, .where = &image, .name = names.front()}}));
  (void)co_await as_result(nodes.change_bitmaps(
      {{.what = kind::add, .where = &image, .name = "fuzzed", .is_persistent = true}}));
}

task<void> check(node& image, use_kind use) {
  silent_sink sink;
  if (image.as_checkable() != nullptr)
    (void)co_await as_result(image.as_checkable()->check(
        use == use_kind::repair ? check_mode::repair_all : check_mode::report, sink));
}

// Errors are what is expected of most inputs; only the sanitizers judge.
task<void> exercise(graph& nodes, root& way, use_kind use) {
  if (use == use_kind::check || use == use_kind::repair) {
    co_await check(way.top(), use);
    co_return;
  }
  const u64 length = way.length();
  std::vector<std::byte> bytes(std::min(length, bytes_read_max));
  (void)co_await as_result(way.read(0, bytes));
  const u64 half = bytes.size() / 2;
  (void)co_await as_result(way.read(length - half, std::span(bytes).first(half)));
  u64 at = 0;
  for (int i = 0; i < 1000 && at < length; i++) {
    const result<block_status> s = co_await as_result(way.status_above({at, length - at}));
    if (!s || s->length == 0)
      break;
    at += s->length;
  }
  co_await read_bitmaps(nodes, way.top());
  if (use == use_kind::read || length < 8192)
    co_return;
  (void)co_await as_result(way.write(512, std::span(bytes).first(5000)));
  (void)co_await as_result(way.write_zeroes({0, length / 2}, write_flag::may_unmap));
  (void)co_await as_result(way.discard({length / 2, length - length / 2}));
  (void)co_await as_result(way.flush());
  co_await change_snapshots(nodes, way.top());
  co_await change_bitmaps(nodes, way.top());
  (void)co_await as_result(way.write(1024, std::span(bytes).first(3000)));
  (void)co_await as_result(way.truncate(length / 1024 * 512));
  co_await check(way.top(), use_kind::check);
}

void open_and_use(loop& home, const registry& drivers, use_kind use, bool has_data_file) {
  graph nodes(home, drivers, nullptr);
  const result<node*> opened = run_to_end(home, nodes.open(image_spec(use, has_data_file)));
  if (opened) {
    const permissions wanted =
        only_reads(use)
            ? permissions{permission::consistent_read, permission::all}
            : permissions{permission::consistent_read | permission::write | permission::resize,
                          permission::all};
    auto way = run_to_end(home, nodes.attach("fuzz", **opened, wanted));
    if (way) {
      (void)run_to_end(home, exercise(nodes, **way, use));
      (void)run_to_end(home, (*way)->release());
    }
  }
  (void)run_to_end(home, nodes.close_all());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const auto home = *loop::create({.backend = io_backend_kind::threads});
  static const registry drivers({&qcow2_driver_type, &memory_driver_type});
  constexpr std::size_t incompatible_at = 79; // the lowest of its bytes
  const bool has_data_file = size > incompatible_at && (data[incompatible_at] & 4) != 0;
  for (const use_kind use : {use_kind::read, use_kind::write, use_kind::check, use_kind::repair}) {
    memory_disk beside(64 << 10);
    beside.yields = false;
    beside.length_max = 64 << 20;
    memory_disks()["data"] = &beside;
    memory_disk disk(0);
    const auto bytes = std::as_bytes(std::span(data, size));
    disk.bytes.assign(bytes.begin(), bytes.end());
    disk.yields = false;
    disk.length_max = size + (64 << 20);
    memory_disks()["input"] = &disk;
    open_and_use(*home, drivers, use, has_data_file);
    memory_disks().erase("input");
    memory_disks().erase("data");
  }
  return 0;
}
