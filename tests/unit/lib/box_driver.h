// SPDX-License-Identifier: MIT
// Drivers for tests of edits: a format that keeps what it is given in memory until it is told to
// write back, marks its image as open while it may write, and refuses an image that somebody else
// has marked - so that two instances on one image, or one that was not closed, show. And a filter.
#pragma once

#include "tests/unit/lib/graph_bench.h"

namespace bgfs::test {

inline constexpr u64 box_head = 512;
inline constexpr option box_option_list[] = {
    {.name = "speed", .type = option_type::integer, .help = "any number", .is_mutable = true},
    {.name = "key", .help = "of the content"},
};
inline constexpr option_schema box_options{"driver 'box'", box_option_list};
inline constexpr child_slot box_slots[] = {{"file", role::image},
                                           {"backing", role::backing, false}};

// What box drivers do wrong on purpose; set by tests for their own duration.
struct box_faults {
  std::optional<u64> refused_speed; // prepare_reopen fails
  int aborted = 0;
  int committed = 0;
  int finished = 0;
};
inline box_faults& box_fault() {
  static box_faults faults;
  return faults;
}

class box_driver final : public driver,
                         public readable,
                         public writable,
                         public mappable,
                         public flushable,
                         public reopenable {
public:
  box_driver(edge& below, bool is_read_only, u64 speed, bool overlays)
      : below_(below), is_read_only_(is_read_only), speed_(speed), overlays_(overlays) {}

  [[nodiscard]] u64 length() const override { return below_.length() - box_head; }
  task<void> mark(char state) {
    co_await below_.write(4, std::as_bytes(std::span(&state, 1)));
    co_await below_.flush();
  }
  task<void> close() override {
    if (is_read_only_)
      co_return;
    co_await write_back();
    co_await mark('c');
  }
  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    co_await below_.read(box_head + offset, bytes);
    for (const auto& [at, b] : held_)
      if (at >= offset && at < offset + bytes.size())
        bytes[at - offset] = b;
  }
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags) override {
    for (const std::byte b : bytes)
      held_[offset++] = b;
    co_return;
  }
  task<extent> map(byte_range range) override { co_return *try_map(range); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override {
    if (overlays_ && range.offset % 1024 >= 512) // every second block is the backing's
      return extent{.length = std::min<u64>(range.length, 1024 - range.offset % 1024)};
    const u64 length =
        overlays_ ? std::min<u64>(range.length, 512 - range.offset % 1024) : range.length;
    return extent{.length = length, .kind = extent_kind::encoded};
  }
  task<void> write_back() override {
    while (!held_.empty()) {
      const auto [at, b] = *held_.begin();
      co_await below_.write(box_head + at, std::span(&b, 1));
      if (const auto now = held_.find(at); now != held_.end() && now->second == b)
        held_.erase(now);
    }
  }
  task<void> flush_to_disk() override { co_return; }

  task<void> prepare_reopen(const options& given, const node_options& generic) override {
    if (generic.is_read_only != is_read_only_)
      co_await fail(error_kind::unsupported, "a box stays as writable as it is");
    if (box_fault().refused_speed == given.maybe_number("speed"))
      co_await fail(error_kind::invalid_argument, "speed {} is too fast",
                    *given.maybe_number("speed"));
    next_speed_ = given.maybe_number("speed").value_or(0);
  }
  void commit_reopen() noexcept override {
    speed_ = next_speed_;
    box_fault().committed++;
  }
  task<void> finish_reopen() override {
    box_fault().finished++;
    co_return;
  }
  void abort_reopen() noexcept override { box_fault().aborted++; }
  [[nodiscard]] u64 speed() const { return speed_; }

private:
  edge& below_;
  bool is_read_only_;
  u64 speed_;
  u64 next_speed_ = 0;
  bool overlays_;
  std::map<u64, std::byte> held_;
};

inline task<std::unique_ptr<driver>> open_box(open_request request) {
  edge& below = *request.children[0];
  if (below.length() < box_head)
    co_return fail(error_kind::invalid_image, "there is no room for the head of a box");
  std::string head(5, '\0');
  co_await below.read(0, std::as_writable_bytes(std::span(head)));
  if (!head.starts_with("BOX1") && !head.starts_with("BOX2"))
    co_return fail(error_kind::invalid_image, "this is no box");
  if (head[4] != 'c' && head[4] != '\0')
    co_return fail(error_kind::corrupt_image, "somebody else has this box open");
  auto made = std::make_unique<box_driver>(
      below, request.is_read_only, request.given.maybe_number("speed").value_or(0), head[3] == '2');
  if (!request.is_read_only)
    co_await made->mark('o');
  co_return made;
}

inline constexpr driver_type box_driver_type{
    .name = "box",
    .kind = driver_kind::format,
    .summary = "for tests",
    .children = box_slots,
    .open_options = &box_options,
    .supports_backing = true,
    .open = open_box,
};

class pass_driver final : public driver {
public:
  explicit pass_driver(const edge& below) : below_(below) {}
  [[nodiscard]] u64 length() const override { return below_.length(); }
  task<void> close() override { co_return; }

private:
  const edge& below_;
};
inline task<std::unique_ptr<driver>> open_pass(open_request request) {
  co_return std::make_unique<pass_driver>(*request.children[0]);
}
inline constexpr child_slot pass_slots[] = {{"file", role::filtered | role::primary}};
inline constexpr option_schema pass_options{"driver 'pass'", {}};
inline constexpr driver_type pass_driver_type{
    .name = "pass",
    .kind = driver_kind::filter,
    .summary = "for tests",
    .children = pass_slots,
    .open_options = &pass_options,
    .open = open_pass,
};

inline spec_builder box_spec(std::string name, std::string disk) {
  return spec_builder(std::move(name), box_driver_type).child("file", disk_spec(std::move(disk)));
}

// A disk with an empty box in it; an overlay shows every second block of its backing node.
inline memory_disk& box_disk(graph_bench& bench, const std::string& name, u64 length,
                             bool is_overlay = false) {
  memory_disk& disk = bench.disk(name, box_head + length);
  std::memcpy(disk.bytes.data(), is_overlay ? "BOX2c" : "BOX1c", 5);
  return disk;
}

} // namespace bgfs::test
