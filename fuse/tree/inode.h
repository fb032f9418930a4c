// SPDX-License-Identifier: MIT
// What the kernel knows by number: directories, raw files, views and links. An inode says what it
// is; what it stands for (a root, a node of the graph, a view) lives elsewhere, and may have gone
// by the time it is asked about.
#pragma once

#include "fuse/protocol/kernel.h"
#include "graph/io/task.h"

#include <ctime>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <vector>

namespace bgfs {

class raw_disk;
class exported_root;
class view_file;

// As stat(2) shows it; st_ino is the number of the inode.
struct attributes {
  mode_t mode = 0; // type and permission bits
  uid_t owner = 0;
  gid_t group = 0;
  u64 length = 0;
  u64 blocks = 0; // of 512 bytes
  std::timespec modified{};
  u32 block_length = 4096;
  u32 link_count = 1;
  // The kernel may believe them, and the name they were looked up by, for a while: whatever changes
  // them tells it (exported_root::tell_kernel).
  bool kernel_may_keep = false;
};

[[nodiscard]] fuse_attr to_wire(const attributes& a, u64 inode_number);

class directory;
class disk_file;
class link;

class inode {
public:
  virtual ~inode() = default;
  inode(const inode&) = delete;
  inode& operator=(const inode&) = delete;

  virtual task<attributes> describe() = 0;
  // The kernel is being told of it by its number.
  virtual void introduced() {}
  // What it is, without casts: null where it is something else.
  [[nodiscard]] virtual directory* as_directory() { return nullptr; }
  [[nodiscard]] virtual disk_file* as_disk() { return nullptr; }
  [[nodiscard]] virtual view_file* as_view() { return nullptr; }
  [[nodiscard]] virtual link* as_link() { return nullptr; }
  // Tells what stands for different things under one path, one after the other: a snapshot from
  // a later one of its name. What the kernel knows of the former does not become the latter.
  [[nodiscard]] virtual std::string identity() const { return {}; }
  // The root it belongs to; null: the mount.
  [[nodiscard]] virtual exported_root* root_of() { return nullptr; }

  [[nodiscard]] u64 number() const { return number_; }
  [[nodiscard]] const std::string& path() const { return path_; } // "" is the mount point
  // The kernel was told its number, and has not forgotten it.
  [[nodiscard]] bool is_known() const { return lookups_ > 0; }

protected:
  inode() = default;

private:
  friend class inode_table;
  friend class inode_pin;
  u64 number_ = 0;
  std::string path_;
  u64 lookups_ = 0;
  unsigned pins_ = 0;
};

// What making, removing and renaming in a directory does to the graph of the mount.
enum class graph_change : u8 {
  none,
  alone,     // nodes come and go: nobody looks meanwhile (mount_state::looking)
  by_itself, // the same, and it takes care of that where it has to
};

struct directory_entry {
  std::string name;
  mode_t type = S_IFREG; // S_IF*
};

class directory : public inode {
public:
  // What readdir shows, without "." and "..".
  virtual task<std::vector<directory_entry>> list() = 0;
  // The inode of a name, listed or not; not_found. A new one each time: the table keeps one.
  virtual task<std::unique_ptr<inode>> find(std::string name) = 0;
  // mkdir, rmdir and rename within the directory; `pid` asks. Refused unless it says otherwise.
  virtual task<void> make(std::string name, u32 pid);
  virtual task<void> remove(std::string name, u32 pid);
  virtual task<void> rename(std::string from, std::string to, u32 pid);
  [[nodiscard]] virtual graph_change changes_graph() const { return graph_change::none; }
  // Nothing is ever unlinked: what to do instead.
  virtual error refuse_unlink(const std::string& name, u32 pid);
  // A process has opened it to read its names, or wanted to unlink something somewhere below.
  virtual void opened_by(u32) {}
  directory* as_directory() final { return this; }
};

// What a raw file shows of its root.
enum class shown_content : u8 {
  live,    // the live image; who has it open is listed in `openers`
  as_live, // the same through another file
  below,   // nodes below the live image, which others may write to
  frozen,  // what nobody writes to
};

// A disk while somebody uses it.
struct disk_use {
  raw_disk* disk = nullptr;
  // Who has opened it and closes it after its last user, which it is shared by; null: it stays.
  std::shared_ptr<const void> kept_open = {};
};

// A raw file: a root, what is shown beside it, or a partition of either.
class disk_file : public inode {
public:
  // Opens what has to be opened; fails with ENOMEDIUM and the reason when it cannot be.
  virtual task<disk_use> disk(u32 pid) = 0;
  disk_file* as_disk() final { return this; }
  [[nodiscard]] virtual shown_content content() const = 0;
  // It shows this partition of disk(); 0: all of it.
  [[nodiscard]] virtual u32 partition_number() const { return 0; }
};

class link final : public inode {
public:
  link(std::string target, uid_t owner, gid_t group, std::timespec made)
      : target_(std::move(target)), owner_(owner), group_(group), made_(made) {}
  task<attributes> describe() override;
  link* as_link() override { return this; }
  [[nodiscard]] const std::string& target() const { return target_; }

private:
  std::string target_;
  uid_t owner_;
  gid_t group_;
  std::timespec made_;
};

} // namespace bgfs
