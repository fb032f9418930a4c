// SPDX-License-Identifier: MIT
// `bgfs convert --bitmaps`: what the persistent bitmaps of the source tell of its disk is as true
// of a copy.
#pragma once

#include "graph/model/node.h"

namespace bgfs {

// The definitions to be copied, in the order of the image. Inconsistent ones tell nothing: an
// error, or left out with `warn` called for each.
[[nodiscard]] result<std::vector<bitmap_definition>>
choose_bitmaps(const node& source, bool skips_broken, const std::function<void(std::string)>& warn);

// Whether the target can hold them beside those it has. Nothing has been copied yet.
[[nodiscard]] result<> check_can_hold(const node& target, const node& source,
                                      std::span<const bitmap_definition> chosen);

// All of them, or none. The disk was copied, and nobody writes to either.
task<void> copy_bitmaps(node& source, node& target, std::vector<bitmap_definition> chosen);

} // namespace bgfs
