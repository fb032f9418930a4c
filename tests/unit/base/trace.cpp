// SPDX-License-Identifier: MIT
#include "graph/base/trace.h"

#include "fuse/tree/log_ring.h"

#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <sstream>

using namespace bgfs;

namespace {

struct kept_lines final : trace_sink {
  std::vector<std::string> lines;
  void write(std::string_view line) override { lines.emplace_back(line); }
};

std::string read_all(const char* path) {
  std::ifstream in(std::string(BGFS_SOURCE_DIR) + "/" + path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

} // namespace

TEST_CASE("a point that is off looks at nothing, one that is on writes a line") {
  kept_lines sink;
  trace_log log(sink);
  unsigned asked = 0;
  const auto ask = [&asked] { return ++asked; };
  trace<point::drain_end>(log, ask);
  trace<point::drain_end>(silent_log, ask);
  CHECK(asked == 0);
  log.set_level(trace_category::model, trace_level::debug);
  trace<point::drain_end>(log, ask);
  trace<point::request_begin>(log, "web", "read", 0, 1); // of level trace
  trace<point::mount_ready>(log, "/mnt", "a.yaml");      // of another category
  REQUIRE(sink.lines.size() == 1);
  CHECK(asked == 1);
  CHECK(sink.lines[0].find("Z debug model drain.end roots=1") != std::string::npos);
}

TEST_CASE("a line is one line, and values with blanks or quotes are quoted") {
  kept_lines sink;
  trace_log log(sink);
  log.set_level(trace_level::trace);
  trace<point::root_fail>(log, "we b", "cannot open \"a\\b\"\nno\x01");
  trace<point::root_fail>(log, "", "x");
  CHECK(sink.lines[0].ends_with(
      "root.fail root=\"we b\" reason=\"cannot open \\\"a\\\\b\\\"\\x0ano\\x01\""));
  CHECK(sink.lines[1].ends_with("root.fail root=\"\" reason=x"));
}

TEST_CASE("log-level takes a level and categories, and refuses the rest whole") {
  log_ring ring;
  trace_log log(ring);
  const auto refusal = [&log](std::string_view command) {
    const result<> done = set_levels(log, command);
    return done ? std::string() : done.error().message();
  };
  CHECK(refusal("info").empty());
  CHECK(log.level_of(trace_category::qcow2) == trace_level::info);
  CHECK(refusal("  trace  fuse file ").empty());
  CHECK(log.level_of(trace_category::file) == trace_level::trace);
  CHECK(log.level_of(trace_category::model) == trace_level::info);
  CHECK(refusal("off qcow2").empty());
  CHECK(describe_levels(log) ==
        "mount: info\nfuse: trace\nreload: info\nmodel: info\nfile: trace\nqcow2: off\n");
  CHECK(refusal("").starts_with("log-level takes a level (off, warn, info, debug, trace)"));
  CHECK(refusal("debgu").find("did you mean 'debug'?") != std::string::npos);
  CHECK(refusal("debug modle").find("did you mean 'model'?") != std::string::npos);
  CHECK(refusal("debug fuse nothing").starts_with("'nothing' is no category"));
  CHECK(log.level_of(trace_category::fuse) == trace_level::trace);
}

TEST_CASE("names of trace points are in the list once, with a meaning and their fields") {
  std::set<std::string_view> names;
  for (const trace_point* p : trace_points) {
    CAPTURE(p->name);
    CHECK(names.insert(p->name).second);
    CHECK_FALSE(p->meaning.empty());
    CHECK(p->level != trace_level::off);
    CHECK(p->field_count() > 0);
    CHECK(parse_trace_category(to_string(p->category)) == p->category);
    CHECK(parse_trace_level(to_string(p->level)) == p->level);
  }
  CHECK(names.size() == trace_points.size());
}

TEST_CASE("graph/ARCHITECTURE.md lists the trace points as 'bgfs trace-points' prints them") {
  const std::string text = read_all("graph/ARCHITECTURE.md");
  CHECK_MESSAGE(text.find(describe_trace_points()) != std::string::npos,
                "put the output of 'bgfs trace-points' into its section 'Trace points'");
}
