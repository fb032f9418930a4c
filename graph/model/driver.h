// SPDX-License-Identifier: MIT
// A driver is a constant description (driver_type), open instances (driver), and faces (faces.h).
#pragma once

#include "graph/base/option_schema.h"
#include "graph/io/loop.h"
#include "graph/model/faces.h"
#include "graph/model/secret_store.h"

namespace bgfs {

class node;
class edge;
class driver;
class registry;
using flat_options = std::vector<std::pair<std::string, value>>;

enum class driver_kind : u8 { protocol, format, filter };
[[nodiscard]] std::string_view to_string(driver_kind kind);

// What a driver's open is given. References are valid while the open task runs; `self`, `home` and
// the edges for as long as the driver lives.
struct open_request {
  loop& home;
  node& self;
  const options& given;
  bool is_read_only;
  // Children already attached, in the order of the type's slots; null where optional and absent.
  // A backing child is attached after open (see driver::backing_reference), never before.
  std::span<edge* const> children;
  const registry& drivers;
  const secret_store* secrets = nullptr; // what options may name; null: there are none
  // Nobody will read or write content: what only that needs, a key or a data file, may be missing.
  bool is_info_only = false;
};

// A file beside a new image that is going to hold a part of it.
struct new_part {
  std::string_view slot; // of the child that it will be
  std::string filename;  // as the image will name it
  bool is_kept = false;  // it is there already, and its content stays
};

struct create_request {
  loop& home;
  const options& given; // passed the driver's create_options
  std::string filename; // protocols: what to create
  edge* file = nullptr; // formats: the already created, empty protocol node, opened for writing
  std::span<edge* const> parts = {};     // as created_parts asked for; opened for writing
  u64 length = 0;                        // virtual length in bytes
  const secret_store* secrets = nullptr; // what options may name; null: there are none
};

// A file name in an image's header, as it stands there.
struct image_reference {
  std::string filename;
  std::string format; // empty: the header does not say
};

// A child that an image itself names, other than its backing file: where it keeps its data.
struct named_child {
  std::string_view slot;
  image_reference where; // the format is empty: the bytes of the file, as a protocol has them
};

// How an image that is going to be made would spend space (driver_type::measure).
struct measure_request {
  const options& given;                  // passed the driver's create_options
  u64 length = 0;                        // of the disk
  const secret_store* secrets = nullptr; // what options may name; null: there are none
};

struct measured_space {
  u64 data = 0;           // bytes that hold the disk when all of it is allocated
  u64 overhead = 0;       // all that is not data, however much of that there is
  u64 unit = 1;           // data is allocated in pieces of so many bytes
  bool takes_all = false; // all data is allocated from the start
  // There will be a backing file: what reads as zeroes may have to be written, too.
  bool hides_backing = false;
  bool can_hold_bitmaps = false;
};

struct driver_type {
  std::string_view name;
  driver_kind kind = driver_kind::format;
  std::string_view summary; // one line for `bgfs drivers`
  std::span<const child_slot> children;
  const option_schema* open_options = nullptr;   // never null in a registered driver
  const option_schema* create_options = nullptr; // null: cannot create
  const option_schema* amend_options = nullptr;  // null: cannot be amended
  bool supports_backing = false;
  // Zoned devices can be below it; anything else would write to them out of order.
  bool supports_zoned_children = false;
  // Its child is written also for users who only read: neither is opened read-only for want of a
  // writer.
  bool writes_when_read = false;
  // 0..100: how sure it is that an image that begins with these bytes is its own. Pure.
  int (*probe)(std::span<const std::byte> head, std::string_view filename) = nullptr;
  task<std::unique_ptr<driver>> (*open)(open_request request) = nullptr;
  // Children that the image names itself, for slots that the graph left empty: asked before open,
  // with the child that holds the header. null: images of this type name none.
  task<std::vector<named_child>> (*named_children)(edge& file) = nullptr;
  task<void> (*create)(create_request request) = nullptr;
  // What images made with these options need. null: it cannot be told. Pure.
  result<measured_space> (*measure)(const measure_request& request) = nullptr;
  // The files that an image made with these options has beside its own. null: none. Pure.
  result<std::vector<new_part>> (*created_parts)(const options& given) = nullptr;
  // Whether an image made with these options takes compressed writes (face compressible), and if
  // not, why. null: none of this type does. Pure.
  result<> (*takes_compressed)(const options& given) = nullptr;
  // Whether an image made with these options can hold dirty bitmaps (face bitmap_store), and if
  // not, why. null: none of this type can. Pure.
  result<> (*takes_bitmaps)(const options& given) = nullptr;
  // "file" opens "file:NAME"; of protocols, and of filters that parse the rest of the name.
  std::string_view protocol_prefix = {};
  // The definition that the rest of such a name stands for, without its driver; a child given as
  // text is a name again. null: the rest is option `filename`. Pure.
  result<value> (*parse_name)(std::string_view rest) = nullptr;
  // Takes out of `before`, options of an earlier open by dotted name, what giving `next` replaces
  // although the names differ; null: nothing (join_options.h).
  void (*drop_replaced)(flat_options& before, const flat_options& next) = nullptr;
  // How long the disk will be that is opened with these options over a child of that length and
  // with these first bytes (probe_length; none where they cannot be had): for who wants to know
  // without opening it. nullopt: it cannot be told. null: it never can; filters show their child's.
  // Pure.
  std::optional<u64> (*length_of)(std::span<const std::byte> head, u64 child_length,
                                  const options& given) = nullptr;
};

// Bytes that probes are shown.
inline constexpr std::size_t probe_length = 512;

struct driver_info {
  u64 cluster_size = 0; // 0: has none
  u64 subcluster_size = 0;
  u64 vmstate_offset = 0; // where the state of a machine begins, behind the disk; 0: has none
  bool is_dirty = false;
  bool is_corrupt = false;
  bool is_encrypted = false;
  // Space may have been reserved without meaning; keys as in `qemu-img info --output=json`.
  value format_specific; // a map {type, data}, or null
};

// An open instance. Lives on its node's home loop; methods without a task do not suspend.
class driver {
public:
  virtual ~driver() = default;

  // The length of what the node shows, in bytes.
  [[nodiscard]] virtual u64 length() const = 0;
  // Writes back, marks the image clean, gives up locks. Called once, when no request is running and
  // none will come; the driver is destroyed afterwards whatever the outcome.
  virtual task<void> close() = 0;

  // A write past the end makes it longer (for a parent that may resize). Filters follow their
  // child.
  [[nodiscard]] virtual bool grows_by_writing() const { return false; }

  // Of drivers that support zoned children: whether this one can be below the instance, with the
  // options that it is going to have.
  [[nodiscard]] virtual result<> check_zoned_child(const node& child) const {
    (void)child;
    return {};
  }

  // Called after open, after a child changed and after a resize; `limits` holds what the children
  // demand.
  virtual void refine_limits(block_limits& limits) const { (void)limits; }
  [[nodiscard]] virtual std::optional<image_reference> backing_reference() const {
    return std::nullopt;
  }
  // The open node whose backing node this one has as well, whatever a header names; null: none.
  [[nodiscard]] virtual const node* shares_backing_with() const { return nullptr; }
  // Told when the backing child was attached or detached.
  virtual void backing_changed(edge* backing) { (void)backing; }
  [[nodiscard]] virtual driver_info info() const { return {}; }
  // Bytes the host spends on it; nullopt: the sum over its children counts.
  virtual task<std::optional<u64>> allocated_length() { co_return std::nullopt; }
  // What it counts beside what every node does: a map with the member "driver", or null.
  [[nodiscard]] virtual value statistics_specific() const { return {}; }
  // A host path if one exists; for files and protocols.
  [[nodiscard]] virtual std::string host_path() const { return {}; }
  // For protocols, and filters with a prefix: a plain name that opens what this is; empty if there
  // is none, since options that decide what bytes are seen were given. Formats are named after
  // their file (naming.h).
  [[nodiscard]] virtual std::string exact_filename() const { return host_path(); }
  // For protocols: where relative names in the header of an image in this file begin, with a slash
  // at the end. Ends a sentence when it fails: "which has no directory".
  [[nodiscard]] virtual result<std::string> directory_name() const;

  // Moving to another loop while nothing of this driver runs: let go of what belongs to the old one
  // (timers), on its thread, then take up the new one, on that one's. Neither may fail.
  virtual void detach_loop() {}
  virtual void attach_loop(loop& home) { (void)home; }
  // What an edge takes and shares, given what the node's parents take and share together. The
  // default is the rule of the edge's role (permission_rules.h).
  [[nodiscard]] virtual permissions child_permissions(const edge& child, permissions parents) const;
};

// The drivers a program has: an explicit list, made in fuse/main.cpp and in tests.
class registry {
public:
  explicit registry(std::vector<const driver_type*> types) : types_(std::move(types)) {}
  [[nodiscard]] const driver_type* find(std::string_view name) const;
  [[nodiscard]] std::span<const driver_type* const> all() const { return types_; }
  // The format whose probe is surest about these bytes; null if none recognises them ("raw"
  // recognises nothing: an image's format is declared, not assumed).
  [[nodiscard]] const driver_type* probe(std::span<const std::byte> head,
                                         std::string_view filename) const;
  // Names in order, for messages.
  [[nodiscard]] std::vector<std::string_view> names() const;

private:
  std::vector<const driver_type*> types_;
};

} // namespace bgfs
