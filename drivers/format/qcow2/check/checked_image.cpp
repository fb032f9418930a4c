// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/check/checked_image.h"

#include "drivers/format/qcow2/check/checker.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

task<std::unique_ptr<driver>> checked_image::open(edge& file) {
  header h = co_await read_header(file, header_use::check);
  // Both are read at open by everybody else, too; without them there is nothing to be checked.
  co_await h.bitmaps();
  co_return std::unique_ptr<driver>(new checked_image(file, std::move(h)));
}

task<check_result> checked_image::check(check_mode mode, check_sink& sink) {
  header h = co_await read_header(file_, header_use::check);
  header_ = std::move(h);
  check_result found =
      co_await check_image({.file = &file_, .h = &header_, .mode = mode, .sink = &sink});
  co_return found;
}

namespace {

// Keeps the first finding that was not repaired, for the error.
struct first_finding final : check_sink {
  std::string text;
  void message(std::string_view line) override {
    if (text.empty() && line.starts_with("ERROR"))
      text = line;
  }
  void progress(u64, u64) override {}
};

} // namespace

task<void> repair_dirty(edge& file, header& h) {
  first_finding sink;
  check_result found =
      co_await check_image({.file = &file, .h = &h, .mode = check_mode::repair_all, .sink = &sink});
  if (found.is_sound())
    co_return;
  // What the repair said while it went on may be repaired by now.
  first_finding left;
  found = co_await check_image({.file = &file, .h = &h, .mode = check_mode::report, .sink = &left});
  co_await fail(error_kind::corrupt_image,
                "{} errors are left, the first of them: {}; open it with 'read-only: true' and "
                "copy what can be read with 'bgfs convert'",
                found.corruptions + found.check_errors, left.text);
}

} // namespace bgfs::qcow2
