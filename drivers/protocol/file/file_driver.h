// SPDX-License-Identifier: MIT
// The open instance behind `file` and `host_device`.
#pragma once

#include "drivers/protocol/file/image_lock.h"
#include "graph/io/file.h"
#include "graph/model/driver.h"

namespace bgfs {

struct file_geometry {
  bool is_device = false;
  bool is_direct = false;
  u32 request_alignment = 1; // of offsets and lengths
  u32 memory_alignment = 1;  // of buffers
};

class file_driver final : public driver,
                          public readable,
                          public writable,
                          public mappable,
                          public zeroable,
                          public discardable,
                          public copyable,
                          public flushable,
                          public resizable,
                          public permission_holder {
public:
  file_driver(loop& home, file opened, std::string path, file_geometry geometry, u64 length,
              bool locks);

  // driver
  [[nodiscard]] u64 length() const override { return length_; }
  task<void> close() override;
  [[nodiscard]] bool grows_by_writing() const override { return !geometry_.is_device; }
  void refine_limits(block_limits& limits) const override;
  task<std::optional<u64>> allocated_length() override;
  [[nodiscard]] std::string host_path() const override { return path_; }

  // faces
  task<void> read(u64 offset, std::span<std::byte> bytes) override;
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags) override;
  [[nodiscard]] write_flags supported_write_flags() const override { return write_flag::durable; }
  task<extent> map(byte_range range) override;
  [[nodiscard]] std::optional<extent> try_map(byte_range) override { return std::nullopt; }
  task<void> write_zeroes(byte_range range, write_flags flags) override;
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return write_flag::may_unmap | write_flag::no_fallback;
  }
  task<void> discard(byte_range range) override;
  task<void> copy_from(driver& source, byte_range range, u64 to_offset) override;
  task<void> write_back() override;
  task<void> flush_to_disk() override;
  task<void> truncate(u64 length, truncate_options options) override;
  result<> check_permissions(permissions wanted) override;
  void commit_permissions() noexcept override;
  void abort_permissions() noexcept override;

private:
  [[nodiscard]] bool needs_bounce(const void* address) const;
  task<void> device_call(unsigned long request, byte_range range, std::string_view verb);
  void release_beyond_committed() noexcept;
  task<void> zero_file(byte_range range, write_flags flags);

  loop& home_;
  file file_;
  std::string path_;
  file_geometry geometry_;
  u64 length_;
  std::optional<image_lock> lock_;
  permissions committed_;
  permissions checked_;
  // A failed fdatasync drops the pages it could not write: no later one may claim success.
  std::optional<error> flush_failure_;
  bool has_zero_range_ = true;
};

} // namespace bgfs
