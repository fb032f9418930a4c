// SPDX-License-Identifier: MIT
// Checking and repairing an image (reference section 3.12): every reference to every host cluster
// is counted and held against the refcounts. Nobody else uses the image meanwhile. Nothing is taken
// from the driver's caches, and nothing of the image has to be sound besides its header.
//
// The sources, in the order of their work:
//   snapshot_records.cpp  the snapshot table
//   walk.cpp              L1 and L2 tables, each L2 table once however often it is named
//   count.cpp             references to everything
//   compare.cpp           counts against refcounts, and giving right values to wrong refcounts
//   copied.cpp            the COPIED flags
//   repair.cpp            the order of a repair
//   rebuild.cpp           new refcount blocks and table when the old ones are of no use
//
// Wording and classes of findings are those that scripts know from `qemu-img check`. What a table
// says twice is counted twice, but told once.
#pragma once

#include "drivers/format/qcow2/check/reference_counts.h"
#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/l2_entry.h"
#include "graph/io/sleep.h"
#include "graph/model/driver.h"
#include "graph/model/edge.h"

#include <map>

namespace bgfs::qcow2 {

// For tests: small limits give many windows and rounds.
struct check_limits {
  u64 count_bytes = 96 * MiB;        // of reference_counts
  u64 tables_at_once = u64{1} << 20; // L2 tables of snapshots whose references are added up at once
  u64 blocks_cached = 256;           // refcount blocks, at most 16 MiB of them
};

struct check_request {
  edge* file = nullptr;
  header* h = nullptr; // follows what a repair writes
  check_mode mode = check_mode::report;
  check_sink* sink = nullptr;
  check_limits limits = {};
};

// Needs the permissions to write and to resize the file for anything but check_mode::report.
task<check_result> check_image(check_request request);

// What the snapshot table says of one snapshot, without its names.
struct snapshot_record {
  u64 at = 0; // of the entry, in the file
  u64 length = 0;
  host_offset l1;
  u32 l1_entries = 0;
  u32 extra_length = 0;
};

class checker {
public:
  explicit checker(check_request request);
  task<check_result> run();

private:
  [[nodiscard]] const geometry& g() const { return header_.g; }
  [[nodiscard]] bool repairs_all() const { return mode_ == check_mode::repair_all; }
  [[nodiscard]] bool has_data_file() const {
    return (header_.incompatible & incompatible_bit::data_file) != 0;
  }
  [[nodiscard]] u64 cluster_of(u64 host) const { return host >> g().cluster_bits; }
  [[nodiscard]] u64 file_clusters() const { return divide_up(file_length_, g().cluster()); }

  // checker.cpp
  // What lies behind the end of the file reads as zeroes.
  task<void> read(u64 at, std::span<std::byte> bytes, std::string what);
  // The same for tables. Those of an image that is only broken do not take more than its file;
  // those of a hostile one might, over and over.
  task<void> read_table(u64 at, std::span<std::byte> bytes, std::string what);
  task<void> write(u64 at, std::span<const std::byte> bytes, std::string what);
  task<void> flush();
  // Others have their turn where the check has been running for a while; it ends here if cancelled.
  task<void> give_way();
  task<void> step_done();
  template<class... Args>
  void tell(fmt::format_string<Args...> format, Args&&... args) {
    if (!is_silent_)
      sink_.message(fmt::format(format, std::forward<Args>(args)...));
  }
  // Whether what a table says is told and counted now: once, however many windows there are.
  [[nodiscard]] bool is_telling() const { return !is_silent_ && counts_.first() == 0; }
  template<class... Args>
  void corrupt(u64 times, fmt::format_string<Args...> format, Args&&... args) {
    if (!is_telling())
      return;
    result_.corruptions += times;
    sink_.message(fmt::format(format, std::forward<Args>(args)...));
  }
  // The same for what new refcounts put right.
  template<class... Args>
  void refcounts_corrupt(fmt::format_string<Args...> format, Args&&... args) {
    refcount_corruptions_ += is_telling();
    corrupt(1, format, std::forward<Args>(args)...);
  }
  task<void> examine();
  task<void> load_refcount_table();

  // snapshot_records.cpp
  task<void> read_snapshots();
  task<bool> read_snapshot(u64 at);
  void group_snapshots();
  task<std::string> name_snapshot(snapshot_record s);
  task<std::vector<std::byte>> make_snapshot_table();

  // walk.cpp
  struct table_visit {
    u64 at = 0;     // of an L2 table, as the L1 entries say: perhaps misaligned
    u64 weight = 0; // how many L1 entries name it, of all L1 tables
  };
  struct active_table {
    u64 at = 0;
    u32 active = 0; // how many entries of the active L1 table name it
    u32 snapshots = 0;
    [[nodiscard]] u64 weight() const { return u64{active} + snapshots; }
  };
  // What the clusters of one L2 table are like. Where the next table begins counts for nothing.
  struct fragments {
    u64 allocated = 0;
    u64 fragmented = 0;
    u64 compressed = 0;
    u64 next = 0; // behind the last normal one; 0: there was none
  };
  using table_work = task<void> (checker::*)(table_visit v);
  task<void> load_l1();
  task<void> add_up_active();
  // Calls `work` for each L2 table, in the order of the disk for active ones.
  task<void> for_active_tables(table_work work);
  task<void> for_snapshot_tables(table_work work);
  task<u64> gather_tables(u64 from, std::map<u64, u64>& weights);
  task<void> read_snapshot_l1(snapshot_record s, std::vector<u64>& entries);
  [[nodiscard]] active_table* find_active(u64 at);
  task<std::span<std::byte>> read_l2(u64 at);
  task<void> count_l2(table_visit v);
  task<void> clear_invalid(table_visit v);
  void add_fragments(const fragments& f);

  // count.cpp
  task<void> count_everything();
  task<void> count_active();
  task<void> count_snapshots();
  task<void> count_l1(host_offset l1, std::span<const u64> entries, u64 times);
  void count(u64 at, u64 length, u64 times = 1);
  task<void> count_bitmaps();
  task<void> count_bitmap_table(host_offset at, u64 entries);
  void count_blocks();
  void count_block(u64 index);
  // True: the entry is to be made to say nothing but that it reads as zeroes.
  bool count_entry(const table_visit& v, u64 index, l2_entry entry, fragments& f);
  [[nodiscard]] bool names_cluster(l2_entry entry) const; // in use or not
  [[nodiscard]] bool is_misplaced_without_data(l2_entry entry) const;
  bool count_cluster(const table_visit& v, l2_entry entry, fragments& f);
  void count_compressed(const table_visit& v, u64 index, l2_entry entry, fragments& f);

  // compare.cpp
  task<void> compare_window(bool repairs);
  task<void> compare_block(cluster_run run, bool repairs);
  void compare_uncounted(u64 from, u64 end);
  void tell_difference(u64 cluster, u64 stored, u64 counted);
  // What is stored where it may be wrong for this mode to put right.
  [[nodiscard]] bool may_adjust(u64 stored, u64 counted) const;
  [[nodiscard]] u64 clusters_end() const { return std::max(file_clusters(), counted_end_); }
  // nullopt: it has to be looked up; or, of the second, its block cannot be read.
  [[nodiscard]] std::optional<u64> known_refcount(u64 cluster) const;
  task<std::optional<u64>> stored_refcount(u64 cluster);
  task<std::span<std::byte>> load_block(u64 block);

  // copied.cpp
  task<void> check_copied();
  task<void> check_l1_copied(u64 index, bool repairs);
  task<void> check_l2_copied(const active_table& t, bool repairs);
  task<void> require_alone(byte_range table, u64 references, std::string_view what);

  // repair.cpp
  task<void> repair();
  task<void> adjust();
  task<void> clear_entries();
  task<void> finish();

  // rebuild.cpp
  struct new_refcounts {
    u64 first = 0;          // cluster: the blocks, then the table
    std::vector<u64> parts; // of the file, each described by one block; ascending
    u64 table_clusters = 0;
    u64 snapshot_clusters = 0; // behind the table; 0: the snapshot table stays
    [[nodiscard]] u64 clusters() const { return parts.size() + table_clusters + snapshot_clusters; }
    [[nodiscard]] cluster_run run() const { return {first, clusters()}; }
  };
  task<void> rebuild();
  task<void> find_parts(std::vector<u64>& parts);
  [[nodiscard]] result<new_refcounts> plan_refcounts(std::vector<u64> parts,
                                                     u64 snapshot_clusters) const;
  task<void> write_blocks(const new_refcounts& plan);
  task<void> write_table(const new_refcounts& plan, std::span<const std::byte> snapshots);
  task<void> recount_silently(u64 first);

  edge& file_;
  header& header_;
  check_mode mode_;
  check_sink& sink_;
  check_limits limits_;
  time_slice slice_;
  check_result result_;

  u64 file_length_ = 0; // rounded up to 512
  std::vector<u64> l1_;
  std::vector<u64> refcount_table_;
  std::vector<snapshot_record> snapshots_;
  // Snapshots by L1 table, and how many have the same.
  std::vector<std::pair<u32, u32>> snapshot_groups_;
  u64 snapshot_bytes_ = 0;            // of the table
  u64 snapshot_corruptions_ = 0;      // that writing the table anew takes away
  std::vector<active_table> active_;  // by place
  std::map<u64, fragments> repeated_; // of tables that the active L1 table names more than once
  fragments* current_ = nullptr;      // where count_l2 adds up an active table
  std::vector<std::byte> l2_;

  reference_counts counts_;
  u64 counted_end_ = 0;          // clusters
  bool counts_refcounts_ = true; // not while they are being replaced
  bool is_silent_ = false;
  bool needs_rebuild_ = false;
  u64 refcount_corruptions_ = 0; // of those in the result, what new refcounts take away
  u64 refcount_errors_ = 0;
  u64 entries_to_clear_ = 0; // invalid ones without data
  u64 used_end_ = 0;         // clusters
  u64 table_bytes_left_ = 0;
  u64 steps_done_ = 0;
  u64 steps_ = 0;

  struct cached_block {
    u64 used = 0; // when
    std::vector<std::byte> bytes;
  };
  std::map<u64, cached_block> blocks_; // by index of the refcount table
  std::vector<bool> differs_;          // blocks that contradict counts_
  u64 clock_ = 0;
};

} // namespace bgfs::qcow2
