// SPDX-License-Identifier: MIT
// Internal snapshots (reference sections 1.13, 3.10): states of a disk that its image keeps beside
// the live one. The values; the faces are in faces.h, what is done with them in graph.h.
#pragma once

#include "graph/base/ints.h"
#include "graph/base/result.h"

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bgfs {

// Ids are given by the format and name one snapshot of a sound image; names may be there twice.
struct snapshot_info {
  std::string id;
  std::string name;
  u32 date_seconds = 0; // since the Epoch
  u32 date_nanoseconds = 0;
  u64 vm_clock_nanoseconds = 0; // how long the guest had been running
  std::optional<u64> icount;    // instructions the guest had executed, where they are counted
  u64 vm_state_length = 0;      // bytes; 0: the disk alone was kept
  u64 disk_length = 0;          // bytes

  friend bool operator==(const snapshot_info&, const snapshot_info&) = default;
};

// What a new snapshot is to say of itself. Its disk length is the disk's.
struct new_snapshot {
  std::string name;
  u32 date_seconds = 0;
  u32 date_nanoseconds = 0;
  u64 vm_clock_nanoseconds = 0;
  std::optional<u64> icount;
  // So many bytes of the node's VM state (face vmstate_store) belong to the snapshot, which takes
  // them over: the live disk has none afterwards.
  u64 vm_state_length = 0;
};

// Which snapshot is meant: the first that has all that is given. At least one is.
struct snapshot_key {
  std::optional<std::string> id;
  std::optional<std::string> name;

  [[nodiscard]] bool matches(const snapshot_info& s) const {
    return (!id || *id == s.id) && (!name || *name == s.name);
  }
};

// "snapshot 'before'", "snapshot with id '3'", "snapshot 'before' with id '3'".
[[nodiscard]] std::string describe(const snapshot_key& key);

// The place of the first that matches; error_kind::not_found names what is there instead.
[[nodiscard]] result<std::size_t> find_snapshot(std::span<const snapshot_info> all,
                                                const snapshot_key& key);

// What new names may be: UTF-8, 1 to 240 bytes, without '/' and control characters, so that each is
// the name of a file. Images made elsewhere may hold others.
inline constexpr std::size_t snapshot_name_length_max = 240;
[[nodiscard]] result<> check_snapshot_name(std::string_view name);
// The same rule for other things that are shown as files: `what` says which, "bitmap".
[[nodiscard]] result<> check_new_name(std::string_view what, std::string_view name);

} // namespace bgfs
