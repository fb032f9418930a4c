// SPDX-License-Identifier: MIT
// The last lines of something that goes on: events, log lines. Readers come and go at their own
// pace; nothing waits for them, and one that was too slow is told how many lines it has lost.
#pragma once

#include "graph/base/ints.h"

#include <ctime>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace bgfs {

class notifier;

class line_ring {
public:
  // The line, without its newline, that a reader finds in the place of `count` lines that are gone.
  using loss_text = std::string (*)(u64 count);
  line_ring(std::size_t kept_max, loss_text describe_loss)
      : kept_max_(kept_max), describe_loss_(describe_loss) {}
  line_ring(const line_ring&) = delete;
  line_ring& operator=(const line_ring&) = delete;

  // One line, without the newline. Any thread; wakes who polls.
  void add(std::string line);
  // Bytes and time of what is kept, for stat(2); the time is 0 while there was never a line.
  [[nodiscard]] u64 kept_length() const;
  [[nodiscard]] std::timespec last_added() const;

  // poll(2): the kernel's number of an open file is told once when the next line comes. While there
  // is no notifier nobody is told.
  void watch(u64 kernel_handle);
  void forget(u64 kernel_handle);
  void set_notifier(notifier* to);

private:
  friend class line_reader;
  struct kept_line {
    std::string text; // with its newline
    u64 begin;        // bytes of all lines ever added before it
  };

  const std::size_t kept_max_;
  const loss_text describe_loss_;
  mutable std::mutex mutex_;
  std::deque<kept_line> kept_;
  u64 dropped_ = 0; // lines
  u64 end_ = 0;     // bytes of all lines ever added
  std::timespec last_added_{};
  std::vector<u64> watching_;
  notifier* notifier_ = nullptr;
};

// One open file: from the oldest line kept at its open through all that follow. Its offsets are
// those of the file; what was lost is replaced by a line that says so, and the offsets go on after
// it. Going back to before the place where it last lost its way, or to 0, begins again with the
// oldest line kept then.
class line_reader {
public:
  explicit line_reader(line_ring& ring);

  // Bytes from `offset` on; "" at the end of what there is. Ends with a whole line unless not even
  // one fits into length_max.
  [[nodiscard]] std::string read(u64 offset, std::size_t length_max);
  // Whether there is anything behind what was read last.
  [[nodiscard]] bool has_more() const;
  // The offset behind the last line.
  [[nodiscard]] u64 end_offset() const;

private:
  void rewind();
  void skip_lost(u64 offset);

  line_ring* ring_;
  // From this offset on the file is the ring, from this byte on; the bytes of gap_ stand before.
  u64 run_offset_ = 0;
  u64 run_begin_ = 0;
  std::string gap_;
  u64 next_offset_ = 0; // behind what was read last
  u64 next_line_ = 0;   // number of the first line not wholly read
  bool is_mid_line_ = false;
};

} // namespace bgfs
