// SPDX-License-Identifier: MIT
// How often this process, on any of its threads, has asked the heap for memory: malloc and its
// relatives, operator new among them. Linking this file replaces them all.
#pragma once

#include <string>
#include <vector>

namespace bgfs::benchmarks {

[[nodiscard]] unsigned long allocation_count();

// From now on each allocation's callers are kept; call chains that were seen before are only
// counted. At most call_chains_max different ones.
inline constexpr unsigned call_chains_max = 32;
void keep_call_chains();
// Nothing is kept any more; what was, as text: how often, then one caller a line, innermost first.
[[nodiscard]] std::vector<std::string> kept_call_chains();

} // namespace bgfs::benchmarks
