// SPDX-License-Identifier: MIT
#include "config/graph_config.h"

#include "drivers/filter/copy_on_read/copy_on_read.h"
#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

using namespace bgfs;
using test::scratch;

namespace {

constexpr std::string_view one_node =
    "version: 1\nnodes:\n"
    "  - {node-name: web, driver: raw, file: {driver: file, filename: web.raw}}\n";

// The message with the directory's name taken out, so that tables can hold it.
std::string load_message(const scratch& dir, std::string_view text) {
  const std::string path = dir.write("g.yaml", text);
  const auto config = graph_config::load(path, test::test_registry());
  if (!config)
    return config.error().message().substr(dir.path().size() + 1);
  return config->warnings().empty() ? "fine" : "warning";
}

result<graph_config> load(const scratch& dir, std::string_view text) {
  return graph_config::load(dir.write("g.yaml", text), test::test_registry());
}

} // namespace

TEST_CASE("without exports every node that no other refers to is a read-only root") {
  const scratch dir;
  const auto config =
      load(dir, "version: 1\nnodes:\n"
                "  - {node-name: base, driver: cow, file: {driver: file, filename: base.cow}}\n"
                "  - {node-name: web, driver: cow, backing: base,\n"
                "     file: {driver: file, filename: sub/../web.cow}}\n"
                "  - {node-name: other, driver: null-co, size: 1M}\n");
  REQUIRE(config.has_value());
  REQUIRE(config->exports().size() == 2);
  CHECK(config->exports()[0].name == "web");
  CHECK(config->exports()[0].node_name == "web");
  CHECK(!config->exports()[0].is_writable);
  CHECK(config->exports()[1].name == "other");
  CHECK(config->opening_order("web") == std::vector<std::string>{"base", "web"});
  CHECK(config->opening_order("none").empty());
  CHECK(config->host_paths() == std::vector<std::string>{dir.at("base.cow"), dir.at("web.cow")});
  CHECK(config->source() == dir.at("g.yaml"));
}

TEST_CASE("a node that nobody writes through is opened read-only") {
  const scratch dir;
  const auto config = load(
      dir,
      "version: 1\nnodes:\n"
      "  - {node-name: base, driver: cow, file: {driver: file, filename: b}}\n"
      "  - {node-name: web, driver: cow, file: {driver: file, filename: w}, backing: base}\n"
      "  - {node-name: asked, driver: raw, read-only: false, file: {driver: file, filename: a}}\n"
      "exports:\n"
      "  - {name: web, node-name: web, writable: true}\n"
      "  - {name: asked, node-name: asked}\n");
  REQUIRE(config.has_value());
  const auto web = config->make_node_spec("web");
  REQUIRE(web.has_value());
  CHECK(!web->generic.is_read_only);
  const auto& file = std::get<std::unique_ptr<node_spec>>(web->children[0].target);
  CHECK(!file->generic.is_read_only);
  CHECK(file->given.text("filename") == dir.at("w"));
  CHECK(std::get<std::string>(web->children[1].target) == "base");
  CHECK(config->make_node_spec("base")->generic.is_read_only);
  CHECK(!config->make_node_spec("asked")->generic.is_read_only);
}

TEST_CASE("what a filter writes for those who read is open for writing, unless it may not be") {
  const scratch dir;
  const std::string text =
      "version: 1\nnodes:\n"
      "  - {node-name: base, driver: cow, file: {driver: file, filename: b}}\n"
      "  - {node-name: web, driver: cow, file: {driver: file, filename: w}, backing: base}\n"
      "  - {node-name: fast, driver: copy-on-read, file: web}\n"
      "exports: [{name: fast, node-name: fast}]\n";
  const registry drivers({&file_driver_type, &test::cow_driver_type, &copy_on_read_driver_type});
  auto config = graph_config::load(dir.write("g.yaml", text), drivers);
  REQUIRE(config.has_value());
  CHECK(!config->make_node_spec("fast")->generic.is_read_only);
  const auto web = config->make_node_spec("web");
  CHECK(!web->generic.is_read_only);
  CHECK(!std::get<std::unique_ptr<node_spec>>(web->children[0].target)->generic.is_read_only);
  CHECK(config->make_node_spec("base")->generic.is_read_only);
  config->make_read_only();
  CHECK(config->make_node_spec("fast")->generic.is_read_only);
  CHECK(config->make_node_spec("web")->generic.is_read_only);
}

TEST_CASE("-o ro makes everything read-only") {
  const scratch dir;
  auto config = load(dir, std::string(one_node) +
                              "exports: [{node-name: web, writable: true, growable: true}]\n");
  REQUIRE(config.has_value());
  CHECK(config->exports()[0].is_writable);
  config->make_read_only();
  CHECK(!config->exports()[0].is_writable);
  CHECK(!config->exports()[0].is_growable);
  CHECK(config->make_node_spec("web")->generic.is_read_only);
}

TEST_CASE("an inline node that others refer to is opened by itself") {
  const scratch dir;
  const auto config = load(
      dir, "version: 1\nnodes:\n"
           "  - {node-name: a, driver: raw, cache: {direct: true}, size: 512,\n"
           "     file: {node-name: shared, driver: file, filename: f}}\n"
           "  - {node-name: b, driver: raw, offset: 512, size: 512, file: shared}\n"
           "  - {node-name: c, driver: raw, file: {node-name: own, driver: file, filename: g}}\n");
  REQUIRE(config.has_value());
  CHECK(config->opening_order("a") == std::vector<std::string>{"shared", "a"});
  CHECK(config->opening_order("b") == std::vector<std::string>{"shared", "b"});
  CHECK(std::get<std::string>(config->make_node_spec("a")->children[0].target) == "shared");
  const auto shared = config->make_node_spec("shared");
  REQUIRE(shared.has_value());
  CHECK(shared->generic.cache_direct); // inherited from where it is written
  CHECK(config->opening_order("c") == std::vector<std::string>{"c"});
  const auto own = config->make_node_spec("own");
  REQUIRE(!own.has_value());
  CHECK(own.error().message().find("there is no node 'own' in") == 0);
}

TEST_CASE("all keys of an export are read") {
  const scratch dir;
  const auto config =
      load(dir, std::string(one_node) +
                    "exports:\n"
                    "  - name: w\n    node-name: web\n    writable: yes\n    growable: true\n"
                    "    on-truncate: zero\n    control: hidden\n    cache: kernel\n"
                    "    passthrough: off\n    exclusive: true\n    required: true\n    untrusted: "
                    "true\n    mode: 0640\n"
                    "    owner: 1000\n    group: root\n    flush-interval: 250ms\n");
  REQUIRE(config.has_value());
  const export_spec& e = config->exports().at(0);
  CHECK(e.name == "w");
  CHECK(e.is_writable);
  CHECK(e.is_growable);
  CHECK(e.on_truncate == truncate_policy::zero);
  CHECK(e.control == control_mode::hidden);
  CHECK(e.cache == cache_mode::kernel);
  CHECK(e.passthrough == passthrough_mode::off);
  CHECK(e.is_exclusive);
  CHECK(e.is_required);
  CHECK(e.is_untrusted);
  CHECK(e.mode == 0640U);
  CHECK(e.owner == 1000U);
  CHECK(e.group == 0U);
  CHECK(e.flush_interval_ms == 250);
  CHECK(to_json(config->effective().find("exports")[0]) ==
        R"([{"name": "w", "node-name": "web", "writable": true, "growable": true, )"
        R"("on-truncate": "zero", "control": "hidden", "cache": "kernel", "passthrough": "off", )"
        R"("open": "at-mount", "exclusive": true, "required": true, "untrusted": true, )"
        R"("mode": "0640", "owner": 1000, "group": 0, "flush-interval": "250ms", )"
        R"("snapshots": {"mode": "internal"}, "points": {"directory": "/var/tmp"}}])");
}

TEST_CASE("the effective configuration reads as the same graph") {
  const scratch dir;
  const auto config = load(
      dir, "version: 1\nreferences: {allow: [x], probe: true, rewrite: {/old: ./new}}\nnodes:\n"
           "  - {node-name: base, driver: cow, file: {driver: file, filename: b}, backing: null}\n"
           "  - {node-name: web, driver: cow, mode: safe, interval: 500ms, l2-cache-size: 1M,\n"
           "     cache: {direct: on}, file: {driver: file, filename: w}, backing: base}\n");
  REQUIRE(config.has_value());
  const std::string text = to_json(config->effective(), 2);
  const scratch other;
  const auto again = graph_config::load(other.write("again.yaml", text), test::test_registry());
  REQUIRE_MESSAGE(again.has_value(), (again ? "" : again.error().message()));
  CHECK(to_json(again->effective(), 2) == text);
}

TEST_CASE("every mistake in a graph file names its place and what would be right") {
  const scratch dir;
  struct row {
    std::string_view text;
    std::string_view expected;
  };
  const std::vector<row> rows = {
      {"", "g.yaml: the file is empty; a graph begins with 'version: 1'"},
      {"[1]", "g.yaml:1:1: a graph is a map that begins with 'version: 1', not a list"},
      {"nodes: []\n", "g.yaml:1:1: 'version: 1' is missing"},
      {"version: '1'\n", "g.yaml:1:1: 'version' is the number 1, not text"},
      {"version: 2\n", "g.yaml:1:1: 'version' is 2; this program knows version 1"},
      {"version: 1\nnods: []\n", "g.yaml:2:1: the key 'nods' is not known; did you mean 'nodes'?"},
      {"version: 1\nwhatever: []\n",
       "g.yaml:2:1: the key 'whatever' is not known; there are version, include, references, "
       "secrets, throttle-groups, nodes, exports"},
      {"version: 1\nthrottle-groups: [{id: slow}]\n",
       "g.yaml:2:1: 'throttle-groups' is not supported yet; leave it out"},
      {"version: 1\nnodes: {}\n",
       "g.yaml:2:1: 'nodes' is a list, not a map: each of its entries begins with '- '"},
      {"version: 1\ninclude: conf.d\n",
       "g.yaml:2:1: 'include' is a list, not text: each of its entries begins with '- '"},
      {"version: 1\ninclude: [1]\n",
       "g.yaml:2:11: 'include' is a list of texts; this is a whole number"},
      {"version: 1\ninclude: ['']\n", "g.yaml:2:11: 'include' is a list of texts; this is empty"},
      {"version: 1\nreferences: [.]\n",
       "g.yaml:2:1: 'references' is a map with allow, probe and rewrite, not a list"},
      {"version: 1\nreferences: {alow: [.]}\n",
       "g.yaml:2:14: 'references' has no 'alow'; did you mean 'allow'?; there are allow, probe, "
       "rewrite"},
      {"version: 1\nreferences: {probe: maybe}\n",
       "g.yaml:2:14: 'probe' is true or false, not text"},
      {"version: 1\nreferences: {rewrite: [a]}\n",
       "g.yaml:2:14: 'rewrite' is a map of directories, {/old/place/: ./}, not a list"},
      {"version: 1\nreferences: {rewrite: {old: new}}\n",
       "g.yaml:2:24: 'rewrite': 'old' must be absolute"},
      {"version: 1\nreferences: {rewrite: {/old: 1}}\n",
       "g.yaml:2:24: 'rewrite': '/old' leads to a directory, not to a whole number"},
      {"version: 1\nnodes: [text]\n",
       "g.yaml:2:9: the node must be a map such as {driver: ...}, not text"},
      {"version: 1\nnodes: [{node-name: a}]\n",
       "g.yaml:2:9: node 'a' needs a 'driver': one of cow, file, null-co, raw"},
      {"version: 1\nnodes: [{driver: null-co}]\n",
       "g.yaml:2:9: a node of the graph needs a 'node-name'"},
      {"version: 1\nnodes: [{node-name: 5, driver: raw}]\n",
       "g.yaml:2:10: the node: 'node-name' is text, not a whole number"},
      {"version: 1\nnodes: [{node-name: '5a', driver: raw}]\n",
       "g.yaml:2:10: '5a' cannot be a node-name: letters, digits, '-', '.' and '_' are allowed, "
       "with a letter first and 127 bytes at most"},
      {"version: 1\nnodes: [{node-name: '', driver: raw}]\n",
       "g.yaml:2:10: '' cannot be a node-name: letters, digits, '-', '.' and '_' are allowed, "
       "with a letter first and 127 bytes at most"},
      {"version: 1\nnodes: [{node-name: a, driver: rwa}]\n",
       "g.yaml:2:24: node 'a': there is no driver 'rwa'; did you mean 'raw'?"},
      {"version: 1\nnodes: [{node-name: a, driver: throttle}]\n",
       "g.yaml:2:24: node 'a': there is no driver 'throttle'; there are cow, file, null-co, raw"},
      {"version: 1\nnodes: [{node-name: a, driver: [raw]}]\n",
       "g.yaml:2:24: node 'a': 'driver' is text, not a list"},
      {"version: 1\nnodes: [{node-name: a, driver: raw}]\n",
       "g.yaml:2:9: node 'a': driver 'raw' needs 'file': a node's name or a definition"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, file: 5}]\n",
       "g.yaml:2:37: node 'a': 'file' is a node's name or a definition, not a whole number"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, file: null}]\n",
       "g.yaml:2:37: node 'a': 'file' is a node's name or a definition, not nothing"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, file: {filename: x}}]\n",
       "g.yaml:2:37: the 'file' of node 'a' needs a 'driver': one of cow, file, null-co, raw"},
      {"version: 1\nnodes: [{node-name: a, driver: cow, file: {driver: file}}]\n",
       "g.yaml:2:37: the 'file' of node 'a': driver 'file' needs option 'filename': the file or "
       "device to open"},
      {"version: 1\nnodes:\n  - node-name: a\n    driver: cow\n    l2-cache-sise: 1M\n",
       "g.yaml:5:5: node 'a': option 'l2-cache-sise' is not known to driver 'cow'; did you mean "
       "'l2-cache-size'?"},
      {"version: 1\nnodes: [{node-name: a, driver: cow, mode: fats, file: {driver: null-co}}]\n",
       "g.yaml:2:37: node 'a': option 'mode' is one of fast, safe, not 'fats'; did you mean "
       "'fast'?"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, discard: on, file: {driver: null-co}}]\n",
       "g.yaml:2:37: node 'a': option 'discard' is one of ignore, unmap, not 'on'"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, read-only: 1, file: {driver: null-co}}]\n",
       "g.yaml:2:37: node 'a': option 'read-only' is true or false (on, off, yes, no), not a whole "
       "number"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, backing: b, file: {driver: null-co}}]\n",
       "g.yaml:2:37: node 'a': option 'backing' is not known to driver 'raw'; it has "
       "auto-read-only, "
       "cache.direct, cache.no-flush, cache.writeback, detect-zeroes, discard, driver, file, "
       "force-share, "
       "node-name, "
       "offset, read-only, size"},
      {"version: 1\nnodes: [{node-name: a, driver: null-co, force-share: true}]\n",
       "g.yaml:2:9: node 'a': 'force-share' needs 'read-only: true': two writers destroy an image"},
      {"version: 1\nnodes: [{node-name: a, driver: null-co, detect-zeroes: unmap}]\n",
       "g.yaml:2:9: node 'a': 'detect-zeroes: unmap' needs 'discard: unmap'"},
      {"version: 1\nnodes:\n  - {node-name: a, driver: null-co}\n  - {node-name: a, driver: "
       "null-co}\n",
       "g.yaml:4:5: there are two nodes 'a'; the other is at DIR/g.yaml:3:5"},
      {"version: 1\nnodes:\n  - {node-name: base, driver: null-co}\n"
       "  - {node-name: a, driver: raw, file: bse}\n",
       "g.yaml:4:33: node 'a': 'file' refers to node 'bse', which does not exist; did you mean "
       "'base'?"},
      {"version: 1\nnodes:\n  - {node-name: a, driver: raw, file: b}\n"
       "  - {node-name: b, driver: raw, file: c}\n  - {node-name: c, driver: raw, file: a}\n",
       "g.yaml:3:5: node 'a' is below itself: a -> b -> c -> a"},
      {"version: 1\nnodes: [{node-name: a, driver: raw, file: {driver: raw, file: a}}]\n",
       "g.yaml:2:9: node 'a' is below itself: a -> a"},
      {"version: 1\nnodes: [{node-name: x.d, driver: null-co}]\n",
       "g.yaml:2:9: 'x.d' cannot be the name of a root: 'NAME.d' is the control directory of NAME; "
       "write 'exports' with another name"},
  };
  for (const row& r : rows) {
    std::string expected(r.expected);
    if (const auto at = expected.find("DIR"); at != std::string::npos)
      expected.replace(at, 3, dir.path());
    CHECK(load_message(dir, r.text) == expected);
  }
}

TEST_CASE("a root that the kernel caches shares no node with one that is written otherwise") {
  const scratch dir;
  const auto message = [&](std::string_view node, std::string_view other) {
    return load_message(
        dir,
        fmt::format("version: 1\nnodes:\n"
                    "  - {{node-name: disk, driver: raw, file: {{driver: file, filename: a}}}}\n"
                    "  - {{node-name: apart, driver: raw, file: {{driver: file, filename: b}}}}\n"
                    "exports:\n  - {{name: w, node-name: {}{}}}\n"
                    "  - {{name: c, node-name: disk, cache: kernel}}\n",
                    node, other));
  };
  CHECK(message("disk", "") == "fine");
  CHECK(message("apart", ", writable: true") == "fine");
  CHECK(
      message("disk", ", writable: true") ==
      fmt::format("g.yaml:7:32: export 'c' has 'cache: kernel', and export 'w' (see {}:6:5) writes "
                  "to nodes that both show: the kernel would go on showing what it has kept; leave "
                  "'cache' out, or make the other one read-only",
                  dir.at("g.yaml")));
}

TEST_CASE("one export of a file is served as if there were no other") {
  const scratch dir;
  const std::string path = dir.write(
      "g.yaml", fmt::format("{}exports:\n"
                            "  - {{name: other, node-name: web, writable: true}}\n"
                            "  - {{name: disk, node-name: web}}\n"
                            "  - {{name: grows, node-name: web, writable: true, growable: true}}\n"
                            "  - {{name: zeroes, node-name: web, writable: true, growable: true,"
                            " on-truncate: zero}}\n"
                            "  - {{name: passed, node-name: web, passthrough: on}}\n",
                            one_node));
  const auto read = [&](std::string name, bool is_writeback) {
    config_source source{.image = {.filename = path},
                         .is_graph = true,
                         .only_export = std::move(name),
                         .is_writeback = is_writeback};
    return source.read(test::test_registry());
  };
  const auto disk = read("disk", false);
  REQUIRE(disk.has_value());
  REQUIRE(disk->exports().size() == 1);
  CHECK(disk->exports()[0].name == "disk");
  CHECK(disk->make_node_spec("web")->generic.is_read_only); // though others would write to it
  CHECK(read("dusk", false).error().message() ==
        fmt::format("'{}' has no export 'dusk', which 'export=dusk' asks for; did you mean 'disk'?",
                    path));
  const auto grows = read("grows", true);
  REQUIRE(grows.has_value());
  CHECK(grows->exports()[0].cache == cache_mode::kernel);
  CHECK(grows->exports()[0].passthrough == passthrough_mode::off);
  CHECK(read("disk", true).has_value());
  const auto refusal = [&](std::string name) {
    const auto refused = read(std::move(name), true);
    REQUIRE(!refused);
    return refused.error().message().substr(dir.path().size() + 1);
  };
  CHECK(
      refusal("other") ==
      "g.yaml:5:5: export 'other' cannot be mounted with -o writeback: it needs 'growable: true', "
      "since the kernel then takes writes past the end without asking, and they would be lost "
      "later");
  CHECK(refusal("zeroes") ==
        "g.yaml:8:5: export 'zeroes' cannot be mounted with -o writeback: with 'on-truncate: zero' "
        "it would keep a length that the kernel takes for 0");
  CHECK(refusal("passed") ==
        "g.yaml:9:36: export 'passed' cannot be mounted with -o writeback: the kernel either holds "
        "back what is written or passes it through; leave 'passthrough' out");
}

TEST_CASE("every mistake in an export names its place and what would be right") {
  const scratch dir;
  struct row {
    std::string_view text; // what follows `exports: [`
    std::string_view expected;
  };
  const std::vector<row> rows = {
      {"text]", "g.yaml:4:11: an export is a map such as {name: ..., node-name: ...}, not text"},
      {"{name: w}]", "g.yaml:4:11: export 'w': an export needs option 'node-name': the node it "
                     "shows"},
      {"{node-name: web, writeable: true}]",
       "g.yaml:4:28: an export: option 'writeable' is not known to an export; did you mean "
       "'writable'?"},
      {"{name: w, node-name: wbe}]",
       "g.yaml:4:21: export 'w': there is no node 'wbe'; did you mean 'web'?"},
      {"{node-name: web}, {node-name: web}]",
       "g.yaml:4:29: there are two exports 'web'; the other is at DIR/g.yaml:4:11"},
      {"{name: w.d, node-name: web}]",
       "g.yaml:4:12: 'w.d' cannot be the name of a root: 'NAME.d' is the control directory of "
       "NAME"},
      {"{name: .w, node-name: web}]",
       "g.yaml:4:12: '.w' cannot be the name of a root: names that begin with '.' are the mount's "
       "own"},
      {"{name: a/b, node-name: web}]",
       "g.yaml:4:12: 'a/b' cannot be the name of a root: it has a '/' or a control character"},
      {"{name: \"a\\nb\", node-name: web}]",
       "g.yaml:4:12: 'a\nb' cannot be the name of a root: it has a '/' or a control character"},
      {"{name: '', node-name: web}]", "g.yaml:4:12: the name of a root cannot be empty"},
      {"{name: w, node-name: web, mode: 640}]",
       "g.yaml:4:37: export 'w': 'mode' is octal with a leading zero, 0000 to 0777, such as 0640; "
       "not '640'"},
      {"{name: w, node-name: web, mode: 01777}]",
       "g.yaml:4:37: export 'w': 'mode' is octal with a leading zero, 0000 to 0777, such as 0640; "
       "not '01777'"},
      {"{name: w, node-name: web, mode: u+w}]",
       "g.yaml:4:37: export 'w': 'mode' is octal with a leading zero, 0000 to 0777, such as 0640; "
       "not 'u+w'"},
      {"{name: w, node-name: web, owner: nobody-here}]",
       "g.yaml:4:37: export 'w': there is no user 'nobody-here'"},
      {"{name: w, node-name: web, group: nobody-here}]",
       "g.yaml:4:37: export 'w': there is no group 'nobody-here'"},
      {"{name: w, node-name: web, growable: true}]",
       "g.yaml:4:37: export 'w': 'growable' needs 'writable: true'"},
      {"{name: w, node-name: web, on-truncate: zero}]",
       "g.yaml:4:37: export 'w': 'on-truncate: zero' needs 'writable: true'"},
      {"{name: w, node-name: web, snapshots: {mode: external}}]",
       "g.yaml:4:49: export 'w': 'snapshots: {mode: external}' needs a 'directory' for the "
       "overlays"},
      {"{name: w, node-name: web, snapshots: {directory: x}}]",
       "g.yaml:4:49: export 'w': 'snapshots: {directory: ...}' is for 'mode: external'; internal "
       "snapshots lie in the image"},
      {"{name: w, node-name: web, snapshots: {mode: external, directory: x}}]", "fine"},
      {"{name: w, node-name: web, points: {limit: 1G, directory: /tmp}}]", "fine"},
      {"{name: w, node-name: web, points: {directory: x}}]", "fine"},
      {"{name: w, node-name: web, passthrough: on}]", "fine"},
      {"{name: w, node-name: web, writable: true, passthrough: on}]",
       "g.yaml:4:53: export 'w': 'passthrough: on' needs 'growable: true' in a writable export: "
       "the "
       "kernel writes to the file by itself, and nobody keeps it from writing past the end"},
      {"{name: w, node-name: web, writable: true, growable: true, passthrough: on}]", "fine"},
      {"{name: w, node-name: web, cache: kernel, passthrough: on}]",
       "g.yaml:4:52: export 'w': 'passthrough: on' and 'cache: kernel' exclude each other: what is "
       "passed through is cached already, as pages of the image's file; leave 'cache' out"},
      {"{name: w, node-name: web, snapshots: {mode: internal}, open: on-demand, passthrough: "
       "auto}]",
       "fine"},
      {"{name: w, node-name: web, iothread: 'a/b'}]",
       "g.yaml:4:37: export 'w': the name of a thread has 1 to 64 letters, digits, '-', '_' or "
       "'.'; not 'a/b'"},
      {"{name: w, node-name: web, iothread: ''}]",
       "g.yaml:4:37: export 'w': the name of a thread has 1 to 64 letters, digits, '-', '_' or "
       "'.'; not ''"},
      {"{name: w, node-name: web, flush-interval: 2d}]",
       "g.yaml:4:37: export 'w': option 'flush-interval' cannot be read: '2d' is not a duration; a "
       "duration is a number of seconds, or a number with one of the suffixes ms, s, m, h, such as "
       "500ms or 5s"},
  };
  for (const row& r : rows) {
    std::string expected(r.expected);
    if (const auto at = expected.find("DIR"); at != std::string::npos)
      expected.replace(at, 3, dir.path());
    CHECK(load_message(dir, fmt::format("{}exports: [{}\n", one_node, r.text)) == expected);
  }
  const std::string long_name(241, 'n');
  CHECK(load_message(
            dir, fmt::format("{}exports: [{{name: {}, node-name: web}}]\n", one_node, long_name)) ==
        fmt::format("g.yaml:4:12: the name of a root is 240 bytes at most; '{}...' has 241",
                    long_name.substr(0, 32)));
}

TEST_CASE("a writable export over what must not be written is refused at its line") {
  const scratch dir;
  CHECK(load_message(dir,
                     "version: 1\nnodes:\n"
                     "  - {node-name: a, driver: raw, read-only: true, file: {driver: null-co}}\n"
                     "exports:\n  - name: w\n    node-name: a\n    writable: true\n") ==
        fmt::format("g.yaml:7:5: export 'w' is writable, but node 'a' is read-only (see "
                    "{}/g.yaml:3:5)",
                    dir.path()));
  CHECK(load_message(dir,
                     "version: 1\nnodes:\n"
                     "  - {node-name: a, driver: raw, file: {driver: null-co, read-only: true}}\n"
                     "exports: [{node-name: a, writable: true}]\n") ==
        fmt::format("g.yaml:4:26: export 'a' is writable, but the 'file' of node 'a' is read-only "
                    "(see {}/g.yaml:3:33)",
                    dir.path()));
  CHECK(load_message(dir,
                     "version: 1\nnodes:\n"
                     "  - {node-name: base, driver: cow, file: {driver: null-co}}\n"
                     "  - {node-name: top, driver: cow, file: {driver: null-co}, backing: base}\n"
                     "exports:\n"
                     "  - {node-name: top}\n  - {node-name: base, writable: true}\n") ==
        "g.yaml:4:60: node 'base' is the backing of node 'top' and written through a writable "
        "export, which would change what its overlay shows; make that export read-only, or give "
        "the overlay another backing");
}

TEST_CASE("a chain of nodes deeper than any stack is refused") {
  const scratch dir;
  std::string text = "version: 1\nnodes:\n  - {node-name: n0, driver: null-co}\n";
  for (int i = 1; i <= 1200; i++)
    text += fmt::format("  - {{node-name: n{}, driver: raw, file: n{}}}\n", i, i - 1);
  std::string reversed = "version: 1\nnodes:\n";
  for (int i = 1200; i >= 1; i--)
    reversed += fmt::format("  - {{node-name: n{}, driver: raw, file: n{}}}\n", i, i - 1);
  reversed += "  - {node-name: n0, driver: null-co}\n";
  CHECK(load_message(dir, reversed).find("more than 1000 nodes are below one another here") !=
        std::string::npos);
}

TEST_CASE("a bad fragment fails its own roots and nothing else") {
  const scratch dir;
  dir.write("conf.d/10-good.yaml",
            "nodes: [{node-name: good, driver: null-co}]\nexports: [{node-name: good}]\n");
  dir.write("conf.d/20-bad.yaml", "nodes: [{node-name: bad, driver: nul-co}]\n"
                                  "exports: [{name: lost, node-name: bad, required: true}]\n");
  dir.write("conf.d/30-syntax.yaml", "nodes: [\n");
  const auto config =
      load(dir, std::string(one_node) + "  - {node-name: needy, driver: raw, file: bad}\n"
                                        "include: [conf.d/*.yaml]\n"
                                        "exports: [{node-name: web}, {node-name: needy}]\n");
  REQUIRE_MESSAGE(config.has_value(), (config ? "" : config.error().message()));
  REQUIRE(config->warnings().size() == 2);
  CHECK(config->warnings()[0].message().find("20-bad.yaml:1:26: node 'bad': there is no driver") !=
        std::string::npos);
  CHECK(config->warnings()[1].message().find("30-syntax.yaml:2:1: not valid YAML") !=
        std::string::npos);
  REQUIRE(config->exports().size() == 4);
  for (const export_spec& e : config->exports()) {
    const bool is_lost = e.name == "lost" || e.name == "needy";
    CAPTURE(e.name);
    CHECK((config->failure_of(e) != nullptr) == is_lost);
    if (e.name == "lost")
      CHECK(e.is_required);
    if (e.name == "needy")
      CHECK(config->failure_of(e)->message().find("node 'needy' needs node 'bad': ") == 0);
  }
  CHECK(!config->make_node_spec("needy").has_value());
  CHECK(config->make_node_spec("good").has_value());
}

TEST_CASE("what is wrong only beside other files is the fragment's fault") {
  const scratch dir;
  dir.write("f/a.yaml", "nodes: [{node-name: web, driver: null-co}]\n"
                        "exports: [{name: twin, node-name: web}]\n");
  dir.write("f/b.yaml", "exports: [{name: w, node-name: nothing}]\n");
  dir.write("f/c.yaml", "include: [x]\n");
  dir.write("f/d.yaml", "version: 2\n");
  const auto config = load(dir, std::string(one_node) + "include: [f/*, none.yaml, none*]\n");
  REQUIRE(config.has_value());
  std::vector<std::string> messages;
  for (const error& w : config->warnings())
    messages.push_back(w.message());
  REQUIRE(messages.size() == 5);
  CHECK(messages[0] == fmt::format("{}:1:9: there are two nodes 'web'; the other is at {}:3:5",
                                   dir.at("f/a.yaml"), dir.at("g.yaml")));
  CHECK(messages[1] ==
        fmt::format("{}:1:21: export 'w': there is no node 'nothing'", dir.at("f/b.yaml")));
  CHECK(messages[2] == fmt::format("{}:1:1: 'include' belongs into the graph file, not into a "
                                   "fragment",
                                   dir.at("f/c.yaml")));
  CHECK(messages[3] ==
        fmt::format("{}:1:1: 'version' is 2; this program knows version 1", dir.at("f/d.yaml")));
  CHECK(messages[4] ==
        fmt::format("cannot open '{}': No such file or directory", dir.at("none.yaml")));
}

TEST_CASE("a pattern that matches the graph file itself does not include it") {
  const scratch dir;
  const auto config = load(dir, std::string(one_node) + "include: ['*.yaml']\n");
  REQUIRE(config.has_value());
  CHECK(config->warnings().empty());
}

TEST_CASE("the short form finds the format, or says how to give it") {
  const scratch dir;
  const std::string image = dir.write("i.cow", test::cow_image());
  const std::string bytes = dir.write("i.raw", std::string(1024, 'x'));
  const auto found = graph_config::for_image({.filename = image}, test::test_registry());
  REQUIRE(found.has_value());
  REQUIRE(found->exports().size() == 1);
  CHECK(found->exports()[0].name == "disk");
  CHECK(!found->exports()[0].is_writable);
  CHECK(found->source() == image);
  CHECK(found->make_node_spec("disk")->type == &test::cow_driver_type);
  CHECK(found->make_node_spec("disk")->generic.is_read_only);
  CHECK(found->host_paths() == std::vector<std::string>{image});

  const auto writable = graph_config::for_image(
      {.filename = bytes, .format = "raw", .is_writable = true}, test::test_registry());
  REQUIRE(writable.has_value());
  CHECK(writable->exports()[0].is_writable);
  CHECK(!writable->make_node_spec("disk")->generic.is_read_only);

  struct row {
    image_request request;
    std::string expected;
  };
  const std::vector<row> rows = {
      {{.filename = bytes},
       fmt::format("'{}' has no format that is recognised; if its bytes are the disk itself, give "
                   "-F raw",
                   bytes)},
      {{.filename = image, .is_writable = true},
       fmt::format("'{}': writing needs the format to be given, with -F FORMAT: a guess may be "
                   "wrong, and then writing destroys the image",
                   image)},
      {{.filename = image, .format = "cwo"},
       "node 'disk': there is no driver 'cwo'; did you mean 'cow'?"},
      {{.filename = dir.at("none")},
       fmt::format("cannot open '{}': No such file or directory", dir.at("none"))},
      {{.filename = dir.path()}, fmt::format("'{}' is a directory, not an image", dir.path())},
  };
  for (const row& r : rows) {
    const auto config = graph_config::for_image(r.request, test::test_registry());
    REQUIRE(!config.has_value());
    CHECK(config.error().message() == r.expected);
  }
}

TEST_CASE("two nodes do not open one file if one of them is written") {
  const scratch dir;
  const std::string nodes =
      "version: 1\nnodes:\n"
      "  - {node-name: a, driver: raw, file: {driver: file, filename: x}}\n"
      "  - {node-name: b, driver: raw, file: {driver: file, filename: ./x}}\n";
  CHECK(load_message(dir, nodes) == "fine");
  CHECK(load_message(dir, nodes + "exports: [{node-name: a, writable: true}]\n") ==
        "g.yaml:4:33: the 'file' of node 'b' opens '" + dir.at("x") +
            "', as the 'file' of node 'a' at " + dir.at("g.yaml") +
            ":3:33 does, and one of them is written; let one refer to the other by its node-name");
}

namespace {

// Two overlays of one base, a third image, and these exports.
std::string connected_graph(std::string_view exports) {
  return fmt::format("version: 1\nnodes:\n"
                     "  - {{node-name: base, driver: cow, file: {{driver: file, filename: b}}}}\n"
                     "  - {{node-name: x, driver: cow, file: {{driver: file, filename: x}}, "
                     "backing: base}}\n"
                     "  - {{node-name: y, driver: cow, file: {{driver: file, filename: y}}, "
                     "backing: base}}\n"
                     "  - {{node-name: z, driver: cow, file: {{driver: file, filename: z}}}}\n"
                     "exports: [{}]\n",
                     exports);
}

} // namespace

TEST_CASE("a thread serves all that is connected with the export that names it") {
  const scratch dir;
  const auto config = load(dir, connected_graph("{node-name: x}, {node-name: y, iothread: one}, "
                                                "{node-name: z}, {node-name: base}"));
  REQUIRE(config.has_value());
  std::vector<std::string> threads;
  for (const export_spec& e : config->exports())
    threads.push_back(e.iothread);
  CHECK(threads == std::vector<std::string>{"one", "one", "", "one"});
}

TEST_CASE("exports that are connected have one thread") {
  const scratch dir;
  CHECK(load_message(dir, connected_graph("{node-name: x, iothread: one}, {node-name: z, iothread: "
                                          "two}, {node-name: y, iothread: one}")) == "fine");
  const std::string message = load_message(
      dir, connected_graph("{node-name: x, iothread: one}, {node-name: y, iothread: two}"));
  CHECK(message ==
        fmt::format("g.yaml:7:57: export 'y' has the iothread 'two', and export 'x', whose nodes "
                    "are connected with its own, has 'one' (see {}/g.yaml:7:11); nodes that are "
                    "connected run on one thread: give both the same, or define what they share "
                    "once for each",
                    dir.path()));
}
