// SPDX-License-Identifier: MIT
// The roots of a mount in the order of their exports, and by name: a mount may have thousands.
#pragma once

#include "fuse/tree/exported_root.h"

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bgfs {

class root_list {
public:
  // The name of a root never changes.
  void push_back(root_pointer root) {
    by_name_.emplace(root->name(), root.get());
    all_.push_back(std::move(root));
  }
  void assign(std::vector<root_pointer> roots) {
    by_name_.clear();
    all_.clear();
    for (root_pointer& root : roots)
      push_back(std::move(root));
  }

  // Null: there is none of that name.
  [[nodiscard]] exported_root* find(std::string_view name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : at->second;
  }
  [[nodiscard]] auto begin() const { return all_.begin(); }
  [[nodiscard]] auto end() const { return all_.end(); }
  [[nodiscard]] std::size_t size() const { return all_.size(); }
  // A copy of it stays as it is while a reload changes the list.
  operator const std::vector<root_pointer>&() const { return all_; } // NOLINT: it is one

private:
  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  std::vector<root_pointer> all_;
  std::unordered_map<std::string, exported_root*, text_hash, std::equal_to<>> by_name_;
};

} // namespace bgfs
