// SPDX-License-Identifier: MIT
#include "fuse/mount/mount_options.h"
#include "fuse/mount/mount_point.h"
#include "fuse/mount/outcome.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {
result<mount_options> parse(std::vector<std::string> given) {
  return parse_mount_options(given);
}
} // namespace

TEST_CASE("options of mount(8), fstab and systemd are dropped") {
  const auto o = parse({"rw", "nofail", "_netdev", "noauto", "user", "user=fred", "owner", "group",
                        "x-systemd.requires=a.mount", "X-mount.mkdir", "comment=x,y", "relatime",
                        "user_id=0", "group_id=0", "defaults", ""});
  REQUIRE(o.has_value());
  CHECK(o->for_kernel.empty());
  CHECK_FALSE(o->is_read_only);
}

TEST_CASE("options of the kernel and libfuse are passed on, ours are understood") {
  const auto o =
      parse({"ro", "strict", "allow_other", "noatime", "max_read=65536", "default_permissions"});
  REQUIRE(o.has_value());
  CHECK(o->is_read_only);
  CHECK(o->is_strict);
  CHECK(o->allows_others);
  CHECK(o->for_kernel == std::vector<std::string>{"allow_other", "noatime", "max_read=65536"});
}

TEST_CASE("an unknown option is an error that names it") {
  const auto o = parse({"alow_other"});
  REQUIRE_FALSE(o.has_value());
  CHECK(o.error().message() ==
        "mount option 'alow_other' is not known; did you mean 'allow_other'?");
  CHECK_FALSE(parse({"ro=1"}).has_value());
  CHECK_FALSE(parse({"max_read"}).has_value());
  CHECK_FALSE(parse({"remount"}).has_value());
}

TEST_CASE("the kernel's list of mounts is read with its escapes") {
  const auto mounts = parse_mountinfo("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
                                      "40 22 0:50 / /mnt/a\\040b rw,nosuid shared:9 master:2 - "
                                      "fuse.bgfs /etc/x\\054\\134y.yaml rw\n"
                                      "nonsense\n");
  REQUIRE(mounts.size() == 2);
  CHECK(mounts[0].type == "ext4");
  CHECK(mounts[1].directory == "/mnt/a b");
  CHECK(mounts[1].type == mounted_type);
  CHECK(mounts[1].source == "/etc/x,\\y.yaml");
}

TEST_CASE("an outcome is read as it was written, and missed when nobody wrote it") {
  const descriptor file = make_outcome_file();
  REQUIRE(file.is_open());
  CHECK_FALSE(read_outcome(file.get()).has_value());
  write_outcome(file.get(), {32, "flushing 'web': it failed\nclosing: too\n"});
  const auto outcome = read_outcome(file.get());
  REQUIRE(outcome.has_value());
  CHECK(outcome->status == 32);
  CHECK(outcome->messages == "flushing 'web': it failed\nclosing: too\n");
}
