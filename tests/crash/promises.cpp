// SPDX-License-Identifier: MIT
#include "tests/crash/promises.h"

#include <fmt/format.h>

#include <algorithm>

namespace bgfs::test {

void promises::begin(disk_content content, snapshot_list snapshots, std::set<std::string> keys) {
  disk_ = std::move(content);
  snapshots_ = std::move(snapshots);
  keys_ = std::move(keys);
  flushes_ = {{0, disk_}};
  writes_.clear();
  resizes_.clear();
  changes_ = {{.snapshots = snapshots_, .keys = keys_, .disk = {}}};
  bitmaps_.clear();
}

void promises::writes(u64 now, u64 offset, disk_content bytes) {
  std::ranges::copy(bytes, disk_.begin() + static_cast<i64>(offset));
  writes_.push_back({now, {offset, bytes.size()}, std::move(bytes)});
}

// What lies between the lengths is gone when the disk gets shorter, and zeroes when it gets longer.
void promises::resizes(u64 now, u64 length) {
  const auto [less, more] = std::minmax({u64{disk_.size()}, length});
  disk_.resize(length);
  writes_.push_back({now, byte_range::between(less, more), disk_content(more - less)});
  resizes_.push_back({now, length});
  for (auto& [name, all] : bitmaps_)
    all.back().length = std::min(all.back().length, length);
}

std::set<std::string> promises::bitmaps() const {
  std::set<std::string> names;
  for (const auto& [name, all] : bitmaps_)
    if (all.back().is_there)
      names.insert(name);
  return names;
}

void promises::adds_bitmap(u64 now, const std::string& name, u64 granularity) {
  bitmaps_[name].push_back({now, true, granularity, disk_, disk_.size()});
}

void promises::clears_bitmap(u64 now, const std::string& name) {
  adds_bitmap(now, name, bitmaps_.at(name).back().granularity);
}

void promises::removes_bitmap(u64 now, const std::string& name) {
  bitmaps_.at(name).push_back({.begins = now, .clean = {}});
}

std::string promises::objection(u64 cut, const disk_content& disk,
                                const std::map<std::string, image_bitmap>& found) const {
  constexpr u64 in_use = 1;
  for (const auto& [name, b] : found) {
    if ((b.flags & in_use) != 0)
      continue;
    const auto known = bitmaps_.find(name);
    if (known == bitmaps_.end())
      return fmt::format("nobody has added bitmap '{}'", name);
    const auto last = std::ranges::find_if(known->second.rbegin(), known->second.rend(),
                                           [&](const known_bitmap& k) { return k.begins <= cut; });
    if (last == known->second.rend())
      return fmt::format("bitmap '{}' is there before it was added", name);
    if (!last->is_there)
      continue; // it is being removed
    const u64 end = std::min<u64>(last->length, disk.size());
    for (u64 at = 0; at < end; at++)
      if (disk[at] != last->clean[at] && !b.bits.at(at / b.granularity))
        return fmt::format("bitmap '{}' misses the change of byte {:#x}", name, at);
  }
  return {};
}

void promises::flushed(u64 now) {
  flushes_.push_back({now, disk_});
}

void promises::begins_change(u64 now) {
  now_ = {.begins = now, .snapshots = {}, .keys = {}, .disk = {}};
}

void promises::becomes(disk_content disk) {
  disk_ = std::move(disk);
  now_.is_revert = true;
  now_.disk = disk_;
}

void promises::ends_change(u64 now) {
  now_.ends = now;
  now_.snapshots = snapshots_;
  now_.keys = keys_;
  changes_.push_back(std::move(now_));
}

void promises::ends_with_flush(u64 now) {
  ends_change(now);
  flushed(now);
}

const promises::flush_point& promises::last_flush(u64 cut) const {
  return *std::ranges::find_if(flushes_.rbegin(), flushes_.rend(),
                               [&](const flush_point& f) { return f.instant <= cut; });
}

const promises::change* promises::running(u64 cut) const {
  const auto found = std::ranges::find_if(
      changes_, [&](const change& c) { return c.begins <= cut && c.ends > cut; });
  return found == changes_.end() ? nullptr : &*found;
}

const promises::change& promises::last_change(u64 cut) const {
  return *std::ranges::find_if(changes_.rbegin(), changes_.rend(),
                               [&](const change& c) { return c.ends <= cut; });
}

bool promises::may_be_long(u64 length, const flush_point& last, u64 cut) const {
  return length == last.disk.size() || std::ranges::any_of(resizes_, [&](const resize& r) {
           return r.length == length && r.begins >= last.instant && r.begins <= cut;
         });
}

u64 promises::written_since(const flush_point& last, u64 cut, u64 offset,
                            const disk_content& found) const {
  u64 longest = 0;
  for (const guest_write& w : writes_) {
    if (w.begins < last.instant || w.begins > cut || !w.range.contains(offset))
      continue;
    const auto from = w.bytes.begin() + static_cast<i64>(offset - w.range.offset);
    const auto same =
        std::mismatch(from, w.bytes.end(), found.begin() + static_cast<i64>(offset), found.end());
    longest = std::max(longest, static_cast<u64>(same.first - from));
  }
  return longest;
}

// Byte by byte: the flushed value, or one that was written after that flush.
std::string promises::objection(u64 cut, const disk_content& found) const {
  const change* const changing = running(cut);
  if (changing != nullptr && changing->is_revert && found == changing->disk)
    return {};
  const flush_point& last = last_flush(cut);
  if (!may_be_long(found.size(), last, cut))
    return fmt::format("the disk has {} bytes; at the last flush it had {}", found.size(),
                       last.disk.size());
  disk_content expected = last.disk;
  expected.resize(found.size());
  for (u64 at = 0; at < found.size();) {
    const auto from = found.begin() + static_cast<i64>(at);
    const auto differs = std::mismatch(from, found.end(), expected.begin() + static_cast<i64>(at));
    if (differs.first == found.end())
      break;
    at = static_cast<u64>(differs.first - found.begin());
    const u64 length = written_since(last, cut, at, found);
    if (length == 0)
      return fmt::format("guest byte {:#x} is neither what was flushed nor written since", at);
    at += length;
  }
  return {};
}

std::string promises::objection(u64 cut, const snapshot_list& found) const {
  const change* const changing = running(cut);
  if (found == last_change(cut).snapshots || (changing != nullptr && found == changing->snapshots))
    return {};
  return fmt::format("the {} snapshots are neither those of before nor those of after",
                     found.size());
}

std::set<std::string> promises::keys_at(u64 cut) const {
  std::set<std::string> all = last_change(cut).keys;
  if (const change* const changing = running(cut))
    std::erase_if(all, [&](const std::string& k) { return !changing->keys.contains(k); });
  return all;
}

} // namespace bgfs::test
