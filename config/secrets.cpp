// SPDX-License-Identifier: MIT
#include "config/secrets.h"

#include "config/document_values.h"
#include "graph/base/text.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr std::string_view format_choices[] = {"raw", "base64"};
constexpr u64 descriptor_max = 1u << 20;

constexpr option secret_option_list[] = {
    {.name = "id", .help = "the name that options know it by", .is_required = true},
    {.name = "file", .help = "the file that holds it", .is_host_path = true},
    {.name = "env", .help = "the variable of the environment that holds it"},
    {.name = "fd",
     .type = option_type::integer,
     .help = "the descriptor that gives it",
     .maximum = descriptor_max},
    {.name = "data", .help = "the secret itself"},
    {.name = "format",
     .type = option_type::choice,
     .help = "how it is written there",
     .default_text = "raw",
     .choices = format_choices},
};
constexpr option_schema secret_schema{"a secret", secret_option_list};
constexpr std::string_view kinds[] = {"file", "env", "fd", "data"};

result<> check_source(const secret_source& s) {
  if (s.id.empty())
    return wrong(s.mark, "a secret needs an 'id' that is not empty");
  const auto count = std::ranges::count_if(kinds, [&](auto k) { return s.given.is_set(k); });
  if (count == 1)
    return {};
  return wrong(s.mark, "secret '{}' has {} sources; it comes from one of file, env, fd, data", s.id,
               count == 0 ? "no" : "several");
}

secret_bytes bytes_of(std::string_view text) {
  return secret_bytes(std::as_bytes(std::span(text)));
}

// What is written out goes where it does not stay behind.
std::shared_ptr<const secret_bytes> take_data(value& given) {
  constexpr std::string_view shown = "(hidden)";
  auto* const members = given.as_map();
  if (members == nullptr)
    return nullptr;
  for (auto& [key, member] : *members) {
    const std::string* const text = member.as_text();
    if (key != "data" || text == nullptr)
      continue;
    auto taken = std::make_shared<const secret_bytes>(bytes_of(*text));
    wipe(std::span(const_cast<char*>(text->data()), text->size())); // ours: `given` is not const
    value replaced(shown);
    replaced.mark = member.mark;
    member = std::move(replaced);
    return taken;
  }
  return nullptr;
}

result<secret_source> parse_source(value& given) {
  const option_schema* const schemas[] = {&secret_schema};
  secret_source s;
  s.data = take_data(given);
  BGFS_TRY(s.given, validate_options(schemas, given));
  s.id = s.given.text("id");
  s.mark = given.mark;
  BGFS_CHECK(check_source(s));
  return s;
}

// A descriptor that is closed at the end, or (borrowed) not.
class opened {
public:
  opened(int fd, bool is_owned) : fd_(fd), is_owned_(is_owned) {}
  opened(const opened&) = delete;
  opened& operator=(const opened&) = delete;
  ~opened() {
    if (is_owned_ && fd_ >= 0)
      ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

private:
  int fd_;
  bool is_owned_;
};

result<secret_bytes> read_all(int fd, const std::string& what) {
  secret_bytes bytes(secret_length_max + 1);
  std::size_t length = 0;
  while (length < bytes.length()) {
    const ssize_t count = ::read(fd, bytes.bytes().data() + length, bytes.length() - length);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "cannot read {}", what);
    if (count == 0)
      break;
    length += static_cast<std::size_t>(count);
  }
  if (length > secret_length_max)
    return fail(error_kind::invalid_argument, "{} holds more than the {} bytes that a secret has",
                what, secret_length_max);
  bytes.shorten(length);
  return bytes;
}

// What everybody can read is no secret. The group may: that is how services are given theirs.
result<> check_mode(int fd, const std::string& path) {
  struct stat found{};
  if (::fstat(fd, &found) != 0)
    return fail_errno(errno, "cannot look at '{}'", path);
  if (!S_ISREG(found.st_mode) || (found.st_mode & (S_IROTH | S_IWOTH)) == 0)
    return {};
  return fail(error_kind::permission,
              "'{}' can be {} by everybody (mode {:04o}), so it is no secret; make it private with "
              "'chmod 600 {}'",
              path, (found.st_mode & S_IROTH) != 0 ? "read" : "written", found.st_mode & 07777,
              path);
}

result<secret_bytes> read_file(const std::string& path, bool checks_mode) {
  const opened file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY), true);
  if (file.get() < 0)
    return fail_errno(errno, "cannot open '{}'", path);
  if (checks_mode)
    BGFS_CHECK(check_mode(file.get(), path));
  return read_all(file.get(), fmt::format("'{}'", path));
}

result<secret_bytes> read_environment(const std::string& name) {
  const char* const text = std::getenv(name.c_str());
  if (text == nullptr)
    return fail(error_kind::not_found, "the environment has no variable '{}'", name);
  const std::string_view whole(text);
  if (whole.size() > secret_length_max)
    return fail(error_kind::invalid_argument, "'{}' holds more than the {} bytes that a secret has",
                name, secret_length_max);
  return bytes_of(whole);
}

int sextet(char c) {
  static constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto at = alphabet.find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// RFC 4648, section 4; white space is left out.
result<secret_bytes> decode_base64(const secret_bytes& text) {
  const auto refuse = [] {
    return fail(error_kind::invalid_argument,
                "it is not base64: letters, digits, '+' and '/', filled up with '=' to a multiple "
                "of four");
  };
  secret_bytes out(text.length() / 4 * 3 + 3);
  std::size_t length = 0;
  std::size_t count = 0;
  std::size_t padding = 0;
  u32 group = 0;
  for (const std::byte b : text.bytes()) {
    const char c = std::to_integer<char>(b);
    if (is_space(c))
      continue;
    const int bits = c == '=' ? 0 : sextet(c);
    padding += c == '=';
    if (bits < 0 || (padding > 0 && c != '=') || padding > 2)
      return refuse();
    group = group << 6 | static_cast<u32>(bits);
    if (++count % 4 != 0)
      continue;
    for (int shift = 16; shift >= 0; shift -= 8)
      out.bytes()[length++] = static_cast<std::byte>(group >> shift);
    group = 0;
  }
  if (count % 4 != 0)
    return refuse();
  out.shorten(length - padding);
  return out;
}

result<secret_bytes> read_source(const secret_source& s, const secret_store* before,
                                 bool checks_mode) {
  if (s.given.is_set("file"))
    return read_file(s.given.text("file"), checks_mode);
  if (s.given.is_set("env"))
    return read_environment(s.given.text("env"));
  if (s.given.is_set("data"))
    return secret_bytes(s.data->bytes());
  const secret_bytes* known = before == nullptr ? nullptr : before->find(s.id);
  if (known != nullptr)
    return secret_bytes(known->bytes());
  const auto fd = static_cast<int>(s.given.number("fd"));
  return read_all(fd, fmt::format("descriptor {}", fd));
}

result<std::shared_ptr<const secret_store>> load(std::span<const secret_source> sources,
                                                 const secret_store* before, bool checks_mode) {
  auto store = std::make_shared<secret_store>();
  for (const secret_source& s : sources) {
    const bool is_read_before =
        s.given.is_set("fd") && before != nullptr && before->find(s.id) != nullptr;
    result<secret_bytes> bytes = read_source(s, before, checks_mode);
    if (bytes && s.given.text("format") == "base64" && !is_read_before)
      bytes = decode_base64(*bytes);
    if (!bytes)
      return fail(
          error(bytes.error().kind(),
                fmt::format("{}secret '{}': {}", s.mark.prefix(), s.id, bytes.error().message()),
                bytes.error().os_error()));
    if (bytes->length() == 0)
      return wrong(s.mark, "secret '{}' is empty", s.id);
    if (const result<> ok = store->add(s.id, *std::move(bytes)); !ok)
      return wrong(s.mark, "{}", ok.error().message());
  }
  return store;
}

} // namespace

result<std::vector<secret_source>> parse_secrets(value& whole, const std::string& directory) {
  BGFS_TRY(const value::list* found, find_list(whole, "secrets"));
  std::vector<secret_source> all;
  if (found == nullptr)
    return all;
  auto* const list = const_cast<value::list*>(found); // a part of `whole`
  if (list->size() > secrets_max)
    return wrong(whole.find("secrets")->mark, "there are {} secrets; {} are the most", list->size(),
                 secrets_max);
  for (value& item : *list) {
    if (item.as_map() == nullptr)
      return wrong(item.mark, "a secret is a map such as {{id: ..., file: ...}}, not {}",
                   item.kind_name());
    const value* file = item.find("file");
    if (file != nullptr && file->as_text() != nullptr && !file->as_text()->empty()) {
      value absolute = absolute_in(directory, *file->as_text());
      absolute.mark = file->mark;
      item.set("file", std::move(absolute));
    }
    BGFS_TRY(secret_source s, parse_source(item));
    all.push_back(std::move(s));
  }
  return all;
}

result<std::shared_ptr<const secret_store>> load_secrets(std::span<const secret_source> sources,
                                                         const secret_store* before) {
  return load(sources, before, true);
}

namespace {

constexpr std::string_view object_form = "secret,id=...,file=... (or data=, env=, fd=)";

// Messages do not repeat what was given, which may hold the secret.
result<secret_source> parse_object(std::string_view text) {
  const auto comma = text.find(',');
  std::string_view type = text.substr(0, comma);
  if (type.starts_with("qom-type="))
    type.remove_prefix(std::string_view("qom-type=").size());
  if (type != "secret") {
    const bool is_name = std::ranges::all_of(
        type, [](char c) { return (c >= 'a' && c <= 'z') || c == '-' || c == '_'; });
    return fail(error_kind::unsupported, "there are no objects {}; it is {}",
                is_name ? fmt::format("of type '{}'", type) : "of that form", object_form);
  }
  const std::string_view rest =
      comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  result<value> parsed = parse_option_string(rest);
  if (!parsed)
    return fail(error_kind::invalid_argument, "it is not a list of options: expected {}",
                object_form);
  return parse_source(*parsed);
}

} // namespace

result<std::shared_ptr<const secret_store>> load_secret_objects(std::vector<std::string>& objects) {
  std::vector<secret_source> sources;
  for (std::string& text : objects) {
    result<secret_source> source = parse_object(text);
    wipe(std::span(text));
    if (!source)
      return context(result<std::shared_ptr<const secret_store>>(fail(std::move(source).error())),
                     "option '--object'");
    sources.push_back(*std::move(source));
  }
  return context(load(sources, nullptr, false), "option '--object'");
}

} // namespace bgfs
