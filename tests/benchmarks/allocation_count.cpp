// SPDX-License-Identifier: MIT
#include "tests/benchmarks/allocation_count.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cxxabi.h>
#include <execinfo.h>
#include <memory>
#include <mutex>
#include <span>

// What the C library's own malloc is called where it is replaced.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

constexpr unsigned callers_max = 24;

struct call_chain {
  std::array<void*, callers_max> callers;
  unsigned length = 0;
  unsigned long count = 0;
  bool operator==(const call_chain& other) const {
    return std::ranges::equal(std::span(callers).first(length),
                              std::span(other.callers).first(other.length));
  }
};

std::atomic<unsigned long> allocations = 0;
std::atomic<bool> keeps_chains = false;
std::mutex chains_mutex;
std::array<call_chain, bgfs::benchmarks::call_chains_max> chains;
unsigned chain_count = 0;
thread_local bool is_looking = false; // looking at the stack may allocate, too

void keep_chain() {
  is_looking = true;
  call_chain seen;
  seen.length = static_cast<unsigned>(backtrace(seen.callers.data(), callers_max));
  const std::lock_guard lock(chains_mutex);
  const auto known = std::span(chains).first(chain_count);
  const auto at = std::ranges::find(known, seen);
  if (at != known.end()) {
    at->count++;
  } else if (chain_count < chains.size()) {
    seen.count = 1;
    chains[chain_count++] = seen;
  }
  is_looking = false;
}

void count_one() {
  if (is_looking)
    return;
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (keeps_chains.load(std::memory_order_relaxed))
    keep_chain();
}

// "program(_ZN4bgfs...+0x1f) [0x55...]" with the name as it was written.
std::string readable(const std::string& symbol) {
  const auto begin = symbol.find('(');
  const auto end = symbol.find_first_of("+)", begin);
  if (begin == std::string::npos || end == std::string::npos || end == begin + 1)
    return symbol;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(symbol.substr(begin + 1, end - begin - 1).c_str(), nullptr, nullptr,
                          &status),
      &std::free);
  return status == 0 ? std::string(name.get()) : symbol.substr(begin + 1, end - begin - 1);
}

} // namespace

extern "C" {

void* malloc(std::size_t length) {
  count_one();
  return __libc_malloc(length);
}
void* calloc(std::size_t count, std::size_t length) {
  count_one();
  return __libc_calloc(count, length);
}
void* realloc(void* memory, std::size_t length) {
  count_one();
  return __libc_realloc(memory, length);
}
void* memalign(std::size_t alignment, std::size_t length) {
  count_one();
  return __libc_memalign(alignment, length);
}
void* aligned_alloc(std::size_t alignment, std::size_t length) {
  count_one();
  return __libc_memalign(alignment, length);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t length) {
  count_one();
  *memory = __libc_memalign(alignment, length);
  return *memory != nullptr ? 0 : ENOMEM;
}

} // extern "C"

unsigned long bgfs::benchmarks::allocation_count() {
  return allocations.load(std::memory_order_relaxed);
}

void bgfs::benchmarks::keep_call_chains() {
  keeps_chains = true;
}

std::vector<std::string> bgfs::benchmarks::kept_call_chains() {
  keeps_chains = false;
  std::vector<std::string> texts;
  for (const call_chain& c : std::span(chains).first(chain_count)) {
    std::string text = std::to_string(c.count) + " times\n";
    const std::unique_ptr<char*, decltype(&std::free)> symbols(
        backtrace_symbols(c.callers.data(), static_cast<int>(c.length)), &std::free);
    for (unsigned i = 2; i < c.length; i++) // above: this file
      text += "  " + readable(symbols.get()[i]) + "\n";
    texts.push_back(std::move(text));
  }
  return texts;
}
