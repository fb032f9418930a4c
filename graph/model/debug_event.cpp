// SPDX-License-Identifier: MIT
#include "graph/model/debug_event.h"

#include <algorithm>

namespace bgfs {
namespace {

constexpr bool is_in_order() {
  for (std::size_t i = 0; i < debug_event_count; i++)
    if (static_cast<std::size_t>(debug_event_table[i].event) != i)
      return false;
  return debug_event_table.back().event == debug_event::cor_write;
}
static_assert(is_in_order(), "the table is indexed by the event");

} // namespace

std::string_view to_string(debug_event event) {
  return debug_event_table[static_cast<std::size_t>(event)].name;
}

std::optional<debug_event> find_debug_event(std::string_view name) {
  const auto* const found =
      std::ranges::find(debug_event_table, name, &debug_event_description::name);
  return found == debug_event_table.end() ? std::nullopt : std::optional(found->event);
}

} // namespace bgfs
