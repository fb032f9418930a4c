// SPDX-License-Identifier: MIT
// The jobs of a mount, with what each of them works on: others leave that as it is meanwhile, and
// are told which job is in their way. On the loop of the mount.
#pragma once

#include "graph/jobs/job_list.h"
#include "graph/model/node.h"

namespace bgfs {

class exported_root;
struct mount_state;

struct mount_job {
  job_description what;
  std::shared_ptr<exported_root> root; // it is about
  // It works on these, which stay open and where they are: no reload touches what is connected with
  // them. Empty: it says itself (works_on).
  std::vector<node*> nodes = {};
};

class mount_jobs {
public:
  mount_jobs(loop& home, event_sink& events) : list_(home, &events) {}

  // As job_list::start. error_kind::busy where another job works on one of its nodes.
  [[nodiscard]] result<job_pointer> start(mount_job begun, std::function<task<void>(job&)> work);
  [[nodiscard]] job_list& list() { return list_; }
  [[nodiscard]] const job_list& list() const { return list_; }

  // A job goes on with other nodes, or with none for a while. error_kind::busy where another job
  // works on one of them.
  [[nodiscard]] result<> works_on(const job& which, std::vector<node*> nodes);
  // The job that keeps `touched` from being changed by an edit, since it works on something that is
  // connected with one of them; null: none does. By who holds mount_state::looking.
  [[nodiscard]] const job* in_the_way_of(const std::vector<node*>& touched) const;
  // The job that works on this node; null: there is none.
  [[nodiscard]] const job* at_work_on(const node& which) const;
  // One whose nodes are of another loop than the mount's own, where an edit cannot even look at
  // them; null: there is none.
  [[nodiscard]] const job* on_another_loop(const loop& home) const;

  // Cancels all, and starts no more.
  void stop() { list_.stop(); }
  // Returns when none runs any more.
  task<void> end();

private:
  struct entry {
    job_pointer which;
    std::shared_ptr<exported_root> root;
    std::vector<node*> nodes;
  };
  void forget_ended();
  [[nodiscard]] result<> check_free(std::string_view id, const std::vector<node*>& nodes) const;

  job_list list_;
  std::vector<entry> entries_; // of those that run
};

// "; wait for its end, or cancel it ...": the end of a sentence about somebody's way.
[[nodiscard]] std::string how_to_end(const job& which);

} // namespace bgfs
