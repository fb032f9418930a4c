// SPDX-License-Identifier: MIT
// An open qcow2 image: the driver instance. What it is made of:
//   host_file          the file, checks before writes, corruption
//   metadata_store     cached L2 slices and refcount blocks, and their order on the disk
//   cluster_allocator  refcounts
//   l1_                the active L1 table, written through
//   snapshots_         the table of internal snapshots, as on the disk
//   bitmaps_           the directory of persistent bitmaps, as on the disk
// Sources by task: image_open.cpp, image_reopen.cpp, image_map.cpp (reading), image_write.cpp,
// image_compress.cpp, image_clear.cpp (zero, discard), image_resize.cpp, image_backing.cpp (the
// backing name), image_check.cpp, image_data_file.cpp, image_snapshots.cpp, snapshot_reader.cpp,
// image_references.cpp (what tables refer to), image_vmstate.cpp, image_encryption.cpp,
// image_amend.cpp (version and other properties), image_expand.cpp, image_key_slots.cpp,
// image_empty.cpp, image_bitmaps.cpp.
#pragma once

#include "drivers/format/common/luks1_header.h"
#include "drivers/format/common/sector_cipher.h"
#include "drivers/format/qcow2/allocation_list.h"
#include "drivers/format/qcow2/amend_plan.h"
#include "drivers/format/qcow2/bitmap_table.h"
#include "drivers/format/qcow2/entry_change.h"
#include "drivers/format/qcow2/header_switch.h"
#include "drivers/format/qcow2/inflated_cache.h"
#include "drivers/format/qcow2/reference_list.h"
#include "drivers/format/qcow2/settings.h"
#include "drivers/format/qcow2/snapshot_table.h"
#include "drivers/format/qcow2/write_content.h"
#include "graph/io/sleep.h"

namespace bgfs::qcow2 {

struct image_request {
  loop& home;
  edge* file = nullptr;
  edge* data_file = nullptr; // external
  node* self = nullptr;      // null while an image is being created
  bool is_read_only = false;
  bool keeps_data_file = false;          // of a new image: the content of the file is the disk
  const options* given = nullptr;        // null: the defaults
  const secret_store* secrets = nullptr; // while it is being opened; null: there are none
  bool is_info_only = false;             // opens without its key and its external data file
};

struct new_encryption;

task<header> read_header(edge& file, header_use use = header_use::disk);
// Whether an image that is going to be written is fit for it.
[[nodiscard]] result<> check_writable(const header& h, const image_request& request);
// Whether there is a data file exactly where the header wants one.
[[nodiscard]] result<> check_data_file(const header& h, const image_request& request);

// Whether it can have internal snapshots at all, and whether its disk can become that of one.
[[nodiscard]] result<> check_may_have_snapshots(const header& h);
[[nodiscard]] result<> check_may_revert(const header& h, const snapshot& s);

// Consecutive guest bytes that are stored in the same way.
struct guest_run {
  subcluster_kind kind = subcluster_kind::unallocated;
  u64 length = 0;
  host_offset host;       // of the first byte; where has_host(kind)
  bool is_copied = false; // may be written in place
  l2_entry entry;         // of the first cluster
};

class image final : public driver,
                    public readable,
                    public writable,
                    public copyable,
                    public mappable,
                    public zeroable,
                    public compressible,
                    public discardable,
                    public flushable,
                    public resizable,
                    public reopenable,
                    public backing_writer,
                    public checkable,
                    public snapshottable,
                    public vmstate_store,
                    public bitmap_store,
                    public amendable,
                    public emptiable {
public:
  static task<std::unique_ptr<image>> open(image_request request);
  ~image() override;

  [[nodiscard]] u64 length() const override { return header_.disk_length; }
  task<void> close() override;
  void refine_limits(block_limits& limits) const override;
  [[nodiscard]] std::optional<image_reference> backing_reference() const override;
  void backing_changed(edge* backing) override { backing_ = backing; }
  [[nodiscard]] permissions child_permissions(const edge& child,
                                              permissions parents) const override;
  [[nodiscard]] driver_info info() const override;

  [[nodiscard]] u64 cached_l2_pages() const { return store_->l2_cache().pages_in_use(); }
  [[nodiscard]] std::size_t inflated_clusters() const { return inflated_.count(); }

  task<void> read(u64 offset, std::span<std::byte> bytes) override;
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags) override;
  task<void> copy_from(bytes_of_file source, u64 to_offset) override;
  task<extent> map(byte_range range) override;
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override;
  task<void> write_compressed(u64 offset, std::span<const std::byte> bytes) override;
  task<void> write_zeroes(byte_range range, write_flags flags) override;
  [[nodiscard]] write_flags supported_zero_flags() const override;
  task<void> discard(byte_range range) override;
  task<void> write_back() override;
  task<void> flush_to_disk() override;
  task<void> truncate(u64 length, truncate_options options) override;
  task<void> prepare_reopen(const options& given, const node_options& generic) override;
  void commit_reopen() noexcept override;
  task<void> finish_reopen() override;
  void abort_reopen() noexcept override;
  task<void> change_backing_reference(std::optional<image_reference> reference) override;
  // A report while the image goes on being used: clusters of requests that are under way may show
  // up as leaks. Leaks are repaired while it is drained, and nothing else.
  task<check_result> check(check_mode mode, check_sink& sink) override;
  [[nodiscard]] std::vector<snapshot_info> snapshots() const override;
  task<std::string> create_snapshot(new_snapshot wanted) override;
  task<void> delete_snapshot(snapshot_key which) override;
  task<void> rename_snapshot(snapshot_key which, std::string name) override;
  task<void> revert_to_snapshot(snapshot_key which) override;
  task<std::unique_ptr<bgfs::snapshot_view>> open_snapshot(snapshot_key which,
                                                           std::string holder) override;
  task<void> read_vmstate(u64 position, std::span<std::byte> bytes) override;
  task<void> write_vmstate(u64 position, std::span<const std::byte> bytes) override;
  [[nodiscard]] std::vector<bitmap_definition> stored_bitmaps() const override;
  [[nodiscard]] result<> check_can_store(std::span<const bitmap_definition> wanted) const override;
  task<void> read_bitmap(dirty_bitmap& into) override;
  task<void> begin_bitmap_change() override;
  task<void> store_bitmaps(std::span<dirty_bitmap* const> all) override;
  task<void> remove_bitmaps(std::vector<std::string> names) override;
  task<void> amend(amend_request request) override;
  task<void> make_empty() override;
  void detach_loop() override;
  void attach_loop(loop& home) override;

private:
  image(image_request request, header h, const settings& s);
  [[nodiscard]] const geometry& g() const { return header_.g; }
  [[nodiscard]] entry_rules rules() const {
    return {header_.g, header_.version, header_.has_data_file()};
  }
  // May be written in place: nobody else refers to the cluster. Those of an external data file are
  // not counted and belong to one guest cluster each.
  [[nodiscard]] bool is_own(l2_entry entry) const {
    return entry.is_copied() || header_.has_data_file();
  }

  // image_open.cpp
  task<void> load_tables(const settings& s);
  task<void> load_l1();
  task<void> load_snapshots();
  task<void> find_metadata(overlap_map& known);
  task<void> find_snapshots(overlap_map& known);
  task<void> find_inactive_l2(overlap_map& known, host_offset l1, u32 entries, std::string name);
  task<void> make_writable();
  task<void> detect_preallocation();
  // What the format demands before the first change: persistent bitmaps are marked IN_USE.
  task<void> prepare_to_write();
  task<void> begin_metadata_change();
  task<void> write_features();
  task<void> close_writable();
  void arm_cleaning();

  // image_check.cpp
  task<check_result> check_locked(check_mode mode, check_sink& sink);
  task<check_result> repair_leaks(check_sink& sink);

  // image_reopen.cpp
  task<void> check_may_become_writable();
  // image_backing.cpp
  task<std::vector<std::byte>> read_first_cluster();
  task<void> switch_header(header_switch change);
  task<void> settle_header(header_switch change);

  // image_encryption.cpp
  task<void> open_encryption();
  task<void> open_luks(std::span<const std::byte> passphrase);
  [[nodiscard]] result<const secret_bytes*> find_key() const;
  [[nodiscard]] result<> check_has_key() const;
  [[nodiscard]] u64 sector_of(guest_offset at, host_offset host) const;
  task<void> read_encrypted(guest_offset at, host_offset host, std::span<std::byte> bytes);
  task<void> write_encrypted(guest_offset at, host_offset host, std::span<const std::byte> bytes);
  task<void> write_encrypted_zeroes(guest_offset at, host_offset host, u64 length);
  [[nodiscard]] value describe_encryption() const;
  // image_amend.cpp
  using progress_function = std::function<void(u64 done, u64 total)>;
  task<void> amend_in_order(const amend_request& request, const amend_plan& plan);
  task<void> begin_amending(const amend_plan& plan);
  task<void> give_snapshots_lengths();
  task<void> change_header(const amend_plan& plan);
  task<void> change_width(unsigned order, progress_function progress);
  task<void> downgrade(progress_function progress);
  task<void> switch_header_to(std::function<void(header&)> change);
  // image_expand.cpp: zero clusters become others that read as zeroes, for version 2.
  struct expansion {
    bool is_active = false; // of the live disk: COPIED flags mean something
    bool has_backing = false;
  };
  task<void> expand_zeroes(progress_function progress);
  task<void> expand_tables(const std::vector<u64>& l1, expansion how, progress_function progress);
  struct expanded_slice {
    host_offset at;
    guest_offset first; // that it describes
    u64 references = 1; // to its table
  };
  [[nodiscard]] guest_offset place_in(u64 l1_index, u64 at) const;
  task<void> expand_slice(expanded_slice slice, expansion how);
  task<l2_entry> expanded(l2_entry old, guest_offset guest, u64 references, expansion how);

  // image_empty.cpp
  [[nodiscard]] result<> check_may_become_empty() const;
  task<void> empty_at_once();

  // image_key_slots.cpp
  struct slot_change {
    const options& given;
    const secret_store* secrets;
    bool is_forced;
  };
  task<void> change_keys(const amend_request& request);
  task<void> add_key(slot_change change);
  task<void> erase_keys(slot_change change);
  task<std::vector<unsigned>> find_erased(slot_change change);
  // Makes an empty image one that is encrypted with LUKS, and whose disk will have this length.
  task<void> set_up_encryption(const new_encryption& how, u64 length);

  // image_map.cpp
  // Which disk is looked at: the live one, a snapshot's, or what lies behind one.
  struct disk_state {
    const std::vector<u64>* l1;
    u64 length;
    const std::string* snapshot = nullptr; // the name of one; null: the live disk
    bool shows_backing = true;
  };
  [[nodiscard]] disk_state live() const { return {&l1_, header_.disk_length}; }
  enum class split_at : bool { kind, kind_and_copied };
  // Without I/O; nullopt if the L2 slice is not cached.
  [[nodiscard]] std::optional<guest_run> lookup(const disk_state& disk, guest_offset at, u64 length,
                                                split_at split);
  [[nodiscard]] std::optional<guest_run> lookup(guest_offset at, u64 length, split_at split) {
    return lookup(live(), at, length, split);
  }
  // Loads a slice and, where slices are loaded in the order of the disk, the next ones beside it.
  task<void> load_slice(disk_state disk, guest_offset at, metadata_lock holds);
  task<void> load_wanted(host_offset slice);
  task<guest_run> find_run(disk_state disk, guest_offset at, u64 length, split_at split,
                           metadata_lock holds);
  task<guest_run> find_run(guest_offset at, u64 length, split_at split, metadata_lock holds) {
    return find_run(live(), at, length, split, holds);
  }
  [[nodiscard]] extent to_extent(const disk_state& disk, guest_offset at,
                                 const guest_run& run) const;
  // kind_of, and whether the cluster is where an external data file has it.
  [[nodiscard]] subcluster_kind kind_at(l2_entry entry, guest_offset cluster, unsigned sub) const;
  // Of an existing L2 table.
  [[nodiscard]] host_offset slice_of(const disk_state& disk, guest_offset at) const;
  [[nodiscard]] host_offset slice_of(guest_offset at) const { return slice_of(live(), at); }
  [[nodiscard]] u64 slice_span() const; // guest bytes one slice describes
  [[nodiscard]] u64 index_in_slice(guest_offset at) const;
  // Whether the entries, of one slice, can be: what is replaced will be freed. With the lock held.
  task<void> check_entries(guest_offset first, u64 count);
  task<void> report_invalid(disk_state disk, guest_offset at, guest_run run);
  task<void> report_invalid(guest_offset at, const guest_run& run) {
    return report_invalid(live(), at, run);
  }
  task<void> read_stored(guest_offset at, host_offset host, std::span<std::byte> bytes);
  task<void> read_guest(disk_state disk, guest_offset at, std::span<std::byte> bytes);
  task<void> read_guest(guest_offset at, std::span<std::byte> bytes) {
    return read_guest(live(), at, bytes);
  }
  task<void> read_backing(guest_offset at, std::span<std::byte> bytes);
  task<void> read_compressed(l2_entry entry, u64 within, std::span<std::byte> bytes);
  task<void> inflate(l2_entry entry, std::span<std::byte> cluster);
  // Whether nothing in this image or below it makes the range anything but zeroes.
  enum class zero_because : u8 { backing_ends, image_says_so };
  task<bool> reads_as_zero(byte_range guest, zero_because why = zero_because::backing_ends);
  [[nodiscard]] u64 backing_length() const;
  // The header names a backing file, or there is one: unallocated does not mean zero.
  [[nodiscard]] bool may_have_backing() const;

  // image_write.cpp
  // Tells who keeps answers of try_map, in the step that made them untrue.
  void mapping_changed(byte_range guest);
  struct write_plan {
    guest_offset at;          // of the guest's bytes
    write_content data;       // those of them that fit the plan
    byte_range written;       // guest bytes written with what is copied around the data
    cluster_run clusters;     // where it goes
    bool is_in_place = false; // the clusters are the entry's own
    bool is_taken = false;    // they were allocated for it
    bool reads_zero = false;  // the clusters are known to read as zeroes
    bool is_fresh = false;    // so they do, and the guest had zeroes there
  };
  task<void> write_guest(guest_offset at, write_content data);
  task<void> write_stored(guest_offset at, host_offset host, write_content data);
  task<void> write_stored_zeroes(guest_offset at, host_offset host, u64 length);
  task<u64> write_slowly(guest_offset at, write_content data);
  task<std::optional<write_plan>> plan_write(guest_offset at, write_content data);
  task<void> link_then_write(const write_plan& plan, async_mutex::guard lock);
  task<void> write_then_link(const write_plan& plan, async_mutex::guard lock);
  task<void> give_back(const write_plan& plan);
  [[nodiscard]] bool reads_as_zero(l2_entry entry, guest_offset cluster) const;
  [[nodiscard]] byte_range with_copies(const geometry& g, byte_range guest, l2_entry first,
                                       l2_entry last, bool is_in_place) const;
  task<void> write_plan_data(const write_plan& plan);
  task<void> write_edge(byte_range guest, const write_plan& plan);
  task<void> write_merged(const write_plan& plan);
  task<void> read_around(const write_plan& plan, std::span<std::byte> whole);
  task<void> link_plan(const write_plan& plan);
  void free_entry(l2_entry entry, free_reason reason);
  task<void> make_l2_writable(u64 l1_index);
  task<std::vector<std::byte>> copy_l2(host_offset table);
  task<void> install_l2(u64 l1_index, new_clusters place, std::vector<std::byte> bytes,
                        bool& is_unknown);
  task<void> write_l1_entry(u64 l1_index, u64 entry);
  task<void> write_back_locked();

  // image_compress.cpp
  struct compressed_batch;
  struct packed_streams;
  [[nodiscard]] result<> check_compressible(byte_range guest) const;
  task<void> compress(compressed_batch& batch);
  task<void> compress_some(compressed_batch& batch, u64 first, u64 end);
  task<void> store_batch(compressed_batch& batch);
  [[nodiscard]] packed_streams pack(compressed_batch& batch, u64 first, u64 end) const;
  task<void> store_streams(packed_streams streams);
  task<u64> store_some(packed_streams streams);
  task<void> place_streams(packed_streams streams, std::vector<byte_range>& places);
  task<void> write_streams(packed_streams streams, std::span<const byte_range> places);
  task<void> link_streams(guest_offset at, std::span<const byte_range> places);

  // image_clear.cpp
  enum class clear_mode : u8 { zero, remove };
  struct clear_request {
    byte_range guest;
    clear_rules rules;
    clear_mode mode = clear_mode::zero;
    free_reason reason = free_reason::request;
  };
  task<void> clear(clear_request request);
  task<u64> clear_some(clear_request request);
  [[nodiscard]] std::optional<entry_change> change_of(const clear_request& request, l2_entry old,
                                                      guest_offset cluster) const;
  task<u64> clear_slice(clear_request request);

  // image_data_file.cpp
  // The clusters from `cluster` on, in the external data file.
  [[nodiscard]] cluster_run place_in_data_file(guest_offset cluster, u64 count) const;
  task<void> zero_raw_data(byte_range range, write_flags flags);
  task<void> grow_data_file(u64 before, u64 length, truncate_options options);

  // image_resize.cpp
  task<void> grow(u64 length, truncate_options options);
  task<void> shrink(u64 length);
  task<void> grow_l1(u64 entries);
  task<void> write_disk_length(u64 length);
  task<void> clear_new_part(u64 before, u64 length, preallocation mode);
  task<void> write_zero_data(byte_range guest);
  task<void> preallocate(byte_range guest, preallocation mode);
  task<void> preallocate_table(byte_range guest, preallocation mode);
  task<void> drop_l2_tables(u64 first_kept);
  task<void> trim_file();

  // image_references.cpp: all that an L1 table refers to, and what refers to it is changed by.
  enum class walk_step : u8 {
    check_adding,   // may everything get one more reference
    add,            // ... which it gets; the L2 tables are shared from now on (no COPIED)
    check_dropping, // is everything counted, and nobody else's
    drop,           // one reference is gone
  };
  struct reference_walk {
    walk_step step;
    std::string whose;                         // "the disk", "snapshot 'x'"
    u64 added = 0;                             // references that `add` has made
    u64 left = ~u64{0};                        // that `drop` takes away at most
    std::unordered_map<u64, u64> crowded = {}; // references to clusters that may get too many
    time_slice slice = {};                     // a large image has millions
  };
  task<void> walk_references(std::span<const u64> l1, reference_walk& walk);
  task<void> walk_table(host_offset table, reference_walk& walk);
  task<void> walk_slice(host_offset slice, reference_walk& walk);
  task<void> visit(const host_reference& what, reference_walk& walk);
  task<void> check_room(const host_reference& what, reference_walk& walk);
  task<void> drop(host_reference what, reference_walk& walk);
  // Gives back the COPIED flag to what the active tables alone refer to.
  task<void> restore_copied();
  task<void> restore_copied_in(host_offset slice);
  task<void> write_active_l1();

  // image_snapshots.cpp
  struct open_view {
    std::string id;
    std::string holder;
  };
  class snapshot_reader;
  struct snapshot_places {
    cluster_run l1;
    cluster_run table;
  };
  task<std::size_t> find(snapshot_key which) const;
  [[nodiscard]] result<> check_not_open(const snapshot& s) const;
  task<void> begin_snapshot_change();
  task<cluster_run> place_for(u64 bytes);
  task<std::vector<u64>> load_snapshot_l1(snapshot s);
  task<void> write_l1_copy(std::span<const u64> l1, cluster_run place, metadata_kinds own);
  task<std::string> create_locked(const new_snapshot& wanted);
  task<void> write_snapshot(std::vector<snapshot> all, snapshot_places places,
                            reference_walk& adding);
  task<void> undo_sharing(const std::vector<u64>& l1, reference_walk adding);
  task<void> give_back(cluster_run place);
  task<void> switch_snapshots(std::vector<snapshot> next);
  task<void> switch_snapshots_to(std::vector<snapshot> next, std::vector<std::byte> bytes,
                                 cluster_run place);
  task<void> free_snapshot(snapshot s, const std::vector<u64>& l1);
  task<void> switch_disk(const snapshot& s, std::vector<u64> l1, cluster_run place,
                         reference_walk& adding);
  task<void> free_former_disk(const std::vector<u64>& l1, cluster_run place);
  task<void> check_overlaps_anew();
  task<void> write_and_flush();
  task<void> apply_all_frees();

  // image_bitmaps.cpp
  struct bitmap_switch {
    std::vector<stored_bitmap> next;
    std::vector<cluster_run> taken; // for what is new; given back if it fails
    std::vector<u64> freed;         // clusters that are nobody's when it is done
  };
  task<void> load_bitmaps();
  task<void> mark_bitmaps();
  [[nodiscard]] stored_bitmap* find_stored(std::string_view name);
  task<std::vector<u64>> read_bitmap_table(stored_bitmap b, u64 entries);
  task<void> store_bitmaps_locked(std::span<dirty_bitmap* const> all);
  task<void> write_bitmaps(std::span<dirty_bitmap* const> all, bitmap_switch& change);
  task<void> write_bitmap(const dirty_bitmap& b, stored_bitmap& into, bitmap_switch& change);
  task<void> write_bitmap_run(const dirty_bitmap& b, std::span<const u64> indices, u64* table,
                              bitmap_switch& change);
  task<void> remove_bitmaps_locked(std::vector<std::string> names);
  task<void> find_freed(stored_bitmap b, bitmap_switch& change);
  task<void> switch_bitmaps(bitmap_switch& change);
  task<void> switch_directory(bitmap_switch& change);
  task<void> free_bitmap_clusters(std::vector<u64> clusters);
  [[nodiscard]] value describe_bitmaps() const;

  // image_vmstate.cpp
  [[nodiscard]] u64 vmstate_offset(u64 disk_length) const;
  task<void> read_vmstate_of(disk_state disk, u64 position, std::span<std::byte> bytes);
  task<void> make_vmstate_room(u64 entries);
  task<void> write_vmstate_cluster(u64 position, std::span<const std::byte> bytes);

  // What the commit of a reopen puts in force; everything in it was made and read before.
  struct reopening {
    settings how;
    bool is_read_only = false;
    std::unique_ptr<metadata_region> region; // null: the caches stay
    std::optional<overlap_map> overlaps;     // nullopt: the checks stay
  };

  loop* home_;
  image_request request_;
  header header_;
  host_file file_;
  std::unique_ptr<metadata_store> store_;
  std::unique_ptr<cluster_allocator> allocator_;
  std::vector<u64> l1_; // entries as on the disk
  std::vector<snapshot> snapshots_;
  u64 snapshot_table_bytes_ = 0; // that their table occupies
  std::vector<stored_bitmap> bitmaps_;
  std::list<open_view> views_;
  edge* backing_ = nullptr;
  settings settings_;
  bool is_lazy_ = false;
  bool is_prepared_ = false; // prepare_to_write has run
  bool may_be_preallocated_ = false;
  bool has_compressed_ = false; // written compressed clusters, which end anywhere
  bool has_shrunk_ = false;     // and the end of the file was not cut off since

  allocation_list allocations_;
  u64 next_slice_ = 0; // the guest offset of the slice that a reader from front to back wants next
  inflated_cache inflated_;
  std::optional<crypt::luks1_header> luks_;
  std::unique_ptr<crypt::sector_cipher> cipher_; // null: not encrypted, or only looked at

  struct cleaning_timer : timer {
    image* owner = nullptr;
    std::chrono::milliseconds interval{};
  };
  cleaning_timer cleaning_;
  std::optional<reopening> next_; // between the preparation of a reopen and its end

  friend task<void> create_image(create_request request);
};

} // namespace bgfs::qcow2
