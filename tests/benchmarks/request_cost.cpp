// SPDX-License-Identifier: MIT
// What one request of 4 KiB costs between the kernel's request and its answer, with no kernel to
// ask: trips to the heap, and instructions where the processor's counter can be had.
//
//   bgfs_request_cost read|write raw/null-co|raw/file|qcow2/file DEPTH REQUESTS [--where]
//
// Prints lines of `name: value`; --where adds who asked for memory. REQUESTS is what is measured:
// two runs that differ in it alone differ by what so many requests cost, for counters from outside.
#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"
#include "drivers/protocol/file/file.h"
#include "drivers/protocol/null/null.h"
#include "fuse/operations/server.h"
#include "fuse/transport/next_turn.h"
#include "graph/io/sync.h"
#include "graph/jobs/create.h"
#include "tests/benchmarks/allocation_count.h"
#include "tests/benchmarks/instruction_count.h"
#include "tests/benchmarks/request_source.h"
#include "tests/unit/lib/scratch_directory.h"

#include <charconv>
#include <cstdio>
#include <fmt/core.h>
#include <fstream>
#include <thread>

using namespace bgfs;
using namespace bgfs::benchmarks;

// For counters from outside, which can be told where to begin and end:
// callgrind --zero-before=bgfs_measured_begin --dump-before=bgfs_measured_end.
extern "C" {
[[gnu::noinline]] void bgfs_measured_begin() {
  asm volatile("");
}
[[gnu::noinline]] void bgfs_measured_end() {
  asm volatile("");
}
}

namespace {

constexpr u64 disk_length = block_length * block_count;

struct cost_case {
  bool writes = false;
  std::string graph;
  unsigned depth = 1;
  u64 requests = 0;
  bool shows_where = false;
};

struct cost {
  unsigned long allocations_before = 0; // there are some: the counter works
  unsigned long allocations = 0;
  std::optional<u64> instructions;
  std::string no_instructions; // why
  std::vector<std::string> allocated_by;
};

[[noreturn]] void give_up(std::string_view why) {
  fmt::print(stderr, "bgfs_request_cost: {}\n", why);
  std::exit(1);
}

template<class T>
T must(result<T> outcome) {
  if (!outcome)
    give_up(outcome.error().message());
  if constexpr (!std::is_void_v<T>)
    return *std::move(outcome);
}

u64 number_in(std::string_view text) {
  u64 number = 0;
  const auto [end, status] = std::from_chars(text.begin(), text.end(), number);
  if (status != std::errc() || end != text.end() || number == 0)
    give_up(fmt::format("'{}' is not a number of requests", text));
  return number;
}

cost_case parse(std::span<char*> words) {
  if (words.size() < 5 || words.size() > 6)
    give_up("usage: bgfs_request_cost read|write raw/null-co|raw/file|qcow2/file DEPTH REQUESTS "
            "[--where]");
  const std::string_view kind = words[1];
  if (kind != "read" && kind != "write")
    give_up(fmt::format("'{}' is neither read nor write", kind));
  return {.writes = kind == "write",
          .graph = words[2],
          .depth = static_cast<unsigned>(number_in(words[3])),
          .requests = number_in(words[4]),
          .shows_where = words.size() == 6 && std::string_view(words[5]) == "--where"};
}

// Keeps a loop from waiting in the kernel while it is on, for as long as this lives. valgrind runs
// one thread at a time and does not know that io_uring_enter waits: what an offload thread has to
// do for us would never be done.
class wakeful {
public:
  explicit wakeful(loop& home) : home_(home) {
    spawn(home_, turn_on(*this), nullptr, [this](result<>) { has_ended_ = true; });
  }
  ~wakeful() {
    is_ending_ = true;
    set(true);
    while (!has_ended_)
      home_.run_once();
  }
  wakeful(const wakeful&) = delete;
  wakeful& operator=(const wakeful&) = delete;

  void set(bool on) { on ? on_.set() : on_.reset(); }

private:
  static task<void> turn_on(wakeful& self) {
    while (!self.is_ending_) {
      co_await self.on_.wait();
      std::this_thread::sleep_for(std::chrono::microseconds(20)); // the others' chance
      co_await next_turn();
    }
  }
  loop& home_;
  event on_;
  bool is_ending_ = false;
  bool has_ended_ = false;
};

// A mount of one writable root, `disk`, that no kernel knows of.
class lone_mount {
public:
  explicit lone_mount(const std::string& graph)
      : home_(must(loop::create(io_uring_only()))), awake_(*home_) {
    awake_.set(true);
    prepare(graph);
    const std::string file = scratch_.path / "graph.yaml";
    // No flush is due while we count.
    std::ofstream(file) << "version: 1\nnodes: [ { node-name: n, " << definition(graph)
                        << " } ]\nexports: [ { name: disk, node-name: n, writable: true, "
                           "flush-interval: 0 } ]\n";
    state_ = std::make_unique<mount_state>(
        *home_, mount_request{.config = must(graph_config::load(file, drivers_))}, "/nonexistent",
        drivers_);
    state_->nodes.set_lease_queues(1); // as a mount does
  }
  ~lone_mount() {
    for (const auto& root : state_->roots)
      must(run_to_end(*home_, root->close()));
    must(run_to_end(*home_, state_->nodes.close_all()));
  }
  lone_mount(const lone_mount&) = delete;
  lone_mount& operator=(const lone_mount&) = delete;

  [[nodiscard]] loop& home() { return *home_; }
  [[nodiscard]] wakeful& awake() { return awake_; }
  void serve(request_source& requests) {
    server served(*state_, requests);
    must(run_to_end(*home_, served.run()));
  }

private:
  // The other backend has threads whose order is not ours.
  static loop_options io_uring_only() {
    loop_options options;
    options.backend = io_backend_kind::io_uring;
    return options;
  }
  [[nodiscard]] std::string image() const { return scratch_.path / "image"; }

  void prepare(const std::string& graph) {
    if (graph == "raw/file") {
      (void)scratch_.file("image", disk_length);
    } else if (graph == "qcow2/file") {
      make_qcow2();
    } else if (graph != "raw/null-co") {
      give_up(fmt::format("'{}' is none of raw/null-co, raw/file and qcow2/file", graph));
    }
  }
  [[nodiscard]] std::string definition(const std::string& graph) const {
    if (graph == "raw/null-co")
      return fmt::format("driver: raw, file: {{ driver: null-co, size: {} }}", disk_length);
    return fmt::format("driver: {}, file: {{ driver: file, filename: {} }}",
                       graph.substr(0, graph.find('/')), image());
  }
  void make_qcow2() {
    const option_schema* format[] = {qcow2_driver_type.create_options};
    const option_schema* protocol[] = {file_driver_type.create_options};
    const option_schema* open[] = {file_driver_type.open_options};
    const value nothing{value::map{}};
    new_image what;
    what.format = &qcow2_driver_type;
    what.format_options = must(validate_options(format, nothing));
    what.file = {.protocol = &file_driver_type,
                 .protocol_options = must(validate_options(protocol, nothing)),
                 .filename = image(),
                 .open_options =
                     must(validate_options(open, value(value::map{{"filename", image()}})))};
    what.length = disk_length;
    graph nodes(*home_, drivers_, nullptr);
    must(run_to_end(*home_, create_image(nodes, std::move(what))));
    must(run_to_end(*home_, nodes.close_all()));
  }

  registry drivers_{
      {&file_driver_type, &null_co_driver_type, &raw_driver_type, &qcow2_driver_type}};
  test::scratch_directory scratch_;
  std::unique_ptr<loop> home_;
  wakeful awake_;
  std::unique_ptr<mount_state> state_;
};

cost measure(const cost_case& what) {
  lone_mount mount(what.graph);
  request_source requests(mount.home(), {.root = "disk",
                                         .writes = what.writes,
                                         .keeps_data = what.graph != "raw/null-co",
                                         .depth = what.depth,
                                         .measured = what.requests});
  const instruction_counter instructions;
  cost found;
  found.no_instructions = instructions.failure();
  std::optional<u64> instructions_before;
  requests.begins = [&] {
    mount.awake().set(false);
    if (what.shows_where)
      keep_call_chains();
    found.allocations_before = allocation_count();
    instructions_before = instructions.count();
    bgfs_measured_begin();
  };
  requests.ends = [&] {
    bgfs_measured_end();
    const std::optional<u64> after = instructions.count();
    if (after && instructions_before)
      found.instructions = *after - *instructions_before;
    found.allocations = allocation_count() - found.allocations_before;
    found.allocated_by = kept_call_chains();
    mount.awake().set(true);
  };
  mount.serve(requests);
  if (requests.failure())
    give_up(*requests.failure());
  return found;
}

void print(u64 requests, const cost& found) {
  fmt::print("requests: {}\nallocations before: {}\nallocations: {}\n", requests,
             found.allocations_before, found.allocations);
  if (found.instructions) {
    fmt::print("instructions: {}\n", *found.instructions);
  } else {
    fmt::print("no instructions: {}\n", found.no_instructions);
  }
  for (const std::string& chain : found.allocated_by)
    fmt::print("allocated {}", chain);
}

} // namespace

int main(int argc, char** argv) {
#if !defined(NDEBUG) || defined(BGFS_DEBUG)
  give_up("this is no release build: what it costs says nothing");
#endif
  const cost_case what = parse(std::span(argv, static_cast<std::size_t>(argc)));
  print(what.requests, measure(what));
}
