// SPDX-License-Identifier: MIT
#include "config/render_map.h"

#include "config/render_info.h"

namespace bgfs {

namespace {

// Depth and presence as `qemu-img map` defines them: the walk ends at the first layer that knows
// what is read, which may be one that only knows that nothing below it can say anything else.
task<map_entry> entry_at(node& top, byte_range range, map_scope scope) {
  map_entry e{.range = range};
  node* layer = &top;
  block_status s;
  for (;;) {
    s = co_await layer->status(e.range);
    BGFS_ASSERT(s.length > 0, "a status is asked below the end of the node and makes progress");
    e.range.length = std::min(e.range.length, s.length);
    node* const below = scope == map_scope::chain ? layer->next_in_chain() : nullptr;
    if (s.is_data || s.is_zero || below == nullptr)
      break;
    // A filter has no content of its own: what it passes on is its child's, on the same level.
    e.depth += layer->is_filter() ? 0 : 1;
    layer = below;
  }
  e.is_present = s.is_allocated;
  e.is_zero = s.is_zero;
  e.is_data = s.is_data;
  e.is_compressed = s.is_compressed;
  if (s.file != nullptr && (s.is_data || s.is_zero)) {
    e.offset = s.offset;
    e.file = filename_of(*s.file);
  }
  co_return e;
}

// What one layer alone holds: that nothing lies below it is not its answer.
void forget_layers_below(map_entry& e) {
  if (!e.is_present)
    e.is_zero = false;
}

bool continues(const map_entry& before, const map_entry& after) {
  if (before.depth != after.depth || before.is_present != after.is_present ||
      before.is_zero != after.is_zero || before.is_data != after.is_data ||
      before.is_compressed != after.is_compressed || before.file != after.file)
    return false;
  if (before.offset.has_value() != after.offset.has_value())
    return false;
  return !before.offset || *before.offset + before.range.length == *after.offset;
}

std::string_view truth(bool b) {
  return b ? "true" : "false";
}

} // namespace

task<void> walk_map(node& top, byte_range range, map_scope scope,
                    std::function<result<bool>(const map_entry&)> take) {
  std::optional<map_entry> last;
  while (!range.is_empty()) {
    map_entry e = co_await entry_at(top, range, scope);
    if (scope == map_scope::one_layer)
      forget_layers_below(e);
    range = byte_range::between(e.range.end(), range.end());
    if (last && continues(*last, e)) {
      last->range.length += e.range.length;
      continue;
    }
    if (last) {
      const bool goes_on = co_await take(*last);
      if (!goes_on)
        co_return;
    }
    last = std::move(e);
  }
  if (last)
    (void)co_await take(*last);
}

task<std::vector<map_entry>> read_map(node& top, byte_range range, map_scope scope) {
  std::vector<map_entry> entries;
  co_await walk_map(top, range, scope, [&entries](const map_entry& e) {
    entries.push_back(e);
    return true;
  });
  co_return entries;
}

std::string map_json_writer::entry(const map_entry& e) {
  std::string line = fmt::format(
      R"({}{{ "start": {}, "length": {}, "depth": {}, "present": {}, "zero": {}, "data": {})",
      is_first_ ? "[" : ",\n", e.range.offset, e.range.length, e.depth, truth(e.is_present),
      truth(e.is_zero), truth(e.is_data));
  is_first_ = false;
  if (e.offset)
    line += fmt::format(R"(, "offset": {})", *e.offset);
  return line + "}";
}

std::string map_json_writer::end() {
  return is_first_ ? "[]\n" : "]\n";
}

namespace {

std::string hex(u64 number) {
  return number == 0 ? "0" : fmt::format("{:#x}", number);
}

std::string table_row(const map_entry& e, std::string_view place) {
  return fmt::format("{:<16}{:<16}{:<16}{}\n", hex(e.range.offset), hex(e.range.length), place,
                     e.file);
}

} // namespace

result<std::string> map_table_row(const map_entry& e) {
  if (!e.is_data || e.is_zero)
    return std::string();
  if (!e.offset)
    return fail(error_kind::unsupported,
                "File contains external, encrypted or compressed clusters.");
  return table_row(e, hex(*e.offset));
}

std::string render_map_json(std::span<const map_entry> entries) {
  map_json_writer writer;
  std::string text;
  for (const map_entry& e : entries)
    text += writer.entry(e);
  return text + writer.end();
}

std::string map_view_row(const map_entry& e) {
  if (!e.is_data || e.is_zero)
    return {};
  return table_row(e, e.offset ? hex(*e.offset) : "-");
}

std::string render_map_table(std::span<const map_entry> entries) {
  std::string text(map_table_head);
  for (const map_entry& e : entries)
    text += map_view_row(e);
  return text;
}

} // namespace bgfs
