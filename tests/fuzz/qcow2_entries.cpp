// SPDX-License-Identifier: MIT
// Reads the input as an L2 table, as references of an L2 table and as a refcount block, for every
// size of cluster that it can be of. Whatever the bytes say, places are bounded and counts fit.
#include "drivers/format/qcow2/l2_entry.h"
#include "drivers/format/qcow2/refcount_block.h"
#include "graph/base/assert.h"

#include <string>
#include <vector>

using namespace bgfs;
using namespace bgfs::qcow2;

namespace {

void read_entry(const entry_rules& rules, l2_entry entry) {
  const unsigned parts = rules.g.subclusters();
  for (unsigned sub = 0; sub < parts;) {
    const subcluster_kind kind = kind_of(rules, entry, sub);
    const unsigned count = same_kind_count(rules, entry, sub);
    BGFS_ASSERT(count > 0 && sub + count <= parts, "runs end within the cluster");
    if (kind == subcluster_kind::invalid)
      BGFS_ASSERT(!explain_invalid(rules, entry).empty(), "what is refused has a reason");
    if (kind == subcluster_kind::compressed)
      BGFS_ASSERT(compressed_range(rules.g, entry).end() <= host_end_max + rules.g.cluster() * 2,
                  "compressed data lie where offsets reach");
    sub += count;
  }
}

void read_refcounts(std::span<const std::byte> block, unsigned order) {
  const u64 count = block.size() * 8 >> order;
  std::vector<std::byte> copy(block.size());
  for (u64 i = 0; i < count; i++)
    store_refcount(copy, order, i, load_refcount(block, order, i));
  for (u64 i = 0; i < count; i++)
    BGFS_ASSERT(load_refcount(copy, order, i) == load_refcount(block, order, i),
                "a count survives being written, beside its neighbours");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 2 || size > 4096)
    return 0;
  entry_rules rules;
  rules.g.cluster_bits = 9 + data[0] % 13;
  rules.version = 2 + data[1] % 2;
  rules.has_data_file = (data[1] & 2) != 0;
  rules.g.is_extended = (data[1] & 4) != 0 && rules.g.cluster_bits >= 14;
  const auto table = std::as_bytes(std::span(data, size)).subspan(2);
  for (u64 i = 0; (i + 1) * rules.g.l2_entry_bytes() <= table.size(); i++)
    read_entry(rules, load_entry(rules.g, table, i));
  for (unsigned order = 0; order <= refcount_order_max; order++)
    read_refcounts(table.first(table.size() / 8 * 8), order);
  return 0;
}
