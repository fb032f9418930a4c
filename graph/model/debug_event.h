// SPDX-License-Identifier: MIT
// Instants inside formats and nodes that a fault-injecting filter (face debuggable) can be told of:
// their names are those that rules and breakpoints of this field use. Who reaches such an instant
// says so before it does what the sentence says; the README of a driver lists those that it never
// reaches.
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <optional>
#include <string_view>

namespace bgfs {

// In the order of the table.
enum class debug_event : u8 {
  none,
  l1_update,
  l1_grow_alloc_table,
  l1_grow_write_table,
  l1_grow_activate_table,
  l1_shrink_write_table,
  l1_shrink_free_l2_clusters,
  l2_load,
  l2_update,
  l2_update_compressed,
  l2_alloc_cow_read,
  l2_alloc_write,
  read_aio,
  read_backing_aio,
  read_compressed,
  write_aio,
  write_compressed,
  vmstate_load,
  vmstate_save,
  cow_read,
  cow_write,
  reftable_load,
  reftable_grow,
  reftable_update,
  refblock_load,
  refblock_update,
  refblock_update_part,
  refblock_alloc,
  refblock_alloc_hookup,
  refblock_alloc_write,
  refblock_alloc_write_blocks,
  refblock_alloc_write_table,
  refblock_alloc_switch_table,
  cluster_alloc,
  cluster_alloc_bytes,
  cluster_alloc_space,
  cluster_free,
  empty_image_prepare,
  flush_to_os,
  flush_to_disk,
  pwritev,
  pwritev_zero,
  pwritev_done,
  pwritev_rmw_head,
  pwritev_rmw_after_head,
  pwritev_rmw_tail,
  pwritev_rmw_after_tail,
  cor_write,
};

struct debug_event_description {
  debug_event event;
  std::string_view name;
  std::string_view meaning;
};

// All of them; indexed by the event.
inline constexpr auto debug_event_table = std::to_array<debug_event_description>({
    {debug_event::none, "none", "the filter has been opened; it never happens again"},
    {debug_event::l1_update, "l1_update", "an entry of the L1 table is about to be written"},
    {debug_event::l1_grow_alloc_table, "l1_grow_alloc_table",
     "a larger L1 table is about to get its place"},
    {debug_event::l1_grow_write_table, "l1_grow_write_table", "that table is about to be written"},
    {debug_event::l1_grow_activate_table, "l1_grow_activate_table",
     "the header is about to lead to that table"},
    {debug_event::l1_shrink_write_table, "l1_shrink_write_table",
     "L1 entries behind the new end of a disk are about to be cleared"},
    {debug_event::l1_shrink_free_l2_clusters, "l1_shrink_free_l2_clusters",
     "the L2 tables that they led to are about to be given up"},
    {debug_event::l2_load, "l2_load", "a part of an L2 table is about to be read into the cache"},
    {debug_event::l2_update, "l2_update",
     "changed parts of L2 tables are about to be written from the cache"},
    {debug_event::l2_update_compressed, "l2_update_compressed",
     "compressed clusters are about to be entered into an L2 table, in memory"},
    {debug_event::l2_alloc_cow_read, "l2_alloc_cow_read",
     "an L2 table that snapshots share is about to be read to be copied"},
    {debug_event::l2_alloc_write, "l2_alloc_write", "a new L2 table is about to be written"},
    {debug_event::read_aio, "read_aio", "guest data is about to be read from where it lies"},
    {debug_event::read_backing_aio, "read_backing_aio",
     "guest data is about to be read from the backing image"},
    {debug_event::read_compressed, "read_compressed", "a compressed cluster is about to be read"},
    {debug_event::write_aio, "write_aio", "guest data is about to be written"},
    {debug_event::write_compressed, "write_compressed",
     "compressed clusters are about to be written"},
    {debug_event::vmstate_load, "vmstate_load", "the state of a machine is about to be read"},
    {debug_event::vmstate_save, "vmstate_save", "the state of a machine is about to be written"},
    {debug_event::cow_read, "cow_read",
     "what lies around guest data in its new cluster is about to be read"},
    {debug_event::cow_write, "cow_write",
     "it is about to be written, alone or together with the data"},
    {debug_event::reftable_load, "reftable_load", "the refcount table is about to be read"},
    {debug_event::reftable_grow, "reftable_grow", "a larger refcount table is going to be made"},
    {debug_event::reftable_update, "reftable_update",
     "a refcount table that replaces another is about to be written"},
    {debug_event::refblock_load, "refblock_load",
     "a refcount block is about to be read into the cache"},
    {debug_event::refblock_update, "refblock_update",
     "a whole refcount block is about to be written anew"},
    {debug_event::refblock_update_part, "refblock_update_part",
     "changed refcount blocks are about to be written from the cache"},
    {debug_event::refblock_alloc, "refblock_alloc", "a new refcount block is going to be made"},
    {debug_event::refblock_alloc_hookup, "refblock_alloc_hookup",
     "the refcount table is about to lead to a new block"},
    {debug_event::refblock_alloc_write, "refblock_alloc_write",
     "a new refcount block is about to be written"},
    {debug_event::refblock_alloc_write_blocks, "refblock_alloc_write_blocks",
     "the blocks that describe a larger refcount table are about to be written"},
    {debug_event::refblock_alloc_write_table, "refblock_alloc_write_table",
     "that refcount table is about to be written"},
    {debug_event::refblock_alloc_switch_table, "refblock_alloc_switch_table",
     "the header is about to lead to that refcount table"},
    {debug_event::cluster_alloc, "cluster_alloc", "clusters are about to be allocated"},
    {debug_event::cluster_alloc_bytes, "cluster_alloc_bytes",
     "bytes in a cluster that others share are about to be allocated"},
    {debug_event::cluster_alloc_space, "cluster_alloc_space",
     "new clusters are about to be made to read as zeroes without writing a buffer"},
    {debug_event::cluster_free, "cluster_free",
     "the refcounts of clusters are about to be lowered"},
    {debug_event::empty_image_prepare, "empty_image_prepare",
     "an image is about to give up all that it holds"},
    {debug_event::flush_to_os, "flush_to_os", "a flush is about to write back what a driver keeps"},
    {debug_event::flush_to_disk, "flush_to_disk",
     "a flush is about to make what was written durable"},
    {debug_event::pwritev, "pwritev", "a write is about to reach the filter"},
    {debug_event::pwritev_zero, "pwritev_zero", "a zero write is about to reach the filter"},
    {debug_event::pwritev_done, "pwritev_done", "a write or zero write of the filter has ended"},
    {debug_event::pwritev_rmw_head, "pwritev_rmw_head",
     "the block in which an unaligned write begins is about to be read"},
    {debug_event::pwritev_rmw_after_head, "pwritev_rmw_after_head", "it has been read"},
    {debug_event::pwritev_rmw_tail, "pwritev_rmw_tail",
     "the block in which an unaligned write ends is about to be read"},
    {debug_event::pwritev_rmw_after_tail, "pwritev_rmw_after_tail", "it has been read"},
    {debug_event::cor_write, "cor_write", "what a read has taken from below is about to be stored"},
});
inline constexpr std::size_t debug_event_count = debug_event_table.size();

[[nodiscard]] std::string_view to_string(debug_event event);
[[nodiscard]] std::optional<debug_event> find_debug_event(std::string_view name);

} // namespace bgfs
