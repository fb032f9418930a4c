// SPDX-License-Identifier: MIT
// The outcome of a check as `qemu-img check` shows it.
#pragma once

#include "graph/base/value.h"
#include "graph/model/check.h"

#include <string>

namespace bgfs {

// How the image is, for people, with a newline at the end.
[[nodiscard]] std::string render_check(const check_result& found);
// What a repair has done, before the image is checked again.
[[nodiscard]] std::string render_repair(const check_result& done);
// Keys of numbers that are 0 are left out, but for check-errors.
[[nodiscard]] value check_value(const check_result& found, const std::string& filename,
                                std::string_view format);
[[nodiscard]] std::string render_check_json(const check_result& found, const std::string& filename,
                                            std::string_view format);

// The opposite of it; what is not there is 0.
[[nodiscard]] check_result parse_check(const value& json);

} // namespace bgfs
