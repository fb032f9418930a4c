// SPDX-License-Identifier: MIT
#include "fuse/operations/leased_files.h"

namespace bgfs {

leased_files::~leased_files() {
  for (auto& c : chunks_) {
    const std::unique_ptr<chunk> whole(c.load());
    if (whole == nullptr)
      continue;
    for (auto& place : *whole) // files that are open when the mount ends are never released
      delete place.load();
  }
}

// The lower half of a handle's number is its slot.
std::atomic<leased_file*>* leased_files::place_of(u64 handle) const {
  const auto slot = static_cast<u32>(handle);
  if (slot >= chunk_length * chunk_count)
    return nullptr;
  chunk* const c = chunks_[slot / chunk_length].load(std::memory_order_acquire);
  return c == nullptr ? nullptr : &(*c)[slot % chunk_length];
}

void leased_files::add(u64 handle, std::shared_ptr<lease> by, bool is_writing,
                       std::shared_ptr<const partition_window> part) {
  const auto slot = static_cast<u32>(handle);
  if (by == nullptr || slot >= chunk_length * chunk_count)
    return;
  auto& c = chunks_[slot / chunk_length];
  if (c.load(std::memory_order_relaxed) == nullptr)
    c.store(new chunk{}, std::memory_order_release);
  auto made = std::make_unique<leased_file>(std::move(by), is_writing, handle, std::move(part));
  place_of(handle)->store(made.release(), std::memory_order_release);
}

void leased_files::remove(u64 handle) {
  std::atomic<leased_file*>* const place = place_of(handle);
  if (place == nullptr || place->load(std::memory_order_relaxed) == nullptr)
    return;
  const std::unique_ptr<leased_file> gone(place->exchange(nullptr, std::memory_order_acq_rel));
  // Whoever found it has left; the kernel knows, and now this thread does.
  (void)gone->by->is_empty();
}

const leased_file* leased_files::find(u64 handle) const {
  const std::atomic<leased_file*>* const place = place_of(handle);
  if (place == nullptr)
    return nullptr;
  const leased_file* const file = place->load(std::memory_order_acquire);
  return file != nullptr && file->handle == handle ? file : nullptr;
}

} // namespace bgfs
