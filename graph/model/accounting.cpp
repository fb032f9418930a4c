// SPDX-License-Identifier: MIT
// What nodes count, and what they tell when it happens.
#include "graph/model/graph.h"
#include "graph/model/lease_counters.h"

namespace bgfs {
namespace {

// A failing disk fails thousands of times a second; one event in this time says so.
constexpr std::chrono::seconds io_error_interval{1};

bool is_io_error(const error& e) {
  return e.kind() == error_kind::io || e.kind() == error_kind::no_space ||
         e.kind() == error_kind::corrupt_image;
}

} // namespace

std::string_view to_string(operation kind) {
  switch (kind) {
  case operation::read:
    return "read";
  case operation::write:
    return "write";
  case operation::zero:
    return "zero";
  case operation::discard:
    return "discard";
  case operation::flush:
    return "flush";
  }
  return "unknown";
}

void node::account(operation kind, u64 bytes, std::chrono::steady_clock::time_point since,
                   const result<>& outcome) {
  const auto now = owner_->home().now();
  const auto took =
      static_cast<u64>(std::chrono::duration_cast<std::chrono::nanoseconds>(now - since).count());
  operation_statistics& s = statistics_.of(kind);
  s.time_ns += took;
  statistics_.last_access = now;
  if (outcome) {
    s.count++;
    s.bytes += bytes;
    s.latency.add(took);
    return;
  }
  s.failed++;
  if (is_io_error(outcome.error()))
    tell_io_error(kind, outcome.error(), now);
}

const node_statistics& node::statistics() const {
  requests_.settle_leases();
  return statistics_;
}

// What visits of a lease have done here, as account and write_ended would have counted it.
void node::add_leased(operation kind, const operation_delta& news, bool knows_end) {
  news.add_to(statistics_.of(kind));
  const std::chrono::steady_clock::time_point last{std::chrono::nanoseconds(news.last_ended)};
  if (!statistics_.last_access || *statistics_.last_access < last)
    statistics_.last_access = last;
  if (kind != operation::write)
    return;
  write_generation_++;
  if (knows_end)
    statistics_.write_highest_offset = std::max(statistics_.write_highest_offset, news.highest_end);
}

// Told where somebody uses the graph, and not again by every node on the way there.
void node::tell_io_error(operation kind, const error& e,
                         std::chrono::steady_clock::time_point now) {
  const edge* user = nullptr;
  for (const edge* parent : parents_)
    if (parent->parent() == nullptr)
      user = parent;
  if (user == nullptr)
    return;
  if (io_error_told_ && now - *io_error_told_ < io_error_interval) {
    io_errors_untold_++;
    return;
  }
  io_error_told_ = now;
  value data;
  data.set("device", user->name());
  data.set("node-name", name_);
  data.set("operation", kind == operation::read ? "read" : "write");
  data.set("action", "report");
  data.set("nospace", e.kind() == error_kind::no_space);
  data.set("reason", e.message());
  data.set("suppressed", std::exchange(io_errors_untold_, 0));
  owner_->emit("BLOCK_IO_ERROR", std::move(data));
}

// While there is one, every write has to pass here.
void node::set_write_threshold(u64 offset) {
  if ((offset != 0) != (write_threshold_ != 0))
    offset != 0 ? requests_.exclude_leases() : requests_.admit_leases();
  write_threshold_ = offset;
}

void node::write_begins(byte_range range) {
  if (write_threshold_ == 0 || range.end() <= write_threshold_)
    return;
  const u64 threshold = write_threshold_;
  set_write_threshold(0);
  value data;
  data.set("node-name", name_);
  data.set("amount-exceeded", range.end() - threshold);
  data.set("write-threshold", threshold);
  owner_->emit("BLOCK_WRITE_THRESHOLD", std::move(data));
}

// Also a failed write may have changed the medium, and made it longer: the next flush is not free.
void node::write_ended(const tracked_request& request, operation kind, const result<>& outcome) {
  write_generation_++;
  const byte_range range = request.range();
  if (kind != operation::discard) {
    statistics_.write_highest_offset = std::max(statistics_.write_highest_offset, range.end());
    if (range.end() > length_)
      length_changed();
  }
  account(kind, range.length, request.since(), outcome);
}

result<> node::register_buffer(std::span<std::byte> memory) {
  if (buffer_registrar_ != nullptr)
    BGFS_CHECK(buffer_registrar_->register_buffer(memory));
  for (std::size_t i = 0; i < children_.size(); i++) {
    result<> ok = children_[i]->child().register_buffer(memory);
    if (ok)
      continue;
    while (i-- > 0)
      children_[i]->child().unregister_buffer(memory);
    if (buffer_registrar_ != nullptr)
      buffer_registrar_->unregister_buffer(memory);
    return ok;
  }
  return {};
}

void node::unregister_buffer(std::span<std::byte> memory) noexcept {
  if (buffer_registrar_ != nullptr)
    buffer_registrar_->unregister_buffer(memory);
  for (const auto& e : children_)
    e->child().unregister_buffer(memory);
}

} // namespace bgfs
