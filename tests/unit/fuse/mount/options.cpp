// SPDX-License-Identifier: MIT
#include "fuse/mount/mount_options.h"
#include "fuse/mount/mount_point.h"
#include "fuse/mount/outcome.h"
#include "fuse/mount/remount.h"

#include <doctest/doctest.h>

#include <sys/mount.h>

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

TEST_CASE("a transport is one of three") {
  using words = std::vector<std::string>;
  CHECK(parse_mount_options(words{"ro"})->transport == transport_choice::automatic);
  CHECK(parse_mount_options(words{"transport=auto"})->transport == transport_choice::automatic);
  CHECK(parse_mount_options(words{"transport=uring"})->transport == transport_choice::uring);
  CHECK(parse_mount_options(words{"transport=dev"})->transport == transport_choice::device);
  for (const char* wrong : {"transport", "transport=", "transport=ring"}) {
    const auto refused = parse_mount_options(words{wrong});
    REQUIRE(!refused.has_value());
    CHECK(
        refused.error().message() ==
        fmt::format("mount option '{}': a transport is auto (io_uring where root has enabled it), "
                    "uring or dev",
                    wrong));
  }
}

TEST_CASE("one export may be asked for, and only then writes may be held back") {
  const auto both = parse({"export=web,1", "writeback"});
  REQUIRE(both.has_value());
  CHECK(both->only_export == "web,1");
  CHECK(both->is_writeback);
  const auto alone = parse({"writeback"});
  REQUIRE(!alone);
  CHECK(
      alone.error().message() ==
      "mount option 'writeback' needs 'export=NAME': the kernel holds back writes, and owns the "
      "lengths, of all files of a mount or of none, so that only a mount of one root can have it");
  for (const char* wrong : {"export", "export="}) {
    const auto refused = parse({wrong});
    REQUIRE(!refused);
    CHECK(refused.error().message() ==
          fmt::format("mount option '{}' needs the name of an export: export=NAME", wrong));
  }
}

TEST_CASE("the budget of payloads is a size within bounds") {
  using words = std::vector<std::string>;
  CHECK(parse_mount_options(words{"ro"})->payload_budget == 16 * MiB);
  CHECK(parse_mount_options(words{"payload-budget=4M"})->payload_budget == 4 * MiB);
  CHECK(parse_mount_options(words{"payload-budget=1G"})->payload_budget == GiB);
  for (const char* wrong : {"payload-budget", "payload-budget=", "payload-budget=1M",
                            "payload-budget=65G", "payload-budget=much"}) {
    const auto refused = parse_mount_options(words{wrong});
    REQUIRE(!refused.has_value());
    CHECK(refused.error().message() ==
          fmt::format("mount option '{}': the memory for payloads is a size from 4M to 64G, such "
                      "as 16M",
                      wrong));
  }
}

TEST_CASE("an unknown option is an error that names it") {
  const auto o = parse({"alow_other"});
  REQUIRE_FALSE(o.has_value());
  CHECK(
      o.error().message() ==
      "mount option 'alow_other' is not known; there are ro, strict, writable, format, "
      "allow-references, export, writeback, transport, queues, payload-budget, remount, and those "
      "of mount(8) and FUSE; did you mean 'allow_other'?");
  CHECK(parse({"writeable"}).error().message().ends_with("; did you mean 'writable'?"));
  CHECK(parse({"formatt=raw"}).error().message().ends_with("; did you mean 'format'?"));
  CHECK_FALSE(parse({"ro=1"}).has_value());
  CHECK_FALSE(parse({"max_read"}).has_value());
  CHECK_FALSE(parse({"remount"}).has_value()); // never comes here
}

TEST_CASE("the kernel's list of mounts is read with its escapes") {
  const auto mounts = parse_mountinfo("22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
                                      "40 22 0:50 / /mnt/a\\040b rw,nosuid shared:9 master:2 - "
                                      "fuse.bgfs /etc/x\\054\\134y.yaml rw,allow_other\n"
                                      "nonsense\n");
  REQUIRE(mounts.size() == 2);
  CHECK(mounts[0].type == "ext4");
  CHECK(mounts[1].directory == "/mnt/a b");
  CHECK(mounts[1].type == mounted_type);
  CHECK(mounts[1].source == "/etc/x,\\y.yaml");
  CHECK(mounts[1].options == std::vector<std::string>{"rw", "nosuid"});
  CHECK(mounts[1].super_options == std::vector<std::string>{"rw", "allow_other"});
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

namespace {
mount_entry mounted_with(std::vector<std::string> options, std::vector<std::string> super_options) {
  mount_entry entry;
  entry.directory = "/mnt";
  entry.options = std::move(options);
  entry.super_options = std::move(super_options);
  return entry;
}

result<remount_change> plan(std::vector<std::string> given, const mount_entry& now,
                            bool is_all = false) {
  return plan_remount(given, now, is_all);
}
} // namespace

TEST_CASE("a remount keeps the flags that are in force and changes those that are given") {
  const mount_entry now = mounted_with({"rw", "nosuid", "relatime"}, {"rw", "allow_other"});
  const auto kept = plan({"remount"}, now);
  REQUIRE(kept.has_value());
  CHECK_FALSE(kept->was_read_only);
  CHECK_FALSE(kept->is_read_only);
  CHECK(kept->flags == (MS_NOSUID | MS_RELATIME));
  const auto changed = plan({"remount", "ro", "suid", "noexec", "noatime"}, now);
  REQUIRE(changed.has_value());
  CHECK(changed->is_read_only);
  CHECK(changed->flags == (MS_RELATIME | MS_NOEXEC | MS_NOATIME));
  // All that is to be in force: what is not named goes, but for what every mount begins with.
  const auto all = plan({"rw", "nosuid", "nodev", "relatime"},
                        mounted_with({"rw", "noexec", "relatime"}, {"rw"}), true);
  CHECK(all->flags == (MS_NOSUID | MS_NODEV | MS_RELATIME));
  const auto back = plan({"rw"}, mounted_with({"rw"}, {"ro"})); // as `mount -o ro` leaves it
  CHECK(back->was_read_only);
  CHECK_FALSE(back->is_read_only);
}

TEST_CASE("what mount(8) repeats on a remount is taken, what takes a new mount is refused") {
  const mount_entry now =
      mounted_with({"rw"}, {"rw", "user_id=0", "group_id=0", "allow_other", "max_read=4096"});
  CHECK(plan({"remount", "rw", "user_id=0", "group_id=0", "default_permissions", "allow_other",
              "nofail", "_netdev", "x-systemd.requires=a", "strict", "format=raw", "max_read=4096"},
             now)
            .has_value());
  const auto message = [&](std::string option, const mount_entry& at) {
    const auto refused = plan({std::move(option)}, at);
    return refused ? std::string() : refused.error().message();
  };
  CHECK(message("allow_other", mounted_with({"rw"}, {"rw"})) ==
        "mount option 'allow_other' cannot be changed while '/mnt' is mounted; unmount it and "
        "mount it again");
  CHECK(
      message("max_read=8192", now).starts_with("mount option 'max_read=8192' cannot be changed"));
  CHECK(message("noexce", now).find("did you mean 'noexec'?") != std::string::npos);
}
