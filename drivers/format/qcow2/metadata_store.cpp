// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/metadata_store.h"

#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

namespace {

metadata_kinds kind_on_disk(table_kind kind) {
  return kind == table_kind::l2_slice ? metadata_kind::active_l2 : metadata_kind::refcount_block;
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
    const u32 page = *claimed;
    cache.bind(page, at, page_state::loading);
    result<> read =
        co_await as_result(file_.read_structure(at, cache.bytes(page), to_string(cache.kind())));
    load_ended_.wake_all();
    if (!cache.is_bound(page, at)) { // forgotten while it was read
      cache.abandon(page);
      if (!read)
        co_await fail(std::move(read).error());
      continue;
    }
    if (!read) {
      cache.drop(page);
      co_await fail(std::move(read).error());
    }
    cache.set_clean(page);
    co_return cache.bytes(page);
  }
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

task<void> metadata_store::write_pages(table_cache& cache) {
  // Pages change only with the lock held, which we have: what is written is what is marked clean.
  for (const u32 page : cache.dirty_pages()) {
    const host_offset at = cache.place(page);
    co_await file_.write_structure(at, cache.bytes(page), kind_on_disk(cache.kind()));
    cache.set_clean(page);
  }
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
