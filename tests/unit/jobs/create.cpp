// SPDX-License-Identifier: MIT
#include "graph/jobs/create.h"

#include "graph/io/spawn.h"
#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

#include <sys/stat.h>

using namespace bgfs;
using test::scratch;

namespace {

options checked(const option_schema* schema, const value& given) {
  std::vector<const option_schema*> schemas = {schema};
  if (schema == file_driver_type.open_options)
    schemas.push_back(&generic_node_schema);
  auto o = validate_options(schemas, given);
  REQUIRE_MESSAGE(o.has_value(), (o ? "" : o.error().message()));
  return *std::move(o);
}

task<void> fail_create(create_request request) {
  co_await request.file->truncate(100);
  co_await fail(error_kind::no_space, "no room for the format");
}

constexpr driver_type failing_type{
    .name = "failing",
    .kind = driver_kind::format,
    .children = test::cow_slots,
    .open_options = &test::cow_options,
    .create_options = &test::cow_options,
    .create = fail_create,
};

new_image image(const std::string& path, const driver_type& format, u64 length) {
  const value name(value::map{{"filename", path}});
  return {
      .format = &format,
      .format_options = checked(format.create_options, value(value::map())),
      .file = {.protocol = &file_driver_type,
               .protocol_options = checked(file_driver_type.create_options, value(value::map())),
               .filename = path,
               .open_options = checked(file_driver_type.open_options, name)},
      .length = length};
}

result<> create(new_image what) {
  auto home = loop::create();
  REQUIRE(home.has_value());
  graph nodes(**home, test::test_registry(), nullptr);
  result<> outcome = run_to_end(**home, create_image(nodes, std::move(what)));
  CHECK(nodes.nodes().empty());
  return outcome;
}

i64 length_of(const std::string& path) {
  struct stat found{};
  return ::stat(path.c_str(), &found) == 0 ? found.st_size : -1;
}

} // namespace

TEST_CASE("a raw image is a file of its length") {
  const scratch dir;
  REQUIRE(create(image(dir.at("a"), raw_driver_type, MiB)).has_value());
  CHECK(length_of(dir.at("a")) == i64{MiB});
  // Again: what was there is replaced.
  dir.write("a", std::string(5000, 'x'));
  REQUIRE(create(image(dir.at("a"), raw_driver_type, 4096)).has_value());
  CHECK(length_of(dir.at("a")) == 4096);
  std::ifstream in(dir.at("a"), std::ios::binary);
  CHECK(in.get() == 0);
}

TEST_CASE("a failed creation removes only what it made") {
  const scratch dir;
  const auto outcome = create(image(dir.at("new"), failing_type, MiB));
  REQUIRE(!outcome.has_value());
  CHECK(outcome.error().message() == "no room for the format");
  CHECK(length_of(dir.at("new")) == -1);

  dir.write("there", "before");
  REQUIRE(!create(image(dir.at("there"), failing_type, MiB)).has_value());
  CHECK(length_of(dir.at("there")) >= 0);

  const auto missing = create(image(dir.at("none/new"), raw_driver_type, MiB));
  REQUIRE(!missing.has_value());
  CHECK(missing.error().message() ==
        fmt::format("cannot open '{}': No such file or directory", dir.at("none/new")));
}
