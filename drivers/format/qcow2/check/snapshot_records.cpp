// SPDX-License-Identifier: MIT
// The snapshot table as a check reads it: entry by entry, as far as it makes sense, without keeping
// names. Opening an image is stricter (snapshot_table.h).
#include "drivers/format/qcow2/check/checker.h"
#include "graph/base/limits.h"

namespace bgfs::qcow2 {

namespace {

constexpr u32 extra_max = 1024;
// Spec, "Snapshots", extra data: VM state size and disk size, which version 3 demands.
constexpr u32 extra_complete = 16;

constexpr u64 length_of(const snapshot_entry_wire& wire) {
  return align_up(sizeof wire + wire.extra_length + wire.id_length + wire.name_length, 8);
}

} // namespace

task<void> checker::read_snapshots() {
  u32 count = header_.snapshot_count;
  if (count > snapshots_max && repairs_all()) {
    snapshot_corruptions_ += count - snapshots_max;
    tell("Discarding {} overhanging snapshots", count - snapshots_max);
    count = snapshots_max;
  }
  const u64 table = header_.snapshots.value;
  if (count > snapshots_max) {
    tell("ERROR Snapshot table too large");
    co_await fail(error_kind::corrupt_image,
                  "the image claims {} snapshots, more than {}; 'bgfs check -r all' discards those "
                  "beyond",
                  count, snapshots_max);
  }
  if (!is_aligned(table, g().cluster()) || table > device_length_max - snapshot_table_bytes_max) {
    tell("ERROR Snapshot table offset invalid");
    co_await fail(error_kind::corrupt_image,
                  "the snapshot table at {:#x} is not aligned to the cluster size {:#x}", table,
                  g().cluster());
  }
  for (u32 i = 0; i < count; i++) {
    const bool is_read = co_await read_snapshot(table + snapshot_bytes_);
    if (is_read)
      continue;
    snapshot_corruptions_ += count - i;
    tell("Discarding {} overhanging snapshots (snapshot table is too big)", count - i);
    break;
  }
  result_.corruptions += snapshot_corruptions_;
  if (snapshot_corruptions_ != 0 && repairs_all())
    needs_rebuild_ = true; // which writes the table, too
  group_snapshots();
  for (const snapshot_record& s : snapshots_) {
    if (is_aligned(s.l1.value, g().cluster()) && u64{s.l1_entries} * 8 <= l1_bytes_max)
      continue;
    const std::string who = co_await name_snapshot(s);
    if (!is_aligned(s.l1.value, g().cluster())) {
      corrupt(1,
              "ERROR snapshot {} l1_offset={:#x}: L1 table is not cluster aligned; snapshot table "
              "entry corrupted",
              who, s.l1.value);
    } else {
      corrupt(1,
              "ERROR snapshot {} l1_size={:#x}: L1 table is too large; snapshot table entry "
              "corrupted",
              who, s.l1_entries);
    }
  }
}

// False: the table is too long, and is to end before this entry.
task<bool> checker::read_snapshot(u64 at) {
  const std::size_t index = snapshots_.size();
  std::array<std::byte, sizeof(snapshot_entry_wire)> bytes;
  co_await read(at, bytes, "the snapshot table");
  const auto wire = load<snapshot_entry_wire>(std::span<const std::byte>(bytes));
  const u32 extra = wire.extra_length;
  if (extra > extra_max && !repairs_all()) {
    tell("ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry "
         "{}",
         index);
    co_await fail(error_kind::corrupt_image,
                  "snapshot {} has {} bytes of extra data, more than {}; 'bgfs check -r all' cuts "
                  "them off",
                  index, extra, extra_max);
  }
  const u64 length = length_of(wire);
  const bool is_too_long = snapshot_bytes_ + length > snapshot_table_bytes_max;
  if (is_too_long && !repairs_all()) {
    tell("ERROR failed to read the snapshot table: Snapshot table is too big");
    co_await fail(error_kind::corrupt_image,
                  "the snapshot table is longer than {:#x} bytes; 'bgfs check -r all' discards the "
                  "{} snapshots beyond",
                  snapshot_table_bytes_max, header_.snapshot_count - index);
  }
  if (is_too_long)
    co_return false;
  if (extra > extra_max) {
    snapshot_corruptions_++;
    tell("Discarding too much extra metadata in snapshot table entry {} ({} > {})", index, extra,
         extra_max);
  }
  if (header_.version >= 3 && extra < extra_complete) {
    snapshot_corruptions_++;
    tell("{} snapshot table entry {} is incomplete", repairs_all() ? "Repairing" : "ERROR", index);
  }
  snapshots_.push_back({at, length, host_offset(wire.l1_offset), wire.l1_entries, extra});
  snapshot_bytes_ += length;
  co_return true;
}

// Those whose L1 table can be read, by table.
void checker::group_snapshots() {
  const auto table_of = [&](const std::pair<u32, u32>& group) {
    const snapshot_record& s = snapshots_[group.first];
    return std::pair(s.l1, s.l1_entries);
  };
  for (u32 i = 0; i < snapshots_.size(); i++)
    if (is_aligned(snapshots_[i].l1.value, g().cluster()) &&
        u64{snapshots_[i].l1_entries} * 8 <= l1_bytes_max)
      snapshot_groups_.emplace_back(i, 1);
  std::ranges::sort(snapshot_groups_, {}, table_of);
  std::size_t kept = 0;
  for (std::size_t i = 1; i < snapshot_groups_.size(); i++) {
    if (table_of(snapshot_groups_[i]) == table_of(snapshot_groups_[kept])) {
      snapshot_groups_[kept].second++;
    } else {
      snapshot_groups_[++kept] = snapshot_groups_[i];
    }
  }
  snapshot_groups_.resize(snapshot_groups_.empty() ? 0 : kept + 1);
}

// "ID (NAME)", what can be printed of it.
task<std::string> checker::name_snapshot(snapshot_record s) {
  std::vector<std::byte> bytes(s.length);
  co_await read(s.at, bytes, "the snapshot table");
  const auto wire = load<snapshot_entry_wire>(bytes);
  std::string text;
  const u64 id_at = sizeof wire + s.extra_length;
  for (u64 i = 0; i < u64{wire.id_length} + wire.name_length; i++) {
    if (i == wire.id_length)
      text += " (";
    const char c = static_cast<char>(bytes[id_at + i]);
    text += c < ' ' || c == 0x7f ? '?' : c;
  }
  if (wire.name_length == 0)
    text += " (";
  co_return text + ")";
}

// As it has to be: no more extra data than anybody reads, and what version 3 demands.
task<std::vector<std::byte>> checker::make_snapshot_table() {
  std::vector<std::byte> table;
  for (const snapshot_record& s : snapshots_) {
    std::vector<std::byte> entry(s.length);
    co_await read(s.at, entry, "the snapshot table");
    auto wire = load<snapshot_entry_wire>(entry);
    const auto extra_begin = entry.begin() + sizeof wire;
    std::vector<std::byte> extra(extra_begin,
                                 extra_begin + std::min(wire.extra_length.get(), extra_max));
    if (header_.version >= 3 && extra.size() < extra_complete) {
      const bool has_state_length = extra.size() >= 8;
      extra.resize(extra_complete);
      if (!has_state_length)
        store(std::span(extra), be64(wire.vm_state_length), 0);
      store(std::span(extra), be64(header_.disk_length), 8);
    }
    const auto names = extra_begin + static_cast<i64>(wire.extra_length.get());
    wire.extra_length = static_cast<u32>(extra.size());
    const std::size_t at = table.size();
    table.resize(at + length_of(wire));
    store(std::span(table), wire, at);
    std::ranges::copy(extra, table.begin() + static_cast<i64>(at + sizeof wire));
    std::copy_n(names, wire.id_length + wire.name_length,
                table.begin() + static_cast<i64>(at + sizeof wire + extra.size()));
  }
  co_return table;
}

} // namespace bgfs::qcow2
