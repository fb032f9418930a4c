// SPDX-License-Identifier: MIT
#include "config/arguments.h"

#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {

namespace {

// Takes the next argument as an option's value.
result<std::string> next_value(std::span<const std::string>& rest, std::string_view shown) {
  if (rest.empty())
    return fail(error_kind::invalid_argument, "option '{}' needs a value", shown);
  std::string value = rest.front();
  rest = rest.subspan(1);
  return value;
}

} // namespace

arguments::arguments(std::string name, std::string usage, std::string about)
    : name_(std::move(name)), usage_(std::move(usage)), about_(std::move(about)) {
  flag('h', "help", "show this text", asks_help_);
}

void arguments::flag(char letter, std::string_view name, std::string_view help, bool& into) {
  add({letter, std::string(name), "", std::string(help), [&into](const std::string&) {
         into = true;
         return result<>();
       }});
}

void arguments::action(char letter, std::string_view name, std::string_view help,
                       std::function<void()> take) {
  add({letter,
       std::string(name),
       {},
       std::string(help),
       [take = std::move(take)](const std::string&) -> result<> {
         take();
         return {};
       }});
}

void arguments::text(char letter, std::string_view name, std::string_view placeholder,
                     std::string_view help, std::string& into) {
  value(letter, name, placeholder, help, [&into](const std::string& given) {
    into = given;
    return result<>();
  });
}

void arguments::texts(char letter, std::string_view name, std::string_view placeholder,
                      std::string_view help, std::vector<std::string>& into) {
  value(letter, name, placeholder, help, [&into](const std::string& given) {
    into.push_back(given);
    return result<>();
  });
}

void arguments::value(char letter, std::string_view name, std::string_view placeholder,
                      std::string_view help, std::function<result<>(const std::string&)> take) {
  add({letter, std::string(name), std::string(placeholder), std::string(help), std::move(take)});
}

void arguments::optional_value(char letter, std::string_view name, std::string_view placeholder,
                               std::string_view help,
                               std::function<result<>(const std::string&)> take) {
  add({.letter = letter,
       .name = std::string(name),
       .placeholder = std::string(placeholder),
       .help = std::string(help),
       .take = std::move(take),
       .is_optional = true});
}

result<std::vector<std::string>> arguments::parse(std::span<const std::string> given) {
  std::vector<std::string> operands;
  while (!given.empty() && !asks_help_) {
    const std::string argument = given.front();
    given = given.subspan(1);
    if (argument == "--") {
      operands.insert(operands.end(), given.begin(), given.end());
      break;
    }
    if (argument.starts_with("--")) {
      BGFS_CHECK(parse_long(argument, given));
    } else if (argument.size() > 1 && argument[0] == '-') {
      BGFS_CHECK(parse_letters(std::string_view(argument).substr(1), given));
    } else {
      operands.push_back(argument);
    }
  }
  return operands;
}

result<> arguments::parse_long(std::string_view argument, std::span<const std::string>& rest) {
  const auto equals = argument.find('=');
  const std::string shown(argument.substr(0, equals));
  BGFS_TRY(const rule* found, find_long(std::string_view(shown).substr(2)));
  std::string given;
  if (found->placeholder.empty() && equals != std::string_view::npos)
    return fail(error_kind::invalid_argument, "option '{}' takes no value", shown);
  if (equals != std::string_view::npos) {
    given = argument.substr(equals + 1);
  } else if (found->needs_value()) {
    BGFS_TRY(given, next_value(rest, shown));
  }
  return context(found->take(given), "option '{}'", shown);
}

result<> arguments::parse_letters(std::string_view letters, std::span<const std::string>& rest) {
  while (!letters.empty()) {
    const char letter = letters[0];
    letters.remove_prefix(1);
    BGFS_TRY(const rule* found, find_letter(letter));
    const std::string shown = fmt::format("-{}", letter);
    if (!found->needs_value()) {
      BGFS_CHECK(context(found->take(""), "option '{}'", shown));
      continue;
    }
    std::string given(letters);
    if (letters.empty()) {
      BGFS_TRY(given, next_value(rest, shown));
    }
    return context(found->take(given), "option '{}'", shown);
  }
  return {};
}

result<const arguments::rule*> arguments::find_letter(char letter) const {
  const auto found = std::ranges::find(rules_, letter, &rule::letter);
  if (found != rules_.end())
    return &*found;
  return fail(error_kind::invalid_argument, "option '-{}' is not known; see 'bgfs {} --help'",
              letter, name_);
}

// A beginning is enough where it fits one name only.
result<const arguments::rule*> arguments::find_long(std::string_view name) const {
  std::vector<std::string_view> names;
  const rule* beginning = nullptr;
  unsigned beginnings = 0;
  for (const rule& r : rules_) {
    if (r.name.empty())
      continue;
    if (r.name == name)
      return &r;
    names.push_back(r.name);
    if (!name.empty() && r.name.starts_with(name)) {
      beginning = &r;
      beginnings++;
    }
  }
  if (beginnings == 1)
    return beginning;
  if (beginnings > 1)
    return fail(error_kind::invalid_argument,
                "option '--{}' may mean more than one; see 'bgfs {} "
                "--help'",
                name, name_);
  const std::string_view near = nearest(name, names);
  return fail(error_kind::invalid_argument, "option '--{}' is not known; {}", name,
              near.empty() ? fmt::format("see 'bgfs {} --help'", name_)
                           : fmt::format("did you mean '--{}'?", near));
}

std::string arguments::help() const {
  std::string text = fmt::format("usage: bgfs {} {}\n\n{}\n", name_, usage_, about_);
  text += "\noptions:\n";
  for (const rule& r : rules_) {
    std::string left = r.letter == 0 ? "    " : fmt::format("-{}", r.letter);
    if (r.letter != 0)
      left += r.name.empty() ? "" : ", ";
    if (!r.name.empty())
      left += fmt::format("--{}", r.name);
    if (r.is_optional)
      left += fmt::format("[={}]", r.placeholder);
    else if (!r.placeholder.empty())
      left += fmt::format("{}{}", r.name.empty() ? " " : "=", r.placeholder);
    const std::string_view gap = left.size() >= 28 ? "\n" : "";
    text += fmt::format("  {:<28}{}{:<{}}{}\n", left, gap, "", gap.empty() ? 0 : 30, r.help);
  }
  return text;
}

} // namespace bgfs
