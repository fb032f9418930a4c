// SPDX-License-Identifier: MIT
// The status map as a picture: a grid of cells, each a part of the disk, coloured by what most of
// it is. Its size is bounded, whatever the disk. SVG without scripts and fonts of its own.
#pragma once

#include "config/render_map.h"

#include <array>

namespace bgfs {

class map_picture {
public:
  static constexpr u64 columns = 64;
  static constexpr u64 rows_max = 32;
  static constexpr unsigned depths = 6; // deeper ones share the last colour
  static constexpr std::size_t bitmaps_max = 8;

  // `title` is what is shown; `length` that of the disk, in bytes.
  map_picture(std::string title, u64 length);
  // Entries of walk_map, in any order, each byte once.
  void add(const map_entry& entry);
  // `next_dirty(offset)`: where the next dirty byte at or after it is.
  void add_bitmap(std::string name, u64 dirty_bytes,
                  const std::function<std::optional<u64>(u64 offset)>& next_dirty);
  void add_unknown_bitmap(std::string name); // whose bits cannot be read
  void leave_out_bitmaps(std::size_t count) { left_out_ = count; }
  [[nodiscard]] u64 cell_length() const { return cell_length_; }
  [[nodiscard]] std::string svg() const;

private:
  static constexpr unsigned zero_state = depths; // stored, or known, as zeroes
  static constexpr unsigned hole_state = depths + 1;
  static constexpr unsigned states = depths + 2;
  struct cell {
    std::array<u64, states> bytes{};
    bool is_dirty = false;
  };
  struct drawn {
    unsigned most = hole_state;
    unsigned second = hole_state;
    double share = 0; // of all that is not `most`
  };
  struct bitmap {
    std::string name;
    std::optional<u64> dirty_bytes; // nullopt: not known
  };
  [[nodiscard]] static drawn look_of(const cell& c);
  [[nodiscard]] byte_range range_of(std::size_t index) const;
  void draw_grid(std::string& out) const;
  void draw_cell(std::string& out, std::size_t index, std::size_t run) const;
  void draw_legend(std::string& out) const;
  [[nodiscard]] std::string describe(std::size_t index) const;
  [[nodiscard]] u64 grid_height() const;

  std::string title_;
  u64 length_;
  u64 cell_length_;
  std::vector<cell> cells_;
  std::array<u64, states> totals_{};
  u64 compressed_ = 0;
  u64 runs_ = 0;
  unsigned deepest_ = 0;
  std::vector<bitmap> bitmaps_; // at most bitmaps_max
  std::size_t left_out_ = 0;
};

} // namespace bgfs
