// SPDX-License-Identifier: MIT
// Encrypted images: keys that are missing or wrong, what status says of them, what is made and what
// is refused. Their content is held against a byte array in model.cpp, crash.cpp and faults.cpp.
#include "graph/model/edit.h"
#include "tests/unit/drivers/qcow2/deflate.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

const option_list keyed{{"encrypt.key-secret", "sec0"}};

option_list luks_options(option_list more = {}) {
  return create_options("luks", small_luks(std::move(more)));
}

// An image with some data in it, closed.
memory_disk& make_luks(qcow2_bench& b, u64 length = 1 << 20, option_list more = {}) {
  b.add_secret("sec0", test_passphrase);
  memory_disk& disk = b.create("d", length, luks_options(std::move(more)));
  root& way = b.open("d", keyed);
  b.bench.must(way.write(0, pattern(100000, 1)));
  b.close();
  return disk;
}

bool contains(std::span<const std::byte> all, std::span<const std::byte> part) {
  return !std::ranges::search(all, part).empty();
}

std::string create_error(qcow2_bench& b, const option_list& list) {
  const result<> made = b.try_create("new", 1 << 20, list);
  return made ? std::string() : made.error().message();
}

} // namespace

TEST_CASE("qcow2: without the right key an encrypted image is not opened, and says why") {
  qcow2_bench b;
  memory_disk& disk = make_luks(b);
  b.add_secret("other", "not the passphrase");
  const std::vector<std::byte> before = disk.bytes;
  struct row {
    option_list options;
    std::string expected;
  };
  const row rows[] = {
      {{},
       "the image is encrypted with 'luks', and its content cannot be read or written without "
       "the key: declare a secret, and give 'encrypt: {format: luks, key-secret: ID}'"},
      {{{"encrypt.format", "luks"}}, "cannot be read or written without the key"},
      {{{"encrypt.key-secret", "sec1"}},
       "option 'encrypt.key-secret' names the secret 'sec1', which there is not; did you mean "
       "'sec0'?; declare it"},
      {{{"encrypt.key-secret", "something"}}, "which there is not; there are other, sec0; declare"},
      {{{"encrypt.key-secret", "other"}},
       "secret 'other': the secret opens none of the 1 active key slots"},
      {{{"encrypt.format", "aes"}, {"encrypt.key-secret", "sec0"}},
       "'encrypt.format' is 'aes', but the image says that it is encrypted with 'luks'"},
  };
  for (const row& r : rows) {
    const std::string message = b.open_error("d", r.options);
    CHECK_MESSAGE(message.contains(r.expected), message);
    CHECK(!message.contains(test_passphrase));
    CHECK(!message.contains("not the passphrase"));
  }
  CHECK(disk.bytes == before);
  CHECK(b.open_error("d", {{"encrypt.format", "luks"}, {"encrypt.key-secret", "sec0"}}).empty());
  b.create("plain", 1 << 20);
  CHECK(
      b.open_error("plain", keyed).contains("'encrypt' is given, but the image is not encrypted"));
}

TEST_CASE("qcow2: what an encrypted image is can be asked without its key") {
  qcow2_bench b;
  make_luks(b);
  node_spec spec = qcow2_bench::image_spec("d").build();
  spec.is_info_only = true;
  node& n = *b.bench.must(b.bench.graph().open(std::move(spec)));
  const driver_info info = n.instance().info();
  CHECK(info.is_encrypted);
  const value* const shown = info.format_specific.find("data")->find("encrypt");
  REQUIRE(shown != nullptr);
  CHECK(*shown->find("format")->as_text() == "luks");
  CHECK(*shown->find("cipher-alg")->as_text() == "aes-128");
  root& way = b.bench.attach(n);
  std::vector<std::byte> bytes(4096);
  for (const result<>& r : {b.bench.run(way.read(0, bytes)), b.bench.run(way.write(0, bytes))}) {
    REQUIRE(!r.has_value());
    CHECK(r.error().kind() == error_kind::permission);
    CHECK(r.error().message().contains("was opened without its key"));
  }
  b.bench.detach(way);
  b.bench.must(b.bench.graph().close(n));
}

TEST_CASE("qcow2: status of encrypted data names no place, and nothing of it is in the file") {
  qcow2_bench b;
  memory_disk& disk = make_luks(b);
  const auto written = pattern(100000, 1);
  CHECK(!contains(disk.bytes, std::span(written).first(64)));
  CHECK(!contains(disk.bytes, std::as_bytes(std::span(test_passphrase))));
  root& way = b.open("d", keyed);
  b.bench.must(way.write_zeroes({0, 65536})); // keeps its cluster
  for (const u64 at : {u64{0}, u64{65536}, u64{200000}}) {
    const block_status s = b.bench.must(way.status_above({at, 1000}));
    CHECK(s.is_data == (at == 65536));
    CHECK(s.is_zero == (at != 65536));
    CHECK(s.file == nullptr);
    CHECK(!s.is_compressed);
  }
  CHECK(b.top().limits().request_alignment == 512);
  b.close();
}

TEST_CASE("qcow2: new encrypted images are sound, and the rest of their header is zero") {
  for (const option_list& more :
       {option_list{}, option_list{{"cluster_size", "512"}}, option_list{{"cluster_size", "2M"}},
        option_list{{"cluster_size", "512"}, {"refcount_bits", "64"}},
        option_list{{"compat", "0.10"}}, option_list{{"refcount_bits", "1"}},
        option_list{{"lazy_refcounts", "on"}}, option_list{{"extended_l2", "on"}}}) {
    qcow2_bench b;
    b.add_secret("sec0", test_passphrase);
    memory_disk& disk = b.create("d", 1 << 20, luks_options(more));
    require_sound(disk);
    root& way = b.open("d", keyed);
    CHECK(read_all(b.bench, way) == std::vector<std::byte>(1 << 20));
    b.close();
  }
}

// Not a moment at which the disk has its length and is not encrypted.
TEST_CASE("qcow2: creating an encrypted image can fail anywhere") {
  u64 nth = 1;
  for (bool came = true; came; nth++) {
    CAPTURE(nth);
    qcow2_bench b;
    memory_disk& disk = b.bench.disk("new");
    secret_store secrets;
    REQUIRE(secrets.add("sec0", secret_bytes(std::as_bytes(std::span(test_passphrase)))));
    const option_schema* schemas[] = {qcow2_driver_type.create_options};
    const result<options> given =
        validate_options(schemas, to_value(luks_options({{"cluster_size", "4K"}})));
    REQUIRE(given.has_value());
    node& file = b.bench.open(disk_spec("new"));
    root& way = b.bench.attach(file, may_resize);
    u64 seen = 0;
    disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (++seen != nth)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    edge* const to = &way.as_edge();
    const result<> made =
        b.bench.run(make_image(b.bench.home(), {&to, 1}, *given, 1 << 20, &secrets));
    disk.fault = nullptr;
    came = seen >= nth;
    const bool is_image = disk.bytes.size() > 72 && load<be32>(disk.bytes) == 0x514649fb;
    if (is_image && load<be64>(disk.bytes, 24) != 0)
      CHECK(load<be32>(disk.bytes, 32) == 2);
    if (!came)
      CHECK(made.has_value());
    b.bench.detach(way);
    b.bench.must(b.bench.graph().close(file));
  }
  CHECK(nth > 20);
}

TEST_CASE("qcow2: encryption that protects nothing, or cannot be, is not made") {
  qcow2_bench b;
  b.add_secret("sec0", test_passphrase);
  const auto with = [](option_list more) { return create_options("luks", std::move(more)); };
  struct row {
    option_list options;
    std::string expected;
  };
  const row rows[] = {
      {{{"encrypt.format", "aes"}, {"encrypt.key-secret", "sec0"}},
       "encryption with aes protects too little to make new images with it"},
      {{{"encrypt.format", "luks"}}, "'encrypt.format' needs 'encrypt.key-secret'"},
      {{{"encrypt.key-secret", "sec0"}},
       "'encrypt.key-secret' is given without 'encrypt.format=luks'"},
      {{{"encrypt.iter-time", "10"}}, "'encrypt.iter-time' is given without"},
      {{{"encrypt.format", "luks"}, {"encrypt.key-secret", "nothing"}},
       "names the secret 'nothing', which there is not"},
      {with({{"encrypt.cipher-mode", "ecb"}}), "'encrypt.cipher-mode' ecb shows which sectors"},
      {with({{"encrypt.cipher-mode", "ctr"}}), "'encrypt.cipher-mode' ctr shows which sectors"},
      {with({{"encrypt.ivgen-hash-alg", "sha256"}}),
       "'encrypt.ivgen-hash-alg' is for 'encrypt.ivgen-alg=essiv'; it means nothing with "
       "'plain64'"},
      {with({{"encrypt.ivgen-alg", "essiv"}, {"encrypt.ivgen-hash-alg", "sha1"}}),
       "'essiv:sha1' need an AES key of 20 bytes"},
  };
  for (const row& r : rows) {
    const std::string message = create_error(b, r.options);
    CHECK_MESSAGE(message.contains(r.expected), message);
    CHECK(memory_disks()["new"]->bytes.empty());
  }
}

TEST_CASE("qcow2: preallocated clusters of encrypted images read as zeroes") {
  for (const char* const mode : {"metadata", "falloc", "full"}) {
    for (const char* const extended : {"off", "on"}) {
      qcow2_bench b;
      b.add_secret("sec0", test_passphrase);
      memory_disk& disk = b.create(
          "d", 300 << 10, luks_options({{"preallocation", mode}, {"extended_l2", extended}}));
      root& way = b.open("d", keyed);
      CHECK(read_all(b.bench, way) == std::vector<std::byte>(300 << 10));
      const auto bytes = pattern(1000, 4);
      b.bench.must(way.write(70000, bytes));
      std::vector<std::byte> model(300 << 10);
      std::ranges::copy(bytes, model.begin() + 70000);
      CHECK(read_all(b.bench, way) == model);
      b.close();
      require_sound(disk);
    }
  }
  qcow2_bench b;
  b.add_secret("sec0", test_passphrase);
  CHECK(create_error(b, luks_options({{"compat", "0.10"}, {"preallocation", "metadata"}}))
            .contains("version 2 cannot mark them as zeroes"));
}

TEST_CASE("qcow2: a write that would go over the encryption header is refused") {
  qcow2_bench b;
  memory_disk& disk = make_luks(b);
  const u64 header = luks_header_at(disk.bytes);
  const u64 l1 = load<be64>(disk.bytes, 40);
  const u64 l2 = load<be64>(disk.bytes, l1) & 0x00fffffffffffe00;
  store(std::span(disk.bytes), be64(header | u64{1} << 63), l2); // guest cluster 0 lies there
  root& way = b.open("d", keyed);
  const result<> written = b.bench.run(way.write(0, pattern(512, 1)));
  REQUIRE(!written.has_value());
  CHECK(written.error().message().contains("would go over the encryption header"));
  b.close();
}

TEST_CASE("qcow2: an encryption header beyond the end of the file or without LUKS is corrupt") {
  qcow2_bench b;
  memory_disk& disk = make_luks(b);
  const u64 header = luks_header_at(disk.bytes);
  const std::vector<std::byte> before = disk.bytes;
  u64 pointer = 112;
  while (load<be64>(disk.bytes, pointer) != header)
    pointer += 8;
  const u64 end = align_up(disk.bytes.size(), 65536);
  disk.bytes.resize(end);
  store(std::span(disk.bytes), be64(end), pointer);
  CHECK(b.open_error("d", keyed).contains("the encryption header at"));
  store(std::span(disk.bytes), be64(end - 65536), pointer); // the key material is not all there
  std::copy_n(before.begin() + static_cast<i64>(header), 592,
              disk.bytes.begin() + static_cast<i64>(end - 65536));
  CHECK(b.open_error("d", keyed).contains("reaches beyond the end of the file"));
  disk.bytes = before;
  store(std::span(disk.bytes), be64(1024), pointer + 8);
  CHECK(b.open_error("d", keyed).contains("reaches beyond the end of the LUKS header area"));
  disk.bytes = before;
  disk.bytes[header] = std::byte{0};
  CHECK(b.open_error("d", keyed).contains("there is no LUKS header"));
}

// Whoever wrote such clusters did not encrypt them.
TEST_CASE("qcow2: compressed clusters of an encrypted image are read as they are") {
  qcow2_bench b;
  memory_disk& disk = make_luks(b, 1 << 20, {{"cluster_size", "4K"}});
  std::vector<std::byte> bytes(4096, std::byte{7});
  bytes[2000] = std::byte{1};
  image_editor(disk.bytes).add_compressed(512 << 10, deflate_raw(bytes));
  root& way = b.open("d", keyed);
  std::vector<std::byte> found(4096);
  b.bench.must(way.read(512 << 10, found));
  CHECK(found == bytes);
  b.bench.must(way.write((512 << 10) + 512, pattern(512, 2))); // becomes an encrypted cluster
  b.bench.must(way.read(512 << 10, found));
  CHECK(std::ranges::equal(std::span(found).first(512), std::span(bytes).first(512)));
  CHECK(std::ranges::equal(std::span(found).subspan(512, 512), pattern(512, 2)));
  b.close();
  CHECK(check_image(disk.bytes).errors.empty());
}

TEST_CASE("qcow2: other options of an encrypted image may change, its key may not") {
  qcow2_bench b;
  make_luks(b);
  b.add_secret("sec1", test_passphrase);
  root& way = b.open("d", keyed);
  const auto reopened = [&](const option_list& list) {
    spec_builder s = qcow2_bench::image_spec("d", list);
    const option_schema* schemas[] = {qcow2_driver_type.open_options, &generic_node_schema};
    const result<options> given = validate_options(schemas, s.given);
    REQUIRE(given.has_value());
    return check_only_mutable_change(*qcow2_driver_type.open_options, b.top().given(), *given);
  };
  CHECK(reopened({{"encrypt.key-secret", "sec0"}, {"l2-cache-size", "1M"}}).has_value());
  const result<> refused = reopened({{"encrypt.key-secret", "sec1"}});
  REQUIRE(!refused.has_value());
  CHECK(refused.error().kind() == error_kind::unsupported);
  std::vector<std::byte> bytes(100000);
  b.bench.must(way.read(0, bytes));
  CHECK(bytes == pattern(100000, 1));
  b.close();
}

TEST_CASE("qcow2: a chain may be encrypted in part") {
  for (const bool is_top : {false, true}) {
    qcow2_bench b;
    b.add_secret("sec0", test_passphrase);
    b.create("base", 1 << 20, is_top ? option_list{} : luks_options());
    b.create("top", 1 << 20, is_top ? luks_options() : option_list{});
    const option_list none;
    root& low = b.open("base", is_top ? none : keyed);
    std::vector<std::byte> model(1 << 20);
    const auto first = pattern(300000, 1);
    b.bench.must(low.write(1000, first));
    std::ranges::copy(first, model.begin() + 1000);
    b.close();
    spec_builder top = qcow2_bench::image_spec("top", is_top ? keyed : none);
    top.child("backing", qcow2_bench::image_spec("base", is_top ? none : keyed));
    node& n = b.bench.open(top);
    root& way = b.bench.attach(n, may_resize);
    CHECK(read_all(b.bench, way) == model);
    const auto second = pattern(70001, 2);
    b.bench.must(way.write(99999, second));
    std::ranges::copy(second, model.begin() + 99999);
    CHECK(read_all(b.bench, way) == model);
    b.bench.detach(way);
    b.bench.must(b.bench.graph().close(n));
  }
}

// At any offset, though only whole sectors can be decrypted, and in place the second time.
TEST_CASE("qcow2: the state of a machine is encrypted like the disk, in snapshots, too") {
  for (const std::string format : {"luks", "aes"}) {
    CAPTURE(format);
    qcow2_bench b({&internal_snapshot_driver_type});
    b.add_secret("sec0", test_passphrase);
    memory_disk& disk =
        b.create("d", 64 << 10,
                 create_options(format, format == "luks" ? small_luks({{"cluster_size", "4K"}})
                                                         : option_list{{"cluster_size", "4K"}}));
    if (format == "aes")
      make_legacy(disk);
    root& way = b.open("d", keyed);
    b.bench.must(way.write(0, pattern(20000, 1)));
    const auto state = pattern(10007, 2);
    b.bench.must(b.top().write_vmstate(0, pattern(state.size(), 3)));
    for (u64 at = 0; at < state.size(); at += 777)
      b.bench.must(b.top().write_vmstate(
          at, std::span(state).subspan(at, std::min<u64>(777, state.size() - at))));
    const auto expect_state = [&](const auto& read) {
      for (const byte_range part : {byte_range{0, state.size()}, byte_range{1, 600},
                                    byte_range{511, 2}, byte_range{512, 1024}}) {
        std::vector<std::byte> seen(part.length);
        read(part.offset, std::span(seen));
        CHECK(is_same(seen, std::span(state).subspan(part.offset, part.length)));
      }
    };
    expect_state(
        [&](u64 at, std::span<std::byte> bytes) { b.bench.must(b.top().read_vmstate(at, bytes)); });
    CHECK_FALSE(contains(disk.bytes, std::span(state).subspan(600, 64)));
    const snapshot_actions actions{b.bench, b.top()};
    actions.create("s", state.size());
    b.bench.must(way.write(0, pattern(20000, 4)));
    {
      const auto view =
          b.bench.must(b.top().as_snapshottable()->open_snapshot(named("s"), "the test"));
      expect_state(
          [&](u64 at, std::span<std::byte> bytes) { b.bench.must(view->read_vmstate(at, bytes)); });
    }
    node& shown = b.bench.open(view_spec("v", "img-d", named("s")));
    root& look = b.bench.attach(shown, may_read);
    std::vector<std::byte> bytes(1001);
    b.bench.must(look.read(777, bytes)); // not of whole sectors
    CHECK(is_same(bytes, std::span<const std::byte>(pattern(20000, 1)).subspan(777, 1001)));
    b.bench.detach(look);
    b.bench.must(b.bench.graph().close(shown));
    b.close();
    require_sound(disk);
  }
}
