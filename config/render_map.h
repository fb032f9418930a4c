// SPDX-License-Identifier: MIT
// The status map of a chain, as `bgfs map` and the map views show it: runs of bytes that are of one
// kind, where they are stored, and how many layers down that was decided.
#pragma once

#include "graph/model/node.h"

#include <functional>

namespace bgfs {

struct map_entry {
  byte_range range;
  unsigned depth = 0;      // how many backing steps below the top it was decided
  bool is_present = false; // that layer decides it; false: no layer does
  bool is_zero = false;    // reads as zeroes
  bool is_data = false;    // stored somewhere
  bool is_compressed = false;
  std::optional<u64> offset; // where it is stored in `file`, if it is stored as it is
  std::string file;          // filename_of that node, or empty
};

enum class map_scope : u8 {
  chain,     // what is read through `top`
  one_layer, // what `top` alone holds; depth is 0
};

// Finds the entries of a range that lies inside `top`, in order, neighbours that say the same
// merged, and hands each to `take`, until that is false. May suspend between entries: writes
// meanwhile may make the picture inconsistent, never wrong for a range that was not written.
task<void> walk_map(node& top, byte_range range, map_scope scope,
                    std::function<result<bool>(const map_entry&)> take);

// The same, all at once. A map has at most one entry for each cluster; callers that cannot hold
// that use walk_map.
task<std::vector<map_entry>> read_map(node& top, byte_range range, map_scope scope);

// The output of `qemu-img map --output=json`, entry by entry: begin, entries, end.
class map_json_writer {
public:
  [[nodiscard]] std::string entry(const map_entry& e);
  [[nodiscard]] std::string end();

private:
  bool is_first_ = true;
};

// The table of `qemu-img map`: data that is stored somewhere and does not read as zero. An entry
// that is not listed is the empty string; one whose place cannot be said (compressed, encrypted) is
// an error, as there.
inline constexpr std::string_view map_table_head =
    "Offset          Length          Mapped to       File\n";
[[nodiscard]] result<std::string> map_table_row(const map_entry& e);

// The same row for views: what is stored in another form has its place shown as "-" instead of
// failing, since a view is there to be looked at.
[[nodiscard]] std::string map_view_row(const map_entry& e);

// Everything at once, with rows for views.
[[nodiscard]] std::string render_map_json(std::span<const map_entry> entries);
[[nodiscard]] std::string render_map_table(std::span<const map_entry> entries);

} // namespace bgfs
