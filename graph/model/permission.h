// SPDX-License-Identifier: MIT
// Who may do what to a node, and what they let others do (reference section 1.10). The bits are
// those of the image locks on disk: a bit i that is used locks byte 100+i, one not shared 200+i.
#pragma once

#include "graph/base/ints.h"

#include <string>

namespace bgfs {

using permission_set = u8;

namespace permission {
inline constexpr permission_set consistent_read = 0x1;
inline constexpr permission_set write = 0x2;
inline constexpr permission_set write_unchanged = 0x4; // writes that do not change what is read
inline constexpr permission_set resize = 0x8;
inline constexpr permission_set all = 0xf; // bit 0x10 is retired and stays unused
} // namespace permission

struct permissions {
  permission_set used = 0;
  permission_set shared = permission::all;
  friend bool operator==(const permissions&, const permissions&) = default;
};

// "consistent read, write" for messages; "nothing" for the empty set.
[[nodiscard]] std::string describe(permission_set set);

// For trace points: the same, made when it is asked for.
[[nodiscard]] inline auto names_of(permission_set set) {
  return [set] { return describe(set); };
}

// What a child is to its parent; an edge has one or more.
using child_role = u8;
namespace role {
inline constexpr child_role data = 0x1;     // guest data is stored there
inline constexpr child_role metadata = 0x2; // the format's own structures are
inline constexpr child_role filtered = 0x4; // same content as the parent
inline constexpr child_role backing = 0x8;  // read where the parent has nothing (copy on write)
inline constexpr child_role primary = 0x10; // the child that names the parent and takes its ioctls
inline constexpr child_role image = data | metadata | primary; // a format's `file`
} // namespace role

} // namespace bgfs
