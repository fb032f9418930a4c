// SPDX-License-Identifier: MIT
// bgfs info: what an image is.
#include "config/commands/option_values.h"
#include "config/commands/over_mount.h"
#include "config/commands/verb_frame.h"
#include "config/image_name.h"
#include "config/render_info.h"
#include "config/render_limits.h"

#include <set>
#include <sys/stat.h>

namespace bgfs {

namespace {

struct info_options {
  image_choice image;
  bool is_json = false;
  bool is_chain = false;
  bool has_limits = false;
  session_options session;
};

task<value> info_of(open_image& image, std::string name, bool has_limits) {
  value info = co_await read_info(image.top(), std::move(name));
  if (has_limits)
    info.set("limits", limits_value(image.top().limits()));
  co_return info;
}

using file_id = std::pair<dev_t, ino_t>;

std::optional<file_id> id_of(const std::string& path) {
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0)
    return std::nullopt;
  return file_id(found.st_dev, found.st_ino);
}

// The layer below, by what the header of this one says. Its content is not read, so that a raw
// file, too, may be shown for what it is.
result<std::optional<image_choice>> layer_below(const value& info, const image_choice& layer,
                                                const command_session& session) {
  const value* name = info.find("backing-filename");
  if (name == nullptr)
    return std::nullopt;
  const std::string& written = *name->as_text();
  image_choice below{.name = written,
                     .is_force_shared = layer.is_force_shared,
                     .needs_backing = false,
                     .is_info_only = true};
  if (const value* format = info.find("backing-filename-format"))
    below.format = *format->as_text();
  if (!written.starts_with("json:") && protocol_of_name(written).empty()) {
    BGFS_TRY(below.name,
             context(locate_reference(session.policy(), *info.find("filename")->as_text(), written),
                     "'{}' names the backing file '{}'", layer.name, written));
  }
  return below;
}

task<value> collect(command_session& session, const info_options& options) {
  value::list layers;
  std::set<file_id> seen;
  std::optional<image_choice> next = options.image;
  while (next) {
    const image_choice layer = *std::exchange(next, std::nullopt);
    const auto id = id_of(layer.name);
    if (id && !seen.insert(*id).second)
      co_await fail(error_kind::invalid_image, "backing file '{}' creates an infinite loop",
                    layer.name);
    // What is said otherwise may come to a plain name, too.
    const bool is_plain = !layer.is_options && !layer.name.starts_with("json:") &&
                          protocol_of_name(layer.name).empty();
    const std::string shown = is_plain ? layer.name : std::string();
    value info = co_await with(open(session.nodes(), layer), [&](open_image& image) {
      return info_of(image, shown, options.has_limits);
    });
    if (options.is_chain)
      next = co_await layer_below(info, layer, session);
    layers.push_back(std::move(info));
  }
  if (options.is_chain)
    co_return value(std::move(layers));
  co_return std::move(layers.front());
}

task<void> show(command_session& session, const info_options& options) {
  const value info = co_await collect(session, options);
  print(options.is_json ? render_info_json(info) : render_info(info));
}

} // namespace

int run_info(const command_call& call) {
  info_options options;
  options.image.needs_backing = false;
  options.image.is_info_only = true;
  arguments known(call.name, "[OPTION]... FILE",
                  "Says what an image is: its format, lengths, backing file, and more.");
  add_image_options(known, options.image);
  known.value(0, "output", "human|json", "for people, or for programs",
              [&](const std::string& v) { return take_output_format(v, options.is_json); });
  known.flag(0, "backing-chain", "every image of the backing chain", options.is_chain);
  known.flag(0, "limits", "also what requests have to keep to", options.has_limits);
  add_share_option(known, options.image);
  add_session_options(known, options.session);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!take_image(call, parsed.operands, options.image))
    return 1;
  if (const auto served = find_mounted_root(options.image))
    return info_over_mount(call, *served,
                           {.is_json = options.is_json,
                            .is_chain = options.is_chain,
                            .has_limits = options.has_limits});
  return run_session(call, options.session,
                     [&](command_session& session) { return show(session, options); });
}

} // namespace bgfs
