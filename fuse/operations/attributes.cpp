// SPDX-License-Identifier: MIT
// user.bgfs.*: what scripts ask about a raw file without opening anything. Not listed: a copy must
// not carry them away. A few facts are answered here, the rest is NAME.d (tree_attributes.cpp).
#include "fuse/operations/operations.h"

#include <array>
#include <cerrno>

namespace bgfs {
namespace {

using attribute_value = task<std::optional<std::string>> (*)(exported_root& root);

struct named_attribute {
  std::string_view name;
  attribute_value get;
};

const node* top_of(const exported_root& root) {
  const auto layers = root.layers();
  return layers.empty() ? nullptr : layers.front();
}

constexpr std::array attributes_of_roots = {
    named_attribute{
        "node-name",
        [](exported_root& r) -> task<std::optional<std::string>> { co_return r.spec().node_name; }},
    named_attribute{"format",
                    [](exported_root& r) -> task<std::optional<std::string>> {
                      const node* const top = top_of(r);
                      if (top == nullptr)
                        co_return std::nullopt;
                      co_return std::string(top->type().name);
                    }},
    named_attribute{"filename",
                    [](exported_root& r) -> task<std::optional<std::string>> {
                      const node* const top = top_of(r);
                      if (top == nullptr || top->host_path().empty())
                        co_return std::nullopt;
                      co_return top->host_path();
                    }},
    named_attribute{"virtual-size",
                    [](exported_root& r) -> task<std::optional<std::string>> {
                      if (r.disk() == nullptr)
                        co_return std::nullopt;
                      const u64 length =
                          co_await r.place().look([&] { return r.disk()->length(); });
                      co_return std::to_string(length);
                    }},
    named_attribute{"writable",
                    [](exported_root& r) -> task<std::optional<std::string>> {
                      co_return r.is_writable() ? "true" : "false";
                    }},
};

// Also of what lies below a root, where it only repeats itself.
task<std::optional<std::string>> fact_of(exported_root* root, std::string_view name) {
  if (root == nullptr)
    co_return std::nullopt;
  for (const named_attribute& a : attributes_of_roots)
    if (a.name == name) {
      std::optional<std::string> value = co_await a.get(*root);
      co_return value;
    }
  co_return std::nullopt;
}

// The kernel takes no longer value (getxattr(2)); of one that is shorter than the whole it asks
// again.
std::unexpected<error> too_long(std::string_view name, std::size_t length, u32 room) {
  if (length > attribute_length_max)
    return fail(error{error_kind::out_of_range,
                      fmt::format("attribute '{}' has {} bytes, and none may have more than {}: "
                                  "read the file of that name in the control directory of a mount "
                                  "on a directory",
                                  name, length, attribute_length_max),
                      E2BIG});
  return fail(error{error_kind::out_of_range,
                    fmt::format("attribute '{}' has {} bytes, more than {}", name, length, room),
                    ERANGE});
}

} // namespace

task<reply> operations::getxattr(fuse_in_header request, ask::getxattr what) {
  const inode_pin target = co_await find(request);
  const std::optional<std::string> path = path_in_attribute(what.name);
  if (!path)
    co_await no_such_attribute(what.name);
  std::optional<std::string> value = co_await fact_of(target->root_of(), *path);
  if (!value)
    value = co_await read_by_attribute(request, *path);
  if (what.length_max == 0 && value->size() <= attribute_length_max) {
    fuse_getxattr_out out{};
    out.size = static_cast<u32>(value->size());
    co_return reply::of(out);
  }
  if (value->size() > what.length_max) {
    const error why = too_long(what.name, value->size(), what.length_max).error();
    if (why.os_error() == E2BIG)
      target->root_of()->log.add(request.pid, "getxattr", why);
    co_await fail(why);
  }
  co_return reply::of_text(*std::move(value));
}

result<reply> operations::listxattr(ask::listxattr what) const {
  if (what.length_max != 0)
    return reply();
  return reply::of(fuse_getxattr_out{});
}

} // namespace bgfs
