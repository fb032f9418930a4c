// SPDX-License-Identifier: MIT
#include "fuse/protocol/request.h"

#include "graph/base/endian.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <random>

using namespace bgfs;

namespace {

using bytes = std::vector<std::byte>;

// A request: the header filled in, then what follows it.
bytes request(u32 opcode, std::span<const std::byte> body, u16 extensions = 0) {
  fuse_in_header header{};
  header.len = static_cast<u32>(sizeof header + body.size());
  header.opcode = opcode;
  header.unique = 7;
  header.nodeid = 42;
  header.total_extlen = extensions;
  bytes made(sizeof header);
  store(std::span(made), header);
  made.insert(made.end(), body.begin(), body.end());
  return made;
}

// SETXATTR with its short arguments: length and flags.
bytes setting(u32 length, std::string_view name, std::string_view value) {
  bytes made(2 * sizeof(u32));
  store(std::span(made), length);
  store(std::span(made), u32{1}, sizeof length);
  for (const char c : name)
    made.push_back(static_cast<std::byte>(c));
  made.push_back(std::byte{});
  for (const char c : value)
    made.push_back(static_cast<std::byte>(c));
  return made;
}

template<class T>
bytes wire(const T& value, std::string_view text = {}, bool ends = true) {
  bytes made(sizeof value);
  store(std::span(made), value);
  for (const char c : text)
    made.push_back(static_cast<std::byte>(c));
  if (!text.empty() && ends)
    made.push_back(std::byte{});
  return made;
}

result<request_body> parse(const bytes& whole) {
  BGFS_TRY(const auto header, parse_header(whole));
  return parse_body(header, whole);
}

bytes text(std::string_view t) {
  return {std::as_bytes(std::span(t)).begin(), std::as_bytes(std::span(t)).end()};
}

} // namespace

TEST_CASE("a request is shorter or longer than its header says: refused") {
  bytes whole = request(FUSE_READ, wire(fuse_read_in{}));
  CHECK(parse_header(whole).has_value());
  whole.push_back(std::byte{});
  CHECK_FALSE(parse_header(whole).has_value());
  whole.resize(whole.size() - 2);
  CHECK_FALSE(parse_header(whole).has_value());
  CHECK_FALSE(parse_header(std::span(whole).first(sizeof(fuse_in_header) - 1)).has_value());
  CHECK_FALSE(parse_header({}).has_value());
}

TEST_CASE("every request with arguments is refused when it is cut anywhere before their end") {
  struct row {
    u32 opcode;
    bytes body;
  };
  fuse_write_in write{};
  write.size = 3;
  fuse_batch_forget_in forgets{};
  forgets.count = 2;
  bytes two_forgets = wire(forgets);
  two_forgets.resize(two_forgets.size() + 2 * sizeof(fuse_forget_one));
  const std::vector<row> rows = {
      {FUSE_READ, wire(fuse_read_in{})},
      {FUSE_WRITE, wire(write, "abc", false)},
      {FUSE_LOOKUP, text(std::string_view("name\0", 5))},
      {FUSE_FORGET, wire(fuse_forget_in{})},
      {FUSE_BATCH_FORGET, two_forgets},
      {FUSE_SETATTR, wire(fuse_setattr_in{})},
      {FUSE_OPEN, wire(fuse_open_in{})},
      {FUSE_RELEASE, wire(fuse_release_in{})},
      {FUSE_RELEASEDIR, wire(fuse_release_in{})},
      {FUSE_READDIR, wire(fuse_read_in{})},
      {FUSE_READDIRPLUS, wire(fuse_read_in{})},
      {FUSE_FLUSH, wire(fuse_flush_in{})},
      {FUSE_FSYNC, wire(fuse_fsync_in{})},
      {FUSE_GETXATTR, wire(fuse_getxattr_in{}, "user.x")},
      {FUSE_LISTXATTR, wire(fuse_getxattr_in{})},
      {FUSE_SETXATTR, setting(3, "user.bgfs.ctl", "one")},
      {FUSE_REMOVEXATTR, text(std::string_view("user.x\0", 7))},
      {FUSE_INTERRUPT, wire(fuse_interrupt_in{})},
      {FUSE_FALLOCATE, wire(fuse_fallocate_in{})},
      {FUSE_LSEEK, wire(fuse_lseek_in{})},
      {FUSE_COPY_FILE_RANGE, wire(fuse_copy_file_range_in{})},
      {kernel::opcode_copy_file_range_64, wire(fuse_copy_file_range_in{})},
      {FUSE_MKDIR, wire(fuse_mkdir_in{}, "name")},
      {FUSE_MKNOD, wire(fuse_mknod_in{}, "name")},
      {FUSE_CREATE, wire(fuse_create_in{}, "name")},
      {FUSE_LINK, wire(fuse_link_in{}, "name")},
      {FUSE_SYMLINK, text(std::string_view("name\0", 5))},
      {FUSE_RMDIR, text(std::string_view("name\0", 5))},
      {FUSE_UNLINK, text(std::string_view("name\0", 5))},
      {FUSE_RENAME, wire(fuse_rename_in{}, std::string_view("from\0to", 7))},
      {FUSE_RENAME2, wire(fuse_rename2_in{}, std::string_view("from\0to", 7))},
  };
  for (const row& r : rows) {
    CAPTURE(r.opcode);
    CHECK(parse(request(r.opcode, r.body)).has_value());
    for (std::size_t length = 0; length < r.body.size(); length++) {
      CAPTURE(length);
      const auto cut = parse(request(r.opcode, std::span(r.body).first(length)));
      CHECK_FALSE(cut.has_value());
      if (!cut)
        CHECK(cut.error().kind() == error_kind::invalid_argument);
    }
  }
}

TEST_CASE("an attribute that is set is taken apart, with a path for its name") {
  const auto parsed = parse(request(FUSE_SETXATTR, setting(3, "user.bgfs.a/b", "one")));
  REQUIRE(parsed.has_value());
  const auto& set = std::get<ask::setxattr>(*parsed);
  CHECK(set.name == "user.bgfs.a/b");
  CHECK(set.value == "one");
  CHECK(set.flags == 1);
  const auto empty = parse(request(FUSE_SETXATTR, setting(0, "user.bgfs.a", "")));
  REQUIRE(empty.has_value());
  CHECK(std::get<ask::setxattr>(*empty).value.empty());
  // It says another length than it carries, has no name, or one that no attribute has.
  CHECK_FALSE(parse(request(FUSE_SETXATTR, setting(4, "user.bgfs.a", "one"))).has_value());
  CHECK_FALSE(parse(request(FUSE_SETXATTR, setting(2, "user.bgfs.a", "one"))).has_value());
  CHECK_FALSE(parse(request(FUSE_SETXATTR, setting(~0u, "user.bgfs.a", "one"))).has_value());
  CHECK_FALSE(parse(request(FUSE_SETXATTR, setting(0, "", ""))).has_value());
  CHECK_FALSE(parse(request(FUSE_SETXATTR, setting(0, std::string(256, 'x'), ""))).has_value());
  CHECK_FALSE(parse(request(FUSE_REMOVEXATTR, wire(u8{'x'}, std::string(255, 'x')))).has_value());
}

TEST_CASE("a write's payload is what follows its arguments, in place") {
  fuse_write_in in{};
  in.fh = 9;
  in.offset = 4096;
  in.size = 5;
  in.flags = 0x1000;
  const bytes whole = request(FUSE_WRITE, wire(in, "hello", false));
  const auto parsed = parse(whole);
  REQUIRE(parsed.has_value());
  const auto& write = std::get<ask::write>(*parsed);
  CHECK(write.handle == 9);
  CHECK(write.offset == 4096);
  CHECK(write.flags == 0x1000);
  CHECK(write.payload.size() == 5);
  CHECK(write.payload.data() == whole.data() + sizeof(fuse_in_header) + sizeof in);
}

TEST_CASE("a write that says more or less than it carries is refused") {
  fuse_write_in in{};
  for (const u32 size : {4U, 6U, ~0U}) {
    in.size = size;
    CHECK_FALSE(parse(request(FUSE_WRITE, wire(in, "hello", false))).has_value());
  }
}

TEST_CASE("offsets and lengths that no file has are refused") {
  fuse_read_in read{};
  read.offset = ~u64{0};
  CHECK_FALSE(parse(request(FUSE_READ, wire(read))).has_value());
  read.offset = (~u64{0} >> 1) - 10;
  read.size = 4096;
  CHECK_FALSE(parse(request(FUSE_READ, wire(read))).has_value());
  read.offset = 0;
  read.size = kernel::payload_length_max + 1;
  CHECK_FALSE(parse(request(FUSE_READ, wire(read))).has_value());
  fuse_fallocate_in allocate{};
  allocate.offset = 1;
  allocate.length = ~u64{0} >> 1;
  CHECK_FALSE(parse(request(FUSE_FALLOCATE, wire(allocate))).has_value());
}

TEST_CASE("a list of forgotten nodes is as long as it says") {
  fuse_batch_forget_in in{};
  in.count = 0xffffffff;
  CHECK_FALSE(parse(request(FUSE_BATCH_FORGET, wire(in))).has_value());
  in.count = 1;
  bytes body = wire(in);
  const bytes one = wire(fuse_forget_one{11, 3});
  body.insert(body.end(), one.begin(), one.end());
  const auto parsed = parse(request(FUSE_BATCH_FORGET, body));
  REQUIRE(parsed.has_value());
  CHECK(std::get<ask::forget>(*parsed).nodes.at(0).nodeid == 11);
}

TEST_CASE("names are one component of a path") {
  CHECK(std::get<ask::lookup>(*parse(request(FUSE_LOOKUP, text(std::string_view("web.d\0", 6)))))
            .name == "web.d");
  CHECK_FALSE(parse(request(FUSE_LOOKUP, text(std::string_view("\0", 1)))).has_value());
  CHECK_FALSE(parse(request(FUSE_LOOKUP, text(std::string_view("a/b\0", 4)))).has_value());
}

TEST_CASE("extensions at the end of a request are left aside, and bounded") {
  bytes body = text(std::string_view("web\0", 4));
  body.resize(body.size() + 16);
  CHECK(std::get<ask::lookup>(*parse(request(FUSE_LOOKUP, body, 2))).name == "web");
  CHECK_FALSE(parse(request(FUSE_LOOKUP, body, 3)).has_value());
}

TEST_CASE("what must not be answered with ENOSYS is refused by name") {
  const auto errno_for = [](u32 opcode) {
    return std::get<ask::refused>(*parse(request(opcode, {}))).os_error;
  };
  CHECK(errno_for(FUSE_TMPFILE) == EOPNOTSUPP);
  CHECK(errno_for(FUSE_IOCTL) == ENOTTY);
  CHECK(std::holds_alternative<ask::unknown>(*parse(request(FUSE_BMAP, {}))));
  CHECK(std::holds_alternative<ask::unknown>(*parse(request(9999, {}))));
}

TEST_CASE("names that are made, removed and moved are taken apart") {
  const bytes name = text(std::string_view("one\0", 4));
  CHECK(std::get<ask::make_directory>(*parse(request(FUSE_MKDIR, wire(fuse_mkdir_in{}, "one"))))
            .name == "one");
  CHECK(std::get<ask::remove_directory>(*parse(request(FUSE_RMDIR, name))).name == "one");
  CHECK(std::get<ask::unlink>(*parse(request(FUSE_UNLINK, name))).name == "one");
  const auto made =
      std::get<ask::make_other>(*parse(request(FUSE_MKNOD, wire(fuse_mknod_in{}, "one"))));
  CHECK(made.verb == "mknod");
  CHECK(made.name == "one");
  const fuse_rename2_in in{.newdir = 17, .flags = 1, .padding = 0};
  const auto moved = std::get<ask::rename>(
      *parse(request(FUSE_RENAME2, wire(in, std::string_view("from\0to", 7)))));
  CHECK(moved.from == "from");
  CHECK(moved.to == "to");
  CHECK(moved.to_directory == 17);
  CHECK(moved.flags == 1);
  CHECK_FALSE(parse(request(FUSE_RENAME2, wire(in, std::string_view("from\0a/b", 8)))).has_value());
  CHECK_FALSE(parse(request(FUSE_MKDIR, wire(fuse_mkdir_in{}, "a/b"))).has_value());
}

TEST_CASE("a poll says whom to wake") {
  fuse_poll_in in{.fh = 7, .kh = 9, .flags = FUSE_POLL_SCHEDULE_NOTIFY, .events = 5};
  bytes body(sizeof in);
  store(std::span(body), in);
  const auto asked = std::get<ask::poll>(*parse(request(FUSE_POLL, body)));
  CHECK(asked.handle == 7);
  CHECK(asked.kernel_handle == 9);
  CHECK(asked.wants_wake);
  CHECK(asked.events == 5);
  CHECK_FALSE(parse(request(FUSE_POLL, {})).has_value());
}

TEST_CASE("random bytes are a request or an error, never anything else") {
  std::mt19937 random(20261122);
  for (int i = 0; i < 20000; i++) {
    bytes body(random() % 160);
    for (std::byte& b : body)
      b = static_cast<std::byte>(random() % 4 == 0 ? random() : 0);
    const auto whole = request(random() % 56, body, random() % 8 == 0 ? random() % 30 : 0);
    (void)parse(whole);
  }
}
