// SPDX-License-Identifier: MIT
// The options of `bgfs convert`.
#include "config/commands/convert.h"
#include "config/commands/verb_frame.h"

#include "config/commands/option_values.h"
#include "graph/base/text.h"
#include "graph/jobs/pieces.h"

#include <charconv>

namespace bgfs {

namespace {

struct convert_arguments {
  convert_options options;
  session_options session;
  std::string sparse;
  std::string parallel;
  bool is_quiet = false;
};

void declare_images(arguments& known, convert_arguments& a) {
  convert_options& o = a.options;
  known.text('f', "format", "FORMAT", "the format of the sources; absent: by their first bytes",
             o.source.format);
  known.text('O', "target-format", "FORMAT", "the format of the target; raw if not given",
             o.new_image.format);
  known.texts('o', "options", "OPTIONS", "name=value,... for the new image; 'help' lists them",
              o.new_image.option_lists);
  known.text('B', "backing", "FILE", "make the target an overlay of FILE", o.new_image.backing);
  known.text('b', "", "FILE", "the same as -B", o.new_image.backing);
  known.text('F', "backing-format", "FORMAT", "the format of the backing file",
             o.new_image.backing_format);
  known.flag('n', "no-create", "write into an existing target", o.is_existing);
  known.flag(0, "target-is-zero", "with -n: the target reads as zeroes already", o.is_target_zero);
  known.flag(0, "image-opts", "sources are lists of options: driver=...,file.filename=...",
             o.source.is_options);
  known.flag(0, "target-image-opts", "the target is a list of options; needs -n",
             o.target.is_options);
  known.flag('U', "force-share", "read sources even while somebody else is writing them",
             o.source.is_force_shared);
  // As scripts know it, and as cp(1) does: the source is there until the disk has got it all.
  a.options.target.cache = host_cache::unsafe;
  add_cache_option(
      known, 't', "target-cache",
      "how the host caches the target; unsafe if not given: nobody waits until it is on "
      "disk, as writeback does",
      a.options.target.cache);
  add_cache_option(known, 'T', "source-cache", "how the host caches the sources",
                   a.options.source.cache);
  add_session_options(known, a.session);
}

void declare_copying(arguments& known, convert_arguments& a) {
  known.text('S', "sparse-size", "SIZE",
             "zeroes of so many bytes become holes (4k); 0: everything is written", a.sparse);
  known.text('m', "parallel", "COUNT", "how many pieces are copied at once, 1 to 16 (8)",
             a.parallel);
  known.flag('W', "target-out-of-order", "let pieces be written in any order",
             a.options.is_out_of_order);
  add_progress_option(known, a.options.progress);
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  known.flag('c', "compress", "compress what is written, cluster by cluster (qcow2)",
             a.options.is_compressed);
  known.flag('C', "copy-range-offloading",
             "let the host copy data, or share them, where it can (copy_file_range)",
             a.options.offloads);
  known.text('l', "snapshot", "SNAPSHOT",
             "read an internal snapshot of the source: its id or name, or snapshot.id=ID, "
             "snapshot.name=NAME or both",
             a.options.source.snapshot);
  known.value(
      'r', "rate-limit", "RATE", "bytes a second that are copied at most",
      [&a](const std::string& given) { return take_size(given, a.options.bytes_per_second); });
  known.flag(0, "bitmaps", "copy the persistent bitmaps of the source, too",
             a.options.copies_bitmaps);
  known.flag(0, "skip-broken-bitmaps", "with --bitmaps: leave out those that are inconsistent",
             a.options.skips_broken_bitmaps);
  known.flag(0, "salvage", "go on where the source cannot be read: zeroes instead",
             a.options.salvages);
}

result<> read_numbers(convert_arguments& a) {
  convert_options& o = a.options;
  if (!a.sparse.empty()) {
    o.is_sparse_given = true;
    BGFS_TRY(o.sparse_unit, context(parse_size(a.sparse), "option '-S'"));
    if (o.sparse_unit % 512 != 0 || o.sparse_unit > bounce_length_max)
      return fail(error_kind::invalid_argument, "option '-S' is a multiple of 512 up to {}, not {}",
                  bounce_length_max, o.sparse_unit);
  }
  if (!a.parallel.empty()) {
    const char* const end = a.parallel.data() + a.parallel.size();
    const auto [after, problem] = std::from_chars(a.parallel.data(), end, o.parallel);
    if (problem != std::errc() || after != end || o.parallel < 1 || o.parallel > pieces_at_once_max)
      return fail(error_kind::invalid_argument, "option '-m' is a number from 1 to {}, not '{}'",
                  pieces_at_once_max, a.parallel);
  }
  return {};
}

result<> check_combination(const convert_options& o) {
  const bool makes_backing = !o.new_image.backing.empty() || !o.new_image.backing_format.empty();
  if (o.is_existing && (makes_backing || !o.new_image.option_lists.empty()))
    return fail(error_kind::invalid_argument,
                "-o, -B and -F are for a new target; with -n it is there already");
  if (!o.is_existing && o.is_target_zero)
    return fail(error_kind::invalid_argument, "--target-is-zero needs -n");
  if (!o.is_existing && o.target.is_options)
    return fail(error_kind::invalid_argument, "--target-image-opts needs -n");
  if (makes_backing && o.sources.size() > 1)
    return fail(error_kind::invalid_argument,
                "-B makes the target an overlay of what one source stands on; there are {} sources",
                o.sources.size());
  if (!o.source.snapshot.empty() && o.sources.size() > 1)
    return fail(error_kind::invalid_argument, "-l names a snapshot of one source; there are {}",
                o.sources.size());
  if (o.skips_broken_bitmaps && !o.copies_bitmaps)
    return fail(error_kind::invalid_argument, "--skip-broken-bitmaps needs --bitmaps");
  if (o.copies_bitmaps && o.sources.size() > 1)
    return fail(error_kind::invalid_argument, "--bitmaps copies those of one source; there are {}",
                o.sources.size());
  if (o.copies_bitmaps && !o.source.snapshot.empty())
    return fail(error_kind::invalid_argument,
                "--bitmaps and -l exclude each other: bitmaps tell of the disk as it is now");
  if (o.copies_bitmaps && o.is_stream)
    return fail(error_kind::invalid_argument, "--bitmaps makes no sense for standard output");
  if (o.offloads && o.is_compressed)
    return fail(error_kind::invalid_argument,
                "-C and -c exclude each other: the host copies bytes as they are");
  if (o.offloads && o.is_sparse_given)
    return fail(error_kind::invalid_argument,
                "-C and -S exclude each other: nobody looks at the bytes that the host copies");
  if (o.is_stream && o.is_compressed)
    return fail(error_kind::invalid_argument, "-c makes no sense for standard output");
  if (o.is_stream && o.new_image.format != "raw")
    return fail(error_kind::unsupported,
                "only raw can be written to standard output, not '{}', which is not written from "
                "front to back",
                o.new_image.format);
  if (o.is_stream && (o.is_existing || makes_backing || !o.new_image.option_lists.empty()))
    return fail(error_kind::invalid_argument,
                "-n, -o, -B and -F make no sense for standard output");
  return {};
}

result<> read_operands(const command_call& call, convert_arguments& a,
                       std::vector<std::string> operands) {
  if (operands.size() < 2)
    return fail(error_kind::invalid_argument,
                "sources and a target are expected; see 'bgfs convert --help'");
  convert_options& o = a.options;
  o.target.name = operands.back();
  operands.pop_back();
  o.sources = std::move(operands);
  o.is_stream = !o.target.is_options && (o.target.name == "-" || o.target.name == "/dev/stdout");
  if (!a.is_quiet)
    o.warn = [&call](std::string text) { complain(call, "warning: " + std::move(text)); };
  else
    o.warn = [](std::string) {}; // NOLINT(performance-unnecessary-value-param)
  // A bar on standard output would end up in the image.
  if (a.is_quiet || (o.is_stream && o.progress == progress_form::bar))
    o.progress = progress_form::none;
  return {};
}

} // namespace

int run_convert(const command_call& call) {
  convert_arguments a;
  arguments known(call.name, "[OPTION]... SOURCE... TARGET",
                  "Copies images, one behind the other, into TARGET; '-' is standard output.\n"
                  "What reads as zero takes no space where the target can have holes.");
  declare_images(known, a);
  declare_copying(known, a);
  parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (asks_option_help(a.options.new_image.option_lists)) {
    const std::string target = parsed.operands.empty() ? std::string() : parsed.operands.back();
    const auto text = describe_create_options(call.drivers, a.options.new_image.format, target);
    if (text)
      print(*text);
    else
      complain(call, text.error().message());
    return text ? 0 : 1;
  }
  result<> ok = read_operands(call, a, std::move(parsed.operands));
  if (ok)
    ok = read_numbers(a);
  if (ok)
    ok = check_combination(a.options);
  if (!ok) {
    complain(call, ok.error().message());
    return 1;
  }
  a.session.ends_in_order = !a.options.is_stream; // a stream may wait for its reader for ever
  return run_session(call, a.session,
                     [&](command_session& session) { return convert(session, a.options); });
}

} // namespace bgfs
