// SPDX-License-Identifier: MIT
#include "config/references.h"

#include "config/image_name.h"
#include "config/path_walk.h"
#include "config/render_info.h"
#include "graph/base/text.h"

#include <filesystem>

namespace bgfs {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t reference_length_max = 4096;

// Both are absolute, without links, '.' and '..'.
bool is_below(const std::string& path, const std::string& directory) {
  if (directory == "/")
    return path.starts_with('/');
  return path.size() > directory.size() && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

// A prefix ends where a component ends: "/old" is no prefix of "/older/a".
bool is_prefix(std::string_view prefix, std::string_view path) {
  return path.starts_with(prefix) &&
         (prefix.ends_with('/') || path.size() == prefix.size() || path[prefix.size()] == '/');
}

std::string rewritten(const reference_policy& policy, const std::string& path) {
  const std::pair<std::string, std::string>* longest = nullptr;
  for (const auto& rule : policy.rewrites)
    if (is_prefix(rule.first, path) &&
        (longest == nullptr || rule.first.size() > longest->first.size()))
      longest = &rule;
  if (longest == nullptr)
    return path;
  return (fs::path(longest->second) / fs::path(path.substr(longest->first.size())).relative_path())
      .string();
}

// "" if it does not exist or lies in our own mount.
std::string real_directory(const reference_policy& policy, const std::string& directory) {
  const walked_path walked = walk_path(directory, policy.kept_out);
  return walked.is_forbidden || walked.os_error != 0 ? std::string() : walked.path;
}

bool is_below_one(const reference_policy& policy, const std::string& real_path,
                  const std::vector<std::string>& directories) {
  for (const std::string& directory : directories) {
    const std::string real = real_directory(policy, directory);
    if (!real.empty() && is_below(real_path, real))
      return true;
  }
  return false;
}

bool is_allowed(const reference_policy& policy, const std::string& image_path,
                const std::string& real_path) {
  if (is_below_one(policy, real_path, policy.allowed))
    return true;
  if (!policy.allows_own_directory || image_path.empty())
    return false;
  // Where the image really is and where it was named may differ by a link: both are its own.
  const fs::path named = fs::absolute(image_path).parent_path();
  const walked_path image = walk_path(fs::absolute(image_path).string(), policy.kept_out);
  const bool is_known = !image.is_forbidden && image.os_error == 0;
  return is_below(real_path, real_directory(policy, named.string())) ||
         (is_known && is_below(real_path, fs::path(image.path).parent_path().string()));
}

} // namespace

result<std::string> locate_reference(const reference_policy& policy, const std::string& image_path,
                                     const std::string& name) {
  if (name.empty() || name.size() > reference_length_max || name.find('\0') != std::string::npos)
    return fail(error_kind::invalid_image, "which is no file name");
  if (image_path.empty() && !name.starts_with('/'))
    return fail(error_kind::invalid_image,
                "which is relative to an image that is no file of the host; {}",
                policy.how_to_declare);
  const std::string path = rewritten(policy, combine_paths(image_path, name));
  const walked_path walked = walk_path(fs::absolute(path).string(), policy.kept_out);
  if (walked.is_forbidden)
    return fail(error_kind::permission,
                "which leads into '{}', where this graph itself is mounted: opening it would wait "
                "for itself",
                walked.path);
  if (walked.os_error != 0)
    return fail_errno(walked.os_error, "which leads to '{}'", path);
  const std::string& real = walked.path;
  if (!is_allowed(policy, image_path, real)) {
    const std::string parent = fs::path(real).parent_path().string();
    return fail(error_kind::permission,
                "which leads to '{}', where headers may not lead; to allow it, {}{}{}", real,
                policy.how_to_allow.first, parent, policy.how_to_allow.second);
  }
  return path;
}

namespace {

class definition_maker {
public:
  definition_maker(const registry& drivers, const reference_policy& policy, std::string image_path)
      : drivers_(drivers), policy_(policy), image_path_(std::move(image_path)) {}

  // The definition of the whole backing node.
  result<value> define(const image_reference& reference) const {
    if (reference.filename.starts_with("json:"))
      return define_json(reference.filename, reference.format);
    BGFS_TRY(const std::string located, locate(reference.filename));
    BGFS_TRY(const driver_type* format, find_format(reference.format, located));
    value v = value::map();
    v.set("driver", format->name);
    v.set("file", define_host_file(located, drivers_));
    return v;
  }

  // Of a file as it is: a part of an image, which its header says where to find.
  result<value> define_protocol(const std::string& name) const {
    if (!name.starts_with("json:")) {
      BGFS_TRY(const std::string located, locate(name));
      return define_host_file(located, drivers_);
    }
    BGFS_TRY(value v, parse_image_name(name, drivers_));
    v = with_file_driver(std::move(v));
    const std::string* driver = v.find("driver")->as_text();
    const driver_type* type = driver == nullptr ? nullptr : drivers_.find(*driver);
    if (type == nullptr || type->kind != driver_kind::protocol)
      return fail(error_kind::invalid_image, "which is no plain file; {}", policy_.how_to_declare);
    if (v.find("node-name") != nullptr)
      return fail(error_kind::permission, "which claims a node-name; {}", policy_.how_to_declare);
    BGFS_CHECK(without_value(check_protocol_node(v)));
    return v;
  }

private:
  result<std::string> locate(const std::string& name) const {
    const std::string_view protocol = protocol_of_name(name);
    std::string path = name;
    if (!protocol.empty()) {
      BGFS_TRY(path, strip_protocol(name, protocol));
    }
    return locate_reference(policy_, image_path_, path);
  }

  result<std::string> strip_protocol(const std::string& name, std::string_view protocol) const {
    if (protocol != "file" && protocol != "host_device")
      return fail(error_kind::permission,
                  "which is of protocol '{}': headers lead to files of the host only; {}", protocol,
                  policy_.how_to_declare);
    const std::string rest = name.substr(protocol.size() + 1);
    return from_working_directory(rest);
  }

  result<std::string> from_working_directory(const std::string& path) const {
    if (path.starts_with('/'))
      return path;
    if (!policy_.has_working_directory)
      return fail(error_kind::permission,
                  "where '{}' is relative to the directory of whoever opens it; {}", path,
                  policy_.how_to_declare);
    return fs::absolute(path).string();
  }

  result<const driver_type*> find_format(const std::string& format, const std::string& path) const {
    if (format.empty())
      return probe(path);
    const driver_type* type = drivers_.find(format);
    if (type == nullptr)
      return fail(error_kind::invalid_image, "of format '{}', which is not known{}", format,
                  did_you_mean(format, drivers_.names()));
    BGFS_CHECK(check_format(*type, path));
    return type;
  }

  // A raw image is any file, so letting a header declare one would let it show any file. An empty
  // path is not allowed to: it leads nowhere that could be allowed.
  result<> check_format(const driver_type& type, const std::string& path) const {
    if (type.kind != driver_kind::format)
      return fail(error_kind::invalid_image, "of format '{}', which is a {}, not an image format",
                  type.name, to_string(type.kind));
    if (type.probe != nullptr)
      return {};
    walked_path walked;
    if (!path.empty())
      walked = walk_path(fs::absolute(path).string(), policy_.kept_out);
    const bool is_known = !path.empty() && !walked.is_forbidden && walked.os_error == 0;
    if (is_known && is_below_one(policy_, walked.path, policy_.raw_allowed))
      return {};
    std::string how;
    if (!policy_.how_to_allow_raw.empty() && !path.empty())
      how = fmt::format("{}{}, or ", policy_.how_to_allow_raw,
                        fs::path(walked.path).parent_path().string());
    return fail(error_kind::permission,
                "of format '{0}': a header cannot make a file a {0} image; if it is one, {1}{2}, "
                "as {{driver: {0}, file: {{driver: file, filename: ...}}}}",
                type.name, how, policy_.how_to_declare);
  }

  result<const driver_type*> probe(const std::string& path) const {
    if (!policy_.is_probing)
      return fail(error_kind::permission,
                  "without its format: set 'references: {{probe: true}}' to recognise it by its "
                  "first bytes, or {}",
                  policy_.how_to_declare);
    BGFS_TRY(const driver_type* type, probe_host_file(path, drivers_));
    if (type == nullptr)
      return fail(error_kind::invalid_image,
                  "without its format, and no format recognises it; {}, with its 'driver'",
                  policy_.how_to_declare);
    return type;
  }

  result<value> define_json(const std::string& name, const std::string& format) const {
    BGFS_TRY(value v, parse_image_name(name, drivers_));
    const value* driver = v.find("driver");
    const std::string* driver_name = driver == nullptr ? nullptr : driver->as_text();
    const driver_type* type = driver_name == nullptr ? nullptr : drivers_.find(*driver_name);
    if (type != nullptr && type->kind == driver_kind::protocol) {
      // Only the protocol is written out: the format stands beside the name, as for a path.
      BGFS_TRY(const std::string path, check_protocol_node(v));
      BGFS_TRY(const driver_type* outer, find_format(format, path));
      value whole = value::map();
      whole.set("driver", outer->name);
      whole.set("file", std::move(v));
      return whole;
    }
    if (type != nullptr && !format.empty() && format != type->name)
      return fail(error_kind::invalid_image, "of format '{}', which contradicts its driver '{}'",
                  format, type->name);
    BGFS_CHECK(check_node(v));
    return v;
  }

  template<class T>
  [[nodiscard]] static result<> without_value(result<T> r) {
    if (!r)
      return fail(std::move(r).error());
    return {};
  }

  // Every node of a json: definition keeps to the same rules.
  result<> check_node(value& v) const {
    const value* driver = v.find("driver");
    const std::string* name = driver == nullptr ? nullptr : driver->as_text();
    const driver_type* type = name == nullptr ? nullptr : drivers_.find(*name);
    if (v.find("node-name") != nullptr)
      return fail(error_kind::permission, "which claims a node-name; {}", policy_.how_to_declare);
    if (type == nullptr)
      return {}; // define_node says what is wrong
    if (type->kind == driver_kind::protocol)
      return without_value(check_protocol_node(v));
    BGFS_CHECK(check_format(*type, path_of_file(v)));
    for (const child_slot& slot : type->children) {
      const value* child = v.find(slot.name);
      if (child == nullptr || child->is_null())
        continue;
      if (child->as_map() == nullptr)
        return fail(error_kind::permission, "which refers to a node of the graph; {}",
                    policy_.how_to_declare);
      value changed = with_file_driver(*child);
      BGFS_CHECK(check_node(changed));
      v.set(std::string(slot.name), std::move(changed));
    }
    return {};
  }

  // The file at the end of a json: definition; empty if it is not named by an absolute path.
  [[nodiscard]] static std::string path_of_file(const value& v) {
    const value* at = &v;
    while (const value* below = at->find("file"))
      at = below;
    const value* filename = at->find("filename");
    const std::string* path = filename == nullptr ? nullptr : filename->as_text();
    return path != nullptr && path->starts_with('/') ? *path : std::string();
  }

  [[nodiscard]] static value with_file_driver(value child) {
    if (child.find("driver") == nullptr)
      child.set("driver", "file");
    return child;
  }

  // Makes the file name absolute; returns it.
  result<std::string> check_protocol_node(value& v) const {
    const std::string& driver = *v.find("driver")->as_text();
    const value* filename = v.find("filename");
    const std::string* path = filename == nullptr ? nullptr : filename->as_text();
    if (driver != "file" && driver != "host_device")
      return fail(error_kind::permission,
                  "with driver '{}': headers lead to files of the host only; {}", driver,
                  policy_.how_to_declare);
    if (path == nullptr)
      return fail(error_kind::invalid_image, "with a file that has no name");
    BGFS_TRY(const std::string absolute, from_working_directory(*path));
    BGFS_TRY(std::string located, locate_reference(policy_, image_path_, absolute));
    v.set("filename", located);
    return located;
  }

  const registry& drivers_;
  const reference_policy& policy_;
  std::string image_path_;
};

// As it was named where that is a path, so that names built from it look as the user expects.
std::string image_path_of(const node& overlay) {
  const node* named = &overlay;
  if (!overlay.is_open()) { // it is being opened; its file is open, and its parts come next
    const auto file = std::ranges::find_if(
        overlay.children(), [](const auto& e) { return (e->roles() & role::primary) != 0; });
    if (file == overlay.children().end() || (*file)->child().type().kind != driver_kind::protocol)
      return overlay.host_path();
    named = &(*file)->child();
  }
  std::string name = filename_of(*named);
  return name.starts_with("json:") ? overlay.host_path() : name;
}

std::unexpected<error> refused(const node& image, const named_child& named, const error& why) {
  return fail(
      error(why.kind(),
            fmt::format("{} names the {} '{}', {}", image.describe(), named.slot,
                        named.where.filename.substr(0, reference_length_max), why.message()),
            why.os_error()));
}

} // namespace

result<node_spec> policy_resolver::resolve_backing(const node& overlay,
                                                   const image_reference& reference) {
  const definition_maker maker(drivers_, policy_, image_path_of(overlay));
  return spec_of(overlay, drivers_, maker.define(reference), {"backing file", reference},
                 role::backing, policy_.may_name_secrets);
}

result<node_spec> policy_resolver::resolve_part(const node& image, const named_child& part) {
  // What users read about backing files holds for this child as well.
  reference_policy policy = policy_;
  if (const auto at = policy.how_to_declare.find("'backing'"); at != std::string::npos)
    policy.how_to_declare.replace(at, 9, fmt::format("'{}'", part.slot));
  const definition_maker maker(drivers_, policy, image_path_of(image));
  const auto slot = std::ranges::find(image.type().children, part.slot, &child_slot::name);
  return spec_of(image, drivers_, maker.define_protocol(part.where.filename), part, slot->roles,
                 policy_.may_name_secrets);
}

result<node_spec> policy_resolver::spec_of(const node& image, const registry& drivers,
                                           result<value> given, const named_child& named,
                                           child_role roles, bool may_name_secrets) {
  if (!given)
    return refused(image, named, given.error());
  const definition_rules rules{.drivers = drivers, .has_implied_drivers = true};
  auto defined = define_node(*given, rules);
  if (!defined)
    return refused(image, named, defined.error());
  node_spec spec = make_spec(**defined, {.inherited = &image.generic(), .inherited_as = roles});
  if (!may_name_secrets) // a header is not whom they were given to
    spec.secrets = std::make_shared<const secret_store>();
  return spec;
}

} // namespace bgfs
