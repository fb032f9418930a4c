// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/metadata_store.h"

#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs::qcow2 {

namespace {

// Changed pages that lie side by side go in one write, up to this length; so many writes at once.
constexpr u64 write_back_length_max = 256 * KiB;
constexpr std::size_t write_back_count_max = 8;

metadata_kinds kind_on_disk(table_kind kind) {
  // Whether a table that a snapshot has, too, is the active one's, decides only who may change it.
  return kind == table_kind::l2_slice ? metadata_kind::active_l2 | metadata_kind::inactive_l2
                                      : metadata_kind::refcount_block;
}

debug_event event_of_load(table_kind kind) {
  return kind == table_kind::l2_slice ? debug_event::l2_load : debug_event::refblock_load;
}

debug_event event_of_update(table_kind kind) {
  return kind == table_kind::l2_slice ? debug_event::l2_update : debug_event::refblock_update_part;
}

} // namespace

metadata_store::metadata_store(host_file& file, std::unique_ptr<metadata_region> region)
    : file_(file), region_(std::move(region)), l2_(*region_, table_kind::l2_slice),
      refcounts_(*region_, table_kind::refcount_block) {}

std::optional<std::span<const std::byte>> metadata_store::cached_l2(host_offset at) {
  const auto page = l2_.find(at);
  if (!page || l2_.state(*page) == page_state::loading)
    return std::nullopt;
  l2_.touch(*page);
  return l2_.bytes(*page);
}

task<std::span<std::byte>> metadata_store::load_l2(host_offset at, metadata_lock holds) {
  std::span<std::byte> bytes = co_await load(l2_, at, holds);
  co_return bytes;
}

task<std::span<std::byte>> metadata_store::load_refcounts(host_offset block) {
  BGFS_ASSERT(lock_.is_locked(), "Q5: refcounts are used with the lock held");
  std::span<std::byte> bytes = co_await load(refcounts_, block, metadata_lock::held);
  co_return bytes;
}

task<std::span<std::byte>> metadata_store::load(table_cache& cache, host_offset at,
                                                metadata_lock holds) {
  for (;;) {
    if (const auto found = cache.find(at)) {
      if (cache.state(*found) != page_state::loading) {
        cache.touch(*found);
        co_return cache.bytes(*found);
      }
      co_await load_ended_.wait();
      continue;
    }
    const auto claimed = cache.claim();
    if (!claimed) {
      co_await make_room(cache, holds);
      continue;
    }
    const bool is_filled = co_await fill(cache, *claimed, at);
    if (is_filled)
      co_return cache.bytes(*claimed);
  }
}

task<void> metadata_store::read_page(table_cache& cache, u32 page, host_offset at) {
  if (file_.tells())
    co_await file_.tell(event_of_load(cache.kind()));
  co_await file_.read_structure(at, cache.bytes(page), to_string(cache.kind()));
}

// False if the part was forgotten while it was read.
task<bool> metadata_store::fill(table_cache& cache, u32 page, host_offset at) {
  cache.bind(page, at, page_state::loading);
  result<> read = co_await as_result(read_page(cache, page, at));
  load_ended_.wake_all();
  const bool is_kept = cache.is_bound(page, at);
  if (!is_kept) {
    cache.abandon(page);
  } else if (read) {
    cache.set_clean(page);
  } else {
    cache.drop(page);
  }
  co_await std::move(read);
  co_return is_kept;
}

task<void> metadata_store::prefetch_l2(host_offset at) {
  if (l2_.find(at) || at.value + slice_bytes() > file_.length())
    co_return;
  if (const auto page = l2_.claim())
    (void)co_await as_result(fill(l2_, *page, at));
}

// Every page is dirty or being loaded. Writing all dirty ones costs one flush, as one would.
task<void> metadata_store::make_room(table_cache& cache, metadata_lock holds) {
  if (cache.dirty_count() == 0) {
    co_await load_ended_.wait();
    co_return;
  }
  async_mutex::guard guard;
  if (holds == metadata_lock::not_held) {
    async_mutex::guard taken = co_await lock_.lock();
    guard = std::move(taken);
  }
  if (cache.kind() == table_kind::l2_slice) {
    co_await shielded(write_tables(!is_lazy_));
  } else {
    co_await shielded(write_pages(refcounts_)); // relies on nothing: R1 is about the other side
  }
}

void metadata_store::mark_changed(table_cache& cache, host_offset at) {
  BGFS_ASSERT(lock_.is_locked(), "Q5: metadata changes with the lock held");
  const auto page = cache.find(at);
  BGFS_ASSERT(page.has_value(), "Q5: a changed page was loaded without an await in between");
  cache.set_dirty(*page);
}

void metadata_store::l2_changed(host_offset at) {
  mark_changed(l2_, at);
}

void metadata_store::refcounts_changed(host_offset block) {
  mark_changed(refcounts_, block);
  needs_flush();
}

void metadata_store::refcounts_lowered(host_offset block) {
  mark_changed(refcounts_, block);
}

void metadata_store::forget(byte_range host) {
  l2_.forget(host);
  refcounts_.forget(host);
}

namespace {

// How the pages, which are sorted by place, fall into pieces of one write each.
std::vector<std::vector<u32>> adjacent_pages(const table_cache& cache, std::vector<u32> pages) {
  const u64 step = cache.page_bytes();
  std::vector<std::vector<u32>> pieces;
  for (const u32 page : pages) {
    const bool continues = !pieces.empty() &&
                           cache.place(pieces.back().back()) + step == cache.place(page) &&
                           (pieces.back().size() + 1) * step <= write_back_length_max;
    if (!continues)
      pieces.emplace_back();
    pieces.back().push_back(page);
  }
  return pieces;
}

} // namespace

// Pages in no particular order, and adjacent ones in one request. If we stop here, the disk has any
// of their sectors and not the others, as it would if each page had a request of its own: between
// two flushes nothing is ordered, and no request is atomic beyond a sector. That is safe because an
// L2 entry or a count lies within one sector, and none relies on another of the same cache: what
// relies on what is between the caches, and there a flush keeps the order (R1 to R3).
task<void> metadata_store::write_pages(table_cache& cache) {
  const std::vector<std::vector<u32>> pieces = adjacent_pages(cache, cache.dirty_pages());
  if (pieces.size() == 1) {
    co_await write_adjacent(cache, pieces.front());
    co_return;
  }
  const task_context here = co_await current_context();
  for (std::size_t i = 0; i < pieces.size(); i += write_back_count_max) {
    const std::size_t end = std::min(pieces.size(), i + write_back_count_max);
    task_group group(*here.home);
    for (std::size_t k = i; k < end; k++)
      group.spawn(write_adjacent(cache, pieces[k]));
    co_await group.join(); // the others have ended when the first failure is reported
  }
}

// Pages change only with the lock held, which write_pages has until all of them have ended: what is
// written is what is marked clean. If the write fails, all of its pages stay dirty.
task<void> metadata_store::write_adjacent(table_cache& cache, std::vector<u32> pages) {
  const host_offset at = cache.place(pages.front());
  const metadata_kinds kind = kind_on_disk(cache.kind());
  if (file_.tells())
    co_await file_.tell(event_of_update(cache.kind()));
  if (pages.size() == 1) {
    co_await file_.write_structure(at, cache.bytes(pages.front()), kind);
  } else {
    const task_context here = co_await current_context();
    const buffer joined = here.home->buffers().allocate(pages.size() * cache.page_bytes());
    for (std::size_t i = 0; i < pages.size(); i++)
      std::ranges::copy(cache.bytes(pages[i]), joined.data() + i * cache.page_bytes());
    co_await file_.write_structure(at, joined.bytes(), kind);
  }
  for (const u32 page : pages)
    cache.set_clean(page);
}

task<void> metadata_store::write_refcounts() {
  BGFS_ASSERT(lock_.is_locked(), "Q5: metadata is written with the lock held");
  co_await write_pages(refcounts_);
}

task<void> metadata_store::write_tables(bool writes_refcounts) {
  BGFS_ASSERT(lock_.is_locked(), "Q5: metadata is written with the lock held");
  // If we stop here, nothing refers to the new clusters yet.
  if (writes_refcounts)
    co_await write_pages(refcounts_);
  if (l2_.dirty_count() == 0)
    co_return;
  // If we stop before the flush, the refcounts count clusters that nothing uses: a leak. After it,
  // every cluster that an L2 page may mention is counted and holds its data.
  co_await flush_file();
  co_await write_pages(l2_);
}

task<void> metadata_store::flush_file() {
  if (region_->header().needs_flush_before_l2 == 0)
    co_return;
  co_await file_.flush();
  region_->header().needs_flush_before_l2 = 0;
}

void metadata_store::drop_unused() {
  l2_.drop_unused();
  refcounts_.drop_unused();
}

void metadata_store::use_region(std::unique_ptr<metadata_region> region) noexcept {
  BGFS_ASSERT(!has_changes(), "Q2: dirty pages are written before they are given up");
  l2_ = table_cache(*region, table_kind::l2_slice);
  refcounts_ = table_cache(*region, table_kind::refcount_block);
  region_ = std::move(region);
}

bool metadata_store::has_changes() const {
  return l2_.dirty_count() != 0 || refcounts_.dirty_count() != 0;
}

} // namespace bgfs::qcow2
