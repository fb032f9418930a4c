// SPDX-License-Identifier: MIT
// What a file does at once, without a turn of the loop, and what it leaves to the loop.
#include "graph/io/file.h"

#include "graph/io/spawn.h"
#include "tests/unit/lib/scratch_directory.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>

using namespace bgfs;

namespace {

std::vector<std::byte> numbered(std::size_t length, unsigned seed) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; i++)
    bytes[i] = static_cast<std::byte>(i * 7 + seed);
  return bytes;
}

// Whether the task had ended when the loop had run it once, without waiting for anything.
template<class T>
bool ends_at_once(loop& home, task<T> t) {
  bool has_ended = false;
  spawn(home, std::move(t), nullptr, [&](result<> outcome) {
    CHECK(outcome.has_value());
    has_ended = true;
  });
  home.run_once();
  const bool at_once = has_ended;
  while (!has_ended)
    home.run_once();
  return at_once;
}

} // namespace

TEST_CASE("a file in memory is read and written without a turn of the loop, if it may be") {
  const auto home = *loop::create();
  file f(descriptor(memfd_create("scratch", MFD_CLOEXEC)), "scratch");
  CHECK(is_in_memory(f.fd()));
  const auto bytes = numbered(100000, 1);
  std::vector<std::byte> read(bytes.size());
  CHECK(!ends_at_once(*home, f.write(5, bytes))); // not asked for
  f.set_at_once(at_once::everything);
  CHECK(ends_at_once(*home, f.read(5, read)));
  CHECK(read == bytes);
  const auto others = numbered(100000, 2);
  CHECK(ends_at_once(*home, f.write(5, others)));
  CHECK(ends_at_once(*home, f.read(5, read)));
  CHECK(read == others);
  // However long: a thread of the kernel's would copy no sooner. There is nothing to sync.
  const auto large = numbered(MiB, 3);
  CHECK(ends_at_once(*home, f.write(5, large)));
  std::vector<std::byte> all(MiB);
  CHECK(ends_at_once(*home, f.read(5, all)));
  CHECK(all == large);
  CHECK(ends_at_once(*home, f.sync()));
  // What must be durable or lies past the end goes the other way, and is right.
  CHECK(!ends_at_once(*home, f.write(5, bytes, true)));
  CHECK(ends_at_once(*home, f.write(5, large)));
  f.set_at_once(at_once::cached);
  CHECK(!ends_at_once(*home, f.sync()));
  CHECK(!ends_at_once(*home, f.read(5, all))); // long
  std::vector<std::byte> tail(100);
  ends_at_once(*home, f.read(MiB, tail));
  CHECK(tail[4] == large[MiB - 1]);
  CHECK(tail[5] == std::byte{0});
}

TEST_CASE("what the page cache does not hold is read in the end, whatever was tried") {
  const test::scratch_directory dir;
  const auto home = *loop::create();
  const std::string path = dir.file("cold");
  file f(descriptor(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)), path);
  if (is_in_memory(f.fd()))
    return; // nothing is ever cold there
  f.set_at_once(at_once::cached);
  const auto bytes = numbered(64 * 4096, 4);
  REQUIRE(run_to_end(*home, f.write(0, bytes)).has_value());
  REQUIRE(run_to_end(*home, f.sync()).has_value());
  for (int round = 0; round < 20; round++) {
    if (round % 4 != 3)
      REQUIRE(posix_fadvise(f.fd(), 0, 0, POSIX_FADV_DONTNEED) == 0);
    for (const u64 at : {u64{0}, u64{17 * 4096 + 5}, u64{40 * 4096}}) {
      std::vector<std::byte> part(8192);
      REQUIRE(run_to_end(*home, f.read(at, part)).has_value());
      CHECK(std::equal(part.begin(), part.end(), bytes.begin() + static_cast<i64>(at)));
    }
  }
  const auto more = numbered(8192, 5);
  REQUIRE(run_to_end(*home, f.write(4096 + 100, more)).has_value());
  std::vector<std::byte> back(8192);
  REQUIRE(run_to_end(*home, f.read(4096 + 100, back)).has_value());
  CHECK(back == more);
}
