// SPDX-License-Identifier: MIT
// How a read gets from a parent to where its bytes live.
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"
#include "graph/model/graph.h"

#include <cstring>
#include <utility>

namespace bgfs {
namespace {

// So many parts of one request are read at the same time.
constexpr std::size_t read_parts_max = 16;

} // namespace

result<> node::check_read(byte_range range) {
  if (limits_.has_variable_length)
    follow_variable_length();
  result<> ok = check_range(range, "read");
  if (ok && range.length > request_length_max)
    ok = fail(error_kind::out_of_range, "cannot read {} bytes at once; the most is {}",
              range.length, request_length_max);
  if (!ok)
    statistics_.of(operation::read).invalid++;
  return ok;
}

task<void> node::read(u64 offset, std::span<std::byte> bytes) {
  const byte_range range{offset, bytes.size()};
  co_await check_read(range);
  if (range.is_empty())
    co_return;
  tracked_request request(requests_, request_type::read, range, owner_->home().now());
  if (requests_.has_serialising()) {
    co_await request.wait_for_conflicts();
    co_await check_range(range, "read"); // it may have been shortened meanwhile
  }
  task<void> work = range.is_aligned_to(limits_.request_alignment) ? read_aligned(offset, bytes)
                                                                   : read_unaligned(offset, bytes);
  result<> outcome = co_await as_result(std::move(work));
  account(operation::read, range.length, request.since(), outcome);
  co_await std::move(outcome);
}

// Reads whole blocks into a bounce buffer and takes the middle.
task<void> node::read_unaligned(u64 offset, std::span<std::byte> bytes) {
  const u64 unit = limits_.request_alignment;
  const u64 step = std::max(align_down(bounce_length_max, unit), unit);
  while (!bytes.empty()) {
    const byte_range wanted{offset, std::min<u64>(bytes.size(), step - offset % step)};
    const byte_range blocks = wanted.widened_to(unit);
    const buffer bounce = owner_->home().buffers().allocate(blocks.length);
    co_await read_aligned(blocks.offset, bounce.bytes());
    std::memcpy(bytes.data(), bounce.data() + (wanted.offset - blocks.offset), wanted.length);
    bytes = bytes.subspan(wanted.length);
    offset += wanted.length;
  }
}

// Splits by max_transfer and lets the driver answer, or the mapping.
task<void> node::read_aligned(u64 offset, std::span<std::byte> bytes) {
  const u64 step = transfer_step(limits_);
  const edge* below = filtered_child();
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<u64>(bytes.size(), step));
    if (is_read_directly()) {
      co_await readable_->read(offset, part);
    } else if (mappable_ == nullptr && is_filter() && below != nullptr) {
      co_await below->read(offset, part);
    } else {
      co_await read_mapped(offset, part);
    }
    bytes = bytes.subspan(part.size());
    offset += part.size();
  }
}

task<extent> node::map(byte_range range) {
  if (mappable_ != nullptr) {
    if (auto known = mappable_->try_map(range))
      co_return *known;
    extent e = co_await mappable_->map(range);
    co_return e;
  }
  if (const edge* below = filtered_child())
    co_return extent{.length = range.length,
                     .kind = extent_kind::data,
                     .where = below,
                     .offset = range.offset,
                     .is_passthrough = true};
  co_return extent{.length = range.length, .kind = extent_kind::data, .offset = range.offset};
}

// Parts that lie apart are read side by side. Their places stay theirs until this request ends
// (request_list::oldest), so that it does not matter which is read first.
task<void> node::read_mapped(u64 offset, std::span<std::byte> bytes) {
  const bool tells = type_->kind == driver_kind::format && tells_primary();
  // Not a coroutine: the usual case takes no frame of its own.
  const auto read_part = [this, tells](const extent& e, u64 at, std::span<std::byte> part) {
    if (tells) [[unlikely]]
      return read_told(e, at, part);
    if (e.kind == extent_kind::data)
      return e.where->read(e.offset, part);
    return e.kind == extent_kind::encoded ? readable_->read(at, part) : read_backing(at, part);
  };
  std::vector<task<void>> parts;
  while (!bytes.empty()) {
    const byte_range range{offset, bytes.size()};
    std::optional<extent> known;
    if (mappable_ != nullptr)
      known = mappable_->try_map(range);
    if (!known) {
      extent mapped = co_await map(range);
      known = mapped;
    }
    const extent& e = *known;
    const u64 length = e.kind == extent_kind::end ? bytes.size() : std::min(e.length, range.length);
    BGFS_ASSERT(length > 0, "M5: a mapping makes progress");
    const auto part = bytes.first(length);
    bytes = bytes.subspan(length);
    if (e.kind == extent_kind::zero || e.kind == extent_kind::end) {
      std::memset(part.data(), 0, part.size());
    } else if (parts.empty() && bytes.empty()) { // the usual case: it lies in one place
      co_await read_part(e, offset, part);
    } else {
      parts.push_back(read_part(e, offset, part));
    }
    offset += length;
    if (parts.size() == read_parts_max || (bytes.empty() && !parts.empty()))
      co_await when_all(std::exchange(parts, {}));
  }
}

// What this layer does not hold: the backing's bytes, and zeroes past its end.
task<void> node::read_backing(u64 offset, std::span<std::byte> bytes) {
  const u64 backing_length = backing_ != nullptr ? backing_->length() : 0;
  if (offset >= backing_length) {
    std::memset(bytes.data(), 0, bytes.size());
    co_return;
  }
  const u64 below = std::min<u64>(bytes.size(), backing_length - offset);
  std::memset(bytes.data() + below, 0, bytes.size() - below);
  co_await backing_->read(offset, bytes.first(below));
}

} // namespace bgfs
