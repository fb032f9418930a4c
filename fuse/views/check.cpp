// SPDX-License-Identifier: MIT
// ctl check, and last-check, last-check.json: what the last one has found.
#include "fuse/views/check_command.h"

#include "config/render_check.h"
#include "fuse/views/common.h"

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

// On the loop of the nodes.
task<kept_check> check_image(node& image) {
  checkable* const face = image.as_checkable();
  if (face == nullptr)
    co_await fail(error_kind::unsupported, "driver '{}' does not support checks of its images",
                  image.type().name);
  kept_check kept{.filename = image.host_path(), .format = std::string(image.type().name)};
  keeping_sink sink(kept);
  kept.found = co_await face->check(check_mode::report, sink);
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
  if (rest == "repair=leaks" || rest == "repair=all")
    co_await fail(error_kind::unsupported,
                  "'{0}' is in use, and is not repaired meanwhile; unmount it and run 'bgfs check "
                  "-r {1}'",
                  subject.root->name(), rest.substr(rest.find('=') + 1));
  if (!rest.empty())
    co_await fail(error_kind::invalid_argument,
                  "write 'check', not 'check {}': it says what is wrong, in last-check", rest);
  co_await subject.root->open(subject.pid);
  node& image = image_of(*subject.root);
  subject.root->last_check =
      co_await subject.root->place().run([&image] { return check_image(image); });
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
