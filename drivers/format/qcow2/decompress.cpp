// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/decompress.h"

#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace bgfs::qcow2 {

namespace {

// zlib's own inflate, for streams that libdeflate does not take: it stops when the cluster is full,
// as the specification says, even if the stream has not ended.
result<> inflate_cluster(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  z_stream z{};
  if (inflateInit2(&z, -15) != Z_OK) // raw, with the largest window: more than writers use
    return fail(error_kind::io, "there is no memory to decompress with");
  auto* in = reinterpret_cast<const Bytef*>(stream.data()); // zlib's byte type
  z.next_in = const_cast<Bytef*>(in);                       // only read
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = reinterpret_cast<Bytef*>(cluster.data());
  z.avail_out = static_cast<uInt>(cluster.size());
  const int status = inflate(&z, Z_FINISH);
  const uInt missing = z.avail_out;
  inflateEnd(&z);
  if ((status != Z_STREAM_END && status != Z_BUF_ERROR) || missing != 0)
    return fail(error_kind::corrupt_image, "the zlib stream is damaged: it makes {} of {} bytes",
                cluster.size() - missing, cluster.size());
  return {};
}

result<> decompress_zlib(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  struct freer {
    void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
  };
  const std::unique_ptr<libdeflate_decompressor, freer> d(libdeflate_alloc_decompressor());
  if (d == nullptr)
    return fail(error_kind::io, "there is no memory to decompress with");
  std::size_t used = 0;
  // Without a place for the actual output length the stream has to make exactly a cluster.
  if (libdeflate_deflate_decompress_ex(d.get(), stream.data(), stream.size(), cluster.data(),
                                       cluster.size(), &used, nullptr) == LIBDEFLATE_SUCCESS)
    return {};
  return inflate_cluster(stream, cluster);
}

result<> decompress_zstd(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  struct freer {
    void operator()(ZSTD_DCtx* d) const { ZSTD_freeDCtx(d); }
  };
  const std::unique_ptr<ZSTD_DCtx, freer> d(ZSTD_createDCtx());
  if (d == nullptr)
    return fail(error_kind::io, "there is no memory to decompress with");
  ZSTD_inBuffer in{stream.data(), stream.size(), 0};
  ZSTD_outBuffer out{cluster.data(), cluster.size(), 0};
  // Streaming, because bytes that do not belong to the frame may follow it.
  while (out.pos < out.size) {
    const std::size_t before = in.pos + out.pos;
    const std::size_t status = ZSTD_decompressStream(d.get(), &out, &in);
    if (ZSTD_isError(status))
      return fail(error_kind::corrupt_image, "the zstd stream is damaged: {}",
                  ZSTD_getErrorName(status));
    if (out.pos < out.size && (status == 0 || in.pos + out.pos == before))
      return fail(error_kind::corrupt_image, "the zstd stream is damaged: it makes {} of {} bytes",
                  out.pos, out.size);
  }
  return {};
}

} // namespace

result<> decompress(compression_type type, std::span<const std::byte> stream,
                    std::span<std::byte> cluster) {
  switch (type) {
  case compression_type::zlib:
    return decompress_zlib(stream, cluster);
  case compression_type::zstd:
    return decompress_zstd(stream, cluster);
  }
  return fail(error_kind::unsupported, "unknown compression type");
}

} // namespace bgfs::qcow2
