// SPDX-License-Identifier: MIT
// Persistent bitmaps, behaviour by behaviour: when the image says what, what is read when, what is
// refused, and what hostile directories and tables can do.
#include "drivers/format/qcow2/bitmap_table.h"
#include "tests/unit/drivers/qcow2/bitmap_bench.h"
#include "tests/unit/drivers/qcow2/image_editor.h"

using namespace bgfs;
using namespace bgfs::test;
using kind = bitmap_change::kind;

namespace {

using indices = std::vector<u64>;

// Where entry `index` of the directory is, and what it says.
struct entry_place {
  u64 at = 0;
  u64 table = 0;
  u64 table_entries = 0;
};
entry_place find_entry(std::vector<std::byte>& image, u64 index = 0) {
  const image_editor e(image);
  const qcow2::bitmap_directory where = **e.header().bitmaps();
  const auto all = qcow2::parse_bitmap_directory(
      e.header().g, std::span(image).subspan(where.range.offset, where.range.length), where.count,
      e.header().disk_length);
  REQUIRE(all.has_value());
  const qcow2::stored_bitmap& b = (*all)[index];
  return {where.range.offset + b.flags_at - 12, b.table.value, b.table_entries};
}

// An image of 64 clusters of 4 KiB with a bitmap "b" of blocks of 512 bytes, closed.
struct closed_image : bitmap_fixture {
  explicit closed_image(const std::string& name = "b", u64 length = MiB)
      : bitmap_fixture(length, {{"cluster_size", "4K"}}) {
    actions->add_persistent(name, 512);
    write(1024, 512);
    close();
  }
  std::vector<std::byte>& bytes() { return disk->bytes; }
};

} // namespace

TEST_CASE(
    "qcow2 bitmaps: the image is marked before the first change, and says the truth when closed") {
  bitmap_fixture f;
  f.actions->add_persistent("on", 512);
  f.actions->add_persistent("off", 4096, false);
  CHECK(read_bitmaps(f.disk->bytes).empty()); // in memory until the image is closed
  f.write(512, 1024);
  f.close();
  CHECK(f.stored("on").flags == 2);
  CHECK(f.stored("off").flags == 0);
  CHECK(f.stored_dirty("on") == indices{1, 2});
  CHECK(f.stored_dirty("off").empty());
  const auto before = f.disk->bytes;
  f.open();
  (void)f.actions->read("on");
  f.close();
  CHECK(f.disk->bytes == before); // looking changes nothing
  f.open();
  f.write(0, 512);
  CHECK(f.stored("on").flags == 3);
  CHECK(f.stored("off").flags == 1); // which is nobody's loss: it is stored again
  f.actions->enable("off");
  f.write(8192, 512);
  f.close();
  CHECK(f.stored_dirty("on") == indices{0, 1, 2, 16});
  CHECK(f.stored_dirty("off") == indices{2});
  CHECK(f.stored("off").flags == 2);
}

TEST_CASE("qcow2 bitmaps: a change is marked, too, so that a crash after it tells nothing wrong") {
  closed_image i;
  for (const kind k : {kind::clear, kind::disable, kind::enable}) {
    i.open();
    i.actions->apply(i.actions->change(k, "b"));
    CHECK((i.stored("b").flags & 1) == 1);
    i.close();
    CHECK((i.stored("b").flags & 1) == 0);
  }
  i.open();
  i.actions->add("mem", 512);
  i.write(8192, 512);
  i.actions->merge("b", i.b.top(), "mem");
  i.close();
  CHECK(i.stored_dirty("b") == indices{16});
}

TEST_CASE("qcow2 bitmaps: bits are read when they are asked for, and not before") {
  closed_image i;
  u64 reads_of_bits = 0;
  const u64 bits_at = image_editor(i.bytes()).number(find_entry(i.bytes()).table);
  REQUIRE(bits_at > 4096);
  i.disk->fault = [&](std::string_view what, byte_range range) -> std::optional<error> {
    reads_of_bits += what == "read" && range.contains(bits_at) ? 1 : 0;
    return std::nullopt;
  };
  i.open({{"read-only", "on"}}, may_read);
  CHECK(!i.actions->find("b")->is_complete());
  CHECK(i.actions->find("b")->memory() < 4096);
  std::vector<std::byte> bytes(4096);
  i.b.bench.must(i.r->read(0, bytes));
  CHECK(reads_of_bits == 0);
  CHECK(i.actions->dirty("b") == std::vector<byte_range>{{1024, 512}});
  CHECK(reads_of_bits == 1);
  CHECK(i.actions->dirty("b") == std::vector<byte_range>{{1024, 512}});
  CHECK(reads_of_bits == 1);
  i.close();
  // Written without being asked for: what was there and what is new are stored.
  i.open();
  i.write(4096, 512);
  CHECK(reads_of_bits == 1);
  i.close();
  CHECK(i.stored_dirty("b") == indices{2, 8});
  // Cleared, nobody needs what was there.
  reads_of_bits = 0;
  i.open();
  i.actions->clear("b");
  i.write(0, 512);
  i.close();
  CHECK(i.stored_dirty("b") == indices{0});
  i.disk->fault = nullptr;
}

TEST_CASE("qcow2 bitmaps: of a read-only image they can be read and not changed") {
  closed_image i;
  const auto before = i.bytes();
  i.open({{"read-only", "on"}}, may_read);
  for (const kind k : {kind::clear, kind::enable, kind::disable, kind::remove, kind::merge}) {
    bitmap_change c = i.actions->merging("b", i.b.top(), "b");
    c.what = k;
    const result<> refused = i.actions->attempt(std::move(c));
    REQUIRE(!refused);
    CHECK(refused.error().kind() == error_kind::permission);
    CHECK(refused.error().message().ends_with(
        "is read-only; open it with 'read-only: false' to write"));
  }
  CHECK(i.actions->error_of(i.actions->addition("c", 512, true)).ends_with("to write"));
  i.actions->add("c", 512); // in memory alone
  i.close();
  CHECK(i.bytes() == before);
}

TEST_CASE(
    "qcow2 bitmaps: one cut off and grown again with the disk is clean where it was cut off") {
  closed_image i;
  i.open();
  i.write(MiB - 512, 512);
  i.write(MiB - 4096 - 512, 512);
  i.close_and_open();
  i.b.bench.must(i.r->truncate(MiB - 4096)); // before anybody has read the bits
  i.b.bench.must(i.r->truncate(2 * MiB));
  i.write(2 * MiB - 512, 512);
  i.close();
  CHECK(i.stored_dirty("b") == indices{2, 2039, 4095});
  i.open();
  CHECK(i.actions->read("b").length() == 2 * MiB);
  i.close();
}

TEST_CASE(
    "qcow2 bitmaps: one that is inconsistent is listed, can be removed, and keeps the length") {
  closed_image i;
  i.bytes()[find_entry(i.bytes()).at + 15] = std::byte{3};
  i.open();
  const dirty_bitmap* const b = i.actions->find("b");
  REQUIRE(b != nullptr);
  CHECK(b->is_inconsistent());
  const auto refused = i.actions->try_read("b");
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::corrupt_image);
  CHECK(refused.error().message() ==
        "bitmap 'b' of node 'img-d' (qcow2) is inconsistent (it was not stored after its image was "
        "written): it can only be removed");
  i.write(0, 512);
  const result<> resized = i.b.bench.run(i.r->truncate(2 * MiB));
  REQUIRE(!resized);
  CHECK(resized.error().message() ==
        "bitmap 'b' of node 'img-d' (qcow2) is inconsistent (it was not stored after its image was "
        "written) and cannot follow another length; remove it first");
  i.actions->add_persistent("c", 512);
  i.close_and_open();
  CHECK(i.stored("b").flags == 3); // still
  CHECK(i.stored("c").flags == 2);
  i.actions->remove("b");
  CHECK(!read_bitmaps(i.bytes()).contains("b")); // at once
  i.b.bench.must(i.r->truncate(2 * MiB));
  i.close();
}

TEST_CASE(
    "qcow2 bitmaps: extra data is kept; unless it says that it may be, the bitmap is not used") {
  for (const bool is_compatible : {false, true}) {
    bitmap_fixture f;
    f.actions->add_persistent("extra", 512);
    f.actions->add_persistent("plain", 512);
    f.close();
    // "extra" gets 8 bytes of it, in a directory that has room.
    image_editor e(f.disk->bytes);
    const qcow2::bitmap_directory where = **e.header().bitmaps();
    auto all = *qcow2::parse_bitmap_directory(
        e.header().g, std::span(f.disk->bytes).subspan(where.range.offset, where.range.length), 2,
        MiB);
    all[0].extra = pattern(8, 3);
    all[0].flags |= is_compatible ? 4 : 0;
    const auto directory = qcow2::serialise_bitmap_directory(all);
    std::ranges::copy(directory, f.disk->bytes.begin() + static_cast<i64>(where.range.offset));
    qcow2::header h = e.header();
    std::erase_if(h.extensions,
                  [](const auto& x) { return x.type == qcow2::extension_type::bitmaps; });
    h.extensions.insert(h.extensions.begin(),
                        qcow2::make_bitmaps({2, {where.range.offset, directory.size()}}));
    e.write_header(h);
    f.open();
    CHECK(f.actions->find("extra")->is_inconsistent() == !is_compatible);
    if (!is_compatible)
      CHECK(f.actions->try_read("extra").error().message().find(
                "it has extra data that is not understood here") != std::string::npos);
    f.write(0, 512);
    f.close();
    CHECK(f.stored("extra").flags == (is_compatible ? 6 : 3));
    CHECK(f.stored("plain").flags == 2);
    image_editor again(f.disk->bytes);
    const qcow2::bitmap_directory now = **again.header().bitmaps();
    const auto kept = *qcow2::parse_bitmap_directory(
        again.header().g, std::span(f.disk->bytes).subspan(now.range.offset, now.range.length), 2,
        MiB);
    CHECK(kept[0].extra == pattern(8, 3));
  }
}

TEST_CASE("qcow2 bitmaps: without the autoclear bit what the extension says counts for nothing") {
  closed_image i;
  image_editor(i.bytes()).put(88, 0);
  i.open();
  CHECK(i.b.top().bitmaps().is_empty());
  i.write(0, 512);
  i.actions->add_persistent("new", 512);
  i.b.close();
  require_sound(*i.disk, true); // the old ones leak, as for anybody who did not know them
  CHECK(read_bitmaps(i.bytes()).size() == 1);
  CHECK(i.stored("new").flags == 2);
}

TEST_CASE("qcow2 bitmaps: the last one takes the extension and the bit with it") {
  closed_image i;
  CHECK(image_editor(i.bytes()).header().autoclear == 1);
  i.open();
  i.actions->remove("b");
  i.close();
  const image_editor e(i.bytes());
  CHECK(e.header().autoclear == 0);
  CHECK(e.header().find(qcow2::extension_type::bitmaps) == nullptr);
}

TEST_CASE("qcow2 bitmaps: all clear and all set take no cluster") {
  bitmap_fixture f(64 * MiB);
  f.actions->add_persistent("b", 512);
  f.close_and_open();
  const auto entries = [&] {
    const entry_place p = find_entry(f.disk->bytes);
    std::vector<u64> all;
    for (u64 i = 0; i < p.table_entries; i++)
      all.push_back(image_editor(f.disk->bytes).number(p.table + i * 8));
    return all;
  };
  CHECK(entries() == indices(4, 0)); // 4 KiB of bits stand for 16 MiB
  f.b.bench.must(f.r->write_zeroes({16 * MiB, 32 * MiB}));
  f.close_and_open();
  CHECK(entries() == indices{0, 1, 1, 0});
  CHECK(f.actions->dirty("b") == std::vector<byte_range>{{16 * MiB, 32 * MiB}});
  f.b.bench.must(f.r->write_zeroes({0, 64 * MiB}));
  f.close_and_open();
  CHECK(entries() == indices(4, 1));
  // A part that the disk ends in has a cluster: only so are its last bits known to be clear.
  f.b.bench.must(f.r->truncate(40 * MiB));
  f.b.bench.must(f.r->write_zeroes({0, 40 * MiB}));
  f.close_and_open();
  REQUIRE(entries().size() == 3);
  CHECK(entries()[1] == 1);
  CHECK(entries()[2] > 1);
  f.close();
}

TEST_CASE("qcow2 bitmaps: unchanged ones stay where they are") {
  closed_image i;
  const entry_place before = find_entry(i.bytes());
  i.open();
  i.actions->add_persistent("c", 512, false);
  (void)i.actions->read("b");
  i.write(1024, 512); // dirty already
  i.close();
  CHECK(find_entry(i.bytes()).table == before.table);
  CHECK(i.stored_dirty("b") == indices{2});
}

TEST_CASE("qcow2 bitmaps: what an image cannot hold is refused before anything is written") {
  bitmap_fixture v2(MiB, {{"compat", "0.10"}});
  CHECK(v2.actions->error_of(v2.actions->addition("b", 512, true)) ==
        "adding bitmap 'b' to node 'img-d' (qcow2): a version 2 image cannot have bitmaps; convert "
        "it to version 3 (compat=1.1)");
  v2.close();
  bitmap_fixture f;
  auto& image = dynamic_cast<bitmap_store&>(f.b.top().instance());
  std::vector<bitmap_definition> many(65536, {.name = "n", .granularity = 512});
  const result<> crowded = image.check_can_store(many);
  REQUIRE(!crowded);
  CHECK(crowded.error().message() == "the image has 65535 bitmaps, and can have no more");
  many.assign(65535, {.name = std::string(1023, 'n'), .granularity = 512});
  const result<> large = image.check_can_store(many);
  REQUIRE(!large);
  CHECK(large.error().message().find("the names of the bitmaps take 0x") == 0);
  f.close();
}

TEST_CASE("qcow2 bitmaps: where the header has no room its feature names make it, or it is said") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", MiB, {{"cluster_size", "512"}});
  const auto length_of = [&](std::size_t name) {
    image_editor e(disk.bytes);
    qcow2::header h = e.header();
    std::erase_if(h.extensions,
                  [](const auto& x) { return x.type != qcow2::extension_type::feature_names; });
    h.backing_file = std::string(name, 'x');
    if (name > 8)
      h.extensions.clear();
    e.write_header(h);
  };
  b.open("d");
  bitmap_actions{b.bench, b.top()}.add_persistent("b", 512);
  b.close();
  require_sound(disk);
  CHECK(image_editor(disk.bytes).header().find(qcow2::extension_type::feature_names) == nullptr);
  CHECK(read_bitmaps(disk.bytes).size() == 1);
  b.open("d");
  bitmap_actions{b.bench, b.top()}.remove("b");
  b.close();
  length_of(380);
  b.open("d");
  CHECK(bitmap_actions{b.bench, b.top()}.error_of(
            bitmap_actions{b.bench, b.top()}.addition("b", 512, true)) ==
        "adding bitmap 'b' to node 'img-d' (qcow2): the header, with a backing file name of 380 "
        "bytes, leaves no room for the place of the bitmaps in the first cluster of 512 bytes; use "
        "an image with larger clusters");
  b.close();
}

TEST_CASE("qcow2 bitmaps: a longer header is changed beside the one in force") {
  for (const char* const cluster : {"1K", "4K", "64K"}) {
    bitmap_fixture f(MiB, {{"cluster_size", cluster},
                           {"backing_file", "some/name/of/a/base"},
                           {"backing_fmt", "raw"}});
    for (int round = 0; round < 3; round++) {
      f.actions->add_persistent("b" + std::to_string(round), 512);
      f.write(0, 512);
      f.close();
      CHECK(read_bitmaps(f.disk->bytes).size() == static_cast<std::size_t>(round + 1));
      const qcow2::header h = image_editor(f.disk->bytes).header();
      CHECK(h.backing_file == "some/name/of/a/base");
      CHECK(h.backing_format() == "raw");
      CHECK(h.find(qcow2::extension_type::detour) == nullptr);
      f.open();
    }
    f.close();
  }
}

TEST_CASE("qcow2 bitmaps: hostile directories and tables are refused, or harm no data") {
  struct row {
    const char* what;
    std::function<void(std::vector<std::byte>&)> spoil;
    const char* message; // of opening; "": it opens, and reading says it
    const char* of_reading = "";
  };
  const auto table_entry = [](u64 value) {
    return [value](std::vector<std::byte>& image) {
      image_editor(image).put(find_entry(image).table, value);
    };
  };
  const row rows[] = {
      {"a table behind the end",
       [](auto& image) { image_editor(image).put(find_entry(image).at, u64{1} << 40); },
       "reaches beyond the end of the file"},
      {"a reserved bit in the table", table_entry(2), "is impossible; the image is corrupt"},
      {"bits behind the end", table_entry(u64{1} << 40), "",
       "entry 0 of its table leads to 0x10000000000, behind the end of the file at"},
  };
  for (const row& at : rows) {
    CAPTURE(at.what);
    closed_image i;
    at.spoil(i.bytes());
    const std::string refused = i.b.open_error("d");
    CHECK(refused.find(at.message) != std::string::npos);
    if (*at.message != 0)
      continue;
    i.open();
    const auto read = i.actions->try_read("b");
    REQUIRE(!read);
    CHECK(read.error().message().find(at.of_reading) != std::string::npos);
    CHECK(read.error().message().ends_with("the bitmap is corrupt: remove it"));
    i.write(0, 512); // the disk is as good as before
    const result<> closed = i.b.try_close();
    REQUIRE(!closed); // what was there cannot be stored again
    CHECK(closed.error().message().find("reading bitmap 'b', to store it") != std::string::npos);
    CHECK(i.stored("b").flags == 3);
    i.open();
    i.actions->remove("b");
    i.b.close();
    require_sound(*i.disk, true);
  }
}

TEST_CASE("qcow2 bitmaps: a table that leads to other people's clusters takes none of them away") {
  closed_image i;
  image_editor e(i.bytes());
  const u64 data = e.number(e.entry_at(0)) & 0x00fffffffffffe00;
  REQUIRE(data != 0);
  const u64 l1 = e.number(40);
  for (const u64 stranger : {l1, e.number(48), u64{0x80000000}}) {
    CAPTURE(stranger);
    closed_image again;
    image_editor(again.bytes()).put(find_entry(again.bytes()).table, stranger);
    again.open();
    again.actions->remove("b");
    again.write(65536, 65536); // would get them, if they were free
    std::vector<std::byte> bytes(512);
    again.b.bench.must(again.r->read(1024, bytes));
    CHECK(bytes == pattern(512, 1));
    again.b.close();
    require_sound(*again.disk, true);
  }
}

TEST_CASE("qcow2 bitmaps: two of one name, and more tables than file, are refused") {
  bitmap_fixture f;
  f.actions->add_persistent("x1", 512);
  f.actions->add_persistent("x2", 512);
  f.close();
  const entry_place second = find_entry(f.disk->bytes, 1);
  auto twice = f.disk->bytes;
  twice[second.at + 25] = std::byte{'1'};
  f.b.place("twice", twice);
  CHECK(f.b.open_error("twice").ends_with("two bitmaps have the name 'x1'; the image is corrupt"));
  // 512 MiB of bits in clusters of 4 KiB: a table of 1 MiB, which the file has, but not twice.
  auto large = f.disk->bytes;
  large.resize(1536 * KiB);
  for (const u64 index : {0, 1}) {
    const u64 at = find_entry(large, index).at;
    store(std::span(large), be64(512 * KiB), at);
    store(std::span(large), be32(131072), at + 8);
  }
  f.b.place("large", large);
  CHECK(f.b.open_error("large").find("the tables of the bitmaps are longer than the file") !=
        std::string::npos);
}
