// SPDX-License-Identifier: MIT
#include "fuse/tree/directories.h"
#include "fuse/tree/view.h"
#include "fuse/views/size_command.h"
#include "fuse/views/yaml_text.h"

#include "config/yaml.h"
#include "graph/base/checked.h"

#include <doctest/doctest.h>

#include <set>

using namespace bgfs;

TEST_CASE("size takes a length, an addition, or a deliberate shrinking") {
  CHECK(parse_size_command("20G", GiB)->length == 20 * GiB);
  CHECK(parse_size_command("+1G", GiB)->length == 2 * GiB);
  const auto shrunk = parse_size_command("shrink 10M", GiB);
  REQUIRE(shrunk.has_value());
  CHECK(shrunk->length == 10 * MiB);
  CHECK(shrunk->may_shrink);
  CHECK_FALSE(parse_size_command("10M", GiB)->may_shrink);
}

TEST_CASE("size refuses what is no size, and says what would be") {
  for (const std::string_view text :
       {"", "+", "shrink", "shrink ", "shrink +1M", "-5", "large", "1Z", "20 G x", "+8E", "9E"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_size_command(text, GiB).has_value());
  }
  CHECK(parse_size_command("large", GiB).error().message() ==
        "'large' is no size: write '20G', '+1G' or 'shrink 10G'");
  CHECK_FALSE(parse_size_command("shrink 2G", GiB).has_value());
}

TEST_CASE("values are read back from their YAML as they were") {
  value inner;
  inner.set("filename", "/images/a b: c.qcow2");
  inner.set("read-only", true);
  inner.set("note", "line\nbreak \"quoted\" #x");
  value v;
  v.set("version", 1);
  v.set("words", value::list{"true", "No", "null", "1.5", "", "-", "plain", "~", "0x10", "a: b"});
  v.set("nodes", value::list{inner, value::list{1, value::list{2, 3}}, value(value::map{}),
                             value(value::list{})});
  v.set("on", value());
  v.set("big", u64{1} << 62);
  const std::string text = to_yaml(v);
  CAPTURE(text);
  const auto back = parse_yaml(text);
  REQUIRE(back.has_value());
  CHECK(to_json(*back) == to_json(v));
}

TEST_CASE("node names become file names that a directory can hold") {
  CHECK(to_file_name("web") == "web");
  CHECK(to_file_name("#block001") == "#block001");
  CHECK(to_file_name("a/b%c\n") == "a%2Fb%25c%0A");
  CHECK(to_file_name(".") == "%2E");
  CHECK(to_file_name("..") == "%2E.");
}

TEST_CASE("every view has a name of its own, a summary, and something to do") {
  for (const auto list : {views_of_mount(), views_of_root(), views_of_layer(), views_of_node()}) {
    std::set<std::string_view> names;
    for (const view* v : list) {
      CAPTURE(v->name);
      CHECK(names.insert(v->name).second);
      CHECK_FALSE(v->summary.empty());
      CHECK((v->render != nullptr || v->write != nullptr || v->lines != nullptr));
      CHECK(find_view(list, v->name) == v);
    }
    CHECK(find_view(list, "nothing") == nullptr);
  }
}
