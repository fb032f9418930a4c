// SPDX-License-Identifier: MIT
// The raw file of a root that the kernel serves by itself (FUSE passthrough): the kernel is given
// another descriptor of the image's file, on which we hold no lock, and reads, writes and maps that
// one until the last process has closed the raw file.
//
// It cannot be taken back from an open file. So while it is in use the root and its nodes stay as
// they are (F16), and all opens of the raw file are served in the same way: by the kernel, or, if
// somebody had it open when that was not possible, by us.
//
// Used on the loop of the mount.
#pragma once

#include "config/graph_config.h"
#include "graph/io/file.h"
#include "graph/io/sync.h"

namespace bgfs {

class exported_root;
struct mount_state;
struct opener;

class passthrough {
public:
  passthrough(mount_state& mount, exported_root& of) : mount_(mount), root_(of) {}
  ~passthrough() { BGFS_ASSERT(number_ == 0, "a root ends after its openers"); }
  passthrough(const passthrough&) = delete;
  passthrough& operator=(const passthrough&) = delete;

  // The number to answer the open of `who`, listed among the openers, with; nullopt: requests come
  // to us. Fails only where the export insists on passthrough.
  task<std::optional<i32>> admit(opener& who);
  // The same for an opener of a partition, which always comes to us. EBUSY while the kernel writes
  // to the file by itself: what is read and kept of it here would not stay true.
  task<void> admit_partition(opener& who);
  // Somebody is listed no longer.
  task<void> dismiss();
  // The mount ends while files are open; the kernel goes on with them as it likes.
  task<void> abandon();

  [[nodiscard]] bool is_in_use() const { return number_ != 0; }
  [[nodiscard]] bool is_writing() const { return is_writing_; }
  // "the kernel serves 'web' by itself, which ... process 12 (dd) has it open ...".
  [[nodiscard]] std::string reason() const;
  // What of a root is fixed while it is in use; "" if `next` changes none of it.
  [[nodiscard]] std::string forbidden_change(const export_spec& next) const;

private:
  struct users;
  [[nodiscard]] users count() const;
  task<bool> may_pass();
  task<void> open_file();
  task<void> close_file();
  task<void> settle();
  task<void> settle_nodes(users now);
  void release_nodes();

  mount_state& mount_;
  exported_root& root_;
  async_mutex changing_;
  descriptor file_;
  i32 number_ = 0;          // of the kernel; 0: not in use
  bool is_writing_ = false; // the disk knows that the kernel writes
  std::vector<std::pair<class node*, std::list<operation_blockers::blocker>::iterator>> blocked_;
};

// Whether the file below `top` could be passed through as `root` wants it, tried with the kernel as
// soon as there is one to ask. On the loop of the node. The error begins with where `passthrough`
// stands in the graph file.
task<void> require_passthrough(const mount_state& mount, const export_spec& root, node& top);

} // namespace bgfs
