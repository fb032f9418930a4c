// SPDX-License-Identifier: MIT
#include "graph/io/processors.h"

#include <sched.h>

namespace bgfs {

std::vector<unsigned> allowed_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<unsigned> found;
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return found; // more than this set has room for
  for (unsigned i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &set))
      found.push_back(i);
  return found;
}

void stay_on(const std::vector<unsigned>& processors) {
  if (processors.empty())
    return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const unsigned p : processors)
    if (p < CPU_SETSIZE)
      CPU_SET(p, &set);
  (void)sched_setaffinity(0, sizeof set, &set);
}

} // namespace bgfs
