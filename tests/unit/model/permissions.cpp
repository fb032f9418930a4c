// SPDX-License-Identifier: MIT
// The worked examples of the reference's section 1.15, on open graphs: what each user and each node
// takes of what is below it, and shares.
#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/box_driver.h"
#include "tests/unit/lib/layer_driver.h"

using namespace bgfs;
using namespace bgfs::test;
namespace pm = bgfs::permission;

namespace {

constexpr permission_set cr = pm::consistent_read, w = pm::write, wu = pm::write_unchanged,
                         rz = pm::resize;
constexpr permissions network_export{cr | w, cr | w | wu}; // shares all but resizing

void check(const edge* e, permissions expected) {
  REQUIRE(e != nullptr);
  CAPTURE(e->name());
  CHECK(describe(e->granted().used) == describe(expected.used));
  CHECK(describe(e->granted().shared) == describe(expected.shared));
}

spec_builder pass_over(const char* name, const char* below) {
  return spec_builder(name, pass_driver_type).child("file", below);
}

// A writable overlay on a format that is its backing.
struct stack {
  graph_bench bench{{&layer_driver_type, &raw_driver_type, &pass_driver_type}};
  test_layer top{bench, "top", 4096}, low{bench, "low", 4096};
  node* low_node = &bench.open(low.spec().set("read-only", true));
  node* top_node = &bench.open(top.spec().child("backing", "low"));
};

} // namespace

TEST_CASE("1.15: an export of a writable overlay, its file, its backing and the backing's file") {
  stack s;
  root& r = s.bench.attach(*s.top_node, network_export);
  check(&r.as_edge(), network_export);
  check(s.top_node->child("file"), {cr | w | rz, cr | wu});
  check(s.top_node->backing(), {cr, cr | wu | w | rz});
  check(s.low_node->child("file"), {cr, cr | wu});
}

TEST_CASE("1.15: a user who does not share writing keeps the backing from changing") {
  stack s;
  s.bench.attach(*s.top_node, {cr | w, cr | wu});
  check(s.top_node->backing(), {cr, cr | wu});
  check(s.top_node->child("file"), {cr | w | rz, cr | wu});
}

TEST_CASE("1.15: a read-only format takes and shares as little, whoever uses it") {
  graph_bench bench({&layer_driver_type});
  test_layer only(bench, "only", 4096);
  node& n = bench.open(only.spec().set("read-only", true));
  bench.attach(n, may_read);
  check(n.child("file"), {cr, cr | wu});
}

TEST_CASE("1.15: raw passes through; a window takes no more than its users do") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 8192);
  node& whole = bench.open(spec_builder("whole", raw_driver_type).child("file", disk_spec("d")));
  bench.attach(whole, {cr | w, pm::all});
  check(whole.child("file"), {cr | w, pm::all});
  bench.disk("e", 8192);
  node& window = bench.open(spec_builder("window", raw_driver_type)
                                .set("offset", u64{512})
                                .set("size", u64{1024})
                                .child("file", disk_spec("e")));
  bench.attach(window, network_export);
  check(window.child("file"), {cr | w, cr | w | wu});
}

TEST_CASE("1.15: a filter passes through, and two writers may meet on the node below it") {
  graph_bench bench({&layer_driver_type, &pass_driver_type});
  test_layer image(bench, "image", 4096);
  node& n = bench.open(image.spec());
  node& filter = bench.open(pass_over("filter", "image"));
  bench.attach(filter, network_export);
  check(filter.child("file"), network_export);
  bench.attach(n, network_export);
  check(n.child("file"), {cr | w | rz, cr | wu});
  const auto third = bench.run(bench.graph().attach("export 'third'", n, may_resize));
  REQUIRE(!third);
  CHECK(third.error().kind() == error_kind::busy);
  CHECK(third.error().message() ==
        "export 'third' cannot use node 'image' (layer) for 'resize': node 'filter' (pass) as its "
        "'file' does not share that; make one of them read-only");
}

TEST_CASE("a conflict names both users, from either side") {
  graph_bench bench({&layer_driver_type, &pass_driver_type});
  test_layer image(bench, "image", 4096);
  node& n = bench.open(image.spec());
  root& first = bench.attach(n, {cr, cr | wu}); // relies on it not changing
  node& filter = bench.open(pass_over("filter", "image"));
  const auto through = bench.run(bench.graph().attach("export 'b'", filter, network_export));
  REQUIRE(!through);
  CHECK(through.error().message() ==
        "node 'filter' (pass) as its 'file' cannot use node 'image' (layer) for 'write': test does "
        "not share that; make one of them read-only");
  CHECK(filter.cumulative_permissions() == permissions{0, pm::all});
  bench.detach(first);
  root& writer = bench.attach(filter, network_export);
  const auto late = bench.run(bench.graph().attach("export 'a'", n, {cr, cr | wu}));
  REQUIRE(!late);
  CHECK(late.error().message() ==
        "node 'filter' (pass) as its 'file' cannot use node 'image' (layer) for 'write': export "
        "'a' does not share that; make one of them read-only");
  bench.detach(writer);
  bench.attach(n, {cr, cr | wu});
}

TEST_CASE("what a parent took is given back when it leaves") {
  stack s;
  root& r = s.bench.attach(*s.top_node, {cr | w, cr | wu});
  check(s.top_node->backing(), {cr, cr | wu});
  s.bench.detach(r);
  // Without users: nothing of the backing, and nothing is kept from others. The file of a format
  // that is open for writing stays taken: it may write its tables at any time.
  check(s.top_node->backing(), {0, cr | wu | w | rz});
  check(s.top_node->child("file"), {cr | w | rz, cr | wu});
  s.bench.must(s.bench.graph().close(*s.top_node));
  CHECK(s.low_node->cumulative_permissions() == permissions{0, pm::all});
}

TEST_CASE("two windows of one file may be written through at once") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 8192);
  bench.open(spec_builder("file", memory_driver_type).set("filename", "d"));
  for (const u64 offset : {u64{0}, u64{4096}}) {
    node& window = bench.open(spec_builder(fmt::format("w{}", offset), raw_driver_type)
                                  .set("offset", offset)
                                  .set("size", u64{4096})
                                  .child("file", "file"));
    bench.attach(window, network_export);
  }
  CHECK(bench.graph().find("file")->cumulative_permissions() == permissions{cr | w, cr | w | wu});
}

TEST_CASE("force-share shares all below, and a read-only node cannot be written through") {
  graph_bench bench({&layer_driver_type});
  test_layer image(bench, "image", 4096);
  node& n = bench.open(image.spec().set("read-only", true).set("force-share", true));
  bench.attach(n, may_read);
  check(n.child("file"), {cr, pm::all});
  const auto refused = bench.run(bench.graph().attach("writer", n, may_write));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::permission);
}

TEST_CASE("every refused plan leaves the permissions of the whole graph as they were") {
  stack s;
  s.bench.attach(*s.top_node, network_export);
  const auto all = [&] {
    std::string text;
    for (const auto& n : s.bench.graph().nodes())
      for (const auto& e : n->children())
        text += fmt::format("{}.{}: {}/{}\n", n->name(), e->name(), e->granted().used,
                            e->granted().shared);
    return text;
  };
  const std::string before = all();
  for (permission_set used = 0; used <= pm::all; used++) {
    for (permission_set shared = 0; shared <= pm::all; shared++) {
      auto attached = s.bench.run(s.bench.graph().attach("x", *s.low_node, {used, shared}));
      const bool is_compatible =
          (used & ~(cr | wu | w | rz)) == 0 && (cr & ~shared) == 0 && (used & (w | wu)) == 0;
      CHECK(attached.has_value() == is_compatible);
      if (attached)
        s.bench.must((*attached)->release());
      CHECK(all() == before);
    }
  }
}
