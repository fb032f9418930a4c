// SPDX-License-Identifier: MIT
// Streams for compressed clusters of the type zlib.
#pragma once

#include "tests/unit/lib/graph_bench.h"

#include <zlib.h>

namespace bgfs::test {

inline std::vector<std::byte> deflate_raw(std::span<const std::byte> in) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  std::vector<std::byte> out(in.size() + 1000);
  z.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
  z.avail_in = static_cast<uInt>(in.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

} // namespace bgfs::test
