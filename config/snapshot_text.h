// SPDX-License-Identifier: MIT
// Internal snapshots as people write and read them.
#pragma once

#include "graph/base/value.h"
#include "graph/model/snapshot.h"

namespace bgfs {

// "NAME" (or an id, which comes first), "snapshot.id=ID", "snapshot.name=NAME" or both with a
// comma: as options of driver 'internal-snapshot'.
[[nodiscard]] result<value> parse_snapshot(const std::string& text);

// The member "snapshots" of `qemu-img info --output=json`.
[[nodiscard]] value snapshots_value(std::span<const snapshot_info> all);

// The table of `qemu-img snapshot -l` and `info`, from snapshots_value; dates in local time.
[[nodiscard]] std::string render_snapshots(const value& snapshots);

// What `snapshot -a` and `-d` are given. The peer looks for a name to delete, but for an id first
// to apply (`prefers_id`); what only an id can be is found for both.
[[nodiscard]] result<snapshot_key> choose_snapshot(std::span<const snapshot_info> all,
                                                   const std::string& text, bool prefers_id);

// The opposite of snapshots_value, as far as names, ids and dates go.
[[nodiscard]] std::vector<snapshot_info> parse_snapshots(const value& list);

} // namespace bgfs
