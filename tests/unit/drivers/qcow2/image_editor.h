// SPDX-License-Identifier: MIT
// Changes to an image in memory that the driver cannot make yet: snapshots, compressed clusters,
// bitmaps. For images with 16-bit refcounts that fit one refcount block.
#pragma once

#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/l2_entry.h"

#include <vector>

namespace bgfs::test {

class image_editor {
public:
  explicit image_editor(std::vector<std::byte>& bytes);

  [[nodiscard]] const qcow2::header& header() const { return header_; }
  [[nodiscard]] u64 cluster() const { return header_.g.cluster(); }
  // Host clusters at the end of the file, with refcount 1; returns their offset.
  u64 append(u64 clusters);
  void add_refcount(u64 host, int by);
  [[nodiscard]] u64 number(u64 at) const;
  void put(u64 at, u64 value);
  // Where the L2 entry of a guest offset is; its table must exist.
  [[nodiscard]] u64 entry_at(u64 guest) const;
  // What qemu-img snapshot -c does: L1 copied, refcounts raised, COPIED flags cleared.
  void add_snapshot(const std::string& name);
  // The image as it would be if its L1 table were the snapshot's.
  [[nodiscard]] std::vector<std::byte> as_snapshot() const;
  // Puts a compressed cluster at a guest offset that is unallocated.
  void add_compressed(u64 guest, std::span<const std::byte> stream, u64 sector_offset = 0);
  // One persistent bitmap, all clear.
  void add_bitmap(const std::string& name);
  void write_header(const qcow2::header& h);

private:
  std::vector<std::byte>& bytes_;
  qcow2::header header_;
};

} // namespace bgfs::test
