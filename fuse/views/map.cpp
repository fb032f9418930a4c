// SPDX-License-Identifier: MIT
// map, map.json: where the bytes are, as `bgfs map` prints it. Of a root and a snapshot the whole
// chain; of a layer what that layer alone holds. Made as they are read: an image may have millions
// of entries.
#include "config/render_map.h"
#include "fuse/tree/shown_disk.h"
#include "fuse/views/common.h"

#include <cerrno>

namespace bgfs {
namespace {

// How many entries are looked at before whoever waits gets what there is, or others get a turn:
// most of them may be no row of a table.
constexpr unsigned entries_at_once = 16384;

class map_source final : public text_source {
public:
  explicit map_source(bool is_json) : is_json_(is_json) {
    if (!is_json)
      head_ = map_table_head;
  }

  task<bool> append(view_subject subject, std::string& text, std::size_t enough) override {
    text += std::exchange(head_, {});
    const std::size_t length_max = text.size() + enough;
    if (subject.shown == nullptr) {
      co_await subject.root->place().run(
          [&] { return walk(shown_node(subject), map_scope::chain, text, length_max); });
    } else {
      if (use_.kept_open == nullptr) // once it is, until the file is closed
        use_ = co_await subject.shown->open(subject.pid);
      co_await use_.disk->require_attached();
      co_await subject.root->place().run(
          [&] { return walk(use_.disk->top(), subject.shown->scope(), text, length_max); });
    }
    co_return !is_over_;
  }

private:
  // On the loop of the node. Whatever it ends with, `text` and next_ say the same.
  task<void> walk(node& top, map_scope scope, std::string& text, std::size_t length_max) {
    top.follow_length();
    unsigned count = 0;
    bool is_cut = false;
    if (next_ < top.length())
      co_await walk_map(top, byte_range::between(next_, top.length()), scope,
                        [&](const map_entry& e) -> result<bool> {
                          text += is_json_ ? writer_.entry(e) : map_view_row(e);
                          next_ = e.range.end();
                          is_cut = ++count >= entries_at_once || text.size() >= length_max;
                          return !is_cut;
                        });
    is_over_ = !is_cut;
    if (is_over_ && is_json_)
      text += writer_.end();
  }

  bool is_json_;
  std::string head_;
  map_json_writer writer_;
  u64 next_ = 0; // where on the disk
  bool is_over_ = false;
  disk_use use_;
};

template<bool is_json>
std::unique_ptr<text_source> begin() {
  return std::make_unique<map_source>(is_json);
}

template<bool is_json>
task<std::string> render(view_subject subject) {
  map_source source(is_json);
  std::string text;
  bool has_more = true;
  while (has_more) {
    has_more = co_await source.append(subject, text, map_text_length_max);
    if (text.size() > map_text_length_max)
      co_await fail(error{error_kind::unsupported,
                          fmt::format("the map is longer than {} MiB; read the file '{}' instead",
                                      map_text_length_max / MiB, is_json ? "map.json" : "map"),
                          EFBIG});
  }
  co_return text;
}

} // namespace

constexpr std::string_view text_summary = "where data is stored, for people";
constexpr std::string_view json_summary =
    "every run of bytes: start, length, depth, present, zero, data, offset";

extern constinit const view map_view{.name = "map",
                                     .summary = text_summary,
                                     .render = render<false>,
                                     .begin = begin<false>,
                                     .renders_on_mount_loop = true};
extern constinit const view map_json_view{.name = "map.json",
                                          .summary = json_summary,
                                          .render = render<true>,
                                          .begin = begin<true>,
                                          .renders_on_mount_loop = true};

} // namespace bgfs
