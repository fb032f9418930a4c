// SPDX-License-Identifier: MIT
#include "config/image_name.h"

#include "config/yaml.h"
#include "graph/base/text.h"
#include "graph/io/file.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr std::string_view json_prefix = "json:";

result<value> nest_dotted_keys(const value& flat, const std::string& name) {
  if (flat.as_map() == nullptr)
    return flat;
  value nested = value::map();
  nested.mark = flat.mark;
  for (const auto& [key, member] : *flat.as_map()) {
    BGFS_TRY(value inner, nest_dotted_keys(member, name));
    inner.mark = member.mark;
    if (!set_nested(nested, key, std::move(inner)))
      return fail(error_kind::invalid_argument,
                  "'{}': '{}' is given both as one option and as a group of options", name, key);
  }
  return nested;
}

result<value> parse_json_name(const std::string& name) {
  result<value> parsed = parse_json(std::string_view(name).substr(json_prefix.size()));
  if (!parsed)
    return context(std::move(parsed), "'{}'", name);
  if (parsed->as_map() == nullptr)
    return fail(error_kind::invalid_argument, "'{}': json: is followed by a map, not {}", name,
                parsed->kind_name());
  return nest_dotted_keys(*parsed, name);
}

// Names within names, such as those of filters, are taken apart to this depth.
constexpr unsigned name_depth_max = 16;

const driver_type* find_protocol(std::string_view prefix, const registry& drivers) {
  const auto all = drivers.all();
  const auto found = std::ranges::find_if(
      all, [&](const driver_type* type) { return type->protocol_prefix == prefix; });
  return found == all.end() ? nullptr : *found;
}

bool takes_filename(const driver_type& protocol) {
  return std::ranges::any_of(protocol.open_options->options,
                             [](const option& o) { return o.name == "filename"; });
}

} // namespace

std::string_view protocol_of_name(std::string_view name) {
  const auto end = name.find_first_of(":/");
  if (end == std::string_view::npos || end == 0 || name[end] != ':')
    return {};
  return name.substr(0, end);
}

value define_host_file(const std::string& path, const registry& drivers) {
  struct stat found{};
  const bool is_device = ::stat(path.c_str(), &found) == 0 && S_ISBLK(found.st_mode);
  const bool can_be_device = drivers.find("host_device") != nullptr;
  value v = value::map();
  v.set("driver", is_device && can_be_device ? "host_device" : "file");
  v.set("filename", path);
  return v;
}

namespace {

result<value> parse_name(const std::string& name, const registry& drivers, unsigned depth);

// Of a driver that knows the form of its names; a child that it names is a name again.
result<value> parse_with(const driver_type& type, const std::string& name, std::string_view rest,
                         const registry& drivers, unsigned depth) {
  if (depth == name_depth_max)
    return fail(error_kind::invalid_argument, "'{}...' names more than {} layers",
                name.substr(0, 80), name_depth_max);
  result<value> parsed = type.parse_name(rest);
  if (!parsed)
    return context(std::move(parsed), "'{}'", name);
  for (const child_slot& slot : type.children) {
    const value* child = parsed->find(slot.name);
    if (child == nullptr || child->as_text() == nullptr)
      continue;
    result<value> below = parse_name(*child->as_text(), drivers, depth + 1);
    if (!below)
      return below; // it says which part of the name is wrong; the caller knows the whole
    parsed->set(std::string(slot.name), *std::move(below));
  }
  parsed->set("driver", type.name);
  return parsed;
}

result<value> parse_name(const std::string& name, const registry& drivers, unsigned depth) {
  if (name.empty())
    return fail(error_kind::invalid_argument, "an empty file name names no image");
  if (name.starts_with(json_prefix))
    return parse_json_name(name);
  const std::string_view prefix = protocol_of_name(name);
  if (prefix.empty())
    return define_host_file(name, drivers);
  const driver_type* protocol = find_protocol(prefix, drivers);
  if (protocol == nullptr)
    return fail(error_kind::invalid_argument,
                "'{}': there is no protocol '{}'; a file with that name is written './{}'", name,
                prefix, name);
  const std::string rest = name.substr(prefix.size() + 1);
  if (protocol->parse_name != nullptr)
    return parse_with(*protocol, name, rest, drivers, depth);
  if (protocol->name == "file")
    return define_host_file(rest, drivers);
  value v = value::map();
  v.set("driver", protocol->name);
  if (!takes_filename(*protocol)) {
    if (rest == "//")
      return v;
    return fail(error_kind::invalid_argument,
                "'{}': protocol '{}' has no files; the name that it takes is '{}://'", name, prefix,
                prefix);
  }
  v.set("filename", rest);
  return v;
}

} // namespace

result<value> parse_image_name(const std::string& name, const registry& drivers) {
  return parse_name(name, drivers, 0);
}

result<const driver_type*> probe_host_file(const std::string& path, const registry& drivers) {
  const int fd = open_quietly(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (fd < 0)
    return fail_errno(errno, "cannot open '{}'", path);
  std::array<std::byte, probe_length> head{};
  struct stat found{};
  ssize_t count = -1;
  int problem = ::fstat(fd, &found) == 0 ? 0 : errno;
  const bool is_image = S_ISREG(found.st_mode) || S_ISBLK(found.st_mode);
  if (problem == 0 && is_image) {
    count = ::pread(fd, head.data(), head.size(), 0);
    problem = count < 0 ? errno : 0;
  }
  ::close(fd);
  if (problem != 0)
    return fail_errno(problem, "cannot read '{}'", path);
  if (!is_image)
    return fail(error_kind::invalid_argument, "'{}' is {}, not an image", path,
                S_ISDIR(found.st_mode) ? "a directory" : "neither a file nor a block device");
  return drivers.probe(std::span(head).first(static_cast<std::size_t>(count)), path);
}

std::string combine_paths(std::string_view base_file, std::string_view name) {
  const auto slash = base_file.rfind('/');
  if (name.starts_with('/') || slash == std::string_view::npos)
    return std::string(name);
  return fmt::format("{}{}", base_file.substr(0, slash + 1), name);
}

std::string backing_name_from(std::string_view overlay, const std::string& name) {
  const bool is_path = !name.starts_with("json:") && protocol_of_name(name).empty();
  return is_path ? combine_paths(overlay, name) : name;
}

} // namespace bgfs
