// SPDX-License-Identifier: MIT
// Opens the input as a qcow2 image, reads it, maps it, and writes to it.
//   cmake -S . -B build/fuzz -D BGFS_FUZZ=ON ... && ninja fuzz_qcow2_open (tests/run fuzz does it)
#include "drivers/format/qcow2/qcow2.h"
#include "graph/io/spawn.h"
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

node_spec image_spec(bool is_read_only) {
  node_spec file;
  value file_options = value::map();
  file_options.set("filename", "input");
  file.type = &memory_driver_type;
  file.given = validated(memory_options, file_options);
  node_spec image;
  value image_options = value::map();
  image_options.set("discard", "unmap");
  image_options.set("overlap-check", "all");
  image_options.set("cache-clean-interval", "0");
  image.node_name = "image";
  image.type = &qcow2_driver_type;
  image.given = validated(*qcow2_driver_type.open_options, image_options);
  image.generic.is_read_only = file.generic.is_read_only = is_read_only;
  image.generic.discard = discard_mode::unmap;
  image.has_no_backing = true;
  child_spec child;
  child.slot = "file";
  child.target = std::make_unique<node_spec>(std::move(file));
  image.children.push_back(std::move(child));
  return image;
}

// Errors are what is expected of most inputs; only the sanitizers judge.
task<void> use(root& way, bool is_read_only) {
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
  if (is_read_only || length < 8192)
    co_return;
  (void)co_await as_result(way.write(512, std::span(bytes).first(5000)));
  (void)co_await as_result(way.write_zeroes({0, length / 2}, write_flag::may_unmap));
  (void)co_await as_result(way.discard({length / 2, length - length / 2}));
  (void)co_await as_result(way.flush());
  (void)co_await as_result(way.truncate(length / 1024 * 512));
}

void open_and_use(loop& home, const registry& drivers, bool is_read_only) {
  graph nodes(home, drivers, nullptr);
  const result<node*> opened = run_to_end(home, nodes.open(image_spec(is_read_only)));
  if (opened) {
    const permissions wanted =
        is_read_only
            ? permissions{permission::consistent_read, permission::all}
            : permissions{permission::consistent_read | permission::write | permission::resize,
                          permission::all};
    auto way = run_to_end(home, nodes.attach("fuzz", **opened, wanted));
    if (way) {
      (void)run_to_end(home, use(**way, is_read_only));
      (void)run_to_end(home, (*way)->release());
    }
  }
  (void)run_to_end(home, nodes.close_all());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const auto home = *loop::create({.backend = io_backend_kind::threads});
  static const registry drivers({&qcow2_driver_type, &memory_driver_type});
  for (const bool is_read_only : {true, false}) {
    memory_disk disk(0);
    const auto bytes = std::as_bytes(std::span(data, size));
    disk.bytes.assign(bytes.begin(), bytes.end());
    disk.yields = false;
    disk.length_max = size + (64 << 20);
    memory_disks()["input"] = &disk;
    open_and_use(*home, drivers, is_read_only);
    memory_disks().erase("input");
  }
  return 0;
}
