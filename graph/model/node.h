// SPDX-License-Identifier: MIT
// A node: one driver instance with its edges, limits, permissions and requests in flight. The
// methods below are the requests every parent may make; they check, align, split and track what the
// driver's faces then do, and supply what the driver lacks.
//
// Everything runs on the home loop of the node's graph.
#pragma once

#include "graph/io/sync.h"
#include "graph/model/dirty_bitmap.h"
#include "graph/model/driver.h"
#include "graph/model/edge.h"
#include "graph/model/node_operation.h"
#include "graph/model/statistics.h"
#include "graph/model/tracked_request.h"

#include <list>

namespace bgfs {

class graph;
struct operation_delta;

// A file of the host that holds exactly what a node shows (node::whole_host_file).
struct host_file {
  node* where; // the node of its protocol
  std::string path;
  int fd; // borrowed, while nothing is reopened or closed
};

enum class discard_mode : u8 { ignore, unmap };
enum class detect_zeroes_mode : u8 { off, on, unmap };

// The options of every node (reference section 2), after inheritance from the parent.
struct node_options {
  bool is_read_only = false;
  // `read-only: true` was written for this very node: nothing makes it writable for a while.
  bool must_stay_read_only = false;
  bool is_auto_read_only = false;
  bool force_share = false;
  discard_mode discard = discard_mode::ignore;
  detect_zeroes_mode detect_zeroes = detect_zeroes_mode::off;
  bool cache_direct = false;
  bool cache_no_flush = false;
  // False: every write of a root is durable before it is answered (write-through).
  bool cache_writeback = true;
  // Opened for face checkable alone, which the driver then has to offer although nothing else about
  // the image may be right (bgfs check). Not an option of users.
  bool is_for_check = false;

  friend bool operator==(const node_options&, const node_options&) = default;
};

// What block_status says about a run of bytes (reference section 1.6).
struct block_status {
  u64 length = 0;
  bool is_data = false;      // stored somewhere; may still read as zero
  bool is_zero = false;      // known to read as zeroes
  bool is_allocated = false; // this layer decides what is read, not its backing
  bool is_compressed = false;
  bool is_end = false;        // the run ends at the end of the node
  const node* file = nullptr; // where `offset` is; null: not known
  u64 offset = 0;
  unsigned depth = 0; // of status_above: how many layers down it was decided
};

class node {
public:
  node(graph& owner, std::string name, const driver_type& type, options given,
       node_options generic);
  ~node();
  node(const node&) = delete;
  node& operator=(const node&) = delete;

  // --- requests -----------------------------------------------------------------------------
  // Any offset and length inside the node; bytes between the length and its next multiple of the
  // alignment read as zeroes. Outside: error_kind::out_of_range, and nothing is done - except that
  // writes and zero writes lengthen a protocol node (and what passes through to one) for a parent
  // that holds the resize permission.
  // One read or write takes at most request_length_max bytes; the others any length.
  task<void> read(u64 offset, std::span<std::byte> bytes);
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags = 0);
  task<void> write_zeroes(byte_range range, write_flags flags = 0);
  // Writes what this node holds of `range` to another one of the same loop, and the bytes do not
  // come here: the host copies or shares them. On failure, error_kind::unsupported or another, a
  // part may have been written; the caller can still read and write all of it.
  task<void> copy_to(byte_range range, const edge& to, u64 to_offset);
  // The other half: a write of what a file holds.
  task<void> copy_from(bytes_of_file source, u64 to_offset);
  // Succeeds without doing anything where discard is off or the driver cannot.
  task<void> discard(byte_range range);
  // What was written before is durable when it returns. Flushes without writes between are free.
  task<void> flush();
  task<void> truncate(u64 length, truncate_options options = {});
  // This node's own answer; a run of at least one byte that begins at range.offset.
  // `wants_zero` also finds out whether data reads as zero, which may ask the children.
  task<block_status> status(byte_range range, bool wants_zero = true);
  // The answer of the whole chain down to (and without) `base`; null: all of it.
  task<block_status> status_above(byte_range range, const node* base = nullptr,
                                  bool wants_zero = true);
  task<u64> allocated_length(); // bytes the host spends on it, backing not included
  // Reads, and stores in this node what it had to take from its backing (copy on read); for parents
  // that hold the permission to write unchanged. `into` is as long as the range, or empty.
  task<void> copy_up(byte_range range, std::span<std::byte> into);
  // Bytes of the state of a machine, which formats keep behind the disk (face vmstate_store).
  task<void> read_vmstate(u64 position, std::span<std::byte> bytes);
  task<void> write_vmstate(u64 position, std::span<const std::byte> bytes);
  // Makes the nearest filter that copies on read do so, without returning the bytes.
  task<void> prefetch(byte_range range);
  // For drivers: where these bytes live, or whether they may be overwritten there, has changed.
  // Everybody above who keeps such an answer drops it (lease). Called in the step that makes the
  // change, with no await between, and before the request that asked for it ends.
  void mapping_changed(byte_range range);
  // Memory that will be read into or written from often: drivers may pin it. All drivers below are
  // told, or none. Does not suspend.
  [[nodiscard]] result<> register_buffer(std::span<std::byte> memory);
  void unregister_buffer(std::span<std::byte> memory) noexcept;

  // --- files that others read and write (host_file.cpp) ----------------------------------------
  // The file whose bytes, all of them, are those of this node, if nothing between has to see what
  // is read (or, `for_writing`, written), or why there is none. Does not suspend.
  [[nodiscard]] result<host_file> whole_host_file(bool for_writing);
  // The nodes from this one down to that of the file.
  [[nodiscard]] std::vector<node*> nodes_to_host_file();
  // Somebody writes to that file, past this process: until the end the length is followed with each
  // request, and each flush goes to the disk.
  void begin_writes_by_others();
  void end_writes_by_others();
  [[nodiscard]] bool is_written_by_others() const { return other_writers_ > 0; }
  // For who looks at the length outside of requests, of a node whose medium changes by itself.
  void follow_length() {
    if (limits_.has_variable_length)
      follow_variable_length();
  }

  // --- what it is ---------------------------------------------------------------------------
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const driver_type& type() const { return *type_; }
  [[nodiscard]] const options& given() const { return given_; }
  [[nodiscard]] u64 cluster_size() const { return cluster_size_; } // 0: has no clusters
  [[nodiscard]] const node_options& generic() const { return generic_; }
  [[nodiscard]] bool is_read_only() const { return generic_.is_read_only; }
  [[nodiscard]] bool is_filter() const { return type_->kind == driver_kind::filter; }
  // Whether a write past the end makes it longer: somebody may resize it, and its driver can.
  [[nodiscard]] bool may_grow_by_writing() const;
  [[nodiscard]] u64 length() const { return length_; }
  [[nodiscard]] const block_limits& limits() const { return limits_; }
  [[nodiscard]] driver& instance() const { return *driver_; }
  // With what leases have counted up to now.
  [[nodiscard]] const node_statistics& statistics() const;
  [[nodiscard]] graph& owner() const { return *owner_; }
  [[nodiscard]] std::string describe() const;  // "node 'web' (qcow2, web.qcow2)"
  [[nodiscard]] std::string host_path() const; // of the primary chain's file, or ""

  [[nodiscard]] std::span<const std::unique_ptr<edge>> children() const { return children_; }
  [[nodiscard]] const std::list<edge*>& parents() const { return parents_; }
  [[nodiscard]] edge* child(std::string_view slot) const; // null: none
  [[nodiscard]] edge* backing() const { return backing_; }
  [[nodiscard]] edge* filtered_child() const; // null: none
  // What decides the content where this node has nothing of its own: its filtered or backing child.
  [[nodiscard]] node* next_in_chain() const;
  // This node, or the first below that is not a filter.
  [[nodiscard]] node* skip_filters();
  [[nodiscard]] const node* skip_filters() const;
  [[nodiscard]] permissions cumulative_permissions() const;
  // Fails with who forbids it: being the backing of another, or a job (blockers()).
  [[nodiscard]] result<> check_operation(node_operation what) const;
  [[nodiscard]] operation_blockers& blockers() { return blockers_; }
  // Whether it may go on with other options or children: nobody forbids `change`.
  [[nodiscard]] result<> check_may_change() const;
  // Those, and what follows from being somebody's backing.
  [[nodiscard]] std::vector<operation_blockers::blocker> all_blockers() const;
  [[nodiscard]] const request_list& requests() const { return requests_; }
  [[nodiscard]] request_list& requests() { return requests_; }
  // What copying up works in: the cluster size, or the request alignment where there is none.
  [[nodiscard]] u64 copy_unit() const;
  // The first write that ends past it tells so with an event and sets it to 0: off.
  [[nodiscard]] u64 write_threshold() const { return write_threshold_; }
  void set_write_threshold(u64 offset);

  // True when the image could not be trusted any more and further writes fail (report_corruption).
  [[nodiscard]] bool is_broken() const { return is_broken_; }
  // For drivers: what is on disk contradicts itself. Reported once; a writable node takes no
  // further writes. Returns the error to fail with.
  error report_corruption(std::string what);
  // For drivers whose length or limits changed by themselves.
  void refresh_length();
  void refresh_limits();
  // For those who change the image behind the node's back: what status found is not used again.
  void forget_status() { forget_status({0, ~u64{0}}); }
  // Its dirty bitmaps. Adding, changing and removing goes through the graph (bitmap_change.h).
  [[nodiscard]] const bitmap_list& bitmaps() const { return bitmaps_; }
  // What was asked for, before become_read_only.
  [[nodiscard]] const node_options& requested() const { return requested_; }
  [[nodiscard]] bool is_open() const { return driver_ != nullptr; }
  // Open and serving. Not while an edit has closed it, or after deactivation or loss.
  [[nodiscard]] bool is_active() const { return driver_ != nullptr && !is_suspended_; }
  // Deactivated by somebody: its image may be in other hands.
  [[nodiscard]] bool is_deactivated() const { return is_deactivated_; }
  // Why it could not be opened again after it had been closed for an edit; null: it was not lost.
  [[nodiscard]] const error* loss() const { return loss_ ? &*loss_ : nullptr; }
  [[nodiscard]] bool is_owned_by_parent() const { return is_owned_by_parent_; }
  [[nodiscard]] bool is_visitor() const { return is_visitor_; } // node_spec
  // `backing: null` kept the header's backing file from being opened.
  [[nodiscard]] bool has_no_backing() const { return has_no_backing_; }
  // The backing node is the one that the header names.
  [[nodiscard]] bool has_backing_of_header() const { return has_backing_of_header_; }
  [[nodiscard]] bool is_reopenable() const { return reopenable_ != nullptr; }
  // Null: its driver cannot change the backing name in the image.
  [[nodiscard]] backing_writer* as_backing_writer() const { return backing_writer_; }
  // Null: its format does not support checks.
  [[nodiscard]] checkable* as_checkable() const { return checkable_; }
  // Null: it has no internal snapshots. What changes something goes through the graph.
  [[nodiscard]] snapshottable* as_snapshottable() const { return snapshottable_; }
  // Another number whenever its snapshots may have become others: what was made from the list of
  // them holds as long as this stays.
  [[nodiscard]] u64 snapshots_version() const { return snapshots_version_; }
  // Null: its images hold no bitmaps. What changes something goes through the graph.
  [[nodiscard]] bitmap_store* as_bitmap_store() const { return bitmap_store_; }
  // Null: its images cannot be amended. Callers hold a root that may write.
  [[nodiscard]] amendable* as_amendable() const { return amendable_; }
  [[nodiscard]] emptiable* as_emptiable() const { return emptiable_; }
  // Null: it keeps no instant of its own.
  [[nodiscard]] frozen_disk* as_frozen_disk() const { return frozen_disk_; }

  // --- debug events (debug_event.h, debugging.cpp) ---------------------------------------------
  // Null: it injects no faults.
  [[nodiscard]] debuggable* as_debuggable() const { return debuggable_; }
  // Whom parents tell of events: this driver, or the one that it filters. As a rule there is none,
  // which takes one look to see.
  [[nodiscard]] debuggable* listener() const {
    return debuggable_ != nullptr || type_->kind != driver_kind::filter ? debuggable_
                                                                        : filtered_listener();
  }
  // Tells it; the request that the event belongs to may be kept.
  task<void> tell(debug_event event) const;
  // Where breakpoints for this node are set: the first driver on the way down the primary children
  // that takes them; null: none does.
  [[nodiscard]] debuggable* find_debuggable() const;
  // For drivers opened with auto-read-only that could not open for writing. Only during open.
  void become_read_only() { generic_.is_read_only = true; }

private:
  friend class bitmap_hold;
  friend class bitmap_transaction;
  friend class edge;
  friend class extent_resolver;
  friend class graph;
  friend class graph_transaction;
  friend class lease;
  friend class permission_plan;
  friend class root;

  void find_faces();
  // The pipelines: read_path.cpp, write_path.cpp, copy_path.cpp, zero_path.cpp, discard_path.cpp,
  // status_path.cpp, resize_path.cpp, copy_up.cpp. Only the public methods track. What they take a
  // request for: drivers may ask for theirs.
  [[nodiscard]] result<> check_range(byte_range range, std::string_view verb) const;
  [[nodiscard]] result<> check_writable() const;
  [[nodiscard]] result<> check_active() const;
  [[nodiscard]] result<> check_write_range(byte_range range, std::string_view verb) const;
  [[nodiscard]] result<> check_read(byte_range range);
  [[nodiscard]] result<> check_write(operation kind, byte_range range, write_flags flags);
  [[nodiscard]] result<> prepare_write(tracked_request& request, write_flags flags);
  [[nodiscard]] write_flags usable_flags(write_flags flags) const;
  void follow_variable_length();
  void write_begins(byte_range range);
  void write_ended(const tracked_request& request, operation kind, const result<>& outcome);
  void mark_dirty(byte_range range, write_flags flags = 0) {
    if (bitmaps_.is_recording() && (flags & write_flag::unchanged) == 0)
      bitmaps_.mark(range);
  }
  [[nodiscard]] result<> check_bitmaps_follow(u64 length) const;
  [[nodiscard]] debuggable* filtered_listener() const;
  [[nodiscard]] bool tells_primary() const {
    return primary_ != nullptr && primary_->child().listener() != nullptr;
  }
  task<void> tell_primary(debug_event event) const;
  task<void> read_told(extent e, u64 at, std::span<std::byte> part);
  // Its driver reads all of it, whatever else it says about where bytes are.
  [[nodiscard]] bool is_read_directly() const {
    return readable_ != nullptr && (mappable_ == nullptr || type_->kind != driver_kind::format);
  }
  task<void> cut_padding(u64 padded_end, u64 wanted_end);
  task<extent> map(byte_range range);
  task<void> read_aligned(u64 offset, std::span<std::byte> bytes);
  task<void> read_unaligned(u64 offset, std::span<std::byte> bytes);
  task<void> read_mapped(u64 offset, std::span<std::byte> bytes);
  task<void> read_backing(u64 offset, std::span<std::byte> bytes);
  struct write_piece {
    tracked_request& request;
    u64 offset;
    std::span<const std::byte> bytes;
    write_flags flags;
    [[nodiscard]] byte_range range() const { return {offset, bytes.size()}; }
  };
  task<void> write_compressed(write_piece what);
  task<void> write_aligned(write_piece what);
  task<void> write_unaligned(write_piece what);
  task<void> write_pieces(write_piece what);
  task<void> write_told(write_piece what);
  task<void> write_merged(write_piece what);
  struct merged_block {
    byte_range blocks; // that are read, written to and written
    bool has_head = false;
    bool has_tail = false; // that stay as they are
  };
  task<void> read_around(merged_block what, std::span<std::byte> into);
  task<void> read_end(byte_range block, debug_event before, debug_event after,
                      std::span<std::byte> into);
  task<void> write_driver(write_piece what);
  task<void> flush_writes();
  task<void> copy_mapped(byte_range range, const edge& to, u64 to_offset);
  task<void> copy_backing(byte_range range, const edge& to, u64 to_offset);
  task<void> copy_into_driver(tracked_request& request, bytes_of_file source);
  struct zero_piece {
    tracked_request& request;
    byte_range range;
    write_flags flags;
    bool& needs_flush; // set when a durable piece was not written durably
  };
  [[nodiscard]] bool can_write_zeroes() const;
  [[nodiscard]] result<> check_no_fallback(write_flags flags) const;
  task<void> zero_untracked(tracked_request& request, byte_range range, write_flags flags);
  task<void> zero_blocks(zero_piece what);
  task<void> zero_pieces(zero_piece what);
  task<void> zero_told(zero_piece what);
  task<void> zero_driver(zero_piece what);
  task<void> zero_by_writing(zero_piece what);
  task<void> discard_untracked(tracked_request& request, byte_range range);
  task<void> discard_piece(tracked_request& request, byte_range range);
  task<void> flush_once(u64 generation);
  task<extent> find_extent(byte_range range, bool wants_zero);
  task<block_status> status_of_extent(extent e, byte_range range, bool wants_zero);
  task<void> add_zero_from_child(const extent& e, block_status& s);
  void forget_status(byte_range range);
  task<void> truncate_driver(tracked_request& request, u64 length, truncate_options options);
  task<void> copy_up_untracked(tracked_request& request, byte_range range,
                               std::span<std::byte> into);
  task<void> copy_up_piece(tracked_request& request, byte_range piece, std::span<std::byte> bytes);
  void length_changed();
  [[nodiscard]] result<> check_vmstate(byte_range range) const;
  void account(operation kind, u64 bytes, std::chrono::steady_clock::time_point since,
               const result<>& outcome);
  void add_leased(operation kind, const operation_delta& news, bool knows_end);
  void tell_io_error(operation kind, const error& e, std::chrono::steady_clock::time_point now);

  graph* owner_; // changes when its component moves to another loop
  std::string name_;
  const driver_type* type_;
  options given_;
  node_options generic_;
  std::unique_ptr<driver> driver_;

  // The faces of driver_, found once; null: it cannot.
  readable* readable_ = nullptr;
  direct_file* direct_file_ = nullptr;
  writable* writable_ = nullptr;
  mappable* mappable_ = nullptr;
  zeroable* zeroable_ = nullptr;
  discardable* discardable_ = nullptr;
  copyable* copyable_ = nullptr;
  flushable* flushable_ = nullptr;
  resizable* resizable_ = nullptr;
  compressible* compressible_ = nullptr;
  prefetcher* prefetcher_ = nullptr;
  buffer_registrar* buffer_registrar_ = nullptr;
  permission_holder* permission_holder_ = nullptr;
  reopenable* reopenable_ = nullptr;
  backing_writer* backing_writer_ = nullptr;
  checkable* checkable_ = nullptr;
  snapshottable* snapshottable_ = nullptr;
  u64 snapshots_version_ = 0;
  vmstate_store* vmstate_store_ = nullptr;
  bitmap_store* bitmap_store_ = nullptr;
  amendable* amendable_ = nullptr;
  emptiable* emptiable_ = nullptr;
  frozen_disk* frozen_disk_ = nullptr;
  debuggable* debuggable_ = nullptr;
  quiescable* quiescable_ = nullptr;
  transparent* transparent_ = nullptr;
  child_keeper* child_keeper_ = nullptr;

  std::vector<std::unique_ptr<edge>> children_;
  std::list<edge*> parents_;
  edge* backing_ = nullptr;
  edge* primary_ = nullptr;

  node_options requested_;
  std::shared_ptr<const secret_store> secrets_; // for opening it anew; null: none
  bool is_info_only_ = false;
  bool is_owned_by_parent_ = false; // defined in place: closed with its last parent
  bool is_visitor_ = false;
  bool has_no_backing_ = false;
  bool has_backing_of_header_ = false;
  // graph/model/suspend.cpp. The driver of a suspended format is closed, though still there to be
  // looked at; that of a protocol or filter stays open and has given up its locks.
  bool is_suspended_ = false;
  bool is_driver_closed_ = false;
  bool is_leaving_ = false; // its name is free for another
  bool is_deactivated_ = false;
  std::optional<error> loss_;
  operation_blockers blockers_;
  unsigned drains_ = 0; // under way above or at this node
  permissions locked_;  // what its permission_holder was last told
  block_limits limits_;
  u64 length_ = 0;
  u64 cluster_size_ = 0;
  bool is_broken_ = false;
  bool has_told_corruption_ = false;
  node_statistics statistics_;
  u64 write_threshold_ = 0;
  std::optional<std::chrono::steady_clock::time_point> io_error_told_;
  u64 io_errors_untold_ = 0;

  request_list requests_;
  bitmap_list bitmaps_;

  // Nodes without children: a run of data that the driver found when it was last asked (reference
  // section 1.6, rule 4). The epoch changes with everything that may have taken data away, so that
  // an answer from before is not kept.
  byte_range known_data_;
  u64 status_epoch_ = 0;

  // Flush coalescing (reference section 1.7).
  u64 write_generation_ = 0;
  u64 flushed_generation_ = 0;
  unsigned other_writers_ = 0; // begin_writes_by_others
  bool is_flushing_ = false;
  wait_queue flush_waiters_;
};

} // namespace bgfs
