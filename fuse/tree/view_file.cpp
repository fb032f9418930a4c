// SPDX-License-Identifier: MIT
#include "fuse/tree/view_file.h"

#include <algorithm>

namespace bgfs {

const view* find_view(std::span<const view* const> views, std::string_view name) {
  const auto found = std::ranges::find(views, name, &view::name);
  return found == views.end() ? nullptr : *found;
}

task<std::string> render_view(const view& what, view_subject subject) {
  if (subject.root == nullptr || !what.needs_medium || what.renders_on_mount_loop)
    return what.render(subject);
  return subject.root->place().run([&what, subject] {
    if (subject.root->disk() != nullptr)
      (void)subject.root->disk()->length(); // follows a medium that changes by itself
    return what.render(subject);
  });
}

task<void> write_view(const view& what, view_subject subject, std::string text) {
  const bool is_here = what.writes_on_mount_loop || what.changes_graph;
  if (subject.root == nullptr || !what.needs_medium || is_here)
    return what.write(subject, std::move(text));
  return subject.root->place().run(
      [&what, subject, text = std::move(text)] { return what.write(subject, text); });
}

result<view_subject> view_place::subject(u32 pid) const {
  view_subject made{.mount = mount,
                    .root = root.get(),
                    .shown = shown.get(),
                    .snapshot = snapshot,
                    .bitmap = bitmap,
                    .point = point,
                    .subject_job = of_job,
                    .pid = pid};
  if (root != nullptr)
    made.open_handles = root->openers.size();
  made.whole = whole;
  if (of_job != nullptr && of_job->state() == job_state::null)
    return fail(error_kind::not_found,
                "job '{}' is over, and was dismissed; .bgfs/events has what became of it",
                of_job->id());
  if (layer) {
    const auto chain = root->layers();
    if (*layer >= chain.size())
      return fail(error_kind::not_found, "'{}' has no layer {}", root->name(), *layer);
    made.layer = *layer;
    made.target = chain[*layer];
  } else if (!node_name.empty()) {
    for (node* n : root->nodes())
      if (n->name() == node_name)
        made.target = n;
    if (made.target == nullptr)
      return fail(error_kind::not_found, "'{}' has no node '{}'", root->name(), node_name);
  }
  return made;
}

std::string identity_of(const job& which) {
  return fmt::format("{}.{}", which.made().tv_sec, which.made().tv_nsec);
}

result<view_subject> view_file::subject(u32 pid) const {
  if (place_.root != nullptr && view_.needs_medium)
    BGFS_CHECK(place_.root->require_medium());
  return place_.subject(pid);
}

error_log& view_file::log() const {
  return place_.root != nullptr ? place_.root->log : place_.mount.log;
}

task<attributes> view_file::describe() {
  attributes a;
  const bool is_writable = view_.write != nullptr;
  if (place_.root != nullptr) {
    a.mode = place_.root->view_mode(is_writable);
    a.owner = place_.root->owner();
    a.group = place_.root->group();
  } else {
    a.mode = is_writable ? 0644 : 0444;
    a.owner = place_.mount.owner;
    a.group = place_.mount.group;
  }
  if (view_.render == nullptr && view_.lines == nullptr)
    a.mode &= ~mode_t{0444}; // something happens when it is written, and nothing is there to read
  a.mode |= S_IFREG;
  // Always the same: a tool that looks before and after reading must not find a change.
  a.modified = place_.mount.started;
  a.length = rendered_length_;
  if (view_.lines != nullptr) {
    const line_ring& lines = view_.lines(place_.mount);
    a.length = lines.kept_length();
    if (a.length > 0)
      a.modified = lines.last_added();
  }
  if (view_.has_exact_length) {
    const result<view_subject> about = subject(0);
    if (about) {
      const std::string text = co_await render_view(view_, *about);
      a.length = text.size();
    }
  }
  a.blocks = divide_up(a.length, 512);
  co_return a;
}

} // namespace bgfs
