// SPDX-License-Identifier: MIT
#include "fuse/operations/handles.h"

namespace bgfs {

u64 handle_table::add(handle h) {
  if (free_.empty()) {
    free_.push_back(static_cast<u32>(slots_.size()));
    slots_.emplace_back();
  }
  const u32 index = free_.back();
  free_.pop_back();
  slots_[index].open = std::make_unique<handle>(std::move(h));
  return (u64{slots_[index].generation} << 32) | index;
}

handle* handle_table::at(u64 number) {
  const auto index = static_cast<u32>(number);
  if (index >= slots_.size() || slots_[index].generation != number >> 32)
    return nullptr;
  return slots_[index].open.get();
}

void handle_table::remove(u64 number) {
  if (at(number) == nullptr)
    return;
  const auto index = static_cast<u32>(number);
  slots_[index].open.reset();
  slots_[index].generation++;
  free_.push_back(index);
}

} // namespace bgfs
