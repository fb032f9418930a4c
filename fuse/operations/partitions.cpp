// SPDX-License-Identifier: MIT
// Partitions as raw files: what is asked of one is done to its disk, within its bounds, as long as
// the table names it. The kernel keeps no pages of a partition but those that are mapped: then a
// write through it may wait until the kernel has dropped those of the raw file.
#include "fuse/operations/operations.h"

#include "fuse/tree/process.h"
#include "graph/io/spawn.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

namespace bgfs {
namespace {

task<void> require_current(const disk_handle& h) {
  if (h.part != nullptr)
    co_await h.root->parts.of(*h.disk).require_current(*h.part);
}

std::unexpected<error> behind_end(const partition_window& part, u64 offset) {
  return fail(error{error_kind::no_space,
                    fmt::format("cannot write at {:#x} of '{}': the partition has {:#x} bytes; "
                                "give it more in the table on the raw file first",
                                offset, part.name, part.place.length),
                    ENOSPC});
}

std::unexpected<error> not_truncated(std::string_view name) {
  return fail(error{error_kind::permission,
                    fmt::format("a partition cannot be truncated: '{}' keeps the length that the "
                                "table says, and nothing was changed; restore with 'dd "
                                "conv=notrunc'",
                                name),
                    EPERM});
}

std::string name_of(const inode& i) {
  return i.path().substr(i.path().starts_with('/') ? 1 : 0);
}

} // namespace

task<void> operations::truncate_partition(raw_disk* disk, exported_root* root, byte_range place,
                                          std::string name, u64 length) {
  if (length == place.length)
    co_return;
  if (length != 0 || disk->policy().on_truncate != truncate_policy::zero)
    co_await not_truncated(name);
  co_await root->place().run(
      [&] { return disk->allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place); });
  root->tell_other_views(place);
}

task<void> operations::set_partition_length(inode& target, raw_disk* disk, u64 length) {
  exported_root* const root = target.root_of();
  const u32 number = target.as_disk()->partition_number();
  const partition_set::table_pointer table = co_await root->parts.of(*disk).read();
  const partition* const p = table->find(number);
  if (p == nullptr || !p->has_bytes())
    co_await fail(error_kind::not_found, "'{}' is not in the table any more", name_of(target));
  if (length == p->place.length)
    co_return;
  if (!disk->policy().is_writable)
    co_await fail(
        error{error_kind::permission, fmt::format("'{}' is read-only", name_of(target)), EROFS});
  co_await truncate_partition(disk, root, p->place, name_of(target), length);
}

task<reply> operations::open_partition(fuse_in_header request, inode_pin target, disk_use use,
                                       u32 flags) {
  disk_file* const file = target->as_disk();
  raw_disk* const disk = use.disk;
  const root_pointer root = target->root_of()->shared_from_this();
  const bool is_writing = (flags & O_ACCMODE) != O_RDONLY;
  partition_set& parts = root->parts.of(*disk);
  disk_handle h{.disk = disk,
                .root = root,
                .is_writing = is_writing,
                .listed = {},
                .inode = target->number(),
                .kept_open = std::move(use.kept_open)};
  opener who{.pid = request.pid,
             .command = command_of(request.pid),
             .is_writing = is_writing,
             .shows_live = file->content() != shown_content::below,
             .what = target->path().substr(1)};
  h.part = co_await parts.open(file->partition_number(), name_of(*target));
  co_await root->meet_overlapping();
  std::shared_ptr<lease> by = // shared with its root, which may go before this handle
      co_await root->place().look([disk] { return disk->lease_of_handles(); });
  if (file->content() == shown_content::live) {
    who.what.clear();
    result<> may = is_writing ? root->check_exclusive(true) : result<>();
    if (may && is_writing && mount_.is_writeback())
      may = fail(error_kind::busy,
                 "'{}' cannot be opened for writing in a mount with -o writeback: the kernel holds "
                 "back what is written to the raw file, and would overwrite it",
                 h.part->name);
    if (may) {
      h.listed = root->openers.insert(root->openers.end(), {.pid = request.pid,
                                                            .command = command_of(request.pid),
                                                            .is_writing = is_writing,
                                                            .partition = h.part->number});
      may = co_await as_result(root->through_kernel().admit_partition(**h.listed));
    }
    if (may && (flags & O_TRUNC) != 0)
      may =
          co_await as_result(truncate_partition(disk, root.get(), h.part->place, h.part->name, 0));
    if (!may) {
      if (h.listed)
        root->openers.erase(*h.listed);
      root->log.add(request.pid, "open", may.error());
      co_await std::move(may);
    }
  }
  if (file->content() != shown_content::frozen) { // nobody has to be told of writes to it
    shown_view& shown = root->open_views[h.inode];
    h.viewed = shown.users.insert(shown.users.end(), std::move(who));
    shown.place = h.part->place;
  }
  co_await shielded(root->settle_leased_writes());
  parts.now_watched();
  if (is_writing)
    root->forget_shared_attributes();
  kernel::open_out out{};
  std::shared_ptr<const partition_window> part = h.part;
  out.fh = handles_.add(std::move(h));
  leased_.add(out.fh, std::move(by), is_writing, std::move(part));
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  co_return reply::of(out);
}

// The bytes were changed through this partition. The pages of the raw file may be locked by a write
// through it, which waits for nothing here but its own answer, so they can be waited for - but not
// by the kernel's own writing back of mapped pages, which others of these notifications wait for.
task<void> operations::partition_changed(const disk_handle& h, byte_range on_disk, bool may_wait) {
  h.root->tell_other_views(on_disk, h.inode);
  if (may_wait && h.root->spec().cache == cache_mode::kernel && mount_.notifications != nullptr)
    co_await mount_.notifications->settled();
}

task<reply> operations::read_partition(disk_handle h, ask::read what, std::span<std::byte> room) {
  co_await require_current(h);
  const byte_range range = h.part->on_disk(what.range);
  if (range.is_empty())
    co_return reply();
  payload_budget::hold held;
  buffer bytes;
  if (range.length > room.size()) {
    held = mount_.payloads.try_take(h.root->share, range.length);
    if (!held)
      held = co_await mount_.payloads.take(h.root->share, range.length);
    bytes = mount_.home.buffers().allocate(range.length);
  }
  const auto into = bytes.is_empty() ? room.first(range.length) : bytes.bytes().first(range.length);
  const std::size_t count =
      co_await h.root->place().run([&] { return h.disk->read(range.offset, into); });
  if (bytes.is_empty())
    co_return reply::of_room(into.first(count));
  co_return reply::of_bytes(std::move(bytes), count);
}

task<reply> operations::write_partition(disk_handle h, u32 pid, ask::write what) {
  payload_budget::hold held;
  if (what.storage != nullptr) {
    held = mount_.payloads.try_take(h.root->share, memory_of(what));
    if (!held)
      held = co_await wait_for_room(h.root->share, what);
  }
  const bool is_durable = (what.flags & (O_DSYNC | O_SYNC)) != 0;
  result<u32> written = 0;
  byte_range range = h.part->on_disk({what.offset, what.payload.size()});
  if (result<> current = co_await as_result(require_current(h)); !current)
    written = fail(std::move(current).error());
  else if (range.is_empty() && !what.payload.empty())
    written = behind_end(*h.part, what.offset);
  else
    written = co_await as_result(h.root->place().run(
        [&] { return h.disk->write(range.offset, what.payload.first(range.length), is_durable); }));
  if (!written) {
    h.root->log.add(pid, "write", written.error());
    co_await fail(std::move(written).error());
  }
  range.length = *written;
  held = {};
  co_await partition_changed(h, range, !what.is_from_pages);
  fuse_write_out out{};
  out.size = *written;
  co_return reply::of(out);
}

task<reply> operations::allocate_partition(disk_handle h, ask::allocate what) {
  co_await require_current(h);
  const bool keeps_size = (what.mode & (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) != 0;
  const byte_range range = h.part->on_disk(what.range);
  result<> outcome;
  if (!h.disk->policy().is_writable)
    outcome =
        fail(error{error_kind::permission, fmt::format("'{}' is read-only", h.part->name), EROFS});
  else if (!keeps_size && range.length != what.range.length)
    outcome = behind_end(*h.part, what.range.end());
  else if (!range.is_empty())
    outcome =
        co_await as_result(h.root->place().run([&] { return h.disk->allocate(what.mode, range); }));
  if (!outcome) {
    h.root->log.add(0, "fallocate", outcome.error());
    co_await fail(std::move(outcome).error());
  }
  if (!range.is_empty())
    co_await partition_changed(h, range, true);
  co_return reply();
}

task<reply> operations::seek_partition(disk_handle h, ask::seek what) {
  co_await require_current(h);
  const byte_range place = h.part->place;
  if (what.offset >= place.length)
    co_await fail(error{error_kind::out_of_range, "no data or hole lies past the end", ENXIO});
  const u64 found = co_await h.root->place().run([&] {
    return h.disk->seek(place.offset + what.offset, what.whence == SEEK_DATA, place.end());
  });
  fuse_lseek_out out{};
  out.offset = found - place.offset;
  co_return reply::of(out);
}

task<reply> operations::copy_between(disk_handle from, disk_handle to, ask::copy what) {
  co_await require_current(from);
  co_await require_current(to);
  const u64 most = what.has_wide_reply ? what.length : std::min<u64>(what.length, 1 << 30);
  byte_range source{what.from_offset, most};
  byte_range target{what.to_offset, most};
  if (from.part != nullptr)
    source = from.part->on_disk(source);
  if (to.part != nullptr)
    target = to.part->on_disk(target);
  if (target.is_empty() && most != 0)
    co_await behind_end(*to.part, what.to_offset);
  const u64 count = std::min(source.length, target.length);
  u64 copied = 0;
  if (count != 0) {
    residence& at_source = from.root->place();
    residence& at_target = to.root->place();
    while (at_source.is_closed() || at_target.is_closed())
      co_await (at_source.is_closed() ? at_source : at_target).settled();
    const residence::visit here(at_source);
    const residence::visit there(at_target);
    copied =
        co_await run_on(at_target.home(), to.disk->copy_from({*from.disk, at_source.home()},
                                                             source.offset, target.offset, count));
  }
  if (to.part != nullptr)
    co_await partition_changed(to, {target.offset, copied}, true);
  else
    to.root->tell_other_views({target.offset, copied});
  if (what.has_wide_reply)
    co_return reply::of(kernel::copy_file_range_out{copied});
  fuse_write_out out{};
  out.size = static_cast<u32>(copied);
  co_return reply::of(out);
}

} // namespace bgfs
