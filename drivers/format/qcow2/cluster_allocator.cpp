// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/cluster_allocator.h"

#include "drivers/format/qcow2/l2_entry.h"
#include "drivers/format/qcow2/refcount_block.h"

namespace bgfs::qcow2 {

namespace {

constexpr u64 refcount_offset_mask = ~u64{0x1ff};
// More than this and the next allocation writes back first, rather than growing the file.
constexpr u64 waiting_bytes_max = 256 * MiB;
constexpr std::size_t waiting_runs_max = 16384;

} // namespace

cluster_allocator::cluster_allocator(host_file& file, metadata_store& store, header& h,
                                     discard_policy policy)
    : file_(file), store_(store), header_(h), policy_(policy) {}

task<void> cluster_allocator::load_table() {
  const geometry& g = header_.g;
  std::vector<std::byte> bytes(u64{header_.refcount_table_clusters} << g.cluster_bits);
  if (file_.tells())
    co_await file_.tell(debug_event::reftable_load);
  co_await file_.read_structure(header_.refcount_table, bytes, "the refcount table");
  table_.resize(bytes.size() / 8);
  for (u64 i = 0; i < table_.size(); i++) {
    const u64 entry = load<be64>(bytes, i * 8);
    const u64 block = entry & refcount_offset_mask;
    table_.set(i, block);
    if (!is_aligned(block, g.cluster()))
      co_await file_.corrupt(fmt::format("refcount block {} at {:#x} is not aligned to the cluster "
                                         "size {:#x}",
                                         i, block, g.cluster()));
  }
  fresh_from_ = divide_up(file_.length(), g.cluster());
}

void cluster_allocator::add_metadata(overlap_map& known) const {
  known.add(metadata_kind::refcount_table, {header_.refcount_table.value, table_.size() * 8});
  table_.for_each([&](u64, u64 block) {
    known.add(metadata_kind::refcount_block, {block, header_.g.cluster()});
  });
}

task<std::span<std::byte>> cluster_allocator::load_block(u64 block) {
  std::span<std::byte> bytes = co_await store_.load_refcounts(host_offset(table_[block]));
  co_return bytes;
}

task<u64> cluster_allocator::refcount(u64 cluster) {
  const u64 block = cluster / entries();
  if (block >= table_.size() || table_[block] == 0)
    co_return 0;
  const std::span<std::byte> bytes = co_await load_block(block);
  co_return load_refcount(bytes, header_.g.refcount_order, cluster % entries());
}

// The first run of at least `least` free clusters from `from` on; `most` of them at most.
task<cluster_run> cluster_allocator::find_free(u64 from, u64 least, u64 most) {
  cluster_run run{from, 0};
  while (run.count < most) {
    const u64 block = run.end() / entries();
    if (block >= table_.size()) { // nothing there is counted, so nothing is used
      run.count = most;
      break;
    }
    const u64 index = run.end() % entries();
    if (table_[block] == 0) {
      run.count = std::min(most, run.count + entries() - index);
      continue;
    }
    const std::span<std::byte> bytes = co_await load_block(block);
    u64 at = index;
    while (at < entries() && run.count < most) {
      if (load_refcount(bytes, header_.g.refcount_order, at) == 0) {
        run.count++;
      } else if (run.count >= least) {
        co_return run;
      } else {
        run = {block * entries() + at + 1, 0};
      }
      at++;
    }
  }
  co_return run;
}

task<bool> cluster_allocator::ensure_blocks(cluster_run run) {
  for (u64 block = run.first / entries(); block <= (run.end() - 1) / entries(); block++) {
    if (block >= table_.size()) {
      co_await context(grow_table((run.end() - 1) / entries() + 1), "growing the refcount table");
      co_return false;
    }
    if (table_[block] != 0)
      continue;
    // Its place is the first cluster of the run, so that the rest stays in one piece. If that is
    // one of those the new block counts, the block describes itself.
    co_await context(create_block(block, run.first), "making refcount block {}", block);
    co_return false;
  }
  co_return true;
}

task<void> cluster_allocator::create_block(u64 block, u64 cluster) {
  if (file_.tells())
    co_await file_.tell(debug_event::refblock_alloc);
  const bool is_own = cluster / entries() == block;
  co_await file_.check_room((cluster + 1) << header_.g.cluster_bits);
  if (!is_own)
    co_await raise({cluster, 1});
  bool is_unknown = false;
  result<> written = co_await as_result(write_block(block, cluster, is_own, is_unknown));
  if (written) {
    fresh_from_ = std::max(fresh_from_, cluster + 1);
    co_return;
  }
  // If the table entry itself failed, the disk may refer to the block: it must not be reused.
  if (!is_own && !is_unknown && !file_.is_stopped())
    (void)co_await as_result(free_unlinked({cluster, 1}));
  co_await fail(std::move(written).error());
}

task<void> cluster_allocator::write_block(u64 block, u64 cluster, bool is_own, bool& is_unknown) {
  const geometry& g = header_.g;
  const host_offset at(cluster << g.cluster_bits);
  std::vector<std::byte> bytes(g.cluster());
  if (is_own)
    store_refcount(bytes, g.refcount_order, cluster % entries(), 1);
  store_.forget({at.value, g.cluster()});
  if (file_.tells()) {
    co_await file_.tell(debug_event::refblock_alloc_write);
    co_await file_.tell(debug_event::refblock_update_part); // as of every block
  }
  co_await file_.write_structure(at, bytes, metadata_kind::refcount_block);
  if (!is_own)
    co_await store_.write_refcounts();
  // If we stop here, the cluster holds a block that nothing refers to. The flush comes before the
  // table entry, or the entry might survive a crash and the block not: all its counts would be
  // whatever was there before.
  co_await file_.flush();
  std::array<std::byte, 8> entry;
  store(std::span<std::byte>(entry), be64(at.value));
  if (file_.tells())
    co_await file_.tell(debug_event::refblock_alloc_hookup);
  is_unknown = true;
  co_await file_.write_structure(header_.refcount_table + block * 8, entry,
                                 metadata_kind::refcount_table);
  // The entry is durable before anything relies on its counts: see R1 in metadata_store.h.
  store_.needs_flush();
  table_.set(block, at.value);
  file_.overlaps().add(metadata_kind::refcount_block, {at.value, g.cluster()});
}

// R7. The new table lies behind everything the old one could describe, together with the blocks
// that describe that place.
task<void> cluster_allocator::grow_table(u64 entries_least) {
  if (file_.tells())
    co_await file_.tell(debug_event::reftable_grow);
  const geometry& g = header_.g;
  const u64 first = table_.size() * entries();
  const u64 per_cluster = g.cluster() / 8;
  u64 size = std::max<u64>(entries_least, table_.size() + table_.size() / 2);
  u64 table_clusters = 0;
  u64 blocks = 1;
  for (;;) {
    table_clusters = divide_up(size, per_cluster);
    blocks = divide_up(blocks + table_clusters, entries());
    if (blocks * entries() < blocks + table_clusters)
      continue;
    if (table_.size() + blocks <= size)
      break;
    size = table_.size() + blocks;
  }
  size = table_clusters * per_cluster;
  if (table_clusters << g.cluster_bits > refcount_table_bytes_max)
    co_await fail(error_kind::no_space,
                  "the refcount table would be larger than {:#x} bytes: the image cannot describe "
                  "a file longer than {:#x} bytes; use larger clusters",
                  refcount_table_bytes_max, first << g.cluster_bits);

  const host_offset blocks_at(first << g.cluster_bits);
  const host_offset table_at = blocks_at + (blocks << g.cluster_bits);
  refcount_table table = table_;
  table.resize(size);
  std::vector<std::byte> bytes(blocks << g.cluster_bits);
  for (u64 c = 0; c < blocks + table_clusters; c++)
    store_refcount(std::span(bytes).subspan((c / entries()) << g.cluster_bits, g.cluster()),
                   g.refcount_order, c % entries(), 1);
  for (u64 i = 0; i < blocks; i++)
    table.set(table_.size() + i, blocks_at.value + (i << g.cluster_bits));
  std::vector<std::byte> table_bytes(size * 8);
  for (u64 i = 0; i < size; i++)
    store(std::span(table_bytes), be64(table[i]), i * 8);
  const byte_range blocks_range{blocks_at.value, bytes.size()};
  store_.forget({blocks_at.value, bytes.size() + table_bytes.size()});
  if (file_.tells())
    co_await file_.tell(debug_event::refblock_alloc_write_blocks);
  co_await file_.write_structure(blocks_at, bytes, metadata_kind::refcount_block);
  if (file_.tells())
    co_await file_.tell(debug_event::refblock_alloc_write_table);
  co_await file_.write_structure(table_at, table_bytes, metadata_kind::refcount_table);
  // If we stop here, the old table is in force and does not know of the new one.
  co_await file_.flush();
  refcount_table_location_wire location;
  location.refcount_table_offset = table_at.value;
  location.refcount_table_clusters = static_cast<u32>(table_clusters);
  std::array<std::byte, sizeof location> field;
  store(std::span<std::byte>(field), location);
  const refcount_table_location_wire before{header_.refcount_table.value,
                                            header_.refcount_table_clusters};
  std::array<std::byte, sizeof before> old_field;
  store(std::span<std::byte>(old_field), before);
  if (file_.tells())
    co_await file_.tell(debug_event::refblock_alloc_switch_table);
  // If we stop at this, either table is in force, and both describe all that is used.
  co_await file_.write_location(header_at::refcount_table_offset, field, old_field);
  const cluster_run old{header_.refcount_table.value >> g.cluster_bits,
                        header_.refcount_table_clusters};
  table_ = std::move(table);
  header_.refcount_table = table_at;
  header_.refcount_table_clusters = static_cast<u32>(table_clusters);
  auto& overlaps = file_.overlaps();
  overlaps.remove(metadata_kind::refcount_table, old.bytes(g));
  overlaps.add(metadata_kind::refcount_table, {table_at.value, table_bytes.size()});
  overlaps.add(metadata_kind::refcount_block, blocks_range);
  fresh_from_ = std::max(fresh_from_, first + blocks + table_clusters);
  free_later(old, free_reason::other);
}

// What is about to be handed out must not be known to hold anything.
task<void> cluster_allocator::check_allocated(cluster_run run) {
  if (run.end() > host_end_max >> header_.g.cluster_bits)
    co_await fail(error_kind::no_space,
                  "the image cannot use host offsets from {:#x} on; its file is full",
                  host_end_max);
  if (run.first == 0)
    co_await file_.corrupt("the refcount of cluster 0, which holds the header, is 0");
  if (const auto hit = file_.overlaps().find(run.bytes(header_.g), metadata_kind::none))
    co_await file_.corrupt(fmt::format("the refcount of cluster {:#x}, which holds {}, is 0",
                                       hit->cluster.value >> header_.g.cluster_bits,
                                       describe_metadata(hit->kinds)));
}

task<new_clusters> cluster_allocator::take(u64 from, u64 least, u64 most) {
  for (;;) {
    const cluster_run run = co_await find_free(from, least, most);
    const bool is_described = co_await ensure_blocks(run);
    if (!is_described)
      continue; // a cluster of the run may have become a refcount block
    co_await check_allocated(run);
    co_await file_.check_room(run.bytes(header_.g).end());
    co_await raise(run);
    const bool reads_zero = run.first >= fresh_from_;
    fresh_from_ = std::max(fresh_from_, run.end());
    if (run.first == first_free_)
      first_free_ = run.end();
    co_return new_clusters{run, reads_zero};
  }
}

task<new_clusters> cluster_allocator::allocate(u64 wanted) {
  if (file_.tells())
    co_await file_.tell(debug_event::cluster_alloc);
  const cluster_run first = co_await find_free(first_free_, 1, 1);
  first_free_ = first.first;
  new_clusters taken = co_await take(first_free_, 1, wanted);
  co_return taken;
}

task<new_clusters> cluster_allocator::allocate_exactly(u64 count) {
  if (file_.tells())
    co_await file_.tell(debug_event::cluster_alloc);
  new_clusters taken = co_await take(first_free_, count, count);
  co_return taken;
}

task<new_clusters> cluster_allocator::allocate_at_end(u64 count) {
  if (file_.tells())
    co_await file_.tell(debug_event::cluster_alloc);
  new_clusters taken = co_await take(fresh_from_, count, count);
  co_return taken;
}

// A cluster that is full, or cannot be counted once more, is left as it is.
task<u64> cluster_allocator::packed_room() {
  if (packed_at_ == 0)
    co_return 0;
  const u64 count = co_await refcount(packed_at_ >> header_.g.cluster_bits);
  co_return count < header_.g.refcount_max()
      ? header_.g.cluster() - packed_at_ % header_.g.cluster()
      : 0;
}

task<byte_range> cluster_allocator::allocate_packed(u64 length) {
  if (file_.tells())
    co_await file_.tell(debug_event::cluster_alloc_bytes);
  const geometry& g = header_.g;
  const u64 room = co_await packed_room();
  byte_range place{packed_at_, length};
  new_clusters next;
  if (length > room) {
    next = co_await allocate(1);
    // A stream may lie across two clusters that follow each other.
    const u64 next_at = next.run.offset(g).value;
    if (room == 0 || next_at != packed_at_ + room)
      place.offset = next_at;
  }
  result<> counted;
  if (place.end() > compressed_end_max(g)) {
    counted = fail(error_kind::no_space,
                   "compressed clusters of {:#x} bytes cannot lie at host offsets from {:#x} on",
                   g.cluster(), compressed_end_max(g));
  } else if (place.offset == packed_at_) {
    u64 added = 0;
    counted = co_await as_result(add_references({packed_at_ >> g.cluster_bits, 1}, added));
  }
  if (!counted) {
    if (next.run.count > 0 && !file_.is_stopped())
      (void)co_await as_result(free_unlinked(next.run));
    co_await fail(std::move(counted).error());
  }
  packed_at_ = is_aligned(place.end(), g.cluster()) ? 0 : place.end();
  co_return place;
}

// A block at a time: between the load of a block and its change nobody else runs. If a later block
// cannot be loaded, what was raised stays raised: a leak.
task<void> cluster_allocator::raise(cluster_run run) {
  while (run.count > 0) {
    const u64 block = run.first / entries();
    const std::span<std::byte> bytes = co_await load_block(block);
    const u64 end = std::min(run.end(), (block + 1) * entries());
    for (u64 c = run.first; c < end; c++)
      store_refcount(bytes, header_.g.refcount_order, c % entries(), 1);
    store_.refcounts_changed(host_offset(table_[block]));
    run = {end, run.end() - end};
  }
}

task<void> cluster_allocator::not_counted(u64 cluster) {
  return file_.corrupt(
      fmt::format("the refcount of cluster {:#x}, which is in use, is 0", cluster));
}

task<void> cluster_allocator::check_room_for(cluster_run run, u64 more) {
  const u64 most = header_.g.refcount_max();
  for (u64 c = run.first; c < run.end();) {
    const u64 block = c / entries();
    if (block >= table_.size() || table_[block] == 0)
      co_await not_counted(c);
    const std::span<const std::byte> bytes = co_await load_block(block);
    const u64 end = std::min(run.end(), (block + 1) * entries());
    for (; c < end; c++) {
      const u64 count = load_refcount(bytes, header_.g.refcount_order, c % entries());
      if (count == 0)
        co_await not_counted(c);
      if (count > most || most - count < more)
        co_await fail(error_kind::unsupported,
                      "cluster {:#x} is referred to {} times already, and refcounts of {} bits end "
                      "at {}; convert the image to one with a larger 'refcount_bits'",
                      c, count, header_.g.refcount_bits(), most);
    }
  }
}

// As raise, for clusters that have a count. What checks it beforehand is check_room_for; an image
// that contradicts itself may still surprise.
task<void> cluster_allocator::add_references(cluster_run run, u64& added) {
  co_await check_room_for(run, 1);
  while (run.count > 0) {
    const u64 block = run.first / entries();
    const std::span<std::byte> bytes = co_await load_block(block);
    const u64 end = std::min(run.end(), (block + 1) * entries());
    for (u64 c = run.first; c < end; c++) {
      const u64 count = load_refcount(bytes, header_.g.refcount_order, c % entries());
      store_refcount(bytes, header_.g.refcount_order, c % entries(), count + 1);
    }
    store_.refcounts_changed(host_offset(table_[block]));
    added += end - run.first;
    run = {end, run.end() - end};
  }
}

task<void> cluster_allocator::free_unlinked(cluster_run run) {
  if (file_.tells())
    co_await file_.tell(debug_event::cluster_free);
  // Nothing on the disk or in memory refers to it, so there is nothing to wait for.
  freed entry{run, 0, free_reason::other, false};
  std::vector<cluster_run> unused;
  while (entry.run.count > 0)
    co_await lower_step(entry, unused);
}

void cluster_allocator::free_later(cluster_run run, free_reason reason) {
  wait_with({run, file_.newest_request(), reason, false});
}

void cluster_allocator::discard_later(cluster_run run, free_reason reason) {
  wait_with({run, file_.newest_request(), reason, true});
}

void cluster_allocator::wait_with(freed entry) {
  waiting_clusters_ += entry.run.count;
  if (!frees_.empty()) {
    freed& last = frees_.back();
    if (last.is_discard_only == entry.is_discard_only && last.reason == entry.reason &&
        last.run.end() == entry.run.first) {
      last.run.count += entry.run.count;
      last.tag = entry.tag;
      return;
    }
  }
  frees_.push_back(entry);
}

void cluster_allocator::keep_content(cluster_run run) {
  for (std::size_t i = 0; i < frees_.size(); i++) {
    const freed f = frees_[i];
    if (!f.is_discard_only || f.run.first >= run.end() || run.first >= f.run.end())
      continue;
    // What lies before and behind stays; an empty run is skipped by apply_frees.
    const u64 before = run.first > f.run.first ? run.first - f.run.first : 0;
    const u64 behind = f.run.end() > run.end() ? f.run.end() - run.end() : 0;
    waiting_clusters_ -= f.run.count - before - behind;
    frees_[i].run.count = before;
    if (behind > 0)
      frees_.insert(frees_.begin() + static_cast<i64>(i) + 1,
                    {{run.end(), behind}, f.tag, f.reason, true});
  }
}

bool cluster_allocator::has_ready_frees() const {
  const u64 oldest = file_.oldest_request();
  return std::ranges::any_of(frees_, [&](const freed& f) { return f.tag < oldest; });
}

bool cluster_allocator::has_many_frees() const {
  return frees_.size() > waiting_runs_max ||
         waiting_clusters_ << header_.g.cluster_bits > waiting_bytes_max;
}

// Lowers what one block describes of the run and takes it off the entry, so that an error later on
// does not lower it twice.
task<void> cluster_allocator::lower_step(freed& entry, std::vector<cluster_run>& unused) {
  const u64 block = entry.run.first / entries();
  if (block >= table_.size() || table_[block] == 0)
    co_await file_.corrupt(fmt::format("cluster {:#x} was in use, but no refcount block describes "
                                       "it",
                                       entry.run.first));
  const std::span<std::byte> bytes = co_await load_block(block);
  const u64 end = std::min(entry.run.end(), (block + 1) * entries());
  std::optional<u64> underflow;
  for (u64 c = entry.run.first; c < end && !underflow; c++) {
    const u64 value = load_refcount(bytes, header_.g.refcount_order, c % entries());
    if (value == 0) {
      underflow = c;
      break;
    }
    store_refcount(bytes, header_.g.refcount_order, c % entries(), value - 1);
    if (value > 1)
      continue;
    first_free_ = std::min(first_free_, c);
    if (c == packed_at_ >> header_.g.cluster_bits)
      packed_at_ = 0;
    if (!unused.empty() && unused.back().end() == c) {
      unused.back().count++;
    } else {
      unused.push_back({c, 1});
    }
  }
  store_.refcounts_lowered(host_offset(table_[block]));
  entry.run = {end, entry.run.end() - end};
  if (underflow)
    co_await file_.corrupt(
        fmt::format("the refcount of cluster {:#x}, which was in use, is 0", *underflow));
}

namespace {

// In order, and as few as there can be.
void join_runs(std::vector<cluster_run>& runs) {
  std::ranges::sort(runs, {}, &cluster_run::first);
  std::size_t count = 0;
  for (const cluster_run run : runs) {
    if (count > 0 && runs[count - 1].end() == run.first)
      runs[count - 1].count += run.count;
    else
      runs[count++] = run;
  }
  runs.resize(count);
}

} // namespace

// What is freed together often lay together, if not in the order in which it was freed: the host is
// asked once for each run of it.
task<void> cluster_allocator::apply_frees() {
  if (file_.tells() && has_ready_frees())
    co_await file_.tell(debug_event::cluster_free);
  const u64 oldest = file_.oldest_request();
  std::vector<cluster_run> emptied;
  std::vector<cluster_run> emptied_data;
  const auto is_waiting = [&](const freed& f) { return f.tag >= oldest; };
  // frees_ may grow meanwhile only through the lock's holder, which we are.
  for (std::size_t i = 0; i < frees_.size(); i++) {
    if (is_waiting(frees_[i]) || frees_[i].run.count == 0)
      continue;
    const freed kept = frees_[i];
    std::vector<cluster_run> unused;
    if (kept.is_discard_only) {
      unused.push_back(kept.run);
      frees_[i].run.count = 0;
      waiting_clusters_ -= kept.run.count;
    }
    while (frees_[i].run.count > 0) {
      const u64 left = frees_[i].run.count;
      co_await lower_step(frees_[i], unused);
      waiting_clusters_ -= left - frees_[i].run.count;
    }
    if (!policy_.passes(kept.reason))
      continue;
    std::vector<cluster_run>& into = kept.is_discard_only ? emptied_data : emptied;
    into.insert(into.end(), unused.begin(), unused.end());
  }
  std::erase_if(frees_, [](const freed& f) { return f.run.count == 0; });
  // Nobody allocates while we hold the lock, so the clusters are still nobody's.
  join_runs(emptied);
  for (const cluster_run run : emptied)
    co_await file_.discard(run.bytes(header_.g));
  join_runs(emptied_data);
  for (const cluster_run run : emptied_data)
    co_await file_.discard_data(run.bytes(header_.g));
}

task<u64> cluster_allocator::find_used_end(u64 limit) {
  u64 cluster = std::min(limit, table_.size() * entries());
  while (cluster > 0) {
    const u64 block = (cluster - 1) / entries();
    if (table_[block] == 0) {
      cluster = block * entries();
      continue;
    }
    const std::span<std::byte> bytes = co_await load_block(block);
    for (; cluster > block * entries(); cluster--)
      if (load_refcount(bytes, header_.g.refcount_order, (cluster - 1) % entries()) != 0)
        co_return cluster;
  }
  co_return 0;
}

task<u64> cluster_allocator::count_used(u64 limit, u64 enough) {
  u64 used = 0;
  for (u64 block = 0; block * entries() < limit && block < table_.size() && used < enough;
       block++) {
    if (table_[block] == 0)
      continue;
    const std::span<std::byte> bytes = co_await load_block(block);
    const u64 end = std::min(entries(), limit - block * entries());
    for (u64 i = 0; i < end; i++)
      used += load_refcount(bytes, header_.g.refcount_order, i) != 0;
  }
  co_return used;
}

} // namespace bgfs::qcow2
