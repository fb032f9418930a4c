// SPDX-License-Identifier: MIT
#include "fuse/protocol/negotiate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

using namespace bgfs;

namespace {
fuse_init_in offer(u32 minor, u64 flags) {
  fuse_init_in in{};
  in.major = 7;
  in.minor = minor;
  in.max_readahead = 128 << 10;
  in.flags = static_cast<u32>(flags);
  in.flags2 = static_cast<u32>(flags >> 32);
  return in;
}
} // namespace

TEST_CASE("what the kernel does not offer is not taken") {
  const auto chosen = negotiate(offer(38, FUSE_ASYNC_READ | FUSE_WRITEBACK_CACHE));
  REQUIRE(chosen.has_value());
  CHECK(chosen->flags == FUSE_ASYNC_READ);
}

TEST_CASE("the kernel's writeback cache and its own answers to open are never taken") {
  const auto chosen = negotiate(offer(45, ~u64{0}));
  REQUIRE(chosen.has_value());
  CHECK_FALSE(chosen->has(FUSE_WRITEBACK_CACHE));
  CHECK_FALSE(chosen->has(FUSE_NO_OPEN_SUPPORT));
  CHECK_FALSE(chosen->has(FUSE_AUTO_INVAL_DATA));
  CHECK(chosen->has(FUSE_ATOMIC_O_TRUNC));
  CHECK(chosen->has(FUSE_ASYNC_DIO));
  CHECK(chosen->has(FUSE_HANDLE_KILLPRIV_V2));
  CHECK(chosen->has(kernel::init_direct_io_allow_mmap));
  const fuse_init_out out = init_reply(*chosen, offer(45, ~u64{0}));
  CHECK(out.major == 7);
  CHECK(out.minor == kernel::minor_version);
  CHECK(out.max_write == 1 << 20);
  CHECK(out.max_pages == 256);
  CHECK((u64{out.flags2} << 32 | out.flags) == chosen->flags);
}

TEST_CASE("passthrough comes with the depth of file systems that it allows") {
  const auto depth_in = [](u64 offered) {
    const auto chosen = negotiate(offer(45, offered));
    REQUIRE(chosen.has_value());
    const fuse_init_out out = init_reply(*chosen, offer(45, offered));
    u32 depth = 0;
    std::memcpy(&depth, reinterpret_cast<const std::byte*>(&out) + kernel::max_stack_depth_offset,
                sizeof depth);
    return std::pair(chosen->passes_through(), depth);
  };
  CHECK(depth_in(FUSE_INIT_EXT | kernel::init_passthrough) == std::pair(true, 1U));
  CHECK(depth_in(FUSE_INIT_EXT) == std::pair(false, 0U));
}

TEST_CASE(
    "who wants the kernel to hold back writes gets no passthrough, or is told that it cannot") {
  const u64 all = FUSE_INIT_EXT | FUSE_WRITEBACK_CACHE | kernel::init_passthrough;
  const auto chosen = negotiate(offer(45, all), {.is_writeback = true});
  REQUIRE(chosen.has_value());
  CHECK(chosen->holds_back_writes());
  CHECK_FALSE(chosen->passes_through());
  CHECK(std::ranges::count(chosen->flag_names(), "writeback-cache") == 1);
  const auto refused = negotiate(offer(45, FUSE_INIT_EXT), {.is_writeback = true});
  REQUIRE(!refused);
  CHECK(refused.error().message() ==
        "the kernel does not hold back writes for FUSE; mount without -o writeback");
}

TEST_CASE("flags above 32 count only where the kernel says that it sent them") {
  const auto chosen = negotiate(offer(38, kernel::init_direct_io_allow_mmap));
  REQUIRE(chosen.has_value());
  CHECK_FALSE(chosen->has(kernel::init_direct_io_allow_mmap));
}

TEST_CASE("without max-pages a request has 32 pages") {
  const auto chosen = negotiate(offer(33, FUSE_ASYNC_READ));
  REQUIRE(chosen.has_value());
  CHECK(chosen->write_length_max == 128 << 10);
}

TEST_CASE("a newer major version is asked to come again, older kernels are refused") {
  fuse_init_in in = offer(0, 0);
  in.major = 8;
  const auto newer = negotiate(in);
  REQUIRE(newer.has_value());
  CHECK(newer->needs_another_init);
  CHECK(init_reply(*newer, in).major == 7);
  const auto older = negotiate(offer(31, 0));
  REQUIRE_FALSE(older.has_value());
  CHECK(older.error().message().contains("7.31"));
}

TEST_CASE("requests go over io_uring where both sides can, and not where /dev/fuse is asked for") {
  const u64 ring = kernel::init_over_io_uring | FUSE_INIT_EXT;
  struct row {
    u64 offered;
    transport_choice wanted;
    bool may;
    bool expected;
  };
  for (const row& r : {row{ring, transport_choice::automatic, true, true},
                       row{ring, transport_choice::automatic, false, false},
                       row{ring, transport_choice::device, true, false},
                       row{ring, transport_choice::uring, true, true},
                       row{FUSE_INIT_EXT, transport_choice::automatic, true, false}}) {
    const auto chosen = negotiate(offer(45, r.offered), {r.wanted, r.may});
    REQUIRE(chosen.has_value());
    CHECK(chosen->uses_uring() == r.expected);
  }
  const auto not_offered = negotiate(offer(45, FUSE_INIT_EXT), {transport_choice::uring, true});
  REQUIRE(!not_offered.has_value());
  CHECK(
      not_offered.error().message() ==
      "the kernel does not offer FUSE over io_uring: it is older than Linux 6.14, or root has not "
      "enabled it with 'echo 1 > /sys/module/fuse/parameters/enable_uring'; use transport=dev");
  const auto not_able = negotiate(offer(45, ring), {transport_choice::uring, false});
  REQUIRE(!not_able.has_value());
  CHECK(not_able.error().message() ==
        "'transport=uring' needs io_uring, which this process may not use or which is older than "
        "Linux 5.19; use transport=dev");
}
