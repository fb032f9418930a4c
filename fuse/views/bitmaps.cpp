// SPDX-License-Identifier: MIT
// bitmaps/NAME/: what a dirty bitmap says, and what may be done to it. What only looks at bits or
// changes this one runs on the loop of the nodes; what asks the root for something, on the mount's.
#include "fuse/views/common.h"
#include "graph/base/text.h"
#include "graph/model/bitmap_change.h"

#include <cerrno>

namespace bgfs {
namespace {

root_bitmaps& bitmaps_of(const view_subject& subject) {
  return subject.root->bitmaps();
}

// --- what it says ------------------------------------------------------------------------------

// Whether it can be relied on comes first, then why not, or what to know.
std::string state_text(const view_subject& subject, const dirty_bitmap& b, const node& image) {
  if (b.is_inconsistent())
    return fmt::format("inconsistent\n{}; it tells nothing of what was written: copy everything, "
                       "remove it with rmdir and add another\n",
                       b.definition().inconsistency);
  const std::string_view records =
      b.is_enabled() ? "it records what is written"
                     : "it does not record what is written (write 1 to 'enabled')";
  if (!b.holders().empty())
    return fmt::format("in-use\nby {}; until that ends it is neither changed nor removed; {}\n",
                       b.holders().front(), records);
  if (!subject.root->is_writable())
    return "locked\nthe root is exported read-only: the bitmap can be read, and not be changed\n";
  if (!b.is_persistent())
    return fmt::format("ok\n{}; it is kept in memory and ends with the mount: {}\n", records,
                       root_bitmaps::why_in_memory(image));
  return fmt::format("ok\n{}\n", records);
}

task<std::string> render_state(view_subject subject) {
  const dirty_bitmap* const b = co_await bitmaps_of(subject).find(subject.bitmap);
  co_return state_text(subject, *b, bitmaps_of(subject).image());
}

// Valid until the next await.
task<const dirty_bitmap*> complete(const view_subject& subject) {
  node& image = bitmaps_of(subject).image();
  const dirty_bitmap* const b = co_await image.owner().read_bitmap(image, subject.bitmap);
  co_return b;
}

task<std::string> render_count(view_subject subject) {
  const dirty_bitmap* const b = co_await complete(subject);
  co_return fmt::format("{}\n", b->dirty_bytes());
}

task<std::string> render_granularity(view_subject subject) {
  const dirty_bitmap* const b = co_await bitmaps_of(subject).find(subject.bitmap);
  co_return fmt::format("{}\n", b->granularity());
}

task<std::string> render_enabled(view_subject subject) {
  const dirty_bitmap* const b = co_await bitmaps_of(subject).find(subject.bitmap);
  co_return b->is_enabled() ? "1\n" : "0\n";
}

task<std::string> render_persistent(view_subject subject) {
  const dirty_bitmap* const b = co_await bitmaps_of(subject).find(subject.bitmap);
  co_return b->is_persistent() ? "1\n" : "0\n";
}

result<> check_map_length(const std::string& text) {
  if (text.size() <= map_text_length_max)
    return {};
  return fail(error{error_kind::unsupported,
                    fmt::format("the map is longer than {} MiB", map_text_length_max / MiB),
                    EFBIG});
}

task<std::string> render_map(view_subject subject) {
  const dirty_bitmap* const b = co_await complete(subject);
  std::string text = "Offset          Length\n";
  for (auto run = b->next_dirty(0); run; run = b->next_dirty(run->end())) {
    text += fmt::format("{:<#16x}{:#x}\n", run->offset, run->length);
    co_await check_map_length(text);
  }
  co_return text;
}

task<std::string> render_map_json(view_subject subject) {
  const dirty_bitmap* const b = co_await complete(subject);
  std::string text;
  const auto add = [&text](byte_range range, bool is_dirty) -> result<> {
    if (range.is_empty())
      return {};
    text += fmt::format("{}{{ \"start\": {}, \"length\": {}, \"dirty\": {}}}",
                        text.empty() ? "[" : ",\n", range.offset, range.length, is_dirty);
    return check_map_length(text);
  };
  u64 at = 0;
  for (auto run = b->next_dirty(0); run; run = b->next_dirty(at)) {
    co_await add(byte_range::between(at, run->offset), false);
    co_await add(*run, true);
    at = run->end();
  }
  co_await add(byte_range::between(at, b->length()), false);
  co_return text.empty() ? "[]\n" : text + "]\n";
}

// --- what is done to it ------------------------------------------------------------------------

task<void> change(view_subject subject, bitmap_change c) {
  c.name = subject.bitmap;
  std::vector<bitmap_change> changes;
  changes.push_back(std::move(c));
  co_await bitmaps_of(subject).change(std::move(changes));
}

task<void> write_granularity(view_subject subject, std::string text) {
  const result<u64> bytes = parse_size(text);
  if (!bytes)
    co_await fail(error_kind::invalid_argument,
                  "'{}' is no granularity: write a power of two of bytes, such as 64K", text);
  co_await change(subject, {.what = bitmap_change::kind::set_granularity, .granularity = *bytes});
}

result<bool> parse_switch(std::string_view text, std::string_view meaning) {
  if (text == "1" || text == "0")
    return text == "1";
  return fail(error_kind::invalid_argument, "write {}, not '{}'", meaning, text);
}

task<void> write_enabled(view_subject subject, std::string text) {
  const bool is_on = co_await parse_switch(text, "1 to record what is written, 0 not to");
  co_await change(subject,
                  {.what = is_on ? bitmap_change::kind::enable : bitmap_change::kind::disable});
}

task<void> write_clear(view_subject subject, std::string text) {
  if (text != "1")
    co_await fail(error_kind::invalid_argument,
                  "write 1 to forget all that was marked, not '{}'; what is written between a copy "
                  "and that is lost to the next one",
                  text);
  co_await change(subject, {.what = bitmap_change::kind::clear});
}

// One name a line: they may hold anything else.
task<void> write_merge(view_subject subject, std::string text) {
  std::vector<bitmap_change> changes;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string shown = text.substr(at, end - at);
    at = end + 1;
    if (shown.empty())
      continue;
    std::string source = co_await bitmaps_of(subject).name_of(std::move(shown));
    changes.push_back({.what = bitmap_change::kind::merge,
                       .name = subject.bitmap,
                       .source = &bitmaps_of(subject).image(),
                       .source_name = std::move(source)});
  }
  if (changes.empty())
    co_await fail(error_kind::invalid_argument,
                  "write the names of bitmaps whose bits are to be added, one a line");
  co_await bitmaps_of(subject).change(std::move(changes));
}

task<std::string> render_hold(view_subject subject) {
  (void)co_await bitmaps_of(subject).find(subject.bitmap);
  co_return bitmaps_of(subject).is_held(subject.bitmap) ? "1\n" : "0\n";
}

task<void> write_hold(view_subject subject, std::string text) {
  const bool is_on = co_await parse_switch(
      text, "1 to keep the bitmap from being changed and removed, 0 to let it go");
  if (is_on) {
    co_await bitmaps_of(subject).hold(subject.bitmap);
  } else {
    bitmaps_of(subject).let_go(subject.bitmap);
  }
}

} // namespace

extern constinit const view bitmap_state_view{
    .name = "state",
    .summary = "whether to trust it: ok, in-use, inconsistent or locked; then why, and what to do",
    .render = render_state};
extern constinit const view bitmap_count_view{
    .name = "count", .summary = "how many bytes are dirty", .render = render_count};
extern constinit const view bitmap_granularity_view{
    .name = "granularity",
    .summary = "the bytes that a bit stands for; may be written until the first is set",
    .render = render_granularity,
    .write = write_granularity,
    .writes_on_mount_loop = true};
extern constinit const view bitmap_enabled_view{.name = "enabled",
                                                .summary = "1: what is written is recorded; 0: not",
                                                .render = render_enabled,
                                                .write = write_enabled,
                                                .writes_on_mount_loop = true};
extern constinit const view bitmap_persistent_view{
    .name = "persistent",
    .summary = "1: it is kept in the image; 0: in memory, until the mount ends",
    .render = render_persistent};
extern constinit const view bitmap_hold_view{
    .name = "hold",
    .summary = "1 keeps it from being changed and removed (EBUSY) until 0 is written or the mount "
               "ends; it goes on recording",
    .render = render_hold,
    .write = write_hold};
extern constinit const view bitmap_map_view{
    .name = "map", .summary = "what is dirty, for people", .render = render_map};
extern constinit const view bitmap_map_json_view{.name = "map.json",
                                                 .summary =
                                                     "every run of bytes: start, length, dirty",
                                                 .render = render_map_json};
extern constinit const view bitmap_clear_view{.name = "clear",
                                              .summary = "write 1: nothing is dirty any more",
                                              .write = write_clear,
                                              .writes_on_mount_loop = true};
extern constinit const view bitmap_merge_view{
    .name = "merge",
    .summary = "write names of other bitmaps, one a line: what they have is dirty here, too",
    .write = write_merge,
    .writes_on_mount_loop = true};

} // namespace bgfs
