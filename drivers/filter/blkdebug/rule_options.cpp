// SPDX-License-Identifier: MIT
#include "drivers/filter/blkdebug/rule_options.h"

#include "graph/base/limits.h"
#include "graph/base/text.h"
#include "graph/io/file.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs::blkdebug {
namespace {

constexpr u64 errno_max = 4095;
constexpr u64 delay_ns_max = 3'600'000'000'000;

constexpr auto event_names = [] {
  std::array<std::string_view, debug_event_count> names{};
  for (std::size_t i = 0; i < names.size(); i++)
    names[i] = debug_event_table[i].name;
  return names;
}();

constexpr option in_state{.name = "state",
                          .type = option_type::integer,
                          .help = "only in this state; 0: in any",
                          .default_text = "0"};

constexpr option inject_option_list[] = {
    {.name = "event",
     .type = option_type::choice,
     .help = "what makes the rule come into force",
     .choices = event_names,
     .is_required = true},
    in_state,
    {.name = "iotype",
     .type = option_type::choice,
     .help = "only requests of this kind; absent: of all but block-status",
     .choices = request_kind_names},
    {.name = "errno",
     .type = option_type::integer,
     .help = "the error; 0: none",
     .default_text = "5",
     .maximum = errno_max},
    {.name = "delay-ns",
     .type = option_type::integer,
     .help = "nanoseconds that a request waits first, an hour at most",
     .default_text = "0",
     .maximum = delay_ns_max},
    {.name = "sector",
     .type = option_type::integer,
     .help = "only requests that touch the first byte of this sector of 512; absent: all",
     .maximum = device_length_max / rule_sector_length},
    {.name = "once",
     .type = option_type::boolean,
     .help = "for one request; then the rule is gone",
     .default_text = "off"},
    {.name = "immediately",
     .type = option_type::boolean,
     .help = "fail without a turn of the loop in between",
     .default_text = "off"},
};
constexpr option state_option_list[] = {
    {.name = "event",
     .type = option_type::choice,
     .help = "what changes the state",
     .choices = event_names,
     .is_required = true},
    in_state,
    {.name = "new_state",
     .type = option_type::integer,
     .help = "the state from then on",
     .default_text = "0"},
};

} // namespace

constinit const option_schema inject_options{"a rule of 'inject-error'", inject_option_list};
constinit const option_schema state_options{"a rule of 'set-state'", state_option_list};

namespace {

debug_event event_of(const options& given) {
  const std::optional<debug_event> event = find_debug_event(given.text("event"));
  BGFS_ASSERT(event.has_value(), "the schema has checked the name");
  return *event;
}

} // namespace

inject_rule parse_inject(const options& given) {
  inject_rule rule{.event = event_of(given),
                   .state = given.number("state"),
                   .os_error = static_cast<int>(given.number("errno")),
                   .delay_ns = given.number("delay-ns"),
                   .sector = given.maybe_number("sector"),
                   .is_once = given.flag("once"),
                   .is_immediate = given.flag("immediately")};
  const auto* const kind = std::ranges::find(request_kind_names, given.text("iotype"));
  if (kind != std::end(request_kind_names))
    rule.kinds = bit(static_cast<request_kind>(kind - std::begin(request_kind_names)));
  return rule;
}

state_rule parse_state(const options& given) {
  return {event_of(given), given.number("state"), given.number("new_state")};
}

namespace {

// A file, line by line: sections that become maps, which the schemas give their meaning.
class rules_reader {
public:
  explicit rules_reader(const std::string& name)
      : name_(std::make_shared<const std::string>(name)) {}

  result<rule_list> read(std::string_view text) {
    while (!text.empty()) {
      const auto end = std::min(text.find('\n'), text.size());
      line_++;
      BGFS_CHECK(take_line(trimmed(text.substr(0, end))));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    BGFS_CHECK(finish_section());
    return std::move(rules_);
  }

private:
  static std::string_view trimmed(std::string_view text) {
    constexpr std::string_view blanks = " \t\r";
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos)
      return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
  }

  [[nodiscard]] source_mark mark() const { return {name_, line_, 1}; }

  template<class... Args>
  [[nodiscard]] std::unexpected<error> wrong(fmt::format_string<Args...> format,
                                             Args&&... args) const {
    return fail(error_kind::invalid_argument, "{}{}", mark().prefix(),
                fmt::format(format, std::forward<Args>(args)...));
  }

  result<> take_line(std::string_view line) {
    if (line.empty() || line.starts_with('#'))
      return {};
    return line.starts_with('[') ? begin_section(line) : take_member(line);
  }

  // [inject-error], or with a name for people: [inject-error "first"].
  result<> begin_section(std::string_view line) {
    BGFS_CHECK(finish_section());
    const auto end = line.find(']');
    if (end == std::string_view::npos)
      return wrong("'{}' has no ']' at its end", shown(line));
    if (end + 1 != line.size())
      return wrong("nothing may follow '{}'", shown(line.substr(0, end + 1)));
    const std::string_view inside = trimmed(line.substr(1, end - 1));
    const auto blank = inside.find_first_of(" \t");
    const std::string_view kind = inside.substr(0, blank);
    if (blank != std::string_view::npos && !is_quoted(trimmed(inside.substr(blank))))
      return wrong("what follows '{}' is a name in double quotes, not {}", shown(kind),
                   shown(trimmed(inside.substr(blank))));
    schema_ = kind == "inject-error" ? &inject_options
              : kind == "set-state"  ? &state_options
                                     : nullptr;
    if (schema_ == nullptr)
      return wrong("there is no section '{}': they are [inject-error] and [set-state]",
                   shown(kind));
    section_ = value::map();
    section_.mark = mark();
    return {};
  }

  // key = "value"
  result<> take_member(std::string_view line) {
    if (schema_ == nullptr)
      return wrong("'{}' stands before the first section: [inject-error] or [set-state]",
                   shown(line));
    const auto equals = line.find('=');
    if (equals == std::string_view::npos || !is_quoted(trimmed(line.substr(equals + 1))))
      return wrong("'{}' is not of the form  key = \"value\"", shown(line));
    const std::string_view quoted = trimmed(line.substr(equals + 1));
    value member{quoted.substr(1, quoted.size() - 2)};
    member.mark = mark();
    std::string key(trimmed(line.substr(0, equals)));
    if (key == "delay_ns")
      key = "delay-ns";
    section_.set(std::move(key), std::move(member)); // of two the last counts
    return {};
  }

  result<> finish_section() {
    if (schema_ == nullptr)
      return {};
    if (rules_.injects.size() + rules_.states.size() == rules_count_max)
      return wrong("there are more than {} rules", rules_count_max);
    const std::array<const option_schema*, 1> schemas = {schema_};
    BGFS_TRY(const options given, validate_options(schemas, section_));
    if (schema_ == &inject_options)
      rules_.injects.push_back(parse_inject(given));
    else
      rules_.states.push_back(parse_state(given));
    schema_ = nullptr;
    return {};
  }

  static bool is_quoted(std::string_view text) {
    return text.size() >= 2 && text.starts_with('"') && text.find('"', 1) == text.size() - 1;
  }

  // Of what may be no text at all, as much as a message can hold.
  static std::string shown(std::string_view text) {
    constexpr std::size_t shown_max = 80;
    std::string clean;
    for (const char c : text.substr(0, shown_max))
      clean +=
          static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f ? '?' : c;
    return clean + (text.size() > shown_max ? "..." : "");
  }

  std::shared_ptr<const std::string> name_;
  u32 line_ = 0;
  const option_schema* schema_ = nullptr; // of the section that is being read; null: none is
  value section_;
  rule_list rules_;
};

} // namespace

result<rule_list> parse_rules(std::string_view text, const std::string& name) {
  return rules_reader(name).read(text);
}

result<rule_list> read_rules(const std::string& path) {
  const descriptor file(open_quietly(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY));
  if (!file.is_open())
    return fail_errno(errno, "cannot open the file of rules '{}'", path);
  std::string text(rules_length_max + 1, '\0');
  std::size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return fail_errno(errno, "cannot read the file of rules '{}'", path);
    if (got == 0)
      break;
    length += static_cast<std::size_t>(got);
  }
  if (length > rules_length_max)
    return fail(error_kind::invalid_argument, "'{}' is no file of rules: it has more than {} bytes",
                path, rules_length_max);
  return parse_rules(std::string_view(text).substr(0, length), path);
}

} // namespace bgfs::blkdebug
