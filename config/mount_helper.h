// SPDX-License-Identifier: MIT
// mount(8) and umount(8) call a program named for the type of the file system, with arguments of
// their own form. bgfs is that program under the names mount.bgfs, mount.fuse.bgfs, umount.bgfs and
// umount.fuse.bgfs.
#pragma once

#include "graph/base/result.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bgfs {

// The arguments of bgfs that do what the helper was asked to; nothing if `program` is no helper's
// name. Options that change nothing here (-n, -v, -s, -t, -N of the namespace we are in) are left
// out; what would change something and cannot be done is an error.
[[nodiscard]] std::optional<result<std::vector<std::string>>>
translate_helper_call(const std::string& program, std::span<const std::string> given);

} // namespace bgfs
