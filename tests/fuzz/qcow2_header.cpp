// SPDX-License-Identifier: MIT
// Reads the input as the first cluster of a qcow2 image. What is accepted can be written and is the
// same when it is read again, but for the padding that fields of odd length get.
#include "drivers/format/qcow2/header.h"
#include "graph/base/assert.h"

using namespace bgfs;
using namespace bgfs::qcow2;

namespace {

header without_padding(header h) {
  while (!h.unknown_fields.empty() && h.unknown_fields.back() == std::byte{0})
    h.unknown_fields.pop_back();
  return h;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (size >= 72)
    (void)header_cluster_bytes(bytes.first(72));
  for (const header_use use : {header_use::disk, header_use::check}) {
    const result<header> h = parse_header(bytes, use);
    if (!h)
      continue;
    (void)h->backing_format();
    (void)h->data_file();
    (void)h->feature_names();
    (void)h->bitmaps();
    (void)h->crypto_header();
    const result<std::vector<std::byte>> written = serialise_header(*h);
    if (!written)
      continue;
    const result<header> again = parse_header(*written, use);
    BGFS_ASSERT(again.has_value() && without_padding(*again) == without_padding(*h),
                "a header survives being written");
  }
  return 0;
}
