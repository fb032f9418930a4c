// SPDX-License-Identifier: MIT
// bgfs map: which parts of an image hold data, and where.
#include "config/commands/option_values.h"
#include "config/commands/over_mount.h"
#include "config/commands/verb_frame.h"
#include "config/render_map.h"
#include "graph/base/text.h"

namespace bgfs {

namespace {

struct map_options {
  image_choice image;
  bool is_json = false;
  u64 start = 0;
  std::optional<u64> length;
  session_options session;
};

task<void> print_map(open_image& image, const map_options& options) {
  const u64 end_of_image = image.top().length();
  u64 end = end_of_image;
  if (options.length)
    end = std::min(end, checked_add(options.start, *options.length).value_or(end));
  const byte_range range = byte_range::between(std::min(options.start, end), end);
  if (options.is_json) {
    map_json_writer writer;
    co_await walk_map(image.top(), range, map_scope::chain, [&writer](const map_entry& e) {
      print(writer.entry(e));
      return true;
    });
    print(writer.end());
    co_return;
  }
  print(map_table_head);
  co_await walk_map(image.top(), range, map_scope::chain, [](const map_entry& e) -> result<bool> {
    BGFS_TRY(const std::string row, map_table_row(e));
    print(row);
    return true;
  });
}

task<void> show(command_session& session, const map_options& options) {
  co_await with(open(session.nodes(), options.image),
                [&options](open_image& image) { return print_map(image, options); });
}

} // namespace

int run_map(const command_call& call) {
  map_options options;
  arguments known(call.name, "[OPTION]... FILE",
                  "Says which parts of an image hold data, and where it is stored.");
  add_image_options(known, options.image);
  known.value(0, "output", "human|json", "for people, or for programs",
              [&](const std::string& v) { return take_output_format(v, options.is_json); });
  known.value('s', "start-offset", "OFFSET", "where to begin",
              [&](const std::string& v) { return take_size(v, options.start); });
  known.value('l', "max-length", "LENGTH", "how many bytes to look at",
              [&](const std::string& v) { return take_size(v, options.length.emplace()); });
  add_share_option(known, options.image);
  add_session_options(known, options.session);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!take_image(call, parsed.operands, options.image))
    return 1;
  if (const auto served = find_mounted_root(options.image))
    return map_over_mount(call, *served, options.is_json, options.start != 0 || options.length);
  return run_session(call, options.session,
                     [&](command_session& session) { return show(session, options); });
}

} // namespace bgfs
