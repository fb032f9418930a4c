// SPDX-License-Identifier: MIT
// Keys of an encrypted image are added and erased while it is open.
#include "tests/unit/drivers/qcow2/encrypted_image.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct amended_image {
  qcow2_bench b;
  memory_disk* disk;
  root* way = nullptr;

  amended_image() {
    b.add_secret("sec0", test_passphrase);
    disk = &b.create("d", 1 << 20, create_options("luks", small_luks({{"cluster_size", "4K"}})));
    open("sec0");
    b.bench.must(way->write(0, pattern(50000, 1)));
  }
  void open(const std::string& id) { way = &b.open("d", {{"encrypt.key-secret", id}}); }
  void reopen(const std::string& id) {
    b.close();
    require_sound(*disk);
    open(id);
    std::vector<std::byte> bytes(50000);
    b.bench.must(way->read(0, bytes));
    CHECK(bytes == pattern(50000, 1));
  }
  // "" if it works.
  std::string amend(const option_list& list, bool is_forced = false) {
    const option_schema* schemas[] = {qcow2_driver_type.amend_options};
    const result<options> given = validate_options(schemas, to_value(list));
    if (!given)
      return given.error().message();
    const result<> done = b.bench.run(b.bench.graph().amend(
        b.top(), {.given = *given, .secrets = b.secrets(), .is_forced = is_forced}));
    return done ? std::string() : done.error().message();
  }
  [[nodiscard]] std::string active() {
    std::string states;
    const value info = b.top().instance().info().format_specific;
    for (const value& slot : *info.find("data")->find("encrypt")->find("slots")->as_list())
      states += *slot.find("active")->as_bool() ? '1' : '0';
    return states;
  }
};

} // namespace

TEST_CASE("qcow2 amend: a key is added, opens the image, and the old one is erased") {
  amended_image i;
  i.b.add_secret("new", "another passphrase");
  CHECK(i.amend({{"encrypt.state", "active"},
                 {"encrypt.new-secret", "new"},
                 {"encrypt.iter-time", "1"}}) == "");
  CHECK(i.active() == "11000000");
  i.reopen("new");
  CHECK(i.amend({{"encrypt.state", "inactive"}, {"encrypt.old-secret", "sec0"}}) == "");
  CHECK(i.active() == "01000000");
  i.reopen("new");
  i.b.close();
  CHECK(i.b.open_error("d", {{"encrypt.key-secret", "sec0"}}).contains("opens none of the 1"));
  i.open("new");
  CHECK(i.amend({{"encrypt.state", "active"},
                 {"encrypt.new-secret", "sec0"},
                 {"encrypt.keyslot", "6"},
                 {"encrypt.iter-time", "1"}}) == "");
  CHECK(i.active() == "01000010");
  i.reopen("sec0");
}

TEST_CASE("qcow2 amend: what would lock everybody out, or makes no sense, is refused") {
  amended_image i;
  i.b.add_secret("new", "another passphrase");
  const std::vector<std::byte> before = i.disk->bytes;
  struct row {
    option_list options;
    std::string expected;
  };
  const row rows[] = {
      {{}, "nothing to change is given; '-o help' lists what can be"},
      {{{"encrypt.keyslot", "0"}},
       "'encrypt.state' is not given: active adds a key, inactive erases"},
      {{{"encrypt.state", "active"}}, "'encrypt.state' active needs 'encrypt.new-secret'"},
      {{{"encrypt.state", "active"}, {"encrypt.new-secret", "none"}}, "which there is not"},
      {{{"encrypt.state", "active"}, {"encrypt.new-secret", "new"}, {"encrypt.old-secret", "sec0"}},
       "'encrypt.old-secret' is for erasing; to replace a key, add the new one and erase"},
      {{{"encrypt.state", "active"}, {"encrypt.new-secret", "new"}, {"encrypt.keyslot", "0"}},
       "key slot 0 is active; erase it first, or leave 'encrypt.keyslot' out"},
      {{{"encrypt.state", "active"}, {"encrypt.new-secret", "new"}, {"encrypt.keyslot", "8"}},
       "option 'encrypt.keyslot' is 8, outside its range of 0 to 7"},
      {{{"encrypt.state", "inactive"}},
       "'encrypt.state' inactive needs to know what to erase: 'encrypt.keyslot' or"},
      {{{"encrypt.state", "inactive"}, {"encrypt.keyslot", "0"}, {"encrypt.new-secret", "new"}},
       "'encrypt.new-secret' is for 'encrypt.state' active"},
      {{{"encrypt.state", "inactive"}, {"encrypt.keyslot", "0"}, {"encrypt.iter-time", "9"}},
       "'encrypt.iter-time' is for 'encrypt.state' active"},
      {{{"encrypt.state", "inactive"}, {"encrypt.keyslot", "3"}}, "key slot 3 is erased already"},
      {{{"encrypt.state", "inactive"}, {"encrypt.old-secret", "new"}},
       "secret 'new' opens none of the active key slots: nothing was erased"},
      {{{"encrypt.state", "inactive"}, {"encrypt.old-secret", "new"}, {"encrypt.keyslot", "0"}},
       "secret 'new' opens key slot 0 not: nothing was erased"},
      {{{"encrypt.state", "inactive"}, {"encrypt.keyslot", "0"}},
       "that would erase the last key: nothing could ever decrypt the image again"},
      {{{"encrypt.state", "inactive"}, {"encrypt.old-secret", "sec0"}},
       "that would erase the last key"},
      {{{"encrypt.format", "luks"}}, "option 'encrypt.format' is not known to amending images of"},
  };
  for (const row& r : rows) {
    const std::string message = i.amend(r.options);
    CHECK_MESSAGE(message.contains(r.expected), message);
    CHECK(!message.contains(test_passphrase));
  }
  CHECK(i.disk->bytes == before);
  CHECK(i.amend({{"encrypt.state", "inactive"}, {"encrypt.keyslot", "0"}}, true) == "");
  CHECK(i.active() == "00000000");
  i.b.close();
  CHECK(
      i.b.open_error("d", {{"encrypt.key-secret", "sec0"}}).contains("all key slots of the LUKS"));
}

TEST_CASE("qcow2 amend: all slots take a key, and a ninth has no place") {
  amended_image i;
  i.b.add_secret("new", "another passphrase");
  const option_list add{
      {"encrypt.state", "active"}, {"encrypt.new-secret", "new"}, {"encrypt.iter-time", "1"}};
  for (int n = 0; n < 7; n++)
    CHECK(i.amend(add) == "");
  CHECK(i.active() == "11111111");
  CHECK(i.amend(add).contains("all 8 key slots are active; erase one first"));
  CHECK(i.amend({{"encrypt.state", "inactive"}, {"encrypt.old-secret", "new"}}) == "");
  CHECK(i.active() == "10000000");
}

TEST_CASE("qcow2 amend: any failure of the file leaves a key that opens the image") {
  u64 nth = 1;
  for (bool came = true; came; nth++) {
    CAPTURE(nth);
    amended_image i;
    i.b.add_secret("new", "another passphrase");
    i.b.bench.must(i.way->flush());
    u64 seen = 0;
    i.disk->fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (++seen != nth)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    const std::string added = i.amend(
        {{"encrypt.state", "active"}, {"encrypt.new-secret", "new"}, {"encrypt.iter-time", "1"}});
    std::string erased;
    if (added.empty())
      erased = i.amend({{"encrypt.state", "inactive"}, {"encrypt.keyslot", "0"}});
    i.disk->fault = nullptr;
    came = seen >= nth;
    CHECK((added.empty() && erased.empty()) == !came);
    i.b.close();
    const bool is_old = i.b.open_error("d", {{"encrypt.key-secret", "sec0"}}).empty();
    const bool is_new = i.b.open_error("d", {{"encrypt.key-secret", "new"}}).empty();
    CHECK((is_old || is_new));
    CHECK((!added.empty() || is_new));
    i.open(is_new ? "new" : "sec0");
    i.reopen(is_new ? "new" : "sec0");
  }
  CHECK(nth > 10);
}

TEST_CASE("qcow2 amend: images without key slots, or open read-only, are left alone") {
  amended_image i;
  i.b.add_secret("new", "another passphrase");
  const option_list add{{"encrypt.state", "active"}, {"encrypt.new-secret", "new"}};
  i.b.close();
  i.way = &i.b.open("d", {{"encrypt.key-secret", "sec0"}, {"read-only", "on"}}, "", may_read);
  CHECK(i.amend(add).contains("read-only"));
  i.b.close();
  i.b.create("plain", 1 << 20);
  i.way = &i.b.open("plain");
  CHECK(i.amend(add).contains("the image is not encrypted with LUKS: it has no key slots"));
}
