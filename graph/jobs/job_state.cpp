// SPDX-License-Identifier: MIT
#include "graph/jobs/job_state.h"

#include <algorithm>
#include <initializer_list>

namespace bgfs {
namespace {

bool is_among(job_state state, std::initializer_list<job_state> some) {
  return std::ranges::find(some, state) != some.end();
}

} // namespace

std::string_view to_string(job_state state) {
  switch (state) {
  case job_state::created:
    return "created";
  case job_state::running:
    return "running";
  case job_state::paused:
    return "paused";
  case job_state::ready:
    return "ready";
  case job_state::standby:
    return "standby";
  case job_state::pending:
    return "pending";
  case job_state::aborting:
    return "aborting";
  case job_state::concluded:
    return "concluded";
  case job_state::null:
    return "null";
  }
  return "unknown";
}

std::string_view to_string(job_verb verb) {
  switch (verb) {
  case job_verb::cancel:
    return "cancel";
  case job_verb::pause:
    return "pause";
  case job_verb::resume:
    return "resume";
  case job_verb::set_speed:
    return "speed";
  case job_verb::complete:
    return "complete";
  case job_verb::dismiss:
    return "dismiss";
  }
  return "unknown";
}

bool may_follow(job_state before, job_state after) {
  using enum job_state;
  switch (before) {
  case created:
    return is_among(after, {running, aborting});
  case running:
    return is_among(after, {paused, ready, pending, aborting});
  case paused:
    return after == running;
  case ready:
    return is_among(after, {standby, pending, aborting});
  case standby:
    return after == ready;
  case pending:
    return is_among(after, {aborting, concluded});
  case aborting:
    return after == concluded;
  case concluded:
    return after == null;
  case null:
    return false;
  }
  return false;
}

bool allows(job_state state, job_verb verb) {
  using enum job_state;
  switch (verb) {
  case job_verb::cancel:
  case job_verb::pause:
  case job_verb::resume:
  case job_verb::set_speed:
    return is_among(state, {created, running, paused, ready, standby});
  case job_verb::complete:
    return state == ready;
  case job_verb::dismiss:
    return state == concluded;
  }
  return false;
}

} // namespace bgfs
