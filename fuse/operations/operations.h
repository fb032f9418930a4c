// SPDX-License-Identifier: MIT
// What each request does: one method for each, grouped by source file. A method returns the body of
// the answer or ends with the error to answer with. `request` says who asks and about which inode.
#pragma once

#include "fuse/operations/handles.h"
#include "fuse/operations/leased_files.h"
#include "fuse/protocol/request.h"
#include "fuse/reply.h"
#include "fuse/tree/inode_table.h"

namespace bgfs {

class operations {
public:
  explicit operations(mount_state& mount);
  operations(const operations&) = delete;
  operations& operator=(const operations&) = delete;

  // names.cpp
  task<reply> lookup(fuse_in_header request, std::string name);
  void forget(const ask::forget& what);
  task<reply> getattr(fuse_in_header request);
  task<reply> setattr(fuse_in_header request, fuse_setattr_in in);
  task<reply> readlink(fuse_in_header request);
  task<reply> statfs(fuse_in_header request);

  // changes.cpp: names that are made, removed and moved.
  // What changes of names in this directory do to the graph (directory::changes_graph).
  [[nodiscard]] graph_change changes_graph(const fuse_in_header& request);
  task<reply> make_directory(fuse_in_header request, std::string name);
  task<reply> remove_directory(fuse_in_header request, std::string name);
  task<reply> rename(fuse_in_header request, ask::rename what);
  task<reply> unlink(fuse_in_header request, std::string name);
  task<reply> make_other(fuse_in_header request, ask::make_other what);

  // open_close.cpp
  task<reply> open(fuse_in_header request, u32 flags);
  task<void> release(u64 handle_number);
  task<reply> fsync(u64 handle_number);
  task<reply> sync_all();

  // directory_reading.cpp
  task<reply> opendir(fuse_in_header request);
  task<reply> readdir(ask::readdir what);

  // data.cpp
  // `room`: where the bytes may be put, if it is long enough; else in a buffer of the pool.
  task<reply> read(ask::read what, std::span<std::byte> room = {});
  task<reply> write(fuse_in_header request, ask::write what);
  task<reply> allocate(ask::allocate what);
  task<reply> seek(ask::seek what);
  task<reply> copy(ask::copy what);

  // Which of the events asked for are there; nullopt: the kernel must never ask again (ENOSYS).
  [[nodiscard]] std::optional<u32> poll(ask::poll what);

  // attributes.cpp: user.bgfs.*
  task<reply> getxattr(fuse_in_header request, ask::getxattr what);
  [[nodiscard]] result<reply> listxattr(ask::listxattr what) const;
  // tree_attributes.cpp. Not by who holds mount_state::looking.
  task<reply> setxattr(fuse_in_header request, ask::setxattr what);
  task<reply> removexattr(fuse_in_header request, std::string name);

  // The raw files among the open handles, for whoever serves by lease.
  [[nodiscard]] const leased_files& leased() const { return leased_; }
  [[nodiscard]] mount_state& mount() const { return mount_; }
  [[nodiscard]] std::size_t open_handles() const { return handles_.count(); }

private:
  [[nodiscard]] result<inode_pin> find(const fuse_in_header& request);
  result<directory*> directory_of(const inode_pin& found) const;
  // Leaves a failure in the last-error of the directory that the request is about.
  task<void> note_failure(inode& where, u32 pid, std::string_view verb, result<> outcome);
  void note_deleter(const directory& where, u32 pid);
  task<attributes> describe(inode& target);
  task<fuse_entry_out> entry_of(inode& target);
  task<reply> open_disk(fuse_in_header request, inode_pin target, u32 flags);
  // partitions.cpp: what is asked of a partition, as what it means for its disk.
  task<reply> open_partition(fuse_in_header request, inode_pin target, disk_use use, u32 flags);
  task<reply> read_partition(disk_handle h, ask::read what, std::span<std::byte> room);
  task<reply> write_partition(disk_handle h, u32 pid, ask::write what);
  task<reply> allocate_partition(disk_handle h, ask::allocate what);
  task<reply> seek_partition(disk_handle h, ask::seek what);
  task<reply> copy_between(disk_handle from, disk_handle to, ask::copy what);
  task<void> truncate_partition(raw_disk* disk, exported_root* root, byte_range place,
                                std::string name, u64 length);
  task<void> set_partition_length(inode& target, raw_disk* disk, u64 length);
  task<void> partition_changed(const disk_handle& h, byte_range on_disk, bool may_wait);
  // tree_attributes.cpp
  [[nodiscard]] result<inode_pin> attribute_root(inode& target, std::string& path);
  task<inode_pin> find_by_attribute(fuse_in_header request, std::string path);
  task<std::string> read_by_attribute(fuse_in_header request, std::string path);
  task<void> require_commands(fuse_in_header request, view_file& file, std::string_view verb);
  task<void> require_writable_view(fuse_in_header request, view_file& file);
  task<void> command_logged(u32 pid, view_file& file, std::string text);
  task<void> make_by_attribute(fuse_in_header request, std::string path, bool is_empty);
  task<void> change_directory(fuse_in_header request, std::string parent, std::string name,
                              bool is_made);
  task<std::string> render_logged(view_file& file, view_subject about);
  task<reply> open_view(fuse_in_header request, inode_pin target, u32 flags);
  task<reply> write_view(fuse_in_header request, u64 handle_number, ask::write what);
  task<void> pack_entries(directory_handle& listing, ask::readdir what, class directory_packer& to);
  task<reply> read_elsewhere(raw_disk& disk, residence& place, byte_range range,
                             std::span<std::byte> room);
  // waiting.cpp: what a write holds of the budget, and one that came while there is no room for it.
  [[nodiscard]] static u64 memory_of(const ask::write& what);
  task<payload_budget::hold> wait_for_room(payload_share& share, ask::write& what);
  [[nodiscard]] result<reply> read_view(view_handle& h, byte_range range) const;
  task<reply> read_stream(const view_handle& h, ask::read what);

  mount_state& mount_;
  inode_table inodes_;
  handle_table handles_;
  leased_files leased_;
};

[[nodiscard]] inline std::unexpected<error> no_such_handle(u64 number) {
  return fail(error_kind::invalid_argument, "the kernel uses handle {:#x}, which is not open",
              number);
}

// What an attribute holds at most: XATTR_SIZE_MAX of Linux.
inline constexpr std::size_t attribute_length_max = 65536;
// "state" of "user.bgfs.state"; nullopt: it is none of ours.
[[nodiscard]] std::optional<std::string> path_in_attribute(std::string_view name);
[[nodiscard]] std::unexpected<error> no_such_attribute(std::string_view name); // ENODATA

} // namespace bgfs
