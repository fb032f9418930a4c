// SPDX-License-Identifier: MIT
// What the disk looks like if we stop here, for every "here": the log of what reached the disk is
// cut after each event, with everything flushed before, and an arbitrary part of what was not.
// A write lands sector by sector: what is arbitrary is not only which writes, but which of their
// sectors. The image may have leaks; every byte is the flushed one or one written since.
#include "tests/unit/drivers/qcow2/crash_replay.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/repetitions.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct guest_state {
  std::size_t events = 0; // of the log when the flush returned
  std::vector<std::byte> flushed;
};

// What one guest sector may hold after a crash: its flushed content or any later one.
struct guest_write {
  std::size_t begins = 0; // events in the log when it began
  byte_range range;
  std::vector<std::byte> bytes;
};

// How long the disk is, how much of it is written before the log begins, and what is done to it.
struct disk_shape {
  u64 clusters = 20;
  u64 filled = 0;
  int steps = 40;
  u64 one_flush_in = 1;        // of those that the steps would do
  bool compresses = false;     // half of the writes
  const char* encryption = ""; // its format
};

class crash_run {
public:
  crash_run(const option_list& create, const option_list& open, u64 cluster, u64 seed,
            u64 backing_length, disk_shape shape = {})
      : random_(seed), cluster_(cluster), filled_(shape.filled * cluster),
        one_flush_in_(shape.one_flush_in), compresses_(shape.compresses) {
    const u64 length = shape.clusters * cluster;
    if (*shape.encryption != 0)
      b_.add_secret("sec0", test_passphrase);
    disk_ = &b_.create("d", length, create_options(shape.encryption, create));
    if (shape.encryption == std::string("aes"))
      make_legacy(*disk_);
    decrypt_ = decryption_of(b_.bench, shape.encryption, *disk_);
    backing_ = pattern(backing_length, seed);
    if (backing_length != 0)
      b_.place("base", backing_);
    root_ = &b_.open("d", open_options(shape.encryption, open), backing_length != 0 ? "base" : "");
    model_ = backing_;
    model_.resize(length);
    if (filled_ != 0) {
      const auto bytes = pattern(filled_, seed + 1);
      b_.bench.must(root_->write(0, bytes));
      b_.bench.must(root_->flush());
      std::ranges::copy(bytes, model_.begin());
    }
    start_ = disk_->bytes;
    disk_->keeps_log = true;
    flushes_.push_back({0, model_});
    for (int i = 0; i < shape.steps; i++)
      step();
    disk_->keeps_log = false;
    b_.close();
  }

  void check_cuts() {
    for_each_cut(
        start_, disk_->log, random_,
        [this](const std::vector<std::byte>& image, std::size_t cut) { check(image, cut); });
  }
  // Writes of whole pages of this length, more than one and less than a cluster.
  [[nodiscard]] u64 writes_of_several(u64 page) const {
    return static_cast<u64>(std::ranges::count_if(disk_->log, [&](const memory_event& e) {
      return e.what == memory_event::kind::write && e.range.is_aligned_to(page) &&
             e.range.length > page && e.range.length < cluster_;
    }));
  }

private:
  void step() {
    const u64 kind = random_() % 10;
    const u64 offset = filled_ + random_() % (model_.size() - filled_);
    u64 length = std::min<u64>(1 + random_() % (3 * cluster_), model_.size() - offset);
    if (kind < 5 && compresses_ && random_() % 2 == 0) {
      const u64 from = align_down(offset, cluster_);
      length = std::min(align_up(length, cluster_), model_.size() - from);
      note(from, compressible_pattern(length, cluster_, random_()));
      b_.bench.must(root_->write(from, writes_.back().bytes, write_flag::compressed));
    } else if (kind < 5) {
      note(offset, pattern(length, random_()));
      b_.bench.must(root_->write(offset, writes_.back().bytes));
    } else if (kind < 8) {
      const byte_range r = byte_range::between(align_down(offset, cluster_),
                                               align_down(offset, cluster_) + cluster_);
      note(r.offset, std::vector<std::byte>(r.length));
      if (kind == 5) {
        b_.bench.must(root_->write_zeroes(r, write_flag::may_unmap));
      } else {
        b_.bench.must(root_->discard(r));
      }
    } else if (one_flush_in_ == 1 || random_() % one_flush_in_ == 0) {
      b_.bench.must(root_->flush());
      flushes_.push_back({disk_->log.size(), model_});
    }
  }
  void note(u64 offset, std::vector<std::byte> bytes) {
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
    writes_.push_back({disk_->log.size(), {offset, bytes.size()}, std::move(bytes)});
  }
  void check(const std::vector<std::byte>& image, std::size_t cut) {
    const check_report report = check_image(image);
    REQUIRE_MESSAGE(report.errors.empty(), "cut " << cut << ": " << report.text());
    const std::vector<std::byte> disk = read_disk(image, backing_, decrypt_);
    const auto last = std::ranges::find_if(flushes_.rbegin(), flushes_.rend(),
                                           [&](const guest_state& f) { return f.events <= cut; });
    // Byte by byte: the flushed value, or one that was written after that flush.
    auto at = disk.begin();
    for (;;) {
      const auto differs =
          std::mismatch(at, disk.end(), last->flushed.begin() + (at - disk.begin()));
      if (differs.first == disk.end())
        return;
      const auto offset = static_cast<u64>(differs.first - disk.begin());
      const auto length = written_since(last->events, cut, offset, disk);
      REQUIRE_MESSAGE(length > 0, "cut " << cut << " of " << disk_->log.size() << ": guest byte "
                                         << offset << " is neither old nor new");
      at = differs.first + static_cast<i64>(length);
    }
  }
  // How many bytes from `offset` on are what a write after the flush left there; 0: none is.
  u64 written_since(std::size_t flush, std::size_t cut, u64 offset,
                    const std::vector<std::byte>& disk) const {
    u64 longest = 0;
    for (const guest_write& w : writes_) {
      if (w.begins < flush || w.begins > cut || !w.range.contains(offset))
        continue;
      const auto from = w.bytes.begin() + static_cast<i64>(offset - w.range.offset);
      const auto same = std::mismatch(from, w.bytes.end(), disk.begin() + static_cast<i64>(offset));
      longest = std::max(longest, static_cast<u64>(same.first - from));
    }
    return longest;
  }

  qcow2_bench b_;
  std::mt19937_64 random_;
  u64 cluster_;
  u64 filled_;
  u64 one_flush_in_;
  bool compresses_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  std::vector<std::byte> start_, model_, backing_;
  std::vector<guest_state> flushes_;
  std::vector<guest_write> writes_;
  decryption decrypt_;
};

} // namespace

// One seed of each: the crash run (tests/crash) has many, of more shapes.
TEST_CASE("qcow2: a crash at any point loses nothing that was flushed and mixes nothing up") {
  for (u64 seed = 1; seed <= 1; seed++) {
    CAPTURE(seed);
    crash_run({{"cluster_size", "512"}}, {}, 512, seed, 0).check_cuts();
    crash_run({{"cluster_size", "512"}, {"refcount_bits", "64"}}, {}, 512, seed, 7000).check_cuts();
    crash_run({{"cluster_size", "1K"}}, {{"pass-discard-other", "on"}, {"l2-cache-size", "1"}},
              1024, seed, 30000)
        .check_cuts();
    crash_run({{"cluster_size", "1K"}, {"lazy_refcounts", "on"}}, {}, 1024, seed, 0).check_cuts();
    crash_run({{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384, seed, 200000)
        .check_cuts();
    crash_run({{"cluster_size", "1K"}}, {{"discard-no-unref", "on"}}, 1024, seed, 0).check_cuts();
  }
}

// Compressed clusters share host clusters, down to the same sector.
TEST_CASE(
    "qcow2: a crash while compressed clusters are packed loses nothing and mixes nothing up") {
  const disk_shape shape{.steps = 60, .one_flush_in = 2, .compresses = true};
  for (u64 seed = 1; seed <= repetitions(3); seed++) {
    CAPTURE(seed);
    crash_run({{"cluster_size", "1K"}}, {}, 1024, seed, 0, shape).check_cuts();
    crash_run({{"cluster_size", "4K"}, {"compression_type", "zstd"}}, {}, 4096, seed, 30000, shape)
        .check_cuts();
    crash_run({{"cluster_size", "2K"}, {"refcount_bits", "1"}}, {}, 2048, seed, 0, shape)
        .check_cuts();
    crash_run({{"cluster_size", "2K"}, {"lazy_refcounts", "on"}}, {{"pass-discard-other", "on"}},
              2048, seed, 0, shape)
        .check_cuts();
    crash_run({{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384, seed, 200000,
              {.steps = 30, .compresses = true})
        .check_cuts();
  }
}

// Adjacent pages go in one write, which is no more atomic than several were.
TEST_CASE("qcow2: a crash while adjacent pages are written in one request loses nothing") {
  const option_list small_pages{{"l2-cache-entry-size", "512"}};
  const disk_shape many{.clusters = 700, .steps = 60, .one_flush_in = 3};
  for (u64 seed = 1; seed <= repetitions(2); seed++) {
    CAPTURE(seed);
    for (const u64 backing_length : {0, 300000}) {
      crash_run run({{"cluster_size", "4K"}}, small_pages, 4096, seed, backing_length, many);
      REQUIRE(run.writes_of_several(sector) > 0); // or this proves nothing
      run.check_cuts();
    }
  }
}

TEST_CASE("qcow2: a crash while refcount blocks and the refcount table grow loses nothing") {
  const option_list wide{{"cluster_size", "512"}, {"refcount_bits", "64"}};
  for (u64 seed = 1; seed <= repetitions(3); seed++) {
    CAPTURE(seed);
    crash_run(wide, {}, 512, seed, 0, {.clusters = 200, .filled = 40}).check_cuts();
    if (seed > 1 || is_sanitized)
      continue;
    // One cluster of table describes 4096 clusters.
    crash_run(wide, {}, 512, seed, 0, {.clusters = 4500, .filled = 3940}).check_cuts();
  }
}

// A cluster that was never written does not read as zeroes once it is decrypted, so nothing may be
// linked before its data; a torn write leaves whole sectors, each old or new.
TEST_CASE("qcow2: a crash of an encrypted image loses nothing and mixes nothing up") {
  for (u64 seed = 1; seed <= 1; seed++) {
    CAPTURE(seed);
    for (const u64 backing_length : {0, 30208}) {
      crash_run(small_luks({{"cluster_size", "2K"}}), {}, 2048, seed, backing_length,
                {.encryption = "luks"})
          .check_cuts();
      crash_run({{"cluster_size", "1K"}}, {}, 1024, seed, backing_length, {.encryption = "aes"})
          .check_cuts();
    }
    crash_run(small_luks({{"cluster_size", "16K"}, {"extended_l2", "on"}}), {}, 16384, seed, 200192,
              {.steps = 30, .encryption = "luks"})
        .check_cuts();
  }
}
