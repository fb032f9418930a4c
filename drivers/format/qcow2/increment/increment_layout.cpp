// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/increment/increment_layout.h"

#include "drivers/format/qcow2/create.h"
#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/l2_entry.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bgfs::qcow2 {

result<increment_layout> increment_layout::create(increment_content content) {
  increment_layout made(std::move(content));
  made.g_.cluster_bits = made.content_.cluster_bits;
  made.guest_clusters_ = divide_up(made.content_.disk_length, made.cluster());
  made.place_tables();
  BGFS_CHECK(made.make_header());
  return made;
}

void increment_layout::place_tables() {
  l1_entries_ = g_.l1_entries_for(align_up(content_.disk_length, 512));
  tables_ = ranked_bits(l1_entries_);
  for (const ranked_bits* set : {&content_.data, &content_.zero})
    for (u64 n = 0; n < set->set_count();) {
      const u64 table = set->select(n) / g_.l2_entries();
      tables_.set(table);
      n = set->rank(std::min((table + 1) * g_.l2_entries(), guest_clusters_));
    }
  tables_.seal();
  const u64 l1_clusters = std::max<u64>(divide_up(l1_entries_ * 8, cluster()), 1);
  const u64 rest = 1 + l1_clusters + tables_.set_count() + content_.data.set_count();
  u64 table_clusters = 1;
  for (u64 all = 0, counted = rest; all != counted;) {
    all = counted;
    blocks_ = divide_up(counted, g_.block_entries());
    table_clusters = divide_up(blocks_ * 8, cluster());
    counted = rest + blocks_ + table_clusters;
  }
  first_block_ = 1 + table_clusters;
  first_l1_ = first_block_ + blocks_;
  first_l2_ = first_l1_ + l1_clusters;
  first_data_ = first_l2_ + tables_.set_count();
}

result<> increment_layout::make_header() {
  header h;
  h.g = g_;
  h.disk_length = align_up(content_.disk_length, 512);
  BGFS_CHECK(check_length(h, h.disk_length));
  h.refcount_table = host_offset(cluster());
  h.refcount_table_clusters = static_cast<u32>(first_block_ - 1);
  h.l1 = host_offset(first_l1_ * cluster());
  h.l1_entries = static_cast<u32>(l1_entries_);
  add_feature_names(h);
  BGFS_TRY(header_, serialise_header(h));
  return {};
}

increment_layout::place increment_layout::find(byte_range part) const {
  const u64 data = first_data_ * cluster();
  if (part.offset < data)
    return {.length = data - part.offset, .guest = std::nullopt};
  const u64 rank = (part.offset - data) / cluster();
  const u64 within = part.offset % cluster();
  const u64 first = content_.data.select(rank);
  const u64 end = std::min(first + divide_up(within + part.length, cluster()), guest_clusters_);
  u64 next = first + 1; // clusters that are neighbours in the disk, too
  while (next < end && content_.data.test(next))
    next++;
  return {.length = (next - first) * cluster() - within, .guest = first * cluster() + within};
}

void increment_layout::render(u64 offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const u64 within = offset % cluster();
    const auto part = into.first(std::min<u64>(into.size(), cluster() - within));
    render_cluster(offset / cluster(), within, part);
    offset += part.size();
    into = into.subspan(part.size());
  }
}

void increment_layout::render_cluster(u64 index, u64 within, std::span<std::byte> into) const {
  if (index == 0) {
    std::ranges::fill(into, std::byte{0});
    if (within < header_.size())
      std::memcpy(into.data(), header_.data() + within,
                  std::min<u64>(into.size(), header_.size() - within));
  } else if (index < first_block_) {
    render_entries((index - 1) * cluster() + within, into,
                   [this](u64 i) { return refcount_table_entry(i); });
  } else if (index < first_l1_) {
    // Four counts of 16 bits are eight bytes, as an entry of the other tables.
    const u64 all = length() / cluster();
    render_entries((index - first_block_) * cluster() + within, into, [all](u64 i) {
      u64 counts = 0;
      for (u64 k = 0; k < 4; k++)
        counts = counts << 16 | (i * 4 + k < all ? 1 : 0);
      return counts;
    });
  } else if (index < first_l2_) {
    render_entries((index - first_l1_) * cluster() + within, into,
                   [this](u64 i) { return l1_entry(i); });
  } else {
    const u64 first = tables_.select(index - first_l2_) * g_.l2_entries();
    render_entries(within, into, [this, first](u64 i) { return l2_entry_of(first + i); });
  }
}

// A table of big-endian numbers of eight bytes.
template<class Entry>
void increment_layout::render_entries(u64 offset, std::span<std::byte> into, Entry entry) const {
  for (u64 at = 0; at < into.size();) {
    std::array<std::byte, 8> bytes;
    store(std::span<std::byte>(bytes), be64(entry((offset + at) / 8)));
    const u64 skipped = (offset + at) % 8;
    const u64 length = std::min<u64>(8 - skipped, into.size() - at);
    std::memcpy(into.data() + at, bytes.data() + skipped, length);
    at += length;
  }
}

u64 increment_layout::refcount_table_entry(u64 index) const {
  return index < blocks_ ? (first_block_ + index) * cluster() : 0;
}

u64 increment_layout::l1_entry(u64 index) const {
  if (index >= l1_entries_ || !tables_.test(index))
    return 0;
  return ((first_l2_ + tables_.rank(index)) * cluster()) | entry_copied;
}

u64 increment_layout::l2_entry_of(u64 guest_cluster) const {
  if (guest_cluster >= guest_clusters_)
    return 0;
  if (content_.data.test(guest_cluster))
    return ((first_data_ + content_.data.rank(guest_cluster)) * cluster()) | entry_copied;
  return content_.zero.test(guest_cluster) ? entry_zero : 0;
}

} // namespace bgfs::qcow2
