// SPDX-License-Identifier: MIT
#include "fuse/tree/mount_state.h"

#include "config/path_walk.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/offload.h"

#include <algorithm>
#include <unistd.h>

namespace bgfs {
namespace {

std::timespec now() {
  std::timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

} // namespace

mount_state::mount_state(loop& on, mount_request r, std::string absolute_directory,
                         const registry& drivers)
    : home(on), request(std::move(r)), directory(std::move(absolute_directory)), places(directory),
      tracing(log_lines), nodes(on, drivers, nullptr), closing(on), jobs(on, events),
      owner(geteuid()), group(getegid()), started(now()) {
  tracing.set_level(trace_level::warn);
  home.set_log(tracing);
  nodes.set_events(&events);
  for (const export_spec& spec : request.config.exports())
    roots.push_back(std::make_shared<exported_root>(*this, spec));
}

mount_state::~mount_state() {
  home.set_log(silent_log);
}

// A ring has a queue for each processor, and a thread there spares waking another one
// (fuse/README.md, "Queues"). Of /dev/fuse nobody knows which processor asks.
std::size_t mount_state::queue_count(bool is_ring) const {
  if (wanted_queues)
    return *wanted_queues;
  // Not those that this thread may run on: by now it may have been kept on one.
  const std::size_t processors = home.offloads().processors().size();
  return is_ring ? std::clamp<std::size_t>(processors, 1, lease::queues_max) : 1;
}

exported_root* mount_state::find_root(std::string_view name) const {
  return roots.find(name);
}

result<graph*> mount_state::graph_of(std::string_view thread) {
  if (thread.empty())
    return &nodes;
  for (const auto& t : iothreads)
    if (t->name() == thread)
      return &t->nodes();
  BGFS_TRY(std::unique_ptr<iothread> fresh, iothread::start(std::string(thread), nodes));
  iothreads.push_back(std::move(fresh));
  return &iothreads.back()->nodes();
}

std::vector<graph*> mount_state::graphs() {
  std::vector<graph*> all = {&nodes};
  for (const auto& t : iothreads)
    all.push_back(&t->nodes());
  return all;
}

node* mount_state::find_node(std::string_view name) {
  for (const graph* g : graphs())
    if (node* const found = g->find(name))
      return found;
  return nullptr;
}

namespace {
task<void> show(const graph& g, const std::function<void(const graph&)>& to) {
  to(g);
  co_return;
}
} // namespace

task<void> mount_state::look_at_graphs(std::function<void(const graph&)> what) {
  for (const graph* g : graphs())
    co_await run_on(g->home(), show(*g, what));
}

task<node*> mount_state::look_for_node(std::string name) {
  node* found = nullptr;
  co_await look_at_graphs([&](const graph& g) {
    if (found == nullptr)
      found = g.find(name);
  });
  co_return found;
}

void mount_state::stop_idle_iothreads() {
  std::erase_if(iothreads, [this](const auto& t) {
    return t->nodes().nodes().empty() && std::ranges::none_of(roots, [&](const root_pointer& r) {
             return r->phase() != root_phase::gone && &r->place().nodes() == &t->nodes();
           });
  });
}

// What is kept for the next request is as much as one root may hold while others hold nothing.
void mount_state::set_payload_budget(u64 bytes) {
  payloads.set_total(bytes);
  home.buffers().set_kept_bytes_max(bytes / 2);
}

task<void> mount_state::kernel_has_heard() {
  notifier* const to = notifications.get();
  if (to != nullptr && to->has_queued())
    (void)co_await offload([to] { return to->wait_until_sent(); });
}

void mount_state::set_line_notifier(notifier* to) {
  events.lines().set_notifier(to);
  log_lines.lines().set_notifier(to);
}

task<void> mount_state::settle_with_kernel() {
  if (notifications != nullptr)
    co_await notifications->settled();
}

// To invalidate pages the kernel first writes those that are dirty, and waits for that.
task<void> mount_state::take_what_is_held_back() {
  if (!is_writeback() || notifications == nullptr)
    co_return;
  for (const root_pointer& r : roots)
    if (r->inode != 0)
      notifications->invalidate(r->inode, {});
  co_await notifications->settled();
}

result<> mount_state::require_outside(std::string_view path) const {
  const walked_path walked = walk_path(std::string(path), places.now());
  if (!walked.is_forbidden)
    return {};
  if (is_one_file)
    return fail(error_kind::invalid_argument,
                "'{}' is what is mounted on, which would hide it, and opening it again would wait "
                "for itself; mount on another file",
                path);
  return fail(error_kind::invalid_argument,
              "'{}' lies in '{}', where the mount would hide it and wait for itself; keep graphs "
              "and images outside of the directory they are mounted on",
              path, walked.path);
}

} // namespace bgfs
