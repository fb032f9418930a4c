// SPDX-License-Identifier: MIT
// stats, stats.json: what was done so far, of a root and of a node.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

using std::chrono::nanoseconds;

// Since the last request; nothing if there was none.
std::optional<u64> idle_time_ns(const node_statistics& s) {
  if (!s.last_access)
    return std::nullopt;
  const auto idle = std::chrono::steady_clock::now() - *s.last_access;
  return static_cast<u64>(std::chrono::duration_cast<nanoseconds>(idle).count());
}

// "under-1us:3 under-8us:12 longer:1": the bins that hold something.
std::string bins_text(const latency_histogram& h) {
  std::string text;
  for (std::size_t i = 0; i < h.bins.size(); i++) {
    if (h.bins[i] == 0)
      continue;
    if (!text.empty())
      text += ' ';
    if (i + 1 < h.bins.size()) {
      text += fmt::format("under-{}us:{}", latency_histogram::boundary_of(i) / 1000, h.bins[i]);
    } else {
      text += fmt::format("longer:{}", h.bins[i]);
    }
  }
  return text.empty() ? "none" : text;
}

// The names that `stats` has had from the first: reads, zero-writes, flushes.
std::string_view plural_of(operation kind) {
  switch (kind) {
  case operation::read:
    return "reads";
  case operation::write:
    return "writes";
  case operation::zero:
    return "zero-writes";
  case operation::discard:
    return "discards";
  case operation::flush:
    return "flushes";
  }
  return "unknown";
}

void add_specific(std::string& text, const value& specific) {
  const value::map* members = specific.as_map();
  if (members == nullptr)
    return;
  for (const auto& [key, v] : *members)
    if (key != "driver")
      add_line(text, key, v.as_text() != nullptr ? *v.as_text() : to_json(v));
}

void add_statistics(std::string& text, const node& n) {
  const node_statistics& s = n.statistics();
  u64 failed = 0;
  u64 invalid = 0;
  for (const operation kind : all_operations) {
    const operation_statistics& o = s.of(kind);
    add_line(text, plural_of(kind), o.count);
    if (kind != operation::flush)
      add_line(text, fmt::format("{}-bytes", to_string(kind)), o.bytes);
    add_line(text, fmt::format("{}-time-us", to_string(kind)), o.time_ns / 1000);
    add_line(text, fmt::format("{}-failed", to_string(kind)), o.failed);
    failed += o.failed;
    invalid += o.invalid;
  }
  add_line(text, "failed", failed);
  add_line(text, "invalid", invalid);
  add_line(text, "merged-flushes", s.merged_flushes);
  add_line(text, "write-highest-offset", s.write_highest_offset);
  if (const auto idle = idle_time_ns(s))
    add_line(text, "idle-time-us", *idle / 1000);
  for (const operation kind : all_operations)
    add_line(text, fmt::format("{}-latency", to_string(kind)), bins_text(s.of(kind).latency));
  add_line(text, "requests-in-flight", n.requests().in_flight());
  if (n.is_active())
    add_specific(text, n.instance().statistics_specific());
}

// The prefixes of query-blockstats, which has none for zero writes.
std::string_view prefix_of(operation kind) {
  switch (kind) {
  case operation::read:
    return "rd";
  case operation::write:
    return "wr";
  case operation::zero:
    return "zero";
  case operation::discard:
    return "unmap";
  case operation::flush:
    return "flush";
  }
  return "unknown";
}

value histogram_value(const latency_histogram& h) {
  value::list boundaries;
  value::list bins;
  for (std::size_t i = 0; i < h.bins.size(); i++) {
    if (i + 1 < h.bins.size())
      boundaries.emplace_back(latency_histogram::boundary_of(i));
    bins.emplace_back(h.bins[i]);
  }
  value v;
  v.set("boundaries", std::move(boundaries));
  v.set("bins", std::move(bins));
  return v;
}

value statistics_value(const node& n) {
  const node_statistics& s = n.statistics();
  value counts;
  for (const operation kind : all_operations) {
    const operation_statistics& o = s.of(kind);
    const std::string prefix(prefix_of(kind));
    if (kind != operation::flush)
      counts.set(prefix + "_bytes", o.bytes);
    counts.set(prefix + "_operations", o.count);
    counts.set(prefix + "_total_time_ns", o.time_ns);
    counts.set("failed_" + prefix + "_operations", o.failed);
    counts.set("invalid_" + prefix + "_operations", o.invalid);
    counts.set(prefix + "_latency_histogram", histogram_value(o.latency));
  }
  counts.set("flush_merged", s.merged_flushes);
  counts.set("wr_highest_offset", s.write_highest_offset);
  if (const auto idle = idle_time_ns(s))
    counts.set("idle_time_ns", *idle);
  counts.set("requests_in_flight", n.requests().in_flight());
  value v;
  v.set("node-name", n.name());
  v.set("stats", std::move(counts));
  value specific = n.is_active() ? n.instance().statistics_specific() : value();
  if (!specific.is_null())
    v.set("driver-specific", std::move(specific));
  return v;
}

task<std::string> render_root(view_subject subject) {
  std::string text;
  add_statistics(text, subject.root->disk()->top());
  add_line(text, "open-handles", subject.open_handles);
  co_return text;
}

task<std::string> render_root_json(view_subject subject) {
  value v = statistics_value(subject.root->disk()->top());
  v.set("device", subject.root->name());
  v.set("open-handles", u64{subject.open_handles});
  co_return json_text(v);
}

task<std::string> render_node(view_subject subject) {
  std::string text;
  add_statistics(text, *subject.target);
  co_return text;
}

task<std::string> render_node_json(view_subject subject) {
  co_return json_text(statistics_value(*subject.target));
}

} // namespace

extern constinit const view root_stats_view{
    .name = "stats", .summary = "requests and bytes since it was opened", .render = render_root};
extern constinit const view root_stats_json_view{
    .name = "stats.json",
    .summary = "the same for programs (keys as of query-blockstats)",
    .render = render_root_json};
extern constinit const view node_stats_view{
    .name = "stats", .summary = "requests and bytes since it was opened", .render = render_node};
extern constinit const view node_stats_json_view{
    .name = "stats.json",
    .summary = "the same for programs (keys as of query-blockstats)",
    .render = render_node_json};

} // namespace bgfs
