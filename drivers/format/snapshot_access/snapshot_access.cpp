// SPDX-License-Identifier: MIT
#include "drivers/format/snapshot_access/snapshot_access.h"

#include "graph/model/graph.h"

namespace bgfs {
namespace {

constexpr option_schema snapshot_access_options{"driver 'snapshot-access'", {}};

// Not what the child shows now: neither its limits nor its changes are ours.
constexpr child_slot slots[] = {{"file", role::primary}};

class snapshot_access_driver final : public driver,
                                     public readable,
                                     public mappable,
                                     public discardable {
public:
  snapshot_access_driver(const node& self, node& filter)
      : disk_(*filter.as_frozen_disk()), blockers_(filter.blockers()),
        token_(blockers_.add(bit(node_operation::change) | bit(node_operation::replace),
                             fmt::format("what it keeps is open as node '{}'", self.name()))) {}

  [[nodiscard]] u64 length() const override { return disk_.frozen_length(); }
  task<void> close() override {
    blockers_.remove(token_);
    co_return;
  }
  // The instant stays as it is, whoever writes to the live disk.
  [[nodiscard]] permissions child_permissions(const edge&, permissions) const override {
    return {permission::consistent_read, permission::all};
  }

  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return disk_.read_frozen(offset, bytes);
  }
  task<extent> map(byte_range range) override { return disk_.map_frozen(range); }
  // It changes with what is written to the live disk.
  [[nodiscard]] std::optional<extent> try_map(byte_range) override { return std::nullopt; }
  task<void> discard(byte_range range) override { return disk_.discard_frozen(range); }

private:
  frozen_disk& disk_;
  operation_blockers& blockers_;
  operation_blockers::token token_;
};

task<std::unique_ptr<driver>> open_snapshot_access(open_request request) {
  node& filter = request.children[0]->child();
  if (filter.as_frozen_disk() == nullptr)
    co_return fail(error_kind::unsupported,
                   "{} keeps no instant that could be shown; 'file' has to be a node with driver "
                   "'copy-before-write'",
                   filter.describe());
  co_return std::make_unique<snapshot_access_driver>(request.self, filter);
}

} // namespace

const driver_type snapshot_access_driver_type{
    .name = "snapshot-access",
    .kind = driver_kind::format,
    .summary = "what a disk held when the filter 'copy-before-write' over it was opened",
    .children = slots,
    .open_options = &snapshot_access_options,
    .open = open_snapshot_access,
};

} // namespace bgfs
