// SPDX-License-Identifier: MIT
#include "graph/base/option_schema.h"

#include "graph/base/assert.h"
#include "graph/base/option_values.h"
#include "graph/base/text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace bgfs {

const options::entry& options::at(std::string_view name) const {
  const auto found = entries_.find(name);
  BGFS_ASSERT(found != entries_.end(), "an option was asked for that its schema does not have");
  return found->second;
}

bool options::is_set(std::string_view name) const {
  return at(name).is_given;
}

bool options::flag(std::string_view name) const {
  const auto* b = std::get_if<bool>(&at(name).data);
  return b != nullptr && *b;
}

u64 options::number(std::string_view name) const {
  return maybe_number(name).value_or(0);
}

std::optional<u64> options::maybe_number(std::string_view name) const {
  const auto* n = std::get_if<u64>(&at(name).data);
  return n == nullptr ? std::nullopt : std::optional(*n);
}

const std::string& options::text(std::string_view name) const {
  static const std::string absent;
  const auto* s = std::get_if<std::string>(&at(name).data);
  return s == nullptr ? absent : *s;
}

std::span<const std::string> options::texts(std::string_view name) const {
  const auto* all = std::get_if<std::vector<std::string>>(&at(name).data);
  return all == nullptr ? std::span<const std::string>() : *all;
}

std::span<const options> options::groups(std::string_view name) const {
  const auto* all = std::get_if<std::vector<options>>(&at(name).data);
  return all == nullptr ? std::span<const options>() : *all;
}

bool operator==(const options& a, const options& b) {
  return std::ranges::equal(a.entries_, b.entries_, [](const auto& one, const auto& other) {
    return one.first == other.first && one.second.data == other.second.data;
  });
}

const source_mark& options::mark(std::string_view name) const {
  return at(name).mark;
}

bool options::is_same(const options& other, std::string_view name) const {
  return at(name).data == other.at(name).data;
}

result<> check_only_mutable_change(const option_schema& schema, const options& before,
                                   const options& after) {
  for (const option& o : schema.options)
    if (!o.is_mutable && !before.is_same(after, o.name))
      return fail(error_kind::unsupported,
                  "{}option '{}' of {} cannot change while the node is open; it has to be opened "
                  "anew",
                  after.mark(o.name).prefix(), o.name, schema.owner);
  return {};
}

bool set_nested(value& into, std::string_view name, value v) {
  const auto dot = name.find('.');
  const std::string head(name.substr(0, dot));
  const value* existing = into.find(head);
  if (dot == std::string_view::npos) {
    if (existing != nullptr && existing->as_map() != nullptr)
      return false;
    into.set(head, std::move(v));
    return true;
  }
  if (existing != nullptr && existing->as_map() == nullptr)
    return false;
  value inner = existing == nullptr ? value(value::map()) : *existing;
  if (!set_nested(inner, name.substr(dot + 1), std::move(v)))
    return false;
  into.set(head, std::move(inner));
  return true;
}

value options::nested(bool with_defaults) const {
  value all = value::map();
  for (const auto& [name, e] : entries_) {
    if (!e.is_given && !with_defaults)
      continue;
    if (std::holds_alternative<std::monostate>(e.data))
      continue;
    const bool is_set = set_nested(all, name, write_option(e.type, e.data));
    // The default of an option whose parts are given (or the other way round) has no place.
    BGFS_ASSERT(is_set || !e.is_given, "validate_options takes an option or its parts, not both");
  }
  return all;
}

value options::given() const {
  return nested(false);
}

value options::effective() const {
  return nested(true);
}

// Flattens a map, checks it member by member, and fills in the defaults.
class options_builder {
public:
  options_builder(std::span<const option_schema* const> schemas,
                  std::span<const std::string_view> taken, std::string_view subject)
      : schemas_(schemas), taken_(taken), subject_(subject) {}

  result<options> build(const value& given) {
    if (!given.is_null() && given.as_map() == nullptr)
      return wrong(given.mark, "options must be a map, not {}", given.kind_name());
    if (given.as_map() != nullptr)
      BGFS_CHECK(take_members(*given.as_map(), ""));
    BGFS_CHECK(add_absent(given.mark));
    return std::move(built_);
  }

private:
  template<class... Args>
  [[nodiscard]] std::unexpected<error>
  wrong(const source_mark& mark, fmt::format_string<Args...> format, Args&&... args) const {
    return fail(error_kind::invalid_argument, "{}{}{}{}", mark.prefix(), subject_,
                subject_.empty() ? "" : ": ", fmt::format(format, std::forward<Args>(args)...));
  }

  [[nodiscard]] const option* find(std::string_view name) const {
    for (const option_schema* schema : schemas_) {
      const auto found = std::ranges::find(schema->options, name, &option::name);
      if (found != schema->options.end())
        return &*found;
    }
    return nullptr;
  }

  [[nodiscard]] bool is_group(std::string_view name) const {
    return std::ranges::any_of(schemas_, [&](const option_schema* schema) {
      return std::ranges::any_of(schema->options,
                                 [&](const option& o) { return is_part_of(o.name, name); });
    });
  }

  [[nodiscard]] static bool is_part_of(std::string_view part, std::string_view group) {
    return part.size() > group.size() && part.starts_with(group) && part[group.size()] == '.';
  }

  result<> take_members(const value::map& members, const std::string& prefix) {
    for (const auto& [key, member] : members) {
      if (prefix.empty() && std::ranges::find(taken_, key) != taken_.end())
        continue;
      BGFS_CHECK(take_member(prefix + key, member));
    }
    return {};
  }

  result<> take_member(const std::string& name, const value& member) {
    const option* o = find(name);
    // A name may be both: one choice for all, or a group with a choice for each.
    const bool is_meant_as_group = member.as_map() != nullptr && is_group(name);
    if (o != nullptr && !is_meant_as_group)
      return take_option(*o, member);
    if (!is_group(name))
      return unknown(name, member.mark);
    if (member.as_map() == nullptr)
      return wrong(member.mark, "'{}' must be a map of options, not {}", name, member.kind_name());
    return take_members(*member.as_map(), name + ".");
  }

  [[nodiscard]] result<> unknown(const std::string& name, const source_mark& mark) const {
    std::vector<std::string_view> known(taken_.begin(), taken_.end());
    for (const option_schema* schema : schemas_)
      for (const option& o : schema->options)
        known.push_back(o.name);
    const std::string_view owner = schemas_.empty() ? "anything" : schemas_.front()->owner;
    if (known.empty())
      return wrong(mark, "option '{}' is not known to {}, which has no options", name, owner);
    std::ranges::sort(known);
    known.erase(std::ranges::unique(known).begin(), known.end());
    std::string hint = did_you_mean(name, known);
    if (hint.empty())
      hint = fmt::format("; it has {}", fmt::join(known, ", "));
    return wrong(mark, "option '{}' is not known to {}{}", name, owner, hint);
  }

  result<> take_option(const option& o, const value& given) {
    auto& e = built_.entries_[std::string(o.name)];
    if (e.is_given)
      return wrong(given.mark, "option '{}' is given twice, once nested and once with a dot",
                   o.name);
    for (const auto& [other, known] : built_.entries_)
      if (known.is_given && (is_part_of(other, o.name) || is_part_of(o.name, other)))
        return wrong(given.mark,
                     "options '{}' and '{}' contradict each other: one is a part of "
                     "the other",
                     other, o.name);
    if (o.type == option_type::groups) {
      BGFS_TRY(e.data, read_groups(o, given));
    } else {
      result<option_data> read = read_option(o, given);
      if (!read)
        return wrong(given.mark, "option '{}' {}", o.name, read.error().message());
      e.data = *std::move(read);
    }
    e.type = o.type;
    e.is_given = true;
    e.mark = given.mark;
    return {};
  }

  // Here and not in read_option, since members say themselves where they stand.
  result<option_data> read_groups(const option& o, const value& given) const {
    const result<std::vector<value>> members = list_members(given);
    if (!members)
      return wrong(given.mark, "option '{}' {}", o.name, members.error().message());
    const std::array<const option_schema*, 1> schemas = {o.members};
    std::vector<options> all;
    for (const value& member : *members) {
      const std::string place = fmt::format("{}{}entry {} of '{}'", subject_,
                                            subject_.empty() ? "" : ": ", all.size(), o.name);
      BGFS_TRY(options group, validate_options(schemas, member, {}, place));
      all.push_back(std::move(group));
    }
    return option_data(std::move(all));
  }

  result<> add_absent(const source_mark& mark) {
    for (const option_schema* schema : schemas_) {
      for (const option& o : schema->options) {
        auto& e = built_.entries_[std::string(o.name)];
        if (e.is_given)
          continue;
        if (o.is_required)
          return wrong(mark, "{} needs option '{}': {}", schema->owner, o.name, o.help);
        e.type = o.type;
        e.mark = mark;
        if (o.default_text.empty())
          continue;
        result<option_data> filled = read_option(o, value(o.default_text));
        BGFS_ASSERT(filled.has_value(), "a schema's default does not pass its own schema");
        e.data = *std::move(filled);
      }
    }
    return {};
  }

  std::span<const option_schema* const> schemas_;
  std::span<const std::string_view> taken_;
  std::string_view subject_;
  options built_;
};

result<options> validate_options(std::span<const option_schema* const> schemas, const value& given,
                                 std::span<const std::string_view> taken,
                                 std::string_view subject) {
  return options_builder(schemas, taken, subject).build(given);
}

namespace {

// Takes the next piece up to a single comma; a doubled one stands for itself.
std::string take_piece(std::string_view& text) {
  std::string piece;
  while (!text.empty()) {
    const char c = text[0];
    text.remove_prefix(1);
    if (c == ',' && !text.starts_with(','))
      break;
    if (c == ',')
      text.remove_prefix(1);
    piece += c;
  }
  return piece;
}

// Names nest at their dots; each step costs a level, so their number is bounded.
constexpr std::ptrdiff_t nesting_max = 32;

} // namespace

result<value> parse_option_string(std::string_view text) {
  const std::string_view whole = text;
  value parsed = value::map();
  while (!text.empty()) {
    const std::string piece = take_piece(text);
    const auto equals = piece.find('=');
    const std::string name = piece.substr(0, equals);
    const bool has_empty_part = name.empty() || name.starts_with('.') || name.ends_with('.') ||
                                name.find("..") != std::string::npos;
    if (has_empty_part || std::ranges::count(name, '.') > nesting_max)
      return fail(error_kind::invalid_argument,
                  "'{}' is not a list of options: expected name=value,name=value,...", whole);
    if (!set_nested(parsed, name, equals == std::string::npos ? "on" : piece.substr(equals + 1)))
      return fail(error_kind::invalid_argument,
                  "'{}': '{}' is given both as one option and as a group of options", whole, name);
  }
  return parsed;
}

std::string quote_option_value(std::string_view value) {
  std::string quoted;
  for (const char c : value)
    quoted.append(c == ',' ? 2 : 1, c);
  return quoted;
}

} // namespace bgfs
