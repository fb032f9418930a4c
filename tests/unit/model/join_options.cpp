// SPDX-License-Identifier: MIT
#include "graph/model/join_options.h"

#include "config/yaml.h"
#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

std::string joined(const driver_type& type, std::string_view before, std::string_view next) {
  return to_json(join_options(type, *parse_json(before), *parse_json(next)));
}

} // namespace

TEST_CASE("what is given now stands before what was given earlier") {
  CHECK(joined(raw_driver_type, R"({"offset": 512, "cache": {"direct": true}})",
               R"({"offset": 1024, "size": 512})") ==
        R"({"offset": 1024, "size": 512, "cache": {"direct": true}})");
  CHECK(joined(raw_driver_type, R"({"cache": {"direct": true, "no-flush": false}})",
               R"({"cache.direct": false})") ==
        R"({"cache": {"direct": false, "no-flush": false}})");
  CHECK(joined(raw_driver_type, "{}", "{}") == "{}");
}

TEST_CASE("options of qcow2 that a new whole replaces are forgotten") {
  struct row {
    std::string_view before, next, after;
  };
  const row rows[] = {
      // overlap-check has two names, and flags that start from it
      {R"({"overlap-check": "all"})", R"({"overlap-check": {"template": "none"}})",
       R"({"overlap-check": {"template": "none"}})"},
      {R"({"overlap-check": {"template": "all", "active-l2": false}})",
       R"({"overlap-check": "none"})", R"({"overlap-check": "none"})"},
      {R"({"overlap-check": {"template": "all"}})", R"({"overlap-check": {"active-l2": false}})",
       R"({"overlap-check": {"active-l2": false, "template": "all"}})"},
      // a total and its parts
      {R"({"l2-cache-size": 1, "refcount-cache-size": 2})", R"({"cache-size": 9})",
       R"({"cache-size": 9})"},
      {R"({"cache-size": 9, "l2-cache-size": 1})", R"({"refcount-cache-size": 2})",
       R"({"refcount-cache-size": 2, "l2-cache-size": 1})"},
      {R"({"cache-size": 9})", R"({"l2-cache-size": 1})",
       R"({"l2-cache-size": 1, "cache-size": 9})"},
      {R"({"cache-size": 9})", R"({"l2-cache-size": 1, "refcount-cache-size": 2})",
       R"({"l2-cache-size": 1, "refcount-cache-size": 2})"},
      {R"({"l2-cache-size": 1})", R"({"cache-size": 9, "refcount-cache-size": 2})",
       R"({"cache-size": 9, "refcount-cache-size": 2})"},
  };
  for (const row& r : rows)
    CHECK(joined(qcow2_driver_type, r.before, r.next) == r.after);
}

TEST_CASE("an option that cannot change while a node is open is named") {
  static constexpr option list[] = {{.name = "fixed", .default_text = "a"},
                                    {.name = "free", .default_text = "a", .is_mutable = true}};
  static constexpr option_schema schema{"driver 'x'", list};
  const option_schema* schemas[] = {&schema};
  const auto given = [&](std::string_view text) {
    return *validate_options(schemas, *parse_json(text));
  };
  CHECK(check_only_mutable_change(schema, given("{}"), given(R"({"fixed": "a", "free": "b"})")));
  const result<> refused =
      check_only_mutable_change(schema, given("{}"), given(R"({"fixed": "b"})"));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::unsupported);
  CHECK(refused.error().message().ends_with(
      "option 'fixed' of driver 'x' cannot change while the node is open; it has to be opened "
      "anew"));
}
