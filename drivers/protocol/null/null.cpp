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
     .is_mutable = true,
     .is_strong = true,
     .maximum = device_length_max},
    {.name = "latency-ns",
     .type = option_type::integer,
     .help = "nanoseconds that each request takes",
     .default_text = "0",
     .is_mutable = true,
     .maximum = 60'000'000'000},
    {.name = "read-zeroes",
     .type = option_type::boolean,
     .help = "promise that reads give zeroes (they do either way), so that status says so",
     .default_text = "false",
     .is_mutable = true,
     .is_strong = true},
};
constexpr option_schema null_co_options{"driver 'null-co'", option_list};
constexpr option_schema null_aio_options{"driver 'null-aio'", option_list};

class null_driver final : public driver,
                          public readable,
                          public writable,
                          public mappable,
                          public zeroable,
                          public discardable,
                          public flushable,
                          public reopenable {
public:
  null_driver(const options& given, std::string_view prefix) : disk_(given), prefix_(prefix) {}

  [[nodiscard]] u64 length() const override { return disk_.length; }
  [[nodiscard]] std::string exact_filename() const override {
    return disk_.is_default ? fmt::format("{}://", prefix_) : "";
  }
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

  task<void> prepare_reopen(const options& given, const node_options&) override {
    BGFS_ASSERT(!next_, "one reopen at a time");
    next_.emplace(given);
    co_return;
  }
  void commit_reopen() noexcept override { disk_ = *std::exchange(next_, std::nullopt); }
  void abort_reopen() noexcept override { next_.reset(); }

private:
  struct null_disk {
    explicit null_disk(const options& given)
        : length(given.number("size")), latency(given.number("latency-ns")),
          reads_zeroes(given.flag("read-zeroes")),
          is_default(!given.is_set("size") && !given.is_set("read-zeroes")) {}
    u64 length;
    std::chrono::nanoseconds latency;
    bool reads_zeroes;
    bool is_default; // nothing that decides what is seen was given
  };
  [[nodiscard]] extent at(u64 offset) const {
    return {.length = disk_.length - offset,
            .kind = disk_.reads_zeroes ? extent_kind::zero : extent_kind::data,
            .offset = offset};
  }
  task<void> delay() const {
    if (disk_.latency.count() > 0)
      co_await sleep_for(disk_.latency);
  }

  null_disk disk_;
  std::string_view prefix_;       // of its name as a URL
  std::optional<null_disk> next_; // between the preparation of a reopen and its end
};

task<std::unique_ptr<driver>> open_null_co(open_request request) {
  co_return std::make_unique<null_driver>(request.given, "null-co");
}

task<std::unique_ptr<driver>> open_null_aio(open_request request) {
  co_return std::make_unique<null_driver>(request.given, "null-aio");
}

} // namespace

const driver_type null_co_driver_type{
    .name = "null-co",
    .kind = driver_kind::protocol,
    .summary = "a disk without a medium: writes vanish, reads give zeroes",
    .open_options = &null_co_options,
    .open = open_null_co,
    .protocol_prefix = "null-co",
};

const driver_type null_aio_driver_type{
    .name = "null-aio",
    .kind = driver_kind::protocol,
    .summary = "the same as null-co",
    .open_options = &null_aio_options,
    .open = open_null_aio,
    .protocol_prefix = "null-aio",
};

} // namespace bgfs
