// SPDX-License-Identifier: MIT
// A tree of plain values with the place each was read from: what YAML, json: names and command
// lines become before a schema gives it meaning, and what drivers describe themselves with.
#pragma once

#include "graph/base/ints.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace bgfs {

// Where something was written. `file` is empty for what no file holds (a command line).
struct source_mark {
  std::shared_ptr<const std::string> file; // shared by every mark of one document
  u32 line = 0;                            // from 1; 0: no line is known
  u32 column = 0;                          // from 1

  // "web.yaml:14:7", "web.yaml", or "" when nothing is known.
  [[nodiscard]] std::string to_string() const;
  // "web.yaml:14:7: ", ready to stand before a message, or "".
  [[nodiscard]] std::string prefix() const;
};

class value {
public:
  using list = std::vector<value>;
  using map = std::vector<std::pair<std::string, value>>; // in the order it was written

  value() = default;
  value(bool b) : data_(b) {}                          // NOLINT: built like a literal
  value(i64 i) : data_(i) {}                           // NOLINT
  value(int i) : data_(static_cast<i64>(i)) {}         // NOLINT
  value(u64 i);                                        // NOLINT: above i64, a double
  value(u32 i) : data_(static_cast<i64>(i)) {}         // NOLINT
  value(double d) : data_(d) {}                        // NOLINT
  value(std::string s) : data_(std::move(s)) {}        // NOLINT
  value(std::string_view s) : data_(std::string(s)) {} // NOLINT
  value(const char* s) : data_(std::string(s)) {}      // NOLINT
  value(list l) : data_(std::move(l)) {}               // NOLINT
  value(map m) : data_(std::move(m)) {}                // NOLINT

  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  [[nodiscard]] const bool* as_bool() const { return std::get_if<bool>(&data_); }
  [[nodiscard]] const i64* as_integer() const { return std::get_if<i64>(&data_); }
  [[nodiscard]] const double* as_real() const { return std::get_if<double>(&data_); }
  [[nodiscard]] const std::string* as_text() const { return std::get_if<std::string>(&data_); }
  [[nodiscard]] const list* as_list() const { return std::get_if<list>(&data_); }
  [[nodiscard]] list* as_list() { return std::get_if<list>(&data_); }
  [[nodiscard]] const map* as_map() const { return std::get_if<map>(&data_); }
  [[nodiscard]] map* as_map() { return std::get_if<map>(&data_); }

  // The member of a map, or null.
  [[nodiscard]] const value* find(std::string_view key) const;
  // Adds or replaces a member; a null value becomes a map first.
  value& set(std::string key, value v);

  // What kind of value it is, for messages: "a list", "text", ...
  [[nodiscard]] std::string_view kind_name() const;

  source_mark mark;

private:
  std::variant<std::monostate, bool, i64, double, std::string, list, map> data_;
};

// Compact JSON (indent 0), or indented by so many spaces a level.
[[nodiscard]] std::string to_json(const value& v, unsigned indent = 0);

} // namespace bgfs
