// SPDX-License-Identifier: MIT
// Random operations on an image whose files record what reaches them.
#pragma once

#include "tests/crash/crash_shape.h"
#include "tests/crash/promises.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"
#include "tests/unit/lib/bitmap_actions.h"

namespace bgfs::test {

// All that a power cut needs to know of one run.
struct crash_history {
  struct recorded_file {
    std::vector<std::byte> start;
    std::vector<memory_event> log; // instants are of one clock for all files
  };
  crash_shape shape;
  std::vector<recorded_file> files; // the image; its external data file
  std::vector<std::byte> backing;
  promises acknowledged;
  decryption decrypt; // empty: not encrypted
  u64 instants = 0;
  std::vector<std::string> steps; // what was done, for a failure to show
};

// The passphrases that an image may be opened with, by the names of their secrets.
inline constexpr const char* crash_secrets[] = {"sec0", "sec1", "sec2"};
[[nodiscard]] std::string passphrase_of(const std::string& secret);

class workload {
public:
  workload(const crash_shape& shape, u64 seed);
  // Does `steps` operations and closes the image.
  crash_history run(unsigned steps);

private:
  struct operation;
  static const operation operations[];
  void prepare();
  void step();
  void open();
  void close();

  void write();
  void write_several();
  void copy();
  void zero();
  void discard();
  void flush();
  void reopen();
  void grow();
  void shrink();
  void create_snapshot();
  void delete_snapshot();
  void revert();
  void rename_snapshot();
  void add_key();
  void erase_key();
  void write_compressed();
  void add_bitmap();
  void clear_bitmap();
  void remove_bitmap();
  void amend_laziness();
  void amend_width();
  void make_empty();
  void repair_leaks();
  void repair_dirty();

  [[nodiscard]] bool always() const { return true; }
  [[nodiscard]] bool can_discard() const { return shape_.can_discard(); }
  [[nodiscard]] bool can_resize() const { return !shape_.is_v2 || promised_.snapshots().empty(); }
  [[nodiscard]] bool can_take_snapshot() const {
    return promised_.snapshots().size() < shape_.snapshots_max();
  }
  [[nodiscard]] bool has_snapshots() const { return !promised_.snapshots().empty(); }
  // A snapshot refers to every cluster once more for each compressed one that lies there.
  [[nodiscard]] bool can_compress() const {
    return shape_.encryption.empty() && !shape_.has_data_file &&
           (shape_.refcount_bits >= 16 || shape_.snapshots_max() == 0);
  }
  [[nodiscard]] bool can_revert() const { return has_snapshots() && promised_.bitmaps().empty(); }
  [[nodiscard]] bool can_add_bitmap() const {
    return !shape_.is_v2 && promised_.bitmaps().size() < 3;
  }
  [[nodiscard]] bool has_bitmaps() const { return !promised_.bitmaps().empty(); }
  [[nodiscard]] bool has_wide_counts() const { return shape_.refcount_bits >= 16 && !shape_.is_v2; }
  [[nodiscard]] bool counts_data() const { return !shape_.has_data_file; }
  [[nodiscard]] bool is_luks() const { return shape_.encryption == "luks"; }
  [[nodiscard]] bool has_two_keys() const { return is_luks() && promised_.keys().size() > 1; }
  [[nodiscard]] bool has_version_3() const { return !shape_.is_v2; }

  [[nodiscard]] u64 now() const { return clock_; }
  [[nodiscard]] u64 length() const { return promised_.disk().size(); }
  byte_range draw_range(u64 length_max);
  byte_range draw_clusters();
  std::string draw_snapshot();
  std::string draw_bitmap();
  void resize(u64 length, truncate_options how);
  void amend(const option_list& list);
  // The image is closed. `value_of` gets a refcount and makes another.
  void spoil_refcounts(const std::function<u64(u64)>& value_of);
  void repair(check_mode mode);
  // Behind the back of the image, durable at once.
  void put(u64 at, std::span<const std::byte> bytes);

  crash_shape shape_;
  std::mt19937_64 random_;
  u64 clock_ = 0;
  qcow2_bench b_;
  std::optional<snapshot_actions> actions_;
  memory_disk* disk_ = nullptr;
  memory_disk* data_ = nullptr; // null: there is none
  root* root_ = nullptr;
  root* source_ = nullptr; // of what copies are made of
  std::vector<std::byte> backing_;
  promises promised_;
  std::vector<std::string> steps_;
  bool is_recording_ = false;
};

} // namespace bgfs::test
