// SPDX-License-Identifier: MIT
#include "drivers/protocol/null/null.h"

#include "graph/io/sleep.h"

#include <cstring>

namespace bgfs {
namespace {

constexpr option option_list[] = {
    {.name = "size",
     .type = option_type::size,
     .help = "the length of the disk",
     .default_text = "1G",
     .maximum = device_length_max},
    {.name = "latency-ns",
     .type = option_type::integer,
     .help = "nanoseconds that each request takes",
     .default_text = "0",
     .maximum = 60'000'000'000},
    {.name = "read-zeroes",
     .type = option_type::boolean,
     .help = "promise that reads give zeroes (they do either way), so that status says so",
     .default_text = "false"},
};
constexpr option_schema null_options{"driver 'null-co'", option_list};

class null_driver final : public driver,
                          public readable,
                          public writable,
                          public mappable,
                          public zeroable,
                          public discardable,
                          public flushable {
public:
  explicit null_driver(const options& given)
      : length_(given.number("size")), latency_(given.number("latency-ns")),
        reads_zeroes_(given.flag("read-zeroes")) {}

  [[nodiscard]] u64 length() const override { return length_; }
  task<void> close() override { co_return; }
  task<std::optional<u64>> allocated_length() override { co_return 0; }

  task<void> read(u64, std::span<std::byte> bytes) override {
    std::memset(bytes.data(), 0, bytes.size());
    return delay();
  }
  task<void> write(u64, std::span<const std::byte>, write_flags) override { return delay(); }
  [[nodiscard]] write_flags supported_write_flags() const override { return write_flag::durable; }
  task<extent> map(byte_range range) override { co_return at(range.offset); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override {
    return at(range.offset);
  }
  task<void> write_zeroes(byte_range, write_flags) override { return delay(); }
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return write_flag::durable | write_flag::may_unmap | write_flag::no_fallback;
  }
  task<void> discard(byte_range) override { return delay(); }
  task<void> write_back() override { co_return; }
  task<void> flush_to_disk() override { return delay(); }

private:
  [[nodiscard]] extent at(u64 offset) const {
    return {.length = length_ - offset,
            .kind = reads_zeroes_ ? extent_kind::zero : extent_kind::data,
            .offset = offset};
  }
  task<void> delay() const {
    if (latency_.count() > 0)
      co_await sleep_for(latency_);
  }

  u64 length_;
  std::chrono::nanoseconds latency_;
  bool reads_zeroes_;
};

task<std::unique_ptr<driver>> open_null(open_request request) {
  co_return std::make_unique<null_driver>(request.given);
}

} // namespace

const driver_type null_co_driver_type{
    .name = "null-co",
    .kind = driver_kind::protocol,
    .summary = "a disk without a medium: writes vanish, reads give zeroes",
    .open_options = &null_options,
    .open = open_null,
    .protocol_prefix = "null-co",
};

} // namespace bgfs
