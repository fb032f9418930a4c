// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/check/checker.h"

#include "graph/io/cancel.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

namespace {

constexpr u64 refcount_cache_bytes_max = 16 * MiB;

u64 blocks_that_fit(const geometry& g, const check_limits& limits) {
  return std::clamp<u64>(refcount_cache_bytes_max / g.cluster(), 1, limits.blocks_cached);
}

} // namespace

checker::checker(check_request request)
    : file_(*request.file), header_(*request.h), mode_(request.mode), sink_(*request.sink),
      limits_(request.limits), counts_(request.limits.count_bytes, header_.g.refcount_max()) {
  limits_.blocks_cached = blocks_that_fit(header_.g, limits_);
}

task<void> checker::read(u64 at, std::span<std::byte> bytes, std::string what) {
  const u64 length = file_.length();
  const u64 inside = at >= length ? 0 : std::min<u64>(bytes.size(), length - at);
  std::ranges::fill(bytes.subspan(inside), std::byte{0});
  if (inside > 0)
    co_await context(file_.read(at, bytes.first(inside)), "reading {} at {:#x}", what, at);
}

task<void> checker::read_table(u64 at, std::span<std::byte> bytes, std::string what) {
  if (bytes.size() > table_bytes_left_)
    co_await fail(error_kind::corrupt_image,
                  "the tables of the image lie on top of each other, so that looking at all of "
                  "them would have no end; copy what can be read of it with 'bgfs convert'");
  table_bytes_left_ -= bytes.size();
  co_await give_way();
  co_await read(at, bytes, std::move(what));
}

task<void> checker::write(u64 at, std::span<const std::byte> bytes, std::string what) {
  BGFS_ASSERT(mode_ != check_mode::report, "a check without repair writes nothing");
  co_await context(file_.write(at, bytes), "writing {} at {:#x}", what, at);
}

task<void> checker::flush() {
  co_await context(file_.flush(), "flushing the image");
}

task<void> checker::give_way() {
  const task_context here = co_await current_context();
  if (here.cancel != nullptr && here.cancel->is_requested())
    co_await fail(error_kind::cancelled, "the check was cancelled");
  if (slice_.is_used_up())
    co_await slice_.next();
}

task<void> checker::step_done() {
  co_await give_way();
  if (steps_done_ < steps_ && !is_silent_)
    sink_.progress(++steps_done_, steps_);
}

task<void> checker::load_refcount_table() {
  std::vector<std::byte> bytes(u64{header_.refcount_table_clusters} << g().cluster_bits);
  co_await read(header_.refcount_table.value, bytes, "the refcount table");
  refcount_table_.resize(bytes.size() / 8);
  for (u64 i = 0; i < refcount_table_.size(); i++)
    refcount_table_[i] = load<be64>(bytes, i * 8);
  differs_.assign(refcount_table_.size(), false);
  blocks_.clear();
}

// Window after window: count, then compare. Nearly always there is one.
task<void> checker::examine() {
  counts_.begin(0);
  for (;;) {
    co_await count_everything();
    co_await compare_window(false);
    if (counts_.is_last())
      co_return;
    counts_.begin(counts_.end());
  }
}

task<check_result> checker::run() {
  file_length_ = align_up(file_.length(), 512);
  result_.total_clusters = divide_up(header_.disk_length, g().cluster());
  co_await load_l1();
  co_await load_refcount_table();
  co_await read_snapshots();
  co_await add_up_active();
  steps_ = active_.size() + snapshots_.size() + divide_up(file_clusters(), g().block_entries());
  co_await examine();
  if (mode_ != check_mode::report)
    co_await repair();
  co_await check_copied();
  if (mode_ != check_mode::report)
    co_await finish();
  result_.image_end_offset = used_end_ << g().cluster_bits;
  sink_.progress(steps_, steps_);
  co_return result_;
}

task<check_result> check_image(check_request request) {
  checker c(request);
  check_result found = co_await c.run();
  co_return found;
}

} // namespace bgfs::qcow2
