// SPDX-License-Identifier: MIT
#include "fuse/tree/raw_disk.h"

#include "fuse/tree/disk_change.h"

#include <cerrno>

namespace bgfs {

task<void> raw_disk::attach(node& top, permissions wanted, root_observer* observer) {
  attached_ = co_await top.owner().attach("export '" + policy_.name + "'", top, wanted, observer);
  settle_lease();
}

void raw_disk::settle_lease() {
  if (is_attached() && attached_->shared_lease() != nullptr)
    attached_->shared_lease()->set_may_write(policy_.is_writable && !tells_of_writes_);
}

task<void> raw_disk::tell_of_writes(bool must) {
  tells_of_writes_ = must;
  settle_lease();
  if (must && is_attached() && attached_->shared_lease() != nullptr)
    co_await attached_->shared_lease()->turn();
}

std::shared_ptr<lease> raw_disk::lease_of_handles() {
  settle_lease(); // an edit may have attached it
  return is_attached() ? attached_->shared_lease() : nullptr;
}

// Writes that were served by lease are changes like any others; they are noticed when it matters.
void raw_disk::note_leased_writes() {
  if (attached_ == nullptr || attached_->shared_lease() == nullptr)
    return;
  const lease& by = *attached_->shared_lease();
  const u64 writes = by.writes();
  if (std::exchange(leased_writes_seen_, writes) == writes)
    return;
  change_count_++;
  allocated_.reset();
  has_unflushed_ = true;
  is_full_ = false;
  time_.changed_at(by.last_write());
}

result<> raw_disk::require_attached() const {
  if (is_attached())
    return {};
  return fail(error{error_kind::not_found,
                    fmt::format("'{}' is gone: a reload has removed it", policy_.name), ENODEV});
}

task<void> raw_disk::release() {
  if (attached_ == nullptr)
    co_return;
  co_await attached_->release();
  note_leased_writes();
  attached_.reset();
}

byte_range raw_disk::readable_part(byte_range range) const {
  return range.intersection({0, length()});
}

task<std::size_t> raw_disk::read(u64 offset, std::span<std::byte> bytes) {
  co_await require_attached(); // what is gone does not read as empty
  const byte_range part = readable_part({offset, bytes.size()});
  if (!part.is_empty())
    co_await attached_->read(offset, bytes.first(part.length));
  co_return part.length;
}

error raw_disk::beyond_end(u64 offset) const {
  return {
      error_kind::no_space,
      fmt::format("cannot write at {:#x} of '{}': the disk has {:#x} bytes and is not growable; "
                  "{} first",
                  offset, policy_.name, length(), policy_.how_to_resize),
      ENOSPC};
}

result<> raw_disk::require_writable() const {
  BGFS_CHECK(require_attached());
  if (!policy_.is_writable)
    return fail(error{
        error_kind::permission,
        fmt::format("'{}' is exported read-only; set 'writable: true' in its export", policy_.name),
        EROFS});
  return {};
}

task<void> raw_disk::may_change() {
  while (is_reserving_)
    co_await reserved_.wait();
}

void raw_disk::content_replaced() {
  note_leased_writes();
  change_count_++;
  allocated_.reset();
  is_full_ = false;
  time_.changed();
}

void raw_disk::note(const result<>& outcome) {
  if (!outcome)
    note_leased_writes(); // those that succeeded before it do not undo what it says
  is_full_ = !outcome && outcome.error().kind() == error_kind::no_space;
}

task<u32> raw_disk::write(u64 offset, std::span<const std::byte> bytes, bool is_durable) {
  co_await require_writable();
  if (bytes.empty())
    co_return 0;
  const u64 end = offset + bytes.size();
  if (end > length()) {
    if (policy_.is_growable) {
      co_await grow_for_write(end);
    } else if (offset >= length()) {
      co_await fail(beyond_end(offset));
    } else {
      bytes = bytes.first(length() - offset);
    }
  }
  if (is_reserving_)
    co_await may_change();
  const change marked(*this);
  const write_flags flags = is_durable ? write_flag::durable : 0;
  result<> outcome = co_await as_result(attached_->write(offset, bytes, flags));
  note(outcome);
  if (!outcome)
    co_await fail(std::move(outcome).error());
  co_return static_cast<u32>(bytes.size());
}

task<void> raw_disk::flush() {
  co_await require_attached();
  note_leased_writes();
  // What is written while the flush runs is not covered by it.
  const bool had_changes = std::exchange(has_unflushed_, false);
  result<> outcome = co_await as_result(attached_->flush());
  if (!outcome) {
    has_unflushed_ = has_unflushed_ || had_changes;
    co_await fail(std::move(outcome).error());
  }
}

task<void> raw_disk::flush_changes() {
  note_leased_writes();
  if (has_unflushed_ || is_written_by_kernel_)
    co_await flush();
}

task<void> raw_disk::grow(u64 to_length) {
  if (to_length > device_length_max)
    co_await fail(error{error_kind::out_of_range,
                        fmt::format("'{}' cannot grow to {:#x} bytes, {:#x} is the most any disk "
                                    "may have",
                                    policy_.name, to_length, device_length_max),
                        EFBIG});
  const auto guard = co_await resizing_.lock();
  if (to_length <= length())
    co_return; // another write has grown it meanwhile
  if (is_reserving_)
    co_await may_change();
  const change marked(*this);
  co_await context(attached_->truncate(to_length, {.must_read_zero = true}),
                   "growing '{}' to {:#x} bytes", policy_.name, to_length);
}

// Formats count in sectors: what is written into half a one makes it whole.
task<void> raw_disk::grow_for_write(u64 end) {
  result<> grown = co_await as_result(grow(end));
  const u64 whole = divide_up(end, 512) * 512;
  if (!grown && grown.error().kind() == error_kind::invalid_argument && whole != end)
    grown = co_await as_result(grow(whole));
  co_await std::move(grown);
}

task<void> raw_disk::resize(u64 to_length, bool may_shrink) {
  co_await require_writable();
  if (to_length >= length()) {
    co_await grow(to_length);
    co_return;
  }
  if (!may_shrink)
    co_await fail(error_kind::invalid_argument,
                  "'{}' has {} bytes, {} are fewer: what lies behind would be lost; if that is "
                  "meant, write 'shrink {}'",
                  policy_.name, length(), to_length, to_length);
  const auto guard = co_await resizing_.lock();
  if (is_reserving_)
    co_await may_change();
  const change marked(*this);
  co_await context(attached_->truncate(to_length, {}), "shrinking '{}' to {:#x} bytes",
                   policy_.name, to_length);
}

task<void> raw_disk::truncate_at_open() {
  co_await require_writable();
  if (policy_.on_truncate == truncate_policy::zero) {
    co_await zero({0, length()}, true);
    co_return;
  }
  if (policy_.is_growable) {
    // A file that grows is a file: it becomes empty and grows again as it is written.
    const auto guard = co_await resizing_.lock();
    if (is_reserving_)
      co_await may_change();
    const change marked(*this);
    co_await context(attached_->truncate(0, {}), "truncating '{}'", policy_.name);
    co_return;
  }
  co_await fail(
      error{error_kind::permission,
            fmt::format("a disk cannot be truncated: '{0}' was opened with O_TRUNC and nothing was "
                        "changed; restore with 'bgfs convert -n -f raw -O raw backup.raw {0}' or "
                        "'dd conv=notrunc', or set 'on-truncate: zero' in its export",
                        policy_.name),
            EPERM});
}

task<void> raw_disk::set_length(u64 to_length) {
  if (to_length == length())
    co_return;
  co_await require_writable();
  if (policy_.is_growable) {
    co_await resize(to_length, true);
    co_return;
  }
  if (to_length == 0 && policy_.on_truncate == truncate_policy::zero) {
    co_await zero({0, length()}, true);
    co_return;
  }
  co_await fail(
      error{error_kind::permission,
            fmt::format("a disk cannot be truncated: '{}' has {} bytes and keeps them; {}, or "
                        "set 'growable: true' in its export",
                        policy_.name, length(), policy_.how_to_resize),
            EPERM});
}

task<u64> raw_disk::allocated_length() {
  note_leased_writes();
  if (is_written_by_kernel_ || policy_.is_only_a_view)
    allocated_.reset(); // it may have changed, and nobody has told
  while (!allocated_) {
    const u64 before = change_count_;
    co_await require_attached();
    const u64 now = co_await top().allocated_length();
    if (before != change_count_)
      co_return now; // true a moment ago; the next one asks again
    allocated_ = now;
  }
  co_return *allocated_;
}

task<disk_extent> raw_disk::extent() {
  const std::timespec changed = co_await modified();
  disk_extent e{.length = length(), .modified = changed};
  e.follows_others = is_attached() && top().limits().has_variable_length;
  const result<u64> allocated = co_await as_result(allocated_length());
  e.allocated = allocated ? *allocated : e.length;
  co_return e;
}

} // namespace bgfs
