// SPDX-License-Identifier: MIT
#include "config/render_info.h"

#include "config/image_name.h"
#include "config/render_limits.h"
#include "config/snapshot_text.h"
#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {

namespace {

const option* host_path_option(const driver_type& type) {
  const auto& all = type.open_options->options;
  const auto found = std::ranges::find_if(all, [](const option& o) { return o.is_host_path; });
  return found == all.end() ? nullptr : &*found;
}

// The driver's own options as they were given; those of every node say how, not what, it is.
value own_options(const node& n) {
  value own = value::map();
  const value given = n.given().given();
  for (const auto& [key, v] : *given.as_map()) {
    const bool is_own = std::ranges::any_of(n.type().open_options->options, [&](const option& o) {
      return o.name == key || o.name.starts_with(fmt::format("{}.", key));
    });
    if (is_own)
      own.set(key, v);
  }
  return own;
}

// Options of a format with backing files tune it (cache sizes); those of others change what is
// read (a window).
bool is_named_by_its_file(const node& n) {
  if (n.type().kind != driver_kind::format || n.child("file") == nullptr)
    return false;
  return n.type().supports_backing || own_options(n).as_map()->empty();
}

value definition_of(const node& n) {
  value v = value::map();
  v.set("driver", n.type().name);
  const value own = own_options(n);
  for (const auto& [key, given] : *own.as_map())
    v.set(key, given);
  for (const auto& e : n.children())
    if (!e->has_role(role::backing))
      v.set(e->name(), definition_of(e->child()));
  return v;
}

} // namespace

std::string filename_of(const node& n) {
  if (const option* path = host_path_option(n.type()))
    return n.given().text(path->name);
  if (is_named_by_its_file(n))
    return filename_of(n.child("file")->child());
  return "json:" + to_json(definition_of(n));
}

namespace {

// Where a name in the header leads; empty if that cannot be said.
std::string full_backing_filename(const node& image, const std::string& name) {
  if (name.starts_with("json:") || !protocol_of_name(name).empty())
    return name;
  std::string base = filename_of(image);
  if (base.starts_with("json:"))
    base = image.host_path();
  return base.empty() ? std::string() : combine_paths(base, name);
}

void add_backing(value& info, const node& image) {
  const std::optional<image_reference> reference = image.instance().backing_reference();
  if (!reference)
    return;
  const std::string full = full_backing_filename(image, reference->filename);
  if (!full.empty())
    info.set("full-backing-filename", full);
  info.set("backing-filename", reference->filename);
}

} // namespace

task<value> read_info(node& image, std::string shown_name) {
  const u64 allocated = co_await image.allocated_length();
  const driver_info details = image.instance().info();
  value info = value::map();
  // The order of the peer's JSON, for those who compare texts.
  const snapshottable* const keeper = image.as_snapshottable();
  const std::vector<snapshot_info> snapshots =
      keeper == nullptr ? std::vector<snapshot_info>() : keeper->snapshots();
  if (!snapshots.empty())
    info.set("snapshots", snapshots_value(snapshots));
  const std::optional<image_reference> reference = image.instance().backing_reference();
  if (reference && !reference->format.empty())
    info.set("backing-filename-format", reference->format);
  info.set("virtual-size", image.length());
  info.set("filename", shown_name.empty() ? filename_of(image) : shown_name);
  if (details.cluster_size != 0)
    info.set("cluster-size", details.cluster_size);
  info.set("format", image.type().name);
  info.set("actual-size", allocated);
  if (details.is_encrypted)
    info.set("encrypted", true);
  if (!details.format_specific.is_null())
    info.set("format-specific", details.format_specific);
  add_backing(info, image);
  info.set("dirty-flag", details.is_dirty);
  co_return info;
}

task<value> read_info_chain(node& top, std::string shown_name) {
  value::list layers;
  node* layer = &top;
  while (layer != nullptr) {
    value info = co_await read_info(*layer, layers.empty() ? shown_name : std::string());
    layers.push_back(std::move(info));
    layer = layer->next_in_chain();
  }
  co_return value(std::move(layers));
}

namespace {

constexpr std::size_t indentation = 4;

// The tree of format-specific facts, as people read it: hyphens in names become spaces.
class tree_text {
public:
  void add_map(const value::map& members, std::size_t depth) {
    for (const auto& [key, member] : members) {
      std::string label = key;
      std::ranges::replace(label, '-', ' ');
      add(label, member, depth);
    }
  }

  std::string out;

private:
  void add(std::string_view label, const value& v, std::size_t depth) {
    out.append(indentation * depth, ' ');
    if (const auto* members = v.as_map()) {
      out += fmt::format("{}:\n", label);
      add_map(*members, depth + 1);
    } else if (const auto* items = v.as_list()) {
      out += fmt::format("{}:\n", label);
      for (std::size_t i = 0; i < items->size(); i++)
        add(fmt::format("[{}]", i), (*items)[i], depth + 1);
    } else if (const auto* text = v.as_text()) {
      out += fmt::format("{}: {}\n", label, *text);
    } else {
      out += fmt::format("{}: {}\n", label, to_json(v));
    }
  }
};

std::string text_of(const value& info, std::string_view key) {
  const value* v = info.find(key);
  if (v == nullptr)
    return {};
  const std::string* text = v->as_text();
  return text == nullptr ? to_json(*v) : *text;
}

u64 number_of(const value& info, std::string_view key) {
  const value* v = info.find(key);
  const i64* number = v == nullptr ? nullptr : v->as_integer();
  return number == nullptr ? 0 : static_cast<u64>(*number);
}

bool flag_of(const value& info, std::string_view key) {
  const value* v = info.find(key);
  return v != nullptr && v->as_bool() != nullptr && *v->as_bool();
}

std::string render_backing(const value& info) {
  const std::string name = text_of(info, "backing-filename");
  if (name.empty())
    return {};
  const std::string full = text_of(info, "full-backing-filename");
  std::string text = fmt::format("backing file: {}", name);
  if (full.empty()) {
    text += " (cannot determine actual path)";
  } else if (full != name) {
    text += fmt::format(" (actual path: {})", full);
  }
  text += '\n';
  if (info.find("backing-filename-format") != nullptr)
    text += fmt::format("backing file format: {}\n", text_of(info, "backing-filename-format"));
  return text;
}

std::string render_one(const value& info) {
  const u64 length = number_of(info, "virtual-size");
  std::string text =
      fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\n",
                  text_of(info, "filename"), text_of(info, "format"), format_size(length), length);
  text += fmt::format("disk size: {}\n", format_size(number_of(info, "actual-size")));
  if (flag_of(info, "encrypted"))
    text += "encrypted: yes\n";
  if (info.find("cluster-size") != nullptr)
    text += fmt::format("cluster_size: {}\n", number_of(info, "cluster-size"));
  if (flag_of(info, "dirty-flag"))
    text += "cleanly shut down: no\n";
  text += render_backing(info);
  if (const value* snapshots = info.find("snapshots"))
    text += render_snapshots(*snapshots);
  if (const value* specific = info.find("format-specific"))
    text += render_format_specific(*specific);
  if (const value* limits = info.find("limits"))
    text += render_limits(*limits);
  return text;
}

} // namespace

std::string render_format_specific(const value& specific) {
  const value* data = specific.find("data");
  if (data == nullptr || data->as_map() == nullptr)
    return {};
  tree_text tree;
  tree.add_map(*data->as_map(), 1);
  return "Format specific information:\n" + tree.out;
}

std::string render_info(const value& info) {
  const value::list* layers = info.as_list();
  if (layers == nullptr)
    return render_one(info);
  std::string text;
  for (const value& layer : *layers) {
    if (!text.empty())
      text += '\n';
    text += render_one(layer);
  }
  return text;
}

std::string render_info_json(const value& info) {
  return to_json(info, indentation) + "\n";
}

} // namespace bgfs
