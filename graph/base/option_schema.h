// SPDX-License-Identifier: MIT
// What options something has: names, types, defaults, help. One schema drives validation, defaults,
// `bgfs drivers NAME`, create's `-o help` and the reference pages. Schemas are constexpr values.
#pragma once

#include "graph/base/result.h"
#include "graph/base/value.h"

#include <map>
#include <span>

namespace bgfs {

enum class option_type : u8 {
  boolean, // true, false, on, off, yes, no
  integer, // a whole number
  size,    // bytes: 4096, 64K, 20G, ... (powers of 1024)
  text,
  choice,   // one of `choices`
  duration, // 5s, 10ms, 0
  choices,  // a list of `choices`
  groups,   // a list of maps, each of which passes the schema `members`
};

struct option_schema;

struct option {
  std::string_view name; // nested ones with dots: "cache.direct" is `cache: {direct: ...}` in YAML
  option_type type = option_type::text;
  std::string_view help;
  // The default, written as a user would; empty: absent unless given.
  std::string_view default_text = {};
  std::span<const std::string_view> choices = {};
  bool is_required = false;
  bool is_mutable = false; // may change while the node is open (faces.h, reopenable)
  bool is_strong = false;  // decides what bytes are seen: part of a node's canonical name
  // A file of the host: in YAML relative to the YAML file, and refused inside our own mount.
  bool is_host_path = false;
  // Bounds of integers, sizes and durations (in milliseconds), inclusive.
  u64 minimum = 0;
  u64 maximum = ~u64{0} >> 1;
  u64 multiple_of = 1;
  const option_schema* members = nullptr; // of groups
};

struct option_schema {
  std::string_view owner; // for messages: "driver 'qcow2'"
  std::span<const option> options;
};

class options;

// An option's value once its type is known: number for integers, sizes and durations
// (milliseconds), text for text and choices; lists of them.
using option_data = std::variant<std::monostate, bool, u64, std::string, std::vector<std::string>,
                                 std::vector<options>>;

// Options that have passed their schema. Asking for one that the schema does not have is a bug.
class options {
public:
  [[nodiscard]] bool is_set(std::string_view name) const; // given, not defaulted
  [[nodiscard]] bool flag(std::string_view name) const;
  [[nodiscard]] u64
  number(std::string_view name) const; // integers, sizes; milliseconds of durations
  [[nodiscard]] std::optional<u64> maybe_number(std::string_view name) const;
  [[nodiscard]] const std::string&
  text(std::string_view name) const; // text and choices; "" if absent
  [[nodiscard]] std::span<const std::string> texts(std::string_view name) const; // of `choices`
  [[nodiscard]] std::span<const options> groups(std::string_view name) const;
  [[nodiscard]] const source_mark& mark(std::string_view name) const;
  // Whether both come to the same, given or by default.
  [[nodiscard]] bool is_same(const options& other, std::string_view name) const;

  // Everything given, as nested values; for the definition and options views.
  [[nodiscard]] value given() const;
  // Everything, defaults included.
  [[nodiscard]] value effective() const;
  // Whether all come to the same, given or by default.
  friend bool operator==(const options& a, const options& b);

private:
  friend class options_builder;
  struct entry {
    option_type type = option_type::text;
    option_data data;
    bool is_given = false;
    source_mark mark; // of what is not given: where it could have been
  };
  [[nodiscard]] const entry& at(std::string_view name) const;
  [[nodiscard]] value nested(bool with_defaults) const;
  std::map<std::string, entry, std::less<>> entries_;
};

// Lists are also maps with the members 0, 1, 2, ... - what "name.0=a,name.1=b" becomes.
//
// Holds a map against one or more schemas at once (a driver's own and the generic ones of every
// node). Nested maps are flattened to dotted names. Keys in `taken` are somebody else's (children,
// driver, node-name). Unknown keys fail with the place, the owner's name and the nearest known
// name; wrong types and values with what was allowed. `subject` ("node 'web'") stands in the
// messages between the place and what is wrong.
[[nodiscard]] result<options> validate_options(std::span<const option_schema* const> schemas,
                                               const value& given,
                                               std::span<const std::string_view> taken = {},
                                               std::string_view subject = {});

// For what goes on with other options: error_kind::unsupported, with the option's name, if one
// differs that is not mutable.
[[nodiscard]] result<> check_only_mutable_change(const option_schema& schema, const options& before,
                                                 const options& after);

// Sets "cache.direct" as `cache: {direct: ...}` in a map. False, and nothing is set, if a part of
// the name is there already and not a map, or the whole is a map and would be lost.
[[nodiscard]] bool set_nested(value& into, std::string_view name, value v);

// "a=b,c.d=e" as -o of create takes it (a doubled comma stands for one), nested at the dots; values
// stay text, which validate_options understands for every type. A name alone is "on".
[[nodiscard]] result<value> parse_option_string(std::string_view text);
// As a value in such a text: its commas are doubled.
[[nodiscard]] std::string quote_option_value(std::string_view value);

} // namespace bgfs
