// SPDX-License-Identifier: MIT
#include "drivers/filter/blkdebug/debug_rules.h"

#include <fmt/format.h>

#include <algorithm>

namespace bgfs::blkdebug {
namespace {

bool applies(const auto& rule, debug_event event, u64 state) {
  return rule.event == event && (rule.state == 0 || rule.state == state);
}

// A flush is about no bytes: a rule about a sector does not cover it.
bool covers(const inject_rule& rule, request_kind kind, byte_range range) {
  if ((rule.kinds & bit(kind)) == 0)
    return false;
  return !rule.sector || range.contains(*rule.sector * rule_sector_length);
}

std::string describe_kinds(request_kinds kinds) {
  std::string text;
  for (std::size_t i = 0; i < std::size(request_kind_names); i++)
    if ((kinds & (1u << i)) != 0)
      text += fmt::format("{}{}", text.empty() ? "" : "|", request_kind_names[i]);
  return text;
}

std::string describe_one(const inject_rule& rule) {
  std::string text =
      fmt::format("inject-error event={} errno={}", to_string(rule.event), rule.os_error);
  if (rule.state != 0)
    text += fmt::format(" state={}", rule.state);
  if (rule.sector)
    text += fmt::format(" sector={}", *rule.sector);
  if (rule.delay_ns != 0)
    text += fmt::format(" delay-ns={}", rule.delay_ns);
  if (rule.is_once)
    text += " once=on";
  if (rule.is_immediate)
    text += " immediately=on";
  if (rule.kinds != default_kinds)
    text += fmt::format(" iotype={}", describe_kinds(rule.kinds));
  return text;
}

std::string describe_one(const state_rule& rule) {
  std::string text = fmt::format("set-state event={}", to_string(rule.event));
  if (rule.state != 0)
    text += fmt::format(" state={}", rule.state);
  return text + fmt::format(" new_state={}", rule.next);
}

} // namespace

rule_engine::rule_engine(rule_list rules) : states_(std::move(rules.states)) {
  for (inject_rule& rule : rules.injects)
    injects_.push_back({std::move(rule)});
}

void rule_engine::process(debug_event event) {
  const auto is_due = [&](const auto& rule) { return applies(rule, event, state_); };
  if (std::ranges::any_of(injects_, is_due))
    for (inject_entry& rule : injects_)
      rule.is_in_force = is_due(rule);
  const auto next = std::ranges::find_if(states_, is_due);
  if (next != states_.end())
    state_ = next->next;
}

std::optional<rule_engine::injection> rule_engine::take(request_kind kind, byte_range range) {
  const auto found = std::ranges::find_if(injects_, [&](const inject_entry& rule) {
    return rule.is_in_force && covers(rule, kind, range);
  });
  if (found == injects_.end() || (found->os_error == 0 && found->delay_ns == 0))
    return std::nullopt;
  const injection met{found->os_error, found->delay_ns, found->is_immediate};
  if (found->is_once)
    injects_.erase(found);
  return met;
}

std::vector<std::string> rule_engine::describe() const {
  std::vector<std::string> lines;
  for (const inject_entry& rule : injects_)
    lines.push_back(describe_one(rule) + (rule.is_in_force ? " (in force)" : ""));
  for (const state_rule& rule : states_)
    lines.push_back(describe_one(rule));
  return lines;
}

} // namespace bgfs::blkdebug
