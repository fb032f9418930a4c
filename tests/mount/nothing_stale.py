# SPDX-License-Identifier: MIT
"""After each structural change nobody is shown what was there before it: neither names nor
attributes nor bytes, through mappings, the page cache or O_DIRECT."""
import mmap

from mount_suite import *  # noqa: F403

SIZE = 4 * MiB
# What other processes know: they ask, by path, each time anew.
ASKING = """
import os, sys
for line in sys.stdin:
    try:
        s = os.stat(line.rstrip("\\n"))
        print(s.st_ino, s.st_size, s.st_mtime_ns, flush=True)
    except OSError as e:
        print("errno", e.errno, flush=True)
"""


class Other:
    """Another process that has asked for the same names before."""

    def __init__(self):
        self.process = subprocess.Popen(["python3", "-c", ASKING], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def stat(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        words = self.process.stdout.readline().split()
        return int(words[1]) * -1 if words[0] == "errno" else tuple(map(int, words))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def direct(path, offset):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    area = mmap.mmap(-1, 4096)
    try:
        os.preadv(fd, [area], offset)
        return bytes(area)
    finally:
        area.close()
        os.close(fd)


class Readers:
    """Three who have the disk open all the time, and one who opens it anew."""

    def __init__(self, path):
        self.path, self.fd = path, os.open(path, os.O_RDONLY)
        try:
            self.area = mmap.mmap(self.fd, SIZE, prot=mmap.PROT_READ)
        except OSError as e:
            os.close(self.fd)
            if e.errno != errno.ENODEV:
                raise
            raise Skip("the kernel maps no uncached files (Linux 6.6)") from e

    def see(self, offset, wanted, what):
        for _ in range(2):  # what was read once may be kept
            equal(self.area[offset:offset + len(wanted)] == wanted, True, f"{what}: mapped")
            equal(os.pread(self.fd, len(wanted), offset) == wanted, True, f"{what}: cached")
            equal(direct(self.path, offset)[:len(wanted)] == wanted, True, f"{what}: O_DIRECT")
            equal(pread(self.path, offset, len(wanted)) == wanted, True, f"{what}: opened anew")

    def close(self):
        self.area.close()
        os.close(self.fd)


def page(number):
    return b"number %07d;!" % number * 256


def mounted(env, cache):
    image = env.qcow2("a.qcow2", SIZE)
    nodes = [{"node-name": "n", "driver": "qcow2", "discard": "unmap",
              "file": {"driver": "file", "filename": str(image)}}]
    return env.mount(env.graph(nodes, [{"name": "disk", "node-name": "n", "writable": True,
                                        "cache": cache}]))


@case("names that are made, moved and removed are known, and not known, to everybody at once",
      needs=["qemu-img"], as_written=True)
def names(env):
    for cache in ("none", "kernel"):
        m = mounted(env, cache)
        other = Other()
        for kind in ("snapshots", "bitmaps", "points"):
            top = m / "disk.d" / kind
            for i in range(8):
                name = top / f"x{i % 3}"
                equal(other.stat(name), -errno.ENOENT, f"{name} before")
                equal(os.path.exists(name), False, "here, before")
                os.mkdir(name)
                number = os.stat(name).st_ino
                equal(other.stat(name)[0], number, f"{name} when it is there")
                check(name.name in os.listdir(top), name, "is listed")
                if kind == "snapshots":
                    equal(other.stat(top / "moved"), -errno.ENOENT, "the name to be")
                    os.rename(name, top / "moved")
                    equal(other.stat(name), -errno.ENOENT, "the name that was")
                    equal(other.stat(top / "moved")[1:2], other.stat(m / "disk.d/snapshots")[1:2],
                          "the name that is")
                    os.rename(top / "moved", name)
                os.rmdir(name)
                equal(other.stat(name), -errno.ENOENT, f"{name} after")
                equal(os.listdir(top), [], f"{kind} after")
                if kind == "points":
                    os.rmdir(m / "disk.d/bitmaps" / name.name)
        other.close()
        m.umount()


@case("what a snapshot, a point or a bitmap of a name shows is not what an earlier one showed",
      needs=["qemu-img"], as_written=True)
def earlier(env):
    for cache in ("none", "kernel"):
        m = mounted(env, cache)
        for kind in ("snapshots", "points"):
            shown = m / "disk.d" / kind / "x"
            for i in range(1, 6):
                pwrite(m / "disk", 0, page(i))
                os.mkdir(shown)
                r = Readers(shown / "disk")
                r.see(0, page(i), f"{kind}, number {i}")
                pwrite(m / "disk", 0, page(1000 + i))
                r.see(0, page(i), f"{kind}, number {i}, when the disk has changed")
                r.close()
                wait_for(lambda: can_rmdir(shown), f"{kind} to be closed")
                if kind == "points":
                    os.rmdir(m / "disk.d/bitmaps/x")
        for i in range(1, 6):
            os.mkdir(m / "disk.d/bitmaps/b")
            pwrite(m / "disk", i * 65536, page(i))
            equal(m.read("disk.d/bitmaps/b/map").splitlines()[1:],
                  [f"{i * 65536:<#16x}0x10000"], "its map")
            equal(pread(m / "disk.d/bitmaps/b/dirty", i * 65536, 4096), page(i), "dirty")
            equal(pread(m / "disk.d/bitmaps/b/dirty", (i - 1) * 65536, 4096), bytes(4096), "clean")
            wait_for(lambda: can_rmdir(m / "disk.d/bitmaps/b"), "the bitmap to be closed")
        m.umount()


def can_rmdir(path):
    """False while it is busy: what was closed is closed a moment later."""
    try:
        os.rmdir(path)
        return True
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        return False


@case("reverting, resizing and points change what is read, and st_mtime and st_size, at once",
      needs=["qemu-img"], as_written=True)
def disk(env):
    for cache in ("none", "kernel"):
        m = mounted(env, cache)
        other = Other()
        path = m / "disk"
        for i in range(1, 5):
            pwrite(path, MiB, page(i))
            os.mkdir(m / "disk.d/snapshots/then")
            pwrite(path, MiB, page(100 + i))
            before = other.stat(path)
            pread(path, MiB, 4096)  # cached, where that is asked for
            m.command("disk.d/ctl", "revert then")
            equal(pread(path, MiB, 4096) == page(i), True, "cached, after reverting")
            equal(direct(path, MiB) == page(i), True, "O_DIRECT, after reverting")
            check(other.stat(path)[2] > before[2], "st_mtime is", other.stat(path)[2])
            os.rmdir(m / "disk.d/snapshots/then")
        r = Readers(path)
        for i in range(1, 5):
            pwrite(path, MiB, page(200 + i))
            os.mkdir(m / "disk.d/points/p")  # another node is at the top
            r.see(MiB, page(200 + i), "after a point was made")
            pwrite(path, MiB, page(300 + i))
            r.see(MiB, page(300 + i), "after a write beside a point")
            os.rmdir(m / "disk.d/points/p")
            r.see(MiB, page(300 + i), "after a point has ended")
            os.rmdir(m / "disk.d/bitmaps/p")
            m.command("disk.d/size", "+1M")
            equal((os.stat(path).st_size, other.stat(path)[1]), (SIZE + MiB,) * 2, "st_size")
            equal(pread(path, SIZE, 4096), bytes(4096), "what is new")
            pwrite(path, SIZE, page(1))
            m.command("disk.d/size", f"shrink {SIZE}")
            equal((os.stat(path).st_size, other.stat(path)[1]), (SIZE,) * 2, "st_size")
            equal(pread(path, SIZE, 4096), b"", "what is cut off")
        r.close()
        other.close()
        m.umount()


@case("another backing image is read at once, by whoever has the disk mapped, cached or direct",
      needs=["qemu-img", "qemu-io"], as_written=True)
def backing(env):
    for name, byte in (("one", 1), ("two", 1)):
        env.qcow2(f"{name}.qcow2", SIZE)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} 0 1M", env / f"{name}.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 2M 64k", env / "two.qcow2")
    for cache in ("none", "kernel"):
        env.qcow2(f"top-{cache}.qcow2", None, env / "one.qcow2")
        nodes = [{"node-name": n, "driver": "qcow2", "read-only": True,
                  "file": {"driver": "file", "filename": str(env / f"{n}.qcow2")}}
                 for n in ("one", "two")]
        nodes.append({"node-name": "top", "driver": "qcow2", "backing": "one",
                      "file": {"driver": "file", "filename": str(env / f"top-{cache}.qcow2")}})
        m = env.mount(env.graph(nodes, [{"name": "disk", "node-name": "top", "writable": True,
                                         "cache": cache}]))
        r = Readers(m / "disk")
        for to, byte in (("two", 9), ("one", 0), ("two", 9)):
            r.see(0, bytes([1]) * 4096, "what both hold")
            m.command("disk.d/ctl", f"backing top {to}")
            r.see(2 * MiB, bytes([byte]) * 4096, f"with {to}")
        r.close()
        m.umount()
        os.unlink(env / "graph.yaml.state")
