// SPDX-License-Identifier: MIT
#include "graph/base/limits.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("a parent's limits take the stricter of its children's") {
  block_limits limits;
  merge_child_limits(limits, {.request_alignment = 512,
                              .discard_alignment = 4096,
                              .opt_transfer = 65536,
                              .max_transfer = MiB,
                              .max_hw_transfer = 0,
                              .min_memory_alignment = 4096,
                              .opt_memory_alignment = 4096,
                              .max_vectors = 128});
  merge_child_limits(limits, {.discard_alignment = 512,
                              .max_transfer = 2 * MiB,
                              .max_hw_transfer = 65536,
                              .max_hw_vectors = 16,
                              .min_memory_alignment = 512,
                              .max_vectors = 0});
  CHECK(limits.discard_alignment == 4096);
  CHECK(limits.opt_transfer == 65536);
  CHECK(limits.max_transfer == MiB);
  CHECK(limits.max_hw_transfer == 65536);
  CHECK(limits.max_hw_vectors == 16);
  CHECK(limits.min_memory_alignment == 4096);
  CHECK(limits.opt_memory_alignment == 4096);
  CHECK(limits.max_vectors == 128);
}

TEST_CASE("what a driver decides for itself is not taken from its children") {
  block_limits limits;
  merge_child_limits(limits, {.request_alignment = 4096,
                              .max_discard = 1,
                              .max_write_zeroes = 2,
                              .write_zeroes_alignment = 3,
                              .has_variable_length = true});
  CHECK(limits == block_limits{});
}

TEST_CASE("that the length may change by itself is taken from what a filter shows, and not else") {
  block_limits limits;
  merge_child_limits(limits, {.has_variable_length = true}, false);
  CHECK_FALSE(limits.has_variable_length);
  merge_child_limits(limits, {.has_variable_length = true}, true);
  merge_child_limits(limits, {}, true);
  CHECK(limits.has_variable_length);
}

TEST_CASE("limits are made to agree with each other") {
  block_limits limits{.request_alignment = 4096,
                      .discard_alignment = 512,
                      .write_zeroes_alignment = 5000,
                      .opt_transfer = 8 * GiB,
                      .max_transfer = 4 * GiB,
                      .max_hw_transfer = 16 * GiB,
                      .min_memory_alignment = 0,
                      .opt_memory_alignment = 0,
                      .max_vectors = 0};
  settle_limits(limits);
  CHECK(limits.discard_alignment == 4096);
  CHECK(limits.write_zeroes_alignment == 8192);
  CHECK(limits.max_transfer == request_length_max);
  CHECK(limits.opt_transfer == request_length_max);
  CHECK(limits.max_hw_transfer == request_length_max);
  CHECK(limits.min_memory_alignment == 512);
  CHECK(limits.opt_memory_alignment == 4096);
  CHECK(limits.max_vectors == 1024);
}

TEST_CASE("transfers are split in the sizes the device likes, if it says") {
  CHECK(transfer_step({}) == request_length_max);
  CHECK(transfer_step({.request_alignment = 512, .max_transfer = 10000}) == 9728);
  CHECK(transfer_step({.request_alignment = 4096, .max_transfer = 1000}) == 4096);
  CHECK(transfer_step({.opt_transfer = 4096, .max_transfer = 10000}) == 8192);
  CHECK(transfer_step({.opt_transfer = 65536, .max_transfer = 10000}) == 10000);
  CHECK(transfer_step({.request_alignment = 512, .opt_transfer = 1000, .max_transfer = 10000}) ==
        9728);
  CHECK(hardware_transfer_max({.max_transfer = 4096}) == 4096);
  CHECK(hardware_transfer_max({.max_transfer = 4096, .max_hw_transfer = 8192}) == 4096);
  CHECK(hardware_transfer_max({.max_transfer = 4096, .max_hw_transfer = 512}) == 512);
  CHECK(hardware_transfer_max({}) == 0);
  CHECK(hardware_vectors_max({.max_hw_vectors = 128}) == 128);
  CHECK(hardware_vectors_max({.max_hw_vectors = 4096}) == 1024);
}

TEST_CASE(
    "zero writes and discards are taken apart on their alignment, never longer than allowed") {
  const block_limits some[] = {
      {},
      {.request_alignment = 512, .max_discard = 10000, .discard_alignment = 4096},
      {.request_alignment = 512, .max_discard = 1000, .discard_alignment = 4096},
      {.request_alignment = 4096, .max_discard = 1, .discard_alignment = 65536},
      {.max_discard = 7, .discard_alignment = 3},
      {.request_alignment = 512, .discard_alignment = 4096},
  };
  for (const block_limits& l : some) {
    const u64 block = l.request_alignment;
    const piece_rule rule = discard_pieces(l);
    for (const byte_range whole : {byte_range{0, 65536}, byte_range{3 * block, 64 * block},
                                   byte_range{4096, 4096}, byte_range{17 * block, block}}) {
      byte_range left = whole;
      u64 count = 0;
      while (!left.is_empty() && count++ < 100000) {
        const u64 length = rule.length_of_first(left);
        REQUIRE(length > 0);
        REQUIRE(length <= left.length);
        CHECK(is_aligned(length, block));
        CHECK(length <= std::max(l.max_discard != 0 ? l.max_discard : device_length_max, block));
        const u64 end = left.offset + length;
        const bool crosses = align_down(left.offset, rule.unit) != align_down(end - 1, rule.unit);
        if (crosses)
          CHECK((is_aligned(left.offset, rule.unit) && is_aligned(length, rule.unit)));
        left = byte_range::between(end, whole.end());
      }
      CHECK(left.is_empty());
    }
  }
}
