// SPDX-License-Identifier: MIT
#include "graph/jobs/rebase.h"

#include "tests/unit/drivers/qcow2/qcow2_bench.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr const char* all_names[] = {"base", "mid", "other", "top"};

spec_builder layer(const std::string& prefix, const std::string& name, const char* below) {
  spec_builder s(prefix + name, qcow2_driver_type);
  s.child("file", disk_spec(prefix + name));
  if (below != nullptr)
    s.child("backing", (prefix + below).c_str());
  s.no_backing = below == nullptr;
  return s;
}

// top -> mid -> base, and `other`, each a qcow2 image on a memory disk of its own.
class rebase_bench {
public:
  explicit rebase_bench(u64 seed, const option_list& how = {{"cluster_size", "4K"}})
      : random_(seed) {
    for (const char* name : all_names) {
      b_.create(name, (200 + 50 * (random_() % 3)) << 10, how);
      scribble(name, name == std::string("top") ? 5 : 12);
    }
    b_.bench.open(layer("", "base", nullptr));
    b_.bench.open(layer("", "mid", "base"));
    b_.bench.open(layer("", "other", nullptr));
    b_.bench.open(layer("", "top", "mid"));
    overlay_ = &b_.bench.attach(node_of("top"), may_write);
    b_.bench.must(name_backing(node_of("top"), image_reference{"mid", "qcow2"}));
  }
  ~rebase_bench() { b_.bench.detach(*overlay_); }

  node& node_of(const std::string& name) { return *b_.bench.graph().find(name); }
  // Over nothing where the name is null.
  result<> rebase(const char* to, bool is_compressed = false) {
    root* below = to == nullptr ? nullptr : &b_.bench.attach(node_of(to), may_read);
    rebase_request request{.overlay = overlay_, .backing = below, .is_compressed = is_compressed};
    if (to != nullptr)
      request.reference = image_reference{to, "qcow2"};
    result<> done = b_.bench.run(rebase_overlay(b_.bench.home(), std::move(request)));
    if (below != nullptr)
      b_.bench.detach(*below);
    return done;
  }
  std::vector<std::byte> content() { return read_all(b_.bench, *overlay_); }

  // What the disk of `top` shows over what its header names, to a program that is started after
  // this one was killed.
  std::vector<std::byte> content_on_disk(std::string* named = nullptr) {
    qcow2_bench fresh;
    for (const char* name : all_names)
      fresh.place(std::string("late-") + name, memory_disks()[name]->bytes);
    const auto open = [&](const char* name, const char* below) -> node& {
      spec_builder s = layer("late-", name, below);
      return fresh.bench.open(s.set("read-only", "on"));
    };
    open("base", nullptr);
    open("mid", "base");
    open("other", nullptr);
    node& bare = open("top", nullptr);
    const std::optional<image_reference> reference = bare.instance().backing_reference();
    fresh.bench.must(fresh.bench.graph().close(bare));
    root& r = fresh.bench.attach(open("top", reference ? reference->filename.c_str() : nullptr),
                                 may_read);
    std::vector<std::byte> bytes = read_all(fresh.bench, r);
    fresh.bench.detach(r);
    if (named != nullptr)
      *named = reference ? reference->filename : "";
    return bytes;
  }

  qcow2_bench b_;
  root* overlay_ = nullptr;

private:
  void scribble(const char* name, unsigned count) {
    root& disk = b_.open(name);
    for (unsigned i = 0; i < count; i++) {
      const u64 offset = align_down(random_() % disk.length(), 512);
      const u64 size = std::min(512 + align_down(random_() % 20000, 512), disk.length() - offset);
      if (random_() % 3 == 0) {
        b_.bench.must(disk.write_zeroes({offset, size}));
      } else {
        const auto byte = static_cast<std::byte>(1 + random_() % 3);
        b_.bench.must(disk.write(offset, std::vector<std::byte>(size, byte)));
      }
    }
    b_.bench.detach(disk);
    b_.bench.must(b_.bench.graph().close(b_.top()));
  }
  std::mt19937_64 random_;
};

constexpr const char* targets[] = {"other", "base", "mid", nullptr};

} // namespace

TEST_CASE(
    "rebase: the overlay reads the same over another image, a part of its chain, or nothing") {
  for (u64 seed = 0; seed < 24; seed++) {
    for (const char* to : targets) {
      CAPTURE(seed);
      CAPTURE((to == nullptr ? "nothing" : to));
      rebase_bench c(seed, seed % 3 == 0 ? option_list{{"cluster_size", "4K"}, {"compat", "0.10"}}
                           : seed % 3 == 1
                               ? option_list{{"cluster_size", "16K"}, {"extended_l2", "on"}}
                               : option_list{{"cluster_size", "4K"}});
      const std::vector<std::byte> before = c.content();
      const result<> done = c.rebase(to, seed % 4 == 0);
      REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
      CHECK(is_same(c.content(), before));
      std::string named;
      CHECK(is_same(c.content_on_disk(&named), before));
      CHECK(named == (to == nullptr ? "" : to));
    }
  }
}

TEST_CASE("rebase: nothing is written where nothing differs, and shared images are not read") {
  rebase_bench c(4);
  u64 data_read = 0;
  u64 data_written = 0;
  const auto count = [&](std::string_view operation, byte_range range) -> std::optional<error> {
    if (operation == "read")
      data_read += range.length;
    if (operation == "write" && range.offset >= 4096)
      data_written += range.length;
    return std::nullopt;
  };
  for (const char* name : {"base", "mid"})
    memory_disks()[name]->fault = count;
  memory_disks()["top"]->fault = [&](std::string_view operation, byte_range range) {
    return operation == "write" ? count(operation, range) : std::nullopt;
  };
  (void)c.content(); // tables are in memory
  data_read = 0;
  REQUIRE(c.rebase("mid").has_value());
  CHECK(data_read == 0);
  CHECK(data_written == 0);
}

TEST_CASE("rebase: whatever fails, the overlay reads as before, on the disk, too") {
  for (const char* to : {"other", static_cast<const char*>(nullptr)}) {
    u64 nth = 1;
    for (bool has_failed = true; has_failed; nth++) {
      CAPTURE(nth);
      rebase_bench c(3);
      const std::vector<std::byte> before = c.content();
      u64 seen = 0;
      const auto fault = [&](std::string_view, byte_range) -> std::optional<error> {
        if (++seen != nth)
          return std::nullopt;
        return error::from_errno(EIO, "the test says so");
      };
      for (const char* name : {"top", "mid", "other"})
        memory_disks()[name]->fault = fault;
      const result<> done = c.rebase(to);
      has_failed = seen >= nth;
      for (const char* name : {"top", "mid", "other"})
        memory_disks()[name]->fault = nullptr;
      CHECK(is_same(c.content_on_disk(), before));
      CHECK(is_same(c.content(), before));
      if (!done)
        CHECK(done.error().message().contains("the test says so"));
    }
    CHECK(nth > 20);
  }
}

TEST_CASE("rebase: the name changes when all that it needs is durable") {
  rebase_bench c(5);
  memory_disk& top = *memory_disks()["top"];
  top.keeps_log = true;
  REQUIRE(c.rebase("other").has_value());
  std::size_t name_at = 0; // the last write of the header's cluster
  std::size_t data_at = 0;
  std::size_t flush_at = 0;
  for (std::size_t i = 0; i < top.log.size(); i++) {
    const memory_event& e = top.log[i];
    if (e.what == memory_event::kind::write && e.range.offset < 4096)
      name_at = i;
  }
  for (std::size_t i = 0; i < name_at; i++) {
    const memory_event& e = top.log[i];
    if (e.what == memory_event::kind::write && e.range.offset >= 4096)
      data_at = i;
    if (e.what == memory_event::kind::flush)
      flush_at = i;
  }
  CHECK(data_at > 0);
  CHECK(data_at < flush_at);
  CHECK(flush_at < name_at);
}

TEST_CASE("rebase: zeroes that nothing hides before are held when something will show") {
  for (const char* compat : {"0.10", "1.1"}) {
    CAPTURE(compat);
    qcow2_bench b;
    b.create("new", MiB);
    root& writer = b.open("new");
    b.bench.must(writer.write(0, pattern(MiB, 1)));
    node& below = b.top();
    b.create("top", MiB, {{"compat", compat}});
    root& overlay = b.open("top");
    rebase_request request{.overlay = &overlay,
                           .backing = &b.bench.attach(below, may_read),
                           .reference = image_reference{"new", "qcow2"}};
    b.bench.must(rebase_overlay(b.bench.home(), std::move(request)));
    const block_status s = b.bench.must(overlay.top().status({0, MiB}, false));
    CHECK(s.is_allocated);
    CHECK(s.length == MiB);
    CHECK(is_same(read_all(b.bench, overlay), std::vector<std::byte>(MiB)));
  }
}

TEST_CASE("rebase: a format without backing names is refused before anything is written") {
  graph_bench bench({});
  bench.disk("a", MiB);
  root& r = bench.attach(bench.open(disk_spec("a")), may_write);
  const result<> done = bench.run(rebase_overlay(bench.home(), {.overlay = &r}));
  REQUIRE(!done.has_value());
  CHECK(done.error().kind() == error_kind::unsupported);
  CHECK(done.error().message().contains("name no backing file"));
  CHECK(bench.disk("b").log.empty());
}
