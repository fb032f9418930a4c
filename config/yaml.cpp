// SPDX-License-Identifier: MIT
#include "config/yaml.h"

#include "graph/base/text.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <charconv>
#include <map>
#include <set>
#include <sstream>

namespace bgfs {

namespace {

using shared_name = std::shared_ptr<const std::string>;

// Leaves the parser, which knows no other way; caught in parse_yaml and never seen outside.
struct refusal {
  source_mark mark;
  std::string message;
};

bool is_core_tag(const std::string& tag, std::string_view kind) {
  return tag == fmt::format("tag:yaml.org,2002:{}", kind);
}

std::optional<value> parse_number(std::string_view text) {
  std::string_view digits = text;
  if (digits.starts_with('+') || digits.starts_with('-'))
    digits.remove_prefix(1);
  const bool has_leading_zero =
      digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
  if (digits.empty() || digits[0] < '0' || digits[0] > '9' || has_leading_zero)
    return std::nullopt;
  if (text.starts_with('+'))
    text.remove_prefix(1);
  const char* const end = text.data() + text.size();
  i64 whole = 0;
  if (text.starts_with("0x")) {
    const auto [after, problem] = std::from_chars(text.data() + 2, end, whole, 16);
    return problem == std::errc() && after == end ? std::optional<value>(whole) : std::nullopt;
  }
  const auto [after, problem] = std::from_chars(text.data(), end, whole);
  // A whole number too large for i64 stays text: a double would lose its last digits.
  if (after == end)
    return problem == std::errc() ? std::optional<value>(whole) : std::nullopt;
  double real = 0;
  const auto [real_after, real_problem] = std::from_chars(text.data(), end, real);
  if (real_problem != std::errc() || real_after != end)
    return std::nullopt;
  return value(real);
}

// What an untagged plain scalar means.
value parse_plain(const std::string& text) {
  if (text == "true" || text == "True" || text == "TRUE")
    return true;
  if (text == "false" || text == "False" || text == "FALSE")
    return false;
  return parse_number(text).value_or(value(text));
}

// Builds the tree from the parser's events.
class tree_builder final : public YAML::EventHandler {
public:
  explicit tree_builder(shared_name file) : file_(std::move(file)) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      refuse(mark, "a second YAML document begins here; only one is read");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(mark, anchor, {}); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchored_.find(anchor);
    if (found == anchored_.end())
      refuse(mark, "an alias cannot stand for something that contains it");
    count(mark, found->second.count);
    check_depth(mark, found->second.height);
    add(mark, 0, found->second.content, /*is_counted=*/true);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    add(mark, anchor, scalar(mark, tag, text));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag, "seq");
    begin(mark, anchor, value(value::list()));
  }
  void OnSequenceEnd() override { end(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag, "map");
    begin(mark, anchor, value(value::map()));
  }
  void OnMapEnd() override { end(); }

  value root;

private:
  struct level {
    value content;
    YAML::anchor_t anchor = 0;
    unsigned count_before = 0;
    unsigned height = 1;            // how deep its content goes, itself included
    std::optional<std::string> key; // of a map: the one whose value comes next
    source_mark key_mark;
    std::set<std::string, std::less<>> keys;
  };
  struct anchored {
    value content;
    unsigned count = 0;
    unsigned height = 0;
  };

  [[nodiscard]] source_mark place(const YAML::Mark& mark) const {
    return {file_, static_cast<u32>(mark.line + 1), static_cast<u32>(mark.column + 1)};
  }

  [[noreturn]] void refuse(const YAML::Mark& mark, std::string message) const {
    throw refusal{place(mark), std::move(message)};
  }

  void count(const YAML::Mark& mark, unsigned more) {
    count_ += more;
    if (count_ > yaml_values_max)
      refuse(mark, fmt::format("there are more than {} values here, aliases expanded; the file is "
                               "not a graph, or hostile",
                               yaml_values_max));
  }

  // `height` is how much deeper it goes below the current level.
  void check_depth(const YAML::Mark& mark, unsigned height) {
    if (levels_.size() + height > yaml_depth_max)
      refuse(mark, fmt::format("lists and maps are nested more than {} deep", yaml_depth_max));
    if (!levels_.empty())
      levels_.back().height = std::max(levels_.back().height, height + 1);
  }

  value scalar(const YAML::Mark& mark, const std::string& tag, const std::string& text) {
    if (tag == "?" || tag.empty())
      return parse_plain(text);
    if (tag == "!" || is_core_tag(tag, "str"))
      return text;
    const value plain = parse_plain(text);
    if (is_core_tag(tag, "int") && plain.as_integer() != nullptr)
      return plain;
    if (is_core_tag(tag, "bool") && plain.as_bool() != nullptr)
      return plain;
    refuse(mark, fmt::format("the tag '{}' is not known, or does not fit '{}'", tag, text));
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag, std::string_view kind) const {
    if (!tag.empty() && tag != "?" && tag != "!" && !is_core_tag(tag, kind))
      refuse(mark, fmt::format("the tag '{}' is not known", tag));
  }

  [[nodiscard]] bool expects_key() const {
    return !levels_.empty() && levels_.back().content.as_map() != nullptr && !levels_.back().key;
  }

  void begin(const YAML::Mark& mark, YAML::anchor_t anchor, value empty) {
    if (expects_key())
      refuse(mark, "a key must be text, not a list or a map; or a bracket is not closed");
    check_depth(mark, 1);
    count(mark, 1);
    empty.mark = place(mark);
    levels_.push_back({.content = std::move(empty), .anchor = anchor, .count_before = count_ - 1});
  }

  void end() {
    level done = std::move(levels_.back());
    levels_.pop_back();
    if (done.anchor != 0)
      anchored_[done.anchor] = {done.content, count_ - done.count_before, done.height};
    if (!levels_.empty())
      levels_.back().height = std::max(levels_.back().height, done.height + 1);
    attach(std::move(done.content));
  }

  void add(const YAML::Mark& mark, YAML::anchor_t anchor, value v, bool is_counted = false) {
    if (!is_counted)
      count(mark, 1);
    if (expects_key()) {
      take_key(mark, v);
      return;
    }
    v.mark = place(mark);
    if (anchor != 0)
      anchored_[anchor] = {v, 1, 0};
    attach(std::move(v));
  }

  void take_key(const YAML::Mark& mark, const value& v) {
    level& top = levels_.back();
    if (const auto* text = v.as_text()) {
      top.key = *text;
    } else if (v.as_list() == nullptr && v.as_map() == nullptr && !v.is_null()) {
      top.key = to_json(v); // `1:` and `true:` are the keys "1" and "true"
    } else {
      refuse(mark, fmt::format("a key must be text, not {}", v.kind_name()));
    }
    if (!top.keys.insert(*top.key).second)
      refuse(mark, fmt::format("the key '{}' is given twice", *top.key));
    top.key_mark = place(mark);
  }

  void attach(value v) {
    if (levels_.empty()) {
      root = std::move(v);
      return;
    }
    level& top = levels_.back();
    if (auto* list = top.content.as_list()) {
      list->push_back(std::move(v));
      return;
    }
    v.mark = top.key_mark;
    top.content.as_map()->emplace_back(*std::exchange(top.key, std::nullopt), std::move(v));
  }

  shared_name file_;
  std::vector<level> levels_;
  std::map<YAML::anchor_t, anchored> anchored_;
  unsigned count_ = 0;
  unsigned documents_ = 0;
};

std::unexpected<error> refused(const source_mark& mark, std::string_view message) {
  return fail(error_kind::invalid_argument, "{}{}", mark.prefix(), message);
}

// The parser takes byte 4 for the end of the file and other byte orders for other encodings: both
// could hide part of a file from us, so they never reach it.
result<> check_bytes(std::string_view text, const shared_name& file) {
  if (text.size() > yaml_length_max)
    return refused({file}, fmt::format("the text is longer than {}, the most that is read",
                                       format_size(yaml_length_max)));
  if (text.starts_with("\xfe\xff") || text.starts_with("\xff\xfe"))
    return refused({file, 1, 1}, "the text is UTF-16; only UTF-8 is read");
  u32 line = 1;
  u32 column = 1;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t' && c != '\n' && c != '\r') || byte == 0x7f)
      return refused({file, line, column},
                     fmt::format("control byte 0x{:02x}: this is not YAML text", byte));
    column = c == '\n' ? 1 : column + 1;
    line += c == '\n' ? 1 : 0;
  }
  return {};
}

// The parser's own words, as a clause that may stand in the middle of a line.
std::string reason_of(const YAML::Exception& e) {
  std::string reason = e.msg;
  if (reason.size() > 1 && reason[0] >= 'A' && reason[0] <= 'Z' && reason[1] >= 'a')
    reason[0] = static_cast<char>(reason[0] | 0x20);
  return reason;
}

result<value> parse_events(const std::string& text, const shared_name& file) {
  tree_builder builder(file);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const refusal& r) {
    return refused(r.mark, r.message);
  } catch (const YAML::Exception& e) {
    source_mark mark{file};
    if (!e.mark.is_null())
      mark = {file, static_cast<u32>(e.mark.line + 1), static_cast<u32>(e.mark.column + 1)};
    return refused(mark, fmt::format("not valid YAML: {}", reason_of(e)));
  }
  return std::move(builder.root);
}

} // namespace

result<value> parse_yaml(std::string_view text, std::shared_ptr<const std::string> file) {
  BGFS_CHECK(check_bytes(text, file));
  return parse_events(std::string(text), file);
}

} // namespace bgfs
