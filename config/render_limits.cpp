// SPDX-License-Identifier: MIT
#include "config/render_limits.h"

#include <algorithm>
#include <fmt/core.h>

namespace bgfs {

value limits_value(const block_limits& limits) {
  value v = value::map();
  const auto set_if_any = [&v](std::string_view name, u64 number) {
    if (number != 0)
      v.set(std::string(name), number);
  };
  v.set("request-alignment", u64{limits.request_alignment});
  set_if_any("max-discard", limits.max_discard);
  set_if_any("discard-alignment", limits.discard_alignment);
  set_if_any("max-write-zeroes", limits.max_write_zeroes);
  set_if_any("write-zeroes-alignment", limits.write_zeroes_alignment);
  set_if_any("opt-transfer", limits.opt_transfer);
  set_if_any("max-transfer", limits.max_transfer);
  set_if_any("max-hw-transfer", limits.max_hw_transfer);
  v.set("max-iov", u64{limits.max_vectors});
  set_if_any("max-hw-iov", limits.max_hw_vectors);
  v.set("min-mem-alignment", u64{limits.min_memory_alignment});
  v.set("opt-mem-alignment", u64{limits.opt_memory_alignment});
  return v;
}

std::string render_limits(const value& limits) {
  std::string text = "Block limits:\n";
  for (const auto& [name, number] : *limits.as_map()) {
    std::string words = name;
    std::ranges::replace(words, '-', ' ');
    text += fmt::format("    {}: {}\n", words, *number.as_integer());
  }
  return text;
}

} // namespace bgfs
