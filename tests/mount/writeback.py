# SPDX-License-Identifier: MIT
"""Mounts of one root, and those that let the kernel hold back what is written to it."""
import errno
import mmap
import os
import signal

from mount_suite import *  # noqa: F403

GROWS = {"writable": True, "growable": True}
WRITEBACK = ("-o", "export=disk,writeback")


def requests(m):
    return next(int(line.rsplit(" ", 1)[1]) for line in m.read(".bgfs/metrics").splitlines()
                if line.startswith("bgfs_fuse_requests_total"))


@case("export=NAME shows one root and opens no other image")
def one_export(env):
    nodes = [{"node-name": n, "driver": "raw",
              "file": {"driver": "file", "filename": str(env.raw(f"{n}.raw", MiB, n.encode()))}}
             for n in ("web", "mail")]
    exports = [{"name": n, "node-name": n, "writable": True} for n in ("web", "mail")]
    graph = env.graph(nodes, exports)
    m = env.mount(graph, "-o", "export=web")
    equal(sorted(os.listdir(m.path)), ["web", "web.d"], "the mount")
    equal(pread(m / "web", 0, 3), b"web", "the root")
    with fails_with(errno.ENOENT):
        os.stat(m / "mail")
    check("mail.raw" not in m.read(".bgfs/files"), "another image is open")
    contains(m.read(".bgfs/files"), "web.raw")
    m.command(".bgfs/reload", "1")
    equal(m.read(".bgfs/exports"), "web\n", "roots after a reload")
    m.umount()
    done = env.mount_status(graph, "-o", "export=wbe")
    equal(done.returncode, 1, "an unknown export")
    contains(done.stderr, "has no export 'wbe', which 'export=wbe' asks for; did you mean 'web'?")


@case("-o writeback is refused where it could not be true", unpassed=True)
def refused(env):
    graph = env.simple(env.raw("a.raw", MiB))
    done = env.mount_status(graph, "-o", "writeback")
    equal(done.returncode, 1, "without an export")
    contains(done.stderr, "mount option 'writeback' needs 'export=NAME'")
    done = env.mount_status(graph, *WRITEBACK)
    equal(done.returncode, 1, "without growable")
    contains(done.stderr, "export 'disk' cannot be mounted with -o writeback: it needs 'growable")


@case("writes are held back, and are in the image after fsync, flush and the last close",
      unpassed=True)
def held_back(env):
    image = env.raw("a.raw", 4 * MiB + 1000, pattern(4 * MiB + 1000))
    m = env.mount(env.simple(image, **GROWS), *WRITEBACK)
    contains(m.read(".bgfs/features"), "writeback-cache")
    contains(m.read(".bgfs/features"), "passthrough: no: with -o writeback the kernel passes")
    content = bytearray(pattern(4 * MiB + 1000))
    fd = os.open(m / "disk", os.O_WRONLY)  # pages are read for it all the same
    for i in range(1000):
        at = i * 4099
        os.pwrite(fd, b"%06d" % i, at)
        content[at:at + 6] = b"%06d" % i
    os.fsync(fd)
    equal(image.read_bytes() == bytes(content), True, "the image after fsync")
    before = requests(m)
    for i in range(1000):
        os.pwrite(fd, b"again!", 2 * MiB)
    check(requests(m) - before < 50, "a request for each write")
    content[2 * MiB:2 * MiB + 6] = b"again!"
    m.command("disk.d/ctl", "flush")
    equal(image.read_bytes() == bytes(content), True, "the image after flush")
    os.pwrite(fd, b"close!", 3 * MiB)
    content[3 * MiB:3 * MiB + 6] = b"close!"
    os.close(fd)
    equal(image.read_bytes() == bytes(content), True, "the image after close")
    fd = os.open(m / "disk", os.O_RDWR)
    area = mmap.mmap(fd, 4 * MiB)
    os.close(fd)
    area[MiB:MiB + 6] = b"mapped"
    content[MiB:MiB + 6] = b"mapped"
    area.close()
    m.umount()
    equal(image.read_bytes() == bytes(content), True, "the image after umount")


@case("it grows and shrinks through the raw file only, and its length is exact", unpassed=True)
def lengths(env):
    image = env.raw("a.raw", MiB)
    graph = env.simple(image, **GROWS)
    m = env.mount(graph, *WRITEBACK)
    fd = os.open(m / "disk", os.O_RDWR)
    os.pwrite(fd, b"end", 3 * MiB + 5)
    equal(os.fstat(fd).st_size, 3 * MiB + 8, "st_size")
    equal(os.pread(fd, 10, 3 * MiB), b"\0" * 5 + b"end", "what is past the old end")
    found = m.refusal("disk.d/size", "+1M")
    equal(found[0], errno.EBUSY, "size")
    contains(found[1], "the kernel owns the length of 'disk' while it is mounted with -o writeback")
    os.fsync(fd)
    equal(os.stat(image).st_size, 3 * MiB + 8, "the image after fsync")
    os.ftruncate(fd, 2 * MiB + 1)
    os.pwrite(fd, b"x" * 10, MiB)
    appending = os.open(m / "disk", os.O_WRONLY | os.O_APPEND)
    os.write(appending, b"appended")
    os.close(appending)
    equal(os.lseek(fd, 0, os.SEEK_DATA), 0, "SEEK_DATA")
    equal(os.lseek(fd, 0, os.SEEK_HOLE), 2 * MiB + 9, "SEEK_HOLE: held back writes are no holes")
    fallocate(m / "disk", FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, MiB, 4096)
    equal(os.pread(fd, 10, MiB), b"\0" * 10, "a punched hole")
    os.close(fd)
    m.umount()
    equal(os.stat(image).st_size, 2 * MiB + 9, "the image's size")
    equal(pread(image, 2 * MiB, 20), b"\0appended", "its end")


@case("what was synced survives SIGKILL", unpassed=True)
def killed(env):
    image = env.raw("a.raw", MiB)
    graph = env.simple(image, **GROWS)
    m = env.mount(graph, *WRITEBACK)
    fd = os.open(m / "disk", os.O_RDWR)
    for i in range(50):
        os.pwrite(fd, pattern(50_000, seed=i), i * 60_000)
    os.fsync(fd)
    os.pwrite(fd, b"not synced", 0)
    os.kill(m.pid, signal.SIGKILL)

    def dead():
        try:
            os.stat(m.path)
        except OSError as e:
            return e.errno == errno.ENOTCONN
        return False

    wait_for(dead, "the connection to end")
    try:
        os.close(fd)
    except OSError:
        pass
    m.umount()
    again = env.mount(graph, *WRITEBACK)
    for i in range(1, 50):
        equal(pread(again / "disk", i * 60_000, 50_000) == pattern(50_000, seed=i), True, i)
    again.umount()


@case("times are the kernel's, can be set, and survive a remount", unpassed=True)
def times(env):
    graph = env.simple(env.raw("a.raw", MiB), **GROWS)
    m = env.mount(graph, *WRITEBACK)
    before = os.stat(m / "disk").st_mtime_ns
    pwrite(m / "disk", 0, b"changed")
    check(os.stat(m / "disk").st_mtime_ns > before, "mtime did not grow")
    fd = os.open(m / "disk", os.O_RDWR)
    os.pwrite(fd, b"again", 0)
    os.utime(fd, ns=(10**18, 10**18))
    os.close(fd)
    equal(os.stat(m / "disk").st_mtime_ns, 10**18, "mtime as it was set")
    m.umount()
    equal(os.stat(env.mount(graph, *WRITEBACK) / "disk").st_mtime_ns, 10**18, "after a remount")


@case("a reload writes back first; other nodes are refused, read-only is not", unpassed=True)
def reloaded(env):
    images = [env.raw(f"{n}.raw", MiB) for n in "ab"]
    graph = env.simple(images[0], **GROWS)
    good = graph.read_text()
    m = env.mount(graph, *WRITEBACK)
    fd = os.open(m / "disk", os.O_RDWR)
    os.pwrite(fd, b"before", 0)
    m.command(".bgfs/reload", "1")
    equal(pread(images[0], 0, 6), b"before", "the image")
    for text in (good.replace("a.raw", "b.raw"), good.replace('"top"', '"pot"')):
        graph.write_text(text)
        found = m.refusal(".bgfs/reload", "force")
        equal(found[0], errno.EBUSY, f"other nodes ({found[1]})")
        contains(found[1], "the nodes of 'disk' cannot be changed while it is mounted with -o write")
    graph.write_text(good)
    area = mmap.mmap(fd, MiB)
    os.close(fd)
    area[10:16] = b"mapped"
    area.close()
    run(BGFS, "mount", "-o", "remount,ro", m.path)
    equal(pread(images[0], 0, 16), b"before\0\0\0\0mapped", "the image after remount,ro")
    with fails_with(errno.EROFS):
        os.open(m / "disk", os.O_WRONLY)
    run(BGFS, "mount", "-o", "remount,rw", m.path)
    pwrite(m / "disk", 0, b"writes")
    m.umount()
    equal(pread(images[0], 0, 6), b"writes", "the image")


@case("a mount that is told to end takes what is held back, with files open", unpassed=True)
def terminated(env):
    image = env.raw("a.raw", MiB)
    m = env.mount_foreground(env.simple(image, **GROWS), *WRITEBACK)
    fd = os.open(m / "disk", os.O_RDWR)
    os.pwrite(fd, b"held back", 500)
    m.process.send_signal(signal.SIGTERM)
    equal(m.process.wait(30), 0, f"exit status ({m.process.stderr.read()})")
    equal(pread(image, 500, 9), b"held back", "the image")
    try:
        os.close(fd)
    except OSError:
        pass


@case("a qcow2 image is whole after writing back into it", needs=["qemu-img"])
def formatted(env):
    image = env.qcow2("a.qcow2", "64M")
    m = env.mount(env.simple(image, "qcow2", **GROWS), *WRITEBACK)
    fd = os.open(m / "disk", os.O_RDWR)
    for i in range(200):
        os.pwrite(fd, pattern(9000, seed=i), i * 300_001)
    os.pwrite(fd, b"grown", 65 * MiB)
    os.close(fd)
    m.umount()
    qemu_check(image)
    run("qemu-img", "convert", "-O", "raw", image, env / "raw")
    equal(os.stat(env / "raw").st_size >= 65 * MiB + 5, True, "the length")
    for i in range(200):
        equal(pread(env / "raw", i * 300_001, 9000) == pattern(9000, seed=i), True, i)
    equal(pread(env / "raw", 65 * MiB, 5), b"grown", "what has grown")
