// SPDX-License-Identifier: MIT
#include "fuse/tree/residence.h"

namespace bgfs {

task<void> residence::settled() {
  if (is_closed())
    co_await opened_.wait();
}

task<void> residence::wait_until_empty() {
  while (visitors_ > 0)
    co_await left_.wait();
}

} // namespace bgfs
