// SPDX-License-Identifier: MIT
// A view: a small file whose text is made when it is opened, and that may take one command per
// write. Adding one is adding a file to fuse/views and a line to fuse/views/list.cpp.
#pragma once

#include "fuse/tree/inode.h"
#include "fuse/tree/mount_state.h"

#include <span>

namespace bgfs {

class shown_disk;
struct view_subject;

// A text that may be too long to be held (fuse/tree/text_stream.h).
class text_source {
public:
  virtual ~text_source() = default;
  // Appends what comes next: about `enough` bytes, or fewer - none - where it takes long to find
  // them. False: that was all. Called on the loop of the mount, never twice at once.
  virtual task<bool> append(view_subject subject, std::string& text, std::size_t enough) = 0;
};

// What a view is about. `root` is set below NAME.d, `target` below nodes/NAME and for the views of
// layers alone.
struct view_subject {
  mount_state& mount;
  exported_root* root = nullptr;
  node* target = nullptr;
  std::shared_ptr<disk_file> whole = {}; // below partitions/: whose they are; as view_place
  unsigned layer = 0;
  shown_disk* shown = nullptr;  // below layers/N and snapshots/NAME, by views of any of them
  std::string snapshot = {};    // its key (snapshot_index.h), below snapshots/NAME
  std::string bitmap = {};      // its name, below bitmaps/NAME
  std::string point = {};       // its name, below points/NAME
  job_pointer subject_job = {}; // below .bgfs/jobs/ID
  u32 pid = 0;                  // of the process that opened it
  std::size_t open_handles = 0; // of the raw file of `root`
};

struct view {
  std::string_view name;
  std::string_view summary; // one line of the help file
  // Its text, which ends with a newline unless it is empty. null: it cannot be read.
  task<std::string> (*render)(view_subject subject) = nullptr;
  // What an open file reads instead of what render gives, which is then for who wants it at once.
  std::unique_ptr<text_source> (*begin)() = nullptr;
  // Instead of render: lines that go on. An open file reads those that are kept, then those that
  // follow; it ends at the last one and never waits.
  line_ring& (*lines)(mount_state& mount) = nullptr;
  // Carries out what was written, without the newline at its end. null: it cannot be written.
  task<void> (*write)(view_subject subject, std::string text) = nullptr;
  // Opening it fails with ENOMEDIUM while its root is not open. Such a view of a root, its layers
  // and nodes is rendered and written on the loop of the nodes; every other one on the mount's.
  bool needs_medium = true;
  // It asks the root for something - to open a disk, to change a bitmap -, and so is rendered, or
  // written, on the loop of the mount all the same.
  bool renders_on_mount_loop = false;
  bool writes_on_mount_loop = false;
  // Writing it changes the graph: it waits itself until nobody looks, on the mount's loop.
  bool changes_graph = false;
  // st_size is that of the text now, not that of the last one opened; rendering it is cheap and
  // does not suspend.
  bool has_exact_length = false;
};

// What render and write of `what` give, on the loop where they belong.
[[nodiscard]] task<std::string> render_view(const view& what, view_subject subject);
[[nodiscard]] task<void> write_view(const view& what, view_subject subject, std::string text);

// Longest command a view takes.
inline constexpr std::size_t command_length_max = 4096;
// Longest text of a map that is asked for at once.
inline constexpr std::size_t map_text_length_max = 1 << 20;

// More partitions than that are listed in `table` without a look into them.
inline constexpr std::size_t partitions_looked_into_max = 256;

[[nodiscard]] std::span<const view* const> views_of_mount();      // .bgfs/
[[nodiscard]] std::span<const view* const> views_of_root();       // NAME.d/
[[nodiscard]] std::span<const view* const> views_of_shown_disk(); // layers/N/ and snapshots/NAME/
[[nodiscard]] std::span<const view* const> views_of_layer();      // layers/N/ alone
[[nodiscard]] std::span<const view* const> views_of_snapshot();   // NAME.d/snapshots/NAME/ alone
[[nodiscard]] std::span<const view* const> views_of_bitmap();     // NAME.d/bitmaps/NAME/
[[nodiscard]] std::span<const view* const> views_of_point();      // NAME.d/points/NAME/ alone
[[nodiscard]] std::span<const view* const> views_of_node();       // NAME.d/nodes/NAME/
[[nodiscard]] std::span<const view* const> views_of_debug();      // NAME.d/nodes/NAME/debug/
[[nodiscard]] std::span<const view* const> views_of_job();        // .bgfs/jobs/ID/
[[nodiscard]] std::span<const view* const> views_of_partitions(); // .../partitions/

// Finds by name; null: none.
[[nodiscard]] const view* find_view(std::span<const view* const> views, std::string_view name);

} // namespace bgfs
