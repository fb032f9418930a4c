// SPDX-License-Identifier: MIT
#include "config/yaml.h"

#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

result<value> parse(std::string_view text) {
  return parse_yaml(text, std::make_shared<const std::string>("web.yaml"));
}

std::string message(std::string_view text) {
  const result<value> parsed = parse(text);
  return parsed ? "accepted as " + to_json(*parsed) : parsed.error().message();
}

} // namespace

TEST_CASE("plain words are numbers, truth or text, and nothing else") {
  const auto parsed = parse("a: 1\nb: -5\nc: 0x10\nd: 1.5\ne: true\nf: False\ng: on\nh: yes\n"
                            "i: 0640\nj: ~\nk: 5s\nl: 99999999999999999999\nm: '1'\nn: 12:30\n"
                            "o: +7\np: .5\nq: !!str 1\nr: 0o17\n");
  REQUIRE(parsed.has_value());
  CHECK(to_json(*parsed) ==
        R"({"a": 1, "b": -5, "c": 16, "d": 1.5, "e": true, "f": false, "g": "on", "h": "yes", )"
        R"("i": "0640", "j": null, "k": "5s", "l": "99999999999999999999", "m": "1", )"
        R"("n": "12:30", "o": 7, "p": ".5", "q": "1", "r": "0o17"})");
}

TEST_CASE("members are marked where their key stands, items where they begin") {
  const auto parsed = parse("nodes:\n  - node-name: a\n    file:\n      driver: file\n");
  REQUIRE(parsed.has_value());
  const value& node = parsed->find("nodes")->as_list()->front();
  CHECK(node.mark.to_string() == "web.yaml:2:5");
  CHECK(node.find("file")->mark.to_string() == "web.yaml:3:5");
  CHECK(node.find("file")->find("driver")->mark.to_string() == "web.yaml:4:7");
}

TEST_CASE("JSON is read as well, with all its escapes") {
  const auto parsed =
      parse_json("{\"a\":[1,2.5,null,true],\t\"b\":\"\\/\\u00e4\\ud83d\\udcbe\\\\ud83d\"}");
  REQUIRE(parsed.has_value());
  CHECK(to_json(*parsed) == R"({"a": [1, 2.5, null, true], "b": "/\u00E4\uD83D\uDCBE\\ud83d"})");
  CHECK(!parse_json("{\"a\": \"\\ud83d\"}").has_value());
}

TEST_CASE("aliases are expanded") {
  const auto parsed = parse("a: &x {k: [1, 2]}\nb: *x\n");
  REQUIRE(parsed.has_value());
  CHECK(to_json(*parsed) == R"({"a": {"k": [1, 2]}, "b": {"k": [1, 2]}})");
  CHECK(parsed->find("b")->mark.line == 2);
}

TEST_CASE("an empty text is nothing") {
  CHECK(parse("")->is_null());
  CHECK(parse("# only a comment\n")->is_null());
}

TEST_CASE("what is wrong with a text is said with its place") {
  struct row {
    std::string_view text;
    std::string_view expected;
  };
  for (const row& r : std::initializer_list<row>{
           {"a: 1\na: 2\n", "web.yaml:2:1: the key 'a' is given twice"},
           {"a: {b: 1, b: 2}\n", "web.yaml:1:11: the key 'b' is given twice"},
           {"a: [\n", "web.yaml:2:1: not valid YAML: end of sequence flow not found"},
           {"a: 1\n b: 2\n", "web.yaml:2:3: not valid YAML: illegal map value"},
           {"'abc", "web.yaml:1:5: not valid YAML: illegal EOF in scalar"},
           {"? [a]\n: b\n",
            "web.yaml:1:3: a key must be text, not a list or a map; or a bracket is not closed"},
           {"? ~\n: b\n", "web.yaml:1:3: a key must be text, not nothing"},
           {"a: !foo 1\n", "web.yaml:1:4: the tag '!foo' is not known, or does not fit '1'"},
           {"a: !foo [1]\n", "web.yaml:1:4: the tag '!foo' is not known"},
           {"a: !!int x\n",
            "web.yaml:1:4: the tag 'tag:yaml.org,2002:int' is not known, or does not fit 'x'"},
           {"a: 1\n---\nb: 2\n",
            "web.yaml:2:1: a second YAML document begins here; only one is read"},
           {"a: &x [*x]\n", "web.yaml:1:8: an alias cannot stand for something that contains it"},
           {"a: *x\n", "web.yaml:1:4: not valid YAML: the referenced anchor is not defined"},
           {std::string_view("a: 1\n\0b: 2\n", 11),
            "web.yaml:2:1: control byte 0x00: this is not YAML text"},
           {"a: \x04 2\n", "web.yaml:1:4: control byte 0x04: this is not YAML text"},
           {"\xff\xfe\x61", "web.yaml:1:1: the text is UTF-16; only UTF-8 is read"},
       })
    CHECK(message(r.text) == r.expected);
}

TEST_CASE("a text cannot make us run out of memory or stack") {
  CHECK(message(std::string(5 << 20, 'a')) ==
        "web.yaml: the text is longer than 4 MiB, the most that is read");
  const std::string deep = std::string(65, '[') + std::string(65, ']');
  CHECK(message(deep) == "web.yaml:1:65: lists and maps are nested more than 64 deep");
  CHECK(message(std::string(100'000, '[')).starts_with("web.yaml:1:"));

  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 9; i++) {
    std::string items;
    for (int j = 0; j < 10; j++)
      items += fmt::format("{}*a{}", j == 0 ? "" : ",", i - 1);
    bomb += fmt::format("a{}: &a{} [{}]\n", i, i, items);
  }
  CHECK(message(bomb).find("there are more than 200000 values here, aliases expanded; the file is "
                           "not a graph, or hostile") != std::string::npos);

  const std::string half = std::string(40, '[') + "1" + std::string(40, ']');
  CHECK(message("a: &a " + half + "\nb: " + std::string(40, '[') + "*a" + std::string(40, ']')) ==
        "web.yaml:2:44: lists and maps are nested more than 64 deep");
}

TEST_CASE("a file that cannot be read says why") {
  const test::scratch dir;
  const auto missing = read_yaml(dir.at("none.yaml"));
  REQUIRE(!missing.has_value());
  CHECK(missing.error().message() ==
        fmt::format("cannot open '{}': No such file or directory", dir.at("none.yaml")));
  const auto directory = read_yaml(dir.path());
  REQUIRE(!directory.has_value());
  CHECK(directory.error().message() == fmt::format("cannot read '{}': Is a directory", dir.path()));
  const std::string good = dir.write("good.yaml", "a: [1]\n");
  REQUIRE(read_yaml(good).has_value());
  CHECK(read_yaml(good)->find("a")->mark.to_string() == good + ":1:1");
}
