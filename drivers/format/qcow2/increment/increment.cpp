// SPDX-License-Identifier: MIT
// `qcow2-increment`: what a bitmap says has changed, as the file of a qcow2 image without a backing
// name. Changed clusters are data, or zero clusters where the disk reads as zeroes; clean ones are
// unallocated. Its `file` is a disk that does not change (snapshot-access); the bitmap is read when
// the node is opened.
#include "drivers/format/qcow2/increment/increment_layout.h"
#include "drivers/format/qcow2/qcow2.h"
#include "graph/io/sleep.h"
#include "graph/model/graph.h"

#include <bit>

namespace bgfs {

namespace {

using qcow2::increment_content;
using qcow2::increment_layout;
using qcow2::ranked_bits;

constexpr u64 cluster_min = 4 * KiB;
constexpr u64 cluster_max = 2 * MiB;

constexpr option option_list[] = {
    {.name = "bitmap-node", .help = "the node whose bitmap it is", .is_strong = true},
    {.name = "bitmap", .help = "the name of the bitmap", .is_strong = true},
};
constexpr option_schema increment_options{"driver 'qcow2-increment'", option_list};
constexpr child_slot slots[] = {{"file", role::primary}};

class increment_driver final : public driver, public readable, public mappable {
public:
  increment_driver(edge& disk, increment_layout layout) : disk_(disk), layout_(std::move(layout)) {}

  [[nodiscard]] u64 length() const override { return layout_.length(); }
  task<void> close() override { co_return; }
  [[nodiscard]] permissions child_permissions(const edge&, permissions) const override {
    return {permission::consistent_read, permission::all};
  }

  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    layout_.render(offset, bytes);
    co_return;
  }
  task<extent> map(byte_range range) override { co_return at(range); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override { return at(range); }

private:
  [[nodiscard]] extent at(byte_range range) const {
    const increment_layout::place found = layout_.find(range);
    if (!found.guest)
      return {.length = found.length, .kind = extent_kind::encoded};
    const u64 left = disk_.length() > *found.guest ? disk_.length() - *found.guest : 0;
    if (left == 0) // what the last cluster has behind the end of the disk
      return {.length = found.length, .kind = extent_kind::zero};
    return {.length = std::min(found.length, left),
            .kind = extent_kind::data,
            .where = &disk_,
            .offset = *found.guest,
            .is_recursive = true};
  }

  edge& disk_;
  increment_layout layout_;
};

result<const dirty_bitmap*> find_bitmap(const open_request& request) {
  const std::string& node_name = request.given.text("bitmap-node");
  const std::string& name = request.given.text("bitmap");
  const std::string prefix = request.given.mark("bitmap").prefix();
  if (node_name.empty() || name.empty())
    return fail(error_kind::invalid_argument,
                "{}'bitmap-node' and 'bitmap' say what has changed; both are needed", prefix);
  const node* const owner = request.self.owner().find(node_name);
  if (owner == nullptr)
    return fail(error_kind::not_found, "{}'bitmap-node' names '{}', which is not open", prefix,
                node_name);
  const dirty_bitmap* const found = owner->bitmaps().find(name);
  if (found == nullptr)
    return fail(error_kind::not_found, "{}{} has no bitmap '{}'", prefix, owner->describe(), name);
  constexpr std::string_view advice = "make a full backup, and a new bitmap with it";
  if (found->is_inconsistent())
    return fail(error_kind::unsupported, "bitmap '{}' cannot be trusted: {}; {}", name,
                found->definition().inconsistency, advice);
  if (!found->is_complete())
    return fail(error_kind::busy, "the bits of bitmap '{}' have not been read", name);
  return found;
}

// Which clusters are data and which zeroes: asks the disk about every run that is dirty.
task<increment_content> classify(const edge& disk, const dirty_bitmap& bitmap) {
  const u64 cluster = std::clamp(std::bit_floor(bitmap.granularity()), cluster_min, cluster_max);
  const u64 clusters = divide_up(disk.length(), cluster);
  increment_content content{.disk_length = disk.length(),
                            .cluster_bits = static_cast<unsigned>(std::countr_zero(cluster)),
                            .data = ranked_bits(clusters),
                            .zero = ranked_bits(clusters)};
  time_slice slice; // there may be millions of runs, and requests beside
  u64 from = 0;
  for (;;) {
    const std::optional<byte_range> dirty = bitmap.next_dirty(from);
    if (!dirty || dirty->offset >= disk.length())
      break;
    const u64 first = std::max(align_down(dirty->offset, cluster), from);
    const u64 end = std::min(align_up(dirty->end(), cluster), disk.length());
    for (u64 at = first; at < end;) {
      const block_status s = co_await disk.child().status_above({at, end - at});
      BGFS_ASSERT(s.length > 0, "M5: a status makes progress");
      const u64 until = std::min(at + s.length, end);
      // A cluster that is only partly zero is data.
      const u64 whole = until == end ? end : align_down(until, cluster);
      const bool is_zero = s.is_zero && whole > at;
      const u64 next = is_zero ? whole : std::min(align_up(until, cluster), end);
      const u64 index = at / cluster;
      (is_zero ? content.zero : content.data).set_run(index, divide_up(next, cluster) - index);
      at = next;
      if (slice.is_used_up())
        co_await slice.next();
    }
    from = end;
  }
  content.data.seal();
  content.zero.seal();
  co_return content;
}

task<std::unique_ptr<driver>> open_increment(open_request request) {
  edge& disk = *request.children[0];
  const dirty_bitmap* const bitmap = co_await find_bitmap(request);
  if (!request.is_read_only)
    co_return fail(error_kind::permission,
                   "an increment cannot be written to; open it with 'read-only: true'");
  // The bitmap may go on recording while the disk is asked: what was dirty when the disk was as it
  // is counts, so a copy is looked at.
  dirty_bitmap copy(bitmap->definition(), bitmap->length(), dirty_bitmap::origin::added);
  copy.restore(bitmap->save());
  increment_content content = co_await classify(disk, copy);
  increment_layout layout = co_await increment_layout::create(std::move(content));
  co_return std::make_unique<increment_driver>(disk, std::move(layout));
}

} // namespace

const driver_type qcow2_increment_driver_type{
    .name = "qcow2-increment",
    .kind = driver_kind::format,
    .summary = "what a bitmap says has changed in a disk, as the file of a qcow2 image",
    .children = slots,
    .open_options = &increment_options,
    .open = open_increment,
};

} // namespace bgfs
