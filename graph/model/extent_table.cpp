// SPDX-License-Identifier: MIT
#include "graph/model/extent_table.h"

#include <algorithm>
#include <sys/mman.h>

namespace bgfs {
namespace {

constexpr unsigned length_shift = 32;
constexpr unsigned path_shift = 16;
constexpr u64 zero_bit = 2;
constexpr u64 write_bit = 1;

u64 load(u64& of, std::memory_order order = std::memory_order_acquire) {
  return std::atomic_ref(of).load(order);
}
void store_word(u64& of, u64 what, std::memory_order order = std::memory_order_release) {
  std::atomic_ref(of).store(what, order);
}

unsigned cut(unsigned granule_bits) {
  return std::clamp(granule_bits, extent_table::granule_bits_min, extent_table::granule_bits_max);
}

} // namespace

extent_table::extent_table(unsigned granule_bits)
    : granule_bits_(cut(granule_bits)), used_pages_(slot_count / slots_per_page) {
  void* const memory = mmap(nullptr, slot_count * sizeof(slot), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory != MAP_FAILED)
    slots_ = static_cast<slot*>(memory);
}

extent_table::~extent_table() {
  if (slots_ != nullptr)
    munmap(slots_, slot_count * sizeof(slot));
}

std::optional<resolved_extent> extent_table::find(u64 offset) const {
  if (slots_ == nullptr)
    return std::nullopt;
  slot& s = *slot_of(offset);
  // With the home's store of the version (clear), and its look at who is there afterwards, this
  // decides who came first: all four are sequentially consistent.
  const u64 version = load(s.version, std::memory_order_seq_cst);
  const u64 guest_offset = load(s.guest_offset);
  const u64 what = load(s.what);
  const u64 host_offset = load(s.offset);
  const u64 length = what >> length_shift;
  if (version % 2 != 0 || offset < guest_offset || offset - guest_offset >= length ||
      load(s.version) != version)
    return std::nullopt;
  return resolved_extent{.guest = {guest_offset, length},
                         .is_zero = (what & zero_bit) != 0,
                         .may_write = (what & write_bit) != 0,
                         .path = static_cast<u16>(what >> path_shift),
                         .offset = host_offset};
}

void extent_table::put(resolved_extent e, u64 offset) {
  if (slots_ == nullptr)
    return;
  const u64 granule_begin = align_down(offset, granule());
  const byte_range part = e.guest.intersection({granule_begin, granule()});
  if (part.is_empty())
    return;
  if (!e.is_zero)
    e.offset += part.offset - e.guest.offset;
  e.guest = part;
  slot& s = *slot_of(offset);
  used_pages_[static_cast<std::size_t>(&s - slots_) / slots_per_page] = true;
  store(s, e);
}

void extent_table::store(slot& s, const resolved_extent& e) {
  const u64 version = s.version; // only the home changes it
  store_word(s.version, version + 1, std::memory_order_seq_cst);
  store_word(s.guest_offset, e.guest.offset);
  store_word(s.what, e.guest.length << length_shift | u64{e.path} << path_shift |
                         (e.is_zero ? zero_bit : 0) | (e.may_write ? write_bit : 0));
  store_word(s.offset, e.offset);
  store_word(s.version, version + 2, std::memory_order_seq_cst);
}

void extent_table::clear(slot& s) {
  if (s.what != 0)
    store(s, {});
}

void extent_table::retire(byte_range guest) {
  if (slots_ == nullptr || guest.is_empty())
    return;
  const u64 first = guest.offset >> granule_bits_;
  const u64 last = (guest.end() - 1) >> granule_bits_;
  if (last - first >= slot_count) {
    retire_all();
    return;
  }
  for (u64 at = first; at <= last; at++) {
    slot& s = slots_[at & (slot_count - 1)];
    if (s.what == 0)
      continue;
    const byte_range held{s.guest_offset, s.what >> length_shift};
    if (held.overlaps(guest))
      clear(s);
  }
}

void extent_table::retire_all() {
  for (std::size_t page = 0; page < used_pages_.size(); page++) {
    if (!used_pages_[page])
      continue;
    for (u64 i = 0; i < slots_per_page; i++)
      clear(slots_[page * slots_per_page + i]);
    used_pages_[page] = false;
  }
}

void extent_table::reset(unsigned granule_bits) {
  retire_all();
  granule_bits_ = cut(granule_bits);
  if (slots_ != nullptr) // given back; it reads as zeroes afterwards
    (void)madvise(slots_, slot_count * sizeof(slot), MADV_DONTNEED);
}

} // namespace bgfs
