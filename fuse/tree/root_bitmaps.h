// SPDX-License-Identifier: MIT
// The dirty bitmaps of the image of a root: what its bitmaps/ directory does with them. On the loop
// of the mount, by who holds mount_state::looking, unless it says otherwise. Errors say what to do,
// and carry the errno.
#pragma once

#include "fuse/tree/shown_names.h"
#include "graph/io/sync.h"
#include "graph/model/bitmap_change.h"
#include "graph/model/graph.h"

#include <map>

namespace bgfs {

struct mount_state;
class exported_root;

// The names of the bitmaps of a node and how they are shown; a value, as snapshot_index.
class bitmap_index {
public:
  explicit bitmap_index(std::vector<std::string> names);
  [[nodiscard]] const std::vector<std::string>& shown() const { return shown_.all(); }
  [[nodiscard]] const std::string* find(std::string_view shown_name) const; // null: none

private:
  std::vector<std::string> names_;
  shown_names shown_;
};
using bitmap_index_pointer = std::shared_ptr<const bitmap_index>; // by whoever looks at it

class root_bitmaps {
public:
  root_bitmaps(mount_state& mount, exported_root& of) : mount_(mount), root_(of) {}
  root_bitmaps(const root_bitmaps&) = delete;
  root_bitmaps& operator=(const root_bitmaps&) = delete;

  // Opens the root if need be.
  task<bitmap_index_pointer> index();
  task<std::string> name_of(std::string shown_name); // not_found

  // Kept in the image where it keeps bitmaps; else in memory, for as long as the mount lasts.
  task<void> add(std::string name);
  task<void> remove(std::string shown_name, u32 pid);
  // All of them or none, of the image; the root is writable.
  task<void> change(std::vector<bitmap_change> changes);
  [[nodiscard]] result<> require_changeable() const;
  void note_lister(const std::string& name, u32 pid) const;

  // On the loop of the nodes.
  [[nodiscard]] node& image() const; // while the root is open
  [[nodiscard]] result<dirty_bitmap*> find(std::string_view name) const;
  // Why new ones of that image are kept in memory alone; "": they are kept in it.
  [[nodiscard]] static std::string why_in_memory(const node& image);
  [[nodiscard]] bool is_held(const std::string& name) const { return held_.contains(name); }
  result<> hold(const std::string& name);
  void let_go(const std::string& name) { held_.erase(name); }
  void let_go_of_all() { held_.clear(); }

private:
  [[nodiscard]] std::string directory_of(const std::string& name) const;

  mount_state& mount_;
  exported_root& root_;
  std::map<std::string, std::unique_ptr<bitmap_hold>> held_; // on the loop of the nodes
  bitmap_index_pointer cached_;
  const node* cached_of_ = nullptr;
  u64 cached_version_ = 0;
  u64 cached_shape_ = 0;
};

} // namespace bgfs
