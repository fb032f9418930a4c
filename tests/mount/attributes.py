# SPDX-License-Identifier: MIT
"""user.bgfs.*: the control directory as attributes of a raw file, for who has nothing else."""
import errno
import os
import subprocess

from mount_suite import *  # noqa: F403

USER, OTHER = 1234, 1235
VIEWS = ("info", "info.json", "map", "map.json", "map.svg", "state", "stats", "openers", "size",
         "ctl", "help", "partitions/table", "partitions/table.json", "layers/0/info.json",
         "nodes/top/driver", "nodes/top/options.json", "nodes/top/permissions")


def get(path, name):
    return os.getxattr(path, f"user.bgfs.{name}").decode()


def put(path, name, value=""):
    os.setxattr(path, f"user.bgfs.{name}", value.encode())


def last(path):
    """The last sentence of last-error, with its verb before it."""
    words = get(path, "last-error").splitlines()[-1].split(" ", 4)
    return f"{words[2]} {words[3]} {words[4]}"


def as_user(uid, script, *words, groups=()):
    """Runs a piece of Python as an ordinary user; its standard output."""
    before = ["setpriv", "--reuid", str(uid), "--regid", str(uid),
              *(["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"])]
    return run(*before, "python3", "-c", "import errno, os, sys\n" + script, *words).stdout


TRY = """
def attempt(what, *words):
    try:
        what(sys.argv[1], *words)
        print("ok")
    except OSError as e:
        print(errno.errorcode[e.errno])
"""


@case("every small file of NAME.d is an attribute of the raw file, and none is listed",
      needs=["qemu-img"])
def views(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", "8M"), "qcow2"))
    disk = m / "disk"
    for name in VIEWS:
        wanted = m.read(f"disk.d/{name}")
        equal(get(disk, name), wanted[:-1] if wanted.endswith("\n") else wanted, name)
    equal(os.listxattr(disk), [], "the list")
    equal(get(disk, "nodes").splitlines(), os.listdir(m / "disk.d/nodes"), "a directory")
    equal(set(get(disk, "").splitlines()), set(os.listdir(m / "disk.d")), "NAME.d itself")
    equal(get(disk, "nodes/top/file"), os.readlink(m / "disk.d/nodes/top/file"), "a link")
    for name in ("nothing", "layers/0/disk", "layers/7/map", "state/x", "snapshots/none/hold",
                 "mount/pid", "mount", "../web", "."):
        with fails_with(errno.ENODATA):
            get(disk, name)
    with fails_with(errno.ERANGE):
        libc_getxattr(disk, "user.bgfs.info", 3)
    m.umount()


def libc_getxattr(path, name, length):
    room = ctypes.create_string_buffer(length)
    if libc.getxattr(str(path).encode(), name.encode(), room, ctypes.c_size_t(length)) < 0:
        raise OSError(ctypes.get_errno(), "getxattr")


@case("a text that is longer than an attribute may be is E2BIG, and what to do is said")
def too_long(env):
    image = env.raw("a.raw", 64 * MiB)
    with open(image, "r+b") as f:
        for i in range(0, 64 * MiB, 32 * KiB):  # 2,048 runs of data
            f.seek(i)
            f.write(b"data")
    m = env.mount(env.simple(image))
    check(len(m.read("disk.d/map.json")) > 65536, "the map is too short for this test")
    for call in (lambda: get(m / "disk", "map.json"),
                 lambda: libc_getxattr(m / "disk", "user.bgfs.map.json", 65536)):
        with fails_with(errno.E2BIG):
            call()
        contains(last(m / "disk"), "none may have more than 65536: read the file of that name in "
                                   "the control directory", "last-error")
    m.umount()


@case("setting an attribute is writing a command; a refusal has its errno and its sentence",
      unpassed=True)
def commands(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    disk = m / "disk"
    put(disk, "ctl", "flush")
    put(disk, "ctl", "flush\n")
    put(disk, "size", "+1M")
    equal(os.stat(disk).st_size, 2 * MiB, "st_size after it has grown")
    put(disk, "size", "shrink 1M")
    equal((os.stat(disk).st_size, get(disk, "size")), (MiB, str(MiB)), "after it has shrunk")
    for name, text, number, sentence in (
            ("ctl", "flsh", errno.EINVAL, "ctl:flsh EINVAL 'flsh' is no verb of ctl"),
            ("size", "1K", errno.EINVAL, "size:1K EINVAL "),
            ("size", "many", errno.EINVAL, "size:many EINVAL 'many' is no size"),
            ("ctl", "x" * 4097, errno.EINVAL, "a command has 4097 bytes"),
            ("ctll", "flush", errno.ENOENT, "setxattr ENOENT there is no 'ctll' that could be")):
        with fails_with(number):
            put(disk, name, text)
        contains(last(disk), sentence, "last-error")
    with fails_with(errno.EACCES):
        put(disk, "state", "ok")
    with fails_with(errno.EEXIST):
        os.setxattr(disk, "user.bgfs.ctl", b"flush", os.XATTR_CREATE)
    with fails_with(errno.ENODATA):
        os.setxattr(disk, "user.bgfs.snapshots/x", b"", os.XATTR_REPLACE)
    for name in ("user.x", "user.bgfsx.ctl"):
        with fails_with(errno.EOPNOTSUPP):
            os.setxattr(disk, name, b"flush")
        with fails_with(errno.ENODATA):
            os.removexattr(disk, name)
    m.umount()


@case("snapshots and bitmaps are made, looked into and removed through attributes",
      needs=["qemu-img"])
def directories(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount(env.simple(image, "qcow2"))
    disk = m / "disk"
    pwrite(disk, 0, b"first")
    put(disk, "snapshots/mon")
    put(disk, "bitmaps/dirty")
    equal(get(disk, "snapshots"), "mon", "snapshots")
    equal(os.listdir(m / "disk.d/snapshots"), ["mon"], "snapshots as a directory")
    pwrite(disk, 0, b"later")
    equal(get(disk, "bitmaps/dirty/state").splitlines()[0], "ok", "the bitmap")
    equal(get(disk, "bitmaps/dirty/count"), "65536", "what is dirty")
    with fails_with(errno.EEXIST):
        put(disk, "snapshots/mon")
    put(disk, "bitmaps/dirty/hold", "1")
    with fails_with(errno.EBUSY):
        os.removexattr(disk, "user.bgfs.bitmaps/dirty")
    put(disk, "bitmaps/dirty/hold", "0")
    run("setfattr", "-x", "user.bgfs.bitmaps/dirty", disk)  # it would not know what is reverted
    put(disk, "ctl", "revert mon")
    equal(pread(disk, 0, 5), b"first", "after the revert")
    # Deleting is deliberate here, too: not for a process that has looked into it.
    equal("info.json" in get(disk, "snapshots/mon").splitlines(), True, "what is in a snapshot")
    with fails_with(errno.ENOTEMPTY):
        os.removexattr(disk, "user.bgfs.snapshots/mon")
    run("setfattr", "-x", "user.bgfs.snapshots/mon", disk)
    with fails_with(errno.ENODATA):
        os.removexattr(disk, "user.bgfs.snapshots/mon")
    with fails_with(errno.EPERM):
        os.removexattr(disk, "user.bgfs.layers")
    with fails_with(errno.EPERM):
        put(disk, "new")
    put(disk, "points/now")  # one changes the graph, and keeps everybody else out meanwhile
    pwrite(disk, 0, b"after")
    equal(get(disk, "points/now/state").splitlines()[0], "ok", "the point")
    run("setfattr", "-x", "user.bgfs.points/now", disk)
    equal(get(disk, "points"), "", "points")
    m.umount()
    equal(run("qemu-img", "snapshot", "-l", image).stdout, "", "snapshots left")


@case("attributes obey the modes of the files that they stand for", needs=["setpriv"],
      unpassed=True)
def permissions(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), owner=USER, group=USER, mode="0640"))
    disk = m / "disk"
    script = TRY + """
attempt(os.getxattr, "user.bgfs.state")
attempt(os.getxattr, "user.bgfs.nodes/top/driver")
attempt(os.setxattr, "user.bgfs.ctl", b"flush")
attempt(os.setxattr, "user.bgfs.size", b"1M")
attempt(os.setxattr, "user.bgfs.bitmaps/mine", b"")
attempt(os.removexattr, "user.bgfs.bitmaps/mine")
"""
    equal(as_user(USER, script, disk).split(), ["ok"] * 6, "the owner")
    denied = ["EACCES"] * 4
    equal(as_user(OTHER, script, disk).split(), ["EACCES"] * 2 + denied, "others")
    equal(as_user(OTHER, script, disk, groups=(USER,)).split(), ["ok"] * 2 + denied,
          "a member of the group")
    # Who may write to a file of an export may not, by that, command what the directory refuses.
    equal(get(disk, "bitmaps"), "", "bitmaps")
    m.umount()


@case("a read-only root answers, and a read-only mount takes no commands", unpassed=True)
def read_only(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), writable=False))
    equal(get(m / "disk", "state"), "read-only", "state")
    put(m / "disk", "ctl", "flush")
    with fails_with(errno.EROFS, errno.EPERM, errno.EACCES):
        put(m / "disk", "size", "+1M")
    m.umount()
    m = env.mount(env.simple(env.raw("a.raw", MiB)), "-o", "ro", name="ro")
    equal(get(m / "disk", "state"), "read-only", "state")
    with fails_with(errno.EROFS):
        put(m / "disk", "ctl", "flush")
    m.umount()


@case("with control: none there is what says why a file cannot be used, and nothing to command",
      unpassed=True)
def no_control(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), control="none"))
    disk = m / "disk"
    equal((get(disk, "state"), get(disk, "format"), get(disk, "last-error")), ("ok", "raw", ""),
          "facts")
    for name in ("ctl", "map", "info", "nodes"):
        with fails_with(errno.ENODATA):
            get(disk, name)
    with fails_with(errno.ENOENT):
        put(disk, "ctl", "flush")
    m.umount()


@case("a root that is opened on demand is opened for what needs it, and a failed one says why")
def unopened(env):
    image = env.raw("a.raw", MiB)
    graph = env.graph(
        [{"node-name": n, "driver": "raw", "file": {"driver": "file", "filename": str(f)}}
         for n, f in (("late", image), ("bad", env / "missing.raw"))],
        [{"name": "late", "node-name": "late", "open": "on-demand"},
         {"name": "bad", "node-name": "bad"}])
    m = env.mount(graph)
    equal(get(m / "late", "state").splitlines()[0], "opening", "before")
    contains(get(m / "late", "info"), "file format: raw", "info")
    equal(get(m / "late", "state"), "read-only", "after")
    equal(get(m / "bad", "state").splitlines()[0], "failed", "the failed one")
    contains(get(m / "bad", "state"), "missing.raw", "the reason")
    with fails_with(errno.ENOMEDIUM):
        get(m / "bad", "info")
    with fails_with(errno.ENOENT):
        put(m / "bad", "ctl", "retry")
    env.raw("missing.raw", MiB, b"found")
    put(m / "bad", "ctl", "retry")
    equal(pread(m / "bad", 0, 5), b"found", "the disk")
    m.umount()


@case("a container that was given one file asks and commands through it", needs=["unshare"],
      unpassed=True)
def container(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    inside = env.raw("inside.img", 0)
    script = f"""set -e
mount --bind {m / 'disk'} {inside}
umount -l {m.path}
getfattr --only-values -n user.bgfs.state {inside}
setfattr -n user.bgfs.size -v 2M {inside}
stat -c ' %s' {inside}
"""
    done = run("unshare", "-m", "bash", "-c", script, ok=False)
    equal((done.returncode, done.stdout), (0, f"ok {2 * MiB}\n"), f"inside ({done.stderr})")
    m.umount()


@case("commands through attributes wait for nobody while the disk is written and mapped",
      unpassed=True)
def under_load(env):
    for cache in ("none", "kernel"):
        m = env.mount(env.simple(env.raw("a.raw", 4 * MiB), cache=cache), name=f"mnt-{cache}")
        disk = m / "disk"
        writer = subprocess.Popen(
            ["python3", "-c", "import mmap, os, sys\n"
             "fd = os.open(sys.argv[1], os.O_RDWR)\n"
             "area = mmap.mmap(fd, 1 << 20)\n"
             "print('open', flush=True)\n"
             "while True:\n"
             "    for i in range(0, 1 << 20, 4096):\n"
             "        os.pwrite(fd, b'x' * 8192, (1 << 20) + i)\n"
             "        area[i] = 7\n", str(disk)], stdout=subprocess.PIPE)
        env.others.append(writer)
        writer.stdout.readline()
        for i in range(20):
            put(disk, "ctl", "flush")
            put(disk, "size", f"{5 + i}M")
            equal(os.stat(disk).st_size, (5 + i) * MiB, "st_size")
        writer.kill()
        writer.wait()
        m.umount()
