// SPDX-License-Identifier: MIT
#include "graph/jobs/compare.h"

#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/sync.h"
#include "graph/jobs/pieces.h"
#include "graph/jobs/stored_bytes.h"

#include <cstring>

namespace bgfs {

namespace {

constexpr u64 piece_length_max = MiB;

// A run with one answer from each disk.
struct piece {
  byte_range range;
  bool is_read[2] = {}; // whether the disk's bytes have to be looked at; they are zeroes otherwise
  bool is_same = false; // both show the same bytes of one file
};

class comparer {
public:
  comparer(loop& home, compare_plan plan)
      : home_(home), plan_(std::move(plan)),
        total_(std::max(plan_.disks[0]->length(), plan_.disks[1]->length())),
        common_(std::min(plan_.disks[0]->length(), plan_.disks[1]->length())),
        progress_(total_, plan_.progress) {}

  task<comparison> run() {
    co_await run_pieces(
        plan_.parallel, progress_, [this] { return take_piece(); },
        [this](const piece& p) { return compare(p); });
    co_return std::move(found_);
  }

private:
  // Pieces are handed out in the order of their offsets and all of them are ended, so that the
  // least of what is found is what a reader from front to back would have found.
  void find(comparison what) {
    const bool is_first = found_.finding == compare_finding::same || what.offset < found_.offset;
    if (is_first)
      found_ = std::move(what);
    position_ = total_; // nothing behind it matters any more
  }

  task<std::optional<piece>> take_piece() {
    const async_mutex::guard alone = co_await taking_.lock();
    if (position_ == total_)
      co_return std::nullopt;
    co_await stop_if_cancelled("comparing");
    const byte_range rest{position_, std::min(total_ - position_, run_length_max)};
    block_status statuses[2];
    u64 length = rest.length;
    for (std::size_t i = 0; i < 2; i++) {
      result<block_status> status = co_await as_result(status_of(*plan_.disks[i], rest));
      if (!status) {
        find({compare_finding::status_unknown, rest.offset, std::move(status).error(), i});
        co_return std::nullopt;
      }
      statuses[i] = *status;
      length = std::min(length, status->length);
    }
    if (position_ == total_) // another has found a difference meanwhile
      co_return std::nullopt;
    if (plan_.is_strict && rest.offset < common_ && !are_alike(statuses[0], statuses[1])) {
      find({.finding = compare_finding::status_differs, .offset = rest.offset});
      co_return std::nullopt;
    }
    co_return make_piece({rest.offset, length}, statuses);
  }

  // Behind the end there are zeroes.
  static task<block_status> status_of(root& disk, byte_range range) {
    if (range.offset >= disk.length())
      co_return block_status{.length = range.length, .is_zero = true};
    const byte_range inside = range.intersection({0, disk.length()});
    block_status status = co_await disk.status_above(inside);
    if (status.length == 0) // shortened meanwhile
      status = {.length = range.length, .is_zero = true};
    co_return status;
  }

  static bool are_alike(const block_status& a, const block_status& b) {
    const auto look = [](const block_status& s) {
      return std::array{s.is_data,       s.is_zero, s.is_allocated,
                        s.is_compressed, s.is_end,  s.file != nullptr};
    };
    return look(a) == look(b);
  }

  piece make_piece(byte_range range, const block_status (&statuses)[2]) {
    piece p{.range = range};
    for (std::size_t i = 0; i < 2; i++)
      p.is_read[i] = !is_known_zero(statuses[i]);
    p.is_same = p.is_read[0] && p.is_read[1] && are_same_bytes_(statuses[0], statuses[1]);
    if ((p.is_read[0] || p.is_read[1]) && !p.is_same)
      p.range.length = std::min(range.length, piece_length_max - range.offset % piece_length_max);
    position_ += p.range.length;
    return p;
  }

  task<void> compare(const piece& p) {
    if (p.is_same || (!p.is_read[0] && !p.is_read[1]))
      co_return;
    buffer contents[2];
    for (std::size_t i = 0; i < 2; i++) {
      if (!p.is_read[i])
        continue;
      contents[i] = home_.buffers().allocate(p.range.length);
      result<> read =
          co_await as_result(read_padded(*plan_.disks[i], p.range, contents[i].bytes()));
      if (!read) {
        find({compare_finding::unreadable, p.range.offset, std::move(read).error(), i});
        co_return;
      }
    }
    if (const auto at = first_difference(contents, p))
      find({.finding = compare_finding::content_differs, .offset = *at});
  }

  static task<void> read_padded(root& disk, byte_range range, std::span<std::byte> into) {
    const u64 end = std::max(range.offset, std::min(range.end(), disk.length()));
    const auto inside = into.first(end - range.offset);
    std::ranges::fill(into.subspan(inside.size()), std::byte{0});
    if (!inside.empty())
      co_await disk.read(range.offset, inside);
  }

  // The sector of it. A piece may begin within one, behind the end of a disk.
  static std::optional<u64> first_difference(const buffer (&contents)[2], const piece& p) {
    const auto is_same = [&](byte_range part) {
      const auto bytes = [&](std::size_t i) {
        return contents[i].bytes().subspan(part.offset - p.range.offset, part.length);
      };
      return p.is_read[0] && p.is_read[1]
                 ? std::memcmp(bytes(0).data(), bytes(1).data(), part.length) == 0
                 : is_zero(bytes(p.is_read[0] ? 0 : 1));
    };
    if (is_same(p.range))
      return std::nullopt;
    u64 sector = align_down(p.range.offset, compare_unit);
    while (is_same(byte_range{sector, compare_unit}.intersection(p.range)))
      sector += compare_unit;
    return sector;
  }

  loop& home_;
  compare_plan plan_;
  u64 total_;  // the length of the longer disk
  u64 common_; // that of the shorter
  job_progress progress_;
  comparison found_;

  async_mutex taking_;
  u64 position_ = 0; // of the next piece

  same_file_check are_same_bytes_;
};

} // namespace

task<comparison> compare_disks(loop& home, compare_plan plan) {
  comparer c(home, std::move(plan));
  comparison found = co_await c.run();
  co_return found;
}

} // namespace bgfs
