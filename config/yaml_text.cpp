// SPDX-License-Identifier: MIT
// Where the text comes from, and what JSON writes differently.
#include "config/yaml.h"

#include "graph/base/text.h"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {

namespace {

// The \uXXXX at the head of `text`, if there is one.
std::optional<u32> escaped_unit(std::string_view text) {
  if (text.size() < 6 || !text.starts_with("\\u"))
    return std::nullopt;
  u32 unit = 0;
  const auto [after, problem] = std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  if (problem != std::errc() || after != text.data() + 6)
    return std::nullopt;
  return unit;
}

void append_utf8(std::string& out, u32 character) {
  out += static_cast<char>(0xf0 | (character >> 18));
  out += static_cast<char>(0x80 | (character >> 12 & 0x3f));
  out += static_cast<char>(0x80 | (character >> 6 & 0x3f));
  out += static_cast<char>(0x80 | (character & 0x3f));
}

// A descriptor that closes itself; graph/io's is for tasks.
struct open_file {
  int fd;
  explicit open_file(int f) : fd(f) {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (fd >= 0)
      ::close(fd);
  }
};

} // namespace

// JSON has no other way to write characters above U+FFFF in ASCII; YAML refuses the halves.
result<value> parse_json(std::string_view text, std::shared_ptr<const std::string> file) {
  std::string joined;
  joined.reserve(text.size());
  while (!text.empty()) {
    const auto high = escaped_unit(text);
    const auto low = high ? escaped_unit(text.substr(6)) : std::nullopt;
    const bool is_pair =
        low && *high >= 0xd800 && *high < 0xdc00 && *low >= 0xdc00 && *low < 0xe000;
    if (is_pair) {
      append_utf8(joined, 0x10000 + ((*high - 0xd800) << 10) + (*low - 0xdc00));
      text.remove_prefix(12);
      continue;
    }
    // A backslash takes the next character with it: \\ud83d is no escape.
    const std::size_t length = text[0] == '\\' && text.size() > 1 ? 2 : 1;
    joined += text.substr(0, length);
    text.remove_prefix(length);
  }
  return parse_yaml(joined, std::move(file));
}

result<value> read_yaml(const std::string& path) {
  const open_file file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0)
    return fail_errno(errno, "cannot open '{}'", path);
  std::string text;
  std::string block(64 * KiB, '\0');
  while (text.size() <= yaml_length_max) {
    const ssize_t count = ::read(file.fd, block.data(), block.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "cannot read '{}'", path);
    if (count == 0)
      break;
    text.append(block, 0, static_cast<std::size_t>(count));
  }
  return parse_yaml(text, std::make_shared<const std::string>(path));
}

} // namespace bgfs
