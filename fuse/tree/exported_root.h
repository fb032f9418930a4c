// SPDX-License-Identifier: MIT
// One root of the mount: an export of the graph, open or not, with what is known about it. It is
// there from mount to unmount, whether it could be opened or not: a failed root never reads as
// empty.
#pragma once

#include "fuse/tree/error_log.h"
#include "fuse/tree/kept_check.h"
#include "fuse/tree/partition_set.h"
#include "fuse/tree/passthrough.h"
#include "fuse/tree/payload_budget.h"
#include "fuse/tree/raw_disk.h"
#include "fuse/tree/residence.h"
#include "fuse/tree/root_bitmaps.h"
#include "fuse/tree/root_points.h"
#include "fuse/tree/root_snapshots.h"
#include "fuse/tree/side_disks.h"

#include <list>
#include <map>

namespace bgfs {

struct mount_state;

enum class root_phase : u8 {
  unopened,
  opening,
  open,
  failed,
  closing,
  gone, // removed by a reload; who has it open is told so
};

// An open handle of the raw file, for `openers`.
struct opener {
  u32 pid;
  std::string command;
  bool is_writing;
  bool is_passed_through = false; // the kernel serves it by itself
  bool is_admitted = false;       // which of the two it is, is decided
  bool shows_live = true;         // what is written to the root is seen through it
  std::string what = {}; // what is open, as a path in the mount; "": it is in `openers`, too
  u32 partition = 0;     // 0: it is the raw file of the root
};

// As the `state` file shows it.
struct root_state {
  std::string_view word; // of DESIGN.md section 5: ok read-only opening full stopped failed ...
  std::string reason;    // the second line, or ""
};

// A file that shows bytes of a root beside its raw file, and is open.
struct shown_view {
  std::list<opener> users;
  byte_range place{0, device_length_max}; // of the disk
};

class exported_root;
// Shared by the mount, by the inodes below it that the kernel knows, and by open handles, which
// outlive a root that a reload removes.
using root_pointer = std::shared_ptr<exported_root>;

// Its methods are called on the loop of the mount. Its disk and its nodes live on another, where
// place().run leads; what they are and how they hang together is read here, too, by who holds
// mount_state::looking.
class exported_root final : public root_observer,
                            public std::enable_shared_from_this<exported_root> {
public:
  exported_root(mount_state& in, export_spec spec);
  ~exported_root();
  exported_root(const exported_root&) = delete;
  exported_root& operator=(const exported_root&) = delete;

  // Opens it unless it is open; an error is also kept and logged, `pid` being who asked (0: the
  // mount). A failed root is tried again only by retry.
  task<void> open(u32 pid);
  task<void> retry(u32 pid);
  // Flushes and detaches; the nodes stay open until the graph is closed. The first error counts.
  task<void> close();

  // --- reload (fuse/tree/reload.cpp) ---
  // Where an edit puts the root that it attaches; then it is open.
  [[nodiscard]] std::unique_ptr<root>* attachment();
  task<void> begin_open();
  // Goes on under another specification, and over whatever its root leads to now.
  task<void> go_on(export_spec spec, bool has_new_nodes);
  // Its root was released by an edit.
  void end();
  // The roots of its layers, which hold nodes that an edit may close.
  [[nodiscard]] std::vector<root*> layer_roots() const;
  // Null: it is not open.
  [[nodiscard]] root* attached() const;
  [[nodiscard]] residence& place() { return place_; }
  [[nodiscard]] passthrough& through_kernel() { return through_kernel_; }
  // It turned out to be unusable after it had been opened, and before anybody used it.
  task<void> give_up(error why);

  // After the graph was closed: keeps the time of the last change. Blocks.
  void keep_time() const;

  [[nodiscard]] const export_spec& spec() const { return spec_; }
  [[nodiscard]] const std::string& name() const { return spec_.name; }
  [[nodiscard]] bool is_writable() const { return spec_.is_writable; }
  [[nodiscard]] root_phase phase() const { return phase_; }
  // Why it could not be opened; null unless it failed.
  [[nodiscard]] const error* failure() const { return failure_ ? &*failure_ : nullptr; }
  // ENOMEDIUM with the reason, unless it is open.
  [[nodiscard]] result<> require_medium() const;
  // The disk; null unless it is open.
  [[nodiscard]] raw_disk* disk() const {
    return phase_ == root_phase::open || phase_ == root_phase::closing ? disk_.get() : nullptr;
  }
  // The layers, without filters: 0 is the live image. Empty unless it is open.
  [[nodiscard]] std::vector<node*> layers() const;
  // Every node below and including the top, each once, the top first.
  [[nodiscard]] std::vector<node*> nodes() const;
  [[nodiscard]] bool leads_to(const node& n) const;
  // Layer `index` merged down to the base, read-only; attached at first use.
  task<raw_disk*> layer_disk(unsigned index);
  // What is opened for a while beside the live image.
  [[nodiscard]] side_disks& beside() { return beside_; }
  [[nodiscard]] root_snapshots& snapshots() { return snapshots_; }
  [[nodiscard]] root_bitmaps& bitmaps() { return bitmaps_; }
  [[nodiscard]] root_points& points() { return points_; }
  // What lies where below it has changed, and its bytes have not.
  task<void> layers_changed();
  // Its nodes show other bytes from now on.
  task<void> content_replaced();

  task<root_state> state();
  // What can be said of the disk without opening it: a root that is opened on demand is not opened
  // because somebody lists the mount. nullopt: nothing. By who holds mount_state::looking.
  task<std::optional<disk_extent>> look_from_outside();

  [[nodiscard]] mode_t mode() const;      // permission bits of the raw file; 0 while it is failed
  [[nodiscard]] mode_t full_mode() const; // also while it is failed
  [[nodiscard]] mode_t view_mode(bool is_writable_view) const;
  [[nodiscard]] mode_t directory_mode() const;
  [[nodiscard]] uid_t owner() const;
  [[nodiscard]] gid_t group() const;

  void resized() override; // on the loop of its nodes
  void medium_changed() override { resized(); }

  error_log log;
  // Its bytes were changed through its raw file. Other raw files that show them may be mapped: the
  // kernel is told to look again.
  // `from` is the inode of the partition that it was changed through; 0: the raw file. Partitions
  // look at their table again where that was changed.
  void tell_other_views(byte_range changed, u64 from = 0);
  // With `exclusive: true` the raw file and partitions are not open for writing at once; EBUSY.
  [[nodiscard]] result<> check_exclusive(bool is_partition) const;
  // What the kernel knows of the raw file's times may become untrue without its knowledge.
  [[nodiscard]] bool has_partition_writers() const;
  // Finds the roots that share nodes with this one. By who holds `looking`, before it is opened and
  // after nodes have changed.
  task<void> meet_overlapping();
  // Writes by lease tell nobody: there are none to this root and to those that share nodes with it
  // while somebody may have mapped what shows their bytes. Before the answer to who opens.
  task<void> settle_leased_writes();
  // Others write to its file by themselves from now on: what the kernel knows of the length of
  // roots that show it will not stay true.
  void forget_shared_attributes();
  // A raw file of it was closed, and is listed no longer.
  task<void> file_closed();

  std::map<u64, shown_view> open_views; // by inode: layers and partitions that are open
  std::list<opener> openers;            // of the raw file and of partitions, oldest first
  // One that has the disk open, through its raw file or another; null: nobody has.
  [[nodiscard]] const opener* first_opener() const;
  payload_share share;                  // of mount_state::payloads
  std::optional<kept_check> last_check; // by the loop of the mount
  bool is_repairing = false;            // likewise
  // As the kernel knows them; 0: it does not.
  u64 inode = 0;           // of the raw file
  u64 directory_inode = 0; // of its control directory
  // Grows with everything that it tells the kernel.
  [[nodiscard]] u64 news_for_kernel() const { return news_for_kernel_; }

private:
  [[nodiscard]] bool is_watched() const;
  task<void> open_uninterrupted();
  task<void> open_disk();
  task<void> open_below();
  task<void> attach_disk(node& top);
  task<void> announce_opening();
  void announce_closing(const result<>& flushed) const;
  [[nodiscard]] disk_policy policy() const;
  task<void> load_time();
  task<raw_disk*> attach_layer(unsigned index);
  task<void> renew_layers();
  task<root_state> state_of_nodes();
  task<void> release_disks();
  void tell_kernel();
  void forget_names();

  mount_state& mount_;
  residence place_;

public:
  partition_sets parts{place_};

private:
  passthrough through_kernel_;
  export_spec spec_;
  root_phase phase_ = root_phase::unopened;
  std::optional<error> failure_;
  std::unique_ptr<raw_disk> disk_;
  std::map<unsigned, std::unique_ptr<raw_disk>> layer_disks_;
  std::multimap<unsigned, std::unique_ptr<raw_disk>> layer_disks_gone_;
  side_disks beside_;
  root_snapshots snapshots_;
  root_bitmaps bitmaps_;
  root_points points_;
  std::string image_path_;                                // of the live image's file
  std::vector<std::weak_ptr<exported_root>> overlapping_; // other roots that share nodes
  u64 overlapping_as_of_ = 0;
  u64 news_for_kernel_ = 0;
  event opened_; // set when an attempt to open has ended
};

} // namespace bgfs
