// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/table_cache.h"

#include "graph/base/assert.h"

#include <algorithm>

namespace bgfs::qcow2 {

std::size_t table_cache::bucket(host_offset at) const {
  // Pages are aligned to their size; multiplication spreads what is left over the high bits.
  const u64 mixed = (at.value / page_bytes()) * 0x9e3779b97f4a7c15;
  return (mixed >> 32) & (buckets_.size() - 1);
}

std::optional<u32> table_cache::find(host_offset at) const {
  for (u32 page = buckets_[bucket(at)]; page != none; page = next_[page])
    if (of(page).host_offset == at.value)
      return page;
  return std::nullopt;
}

void table_cache::link(u32 page) {
  u32& head = buckets_[bucket(place(page))];
  next_[page] = head;
  head = page;
  bound_count_++;
  if (bound_count_ > buckets_.size())
    rehash();
}

void table_cache::unlink(u32 page) {
  u32* link = &buckets_[bucket(place(page))];
  while (*link != page) {
    BGFS_ASSERT(*link != none, "Q3: a bound page is in the index");
    link = &next_[*link];
  }
  *link = next_[page];
  bound_count_--;
}

void table_cache::rehash() {
  std::vector<u32> bound;
  for (const u32 head : buckets_)
    for (u32 page = head; page != none; page = next_[page])
      bound.push_back(page);
  buckets_.assign(buckets_.size() * 2, none);
  for (const u32 page : bound) {
    u32& head = buckets_[bucket(place(page))];
    next_[page] = head;
    head = page;
  }
}

std::optional<u32> table_cache::claim() {
  if (!free_.empty()) {
    const u32 page = free_.back();
    free_.pop_back();
    return page;
  }
  cache_layout& layout = region_->layout(kind_);
  if (layout.used_count < layout.page_count) {
    const u32 page = static_cast<u32>(layout.used_count++);
    next_.push_back(none);
    of(page).kind = kind_;
    return page;
  }
  return evict();
}

// The clock: a page used since the hand last passed gets another round.
std::optional<u32> table_cache::evict() {
  if (dirty_count_ + loading_count_ == bound_count_)
    return std::nullopt;
  const u64 count = region_->layout(kind_).used_count;
  for (u64 step = 0; step <= 2 * count; step++) {
    const u32 page = hand_;
    hand_ = static_cast<u32>((hand_ + 1) % count);
    page_descriptor& d = of(page);
    if (d.state != page_state::clean)
      continue;
    if (d.was_used != 0) {
      d.was_used = 0;
      continue;
    }
    unlink(page);
    d.state = page_state::empty;
    return page;
  }
  return std::nullopt;
}

void table_cache::bind(u32 page, host_offset at, page_state state) {
  page_descriptor& d = of(page);
  BGFS_ASSERT(d.state == page_state::empty, "Q3: a page has one identity");
  BGFS_ASSERT(!find(at), "Q3: a table part has one page");
  d.host_offset = at.value;
  d.state = state;
  d.was_used = 1;
  d.generation = ++region_->header().generation;
  if (state == page_state::loading)
    loading_count_++;
  if (state == page_state::dirty)
    dirty_count_++;
  link(page);
}

void table_cache::set_clean(u32 page) {
  page_descriptor& d = of(page);
  if (d.state == page_state::loading)
    loading_count_--;
  if (d.state == page_state::dirty)
    dirty_count_--;
  d.state = page_state::clean;
}

void table_cache::set_dirty(u32 page) {
  page_descriptor& d = of(page);
  BGFS_ASSERT(d.state == page_state::clean || d.state == page_state::dirty,
              "Q2: only a valid page is changed");
  if (d.state == page_state::clean)
    dirty_count_++;
  d.state = page_state::dirty;
  d.was_used = 1;
  d.generation = ++region_->header().generation;
}

void table_cache::drop(u32 page) {
  set_clean(page);
  unlink(page);
  page_descriptor& d = of(page);
  d.state = page_state::empty;
  free_.push_back(page);
}

void table_cache::forget(byte_range host) {
  for (u64 at = host.offset; at < host.end(); at += page_bytes()) {
    const auto page = find(host_offset(at));
    if (!page)
      continue;
    if (state(*page) != page_state::loading) {
      drop(*page);
      continue;
    }
    // Its loader is still writing into it: take the identity away, leave the page alone.
    unlink(*page);
    loading_count_--;
    of(*page).host_offset = ~u64{0};
    of(*page).state = page_state::loading;
  }
}

void table_cache::abandon(u32 page) {
  BGFS_ASSERT(of(page).host_offset == ~u64{0}, "Q3: only a forgotten page is abandoned");
  of(page).state = page_state::empty;
  free_.push_back(page);
}

bool table_cache::is_bound(u32 page, host_offset at) const {
  return of(page).state != page_state::empty && of(page).host_offset == at.value;
}

void table_cache::drop_unused() {
  const u64 count = region_->layout(kind_).used_count;
  for (u32 page = 0; page < count; page++) {
    page_descriptor& d = of(page);
    if (d.state != page_state::clean)
      continue;
    if (d.was_used != 0) {
      d.was_used = 0;
      continue;
    }
    drop(page);
    region_->release_page(kind_, page);
  }
}

std::vector<u32> table_cache::dirty_pages() const {
  std::vector<u32> pages;
  if (dirty_count_ == 0)
    return pages;
  pages.reserve(dirty_count_);
  const u64 count = region_->layout(kind_).used_count;
  for (u32 page = 0; page < count; page++)
    if (of(page).state == page_state::dirty)
      pages.push_back(page);
  std::ranges::sort(pages, {}, [&](u32 page) { return of(page).host_offset; });
  return pages;
}

} // namespace bgfs::qcow2
