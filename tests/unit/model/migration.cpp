// SPDX-License-Identifier: MIT
// Components that move from the graph of one loop to that of another.
#include "graph/model/migration.h"

#include "graph/io/run_on.h"
#include "graph/io/sleep.h"
#include "graph/model/iothread.h"
#include "tests/unit/lib/graph_bench.h"
#include "tests/unit/lib/layer_driver.h"

#include <deque>

using namespace bgfs;
using namespace bgfs::test;

namespace {

// Overlays of 1 MiB for the time of a test, each over a disk of its own name.
class overlays {
public:
  overlays(std::initializer_list<const char*> names) : names_(names.begin(), names.end()) {
    for (const std::string& name : names_) {
      disks_.emplace_back(MiB);
      memory_disks()[name] = &disks_.back();
      layer_states()[name] = std::make_shared<layer_state>();
      layer_states()[name]->length = MiB;
    }
  }
  ~overlays() {
    for (const std::string& name : names_) {
      memory_disks().erase(name);
      layer_states().erase(name);
    }
  }
  overlays(const overlays&) = delete;
  overlays& operator=(const overlays&) = delete;
  [[nodiscard]] static spec_builder spec(const std::string& name) {
    return spec_builder(name, layer_driver_type).child("file", disk_spec(name));
  }
  [[nodiscard]] memory_disk& first() { return disks_.front(); }

private:
  std::vector<std::string> names_;
  std::deque<memory_disk> disks_;
};

std::vector<std::byte> bytes_of(unsigned char c) {
  return std::vector<std::byte>(4096, std::byte{c});
}

task<void> carry(graph& from, graph& to, node& n) {
  moving_component moving = co_await run_on(from.home(), from.let_go(n));
  co_await run_on(to.home(), to.take_in(std::move(moving)));
}

std::vector<std::string> names_of(const graph& g) {
  std::vector<std::string> names;
  for (const auto& n : g.nodes())
    names.push_back(n->name());
  std::ranges::sort(names);
  return names;
}

} // namespace

TEST_CASE("a component is everything that hangs together, whichever of it is asked") {
  const overlays images({"base", "a", "b", "lone"});
  graph_bench bench({&layer_driver_type});
  node& base = bench.open(overlays::spec("base"));
  for (const char* name : {"a", "b"})
    bench.open(overlays::spec(name).child("backing", "base"));
  node& lone = bench.open(overlays::spec("lone"));
  CHECK(component_of(lone).size() == 2);
  for (node* n : {&base, bench.graph().find("a"), &bench.graph().find("b")->child("file")->child()})
    CHECK(component_of(*n).size() == 6);
}

TEST_CASE("a component moves with its roots, and others stay") {
  const overlays images({"a", "b", "c"});
  graph_bench bench({&layer_driver_type});
  const auto other_loop = *loop::create();
  graph other(*other_loop, bench.graph());
  node& a = bench.open(overlays::spec("a"));
  bench.open(overlays::spec("b"));
  root& r = bench.attach(a);
  bench.must(r.write(0, bytes_of(1)));

  moving_component moving = bench.must(bench.graph().let_go(a.child("file")->child()));
  CHECK(bench.graph().find("a") == nullptr);
  CHECK(bench.graph().nodes().size() == 2);
  REQUIRE(run_to_end(*other_loop, other.take_in(std::move(moving))).has_value());
  CHECK(other.find("a") == &a);
  CHECK(&a.owner() == &other);
  CHECK(other.nodes().size() == 2);

  // It is read, written and edited there.
  std::vector<std::byte> read(4096);
  REQUIRE(run_to_end(*other_loop, r.read(0, read)).has_value());
  CHECK(read == bytes_of(1));
  REQUIRE(run_to_end(*other_loop, r.write(0, bytes_of(2))).has_value());
  REQUIRE(run_to_end(*other_loop, other.open(overlays::spec("c").build())).has_value());
  // Names made up on either side differ, so that a move never meets its own name.
  for (const std::string& name : names_of(other))
    CHECK(bench.graph().find(name) == nullptr);

  moving_component back = *run_to_end(*other_loop, other.let_go(a));
  bench.must(bench.graph().take_in(std::move(back)));
  bench.must(r.read(0, read));
  CHECK(read == bytes_of(2));
  CHECK(bench.graph().nodes().size() == 4);
  REQUIRE(run_to_end(*other_loop, other.close_all()).has_value());
}

TEST_CASE("a component is drained on its way, and what runs on it is waited for") {
  overlays images({"a"});
  graph_bench bench({&layer_driver_type});
  memory_disk& disk = images.first();
  node& a = bench.open(overlays::spec("a"));
  root& r = bench.attach(a);
  bool has_ended = false;
  event may_write_on;
  disk.hold = [&](std::string_view operation, byte_range) {
    return operation == "write" ? &may_write_on : nullptr;
  };
  const auto let_write = [&]() -> task<void> {
    co_await sleep_for(std::chrono::milliseconds(5));
    CHECK(!has_ended);
    may_write_on.set();
  };
  const auto written = bytes_of(3);
  spawn(bench.home(), r.write(0, written), nullptr, [&](result<> outcome) {
    CHECK(outcome.has_value());
    has_ended = true;
  });
  const auto other_loop = *loop::create();
  graph other(*other_loop, bench.graph());
  spawn(bench.home(), let_write(), nullptr, [](result<> outcome) { CHECK(outcome.has_value()); });
  bench.home().run_once(); // the write begins
  moving_component moving = bench.must(bench.graph().let_go(a));
  CHECK(has_ended);
  disk.hold = nullptr;
  REQUIRE(run_to_end(*other_loop, other.take_in(std::move(moving))).has_value());
  moving_component back = *run_to_end(*other_loop, other.let_go(a));
  bench.must(bench.graph().take_in(std::move(back)));
  std::vector<std::byte> read(4096);
  bench.must(r.read(0, read)); // the drain has ended
  CHECK(read == bytes_of(3));
}

TEST_CASE("a component goes round between threads while others are written there") {
  const overlays images({"top"});
  const registry drivers({&layer_driver_type, &memory_driver_type});
  const auto home = *loop::create();
  {
    graph nodes(*home, drivers, nullptr);
    const std::unique_ptr<iothread> one = *iothread::start("one", nodes);
    const std::unique_ptr<iothread> two = *iothread::start("two", nodes);
    CHECK(one->name() == "one");
    const auto go_round = [&]() -> task<void> {
      node* const top = co_await nodes.open(overlays::spec("top").build());
      const std::unique_ptr<root> r = co_await nodes.attach("test", *top, may_write);
      graph* const way[] = {&one->nodes(), &two->nodes(), &nodes};
      graph* at = &nodes;
      for (unsigned i = 0; i < 60; i++) {
        graph* const next = way[i % 3];
        co_await carry(*at, *next, *top);
        at = next;
        const auto data = bytes_of(static_cast<unsigned char>(i));
        std::vector<std::byte> read(4096);
        co_await run_on(at->home(), r->write(4096 * (i % 7), data));
        co_await run_on(at->home(), r->read(4096 * (i % 7), read));
        CHECK(read == data);
      }
      co_await run_on(at->home(), r->release());
      co_await run_on(at->home(), at->close_all());
    };
    const result<> done = run_to_end(*home, go_round());
    CHECK_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  }
}
