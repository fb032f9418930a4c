// SPDX-License-Identifier: MIT
#include "config/graph_picture.h"

#include "config/svg_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace bgfs {
namespace {

constexpr int box_width = 210;
constexpr int box_height = 66;
constexpr int gap_x = 34;
constexpr int gap_y = 52;
constexpr int margin = 24;
constexpr int top = 64;

struct line {
  std::size_t to;
  std::string name;
};

struct box {
  std::string title;
  std::string second;
  std::string third;
  std::string style; // class
  std::vector<line> below;
  int level = 0;
  double x = 0; // of the left edge
};

std::string text_of(const value& v, std::string_view key) {
  const value* found = v.find(key);
  const std::string* text = found == nullptr ? nullptr : found->as_text();
  return text == nullptr ? std::string() : *text;
}

bool flag_of(const value& v, std::string_view key) {
  const value* found = v.find(key);
  const bool* flag = found == nullptr ? nullptr : found->as_bool();
  return flag != nullptr && *flag;
}

// The end of a path says more than its beginning.
std::string path_end(const std::string& path) {
  constexpr std::size_t shown = 30;
  return path.size() <= shown ? path : "\xe2\x80\xa6" + path.substr(path.size() - shown + 1);
}

class picture {
public:
  explicit picture(const value& graph) {
    const value* const nodes = graph.find("nodes");
    const value* const exports = graph.find("exports");
    if (exports != nullptr && exports->as_list() != nullptr)
      for (const value& e : *exports->as_list())
        add_export(e);
    if (nodes != nullptr && nodes->as_list() != nullptr)
      for (const value& n : *nodes->as_list())
        add_node(n);
    connect(nodes, exports);
    find_levels();
    place();
  }

  [[nodiscard]] std::string svg() const {
    const int levels = static_cast<int>(levels_.size());
    double right = 760; // of the lines of text
    for (const box& b : boxes_)
      right = std::max(right, b.x + box_width);
    const int width = static_cast<int>(right) + margin;
    const int height = top + levels * (box_height + gap_y) + margin;
    std::string out = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
        "{1}\">\n<style>text{{font:12px sans-serif;fill:#222}}.title{{font-size:18px;"
        "font-weight:bold}}.name{{font-weight:bold;font-size:13px}}.small{{font-size:11px;"
        "fill:#444}}.role{{font-size:11px;fill:#08519c;paint-order:stroke;stroke:#fff;"
        "stroke-width:4}}.export{{fill:#fff7d6;stroke:#a67c00}}.failed{{fill:#fde0dd;stroke:"
        "#c51b1b}}.writable{{fill:#e5f5e0;stroke:#238b45}}.fixed{{fill:#eef2f7;stroke:#5b6b7f}}"
        "path{{fill:none;stroke:#555;stroke-width:1.2}}</style>\n"
        "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n"
        "<text x=\"{2}\" y=\"28\" class=\"title\">{3} export{5}, {4} node{6}</text>\n"
        "<text x=\"{2}\" y=\"48\" class=\"small\">yellow: an export; green: a node that may be "
        "written; grey: read-only; lines lead to children and name the role</text>\n",
        width, height, margin, exports_, nodes_, exports_ == 1 ? "" : "s", nodes_ == 1 ? "" : "s");
    if (not_drawn_ > 0)
      out += fmt::format("<text x=\"{}\" y=\"62\" class=\"small\">{} more are not drawn; "
                         "graph.json has them all</text>\n",
                         margin, not_drawn_);
    for (const box& b : boxes_)
      for (const line& l : b.below)
        draw_line(out, b, boxes_[l.to]);
    for (const box& b : boxes_)
      draw_box(out, b);
    for (const box& b : boxes_)
      for (const line& l : b.below)
        draw_role(out, b, boxes_[l.to], l.name);
    return out + "</svg>\n";
  }

private:
  void add_export(const value& e) {
    exports_++;
    if (boxes_.size() >= drawn_nodes_max) {
      not_drawn_++;
      return;
    }
    const std::string state = text_of(e, "state");
    boxes_.push_back(
        {.title = text_of(e, "name"),
         .second = fmt::format("export, {}", flag_of(e, "writable") ? "writable" : "read-only"),
         .third = "state: " + state,
         .style = state == "failed" ? "failed" : "export"});
    drawn_exports_.push_back(&e);
  }

  void add_node(const value& n) {
    nodes_++;
    if (boxes_.size() >= drawn_nodes_max) {
      not_drawn_++;
      return;
    }
    const std::string name = text_of(n, "node-name");
    const bool is_read_only = flag_of(n, "read-only");
    const std::string path = text_of(n, "filename");
    box b{.title = name,
          .second = fmt::format("{}{}{}", text_of(n, "driver"), path.empty() ? "" : ": ",
                                path_end(path.substr(path.rfind('/') + 1))),
          .third = text_of(n, "permissions"),
          .style = is_read_only ? "fixed" : "writable"};
    by_name_.emplace(name, boxes_.size());
    boxes_.push_back(std::move(b));
    drawn_nodes_.push_back(&n);
  }

  void connect(const value* nodes, const value* exports) {
    if (nodes == nullptr || exports == nullptr)
      return;
    for (std::size_t i = 0; i < drawn_exports_.size(); i++)
      if (const auto at = by_name_.find(text_of(*drawn_exports_[i], "node-name"));
          at != by_name_.end())
        boxes_[i].below.push_back({at->second, ""});
    for (std::size_t i = 0; i < drawn_nodes_.size(); i++) {
      const value* const children = drawn_nodes_[i]->find("children");
      if (children == nullptr || children->as_map() == nullptr)
        continue;
      for (const auto& [role, child] : *children->as_map()) {
        const auto at =
            child.as_text() == nullptr ? by_name_.end() : by_name_.find(*child.as_text());
        if (at != by_name_.end())
          boxes_[drawn_exports_.size() + i].below.push_back({at->second, role});
      }
    }
  }

  // The longest way down to each. A graph has no loops; should it, this ends all the same.
  void find_levels() {
    for (std::size_t round = 0; round < boxes_.size(); round++) {
      bool has_changed = false;
      for (const box& b : boxes_)
        for (const line& l : b.below)
          if (boxes_[l.to].level <= b.level && b.level < static_cast<int>(boxes_.size())) {
            boxes_[l.to].level = b.level + 1;
            has_changed = true;
          }
      if (!has_changed)
        break;
    }
    // Nodes that no export leads to begin below the exports.
    for (std::size_t i = 0; i < boxes_.size(); i++) {
      boxes_[i].level = std::min(boxes_[i].level, static_cast<int>(boxes_.size()));
      const auto level = static_cast<std::size_t>(boxes_[i].level);
      if (levels_.size() <= level)
        levels_.resize(level + 1);
      levels_[level].push_back(i);
    }
  }

  // Each level in the order of its parents, each box below the middle of them where there is room.
  void place() {
    std::vector<double> wanted(boxes_.size(), -1);
    for (auto& level : levels_) {
      std::ranges::sort(level, {}, [&](std::size_t i) { return std::pair(wanted[i], i); });
      double free = margin;
      for (const std::size_t i : level) {
        boxes_[i].x = std::max(free, wanted[i]);
        free = boxes_[i].x + box_width + gap_x;
      }
      for (const std::size_t i : level)
        want_below(boxes_[i], wanted);
    }
  }

  // A chain goes straight down, what else a node has stands beside it.
  void want_below(const box& of, std::vector<double>& wanted) const {
    double here = of.x;
    const auto want = [&](const line& l) {
      double& child = wanted[l.to];
      child = child < 0 ? here : std::min(child, here);
      here += box_width + gap_x;
    };
    for (const line& l : of.below)
      if (l.name == "backing")
        want(l);
    for (const line& l : of.below)
      if (l.name != "backing")
        want(l);
  }

  [[nodiscard]] static int y_of(const box& b) { return top + b.level * (box_height + gap_y); }

  static void draw_line(std::string& out, const box& from, const box& to) {
    const double x1 = from.x + box_width / 2.0;
    const double x2 = to.x + box_width / 2.0;
    const int y1 = y_of(from) + box_height;
    const int y2 = y_of(to);
    out += fmt::format("<path d=\"M{:.0f} {} C{:.0f} {} {:.0f} {} {:.0f} {}\"/>\n", x1, y1, x1,
                       y1 + gap_y / 2, x2, y2 - gap_y / 2, x2, y2);
    out += fmt::format("<path d=\"M{:.0f} {} l4 -8 M{:.0f} {} l-4 -8\"/>\n", x2, y2, x2, y2);
  }

  static void draw_role(std::string& out, const box& from, const box& to, const std::string& name) {
    if (name.empty())
      return;
    const double x = (from.x + 3 * to.x) / 4 + box_width / 2.0 + 6;
    out += fmt::format("<text x=\"{:.0f}\" y=\"{}\" class=\"role\">{}</text>\n", x,
                       y_of(to) - gap_y / 4, svg_text(name, 24));
  }

  static void draw_box(std::string& out, const box& b) {
    const int y = y_of(b);
    out += fmt::format("<rect x=\"{:.0f}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\" "
                       "class=\"{}\"><title>{}</title></rect>\n",
                       b.x, y, box_width, box_height, b.style, svg_text(b.title));
    const auto text = [&](int down, std::string_view style, const std::string& what,
                          std::size_t max) {
      out += fmt::format("<text x=\"{:.0f}\" y=\"{}\" class=\"{}\">{}</text>\n", b.x + 10, y + down,
                         style, svg_text(what, max));
    };
    text(20, "name", b.title, 26);
    text(38, "small", b.second, 36);
    text(55, "small", b.third, 36);
  }

  std::vector<box> boxes_;
  std::vector<const value*> drawn_exports_;
  std::vector<const value*> drawn_nodes_;
  std::map<std::string, std::size_t> by_name_;
  std::vector<std::vector<std::size_t>> levels_;
  std::size_t exports_ = 0;
  std::size_t nodes_ = 0;
  std::size_t not_drawn_ = 0;
};

} // namespace

std::string graph_svg(const value& graph) {
  return picture(graph).svg();
}

} // namespace bgfs
