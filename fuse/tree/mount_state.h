// SPDX-License-Identifier: MIT
// What everything below the mount point shares.
#pragma once

#include "config/program.h"
#include "fuse/protocol/negotiate.h"
#include "fuse/transport/notifier.h"
#include "fuse/tree/error_log.h"
#include "fuse/tree/event_ring.h"
#include "fuse/tree/exported_root.h"
#include "fuse/tree/log_ring.h"

#include <functional>

namespace bgfs {

// The graph asks one resolver; the policy of references belongs to each root. Roots are opened one
// after the other (mount_state::opening), and this hands each question to the one being opened.
class current_references final : public reference_resolver {
public:
  void set(reference_resolver* now) { now_ = now; }
  result<node_spec> resolve_backing(const node& overlay, const image_reference& reference) override;

private:
  reference_resolver* now_ = nullptr;
};

struct mount_state {
  mount_state(loop& on, mount_request r, std::string absolute_directory, const registry& drivers);
  ~mount_state();

  loop& home;
  mount_request request;
  const std::string directory; // absolute, without symbolic links
  event_ring events; // of .bgfs/events
  log_ring log_lines;
  trace_log tracing; // what runs on `home` writes to it
  current_references references;
  graph nodes;
  async_mutex opening;
  std::vector<std::unique_ptr<exported_root>> roots;
  error_log log; // of .bgfs/last-error
  negotiated kernel;
  std::unique_ptr<notifier> notifications; // null until mounted
  std::string transport_name;
  const uid_t owner;
  const gid_t group;
  const std::timespec started;
  int outcome_fd = -1; // see fuse/mount/outcome.h
  unsigned requests_running = 0;
  u64 requests_served = 0;

  [[nodiscard]] const graph_config& config() const { return request.config; }
  [[nodiscard]] exported_root* find_root(std::string_view name) const;
  // Where readers of lines that poll are woken through; null: nowhere any more.
  void set_line_notifier(notifier* to);
  // Refuses a host path that lies in our own mount: opening it would wait for ourselves.
  [[nodiscard]] result<> require_outside(std::string_view path) const;
};

} // namespace bgfs
