// SPDX-License-Identifier: MIT
// user.bgfs.*: what scripts ask about a raw file without opening anything. Read-only, and not
// listed: a copy must not carry them away.
#include "fuse/operations/operations.h"

#include <array>
#include <cerrno>

namespace bgfs {
namespace {

constexpr std::string_view prefix = "user.bgfs.";

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
    named_attribute{"state",
                    [](exported_root& r) -> task<std::optional<std::string>> {
                      const root_state now = co_await r.state();
                      co_return std::string(now.word);
                    }},
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
    named_attribute{"last-error",
                    [](exported_root& r) -> task<std::optional<std::string>> {
                      if (r.failure() == nullptr)
                        co_return std::nullopt;
                      co_return r.failure()->message();
                    }},
};

task<std::optional<std::string>> value_of(exported_root* root, std::string_view name) {
  if (root == nullptr || !name.starts_with(prefix))
    co_return std::nullopt;
  name.remove_prefix(prefix.size());
  for (const named_attribute& a : attributes_of_roots)
    if (a.name == name) {
      std::optional<std::string> value = co_await a.get(*root);
      co_return value;
    }
  co_return std::nullopt;
}

} // namespace

task<reply> operations::getxattr(fuse_in_header request, ask::getxattr what) {
  const inode_pin target = co_await find(request);
  // On the raw file and its directory; what lies below would only repeat it.
  std::optional<std::string> value = co_await value_of(target->root_of(), what.name);
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
