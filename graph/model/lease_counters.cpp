// SPDX-License-Identifier: MIT
#include "graph/model/lease_counters.h"

namespace bgfs {

void operation_counters::add(const leased_request& r) {
  count.add(1);
  bytes.add(r.bytes);
  time_ns.add(r.took_ns);
  latency[latency_histogram::bin_of(r.took_ns)].add(1);
  last_ended.raise_to(static_cast<u64>(r.ended.time_since_epoch().count()));
  highest_end.raise_to(r.end);
}

void operation_delta::add_to(operation_statistics& s) const {
  s.count += count;
  s.bytes += bytes;
  s.time_ns += time_ns;
  for (std::size_t i = 0; i < latency.size(); i++)
    s.latency.bins[i] += latency[i];
}

operation_delta settled_operation::look_at(std::span<const operation_counters* const> counters) {
  operation_delta now;
  for (const operation_counters* c : counters) {
    now.count += c->count.get();
    now.bytes += c->bytes.get();
    now.time_ns += c->time_ns.get();
    for (std::size_t i = 0; i < now.latency.size(); i++)
      now.latency[i] += c->latency[i].get();
    now.last_ended = std::max(now.last_ended, c->last_ended.get());
    now.highest_end = std::max(now.highest_end, c->highest_end.get());
  }
  operation_delta news = now;
  news.count -= known_.count;
  news.bytes -= known_.bytes;
  news.time_ns -= known_.time_ns;
  for (std::size_t i = 0; i < news.latency.size(); i++)
    news.latency[i] -= known_.latency[i];
  known_ = now;
  return news;
}

} // namespace bgfs
