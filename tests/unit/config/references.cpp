// SPDX-License-Identifier: MIT
#include "config/references.h"

#include "config/graph_config.h"
#include "graph/io/spawn.h"
#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

#include <unistd.h>

using namespace bgfs;
using test::cow_image;
using test::scratch;

namespace {

// Opens one cow image under a policy; the chain that was opened, or what was wrong with it.
std::string open_chain(const scratch& dir, const reference_policy& policy,
                       const std::string& filename) {
  auto home = loop::create();
  REQUIRE(home.has_value());
  policy_resolver resolver(test::test_registry(), policy);
  graph nodes(**home, test::test_registry(), &resolver);
  value given = value::map();
  given.set("driver", "cow");
  given.set("node-name", "top");
  given.set("read-only", true);
  given.set("file", value::map{{"driver", "file"}, {"filename", filename}});
  const auto defined = define_node(given, {.drivers = test::test_registry()});
  REQUIRE(defined.has_value());
  const result<node*> opened = run_to_end(**home, nodes.open(make_spec(**defined, {})));
  std::string chain;
  if (opened) {
    for (const node* n = *opened; n != nullptr; n = n->next_in_chain())
      if (n->type().name != "file")
        chain += fmt::format(
            "{}{}:{}", chain.empty() ? "" : " ", n->type().name,
            std::filesystem::path(n->host_path()).lexically_relative(dir.path()).string());
  }
  REQUIRE(run_to_end(**home, nodes.close_all()).has_value());
  if (opened)
    return chain;
  std::string message = opened.error().message();
  for (auto at = message.find(dir.path()); at != std::string::npos; at = message.find(dir.path()))
    message.replace(at, dir.path().size(), "DIR");
  return message;
}

reference_policy allow(const scratch& dir, const std::string& directory = "") {
  return {.allowed = {dir.at(directory)},
          .how_to_allow = {"add '", "' to the list"},
          .how_to_declare = "declare it"};
}

constexpr std::string_view top = "node 'top' (cow, DIR/i/top) names the backing file ";

} // namespace

TEST_CASE("a relative name is found beside its image") {
  const scratch dir;
  dir.write("i/top", cow_image("sub/mid", "cow"));
  dir.write("i/sub/mid", cow_image("../../base", "cow"));
  dir.write("base", cow_image());
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")) ==
        "cow:i/top cow:i/sub/mid cow:i/sub/../../base");
  dir.write("i/top", cow_image(dir.at("base"), "cow"));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")) == "cow:i/top cow:base");
  dir.write("i/top", cow_image("file:" + dir.at("base"), "cow"));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")) == "cow:i/top cow:base");
  dir.write(
      "i/top",
      cow_image("json:{\"driver\":\"cow\",\"file.filename\":\"" + dir.at("base") + "\"}", ""));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")) == "cow:i/top cow:base");
  dir.write("i/top",
            cow_image("json:{\"driver\":\"file\",\"filename\":\"" + dir.at("base") + "\"}", "cow"));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")) == "cow:i/top cow:base");
}

TEST_CASE("headers lead nowhere but where it is allowed") {
  const scratch dir;
  dir.write("base", cow_image());
  dir.write("i/in", cow_image());
  const auto outside = fmt::format("{}'../base', which leads to 'DIR/base', where headers may not "
                                   "lead; to allow it, add 'DIR' to the list",
                                   top);
  dir.write("i/top", cow_image("../base", "cow"));
  CHECK(open_chain(dir, allow(dir, "i"), dir.at("i/top")) == outside);
  CHECK(open_chain(dir, {.how_to_allow = {"add '", "' to the list"}}, dir.at("i/top")) == outside);
  // A name that only begins like the directory.
  dir.write("i2/base", cow_image());
  dir.write("i/top", cow_image("../i2/base", "cow"));
  CHECK(open_chain(dir, allow(dir, "i"), dir.at("i/top")).find("may not lead") !=
        std::string::npos);
  // A link out of the directory, and one into it.
  REQUIRE(::symlink("../base", dir.at("i/link").c_str()) == 0);
  dir.write("i/top", cow_image("link", "cow"));
  CHECK(open_chain(dir, allow(dir, "i"), dir.at("i/top")).find("which leads to 'DIR/base'") !=
        std::string::npos);
  REQUIRE(::symlink("i", dir.at("other").c_str()) == 0);
  dir.write("i/top", cow_image("in", "cow"));
  CHECK(open_chain(dir, allow(dir, "other"), dir.at("i/top")) == "cow:i/top cow:i/in");
  // The image's own directory, for commands.
  CHECK(open_chain(dir, {.allows_own_directory = true}, dir.at("i/top")) == "cow:i/top cow:i/in");
  dir.write("i/top", cow_image("../base", "cow"));
  CHECK(open_chain(dir, {.allows_own_directory = true}, dir.at("i/top")).find("may not lead") !=
        std::string::npos);
}

TEST_CASE("places that have moved are found where they are now") {
  const scratch dir;
  dir.write("new/base", cow_image());
  dir.write("newest/x/base", cow_image());
  reference_policy policy = allow(dir);
  policy.rewrites = {{"/old/place", dir.at("new")}, {"/old/place/deep/", dir.at("newest")}};
  dir.write("i/top", cow_image("/old/place/base", "cow"));
  CHECK(open_chain(dir, policy, dir.at("i/top")) == "cow:i/top cow:new/base");
  dir.write("i/top", cow_image("/old/place/deep/x/base", "cow"));
  CHECK(open_chain(dir, policy, dir.at("i/top")) == "cow:i/top cow:newest/x/base");
  dir.write("i/top", cow_image("/old/placebo/base", "cow"));
  CHECK(open_chain(dir, policy, dir.at("i/top")) ==
        fmt::format("{}'/old/placebo/base', which leads to '/old/placebo/base': No such file or "
                    "directory",
                    top));
}

TEST_CASE("a header never makes a file a raw image") {
  const scratch dir;
  dir.write("i/bytes", "secret");
  const std::string json_bytes =
      "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"" + dir.at("i/bytes") +
      "\"}}";
  for (const std::string& name : {std::string("bytes"), json_bytes}) {
    dir.write("i/top", cow_image(name, "raw"));
    const std::string message = open_chain(dir, allow(dir), dir.at("i/top"));
    CAPTURE(message);
    CHECK(message.find("of format 'raw': a header cannot make a file a raw image; if it is one, "
                       "declare it, as {driver: raw, file: {driver: file, filename: ...}}") !=
          std::string::npos);
  }
  reference_policy policy = allow(dir);
  policy.how_to_allow_raw = "give --raw=";
  dir.write("i/top", cow_image("bytes", "raw"));
  CHECK(open_chain(dir, policy, dir.at("i/top"))
            .find("if it is one, give --raw=DIR/i, or declare "
                  "it") != std::string::npos);
  policy.raw_allowed = {dir.at("i")};
  CHECK(open_chain(dir, policy, dir.at("i/top")) == "cow:i/top raw:i/bytes");
  dir.write("i/top", cow_image(json_bytes, "raw"));
  CHECK(open_chain(dir, policy, dir.at("i/top")) == "cow:i/top raw:i/bytes");
  policy.raw_allowed = {dir.at("j")};
  CHECK(open_chain(dir, policy, dir.at("i/top")).find("cannot make a file a raw image") !=
        std::string::npos);
}

TEST_CASE("a format that the header leaves out is recognised only if that is allowed") {
  const scratch dir;
  dir.write("i/base", cow_image());
  dir.write("i/bytes", "bytes");
  dir.write("i/top", cow_image("base", ""));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")) ==
        fmt::format("{}'base', without its format: set 'references: {{probe: true}}' to recognise "
                    "it by its first bytes, or declare it",
                    top));
  reference_policy policy = allow(dir);
  policy.is_probing = true;
  CHECK(open_chain(dir, policy, dir.at("i/top")) == "cow:i/top cow:i/base");
  dir.write("i/top", cow_image("bytes", ""));
  CHECK(open_chain(dir, policy, dir.at("i/top")) ==
        fmt::format("{}'bytes', without its format, and no format recognises it; declare it, with "
                    "its 'driver'",
                    top));
}

TEST_CASE("what else a header may not say") {
  const scratch dir;
  dir.write("i/base", cow_image());
  const std::string base = dir.at("i/base");
  struct row {
    std::string name;
    std::string format;
    std::string expected;
  };
  const std::vector<row> rows = {
      {"nbd:host:10809", "raw",
       "'nbd:host:10809', which is of protocol 'nbd': headers lead to files of the host only; "
       "declare it"},
      {"file:base", "cow",
       "'file:base', where 'base' is relative to the directory of whoever opens it; declare it"},
      {"base", "cwo", "'base', of format 'cwo', which is not known; did you mean 'cow'?"},
      {"base", "file", "'base', of format 'file', which is a protocol, not an image format"},
      {"none", "cow", "'none', which leads to 'DIR/i/none': No such file or directory"},
      {"json:{\"driver\":\"null-co\"}", "cow",
       "'json:{\"driver\":\"null-co\"}', with driver 'null-co': headers lead to files of the host "
       "only; declare it"},
      {"json:{\"driver\":\"file\"}", "cow",
       "'json:{\"driver\":\"file\"}', with a file that has no name"},
      {"json:{\"driver\":\"cow\",\"file\":\"web\"}", "",
       "'json:{\"driver\":\"cow\",\"file\":\"web\"}', which refers to a node of the graph; "
       "declare it"},
      {"json:{\"driver\":\"cow\",\"node-name\":\"web\"}", "",
       "'json:{\"driver\":\"cow\",\"node-name\":\"web\"}', which claims a node-name; declare it"},
      {"json:{\"driver\":\"cow\"}", "raw",
       "'json:{\"driver\":\"cow\"}', of format 'raw', which contradicts its driver 'cow'"},
      {"json:{\"driver\":", "cow",
       "'json:{\"driver\":', 'json:{\"driver\":': 1:1: a key must be text, not a list or a map; or "
       "a bracket is not closed"},
      {"json:[1]", "cow", "'json:[1]', 'json:[1]': json: is followed by a map, not a list"},
      {"json:{\"file\":{}}", "",
       "'json:{\"file\":{}}', 1:1: the node needs a 'driver': one of "
       "cow, file, null-co, raw"},
      {"json:{\"driver\":\"cow\",\"file\":{\"filename\":\"" + base + "\"},\"mod\":1}", "",
       "'json:{\"driver\":\"cow\",\"file\":{\"filename\":\"DIR/i/base\"},\"mod\":1}', "},
  };
  for (const row& r : rows) {
    dir.write("i/top", cow_image(r.name, r.format));
    const std::string message = open_chain(dir, allow(dir), dir.at("i/top"));
    CAPTURE(r.name);
    CHECK(message.substr(0, top.size()) == top);
    CHECK(message.substr(top.size(), r.expected.size()) == r.expected);
  }
}

TEST_CASE("a command may name files from where it runs") {
  const scratch dir;
  dir.write("i/base", cow_image());
  dir.write("i/top", cow_image("file:" + dir.at("i") + "/base", "cow"));
  reference_policy policy = allow(dir);
  policy.has_working_directory = true;
  CHECK(open_chain(dir, policy, dir.at("i/top")) == "cow:i/top cow:i/base");
  dir.write("i/top", cow_image("file:no-such-file-here", "cow"));
  CHECK(open_chain(dir, policy, dir.at("i/top")).find("no-such-file-here': No such file") !=
        std::string::npos);
}

TEST_CASE("a chain that comes back to itself is found") {
  const scratch dir;
  dir.write("i/top", cow_image("b", "cow"));
  dir.write("i/b", cow_image("c", "cow"));
  dir.write("i/c", cow_image("top", "cow"));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top"))
            .find("the backing chain loops: 'DIR/i/top' is "
                  "below itself") != std::string::npos);
  dir.write("i/top", cow_image("top", "cow"));
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")).find("the backing chain loops") !=
        std::string::npos);
  // The same file under another name.
  dir.write("i/top", cow_image("hard", "cow"));
  REQUIRE(::link(dir.at("i/top").c_str(), dir.at("i/hard").c_str()) == 0);
  CHECK(open_chain(dir, allow(dir), dir.at("i/top")).find("the backing chain loops") !=
        std::string::npos);
}

TEST_CASE("a chain that never ends is cut off") {
  const scratch dir;
  for (int i = 0; i < 300; i++)
    dir.write(fmt::format("i/{}", i), cow_image(std::to_string(i + 1), "cow"));
  dir.write("i/300", cow_image());
  CHECK(open_chain(dir, allow(dir), dir.at("i/0")).find("images lie below one another") !=
        std::string::npos);
}

namespace {

// The roots of a graph file opened one by one: "name" or "name: what is wrong".
std::vector<std::string> open_roots(const graph_config& config) {
  auto home = loop::create();
  REQUIRE(home.has_value());
  std::vector<std::string> outcomes;
  for (const export_spec& root : config.exports()) {
    graph nodes(**home, test::test_registry(), &config.references(root));
    const result<node*> opened = run_to_end(**home, open_export(nodes, config, root));
    outcomes.push_back(opened ? root.name : root.name + ": " + opened.error().message());
    if (!opened)
      CHECK(nodes.nodes().empty());
    REQUIRE(run_to_end(**home, nodes.close_all()).has_value());
  }
  return outcomes;
}

} // namespace

TEST_CASE("a graph file lets headers name files beside it, unless it says otherwise") {
  const scratch dir;
  dir.write("top", cow_image("base", "cow"));
  dir.write("base", cow_image());
  const std::string nodes =
      "nodes: [{node-name: top, driver: cow, file: {driver: file, filename: top}}]\n";
  const auto by_default =
      graph_config::load(dir.write("g.yaml", "version: 1\n" + nodes), test::test_registry());
  REQUIRE(by_default.has_value());
  CHECK(open_roots(*by_default) == std::vector<std::string>{"top"});

  const auto refusing = graph_config::load(
      dir.write("g.yaml", "version: 1\nreferences: {allow: []}\n" + nodes), test::test_registry());
  REQUIRE(refusing.has_value());
  CHECK(open_roots(*refusing).at(0).find(
            fmt::format("to allow it, add '{0}' to 'references: {{allow: [...]}}' in {0}/g.yaml",
                        dir.path())) != std::string::npos);

  auto untrusting =
      graph_config::load(dir.write("g.yaml", "version: 1\n" + nodes +
                                                 "exports: [{node-name: top, untrusted: true}]\n"),
                         test::test_registry());
  REQUIRE(untrusting.has_value());
  CHECK(open_roots(*untrusting)
            .at(0)
            .find(fmt::format("to allow it, give --allow-references={}", dir.path())) !=
        std::string::npos);
  untrusting->allow_references({dir.path()});
  CHECK(open_roots(*untrusting) == std::vector<std::string>{"top"});
}

TEST_CASE("the short form follows no header unless it is told where") {
  const scratch dir;
  const std::string image = dir.write("top", cow_image("base", "cow"));
  dir.write("base", cow_image());
  const auto strict = graph_config::for_image({.filename = image}, test::test_registry());
  REQUIRE(strict.has_value());
  CHECK(open_roots(*strict).at(0).find(fmt::format("to allow it, give --allow-references={}",
                                                   dir.path())) != std::string::npos);
  const auto told = graph_config::for_image({.filename = image, .allowed_references = {dir.path()}},
                                            test::test_registry());
  REQUIRE(told.has_value());
  CHECK(open_roots(*told) == std::vector<std::string>{"disk"});
}

TEST_CASE("a root that fails closes what it opened and leaves the others") {
  const scratch dir;
  dir.write("good", cow_image());
  dir.write("bad", "no image");
  dir.write("frag.yaml", "exports: [{name: lost, node-name: 5}]\n");
  const auto config = graph_config::load(
      dir.write("g.yaml",
                "version: 1\ninclude: [frag.yaml]\nnodes:\n"
                "  - {node-name: good, driver: cow, file: {driver: file, filename: good}}\n"
                "  - {node-name: shared, driver: file, filename: bad}\n"
                "  - {node-name: bad, driver: cow, file: shared}\n"
                "exports: [{node-name: good}, {node-name: bad}]\n"),
      test::test_registry());
  REQUIRE_MESSAGE(config.has_value(), (config ? "" : config.error().message()));
  const auto outcomes = open_roots(*config);
  REQUIRE(outcomes.size() == 3);
  CHECK(outcomes[0] == "good");
  CHECK(outcomes[1].find("no magic") != std::string::npos);
  CHECK(outcomes[2] ==
        fmt::format("lost: {}:1:24: export 'lost': option 'node-name' is text, not a "
                    "whole number; put it in quotes",
                    dir.at("frag.yaml")));
}
