// SPDX-License-Identifier: MIT
// What a disk may look like after a crash: the log of what reached it, cut after each event, with
// everything flushed before and an arbitrary part of what was not. A write lands sector by sector:
// what is arbitrary is not only which writes, but which of their sectors.
#pragma once

#include "tests/unit/lib/memory_driver.h"

#include <algorithm>
#include <functional>
#include <random>

namespace bgfs::test {

inline constexpr u64 sector = 512;

inline void replay(std::vector<std::byte>& image, const memory_event& e) {
  using kind = memory_event::kind;
  if (e.what == kind::flush)
    return;
  if (e.what == kind::truncate) {
    image.resize(e.range.length);
    return;
  }
  if (e.what == kind::discard) { // never makes a file longer
    const u64 begin = std::min<u64>(e.range.offset, image.size());
    const u64 end = std::min<u64>(e.range.end(), image.size());
    std::fill_n(image.begin() + static_cast<i64>(begin), end - begin, std::byte{0xdd});
    return;
  }
  if (image.size() < e.range.end())
    image.resize(e.range.end());
  const auto at = image.begin() + static_cast<i64>(e.range.offset);
  switch (e.what) {
  case kind::write:
    std::ranges::copy(e.bytes, at);
    break;
  case kind::zero:
    std::fill_n(at, e.range.length, std::byte{0});
    break;
  case kind::discard:
  case kind::flush:
  case kind::truncate:
    break;
  }
}

// A part of a write, as a disk that loses power may leave it.
inline memory_event part_of(const memory_event& e, u64 begin, u64 end) {
  const auto from = e.bytes.begin() + static_cast<i64>(begin - e.range.offset);
  return {e.what, byte_range::between(begin, end), {from, from + static_cast<i64>(end - begin)}};
}

// Which of the unflushed events a crash leaves: each or none, some as a whole, the beginnings of
// all, or any sectors.
enum class survival { all, none, some, beginnings, sectors };
inline constexpr survival survivals[] = {survival::all, survival::none, survival::some,
                                         survival::beginnings, survival::sectors};

inline void replay_sectors(std::vector<std::byte>& image, const memory_event& e, survival how,
                           std::mt19937_64& random) {
  const u64 first = e.range.offset / sector;
  const u64 count = divide_up(e.range.end(), sector) - first;
  const u64 begun = random() % (count + 1);
  for (u64 i = 0; i < count; i++) {
    const bool lands = how == survival::beginnings ? i < begun : random() % 2 == 0;
    const byte_range part = byte_range{(first + i) * sector, sector}.intersection(e.range);
    if (lands)
      replay(image, part_of(e, part.offset, part.end()));
  }
}

inline std::vector<std::byte> survivor(std::vector<std::byte> image,
                                       std::span<const memory_event> unflushed, survival how,
                                       std::mt19937_64& random) {
  for (const memory_event& e : unflushed) {
    const bool is_torn = how == survival::beginnings || how == survival::sectors;
    if (is_torn && e.what == memory_event::kind::write) {
      replay_sectors(image, e, how, random);
    } else if (how != survival::none && (how == survival::all || random() % 2 == 0)) {
      replay(image, e);
    }
  }
  return image;
}

// Calls check(image, cut) for what may be left after each event.
inline void for_each_cut(
    const std::vector<std::byte>& start, const std::vector<memory_event>& log,
    std::mt19937_64& random,
    const std::function<void(const std::vector<std::byte>& image, std::size_t cut)>& check) {
  std::vector<std::byte> durable = start;
  std::size_t durable_events = 0;
  for (std::size_t cut = 0; cut <= log.size(); cut++) {
    for (std::size_t i = durable_events; i < cut; i++) {
      if (log[i].what != memory_event::kind::flush)
        continue;
      for (; durable_events <= i; durable_events++)
        replay(durable, log[durable_events]);
    }
    const auto unflushed = std::span(log).subspan(durable_events, cut - durable_events);
    for (const survival how : survivals)
      check(survivor(durable, unflushed, how, random), cut);
  }
}

} // namespace bgfs::test
