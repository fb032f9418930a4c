// SPDX-License-Identifier: MIT
// bgfs resize: make a disk longer or shorter.
#include "config/commands/option_values.h"
#include "config/commands/over_mount.h"
#include "config/commands/verb_frame.h"
#include "graph/base/text.h"

namespace bgfs {

namespace {

// "20G", or against what the disk has now "+1G" and "-1G".
struct wanted_length {
  enum class kind : u8 { exact, more, less };
  kind how = kind::exact;
  u64 bytes = 0;
};

struct resize_arguments {
  image_choice image;
  session_options session;
  wanted_length length;
  preallocation prealloc = preallocation::off;
  bool may_shrink = false;
  bool is_quiet = false;
};

result<wanted_length> parse_wanted_length(const std::string& text) {
  wanted_length wanted;
  std::string_view digits = text;
  if (text.starts_with('+') || text.starts_with('-')) {
    wanted.how = text[0] == '+' ? wanted_length::kind::more : wanted_length::kind::less;
    digits.remove_prefix(1);
  }
  BGFS_TRY(wanted.bytes, parse_size(digits));
  return wanted;
}

result<u64> length_after(u64 now, wanted_length wanted) {
  const bool is_less = wanted.how == wanted_length::kind::less;
  if (is_less ? wanted.bytes >= now : wanted.bytes == 0 && wanted.how == wanted_length::kind::exact)
    return fail(error_kind::invalid_argument, "the new size must be positive; it has {} bytes now",
                now);
  if (is_less)
    return now - wanted.bytes;
  const u64 base = wanted.how == wanted_length::kind::more ? now : 0;
  const auto length = checked_add(base, wanted.bytes);
  if (!length || *length > device_length_max)
    return fail(error_kind::out_of_range, "a disk has {} bytes at most", device_length_max);
  return *length;
}

result<> check(u64 now, u64 length, const resize_arguments& a) {
  if (length <= now && a.prealloc != preallocation::off)
    return fail(error_kind::invalid_argument,
                "preallocation can only be used for growing images; this one has {} bytes and "
                "would have {}",
                now, length);
  if (length < now && !a.may_shrink)
    return fail(error_kind::invalid_argument,
                "the disk has {} bytes, and all data behind the first {} would be deleted: use the "
                "--shrink option to perform a shrink operation",
                now, length);
  return {};
}

task<void> resize_open(open_image& image, const resize_arguments& a) {
  const u64 now = image.top().length();
  const u64 length = co_await context(length_after(now, a.length), "'{}'", a.image.name);
  co_await context(check(now, length, a), "'{}'", a.image.name);
  co_await context(image.disk().truncate(length, {.prealloc = a.prealloc, .is_exact = false}),
                   "cannot resize '{}' to {} bytes", a.image.name, length);
  co_await image.disk().flush();
}

task<void> resize(command_session& session, const resize_arguments& a) {
  co_await with(open(session.nodes(), a.image),
                [&](open_image& image) { return resize_open(image, a); });
  if (!a.is_quiet)
    print("Image resized.\n");
}

// As writing the new length to NAME.d/size.
result<> resize_mounted(const mounted_root& root, const resize_arguments& a) {
  if (a.prealloc != preallocation::off)
    return fail(error_kind::unsupported,
                "--preallocation is not for '{}', which is mounted; use fallocate(1) on it",
                root.path());
  BGFS_TRY(const std::string text, root.control().read("size"));
  BGFS_TRY(const u64 now, parse_size(std::string_view(text).substr(0, text.find('\n'))));
  BGFS_TRY(const u64 length, length_after(now, a.length));
  BGFS_CHECK(check(now, length, a));
  return root.control().command("size", fmt::format("{}{}", length < now ? "shrink " : "", length));
}

int resize_over_mount(const command_call& call, const result<mounted_root>& root,
                      const resize_arguments& a) {
  const result<> done = root ? resize_mounted(*root, a) : fail(root.error());
  if (!done) {
    complain(call, done.error().message());
    return 1;
  }
  if (!a.is_quiet)
    print("Image resized.\n");
  return 0;
}

void declare(arguments& known, resize_arguments& a) {
  add_image_options(known, a.image);
  known.flag(0, "shrink", "let the disk become shorter, which deletes what is behind its new end",
             a.may_shrink);
  known.value(0, "preallocation", "MODE",
              "give the new part its place: off, metadata, falloc, full",
              [&a](const std::string& given) { return take_preallocation(given, a.prealloc); });
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  add_session_options(known, a.session);
}

// The size is the last argument, so that "-1G" is no option.
std::string take_last(std::vector<std::string>& given) {
  if (given.empty() || given.back() == "-h" || given.back() == "--help")
    return {};
  std::string last = std::move(given.back());
  given.pop_back();
  return last;
}

} // namespace

int run_resize(const command_call& call) {
  resize_arguments a;
  arguments known(
      call.name, "[OPTION]... FILE [+|-]SIZE",
      "Makes the disk of an image as long as SIZE, or longer (+) or shorter (-) by it.");
  declare(known, a);
  command_call rest = call;
  const std::string size = take_last(rest.arguments);
  const parsed_arguments parsed = parse_arguments(rest, known);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.size() != 1) {
    complain(call, "one image and at the end its new size are expected; see 'bgfs resize --help'");
    return 1;
  }
  const result<wanted_length> wanted = parse_wanted_length(size);
  if (!wanted) {
    complain(call, wanted.error().message());
    return 1;
  }
  a.length = *wanted;
  a.image.name = parsed.operands[0];
  if (const auto served = find_mounted_root(a.image))
    return resize_over_mount(call, *served, a);
  a.image.is_writable = true;
  a.image.is_resized = true;
  a.session.ends_in_order = true;
  return run_session(call, a.session, [&](command_session& session) { return resize(session, a); });
}

} // namespace bgfs
