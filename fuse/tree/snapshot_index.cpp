// SPDX-License-Identifier: MIT
#include "fuse/tree/snapshot_index.h"

#include <fmt/format.h>

namespace bgfs {

std::string key_of(const snapshot_info& s) {
  return fmt::format("{}@{}.{:09}", escape_name(s.id), s.date_seconds, s.date_nanoseconds);
}

std::timespec time_of(const snapshot_info& s) {
  return {static_cast<std::time_t>(s.date_seconds), static_cast<long>(s.date_nanoseconds)};
}

snapshot_index::snapshot_index(std::vector<snapshot_info> all) : all_(std::move(all)) {
  std::vector<named_item> items;
  items.reserve(all_.size());
  for (const snapshot_info& s : all_)
    items.push_back({s.name, s.id});
  names_ = shown_names(items);
  for (std::size_t i = 0; i < all_.size(); i++)
    by_key_.emplace(key_of(all_[i]), i);
}

const snapshot_info* snapshot_index::find(std::string_view shown_name) const {
  const i64 at = names_.find(shown_name);
  return at < 0 ? nullptr : &all_[static_cast<std::size_t>(at)];
}

const snapshot_info* snapshot_index::find_key(std::string_view key) const {
  const auto at = by_key_.find(std::string(key));
  return at == by_key_.end() ? nullptr : &all_[at->second];
}

} // namespace bgfs
