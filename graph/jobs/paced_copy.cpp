// SPDX-License-Identifier: MIT
#include "graph/jobs/paced_copy.h"

#include "graph/io/with.h"
#include "graph/jobs/pieces.h"

#include <algorithm>

namespace bgfs {
namespace {

// So many looks at what the layers do not hold are a slice, too.
constexpr unsigned looks_max = 64;
// Slices begin and end at these, which the granularities of bitmaps divide.
constexpr u64 slice_unit = 64 * KiB;

// What lies behind some offset of another target.
class part_of_target final : public copy_target {
public:
  part_of_target(root& to, u64 begin) : whole_(to, 0), begin_(begin) {}
  task<void> write(u64 offset, std::span<const std::byte> bytes) override {
    return whole_.write(begin_ + offset, bytes);
  }
  task<void> write_zeroes(byte_range range) override {
    return whole_.write_zeroes({begin_ + range.offset, range.length});
  }

private:
  root_copy_target whole_;
  u64 begin_;
};

} // namespace

dirty_backlog::dirty_backlog(dirty_bitmap& which) : bitmap_(which), pass_(which.bits()) {
  pass_.set(0, pass_.count());
}

void dirty_backlog::begin_pass() {
  pass_.merge(bitmap_.bits());
  bitmap_.clear();
}

std::optional<byte_range> dirty_backlog::next(u64 from) const {
  const u64 unit = bitmap_.granularity();
  if (from >= bitmap_.length())
    return std::nullopt;
  const std::optional<u64> first = pass_.next_set(from / unit);
  if (!first)
    return std::nullopt;
  const u64 end = pass_.next_clear(*first).value_or(pass_.count());
  return byte_range::between(std::max(from, *first * unit), std::min(end * unit, bitmap_.length()));
}

void dirty_backlog::take(byte_range range) {
  const u64 unit = bitmap_.granularity();
  BGFS_ASSERT(is_aligned(range.offset, unit));
  BGFS_ASSERT(is_aligned(range.end(), unit) || range.end() == bitmap_.length());
  pass_.reset(range.offset / unit, divide_up(range.length, unit));
}

u64 dirty_backlog::bytes_of(const dirty_bits& bits) const {
  const u64 beyond = bits.count() * bitmap_.granularity() - bitmap_.length();
  const bool has_end = bits.count() > 0 && bits.test(bits.count() - 1);
  return bits.set_count() * bitmap_.granularity() - (has_end ? beyond : 0);
}

u64 dirty_backlog::bytes() const {
  return bytes_of(pass_) + bytes_of(bitmap_.bits());
}

task<void> paced_copy::pass() {
  u64 at = 0;
  backlog_.begin_pass();
  while (backlog_.next(at)) {
    report();
    const job_slice slice = co_await control_.pause_point(std::exchange(copied_, 0));
    is_limited_ = slice.is_limited;
    for (unsigned looks = 0; copied_ < slice.length && looks < looks_max && backlog_.next(at);
         looks++)
      at = co_await step(at, slice.length - copied_, gate::open);
  }
  report();
}

task<void> paced_copy::pass_pressing(node& above, u64 length) {
  u64 at = 0;
  backlog_.begin_pass();
  while (backlog_.next(at)) {
    report();
    const job_slice slice = co_await control_.pause_point(std::exchange(copied_, 0));
    is_limited_ = slice.is_limited;
    co_await with(above.owner().drain(above),
                  [&](graph::drained&) { return slice_drained(at, length); });
  }
  report();
}

task<void> paced_copy::slice_drained(u64& at, u64 length) {
  for (unsigned looks = 0; copied_ < length && looks < looks_max && backlog_.next(at); looks++)
    at = co_await step(at, length - copied_, gate::drained);
}

task<void> paced_copy::rest_drained() {
  backlog_.begin_pass();
  for (u64 at = 0; backlog_.next(at);)
    at = co_await step(at, run_length_max, gate::drained);
  report();
}

// Deals with what begins the backlog at `from`, and returns where it goes on.
task<u64> paced_copy::step(u64 from, u64 length_max, gate how) {
  byte_range run = *backlog_.next(from);
  run.length = std::min(run.length, run_length_max);
  const u64 below = co_await length_below(run);
  const u64 end = below > 0 ? run.offset + below
                            : std::min(run.end(), align_up(run.offset + length_max, slice_unit));
  const byte_range now = byte_range::between(run.offset, end);
  if (below == 0) {
    co_await copy(now, how);
    copied_ += now.length;
  }
  backlog_.take(now);
  done_ += now.length;
  co_return end;
}

// How much of it no layer holds, in whole units: bits stand for no less.
task<u64> paced_copy::length_below(byte_range run) const {
  const block_status first = co_await context(from_.top().status_above(run, &base_),
                                              "reading the status of bytes at {:#x}", run.offset);
  if (first.is_allocated || first.is_zero)
    co_return 0;
  if (first.length >= run.length)
    co_return run.length;
  const u64 end = align_down(run.offset + first.length, slice_unit);
  co_return end > run.offset ? end - run.offset : 0;
}

task<void> paced_copy::copy(byte_range range, gate how) {
  part_of_target target(to_, range.offset);
  copy_plan plan{.to = &target, .looks_for_zeroes = false};
  plan.sources.push_back({.from = &from_,
                          .length = range.length,
                          .shared_base = &base_,
                          .offset = range.offset,
                          .is_drained = how == gate::drained});
  co_await copy_disks(to_.top().owner().home(), std::move(plan));
}

} // namespace bgfs
