// SPDX-License-Identifier: MIT
#include "config/graph_picture.h"
#include "config/map_picture.h"
#include "config/svg_text.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

constexpr u64 mib = u64{1} << 20;

std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1))
    count++;
  return count;
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

} // namespace

TEST_CASE("text in a picture is escaped, valid UTF-8 and bounded") {
  CHECK(svg_text("a<b>&\"c") == "a&lt;b&gt;&amp;&quot;c");
  CHECK(svg_text("\x1b[0m") == "\xef\xbf\xbd[0m");
  CHECK(svg_text("\xff\xc3") == "\xef\xbf\xbd\xef\xbf\xbd");
  CHECK(svg_text("\xc3\xa9t\xc3\xa9", 2) == "\xc3\xa9\xe2\x80\xa6");
  CHECK(svg_text("\xc3\xa9t", 2) == "\xc3\xa9t");
}

TEST_CASE("a map's cells are of what most of them is, mixed ones have a strip") {
  map_picture p("disk", 2048 * mib);
  CHECK(p.cell_length() == mib);
  p.add({.range = {0, 3 * mib}, .is_present = true, .is_data = true});
  p.add({.range = {3 * mib, mib / 4}, .depth = 1, .is_present = true, .is_data = true});
  p.add({.range = {3 * mib + mib / 4, mib - mib / 4}, .is_present = true, .is_zero = true});
  p.add({.range = {4 * mib, 2044 * mib}});
  const std::string svg = p.svg();
  CHECK(has(svg, "data, depth 0 (this image): 3 MiB (0.1%)"));
  CHECK(has(svg, "data, depth 1: 256 KiB"));
  CHECK(has(svg, "zeroes, known to be: 768 KiB"));
  CHECK(has(svg, "holes, nothing stored: 2 GiB (99.8%)"));
  // Three whole cells are one rectangle; the fourth is zeroes with a strip of depth 1.
  CHECK(has(svg, "width=\"39\" height=\"13\" class=\"s0\"/>"));
  CHECK(has(svg, "class=\"s6\"><title>0x300000 + 1 MiB: 256 KiB data, depth 1; 768 KiB zeroes"));
  CHECK(count_of(svg, "height=\"3\" class=\"s1\"") == 1);
}

TEST_CASE("a map's size is bounded, whatever the disk") {
  for (const u64 length : {u64{0}, u64{1}, u64{512}, 5 * mib + 7, u64{1} << 46, u64{1} << 62}) {
    map_picture p("disk", length);
    const u64 piece = std::max<u64>(length / 200'000, 1);
    for (u64 at = 0, i = 0; at < length; at += piece, i++)
      p.add({.range = {at, std::min(piece, length - at)},
             .depth = static_cast<unsigned>(i % 50),
             .is_present = true,
             .is_data = i % 3 != 0});
    p.add_bitmap("b", 1, [](u64 at) { return std::optional(at); });
    const std::string svg = p.svg();
    CHECK(svg.size() < mib);
    CHECK(svg.ends_with("</svg>\n"));
    CHECK(count_of(svg, "<text ") < 40);
  }
}

TEST_CASE("a map marks the cells that a bitmap has dirty bytes in") {
  map_picture p("disk", 2048 * mib);
  p.add({.range = {0, 2048 * mib}});
  const std::vector<u64> dirty = {5, 6, 3 * mib + 1, 2047 * mib};
  p.add_bitmap("mon<day", 4, [&](u64 at) -> std::optional<u64> {
    for (const u64 d : dirty)
      if (d >= at)
        return d;
    return std::nullopt;
  });
  p.add_unknown_bitmap("bad");
  p.leave_out_bitmaps(3);
  const std::string svg = p.svg();
  CHECK(has(svg, "dirty in mon&lt;day: 4 B"));
  CHECK(has(svg, "dirty in bad: not to be trusted"));
  CHECK(has(svg, "3 more bitmaps are not drawn"));
  CHECK(count_of(svg, "<circle") == 3 + 2); // cells, and the legend
}

namespace {

value node_of(std::string name, std::vector<std::pair<std::string, std::string>> below) {
  value n;
  n.set("node-name", std::move(name));
  n.set("driver", "raw");
  n.set("read-only", true);
  n.set("permissions", "consistent read");
  value children(value::map{});
  for (auto& [role, child] : below)
    children.set(role, child);
  n.set("children", std::move(children));
  return n;
}

value graph_of(value::list nodes, std::string top) {
  value e;
  e.set("name", "disk");
  e.set("node-name", std::move(top));
  e.set("writable", false);
  e.set("state", "ok");
  value g;
  g.set("exports", value::list{e});
  g.set("nodes", std::move(nodes));
  return g;
}

} // namespace

TEST_CASE("a graph's nodes stand below what leads to them, with drivers, roles and permissions") {
  const std::string svg = graph_svg(
      graph_of({node_of("file&1", {}), node_of("top", {{"file", "file&1"}, {"backing", "base"}}),
                node_of("base", {{"file", "file&1"}})},
               "top"));
  CHECK(has(svg, "1 export, 3 nodes"));
  CHECK(has(svg, ">file&amp;1<"));
  CHECK(has(svg, ">backing<"));
  CHECK(has(svg, ">consistent read<"));
  CHECK(count_of(svg, "rx=\"6\"") == 4);
  // The file is below base, which is below top: the fourth level.
  CHECK(has(svg, "y=\"418\" width=\"210\""));
}

TEST_CASE("a graph of very many nodes, or one that leads back, has an end") {
  value::list many;
  for (unsigned i = 0; i < 2000; i++)
    many.push_back(node_of(fmt::format("n{}", i), {{"file", fmt::format("n{}", i + 1)}}));
  const std::string svg = graph_svg(graph_of(std::move(many), "n0"));
  CHECK(count_of(svg, "rx=\"6\"") == drawn_nodes_max);
  CHECK(has(svg, "1501 more are not drawn"));
  CHECK(graph_svg(graph_of({node_of("a", {{"file", "b"}}), node_of("b", {{"file", "a"}})}, "a"))
            .ends_with("</svg>\n"));
  CHECK(graph_svg(value()).ends_with("</svg>\n"));
}
