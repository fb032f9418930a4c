// SPDX-License-Identifier: MIT
#include "graph/io/frame_pool.h"

#include "graph/base/checked.h"

#include <array>
#include <cstdlib>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BGFS_FRAMES_ON_HEAP 1
#endif
#endif

namespace bgfs {
namespace {

constexpr std::size_t class_bytes = 256;
// The compiler may put the frames of awaited tasks into their parent's; above 16 KiB to the heap.
constexpr std::size_t class_count = 64;
[[maybe_unused]] constexpr u32 kept_per_class_max =
    256; // what one burst may leave behind, in frames

struct free_node {
  free_node* next;
};

struct thread_frames {
  std::array<free_node*, class_count> free{};
  std::array<u32, class_count> kept{};
  i64 live = 0;
  u64 heap_trips = 0;

  ~thread_frames() {
    for (free_node* head : free) {
      while (head != nullptr) {
        free_node* next = head->next;
        std::free(head);
        head = next;
      }
    }
  }
};

// Per thread, not per loop: a frame may end on another thread than it began on.
thread_local thread_frames frames;

[[maybe_unused]] std::size_t class_of(std::size_t bytes) {
  return divide_up(bytes, class_bytes) - 1;
}

void* from_heap(std::size_t bytes) {
  frames.heap_trips++;
  void* memory = std::malloc(bytes);
  if (memory == nullptr)
    throw std::bad_alloc();
  return memory;
}

} // namespace

void* allocate_frame(std::size_t bytes) {
  frames.live++;
#ifndef BGFS_FRAMES_ON_HEAP
  const std::size_t index = class_of(bytes);
  if (index < class_count) {
    if (free_node* node = frames.free[index]) {
      frames.free[index] = node->next;
      frames.kept[index]--;
      return node;
    }
    return from_heap((index + 1) * class_bytes);
  }
#endif
  return from_heap(bytes);
}

void free_frame(void* frame, [[maybe_unused]] std::size_t bytes) noexcept {
  frames.live--;
#ifndef BGFS_FRAMES_ON_HEAP
  const std::size_t index = class_of(bytes);
  if (index < class_count && frames.kept[index] < kept_per_class_max) {
    auto* node = static_cast<free_node*>(frame);
    node->next = frames.free[index];
    frames.free[index] = node;
    frames.kept[index]++;
    return;
  }
#endif
  std::free(frame);
}

i64 live_frame_count() {
  return frames.live;
}
u64 frame_heap_trips() {
  return frames.heap_trips;
}

} // namespace bgfs
