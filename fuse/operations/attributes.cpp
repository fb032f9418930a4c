// SPDX-License-Identifier: MIT
// user.bgfs.*: what scripts ask about a raw file without opening anything. Read-only, and not
// listed: a copy must not carry them away.
#include "fuse/operations/operations.h"

#include <array>
#include <cerrno>

namespace bgfs {
namespace {

constexpr std::string_view prefix = "user.bgfs.";

using attribute_value = std::optional<std::string> (*)(const exported_root& root);

struct named_attribute {
  std::string_view name;
  attribute_value get;
};

const node* top_of(const exported_root& root) {
  const auto layers = root.layers();
  return layers.empty() ? nullptr : layers.front();
}

constexpr std::array attributes_of_roots = {
    named_attribute{"state",
                    [](const exported_root& r) -> std::optional<std::string> {
                      return std::string(r.state_word());
                    }},
    named_attribute{
        "node-name",
        [](const exported_root& r) -> std::optional<std::string> { return r.spec().node_name; }},
    named_attribute{"format",
                    [](const exported_root& r) -> std::optional<std::string> {
                      const node* const top = top_of(r);
                      if (top == nullptr)
                        return std::nullopt;
                      return std::string(top->type().name);
                    }},
    named_attribute{"filename",
                    [](const exported_root& r) -> std::optional<std::string> {
                      const node* const top = top_of(r);
                      if (top == nullptr || top->host_path().empty())
                        return std::nullopt;
                      return top->host_path();
                    }},
    named_attribute{"virtual-size",
                    [](const exported_root& r) -> std::optional<std::string> {
                      if (r.disk() == nullptr)
                        return std::nullopt;
                      return std::to_string(r.disk()->length());
                    }},
    named_attribute{"writable",
                    [](const exported_root& r) -> std::optional<std::string> {
                      return r.is_writable() ? "true" : "false";
                    }},
    named_attribute{"last-error",
                    [](const exported_root& r) -> std::optional<std::string> {
                      if (r.failure() == nullptr)
                        return std::nullopt;
                      return r.failure()->message();
                    }},
};

std::optional<std::string> value_of(const exported_root* root, std::string_view name) {
  if (root == nullptr || !name.starts_with(prefix))
    return std::nullopt;
  name.remove_prefix(prefix.size());
  for (const named_attribute& a : attributes_of_roots)
    if (a.name == name)
      return a.get(*root);
  return std::nullopt;
}

} // namespace

task<reply> operations::getxattr(fuse_in_header request, ask::getxattr what) {
  const inode_pin target = co_await find(request);
  // On the raw file and its directory; what lies below would only repeat it.
  std::optional<std::string> value = value_of(target->root_of(), what.name);
  if (!value)
    co_await fail(error{error_kind::not_found, fmt::format("there is no attribute '{}'", what.name),
                        ENODATA});
  if (what.length_max == 0) {
    fuse_getxattr_out out{};
    out.size = static_cast<u32>(value->size());
    co_return reply::of(out);
  }
  if (value->size() > what.length_max)
    co_await fail(error{error_kind::out_of_range, "the attribute is longer than that", ERANGE});
  co_return reply::of_text(*std::move(value));
}

result<reply> operations::listxattr(ask::listxattr what) const {
  if (what.length_max != 0)
    return reply();
  return reply::of(fuse_getxattr_out{});
}

} // namespace bgfs
