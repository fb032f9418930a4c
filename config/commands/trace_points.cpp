// SPDX-License-Identifier: MIT
// bgfs trace-points: what can be traced, from the list itself.
#include "config/commands/commands.h"

#include "graph/base/trace.h"

namespace bgfs {

int run_trace_points(const command_call& call) {
  arguments known(call.name, "",
                  "Lists what a mount can trace, as a table. 'echo trace model > "
                  "DIR/.bgfs/log-level' switches points on, DIR/.bgfs/log shows what they say.");
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!parsed.operands.empty()) {
    complain(call, "no operands are expected; see 'bgfs trace-points --help'");
    return 1;
  }
  print(describe_trace_points());
  return 0;
}

} // namespace bgfs
