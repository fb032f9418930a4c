# SPDX-License-Identifier: MIT
"""What fails to open, to mount or to be written: it is said, and nothing else suffers."""
import errno
import os
import stat

from mount_suite import *  # noqa: F403


def two_roots(env, **broken):
    good = env.raw("good.raw", MiB, b"good")
    nodes = [{"node-name": "good", "driver": "raw",
              "file": {"driver": "file", "filename": str(good)}},
             {"node-name": "bad", "driver": "raw",
              "file": {"driver": "file", "filename": str(env / "missing.raw")}}]
    return env.graph(nodes, [{"name": "good", "node-name": "good"},
                             {"name": "bad", "node-name": "bad", **broken}])


@case("a failed root stays visible, never reads as empty, and says why", needs=["cp"])
def failed_root(env):
    m = env.mount(two_roots(env))
    contains(m.stderr, "'bad'", "standard error")
    contains(m.stderr, "missing.raw", "standard error")
    equal(stat.S_IMODE(os.stat(m / "bad").st_mode), 0, "mode")
    check("bad" in os.listdir(m.path), "it is not listed")
    for name in ("bad", "bad.d/info", "bad.d/map.json", "bad.d/size", "bad.d/stats"):
        with fails_with(errno.ENOMEDIUM):
            os.open(m / name, os.O_RDONLY)
    for name in ("bad.d/layers", "bad.d/nodes"):
        with fails_with(errno.ENOMEDIUM):
            os.listdir(m / name)
    (env / "copy").write_bytes(b"kept")
    equal(run("cp", m / "bad", env / "copy", ok=False).returncode, 1, "cp")
    equal((env / "copy").read_bytes(), b"kept", "the target of cp")
    state = m.read("bad.d/state").splitlines()
    equal(state[0], "failed", "state")
    contains(state[1], "missing.raw", "the reason")
    contains(m.read("bad.d/last-error"), "missing.raw", "last-error")
    contains(m.read(".bgfs/last-error"), "open bad", ".bgfs/last-error")
    equal(os.getxattr(m / "bad", "user.bgfs.state"), m.read("bad.d/state").rstrip("\n").encode(),
          "user.bgfs.state")
    equal(pread(m / "good", 0, 4), b"good", "the other root")


@case("retry opens a failed root when its reason is gone")
def retry(env):
    m = env.mount(two_roots(env))
    with fails_with(errno.ENOENT):
        m.command("bad.d/ctl", "retry\n")
    env.raw("missing.raw", 2 * MiB, b"found")
    m.command("bad.d/ctl", "retry\n")
    equal(pread(m / "bad", 0, 5), b"found", "the disk")
    equal(os.stat(m / "bad").st_size, 2 * MiB, "st_size")
    equal(m.read("bad.d/state"), "read-only\n", "state")
    with fails_with(errno.EBUSY):
        m.command("good.d/ctl", "retry\n")


@case("a required root that fails, and -o strict, end the mount with 32")
def required(env):
    for export, options in (({"required": True}, ()), ({}, ("-o", "strict"))):
        done = env.mount_status(two_roots(env, **export), *options)
        equal(done.returncode, 32, "exit status")
        contains(done.stderr, "missing.raw", "standard error")
        equal(os.path.ismount(env / "mnt"), False, "is it mounted")
    env.mount(two_roots(env))  # nothing is left locked


@case("one image that fails mounts nothing and ends with 32")
def one_image(env):
    done = env.mount_status(env / "missing.qcow2")
    equal(done.returncode, 32, f"exit status ({done.stderr})")
    contains(done.stderr, "missing.qcow2", "standard error")
    (env / "short.qcow2").write_bytes(b"QFI\xfb\0\0\0\3 truncated")
    done = env.mount_status(env / "short.qcow2")
    equal(done.returncode, 32, f"exit status ({done.stderr})")
    equal(os.path.ismount(env / "mnt"), False, "is it mounted")


@case("one image is mounted as disk, read-only unless asked", needs=["qemu-img", "qemu-io"])
def short_form(env):
    image = env.qcow2("a.qcow2", "8M")
    run("qemu-io", "-c", "write -P 7 1M 64k", image)
    m = env.mount(image)
    equal(sorted(os.listdir(m.path)), ["disk", "disk.d"], "the mount point")
    equal(pread(m / "disk", MiB, 10), b"\7" * 10, "the disk")
    with fails_with(errno.EROFS):
        os.open(m / "disk", os.O_WRONLY)
    m.umount()
    m = env.mount(image, "--writable", "-F", "qcow2")
    pwrite(m / "disk", 2 * MiB, pattern(100))
    m.umount()
    qemu_check(image)


@case("wrong YAML is refused with its place")
def wrong_yaml(env):
    (env / "g.yaml").write_text("version: 1\nnodes:\n  - { node-name: a, driver: rwa }\n")
    done = env.mount_status(env / "g.yaml")
    check(done.returncode in (1, 32), "exit status", done.returncode)
    contains(done.stderr, "g.yaml:3:", "standard error")


@case("an image that another process has locked is busy, and says so", needs=["qemu-io"])
def locked(env):
    image = env.qcow2("a.qcow2", "8M")
    holder = subprocess.Popen(["qemu-io", str(image)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    holder.stdin.write("read 0 512\n")
    holder.stdin.flush()
    try:
        wait_for(lambda: "read 512" in holder.stdout.readline(), "qemu-io to open the image")
        m = env.mount(env.simple(image, "qcow2"))
        equal(m.read("disk.d/state").splitlines()[0], "failed", "state")
        contains(m.stderr, "lock", "standard error")
        holder.communicate("quit\n")
        m.command("disk.d/ctl", "retry")
        pwrite(m / "disk", 0, b"x")
    finally:
        holder.kill()
        holder.communicate()


@case("an unknown mount option is refused, those of mount(8) are dropped")
def options(env):
    graph = env.simple(env.raw("a.raw", MiB))
    done = env.mount_status(graph, "-o", "nosuchthing=1")
    equal(done.returncode, 1, "exit status")
    contains(done.stderr, "nosuchthing", "standard error")
    m = env.mount(graph, "-o", "rw,nofail,_netdev,noauto,user,x-systemd.automount,comment=abc,"
                               "relatime,x-gvfs-hide")
    m.umount()


@case("-o ro opens read-only and writes nothing")
def read_only(env):
    image = env.raw("a.raw", MiB, pattern(MiB))
    graph = env.simple(image)
    before = os.stat(image)
    m = env.mount(graph, "-o", "ro")
    with fails_with(errno.EROFS):
        os.open(m / "disk", os.O_WRONLY)
    equal(pread(m / "disk", 0, 100), pattern(100), "the disk")
    m.umount()
    after = os.stat(image)
    equal((after.st_mtime_ns, after.st_ctime_ns), (before.st_mtime_ns, before.st_ctime_ns),
          "times of the image")


@case("a directory that is missing, or is none, ends with 32")
def no_directory(env):
    graph = env.simple(env.raw("a.raw", MiB))
    for path, part in ((env / "nothing", "it does not exist; make a directory there (mkdir)"), (env / "a.raw", "it is what would be mounted")):
        done = run(BGFS, "mount", graph, path, ok=False)
        equal(done.returncode, 32, "exit status")
        contains(done.stderr, part, "standard error")


@case("a graph or an image inside the mount's own directory is refused")
def inside(env):
    where = env.directory()
    image = env.raw("mnt/a.raw", MiB)
    done = env.mount_status(env.simple(image))
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "lies in", "standard error")
    (env / "link.raw").symlink_to(image)
    done = env.mount_status(env.simple(env / "link.raw"))
    equal(done.returncode, 32, "through a symbolic link")
    graph = env.simple(env.raw("b.raw", MiB))
    graph.rename(where / "graph.yaml")
    done = env.mount_status(where / "graph.yaml")
    equal(done.returncode, 32, "the graph itself")
    contains(done.stderr, "lies in", "standard error")


@case("a full file system below fails writes with ENOSPC, leaves the image whole, and heals",
      needs=["qemu-img"])
def host_full(env):
    small = env.directory("small")
    run("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", small)
    image = small / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
    m = env.mount(env.simple(image, "qcow2"))
    data, written = pattern(64 * KiB), 0
    with fails_with(errno.ENOSPC):
        for i in range(64):
            pwrite(m / "disk", i * 256 * KiB, data)
            written = i + 1
    check(written > 8, "too few writes fitted:", written)
    equal(m.read("disk.d/state").splitlines()[0], "full", "state")
    for i in range(written):
        equal(pread(m / "disk", i * 256 * KiB, len(data)) == data, True, f"write {i}")
    run("mount", "-o", "remount,size=64M", small)
    pwrite(m / "disk", 48 * MiB, data)
    equal(m.read("disk.d/state"), "ok\n", "state with space again")
    m.umount()
    qemu_check(image)
    m = env.mount(env.simple(image, "qcow2"))
    for i in range(written):
        equal(pread(m / "disk", i * 256 * KiB, len(data)) == data, True, f"write {i} later")
    equal(pread(m / "disk", 48 * MiB, len(data)) == data, True, "the write with space again")
    m.umount()


@case("on demand, a root is opened by the first look at it")
def on_demand(env):
    good = env.raw("a.raw", MiB, b"late")
    graph = env.simple(good, open="on-demand", writable=False)
    done = env.mount_status(graph)
    if "not supported" in done.stderr:
        raise Skip("'open: on-demand' is not taken by the configuration")
    m = env.adopt(done)
    equal(m.read("disk.d/state").splitlines()[0], "opening", "state before")
    run("ls", "-f", m.path)
    equal(m.read("disk.d/state").splitlines()[0], "opening", "state after a listing")
    equal(pread(m / "disk", 0, 4), b"late", "the disk")
    equal(m.read("disk.d/state"), "read-only\n", "state after")
