// SPDX-License-Identifier: MIT
// Changing what lies behind the fixed fields of a header: the backing file's name, the extensions
// (the format of the backing file, where the bitmaps are), and, with the version, where they begin.
// They lie behind one another in the first cluster, and a crash may keep any sectors of a write
// that was not flushed and drop the others. So the new content is written beside the old one, and
// what is in force is decided by one write within the first sector, which changes the fixed fields
// as well.
//
//   before    fields | old extensions, old name |
//   staged    fields | old extensions, old name | new extensions, new name     nobody looks there
//   switched  fields'| detour ------------------> new extensions, new name     one sector
//   copied    fields'| detour, new content (body) > new extensions, new name   inside the detour
//   settled   fields"| new extensions, new name |                              one sector
//
// The detour is an extension of a type nobody knows, which everybody skips. Each step is durable
// before the next. If we stop before `switched` the old name is in force, afterwards the new one.
#pragma once

#include "drivers/format/qcow2/header.h"
#include "graph/model/driver.h"

#include <functional>

namespace bgfs::qcow2 {

// All places are bytes of the first cluster.
struct header_switch {
  header after;

  u64 staged_at = 0;
  std::vector<std::byte> staged; // empty: `settled` alone does it, within one sector

  u64 fields_at = 0; // of the next three
  std::vector<std::byte> before;
  std::vector<std::byte> switched;
  std::vector<std::byte> settled;

  u64 body_at = 0;
  std::vector<std::byte> body;
  byte_range leftover; // meaningless afterwards
};

// `first_cluster` is what is on the disk now. Fails, with error_kind::invalid_argument, for what a
// header cannot hold.
[[nodiscard]] result<header_switch>
plan_header_switch(std::span<const std::byte> first_cluster,
                   const std::optional<image_reference>& reference);

// `change` may set the version, the feature bits, the extensions and the backing file name.
[[nodiscard]] result<header_switch> plan_header_switch(std::span<const std::byte> first_cluster,
                                                       const std::function<void(header&)>& change);

// The same for the bitmaps, with their autoclear bit; null: there are none any more. Where the
// extension stays where it is, within a sector, only that is written.
[[nodiscard]] result<header_switch> plan_bitmaps_switch(std::span<const std::byte> first_cluster,
                                                        const bitmap_directory* directory);

} // namespace bgfs::qcow2
