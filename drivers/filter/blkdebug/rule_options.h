// SPDX-License-Identifier: MIT
// Rules as options and in a file of the form
//   [inject-error]
//   event = "l2_load"
//   errno = "5"
// whose keys are the options' names, delay-ns also delay_ns.
#pragma once

#include "drivers/filter/blkdebug/debug_rules.h"
#include "graph/base/option_schema.h"

namespace bgfs::blkdebug {

// Of one rule of each kind.
extern const option_schema inject_options;
extern const option_schema state_options;

[[nodiscard]] inject_rule parse_inject(const options& given);
[[nodiscard]] state_rule parse_state(const options& given);

// The content of such a file; `name` stands in messages.
[[nodiscard]] result<rule_list> parse_rules(std::string_view text, const std::string& name);

// Longest file of rules, and most rules in it: what people write by hand is far below.
inline constexpr std::size_t rules_length_max = 1 << 20;
inline constexpr std::size_t rules_count_max = 4096;

// Reads it; on the caller's thread.
[[nodiscard]] result<rule_list> read_rules(const std::string& path);

} // namespace bgfs::blkdebug
