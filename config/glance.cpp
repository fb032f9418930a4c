// SPDX-License-Identifier: MIT
#include "config/glance.h"

#include "config/path_walk.h"
#include "graph/io/file.h"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

namespace bgfs {
namespace {

// What a node shows, as far as it can be told.
struct sight {
  image_glance seen;
  std::vector<std::byte> head; // empty: cannot be had
};

class observer {
public:
  observer(const graph_config& config, std::span<const std::string> kept_out)
      : config_(config), kept_out_(kept_out) {}
  [[nodiscard]] std::optional<sight> look_at(const node_spec& spec) const;

private:
  [[nodiscard]] std::optional<sight> look_at_file(const std::string& path) const;
  [[nodiscard]] std::optional<sight> look_at_child(const child_spec& child) const;
  [[nodiscard]] std::optional<sight> look_at_protocol(const node_spec& spec) const;

  const graph_config& config_;
  const std::span<const std::string> kept_out_;
};

std::optional<sight> observer::look_at_file(const std::string& path) const {
  if (walk_path(std::filesystem::absolute(path).string(), kept_out_).is_forbidden)
    return std::nullopt;
  // Neither a device nor a pipe is opened: both may do something then.
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode))
    return std::nullopt;
  const descriptor fd(open_quietly(path.c_str(), O_RDONLY | O_NONBLOCK));
  if (!fd.is_open())
    return std::nullopt;
  std::array<std::byte, probe_length> head{};
  const ssize_t count = ::pread(fd.get(), head.data(), head.size(), 0);
  if (count < 0)
    return std::nullopt;
  return sight{.seen = {.length = static_cast<u64>(status.st_size),
                        .allocated = static_cast<u64>(status.st_blocks) * 512,
                        .path = path},
               .head = {head.begin(), head.begin() + count}};
}

std::optional<sight> observer::look_at_child(const child_spec& child) const {
  if (const auto* below = std::get_if<std::unique_ptr<node_spec>>(&child.target))
    return look_at(**below);
  const result<node_spec> named = config_.make_node_spec(std::get<std::string>(child.target));
  return named ? look_at(*named) : std::nullopt;
}

std::optional<sight> observer::look_at_protocol(const node_spec& spec) const {
  for (const option& o : spec.type->open_options->options)
    if (o.is_host_path && !spec.given.text(o.name).empty())
      return look_at_file(spec.given.text(o.name));
  return std::nullopt;
}

// The child that is the image, whatever else a node has.
const child_spec* primary_child(const node_spec& spec) {
  for (const child_slot& slot : spec.type->children) {
    if ((slot.roles & (role::primary | role::filtered)) == 0)
      continue;
    const auto at = std::ranges::find(spec.children, slot.name, &child_spec::slot);
    if (at != spec.children.end())
      return &*at;
  }
  return nullptr;
}

std::optional<sight> observer::look_at(const node_spec& spec) const {
  if (spec.type->kind == driver_kind::protocol)
    return look_at_protocol(spec);
  const child_spec* const child = primary_child(spec);
  std::optional<sight> below = child == nullptr ? std::nullopt : look_at_child(*child);
  if (!below || (spec.type->length_of == nullptr && spec.type->kind != driver_kind::filter))
    return std::nullopt;
  if (spec.type->length_of != nullptr) {
    const std::optional<u64> length =
        spec.type->length_of(below->head, below->seen.length, spec.given);
    if (!length)
      return std::nullopt;
    below->seen.length = *length;
  }
  below->head.clear();
  return below;
}

} // namespace

std::optional<image_glance> glance_at(const graph_config& config, const export_spec& root,
                                      std::span<const std::string> kept_out) {
  if (config.failure_of(root) != nullptr)
    return std::nullopt;
  const result<node_spec> top = config.make_node_spec(root.node_name);
  const std::optional<sight> found = top ? observer(config, kept_out).look_at(*top) : std::nullopt;
  return found ? std::optional(found->seen) : std::nullopt;
}

} // namespace bgfs
