// SPDX-License-Identifier: MIT
// Nodes that are a file of the host as it is: such a file can be given to the kernel, which then
// serves a root without asking us.
#include "graph/model/graph.h"

namespace bgfs {
namespace {

// What has to see, or to change, each write; "" if nothing does.
std::string_view watcher_of_writes(const node& n) {
  if (n.generic().detect_zeroes != detect_zeroes_mode::off)
    return "'detect-zeroes' looks at what is written";
  if (n.write_threshold() != 0)
    return "its write threshold watches what is written";
  if (n.bitmaps().is_recording())
    return "a dirty bitmap records what is written";
  if (!n.generic().cache_writeback)
    return "'cache.writeback: false' makes each write durable";
  return {};
}

} // namespace

result<host_file> node::whole_host_file(bool for_writing) {
  BGFS_CHECK(check_active());
  const auto refuse = [this](std::string_view why) {
    return fail(error_kind::unsupported, "{} is not one file as it is: {}", describe(), why);
  };
  if (transparent_ == nullptr)
    return refuse(fmt::format("driver '{}' keeps its own bytes in between", type_->name));
  if (const auto watcher = watcher_of_writes(*this); for_writing && !watcher.empty())
    return refuse(watcher);
  const result<transparent::shown> shown = transparent_->shows();
  if (!shown)
    return refuse(shown.error().message());
  if (shown->child != nullptr)
    return shown->child->child().whole_host_file(for_writing);
  return host_file{.where = this, .path = driver_->host_path(), .fd = shown->fd};
}

std::vector<node*> node::nodes_to_host_file() {
  std::vector<node*> found;
  for (node* n = this; n != nullptr;) {
    found.push_back(n);
    const result<transparent::shown> shown =
        n->transparent_ != nullptr ? n->transparent_->shows() : transparent::shown();
    n = shown && shown->child != nullptr ? &shown->child->child() : nullptr;
  }
  return found;
}

// A lease knows a length of its own, and writes that it makes lengthen nothing: none meanwhile.
void node::begin_writes_by_others() {
  for (node* n : nodes_to_host_file()) {
    if (n->other_writers_++ > 0)
      continue;
    n->requests_.exclude_leases();
    n->mark_dirty({0, n->length_}); // one that came after whole_host_file was asked
    if (n->transparent_ != nullptr)
      n->transparent_->set_written_by_others(true);
  }
  nodes_to_host_file().back()->refresh_limits();
}

// The length is looked at once more, and what was written last is not durable yet.
void node::end_writes_by_others() {
  follow_length();
  for (node* n : nodes_to_host_file()) {
    BGFS_ASSERT(n->other_writers_ > 0, "what ends has begun");
    n->write_generation_++;
    n->forget_status();
    n->mark_dirty({0, n->length_});
    if (--n->other_writers_ > 0)
      continue;
    if (n->transparent_ != nullptr)
      n->transparent_->set_written_by_others(false);
    n->requests_.admit_leases();
  }
  nodes_to_host_file().back()->refresh_limits();
}

} // namespace bgfs
