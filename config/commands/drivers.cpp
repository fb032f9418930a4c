// SPDX-License-Identifier: MIT
// bgfs drivers: what there is, and what each takes, from the schemas themselves.
#include "config/commands/commands.h"

#include "graph/base/text.h"
#include "graph/model/graph.h"

namespace bgfs {

namespace {

std::string_view type_name(option_type type) {
  switch (type) {
  case option_type::boolean:
    return "true or false";
  case option_type::integer:
    return "number";
  case option_type::size:
    return "size";
  case option_type::text:
    return "text";
  case option_type::choice:
    return "choice";
  case option_type::duration:
    return "duration";
  case option_type::choices:
  case option_type::groups:
    return "list";
  }
  return "";
}

std::string describe_values(const option& o) {
  std::string choices;
  for (const std::string_view c : o.choices)
    choices += fmt::format("{}{}", choices.empty() ? "" : ", ", c);
  if (o.type == option_type::choices)
    return fmt::format("list of {}", choices);
  return choices.empty() ? std::string(type_name(o.type)) : choices;
}

// The members of a group stand below it, further in.
void print_option(const option& o, unsigned indent) {
  print(fmt::format("{:{}}{} ({}{}{}{})\n", "", indent, o.name, describe_values(o),
                    o.is_required ? ", required" : "",
                    o.default_text.empty() ? "" : fmt::format(", default {}", o.default_text),
                    o.is_mutable ? ", may change while open" : ""));
  print(fmt::format("{:{}}{}\n", "", indent + 4, o.help));
  if (o.members != nullptr)
    for (const option& member : o.members->options)
      print_option(member, indent + 4);
}

void print_options(std::string_view title, const option_schema* schema) {
  if (schema == nullptr || schema->options.empty())
    return;
  print(fmt::format("\n{}:\n", title));
  for (const option& o : schema->options)
    print_option(o, 2);
}

void print_driver(const driver_type& type) {
  print(fmt::format("{} ({}): {}\n", type.name, to_string(type.kind), type.summary));
  if (!type.children.empty())
    print("\nchildren (a node's name, or a definition in place):\n");
  for (const child_slot& slot : type.children)
    print(fmt::format("  {}{}\n", slot.name, slot.is_required ? " (required)" : ""));
  print_options("options", type.open_options);
  print_options("options of every node", &generic_node_schema);
  print_options("options of 'bgfs create -o'", type.create_options);
}

void print_list(const registry& drivers) {
  for (const std::string_view name : drivers.names()) {
    const driver_type& type = *drivers.find(name);
    print(fmt::format("{:<18} {:<9} {}\n", name, to_string(type.kind), type.summary));
  }
}

} // namespace

int run_drivers(const command_call& call) {
  arguments known(call.name, "[NAME]", "Lists the drivers, or says what one of them takes.");
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.empty()) {
    print_list(call.drivers);
    return 0;
  }
  if (parsed.operands.size() > 1) {
    complain(call, "one driver at a time; see 'bgfs drivers --help'");
    return 1;
  }
  const std::string& name = parsed.operands[0];
  const driver_type* type = call.drivers.find(name);
  if (type == nullptr) {
    complain(call, fmt::format("there is no driver '{}'{}", name,
                               did_you_mean(name, call.drivers.names())));
    return 1;
  }
  print_driver(*type);
  return 0;
}

} // namespace bgfs
