// SPDX-License-Identifier: MIT
// The inodes the kernel knows. A number is a hash of the path in the mount, so it is the same after
// a remount; should two paths that are known at once have one hash, the later gets another number.
#pragma once

#include "fuse/tree/inode.h"

#include <unordered_map>

namespace bgfs {

// Keeps an inode alive while a request uses it, whatever is forgotten meanwhile.
class inode_pin;

class inode_table {
public:
  using hash_function = u64 (*)(std::string_view path);
  explicit inode_table(std::unique_ptr<inode> root, hash_function hash = &hash_of_path);
  inode_table(const inode_table&) = delete;
  inode_table& operator=(const inode_table&) = delete;

  [[nodiscard]] static u64 hash_of_path(std::string_view path);

  // What the kernel means by a number; empty: it was never told, or has forgotten it.
  [[nodiscard]] inode_pin find(u64 number);
  // The inode of a path, which becomes `made` if the path is not known yet or was something of
  // another type. Of another identity it gets another number: what the kernel knew stays what it
  // was.
  [[nodiscard]] inode_pin intern(std::string path, std::unique_ptr<inode> made);
  // The inode of a path that the kernel knows; empty: it knows none.
  [[nodiscard]] inode_pin find(std::string_view path);
  // The number that intern would give, for readdir.
  [[nodiscard]] u64 number_of(std::string_view path) const;

  // The kernel was told of it, and has forgotten so many of those.
  void count_lookup(inode& known) { known.lookups_++; }
  void forget(u64 number, u64 count);

  // The inodes of a root that is gone answer for it as long as the kernel knows them, but its paths
  // are free for another.
  void disown(const exported_root& root);

  [[nodiscard]] std::size_t size() const { return by_number_.size(); }

private:
  friend class inode_pin;
  void drop_if_unused(inode& i);
  static void disown(inode& known);

  hash_function hash_;
  std::unordered_map<u64, std::unique_ptr<inode>> by_number_;
};

class inode_pin {
public:
  inode_pin() = default;
  inode_pin(inode_table& table, inode& target) : table_(&table), target_(&target) {
    target.pins_++;
  }
  inode_pin(inode_pin&& other) noexcept
      : table_(other.table_), target_(std::exchange(other.target_, nullptr)) {}
  inode_pin& operator=(inode_pin&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(target_, other.target_);
    return *this;
  }
  ~inode_pin() {
    if (target_ == nullptr)
      return;
    target_->pins_--;
    table_->drop_if_unused(*target_);
  }

  [[nodiscard]] explicit operator bool() const { return target_ != nullptr; }
  [[nodiscard]] inode* get() const { return target_; }
  [[nodiscard]] inode* operator->() const { return target_; }
  [[nodiscard]] inode& operator*() const { return *target_; }

private:
  inode_table* table_ = nullptr;
  inode* target_ = nullptr;
};

} // namespace bgfs
