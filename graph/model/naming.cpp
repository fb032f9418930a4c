// SPDX-License-Identifier: MIT
#include "graph/model/naming.h"

#include "graph/model/join_options.h"

#include <algorithm>
#include <filesystem>

namespace bgfs {
namespace {

// Names that the graph made up cannot be given.
bool has_own_name(const node& n) {
  return !n.name().starts_with('#');
}

const option* find_host_path(const driver_type& type) {
  const auto& all = type.open_options->options;
  const auto found = std::ranges::find_if(all, &option::is_host_path);
  return found == all.end() ? nullptr : &*found;
}

bool has_strong_options(const node& n) {
  const option* path = find_host_path(n.type());
  return std::ranges::any_of(n.type().open_options->options, [&](const option& o) {
    return o.is_strong && &o != path && n.given().is_set(o.name);
  });
}

// Options may have come from anywhere; the path they led to is absolute.
value place_of(const node& n, const option& o, const value& given) {
  if (!o.is_host_path)
    return given;
  const std::string path = n.instance().host_path();
  if (!path.empty())
    return path;
  const std::string* text = given.as_text(); // a file beside what the node shows
  return text == nullptr ? given : value(std::filesystem::absolute(*text).string());
}

std::string normal_path(std::string_view path) {
  return std::filesystem::path(path).lexically_normal().string();
}

// Where the header's plain name leads; empty if it is not one, or leads nowhere.
std::string path_in_header(const node& n, std::string_view name) {
  if (name.starts_with("json:"))
    return {};
  if (name.starts_with("file:"))
    name.remove_prefix(5);
  if (name.starts_with('/'))
    return normal_path(name);
  const result<std::string> directory = directory_name(n);
  return directory ? normal_path(*directory + std::string(name)) : std::string();
}

// Nodes made from a header need no definition: they are found again.
bool is_found_again(const node& n, const edge& e) {
  if (e.is_named_by_image())
    return true;
  return e.has_role(role::backing) && !has_own_name(e.child()) && !is_backing_overridden(n);
}

} // namespace

std::string exact_filename(const node& n) {
  if (n.type().kind != driver_kind::format)
    return n.instance().exact_filename();
  const edge* file = n.child("file");
  if (file == nullptr || has_strong_options(n) || is_backing_overridden(n) ||
      file->child().type().kind == driver_kind::format)
    return {};
  for (const auto& e : n.children())
    if (e.get() != file && !e->has_role(role::backing) && !e->is_named_by_image())
      return {};
  return exact_filename(file->child());
}

value full_open_options(const node& n) {
  value all = value::map();
  all.set("driver", n.type().name);
  for (const auto& [name, given] : flatten_options(n.given().given())) {
    const auto& options = n.type().open_options->options;
    const auto o = std::ranges::find(options, name, &option::name);
    if (o != options.end() && o->is_strong)
      (void)set_nested(all, name, place_of(n, *o, given)); // given options do not collide
  }
  const bool is_overridden = is_backing_overridden(n);
  for (const auto& e : n.children())
    if (is_overridden || !e->has_role(role::backing))
      all.set(e->name(), full_open_options(e->child()));
  if (is_overridden && n.backing() == nullptr)
    all.set("backing", value());
  return all;
}

std::string canonical_name(const node& n) {
  std::string name = exact_filename(n);
  return name.empty() ? "json:" + to_json(full_open_options(n)) : name;
}

image_reference reference_to(const node& n) {
  return {canonical_name(n), std::string(n.type().name)};
}

result<std::string> directory_name(const node& n) {
  const node* at = &n;
  while (at->type().kind != driver_kind::protocol) {
    const auto& all = at->children();
    const auto primary =
        std::ranges::find_if(all, [](const auto& e) { return e->has_role(role::primary); });
    if (primary == all.end())
      return fail(error_kind::not_found, "{} has no file, and so no directory", n.describe());
    at = &(*primary)->child();
  }
  result<std::string> name = at->instance().directory_name();
  if (!name)
    return fail(name.error().kind(),
                "relative names in the header of {} begin at the directory of {}, {}; use an "
                "absolute name",
                n.describe(), at->describe(), name.error().message());
  return name;
}

bool is_backing_overridden(const node& n) {
  const std::optional<image_reference> header = n.instance().backing_reference();
  if (n.backing() == nullptr)
    return header.has_value();
  if (!header)
    return true;
  const node& below = n.backing()->child();
  // Without a format the image is recognised by its content, which a raw one must not be.
  if (header->format.empty() ? below.type().probe == nullptr : header->format != below.type().name)
    return true;
  const std::string exact = exact_filename(below);
  if (exact.empty())
    return header->filename != canonical_name(below);
  return path_in_header(n, header->filename) != normal_path(exact);
}

value definition_of(const node& n) {
  value v = value::map();
  if (has_own_name(n))
    v.set("node-name", n.name());
  v.set("driver", n.type().name);
  for (const auto& [name, given] : flatten_options(n.given().given())) {
    const auto& options = n.type().open_options->options;
    const auto o = std::ranges::find(options, name, &option::name);
    (void)set_nested(v, name, o == options.end() ? given : place_of(n, *o, given));
  }
  v.set("read-only", n.is_read_only()); // elsewhere it would depend on who uses it
  for (const auto& e : n.children()) {
    if (is_found_again(n, *e))
      continue;
    const node& below = e->child();
    const bool is_in_place =
        !has_own_name(below) || (below.is_owned_by_parent() && below.parents().front() == e.get());
    v.set(e->name(), is_in_place ? definition_of(below) : value(below.name()));
  }
  if (n.backing() == nullptr && is_backing_overridden(n))
    v.set("backing", value());
  return v;
}

} // namespace bgfs
