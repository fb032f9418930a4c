// SPDX-License-Identifier: MIT
#include "fuse/operations/leased_requests.h"

#include "fuse/operations/kept_storage.h"
#include "graph/base/endian.h"
#include "graph/io/buffer_pool.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/uio.h>

namespace bgfs {
namespace {

// More than that of a file that may have to wait goes through the ring without a try. Of a file in
// memory nothing waits, and the kernel's threads that a ring would wake stay on the processor where
// this thread is kept: copying here saves the switches (1 MiB reads at depth 4: a third faster).
constexpr std::size_t at_once_length_max = 128 << 10;

} // namespace

// A part of a request that lies in one run of one file, or reads as zeroes.
struct leased_requests::piece {
  u64 begin; // in the request
  u64 length;
  u64 done;
  u64 offset; // in the file
  u16 path;
  bool is_zero;
};

// A request, and how far it has come.
struct leased_requests::job {
  u64 unique = 0;
  bool is_write = false;
  std::shared_ptr<lease> kept; // set when it waits
  lease* by = nullptr;
  unsigned epoch = 0;
  byte_range guest;
  std::byte* bytes = nullptr; // read into, or written from
  steady_time began;
  std::array<piece, pieces_max> pieces; // the first piece_count have values
  std::size_t piece_count = 0;

  [[nodiscard]] std::span<piece> all() { return std::span(pieces).first(piece_count); }
  [[nodiscard]] std::span<const piece> all() const { return std::span(pieces).first(piece_count); }
};

// One whose I/O goes through the ring.
struct leased_requests::waiting {
  struct item : io_operation {
    waiting* in = nullptr;
    iovec vector{};
  };
  leased_requests* of = nullptr;
  job what;
  received request;
  u64 memory = 0; // of leased_requests::held
  unsigned out = 0;
  bool has_failed = false;
  std::array<item, pieces_max> items;
};

leased_requests::leased_requests(loop& on, unsigned queue, const leased_files& files,
                                 u64 memory_max, transport& answers, home_sink& home)
    : on_(on), queue_(queue), files_(files), answers_(answers), home_(home),
      memory_max_(memory_max) {}

leased_requests::~leased_requests() {
  BGFS_ASSERT(running_ == 0 && held() == 0, "a queue ends after its requests");
}

std::optional<resolved_extent> leased_requests::find(lease& by, u64 offset) const {
  std::optional<resolved_extent> found = by.find(offset);
  if (!found && by.is_home(on_))
    found = by.resolve(offset);
  return found;
}

// Cuts the request into pieces. False: part of it is not known, or may not be done so.
bool leased_requests::plan(job& j) const {
  u64 at = j.guest.offset;
  while (at < j.guest.end()) {
    const std::optional<resolved_extent> e = find(*j.by, at);
    if (!e || (j.is_write && !e->may_write))
      return false;
    const lease_path& path = j.by->path(e->path);
    const byte_range part = byte_range::between(at, std::min(e->guest.end(), j.guest.end()));
    if (!part.is_aligned_to(path.alignment))
      return false;
    const u64 offset = e->is_zero ? 0 : e->offset + (at - e->guest.offset);
    piece* const last = j.piece_count > 0 ? &j.pieces[j.piece_count - 1] : nullptr;
    const bool goes_on = last != nullptr && last->path == e->path && last->is_zero == e->is_zero &&
                         (e->is_zero || last->offset + last->length == offset);
    if (goes_on) {
      last->length += part.length;
    } else {
      if (j.piece_count == pieces_max)
        return false;
      j.pieces[j.piece_count++] = {.begin = at - j.guest.offset,
                                   .length = part.length,
                                   .done = 0,
                                   .offset = offset,
                                   .path = e->path,
                                   .is_zero = e->is_zero};
    }
    at = part.end();
  }
  return true;
}

namespace {

ssize_t transfer(const direct_access& file, bool is_write, iovec v, u64 offset) {
  const auto at = static_cast<off_t>(offset);
  if (file.is_in_memory)
    return is_write ? pwrite(file.fd, v.iov_base, v.iov_len, at)
                    : pread(file.fd, v.iov_base, v.iov_len, at);
  return is_write ? pwritev2(file.fd, &v, 1, at, RWF_NOWAIT)
                  : preadv2(file.fd, &v, 1, at, RWF_NOWAIT);
}

} // namespace

leased_requests::progress leased_requests::do_at_once(job& j, piece& p) {
  if (p.is_zero) {
    std::memset(j.bytes + p.begin, 0, p.length);
    p.done = p.length;
    return progress::done;
  }
  const direct_access& file = j.by->path(p.path).file;
  const auto address = reinterpret_cast<std::uintptr_t>(j.bytes + p.begin);
  if (address % file.memory_alignment != 0)
    return progress::cannot;
  back_off& tries = j.is_write ? writes_ : reads_;
  const bool may_wait = !file.is_in_memory;
  if (file.passes_cache || (may_wait && (p.length > at_once_length_max || !tries.is_due())))
    return progress::waits;
  const ssize_t count = transfer(file, j.is_write, {j.bytes + p.begin, p.length}, p.offset);
  if (count == static_cast<ssize_t>(p.length)) {
    tries.succeeded();
    p.done = p.length;
    return progress::done;
  }
  tries.failed();
  // Of a file in memory: its end, no space, or an error; the home knows what to make of it.
  if (file.is_in_memory)
    return progress::cannot;
  p.done = count > 0 ? static_cast<u64>(count) : 0;
  return progress::waits;
}

void leased_requests::count(const job& j) const {
  leased_request r{.is_write = j.is_write,
                   .bytes = j.guest.length,
                   .end = j.guest.end(),
                   .ended = std::chrono::steady_clock::now()};
  r.took_ns = static_cast<u64>(std::max<i64>((r.ended - j.began).count(), 0));
  j.by->count(queue_, r);
  for (const piece& p : j.all()) {
    leased_request part = r;
    part.bytes = p.length;
    part.end = p.offset + p.length;
    j.by->count_piece(queue_, p.path, part);
  }
}

void leased_requests::answer(const job& j, answer_place* place) {
  fuse_write_out written{};
  written.size = static_cast<u32>(j.guest.length);
  // As the long way answers: what was written is a fixed part, what was read is the body.
  const auto head =
      j.is_write ? std::as_bytes(std::span(&written, 1)) : std::span<const std::byte>();
  const auto body = j.is_write ? std::span<const std::byte>()
                               : std::span<const std::byte>(j.bytes, j.guest.length);
  if (place != nullptr) {
    place->answer(j.unique, 0, head, body);
  } else {
    answers_.answer(j.unique, 0, head, body);
  }
}

// The request in memory of its own length, with the bytes read or written on the second page. What
// was read until now comes along; `request` keeps its storage, for another.
received leased_requests::copy_of(job& j, received& request) {
  constexpr std::size_t fixed_length = sizeof(fuse_in_header) + sizeof(fuse_write_in);
  constexpr std::size_t begin = buffer_pool::alignment - fixed_length;
  received own{.storage = on_.buffers().allocate(buffer_pool::alignment + j.guest.length),
               .bytes = {},
               .place = request.place};
  std::ranges::copy(request.bytes, own.storage.data() + begin);
  own.bytes = own.storage.bytes().subspan(begin, request.bytes.size());
  std::byte* const bytes = own.storage.data() + buffer_pool::alignment;
  for (const piece& p : j.all())
    if (!j.is_write)
      std::copy_n(j.bytes + p.begin, p.done, bytes + p.begin);
  j.bytes = bytes;
  if (request.place != nullptr)
    request.place->let_go();
  return own;
}

// What a request that waits lies in from now on. False: there is no memory for it, and nothing was
// done.
bool leased_requests::keep(job& j, received& request, waiting& by) {
  if (request.place != nullptr && !request.place->room().empty()) { // an entry is its own
    by.memory = 0;
    by.request = std::exchange(request, {});
    return true;
  }
  const bool is_copied = !j.is_write || request.storage.is_empty() ||
                         is_better_copied(j.guest.length, request.storage.length(), running_ + 1);
  const u64 memory = is_copied ? buffer_pool::alignment + j.guest.length : request.storage.length();
  if (memory > memory_max_ - held())
    return false;
  by.memory = memory;
  by.request = is_copied ? copy_of(j, request) : std::exchange(request, {});
  held_.store(held() + memory, std::memory_order_relaxed);
  return true;
}

bool leased_requests::wait_for_rest(job& j, received& request) {
  if (free_.empty())
    free_.push_back(std::make_unique<waiting>());
  if (!keep(j, request, *free_.back()))
    return false;
  waiting* const w = free_.back().release(); // until its last item has ended
  free_.pop_back();
  w->of = this;
  w->what = j;
  w->what.kept = j.by->shared_from_this();
  w->out = 0;
  w->has_failed = false;
  running_++;
  for (const piece& p : w->what.all()) {
    if (p.done == p.length)
      continue;
    waiting::item& i = w->items[w->out++];
    i.in = w;
    i.code = j.is_write ? io_code::write : io_code::read;
    i.fd = j.by->path(p.path).file.fd;
    i.vector = {j.bytes + p.begin + p.done, p.length - p.done};
    i.vectors = &i.vector;
    i.vector_count = 1;
    i.range = {p.offset + p.done, p.length - p.done};
    i.flags = 0;
    i.run = [](run_item& self) {
      auto& ended = static_cast<waiting::item&>(self);
      ended.in->has_failed =
          ended.in->has_failed || ended.result != static_cast<i64>(ended.range.length);
      if (--ended.in->out == 0)
        ended.in->of->item_ended(*ended.in);
    };
  }
  for (unsigned i = 0, count = w->out; i < count; i++)
    on_.submit(w->items[i]);
  return true;
}

void leased_requests::item_ended(waiting& w) {
  std::unique_ptr<waiting> owned(&w);
  running_--;
  const bool is_done = !w.has_failed;
  if (is_done)
    count(w.what);
  w.what.by->leave(queue_, w.what.epoch); // L3
  if (is_done) {
    answer(w.what, w.request.place);
  } else {
    home_.take_home(std::move(w.request));
  }
  w.request = {};
  held_.store(held() - w.memory, std::memory_order_relaxed);
  if (running_ == 0)
    home_.queue_is_idle();
  w.what.kept.reset();
  free_.push_back(std::move(owned));
}

bool leased_requests::serve(job& j, received& request) {
  if (!plan(j))
    return false;
  bool waits = false;
  for (piece& p : j.all()) {
    const progress p_is = do_at_once(j, p);
    if (p_is == progress::cannot)
      return false;
    waits = waits || p_is == progress::waits;
  }
  if (waits)
    return wait_for_rest(j, request);
  count(j);
  j.by->leave(queue_, j.epoch); // L3: counted, then left, then answered
  answer(j, request.place);
  return true;
}

// Where the kernel takes it from, if the answer has such a place. One that came from another
// thread's /dev/fuse has a place and no room.
std::span<std::byte> leased_requests::room_for(u64 length, const received& request) {
  if (request.place != nullptr && request.place->room().size() >= length)
    return request.place->room();
  if (room_.length() < length)
    room_ = on_.buffers().allocate(kernel::payload_length_max);
  return room_.bytes();
}

bool leased_requests::take(const fuse_in_header& header, received& request) {
  const std::optional<transfer_request> what = parse_transfer(header, request.bytes);
  if (!what || what->range.is_empty())
    return false;
  const leased_file* const file = files_.find(what->handle);
  const trace_log& log = on_.log();
  if (file == nullptr || log.wants(point::fuse_request) || log.wants(point::request_begin))
    return false; // who traces requests sees all of them
  if (file->part != nullptr && !file->part->may_lease.load())
    return false;
  job j;
  j.by = file->by.get();
  j.unique = header.unique;
  j.is_write = what->is_write;
  if (!j.by->enter(queue_, j.epoch))
    return false;
  j.began = on_.now();
  const u64 length = j.by->length();
  const byte_range asked = file->part != nullptr ? file->part->on_disk(what->range) : what->range;
  j.guest = asked.intersection({0, length});
  bool is_taken = false;
  if (j.is_write) {
    // What is past the end, and what has to be durable, is more than a write.
    if (file->is_writing && j.by->may_write() && !what->is_durable &&
        j.guest.length == what->range.length) {
      j.bytes = const_cast<std::byte*>(what->payload.data()); // an iovec cannot say more
      is_taken = serve(j, request);
    }
  } else if (!j.guest.is_empty()) {
    j.bytes = room_for(j.guest.length, request).data();
    is_taken = serve(j, request);
  }
  if (is_taken) {
    served_.add(1);
  } else {
    j.by->leave(queue_, j.epoch);
  }
  return is_taken;
}

} // namespace bgfs
