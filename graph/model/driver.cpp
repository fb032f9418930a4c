// SPDX-License-Identifier: MIT
#include "graph/model/driver.h"

#include "graph/model/edge.h"
#include "graph/model/node.h"
#include "graph/model/permission_plan.h"

#include <algorithm>

namespace bgfs {

std::string_view to_string(driver_kind kind) {
  switch (kind) {
  case driver_kind::protocol:
    return "protocol";
  case driver_kind::format:
    return "format";
  case driver_kind::filter:
    return "filter";
  }
  return "unknown";
}

std::string_view to_string(extent_kind kind) {
  switch (kind) {
  case extent_kind::data:
    return "data";
  case extent_kind::zero:
    return "zero";
  case extent_kind::unallocated:
    return "unallocated";
  case extent_kind::encoded:
    return "encoded";
  case extent_kind::end:
    return "end";
  }
  return "unknown";
}

permissions driver::child_permissions(const edge& child, permissions parents) const {
  return permissions_by_role(child.roles(), child.parent()->is_read_only(), parents);
}

result<std::string> driver::directory_name() const {
  const std::string name = exact_filename();
  const auto slash = name.rfind('/');
  if (slash == std::string::npos)
    return fail(error_kind::not_found, "which has no directory");
  return name.substr(0, slash + 1);
}

const driver_type* registry::find(std::string_view name) const {
  const auto at = std::ranges::find(types_, name, &driver_type::name);
  return at == types_.end() ? nullptr : *at;
}

const driver_type* registry::probe(std::span<const std::byte> head,
                                   std::string_view filename) const {
  const driver_type* surest = nullptr;
  int surest_score = 0;
  for (const driver_type* type : types_) {
    if (type->kind != driver_kind::format || type->probe == nullptr)
      continue;
    const int score = type->probe(head, filename);
    if (score > surest_score) {
      surest = type;
      surest_score = score;
    }
  }
  return surest;
}

std::vector<std::string_view> registry::names() const {
  std::vector<std::string_view> names;
  for (const driver_type* type : types_)
    names.push_back(type->name);
  std::ranges::sort(names);
  return names;
}

} // namespace bgfs
