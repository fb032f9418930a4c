// SPDX-License-Identifier: MIT
// last-error: the last errors of the directory it is in.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render(view_subject subject) {
  co_return subject.root != nullptr ? subject.root->log.text() : subject.mount.log.text();
}

} // namespace

extern constinit const view last_error_view{
    .name = "last-error",
    .summary = "the last errors: time, pid, what was asked, errno, sentence",
    .render = render,
    .needs_medium = false,
    .has_exact_length = true};

} // namespace bgfs
