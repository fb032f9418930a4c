// SPDX-License-Identifier: MIT
// nodes/NAME/: filename, definition.
#include "fuse/views/common.h"
#include "fuse/views/yaml_text.h"
#include "graph/model/naming.h"

namespace bgfs {
namespace {

task<std::string> render_filename(view_subject subject) {
  co_return canonical_name(*subject.target) + "\n";
}

task<std::string> render_definition(view_subject subject) {
  co_return to_yaml(definition_of(*subject.target));
}

} // namespace

extern constinit const view node_filename_view{
    .name = "filename",
    .summary = "the name that opens what it shows: a path, or json:{...}",
    .render = render_filename};
extern constinit const view node_definition_view{
    .name = "definition",
    .summary = "the node as a graph file would define it, in YAML",
    .render = render_definition};

} // namespace bgfs
