// SPDX-License-Identifier: MIT
// The commands of `bgfs` and what they are given. Each returns the exit status.
#pragma once

#include "config/arguments.h"
#include "config/program.h"

namespace bgfs {

struct command_call {
  std::string name; // as it was called: "info"
  std::vector<std::string> arguments;
  const registry& drivers;
  mounter& mounts;
};

struct command {
  std::string_view name;
  std::string_view summary; // one line for `bgfs help`
  int (*run)(const command_call& call);
};

[[nodiscard]] std::span<const command> all_commands();

int run_info(const command_call& call);
int run_map(const command_call& call);
int run_check(const command_call& call);
int run_create(const command_call& call);
int run_convert(const command_call& call);
int run_compare(const command_call& call);
int run_snapshot(const command_call& call);
int run_bitmap(const command_call& call);
int run_amend(const command_call& call);
int run_measure(const command_call& call);
int run_commit(const command_call& call);
int run_rebase(const command_call& call);
int run_resize(const command_call& call);
int run_dd(const command_call& call);
int run_bench(const command_call& call);
int run_io(const command_call& call);
int run_mount(const command_call& call);
int run_umount(const command_call& call);
int run_config(const command_call& call);
int run_drivers(const command_call& call);
int run_trace_points(const command_call& call);
int run_reload(const command_call& call);
int run_events(const command_call& call);
int run_state(const command_call& call);
int run_wait(const command_call& call);
int run_export(const command_call& call);
int run_point(const command_call& call);
int run_job(const command_call& call);
int run_flush(const command_call& call);
int run_retry(const command_call& call);
int run_backing(const command_call& call);
int run_get(const command_call& call);
int run_set(const command_call& call);

// How commands end that talk to a mount: as mount(8) does.
namespace mount_status {
inline constexpr int usage = 1;    // a wrong call, or what is no mount
inline constexpr int refused = 32; // by the mount
} // namespace mount_status

// Text to standard output or, with "bgfs NAME: " before it and a newline behind, to standard error.
void print(std::string_view text);
void complain(const command_call& call, std::string_view message);

// Parses the options. Nothing: the command is over, with `status`, because help was asked for or
// something was wrong, which has been said.
struct parsed_arguments {
  std::vector<std::string> operands;
  bool is_over = false;
  int status = 0;
};
[[nodiscard]] parsed_arguments parse_arguments(const command_call& call, arguments& known,
                                               int status_of_misuse = 1);

} // namespace bgfs
