// SPDX-License-Identifier: MIT
#include "graph/base/value.h"

#include <doctest/doctest.h>

#include <limits>

using namespace bgfs;

TEST_CASE("a mark is printed as far as it is known") {
  const auto file = std::make_shared<const std::string>("web.yaml");
  CHECK(source_mark{}.to_string().empty());
  CHECK(source_mark{}.prefix().empty());
  CHECK(source_mark{file, 14, 7}.to_string() == "web.yaml:14:7");
  CHECK(source_mark{file, 14, 7}.prefix() == "web.yaml:14:7: ");
  CHECK(source_mark{file}.to_string() == "web.yaml");
  CHECK(source_mark{nullptr, 2, 3}.to_string() == "2:3");
}

TEST_CASE("members keep the order they were set in") {
  value v;
  v.set("b", 1);
  v.set("a", "two");
  v.set("b", 3);
  REQUIRE(v.as_map()->size() == 2);
  CHECK(to_json(v) == R"({"b": 3, "a": "two"})");
  CHECK(v.find("a") != nullptr);
  CHECK(v.find("c") == nullptr);
  CHECK(value(1).find("a") == nullptr);
}

TEST_CASE("every kind has a name for messages") {
  CHECK(value().kind_name() == "nothing");
  CHECK(value(true).kind_name() == "true or false");
  CHECK(value(1).kind_name() == "a whole number");
  CHECK(value(1.5).kind_name() == "a fraction");
  CHECK(value("x").kind_name() == "text");
  CHECK(value(value::list()).kind_name() == "a list");
  CHECK(value(value::map()).kind_name() == "a map");
}

TEST_CASE("JSON is compact or indented") {
  value v;
  v.set("list", value::list{1, value::list(), false});
  v.set("map", value::map());
  v.set("null", value());
  CHECK(to_json(v) == R"({"list": [1, [], false], "map": {}, "null": null})");
  CHECK(to_json(v, 2) == "{\n  \"list\": [\n    1,\n    [],\n    false\n  ],\n  \"map\": {},\n"
                         "  \"null\": null\n}");
}

TEST_CASE("JSON numbers survive, and what JSON cannot say is null") {
  CHECK(to_json(value(std::numeric_limits<i64>::min())) == "-9223372036854775808");
  CHECK(to_json(value(u64{1} << 63)) == "9.2233720368547758e+18");
  CHECK(to_json(value(0.5)) == "0.5");
  CHECK(to_json(value(std::numeric_limits<double>::infinity())) == "null");
}

TEST_CASE("JSON text is ASCII whatever the bytes are") {
  CHECK(to_json(value("a\"b\\c\n\t\x01")) == R"("a\"b\\c\n\t\u0001")");
  CHECK(to_json(value("\xc3\xa4")) == R"("\u00E4")");
  CHECK(to_json(value("\xf0\x9f\x92\xbe")) == R"("\uD83D\uDCBE")");
  // A lone lead byte, an overlong form, a surrogate, a cut character.
  CHECK(to_json(value("\xc3x")) == R"("\uFFFDx")");
  CHECK(to_json(value("\xc0\xaf")) == R"("\uFFFD\uFFFD")");
  CHECK(to_json(value("\xed\xa0\x80")) == R"("\uFFFD\uFFFD\uFFFD")");
  CHECK(to_json(value("\xf0\x9f")) == R"("\uFFFD\uFFFD")");
  CHECK(to_json(value("\x7f")) == R"("\u007F")");
}
