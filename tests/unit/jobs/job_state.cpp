// SPDX-License-Identifier: MIT
#include "graph/jobs/job_state.h"

#include <doctest/doctest.h>

#include <map>
#include <set>

using namespace bgfs;

TEST_CASE("job states: each is followed by those of the table and by no other") {
  using enum job_state;
  const std::map<job_state, std::set<job_state>> table = {
      {created, {running, aborting}},
      {running, {paused, ready, pending, aborting}},
      {paused, {running}},
      {ready, {standby, pending, aborting}},
      {standby, {ready}},
      {pending, {aborting, concluded}},
      {aborting, {concluded}},
      {concluded, {null}},
      {null, {}},
  };
  for (const job_state before : all_job_states)
    for (const job_state after : all_job_states) {
      CAPTURE(to_string(before));
      CAPTURE(to_string(after));
      CHECK(may_follow(before, after) == table.at(before).contains(after));
    }
}

TEST_CASE("job verbs: each is taken in the states of the table and in no other") {
  using enum job_state;
  const std::set<job_state> alive = {created, running, paused, ready, standby};
  const std::map<job_verb, std::set<job_state>> table = {
      {job_verb::cancel, alive},    {job_verb::pause, alive},      {job_verb::resume, alive},
      {job_verb::set_speed, alive}, {job_verb::complete, {ready}}, {job_verb::dismiss, {concluded}},
  };
  for (const job_verb verb : all_job_verbs)
    for (const job_state state : all_job_states) {
      CAPTURE(to_string(verb));
      CAPTURE(to_string(state));
      CHECK(allows(state, verb) == table.at(verb).contains(state));
    }
}

TEST_CASE("job states and verbs have names that differ") {
  std::set<std::string_view> names;
  for (const job_state s : all_job_states)
    names.insert(to_string(s));
  CHECK(names.size() == all_job_states.size());
  names.clear();
  for (const job_verb v : all_job_verbs)
    names.insert(to_string(v));
  CHECK(names.size() == all_job_verbs.size());
  CHECK(!names.contains("unknown"));
}
