// SPDX-License-Identifier: MIT
#include "fuse/tree/inode_table.h"

#include "graph/base/assert.h"

#include <algorithm>

namespace bgfs {
namespace {

// 0 is no inode, 1 is the root; the top bit stays clear, because programs keep inode numbers in
// signed integers.
constexpr u64 as_number(u64 hash) {
  const u64 number = hash & (~u64{0} >> 1);
  return number <= FUSE_ROOT_ID ? number + 2 : number;
}

bool is_same_type(inode& a, inode& b) {
  return (a.as_directory() != nullptr) == (b.as_directory() != nullptr) &&
         (a.as_disk() != nullptr) == (b.as_disk() != nullptr) &&
         (a.as_view() != nullptr) == (b.as_view() != nullptr) &&
         (a.as_link() != nullptr) == (b.as_link() != nullptr);
}

} // namespace

// FNV-1a, and a finisher that spreads the last bytes over the whole number. Never to be changed:
// the numbers are the same after a remount with another version of this program.
u64 inode_table::hash_of_path(std::string_view path) {
  u64 hash = 0xcbf29ce484222325;
  for (const char c : path) {
    hash ^= static_cast<u8>(c);
    hash *= 0x100000001b3;
  }
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccd;
  hash ^= hash >> 33;
  return hash;
}

inode_table::inode_table(std::unique_ptr<inode> root, hash_function hash) : hash_(hash) {
  root->number_ = FUSE_ROOT_ID;
  root->lookups_ = 1; // never forgotten
  by_number_.emplace(FUSE_ROOT_ID, std::move(root));
}

inode_pin inode_table::find(u64 number) {
  const auto found = by_number_.find(number);
  if (found == by_number_.end())
    return {};
  return {*this, *found->second};
}

u64 inode_table::number_of(std::string_view path) const {
  if (path.empty())
    return FUSE_ROOT_ID;
  u64 number = as_number(hash_(path));
  for (;;) {
    const auto taken = by_number_.find(number);
    if (taken == by_number_.end() || taken->second->path() == path)
      return number;
    number = as_number(number + 1);
  }
}

inode_pin inode_table::find(std::string_view path) {
  return find(number_of(path)); // of a path that is not known nobody has the number
}

inode_pin inode_table::intern(std::string path, std::unique_ptr<inode> made) {
  const u64 number = number_of(path);
  const auto known = by_number_.find(number);
  if (known != by_number_.end()) {
    if (known->second->identity() != made->identity()) {
      // Who knows it goes on with what it was; the path is another's.
      disown(*known->second);
      return intern(std::move(path), std::move(made));
    }
    const bool is_current = is_same_type(*known->second, *made);
    // What is in use stays as it is until it is no longer.
    if (is_current || known->second->pins_ > 0)
      return {*this, *known->second};
    made->lookups_ = known->second->lookups_;
    by_number_.erase(known);
  }
  made->number_ = number;
  made->path_ = std::move(path);
  inode& kept = *by_number_.emplace(number, std::move(made)).first->second;
  return {*this, kept};
}

void inode_table::disown(inode& known) {
  known.path_.insert(0, 1, '\0'); // no path that is ever asked for
}

void inode_table::disown(const exported_root& root) {
  for (auto& [number, known] : by_number_)
    if (known->root_of() == &root)
      disown(*known);
}

void inode_table::forget(u64 number, u64 count) {
  const auto found = by_number_.find(number);
  if (found == by_number_.end() || number == FUSE_ROOT_ID)
    return;
  inode& i = *found->second;
  i.lookups_ -= std::min(i.lookups_, count);
  drop_if_unused(i);
}

void inode_table::drop_if_unused(inode& i) {
  if (i.lookups_ == 0 && i.pins_ == 0)
    by_number_.erase(i.number_);
}

} // namespace bgfs
