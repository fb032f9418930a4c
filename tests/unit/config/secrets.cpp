// SPDX-License-Identifier: MIT
// Where secrets come from, and that none of it shows.
#include "config/secrets.h"

#include "config/graph_config.h"
#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

using namespace bgfs;
using test::scratch;

namespace {

constexpr std::string_view hidden = "hunter2 in the attic";

std::string text_of(const secret_store& store, std::string_view id) {
  const secret_bytes* found = store.find(id);
  if (found == nullptr)
    return "(none)";
  std::string text;
  for (const std::byte b : found->bytes())
    text += std::to_integer<char>(b);
  return text;
}

std::string graph_with(std::string_view secrets) {
  return fmt::format("version: 1\nsecrets: {}\nnodes: [{{node-name: a, driver: null-co}}]\n",
                     secrets);
}

std::string message_of(const scratch& dir, std::string_view secrets) {
  const auto config =
      graph_config::load(dir.write("g.yaml", graph_with(secrets)), test::test_registry());
  return config ? std::string("fine") : config.error().message();
}

std::string object_message(std::string object) {
  std::vector<std::string> objects = {std::move(object)};
  const auto store = load_secret_objects(objects);
  return store ? std::string("fine") : store.error().message();
}

} // namespace

TEST_CASE("secrets come from files, the environment, descriptors and the graph file") {
  const scratch dir;
  const std::string file = dir.write("k/key0", std::string(hidden) + "\n");
  REQUIRE(::chmod(file.c_str(), 0600) == 0);
  REQUIRE(::setenv("BGFS_TEST_KEY", "aHVudGVy\nMg==", 1) == 0);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  REQUIRE(::write(ends[1], "piped", 5) == 5);
  ::close(ends[1]);
  const std::string text = graph_with(
      fmt::format("[{{id: a, file: k/key0}}, {{id: b, env: BGFS_TEST_KEY, format: base64}}, "
                  "{{id: c, fd: {}}}, {{id: d, data: '{}'}}]",
                  ends[0], hidden));
  const std::string path = dir.write("g.yaml", text);
  const auto config = graph_config::load(path, test::test_registry());
  REQUIRE_MESSAGE(config.has_value(), (config ? "" : config.error().message()));
  const secret_store& store = *config->secrets();
  CHECK(text_of(store, "a") == std::string(hidden) + "\n");
  CHECK(text_of(store, "b") == "hunter2");
  CHECK(text_of(store, "c") == "piped");
  CHECK(text_of(store, "d") == hidden);
  CHECK(text_of(store, "e") == "(none)");
  // The nodes are opened with them.
  const auto spec = config->make_node_spec("a");
  REQUIRE(spec.has_value());
  CHECK(spec->secrets == config->secrets());
  // The pipe is at its end: what it gave is remembered for a reload.
  CHECK(!graph_config::load(path, test::test_registry()).has_value());
  const auto again = graph_config::load(path, test::test_registry(), {.secrets = &store});
  REQUIRE(again.has_value());
  CHECK(text_of(*again->secrets(), "c") == "piped");
  // No view has them.
  const std::string shown = to_json(again->effective());
  CHECK(!shown.contains("hunter2"));
  CHECK(shown.contains("(hidden)"));
  CHECK(shown.contains("BGFS_TEST_KEY"));
  ::close(ends[0]);
  ::unsetenv("BGFS_TEST_KEY");
}

TEST_CASE("every mistake about secrets in a graph file is told without the secret") {
  const scratch dir;
  const std::string open_file = dir.write("open", hidden);
  REQUIRE(::chmod(open_file.c_str(), 0644) == 0);
  REQUIRE(::chmod(dir.write("writable", hidden).c_str(), 0602) == 0);
  REQUIRE(::chmod(dir.write("group", hidden).c_str(), 0640) == 0);
  REQUIRE(::chmod(dir.write("empty", "").c_str(), 0600) == 0);
  REQUIRE(::chmod(dir.write("long", std::string(65537, 'a')).c_str(), 0600) == 0);
  REQUIRE(::setenv("BGFS_TEST_KEY", hidden.data(), 1) == 0);
  struct row {
    std::string secrets, expected;
  };
  const std::vector<row> rows = {
      {"{id: a}",
       "g.yaml:2:1: 'secrets' is a list, not a map: each of its entries begins with '- '"},
      {"[a]", "g.yaml:2:11: a secret is a map such as {id: ..., file: ...}, not text"},
      {"[{file: group}]", "a secret needs option 'id': the name that options know it by"},
      {"[{id: '', file: group}]", "a secret needs an 'id' that is not empty"},
      {"[{id: a}]", "g.yaml:2:11: secret 'a' has no sources; it comes from one of file, env, fd, "
                    "data"},
      {"[{id: a, file: group, env: B}]", "secret 'a' has several sources"},
      {"[{id: a, fiel: group}]", "option 'fiel' is not known to a secret; did you mean 'file'?"},
      {"[{id: a, file: group}, {id: a, file: group}]",
       "g.yaml:2:33: there are two secrets with the id 'a'"},
      {"[{id: a, file: nothing}]", "secret 'a': cannot open '" + dir.at("nothing") + "': No such"},
      {"[{id: a, file: .}]", "secret 'a': cannot read '" + dir.path()},
      {"[{id: a, file: open}]", "secret 'a': '" + dir.at("open") +
                                    "' can be read by everybody (mode 0644), so it is no secret; "
                                    "make it private with 'chmod 600 " +
                                    dir.at("open") + "'"},
      {"[{id: a, file: writable}]", "can be written by everybody (mode 0602)"},
      {"[{id: a, file: empty}]", "g.yaml:2:11: secret 'a' is empty"},
      {"[{id: a, file: long}]", "long' holds more than the 65536 bytes that a secret has"},
      {"[{id: a, env: BGFS_TEST_NOTHING}]", "the environment has no variable 'BGFS_TEST_NOTHING'"},
      {"[{id: a, fd: 1000}]", "secret 'a': cannot read descriptor 1000: Bad file descriptor"},
      {"[{id: a, fd: -1}]", "option 'fd' is -1, but cannot be negative"},
      {"[{id: a, env: BGFS_TEST_KEY, format: base64}]", "secret 'a': it is not base64: letters"},
      {"[{id: a, data: 'aGk', format: base64}]", "it is not base64"},
      {"[{id: a, data: 'a===', format: base64}]", "it is not base64"},
      {"[{id: a, data: 'aG=k', format: base64}]", "it is not base64"},
      {"[{id: a, file: group, format: hex}]", "option 'format' is one of raw, base64, not 'hex'"},
      {"[{id: a, file: group}]", "fine"},
  };
  for (const row& r : rows) {
    CAPTURE(r.secrets);
    const std::string message = message_of(dir, r.secrets);
    CHECK_MESSAGE(message.contains(r.expected), message);
    CHECK(!message.contains(hidden));
  }
  const std::string fragment = dir.write("f.yaml", "secrets: [{id: a, file: group}]\n");
  const auto with_fragment = graph_config::load(
      dir.write("g.yaml", "version: 1\ninclude: [f.yaml]\nnodes: []\n"), test::test_registry());
  REQUIRE(with_fragment.has_value());
  REQUIRE(with_fragment->warnings().size() == 1);
  CHECK(with_fragment->warnings()[0].message().contains(
      "'secrets' belongs into the graph file, not into a fragment"));
  ::unsetenv("BGFS_TEST_KEY");
}

TEST_CASE("objects of a command are secrets, and what is wrong is told without them") {
  const scratch dir;
  const std::string file = dir.write("key", hidden);
  REQUIRE(::chmod(file.c_str(), 0644) == 0); // as scripts leave them
  std::vector<std::string> objects = {
      "secret,id=a,file=" + file,
      "qom-type=secret,id=b,format=base64,data=aGk=", "secret,id=c,data=with,,comma"};
  const auto store = load_secret_objects(objects);
  REQUIRE_MESSAGE(store.has_value(), (store ? "" : store.error().message()));
  CHECK(text_of(**store, "a") == hidden);
  CHECK(text_of(**store, "b") == "hi");
  CHECK(text_of(**store, "c") == "with,comma");
  for (const std::string& given : objects) // wiped
    CHECK(given.find_first_not_of('\0') == std::string::npos);

  struct row {
    std::string object, expected;
  };
  const std::string secret(hidden);
  const std::vector<row> rows = {
      {"throttle-group,id=a", "option '--object': there are no objects of type 'throttle-group'; "
                              "it is secret,id=...,file=... (or data=, env=, fd=)"},
      {secret, "there are no objects of that form; it is secret,id=..."},
      {"secret", "a secret needs option 'id'"},
      {"secret,id=a", "secret 'a' has no sources"},
      {"secret,data=" + secret, "a secret needs option 'id'"},
      {"secret,id=a,data=" + secret + ",=" + secret,
       "it is not a list of options: expected secret"},
      {"secret,id=a,data=" + secret + ",format=base64", "secret 'a': it is not base64"},
      {"secret,id=a,data=" + secret + ",data.x=" + secret, "it is not a list of options"},
      {"secret,id=a,dat=" + secret, "option 'dat' is not known to a secret; did you mean 'data'?"},
      {"secret,id=a,file=" + dir.at("none"), "cannot open '" + dir.at("none")},
  };
  for (const row& r : rows) {
    const std::string message = object_message(r.object);
    CHECK_MESSAGE(message.contains(r.expected), message);
    CHECK(!message.contains("hunter2"));
  }
}
