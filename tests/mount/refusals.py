# SPDX-License-Identifier: MIT
"""What is refused in the tree, each with its errno and its sentence in last-error; nothing changes."""
import ctypes
import errno
import os
import subprocess

from mount_suite import *  # noqa: F403

LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_EXCHANGE = 2
AT_FDCWD = -100


def exchange(one, other):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def refuses(m, log, number, sentence, action):
    try:
        action()
    except OSError as e:
        equal(e.errno, number, f"errno of what should say '{sentence}'")
        contains(m.read(log).splitlines()[-1], sentence, log)
        return
    raise AssertionError(f"nothing was refused with '{sentence}'")


@case("what a disk, its views and its directories refuse is in last-error", needs=["qemu-img"])
def of_a_root(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount(env.simple(image, "qcow2"))
    for name in ("snapshots/mon", "snapshots/tue", "bitmaps/b"):
        os.mkdir(m / "disk.d" / name)
    disk, log = m / "disk", "disk.d/last-error"

    def writes(name, text):
        return lambda: m.command(name, text)

    for number, sentence, action in (
            (errno.EINVAL, "write 'shrink 1048576'", writes("disk.d/size", "1M")),
            (errno.EINVAL, "'shrink 16M' would not shrink a disk of 8388608 bytes; write the size alone to grow it",
             writes("disk.d/size", "shrink 16M")),
            (errno.EINVAL, "is more than any disk may have (0x", writes("disk.d/size", "9223372036854775807")),
            (errno.EINVAL, "write 1 to keep the snapshot from being deleted, 0 to let it go, not 'yes'",
             writes("disk.d/snapshots/mon/hold", "yes")),
            (errno.EINVAL, "write 1 to forget all that was marked, not 'x'", writes("disk.d/bitmaps/b/clear", "x")),
            (errno.EINVAL, "write the names of bitmaps whose bits are to be added, one a line",
             writes("disk.d/bitmaps/b/merge", "\n")),
            (errno.EINVAL, "write 0 to give the image up to somebody else, 1 to take it back, not '2'",
             writes("disk.d/nodes/top/active", "2")),
            (errno.EPERM, "'/disk.d/nodes/top' cannot be removed: it is what the graph has; edit the graph file",
             lambda: os.rmdir(m / "disk.d/nodes/top")),
            (errno.EPERM, "'/disk.d/nodes/top' cannot be renamed to 'x': its name is what the graph has",
             lambda: os.rename(m / "disk.d/nodes/top", m / "disk.d/nodes/x")),
            (errno.EPERM, "'x' cannot be made in '/disk.d/nodes/': directories are made in NAME.d/snapshots",
             lambda: os.mkdir(m / "disk.d/nodes/x")),
            (errno.EPERM, "'mon' cannot be moved to another directory; rename it where it is",
             lambda: os.rename(m / "disk.d/snapshots/mon", m / "disk.d/bitmaps/mon")),
            (errno.EINVAL, "cannot be renamed with flags 0x2: names are neither exchanged nor left behind here",
             lambda: exchange(m / "disk.d/snapshots/mon", m / "disk.d/snapshots/tue")),
            (errno.EACCES, "cannot be read; it only takes orders",
             lambda: open(m / "disk.d/bitmaps/b/clear", "rb").close())):
        refuses(m, log, number, sentence, action)
    with open(m / "disk.d/bitmaps/b/dirty", "rb"):
        refuses(m, log, errno.EBUSY, "what bitmap 'b' of 'disk' marks is open in process",
                lambda: os.rmdir(m / "disk.d/bitmaps/b"))
    equal(os.stat(disk).st_size, 8 * MiB, "the disk")
    equal((sorted(os.listdir(m / "disk.d/snapshots")), os.listdir(m / "disk.d/bitmaps")), (["mon", "tue"], ["b"]),
          "what is there")
    m.umount()


@case("what .bgfs and a mount without a graph file refuse is in last-error", needs=["qemu-img"])
def of_a_mount(env):
    base, over = env.qcow2("base.qcow2", "8M"), env / "over.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
    other = env / "other.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", other)
    nodes = [{"node-name": n, "driver": "qcow2", "file": {"driver": "file", "filename": str(p)}}
             for n, p in (("base", base), ("over", over), ("other", other))]
    nodes[1]["backing"] = nodes[2]["backing"] = "base"
    m = env.mount(env.graph(nodes, [{"name": "low", "node-name": "base"},
                                    {"name": "ro", "node-name": "other"},
                                    {"name": "web", "node-name": "over", "writable": True}]))
    pread(m / "low", 0, 1)
    pwrite(m / "web", 0, b"x")
    refuses(m, ".bgfs/last-error", errno.EINVAL, "write 1, force, ro or rw to reload, not 'now'",
            lambda: m.command(".bgfs/reload", "now"))
    os.mkdir(m / ".bgfs/snapshots/tue")
    refuses(m, ".bgfs/last-error", errno.EPERM, "'tue' cannot be renamed to 'wed' in all roots at once; rename it in",
            lambda: os.rename(m / ".bgfs/snapshots/tue", m / ".bgfs/snapshots/wed"))
    refuses(m, "web.d/last-error", errno.EBUSY, "'web' cannot be committed: root 'low' shows node 'base'",
            lambda: m.command("web.d/ctl", "commit"))
    refuses(m, "ro.d/last-error", errno.EROFS, "'ro' is exported read-only; set 'writable: true' in its export",
            lambda: m.command("ro.d/ctl", "commit"))
    m.umount()
    alone = env / "alone"
    os.mkdir(alone)
    run(BGFS, "mount", "--writable", f"--allow-references={env / '.'}", "-F", "qcow2", over, alone)
    done = run(BGFS, "set", alone / "disk", "ctl", "backing disk none", ok=False)
    run(BGFS, "umount", alone)
    equal(done.returncode, 32, done.stderr)
    contains(done.stderr, "this mount shows one image without a graph file, beside which the change could be kept",
             "a change at run time")


@case("a graph or an image below the directory that it would be mounted on is refused", needs=["qemu-img"])
def hidden(env):
    image = env.qcow2("a.qcow2", "1M")
    done = run(BGFS, "mount", "-F", "qcow2", image, env / ".", ok=False)
    check(done.returncode != 0, "it was mounted")
    contains(done.stderr, "where the mount would hide it and wait for itself; keep graphs", "why")


@case("a command over a mount that cannot be carried out says so, and changes nothing", needs=["qemu-img"])
def of_commands(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", "8M"), "qcow2"))
    other = env.qcow2("b.qcow2", "8M")
    for sentence, words in (
            ("--from takes everything from the fragment; only the directory stands beside it",
             ("export", "add", m.path, "x", "--from", other)),
            ("-F and --node-option are for an image; see 'bgfs export --help'",
             ("export", "add", m.path, "x", "--node-name", "top", "-F", "raw")),
            ("'add', a directory, a name and perhaps an image are expected", ("export", "add")),
            ("'add' or 'remove' is expected; see 'bgfs export --help'", ("export",)),
            ("there is no 'export ad'; did you mean 'add'?", ("export", "ad")),
            ("there is no 'job canel'; did you mean 'cancel'?; see 'bgfs job --help'", ("job", "canel", m.path)),
            ("a mount and a job are expected", ("job", "cancel", m.path)),
            ("there is no 'point ad'; did you mean 'add'?; see 'bgfs point --help'", ("point", "ad", m.path)),
            ("are not reverted all at once; revert each: 'bgfs snapshot -a mon",
             ("snapshot", "-a", "mon", m.path)),
            ("are not renamed all at once; rename each: 'bgfs snapshot --rename mon --to tue",
             ("snapshot", "--rename", "mon", "--to", "tue", m.path))):
        done = run(BGFS, *words, ok=False)
        check(done.returncode != 0, words)
        equal(done.stdout, "", f"what {words} prints")
        contains(done.stderr, sentence, f"{words}")
    equal(m.read(".bgfs/exports"), "disk\n", "roots")
    equal(os.listdir(m / "disk.d/snapshots"), [], "snapshots")
    m.umount()


@case("who follows the events of a mount is told when it ends", needs=["qemu-img"])
def of_an_end(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", "8M"), "qcow2"))
    with subprocess.Popen([BGFS, "events", "--follow", m.path], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as follows:
        follows.stdout.readline()  # it has the file open
        done = m.umount(ok=False)
        check(done.returncode != 0, "it was unmounted while the file is open")
        m.command(".bgfs/shutdown", "1")
        _, said = follows.communicate(timeout=30)
    equal(follows.returncode, 32, said)
    contains(said, f"bgfs events: the mount on '{m.path}' has ended", "events")
    wait_for(lambda: not os.path.ismount(m.path), "the end of the mount")


@case("what cannot be an attribute of a disk is refused", needs=["qemu-img"])
def of_attributes(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", "8M"), "qcow2"))
    with fails_with(errno.ENOTSUP):
        os.setxattr(m / "disk", "user.mine", b"x")
    with fails_with(errno.EACCES):
        os.setxattr(m / "disk", "user.bgfs.info", b"x")
    contains(m.read("disk.d/last-error").splitlines()[-1],
             "setxattr EACCES '/disk.d/info' cannot be written; it only tells", "last-error")
    m.umount()
