// SPDX-License-Identifier: MIT
#include "config/node_definition.h"

#include "graph/base/text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

namespace bgfs {

namespace {

constexpr std::size_t node_name_length_max = 127;

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool may_follow(char c) {
  return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

// A name that must be text, if it is there.
result<std::string> read_name(const value& given, std::string_view key, std::string_view subject) {
  const value* v = given.find(key);
  if (v == nullptr)
    return std::string();
  const std::string* text = v->as_text();
  if (text == nullptr)
    return fail(error_kind::invalid_argument, "{}{}: '{}' is text, not {}", v->mark.prefix(),
                subject, key, v->kind_name());
  return *text;
}

class definition_reader {
public:
  definition_reader(const definition_rules& rules, const node_definition* parent,
                    const child_slot* slot)
      : rules_(rules), parent_(parent), slot_(slot) {}

  result<std::unique_ptr<node_definition>> read(const value& given) {
    auto d = std::make_unique<node_definition>();
    d->mark = given.mark;
    d->parent = parent_;
    d->slot_in_parent = slot_;
    if (given.as_map() == nullptr)
      return fail(error_kind::invalid_argument,
                  "{}{} must be a map such as {{driver: ...}}, not {}", given.mark.prefix(),
                  d->describe(), given.kind_name());
    BGFS_TRY(d->node_name, read_name(given, "node-name", d->describe()));
    if (given.find("node-name") != nullptr) {
      if (result<> ok = check_node_name(d->node_name); !ok)
        return fail(error_kind::invalid_argument, "{}{}", given.find("node-name")->mark.prefix(),
                    ok.error().message());
    }
    BGFS_TRY(d->type, find_driver(given, *d));
    BGFS_CHECK(read_options(given, *d));
    for (const child_slot& slot : d->type->children)
      BGFS_CHECK(read_child(given, slot, *d));
    const spec_context alone;
    if (result<> ok = check_generic_options(effective_options(*d, alone), d->node_name); !ok)
      return fail(error_kind::invalid_argument, "{}{}", d->mark.prefix(), ok.error().message());
    return d;
  }

private:
  result<const driver_type*> find_driver(const value& given, const node_definition& d) const {
    BGFS_TRY(std::string name, read_name(given, "driver", d.describe()));
    if (name.empty() && rules_.has_implied_drivers && slot_ != nullptr &&
        (slot_->roles & role::primary) != 0)
      name = "file";
    const std::vector<std::string_view> names = rules_.drivers.names();
    if (name.empty())
      return fail(error_kind::invalid_argument, "{}{} needs a 'driver': one of {}",
                  given.mark.prefix(), d.describe(), fmt::join(names, ", "));
    if (const driver_type* type = rules_.drivers.find(name))
      return type;
    std::string hint = did_you_mean(name, names);
    if (hint.empty())
      hint = fmt::format("; there are {}", fmt::join(names, ", "));
    return fail(error_kind::invalid_argument, "{}{}: there is no driver '{}'{}",
                given.find("driver")->mark.prefix(), d.describe(), name, hint);
  }

  result<> read_options(const value& given, node_definition& d) const {
    std::vector<std::string_view> taken = {"driver", "node-name"};
    for (const child_slot& slot : d.type->children)
      taken.push_back(slot.name);
    const std::array<const option_schema*, 2> schemas = {d.type->open_options,
                                                         &generic_node_schema};
    const value placed = with_absolute_paths(given, *d.type);
    BGFS_TRY(d.given, validate_options(schemas, placed, taken, d.describe()));
    return {};
  }

  [[nodiscard]] value with_absolute_paths(value given, const driver_type& type) const {
    if (rules_.directory.empty())
      return given;
    for (const option& o : type.open_options->options) {
      const value* v = o.is_host_path ? given.find(o.name) : nullptr;
      const std::string* path = v == nullptr ? nullptr : v->as_text();
      if (path == nullptr || path->empty() || path->starts_with('/'))
        continue;
      value absolute =
          (std::filesystem::path(rules_.directory) / *path).lexically_normal().string();
      absolute.mark = v->mark;
      given.set(std::string(o.name), std::move(absolute));
    }
    return given;
  }

  result<> read_child(const value& given, const child_slot& slot, node_definition& d) const {
    const value* v = given.find(slot.name);
    const bool is_backing = (slot.roles & role::backing) != 0;
    if (v == nullptr && slot.is_required)
      return fail(error_kind::invalid_argument,
                  "{}{}: driver '{}' needs '{}': a node's name or a definition",
                  given.mark.prefix(), d.describe(), d.type->name, slot.name);
    if (v == nullptr)
      return {};
    const std::string* name = v->as_text();
    const bool is_none = v->is_null() || (name != nullptr && name->empty());
    if (is_none && is_backing) {
      d.has_no_backing = true;
      return {};
    }
    if (is_none || (name == nullptr && v->as_map() == nullptr))
      return fail(error_kind::invalid_argument,
                  "{}{}: '{}' is a node's name or a definition{}, not {}", v->mark.prefix(),
                  d.describe(), slot.name, is_backing ? ", or null for none" : "",
                  is_none ? "nothing" : v->kind_name());
    node_definition::child child{&slot, {}, v->mark};
    if (name != nullptr) {
      child.target = *name;
    } else {
      BGFS_TRY(child.target, definition_reader(rules_, &d, &slot).read(*v));
    }
    d.children.push_back(std::move(child));
    return {};
  }

  const definition_rules& rules_;
  const node_definition* parent_;
  const child_slot* slot_;
};

} // namespace

std::string node_definition::describe() const {
  if (!node_name.empty())
    return fmt::format("node '{}'", node_name);
  if (parent == nullptr)
    return "the node";
  return fmt::format("the '{}' of {}", slot_in_parent->name, parent->describe());
}

result<> check_node_name(std::string_view name) {
  if (!name.empty() && name.size() <= node_name_length_max && is_letter(name[0]) &&
      std::ranges::all_of(name, may_follow))
    return {};
  return fail(error_kind::invalid_argument,
              "'{}' cannot be a node-name: letters, digits, '-', '.' and '_' are allowed, with a "
              "letter first and {} bytes at most",
              name.substr(0, 2 * node_name_length_max), node_name_length_max);
}

result<std::unique_ptr<node_definition>> define_node(const value& given,
                                                     const definition_rules& rules) {
  return definition_reader(rules, nullptr, nullptr).read(given);
}

node_options effective_options(const node_definition& d, const spec_context& context) {
  node_options of_parent;
  const node_options* inherited = context.inherited;
  child_role roles = context.inherited_as;
  if (d.parent != nullptr) {
    of_parent = effective_options(*d.parent, context);
    inherited = &of_parent;
    roles = d.slot_in_parent->roles;
  }
  node_options o = parse_generic_options(d.given, inherited, roles);
  const bool is_unwritten = context.is_written && !context.is_written(d);
  if (context.is_all_read_only || (is_unwritten && !d.given.is_set("read-only")))
    o.is_read_only = true;
  return o;
}

node_spec make_spec(const node_definition& d, const spec_context& context) {
  node_spec spec{.node_name = d.node_name,
                 .type = d.type,
                 .given = d.given,
                 .generic = effective_options(d, context),
                 .children = {},
                 .has_no_backing = d.has_no_backing,
                 .mark = d.mark};
  for (const node_definition::child& c : d.children) {
    child_spec made{.slot = std::string(c.slot->name), .target = {}, .mark = c.mark};
    const auto* below = std::get_if<std::unique_ptr<node_definition>>(&c.target);
    if (below == nullptr) {
      made.target = std::get<std::string>(c.target);
    } else if (context.is_separate && context.is_separate(**below)) {
      made.target = (*below)->node_name;
    } else {
      made.target = std::make_unique<node_spec>(make_spec(**below, context));
    }
    spec.children.push_back(std::move(made));
  }
  return spec;
}

void for_each_definition(const node_definition& d,
                         const std::function<void(const node_definition&)>& visit) {
  visit(d);
  for (const node_definition::child& c : d.children)
    if (const auto* below = std::get_if<std::unique_ptr<node_definition>>(&c.target))
      for_each_definition(**below, visit);
}

std::vector<node_reference> references_of(const node_definition& d) {
  std::vector<node_reference> found;
  for_each_definition(d, [&](const node_definition& each) {
    for (const node_definition::child& c : each.children)
      if (std::holds_alternative<std::string>(c.target))
        found.push_back({&each, &c});
  });
  return found;
}

} // namespace bgfs
