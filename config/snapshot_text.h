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

} // namespace bgfs
