// SPDX-License-Identifier: MIT
#include "fuse/tree/content_time.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

using namespace bgfs;

namespace {

bool is_before(std::timespec a, std::timespec b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}
bool is_same(std::timespec a, std::timespec b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

struct temporary_file {
  std::string path = "/tmp/bgfs-unit-XXXXXX";
  temporary_file() { close(mkstemp(path.data())); }
  ~temporary_file() { unlink(path.c_str()); }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
};

} // namespace

TEST_CASE("every look after a change sees a later time, others the same") {
  content_time time;
  time.begin({4'000'000'000, 999'999'999}); // in the future: the clock does not help
  std::timespec before = time.shown();
  CHECK(is_same(before, time.shown()));
  for (int i = 0; i < 1000; i++) {
    time.changed();
    const std::timespec after = time.shown();
    CHECK(is_before(before, after));
    CHECK(after.tv_nsec < 1'000'000'000);
    before = after;
  }
  CHECK(time.has_ever_changed());
}

TEST_CASE("a change is seen during and after it") {
  content_time time;
  const std::timespec before = time.shown();
  std::timespec during{};
  {
    const content_change change(time);
    during = time.shown();
    CHECK(is_before(before, during));
  }
  CHECK(is_before(during, time.shown()));
}

TEST_CASE("a kept time is believed until the file changes") {
  const temporary_file file;
  keep_content_time(file.path, {1'234'567, 89});
  if (getxattr(file.path.c_str(), "user.bgfs.mtime", nullptr, 0) < 0)
    return; // this file system keeps no attributes
  CHECK(is_same(*load_content_time(file.path), {1'234'567, 89}));
  const std::timespec times[2] = {{5, 0}, {5, 0}};
  utimensat(AT_FDCWD, file.path.c_str(), times, 0);
  CHECK(is_same(*load_content_time(file.path), {5, 0}));
}

TEST_CASE("a kept time that is nonsense is not believed") {
  const temporary_file file;
  struct stat status{};
  REQUIRE(stat(file.path.c_str(), &status) == 0);
  for (const std::string text : {"", "1 2 3", "a b c d", "1 2 3 4 5", "1 -2 3 4"}) {
    if (setxattr(file.path.c_str(), "user.bgfs.mtime", text.data(), text.size(), 0) != 0)
      return;
    CHECK(is_same(*load_content_time(file.path), status.st_mtim));
  }
  CHECK_FALSE(load_content_time("/nonexistent/file").has_value());
}
