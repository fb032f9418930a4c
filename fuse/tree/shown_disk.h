// SPDX-License-Identifier: MIT
// One shape for every view (DESIGN.md section 5): a disk of a root that a directory shows beside
// the live one - one of its layers, one of its snapshots - as a read-only raw file, with what is
// known about it.
#pragma once

#include "config/render_map.h"
#include "fuse/tree/inode.h"
#include "fuse/tree/raw_disk.h"
#include "graph/base/value.h"

namespace bgfs {

struct mount_state;
struct view;

// On the loop of the mount, by who holds mount_state::looking.
class shown_disk {
public:
  virtual ~shown_disk() = default;
  [[nodiscard]] virtual exported_root& of() const = 0;
  // Its directory below NAME.d: "layers/0", "snapshots/before".
  [[nodiscard]] virtual std::string place() const = 0;
  // As inode::identity.
  [[nodiscard]] virtual std::string identity() const = 0;
  [[nodiscard]] virtual shown_content content() const = 0;
  // As stat(2) shows the raw file: opens nothing if it can be said without. not_found: it is gone.
  virtual task<disk_extent> extent() = 0;
  virtual task<disk_use> open(u32 pid) = 0;
  // What its `map` shows: all that is read through it, or what it alone holds.
  [[nodiscard]] virtual map_scope scope() const = 0;
  virtual task<value> info() = 0; // keys as of `qemu-img info --output=json`
};

// By the inodes that show a part of it, and by views that are open.
using shown_pointer = std::shared_ptr<shown_disk>;

// The raw file `disk` of it, shared by what is made of its bytes.
[[nodiscard]] std::shared_ptr<disk_file> make_shown_file(shown_pointer shown);

// `disk`, `partitions`, the views of every shown disk, and `more` of its kind.
[[nodiscard]] std::vector<directory_entry> list_shown_disk(std::span<const view* const> more);
// Null: it has no such name.
[[nodiscard]] std::unique_ptr<inode> find_in_shown_disk(mount_state& mount, shown_pointer shown,
                                                        std::span<const view* const> more,
                                                        std::string_view name);

} // namespace bgfs
