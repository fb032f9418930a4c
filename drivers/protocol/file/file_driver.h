// SPDX-License-Identifier: MIT
// The open instance behind `file` and `host_device`.
#pragma once

#include "drivers/protocol/file/image_lock.h"
#include "graph/io/file.h"
#include "graph/model/driver.h"
#include "graph/model/lease.h"
#include "graph/model/tracked_request.h"

namespace bgfs {

struct file_geometry {
  bool is_device = false;
  bool is_direct = false;
  bool is_in_memory = false; // on tmpfs
  u32 request_alignment = 1; // of offsets and lengths
  u32 memory_alignment = 1;  // of buffers
};

// What the options of the node come to.
struct file_settings {
  bool is_read_only = false;
  bool is_auto_read_only = false;
  bool is_direct = false;
  bool is_on_threads = false;
  bool locks = false;
};
[[nodiscard]] file_settings read_file_settings(const options& given, const node_options& generic);

// How the descriptor is open.
struct file_access {
  bool writes = false;
  bool is_direct = false;
  friend bool operator==(const file_access&, const file_access&) = default;
  [[nodiscard]] int open_flags() const;
};
// With auto-read-only, writing waits until somebody who uses the node may write.
[[nodiscard]] file_access access_for(const file_settings& s, permissions granted);

// What O_DIRECT, if it is on, demands of this file.
[[nodiscard]] file_geometry read_geometry(int fd, bool is_device, bool is_direct);

// What is open, and with which options.
struct opened_file {
  file handle;
  std::string path; // absolute
  file_geometry geometry;
  u64 length = 0;
  file_settings settings;
  options given;                         // of `schema`
  const option_schema* schema = nullptr; // null: of a file that is being created
  request_list* requests = nullptr;      // of its node; null: it has none yet
};

class file_driver final : public driver,
                          public readable,
                          public direct_file,
                          public writable,
                          public mappable,
                          public zeroable,
                          public discardable,
                          public copyable,
                          public flushable,
                          public resizable,
                          public reopenable,
                          public transparent,
                          public permission_holder {
public:
  file_driver(loop& home, opened_file opened);

  // driver
  [[nodiscard]] u64 length() const override;
  task<void> close() override;
  [[nodiscard]] bool grows_by_writing() const override { return !geometry_.is_device; }
  void refine_limits(block_limits& limits) const override;
  task<std::optional<u64>> allocated_length() override;
  [[nodiscard]] std::string host_path() const override { return path_; }
  [[nodiscard]] value statistics_specific() const override;
  void attach_loop(loop& home) override { home_ = &home; }

  // faces
  [[nodiscard]] std::optional<direct_access> direct() const override;
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
  task<void> copy_from(bytes_of_file source, u64 to_offset) override;
  task<void> write_back() override;
  task<void> flush_to_disk() override;
  task<void> truncate(u64 length, truncate_options options) override;
  [[nodiscard]] result<shown> shows() const override;
  void set_written_by_others(bool are_there) noexcept override { has_other_writers_ = are_there; }
  result<> check_permissions(permissions wanted) override;
  void commit_permissions() noexcept override;
  void abort_permissions() noexcept override;
  task<void> prepare_reopen(const options& given, const node_options& generic) override;
  void commit_reopen() noexcept override;
  void abort_reopen() noexcept override;

private:
  // A descriptor that is ready to take the place of the open one.
  struct replacement {
    descriptor fd;
    file_access access;
  };
  struct reopening {
    options given;
    file_settings settings;
    file_geometry geometry;
  };
  [[nodiscard]] result<> take_locks(permissions wanted);
  [[nodiscard]] result<> get_ready(permissions wanted);
  [[nodiscard]] result<> stand_by(replacement r, bool locks);
  void drop_replacement() noexcept;
  void take_replacement() noexcept;
  void settle_locks() noexcept;
  [[nodiscard]] bool needs_bounce(const void* address) const;
  task<void> device_call(unsigned long request, byte_range range, std::string_view verb);
  task<void> discard_range(byte_range range);
  task<void> hold_back_what_follows(byte_range range);
  task<void> zero_file(byte_range range, write_flags flags);
  [[nodiscard]] at_once possible_at_once() const;

  loop* home_;
  file file_;
  std::string path_;
  file_geometry geometry_;
  mutable u64 length_; // as it was when the file was last asked
  bool has_other_writers_ = false;
  file_settings settings_;
  options given_;
  const option_schema* schema_;
  request_list* requests_;
  file_access access_;
  image_lock lock_;
  permissions committed_;
  permissions checked_;
  bool is_checked_ = false; // checked_ waits for its commit or abort
  std::optional<replacement> replacement_;
  std::optional<reopening> next_;
  // A failed fdatasync drops the pages it could not write: no later one may claim success.
  std::optional<error> flush_failure_;
  bool has_zero_range_ = true;
  u64 discards_done_ = 0, discards_failed_ = 0, discarded_bytes_ = 0;
};

} // namespace bgfs
