// SPDX-License-Identifier: MIT
#include "fuse/tree/line_ring.h"
#include "fuse/tree/event_ring.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <random>
#include <unistd.h>

using namespace bgfs;

namespace {

std::string describe_loss(u64 count) {
  return fmt::format("lost {}", count);
}

// Reads on from `offset` to the end, at most `length_max` bytes at a time.
std::string read_on(line_reader& reader, u64& offset, std::size_t length_max) {
  std::string all;
  for (;;) {
    const std::string part = reader.read(offset, length_max);
    if (part.empty())
      return all;
    CHECK(part.size() <= length_max);
    offset += part.size();
    all += part;
  }
}

} // namespace

TEST_CASE("a reader gets what is kept, then nothing, then what is new") {
  line_ring ring(4, describe_loss);
  line_reader before(ring);
  CHECK(before.read(0, 100).empty());
  CHECK_FALSE(before.has_more());
  ring.add("one");
  ring.add("two");
  CHECK(before.has_more());
  CHECK(before.read(0, 100) == "one\ntwo\n");
  CHECK_FALSE(before.has_more());
  CHECK(before.read(8, 100).empty());
  ring.add("three");
  CHECK(before.read(8, 100) == "three\n");
  line_reader late(ring);
  CHECK(late.read(0, 100) == "one\ntwo\nthree\n");
  CHECK(late.end_offset() == 14);
  CHECK(ring.kept_length() == 14);
}

TEST_CASE("reads end with a whole line, and a line that does not fit comes in pieces") {
  line_ring ring(4, describe_loss);
  ring.add("0123456789");
  ring.add("abc");
  line_reader reader(ring);
  CHECK(reader.read(0, 4) == "0123");
  CHECK(reader.read(4, 9) == "456789\n");
  CHECK(reader.read(11, 3) == "abc");
  CHECK(reader.read(14, 3) == "\n");
  CHECK(reader.read(0, 13) == "0123456789\n"); // the second line does not fit whole
}

TEST_CASE("a slow reader finds one line in the place of those it lost") {
  line_ring ring(3, describe_loss);
  ring.add("a");
  line_reader reader(ring);
  CHECK(reader.read(0, 100) == "a\n");
  for (const char* line : {"b", "c", "d", "e", "f"})
    ring.add(line);
  u64 offset = 2;
  CHECK(read_on(reader, offset, 100) == "lost 2\nd\ne\nf\n");
  ring.add("g");
  CHECK(read_on(reader, offset, 100) == "g\n");
  for (const char* line : {"h", "i", "j", "k"})
    ring.add(line);
  CHECK(reader.has_more());
  CHECK(read_on(reader, offset, 100) == "lost 1\ni\nj\nk\n");
  // From the beginning again: what is kept now.
  CHECK(reader.read(0, 100) == "i\nj\nk\n");
}

TEST_CASE("a line that was begun and then lost is ended before the loss is told") {
  line_ring ring(1, describe_loss);
  ring.add("a long line");
  line_reader reader(ring);
  CHECK(reader.read(0, 6) == "a long");
  ring.add("new");
  u64 offset = 6;
  CHECK(read_on(reader, offset, 100) == "\nlost 1\nnew\n");
}

TEST_CASE("whatever is read when, every line comes once, in order, or is counted as lost") {
  std::mt19937 random(3);
  for (int round = 0; round < 200; round++) {
    line_ring ring(1 + random() % 8, describe_loss);
    line_reader reader(ring);
    u64 offset = 0;
    unsigned added = 0;
    std::string all;
    for (int step = 0; step < 200; step++) {
      if (random() % 2 == 0)
        ring.add(fmt::format("line {}", added++));
      const std::string part = reader.read(offset, 16 + random() % 40);
      offset += part.size();
      all += part;
    }
    all += read_on(reader, offset, 64);
    unsigned next = 0;
    for (std::size_t at = 0; at < all.size();) {
      const std::size_t end = all.find('\n', at);
      REQUIRE(end != std::string::npos);
      const std::string line = all.substr(at, end - at);
      at = end + 1;
      unsigned number = 0;
      if (std::sscanf(line.c_str(), "lost %u", &number) == 1) {
        next += number;
      } else {
        REQUIRE(line == fmt::format("line {}", next));
        next++;
      }
    }
    CHECK(next == added);
  }
}

TEST_CASE("an event is one line of JSON and changes the file that wakes") {
  event_ring events;
  line_reader reader(events.lines());
  value data;
  data.set("root", "a \"name\"\nof two lines");
  events.emit("ROOT_OPENED", std::move(data));
  const std::string line = reader.read(0, 1000);
  CHECK(line.find("\"event\": \"ROOT_OPENED\"") != std::string::npos);
  CHECK(line.find("\\\"name\\\"\\nof two") != std::string::npos);
  CHECK(line.find('\n') == line.size() - 1);
  CHECK(lseek(events.wake_fd(), 0, SEEK_END) == 1);
}
