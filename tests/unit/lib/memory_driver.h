// SPDX-License-Identifier: MIT
// A protocol driver for tests: a disk in memory that logs what is done to it, fails on command, and
// can be cut at any write, with what was not flushed lost or kept.
#pragma once

#include "graph/io/sleep.h"
#include "graph/io/spawn.h"
#include "graph/io/sync.h"
#include "graph/model/graph.h"

#include <cstring>
#include <deque>
#include <map>

namespace bgfs::test {

struct memory_event {
  enum class kind { write, zero, discard, flush, truncate } what;
  byte_range range; // truncate: length is the new length
  std::vector<std::byte> bytes;
  u64 instant = 0; // by memory_disk::clock
};

// What a memory node shows and records; outlives the node.
struct memory_disk {
  std::vector<std::byte> bytes;
  std::vector<memory_event> log;
  bool keeps_log = false;
  u64* clock = nullptr; // counts events, of several disks if they share it
  u32 request_alignment = 1;
  u64 max_transfer = 0;
  bool can_zero = true;
  bool can_discard = true;
  bool can_resize = true;
  bool yields = true; // every request takes a turn of the loop, so that others run between
  std::optional<u64> length_max; // writing past it is ENOSPC
  // Called before each operation; an error makes it fail without doing anything.
  std::function<std::optional<error>(std::string_view operation, byte_range range)> fault;
  u64 operations = 0;
  // Called before each operation, too; it then waits for the event, if there is one.
  std::function<event*(std::string_view operation, byte_range range)> hold;
  // What it asks of requests besides request_alignment and max_transfer.
  std::function<void(block_limits&)> limits;
  write_flags write_flags_supported = 0;
  write_flags zero_flags_supported = write_flag::may_unmap | write_flag::no_fallback;
  // What status says; nothing: all is data.
  std::function<extent(byte_range range)> mapping;
  u64 maps = 0;
  // Zero writes past the end exclude everything behind them, as some file systems need it.
  bool zeroes_exclusively = false;
  write_flags flags_seen = 0; // of the last write or zero write
  std::vector<std::span<std::byte>> registered;
  std::function<bool()> refuses_buffers;
  // Its bytes can be had without the driver: leases resolve down to it. There is no such
  // descriptor; tests look at where things are.
  bool is_direct = false;
  u64 direct_asked = 0; // how often somebody wanted to know

  explicit memory_disk(u64 length = 0) : bytes(length) {}
};

class memory_driver final : public driver,
                            public readable,
                            public direct_file,
                            public writable,
                            public copyable,
                            public mappable,
                            public zeroable,
                            public discardable,
                            public flushable,
                            public resizable,
                            public buffer_registrar {
public:
  memory_driver(memory_disk& disk, node& self) : disk_(disk), self_(self) {}

  [[nodiscard]] u64 length() const override { return disk_.bytes.size(); }
  [[nodiscard]] bool grows_by_writing() const override { return disk_.can_resize; }
  task<void> close() override { co_return; }
  void refine_limits(block_limits& limits) const override {
    limits.request_alignment = disk_.request_alignment;
    limits.max_transfer = disk_.max_transfer;
    if (disk_.limits)
      disk_.limits(limits);
  }
  task<std::optional<u64>> allocated_length() override { co_return disk_.bytes.size(); }

  [[nodiscard]] std::optional<direct_access> direct() const override {
    disk_.direct_asked++;
    if (!disk_.is_direct)
      return std::nullopt;
    return direct_access{.fd = 1 << 30, .may_write = true};
  }
  task<void> read(u64 offset, std::span<std::byte> out) override {
    co_await begin("read", {offset, out.size()});
    std::memset(out.data(), 0, out.size());
    if (offset >= disk_.bytes.size())
      co_return;
    const u64 length = std::min<u64>(out.size(), disk_.bytes.size() - offset);
    std::memcpy(out.data(), disk_.bytes.data() + offset, length);
  }
  task<void> write(u64 offset, std::span<const std::byte> in, write_flags flags) override {
    disk_.flags_seen = flags;
    co_await begin("write", {offset, in.size()});
    co_await make_room(offset + in.size());
    std::memcpy(disk_.bytes.data() + offset, in.data(), in.size());
    record(memory_event::kind::write, {offset, in.size()}, in);
  }
  task<void> copy_from(bytes_of_file source, u64 to_offset) override {
    auto* const from = dynamic_cast<memory_driver*>(source.file);
    if (from == nullptr)
      co_await fail(error_kind::unsupported, "this disk copies from its like only");
    const byte_range range = source.range;
    co_await begin("copy", {to_offset, range.length});
    co_await make_room(to_offset + range.length);
    std::memmove(disk_.bytes.data() + to_offset, from->disk_.bytes.data() + range.offset,
                 range.length);
    record(memory_event::kind::write, {to_offset, range.length},
           std::span(disk_.bytes).subspan(to_offset, range.length));
  }
  [[nodiscard]] write_flags supported_write_flags() const override {
    return disk_.write_flags_supported;
  }
  task<extent> map(byte_range range) override {
    disk_.maps++;
    extent scripted;
    if (disk_.mapping)
      scripted = disk_.mapping(range);
    co_await begin("map", range);
    if (disk_.mapping)
      co_return scripted;
    co_return extent{.length = disk_.bytes.size() - range.offset,
                     .kind = extent_kind::data,
                     .offset = range.offset};
  }
  [[nodiscard]] std::optional<extent> try_map(byte_range) override { return std::nullopt; }
  task<void> write_zeroes(byte_range range, write_flags flags) override {
    disk_.flags_seen = flags;
    if (disk_.zeroes_exclusively && range.end() > disk_.bytes.size()) {
      tracked_request* const mine = self_.requests().entering();
      mine->serialise_over(byte_range::between(range.offset, device_length_max));
      co_await mine->wait_for_conflicts();
    }
    if (!disk_.can_zero)
      co_await fail(error_kind::unsupported, "this disk cannot zero");
    co_await begin("zero", range);
    co_await make_room(range.end());
    std::memset(disk_.bytes.data() + range.offset, 0, range.length);
    record(memory_event::kind::zero, range, {});
  }
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return disk_.zero_flags_supported;
  }
  task<void> discard(byte_range range) override {
    if (!disk_.can_discard)
      co_await fail(error_kind::unsupported, "this disk cannot discard");
    co_await begin("discard", range);
    const u64 end = std::min<u64>(range.end(), disk_.bytes.size());
    // What was discarded may read as anything: garbage, so that nobody relies on it.
    for (u64 i = range.offset; i < end; i++)
      disk_.bytes[i] = std::byte{0xdd};
    record(memory_event::kind::discard, range, {});
  }
  task<void> write_back() override { co_return; }
  task<void> flush_to_disk() override {
    co_await begin("flush", {});
    record(memory_event::kind::flush, {}, {});
  }
  task<void> truncate(u64 length, truncate_options) override {
    if (!disk_.can_resize)
      co_await fail(error_kind::unsupported, "this disk cannot be resized");
    co_await begin("truncate", {0, length});
    if (disk_.length_max && length > *disk_.length_max)
      co_await fail_errno(ENOSPC, "the test disk is full");
    disk_.bytes.resize(length);
    record(memory_event::kind::truncate, {0, length}, {});
  }

  result<> register_buffer(std::span<std::byte> memory) override {
    if (disk_.refuses_buffers && disk_.refuses_buffers())
      return fail(error_kind::no_space, "no room for more buffers");
    disk_.registered.push_back(memory);
    return {};
  }
  void unregister_buffer(std::span<std::byte> memory) noexcept override {
    std::erase_if(disk_.registered, [&](auto known) { return known.data() == memory.data(); });
  }

private:
  task<void> begin(std::string_view operation, byte_range range) {
    disk_.operations++;
    if (disk_.yields)
      co_await sleep_for(std::chrono::nanoseconds(0));
    if (disk_.hold)
      if (event* gate = disk_.hold(operation, range))
        co_await gate->wait();
    if (disk_.fault) {
      if (auto failure = disk_.fault(operation, range))
        co_await fail(*std::move(failure));
    }
  }
  task<void> make_room(u64 end) {
    if (end <= disk_.bytes.size())
      co_return;
    if (disk_.length_max && end > *disk_.length_max)
      co_await fail_errno(ENOSPC, "the test disk is full");
    disk_.bytes.resize(end);
  }
  void record(memory_event::kind what, byte_range range, std::span<const std::byte> in) {
    if (disk_.keeps_log)
      disk_.log.push_back({what, range, {in.begin(), in.end()}, tick()});
  }
  u64 tick() { return disk_.clock == nullptr ? 0 : (*disk_.clock)++; }
  memory_disk& disk_;
  node& self_;
};

// The name of a memory disk in `filename`; disks are looked up in the map the test registered.
// Drivers are constant descriptions, so the way from a description to a test's disks is this one
// map.
inline std::map<std::string, memory_disk*, std::less<>>& memory_disks() {
  static std::map<std::string, memory_disk*, std::less<>> disks;
  return disks;
}

inline constexpr option memory_option_list[] = {
    {.name = "filename", .help = "the name of the disk", .is_required = true}};
inline constexpr option_schema memory_options{"driver 'memory'", memory_option_list};

inline task<std::unique_ptr<driver>> open_memory(open_request request) {
  const auto at = memory_disks().find(request.given.text("filename"));
  if (at == memory_disks().end())
    co_return fail(error_kind::not_found, "there is no test disk '{}'",
                   request.given.text("filename"));
  co_return std::make_unique<memory_driver>(*at->second, request.self);
}

inline constexpr driver_type memory_driver_type{
    .name = "memory",
    .kind = driver_kind::protocol,
    .summary = "a disk in memory, for tests",
    .open_options = &memory_options,
    .open = open_memory,
    .protocol_prefix = "memory",
};

} // namespace bgfs::test
