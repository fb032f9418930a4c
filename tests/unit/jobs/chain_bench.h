// SPDX-License-Identifier: MIT
// A chain of qcow2 images for tests of commits.
#pragma once

#include "graph/jobs/commit.h"

#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"

#include <random>

namespace bgfs::test {

// Two overlays over a base, each a qcow2 image on a memory disk of its own but for the base, which
// may be raw: top -> mid -> base.
class chain_bench {
public:
  explicit chain_bench(u64 base_length, u64 mid_length, u64 top_length, bool has_raw_base)
      : b_({&raw_driver_type}) {
    const option_list small = {{"cluster_size", "4K"}};
    if (has_raw_base) {
      b_.place("base", pattern(base_length, 1));
    } else {
      b_.create("base", base_length, small);
    }
    b_.create("mid", mid_length, small);
    b_.create("top", top_length, small);
    spec_builder base("base", has_raw_base ? raw_driver_type : qcow2_driver_type);
    base.set("read-only", "on")
        .set("discard", "unmap")
        .child("file", disk_spec("base").set("read-only", "off"));
    base.no_backing = !has_raw_base;
    base_ = &b_.bench.open(base);
    mid_ = &b_.bench.open(layer("mid", "base", "on"));
    top_ = &b_.bench.open(layer("top", "mid", "off"));
    root_ = &b_.bench.attach(*top_, may_resize);
  }
  ~chain_bench() { b_.bench.detach(*root_); }

  void scribble(u64 seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20; i++) {
      const u64 offset = align_down(random() % root_->length(), 512);
      const u64 length =
          std::min(512 + align_down(random() % 20000, 512), root_->length() - offset);
      if (random() % 3 == 0)
        b_.bench.must(root_->write_zeroes({offset, length}, write_flag::may_unmap));
      else
        b_.bench.must(root_->write(offset, pattern(length, random())));
    }
  }
  result<> commit(node& into) { return b_.bench.run(commit_layers({.top = root_, .base = &into})); }
  std::vector<std::byte> content() { return read_all(b_.bench, *root_); }
  std::vector<std::byte> content(node& n) {
    root& r = b_.bench.attach(n, may_read);
    std::vector<std::byte> bytes = read_all(b_.bench, r);
    b_.bench.detach(r);
    return bytes;
  }

  qcow2_bench b_;
  node* base_ = nullptr;
  node* mid_ = nullptr;
  node* top_ = nullptr;
  root* root_ = nullptr;

private:
  static spec_builder layer(const char* name, const char* below, const char* read_only) {
    spec_builder s(name, qcow2_driver_type);
    s.set("read-only", read_only).set("discard", "unmap");
    return s.child("file", disk_spec(name).set("read-only", "off")).child("backing", below);
  }
};

} // namespace bgfs::test
