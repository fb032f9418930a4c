// SPDX-License-Identifier: MIT
// Texts that may be longer than anybody wants to hold - the map of an image of a million pieces -,
// made as they are read. On the loop of the mount.
#pragma once

#include "fuse/tree/inode_table.h"
#include "fuse/tree/view_file.h"
#include "graph/io/sync.h"

namespace bgfs {

// What of such a text is kept for one open file. It is read from its beginning to its end, and back
// as far as it is kept; neither memory nor the time until the first byte grow with its length.
class text_stream {
public:
  text_stream(inode_pin of, std::unique_ptr<text_source> from)
      : of_(std::move(of)), from_(std::move(from)) {}

  // The first part, when the file is opened. By who holds mount_state::looking.
  task<void> begin(view_subject subject);
  // Less than asked only at the end. not_found: its beginning is not kept any more (ENODATA). By
  // nobody who holds mount_state::looking.
  task<std::string> read(byte_range range, u32 pid);

  // As long as a reader of that many bytes, a tool that looks at the end first, would go back.
  static constexpr std::size_t kept_max = 16 << 20;
  // Made at once; a text that is no longer than that has its length from the beginning.
  static constexpr std::size_t part_length = 1 << 20;

private:
  [[nodiscard]] view_file& file() const { return *of_->as_view(); }
  task<void> make_part(view_subject subject);

  inode_pin of_;
  std::unique_ptr<text_source> from_;
  async_mutex making_;
  std::string kept_;
  u64 kept_from_ = 0; // where in the text
  bool is_over_ = false;
};

} // namespace bgfs
