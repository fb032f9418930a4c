// SPDX-License-Identifier: MIT
// Options and operands of a command, read as getopt_long reads them, because scripts written for
// other tools rely on it: operands between options, `-Oraw`, `-pn`, `--output=json`, `--outp json`,
// `--` before operands that begin with a hyphen. (CLI11 takes unbounded values for repeated options
// and splits operands in brackets; a file may be called "[a,b]".)
#pragma once

#include "graph/base/result.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace bgfs {

class arguments {
public:
  // `usage` is what follows "usage: bgfs NAME ", `about` one or more lines on what it does.
  arguments(std::string name, std::string usage, std::string about);

  // A letter 0 or an empty name means there is none.
  void flag(char letter, std::string_view name, std::string_view help, bool& into);
  // One that may be given several times, and whose place among others counts.
  void action(char letter, std::string_view name, std::string_view help,
              std::function<void()> take);
  void text(char letter, std::string_view name, std::string_view placeholder, std::string_view help,
            std::string& into);
  void texts(char letter, std::string_view name, std::string_view placeholder,
             std::string_view help, std::vector<std::string>& into);
  // `take` may refuse a value; the error continues "option '-x': ".
  void value(char letter, std::string_view name, std::string_view placeholder,
             std::string_view help, std::function<result<>(const std::string&)> take);

  // One whose value may be left out: `--name` or `--name=VALUE`. The letter has none. `take` gets
  // "" then.
  void optional_value(char letter, std::string_view name, std::string_view placeholder,
                      std::string_view help, std::function<result<>(const std::string&)> take);

  // The operands. After -h or --help: sets asks_help() and stops.
  [[nodiscard]] result<std::vector<std::string>> parse(std::span<const std::string> given);
  [[nodiscard]] bool asks_help() const { return asks_help_; }
  [[nodiscard]] std::string help() const;
  [[nodiscard]] const std::string& name() const { return name_; }

private:
  struct rule {
    char letter;
    std::string name;
    std::string placeholder; // empty: takes no value
    std::string help;
    std::function<result<>(const std::string&)> take;
    bool is_optional = false; // the value is
    [[nodiscard]] bool needs_value() const { return !placeholder.empty() && !is_optional; }
  };
  void add(rule r) { rules_.push_back(std::move(r)); }
  [[nodiscard]] result<const rule*> find_long(std::string_view name) const;
  [[nodiscard]] result<const rule*> find_letter(char letter) const;
  [[nodiscard]] result<> parse_long(std::string_view argument, std::span<const std::string>& rest);
  [[nodiscard]] result<> parse_letters(std::string_view letters,
                                       std::span<const std::string>& rest);

  std::string name_;
  std::string usage_;
  std::string about_;
  std::vector<rule> rules_;
  bool asks_help_ = false;
};

} // namespace bgfs
