// SPDX-License-Identifier: MIT
// Any bytes the kernel could send are a request or an error.
#include "fuse/protocol/request.h"

#include "graph/base/endian.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

using namespace bgfs;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::ranges::copy(std::as_bytes(std::span(data, size)), bytes.begin());
  // As from the kernel, which always gets the length right; the rest is the fuzzer's.
  if (size >= sizeof(u32))
    store(std::span(bytes), static_cast<u32>(size));
  const auto header = parse_header(bytes);
  if (!header)
    return 0;
  const auto body = parse_body(*header, bytes);
  if (!body)
    return 0;
  if (const auto* write = std::get_if<ask::write>(&*body)) {
    const std::byte* const begin = write->payload.data();
    const std::byte* const end = bytes.data() + bytes.size();
    if (!write->payload.empty() && (begin < bytes.data() || begin + write->payload.size() > end))
      std::abort();
  }
  return 0;
}
