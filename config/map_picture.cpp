// SPDX-License-Identifier: MIT
#include "config/map_picture.h"

#include "config/svg_text.h"
#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {
namespace {

constexpr u64 cell_width = 13;
constexpr u64 grid_left = 96;
constexpr u64 grid_top = 74;
constexpr u64 legend_left = grid_left + map_picture::columns * cell_width + 24;
constexpr u64 picture_width = legend_left + 290;

// From the live image down; zeroes; holes. Told apart without colours, too, by their lightness.
constexpr std::string_view colours[] = {"#08519c", "#3182bd", "#41ab5d", "#a1d99b",
                                        "#fd8d3c", "#fdbe85", "#d9d2e9", "#f7f7f7"};

std::string percent(u64 part, u64 whole) {
  return fmt::format(
      "{:.1f}%", whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string state_name(unsigned state, unsigned deepest) {
  if (state == map_picture::depths)
    return "zeroes, known to be";
  if (state == map_picture::depths + 1)
    return "holes, nothing stored";
  if (state + 1 == map_picture::depths && deepest > state)
    return fmt::format("data, depth {} to {}", state, deepest);
  return fmt::format("data, depth {}{}", state, state == 0 ? " (this image)" : "");
}

void text_at(std::string& out, u64 x, u64 y, std::string_view more, std::string_view text) {
  out += fmt::format("<text x=\"{}\" y=\"{}\"{}>{}</text>\n", x, y, more, text);
}

} // namespace

map_picture::map_picture(std::string title, u64 length)
    : title_(std::move(title)), length_(length),
      cell_length_(align_up(std::max<u64>(divide_up(length, columns * rows_max), 1), 512)),
      cells_(divide_up(length, cell_length_)) {}

byte_range map_picture::range_of(std::size_t index) const {
  return byte_range{index * cell_length_, cell_length_}.intersection({0, length_});
}

void map_picture::add(const map_entry& e) {
  const byte_range range = e.range.intersection({0, length_});
  if (range.is_empty())
    return;
  unsigned state = hole_state;
  if (e.is_data && !e.is_zero)
    state = std::min(e.depth, depths - 1);
  else if (e.is_zero && e.is_present)
    state = zero_state;
  runs_++;
  if (state < depths)
    deepest_ = std::max(deepest_, e.depth);
  totals_[state] += range.length;
  compressed_ += e.is_compressed ? range.length : 0;
  for (std::size_t i = range.offset / cell_length_; i <= (range.end() - 1) / cell_length_; i++)
    cells_[i].bytes[state] += range_of(i).intersection(range).length;
}

void map_picture::add_bitmap(std::string name, u64 dirty_bytes,
                             const std::function<std::optional<u64>(u64)>& next_dirty) {
  bitmaps_.push_back({std::move(name), dirty_bytes});
  for (u64 at = 0; at < length_;) {
    const std::optional<u64> next = next_dirty(at);
    if (!next || *next >= length_)
      break;
    const std::size_t index = std::max(at, *next) / cell_length_;
    cells_[index].is_dirty = true;
    at = (index + 1) * cell_length_; // one look for each cell
  }
}

void map_picture::add_unknown_bitmap(std::string name) {
  bitmaps_.push_back({std::move(name), std::nullopt});
}

map_picture::drawn map_picture::look_of(const cell& c) {
  drawn d;
  const auto most = std::ranges::max_element(c.bytes);
  u64 all = 0;
  u64 second = 0;
  d.most = static_cast<unsigned>(most - c.bytes.begin());
  for (unsigned s = 0; s < states; s++) {
    all += c.bytes[s];
    if (s != d.most && c.bytes[s] > second) {
      second = c.bytes[s];
      d.second = s;
    }
  }
  if (second == 0)
    d.second = d.most;
  else
    d.share = static_cast<double>(all - *most) / static_cast<double>(all);
  return d;
}

std::string map_picture::describe(std::size_t index) const {
  const byte_range range = range_of(index);
  std::string text = fmt::format("{:#x} + {}:", range.offset, format_size(range.length));
  for (unsigned s = 0; s < states; s++)
    if (cells_[index].bytes[s] != 0)
      text += fmt::format(" {} {};", format_size(cells_[index].bytes[s]), state_name(s, deepest_));
  return text;
}

// `run` cells of one row that look the same are one rectangle.
void map_picture::draw_cell(std::string& out, std::size_t index, std::size_t run) const {
  const u64 x = grid_left + index % columns * cell_width;
  const u64 y = grid_top + index / columns * cell_width;
  const drawn d = look_of(cells_[index]);
  out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"s{}\"", x, y,
                     run * cell_width, cell_width, d.most);
  if (d.share == 0) {
    out += "/>\n";
    return;
  }
  // The rest, however little it is, is a strip that can be seen.
  const auto strip =
      std::clamp<u64>(static_cast<u64>(d.share * cell_width + 0.5), 3, cell_width / 2);
  out += fmt::format("><title>{}</title></rect>\n<rect x=\"{}\" y=\"{}\" width=\"{}\" "
                     "height=\"{}\" class=\"s{}\"/>\n",
                     describe(index), x, y + cell_width - strip, cell_width, strip, d.second);
}

void map_picture::draw_grid(std::string& out) const {
  for (std::size_t i = 0; i < cells_.size();) {
    const drawn d = look_of(cells_[i]);
    std::size_t run = 1;
    while (d.share == 0 && (i + run) % columns != 0 && i + run < cells_.size()) {
      const drawn next = look_of(cells_[i + run]);
      if (next.share != 0 || next.most != d.most)
        break;
      run++;
    }
    draw_cell(out, i, run);
    i += run;
  }
  for (std::size_t i = 0; i < cells_.size(); i++)
    if (cells_[i].is_dirty)
      out += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"2.6\" class=\"dirty\"/>\n",
                         grid_left + i % columns * cell_width + cell_width / 2,
                         grid_top + i / columns * cell_width + cell_width / 2);
  for (std::size_t row = 0; row * columns < cells_.size(); row += 4)
    text_at(out, grid_left - 8, grid_top + row * cell_width + 10, " class=\"axis\"",
            format_size(row * columns * cell_length_));
}

void map_picture::draw_legend(std::string& out) const {
  u64 y = grid_top + 10;
  const auto row = [&](std::string_view sample, const std::string& text) {
    out += sample;
    text_at(out, legend_left + 22, y, "", text);
    y += 20;
  };
  const auto box = [&](unsigned state) {
    return fmt::format("<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"14\" class=\"s{}\"/>\n",
                       legend_left, y - 11, state);
  };
  for (unsigned s = 0; s < states; s++)
    if (s >= depths || s == 0 || s <= deepest_)
      row(box(s), fmt::format("{}: {} ({})", state_name(s, deepest_), format_size(totals_[s]),
                              percent(totals_[s], length_)));
  if (compressed_ != 0)
    row("", fmt::format("of the data compressed: {}", format_size(compressed_)));
  row(box(hole_state) +
          fmt::format("<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"5\" class=\"s0\"/>\n",
                      legend_left, y - 2),
      "mixed: the strip is what else is there");
  for (const bitmap& b : bitmaps_)
    row(fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"2.6\" class=\"dirty\"/>\n", legend_left + 7,
                    y - 4),
        fmt::format("dirty in {}: {}", svg_text(b.name, 20),
                    b.dirty_bytes ? format_size(*b.dirty_bytes) : "not to be trusted"));
  if (left_out_ != 0)
    row("", fmt::format("{} more bitmaps are not drawn", left_out_));
}

u64 map_picture::grid_height() const {
  const u64 grid = divide_up(cells_.size(), columns) * cell_width;
  const u64 legend = (states + 3 + bitmaps_.size()) * 20;
  return std::max(grid, legend);
}

std::string map_picture::svg() const {
  const u64 height = grid_top + grid_height() + 24;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\">\n<style>text{{font:12px sans-serif;fill:#222}}.title{{font-size:18px;font-weight:"
      "bold}}.axis{{text-anchor:end;font-size:11px;fill:#555}}.frame{{fill:none;stroke:#888}}"
      "rect{{stroke:#999;stroke-width:.3}}.dirty{{fill:#d7191c;stroke:#fff;stroke-width:.8}}",
      picture_width, height);
  for (unsigned s = 0; s < states; s++)
    out += fmt::format(".s{}{{fill:{}}}", s, colours[s]);
  out += fmt::format("</style>\n<rect width=\"{}\" height=\"{}\" fill=\"#fff\"/>\n", picture_width,
                     height);
  text_at(out, 16, 28, " class=\"title\"", svg_text(title_, 100));
  text_at(out, 16, 50, "",
          fmt::format("{} bytes ({}); {} runs; a cell is {}, read from left to right, row by row",
                      length_, format_size(length_), runs_, format_size(cell_length_)));
  if (cells_.empty())
    text_at(out, grid_left, grid_top + 10, "", "the disk has no bytes");
  draw_grid(out);
  if (!cells_.empty()) {
    const u64 wide = std::min<u64>(cells_.size(), columns) * cell_width;
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"frame\" "
                       "style=\"stroke:#888;stroke-width:1\"/>\n",
                       grid_left, grid_top, wide, divide_up(cells_.size(), columns) * cell_width);
  }
  draw_legend(out);
  return out + "</svg>\n";
}

} // namespace bgfs
