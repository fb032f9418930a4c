# SPDX-License-Identifier: MIT
"""`cache: kernel`: what the kernel keeps is never older than what is there."""
import errno
import mmap
import os

from mount_suite import *  # noqa: F403


def direct_read(path, offset, length):
    block = mmap.mmap(-1, length)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        count = os.preadv(fd, [block], offset)
        return block[:count]
    finally:
        os.close(fd)


class Readers:
    """One raw file looked at in three ways."""

    def __init__(self, path):
        self.path, self.fd = path, os.open(path, os.O_RDWR)
        self.area = mmap.mmap(self.fd, 4 * MiB)

    def see(self, offset, wanted, what):
        page = offset // 4096 * 4096
        equal(os.pread(self.fd, len(wanted), offset), wanted, f"{what}: read")
        equal(self.area[offset:offset + len(wanted)], wanted, f"{what}: mapped")
        found = direct_read(self.path, page, 8192)[offset - page:][:len(wanted)]
        equal(found, wanted, f"{what}: O_DIRECT")

    def close(self):
        self.area.close()
        os.close(self.fd)


@case("cached, mapped and direct readers see each write, punch, zero and copy at once")
def coherent(env):
    image = env.raw("a.raw", 4 * MiB, pattern(4 * MiB))
    m = env.mount(env.simple(image, cache="kernel"))
    r = Readers(m / "disk")
    content = bytearray(pattern(4 * MiB))
    r.see(MiB - 100, bytes(content[MiB - 100:MiB + 100]), "at first")
    for i in range(20):
        offset = i * 100_003
        content[offset:offset + 9] = b"written%02d" % i
        pwrite(m / "disk", offset, b"written%02d" % i)
        r.see(offset, b"written%02d" % i, "a write")
        r.area[offset + 20:offset + 26] = b"mapped"
        equal(os.pread(r.fd, 6, offset + 20), b"mapped", "a read after a store")
    block = mmap.mmap(-1, 4096)
    block[:] = b"d" * 4096
    fd = os.open(m / "disk", os.O_RDWR | os.O_DIRECT)
    os.pwritev(fd, [block], 8192)
    os.close(fd)
    r.see(8192, b"d" * 4096, "a direct write")
    fallocate(m / "disk", FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 65536, 65536)
    r.see(65536, b"\0" * 4096, "a punched hole")
    fallocate(m / "disk", FALLOC_ZERO_RANGE, 2 * MiB, 65536)
    r.see(2 * MiB, b"\0" * 4096, "a zeroed range")
    source = os.pread(r.fd, 65536, 3 * MiB)
    equal(os.copy_file_range(r.fd, r.fd, 65536, 3 * MiB, 2 * MiB), 65536, "copied")
    r.see(2 * MiB, source[:4096], "a copy")
    r.close()
    m.umount()


@case("pages are kept from one open to the next, and read no second time")
def kept(env):
    m = env.mount(env.simple(env.raw("a.raw", 4 * MiB, pattern(4 * MiB)), cache="kernel"))

    def reads():
        return sum(int(line.rsplit(" ", 1)[1]) for line in m.read(".bgfs/metrics").splitlines()
                   if line.startswith('bgfs_node_operations_total{node="top",operation="read"'))

    pread(m / "disk", 0, 4 * MiB)
    before = reads()
    for _ in range(3):
        equal(pread(m / "disk", 0, 4 * MiB) == pattern(4 * MiB), True, "the disk")
    equal(reads(), before, "reads of the node")


@case("what is cut off and grown again by the size file reads as zeroes at once")
def resized(env):
    m = env.mount(env.simple(env.raw("a.raw", 4 * MiB, pattern(4 * MiB)), cache="kernel"))
    fd = os.open(m / "disk", os.O_RDONLY)
    for _ in range(20):
        equal(len(os.pread(fd, 4 * MiB, 0)), 4 * MiB, "what is cached")
        m.command("disk.d/size", "shrink 1M")
        m.command("disk.d/size", "4M")
        equal(os.pread(fd, MiB, 3 * MiB) == b"\0" * MiB, True, "the new part")
        pwrite(m / "disk", 3 * MiB, pattern(MiB))
    os.close(fd)


@case("when a reload has ended the other image is read, also by who has the old one mapped")
def other_medium(env):
    images = [env.raw(f"{n}.raw", 4 * MiB, pattern(4 * MiB, seed=n)) for n in (1, 2)]
    graph = env.simple(images[0], cache="kernel")
    m = env.mount(graph)
    r = Readers(m / "disk")
    for i in range(10):
        wanted = pattern(4 * MiB, seed=i % 2 + 1)
        r.see(MiB, wanted[MiB:MiB + 4096], f"image {i % 2 + 1}")
        graph.write_text(graph.read_text().replace(f"/{i % 2 + 1}.raw", f"/{(i + 1) % 2 + 1}.raw"))
        m.command(".bgfs/reload", "1")
    r.close()


@case("a layer and another root that are mapped follow what is written to the disk", as_written=True)
def other_views(env):
    image = env.raw("a.raw", 4 * MiB)
    node = {"node-name": "top", "driver": "raw", "discard": "unmap",
            "file": {"driver": "file", "filename": str(image)}}
    m = env.mount(env.graph([node], [{"name": "rw", "node-name": "top", "writable": True},
                                     {"name": "ro", "node-name": "top", "passthrough": "off"}]))
    disk = os.open(m / "rw", os.O_RDWR)
    for _ in range(4):
        os.pwrite(disk, b"before", 0)  # by lease, from the second on
    areas = []
    for name in ("ro", "rw.d/layers/0/disk"):
        fd = os.open(m / name, os.O_RDONLY)
        try:
            areas.append((name, fd, mmap.mmap(fd, 4 * MiB, prot=mmap.PROT_READ)))
        except OSError as e:
            equal(e.errno, errno.ENODEV, "mmap")
            raise Skip("the kernel maps no uncached files (Linux 6.6)") from e
    for i in range(20):
        text = b"number %d" % i
        for _, _, area in areas:
            _ = area[i * 4096:i * 4096 + 10]  # now it is cached
        os.pwrite(disk, text, i * 4096)
        for name, fd, area in areas:
            equal(os.pread(fd, len(text), i * 4096), text, f"{name}: read")
            wait_for(lambda a=area: a[i * 4096:i * 4096 + len(text)] == text, f"{name}: mapped")
    for _, fd, area in areas:
        area.close()
        os.close(fd)
    os.close(disk)
