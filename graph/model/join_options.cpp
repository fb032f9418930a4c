// SPDX-License-Identifier: MIT
#include "graph/model/join_options.h"

#include <algorithm>

namespace bgfs {
namespace {

void flatten_into(flat_options& all, const value::map& members, const std::string& prefix) {
  for (const auto& [key, member] : members) {
    if (member.as_map() == nullptr) {
      all.emplace_back(prefix + key, member);
    } else {
      flatten_into(all, *member.as_map(), prefix + key + ".");
    }
  }
}

} // namespace

flat_options flatten_options(const value& nested) {
  flat_options all;
  if (nested.as_map() != nullptr)
    flatten_into(all, *nested.as_map(), "");
  return all;
}

bool has_option(const flat_options& all, std::string_view name) {
  return std::ranges::find(all, name, &flat_options::value_type::first) != all.end();
}

value join_options(const driver_type& type, const value& before, const value& next) {
  flat_options kept = flatten_options(before);
  const flat_options given = flatten_options(next);
  if (type.drop_replaced != nullptr)
    type.drop_replaced(kept, given);
  std::erase_if(kept, [&](const auto& o) { return has_option(given, o.first); });
  value joined = value::map();
  for (const flat_options* all : {&given, &std::as_const(kept)})
    for (const auto& [name, v] : *all)
      // An option and its parts exclude each other: what is given now stands.
      (void)set_nested(joined, name, v);
  return joined;
}

} // namespace bgfs
