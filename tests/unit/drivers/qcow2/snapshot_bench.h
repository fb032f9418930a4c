// SPDX-License-Identifier: MIT
// Internal snapshots in the qcow2 tests: taken, reverted to and read through the graph.
#pragma once

#include "drivers/format/internal_snapshot/internal_snapshot.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

namespace bgfs::test {

inline snapshot_key named(std::string name) {
  return {.id = {}, .name = std::move(name)};
}
inline snapshot_key with_id(std::string id) {
  return {.id = std::move(id), .name = {}};
}

// The operations of a graph on one node, with a fixed date.
struct snapshot_actions {
  graph_bench& bench;
  node& image;

  result<std::string> try_create(std::string name, u64 vm_state_length = 0) const {
    return bench.run(bench.graph().create_snapshot(image, {.name = std::move(name),
                                                           .date_seconds = 1'700'000'000,
                                                           .date_nanoseconds = 5,
                                                           .vm_clock_nanoseconds = 7,
                                                           .vm_state_length = vm_state_length}));
  }
  std::string create(std::string name, u64 vm_state_length = 0) const {
    const result<std::string> id = try_create(std::move(name), vm_state_length);
    REQUIRE_MESSAGE(id.has_value(), (id ? std::string() : id.error().message()));
    return *id;
  }
  result<> try_remove(snapshot_key which) const {
    return bench.run(bench.graph().delete_snapshot(image, std::move(which)));
  }
  void remove(snapshot_key which) const {
    bench.must(bench.graph().delete_snapshot(image, std::move(which)));
  }
  result<> try_revert(snapshot_key which) const {
    return bench.run(bench.graph().revert_to_snapshot(image, std::move(which)));
  }
  void revert(snapshot_key which) const {
    bench.must(bench.graph().revert_to_snapshot(image, std::move(which)));
  }
  void rename(snapshot_key which, std::string name) const {
    bench.must(bench.graph().rename_snapshot(image, std::move(which), std::move(name)));
  }
  [[nodiscard]] std::vector<snapshot_info> list() const {
    auto all = bench.graph().snapshots(image);
    REQUIRE(all.has_value());
    return *std::move(all);
  }
};

// A node that shows a snapshot of the node `image`, which is open.
inline spec_builder view_spec(const std::string& node_name, const std::string& image,
                              const snapshot_key& which) {
  spec_builder s(node_name, internal_snapshot_driver_type);
  s.set("read-only", true);
  if (which.id)
    s.set("snapshot-id", *which.id);
  if (which.name)
    s.set("snapshot-name", *which.name);
  s.child("file", image.c_str());
  return s;
}

} // namespace bgfs::test
