// SPDX-License-Identifier: MIT
// bgfs config check: says what is wrong with a graph file, without opening an image.
#include "config/commands/commands.h"

#include "config/yaml.h"
#include "graph/base/text.h"

namespace bgfs {

namespace {

int check(const command_call& call, const std::string& path, bool is_shown) {
  const result<graph_config> config = graph_config::load(path, call.drivers);
  if (!config) {
    complain(call, config.error().message());
    return 1;
  }
  for (const error& warning : config->warnings())
    complain(call, warning.message());
  if (is_shown) {
    print(to_json(config->effective(), 2) + "\n");
  } else if (config->warnings().empty()) {
    print(fmt::format("{}: no mistake found; {} root{}\n", path, config->exports().size(),
                      config->exports().size() == 1 ? "" : "s"));
  }
  return config->warnings().empty() ? 0 : 1;
}

} // namespace

int run_config(const command_call& call) {
  bool is_shown = false;
  arguments known(call.name, "check [OPTION]... GRAPH.yaml",
                  "Says what is wrong with a graph file and its fragments. No image is opened.");
  known.flag(0, "show", "print the graph with all its defaults, as JSON", is_shown);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.empty() || parsed.operands[0] != "check") {
    constexpr std::string_view verbs[] = {"check"};
    const std::string given = parsed.operands.empty() ? std::string() : parsed.operands[0];
    complain(call, given.empty() ? "'check' and a graph file are expected; see 'bgfs config --help'"
                                 : fmt::format("there is no 'config {}'{}; there is 'check'", given,
                                               did_you_mean(given, verbs)));
    return 1;
  }
  if (parsed.operands.size() != 2) {
    complain(call, "one graph file is expected; see 'bgfs config --help'");
    return 1;
  }
  return check(call, parsed.operands[1], is_shown);
}

} // namespace bgfs
