// SPDX-License-Identifier: MIT
#include "fuse/tree/partition_set.h"

#include <cerrno>

namespace bgfs {

task<std::vector<std::byte>> partition_set::read_bytes(byte_range range) {
  std::vector<std::byte> bytes(range.length);
  co_await disk_.require_attached();
  const result<std::size_t> count = co_await as_result(disk_.read(range.offset, bytes));
  // What cannot be read, or has been cut off meanwhile, is a problem of the table.
  if (!count || *count != range.length)
    bytes.clear();
  co_return bytes;
}

template<class Scan>
auto partition_set::scan(disk_sample& sample, Scan what)
    -> task<typename std::invoke_result_t<Scan, const disk_sample&>::value_type> {
  while (true) {
    auto found = what(sample);
    if (found)
      co_return *std::move(found);
    const byte_range next = found.error();
    std::vector<std::byte> bytes = co_await place_.run([this, next] { return read_bytes(next); });
    sample.add(next, std::move(bytes));
  }
}

task<partition_set::table_pointer> partition_set::read_locked() {
  co_await place_.look([this] { return disk_.require_attached(); });
  const u64 length = co_await place_.look([this] { return disk_.length(); });
  disk_sample sample(length);
  is_stale_ = false;
  is_reading_ = true; // what changes from here on may have been read already
  result<partition_table> found = co_await as_result(
      scan(sample, [](const disk_sample& s) { return scan_partition_table(s); }));
  is_reading_ = false;
  if (!found) {
    is_stale_ = true;
    co_await fail(std::move(found).error());
  }
  looked_at_ = sample.ranges();
  table_ = std::make_shared<const partition_table>(*std::move(found));
  settle_windows();
  co_return table_;
}

task<partition_set::table_pointer> partition_set::read() {
  const auto guard = co_await reading_.lock();
  table_pointer now = co_await read_locked();
  co_return now;
}

task<const file_system*> partition_set::look_into(byte_range part) {
  const u64 length = co_await place_.look([this] { return disk_.length(); });
  disk_sample sample(length);
  part = part.intersection({0, length});
  if (part.is_empty())
    co_return nullptr;
  const file_system* const found =
      co_await scan(sample, [part](const disk_sample& s) { return find_file_system(s, part); });
  co_return found;
}

task<std::shared_ptr<partition_window>> partition_set::open(u32 number, std::string name) {
  const table_pointer now = co_await read();
  const partition* const p = now->find(number);
  if (p == nullptr || !p->has_bytes())
    co_await fail(error_kind::not_found, "'{}' is not in the table any more", name);
  auto made = std::make_shared<partition_window>(number, p->place, std::move(name));
  std::erase_if(windows_, [](const auto& w) { return w.expired(); });
  windows_.push_back(made);
  co_return made;
}

void partition_set::now_watched() {
  is_stale_ = true;
  settle_windows();
}

task<void> partition_set::require_current(const partition_window& window) {
  if (is_stale_) {
    const auto guard = co_await reading_.lock();
    if (is_stale_) // nobody else has looked meanwhile
      (void)co_await read_locked();
  }
  const partition* const p = table_->find(window.number);
  if (p == nullptr || p->place != window.place)
    co_await fail(
        error{error_kind::not_found,
              fmt::format("'{}' is gone: the partition table was changed, and names no "
                          "partition {} at [{:#x}, {:#x}) any more; open it again",
                          window.name, window.number, window.place.offset, window.place.end()),
              ENODEV});
}

void partition_set::changed(byte_range range) {
  const auto is_touched = [&](byte_range r) { return range.is_empty() || r.overlaps(range); };
  if (is_stale_ || (!is_reading_ && std::ranges::none_of(looked_at_, is_touched)))
    return;
  is_stale_ = true;
  settle_windows();
}

void partition_set::settle_windows() {
  for (const auto& w : windows_)
    if (const auto window = w.lock()) {
      const partition* const p = table_ != nullptr ? table_->find(window->number) : nullptr;
      window->may_lease.store(!is_stale_ && p != nullptr && p->place == window->place);
    }
}

partition_set& partition_sets::of(raw_disk& disk) {
  if (disk.parts == nullptr) {
    disk.parts = std::make_shared<partition_set>(disk, place_);
    std::erase_if(sets_, [](const auto& set) { return set.expired(); });
    sets_.push_back(disk.parts);
  }
  return *disk.parts;
}

void partition_sets::changed(byte_range range) {
  for (const auto& known : sets_)
    if (const auto set = known.lock())
      set->changed(range);
}

} // namespace bgfs
