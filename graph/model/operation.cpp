// SPDX-License-Identifier: MIT
#include "graph/model/operation.h"

namespace bgfs {

std::string_view to_string(operation what) {
  switch (what) {
  case operation::backup_source:
    return "backup-source";
  case operation::backup_target:
    return "backup-target";
  case operation::change:
    return "change";
  case operation::commit_source:
    return "commit-source";
  case operation::commit_target:
    return "commit-target";
  case operation::dataplane:
    return "dataplane";
  case operation::drive_del:
    return "drive-del";
  case operation::eject:
    return "eject";
  case operation::external_snapshot:
    return "external-snapshot";
  case operation::internal_snapshot:
    return "internal-snapshot";
  case operation::internal_snapshot_delete:
    return "internal-snapshot-delete";
  case operation::mirror_source:
    return "mirror-source";
  case operation::mirror_target:
    return "mirror-target";
  case operation::resize:
    return "resize";
  case operation::stream:
    return "stream";
  case operation::replace:
    return "replace";
  }
  return "unknown";
}

const std::string* operation_blockers::find(operation what) const {
  for (const blocker& b : all_)
    if ((b.forbidden & bit(what)) != 0)
      return &b.reason;
  return nullptr;
}

} // namespace bgfs
