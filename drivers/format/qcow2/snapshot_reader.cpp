// SPDX-License-Identifier: MIT
// Reading a snapshot beside the live disk, at any time.
#include "drivers/format/qcow2/image.h"

namespace bgfs::qcow2 {

// Its tables and data are the snapshot's own or shared with others, and so are never written to;
// they stay as long as the snapshot does, which cannot be deleted while this lives.
class image::snapshot_reader final : public snapshot_view {
public:
  snapshot_reader(image& of, snapshot_info info, std::vector<u64> l1, std::string holder)
      : of_(of), info_(std::move(info)), l1_(std::move(l1)),
        hold_(of.views_.insert(of.views_.end(), {info_.id, std::move(holder)})) {}
  ~snapshot_reader() override { of_.views_.erase(hold_); }
  snapshot_reader(const snapshot_reader&) = delete;
  snapshot_reader& operator=(const snapshot_reader&) = delete;

  [[nodiscard]] const snapshot_info& info() const override { return info_; }

  task<extent> map(byte_range range) override {
    if (range.offset >= info_.disk_length)
      co_return extent{.kind = extent_kind::end};
    const guest_offset at(range.offset);
    const guest_run run =
        co_await of_.find_run(disk(), at, range.length, split_at::kind, metadata_lock::not_held);
    co_return of_.to_extent(disk(), at, run);
  }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override {
    if (range.offset >= info_.disk_length)
      return extent{.kind = extent_kind::end};
    const guest_offset at(range.offset);
    const std::optional<guest_run> run = of_.lookup(disk(), at, range.length, split_at::kind);
    if (!run || run->kind == subcluster_kind::invalid)
      return std::nullopt;
    return of_.to_extent(disk(), at, *run);
  }
  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return of_.read_guest(disk(), guest_offset(offset), bytes);
  }
  task<void> read_vmstate(u64 position, std::span<std::byte> bytes) override {
    const u64 length = info_.vm_state_length;
    if (position > length || bytes.size() > length - position)
      co_await fail(error_kind::out_of_range,
                    "the VM state of snapshot '{}' has {:#x} bytes; there are no {:#x} at {:#x}",
                    info_.name, length, bytes.size(), position);
    co_await of_.read_vmstate_of(disk(), position, bytes);
  }

private:
  [[nodiscard]] disk_state disk() const { return {&l1_, info_.disk_length, &info_.name}; }

  image& of_;
  snapshot_info info_;
  std::vector<u64> l1_;
  std::list<open_view>::iterator hold_;
};

// With the lock, so that it is not being deleted.
task<std::unique_ptr<snapshot_view>> image::open_snapshot(snapshot_key which, std::string holder) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  const std::size_t index = co_await find(which);
  const snapshot s = snapshots_[index];
  std::vector<u64> l1 = co_await load_snapshot_l1(s);
  co_return std::make_unique<snapshot_reader>(*this, to_info(s, header_.disk_length), std::move(l1),
                                              std::move(holder));
}

} // namespace bgfs::qcow2
