// SPDX-License-Identifier: MIT
#include "config/graph_state.h"

#include "config/graph_config.h"
#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

using namespace bgfs;
using test::scratch;

namespace {

constexpr std::string_view graph_text =
    "version: 1\nnodes:\n"
    "  - {node-name: one, driver: raw, file: {driver: file, filename: one}}\n"
    "  - {node-name: two, driver: raw, file: {driver: file, filename: two}}\n"
    "  - {node-name: web, driver: cow, backing: one, file: {driver: file, filename: w}}\n"
    "exports:\n"
    "  - {name: web, node-name: web, writable: true}\n";

std::string load_message(const scratch& dir, std::string_view state,
                         std::string_view graph = graph_text) {
  dir.write("g.yaml.state", state);
  const auto config = graph_config::load(dir.write("g.yaml", graph), test::test_registry());
  if (config)
    return "fine";
  std::string message = config.error().message();
  for (std::size_t at = message.find(dir.path()); at != std::string::npos;
       at = message.find(dir.path()))
    message.erase(at, dir.path().size() + 1);
  return message;
}

} // namespace

TEST_CASE("the state file is in force when the graph is read") {
  const scratch dir;
  graph_state state;
  const std::string path = dir.write("g.yaml", graph_text);
  state.path = state_path_of(path);
  CHECK(state.path == path + ".state");
  state.backing["web"] = "two";
  REQUIRE(write_graph_state(state).has_value());
  auto config = graph_config::load(path, test::test_registry());
  REQUIRE(config.has_value());
  CHECK(config->opening_order("web") == std::vector<std::string>{"two", "web"});
  CHECK(config->state().backing.at("web") == "two");
  state.backing["web"] = std::nullopt;
  state.exports["web"] = "extra";
  value extra = value::map();
  extra.set("node-name", "extra");
  extra.set("driver", "null-co");
  state.nodes.push_back(extra);
  REQUIRE(write_graph_state(state).has_value());
  const auto again = read_graph_state(path);
  REQUIRE(again.has_value());
  CHECK(!again->backing.at("web").has_value());
  CHECK(again->exports.at("web") == "extra");
  config = graph_config::load(path, test::test_registry());
  REQUIRE(config.has_value());
  CHECK(config->exports()[0].node_name == "extra");
  CHECK(config->make_node_spec("web")->has_no_backing);
  // Another one may be tried without being written.
  const graph_state none{.path = state.path};
  config = graph_config::load(path, test::test_registry(), {.state = &none});
  REQUIRE(config.has_value());
  CHECK(config->opening_order("web") == std::vector<std::string>{"one", "web"});
  REQUIRE(write_graph_state(none).has_value());
  CHECK(!std::filesystem::exists(state.path));
  REQUIRE(write_graph_state(none).has_value()); // there is nothing to remove
}

TEST_CASE("a state file that does not fit says so, and what to do") {
  const scratch dir;
  const std::string todo = "; put into the graph file what is true now, and remove this file";
  CHECK(load_message(dir, "version: 1\nbacking: {nobody: one}\n") ==
        "g.yaml.state: it says what lies below node 'nobody', and the graph has no such node" +
            todo);
  CHECK(load_message(dir, "version: 1\nbacking: {one: two}\n") ==
        "g.yaml.state: it gives node 'one' a backing node, which driver 'raw' cannot have" + todo);
  CHECK(load_message(dir, "version: 1\nbacking: {web: three}\n") ==
        "g.yaml.state: it says that node 'three' lies below 'web', and the graph has no such node" +
            todo);
  CHECK(load_message(dir, "version: 1\nexports: {nobody: one}\n") ==
        "g.yaml.state: it says what root 'nobody' shows, and the graph has no such export" + todo);
  CHECK(load_message(dir, "version: 2\n") ==
        "g.yaml.state:1:1: a state file has 'version: 1'; this one was written by another program");
  CHECK(load_message(dir, "- 1\n") ==
        "g.yaml.state:1:1: a state file is a map that begins with 'version: 1', not a list");
  CHECK(load_message(dir, "version: 1\nmore: 1\n") ==
        "g.yaml.state:2:1: the key 'more' is not known in a state file; there are version, nodes, "
        "backing, exports and snapshots");
  CHECK(load_message(dir, "version: 1\nbacking: [web]\n") ==
        "g.yaml.state:2:1: 'backing' is a map of names, not a list");
  CHECK(load_message(dir, "version: 1\nbacking: {web: [one]}\n") ==
        "g.yaml.state:2:11: the backing of 'web' is a node's name or null, not a list");
  CHECK(load_message(dir, "version: 1\nexports: {web: 1}\n") ==
        "g.yaml.state:2:11: the root 'web' shows a node, which has a name; this is a whole number");
  CHECK(load_message(dir, "version: 1\nnodes: [{driver: null-co}]\n") ==
        "g.yaml.state:2:9: a node of a state file needs a 'node-name'");
  const auto snapshots = [&](std::string_view list) {
    return load_message(dir, fmt::format("version: 1\nsnapshots: {}\n", list));
  };
  CHECK(snapshots("[web]") == "g.yaml.state:2:1: 'snapshots' is a map of names, not a list");
  CHECK(snapshots("{web: one}") ==
        "g.yaml.state:2:13: the snapshots of 'web' are a list, not text");
  CHECK(snapshots("{web: [{id: '1', name: mon}]}") ==
        "g.yaml.state:2:19: a snapshot has an id, a name and a node, which are texts");
  CHECK(
      snapshots("{web: [{id: '1', name: mon, node: one, length: -1}]}") ==
      "g.yaml.state:2:19: a snapshot has a length and a date, 'date-sec' and 'date-nsec', numbers "
      "from 0");
  CHECK(snapshots(
            "{web: [{id: '1', name: mon, node: gone, length: 1, date-sec: 1, date-nsec: 0}]}") ==
        "g.yaml.state: it says that node 'gone' lies below snapshot 'mon' of root 'web', and the "
        "graph has no such node" +
            todo);
}

TEST_CASE("external snapshots are kept in the state file") {
  const scratch dir;
  graph_state state;
  const std::string path = dir.write("g.yaml", graph_text);
  state.path = state_path_of(path);
  state.snapshots["web"] = {{.id = "1",
                             .name = "it's \"monday\"",
                             .node = "one",
                             .length = u64{1} << 40,
                             .date_seconds = 1'790'000'000,
                             .date_nanoseconds = 999'999'999}};
  CHECK(!state.is_empty());
  REQUIRE(write_graph_state(state).has_value());
  const auto config = graph_config::load(path, test::test_registry());
  REQUIRE_MESSAGE(config.has_value(), (config ? "" : config.error().message()));
  const auto& kept = config->state().snapshots.at("web");
  REQUIRE(kept.size() == 1);
  CHECK(kept[0].id == "1");
  CHECK(kept[0].name == "it's \"monday\"");
  CHECK(kept[0].node == "one");
  CHECK(kept[0].length == u64{1} << 40);
  CHECK(kept[0].date_seconds == 1'790'000'000);
  CHECK(kept[0].date_nanoseconds == 999'999'999);
  CHECK(config->users_of("one") ==
        std::vector<std::string>{"node 'web'"}); // a snapshot does not lead to it
}

TEST_CASE("what became a backing node at run time is not opened for writing") {
  const scratch dir;
  constexpr std::string_view state = "version: 1\nbacking: {web: two}\n";
  std::string graph(graph_text);
  graph += "  - {name: two, node-name: two, writable: true}\n";
  CHECK(load_message(dir, state, graph)
            .find("node 'two' is the backing of node 'web' and written "
                  "through a writable export") != std::string::npos);
  graph = graph_text;
  graph.replace(graph.find("two, driver: raw"), 16, "two, driver: raw, read-only: false");
  CHECK(load_message(dir, state, graph) ==
        "g.yaml:4:5: node 'two' is 'read-only: false', but it became the backing of 'web' at run "
        "time (see g.yaml.state): a write to it would change what 'web' shows; take 'read-only: "
        "false' away");
  CHECK(load_message(dir, state) == "fine");
}

TEST_CASE("an export does not write to what a snapshot shows") {
  const scratch dir;
  constexpr std::string_view state =
      "version: 1\nsnapshots: {web: [{id: '1', name: mon, node: two, length: 1, date-sec: 1, "
      "date-nsec: 0}]}\n";
  const std::string shown = std::string(graph_text) + "  - {name: old, node-name: two}\n";
  CHECK(load_message(dir, state, shown) == "fine");
  std::string written(graph_text);
  written.insert(written.find("exports:"), "  - {node-name: over, driver: raw, file: two}\n");
  written += "  - {name: old, node-name: over, writable: true}\n";
  CHECK(load_message(dir, state, written) ==
        "g.yaml:9:34: export 'old' is writable, but node 'two' is snapshot 'mon' of 'web', which "
        "must not change; make the export read-only, or delete the snapshot first: rmdir "
        "web.d/snapshots/mon");
}

TEST_CASE("a state file that cannot be written leaves the old one") {
  const scratch dir;
  graph_state state;
  state.path = dir.at("nowhere/g.yaml.state");
  state.backing["web"] = "two";
  const auto written = write_graph_state(state);
  REQUIRE(!written);
  CHECK(written.error().message() ==
        "cannot write '" + state.path + ".new': No such file or directory");
}
