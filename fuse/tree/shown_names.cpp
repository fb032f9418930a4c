// SPDX-License-Identifier: MIT
#include "fuse/tree/shown_names.h"

#include "graph/base/text.h"

#include <fmt/format.h>

namespace bgfs {
namespace {

// The front of an escaped name: neither a character nor a %XX is cut in two.
std::string_view front_of(std::string_view name, std::size_t length_max) {
  std::size_t length = 0;
  while (length < name.size()) {
    const bool is_escape = name[length] == '%' && length + 2 < name.size();
    const std::size_t next =
        is_escape ? 3 : std::max<std::size_t>(character_length(name.substr(length)), 1);
    if (length + next > length_max)
      break;
    length += next;
  }
  return name.substr(0, length);
}

// `times`: how often the id is said, to tell it from another's name that looks the same. Empty:
// there is no room for it.
std::string name_with_id(std::string_view escaped, std::string_view id, unsigned times) {
  std::string suffix;
  for (unsigned i = 0; i < times; i++)
    suffix += "%id=" + escape_name(id);
  if (suffix.size() > shown_names::length_max)
    return {};
  return std::string(front_of(escaped, shown_names::length_max - suffix.size())) + suffix;
}

} // namespace

shown_names::shown_names(std::span<const named_item> items) : names_(items.size()) {
  std::vector<std::string> escaped;
  for (const named_item& item : items)
    escaped.push_back(escape_name(item.name));
  // What can be shown as it is comes first, so that mkdir(2) makes the name that it was given.
  for (const bool is_plain : {true, false})
    for (std::size_t i = 0; i < items.size(); i++)
      if (!escaped[i].empty() && escaped[i].size() <= length_max &&
          (escaped[i] == items[i].name) == is_plain)
        claim(i, escaped[i]);
  for (std::size_t i = 0; i < items.size(); i++) {
    constexpr unsigned tries = 3; // names that look like that may be there, too
    for (unsigned times = 1; names_[i].empty() && times <= tries; times++) {
      std::string with_id = name_with_id(escaped[i], items[i].id, times);
      if (!with_id.empty())
        claim(i, std::move(with_id));
    }
  }
  // Not listed, unless it is another's name.
  for (std::size_t i = 0; i < items.size(); i++)
    if (std::string with_id = name_with_id(escaped[i], items[i].id, 1); !with_id.empty())
      by_name_.emplace(std::move(with_id), i);
}

// Who comes first has it.
void shown_names::claim(std::size_t index, std::string name) {
  if (by_name_.emplace(name, index).second)
    names_[index] = std::move(name);
}

i64 shown_names::find(std::string_view name) const {
  const auto at = by_name_.find(std::string(name));
  return at == by_name_.end() ? -1 : static_cast<i64>(at->second);
}

} // namespace bgfs
