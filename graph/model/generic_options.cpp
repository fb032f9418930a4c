// SPDX-License-Identifier: MIT
// The options every node has, and what a child inherits of its parent's (reference section 1.11).
#include "graph/model/graph.h"

namespace bgfs {
namespace {

constexpr std::string_view discard_choices[] = {"ignore", "unmap"};
constexpr std::string_view zeroes_choices[] = {"off", "on", "unmap"};

constexpr option generic_options[] = {
    {.name = "read-only",
     .type = option_type::boolean,
     .help = "refuse writes; backing nodes are read-only unless they say otherwise",
     .is_mutable = true},
    {.name = "auto-read-only",
     .type = option_type::boolean,
     .help = "open for reading until somebody writes, so that what may not be written can be read",
     .is_mutable = true},
    {.name = "force-share",
     .type = option_type::boolean,
     .help = "read an image that somebody else is writing; needs read-only",
     .is_mutable = true},
    {.name = "discard",
     .type = option_type::choice,
     .help = "what becomes of discards: ignore them, or unmap the space",
     .choices = discard_choices,
     .is_mutable = true},
    {.name = "detect-zeroes",
     .type = option_type::choice,
     .help = "turn writes of zeroes into zero writes; unmap needs 'discard: unmap'",
     .choices = zeroes_choices,
     .is_mutable = true},
    {.name = "cache.direct",
     .type = option_type::boolean,
     .help = "bypass the page cache of the host (O_DIRECT)",
     .is_mutable = true},
    {.name = "cache.no-flush",
     .type = option_type::boolean,
     .help = "never flush to disk: a power cut may destroy the image",
     .is_mutable = true},
    {.name = "cache.writeback",
     .type = option_type::boolean,
     .help = "false: every write of an export is durable before it is answered (default: true)",
     .is_mutable = true},
};

bool flag_or(const options& given, std::string_view name, bool otherwise) {
  return given.is_set(name) ? given.flag(name) : otherwise;
}

} // namespace

const option_schema generic_node_schema{"every node", generic_options};

node_options parse_generic_options(const options& given, const node_options* inherited,
                                   child_role roles_in_parent) {
  node_options o;
  const bool is_backing = (roles_in_parent & role::backing) != 0;
  if (inherited != nullptr) {
    o.cache_direct = inherited->cache_direct;
    o.cache_no_flush = inherited->cache_no_flush;
    o.force_share = inherited->force_share;
    o.is_read_only = is_backing || inherited->is_read_only;
    o.is_auto_read_only = !is_backing && inherited->is_auto_read_only;
    o.discard = discard_mode::unmap; // the parent decides what reaches the child
  }
  o.is_read_only = flag_or(given, "read-only", o.is_read_only);
  o.must_stay_read_only = flag_or(given, "read-only", false);
  o.is_auto_read_only = flag_or(given, "auto-read-only", o.is_auto_read_only);
  o.force_share = flag_or(given, "force-share", o.force_share);
  o.cache_direct = flag_or(given, "cache.direct", o.cache_direct);
  o.cache_no_flush = flag_or(given, "cache.no-flush", o.cache_no_flush);
  o.cache_writeback = flag_or(given, "cache.writeback", true); // of the top node; not inherited
  if (given.is_set("discard"))
    o.discard = given.text("discard") == "unmap" ? discard_mode::unmap : discard_mode::ignore;
  if (given.is_set("detect-zeroes")) {
    const std::string& mode = given.text("detect-zeroes");
    if (mode == "on")
      o.detect_zeroes = detect_zeroes_mode::on;
    if (mode == "unmap")
      o.detect_zeroes = detect_zeroes_mode::unmap;
  }
  return o;
}

result<> check_generic_options(const node_options& o, std::string_view node_name) {
  if (o.force_share && !o.is_read_only)
    return fail(error_kind::invalid_argument,
                "node '{}': 'force-share' needs 'read-only: true': two writers destroy an image",
                node_name);
  if (o.detect_zeroes == detect_zeroes_mode::unmap && o.discard != discard_mode::unmap)
    return fail(error_kind::invalid_argument,
                "node '{}': 'detect-zeroes: unmap' needs 'discard: unmap'", node_name);
  return {};
}

} // namespace bgfs
