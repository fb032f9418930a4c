// SPDX-License-Identifier: MIT
// Random requests against a plain byte array, over the shapes an image can have.
#include "tests/unit/drivers/qcow2/modelled_disk.h"
#include "tests/unit/lib/repetitions.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

class model_run : modelled_disk {
public:
  model_run(const image_shape& s, u64 seed) : modelled_disk(s, seed) { open(); }

  void step() {
    const u64 kind = random_() % 100;
    if (kind < 45) {
      write();
    } else if (kind < 60) {
      zero();
    } else if (kind < 75) {
      discard();
    } else if (kind < 80) {
      resize();
    } else if (kind < 85) {
      b_.bench.must(root_->flush());
    } else if (kind < 88) {
      b_.close();
      require_sound(*disk_);
      open();
    } else {
      compare(range());
    }
  }
  void finish() {
    compare({0, model_.size()});
    b_.close();
    require_sound(*disk_);
    require_content();
  }
};

const image_shape shapes[] = {
    {"defaults", {}, {}, 4 << 20},
    {"512-byte clusters", {{"cluster_size", "512"}}, {}, 256 << 10},
    {"512-byte clusters, 64-bit refcounts",
     {{"cluster_size", "512"}, {"refcount_bits", "64"}},
     {{"overlap-check", "all"}},
     512 << 10},
    {"1-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "1"}}},
    {"2-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "2"}}},
    {"4-bit refcounts", {{"cluster_size", "2K"}, {"refcount_bits", "4"}}},
    {"8-bit refcounts", {{"cluster_size", "4K"}, {"refcount_bits", "8"}}},
    {"32-bit refcounts", {{"cluster_size", "4K"}, {"refcount_bits", "32"}}},
    {"2 MiB clusters", {{"cluster_size", "2M"}}, {}, 9 << 20},
    {"version 2", {{"compat", "0.10"}, {"cluster_size", "4K"}}},
    {"version 2 over a backing file",
     {{"compat", "0.10"}, {"cluster_size", "4K"}},
     {},
     1 << 20,
     700 << 10},
    {"shorter than its backing file", {{"cluster_size", "4K"}}, {}, 1 << 20, 2 << 20},
    {"longer than its backing file", {{"cluster_size", "8K"}}, {}, 1 << 20, 300001},
    {"extended L2", {{"cluster_size", "16K"}, {"extended_l2", "on"}}},
    {"extended L2 over a backing file",
     {{"cluster_size", "32K"}, {"extended_l2", "on"}},
     {},
     1 << 20,
     600000},
    {"zstd", {{"cluster_size", "4K"}, {"compression_type", "zstd"}}},
    {"lazy refcounts", {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}},
    {"kept references",
     {{"cluster_size", "4K"}},
     {{"discard-no-unref", "on"}, {"pass-discard-request", "on"}}},
    {"external data file",
     {{"cluster_size", "4K"}, {"data_file", "data"}},
     {{"data-file", "data"}}},
    {"external data file over a backing file",
     {{"cluster_size", "4K"}, {"data_file", "data"}},
     {{"data-file", "data"}, {"discard-no-unref", "on"}},
     1 << 20,
     700001},
    {"external data file, extended L2 over a backing file",
     {{"cluster_size", "16K"}, {"extended_l2", "on"}, {"data_file", "data"}},
     {{"data-file", "data"}},
     1 << 20,
     600000},
    {"raw external data file",
     {{"cluster_size", "4K"}, {"data_file", "data"}, {"data_file_raw", "on"}},
     {{"data-file", "data"}}},
    {"LUKS in an external data file",
     small_luks({{"cluster_size", "4K"}, {"data_file", "data"}}),
     {{"data-file", "data"}},
     1 << 20,
     0,
     "luks"},
    {"LUKS", small_luks({{"cluster_size", "4K"}}), {}, 1 << 20, 0, "luks"},
    {"LUKS over a backing file", small_luks({}), {}, 1 << 20, 300001, "luks"},
    {"LUKS with AES-256-XTS and 512-byte clusters",
     {{"cluster_size", "512"}, {"encrypt.iter-time", "1"}},
     {{"overlap-check", "all"}},
     256 << 10,
     0,
     "luks"},
    {"LUKS with extended L2 over a backing file",
     small_luks({{"cluster_size", "16K"}, {"extended_l2", "on"}}),
     {},
     1 << 20,
     600064,
     "luks"},
    {"LUKS in version 2",
     small_luks({{"compat", "0.10"}, {"cluster_size", "4K"}}),
     {},
     1 << 20,
     700 << 10,
     "luks"},
    {"LUKS with preallocation",
     small_luks({{"cluster_size", "4K"}, {"preallocation", "metadata"}}),
     {},
     1 << 20,
     0,
     "luks"},
    {"AES of before LUKS", {{"cluster_size", "4K"}}, {}, 1 << 20, 400 << 10, "aes"},
    {"the smallest caches",
     {{"cluster_size", "512"}},
     {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}},
     1 << 20},
};

} // namespace

TEST_CASE("qcow2: random requests agree with a byte array") {
  for (const image_shape& s : shapes) {
    for (u64 seed = 1; seed <= repetitions(4); seed++) {
      CAPTURE(s.name);
      CAPTURE(seed);
      model_run run(s, seed);
      for (int i = 0; i < 150; i++)
        run.step();
      run.finish();
    }
  }
}
