// SPDX-License-Identifier: MIT
// Inflates the input as a compressed cluster, zlib or zstd by the lowest bit of the first byte,
// into clusters of the size that its other bits say.
#include "drivers/format/qcow2/decompress.h"

using namespace bgfs;
using namespace bgfs::qcow2;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size == 0)
    return 0;
  const auto stream = std::as_bytes(std::span(data, size)).subspan(1);
  std::vector<std::byte> cluster(u64{512} << (data[0] >> 1) % 13);
  (void)decompress((data[0] & 1) != 0 ? compression_type::zstd : compression_type::zlib, stream,
                   cluster);
  return 0;
}
