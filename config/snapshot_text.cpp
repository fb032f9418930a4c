// SPDX-License-Identifier: MIT
#include "config/snapshot_text.h"

#include "graph/base/option_schema.h"
#include "graph/base/text.h"

#include <ctime>

namespace bgfs {

namespace {

constexpr u64 second = 1'000'000'000; // in nanoseconds

result<> take_part(const std::string& key, const value& v, value& into) {
  if (key != "id" && key != "name")
    return fail(error_kind::invalid_argument,
                "a snapshot is named by snapshot.id=ID, snapshot.name=NAME or both, not by "
                "'snapshot.{}'",
                key);
  into.set("snapshot-" + key, v);
  return {};
}

} // namespace

result<value> parse_snapshot(const std::string& text) {
  value parsed = value::map();
  if (!text.starts_with("snapshot.")) {
    parsed.set("snapshot", text);
    return parsed;
  }
  BGFS_TRY(const value given, parse_option_string(text));
  for (const auto& [key, v] : *given.as_map()) {
    if (key != "snapshot" || v.as_map() == nullptr)
      return fail(error_kind::invalid_argument,
                  "a snapshot is named by snapshot.id=ID, snapshot.name=NAME or both, not by '{}'",
                  key);
    for (const auto& [part, inner] : *v.as_map())
      BGFS_CHECK(take_part(part, inner, parsed));
  }
  return parsed;
}

result<snapshot_key> choose_snapshot(std::span<const snapshot_info> all, const std::string& text,
                                     bool prefers_id) {
  BGFS_TRY(const value given, parse_snapshot(text));
  const auto part = [&](std::string_view name) {
    const value* v = given.find(name);
    return v == nullptr ? std::optional<std::string>() : std::optional(*v->as_text());
  };
  const std::optional<std::string> either = part("snapshot");
  if (!either)
    return snapshot_key{.id = part("snapshot-id"), .name = part("snapshot-name")};
  const snapshot_key by_id{.id = either, .name = {}};
  const snapshot_key by_name{.id = {}, .name = either};
  const bool is_id = find_snapshot(all, by_id).has_value();
  const bool is_name = find_snapshot(all, by_name).has_value();
  return is_id && (prefers_id || !is_name) ? by_id : by_name;
}

std::vector<snapshot_info> parse_snapshots(const value& list) {
  std::vector<snapshot_info> all;
  if (list.as_list() == nullptr)
    return all;
  for (const value& one : *list.as_list()) {
    const value* const id = one.find("id");
    const value* const name = one.find("name");
    if (id != nullptr && id->as_text() != nullptr && name != nullptr && name->as_text() != nullptr)
      all.push_back({.id = *id->as_text(), .name = *name->as_text()});
  }
  return all;
}

value snapshots_value(std::span<const snapshot_info> all) {
  value::list list;
  for (const snapshot_info& s : all) {
    value one = value::map();
    if (s.icount)
      one.set("icount", *s.icount);
    one.set("vm-clock-nsec", s.vm_clock_nanoseconds % second);
    one.set("name", s.name);
    one.set("date-sec", u64{s.date_seconds});
    one.set("date-nsec", u64{s.date_nanoseconds});
    one.set("vm-clock-sec", s.vm_clock_nanoseconds / second);
    one.set("id", s.id);
    one.set("vm-state-size", s.vm_state_length);
    list.push_back(std::move(one));
  }
  return value(std::move(list));
}

namespace {

u64 number_of(const value& snapshot, std::string_view key) {
  const value* v = snapshot.find(key);
  const i64* number = v == nullptr ? nullptr : v->as_integer();
  return number == nullptr ? 0 : static_cast<u64>(*number);
}

std::string date_of(u64 seconds) {
  const auto when = static_cast<std::time_t>(seconds);
  std::tm parts{};
  if (::localtime_r(&when, &parts) == nullptr)
    return "?";
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string clock_of(u64 seconds, u64 nanoseconds) {
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     nanoseconds / 1'000'000);
}

} // namespace

std::string render_snapshots(const value& snapshots) {
  constexpr std::string_view row = "{:<9} {:<16} {:>8}{:>20}{:>13}{:>11}\n";
  std::string text = "Snapshot list:\n";
  text += fmt::format("{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}\n", "ID", "TAG", "VM SIZE", "DATE",
                      "VM CLOCK", "ICOUNT");
  for (const value& s : *snapshots.as_list()) {
    const value* icount = s.find("icount");
    text +=
        fmt::format(row, *s.find("id")->as_text(), *s.find("name")->as_text(),
                    format_size(number_of(s, "vm-state-size")), date_of(number_of(s, "date-sec")),
                    clock_of(number_of(s, "vm-clock-sec"), number_of(s, "vm-clock-nsec")),
                    icount == nullptr ? std::string() : to_json(*icount));
  }
  return text;
}

} // namespace bgfs
