// SPDX-License-Identifier: MIT
#include "config/mount_helper.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

using words = std::vector<std::string>;

words translated(const std::string& program, const words& given) {
  const auto made = translate_helper_call(program, given);
  REQUIRE(made.has_value());
  REQUIRE(made->has_value());
  return **made;
}

std::string refusal(const std::string& program, const words& given) {
  const auto made = translate_helper_call(program, given);
  REQUIRE(made.has_value());
  return *made ? std::string() : made->error().message();
}

} // namespace

TEST_CASE("mount(8)'s call becomes one of bgfs, whatever stands between") {
  CHECK(translated("/sbin/mount.fuse.bgfs", {"/a b,c#.yaml", "/mnt", "-n", "-v", "-s", "-o",
                                             "rw,nofail", "-t", "fuse.bgfs"}) ==
        words{"mount", "-o", "rw,nofail", "--", "/a b,c#.yaml", "/mnt"});
  CHECK(translated("mount.bgfs", {"-f", "g.yaml", "/mnt"}) ==
        words{"mount", "--fake", "--", "g.yaml", "/mnt"});
  CHECK_FALSE(translate_helper_call("/usr/bin/bgfs", words{"mount"}).has_value());
}

TEST_CASE("a remount may name only the mount point") {
  CHECK(translated("mount.bgfs", {"/mnt", "-o", "remount,ro"}) ==
        words{"mount", "-o", "remount,ro", "--", "/mnt"});
  CHECK(translated("mount.bgfs", {"g.yaml", "/mnt", "-o", "ro,remount"}) ==
        words{"mount", "-o", "ro,remount", "--", "g.yaml", "/mnt"});
  CHECK(refusal("mount.bgfs", {"/mnt", "-o", "ro"}).starts_with("a graph file or an image, and"));
  CHECK(refusal("mount.bgfs", {"/mnt", "-o", "x-remount"}).starts_with("a graph file or an image"));
}

TEST_CASE("what a helper cannot do is refused with words") {
  CHECK(refusal("mount.bgfs", {"a", "b", "-X"}) == "option '-X' is not known");
  CHECK(refusal("mount.bgfs", {"a", "b", "-o"}) == "option '-o' needs a value");
  CHECK(refusal("umount.fuse.bgfs", {"/mnt", "-l"}).starts_with("'-l' would leave images open"));
  CHECK(refusal("umount.bgfs", {}) == "one directory is expected");
  CHECK(translated("umount.bgfs", {"/mnt", "-n"}) == words{"umount", "--", "/mnt"});
}
