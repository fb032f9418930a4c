// SPDX-License-Identifier: MIT
#include "graph/model/secret_store.h"

#include "graph/base/text.h"

#include <fmt/ranges.h>

namespace bgfs {

result<> secret_store::add(const std::string& id, secret_bytes bytes) {
  if (!secrets_.try_emplace(id, std::move(bytes)).second)
    return fail(error_kind::invalid_argument, "there are two secrets with the id '{}'", id);
  return {};
}

const secret_bytes* secret_store::find(std::string_view id) const {
  const auto found = secrets_.find(id);
  return found == secrets_.end() ? nullptr : &found->second;
}

std::vector<std::string_view> secret_store::ids() const {
  std::vector<std::string_view> all;
  for (const auto& [id, bytes] : secrets_)
    all.push_back(id);
  return all;
}

void secret_store::relock() const noexcept {
  for (const auto& [id, bytes] : secrets_)
    bytes.relock();
}

result<const secret_bytes*> find_secret(const secret_store* store, const options& given,
                                        std::string_view option_name) {
  const std::string& id = given.text(option_name);
  const secret_bytes* const found = store == nullptr ? nullptr : store->find(id);
  if (found != nullptr)
    return found;
  const std::vector<std::string_view> ids =
      store == nullptr ? std::vector<std::string_view>() : store->ids();
  std::string hint = did_you_mean(id, ids);
  if (hint.empty() && !ids.empty())
    hint = fmt::format("; there are {}", fmt::join(ids, ", "));
  return fail(error_kind::not_found,
              "{}option '{}' names the secret '{}', which there is not{}; declare it: 'secrets: "
              "[{{id: {}, file: ...}}]' in a graph file, --object secret,id={},file=... for a "
              "command",
              given.mark(option_name).prefix(), option_name, id, hint, id, id);
}

} // namespace bgfs
