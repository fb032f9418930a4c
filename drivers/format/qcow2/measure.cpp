// SPDX-License-Identifier: MIT
// How large an image will be (reference section 3.15). With c the cluster, all in bytes:
//
//   data      the disk's length, rounded up to c
//   L2        an entry for each of its clusters, in whole tables
//   L1        an entry for each table, in whole clusters
//   counts    blocks for all clusters, the blocks' and the table's own among them, and the table
//   overhead  header (c) + L2 + L1 + counts + LUKS header (rounded up to c)
#include "drivers/format/common/luks1_header.h"
#include "drivers/format/qcow2/create.h"
#include "drivers/format/qcow2/create_encryption.h"

namespace bgfs::qcow2 {

namespace {

u64 refcount_bytes(const geometry& g, u64 clusters) {
  u64 blocks = 0;
  u64 table = 0;
  for (u64 counted = clusters;;) {
    blocks = divide_up(counted, g.block_entries());
    table = divide_up(blocks, g.cluster() / 8);
    const u64 all = clusters + blocks + table;
    if (all == counted)
      break;
    counted = all;
  }
  return (blocks + table) << g.cluster_bits;
}

} // namespace

result<measured_space> measure_image(const measure_request& request) {
  BGFS_TRY(const header h, make_header(request.given, header_purpose::measuring));
  const geometry& g = h.g;
  const auto length = checked_align_up(request.length, g.cluster());
  BGFS_CHECK(check_length(h, length.value_or(~u64{0})));
  BGFS_TRY(const std::optional<new_encryption> encryption,
           read_encryption(request.given, request.secrets));
  measured_space space;
  space.data = *length;
  space.unit = g.cluster();
  space.can_hold_bitmaps = h.version >= 3;
  const preallocation mode = read_preallocation(request.given);
  space.takes_all = mode == preallocation::falloc || mode == preallocation::full;
  space.hides_backing = !h.backing_file.empty();
  const u64 tables = divide_up(space.data >> g.cluster_bits, g.l2_entries());
  space.overhead = g.cluster() + tables * g.cluster() + align_up(tables * 8, g.cluster());
  space.overhead += refcount_bytes(g, (space.overhead + space.data) >> g.cluster_bits);
  if (encryption)
    space.overhead += align_up(
        crypt::lay_out_luks1(encryption->cipher, encryption->hash).payload_at, g.cluster());
  return space;
}

} // namespace bgfs::qcow2
