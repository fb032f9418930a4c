// SPDX-License-Identifier: MIT
// Reads the input as a file of blkdebug's rules, and runs through what is accepted.
#include "drivers/filter/blkdebug/rule_options.h"
#include "graph/base/assert.h"

using namespace bgfs;
using namespace bgfs::blkdebug;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const result<rule_list> rules = parse_rules(text, "rules");
  if (!rules) {
    BGFS_ASSERT(rules.error().message().starts_with("rules:"), "a refusal says where");
    return 0;
  }
  const std::size_t count = rules->injects.size() + rules->states.size();
  BGFS_ASSERT(count <= rules_count_max, "their number is bounded");
  rule_engine engine(*rules);
  BGFS_ASSERT(engine.describe().size() == count, "each is described");
  for (const debug_event_description& e : debug_event_table) {
    engine.process(e.event);
    (void)engine.take(request_kind::write, {0, 4096});
  }
  return 0;
}
