// SPDX-License-Identifier: MIT
// The rules of a blkdebug node: which requests fail, and what state follows from which event.
// Pure: nothing here suspends, and nothing is known of who asks.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/model/debug_event.h"

#include <list>
#include <string>
#include <vector>

namespace bgfs::blkdebug {

enum class request_kind : u8 { read, write, write_zeroes, discard, flush, block_status };
inline constexpr std::string_view request_kind_names[] = {"read",    "write", "write-zeroes",
                                                          "discard", "flush", "block-status"};

using request_kinds = u8; // a bit for each
[[nodiscard]] constexpr request_kinds bit(request_kind kind) {
  return static_cast<request_kinds>(1u << static_cast<unsigned>(kind));
}
// What a rule is about that does not say: to look where bytes are is not meant.
inline constexpr request_kinds default_kinds = 0x1f;

// Once its event has happened in its state, requests that it covers fail.
struct inject_rule {
  debug_event event = debug_event::none;
  u64 state = 0;             // 0: any
  int os_error = 0;          // 0: they succeed, after the delay
  u64 delay_ns = 0;          // they wait so long first
  std::optional<u64> sector; // only those that touch its first byte; absent: all
  bool is_once = false;      // for one request; then the rule is gone
  bool is_immediate = false; // without a turn of the loop in between
  request_kinds kinds = default_kinds;
};

// Once its event has happened in its state, another state is in force.
struct state_rule {
  debug_event event = debug_event::none;
  u64 state = 0; // 0: any
  u64 next = 0;
};

struct rule_list {
  std::vector<inject_rule> injects;
  std::vector<state_rule> states;
};

inline constexpr u64 first_state = 1;
inline constexpr u64 rule_sector_length = 512;

class rule_engine {
public:
  explicit rule_engine(rule_list rules);

  // The rules for it come into force. Where it has one in this state to inject, those of an earlier
  // event are no longer in force; else they stay. The state changes after that; of several rules
  // that change it the first decides.
  void process(debug_event event);
  // What a request is going to meet, by the first rule in force that covers it. One that is to be
  // met once is gone.
  struct injection {
    int os_error = 0;
    u64 delay_ns = 0;
    bool is_immediate = false;
  };
  [[nodiscard]] std::optional<injection> take(request_kind kind, byte_range range);

  [[nodiscard]] u64 state() const { return state_; }
  // Those that are left, one a line, as they could be given; those in force say so.
  [[nodiscard]] std::vector<std::string> describe() const;

private:
  struct inject_entry : inject_rule {
    bool is_in_force = false;
  };
  std::list<inject_entry> injects_; // in the order of their definition
  std::vector<state_rule> states_;
  u64 state_ = first_state;
};

} // namespace bgfs::blkdebug
