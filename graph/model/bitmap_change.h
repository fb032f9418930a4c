// SPDX-License-Identifier: MIT
// What can be done to the dirty bitmaps of nodes, as values (graph::change_bitmaps), and keeping
// one as it is.
#pragma once

#include "graph/model/node.h"

namespace bgfs {

struct bitmap_change {
  enum class kind : u8 {
    add,
    remove, // a persistent one from its image, too
    clear,
    enable,
    disable,
    merge,           // the bits of `source` are added
    set_granularity, // of one without a set bit
  };
  kind what = kind::add;
  node* where = nullptr; // exactly this node: filters have bitmaps of their own
  std::string name;

  // add, set_granularity
  u64 granularity = 0; // 0: default_bitmap_granularity
  bool is_persistent = false;
  bool is_enabled = true;
  // merge; may be another node's, of the same length. Its granularity may differ.
  node* source = nullptr;
  std::string source_name = {};

  [[nodiscard]] std::string attempt() const; // "adding bitmap 'x' to node 'n'"
};

// Whether a node whose bitmaps have so many bytes in memory may read one more from its image: an
// image may claim any number of them.
[[nodiscard]] result<> check_bitmaps_memory(u64 bytes);
// Those of an image, as far as there may be memory for the least that recording takes. The others
// become inconsistent, with that as the reason.
[[nodiscard]] std::vector<bitmap_definition> within_memory(std::vector<bitmap_definition> all,
                                                           u64 length);

// As long as it lives nobody changes, removes or clears the bitmap, nor gives its node another
// length or options; what it records goes on. Several may hold one. The node outlives it.
class [[nodiscard]] bitmap_hold {
public:
  // `who` is named to whoever is refused: "job 'backup0'".
  bitmap_hold(node& of, dirty_bitmap& which, std::string who);
  ~bitmap_hold();
  bitmap_hold(const bitmap_hold&) = delete;
  bitmap_hold& operator=(const bitmap_hold&) = delete;

  [[nodiscard]] dirty_bitmap& bitmap() const { return which_; }

private:
  node& of_;
  dirty_bitmap& which_;
  std::list<std::string>::iterator holder_;
  operation_blockers::token blocker_;
};

} // namespace bgfs
