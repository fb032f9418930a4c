// SPDX-License-Identifier: MIT
#include "graph/jobs/rebase.h"

#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/file.h"
#include "graph/io/sync.h"
#include "graph/jobs/pieces.h"
#include "graph/jobs/stored_bytes.h"
#include "graph/model/naming.h"

#include <cstring>

namespace bgfs {

namespace {

constexpr u64 piece_length_max = MiB;

// An image that both chains have, as two nodes.
struct shared_image {
  const node* of_old = nullptr;
  const node* of_new = nullptr;
};

std::vector<const node*> layers_from(const node* n) {
  std::vector<const node*> layers;
  while (n != nullptr) {
    n = n->skip_filters();
    layers.push_back(n);
    n = n->next_in_chain();
  }
  return layers;
}

// Opening either name with its driver makes the same graph.
bool are_one_image(const node& a, const node& b) {
  if (&a == &b)
    return true;
  const std::string name = exact_filename(a);
  const std::string other = exact_filename(b);
  return &a.type() == &b.type() && !name.empty() && !other.empty() && is_same_file(name, other);
}

shared_image find_shared(const node& overlay, const node& backing) {
  const std::vector<const node*> below = layers_from(overlay.skip_filters()->next_in_chain());
  for (const node* of_new : layers_from(&backing))
    for (const node* of_old : below)
      if (are_one_image(*of_old, *of_new))
        return {of_old, of_new};
  return {};
}

// A run of the overlay that holds nothing itself and is to be looked at.
struct piece {
  byte_range range;
  bool is_old_zero = false; // known, so that it is not read
  bool is_new_zero = false;
};

enum class difference : u8 { none, data, zeroes };

class rebaser {
public:
  rebaser(loop& home, rebase_request request)
      : home_(home), request_(std::move(request)), overlay_(*request_.overlay),
        image_(*overlay_.top().skip_filters()), total_(overlay_.length()),
        unit_(std::max<u64>(image_.copy_unit(), 1)), progress_(total_, request_.progress) {
    if (request_.backing != nullptr)
      shared_ = find_shared(image_, request_.backing->top());
  }

  task<void> run() {
    return run_pieces(
        request_.parallel, progress_, [this] { return take_piece(); },
        [this](const piece& p) { return keep_content(p); });
  }

private:
  void skip(u64 length) {
    position_ += length;
    progress_.add(length);
  }

  // The next run that may differ. One at a time asks, so pieces are in order and do not overlap.
  task<std::optional<piece>> take_piece() {
    const async_mutex::guard alone = co_await taking_.lock();
    while (position_ < total_) {
      co_await stop_if_cancelled("rebasing");
      byte_range range{position_, std::min(total_ - position_, run_length_max)};
      const block_status own = co_await context(image_.status(range, false),
                                                "reading the status of {:#x}", range.offset);
      BGFS_ASSERT(own.length > 0, "M5: a status makes progress");
      range.length = std::min(range.length, own.length);
      if (own.is_allocated) {
        skip(range.length);
        continue;
      }
      const std::optional<piece> found =
          co_await context(look_below(range), "reading the status below {:#x}", range.offset);
      if (!found)
        continue;
      position_ += found->range.length;
      co_return found;
    }
    co_return std::nullopt;
  }

  // Of a run that the overlay does not hold: the first part that may differ; nothing if a part was
  // found to be the same, which is skipped.
  task<std::optional<piece>> look_below(byte_range range) {
    const byte_range unheld = range;
    const u64 shared = co_await shared_length(range);
    if (shared != 0) {
      skip(shared);
      co_return std::nullopt;
    }
    const block_status old = co_await image_.status_above(range);
    range.length = std::min(range.length, old.length);
    const block_status below = co_await status_of_new(range);
    range.length = std::min(range.length, below.length);
    piece p{range, is_known_zero(old), is_known_zero(below)};
    if ((p.is_old_zero && p.is_new_zero) || are_same_bytes_(old, below)) {
      skip(range.length);
      co_return std::nullopt;
    }
    keep_to_units(p, unheld);
    co_return p;
  }

  // How much at the beginning of the range both chains take from the image that they share.
  task<u64> shared_length(byte_range range) {
    if (shared_.of_old == nullptr)
      co_return 0;
    const node& backing = request_.backing->top();
    if (range.offset >= backing.length()) // zeroes, while what is shared may be longer
      co_return 0;
    range = range.intersection({0, backing.length()});
    const block_status old = co_await image_.status_above(range, shared_.of_old, false);
    range.length = std::min(range.length, old.length);
    if (old.is_allocated)
      co_return 0;
    if (backing.skip_filters() == shared_.of_new)
      co_return range.length;
    const block_status below =
        co_await request_.backing->top().status_above(range, shared_.of_new, false);
    co_return below.is_allocated ? 0 : std::min(range.length, below.length);
  }

  // Behind its end there are zeroes.
  task<block_status> status_of_new(byte_range range) {
    const u64 length = request_.backing == nullptr ? 0 : request_.backing->length();
    if (range.offset >= length)
      co_return block_status{.length = range.length, .is_zero = true};
    const block_status status =
        co_await request_.backing->top().status_above(range.intersection({0, length}));
    co_return status;
  }

  // Ends where a cluster of the overlay does, and not within one that has something of both kinds:
  // that one is read from both. `unheld`: what the overlay does not hold here.
  void keep_to_units(piece& p, byte_range unheld) const {
    const u64 begin = p.range.offset;
    const u64 most = std::max(align_down(begin + piece_length_max, unit_), begin + unit_);
    u64 end = std::min(p.range.end(), most);
    if (end < unheld.end() && !is_aligned(end, unit_)) {
      if (align_down(end, unit_) > begin) {
        end = align_down(end, unit_);
      } else {
        end = std::min(align_up(end, unit_), unheld.end());
        p.is_old_zero = p.is_new_zero = false;
      }
    }
    p.range = byte_range::between(begin, end);
  }

  // The overlay itself is read: where it holds nothing that is what is below it.
  task<void> keep_content(const piece& p) {
    buffer old;
    buffer below;
    if (!p.is_old_zero) {
      old = home_.buffers().allocate(p.range.length);
      co_await context(overlay_.read(p.range.offset, old.bytes()), "reading {} bytes at {:#x}",
                       p.range.length, p.range.offset);
    }
    if (!p.is_new_zero) {
      below = home_.buffers().allocate(p.range.length);
      co_await context(read_new(p.range, below.bytes()),
                       "reading {} bytes at {:#x} of the new backing file", p.range.length,
                       p.range.offset);
    }
    for (u64 at = 0; at < p.range.length;) {
      const auto [what, length] = difference_at(p, old, below, at);
      const byte_range part{p.range.offset + at, length};
      if (what == difference::data)
        co_await write(part.offset, old.bytes().subspan(at, length));
      if (what == difference::zeroes)
        co_await write_zeroes(part);
      at += length;
    }
  }

  task<void> read_new(byte_range range, std::span<std::byte> into) {
    const u64 length = request_.backing == nullptr ? 0 : request_.backing->length();
    const byte_range inside = range.intersection({0, length});
    std::ranges::fill(into.subspan(inside.length), std::byte{0});
    if (!inside.is_empty())
      co_await request_.backing->read(inside.offset, into.first(inside.length));
  }

  // What there is to do about the clusters from `at` on, and for how many bytes.
  [[nodiscard]] std::pair<difference, u64> difference_at(const piece& p, const buffer& old,
                                                         const buffer& below, u64 at) const {
    const auto unit_length = [&](u64 from) {
      const u64 position = p.range.offset + from;
      return std::min(align_down(position, unit_) + unit_ - position, p.range.length - from);
    };
    const auto look = [&](u64 from) {
      const u64 length = unit_length(from);
      const bool is_zero_now = p.is_old_zero || is_zero(old.bytes().subspan(from, length));
      const bool is_same = p.is_new_zero   ? is_zero_now
                           : p.is_old_zero ? is_zero(below.bytes().subspan(from, length))
                                           : std::memcmp(old.bytes().data() + from,
                                                         below.bytes().data() + from, length) == 0;
      return is_same ? difference::none : is_zero_now ? difference::zeroes : difference::data;
    };
    const difference what = look(at);
    u64 length = unit_length(at);
    while (at + length < p.range.length && look(at + length) == what)
      length += unit_length(at + length);
    return {what, length};
  }

  task<void> write(u64 offset, std::span<const std::byte> bytes) {
    const byte_range range{offset, bytes.size()};
    const bool is_whole = is_aligned(range.offset, unit_) &&
                          (is_aligned(range.end(), unit_) || range.end() == total_);
    const bool is_compressed = request_.is_compressed && is_whole;
    // Bitmaps need not know of it.
    const write_flags flags = is_compressed ? write_flag::compressed : write_flag::unchanged;
    co_await context(overlay_.write(offset, bytes, flags), "writing {} bytes at {:#x}",
                     range.length, range.offset);
    const bool is_held = co_await holds(range);
    if (!is_held) // zeroes that were found in them (detect-zeroes) and left out
      co_await fail(error_kind::unsupported,
                    "{} bytes at {:#x} were written and are not held by the image itself; open it "
                    "without 'detect-zeroes'",
                    range.length, range.offset);
  }

  // Where nothing shows through now a format may have nothing to do to make zeroes of it; but
  // something will. What it does not hold afterwards is written as data.
  task<void> write_zeroes(byte_range range) {
    co_await context(overlay_.write_zeroes(range, write_flag::unchanged),
                     "zeroing {} bytes at {:#x}", range.length, range.offset);
    const std::span<const std::byte> zeroes = home_.buffers().zeroes();
    while (!range.is_empty()) {
      const block_status s = co_await image_.status(range, false);
      byte_range part{range.offset, std::min(range.length, s.length)};
      if (!s.is_allocated) {
        part.length = std::min<u64>(part.length, zeroes.size());
        co_await write(part.offset, zeroes.first(part.length));
      }
      range = byte_range::between(part.end(), range.end());
    }
  }

  task<bool> holds(byte_range range) {
    while (!range.is_empty()) {
      const block_status s = co_await image_.status(range, false);
      if (!s.is_allocated)
        co_return false;
      range = byte_range::between(std::min(range.end(), range.offset + s.length), range.end());
    }
    co_return true;
  }

  loop& home_;
  rebase_request request_;
  root& overlay_;
  node& image_;
  u64 total_;
  u64 unit_;
  job_progress progress_;
  shared_image shared_;
  same_file_check are_same_bytes_;

  async_mutex taking_;
  u64 position_ = 0; // of the next piece
};

} // namespace

task<void> name_backing(node& overlay, std::optional<image_reference> reference) {
  backing_writer* const face = overlay.skip_filters()->as_backing_writer();
  if (face == nullptr)
    co_await fail(error_kind::unsupported, "images of format '{}' name no backing file",
                  overlay.skip_filters()->type().name);
  co_await face->change_backing_reference(std::move(reference));
}

task<void> rebase_overlay(loop& home, rebase_request request) {
  root& overlay = *request.overlay;
  if (overlay.top().skip_filters()->as_backing_writer() == nullptr)
    co_await fail(error_kind::unsupported, "images of format '{}' name no backing file",
                  overlay.top().skip_filters()->type().name);
  const std::optional<image_reference> reference = request.reference;
  rebaser r(home, std::move(request));
  co_await r.run();
  // With the old name it still reads as before, with the new one only when it holds all of this.
  co_await overlay.flush();
  co_await name_backing(overlay.top(), reference);
}

} // namespace bgfs
