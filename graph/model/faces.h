// SPDX-License-Identifier: MIT
// What an open driver can do, one small interface per ability. A driver inherits the faces it has;
// the node finds them once, at open. A missing face means "cannot": the node owns every fallback,
// so a driver never writes a stub.
//
// Contract of all of them: offset and length lie inside the node's length and are multiples of its
// request_alignment (the last request of a node whose length is not may be padded by the node), no
// longer than max_transfer; requests run side by side unless the driver orders them itself; buffers
// stay valid until the task has ended. Each may suspend, except where it says otherwise.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/limits.h"
#include "graph/base/option_schema.h"
#include "graph/base/value.h"
#include "graph/io/task.h"
#include "graph/model/check.h"
#include "graph/model/debug_event.h"
#include "graph/model/extent.h"
#include "graph/model/permission.h"
#include "graph/model/snapshot.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bgfs {

using write_flags = u8;
namespace write_flag {
inline constexpr write_flags durable = 0x1;     // on stable storage before the task ends (FUA)
inline constexpr write_flags unchanged = 0x2;   // the bytes read the same before and after
inline constexpr write_flags may_unmap = 0x4;   // of zero writes: space may be given back
inline constexpr write_flags no_fallback = 0x8; // of zero writes: fail rather than write a buffer
inline constexpr write_flags compressed = 0x10;
// Nothing that overlaps the clusters it touches runs beside it: for writes to a node that somebody
// else reads through another parent and must see whole.
inline constexpr write_flags serialising = 0x20;
// Of serialising ones on whole blocks: error_kind::busy instead of waiting.
inline constexpr write_flags no_wait = 0x40;
// What drivers may be given, as far as they say that they support it.
inline constexpr write_flags for_drivers = durable | unchanged | may_unmap | no_fallback;
} // namespace write_flag

class driver;
class edge;

struct child_slot {
  std::string_view name; // the key in YAML: "file", "backing"
  child_role roles;
  bool is_required = true;
};

struct readable {
  virtual ~readable() = default;
  // Reads guest bytes. A driver that is mappable is only asked for ranges it maps as encoded.
  virtual task<void> read(u64 offset, std::span<std::byte> bytes) = 0;
};

struct direct_access;

// Protocols whose bytes are those of a descriptor, at the same offsets.
struct direct_file {
  virtual ~direct_file() = default;
  // What its reads and writes amount to; nullopt: they are more than system calls. Holds until the
  // node is drained, and until its permissions change.
  [[nodiscard]] virtual std::optional<direct_access> direct() const = 0;
};

struct writable {
  virtual ~writable() = default;
  virtual task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags) = 0;
  // Flags that write honours itself; the node emulates `durable` with a flush where it is missing.
  [[nodiscard]] virtual write_flags supported_write_flags() const { return 0; }
};

struct mappable {
  virtual ~mappable() = default;
  // Where the bytes from range.offset on live. At least one byte long; as long as it is cheap to
  // say.
  virtual task<extent> map(byte_range range) = 0;
  // The same answer when it can be given without I/O and without suspending; the hot path.
  [[nodiscard]] virtual std::optional<extent> try_map(byte_range range) = 0;
};

struct zeroable {
  virtual ~zeroable() = default;
  // error_kind::unsupported makes the node write zeroes instead (unless no_fallback).
  virtual task<void> write_zeroes(byte_range range, write_flags flags) = 0;
  [[nodiscard]] virtual write_flags supported_zero_flags() const { return 0; }
};

struct compressible {
  virtual ~compressible() = default;
  // Writes whole clusters, the last of the node perhaps cut short, so that they take less space.
  // The driver checks the alignment.
  virtual task<void> write_compressed(u64 offset, std::span<const std::byte> bytes) = 0;
};

struct discardable {
  virtual ~discardable() = default;
  // Advisory; error_kind::unsupported is swallowed by the node.
  virtual task<void> discard(byte_range range) = 0;
};

// Filters that copy on read.
struct prefetcher {
  virtual ~prefetcher() = default;
  // What reading the range would copy is copied, and nothing is returned.
  virtual task<void> prefetch(byte_range range) = 0;
};

// Drivers that do better with memory they know of beforehand.
struct buffer_registrar {
  virtual ~buffer_registrar() = default;
  // Neither suspends.
  virtual result<> register_buffer(std::span<std::byte> memory) = 0;
  virtual void unregister_buffer(std::span<std::byte> memory) noexcept = 0;
};

// Bytes that are in a file of the host already.
struct bytes_of_file {
  driver* file = nullptr; // of a protocol, and open while the task runs
  byte_range range;
};

struct copyable {
  virtual ~copyable() = default;
  // A write of what another file holds, which the host copies, or shares, without the bytes coming
  // here. The same range of the node as a write's, whole blocks of its alignment.
  // error_kind::unsupported makes the caller write them all from a buffer.
  virtual task<void> copy_from(bytes_of_file source, u64 to_offset) = 0;
};

struct flushable {
  virtual ~flushable() = default;
  // Hands what the driver itself caches (tables) to its children. The node then flushes those.
  virtual task<void> write_back() = 0;
  // Makes what was written durable; for drivers without children.
  virtual task<void> flush_to_disk() = 0;
  // Whether what this child holds has to be durable when the node is flushed.
  [[nodiscard]] virtual bool needs_flush(const edge& child) const {
    (void)child;
    return true;
  }
};

enum class preallocation : u8 { off, metadata, falloc, full };

struct truncate_options {
  preallocation prealloc = preallocation::off;
  bool is_exact = true;        // false: a longer device is as good
  bool must_read_zero = false; // the new part reads as zeroes whatever was below
  // Nothing was written to the node yet, and the new part is to show its backing file as the rest
  // does. Otherwise zeroes hide what a longer backing file has there: it was not seen before.
  bool is_new_overlay = false;
  // Also of a node that is somebody's backing: the caller knows that it reads the same.
  bool may_be_backing = false;
};

struct resizable {
  virtual ~resizable() = default;
  virtual task<void> truncate(u64 length, truncate_options options) = 0;
};

// Drivers that do something by themselves, or hold requests back: told once when their node is
// drained for the first time, and once when no drain is left. Neither suspends nor fails.
struct quiescable {
  virtual ~quiescable() = default;
  virtual void begin_drain() noexcept = 0; // nothing new is started; what waits is let go
  virtual void end_drain() noexcept = 0;
};

// Drivers whose children are any number in slots of one kind ("children.0", "children.1", ...).
// Adding and removing one is an edit (graph/model/edit.h).
struct child_keeper {
  virtual ~child_keeper() = default;
  // The slot that another child would take, or why there can be none.
  [[nodiscard]] virtual result<child_slot> slot_for_another() const = 0;
  [[nodiscard]] virtual result<> may_remove(const edge& child) const = 0;
  // A child has come (after the commit) or gone.
  virtual void child_added(edge& child) noexcept = 0;
  virtual void child_removed(edge& child) noexcept = 0;
};

struct node_options;

// Drivers that go on with other options while they are open. A driver without this face, or one
// that says error_kind::unsupported, is closed and opened anew instead. For each reopen: prepare,
// then commit and finish, or abort; only what was prepared is aborted. The node is drained and was
// flushed; several nodes are prepared in order and committed in reverse.
struct reopenable {
  virtual ~reopenable() = default;
  // Gets ready for `given` (the driver's own options, checked against its schema) and `generic`,
  // with which the driver must be able to go on after commit. A driver that will be read-only
  // writes back all it holds and leaves the image clean. Until commit it goes on as it was.
  virtual task<void> prepare_reopen(const options& given, const node_options& generic) = 0;
  // Goes on with what was prepared. The permissions of the future are checked by now.
  virtual void commit_reopen() noexcept = 0;
  // After the whole edit was committed: what has to be written first when a node became writable.
  virtual task<void> finish_reopen() { co_return; }
  virtual void abort_reopen() noexcept = 0;
};

struct image_reference;

// Drivers that can change the backing name in their image's header.
struct backing_writer {
  virtual ~backing_writer() = default;
  // nullopt: the image names no backing file any more. Durable when it returns. A name that the
  // format cannot hold is error_kind::invalid_argument, and nothing was written.
  virtual task<void> change_backing_reference(std::optional<image_reference> reference) = 0;
};

class secret_store;

// References are valid while the task runs.
struct amend_request {
  const options& given;                  // passed the type's amend_options
  const secret_store* secrets = nullptr; // what they may name; null: there are none
  bool is_forced = false;                // also what cannot be undone
  std::function<void(u64 done, u64 total)> progress = {};
};

// Formats whose images can be changed after they were made, without changing what they hold (but
// for the length). Called while the node is drained and may be written to and resized
// (graph::amend does that).
struct amendable {
  virtual ~amendable() = default;
  // Durable when it returns. What cannot be is refused before anything changes; a failure later
  // leaves an image that holds what it held, changed in part.
  virtual task<void> amend(amend_request request) = 0;
};

// Formats whose image can give up all that it holds, so that what is below shows everywhere: after
// its content was written to the backing file. Called while the node is drained and may be written
// to (graph::make_empty does that).
struct emptiable {
  virtual ~emptiable() = default;
  // The length, the snapshots and the keys stay. Durable when it returns. If it is stopped
  // half-way, a part of the content is still there. error_kind::unsupported where it would not
  // show.
  virtual task<void> make_empty() = 0;
};

// Drivers whose node is one other thing as it is, byte for byte and from the first to the last: a
// child, or a file of the host, which may then be read and written without them
// (node::whole_host_file). Nothing of it suspends.
struct transparent {
  virtual ~transparent() = default;
  struct shown {
    edge* child = nullptr; // or
    int fd = -1;           // borrowed
  };
  // Fails with why it is not so now, as the rest of a sentence about the node.
  [[nodiscard]] virtual result<shown> shows() const = 0;
  // For those that show a file: from now on (until false) others write to it, so its length has to
  // be asked for each time.
  virtual void set_written_by_others(bool) noexcept {}
};

// Formats that can look through a whole image.
struct checkable {
  virtual ~checkable() = default;
  // Findings are told to `sink`, which outlives the task, and counted in the result; the task fails
  // where it cannot go on. Memory is bounded whatever the image says. Cancelled, or stopped in any
  // other way, a repair leaves an image that can be checked and repaired again. With
  // check_mode::report nothing is written. error_kind::unsupported where this instance cannot
  // repair.
  virtual task<check_result> check(check_mode mode, check_sink& sink) = 0;
};

// One snapshot, read beside the live disk: it stays as it is, whatever is written there, and cannot
// be deleted while this object lives. Of the image that made it, which outlives it.
struct snapshot_view {
  virtual ~snapshot_view() = default;
  [[nodiscard]] virtual const snapshot_info& info() const = 0;
  // As the faces mappable and readable. What is unallocated shows what the live disk has below it.
  virtual task<extent> map(byte_range range) = 0;
  [[nodiscard]] virtual std::optional<extent> try_map(byte_range range) = 0;
  virtual task<void> read(u64 offset, std::span<std::byte> bytes) = 0;
  // Bytes of the VM state; the range lies inside its length.
  virtual task<void> read_vmstate(u64 position, std::span<std::byte> bytes) = 0;
};

// Formats that keep snapshots inside their image. What changes something is called while the node
// is drained and may be written to, one at a time (graph.h does that); what it did is durable when
// it returns. Errors leave the snapshots and the disk as they were, unless they say otherwise.
struct snapshottable {
  virtual ~snapshottable() = default;
  // In the order of the image. Does not suspend.
  [[nodiscard]] virtual std::vector<snapshot_info> snapshots() const = 0;
  // Returns the id of the new one. The name was checked.
  virtual task<std::string> create_snapshot(new_snapshot wanted) = 0;
  // error_kind::busy, with who, while a view of it is open.
  virtual task<void> delete_snapshot(snapshot_key which) = 0;
  virtual task<void> rename_snapshot(snapshot_key which, std::string name) = 0;
  // The disk becomes what it was, in content and length. Snapshots stay.
  virtual task<void> revert_to_snapshot(snapshot_key which) = 0;
  // At any time. `holder` is named when the snapshot is to be deleted: "node 'x'".
  virtual task<std::unique_ptr<snapshot_view>> open_snapshot(snapshot_key which,
                                                             std::string holder) = 0;
};

// Filters that keep what their node held at an instant, beside what it holds now (the reference's
// preadv_snapshot, snapshot_block_status, pdiscard_snapshot). Not called once the node is closed;
// the driver orders these calls and the node's own requests itself.
struct frozen_disk {
  virtual ~frozen_disk() = default;
  [[nodiscard]] virtual u64 frozen_length() const = 0;
  // Kinds are zero and encoded, which means that read_frozen has the bytes.
  virtual task<extent> map_frozen(byte_range range) = 0;
  virtual task<void> read_frozen(u64 offset, std::span<std::byte> bytes) = 0;
  // Nobody wants these bytes any more: they need not be kept, and can be read no more.
  virtual task<void> discard_frozen(byte_range range) = 0;
  // Whether the instant is still there, and if not, why.
  [[nodiscard]] virtual result<> check_frozen() const = 0;
};

class dirty_bitmap;
struct bitmap_definition;

// Formats that keep dirty bitmaps in their images. The graph calls it, one at a time
// (dirty_bitmaps.cpp); what changes the image only while the node may be written to.
struct bitmap_store {
  virtual ~bitmap_store() = default;
  // Those in the image, all of them persistent. Does not suspend.
  [[nodiscard]] virtual std::vector<bitmap_definition> stored_bitmaps() const = 0;
  // Whether the image can hold these, which would be all of its bitmaps; the last is new. Fails
  // with what is in the way. Does not suspend.
  [[nodiscard]] virtual result<>
  check_can_store(std::span<const bitmap_definition> wanted) const = 0;
  // Adds the bits that the image has of it (dirty_bitmap::add_stored). Does not change the image.
  virtual task<void> read_bitmap(dirty_bitmap& into) = 0;
  // From now on what the image has of its bitmaps may be out of date, and it says so. Durable when
  // it returns.
  virtual task<void> begin_bitmap_change() = 0;
  // The image has these as they are now, durable when it returns. Incomplete ones are completed
  // first, where they have changed. Others that it has stay as they are in it. A failure leaves an
  // image that says that its bitmaps are out of date, if they are.
  virtual task<void> store_bitmaps(std::span<dirty_bitmap* const> all) = 0;
  // The image has them no more, durably; names that it does not have are no error. A failure leaves
  // all of them.
  virtual task<void> remove_bitmaps(std::vector<std::string> names) = 0;
};

// Formats that keep the state of a machine beside its disk, for the next snapshot or from the one
// that was reverted to. Bytes never written read as zeroes.
struct vmstate_store {
  virtual ~vmstate_store() = default;
  virtual task<void> read_vmstate(u64 position, std::span<std::byte> bytes) = 0;
  virtual task<void> write_vmstate(u64 position, std::span<const std::byte> bytes) = 0;
};

struct debug_breakpoint {
  debug_event event = debug_event::none;
  std::string tag;
};

// So many can be set at one node: who sets them may be anybody.
inline constexpr std::size_t breakpoints_max = 1024;

// Filters that make chosen requests fail or wait: told of what happens inside the formats above
// them (node::tell). Everything but `happened` returns at once.
struct debuggable {
  virtual ~debuggable() = default;
  // Rules for the event come into force, and breakpoints keep the request that it belongs to until
  // somebody resumes it. Never fails by itself: the requests that follow do.
  virtual task<void> happened(debug_event event) = 0;

  // The next request that reaches the event waits, once. A tag may be given many times.
  virtual void set_breakpoint(debug_breakpoint wanted) = 0;
  // Takes all with this tag away, and resumes what they keep. False: there was none that had not
  // been reached yet.
  virtual bool remove_breakpoint(std::string_view tag) = 0;
  // Lets the one that has waited longest go on. False: none waits.
  virtual bool resume(std::string_view tag) = 0;
  [[nodiscard]] virtual bool is_suspended(std::string_view tag) const = 0;
  // Until the token is gone breakpoints keep nobody, and whom they keep goes on: for who waits for
  // requests that nobody may be there to resume.
  [[nodiscard]] virtual std::shared_ptr<const void> let_all_pass() = 0;

  // For people, in the order in which they were given or reached.
  [[nodiscard]] virtual u64 state() const = 0;
  [[nodiscard]] virtual std::vector<std::string> describe_rules() const = 0;
  [[nodiscard]] virtual std::vector<debug_breakpoint> breakpoints() const = 0;
  [[nodiscard]] virtual std::vector<debug_breakpoint> suspended() const = 0;
};

// Drivers that hold locks outside the process follow the permissions of their node.
struct permission_holder {
  virtual ~permission_holder() = default;
  // Takes what `wanted` adds, or says who is in the way. Does not suspend.
  virtual result<> check_permissions(permissions wanted) = 0;
  // Makes the checked set current and gives back what is no longer needed. Cannot fail.
  virtual void commit_permissions() noexcept = 0;
  // Gives back what check_permissions took. Cannot fail.
  virtual void abort_permissions() noexcept = 0;
};

} // namespace bgfs
