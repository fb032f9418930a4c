// SPDX-License-Identifier: MIT
// What a reload makes of two configurations: by example, and as random sequences of them.
#include "config/reload_plan.h"

#include "drivers/format/raw/raw.h"
#include "graph/io/with.h"
#include "tests/unit/config/test_drivers.h"
#include "tests/unit/lib/box_driver.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

const registry& box_registry() {
  static const registry drivers(
      {&memory_driver_type, &box_driver_type, &pass_driver_type, &raw_driver_type});
  return drivers;
}

// A graph that is served from a YAML text, and reloaded from others.
class served {
public:
  explicit served(graph_bench& bench) : bench_(bench) {}
  ~served() {
    for (auto& [name, r] : roots_)
      if (r.attached)
        bench_.must(r.attached->release());
  }

  graph_config load(const std::string& text) {
    result<graph_config> config = graph_config::load(dir_.write("g.yaml", text), box_registry());
    REQUIRE_MESSAGE(config.has_value(), (config ? std::string() : config.error().message()));
    return *std::move(config);
  }
  // The plan for this text; empty text: the one served.
  result<reload_plan> plan(const graph_config& next, plan_rules rules = {}) {
    std::vector<live_root> live;
    for (auto& [name, r] : roots_)
      live.push_back({.spec = &r.spec, .attached = r.attached.get()});
    graph* const graphs[] = {&bench_.graph()};
    return plan_reload(graphs, next, live, rules);
  }
  result<edit_outcome> reload(const std::string& text, plan_rules rules = {}) {
    const graph_config next = load(text);
    result<reload_plan> p = plan(next, rules);
    if (!p)
      return fail(std::move(p).error());
    last_text = p->to_text();
    std::vector<std::unique_ptr<root>> made(p->edit.attaches.size());
    for (std::size_t i = 0; i < made.size(); i++)
      p->edit.attaches[i].made = &made[i];
    const std::vector<std::size_t> attached = p->attached_exports;
    const auto fates = p->roots;
    if (!p->edit.is_empty()) {
      result<edit_outcome> done = bench_.run(bench_.graph().apply(std::move(p->edit)));
      if (!done)
        return done;
      CHECK(done->warnings.empty());
    }
    for (const root_difference& d : fates)
      if (d.fate == root_fate::removed)
        roots_.erase(d.name);
    for (const export_spec& e : next.exports())
      roots_[e.name].spec = e;
    for (std::size_t i = 0; i < made.size(); i++)
      roots_[next.exports()[attached[i]].name].attached = std::move(made[i]);
    return edit_outcome{};
  }
  void must_reload(const std::string& text, plan_rules rules = {}) {
    const result<edit_outcome> done = reload(text, rules);
    REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  }
  root& at(const std::string& name) { return *roots_.at(name).attached; }
  [[nodiscard]] bool has(const std::string& name) const { return roots_.contains(name); }

  std::string last_text;

private:
  struct one {
    export_spec spec;
    std::unique_ptr<root> attached;
  };
  graph_bench& bench_;
  scratch dir_;
  std::map<std::string, one> roots_;
};

std::string box(std::string_view name, std::string_view disk, std::string_view more = {}) {
  return fmt::format(
      "  - {{node-name: {}, driver: box, file: {{driver: memory, filename: {}}}{}{}}}\n", name,
      disk, more.empty() ? "" : ", ", more);
}

std::string graph_text(std::string_view nodes, std::string_view exports) {
  return fmt::format("version: 1\nnodes:\n{}exports:\n{}", nodes, exports);
}

std::string shown(std::string_view name, std::string_view node, bool is_writable = true) {
  return fmt::format("  - {{name: {}, node-name: {}, writable: {}}}\n", name, node, is_writable);
}

// Nodes by what they are and what lies below; names that were made up are left out.
std::string form(const node& n) {
  std::string text = fmt::format("{}({}{}", n.name().starts_with('#') ? "" : n.name(),
                                 n.type().name, n.is_read_only() ? ",ro" : "");
  text += to_json(n.given().given());
  for (const auto& e : n.children())
    text += fmt::format(" {}={}[{:x}/{:x}]", e->name(), form(e->child()), e->granted().used,
                        e->granted().shared);
  return text + ")";
}

std::string form(const graph& g) {
  std::vector<std::string> tops;
  for (const auto& n : g.nodes())
    tops.push_back(form(*n));
  std::ranges::sort(tops);
  std::string text;
  for (const std::string& top : tops)
    text += top + "\n";
  return text;
}

} // namespace

TEST_CASE("a plan says what becomes of each node and root") {
  graph_bench bench({&box_driver_type, &pass_driver_type, &raw_driver_type});
  for (const char* name : {"a", "b", "c", "base", "copy"})
    box_disk(bench, name, 4096);
  box_disk(bench, "over", 4096, true);
  served s(bench);
  const std::string base = box("base", "base") + box("copy", "copy");
  s.must_reload(graph_text(base + box("a", "a", "speed: 1") + box("over", "over", "backing: base"),
                           shown("a", "a") + shown("over", "over")));
  CHECK(s.last_text == "root a: added\nroot over: added\nnode a: opened\nnode base: opened\n"
                       "node over: opened\nkept: 0 roots, 0 nodes\n");
  struct row {
    std::string nodes;
    std::string exports;
    std::string expected;
  };
  const std::string a = box("a", "a", "speed: 1");
  const std::string over = box("over", "over", "backing: base");
  const std::string both = shown("a", "a") + shown("over", "over");
  const row rows[] = {
      {base + a + over, both, "kept: 2 roots, 6 nodes\n"},
      {base + box("a", "a", "speed: 2") + over, both,
       "root a: changed: its nodes change\nnode a: reopened: 'speed' changed\n"
       "kept: 1 roots, 5 nodes\n"},
      {base + box("a", "a", "speed: 1, key: k") + over, both,
       "root a: changed: its nodes change\nnode a: replaced: 'key' cannot change while it is open\n"
       "kept: 1 roots, 5 nodes\n"},
      {base + a + box("over", "over", "backing: copy"), both,
       "root over: changed: its nodes change\nnode copy: opened\nnode over: rewired: another "
       "'backing'\nnode base: closed\nnode #block004: closed\nkept: 1 roots, 3 nodes\n"},
      {base + a + box("over", "over", "backing: null"), both,
       "root over: changed: its nodes change\nnode over: rewired: another 'backing'\n"
       "node base: closed\nnode #block004: closed\nkept: 1 roots, 3 nodes\n"},
      {base + a + over + "  - {node-name: f, driver: pass, file: a}\n",
       shown("a", "f") + shown("over", "over"),
       "root a: changed: node-name: \"f\" instead of \"a\"\nnode f: opened\n"
       "kept: 1 roots, 6 nodes\n"},
      {base + a + over, shown("a", "a", false) + shown("over", "over"),
       // The disk of this test cannot be reopened, and what lies over another disk is another.
       "root a: changed: writable: false instead of true\nnode a: replaced: its 'file' is another\n"
       "node #block001: closed\nkept: 1 roots, 4 nodes\n"},
      {base + box("a", "c", "speed: 1") + over, both,
       "root a: changed: its nodes change\nnode a: replaced: its 'file' is another\n"
       "node #block001: closed\nkept: 1 roots, 4 nodes\n"},
      {base + "  - {node-name: a, driver: raw, file: {driver: memory, filename: a}}\n" + over, both,
       "root a: changed: its nodes change\nnode a: replaced: driver 'raw' instead of 'box'\n"
       "kept: 1 roots, 5 nodes\n"},
      {base + over + box("b", "b"), shown("b", "b") + shown("over", "over"),
       "root b: added\nroot a: removed\nnode b: opened\nnode a: closed\nnode #block001: closed\n"
       "kept: 1 roots, 4 nodes\n"},
  };
  for (const row& r : rows) {
    const graph_config next = s.load(graph_text(r.nodes, r.exports));
    const result<reload_plan> p = s.plan(next);
    REQUIRE(p.has_value());
    std::string text = p->to_text();
    // Names that were made up depend on the order of opening.
    for (std::size_t at = text.find("#block"); at != std::string::npos;
         at = text.find("#block", at + 1))
      text.replace(at, 9, "#");
    std::string expected = r.expected;
    for (std::size_t at = expected.find("#block"); at != std::string::npos;
         at = expected.find("#block", at + 1))
      expected.replace(at, 9, "#");
    CAPTURE(r.nodes);
    CHECK(text == expected);
    CHECK(p->changes_nothing() == (r.expected == "kept: 2 roots, 6 nodes\n"));
  }
}

TEST_CASE("what is shown beside the roots stays open, and belongs to the graph when that needs it") {
  graph_bench bench({&box_driver_type, &pass_driver_type, &raw_driver_type});
  box_disk(bench, "base", 4096);
  for (const char* name : {"over", "top"})
    box_disk(bench, name, 4096, true);
  served s(bench);
  const std::string nodes =
      box("base", "base", "read-only: true") + box("over", "over", "backing: base");
  s.must_reload(graph_text(nodes + box("top", "top", "backing: over"), shown("a", "top", false)));
  node* const over = bench.graph().find("over");
  REQUIRE(over != nullptr);
  std::unique_ptr<root> reader = bench.must(
      bench.graph().attach("reader", *over, {permission::consistent_read, permission::all}));
  const plan_rules beside{.beside = {reader.get()}};

  const std::string only_base = graph_text(nodes, shown("a", "base", false));
  s.must_reload(only_base, beside);
  CHECK(bench.graph().find("top") == nullptr);
  CHECK(bench.graph().find("over") == over);
  CHECK(over->is_visitor());
  CHECK(over->children().size() == 2);
  const graph_config same = s.load(only_base);
  CHECK(s.plan(same, beside)->changes_nothing());

  // It is in the way of what would take its place.
  const std::string other =
      box("base", "base", "read-only: true") + box("over", "top", "backing: base");
  const result<edit_outcome> refused =
      s.reload(graph_text(other, shown("a", "over", false)), beside);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().contains("reader"));
  CHECK(over->is_visitor());

  s.must_reload(graph_text(nodes, shown("a", "over", false)), beside);
  CHECK(bench.graph().find("over") == over);
  CHECK_FALSE(over->is_visitor());
  bench.must(reader->release());
  s.must_reload(only_base);
  CHECK(bench.graph().find("over") == nullptr);
}

TEST_CASE("what was written survives every kind of reload") {
  graph_bench bench({&box_driver_type, &pass_driver_type, &raw_driver_type});
  for (const char* name : {"base", "copy"}) {
    memory_disk& d = box_disk(bench, name, 4096);
    std::ranges::copy(pattern(4096, 9), d.bytes.begin() + box_head);
  }
  for (const char* name : {"d0", "d1", "d2"})
    box_disk(bench, name, 4096, true);
  served s(bench);
  std::mt19937 random(20261123);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto below = pattern(4096, 9);
  std::vector<std::byte> model[3];
  for (auto& m : model) {
    m.resize(4096);
    for (std::size_t i = 0; i < m.size(); i++)
      m[i] = i % 1024 >= 512 ? below[i] : std::byte{0};
  }
  int refused = 0;
  for (int round = 0; round < 150; round++) {
    std::string nodes =
        box("base", "base", "read-only: true") + box("copy", "copy", "read-only: true");
    std::string exports;
    for (int i = 0; i < 3; i++) {
      if (pick(5) == 0)
        continue;
      std::string file = fmt::format("{{driver: memory, filename: d{}}}", i);
      if (pick(3) == 0) {
        nodes += fmt::format("  - {{node-name: file{0}, driver: memory, filename: d{0}}}\n", i);
        file = fmt::format("file{}", i);
      }
      std::string options = fmt::format("speed: {}", pick(3));
      if (pick(4) == 0)
        options += fmt::format(", key: k{}", pick(2));
      nodes += fmt::format("  - {{node-name: n{}, driver: box, file: {}, {}, backing: {}}}\n", i,
                           file, options, pick(2) == 0 ? "base" : "copy");
      std::string top = fmt::format("n{}", i);
      for (int f = pick(3); f > 0; f--) {
        const std::string name = fmt::format("f{}x{}", i, f);
        nodes += fmt::format("  - {{node-name: {}, driver: pass, file: {}}}\n", name, top);
        top = name;
      }
      exports += shown(fmt::format("r{}", i), top, pick(4) != 0);
    }
    if (exports.empty())
      continue;
    CAPTURE(round);
    CAPTURE(nodes);
    const std::string before = form(bench.graph());
    // Every third reload fails at some step.
    int left = pick(3) == 0 ? pick(12) : 1000;
    bench.graph().set_edit_fault([&](std::string_view) -> std::optional<error> {
      if (left-- != 0)
        return std::nullopt;
      return error(error_kind::io, "this step fails");
    });
    result<edit_outcome> done = s.reload(graph_text(nodes, exports));
    bench.graph().set_edit_fault(nullptr);
    if (!done && done.error().kind() == error_kind::unsupported)
      done = s.reload(graph_text(nodes, exports), {.may_reopen = false});
    if (!done) {
      CHECK(done.error().message().ends_with("this step fails"));
      CHECK(form(bench.graph()) == before);
      refused++;
    } else {
      for (int i = 0; i < 3; i++)
        CHECK(s.has(fmt::format("r{}", i)) ==
              (exports.find(fmt::format("r{},", i)) != std::string::npos));
      CHECK(s.plan(s.load(graph_text(nodes, exports)))->changes_nothing());
    }
    for (int i = 0; i < 3; i++) {
      const std::string name = fmt::format("r{}", i);
      if (!s.has(name))
        continue;
      root& r = s.at(name);
      CHECK(read_all(bench, r) == model[i]);
      if ((r.as_edge().granted().used & permission::write) == 0)
        continue;
      const u64 offset = 1024 * static_cast<u64>(pick(4)) + static_cast<u64>(pick(256));
      const auto bytes = pattern(200, random());
      bench.must(r.write(offset, bytes));
      std::ranges::copy(bytes, model[i].begin() + static_cast<i64>(offset));
    }
  }
  CHECK(refused > 10);
}
