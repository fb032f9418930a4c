// SPDX-License-Identifier: MIT
// The internal snapshots of one image as a directory shows them. A value, made once for each state
// of the list, so that looking at all of ten thousand takes no longer for each than at one.
#pragma once

#include "fuse/tree/shown_names.h"
#include "graph/model/snapshot.h"

#include <ctime>

namespace bgfs {

// Which snapshot, for as long as the image is open: ids are used again for later ones, but not at
// one instant.
[[nodiscard]] std::string key_of(const snapshot_info& s);
[[nodiscard]] std::timespec time_of(const snapshot_info& s);

class snapshot_index {
public:
  snapshot_index() = default;
  explicit snapshot_index(std::vector<snapshot_info> all);

  [[nodiscard]] std::span<const snapshot_info> all() const { return all_; }
  // In the order of all(); empty: there is no name for it (shown_names).
  [[nodiscard]] const std::vector<std::string>& names() const { return names_.all(); }
  [[nodiscard]] const snapshot_info* find(std::string_view shown_name) const; // null: none
  [[nodiscard]] const snapshot_info* find_key(std::string_view key) const;    // null: it is gone
  // The name of one that find_key has found.
  [[nodiscard]] const std::string& name_of(const snapshot_info& s) const {
    return names_.all()[static_cast<std::size_t>(&s - all_.data())];
  }

private:
  std::vector<snapshot_info> all_;
  shown_names names_;
  std::unordered_map<std::string, std::size_t> by_key_;
};

} // namespace bgfs
