// SPDX-License-Identifier: MIT
// The states of a job, which of them may follow each other, and which verbs each of them takes
// (reference section 4.1). Pure.
//
// There are no transactions of jobs, so that nothing waits for a peer, and every job finalises by
// itself: `pending` is the last step of a job, which can be neither stopped nor taken back.
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <string_view>

namespace bgfs {

enum class job_state : u8 {
  created, // its work has not begun
  running,
  paused,    // at a pause point, with no request in flight
  ready,     // all is done but the last step, for which it waits to be told
  standby,   // paused while it is ready
  pending,   // in its last step
  aborting,  // it was cancelled or has failed, and takes back what it has begun
  concluded, // its outcome is known
  null,      // it was dismissed: nobody lists it any more
};
inline constexpr std::array all_job_states = {
    job_state::created,  job_state::running,   job_state::paused,
    job_state::ready,    job_state::standby,   job_state::pending,
    job_state::aborting, job_state::concluded, job_state::null,
};

enum class job_verb : u8 { cancel, pause, resume, set_speed, complete, dismiss };
inline constexpr std::array all_job_verbs = {
    job_verb::cancel,    job_verb::pause,    job_verb::resume,
    job_verb::set_speed, job_verb::complete, job_verb::dismiss,
};

[[nodiscard]] std::string_view to_string(job_state state);
// As the file that takes it is called: "cancel", "speed".
[[nodiscard]] std::string_view to_string(job_verb verb);

[[nodiscard]] bool may_follow(job_state before, job_state after);
[[nodiscard]] bool allows(job_state state, job_verb verb);

} // namespace bgfs
