// SPDX-License-Identifier: MIT
#include "fuse/views/metrics_text.h"

#include "graph/base/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace bgfs {
namespace {

std::string_view to_string(metric_type type) {
  switch (type) {
  case metric_type::counter:
    return "counter";
  case metric_type::gauge:
    return "gauge";
  case metric_type::histogram:
    return "histogram";
  case metric_type::info:
    return "info";
  case metric_type::stateset:
    return "stateset";
  }
  return "unknown";
}

} // namespace

std::string escaped_label(std::string_view value) {
  std::string out;
  while (!value.empty()) {
    const std::size_t length = character_length(value);
    if (length == 0) {
      out += fmt::format("\\\\x{:02x}", static_cast<unsigned char>(value[0]));
    } else if (value[0] == '\n') {
      out += "\\n";
    } else {
      if (value[0] == '"' || value[0] == '\\')
        out += '\\';
      out += value.substr(0, length);
    }
    value.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

void metrics_text::family(std::string_view name, metric_type type, std::string_view help,
                          std::string_view unit) {
  name_ = name;
  type_ = type;
  text_ += fmt::format("# TYPE {} {}\n", name, to_string(type));
  if (!unit.empty())
    text_ += fmt::format("# UNIT {} {}\n", name, unit);
  text_ += fmt::format("# HELP {} {}\n", name, help);
}

void metrics_text::begin_sample(labels of, std::string_view suffix) {
  if (type_ == metric_type::counter)
    suffix = "_total";
  if (type_ == metric_type::info)
    suffix = "_info";
  text_ += name_;
  text_ += suffix;
  if (of.size() == 0)
    return;
  text_ += '{';
  for (const auto& [name, value] : of)
    text_ += fmt::format("{}{}=\"{}\"", text_.back() == '{' ? "" : ",", name, escaped_label(value));
  text_ += '}';
}

void metrics_text::sample(labels of, double value, std::string_view suffix) {
  begin_sample(of, suffix);
  text_ += fmt::format(" {}\n", value);
}

void metrics_text::sample(labels of, u64 value, std::string_view suffix) {
  begin_sample(of, suffix);
  text_ += fmt::format(" {}\n", value);
}

std::string metrics_text::take() {
  return std::move(text_) + "# EOF\n";
}

} // namespace bgfs
