// SPDX-License-Identifier: MIT
#include "graph/base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace bgfs {

void assertion_failed(const char* claim, std::source_location where) {
  std::fprintf(stderr, "bgfs: bug: %s:%u: %s: claim '%s' does not hold\n", where.file_name(),
               static_cast<unsigned>(where.line()), where.function_name(), claim);
  std::abort();
}

} // namespace bgfs
