// SPDX-License-Identifier: MIT
// Commands that are written to views, through a file or as an attribute.
#pragma once

#include "fuse/tree/view_file.h"

namespace bgfs {

// Carries out what was written to the view that `place` finds. `payload` is copied before it
// suspends. Not by who holds mount_state::looking.
[[nodiscard]] task<void> run_command(const view& what, view_place place, u32 pid,
                                     std::span<const std::byte> payload);

// As what it is logged: "ctl:revert".
[[nodiscard]] std::string verb_of(const view& what, std::span<const std::byte> payload);

} // namespace bgfs
