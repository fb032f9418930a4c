// SPDX-License-Identifier: MIT
// ctl check, and last-check, last-check.json: what the last one has found.
#include "fuse/views/check_command.h"

#include "config/render_check.h"
#include "fuse/views/common.h"
#include "graph/io/with.h"

#include <cerrno>

namespace bgfs {
namespace {

// Keeps the first findings, however many a hostile image has.
class keeping_sink final : public check_sink {
public:
  explicit keeping_sink(kept_check& into) : into_(into) {}
  void message(std::string_view line) override {
    if (into_.findings.size() < kept_check::findings_max) {
      into_.findings.emplace_back(line);
    } else {
      into_.findings_more++;
    }
  }
  void progress(u64, u64) override {}

private:
  kept_check& into_;
};

node& image_of(const exported_root& root) {
  return *root.disk()->top().skip_filters();
}

task<check_result> check_face(checkable& face, check_mode mode, check_sink& sink) {
  check_result found = co_await face.check(mode, sink);
  co_return found;
}

// On the loop of the nodes. A repair keeps requests waiting.
task<kept_check> check_image(node& image, check_mode mode) {
  checkable* const face = image.as_checkable();
  if (face == nullptr)
    co_await fail(error_kind::unsupported, "driver '{}' does not support checks of its images",
                  image.type().name);
  kept_check kept{.filename = image.host_path(), .format = std::string(image.type().name)};
  keeping_sink sink(kept);
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

} // namespace

task<void> check_command(view_subject subject, std::string rest) {
  if (rest == "repair=all")
    co_await fail(error_kind::unsupported,
                  "'{}' is in use, and only leaks are repaired meanwhile; unmount it and run 'bgfs "
                  "check -r all'",
                  subject.root->name());
  if (!rest.empty() && rest != "repair=leaks")
    co_await fail(error_kind::invalid_argument,
                  "write 'check' or 'check repair=leaks', not 'check {}'", rest);
  const check_mode mode = rest.empty() ? check_mode::report : check_mode::repair_leaks;
  co_await subject.root->open(subject.pid);
  if (mode != check_mode::report && !subject.root->is_writable())
    co_await fail(error{error_kind::permission,
                        fmt::format("'{}' is exported read-only, and is not repaired; set "
                                    "'writable: true' in its export",
                                    subject.root->name()),
                        EROFS});
  node& image = image_of(*subject.root);
  subject.root->last_check =
      co_await subject.root->place().run([&image, mode] { return check_image(image, mode); });
  if (mode != check_mode::report)
    co_await shielded(subject.root->layers_changed());
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
