// SPDX-License-Identifier: MIT
// help: what each file of the directory is for, made from the lists the directories are made from.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

void add_views(std::string& text, std::span<const view* const> views) {
  for (const view* v : views)
    text += fmt::format("  {:<13} {}\n", v->name, v->summary);
}

void add_row(std::string& text, std::string_view name, std::string_view summary) {
  text += fmt::format("    {:<11} {}\n", name, summary);
}

void add_partitions(std::string& text) {
  text += "  partitions/   each partition as a raw file, by its number; writable as the disk is, "
          "and never longer\n                than the table says; the same is in layers/N/\n";
  text += fmt::format("    {:<12}links by what the table says of them\n", "by-label/");
  text += fmt::format("    {:<12}\n    {:<12}\n", "by-type/", "by-uuid/");
  for (const view* v : views_of_partitions())
    text += fmt::format("    {:<12}{}\n", v->name, v->summary);
}

void add_shown(std::string& text, std::string_view disk_summary,
               std::span<const view* const> more) {
  add_row(text, "disk", disk_summary);
  for (const std::span<const view* const> views : {views_of_shown_disk(), more})
    for (const view* v : views)
      add_row(text, v->name, v->summary);
}

task<std::string> render_root(view_subject subject) {
  const std::string& name = subject.root->name();
  std::string text = fmt::format("{0} is the disk as a raw file; {0}.d is about it.\n\n", name);
  add_views(text, views_of_root());
  text += "  layers/N/     0 is the live image, N is N backing steps down; by-node/ finds them by "
          "name\n";
  add_shown(text, "the layer merged down to the base, a read-only raw file", views_of_layer());
  text +=
      "  snapshots/N/  the internal snapshots: mkdir takes one, rmdir deletes it, mv renames it,\n"
      "                'revert NAME' in ctl goes back to it. A process that has looked into a\n"
      "                snapshot, or a bitmap, does not delete it: so recursive deletes do not\n";
  add_shown(text, "the disk as it was, a read-only raw file", views_of_snapshot());
  add_row(text, "vmstate", "the state of the machine, as many bytes as there are");
  text += "  bitmaps/N/    what was written since: mkdir adds a dirty bitmap, rmdir removes it\n";
  for (const view* v : views_of_bitmap())
    add_row(text, v->name, v->summary);
  add_row(text, "dirty",
          "the live data where it is dirty, holes elsewhere. It is a view and no increment:");
  add_row(text, "", "what was zeroed and what is clean look the same, to cp too");
  text +=
      "  points/N/     frozen instants of the disk, in any format: mkdir makes one, and begins a\n"
      "                bitmap of its name; rmdir ends it, and leaves the bitmap\n";
  add_shown(text, "the disk as it was, a read-only raw file", views_of_point());
  add_row(text, "since/", "BITMAP.qcow2: what had changed since that bitmap began, an image");
  add_partitions(text);
  text += "  nodes/NAME/   one for each node below the root, with links to its children\n";
  for (const view* v : views_of_node())
    add_row(text, v->name, v->summary);
  add_row(text, "debug/", "of a blkdebug node alone: what it does to requests");
  for (const view* v : views_of_debug())
    text += fmt::format("      {:<12}{}\n", v->name, v->summary);
  text += fmt::format("\nEach of these is also the attribute user.bgfs.NAME of {}, such as "
                      "user.bgfs.nodes/NAME/driver.\n",
                      name);
  text +=
      "\nA write that fails has an errno; its sentence can be read from the same descriptor and "
      "from last-error.\n";
  co_return text;
}

task<std::string> render_mount(view_subject subject) {
  std::string text = fmt::format("{} is mounted on {}.\n\n", subject.mount.config().source(),
                                 subject.mount.directory);
  text += "NAME is a disk as a raw file, NAME.d/ is about it (see NAME.d/help). Here:\n\n";
  add_views(text, views_of_mount());
  text += "  jobs/ID/      long work that goes on, and what has failed; ID is commit-NAME, "
          "check-NAME or\n"
          "                merge-NAME\n";
  for (const view* v : views_of_job())
    add_row(text, v->name, v->summary);
  text += "  points/       mkdir freezes all writable roots at one instant, all or\n"
          "                none; rmdir ends that of all of them\n";
  text += "  snapshots/    mkdir takes a snapshot of all writable roots at one\n"
          "                instant, all or none; rmdir deletes it from all of them\n";
  text += "\nUnmount with 'bgfs umount'; it returns when every image is closed.\n";
  co_return text;
}

} // namespace

extern constinit const view root_help_view{
    .name = "help", .summary = "this text", .render = render_root, .needs_medium = false};
extern constinit const view mount_help_view{
    .name = "help", .summary = "this text", .render = render_mount};

} // namespace bgfs
