// SPDX-License-Identifier: MIT
// An open file of the host, with asynchronous operations that report errors as tasks do.
#pragma once

#include "graph/base/back_off.h"
#include "graph/base/byte_range.h"
#include "graph/io/task.h"

#include <optional>
#include <span>
#include <string>
#include <sys/stat.h>

namespace bgfs {

// Owns a descriptor; closes it when destroyed.
class descriptor {
public:
  descriptor() = default;
  explicit descriptor(int fd) : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor() { reset(); }
  void reset();
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

private:
  int fd_ = -1;
};

// open(2), close-on-exec. What is opened for reading alone keeps its st_atime where the kernel lets
// us (O_NOATIME): looking at an image leaves no trace. Blocks.
[[nodiscard]] int open_quietly(const char* path, int flags, unsigned mode = 0);

// The same on an offload thread (a network file system may hang). `path` is named in the error.
task<descriptor> open_descriptor(std::string path, int flags, unsigned mode = 0);

// Both paths lead to one file, by whatever names. False where one leads nowhere. Blocks.
[[nodiscard]] bool is_same_file(const std::string& a, const std::string& b);

struct data_range {
  byte_range range;
  bool is_data = false;
};

// What a file may do on the spot, in a system call on the loop's own thread, which then takes no
// turn of the loop: what does not wait for a medium.
enum class at_once : u8 {
  nothing,
  cached,     // what the page cache holds or takes without waiting (RWF_NOWAIT)
  everything, // the file system is memory (tmpfs), which knows no RWF_NOWAIT
};

// True for tmpfs and ramfs. Blocks.
[[nodiscard]] bool is_in_memory(int fd);

class file {
public:
  // With `on_threads`, system calls on the offload threads instead of the loop's ring.
  file(descriptor fd, std::string name, bool on_threads = false)
      : fd_(std::move(fd)), name_(std::move(name)), on_threads_(on_threads) {}

  // Fills the buffer; what lies past the end of the file reads as zeroes.
  task<void> read(u64 offset, std::span<std::byte> bytes);
  // Writes all of it or fails; part may have been written when it fails.
  task<void> write(u64 offset, std::span<const std::byte> bytes, bool durable = false);
  task<void> sync(bool data_only = true);
  // fallocate(2); error_kind::unsupported where the file system cannot.
  task<void> allocate(int mode, byte_range range);
  task<void> truncate(u64 length);
  task<struct stat> status();
  task<u64> length(); // of a block device as well
  // The run of data or hole that begins at `offset`, which lies below the end.
  task<data_range> seek_run(u64 offset, u64 file_length);
  // copy_file_range(2); returns how much was copied, at least one byte.
  task<u64> copy_range(u64 offset, file& to, u64 to_offset, u64 length);

  // Goes on with another descriptor of the same file, which gets the number of the old one: what is
  // in flight ends on the old one, and whoever knows only the number does not notice.
  void replace(descriptor other) noexcept;
  void set_on_threads(bool on_threads) { on_threads_ = on_threads; }
  void set_at_once(at_once what) { at_once_ = what; }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const std::string& name() const { return name_; }

private:
  descriptor fd_;
  std::string name_;
  bool on_threads_;

  [[nodiscard]] bool may_try(std::size_t length) const;
  // How many bytes were read or written at once; 0: none.
  [[nodiscard]] std::size_t try_read(u64 offset, std::span<std::byte> bytes);
  [[nodiscard]] std::size_t try_write(u64 offset, std::span<const std::byte> bytes);
  at_once at_once_ = at_once::nothing;
  // A cold cache should cost nothing.
  back_off reads_;
  back_off writes_;
};

} // namespace bgfs
