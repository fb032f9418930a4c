// SPDX-License-Identifier: MIT
#include "graph/model/snapshot.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("names of snapshots are names of files") {
  for (const char* good : {"a", "before update", "Zürich", "\xe2\x82\xac", "\xf0\x9f\x92\xbe", "."})
    CHECK_MESSAGE(check_snapshot_name(good).has_value(), good);
  CHECK(check_snapshot_name(std::string(240, 'n')).has_value());
  struct row {
    std::string name;
    std::string message;
  };
  const row rows[] = {
      {"", "a snapshot needs a name"},
      {std::string(241, 'n'), "the name of a snapshot has at most 240 bytes, not 241"},
      {"a/b", "the name of a snapshot has neither '/' nor control characters; there is 0x2f at 1"},
      {"ab\n", "the name of a snapshot has neither '/' nor control characters; there is 0xa at 2"},
      {std::string("a\0b", 3),
       "the name of a snapshot has neither '/' nor control characters; there is 0x0 at 1"},
      {"\x7f", "the name of a snapshot has neither '/' nor control characters; there is 0x7f at 0"},
      {"a\xff", "the name of a snapshot is UTF-8; the byte 0xff at 1 is not"},
      {"\xc3", "the name of a snapshot is UTF-8; the byte 0xc3 at 0 is not"},
      {"\xc0\x80", "the name of a snapshot is UTF-8; the byte 0xc0 at 0 is not"},
      {"\xe0\x80\x80", "the name of a snapshot is UTF-8; the byte 0xe0 at 0 is not"},
      {"\xed\xa0\x80", "the name of a snapshot is UTF-8; the byte 0xed at 0 is not"},
      {"\xf4\x90\x80\x80", "the name of a snapshot is UTF-8; the byte 0xf4 at 0 is not"},
      {"\xf0\x80\x80\x80", "the name of a snapshot is UTF-8; the byte 0xf0 at 0 is not"}};
  for (const row& r : rows) {
    const result<> refused = check_snapshot_name(r.name);
    REQUIRE(!refused);
    CHECK(refused.error().message() == r.message);
  }
}

TEST_CASE("a snapshot is the first that has all that is asked for") {
  std::vector<snapshot_info> all(4);
  const char* const names[] = {"a", "1", "a", "b"};
  for (std::size_t i = 0; i < 4; i++) {
    all[i].id = std::to_string(i + 1);
    all[i].name = names[i];
  }
  CHECK(*find_snapshot(all, {.id = {}, .name = "a"}) == 0);
  CHECK(*find_snapshot(all, {.id = "1", .name = {}}) == 0);
  CHECK(*find_snapshot(all, {.id = {}, .name = "1"}) == 1);
  CHECK(*find_snapshot(all, {.id = "3", .name = "a"}) == 2);
  CHECK(find_snapshot(all, {.id = "3", .name = "b"}).error().message() ==
        "there is no snapshot 'b' with id '3'; there are 'a' (id 1), '1' (id 2), 'a' (id 3), 'b' "
        "(id 4)");
  CHECK(find_snapshot({}, {.id = "3", .name = {}}).error().message() ==
        "there is no snapshot with id '3'; there are none");
  all.resize(13);
  CHECK(find_snapshot(all, {.id = {}, .name = "z"}).error().message().ends_with("and 3 more"));
}
