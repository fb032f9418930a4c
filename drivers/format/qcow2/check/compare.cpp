// SPDX-License-Identifier: MIT
// Counts against refcounts.
#include "drivers/format/qcow2/check/checker.h"
#include "drivers/format/qcow2/refcount_block.h"
#include "graph/base/is_zero.h"

namespace bgfs::qcow2 {

namespace {

constexpr u64 table_offset = ~u64{0x1ff};

} // namespace

// What a refcount block holds is worth nothing when the block is misplaced.
task<std::span<std::byte>> checker::load_block(u64 block) {
  auto known = blocks_.find(block);
  if (known == blocks_.end()) {
    const u64 at = refcount_table_[block] & table_offset;
    if (!is_aligned(at, g().cluster()))
      co_await fail(error_kind::corrupt_image, "Input/output error");
    if (blocks_.size() >= limits_.blocks_cached)
      blocks_.erase(std::ranges::min_element(blocks_, {},
                                             [](const auto& entry) { return entry.second.used; }));
    std::vector<std::byte> bytes(g().cluster());
    co_await read(at, bytes, "a refcount block");
    known = blocks_.emplace(block, cached_block{0, std::move(bytes)}).first;
  }
  known->second.used = ++clock_;
  co_return std::span<std::byte>(known->second.bytes);
}

// Nearly always, and then without a trip to the file.
std::optional<u64> checker::known_refcount(u64 cluster) const {
  const u64 block = cluster / g().block_entries();
  if (block >= refcount_table_.size() || (refcount_table_[block] & table_offset) == 0)
    return 0;
  if (!differs_[block] && counts_.has(cluster) && cluster < clusters_end())
    return counts_[cluster];
  return std::nullopt;
}

task<std::optional<u64>> checker::stored_refcount(u64 cluster) {
  if (const std::optional<u64> known = known_refcount(cluster))
    co_return known;
  const u64 block = cluster / g().block_entries();
  const result<std::span<std::byte>> bytes = co_await as_result(load_block(block));
  if (!bytes)
    co_return std::nullopt;
  co_return load_refcount(*bytes, g().refcount_order, cluster % g().block_entries());
}

task<void> checker::compare_window(bool repairs) {
  const u64 end = std::min(counts_.end(), clusters_end());
  for (u64 c = counts_.first(); c < end;) {
    const u64 block = c / g().block_entries();
    const u64 block_end = std::min((block + 1) * g().block_entries(), end);
    if (block >= refcount_table_.size()) {
      compare_uncounted(c, end);
      co_return;
    }
    if ((refcount_table_[block] & table_offset) == 0) {
      compare_uncounted(c, block_end);
    } else {
      co_await compare_block({c, block_end - c}, repairs);
    }
    co_await step_done();
    c = block_end;
  }
}

// Where no block is, every refcount is 0.
void checker::compare_uncounted(u64 from, u64 end) {
  for (auto c = counts_.next(from); c && *c < end; c = counts_.next(*c + 1)) {
    used_end_ = std::max(used_end_, *c + 1);
    tell_difference(*c, 0, counts_[*c]);
  }
}

void checker::tell_difference(u64 cluster, u64 stored, u64 counted) {
  if (is_silent_)
    return;
  // Blocks are there for everything in use, unless something is badly wrong with them.
  if (stored == 0)
    needs_rebuild_ = true;
  if (stored < counted) {
    result_.corruptions++;
    refcount_corruptions_++;
  } else {
    result_.leaks++;
  }
  tell("{} cluster {} refcount={} reference={}", stored < counted ? "ERROR" : "Leaked", cluster,
       stored, counted);
}

bool checker::may_adjust(u64 stored, u64 counted) const {
  return stored > counted || repairs_all();
}

// The block is written as a whole. Which of its sectors survive a crash does not matter: each count
// is the old one, wrong as it was, or the right one, and no count relies on another.
task<void> checker::compare_block(cluster_run run, bool repairs) {
  const u64 block = run.first / g().block_entries();
  const result<std::span<std::byte>> loaded = co_await as_result(load_block(block));
  if (!loaded) {
    for (u64 c = run.first; c < run.end() && !is_silent_; c++) {
      result_.check_errors++;
      refcount_errors_++;
      tell("Can't get refcount for cluster {}: {}", c, loaded.error().message());
    }
    differs_[block] = true;
    co_return;
  }
  const std::span<std::byte> bytes = *loaded;
  const unsigned order = g().refcount_order;
  if (bgfs::is_zero(bytes)) {
    const auto next = counts_.next(run.first);
    if (!next || *next >= run.end())
      co_return;
  }
  u64 raised = 0;
  u64 lowered = 0;
  for (u64 c = run.first; c < run.end(); c++) {
    const u64 stored = load_refcount(bytes, order, c % g().block_entries());
    const u64 counted = counts_[c];
    if (stored != 0 || counted != 0)
      used_end_ = std::max(used_end_, c + 1);
    if (stored == counted)
      continue;
    if (!repairs) {
      differs_[block] = true;
      tell_difference(c, stored, counted);
    } else if (may_adjust(stored, counted)) {
      sink_.message(
          fmt::format("Repairing cluster {} refcount={} reference={}", c, stored, counted));
      store_refcount(bytes, order, c % g().block_entries(), counted);
      (stored < counted ? raised : lowered)++;
    }
  }
  if (raised + lowered == 0)
    co_return;
  co_await write(refcount_table_[block] & table_offset, bytes, "a refcount block");
  result_.corruptions -= raised;
  result_.corruptions_fixed += raised;
  result_.leaks -= lowered;
  result_.leaks_fixed += lowered;
}

} // namespace bgfs::qcow2
