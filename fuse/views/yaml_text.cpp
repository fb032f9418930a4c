// SPDX-License-Identifier: MIT
#include "fuse/views/yaml_text.h"

#include <algorithm>
#include <array>

namespace bgfs {
namespace {

bool is_plain_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.' || c == '/';
}

// Plain text is what begins with a letter or a slash and holds nothing with a meaning; the words
// that YAML reads as other types are quoted. JSON's quoting is YAML's double-quoted style.
std::string scalar_text(const std::string& text) {
  static constexpr std::array<std::string_view, 11> words = {
      "true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", "nan"};
  const auto is_word = [&](std::string_view word) {
    return std::ranges::equal(text, word, [](char a, char b) { return (a | 0x20) == b; });
  };
  const char first = text.empty() ? ' ' : static_cast<char>(text[0] | 0x20);
  const bool begins_plainly = (first >= 'a' && first <= 'z') || text.starts_with('/');
  if (begins_plainly && std::ranges::all_of(text, is_plain_char) &&
      std::ranges::none_of(words, is_word))
    return text;
  return to_json(value(text));
}

bool is_block(const value& v) {
  return (v.as_map() != nullptr && !v.as_map()->empty()) ||
         (v.as_list() != nullptr && !v.as_list()->empty());
}

void write(const value& v, std::size_t indent, bool is_on_a_line, std::string& out) {
  // The first entry of something in a list stands on the line of the dash.
  bool skip_indent = is_on_a_line;
  const auto begin_line = [&] {
    if (!std::exchange(skip_indent, false))
      out.append(indent, ' ');
  };
  const auto write_child = [&](const value& child, bool in_list) {
    if (!is_block(child)) {
      out += ' ';
      write(child, indent, true, out);
    } else if (in_list) {
      out += ' ';
      write(child, indent + 2, true, out);
    } else {
      out += '\n';
      write(child, indent + 2, false, out);
    }
  };
  if (const value::map* map = v.as_map(); map != nullptr && !map->empty()) {
    for (const auto& [key, child] : *map) {
      begin_line();
      out += scalar_text(key) + ":";
      write_child(child, false);
    }
  } else if (const value::list* list = v.as_list(); list != nullptr && !list->empty()) {
    for (const value& child : *list) {
      begin_line();
      out += '-';
      write_child(child, true);
    }
  } else {
    out += v.as_text() != nullptr ? scalar_text(*v.as_text()) : to_json(v);
    out += '\n';
  }
}

} // namespace

std::string to_yaml(const value& v) {
  std::string out;
  write(v, 0, false, out);
  return out;
}

} // namespace bgfs
