// SPDX-License-Identifier: MIT
// The files that hold an image, as the driver uses them: reads of structures that must lie inside
// the image's file, writes that are checked against the known metadata first, and what happens when
// the image turns out to be corrupt. Everything the driver writes goes through here.
//
// The guest's data lie in the same file, or in an external data file of their own, where there is
// no metadata that they could go over.
#pragma once

#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/overlap_map.h"
#include "graph/model/node.h"

namespace bgfs::qcow2 {

struct host_file_options {
  edge* file = nullptr;
  edge* data_file = nullptr; // external; null: the image has none, or is open without its data
  node* self = nullptr;      // whose image it is; null while it is being created
  bool is_writable = false;
};

class host_file {
public:
  // `h` outlives this object; the corrupt bit is set in it.
  host_file(host_file_options options, header& h, metadata_kinds watched);

  // A structure of the image; ends the task as corrupt if it reaches beyond the end of the file.
  // `what` names it in messages: "the L1 table".
  task<void> read_structure(host_offset at, std::span<std::byte> bytes, std::string_view what);
  // Data: what lies beyond the end of their file reads as zeroes.
  task<void> read_data(host_offset at, std::span<std::byte> bytes);

  // Each first makes sure that no metadata of another kind than `own` is in the way.
  task<void> write_structure(host_offset at, std::span<const std::byte> bytes, metadata_kinds own);
  task<void> write_data(host_offset at, std::span<const std::byte> bytes);
  task<void> copy_data(host_offset at, bytes_of_file source);
  task<void> write_zeroes(byte_range host, write_flags flags);
  // The synchronous half of write_data's check, for callers on the hot path.
  [[nodiscard]] bool may_write_data(byte_range host) const;
  // A field of the header.
  task<void> write_header(u64 at, std::span<const std::byte> bytes);
  // Where the L1 or the refcount table is, durable when it returns. When it fails, the old value is
  // put back; if that fails too, nobody knows which table the disk has in force, and nothing is
  // written any more: later changes would go to a table that may not count.
  task<void> write_location(u64 at, std::span<const std::byte> bytes,
                            std::span<const std::byte> old);
  // Lengthens the file of the data, with space reserved as `options` say.
  task<void> extend_data(u64 length, truncate_options options);
  task<void> discard(byte_range host);
  task<void> discard_data(byte_range host);
  // Both files, that of the data first: what metadata refer to is never behind them.
  task<void> flush();

  // Whether the file can be so long: error_kind::no_space if it is shorter and cannot grow.
  [[nodiscard]] result<> check_room(u64 end) const;
  // Makes the file reach so far, with a hole. Not essential: what is behind its end reads as zeroes
  // here, but other programs may not read it, or take it for damage.
  task<void> lengthen_to(u64 end);
  // Cuts off what nobody uses. Not essential: an error is only a longer file.
  task<void> trim_to(u64 end);
  [[nodiscard]] u64 length() const { return options_.file->length(); }
  [[nodiscard]] u64 data_length() const { return data().length(); }

  // Says that the image contradicts itself: sets the corrupt bit if there is one (R10: before
  // anything else can happen), stops all writes, and ends the task with the error.
  task<void> corrupt(std::string what);
  // From now on corrupt() may write: an image that cannot even be opened is left as it is.
  void opened() { is_open_ = true; }
  [[nodiscard]] bool is_stopped() const { return is_stopped_; }
  [[nodiscard]] const std::string& stop_reason() const { return stop_reason_; }
  // The error that every write ends in once it is stopped.
  [[nodiscard]] result<> check_not_stopped() const {
    return is_stopped_ ? result<>(stopped()) : result<>();
  }
  [[nodiscard]] bool is_writable() const { return options_.is_writable && !is_stopped_; }

  // Of a node that is reopened.
  void set_writable(bool is_writable) { options_.is_writable = is_writable; }
  void set_overlaps(overlap_map known) noexcept { overlaps_ = std::move(known); }

  [[nodiscard]] overlap_map& overlaps() { return overlaps_; }
  [[nodiscard]] edge& file() const { return *options_.file; }
  [[nodiscard]] bool has_data_file() const { return options_.data_file != nullptr; }
  [[nodiscard]] edge& data() const {
    return has_data_file() ? *options_.data_file : *options_.file;
  }
  [[nodiscard]] node* self() const { return options_.self; }
  // Tells whoever injects faults below (debug_event.h) of an instant. As a rule nobody does, which
  // `tells` finds out with one look.
  [[nodiscard]] bool tells() const { return options_.file->child().listener() != nullptr; }
  task<void> tell(debug_event event) const { return options_.file->child().tell(event); }
  // Reads tagged by this node's requests; see request_list::newest.
  [[nodiscard]] u64 newest_request() const;
  [[nodiscard]] u64 oldest_request() const;

private:
  [[nodiscard]] std::unexpected<error> stopped() const;
  task<void> write_header_durably(u64 at, std::span<const std::byte> bytes);
  [[nodiscard]] result<> check_has_data() const;
  task<void> check_overlap(byte_range host, metadata_kinds own);
  task<void> refuse_data(byte_range host);
  task<void> set_corrupt_bit();

  host_file_options options_;
  header& header_;
  overlap_map overlaps_;
  bool is_open_ = false;
  bool is_stopped_ = false;
  std::string stop_reason_;
};

} // namespace bgfs::qcow2
