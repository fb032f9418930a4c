// SPDX-License-Identifier: MIT
#include "graph/jobs/copy.h"

#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/sleep.h"
#include "graph/io/sync.h"
#include "graph/jobs/pieces.h"

#include <algorithm>
#include <bit>

namespace bgfs {

namespace {

constexpr u64 piece_length_max = MiB; // eight of them stay in the cache of a processor
constexpr u64 paced_piece_min = 64 * KiB;
constexpr std::size_t sector_length = 512; // what is lost at least where something cannot be read

enum class piece_kind : u8 { data, zero, shared };

// A run of the target with one answer.
struct piece {
  byte_range range;
  piece_kind kind = piece_kind::data;
  u64 number = 0; // pieces are numbered in the order of their offsets
};

// What begins somewhere in a source, and for how long.
struct answer {
  u64 length = 0;
  piece_kind kind = piece_kind::data;
};

struct unread {
  byte_range range; // of the source
  error why;        // of its first sector
};

u64 length_of(const copy_plan& plan) {
  u64 length = 0;
  for (const copy_source& s : plan.sources)
    length += s.length;
  return length;
}

class copier {
public:
  copier(loop& home, copy_plan plan)
      : home_(home), plan_(std::move(plan)), total_(length_of(plan_)),
        progress_(total_, plan_.progress) {
    if (plan_.to->is_stream())
      plan_.order = write_order::finished;
    if (plan_.write_unit > 1 && plan_.zero_unit != 0)
      plan_.zero_unit = plan_.write_unit;
  }

  task<void> run() {
    return run_pieces(
        plan_.parallel, progress_, [this] { return take_piece(); },
        [this](const piece& p) { return copy(p); });
  }

private:
  // The next run of the source. One at a time asks, so pieces are in order and do not overlap.
  task<std::optional<piece>> take_piece() {
    const async_mutex::guard alone = co_await taking_.lock();
    if (position_ == total_)
      co_return std::nullopt;
    co_await stop_if_cancelled("copying");
    auto [index, base] = source_at(position_);
    const copy_source& source = plan_.sources[index];
    const byte_range rest{position_ - base + source.offset,
                          std::min(base + source.length - position_, run_length_max)};
    const answer first = co_await answer_at(source, rest);
    piece p{.range = {position_, first.length}, .kind = first.kind, .number = taken_++};
    if (p.kind == piece_kind::data)
      p.range.length =
          co_await data_length(source, rest, first.length, piece_max() - position_ % piece_max());
    keep_to_units(p);
    position_ += p.range.length;
    if (p.kind == piece_kind::data && plan_.bytes_per_second != 0)
      co_await keep_rate(p.range.length);
    co_return p;
  }

  // Data of one layer often lie beside data of another: they are one piece.
  task<u64> data_length(const copy_source& source, byte_range rest, u64 length, u64 length_max) {
    while (length < std::min(length_max, rest.length)) {
      const answer next =
          co_await answer_at(source, byte_range::between(rest.offset + length, rest.end()));
      if (next.kind != piece_kind::data)
        break;
      length += next.length;
    }
    co_return std::min({length, length_max, rest.length});
  }

  // The last one is kept: what ended one piece begins the next.
  task<answer> answer_at(const copy_source& source, byte_range rest) {
    if (last_answer_ && last_answer_->from == source.from && last_answer_->offset == rest.offset)
      co_return last_answer_->what;
    const block_status status = co_await status_of(source, rest);
    BGFS_ASSERT(status.length > 0, "M5: a status makes progress");
    const answer found{std::min(rest.length, status.length), kind_of(status, source)};
    last_answer_ = {source.from, rest.offset, found};
    co_return found;
  }

  // Of what has no status reading shows more.
  task<block_status> status_of(const copy_source& source, byte_range rest) {
    result<block_status> status =
        co_await as_result(source.from->top().status_above(rest, source.shared_base));
    if (status || !plan_.unreadable)
      co_return co_await context(std::move(status), "reading the status of bytes at {:#x}",
                                 rest.offset);
    co_return block_status{.length = rest.length, .is_data = true};
  }

  // Of data; where a rate is kept some ten pieces a second.
  [[nodiscard]] u64 piece_max() const {
    if (plan_.bytes_per_second == 0)
      return piece_length_max;
    return std::clamp(std::bit_floor(plan_.bytes_per_second / 8), paced_piece_min,
                      piece_length_max);
  }

  // Waits until the data that were handed out before may be done with.
  task<void> keep_rate(u64 length) {
    const steady_time now = home_.now();
    due_ = std::max(due_, now);
    const auto wait = due_ - now;
    due_ += std::chrono::nanoseconds(static_cast<u64>(static_cast<double>(length) * 1e9 /
                                                      static_cast<double>(plan_.bytes_per_second)));
    if (wait > wait.zero())
      co_await sleep_for(wait);
  }

  // The source that the byte of the target comes from, and where that source begins there.
  [[nodiscard]] std::pair<std::size_t, u64> source_at(u64 position) const {
    std::size_t index = 0;
    u64 base = 0;
    while (position >= base + plan_.sources[index].length)
      base += plan_.sources[index++].length;
    return {index, base};
  }

  // Whole units; one that has some of this run and some of another is data, read from both.
  void keep_to_units(piece& p) const {
    if (p.range.end() == total_ || is_aligned(p.range.end(), plan_.write_unit))
      return;
    const u64 end = align_down(p.range.end(), plan_.write_unit);
    if (end > p.range.offset) {
      p.range = byte_range::between(p.range.offset, end);
    } else {
      p.range.length = std::min(plan_.write_unit, total_ - p.range.offset);
      p.kind = piece_kind::data;
    }
  }

  [[nodiscard]] piece_kind kind_of(const block_status& status, const copy_source& source) const {
    if (source.shared_base != nullptr && !status.is_allocated && !status.is_zero)
      return piece_kind::shared;
    const bool may_be_holes = plan_.zero_unit != 0;
    return status.is_zero && may_be_holes ? piece_kind::zero : piece_kind::data;
  }

  task<void> copy(const piece& p) {
    buffer content;
    std::vector<unread> lost;
    if (p.kind == piece_kind::data && !plan_.offloads) {
      content = home_.buffers().allocate(p.range.length);
      co_await read(p.range.offset, content.bytes(), lost);
    }
    while (plan_.order != write_order::any && turn_ != p.number)
      co_await turns_.wait();
    // The next one is woken when this one waits for its write, which it has begun.
    if (plan_.order == write_order::begun)
      pass_turn();
    tell_of(lost);
    if (p.kind == piece_kind::zero && !plan_.target_reads_zero)
      co_await write_zeroes(p.range);
    if (p.kind == piece_kind::data && plan_.offloads)
      co_await offload(p.range);
    else if (p.kind == piece_kind::data)
      co_await write_data(p.range.offset, content.bytes());
    if (plan_.order == write_order::finished)
      pass_turn();
  }

  void pass_turn() {
    turn_++;
    turns_.wake_all();
  }

  // What the host cannot copy, for whatever reason, is read and written; then the reason is met
  // again, if it is one.
  task<void> offload(byte_range range) {
    const auto [index, base] = source_at(range.offset);
    const copy_source& source = plan_.sources[index];
    root& from = *source.from;
    const result<> copied = co_await as_result(plan_.to->copy_from(
        from, {range.offset - base + source.offset, range.length}, range.offset));
    if (copied)
      co_return;
    const buffer content = home_.buffers().allocate(range.length);
    std::vector<unread> lost;
    co_await read(range.offset, content.bytes(), lost);
    tell_of(lost);
    co_await write_data(range.offset, content.bytes());
  }

  task<void> read(u64 position, std::span<std::byte> bytes, std::vector<unread>& lost) {
    while (!bytes.empty()) {
      const auto [index, base] = source_at(position);
      const copy_source& source = plan_.sources[index];
      const u64 offset = position - base + source.offset;
      const auto part = bytes.first(std::min<u64>(bytes.size(), base + source.length - position));
      result<> done = co_await as_result(source.is_drained ? source.from->top().read(offset, part)
                                                           : source.from->read(offset, part));
      if (!done && plan_.unreadable)
        done = co_await as_result(salvage(*source.from, offset, part, lost));
      co_await context(std::move(done), "reading {} bytes at {:#x} of the source", part.size(),
                       offset);
      position += part.size();
      bytes = bytes.subspan(part.size());
    }
  }

  // Halves what could not be read until only what cannot be read at all is left out.
  task<void> salvage(root& from, u64 offset, std::span<std::byte> bytes,
                     std::vector<unread>& lost) {
    co_await stop_if_cancelled("copying");
    const std::size_t half = align_up(bytes.size() / 2, sector_length);
    for (const auto part :
         {std::pair(offset, bytes.first(std::min(half, bytes.size()))),
          std::pair(offset + half, bytes.subspan(std::min(half, bytes.size())))}) {
      if (part.second.empty())
        continue;
      const result<> done = co_await as_result(from.read(part.first, part.second));
      if (done)
        continue;
      if (done.error().kind() == error_kind::cancelled)
        co_await fail(done.error());
      if (part.second.size() > sector_length)
        co_await salvage(from, part.first, part.second, lost);
      else
        lose(part.first, part.second, done.error(), lost);
    }
  }

  static void lose(u64 offset, std::span<std::byte> bytes, const error& why,
                   std::vector<unread>& lost) {
    std::ranges::fill(bytes, std::byte{0});
    if (!lost.empty() && lost.back().range.end() == offset)
      lost.back().range.length += bytes.size();
    else
      lost.push_back({{offset, bytes.size()}, why});
  }

  void tell_of(const std::vector<unread>& lost) const {
    for (const unread& u : lost)
      plan_.unreadable(u.range, u.why);
  }

  task<void> write_zeroes(byte_range range) {
    co_await context(plan_.to->write_zeroes(range), "zeroing {} bytes at {:#x} of the target",
                     range.length, range.offset);
  }

  // Splits at the units of the target, so that holes fall where the target can have them.
  task<void> write_data(u64 to, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const bool is_hole = is_zero_unit(to, bytes);
      std::size_t length = unit_at(to, bytes.size());
      while (length < bytes.size() && is_hole == is_zero_unit(to + length, bytes.subspan(length)))
        length += unit_at(to + length, bytes.size() - length);
      if (!is_hole) {
        co_await context(plan_.to->write(to, bytes.first(length)),
                         "writing {} bytes at {:#x} of the target", length, to);
      } else if (!plan_.target_reads_zero) {
        co_await write_zeroes({to, length});
      }
      to += length;
      bytes = bytes.subspan(length);
    }
  }

  [[nodiscard]] bool is_zero_unit(u64 to, std::span<const std::byte> bytes) const {
    return looks_for_zeroes() && is_zero(bytes.first(unit_at(to, bytes.size())));
  }
  [[nodiscard]] bool looks_for_zeroes() const {
    return plan_.zero_unit != 0 && plan_.looks_for_zeroes && !plan_.offloads;
  }

  [[nodiscard]] std::size_t unit_at(u64 to, std::size_t length) const {
    if (!looks_for_zeroes())
      return length;
    return std::min<u64>(length, plan_.zero_unit - to % plan_.zero_unit);
  }

  loop& home_;
  copy_plan plan_;
  u64 total_;
  job_progress progress_;

  async_mutex taking_;
  u64 position_ = 0; // in the target, of the next piece
  u64 taken_ = 0;
  struct kept_answer {
    const root* from;
    u64 offset;
    answer what;
  };
  std::optional<kept_answer> last_answer_;
  steady_time due_{}; // when the next data may be handed out

  u64 turn_ = 0; // the number of the piece that may be written
  wait_queue turns_;
};

} // namespace

task<void> copy_disks(loop& home, copy_plan plan) {
  copier c(home, std::move(plan));
  co_await c.run();
}

} // namespace bgfs
