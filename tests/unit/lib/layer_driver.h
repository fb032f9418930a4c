// SPDX-License-Identifier: MIT
// A format for tests: an overlay that holds blocks in its file, at their own offsets, and says of
// each whether it has it. It does what overlays do, in a hundred lines, or answers what a test
// says.
#pragma once

#include "tests/unit/lib/graph_bench.h"

namespace bgfs::test {

struct layer_state {
  enum class block : u8 { unallocated, data, zero };
  u64 length = 0;
  u32 unit = 512;
  u64 cluster_size = 0; // as driver_info says it
  std::map<u64, block> blocks;
  // Instead of the blocks: what map answers.
  std::function<extent(byte_range range, const edge& file)> script;
  std::vector<byte_range> compressed;
  bool can_compress = true;
};

// By the name of the node; a test registers its own.
// Shared by the test and the driver, of which either may go first.
inline std::map<std::string, std::shared_ptr<layer_state>, std::less<>>& layer_states() {
  static std::map<std::string, std::shared_ptr<layer_state>, std::less<>> states;
  return states;
}

class layer_driver final : public driver,
                           public readable,
                           public writable,
                           public mappable,
                           public zeroable,
                           public discardable,
                           public flushable,
                           public compressible,
                           public resizable {
public:
  layer_driver(std::shared_ptr<layer_state> state, edge& file)
      : kept_(std::move(state)), state_(*kept_), file_(file) {}

  [[nodiscard]] u64 length() const override { return state_.length; }
  task<void> close() override { co_return; }
  void refine_limits(block_limits& limits) const override {
    limits.request_alignment = state_.unit;
  }
  [[nodiscard]] driver_info info() const override { return {.cluster_size = state_.cluster_size}; }
  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return file_.read(offset, bytes);
  }
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags) override {
    co_await file_.write(offset, bytes);
    mark({offset, bytes.size()}, layer_state::block::data);
  }
  [[nodiscard]] write_flags supported_write_flags() const override { return write_flag::unchanged; }
  task<extent> map(byte_range range) override { co_return at(range); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override { return at(range); }
  task<void> write_zeroes(byte_range range, write_flags) override {
    co_await sleep_for(std::chrono::nanoseconds(0));
    mark(range, layer_state::block::zero);
  }
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return write_flag::unchanged | write_flag::may_unmap | write_flag::no_fallback;
  }
  task<void> discard(byte_range range) override { return write_zeroes(range, 0); }
  task<void> write_back() override { co_return; }
  task<void> flush_to_disk() override { co_return; }
  task<void> write_compressed(u64 offset, std::span<const std::byte> bytes) override {
    if (!state_.can_compress)
      co_await fail(error_kind::unsupported, "this layer cannot compress");
    state_.compressed.push_back({offset, bytes.size()});
    co_await write(offset, bytes, 0);
  }
  task<void> truncate(u64 length, truncate_options options) override {
    const u64 before = state_.length;
    if (length > file_.length())
      co_await file_.truncate(length);
    else
      co_await sleep_for(std::chrono::nanoseconds(0));
    state_.length = length;
    std::erase_if(state_.blocks, [&](const auto& b) { return b.first * state_.unit >= length; });
    if (length > before && options.must_read_zero)
      mark(byte_range::between(before, length).widened_to(state_.unit), layer_state::block::zero);
  }

private:
  using block = layer_state::block;
  void mark(byte_range range, block as) {
    for (u64 i = range.offset / state_.unit; i * state_.unit < range.end(); i++)
      state_.blocks[i] = as;
  }
  [[nodiscard]] block kind_of(u64 index) const {
    const auto found = state_.blocks.find(index);
    return found == state_.blocks.end() ? block::unallocated : found->second;
  }
  [[nodiscard]] extent at(byte_range range) const {
    if (state_.script)
      return state_.script(range, file_);
    if (range.offset >= state_.length)
      return {.kind = extent_kind::end};
    const u64 first = range.offset / state_.unit;
    u64 next = first + 1;
    while (next * state_.unit < range.end() && kind_of(next) == kind_of(first))
      next++;
    extent e{.length = next * state_.unit - range.offset};
    if (kind_of(first) == block::data)
      e = {.length = e.length, .kind = extent_kind::data, .where = &file_, .offset = range.offset};
    if (kind_of(first) == block::zero)
      e.kind = extent_kind::zero;
    return e;
  }

  std::shared_ptr<layer_state> kept_;
  layer_state& state_;
  edge& file_;
};

inline task<std::unique_ptr<driver>> open_layer(open_request request) {
  co_return std::make_unique<layer_driver>(layer_states().at(request.self.name()),
                                           *request.children[0]);
}
inline constexpr child_slot layer_slots[] = {{"file", role::image},
                                             {"backing", role::backing, false}};
inline constexpr option_schema layer_options{"driver 'layer'", {}};
inline constexpr driver_type layer_driver_type{
    .name = "layer",
    .kind = driver_kind::format,
    .summary = "an overlay, for tests",
    .children = layer_slots,
    .open_options = &layer_options,
    .supports_backing = true,
    .open = open_layer,
};

// A layer on a disk of its own, which is as long.
class test_layer {
public:
  test_layer(graph_bench& bench, const std::string& name, u64 length)
      : kept_(std::make_shared<layer_state>()), name_(name), state(*kept_),
        disk(bench.disk("disk-of-" + name, length)) {
    state.length = length;
    layer_states()[name] = kept_;
  }
  ~test_layer() { layer_states().erase(name_); }
  test_layer(const test_layer&) = delete;
  test_layer& operator=(const test_layer&) = delete;

  [[nodiscard]] spec_builder spec() const {
    return spec_builder(name_, layer_driver_type)
        .set("discard", "unmap")
        .child("file", disk_spec("disk-of-" + name_));
  }
  // Gives it these bytes, whole blocks of data.
  void hold(u64 offset, const std::vector<std::byte>& bytes) {
    std::ranges::copy(bytes, disk.bytes.begin() + static_cast<i64>(offset));
    for (u64 at = offset; at < offset + bytes.size(); at += state.unit)
      state.blocks[at / state.unit] = layer_state::block::data;
  }

private:
  std::shared_ptr<layer_state> kept_;
  std::string name_;

public:
  layer_state& state;
  memory_disk& disk;
};

// Events of a graph, kept.
struct event_log final : event_sink {
  std::vector<std::pair<std::string, value>> events;
  void emit(std::string_view type, value data) override {
    events.emplace_back(std::string(type), std::move(data));
  }
  [[nodiscard]] u64 count(std::string_view type) const {
    return static_cast<u64>(
        std::ranges::count(events, type, [](const auto& e) { return std::string_view(e.first); }));
  }
};

} // namespace bgfs::test
