// SPDX-License-Identifier: MIT
#include "graph/base/trace.h"

#include <algorithm>
#include <ctime>

namespace bgfs {

constinit const trace_log silent_log;

namespace {

constexpr std::array<std::string_view, 5> level_names = {"off", "warn", "info", "debug", "trace"};
constexpr std::array<std::string_view, trace_category_count> category_names = {
    "mount", "fuse", "reload", "model", "file", "qcow2"};

template<class T, std::size_t N>
std::optional<T> find_name(const std::array<std::string_view, N>& names, std::string_view text) {
  const auto found = std::ranges::find(names, text);
  if (found == names.end())
    return std::nullopt;
  return static_cast<T>(found - names.begin());
}

std::string time_text() {
  std::timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:06}Z", text.data(), now.tv_nsec / 1000);
}

// Names and reasons hold any byte; a line is one line, and a reader can tell where a value ends.
void append_value(std::string& line, std::string_view value) {
  const bool is_plain = !value.empty() && std::ranges::all_of(value, [](char c) {
    return c > ' ' && c != '"' && c != '\\' && c != 0x7f;
  });
  if (is_plain) {
    line += value;
    return;
  }
  line += '"';
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
  }
  line += '"';
}

} // namespace

std::string_view to_string(trace_level level) {
  return level_names[static_cast<std::size_t>(level)];
}
std::string_view to_string(trace_category category) {
  return category_names[static_cast<std::size_t>(category)];
}
std::optional<trace_level> parse_trace_level(std::string_view text) {
  return find_name<trace_level>(level_names, text);
}
std::optional<trace_category> parse_trace_category(std::string_view text) {
  return find_name<trace_category>(category_names, text);
}

void trace_log::write(const trace_point& p, std::span<const std::string> values) const {
  if (sink_ == nullptr)
    return;
  std::string line =
      fmt::format("{} {} {} {}", time_text(), to_string(p.level), to_string(p.category), p.name);
  for (std::size_t i = 0; i < values.size(); i++) {
    line += fmt::format(" {}=", p.fields[i]);
    append_value(line, values[i]);
  }
  sink_->write(line);
}

std::string describe_trace_points() {
  std::string text = "| category | level | point | fields | meaning |\n"
                     "| --- | --- | --- | --- | --- |\n";
  for (const trace_point* p : trace_points) {
    std::string fields;
    for (std::size_t i = 0; i < p->field_count(); i++)
      fields += fmt::format("{}{}", i == 0 ? "" : ", ", p->fields[i]);
    text += fmt::format("| {} | {} | `{}` | {} | {} |\n", to_string(p->category),
                        to_string(p->level), p->name, fields, p->meaning);
  }
  return text;
}

} // namespace bgfs
