// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/compress.h"

#include <zlib.h>
#include <zstd.h>

namespace bgfs::qcow2 {

namespace {

// Raw deflate with a window of 4 KiB: readers inflate with no larger one. That rules out
// libdeflate, whose window is that of the format, 32 KiB.
class deflater final : public compressor {
public:
  static constexpr int window_bits = -12; // negative: no zlib header
  static constexpr int memory_level = 9;  // the most

  deflater() = default;
  ~deflater() override {
    if (is_ready_)
      deflateEnd(&z_);
  }
  deflater(const deflater&) = delete;
  deflater& operator=(const deflater&) = delete;

  [[nodiscard]] bool begin() {
    is_ready_ = deflateInit2(&z_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, memory_level,
                             Z_DEFAULT_STRATEGY) == Z_OK;
    return is_ready_;
  }

  std::size_t compress(std::span<const std::byte> cluster, std::span<std::byte> stream) override {
    if (deflateReset(&z_) != Z_OK)
      return 0;
    auto* in = reinterpret_cast<const Bytef*>(cluster.data()); // zlib's byte type
    z_.next_in = const_cast<Bytef*>(in);                       // only read
    z_.avail_in = static_cast<uInt>(cluster.size());
    z_.next_out = reinterpret_cast<Bytef*>(stream.data());
    z_.avail_out = static_cast<uInt>(stream.size());
    return deflate(&z_, Z_FINISH) == Z_STREAM_END ? stream.size() - z_.avail_out : 0;
  }

private:
  z_stream z_{};
  bool is_ready_ = false;
};

class zstd_compressor final : public compressor {
public:
  struct freer {
    void operator()(ZSTD_CCtx* c) const { ZSTD_freeCCtx(c); }
  };
  explicit zstd_compressor(std::unique_ptr<ZSTD_CCtx, freer> c) : c_(std::move(c)) {}

  std::size_t compress(std::span<const std::byte> cluster, std::span<std::byte> stream) override {
    const std::size_t length =
        ZSTD_compress2(c_.get(), stream.data(), stream.size(), cluster.data(), cluster.size());
    return ZSTD_isError(length) ? 0 : length;
  }

private:
  std::unique_ptr<ZSTD_CCtx, freer> c_;
};

} // namespace

std::unique_ptr<compressor> compressor::make(compression_type type) {
  switch (type) {
  case compression_type::zlib: {
    auto made = std::make_unique<deflater>();
    if (!made->begin())
      return nullptr;
    return made;
  }
  case compression_type::zstd: {
    std::unique_ptr<ZSTD_CCtx, zstd_compressor::freer> context(ZSTD_createCCtx());
    if (context == nullptr)
      return nullptr;
    return std::make_unique<zstd_compressor>(std::move(context));
  }
  }
  return nullptr;
}

} // namespace bgfs::qcow2
