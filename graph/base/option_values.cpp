// SPDX-License-Identifier: MIT
#include "graph/base/option_values.h"

#include "graph/base/assert.h"
#include "graph/base/text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

namespace bgfs {

namespace {

std::string_view describe(option_type type) {
  switch (type) {
  case option_type::boolean:
    return "true or false (on, off, yes, no)";
  case option_type::integer:
    return "a whole number";
  case option_type::size:
    return "a size (4096, 64K, 1.5G, ...)";
  case option_type::text:
    return "text";
  case option_type::choice:
    return "a choice";
  case option_type::duration:
    return "a duration (5s, 500ms, ...)";
  case option_type::choices:
  case option_type::groups:
    return "a list";
  }
  return "";
}

std::unexpected<error> is_not(option_type type, std::string_view what) {
  return fail(error_kind::invalid_argument, "is {}, not {}", describe(type), what);
}

result<option_data> read_boolean(const value& given) {
  if (const auto* b = given.as_bool())
    return option_data(*b);
  const auto* s = given.as_text();
  if (s == nullptr)
    return is_not(option_type::boolean, given.kind_name());
  if (*s == "true" || *s == "on" || *s == "yes")
    return option_data(true);
  if (*s == "false" || *s == "off" || *s == "no")
    return option_data(false);
  return is_not(option_type::boolean, fmt::format("'{}'", *s));
}

result<option_data> read_text(const value& given) {
  if (const auto* s = given.as_text())
    return option_data(*s);
  const bool is_scalar = given.as_list() == nullptr && given.as_map() == nullptr;
  return is_not(option_type::text,
                fmt::format("{}{}", given.kind_name(), is_scalar ? "; put it in quotes" : ""));
}

result<option_data> read_choice(const option& o, const value& given) {
  const std::string choices = fmt::format("{}", fmt::join(o.choices, ", "));
  const auto* s = given.as_text();
  if (s == nullptr)
    return fail(error_kind::invalid_argument, "is one of {}, not {}", choices, given.kind_name());
  if (std::ranges::find(o.choices, *s) == o.choices.end())
    return fail(error_kind::invalid_argument, "is one of {}, not '{}'{}", choices, *s,
                did_you_mean(*s, o.choices));
  return option_data(*s);
}

result<option_data> read_choices(const option& o, const value& given) {
  BGFS_TRY(const std::vector<value> members, list_members(given));
  std::vector<std::string> all;
  for (const value& member : members) {
    BGFS_TRY(option_data one, read_choice(o, member));
    all.push_back(std::get<std::string>(std::move(one)));
  }
  return option_data(std::move(all));
}

result<u64> parse_integer(const std::string& text) {
  u64 number = 0;
  const char* const end = text.data() + text.size();
  const auto [after, problem] = std::from_chars(text.data(), end, number);
  // A leading zero means octal to some and nothing to others: neither is guessed.
  const bool is_ambiguous = text.size() > 1 && text[0] == '0';
  if (problem != std::errc() || after != end || is_ambiguous)
    return is_not(option_type::integer, fmt::format("'{}'", text));
  return number;
}

// Sizes and durations that are written as text; the parser's message says what is allowed.
result<u64> parse_number(option_type type, const std::string& text) {
  if (type == option_type::integer)
    return parse_integer(text);
  result<u64> number = type == option_type::size ? parse_size(text) : parse_duration(text);
  if (!number)
    return fail(error_kind::invalid_argument, "cannot be read: {}", number.error().message());
  return number;
}

result<u64> read_whole(option_type type, const value& given) {
  if (const auto* s = given.as_text())
    return parse_number(type, *s);
  const auto* i = given.as_integer();
  if (i == nullptr)
    return is_not(type, given.kind_name());
  if (*i < 0)
    return fail(error_kind::invalid_argument, "is {}, but cannot be negative", *i);
  const auto number = static_cast<u64>(*i);
  if (type != option_type::duration)
    return number;
  return number > ~u64{0} / 1000 ? ~u64{0} : number * 1000;
}

std::string written(option_type type, u64 number) {
  if (type != option_type::duration)
    return std::to_string(number);
  return number % 1000 == 0 ? fmt::format("{}s", number / 1000) : fmt::format("{}ms", number);
}

result<option_data> read_number(const option& o, const value& given) {
  BGFS_TRY(const u64 number, read_whole(o.type, given));
  if (number < o.minimum || number > o.maximum)
    return fail(error_kind::invalid_argument, "is {}, outside its range of {} to {}",
                written(o.type, number), written(o.type, o.minimum), written(o.type, o.maximum));
  if (number % o.multiple_of != 0)
    return fail(error_kind::invalid_argument, "is {}, which is no multiple of {}",
                written(o.type, number), written(o.type, o.multiple_of));
  return option_data(number);
}

} // namespace

result<std::vector<value>> list_members(const value& given) {
  if (const value::list* list = given.as_list())
    return *list;
  if (given.as_map() == nullptr)
    return is_not(option_type::groups, given.kind_name());
  std::vector<value> members;
  for (std::size_t i = 0; i < given.as_map()->size(); i++) {
    const value* member = given.find(std::to_string(i));
    if (member == nullptr)
      return fail(
          error_kind::invalid_argument,
          "is a list of {} entries, but has none with the number {}; they are numbered from "
          "0",
          given.as_map()->size(), i);
    members.push_back(*member);
  }
  return members;
}

result<option_data> read_option(const option& o, const value& given) {
  switch (o.type) {
  case option_type::boolean:
    return read_boolean(given);
  case option_type::integer:
  case option_type::size:
  case option_type::duration:
    return read_number(o, given);
  case option_type::text:
    return read_text(given);
  case option_type::choice:
    return read_choice(o, given);
  case option_type::choices:
    return read_choices(o, given);
  case option_type::groups:
    BGFS_ASSERT(false, "groups are read by options_builder");
  }
  return option_data();
}

value write_option(option_type type, const option_data& data) {
  if (const auto* b = std::get_if<bool>(&data))
    return *b;
  if (const auto* s = std::get_if<std::string>(&data))
    return *s;
  if (const auto* texts = std::get_if<std::vector<std::string>>(&data))
    return value(value::list(texts->begin(), texts->end()));
  if (const auto* groups = std::get_if<std::vector<options>>(&data)) {
    value::list all;
    for (const options& group : *groups)
      all.push_back(group.given());
    return all;
  }
  const auto* n = std::get_if<u64>(&data);
  if (n == nullptr)
    return {};
  // A bare number of milliseconds would be read as seconds.
  return type == option_type::duration ? value(written(type, *n)) : value(*n);
}

} // namespace bgfs
