// SPDX-License-Identifier: MIT
#include "graph/base/text.h"

#include "graph/base/checked.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

namespace bgfs {

namespace {

constexpr std::string_view size_rule =
    "a size is a whole number, or a number with one of the suffixes b, K, M, G, T, P, E (powers of "
    "1024), such as 4096, 64K or 1.5G";
constexpr std::string_view duration_rule =
    "a duration is a number of seconds, or a number with one of the suffixes ms, s, m, h, such as "
    "500ms or 5s";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// A decimal number as it was written: 1.5 is whole 1 and fraction "5".
struct decimal {
  u64 whole = 0;
  std::string_view fraction;
  std::string_view rest; // what follows the number
};

std::optional<decimal> split_decimal(std::string_view text) {
  decimal d;
  const char* const end = text.data() + text.size();
  if (text.empty() || !is_digit(text[0]))
    return std::nullopt;
  const auto [after, problem] = std::from_chars(text.data(), end, d.whole);
  if (problem != std::errc())
    return std::nullopt;
  d.rest = std::string_view(after, end);
  if (d.rest.starts_with('.')) {
    const auto fraction_end = std::ranges::find_if_not(d.rest.substr(1), is_digit);
    d.fraction = std::string_view(d.rest.begin() + 1, fraction_end);
    d.rest = std::string_view(fraction_end, d.rest.end());
    if (d.fraction.empty())
      return std::nullopt;
  }
  return d;
}

// whole.fraction times `unit`, rounded down, with the digits taken exactly: no floating point, so
// that 1.1G is the same number of bytes everywhere. Digits beyond the 18th cannot matter.
std::optional<u64> scaled(const decimal& d, u64 unit) {
  const auto whole = checked_mul(d.whole, unit);
  if (!whole)
    return std::nullopt;
  __extension__ using u128 = unsigned __int128;
  u128 numerator = 0;
  u128 denominator = 1;
  for (const char c : d.fraction.substr(0, 18)) {
    numerator = numerator * 10 + static_cast<unsigned>(c - '0');
    denominator *= 10;
  }
  return checked_add(*whole, static_cast<u64>(numerator * unit / denominator));
}

std::optional<u64> size_unit(std::string_view suffix) {
  if (suffix.empty())
    return 1;
  if (suffix.size() != 1)
    return std::nullopt;
  static constexpr std::string_view letters = "bkmgtpe";
  const auto at = letters.find(static_cast<char>(suffix[0] | 0x20));
  if (at == std::string_view::npos)
    return std::nullopt;
  return u64{1} << (10 * at);
}

std::optional<u64> parse_hex(std::string_view text) {
  if (!text.starts_with("0x") && !text.starts_with("0X"))
    return std::nullopt;
  u64 number = 0;
  const char* const end = text.data() + text.size();
  const auto [after, problem] = std::from_chars(text.data() + 2, end, number, 16);
  if (problem != std::errc() || after != end)
    return std::nullopt;
  return number;
}

} // namespace

result<u64> parse_size(std::string_view text) {
  if (const auto hex = parse_hex(text))
    return *hex;
  const auto number = split_decimal(text);
  const auto unit = number ? size_unit(number->rest) : std::nullopt;
  if (!unit || (*unit == 1 && !number->fraction.empty()))
    return fail(error_kind::invalid_argument, "'{}' is not a size; {}", text, size_rule);
  const auto bytes = scaled(*number, *unit);
  if (!bytes)
    return fail(error_kind::invalid_argument, "'{}' is too large: a size is below 16E (2^64 bytes)",
                text);
  return *bytes;
}

std::string format_size(u64 bytes) {
  static constexpr std::array<std::string_view, 7> prefixes = {"",   "Ki", "Mi", "Gi",
                                                               "Ti", "Pi", "Ei"};
  // Three digits at most: a thousand of one unit is written as 0.977 of the next.
  int exponent = 0;
  (void)std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const int step = exponent > 0 ? (exponent - 1) / 10 : 0;
  const double number = static_cast<double>(bytes) / static_cast<double>(u64{1} << (10 * step));
  return fmt::format("{:.3g} {}B", number, prefixes.at(static_cast<std::size_t>(step)));
}

result<u64> parse_duration(std::string_view text) {
  const auto number = split_decimal(text);
  std::optional<u64> unit;
  if (number) {
    if (number->rest == "ms") {
      unit = 1;
    } else if (number->rest.empty() || number->rest == "s") {
      unit = 1000;
    } else if (number->rest == "m") {
      unit = 60'000;
    } else if (number->rest == "h") {
      unit = 3'600'000;
    }
  }
  if (!unit)
    return fail(error_kind::invalid_argument, "'{}' is not a duration; {}", text, duration_rule);
  const auto milliseconds = scaled(*number, *unit);
  if (!milliseconds)
    return fail(error_kind::invalid_argument, "'{}' is too long for a duration", text);
  return *milliseconds;
}

namespace {

// Longer names are nobody's typing mistake; the bound keeps the table below small.
constexpr std::size_t compared_length_max = 64;

char folded(char c) {
  if (c >= 'A' && c <= 'Z')
    return static_cast<char>(c | 0x20);
  return c == '_' ? '-' : c;
}

// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours. Case and
// the choice between - and _ do not count.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); j++)
    row[j] = j;
  for (std::size_t i = 1; i <= a.size(); i++) {
    std::swap(before_last, last);
    std::swap(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); j++) {
      const bool is_same = folded(a[i - 1]) == folded(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (is_same ? 0 : 1)});
      const bool is_swapped = i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                              folded(a[i - 2]) == folded(b[j - 1]);
      if (is_swapped)
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
  }
  return row[b.size()];
}

// A first word stands for the whole: 'node' for 'node-name'.
bool begins_with_word(std::string_view name, std::string_view word) {
  return name.size() > word.size() && name[word.size()] == '-' && name.starts_with(word);
}

} // namespace

std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates) {
  std::string_view best;
  if (text.empty() || text.size() > compared_length_max)
    return best;
  std::size_t best_distance = std::max<std::size_t>(1, text.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    if (candidate.size() > compared_length_max)
      continue;
    if (begins_with_word(candidate, text))
      return candidate;
    const std::size_t distance = edit_distance(text, candidate);
    // Replacing every letter is no likeness, however short the word.
    if (distance < best_distance && distance < std::max(text.size(), candidate.size())) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view text, std::span<const std::string_view> candidates) {
  const std::string_view candidate = nearest(text, candidates);
  return candidate.empty() ? std::string() : fmt::format("; did you mean '{}'?", candidate);
}

std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80)
    return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length)
    return 0;
  for (std::size_t i = 1; i < length; i++)
    if ((byte(i) & 0xc0) != 0x80)
      return 0;
  const unsigned second = byte(1);
  const bool is_impossible = (first == 0xe0 && second < 0xa0) || // longer than need be
                             (first == 0xed && second > 0x9f) || // half of a pair
                             (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
  return is_impossible ? 0 : length;
}

namespace {

bool is_kept(unsigned char c) {
  return c >= 0x20 && c != 0x7f && c != '/';
}

} // namespace

std::string escape_name(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const std::size_t length = character_length(name);
    const auto first = static_cast<unsigned char>(name.front());
    if (length == 0 || !is_kept(first)) {
      out += fmt::format("%{:02X}", first);
      name.remove_prefix(1);
    } else {
      out += name.substr(0, length);
      name.remove_prefix(length);
    }
  }
  if (out == "." || out == "..")
    out.replace(0, 1, "%2E");
  return out;
}

} // namespace bgfs
