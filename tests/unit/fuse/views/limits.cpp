// SPDX-License-Identifier: MIT
#include "fuse/tree/view.h"
#include "graph/io/spawn.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include <fstream>
#include <set>
#include <sstream>
#include <unistd.h>

using namespace bgfs;

namespace {

std::string documentation() {
  std::ifstream file(BGFS_SOURCE_DIR "/fuse/README.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

} // namespace

TEST_CASE("every bound that .bgfs/limits shows is explained in fuse/README.md") {
  const view* const limits = find_view(views_of_mount(), "limits");
  REQUIRE(limits != nullptr);
  const registry drivers({});
  const auto home = *loop::create();
  std::string path = "/tmp/bgfs-unit-XXXXXX";
  ::close(mkstemp(path.data()));
  std::ofstream(path) << "version: 1\nnodes: []\nexports: []\n";
  result<graph_config> config = graph_config::load(path, drivers);
  REQUIRE_MESSAGE(config.has_value(), (config ? std::string() : config.error().message()));
  mount_state state(*home, mount_request{.config = *std::move(config)}, "/nonexistent", drivers);
  const result<std::string> text = run_to_end(*home, limits->render(view_subject{.mount = state}));
  REQUIRE(text.has_value());
  const std::string known = documentation();
  std::istringstream lines(*text);
  std::set<std::string> keys;
  for (std::string line; std::getline(lines, line);) {
    const std::string key = line.substr(0, line.find(':'));
    CAPTURE(key);
    CHECK(keys.insert(key).second);
    CHECK(line.size() > key.size() + 2);
    CHECK(known.find("| `" + key + "` |") != std::string::npos);
  }
  CHECK(keys.size() > 20);
  unlink(path.c_str());
}
