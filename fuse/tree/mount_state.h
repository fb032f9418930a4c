// SPDX-License-Identifier: MIT
// What everything below the mount point shares.
#pragma once

#include "config/program.h"
#include "fuse/mount/own_directories.h"
#include "fuse/protocol/negotiate.h"
#include "fuse/transport/notifier.h"
#include "fuse/tree/error_log.h"
#include "fuse/tree/event_ring.h"
#include "fuse/tree/exported_root.h"
#include "fuse/tree/lister_ledger.h"
#include "fuse/tree/log_ring.h"
#include "fuse/tree/mount_jobs.h"
#include "fuse/tree/parking.h"
#include "fuse/tree/root_list.h"
#include "graph/io/spawn.h"
#include "graph/model/iothread.h"

#include <functional>

namespace bgfs {

struct mount_state {
  mount_state(loop& on, mount_request r, std::string absolute_directory, const registry& drivers);
  ~mount_state();

  loop& home;
  mount_request request;
  const std::string directory; // absolute, without symbolic links
  // That is no directory: it shows the only root and nothing else. Set before anything is opened.
  bool is_one_file = false;
  const own_directories places; // where this mount is seen in the tree
  event_ring events;            // of .bgfs/events
  log_ring log_lines;
  trace_log tracing; // what runs on `home` writes to it
  graph nodes;       // those of the mount's own loop
  std::vector<std::unique_ptr<iothread>> iothreads;
  // Held while nodes are opened and attached, anywhere.
  async_mutex opening;
  // Held shared by whoever looks at nodes without going through a root (attributes, views), and
  // alone by a reload, which closes some. Requests on raw files do not take it: they are drained.
  async_shared_mutex looking;
  async_mutex reloading;
  // Closes what is shown beside live images and nobody uses any more (side_disks); awaited before
  // the roots are closed.
  task_group closing;
  lister_ledger listers;
  payload_budget payloads; // before the roots, which hold shares of it
  parking parked;
  root_list roots;
  mount_jobs jobs; // of .bgfs/jobs
  // Told about a root that a reload has added, for what is done regularly.
  std::function<void(const root_pointer&)> root_added;
  // Told about one that was removed: the kernel's inodes of it mean nothing any more.
  std::function<void(const exported_root&)> root_removed;
  error_log log; // of .bgfs/last-error
  negotiated kernel;
  std::unique_ptr<notifier> notifications; // null until mounted
  std::string transport_name;
  transport_choice wanted_transport = transport_choice::automatic;
  std::optional<unsigned> wanted_queues; // nullopt: as many as are good
  // How many threads take requests: this loop's, and others.
  [[nodiscard]] std::size_t queue_count(bool is_ring) const;
  int session_fd = -1; // where requests come from; borrowed
  // Whether the kernel serves files by itself, or why not; nullopt: it was not asked yet.
  std::optional<result<>> may_pass_through;
  const uid_t owner;
  const gid_t group;
  const std::timespec started;
  int outcome_fd = -1; // see fuse/mount/outcome.h
  u64 shape = 1;       // raised when a root comes to show other nodes
  unsigned requests_running = 0;
  u64 requests_served = 0;
  // Those that were served by lease, by all queues.
  std::function<u64()> requests_leased = [] { return u64{0}; };
  // What those hold that wait for I/O, beside `payloads`, and how much that may be in each queue.
  std::function<u64()> leased_memory_held = [] { return u64{0}; };
  [[nodiscard]] u64 leased_memory_max() const { return payloads.total() / 4 / queue_count(false); }
  unsigned ring_depth = 0; // entries of each of the kernel's queues; 0: it all comes by /dev/fuse

  [[nodiscard]] const graph_config& config() const { return request.config; }
  [[nodiscard]] exported_root* find_root(std::string_view name) const;
  // The graph of a thread, which is started if there is none of that name; "": the mount's own.
  [[nodiscard]] result<graph*> graph_of(std::string_view thread);
  // That of the mount's own loop first.
  [[nodiscard]] std::vector<graph*> graphs();
  // Whichever graph it is in; null: none. By who holds `opening`, or `looking` alone: nodes come
  // while others look.
  [[nodiscard]] node* find_node(std::string_view name);
  // The same by who holds `looking`: asks each graph on its own loop.
  task<node*> look_for_node(std::string name);
  // Calls `what`, a plain function, with every graph, each on its own loop. By who holds `looking`.
  task<void> look_at_graphs(std::function<void(const graph&)> what);
  // Ends the threads that no root is served by.
  void stop_idle_iothreads();
  // Waits until the kernel believes nothing that was changed before: for who has changed something
  // and is about to say so. Not on the way of a request about that file or in its directory, and
  // not by who holds `looking`.
  task<void> kernel_has_heard();
  // Before anything is served.
  void set_payload_budget(u64 bytes);
  // Where readers of lines that poll are woken through; null: nowhere any more.
  void set_line_notifier(notifier* to);
  // Returns when the kernel knows what it was to be told until now (notifier::settled). On the loop
  // of the mount.
  task<void> settle_with_kernel();
  // -o writeback: what is written to the root may be in the kernel still.
  [[nodiscard]] bool is_writeback() const { return request.source.is_writeback; }
  // What the kernel holds back has been written when it returns. As settle_with_kernel, and not by
  // who holds `looking` or has the roots drained.
  task<void> take_what_is_held_back();
  // Refuses a host path that lies in our own mount: opening it would wait for ourselves.
  [[nodiscard]] result<> require_outside(std::string_view path) const;
};

} // namespace bgfs
