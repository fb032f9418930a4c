// SPDX-License-Identifier: MIT
// Names that images hold, as names of files. New ones are shown as they are (check_new_name); those
// made elsewhere may hold any bytes, and may be there twice. Pure.
#pragma once

#include "graph/base/ints.h"
#include "graph/base/text.h"

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace bgfs {

// Something that has a name, and an id that tells it from others of that name.
struct named_item {
  std::string_view name;
  std::string_view id;
};

// The names of a list of things, and what each stands for. The first of a name has it; later ones,
// and those without a name or with one that no file can have, are NAME%id=ID, as much of NAME as
// there is room for. That also finds the first.
class shown_names {
public:
  static constexpr std::size_t length_max = 255; // of a file name

  shown_names() = default;
  explicit shown_names(std::span<const named_item> items);

  // In the order of the items; empty: its id is so long, or there twice with one name, that there
  // is no name left. It gets one when the one before it is gone.
  [[nodiscard]] const std::vector<std::string>& all() const { return names_; }
  // The place of the item in the list; -1: there is none.
  [[nodiscard]] i64 find(std::string_view name) const;

private:
  void claim(std::size_t index, std::string name);
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

} // namespace bgfs
