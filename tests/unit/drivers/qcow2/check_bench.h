// SPDX-License-Identifier: MIT
// Checks and repairs of images on memory disks.
#pragma once

#include "drivers/format/qcow2/check/checker.h"
#include "drivers/format/qcow2/image.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

namespace bgfs::test {

struct recorded_findings final : check_sink {
  std::vector<std::string> lines;
  u64 done = 0;
  u64 total = 0;
  std::function<void()> on_progress;
  void message(std::string_view line) override { lines.emplace_back(line); }
  void progress(u64 now, u64 all) override {
    CHECK(now >= done);
    CHECK(now <= all);
    done = now;
    total = all;
    if (on_progress)
      on_progress();
  }
  [[nodiscard]] std::string text() const {
    std::string all;
    for (const std::string& line : lines)
      all += line + "\n";
    return all;
  }
};

inline task<check_result> check_file(edge& file, check_mode mode, check_sink& sink,
                                     qcow2::check_limits limits) {
  qcow2::header h = co_await qcow2::read_header(file, qcow2::header_use::check);
  check_result found = co_await qcow2::check_image(
      {.file = &file, .h = &h, .mode = mode, .sink = &sink, .limits = limits});
  co_return found;
}

// One image, opened for each check and closed behind it.
class check_bench {
public:
  explicit check_bench(std::vector<std::byte> bytes, std::string disk_name = "d")
      : name(std::move(disk_name)), disk(b.place(name, std::move(bytes))) {
    disk.yields = false;
  }

  result<check_result> try_check(check_mode mode, qcow2::check_limits limits = {}) {
    findings = {};
    node& file = b.bench.open(disk_spec(name));
    root& way = b.bench.attach(file, mode == check_mode::report ? may_read : may_resize);
    result<check_result> found = b.bench.run(check_file(way.as_edge(), mode, findings, limits));
    b.bench.detach(way);
    b.bench.must(b.bench.graph().close(file));
    return found;
  }
  check_result check(check_mode mode = check_mode::report, qcow2::check_limits limits = {}) {
    const std::vector<std::byte> before =
        mode == check_mode::report ? disk.bytes : std::vector<std::byte>();
    result<check_result> found = try_check(mode, limits);
    REQUIRE_MESSAGE(found.has_value(), (found ? std::string() : found.error().message()));
    if (mode == check_mode::report)
      REQUIRE(is_same(disk.bytes, before));
    return *found;
  }

  qcow2_bench b;
  std::string name; // of the disk; two benches at a time have two
  memory_disk& disk;
  recorded_findings findings;
};

} // namespace bgfs::test
