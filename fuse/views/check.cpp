// SPDX-License-Identifier: MIT
// ctl check, and last-check, last-check.json: what the last one has found.
#include "fuse/views/check_command.h"

#include "config/render_check.h"
#include "fuse/views/common.h"
#include "graph/io/with.h"
#include "graph/jobs/blocked_node.h"

#include <cerrno>
#include <sstream>

namespace bgfs {
namespace {

// Keeps the first findings, however many a hostile image has.
class keeping_sink final : public check_sink {
public:
  keeping_sink(kept_check& into, job& told) : into_(into), job_(told) {}
  void message(std::string_view line) override {
    if (into_.findings.size() < kept_check::findings_max) {
      into_.findings.emplace_back(line);
    } else {
      into_.findings_more++;
    }
  }
  void progress(u64 done, u64 total) override { job_.set_progress(done, total); }

private:
  kept_check& into_;
  job& job_;
};

node& image_of(const exported_root& root) {
  return *root.disk()->top().skip_filters();
}

task<check_result> check_face(checkable& face, check_mode mode, check_sink& sink) {
  check_result found = co_await face.check(mode, sink);
  co_return found;
}

// On the loop of the nodes. A repair keeps requests waiting.
task<kept_check> check_image(node& image, check_mode mode, job& control) {
  using enum node_operation;
  const blocked_node blocked(image, bit(change) | bit(replace) | bit(eject) | bit(drive_del),
                             control);
  checkable* const face = image.as_checkable();
  kept_check kept{.filename = image.host_path(), .format = std::string(image.type().name)};
  keeping_sink sink(kept, control);
  if (mode == check_mode::report) {
    kept.found = co_await face->check(mode, sink);
  } else {
    kept.found = co_await with(image.owner().drain(image),
                               [&](graph::drained&) { return check_face(*face, mode, sink); });
  }
  clock_gettime(CLOCK_REALTIME, &kept.ended);
  co_return kept;
}

task<std::string> render_text(view_subject subject) {
  if (!subject.root->last_check)
    co_return "never: write 'check' to ctl\n";
  const kept_check& last = *subject.root->last_check;
  std::string text = format_time(last.ended) + "\n" + render_check(last.found);
  for (const std::string& line : last.findings)
    text += line + "\n";
  if (last.findings_more != 0)
    text += fmt::format("... and {} more\n", last.findings_more);
  co_return text;
}

task<std::string> render_json(view_subject subject) {
  if (!subject.root->last_check)
    co_return "{}\n";
  const kept_check& last = *subject.root->last_check;
  value all = check_value(last.found, last.filename, last.format);
  value::list findings;
  for (const std::string& line : last.findings)
    findings.emplace_back(line);
  all.set("findings", value(std::move(findings)));
  all.set("findings-left-out", last.findings_more);
  all.set("ended", format_time(last.ended));
  co_return json_text(all);
}

task<void> tell_layers_changed(mount_state& mount, exported_root& root) {
  const auto looking = co_await mount.looking.lock_shared();
  co_await root.layers_changed();
}

// While it lives the root says that it is being repaired.
class repair_mark {
public:
  explicit repair_mark(exported_root& root) : root_(root) { root_.is_repairing = true; }
  ~repair_mark() { root_.is_repairing = false; }
  repair_mark(const repair_mark&) = delete;
  repair_mark& operator=(const repair_mark&) = delete;

private:
  exported_root& root_;
};

task<void> check(mount_state& mount, root_pointer root, node* image, check_mode mode,
                 job& control) {
  std::optional<repair_mark> mark;
  if (mode != check_mode::report)
    mark.emplace(*root); // one job of a kind at a time
  result<kept_check> found =
      co_await as_result(root->place().run([&] { return check_image(*image, mode, control); }));
  if (mode != check_mode::report)
    co_await shielded(tell_layers_changed(mount, *root));
  root->last_check = co_await std::move(found);
}

struct check_words {
  check_mode mode = check_mode::report;
  bool waits = true;
};

result<check_words> parse_words(const exported_root& root, const std::string& text) {
  check_words given;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word == "repair=all")
      return fail(error_kind::unsupported,
                  "'{}' is in use, and only leaks are repaired meanwhile; unmount it and run 'bgfs "
                  "check -r all'",
                  root.name());
    if (word == "repair=leaks")
      given.mode = check_mode::repair_leaks;
    else if (word == "wait=yes" || word == "wait=no")
      given.waits = word == "wait=yes";
    else
      return fail(error_kind::invalid_argument,
                  "write 'check' or 'check repair=leaks', not 'check {}'; with 'wait=no' behind it "
                  "nobody waits for its end",
                  text);
  }
  return given;
}

result<node*> find_checkable(const exported_root& root, check_mode mode) {
  if (mode != check_mode::report && !root.is_writable())
    return fail(error{error_kind::permission,
                      fmt::format("'{}' is exported read-only, and is not repaired; set "
                                  "'writable: true' in its export",
                                  root.name()),
                      EROFS});
  node& image = image_of(root);
  if (image.as_checkable() == nullptr)
    return fail(error_kind::unsupported, "driver '{}' does not support checks of its images",
                image.type().name);
  return &image;
}

} // namespace

task<void> check_command(view_subject subject, std::string rest) {
  mount_state& mount = subject.mount;
  const root_pointer root = subject.root->shared_from_this();
  const check_words words = co_await parse_words(*root, rest);
  job_pointer begun;
  {
    const auto looking = co_await mount.looking.lock_shared();
    co_await root->open(subject.pid);
    node* const image = co_await find_checkable(*root, words.mode);
    begun = co_await mount.jobs.start(
        {.what = {.id = "check-" + root->name(),
                  .type = "check",
                  .when_cancelled = words.mode == check_mode::report
                                        ? "nothing was changed"
                                        : "what it has repaired stays repaired",
                  .has_audience = words.waits},
         .root = root,
         .nodes = {image}},
        [&mount, root, image, mode = words.mode](job& control) {
          return check(mount, root, image, mode, control);
        });
  }
  if (words.waits)
    co_await mount.jobs.list().await_or_cancel(begun);
}

extern constinit const view last_check_view{.name = "last-check",
                                            .summary = "what the last 'check' in ctl has found",
                                            .render = render_text,
                                            .needs_medium = false};
extern constinit const view last_check_json_view{
    .name = "last-check.json",
    .summary = "the same (keys as of qemu-img check --output=json)",
    .render = render_json,
    .needs_medium = false};

} // namespace bgfs
