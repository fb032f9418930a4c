// SPDX-License-Identifier: MIT
#include "config/commands/convert_bitmaps.h"

#include "graph/model/bitmap_change.h"
#include "graph/model/graph.h"

namespace bgfs {

result<std::vector<bitmap_definition>>
choose_bitmaps(const node& source, bool skips_broken,
               const std::function<void(std::string)>& warn) {
  if (source.as_bitmap_store() == nullptr)
    return fail(error_kind::unsupported,
                "'--bitmaps': the format '{}' of the source has no bitmaps", source.type().name);
  std::vector<bitmap_definition> chosen;
  for (const auto& b : source.bitmaps().all()) {
    if (!b->is_inconsistent()) {
      chosen.push_back(b->definition());
    } else if (skips_broken) {
      warn(fmt::format("bitmap '{}' is left out: it is inconsistent: {}", b->name(),
                       b->definition().inconsistency));
    } else {
      return fail(error_kind::invalid_argument,
                  "'--bitmaps': bitmap '{}' of the source is inconsistent: {}; leave it out with "
                  "--skip-broken-bitmaps, or delete it with 'bgfs bitmap --remove'",
                  b->name(), b->definition().inconsistency);
    }
  }
  return chosen;
}

result<> check_can_hold(const node& target, const node& source,
                        std::span<const bitmap_definition> chosen) {
  const bitmap_store* const store = target.as_bitmap_store();
  if (store == nullptr)
    return fail(error_kind::unsupported, "'--bitmaps': the format '{}' has no bitmaps",
                target.type().name);
  if (!chosen.empty() && target.length() != source.length())
    return fail(error_kind::invalid_argument,
                "'--bitmaps': the target has {} bytes and the source {}, and bitmaps tell of disks "
                "of one length",
                target.length(), source.length());
  std::vector<bitmap_definition> wanted;
  for (const auto& b : target.bitmaps().all())
    wanted.push_back(b->definition());
  for (const bitmap_definition& b : chosen) {
    if (target.bitmaps().find(b.name) != nullptr)
      return fail(error_kind::invalid_argument,
                  "'--bitmaps': the target has a bitmap '{}' already; remove one of them with "
                  "'bgfs bitmap --remove'",
                  b.name);
    wanted.push_back(b);
    BGFS_CHECK(context(store->check_can_store(wanted), "'--bitmaps'"));
  }
  return {};
}

task<void> copy_bitmaps(node& source, node& target, std::vector<bitmap_definition> chosen) {
  std::vector<bitmap_change> changes;
  for (const bitmap_definition& b : chosen) {
    changes.push_back({.what = bitmap_change::kind::add,
                       .where = &target,
                       .name = b.name,
                       .granularity = b.granularity,
                       .is_persistent = true,
                       .is_enabled = b.is_enabled});
    changes.push_back({.what = bitmap_change::kind::merge,
                       .where = &target,
                       .name = b.name,
                       .source = &source,
                       .source_name = b.name});
  }
  return target.owner().change_bitmaps(std::move(changes));
}

} // namespace bgfs
