// SPDX-License-Identifier: MIT
// Reads the input as a LUKS header. What is accepted is bounded, is the same when it is written and
// read again, and can be shown.
#include "drivers/format/common/luks1_header.h"
#include "graph/base/assert.h"

using namespace bgfs;
using namespace bgfs::crypt;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  for (const u64 area : {u64{size}, u64{2068480}, u64{16} << 20}) {
    const result<luks1_header> h = parse_luks1(bytes, area);
    if (!h)
      continue;
    u64 iterations = h->digest_iterations;
    for (const luks1_slot& slot : h->slots) {
      iterations += slot.is_active ? slot.iterations : 0;
      BGFS_ASSERT(h->place_of(slot).end() <= area, "slots lie in the area");
    }
    BGFS_ASSERT(iterations <= luks1_iterations_max, "work is bounded");
    const luks1_header_wire wire = serialise_luks1(*h);
    std::vector<std::byte> again(sizeof wire);
    store(std::span(again), wire);
    const result<luks1_header> second = parse_luks1(again, area);
    BGFS_ASSERT(second.has_value() && *second == *h, "a header survives being written");
    (void)to_json(describe_luks1(*h));
  }
  return 0;
}
