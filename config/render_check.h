// SPDX-License-Identifier: MIT
// The outcome of a check as `qemu-img check` shows it.
#pragma once

#include "graph/model/check.h"

#include <string>

namespace bgfs {

// How the image is, for people, with a newline at the end.
[[nodiscard]] std::string render_check(const check_result& found);
// What a repair has done, before the image is checked again.
[[nodiscard]] std::string render_repair(const check_result& done);
// Keys of numbers that are 0 are left out, but for check-errors.
[[nodiscard]] std::string render_check_json(const check_result& found, const std::string& filename,
                                            std::string_view format);

} // namespace bgfs
