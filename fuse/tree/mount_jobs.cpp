// SPDX-License-Identifier: MIT
#include "fuse/tree/mount_jobs.h"

#include "fuse/tree/exported_root.h"
#include "graph/model/migration.h"

#include <algorithm>

namespace bgfs {
namespace {

bool have_common(const std::vector<node*>& some, const std::vector<node*>& others) {
  return std::ranges::any_of(
      some, [&](const node* n) { return std::ranges::find(others, n) != others.end(); });
}

} // namespace

std::string how_to_end(const job& which) {
  return fmt::format("wait for its end, or cancel it (write 1 to .bgfs/jobs/{}/cancel)",
                     which.id());
}

result<job_pointer> mount_jobs::start(mount_job begun, std::function<task<void>(job&)> work) {
  forget_ended();
  BGFS_CHECK(check_free(begun.what.id, begun.nodes));
  BGFS_TRY(job_pointer made, list_.start(std::move(begun.what), std::move(work)));
  entries_.push_back({made, std::move(begun.root), std::move(begun.nodes)});
  return made;
}

result<> mount_jobs::check_free(std::string_view id, const std::vector<node*>& nodes) const {
  for (const entry& e : entries_)
    if (!e.which->is_over() && e.which->id() != id && have_common(e.nodes, nodes))
      return fail(error_kind::busy, "job '{}' cannot begin while job '{}' is at work there; {}", id,
                  e.which->id(), how_to_end(*e.which));
  return {};
}

result<> mount_jobs::works_on(const job& which, std::vector<node*> nodes) {
  BGFS_CHECK(check_free(which.id(), nodes));
  for (entry& e : entries_)
    if (e.which.get() == &which)
      e.nodes = std::move(nodes);
  return {};
}

const job* mount_jobs::in_the_way_of(const std::vector<node*>& touched) const {
  for (const entry& e : entries_)
    if (!e.which->is_over() && !e.nodes.empty() &&
        have_common(component_of(*e.nodes.front()), touched))
      return e.which.get();
  return nullptr;
}

const job* mount_jobs::at_work_on(const node& which) const {
  for (const entry& e : entries_)
    if (!e.which->is_over() && std::ranges::find(e.nodes, &which) != e.nodes.end())
      return e.which.get();
  return nullptr;
}

const job* mount_jobs::on_another_loop(const loop& home) const {
  for (const entry& e : entries_)
    if (!e.which->is_over() && !e.nodes.empty() && &e.nodes.front()->owner().home() != &home)
      return e.which.get();
  return nullptr;
}

task<void> mount_jobs::end() {
  stop();
  co_await list_.join();
  forget_ended();
}

void mount_jobs::forget_ended() {
  std::erase_if(entries_, [](const entry& e) { return e.which->is_over(); });
}

} // namespace bgfs
