// SPDX-License-Identifier: MIT
#include "tests/crash/crash_shape.h"

#include "tests/unit/drivers/qcow2/encrypted_image.h"

#include <fmt/format.h>

namespace bgfs::test {

namespace {

template<std::size_t Count>
u64 any_of(std::mt19937_64& random, const u64 (&values)[Count]) {
  return values[random() % Count];
}

bool one_in(std::mt19937_64& random, u64 n) {
  return random() % n == 0;
}

void draw_features(crash_shape& s, std::mt19937_64& random) {
  s.is_v2 = one_in(random, 6);
  if (s.is_v2) {
    s.create.emplace_back("compat", "0.10");
    return;
  }
  s.refcount_bits = static_cast<unsigned>(any_of(random, {1, 2, 4, 8, 16, 16, 16, 32, 64}));
  s.create.emplace_back("refcount_bits", std::to_string(s.refcount_bits));
  if (one_in(random, 4))
    s.create.emplace_back("lazy_refcounts", "on");
  s.is_extended = s.cluster >= 16384 && !one_in(random, 3);
  if (s.is_extended)
    s.create.emplace_back("extended_l2", "on");
  if (one_in(random, 3))
    s.create.emplace_back("compression_type", "zstd");
  if (s.encryption.empty() && one_in(random, 5)) {
    s.has_data_file = true;
    s.create.emplace_back("data_file", "data");
    s.open.emplace_back("data-file", "data");
    s.is_raw_data = one_in(random, 2);
    if (s.is_raw_data)
      s.create.emplace_back("data_file_raw", "on");
  }
}

void draw_open_options(crash_shape& s, std::mt19937_64& random) {
  if (one_in(random, 3)) // everything goes to the disk early, and pages are loaded again
    s.open.insert(s.open.end(), {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}});
  if (one_in(random, 4))
    s.open.emplace_back("l2-cache-entry-size", "512");
  if (one_in(random, 4))
    s.open.emplace_back("pass-discard-other", "on");
  if (!s.is_v2 && one_in(random, 4))
    s.open.emplace_back("discard-no-unref", "on");
  if (one_in(random, 4))
    s.open.emplace_back("overlap-check", "all");
}

} // namespace

u64 crash_shape::snapshots_max() const {
  if (has_data_file)
    return 0;                                                 // its clusters are not counted
  return refcount_bits == 1 ? 0 : refcount_bits == 2 ? 1 : 4; // reverting takes one more
}

std::string crash_shape::text() const {
  std::string all = fmt::format("length={} backing={}", length, backing);
  for (const option_list* const list : {&create, &open})
    for (const auto& [key, value] : *list)
      all += fmt::format(" {}={}", key, value);
  return encryption.empty() ? all : all + " encryption=" + encryption;
}

crash_shape draw_shape(std::mt19937_64& random) {
  crash_shape s;
  s.cluster =
      any_of(random, {512, 512, 512, 1024, 1024, 1024, 2048, 4096, 4096, 16384, 16384, 65536});
  s.create.emplace_back("cluster_size", std::to_string(s.cluster));
  if (one_in(random, 5))
    s.encryption = s.cluster >= 2048 && !one_in(random, 3) ? "luks" : "aes";
  draw_features(s, random);
  draw_open_options(s, random);
  if (s.encryption == "luks")
    s.create = small_luks(s.create);
  s.length = (12 + random() % 16) * s.cluster - (one_in(random, 3) ? 512 % s.cluster : 0);
  if (!s.is_raw_data && one_in(random, 2))
    s.backing = one_in(random, 3) ? s.length + 4096 : (random() % s.length + 1) / 512 * 512;
  return s;
}

} // namespace bgfs::test
