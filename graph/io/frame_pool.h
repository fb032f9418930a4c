// SPDX-License-Identifier: MIT
// Memory for coroutine frames: free lists by size class, one set per thread, so that awaiting a
// task costs no trip to the heap. Under AddressSanitizer the heap is used, so that a frame touched
// after its end is reported.
#pragma once

#include "graph/base/ints.h"

#include <cstddef>

namespace bgfs {

[[nodiscard]] void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes) noexcept;

// Frames made and not yet freed by this thread; tests compare it before and after.
[[nodiscard]] i64 live_frame_count();
// Trips to the heap this thread's frames have cost so far; the allocation test reads it.
[[nodiscard]] u64 frame_heap_trips();

} // namespace bgfs
