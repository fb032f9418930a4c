// SPDX-License-Identifier: MIT
#include "config/policy_schema.h"

#include "config/document_values.h"
#include "graph/base/text.h"

#include <algorithm>
#include <filesystem>

namespace bgfs {

namespace {

result<> read_rewrites(const value& rewrite, const std::string& directory,
                       reference_policy& policy) {
  if (rewrite.is_null())
    return {};
  if (rewrite.as_map() == nullptr)
    return wrong(rewrite.mark, "'rewrite' is a map of directories, {{/old/place/: ./}}, not {}",
                 rewrite.kind_name());
  for (const auto& [from, to] : *rewrite.as_map()) {
    if (!from.starts_with('/'))
      return wrong(to.mark, "'rewrite': '{}' must be absolute", from);
    if (to.as_text() == nullptr || to.as_text()->empty())
      return wrong(to.mark, "'rewrite': '{}' leads to a directory, not to {}", from,
                   to.as_text() == nullptr ? to.kind_name() : "nothing");
    policy.rewrites.emplace_back(from, absolute_in(directory, *to.as_text()));
  }
  return {};
}

} // namespace

result<reference_policy> parse_reference_policy(const value& whole, const std::string& path) {
  const std::string directory = std::filesystem::absolute(path).parent_path().string();
  reference_policy policy{
      .how_to_allow = {"add '", fmt::format("' to 'references: {{allow: [...]}}' in {}", path)},
      .how_to_declare = fmt::format("declare 'backing' of its node in {}", path)};
  const value* v = whole.find("references");
  if (v == nullptr || v->is_null()) {
    policy.allowed.push_back(directory);
    return policy;
  }
  if (v->as_map() == nullptr)
    return wrong(v->mark, "'references' is a map with allow, probe and rewrite, not {}",
                 v->kind_name());
  static constexpr std::string_view known[] = {"allow", "probe", "rewrite"};
  for (const auto& [key, member] : *v->as_map())
    if (std::ranges::find(known, key) == std::end(known))
      return wrong(member.mark, "'references' has no '{}'{}; there are allow, probe, rewrite", key,
                   did_you_mean(key, known));
  if (v->find("allow") == nullptr)
    policy.allowed.push_back(directory);
  BGFS_TRY(const std::vector<std::string> allowed, read_texts(*v, "allow"));
  for (const std::string& name : allowed)
    policy.allowed.push_back(absolute_in(directory, name));
  if (const value* probe = v->find("probe"); probe != nullptr) {
    if (probe->as_bool() == nullptr)
      return wrong(probe->mark, "'probe' is true or false, not {}", probe->kind_name());
    policy.is_probing = *probe->as_bool();
  }
  if (const value* rewrite = v->find("rewrite"); rewrite != nullptr)
    BGFS_CHECK(read_rewrites(*rewrite, directory, policy));
  return policy;
}

} // namespace bgfs
