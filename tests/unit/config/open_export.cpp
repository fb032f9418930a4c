// SPDX-License-Identifier: MIT
// Who shares nodes with whom.
#include "config/graph_config.h"

#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

using namespace bgfs;
using test::scratch;

namespace {

const export_spec& export_of(const graph_config& config, std::string_view name) {
  for (const export_spec& e : config.exports())
    if (e.name == name)
      return e;
  FAIL("there is no such export");
  return config.exports().front();
}

bool shares_writing(const graph_config& config, std::string_view name) {
  return (permissions_of(export_of(config, name), config).shared & permission::write) != 0;
}

} // namespace

TEST_CASE("a root shares writing only with roots that reach the same nodes, and if one writes") {
  const scratch dir;
  auto config = graph_config::load(
      dir.write("g.yaml", "version: 1\nnodes:\n"
                          "  - {node-name: base, driver: cow, file: {driver: file, filename: b}}\n"
                          "  - {node-name: one, driver: raw, file: {driver: file, filename: o}}\n"
                          "  - {node-name: half, driver: raw, size: 512, file: one}\n"
                          "  - {node-name: alone, driver: raw, file: {driver: file, filename: a}}\n"
                          "exports:\n"
                          "  - {name: alone, node-name: alone, writable: true}\n"
                          "  - {name: half, node-name: half, writable: true}\n"
                          "  - {name: look, node-name: one}\n"
                          "  - {name: golden, node-name: base}\n"
                          "  - {name: golden2, node-name: base}\n"),
      test::test_registry());
  REQUIRE(config.has_value());
  CHECK_FALSE(shares_writing(*config, "alone"));
  CHECK(shares_writing(*config, "half"));
  CHECK(shares_writing(*config, "look"));
  CHECK_FALSE(shares_writing(*config, "golden"));
  CHECK_FALSE(shares_writing(*config, "golden2"));
  config->make_read_only();
  CHECK_FALSE(shares_writing(*config, "half"));
  CHECK_FALSE(shares_writing(*config, "look"));
}

TEST_CASE("two writers of one node share it") {
  const scratch dir;
  const auto config = graph_config::load(
      dir.write("g.yaml", "version: 1\nnodes:\n"
                          "  - {node-name: n, driver: raw, file: {driver: file, filename: a}}\n"
                          "exports:\n"
                          "  - {name: a, node-name: n, writable: true}\n"
                          "  - {name: b, node-name: n, writable: true}\n"),
      test::test_registry());
  REQUIRE(config.has_value());
  CHECK(shares_writing(*config, "a"));
  CHECK(shares_writing(*config, "b"));
}
