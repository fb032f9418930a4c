// SPDX-License-Identifier: MIT
#include "config/path_walk.h"

#include "tests/unit/config/test_drivers.h"

#include <doctest/doctest.h>

using namespace bgfs;
using test::scratch;

TEST_CASE("a path is followed like the kernel does, but never into a forbidden directory") {
  const scratch made;
  const std::string dir = std::filesystem::canonical(made.path()).string();
  made.write("images/a", "");
  made.write("mnt/b", "");
  namespace fs = std::filesystem;
  fs::create_symlink("images", dir + "/relative");
  fs::create_symlink(dir + "/images/a", dir + "/absolute");
  fs::create_symlink("../mnt", dir + "/images/in");
  fs::create_symlink("self", dir + "/self");
  const std::string forbidden[] = {dir + "/mnt"};
  struct row {
    std::string path;
    std::string found;
    bool is_forbidden = false;
    int os_error = 0;
  };
  const row rows[] = {
      {dir + "/images/a", dir + "/images/a"},
      {dir + "/relative/./a", dir + "/images/a"},
      {dir + "//absolute", dir + "/images/a"},
      {dir + "/images/../absolute", dir + "/images/a"},
      {dir + "/relative/../images/a", dir + "/images/a"},
      {dir + "/mnt", dir + "/mnt", true},
      {dir + "/mnt/b", dir + "/mnt", true},
      {dir + "/mnt/../images/a", dir + "/mnt", true},
      {dir + "/relative/in/b", dir + "/mnt", true},
      {dir + "/images/none/x", dir + "/images/none/x", false, ENOENT},
      {dir + "/self", dir + "/self", false, ELOOP},
      {"/../..", "/"},
      {"/", "/"},
  };
  for (const row& r : rows) {
    CAPTURE(r.path);
    const walked_path walked = walk_path(r.path, forbidden);
    CHECK(walked.path == r.found);
    CHECK(walked.is_forbidden == r.is_forbidden);
    CHECK(walked.os_error == r.os_error);
  }
}
