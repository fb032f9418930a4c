// SPDX-License-Identifier: MIT
#include "graph/base/option_schema.h"

#include <doctest/doctest.h>

#include <array>

using namespace bgfs;

namespace {

constexpr std::array<std::string_view, 3> aio_choices = {"threads", "native", "io_uring"};
constexpr std::array<option, 8> own = {{
    {.name = "filename", .help = "the file to open", .is_required = true},
    {.name = "l2-cache-size", .type = option_type::size, .default_text = "32M", .multiple_of = 512},
    {.name = "count", .type = option_type::integer, .minimum = 1, .maximum = 10},
    {.name = "cache-clean-interval", .type = option_type::duration, .default_text = "600"},
    {.name = "aio", .type = option_type::choice, .default_text = "threads", .choices = aio_choices},
    {.name = "lazy-refcounts", .type = option_type::boolean, .default_text = "off"},
    {.name = "overlap-check.template"},
    {.name = "overlap-check.main-header", .type = option_type::boolean},
}};
constexpr std::array<option, 2> generic = {{
    {.name = "cache.direct", .type = option_type::boolean, .default_text = "false"},
    {.name = "cache.no-flush", .type = option_type::boolean, .default_text = "false"},
}};
constexpr option_schema own_schema = {"driver 'test'", own};
constexpr option_schema generic_schema = {"every node", generic};
constexpr std::array<const option_schema*, 2> both = {&own_schema, &generic_schema};
constexpr std::array<std::string_view, 2> taken = {"driver", "backing"};

value marked(value v, u32 line) {
  v.mark = {std::make_shared<const std::string>("web.yaml"), line, 3};
  return v;
}

// A valid map with one member more, at line 7.
value with(std::string key, value member) {
  value v = marked(value::map(), 2);
  v.set("filename", marked("a.img", 3));
  v.set(std::move(key), marked(std::move(member), 7));
  return v;
}

std::string message(const value& given) {
  const auto validated = validate_options(both, given, taken, "node 'web'");
  return validated ? "" : validated.error().message();
}

} // namespace

TEST_CASE("options are given, defaulted or absent") {
  value given = with("cache", value::map{{"direct", true}});
  given.set("driver", "test");
  given.set("backing", value::map{{"whatever", 1}});
  const auto o = validate_options(both, given, taken);
  REQUIRE(o.has_value());
  CHECK(o->text("filename") == "a.img");
  CHECK(o->is_set("filename"));
  CHECK(o->mark("filename").line == 3);
  CHECK(o->flag("cache.direct"));
  CHECK(!o->flag("cache.no-flush"));
  CHECK(!o->is_set("cache.no-flush"));
  CHECK(o->number("l2-cache-size") == 32 * MiB);
  CHECK(o->number("cache-clean-interval") == 600'000);
  CHECK(o->maybe_number("count") == std::nullopt);
  CHECK(o->text("overlap-check.template").empty());
  CHECK(to_json(o->given()) == R"({"cache": {"direct": true}, "filename": "a.img"})");
  CHECK(to_json(o->effective()) ==
        R"({"aio": "threads", "cache-clean-interval": "600s", )"
        R"("cache": {"direct": true, "no-flush": false}, "filename": "a.img", )"
        R"("l2-cache-size": 33554432, "lazy-refcounts": false})");
}

TEST_CASE("options may be written as text, as command lines do") {
  const auto parsed = parse_option_string(
      "filename=a,,b.img,l2-cache-size=64K,count=10,lazy-refcounts=on,cache-clean-interval=500ms,"
      "aio=io_uring,cache.direct=yes,overlap-check.main-header");
  REQUIRE(parsed.has_value());
  const auto o = validate_options(both, *parsed);
  REQUIRE(o.has_value());
  CHECK(o->text("filename") == "a,b.img");
  CHECK(o->number("l2-cache-size") == 65536);
  CHECK(o->number("count") == 10);
  CHECK(o->flag("lazy-refcounts"));
  CHECK(o->number("cache-clean-interval") == 500);
  CHECK(o->text("aio") == "io_uring");
  CHECK(o->flag("cache.direct"));
  CHECK(o->flag("overlap-check.main-header"));
  CHECK(to_json(o->effective().find("cache-clean-interval")[0]) == R"("500ms")");
}

TEST_CASE("option strings that make no sense are refused") {
  for (const std::string_view text : {"=1", "a=1,,=2,=3", ".a=1", "a.=1", "a..b=1"}) {
    CAPTURE(text);
    const auto parsed = parse_option_string(text);
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().message() ==
          fmt::format("'{}' is not a list of options: expected name=value,name=value,...", text));
  }
  for (const std::string_view text : {"a=1,a.b=2", "a.b=2,a=1"}) {
    const auto parsed = parse_option_string(text);
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().message().find("is given both as one option and as a group of options") !=
          std::string::npos);
  }
  CHECK(parse_option_string("").has_value());
  CHECK(!parse_option_string(std::string(100, '.') + "=1").has_value());
}

TEST_CASE("every mistake says where, what was found and what is allowed") {
  struct row {
    value given;
    std::string_view expected;
  };
  const std::vector<row> rows = {
      {with("l2-cache-sise", 1),
       "option 'l2-cache-sise' is not known to driver 'test'; did you mean "
       "'l2-cache-size'?"},
      {with("colour", 1), "option 'colour' is not known to driver 'test'; it has aio, backing, "
                          "cache-clean-interval, cache.direct, cache.no-flush, count, driver, "
                          "filename, l2-cache-size, lazy-refcounts, overlap-check.main-header, "
                          "overlap-check.template"},
      {with("cache", "none"), "'cache' must be a map of options, not text"},
      {with("count", 0), "option 'count' is 0, outside its range of 1 to 10"},
      {with("count", 11), "option 'count' is 11, outside its range of 1 to 10"},
      {with("l2-cache-size", 1000), "option 'l2-cache-size' is 1000, which is no multiple of 512"},
      {with("count", -1), "option 'count' is -1, but cannot be negative"},
      {with("count", 1.5), "option 'count' is a whole number, not a fraction"},
      {with("count", "010"), "option 'count' is a whole number, not '010'"},
      {with("l2-cache-size", value::list()),
       "option 'l2-cache-size' is a size (4096, 64K, 1.5G, ...), not a list"},
      {with("l2-cache-size", "64KB"),
       "option 'l2-cache-size' cannot be read: '64KB' is not a size; a size is a whole number, or "
       "a "
       "number with one of the suffixes b, K, M, G, T, P, E (powers of 1024), such as 4096, 64K or "
       "1.5G"},
      {with("l2-cache-size", "8E"), "option 'l2-cache-size' is 9223372036854775808, outside its "
                                    "range of 0 to 9223372036854775807"},
      {with("cache-clean-interval", value::map()),
       "option 'cache-clean-interval' is a duration (5s, 500ms, ...), not a map"},
      {with("lazy-refcounts", "maybe"),
       "option 'lazy-refcounts' is true or false (on, off, yes, no), not 'maybe'"},
      {with("lazy-refcounts", 1),
       "option 'lazy-refcounts' is true or false (on, off, yes, no), not a whole number"},
      {with("aio", "io-uring"), "option 'aio' is one of threads, native, io_uring, not 'io-uring'; "
                                "did you mean 'io_uring'?"},
      {with("aio", true), "option 'aio' is one of threads, native, io_uring, not true or false"},
      {with("filename", 12), "option 'filename' is text, not a whole number; put it in quotes"},
      {with("filename", value::list()), "option 'filename' is text, not a list"},
  };
  for (const row& r : rows)
    CHECK(message(r.given) == fmt::format("web.yaml:7:3: node 'web': {}", r.expected));
}

TEST_CASE("a missing option is reported where it could have been") {
  CHECK(message(marked(value::map(), 2)) ==
        "web.yaml:2:3: node 'web': driver 'test' needs option 'filename': the file to open");
  CHECK(message(marked("text", 2)) == "web.yaml:2:3: node 'web': options must be a map, not text");
}

TEST_CASE("one option in two spellings is refused") {
  value given = with("cache", value::map{{"direct", marked(true, 8)}});
  given.set("cache.direct", marked(false, 9));
  CHECK(message(given) == "web.yaml:9:3: node 'web': option 'cache.direct' is given twice, once "
                          "nested and once with a dot");
}

TEST_CASE("a schema without options says so") {
  static constexpr option_schema nothing = {"driver 'empty'", {}};
  static constexpr std::array<const option_schema*, 1> schemas = {&nothing};
  const auto o = validate_options(schemas, value(value::map{{"a", 1}}));
  REQUIRE(!o.has_value());
  CHECK(o.error().message() == "option 'a' is not known to driver 'empty', which has no options");
}
