// SPDX-License-Identifier: MIT
// Which host clusters hold metadata, so that no write of anything else goes over them (reference
// section 3.5, overlap-check). All of qcow2's structures begin at a cluster boundary, so the map is
// by cluster. Kept in memory only; the image's tables are the truth.
#pragma once

#include "drivers/format/qcow2/geometry.h"

#include <optional>
#include <string_view>
#include <unordered_map>

namespace bgfs::qcow2 {

using metadata_kinds = u16;
namespace metadata_kind {
inline constexpr metadata_kinds none = 0;
inline constexpr metadata_kinds main_header = 0x1;
inline constexpr metadata_kinds active_l1 = 0x2;
inline constexpr metadata_kinds active_l2 = 0x4;
inline constexpr metadata_kinds refcount_table = 0x8;
inline constexpr metadata_kinds refcount_block = 0x10;
inline constexpr metadata_kinds snapshot_table = 0x20;
inline constexpr metadata_kinds inactive_l1 = 0x40;
inline constexpr metadata_kinds inactive_l2 = 0x80;
inline constexpr metadata_kinds bitmap_directory = 0x100;
inline constexpr metadata_kinds crypto_header = 0x200;
// The templates of the option.
inline constexpr metadata_kinds constant =
    main_header | active_l1 | refcount_table | snapshot_table | bitmap_directory | crypto_header;
inline constexpr metadata_kinds cached = constant | active_l2 | refcount_block | inactive_l1;
inline constexpr metadata_kinds all = cached | inactive_l2;
} // namespace metadata_kind

// "the active L1 table"; of a set, the lowest.
[[nodiscard]] std::string_view describe_metadata(metadata_kinds kinds);

class overlap_map {
public:
  // Only what is in `watched` is remembered and checked.
  overlap_map(const geometry& g, metadata_kinds watched) : g_(g), watched_(watched) {}

  void add(metadata_kinds kind, byte_range host);
  void remove(metadata_kinds kind, byte_range host);

  struct hit {
    host_offset cluster;
    metadata_kinds kinds;
  };
  // What a write to `host` would go over, apart from kinds in `except`.
  [[nodiscard]] std::optional<hit> find(byte_range host, metadata_kinds except) const;
  [[nodiscard]] metadata_kinds watched() const { return watched_; }

private:
  geometry g_;
  metadata_kinds watched_;
  std::unordered_map<u64, metadata_kinds> clusters_;
};

} // namespace bgfs::qcow2
