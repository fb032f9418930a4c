// SPDX-License-Identifier: MIT
#include "fuse/operations/caller.h"

#include "fuse/tree/process.h"

#include <algorithm>

namespace bgfs {

bool mode_grants(mode_t mode, bool is_owner, bool is_in_group, file_right wanted) {
  const unsigned shift = is_owner ? 6 : is_in_group ? 3 : 0;
  return ((mode >> shift) & static_cast<mode_t>(wanted)) != 0;
}

bool may(const fuse_in_header& request, const attributes& what, file_right wanted) {
  if (request.uid == 0)
    return true;
  const bool is_owner = request.uid == what.owner;
  bool is_in_group = request.gid == what.group;
  if (!is_owner && !is_in_group) {
    const std::vector<gid_t> groups = groups_of(request.pid);
    is_in_group = std::ranges::find(groups, what.group) != groups.end();
  }
  return mode_grants(what.mode, is_owner, is_in_group, wanted);
}

} // namespace bgfs
