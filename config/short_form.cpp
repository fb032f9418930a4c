// SPDX-License-Identifier: MIT
// `bgfs mount IMAGE DIR`: a graph of one image, without YAML.
#include "config/graph_content.h"
#include "config/image_name.h"

#include <filesystem>

namespace bgfs {

namespace {

constexpr std::string_view root_name = "disk";

result<std::string> find_format(const image_request& request, const std::string& path,
                                const registry& drivers) {
  if (!request.format.empty())
    return request.format;
  if (request.is_writable)
    return fail(error_kind::invalid_argument,
                "'{}': writing needs the format to be given, with -F FORMAT: a guess may be wrong, "
                "and then writing destroys the image",
                request.filename);
  BGFS_TRY(const driver_type* found, probe_host_file(path, drivers));
  if (found == nullptr)
    return fail(error_kind::invalid_image,
                "'{}' has no format that is recognised; if its bytes are the disk itself, give "
                "-F raw",
                request.filename);
  return std::string(found->name);
}

result<value> define(const image_request& request, const std::string& path,
                     const registry& drivers) {
  BGFS_TRY(std::string format, find_format(request, path, drivers));
  value v = value::map();
  v.set("node-name", root_name);
  v.set("driver", std::move(format));
  if (!request.is_writable)
    v.set("read-only", true);
  if (request.is_writable)
    v.set("discard", "unmap");
  v.set("file", define_host_file(path, drivers));
  return v;
}

} // namespace

result<graph_config> graph_config::for_image(const image_request& request,
                                             const registry& drivers) {
  const std::string path = std::filesystem::absolute(request.filename).lexically_normal().string();
  BGFS_TRY(const value definition, define(request, path, drivers));
  auto c = std::make_unique<content>(drivers);
  c->source = path;
  c->secrets = std::make_shared<const secret_store>();
  for (const std::string& directory : request.allowed_references)
    c->policy.allowed.push_back(std::filesystem::absolute(directory).string());
  // Who allows a directory trusts the images in it to be what they look like.
  c->policy.is_probing = !request.allowed_references.empty();
  graph_document document{.path = path, .has_exports = true};
  BGFS_TRY(std::unique_ptr<node_definition> node, define_node(definition, {.drivers = drivers}));
  document.nodes.push_back(std::move(node));
  parsed_export e;
  e.root.name = root_name;
  e.root.node_name = root_name;
  e.root.is_writable = request.is_writable;
  document.exports.push_back(std::move(e));
  c->documents.push_back(std::move(document));
  return make_graph_config(std::move(c));
}

} // namespace bgfs
