// SPDX-License-Identifier: MIT
// Changing the backing file's name in the header: what is written, what is refused, and what is in
// force wherever it stops.
#include "drivers/format/qcow2/header_switch.h"
#include "drivers/format/qcow2/image.h"
#include "graph/base/is_zero.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/scratch_directory.h"

#include <cstdlib>

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

using reference = std::optional<image_reference>;

std::string shown(const reference& r) {
  return r ? fmt::format("{} ({})", r->filename, r->format) : "none";
}

reference stored_in(std::span<const std::byte> image) {
  const auto cluster = header_cluster_bytes(image);
  REQUIRE(cluster.has_value());
  const result<header> h = parse_header(image.first(*cluster));
  REQUIRE_MESSAGE(h.has_value(), (h ? std::string() : h.error().message()));
  if (h->backing_file.empty())
    return std::nullopt;
  return image_reference{h->backing_file, h->backing_format()};
}

// Everything but the backing file, the detour of a crash left aside.
header without_backing(std::span<const std::byte> image) {
  header h = *parse_header(image.first(*header_cluster_bytes(image)));
  std::erase_if(h.extensions, [](const auto& e) {
    return e.type == extension_type::backing_format || e.type == extension_type::detour;
  });
  h.backing_file.clear();
  return h;
}

struct changing {
  explicit changing(const option_list& create)
      : disk(b.create("d", 1 << 20, create)), way(b.open("d")) {}
  qcow2_bench b;
  memory_disk& disk;
  root& way;
  result<> change(reference to) {
    auto& face = dynamic_cast<backing_writer&>(b.top().instance());
    return b.bench.run(face.change_backing_reference(std::move(to)));
  }
  void must_change(reference to) {
    const result<> changed = change(std::move(to));
    REQUIRE_MESSAGE(changed.has_value(), (changed ? std::string() : changed.error().message()));
  }
};

option_list with_backing(option_list list, const std::string& name) {
  list.emplace_back("backing_file", name);
  list.emplace_back("backing_fmt", "qcow2");
  return list;
}

const option_list shapes[] = {
    {{"cluster_size", "512"}, {"compat", "0.10"}},          {{"cluster_size", "2K"}},
    {{"cluster_size", "4K"}, {"compat", "0.10"}},           {},
    {{"cluster_size", "2M"}, {"compression_type", "zstd"}},
};

} // namespace

TEST_CASE("qcow2 backing name: changed, lengthened, shortened and removed, nothing else changes") {
  for (const option_list& shape : shapes) {
    changing c(with_backing(shape, "base.qcow2"));
    const bool is_small = !shape.empty() && shape[0].second == "512";
    c.b.bench.must(c.way.write(0, pattern(5000, 1)));
    const header before = without_backing(c.disk.bytes);
    const u64 longest = is_small ? 300 : !shape.empty() && shape[0].second == "2K" ? 500 : 1023;
    const reference steps[] = {
        image_reference{"../other directory/b:c.qcow2", "qcow2"},
        image_reference{std::string(longest, 'n'), "raw"},
        image_reference{"a", "qcow2"},
        std::nullopt,
        std::nullopt,
        image_reference{"json:{\"driver\": \"raw\", \"offset\": 512}", "raw"},
        image_reference{"/abs/base", "fifteen-letters"},
    };
    for (const reference& to : steps) {
      CAPTURE(shown(to));
      c.must_change(to);
      CHECK(shown(stored_in(c.disk.bytes)) == shown(to));
      CHECK(shown(c.b.top().instance().backing_reference()) == shown(to));
      CHECK(without_backing(c.disk.bytes) == before);
      for (const header_extension& e :
           parse_header(std::span(c.disk.bytes).first(before.g.cluster()))->extensions)
        CHECK(e.type != extension_type::detour);
      require_sound(c.disk);
    }
    // What is left of the first cluster is empty again: no old names.
    const auto end = 72 + 8 * 60 + 100;
    if (!is_small)
      CHECK(
          is_zero(std::span<const std::byte>(c.disk.bytes).subspan(end, before.g.cluster() - end)));
    c.b.close();
  }
}

TEST_CASE("qcow2 backing name: what a header cannot hold is refused, and nothing is written") {
  changing c({{"cluster_size", "1K"}});
  const auto before = c.disk.bytes;
  struct row {
    image_reference to;
    const char* message;
  };
  const row rows[] = {
      {{"", "raw"},
       "a backing file name is not empty and contains no zero byte; to have no backing file, give "
       "none"},
      {{std::string("a\0b", 3), "raw"}, "a backing file name is not empty and contains no zero"},
      {{std::string(1024, 'n'), "raw"},
       "the backing file name is 1024 bytes long; a qcow2 header holds at most 1023"},
      {{"base", ""},
       "backing file 'base' is given without its format; whoever opens the image would have to "
       "guess it"},
      {{"base", "sixteen-letters!"},
       "the backing format 'sixteen-letters!' is 16 bytes long; a qcow2 header holds at most 15"},
      {{std::string(1000, 'n'), "raw"},
       "the header with its backing file name of 1000 bytes does not fit into the first cluster of "
       "1024 bytes; use a shorter name"},
      {{std::string(500, 'n'), "raw"},
       "the first cluster of 1024 bytes has no room for a header of 636 bytes beside the one in "
       "force, which ends at 120, so that a crash could destroy both; use a shorter name, or an "
       "image with larger clusters"},
  };
  for (const row& r : rows) {
    const result<> refused = c.change(r.to);
    REQUIRE(!refused);
    CHECK(refused.error().kind() == error_kind::invalid_argument);
    CHECK_MESSAGE(refused.error().message().starts_with(r.message), refused.error().message());
    CHECK(c.disk.bytes == before);
    CHECK_FALSE(c.b.top().instance().backing_reference().has_value());
  }
}

TEST_CASE("qcow2 backing name: a read-only image keeps its own") {
  qcow2_bench b;
  b.create("d", 1 << 20);
  node& n = b.bench.open(qcow2_bench::image_spec("d", {{"read-only", "on"}}));
  auto& face = dynamic_cast<backing_writer&>(n.instance());
  const result<> refused =
      b.bench.run(face.change_backing_reference(image_reference{"base", "raw"}));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::permission);
  CHECK(refused.error().message() == "the backing file name of a read-only image cannot change; "
                                     "open it with 'read-only: false'");
}

TEST_CASE("qcow2 backing name: wherever it stops, the old or the new name is in force") {
  for (const option_list& shape : shapes) {
    const bool is_small = !shape.empty() && shape[0].second == "512";
    const reference names[] = {image_reference{"old.qcow2", "qcow2"},
                               image_reference{std::string(is_small ? 200 : 400, 'n'), "raw"},
                               std::nullopt, image_reference{"short", "qcow2"}};
    changing c(with_backing(shape, "old.qcow2"));
    const header kept = without_backing(c.disk.bytes);
    for (std::size_t step = 1; step < std::size(names); step++) {
      const std::vector<std::byte> start = c.disk.bytes;
      c.disk.log.clear();
      c.disk.keeps_log = true;
      c.must_change(names[step]);
      c.disk.keeps_log = false;
      CHECK(c.disk.log.back().what != memory_event::kind::discard);
      std::vector<std::byte> durable = start;
      bool was_new = false;
      for (std::size_t cut = 0; cut < c.disk.log.size(); cut++) {
        const memory_event& e = c.disk.log[cut];
        if (e.what == memory_event::kind::flush)
          continue;
        // Sectors of one write reach the disk in any order, or not: each alone, and all but each.
        const u64 first = e.range.offset / 512;
        const u64 last = (e.range.end() - 1) / 512;
        const auto apply = [&](std::vector<std::byte> image, u64 sector, bool only) {
          for (u64 at = e.range.offset; at < e.range.end(); at++)
            if ((at / 512 == sector) == only)
              image[at] = e.bytes[at - e.range.offset];
          return image;
        };
        for (u64 sector = first; sector <= last; sector++) {
          for (const bool only : {true, false}) {
            const auto image = apply(durable, sector, only);
            const std::string now = shown(stored_in(image));
            const bool is_new = now == shown(names[step]);
            CHECK_MESSAGE((is_new || now == shown(names[step - 1])), now);
            CHECK((is_new || !was_new));
            CHECK(without_backing(image) == kept);
          }
        }
        const bool is_last = cut + 1 == c.disk.log.size();
        // The next write begins only after a flush, so this one is on the disk then.
        CHECK((is_last || c.disk.log[cut + 1].what == memory_event::kind::flush));
        durable = apply(durable, ~u64{0}, false);
        was_new = shown(stored_in(durable)) == shown(names[step]);
      }
      CHECK(was_new);
      CHECK(durable == c.disk.bytes);
    }
    c.b.close();
  }
}

TEST_CASE("qcow2 backing name: a write that fails leaves one of both, and memory knows which") {
  for (u64 fails_at = 0;; fails_at++) {
    changing c(with_backing({}, "old.qcow2"));
    u64 count = 0;
    c.disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (count++ != fails_at)
        return std::nullopt;
      return error(error_kind::io, "injected");
    };
    const result<> changed = c.change(image_reference{std::string(700, 'n'), "raw"});
    c.disk.fault = nullptr;
    const reference now = stored_in(c.disk.bytes);
    CHECK(shown(now) == shown(c.b.top().instance().backing_reference()));
    CHECK((now->filename == "old.qcow2") == !changed.has_value());
    c.must_change(image_reference{"third", "qcow2"}); // it can be tried again, and tidies up
    CHECK(stored_in(c.disk.bytes)->filename == "third");
    for (const header_extension& e : parse_header(std::span(c.disk.bytes).first(65536))->extensions)
      CHECK(e.type != extension_type::detour);
    c.b.close();
    require_sound(c.disk);
    if (count <= fails_at)
      break;
  }
}

// The states between the flushes, held against another reader where one is installed.
TEST_CASE("qcow2 backing name: the peer reads every state there is") {
  if (std::system("command -v qemu-img >/dev/null 2>&1") != 0)
    return;
  const scratch_directory dir;
  (void)dir.file("dir with space/new.raw", 1 << 20);
  const std::string old = dir.path / "old.qcow2";
  REQUIRE(std::system(fmt::format("qemu-img create -q -f qcow2 '{}' 1M", old).c_str()) == 0);
  changing c(with_backing({}, "old.qcow2"));
  std::vector<std::byte> state = c.disk.bytes;
  c.disk.keeps_log = true;
  c.must_change(image_reference{"dir with space/new.raw", "raw"});
  c.disk.keeps_log = false;
  std::string seen;
  for (const memory_event& e : c.disk.log) {
    if (e.what == memory_event::kind::flush)
      continue;
    std::ranges::copy(e.bytes, state.begin() + static_cast<i64>(e.range.offset));
    const std::string name = dir.path / "state.qcow2";
    std::ofstream(name, std::ios::binary)
        .write(reinterpret_cast<const char*>(state.data()),
               static_cast<std::streamsize>(state.size()));
    CHECK(std::system(fmt::format("qemu-img check -q '{}'", name).c_str()) == 0);
    const std::string out = dir.path / "info";
    REQUIRE(std::system(fmt::format("qemu-img info --output=json '{}' >'{}'", name, out).c_str()) ==
            0);
    std::ifstream in(out);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const bool is_new = text.contains(R"("backing-filename": "dir with space/new.raw")") &&
                        text.contains(R"("backing-filename-format": "raw")");
    const bool is_old = text.contains(R"("backing-filename": "old.qcow2")") &&
                        text.contains(R"("backing-filename-format": "qcow2")");
    CHECK_MESSAGE((is_old || is_new), text);
    seen += is_new ? 'n' : 'o';
  }
  CHECK(seen == "onnnn");
}
