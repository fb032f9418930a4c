// SPDX-License-Identifier: MIT
// Opening, closing, syncing.
#include "fuse/operations/operations.h"

#include "fuse/tree/process.h"
#include "graph/io/spawn.h"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {
namespace {

bool opens_for_writing(u32 flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}
bool opens_for_reading(u32 flags) {
  return (flags & O_ACCMODE) != O_WRONLY;
}

} // namespace

task<reply> operations::open(fuse_in_header request, u32 flags) {
  inode_pin target = co_await find(request);
  if (target->as_disk() != nullptr)
    co_return co_await open_disk(request, std::move(target), flags);
  if (target->as_view() != nullptr)
    co_return co_await open_view(request, std::move(target), flags);
  co_await fail(
      error{error_kind::invalid_argument, "a directory or link is not opened so", EISDIR});
  co_return reply();
}

task<reply> operations::open_disk(fuse_in_header request, inode_pin target, u32 flags) {
  disk_file* const file = target->as_disk();
  disk_use use = co_await file->disk(request.pid);
  raw_disk* const disk = use.disk;
  const bool is_writing = opens_for_writing(flags);
  if (is_writing && !disk->policy().is_writable)
    co_await note_failure(
        *target, request.pid, "open",
        fail(error{error_kind::permission,
                   fmt::format("'{}' is exported read-only", disk->policy().name), EROFS}));
  if (file->partition_number() != 0)
    co_return co_await open_partition(request, std::move(target), std::move(use), flags);
  if (is_writing && file->content() == shown_content::live)
    if (const result<> may = target->root_of()->check_exclusive(false); !may) {
      target->root_of()->log.add(request.pid, "open", may.error());
      co_await may;
    }
  if ((flags & O_TRUNC) != 0) {
    result<> outcome = co_await as_result(
        target->root_of()->place().run([disk] { return disk->truncate_at_open(); }));
    if (!outcome) {
      target->root_of()->log.add(request.pid, "open", outcome.error());
      co_await fail(std::move(outcome).error());
    }
    target->root_of()->tell_other_views({});
  }
  disk_handle h{disk, target->root_of()->shared_from_this(), is_writing, {}};
  h.kept_open = std::move(use.kept_open);
  co_await h.root->meet_overlapping();
  std::shared_ptr<lease> by = // shared with its root, which may go before this handle
      co_await h.root->place().look([disk] { return disk->lease_of_handles(); });
  std::optional<i32> backing;
  opener who{.pid = request.pid,
             .command = command_of(request.pid),
             .is_writing = is_writing,
             .shows_live = file->content() != shown_content::below,
             .what = mount_.is_one_file ? target->root_of()->name() : target->path().substr(1)};
  switch (file->content()) {
  case shown_content::live: {
    h.listed = h.root->openers.insert(h.root->openers.end(), std::move(who));
    result<std::optional<i32>> passed =
        co_await as_result(h.root->through_kernel().admit(**h.listed));
    if (!passed) {
      h.root->openers.erase(*h.listed);
      h.root->log.add(request.pid, "open", passed.error());
      co_await fail(std::move(passed).error());
    }
    backing = *passed;
    break;
  }
  case shown_content::as_live:
  case shown_content::below: {
    h.inode = target->number();
    std::list<opener>& list = h.root->open_views[h.inode].users;
    h.viewed = list.insert(list.end(), std::move(who));
    break;
  }
  case shown_content::frozen:
    break; // who keeps it open knows
  }
  co_await shielded(h.root->settle_leased_writes());
  kernel::open_out out{};
  out.fh = handles_.add(std::move(h));
  if (backing) {
    out.open_flags = kernel::open_passthrough;
    out.backing_id = *backing;
    co_return reply::of(out);
  }
  leased_.add(out.fh, std::move(by), is_writing);
  if (disk->policy().cache == cache_mode::none) {
    out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  } else {
    out.open_flags = FOPEN_KEEP_CACHE; // what changes otherwise is invalidated explicitly
  }
  co_return reply::of(out);
}

task<void> operations::require_commands(fuse_in_header request, view_file& file,
                                        std::string_view verb) {
  if (file.what().write == nullptr)
    co_await note_failure(
        file, request.pid, verb,
        fail(error{error_kind::permission,
                   fmt::format("'{}' cannot be written; it only tells", file.path()), EACCES}));
}

task<reply> operations::open_view(fuse_in_header request, inode_pin target, u32 flags) {
  view_file* const file = target->as_view();
  if (target->root_of() != nullptr && file->what().needs_medium)
    co_await target->root_of()->open(request.pid); // on demand: this is one
  const view_subject about = co_await file->subject(request.pid);
  const view& what = file->what();
  const bool is_reading = opens_for_reading(flags);
  const std::string verb = fmt::format("open:{}", what.name);
  if (opens_for_writing(flags))
    co_await require_commands(request, *file, verb);
  if (is_reading && !opens_for_writing(flags) && what.render == nullptr && what.lines == nullptr)
    co_await note_failure(
        *target, request.pid, verb,
        fail(error{error_kind::permission,
                   fmt::format("'{}' cannot be read; it only takes orders", target->path()),
                   EACCES}));
  view_handle h{.what = &what, .place = file->where(), .log = &file->log()};
  if (is_reading && what.lines != nullptr)
    h.lines.emplace(what.lines(mount_));
  if (is_reading && what.begin != nullptr) {
    h.stream = std::make_shared<text_stream>(std::move(target), what.begin());
    const result<> begun = co_await as_result(h.stream->begin(about));
    if (!begun) {
      file->log().add(request.pid, fmt::format("open:{}", what.name), begun.error());
      co_await fail(begun.error());
    }
  } else if (is_reading && what.render != nullptr) {
    h.text = co_await render_logged(*file, about);
    file->set_rendered_length(h.text.size());
  }
  fuse_open_out out{};
  out.fh = handles_.add(std::move(h));
  out.open_flags = FOPEN_DIRECT_IO;
  co_return reply::of(out);
}

task<std::string> operations::render_logged(view_file& file, view_subject about) {
  const u32 pid = about.pid;
  result<std::string> text = co_await as_result(render_view(file.what(), std::move(about)));
  if (!text)
    file.log().add(pid, fmt::format("open:{}", file.what().name), text.error());
  co_return std::move(text);
}

task<void> operations::release(u64 handle_number) {
  root_pointer root;
  if (const disk_handle* h = handles_.find<disk_handle>(handle_number)) {
    root = h->root;
    if (h->listed)
      root->openers.erase(*h->listed);
    if (h->viewed) {
      const auto at = root->open_views.find(h->inode);
      at->second.users.erase(*h->viewed);
      if (at->second.users.empty())
        root->open_views.erase(at);
    }
  }
  if (const view_handle* h = handles_.find<view_handle>(handle_number))
    if (h->lines)
      h->what->lines(mount_).forget(h->kernel_handle);
  leased_.remove(handle_number);
  handles_.remove(handle_number);
  if (root != nullptr)
    co_await shielded(root->file_closed());
}

task<reply> operations::fsync(u64 handle_number) {
  const disk_handle* const h = handles_.find<disk_handle>(handle_number);
  if (h != nullptr && h->root->is_writable()) {
    raw_disk* const disk = h->disk;
    exported_root* const root = h->root.get();
    result<> outcome = co_await as_result(root->place().run([disk] { return disk->flush(); }));
    if (!outcome) {
      root->log.add(0, "fsync", outcome.error());
      co_await fail(std::move(outcome).error());
    }
  }
  co_return reply();
}

task<reply> operations::sync_all() {
  for (const root_pointer& root : std::vector<root_pointer>(mount_.roots))
    if (root->is_writable() && root->disk() != nullptr)
      co_await root->place().run([disk = root->disk()] { return disk->flush(); });
  co_return reply();
}

} // namespace bgfs
