// SPDX-License-Identifier: MIT
#include "graph/jobs/measure.h"

namespace bgfs {

namespace {

constexpr u64 directory_entry_fixed = 24; // of a bitmap, before its name (qcow2)

// Counted in whole pieces: one that two runs share is counted with the first.
task<u64> count_data(u64 unit, node& source) {
  const u64 length = source.length();
  u64 counted = 0;
  for (u64 at = 0; at < length;) {
    const block_status status = co_await source.status_above({at, length - at});
    BGFS_ASSERT(status.length > 0, "M5: a status makes progress");
    const u64 end = std::min(length, at + status.length);
    if (status.is_zero || !status.is_allocated) {
      at = end;
      continue;
    }
    const u64 whole_end = align_up(end, unit);
    counted += whole_end - align_down(at, unit);
    at = whole_end;
  }
  co_return counted;
}

// As `info` tells them; a source without the member has none. Of a snapshot, those of its image.
std::optional<u64> bitmaps_of(u64 unit, const node& source) {
  const node* holder = &source;
  value info = holder->instance().info().format_specific;
  for (const edge* below = holder->child("file"); info.as_map() == nullptr && below != nullptr;
       below = holder->child("file")) {
    holder = &below->child();
    info = holder->instance().info().format_specific;
  }
  const value* type = info.as_map() == nullptr ? nullptr : info.find("type");
  if (type == nullptr || type->as_text() == nullptr || *type->as_text() != "qcow2")
    return std::nullopt;
  const value* data = info.find("data");
  const value* compat = data == nullptr ? nullptr : data->find("compat");
  if (compat == nullptr || compat->as_text() == nullptr || *compat->as_text() == "0.10")
    return std::nullopt; // version 2 cannot have any
  std::vector<measured_bitmap> all;
  const value* list = data == nullptr ? nullptr : data->find("bitmaps");
  if (list != nullptr && list->as_list() != nullptr)
    for (const value& one : *list->as_list()) {
      const value* granularity = one.find("granularity");
      const value* name = one.find("name");
      if (granularity != nullptr && granularity->as_integer() && name != nullptr)
        all.push_back({static_cast<u64>(*granularity->as_integer()), name->as_text()->size()});
    }
  return measure_bitmaps(unit, source.length(), all);
}

} // namespace

u64 measure_bitmaps(u64 unit, u64 length, std::span<const measured_bitmap> all) {
  u64 bytes = 0;
  u64 directory = 0;
  for (const measured_bitmap& b : all) {
    const u64 clusters = divide_up(divide_up(divide_up(length, b.granularity), 8), unit);
    bytes += clusters * unit + align_up(clusters * 8, unit);
    directory += align_up(directory_entry_fixed + b.name_length, 8);
  }
  return bytes + align_up(directory, unit);
}

measured_image measure_empty(const measured_space& space) {
  const u64 all = space.data + space.overhead;
  return {space.takes_all ? all : space.overhead, all, std::nullopt};
}

task<measured_image> measure_copy(const measured_space& space, node& source) {
  measured_image measured = measure_empty(space);
  if (space.can_hold_bitmaps)
    measured.bitmaps = bitmaps_of(space.unit, source);
  if (space.takes_all || space.hides_backing) {
    measured.required = measured.fully_allocated;
    co_return measured;
  }
  measured.required += co_await count_data(space.unit, source);
  co_return measured;
}

} // namespace bgfs
