// SPDX-License-Identifier: MIT
#include "fuse/tree/log_ring.h"

#include "graph/base/text.h"

#include <fmt/ranges.h>

#include <unistd.h>

namespace bgfs {
namespace {

std::string describe_loss(u64 count) {
  return fmt::format("{} lines are lost", count);
}

constexpr std::array levels = {trace_level::off, trace_level::warn, trace_level::info,
                               trace_level::debug, trace_level::trace};
constexpr std::array categories = {trace_category::mount,  trace_category::fuse,
                                   trace_category::reload, trace_category::model,
                                   trace_category::file,   trace_category::qcow2};
static_assert(categories.size() == trace_category_count);

template<class T, std::size_t N>
std::vector<std::string_view> names_of_all(const std::array<T, N>& all) {
  std::vector<std::string_view> names;
  for (const T each : all)
    names.push_back(to_string(each));
  return names;
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos)
      return words;
    text.remove_prefix(begin);
    const std::size_t end = std::min(text.find_first_of(" \t"), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

} // namespace

log_ring::log_ring() : lines_(kept_max, describe_loss) {}

void log_ring::write(std::string_view line) {
  lines_.add(std::string(line));
  if (!is_copied_.load(std::memory_order_relaxed))
    return;
  const std::string whole = fmt::format("bgfs: {}\n", line);
  (void)!::write(STDERR_FILENO, whole.data(), whole.size());
}

result<> set_levels(trace_log& log, std::string_view command) {
  const std::vector<std::string_view> words = words_of(command);
  const std::vector<std::string_view> level_names = names_of_all(levels);
  const std::string form =
      fmt::format("a level ({}) and categories ({}; none: all of them)",
                  fmt::join(level_names, ", "), fmt::join(names_of_all(categories), ", "));
  if (words.empty())
    return fail(error_kind::invalid_argument, "log-level takes {}", form);
  const auto level = parse_trace_level(words[0]);
  if (!level)
    return fail(error_kind::invalid_argument, "'{}' is no level{}; log-level takes {}", words[0],
                did_you_mean(words[0], level_names), form);
  std::vector<trace_category> chosen;
  for (const std::string_view word : std::span(words).subspan(1)) {
    const auto category = parse_trace_category(word);
    if (!category)
      return fail(error_kind::invalid_argument, "'{}' is no category{}; log-level takes {}", word,
                  did_you_mean(word, names_of_all(categories)), form);
    chosen.push_back(*category);
  }
  if (chosen.empty())
    chosen.assign(categories.begin(), categories.end());
  for (const trace_category category : chosen)
    log.set_level(category, *level);
  return {};
}

std::string describe_levels(const trace_log& log) {
  std::string text;
  for (const trace_category category : categories)
    text += fmt::format("{}: {}\n", to_string(category), to_string(log.level_of(category)));
  return text;
}

} // namespace bgfs
