// SPDX-License-Identifier: MIT
// .bgfs/metrics: numbers for a monitoring system, as OpenMetrics text.
#include "fuse/views/common.h"
#include "fuse/views/metrics_text.h"

#include "graph/io/offload.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <unistd.h>

namespace bgfs {
namespace {

// What a node counts, taken on its loop.
struct node_numbers {
  std::string name;
  std::string_view driver;
  node_statistics statistics;
  u64 in_flight = 0;
  u64 length = 0;
};

using node_list = std::vector<node_numbers>;
using number_of = u64 (*)(const node_numbers&);

void collect(const graph& g, node_list& into) {
  for (const auto& n : g.nodes()) {
    if (n->is_active())
      n->follow_length();
    into.push_back(
        {n->name(), n->type().name, n->statistics(), n->requests().in_flight(), n->length()});
  }
}

// One sample for each node.
void add_numbers(metrics_text& text, const node_list& nodes, number_of value) {
  for (const node_numbers& n : nodes)
    text.sample({{"node", n.name}, {"driver", n.driver}}, value(n));
}

// One for each node and operation.
void add_operations(metrics_text& text, const node_list& nodes,
                    u64 operation_statistics::* member) {
  for (const node_numbers& n : nodes)
    for (const operation kind : all_operations)
      text.sample({{"node", n.name}, {"operation", to_string(kind)}},
                  n.statistics.of(kind).*member);
}

constexpr double seconds_per_ns = 1e-9;

void add_histogram(metrics_text& text, const node_numbers& n, operation kind) {
  const operation_statistics& s = n.statistics.of(kind);
  const metrics_text::label name{"node", n.name};
  const metrics_text::label what{"operation", to_string(kind)};
  u64 count = 0;
  for (std::size_t i = 0; i < latency_histogram::bin_count; i++) {
    count += s.latency.bins[i];
    const bool is_last = i + 1 == latency_histogram::bin_count;
    const std::string limit =
        is_last ? "+Inf"
                : fmt::format("{}", static_cast<double>(latency_histogram::boundary_of(i) / 1000) /
                                        1'000'000);
    text.sample({name, what, {"le", limit}}, count, "_bucket");
  }
  text.sample({name, what}, count, "_count");
  text.sample({name, what}, static_cast<double>(s.time_ns) * seconds_per_ns, "_sum");
}

void add_nodes(metrics_text& text, const node_list& nodes) {
  text.family("bgfs_node_operations", metric_type::counter, "Requests that succeeded.");
  add_operations(text, nodes, &operation_statistics::count);
  text.family("bgfs_node_bytes", metric_type::counter, "Bytes of requests that succeeded.",
              "bytes");
  add_operations(text, nodes, &operation_statistics::bytes);
  text.family("bgfs_node_failed_operations", metric_type::counter, "Requests that failed.");
  add_operations(text, nodes, &operation_statistics::failed);
  text.family("bgfs_node_invalid_operations", metric_type::counter,
              "Requests that were refused without being tried.");
  add_operations(text, nodes, &operation_statistics::invalid);
  text.family("bgfs_node_merged_flushes", metric_type::counter,
              "Flushes that found nothing written since the last one.");
  add_numbers(text, nodes, [](const node_numbers& n) { return n.statistics.merged_flushes; });
  text.family("bgfs_node_requests_in_flight", metric_type::gauge, "Requests that are running.");
  add_numbers(text, nodes, [](const node_numbers& n) { return n.in_flight; });
  text.family("bgfs_node_length_bytes", metric_type::gauge, "What the node holds.", "bytes");
  add_numbers(text, nodes, [](const node_numbers& n) { return n.length; });
  text.family("bgfs_node_operation_duration_seconds", metric_type::histogram,
              "How long requests took, once there was one.", "seconds");
  for (const node_numbers& n : nodes)
    for (const operation kind : all_operations)
      if (const operation_statistics& s = n.statistics.of(kind); s.count + s.failed > 0)
        add_histogram(text, n, kind);
}

constexpr std::array<std::string_view, 9> state_words = {
    "ok", "read-only", "opening", "repairing", "full", "stopped", "failed", "corrupt", "closing"};

task<void> add_roots(metrics_text& text, const mount_state& mount) {
  text.family("bgfs_root_state", metric_type::stateset, "The word of the root's state file.");
  for (const root_pointer& root : std::vector<root_pointer>(mount.roots)) {
    const root_state now = co_await root->state();
    for (const std::string_view word : state_words)
      text.sample({{"root", root->name()}, {"bgfs_root_state", word}}, u64{now.word == word});
  }
  text.family("bgfs_root_openers", metric_type::gauge, "Open handles of the raw file.");
  for (const auto& root : mount.roots)
    for (const bool is_writing : {false, true})
      text.sample(
          {{"root", root->name()}, {"mode", is_writing ? "write" : "read"}},
          static_cast<u64>(std::ranges::count(root->openers, is_writing, &opener::is_writing)));
}

struct process_numbers {
  u64 open_descriptors = 0;
  u64 virtual_bytes = 0;
  u64 resident_bytes = 0;
  double cpu_seconds = 0;
};

// Blocks, if shortly: descriptors are counted one by one.
process_numbers read_process() {
  process_numbers p;
  std::error_code bad;
  for (std::filesystem::directory_iterator at("/proc/self/fd", bad), end; !bad && at != end;
       at.increment(bad))
    p.open_descriptors++;
  u64 pages = 0;
  u64 resident_pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident_pages;
  const auto page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  p.virtual_bytes = pages * page;
  p.resident_bytes = resident_pages * page;
  std::timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  p.cpu_seconds = static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
  return p;
}

void add_process(metrics_text& text, const mount_state& mount, const process_numbers& p) {
  text.family("bgfs_build", metric_type::info, "The program.");
  text.sample({{"version", BGFS_VERSION}}, u64{1});
  text.family("bgfs_fuse_requests", metric_type::counter, "Requests of the kernel.");
  text.sample({}, mount.requests_served + mount.requests_leased());
  text.family("bgfs_fuse_requests_running", metric_type::gauge, "Those not answered yet.");
  text.sample({}, u64{mount.requests_running});
  text.family("process_open_fds", metric_type::gauge, "Open descriptors.");
  text.sample({}, p.open_descriptors);
  text.family("process_virtual_memory_bytes", metric_type::gauge, "Address space.", "bytes");
  text.sample({}, p.virtual_bytes);
  text.family("process_resident_memory_bytes", metric_type::gauge, "Memory in use.", "bytes");
  text.sample({}, p.resident_bytes);
  text.family("process_cpu_seconds", metric_type::counter, "Processor time, of all threads.",
              "seconds");
  text.sample({}, p.cpu_seconds);
  text.family("bgfs_mount_time_seconds", metric_type::gauge, "When it was mounted.", "seconds");
  text.sample({}, static_cast<double>(mount.started.tv_sec));
}

task<std::string> render(view_subject subject) {
  const process_numbers process = co_await offload([] { return read_process(); });
  metrics_text text;
  add_process(text, subject.mount, process);
  co_await add_roots(text, subject.mount);
  node_list nodes;
  co_await subject.mount.look_at_graphs([&](const graph& g) { collect(g, nodes); });
  add_nodes(text, nodes);
  co_return text.take();
}

} // namespace

extern constinit const view metrics_view{
    .name = "metrics",
    .summary = "numbers of nodes, roots and the process, as OpenMetrics text",
    .render = render};

} // namespace bgfs
