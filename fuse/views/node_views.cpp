// SPDX-License-Identifier: MIT
// nodes/NAME/: driver, options.json, limits, permissions, requests, write-threshold.
#include "fuse/views/common.h"
#include "graph/base/text.h"

namespace bgfs {
namespace {

task<std::string> render_driver(view_subject subject) {
  co_return std::string(subject.target->type().name) + "\n";
}

task<std::string> render_options(view_subject subject) {
  const node& n = *subject.target;
  value options = n.given().effective();
  options.set("node-name", n.name());
  options.set("driver", n.type().name);
  const node_options& generic = n.generic();
  options.set("read-only", generic.is_read_only);
  options.set("auto-read-only", generic.is_auto_read_only);
  options.set("force-share", generic.force_share);
  options.set("discard", generic.discard == discard_mode::unmap ? "unmap" : "ignore");
  const char* const zeroes = generic.detect_zeroes == detect_zeroes_mode::off  ? "off"
                             : generic.detect_zeroes == detect_zeroes_mode::on ? "on"
                                                                               : "unmap";
  options.set("detect-zeroes", zeroes);
  value cache;
  cache.set("direct", generic.cache_direct);
  cache.set("no-flush", generic.cache_no_flush);
  cache.set("writeback", generic.cache_writeback);
  options.set("cache", std::move(cache));
  co_return json_text(options);
}

task<std::string> render_limits(view_subject subject) {
  const block_limits& l = subject.target->limits();
  std::string text;
  add_line(text, "length", subject.target->length());
  add_line(text, "request-alignment", l.request_alignment);
  add_line(text, "max-transfer", l.max_transfer);
  add_line(text, "opt-transfer", l.opt_transfer);
  add_line(text, "max-discard", l.max_discard);
  add_line(text, "discard-alignment", l.discard_alignment);
  add_line(text, "max-write-zeroes", l.max_write_zeroes);
  add_line(text, "write-zeroes-alignment", l.write_zeroes_alignment);
  add_line(text, "min-memory-alignment", l.min_memory_alignment);
  add_line(text, "opt-memory-alignment", l.opt_memory_alignment);
  add_line(text, "max-vectors", l.max_vectors);
  add_line(text, "max-hw-transfer", hardware_transfer_max(l));
  add_line(text, "max-hw-vectors", hardware_vectors_max(l));
  add_line(text, "variable-length", yes_or_no(l.has_variable_length));
  add_line(text, "zones", to_string(l.zones.model));
  if (l.zones.model != zone_model::none) {
    add_line(text, "zone-length", l.zones.zone_length);
    add_line(text, "zone-count", l.zones.zone_count);
    add_line(text, "max-append", l.zones.max_append);
    add_line(text, "max-open-zones", l.zones.max_open);
    add_line(text, "max-active-zones", l.zones.max_active);
    add_line(text, "write-granularity", l.zones.write_granularity);
  }
  co_return text;
}

task<std::string> render_permissions(view_subject subject) {
  const permissions all = subject.target->cumulative_permissions();
  std::string text;
  add_line(text, "used", describe(all.used));
  add_line(text, "shared", describe(all.shared));
  for (const edge* e : subject.target->parents()) {
    const permissions& p = e->granted();
    text += fmt::format("parent: {}; used: {}; shared: {}\n", e->describe(), describe(p.used),
                        describe(p.shared));
  }
  co_return text;
}

task<std::string> render_requests(view_subject subject) {
  std::string text;
  const auto now = std::chrono::steady_clock::now();
  for (const tracked_request* r = subject.target->requests().first(); r != nullptr; r = r->next()) {
    const auto age = std::chrono::duration_cast<std::chrono::microseconds>(now - r->since());
    text += fmt::format("id={} {} offset={:#x} length={:#x} age-us={}", r->sequence(),
                        to_string(r->type()), r->range().offset, r->range().length, age.count());
    if (r->is_serialising())
      text += fmt::format(" serialising={:#x}+{:#x}", r->overlap_range().offset,
                          r->overlap_range().length);
    if (r->waiting_for() != nullptr)
      text += fmt::format(" waiting-for={}", r->waiting_for()->sequence());
    else if (r->is_waiting())
      text += " waiting";
    text += '\n';
  }
  co_return text;
}

task<std::string> render_threshold(view_subject subject) {
  co_return fmt::format("{}\n", subject.target->write_threshold());
}

task<void> write_threshold(view_subject subject, std::string text) {
  const result<u64> offset = parse_size(text);
  if (!offset || *offset > device_length_max)
    co_await fail(error_kind::invalid_argument,
                  "'{}' is no write threshold of '{}': write an offset such as 10G, or 0 for none",
                  text, subject.target->name());
  if (subject.target->is_written_by_others())
    co_await subject.target->check_operation(node_operation::internal_snapshot);
  subject.target->set_write_threshold(*offset);
}

} // namespace

extern constinit const view node_driver_view{
    .name = "driver", .summary = "the name of its driver", .render = render_driver};
extern constinit const view node_options_view{
    .name = "options.json", .summary = "its options, defaults included", .render = render_options};
extern constinit const view node_limits_view{
    .name = "limits", .summary = "what it asks of requests, in bytes", .render = render_limits};
extern constinit const view node_permissions_view{.name = "permissions",
                                                  .summary =
                                                      "what its parents do and let others do",
                                                  .render = render_permissions};
extern constinit const view node_requests_view{
    .name = "requests", .summary = "requests in flight", .render = render_requests};
extern constinit const view node_threshold_view{
    .name = "write-threshold",
    .summary = "the first write that ends past it is told as an event; 0: none",
    .render = render_threshold,
    .write = write_threshold};

} // namespace bgfs
