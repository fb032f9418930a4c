// SPDX-License-Identifier: MIT
// A second, simple reading of the qcow2 specification, to hold the driver against: counts every
// reference to every cluster of an image in memory, and reads the disk it represents.
#pragma once

#include "graph/base/ints.h"

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace bgfs::test {

struct check_report {
  std::vector<std::string> errors; // what would lose or mix data
  u64 leaks = 0;                   // clusters counted more often than they are used
  bool is_dirty = false;           // the refcounts make no claim
  // Entries of the active tables whose cluster is counted once, but that do not say so: safe, but
  // an error for the peer.
  u64 missing_copied = 0;
  // Those that say so, rightly, though the cluster is counted more than once: leaked references.
  u64 early_copied = 0;
  [[nodiscard]] std::string text() const;
};

// `only_references`: refcounts may be out of date (dirty images), but references must be sound.
[[nodiscard]] check_report check_image(std::span<const std::byte> image);

// The disk, as the specification says it reads. Not for images with compressed clusters.
// `decrypt` is called with what a cluster holds of each part of an encrypted image, and where it
// lies on the disk and in the file.
using decryption = std::function<void(u64 guest, u64 host, std::span<std::byte> bytes)>;
// `data`: the external data file of an image that has one.
[[nodiscard]] std::vector<std::byte> read_disk(std::span<const std::byte> image,
                                               std::span<const std::byte> backing = {},
                                               const decryption& decrypt = {},
                                               std::span<const std::byte> data = {});

struct snapshot_content {
  std::string id;
  std::string name;
  std::vector<std::byte> disk;
};
// What each internal snapshot holds, in the order of the table.
[[nodiscard]] std::vector<snapshot_content> read_snapshots(std::span<const std::byte> image,
                                                           std::span<const std::byte> backing = {},
                                                           const decryption& decrypt = {});

// The persistent bitmaps of an image, as they are in it.
struct image_bitmap {
  u64 flags = 0; // 1: in use, 2: enabled
  u64 granularity = 0;
  std::vector<bool> bits;
};
[[nodiscard]] std::map<std::string, image_bitmap> read_bitmaps(std::span<const std::byte> image);

} // namespace bgfs::test
