// SPDX-License-Identifier: MIT
#include "graph/model/dirty_bitmap.h"

#include "graph/base/assert.h"
#include "graph/base/checked.h"
#include "graph/model/snapshot.h"

#include <algorithm>
#include <bit>

namespace bgfs {

namespace {

u64 granules(u64 length, u64 granularity) {
  return divide_up(length, granularity);
}

} // namespace

dirty_bitmap::dirty_bitmap(bitmap_definition definition, u64 length, origin from)
    : definition_(std::move(definition)), length_(length),
      bits_(is_inconsistent() ? 0 : granules(length, definition_.granularity)),
      is_complete_(from == origin::added), has_changed_(from == origin::added),
      stored_count_(from == origin::added ? 0 : bits_.count()) {}

u64 dirty_bitmap::dirty_bytes() const {
  u64 bytes = bits_.set_count() * granularity();
  const u64 beyond = bits_.count() * granularity() - length_;
  if (beyond != 0 && bits_.test(bits_.count() - 1))
    bytes -= beyond;
  return bytes;
}

std::optional<byte_range> dirty_bitmap::next_dirty(u64 from) const {
  if (from >= length_)
    return std::nullopt;
  const std::optional<u64> first = bits_.next_set(from / granularity());
  if (!first)
    return std::nullopt;
  const u64 end = bits_.next_clear(*first).value_or(bits_.count());
  return byte_range::between(std::max(from, *first * granularity()),
                             std::min(end * granularity(), length_));
}

void dirty_bitmap::mark(byte_range touched) {
  if (touched.is_empty() || is_inconsistent())
    return;
  const u64 shift = static_cast<u64>(std::countr_zero(granularity()));
  const u64 first = touched.offset >> shift;
  const u64 end = std::min(((touched.end() - 1) >> shift) + 1, bits_.count());
  // What lies behind the end has no bit: such a request has failed, and changed nothing there.
  if (first < end && bits_.set(first, end - first) != 0)
    has_changed_ = true;
}

void dirty_bitmap::clear() {
  bits_.reset_all();
  is_complete_ = true;
  has_changed_ = true;
}

void dirty_bitmap::set_enabled(bool is_enabled) {
  definition_.is_enabled = is_enabled;
}

void dirty_bitmap::merge(const dirty_bitmap& source) {
  BGFS_ASSERT(source.length_ == length_ && source.is_complete_ && is_complete_);
  if (source.granularity() == granularity()) {
    if (bits_.merge(source.bits_) != 0)
      has_changed_ = true;
    return;
  }
  for (std::optional<byte_range> run = source.next_dirty(0); run;
       run = source.next_dirty(run->end()))
    mark(*run);
}

void dirty_bitmap::resize(u64 length) {
  if (length == length_)
    return;
  length_ = length;
  if (is_inconsistent())
    return;
  if (const result<> fits = check_bitmap_size(length, granularity()); !fits) {
    become_inconsistent(fits.error().message());
    return;
  }
  bits_.resize(granules(length, granularity()));
  stored_count_ = std::min(stored_count_, bits_.count());
  has_changed_ = true;
}

// It could not follow, and would miss what is written from now on.
void dirty_bitmap::become_inconsistent(std::string why) {
  definition_.inconsistency = std::move(why);
  bits_ = dirty_bits();
  is_complete_ = true;
}

void dirty_bitmap::add_stored(u64 first, std::span<const std::byte> bytes) {
  if (is_complete_ || first >= stored_count_)
    return;
  const u64 left = divide_up(stored_count_ - first, 8);
  const auto part = bytes.first(std::min<u64>(bytes.size(), left));
  const u64 end = first + part.size() * 8;
  if (end <= stored_count_) {
    bits_.merge_bytes(first, part);
    return;
  }
  bits_.merge_bytes(first, part.first(part.size() - 1));
  const auto last = static_cast<std::byte>(std::to_integer<unsigned>(part.back()) &
                                           ((1U << (8 - (end - stored_count_))) - 1));
  bits_.merge_bytes(end - 8, std::span(&last, 1));
}

void dirty_bitmap::add_stored_run(u64 first, u64 count) {
  if (is_complete_ || first >= stored_count_)
    return;
  bits_.set(first, std::min(count, stored_count_ - first));
}

dirty_bitmap::content dirty_bitmap::save() const {
  return {bits_, is_complete_, has_changed_, is_enabled(), stored_count_};
}

void dirty_bitmap::restore(content before) {
  bits_ = std::move(before.bits);
  is_complete_ = before.is_complete;
  has_changed_ = before.has_changed;
  definition_.is_enabled = before.is_enabled;
  stored_count_ = before.stored_count;
}

void bitmap_list::mark(byte_range touched) {
  for (const auto& b : all_)
    if (b->is_recording())
      b->mark(touched);
}

const dirty_bitmap* bitmap_list::first_recording() const {
  for (const auto& b : all_)
    if (b->is_recording())
      return b.get();
  return nullptr;
}

dirty_bitmap* bitmap_list::find(std::string_view name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : at->second;
}

// An image may have tens of thousands.
dirty_bitmap& bitmap_list::add(std::unique_ptr<dirty_bitmap> made) {
  dirty_bitmap& added = *made;
  const bool is_new = by_name_.emplace(added.name(), &added).second;
  BGFS_ASSERT(is_new, "bitmaps of a node have names of their own");
  all_.push_back(std::move(made));
  recording_ += added.is_recording() ? 1 : 0;
  version_++;
  return added;
}

std::unique_ptr<dirty_bitmap> bitmap_list::take(const dirty_bitmap& which) {
  const auto at = std::ranges::find(all_, &which, &std::unique_ptr<dirty_bitmap>::get);
  BGFS_ASSERT(at != all_.end(), "what is taken is there");
  std::unique_ptr<dirty_bitmap> taken = std::move(*at);
  all_.erase(at);
  by_name_.erase(taken->name());
  version_++;
  refresh();
  return taken;
}

void bitmap_list::resize(u64 length) {
  for (const auto& b : all_)
    b->resize(length);
  refresh();
}

void bitmap_list::refresh() {
  recording_ = static_cast<unsigned>(
      std::ranges::count_if(all_, [](const auto& b) { return b->is_recording(); }));
}

void bitmap_list::drop_persistent() {
  for (const auto& b : all_)
    if (b->is_persistent())
      by_name_.erase(b->name());
  std::erase_if(all_, [](const auto& b) { return b->is_persistent(); });
  version_++;
  refresh();
}

u64 default_bitmap_granularity(u64 cluster_size) {
  constexpr u64 least = 4 * KiB;
  constexpr u64 most = 64 * KiB;
  return cluster_size == 0 ? most : std::clamp(std::bit_floor(cluster_size), least, most);
}

result<> check_bitmap_granularity(u64 granularity) {
  if (std::has_single_bit(granularity) && granularity >= bitmap_granularity_min &&
      granularity <= bitmap_granularity_max)
    return {};
  return fail(error_kind::invalid_argument,
              "the granularity of a bitmap is a power of two from {} to {} bytes, not {}",
              bitmap_granularity_min, bitmap_granularity_max, granularity);
}

result<> check_bitmap_size(u64 length, u64 granularity) {
  const u64 bytes = divide_up(granules(length, granularity), 8);
  if (bytes <= bitmap_memory_max)
    return {};
  return fail(error_kind::out_of_range,
              "a bitmap of {} bytes with a granularity of {} takes {} bytes of memory, more than "
              "{}; use a granularity of at least {}",
              length, granularity, bytes, bitmap_memory_max,
              std::bit_ceil(divide_up(length, bitmap_memory_max * 8)));
}

result<> check_bitmap_name(std::string_view name) {
  return check_new_name("bitmap", name);
}

} // namespace bgfs
