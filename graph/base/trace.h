// SPDX-License-Identifier: MIT
// Trace points: fixed places in the program that can say what passes, switched on at run time by
// category and level. Off, each costs one predictable branch.
//
//   trace<point::flush_begin>(home.log(), name, generation);
//
// The log is an ordinary object that a loop carries (loop::log()); without one everything is off.
// `bgfs trace-points` prints the list below, and graph/ARCHITECTURE.md holds it.
#pragma once

#include "graph/base/ints.h"
#include "graph/base/result.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace bgfs {

// warn: the user should act; info: what a user asked for has changed something; debug: decisions;
// trace: every request.
enum class trace_level : u8 { off, warn, info, debug, trace };
enum class trace_category : u8 { mount, fuse, reload, model, file, qcow2 };
inline constexpr std::size_t trace_category_count = 6;

[[nodiscard]] std::string_view to_string(trace_level level);
[[nodiscard]] std::string_view to_string(trace_category category);
[[nodiscard]] std::optional<trace_level> parse_trace_level(std::string_view text);
[[nodiscard]] std::optional<trace_category> parse_trace_category(std::string_view text);

struct trace_point {
  static constexpr std::size_t fields_max = 6;
  std::string_view name;
  trace_category category;
  trace_level level;
  std::array<std::string_view, fields_max> fields; // unused ones are empty
  std::string_view meaning;

  [[nodiscard]] constexpr std::size_t field_count() const {
    std::size_t count = 0;
    while (count < fields_max && !fields[count].empty())
      count++;
    return count;
  }
};

namespace point {

// mount
inline constexpr trace_point mount_ready{
    "mount.ready",
    trace_category::mount,
    trace_level::info,
    {"directory", "source"},
    "the kernel may ask; source is the graph file or the image"};
inline constexpr trace_point root_open{"root.open",
                                       trace_category::mount,
                                       trace_level::info,
                                       {"root", "state"},
                                       "a root was opened; state is the word of its `state` file"};
inline constexpr trace_point root_fail{"root.fail",
                                       trace_category::mount,
                                       trace_level::warn,
                                       {"root", "reason"},
                                       "a root could not be opened"};
inline constexpr trace_point root_close{
    "root.close",
    trace_category::mount,
    trace_level::info,
    {"root", "outcome"},
    "a root was flushed and let go of; outcome is `ok` or why its last flush failed"};
inline constexpr trace_point command_fail{
    "command.fail",
    trace_category::mount,
    trace_level::info,
    {"verb", "pid", "reason"},
    "a write to a control file was refused; verb is the file and the first word"};

// fuse
inline constexpr trace_point fuse_request{
    "fuse.request",
    trace_category::fuse,
    trace_level::trace,
    {"unique", "opcode", "inode", "pid"},
    "the kernel asks; unique is its number of the request, pid who asked it"};
inline constexpr trace_point fuse_reply{
    "fuse.reply",
    trace_category::fuse,
    trace_level::trace,
    {"unique", "errno", "length"},
    "the answer; errno 0 is success, length counts the bytes behind the header"};

// reload
inline constexpr trace_point reload_begin{"reload.begin",
                                          trace_category::reload,
                                          trace_level::info,
                                          {"source", "is-forced"},
                                          "the graph file is read again"};
inline constexpr trace_point reload_plan{"reload.plan",
                                         trace_category::reload,
                                         trace_level::debug,
                                         {"added", "removed", "changed", "kept"},
                                         "how many roots would be what"};
inline constexpr trace_point reload_commit{
    "reload.commit",
    trace_category::reload,
    trace_level::info,
    {"source", "microseconds"},
    "the difference is applied; microseconds since reload.begin"};
inline constexpr trace_point reload_refuse{"reload.refuse",
                                           trace_category::reload,
                                           trace_level::warn,
                                           {"source", "reason"},
                                           "nothing was changed"};

// model
inline constexpr trace_point node_open{"node.open",
                                       trace_category::model,
                                       trace_level::debug,
                                       {"node", "driver", "is-read-only", "length"},
                                       "a node is open; length in bytes"};
inline constexpr trace_point node_close{
    "node.close",
    trace_category::model,
    trace_level::debug,
    {"node", "outcome"},
    "a node was flushed and closed; outcome is `ok` or the first error"};
inline constexpr trace_point node_corrupt{
    "node.corrupt",
    trace_category::model,
    trace_level::warn,
    {"node", "reason"},
    "what is on disk contradicts itself; nothing more is written to it"};
inline constexpr trace_point permissions_grant{
    "permissions.grant",
    trace_category::model,
    trace_level::debug,
    {"node", "used", "shared"},
    "what all users of a node together do with it and let others do, after a plan was prepared"};
inline constexpr trace_point permissions_refuse{"permissions.refuse",
                                                trace_category::model,
                                                trace_level::debug,
                                                {"node", "reason"},
                                                "a plan was put back"};
inline constexpr trace_point drain_begin{
    "drain.begin",
    trace_category::model,
    trace_level::debug,
    {"nodes", "roots", "in-flight"},
    "the roots above some nodes are held back; in-flight counts the requests waited for"};
inline constexpr trace_point drain_end{"drain.end",
                                       trace_category::model,
                                       trace_level::debug,
                                       {"roots"},
                                       "so many roots were let go again"};
inline constexpr trace_point request_begin{"request.begin",
                                           trace_category::model,
                                           trace_level::trace,
                                           {"node", "type", "offset", "length"},
                                           "a request joins the list of its node"};
inline constexpr trace_point request_wait{
    "request.wait",
    trace_category::model,
    trace_level::trace,
    {"node", "type", "offset", "length", "for-type", "for-offset"},
    "it waits for one that conflicts with it"};
inline constexpr trace_point request_end{"request.end",
                                         trace_category::model,
                                         trace_level::trace,
                                         {"node", "type", "offset", "length", "microseconds"},
                                         "it leaves the list; microseconds since it joined"};
inline constexpr trace_point flush_begin{
    "flush.begin",
    trace_category::model,
    trace_level::trace,
    {"node", "generation", "flushed"},
    "a flush has its turn; it promises generation, flushed is what was durable before"};
inline constexpr trace_point flush_end{
    "flush.end",
    trace_category::model,
    trace_level::trace,
    {"node", "flushed"},
    "it is over; flushed is what is durable now, less than promised if it failed"};

// file
inline constexpr trace_point lock_take{"lock.take",
                                       trace_category::file,
                                       trace_level::debug,
                                       {"path", "used", "shared"},
                                       "the locks of these permissions are held"};
inline constexpr trace_point lock_refuse{"lock.refuse",
                                         trace_category::file,
                                         trace_level::debug,
                                         {"path", "reason"},
                                         "another process has a lock that excludes ours"};
inline constexpr trace_point lock_release{
    "lock.release",
    trace_category::file,
    trace_level::debug,
    {"path", "used", "shared"},
    "locks were given up; those of these permissions are still held"};

// qcow2
inline constexpr trace_point qcow2_open{"qcow2.open",
                                        trace_category::qcow2,
                                        trace_level::debug,
                                        {"node", "version", "cluster-size", "is-writable"},
                                        "the header and the tables were read"};

} // namespace point

inline constexpr std::array trace_points = {
    &point::mount_ready,        &point::root_open,     &point::root_fail,
    &point::root_close,         &point::command_fail,  &point::fuse_request,
    &point::fuse_reply,         &point::reload_begin,  &point::reload_plan,
    &point::reload_commit,      &point::reload_refuse, &point::node_open,
    &point::node_close,         &point::node_corrupt,  &point::permissions_grant,
    &point::permissions_refuse, &point::drain_begin,   &point::drain_end,
    &point::request_begin,      &point::request_wait,  &point::request_end,
    &point::flush_begin,        &point::flush_end,     &point::lock_take,
    &point::lock_refuse,        &point::lock_release,  &point::qcow2_open,
};

// The list as a table of Markdown.
[[nodiscard]] std::string describe_trace_points();

// Takes finished lines, without a newline. Any thread; does not suspend.
struct trace_sink {
  virtual ~trace_sink() = default;
  virtual void write(std::string_view line) = 0;
};

// Which points are on, and where their lines go. Levels may be changed while other threads trace.
class trace_log {
public:
  constexpr trace_log() = default; // everything is off
  explicit trace_log(trace_sink& sink) : sink_(&sink) {}
  trace_log(const trace_log&) = delete;
  trace_log& operator=(const trace_log&) = delete;

  [[nodiscard]] bool wants(const trace_point& p) const { return level_of(p.category) >= p.level; }
  [[nodiscard]] trace_level level_of(trace_category c) const {
    return levels_[static_cast<std::size_t>(c)].load(std::memory_order_relaxed);
  }
  void set_level(trace_category c, trace_level level) {
    levels_[static_cast<std::size_t>(c)].store(level, std::memory_order_relaxed);
  }
  void set_level(trace_level level) {
    for (auto& l : levels_)
      l.store(level, std::memory_order_relaxed);
  }
  // One line: time, level, category, name, field=value; a value with blanks is quoted.
  void write(const trace_point& p, std::span<const std::string> values) const;

private:
  std::array<std::atomic<trace_level>, trace_category_count> levels_{};
  trace_sink* sink_ = nullptr;
};

// What a loop without a log traces to: off for good.
extern const trace_log silent_log;

namespace detail {

template<class V>
std::string trace_text(const V& value) {
  if constexpr (std::is_invocable_v<const V&>) {
    return fmt::format("{}", value());
  } else {
    return fmt::format("{}", value);
  }
}

} // namespace detail

// One value for each field of the point, or a function that makes it: nothing is formatted and no
// function called while the point is off.
template<const trace_point& P, class... V>
void trace(const trace_log& log, const V&... values) {
  static_assert(sizeof...(V) == P.field_count(), "one value for each field");
  if (log.wants(P)) [[unlikely]]
    log.write(P, std::array<std::string, sizeof...(V)>{detail::trace_text(values)...});
}

// For trace: whole microseconds since then.
[[nodiscard]] inline auto elapsed_us(std::chrono::steady_clock::time_point since) {
  return [since] {
    const auto passed = std::chrono::steady_clock::now() - since;
    return std::chrono::duration_cast<std::chrono::microseconds>(passed).count();
  };
}

// For trace: "ok", or what went wrong.
[[nodiscard]] inline auto outcome_of(const result<>& outcome) {
  return [&outcome] { return outcome ? std::string("ok") : outcome.error().message(); };
}

} // namespace bgfs
