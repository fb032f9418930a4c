// SPDX-License-Identifier: MIT
// Open files and directories, by the number the kernel was given for each.
#pragma once

#include "fuse/tree/exported_root.h"
#include "fuse/tree/inode_table.h"
#include "fuse/tree/line_ring.h"
#include "fuse/tree/text_stream.h"
#include "fuse/tree/view_file.h"

#include <variant>

namespace bgfs {

struct disk_handle {
  raw_disk* disk;
  root_pointer root;
  bool is_writing;
  // In root->openers; nullopt: not a handle of the live image.
  std::optional<std::list<opener>::iterator> listed;
  // In root->open_views, by its inode: of a layer or a partition, which others change; nullopt:
  // not.
  std::optional<std::list<opener>::iterator> viewed = {};
  u64 inode = 0;
  // A partition of the disk, which is all that the handle shows; null: all of the disk. Shared with
  // who serves it by lease.
  std::shared_ptr<partition_window> part = {};
  std::shared_ptr<const void> kept_open = {}; // disk_use
};

struct view_handle {
  const view* what;
  view_place place;
  error_log* log;
  std::string text;                         // rendered at open
  std::shared_ptr<text_stream> stream = {}; // of a view that is made as it is read; shared by reads
  std::optional<line_reader> lines;         // of a view whose lines go on
  u64 kernel_handle = 0;                    // of who polled it last
  // Why the last write failed, readable where it failed.
  std::string sentence;
  u64 sentence_offset = 0;
};

// A listing is taken once, at opendir: it neither skips nor repeats what changes meanwhile.
struct directory_handle {
  inode_pin where;
  std::vector<directory_entry> entries;
};

using handle = std::variant<disk_handle, view_handle, directory_handle>;

class handle_table {
public:
  [[nodiscard]] u64 add(handle h);
  // Null: no such handle is open, or it is of another kind.
  template<class T>
  [[nodiscard]] T* find(u64 number) {
    handle* const h = at(number);
    return h == nullptr ? nullptr : std::get_if<T>(h);
  }
  void remove(u64 number);
  [[nodiscard]] std::size_t count() const { return slots_.size() - free_.size(); }

private:
  // A number is a slot and how often the slot was used, so that an old number finds nothing.
  struct slot {
    std::unique_ptr<handle> open; // stays where it is while the table grows
    u32 generation = 0;
  };
  [[nodiscard]] handle* at(u64 number);
  std::vector<slot> slots_;
  std::vector<u32> free_;
};

} // namespace bgfs
