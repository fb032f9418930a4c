// SPDX-License-Identifier: MIT
// How often this thread has called operator new; always 0 under ThreadSanitizer, whose runtime has
// one of its own.
#pragma once

namespace bgfs::test {

[[nodiscard]] unsigned long heap_trips();

} // namespace bgfs::test
