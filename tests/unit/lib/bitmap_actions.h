// SPDX-License-Identifier: MIT
// Dirty bitmaps in tests: changed and read through the graph.
#pragma once

#include "graph/model/bitmap_change.h"
#include "tests/unit/lib/graph_bench.h"

namespace bgfs::test {

// The operations of a graph on the bitmaps of one node.
struct bitmap_actions {
  graph_bench& bench;
  node& of;
  using kind = bitmap_change::kind;

  [[nodiscard]] bitmap_change change(kind what, std::string name) const {
    return {.what = what, .where = &of, .name = std::move(name)};
  }
  [[nodiscard]] bitmap_change addition(std::string name, u64 granularity = 0,
                                       bool is_persistent = false, bool is_enabled = true) const {
    return {.what = kind::add,
            .where = &of,
            .name = std::move(name),
            .granularity = granularity,
            .is_persistent = is_persistent,
            .is_enabled = is_enabled};
  }
  [[nodiscard]] bitmap_change merging(std::string name, node& source,
                                      std::string source_name) const {
    bitmap_change c = change(kind::merge, std::move(name));
    c.source = &source;
    c.source_name = std::move(source_name);
    return c;
  }
  result<> attempt(std::vector<bitmap_change> changes) const {
    return bench.run(bench.graph().change_bitmaps(std::move(changes)));
  }
  result<> attempt(bitmap_change c) const { return attempt(std::vector{std::move(c)}); }
  // What it fails with; "" if it does not.
  [[nodiscard]] std::string error_of(bitmap_change c) const {
    const result<> done = attempt(std::move(c));
    return done ? std::string() : done.error().message();
  }
  void apply(bitmap_change c) const {
    const result<> done = attempt(std::move(c));
    REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  }
  void add(std::string name, u64 granularity = 0, bool is_enabled = true) const {
    apply(addition(std::move(name), granularity, false, is_enabled));
  }
  void add_persistent(std::string name, u64 granularity = 0, bool is_enabled = true) const {
    apply(addition(std::move(name), granularity, true, is_enabled));
  }
  void remove(std::string name) const { apply(change(kind::remove, std::move(name))); }
  void clear(std::string name) const { apply(change(kind::clear, std::move(name))); }
  void enable(std::string name) const { apply(change(kind::enable, std::move(name))); }
  void disable(std::string name) const { apply(change(kind::disable, std::move(name))); }
  void merge(std::string name, node& source, std::string source_name) const {
    apply(merging(std::move(name), source, std::move(source_name)));
  }

  result<const dirty_bitmap*> try_read(std::string name) const {
    return bench.run(bench.graph().read_bitmap(of, std::move(name)));
  }
  [[nodiscard]] const dirty_bitmap& read(std::string name) const {
    return *bench.must(bench.graph().read_bitmap(of, std::move(name)));
  }
  [[nodiscard]] std::vector<byte_range> dirty(std::string name) const {
    return dirty_runs(read(std::move(name)));
  }
  [[nodiscard]] dirty_bitmap* find(std::string_view name) const { return of.bitmaps().find(name); }

  static std::vector<byte_range> dirty_runs(const dirty_bitmap& b) {
    std::vector<byte_range> runs;
    for (auto run = b.next_dirty(0); run; run = b.next_dirty(run->end()))
      runs.push_back(*run);
    return runs;
  }
};

} // namespace bgfs::test
