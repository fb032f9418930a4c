// SPDX-License-Identifier: MIT
#include "graph/model/snapshot.h"

#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {

std::string describe(const snapshot_key& key) {
  std::string text = "snapshot";
  if (key.name)
    text += fmt::format(" '{}'", *key.name);
  if (key.id)
    text += fmt::format(" with id '{}'", *key.id);
  return text;
}

namespace {

constexpr std::size_t named_max = 10;

std::string names_of(std::span<const snapshot_info> all) {
  if (all.empty())
    return "there are none";
  std::string text = "there are ";
  for (const snapshot_info& s : all.first(std::min(all.size(), named_max)))
    text += fmt::format("{}'{}' (id {})", &s == all.data() ? "" : ", ", s.name, s.id);
  if (all.size() > named_max)
    text += fmt::format(" and {} more", all.size() - named_max);
  return text;
}

} // namespace

result<std::size_t> find_snapshot(std::span<const snapshot_info> all, const snapshot_key& key) {
  const auto found =
      std::ranges::find_if(all, [&](const snapshot_info& s) { return key.matches(s); });
  if (found == all.end())
    return fail(error_kind::not_found, "there is no {}; {}", describe(key), names_of(all));
  return static_cast<std::size_t>(found - all.begin());
}

result<> check_snapshot_name(std::string_view name) {
  return check_new_name("snapshot", name);
}

result<> check_new_name(std::string_view what, std::string_view name) {
  if (name.empty())
    return fail(error_kind::invalid_argument, "a {} needs a name", what);
  if (name.size() > snapshot_name_length_max)
    return fail(error_kind::invalid_argument, "the name of a {} has at most {} bytes, not {}", what,
                snapshot_name_length_max, name.size());
  for (std::string_view rest = name; !rest.empty();) {
    const std::size_t length = character_length(rest);
    if (length == 0)
      return fail(error_kind::invalid_argument,
                  "the name of a {} is UTF-8; the byte {:#x} at {} is not", what,
                  static_cast<unsigned char>(rest[0]), name.size() - rest.size());
    const auto c = static_cast<unsigned char>(rest[0]);
    if (c == '/' || c < 0x20 || c == 0x7f)
      return fail(error_kind::invalid_argument,
                  "the name of a {} has neither '/' nor control characters; there is {:#x} at {}",
                  what, c, name.size() - rest.size());
    rest.remove_prefix(length);
  }
  return {};
}

} // namespace bgfs
