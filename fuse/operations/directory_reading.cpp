// SPDX-License-Identifier: MIT
// Listings: readdir, and readdirplus, which looks each name up on the way.
#include "fuse/operations/operations.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {

// Fills a buffer with entries until one does not fit.
class directory_packer {
public:
  directory_packer(buffer& into, std::size_t length) : into_(into.bytes().first(length)) {}

  // `next` is the position after this entry. False when there is no room.
  bool add(const directory_entry& entry, u64 number, u64 next, const fuse_entry_out* plus) {
    const std::size_t before = plus != nullptr ? sizeof(fuse_entry_out) : 0;
    const std::size_t unpadded = before + FUSE_NAME_OFFSET + entry.name.size();
    const std::size_t length = align_up(unpadded, sizeof(u64));
    if (length > into_.size() - used_)
      return false;
    const auto room = into_.subspan(used_, length);
    std::ranges::fill(room, std::byte{});
    if (plus != nullptr)
      store(room, *plus);
    fuse_dirent d{};
    d.ino = number;
    d.off = next;
    d.namelen = static_cast<u32>(entry.name.size());
    d.type = entry.type >> 12; // S_IF* to DT_*
    std::memcpy(room.data() + before, &d, FUSE_NAME_OFFSET);
    std::ranges::copy(std::as_bytes(std::span(entry.name)),
                      room.data() + before + FUSE_NAME_OFFSET);
    used_ += length;
    return true;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

private:
  std::span<std::byte> into_;
  std::size_t used_ = 0;
};

task<reply> operations::opendir(fuse_in_header request) {
  inode_pin where = co_await find(request);
  directory* const d = where->as_directory();
  if (d == nullptr)
    co_await fail(error{error_kind::not_found, "not a directory", ENOTDIR});
  d->opened_by(request.pid);
  std::vector<directory_entry> entries = co_await d->list();
  // What a name of 255 bytes cannot hold (a long node name, escaped) is reachable in other ways.
  std::erase_if(entries,
                [](const directory_entry& e) { return e.name.size() > kernel::name_length_max; });
  entries.insert(entries.begin(), {{".", S_IFDIR}, {"..", S_IFDIR}});
  fuse_open_out out{};
  out.fh = handles_.add(directory_handle{std::move(where), std::move(entries)});
  co_return reply::of(out);
}

task<reply> operations::readdir(ask::readdir what) {
  directory_handle* const listing = handles_.find<directory_handle>(what.handle);
  if (listing == nullptr)
    co_await no_such_handle(what.handle);
  buffer bytes = mount_.home.buffers().allocate(std::max<u32>(what.length, 1));
  directory_packer packer(bytes, what.length);
  co_await pack_entries(*listing, what, packer);
  const std::size_t used = packer.used();
  co_return reply::of_bytes(std::move(bytes), used);
}

task<void> operations::pack_entries(directory_handle& listing, ask::readdir what,
                                    directory_packer& to) {
  inode& where = *listing.where;
  for (u64 i = what.position; i < listing.entries.size(); i++) {
    const directory_entry& entry = listing.entries[i];
    const bool is_dots = entry.name == "." || entry.name == "..";
    const u64 number =
        is_dots ? where.number() : inodes_.number_of(where.path() + "/" + entry.name);
    fuse_entry_out plus{}; // nodeid 0: the kernel looks it up itself when it needs it
    inode_pin child;
    // A root that is opened on demand is not opened because somebody lists its directory.
    if (what.wants_attributes && !is_dots) {
      auto made = co_await as_result(where.as_directory()->find(entry.name));
      const exported_root* root = made ? (*made)->root_of() : nullptr;
      const bool is_closed = root != nullptr && (root->phase() == root_phase::unopened ||
                                                 root->phase() == root_phase::opening);
      if (made && !is_closed) {
        child = inodes_.intern(where.path() + "/" + entry.name, *std::move(made));
        const result<fuse_entry_out> described = co_await as_result(entry_of(*child));
        if (described)
          plus = *described;
      }
    }
    if (!to.add(entry, number, i + 1, what.wants_attributes ? &plus : nullptr))
      co_return;
    if (plus.nodeid != 0)
      inodes_.count_lookup(*child);
  }
}

} // namespace bgfs
