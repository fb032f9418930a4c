// SPDX-License-Identifier: MIT
// bgfs measure: how large a new image will be.
#include "graph/jobs/measure.h"
#include "config/commands/new_image.h"
#include "config/commands/option_values.h"
#include "config/commands/verb_frame.h"

namespace bgfs {

namespace {

struct measure_arguments {
  std::string format = "raw";
  std::vector<std::string> option_lists;
  image_choice source;
  std::optional<u64> length;
  bool is_json = false;
  session_options session;
};

result<const driver_type*> find_format(const registry& drivers, const std::string& name) {
  const driver_type* type = drivers.find(name);
  if (type == nullptr || type->kind != driver_kind::format)
    return fail(error_kind::invalid_argument, "there is no format '{}'", name);
  if (type->measure == nullptr || type->create_options == nullptr)
    return fail(error_kind::unsupported, "how large an image of format '{}' will be cannot be told",
                name);
  return type;
}

result<measured_space> measure_space(const command_session& session, const measure_arguments& a,
                                     u64 length) {
  BGFS_TRY(const driver_type* type, find_format(session.drivers(), a.format));
  BGFS_TRY(value given, merge_option_lists(a.option_lists));
  std::erase_if(*given.as_map(), [](const auto& o) { return o.first == "size"; }); // --size counts
  const option_schema* const schemas[] = {type->create_options};
  BGFS_TRY(const options checked, validate_options(schemas, given));
  return type->measure({.given = checked, .length = length, .secrets = session.secrets().get()});
}

task<measured_image> measure_source(const command_session& session, const measure_arguments& a,
                                    open_image& image) {
  const measured_space space = co_await measure_space(session, a, image.top().length());
  measured_image measured = co_await measure_copy(space, image.top());
  co_return measured;
}

std::string render(const measured_image& m, bool is_json) {
  if (!is_json) {
    std::string text =
        fmt::format("required size: {}\nfully allocated size: {}\n", m.required, m.fully_allocated);
    if (m.bitmaps)
      text += fmt::format("bitmaps size: {}\n", *m.bitmaps);
    return text;
  }
  const std::string bitmaps = m.bitmaps ? fmt::format("    \"bitmaps\": {},\n", *m.bitmaps) : "";
  return fmt::format("{{\n{}    \"required\": {},\n    \"fully-allocated\": {}\n}}\n", bitmaps,
                     m.required, m.fully_allocated);
}

task<void> measure(command_session& session, const measure_arguments& a) {
  measured_image measured;
  if (a.length) {
    const measured_space space = co_await measure_space(session, a, *a.length);
    measured = measure_empty(space);
  } else {
    measured = co_await with(open(session.nodes(), a.source),
                             [&](open_image& image) { return measure_source(session, a, image); });
  }
  print(render(measured, a.is_json));
}

result<> check(const measure_arguments& a, std::span<const std::string> operands) {
  if (operands.size() > 1 || (operands.empty() && !a.length))
    return fail(error_kind::invalid_argument,
                "--size, or one image that is going to be copied, is expected; see 'bgfs measure "
                "--help'");
  if (!operands.empty() && a.length)
    return fail(error_kind::invalid_argument,
                "--size is for a disk that is not there yet; '{}' has a size of its own",
                operands[0]);
  const bool is_about_source =
      a.source.is_options || !a.source.format.empty() || !a.source.snapshot.empty();
  if (operands.empty() && is_about_source)
    return fail(error_kind::invalid_argument, "-f, -l and --image-opts are about an image that is "
                                              "copied, and none is given");
  return {};
}

void declare(arguments& known, measure_arguments& a) {
  known.text('O', "target-format", "FORMAT", "the format of the new image; raw if not given",
             a.format);
  known.texts('o', "options", "OPTIONS", "name=value,... of the new image, as for create",
              a.option_lists);
  known.value(0, "size", "SIZE", "how long its disk will be",
              [&](const std::string& v) { return take_size(v, a.length.emplace()); });
  known.text('f', "format", "FORMAT", "the format of FILE; absent: by its first bytes",
             a.source.format);
  known.text('l', "snapshot", "SNAPSHOT", "an internal snapshot of FILE, instead of its disk",
             a.source.snapshot);
  known.value(0, "output", "human|json", "for people, or for programs",
              [&](const std::string& v) { return take_output_format(v, a.is_json); });
  known.flag('U', "force-share", "even while somebody else is writing FILE",
             a.source.is_force_shared);
  known.flag(0, "image-opts", "FILE is a list of options: driver=...,file.filename=...",
             a.source.is_options);
  add_session_options(known, a.session);
}

} // namespace

int run_measure(const command_call& call) {
  measure_arguments a;
  arguments known(call.name, "[OPTION]... --size SIZE | FILE",
                  "Says how large a new image will be: with what FILE holds, and when all of its\n"
                  "disk is written.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (asks_option_help(a.option_lists)) {
    const auto text = describe_create_options(call.drivers, a.format, "");
    if (text)
      print(*text);
    else
      complain(call, text.error().message());
    return text ? 0 : 1;
  }
  if (const auto ok = check(a, parsed.operands); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  if (!parsed.operands.empty())
    a.source.name = parsed.operands[0];
  return run_session(call, a.session,
                     [&](command_session& session) { return measure(session, a); });
}

} // namespace bgfs
