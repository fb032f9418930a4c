// SPDX-License-Identifier: MIT
#include "graph/model/node_operation.h"

namespace bgfs {

std::string_view to_string(node_operation what) {
  switch (what) {
  case node_operation::backup_source:
    return "backup-source";
  case node_operation::backup_target:
    return "backup-target";
  case node_operation::change:
    return "change";
  case node_operation::commit_source:
    return "commit-source";
  case node_operation::commit_target:
    return "commit-target";
  case node_operation::dataplane:
    return "dataplane";
  case node_operation::drive_del:
    return "drive-del";
  case node_operation::eject:
    return "eject";
  case node_operation::external_snapshot:
    return "external-snapshot";
  case node_operation::internal_snapshot:
    return "internal-snapshot";
  case node_operation::internal_snapshot_delete:
    return "internal-snapshot-delete";
  case node_operation::mirror_source:
    return "mirror-source";
  case node_operation::mirror_target:
    return "mirror-target";
  case node_operation::resize:
    return "resize";
  case node_operation::stream:
    return "stream";
  case node_operation::replace:
    return "replace";
  case node_operation::dirty_bitmap:
    return "dirty-bitmap";
  }
  return "unknown";
}

const std::string* operation_blockers::find(node_operation what) const {
  for (const blocker& b : all_)
    if ((b.forbidden & bit(what)) != 0)
      return &b.reason;
  return nullptr;
}

} // namespace bgfs
