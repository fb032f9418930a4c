// SPDX-License-Identifier: MIT
#include "graph/base/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace bgfs {

std::string source_mark::to_string() const {
  if (file == nullptr)
    return line == 0 ? std::string() : fmt::format("{}:{}", line, column);
  if (line == 0)
    return *file;
  return fmt::format("{}:{}:{}", *file, line, column);
}

std::string source_mark::prefix() const {
  std::string text = to_string();
  if (!text.empty())
    text += ": ";
  return text;
}

value::value(u64 i) {
  if (i <= static_cast<u64>(std::numeric_limits<i64>::max())) {
    data_ = static_cast<i64>(i);
  } else {
    data_ = static_cast<double>(i);
  }
}

const value* value::find(std::string_view key) const {
  const map* members = as_map();
  if (members == nullptr)
    return nullptr;
  const auto found = std::ranges::find(*members, key, &map::value_type::first);
  return found == members->end() ? nullptr : &found->second;
}

value& value::set(std::string key, value v) {
  if (is_null())
    data_ = map();
  auto& members = std::get<map>(data_);
  const auto found = std::ranges::find(members, key, &map::value_type::first);
  if (found == members.end()) {
    members.emplace_back(std::move(key), std::move(v));
    return members.back().second;
  }
  found->second = std::move(v);
  return found->second;
}

std::string_view value::kind_name() const {
  switch (data_.index()) {
  case 0:
    return "nothing";
  case 1:
    return "true or false";
  case 2:
    return "a whole number";
  case 3:
    return "a fraction";
  case 4:
    return "text";
  case 5:
    return "a list";
  default:
    return "a map";
  }
}

namespace {

struct code_point {
  u32 value = 0xfffd; // what stands for bytes that are not UTF-8
  std::size_t length = 1;
};

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xc0) == 0x80;
}

// The character at the head of `text`, which is not empty.
code_point first_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80)
    return {lead, 1};
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length)
    return {};
  u32 result = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; i++) {
    if (!is_continuation(text[i]))
      return {};
    result = result << 6 | (static_cast<unsigned char>(text[i]) & 0x3fU);
  }
  static constexpr u32 smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = result >= 0xd800 && result < 0xe000;
  if (result < smallest[length] || result > 0x10ffff || is_surrogate)
    return {};
  return {result, length};
}

void append_escape(std::string& out, u32 c) {
  if (c < 0x10000) {
    fmt::format_to(std::back_inserter(out), "\\u{:04X}", c);
  } else {
    const u32 above = c - 0x10000;
    fmt::format_to(std::back_inserter(out), "\\u{:04X}\\u{:04X}", 0xd800 + (above >> 10),
                   0xdc00 + (above & 0x3ff));
  }
}

// File names are bytes, JSON is characters: everything but printable ASCII is escaped, and what is
// not UTF-8 becomes U+FFFD, so that every reader accepts the output.
void append_quoted(std::string& out, std::string_view text) {
  static constexpr std::string_view escaped = "\"\\\b\f\n\r\t";
  static constexpr std::string_view letters = "\"\\bfnrt";
  out += '"';
  while (!text.empty()) {
    const code_point c = first_character(text);
    const auto special =
        c.value < 0x80 ? escaped.find(static_cast<char>(c.value)) : std::string_view::npos;
    if (special != std::string_view::npos) {
      out += '\\';
      out += letters[special];
    } else if (c.value >= 0x20 && c.value < 0x7f) {
      out += static_cast<char>(c.value);
    } else {
      append_escape(out, c.value);
    }
    text.remove_prefix(c.length);
  }
  out += '"';
}

class json_writer {
public:
  explicit json_writer(unsigned indent) : indent_(indent) {}

  void write(const value& v) {
    if (const auto* b = v.as_bool()) {
      out += *b ? "true" : "false";
    } else if (const auto* i = v.as_integer()) {
      out += std::to_string(*i);
    } else if (const auto* d = v.as_real()) {
      out += std::isfinite(*d) ? fmt::format("{:.17g}", *d) : "null";
    } else if (const auto* s = v.as_text()) {
      append_quoted(out, *s);
    } else if (const auto* l = v.as_list()) {
      write_list(*l);
    } else if (const auto* m = v.as_map()) {
      write_map(*m);
    } else {
      out += "null";
    }
  }

  std::string out;

private:
  void write_list(const value::list& items) {
    begin('[');
    for (const value& item : items) {
      separate();
      write(item);
    }
    end(']', items.empty());
  }

  void write_map(const value::map& members) {
    begin('{');
    for (const auto& [key, member] : members) {
      separate();
      append_quoted(out, key);
      out += ": ";
      write(member);
    }
    end('}', members.empty());
  }

  void begin(char bracket) {
    out += bracket;
    depth_++;
    is_first_ = true;
  }
  void separate() {
    if (!is_first_)
      out += indent_ == 0 ? ", " : ",";
    is_first_ = false;
    new_line();
  }
  void end(char bracket, bool is_empty) {
    depth_--;
    is_first_ = false;
    if (!is_empty)
      new_line();
    out += bracket;
  }
  void new_line() {
    if (indent_ == 0)
      return;
    out += '\n';
    out.append(std::size_t{indent_} * depth_, ' ');
  }

  unsigned indent_;
  unsigned depth_ = 0;
  bool is_first_ = true;
};

} // namespace

std::string to_json(const value& v, unsigned indent) {
  json_writer writer(indent);
  writer.write(v);
  return std::move(writer.out);
}

} // namespace bgfs
