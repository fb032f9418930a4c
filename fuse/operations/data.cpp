// SPDX-License-Identifier: MIT
// Bytes: reading and writing of disks and views, space, holes, copies.
#include "fuse/operations/operations.h"

#include "fuse/operations/view_commands.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace bgfs {

// The hot path: a handle, a buffer of the pool, the graph.
task<reply> operations::read(ask::read what, std::span<std::byte> room) {
  const disk_handle* const h = handles_.find<disk_handle>(what.handle);
  if (h == nullptr) {
    view_handle* const v = handles_.find<view_handle>(what.handle);
    if (v == nullptr)
      co_await no_such_handle(what.handle);
    if (v->stream != nullptr)
      co_return co_await read_stream(*v, what);
    co_return read_view(*v, what.range);
  }
  if (h->part != nullptr)
    co_return co_await read_partition(*h, what, room);
  raw_disk& disk = *h->disk;
  residence& place = h->root->place();
  payload_budget::hold held;
  if (what.range.length > room.size()) {
    held = mount_.payloads.try_take(h->root->share, what.range.length);
    if (!held)
      held = co_await mount_.payloads.take(h->root->share, what.range.length);
  }
  while (place.is_closed())
    co_await place.settled();
  const residence::visit here(place);
  if (&place.home() != &mount_.home)
    co_return co_await read_elsewhere(disk, place, what.range, room);
  const byte_range part = disk.readable_part(what.range);
  if (part.is_empty()) {
    co_await disk.require_attached(); // what is gone does not read as empty
    co_return reply();
  }
  if (part.length <= room.size()) {
    co_await disk.attached().read(part.offset, room.first(part.length));
    co_return reply::of_room(room.first(part.length));
  }
  buffer bytes = mount_.home.buffers().allocate(part.length);
  co_await disk.attached().read(part.offset, bytes.bytes().first(part.length));
  co_return reply::of_bytes(std::move(bytes), part.length);
}

task<reply> operations::read_elsewhere(raw_disk& disk, residence& place, byte_range range,
                                       std::span<std::byte> room) {
  if (range.length <= room.size()) {
    const std::size_t count =
        co_await run_on(place.home(), disk.read(range.offset, room.first(range.length)));
    co_return reply::of_room(room.first(count));
  }
  buffer bytes = mount_.home.buffers().allocate(range.length);
  const std::size_t count =
      co_await run_on(place.home(), disk.read(range.offset, bytes.bytes().first(range.length)));
  co_return reply::of_bytes(std::move(bytes), count);
}

result<reply> operations::read_view(view_handle& h, byte_range range) const {
  if (h.lines && h.sentence.empty())
    return reply::of_text(h.lines->read(range.offset, range.length));
  std::string_view text = h.text;
  if (!h.sentence.empty()) {
    // Where the file's position stands after the write that failed.
    text = h.sentence;
    range.offset -= std::min(range.offset, h.sentence_offset);
  }
  if (range.offset >= text.size())
    return reply();
  const auto part = text.substr(range.offset, range.length);
  buffer bytes = mount_.home.buffers().allocate(part.size());
  std::ranges::copy(std::as_bytes(std::span(part)), bytes.data());
  return reply::of_bytes(std::move(bytes), part.size());
}

task<reply> operations::read_stream(const view_handle& h, ask::read what) {
  const std::shared_ptr<text_stream> stream = h.stream; // the handle may be closed meanwhile
  error_log* const log = h.log;
  const std::string_view name = h.what->name;
  result<std::string> text = co_await as_result(stream->read(what.range, 0));
  if (!text) {
    log->add(0, fmt::format("read:{}", name), text.error());
    co_await fail(std::move(text).error());
  }
  co_return reply::of_text(*std::move(text));
}

task<reply> operations::write(fuse_in_header request, ask::write what) {
  const disk_handle* const h = handles_.find<disk_handle>(what.handle);
  if (h == nullptr)
    co_return co_await write_view(request, what.handle, what);
  if (h->part != nullptr)
    co_return co_await write_partition(*h, request.pid, what);
  raw_disk* const disk = h->disk;
  exported_root* const root = h->root.get();
  const bool is_durable = (what.flags & (O_DSYNC | O_SYNC)) != 0;
  residence& place = root->place();
  payload_budget::hold held;
  if (what.storage != nullptr) {
    held = mount_.payloads.try_take(root->share, memory_of(what));
    if (!held)
      held = co_await wait_for_room(root->share, what);
  }
  while (place.is_closed())
    co_await place.settled();
  const residence::visit here(place);
  task<u32> writing = disk->write(what.offset, what.payload, is_durable);
  const bool is_here = &place.home() == &mount_.home;
  result<u32> written =
      co_await as_result(is_here ? std::move(writing) : run_on(place.home(), std::move(writing)));
  if (!written) {
    root->log.add(request.pid, "write", written.error());
    co_await fail(std::move(written).error());
  }
  root->tell_other_views({what.offset, *written});
  fuse_write_out out{};
  out.size = *written;
  co_return reply::of(out);
}

task<reply> operations::write_view(fuse_in_header request, u64 number, ask::write what) {
  const view_handle* const before = handles_.find<view_handle>(number);
  if (before == nullptr)
    co_await no_such_handle(number);
  // A handle is not released while a request on it runs.
  error_log* const log = before->log;
  const std::string verb = verb_of(*before->what, what.payload);
  result<> outcome =
      co_await as_result(run_command(*before->what, before->place, request.pid, what.payload));
  co_await mount_.kernel_has_heard();
  view_handle* const after = handles_.find<view_handle>(number);
  if (!outcome) {
    log->add(request.pid, verb, outcome.error());
    trace<point::command_fail>(mount_.home.log(), verb, request.pid, outcome_of(outcome));
    if (after != nullptr) {
      after->sentence = outcome.error().message() + "\n";
      after->sentence_offset = what.offset;
    }
    co_await fail(std::move(outcome).error());
  }
  if (after != nullptr)
    after->sentence.clear();
  fuse_write_out out{};
  out.size = static_cast<u32>(what.payload.size());
  co_return reply::of(out);
}

task<reply> operations::allocate(ask::allocate what) {
  const disk_handle* const h = handles_.find<disk_handle>(what.handle);
  if (h == nullptr)
    co_await fail(error_kind::unsupported, "only disks have space to allocate");
  if (h->part != nullptr)
    co_return co_await allocate_partition(*h, what);
  exported_root* const root = h->root.get();
  raw_disk* const disk = h->disk;
  result<> outcome =
      co_await as_result(root->place().run([&] { return disk->allocate(what.mode, what.range); }));
  if (!outcome) {
    root->log.add(0, "fallocate", outcome.error());
    co_await fail(std::move(outcome).error());
  }
  root->tell_other_views(what.range);
  co_return reply();
}

task<reply> operations::seek(ask::seek what) {
  if (what.whence != SEEK_DATA && what.whence != SEEK_HOLE)
    co_await fail(error_kind::invalid_argument, "lseek has unknown whence {}", what.whence);
  fuse_lseek_out out{};
  const disk_handle* const h = handles_.find<disk_handle>(what.handle);
  if (h != nullptr && h->part != nullptr)
    co_return co_await seek_partition(*h, what);
  if (h != nullptr) {
    raw_disk* const disk = h->disk;
    out.offset = co_await h->root->place().run(
        [&] { return disk->seek(what.offset, what.whence == SEEK_DATA); });
    co_return reply::of(out);
  }
  // A view is data from its beginning to its end.
  const view_handle* const v = handles_.find<view_handle>(what.handle);
  if (v == nullptr)
    co_await no_such_handle(what.handle);
  const u64 end = v->lines ? v->lines->end_offset() : v->text.size();
  if (what.offset >= end)
    co_await fail(error{error_kind::out_of_range, "no data or hole lies past the end", ENXIO});
  out.offset = what.whence == SEEK_DATA ? what.offset : end;
  co_return reply::of(out);
}

// Disks are always ready, and the kernel may as well know: io_uring asks before each request it
// makes, in the thread of its caller, which would cost every request a second trip here, and stop
// that thread where this process is stopped. So the first such question is the last one, for the
// whole mount (ENOSYS is remembered for the connection): see "POLL" in fuse/README.md.
std::optional<u32> operations::poll(ask::poll what) {
  constexpr u32 always = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
  view_handle* const h = handles_.find<view_handle>(what.handle);
  if (h == nullptr)
    return std::nullopt;
  if (!h->lines)
    return what.events & always;
  // Registered before looking, so that no line falls between.
  if (what.wants_wake) {
    h->kernel_handle = what.kernel_handle;
    h->what->lines(mount_).watch(what.kernel_handle);
  }
  return h->lines->has_more() ? what.events & (POLLIN | POLLRDNORM) : 0;
}

task<reply> operations::copy(ask::copy what) {
  const disk_handle* const from = handles_.find<disk_handle>(what.from_handle);
  const disk_handle* const to = handles_.find<disk_handle>(what.to_handle);
  if (from == nullptr || to == nullptr)
    co_await fail(error_kind::unsupported, "only disks are copied within the mount");
  if (from->part != nullptr || to->part != nullptr)
    co_return co_await copy_between(*from, *to, what);
  // The short form of the answer has 32 bits.
  const u64 most = what.has_wide_reply ? what.length : std::min<u64>(what.length, 1 << 30);
  residence& source = from->root->place();
  residence& target = to->root->place();
  while (source.is_closed() || target.is_closed())
    co_await (source.is_closed() ? source : target).settled();
  const residence::visit at_source(source);
  const residence::visit at_target(target);
  const u64 copied =
      co_await run_on(target.home(), to->disk->copy_from({*from->disk, source.home()},
                                                         what.from_offset, what.to_offset, most));
  to->root->tell_other_views({what.to_offset, copied});
  if (what.has_wide_reply)
    co_return reply::of(kernel::copy_file_range_out{copied});
  fuse_write_out out{};
  out.size = static_cast<u32>(copied);
  co_return reply::of(out);
}

} // namespace bgfs
