// SPDX-License-Identifier: MIT
// Writes that wait for memory: they have brought their bytes already.
#include "fuse/operations/operations.h"

#include <algorithm>

namespace bgfs {

// Storage for the longest request counts as that, not with the pages around its payload: of a
// budget of 16 such requests half is eight.
u64 operations::memory_of(const ask::write& what) {
  return std::min<u64>(what.storage->length(), kernel::payload_length_max);
}

// Until it is its turn the bytes lie in a file. Where there is none they stay in memory: over the
// budget, but no more than the callers themselves hold in what they are writing from.
task<payload_budget::hold> operations::wait_for_room(payload_share& share, ask::write& what) {
  const std::size_t length = what.payload.size();
  const parking::space parked = mount_.parked.park(what.payload);
  if (parked) {
    what.payload = {};
    *what.storage = buffer();
  }
  payload_budget::hold held =
      co_await mount_.payloads.take(share, parked ? length : memory_of(what));
  if (parked) {
    *what.storage = mount_.home.buffers().allocate(length);
    co_await parked.take_back(what.storage->bytes());
    what.payload = what.storage->bytes();
  }
  co_return held;
}

} // namespace bgfs
