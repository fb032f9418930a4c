// SPDX-License-Identifier: MIT
// A kernel that asks for nothing but 4 KiB: looks one root up, opens it, writes every block once,
// warms up, and then sends the requests that are measured, a number of them at a time. Every write
// says which block it is for, and every read is checked for it.
#pragma once

#include "fuse/transport/transport.h"
#include "graph/io/loop.h"
#include "graph/io/wait_queue.h"

#include <functional>
#include <optional>
#include <string>

namespace bgfs::benchmarks {

inline constexpr u64 block_length = 4096;
inline constexpr u64 block_count = 1024;

struct request_plan {
  std::string root; // its name in the mount
  bool writes = false;
  bool keeps_data = true; // reads give what was written; otherwise zeroes
  unsigned depth = 1;     // how many are in flight
  u64 measured = 0;       // how many are counted
};

class request_source final : public transport {
public:
  request_source(loop& home, request_plan plan) : home_(home), plan_(std::move(plan)) {}

  // Called when the first measured request is next, and when the last was answered.
  std::function<void()> begins;
  std::function<void()> ends;
  // What was wrong with an answer; nothing if all were right.
  [[nodiscard]] const std::optional<std::string>& failure() const { return failure_; }

  task<std::optional<received>> receive(buffer reuse) override;
  void answer(u64 unique, int os_error, std::span<const std::byte> head,
              std::span<const std::byte> body) override;
  [[nodiscard]] std::string_view name() const override { return "benchmark"; }

private:
  // The order of requests: these two, then data.
  static constexpr u64 lookup_number = 1;
  static constexpr u64 open_number = 2;
  static constexpr u64 first_data_number = 3;
  // Each block is written, then each block is asked for once as the measured ones are.
  static constexpr u64 warm_up = 2 * block_count;

  [[nodiscard]] u64 total() const { return open_number + warm_up + plan_.measured; }
  // Each of the first requests needs the answer of the one before, and reads those of all writes.
  [[nodiscard]] unsigned depth_now() const {
    return sent_ <= open_number || sent_ == open_number + block_count ? 1 : plan_.depth;
  }
  [[nodiscard]] bool is_write(u64 number) const;
  [[nodiscard]] std::span<const std::byte> compose(u64 number, const buffer& storage) const;
  [[nodiscard]] std::span<const std::byte> compose_lookup(const buffer& storage) const;
  [[nodiscard]] std::optional<std::string> fault_of(u64 number, int os_error,
                                                    std::span<const std::byte> head,
                                                    std::span<const std::byte> body) const;

  loop& home_;
  const request_plan plan_;
  u64 sent_ = 0;
  u64 answered_ = 0;
  u64 inode_ = 0;
  u64 handle_ = 0;
  wait_queue room_;
  std::optional<std::string> failure_;
};

} // namespace bgfs::benchmarks
