// SPDX-License-Identifier: MIT
#include "config/document_values.h"

#include <filesystem>

namespace bgfs {

result<const value::list*> find_list(const value& whole, std::string_view key) {
  const value* v = whole.find(key);
  if (v == nullptr || v->is_null())
    return nullptr;
  if (v->as_list() == nullptr)
    return wrong(v->mark, "'{}' is a list, not {}: each of its entries begins with '- '", key,
                 v->kind_name());
  return v->as_list();
}

result<std::vector<std::string>> read_texts(const value& owner, std::string_view key) {
  std::vector<std::string> texts;
  BGFS_TRY(const value::list* list, find_list(owner, key));
  if (list == nullptr)
    return texts;
  for (const value& item : *list) {
    if (item.as_text() == nullptr || item.as_text()->empty())
      return wrong(item.mark, "'{}' is a list of texts; this is {}", key,
                   item.as_text() == nullptr ? item.kind_name() : "empty");
    texts.push_back(*item.as_text());
  }
  return texts;
}

std::string absolute_in(const std::string& directory, const std::string& name) {
  return (std::filesystem::path(directory) / name).lexically_normal().string();
}

} // namespace bgfs
