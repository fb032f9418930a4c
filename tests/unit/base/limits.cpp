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
