// SPDX-License-Identifier: MIT
// layers/N/file: the host path of the layer.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render(view_subject subject) {
  const std::string path = subject.target->host_path();
  co_return path.empty() ? std::string() : path + "\n";
}

} // namespace

extern constinit const view layer_file_view{
    .name = "file", .summary = "the host path of the layer", .render = render};

} // namespace bgfs
