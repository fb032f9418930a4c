# SPDX-License-Identifier: MIT
"""NAME.d/partitions/: each partition is a raw file, right to the byte, and never shows another."""
import errno
import fcntl
import json
import mmap
import os
import random
import struct

from mount_suite import *  # noqa: F403

LABELS = {
    "gpt": "label: gpt\nstart=2048,size=8192,name=one,type=uefi\nstart=12288,size=16384,name=two\n",
    "dos": "label: dos\nlabel-id: 0x1234abcd\nstart=2048,size=4096,type=83,bootable\n"
           "start=8192,size=40960,type=5\nstart=10240,size=4096,type=83\n"
           "start=16384,size=8192,type=82\n",
}


def partitioned(env, label="gpt", size=32 * MiB, name="a.raw", sectors=None):
    """An image whose bytes differ everywhere, with a table."""
    image = env.raw(name, size, pattern(size))
    os.truncate(image, MiB)  # no table or file system is made out of the pattern
    with open(image, "r+b") as f:
        f.write(bytes(MiB))
        f.seek(size - MiB)
        f.write(bytes(MiB))
        f.seek(MiB)
        f.write(pattern(size)[MiB:size - MiB])
    script = LABELS.get(label, label)
    if sectors is None:
        write_table(image, script)
        return image
    device = env.loop_device(image, "--sector-size", str(sectors))  # who tells sfdisk about sectors
    write_table(device, script)
    env.detach(device)
    return image


def write_table(path, script):
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--wipe", "never", path, input=script)


def table_of(m, where="disk.d/partitions"):
    return json.loads(m.read(f"{where}/table.json"))


def files_of(directory):
    return sorted((int(n) for n in os.listdir(directory) if n.isdigit()))


@case("partitions have the kernel's numbers and are the bytes of the disk", needs=["sfdisk"])
def bytes_of_partitions(env):
    for label, wanted in (("gpt", [1, 2]), ("dos", [1, 5, 6])):
        image = partitioned(env, label, name=f"{label}.raw")
        m = env.mount(env.simple(image), name=label)
        equal(files_of(m / "disk.d/partitions"), wanted, f"{label}: files")
        whole = image.read_bytes()
        table = table_of(m)
        equal(table["table"], {"gpt": "gpt", "dos": "mbr"}[label], "kind")
        equal(table["problems"], [], "problems")
        listed = json.loads(run("sfdisk", "--json", image).stdout)["partitiontable"]["partitions"]
        for p in listed:
            number = int(p["node"].removeprefix(str(image)))
            begin, end = p["start"] * 512, (p["start"] + p["size"]) * 512
            mine = [q for q in table["partitions"] if q["number"] == number][0]
            equal((mine["start"], mine["size"]), (begin, end - begin), f"{label} {number}")
            if number not in wanted:
                equal(mine["file"], None, "a container is no file")
                continue
            for where in ("disk.d", "disk.d/layers/0"):
                file = m / where / "partitions" / str(number)
                equal(os.stat(file).st_size, end - begin, "st_size")
                check(file.read_bytes() == whole[begin:end], label, number, "has other bytes")
            if label == "gpt":
                equal(mine["uuid"], p["uuid"].lower(), "uuid")
        m.umount()


@case("sectors of 4096 bytes are told from the table", needs=["sfdisk", "losetup"])
def large_sectors(env):
    for label in ("gpt", "dos"):
        script = f"label: {label}\nstart=256,size=1024,type=L\nstart=2048,size=2048,type=" + \
            ("5\nstart=2304,size=512,type=L\n" if label == "dos" else "L\n")
        image = partitioned(env, script, sectors=4096, name=f"{label}.raw")
        m = env.mount(env.simple(image, writable=False), name=label)
        equal(table_of(m)["sector-size"], 4096, f"{label}: sector size")
        whole = image.read_bytes()
        check((m / "disk.d/partitions/1").read_bytes() == whole[MiB:5 * MiB], "1")
        last, begin, end = (5, 2304, 2816) if label == "dos" else (2, 2048, 4096)
        check((m / f"disk.d/partitions/{last}").read_bytes() == whole[begin * 4096:end * 4096], last)
        m.umount()


@case("links find partitions by label, type and uuid; duplicates and slashes have names",
      needs=["sfdisk"])
def links(env):
    script = "label: gpt\n" + "".join(
        f"start={2048 * (i + 1)},size=2048,name=\"{n}\"\n" for i, n in
        enumerate(["same", "same", "a/b", "50%", ".."]))
    m = env.mount(env.simple(partitioned(env, script)))
    top = m / "disk.d/partitions"
    equal(sorted(os.listdir(top / "by-label")),
          ["%2E.", "50%25", "a%2Fb", "same", "same%id=2"], "labels")
    equal(os.readlink(top / "by-label/same%id=2"), "../2", "the second of a name")
    equal(sorted(os.listdir(top / "by-type")), ["linux"] + [f"linux%id={n}" for n in (2, 3, 4, 5)],
          "types")
    for p in table_of(m)["partitions"]:
        equal(os.readlink(top / "by-uuid" / p["uuid"]), f"../{p['number']}", "by-uuid")
        equal(os.path.samefile(top / "by-uuid" / p["uuid"], top / str(p["number"])), True, "file")
    for name in ("6", "0", "01", "-1", "by-label/none", "by-foo"):
        with fails_with(errno.ENOENT):
            os.stat(top / name)


@case("what is written to a partition is on the disk there, and the reverse", needs=["sfdisk"])
def both_ways(env):
    image = partitioned(env)
    m = env.mount(env.simple(image))
    part, begin = m / "disk.d/partitions/2", 12288 * 512
    pwrite(part, 12345, b"through the partition")
    equal(pread(m / "disk", begin + 12345, 21), b"through the partition", "at the root")
    pwrite(m / "disk", begin + 54321, b"through the root")
    equal(pread(part, 54321, 16), b"through the root", "at the partition")
    fsync(part)
    equal(pread(image, begin + 12345, 21), b"through the partition", "in the file")
    before = os.stat(m / "disk").st_mtime_ns
    pwrite(part, 0, b"x")
    check(os.stat(m / "disk").st_mtime_ns > before, "the root's time did not change")
    check(os.stat(part).st_mtime_ns > before, "the partition's time did not change")
    block = mmap.mmap(-1, 4096)
    block[:] = b"d" * 4096
    fd = os.open(part, os.O_RDWR | os.O_DIRECT)
    equal(os.pwritev(fd, [block], 8192), 4096, "O_DIRECT")
    os.close(fd)
    equal(pread(m / "disk", begin + 8192, 4096), b"d" * 4096, "what was written past the cache")


@case("a partition does not grow, is not truncated and does not reach its neighbours",
      needs=["sfdisk"])
def bounds(env):
    image = partitioned(env)
    m = env.mount(env.simple(image, growable=True, passthrough="off"))
    before = image.read_bytes()
    part = m / "disk.d/partitions/1"
    size = 8192 * 512
    fd = os.open(part, os.O_RDWR)
    for offset in (size, size + 1, 1 << 40):
        with fails_with(errno.ENOSPC):
            os.pwrite(fd, b"x", offset)
    equal(os.pwrite(fd, b"four", size - 2), 2, "a write across the end is short")
    equal(os.pread(fd, 100, size - 2), b"fo", "a read across the end is short")
    equal(os.pread(fd, 100, size), b"", "a read behind the end")
    for length in (0, size - 1, size + 1):
        with fails_with(errno.EPERM):
            os.ftruncate(fd, length)
    os.ftruncate(fd, size)
    os.close(fd)
    with fails_with(errno.EPERM):
        os.open(part, os.O_RDWR | os.O_TRUNC)
    with fails_with(errno.ENOSPC):
        fallocate(part, FALLOC_ZERO_RANGE, size - 4096, 8192)
    contains(m.read("disk.d/last-error"), "a partition cannot be truncated: 'disk.d/partitions/1'")
    contains(m.read("disk.d/last-error"), "cannot write at 0x400000 of 'disk.d/partitions/1'")
    after = bytearray(before)
    after[MiB + size - 2:MiB + size] = b"fo"
    check(image.read_bytes() == after, "other bytes were changed")
    fallocate(part, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, size - 65536, 1 << 30)
    after[MiB + size - 65536:MiB + size] = bytes(65536)
    check(image.read_bytes() == after, "a hole across the end reached others")
    m.umount()


@case("on-truncate: zero empties a partition and nothing else", needs=["sfdisk"])
def truncate_zero(env):
    image = partitioned(env)
    m = env.mount(env.simple(image, **{"on-truncate": "zero"}))
    wanted = bytearray(image.read_bytes())
    os.close(os.open(m / "disk.d/partitions/1", os.O_RDWR | os.O_TRUNC))
    wanted[MiB:5 * MiB] = bytes(4 * MiB)
    check(image.read_bytes() == wanted, "O_TRUNC")


@case("partitions of what is read-only are read-only", needs=["sfdisk"])
def read_only(env):
    image = partitioned(env)
    m = env.mount(env.simple(image, writable=False))
    with fails_with(errno.EROFS, errno.EACCES):
        os.open(m / "disk.d/partitions/1", os.O_RDWR)
    m.umount()
    m = env.mount(env.simple(image))
    with fails_with(errno.EROFS, errno.EACCES):
        os.open(m / "disk.d/layers/0/partitions/1", os.O_RDWR)


@case("holes of a partition are those of the disk, with its own offsets", needs=["sfdisk"])
def holes(env):
    image = env.raw("a.raw", 32 * MiB)
    write_table(image, LABELS["gpt"])
    begin = 12288 * 512
    pwrite(image, begin + MiB, pattern(MiB))
    pwrite(image, begin + 8 * MiB, b"the next one")
    m = env.mount(env.simple(image))
    part = m / "disk.d/partitions/2"
    equal(data_ranges(part), [(MiB, 2 * MiB)], "data")
    equal(os.stat(part).st_blocks, MiB // 512, "st_blocks")
    fd = os.open(part, os.O_RDWR)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with fails_with(errno.ENXIO):
            os.lseek(fd, 8 * MiB, whence)
    equal(os.lseek(fd, 3 * MiB, os.SEEK_HOLE), 3 * MiB, "a hole at once")
    with fails_with(errno.ENXIO):
        os.lseek(fd, 2 * MiB, os.SEEK_DATA)
    os.close(fd)
    fallocate(part, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, MiB, MiB)
    equal(data_ranges(part), [], "data after a punch")
    check(os.stat(image).st_blocks * 512 < MiB, "no space was given back")
    check(os.stat(part).st_blocks > 0, "st_blocks is 0")


@case("random operations on root and partition agree with an array of bytes", needs=["sfdisk"],
      timeout=120)
def random_operations(env):
    for cache in ("none", "kernel"):
        image = partitioned(env, name=f"{cache}.raw")
        m = env.mount(env.simple(image, cache=cache, passthrough="off"), name=cache)
        model = bytearray(image.read_bytes())
        begin, size = 12288 * 512, 16384 * 512
        root, part = os.open(m / "disk", os.O_RDWR), os.open(m / "disk.d/partitions/2", os.O_RDWR)
        rng = random.Random(7)
        for i in range(1500):
            fd, base = (root, 0) if rng.random() < 0.5 else (part, begin)
            offset = begin + rng.randrange(size)
            length = min(rng.choice([1, 100, 4096, 70000]), begin + size - offset)
            what = rng.randrange(5)
            if what == 0:
                data = rng.randbytes(length)
                equal(os.pwrite(fd, data, offset - base), length, "written")
                model[offset:offset + length] = data
            elif what == 1:
                off = ctypes.c_long
                mode = rng.choice([FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE])
                equal(libc.fallocate(fd, mode, off(offset - base), off(length)), 0, "zeroed")
                model[offset:offset + length] = bytes(length)
            elif what == 2:
                to = begin + rng.randrange(size)
                length = min(length, begin + size - to)
                if abs(to - offset) < length:
                    continue
                done = os.copy_file_range(root, fd, length, offset, to - base)
                model[to:to + done] = model[offset:offset + done]
            else:
                found = os.pread(fd, length, offset - base)
                check(found == model[offset:offset + length], cache, "step", i, "read at", offset)
        os.close(root)
        os.close(part)
        m.umount()
        check(image.read_bytes() == model, cache, "the image differs")


@case("a root with cache: kernel shows what is written through a partition at once",
      needs=["sfdisk"])
def cached(env):
    image = partitioned(env)
    m = env.mount(env.simple(image, cache="kernel"))
    begin = 12288 * 512
    root = os.open(m / "disk", os.O_RDWR)
    part = os.open(m / "disk.d/partitions/2", os.O_RDWR)
    area = mmap.mmap(root, 32 * MiB)
    for i in range(300):
        text, at = b"number %05d" % i, (i * 40961) % (8 * MiB - 100)
        _ = area[begin + at], os.pread(root, 4096, begin + at)  # now it is cached
        os.pwrite(part, text, at)
        equal(area[begin + at:begin + at + len(text)], text, f"{i}: mapped")
        equal(os.pread(root, len(text), begin + at), text, f"{i}: read")
        os.pwrite(root, text[::-1], begin + at)
        equal(os.pread(part, len(text), at), text[::-1], f"{i}: the partition after the root")
    area.close()
    os.close(root)
    # Pages are kept when the raw file is closed, too.
    os.pwrite(part, b"while it was closed", 0)
    equal(pread(m / "disk", begin, 19), b"while it was closed", "after it was closed")
    os.close(part)


@case("two that write the same pages through root and partition at once wait for no one for ever",
      needs=["sfdisk"], timeout=60)
def cached_together(env):
    image = partitioned(env)
    m = env.mount(env.simple(image, cache="kernel"))
    begin, children = 12288 * 512, []
    for name, base in (("disk", begin), ("disk.d/partitions/2", 0)):
        for n in range(3):
            pid = os.fork()
            if pid == 0:
                fd = os.open(m / name, os.O_RDWR)
                area = None
                try:
                    area = mmap.mmap(fd, 64 * 4096, offset=base)
                except OSError:
                    pass
                for i in range(400):
                    os.pwrite(fd, bytes([n]) * 9000, base + (i * 4096) % (60 * 4096))
                    if area is not None and i % 10 == 0:
                        area[(i * 4096) % (64 * 4096)] = n
                        area.flush()
                    os.pread(fd, 9000, base + (i * 8192) % (60 * 4096))
                os._exit(0)
            children.append(pid)
    for pid in children:
        equal(os.waitpid(pid, 0)[1], 0, "a writer")
    equal(pread(m / "disk", begin, 65 * 4096), pread(m / "disk.d/partitions/2", 0, 65 * 4096),
          "both views at the end")


@case("a mapped partition follows what is written to the disk", needs=["sfdisk"])
def mapped(env):
    m = env.mount(env.simple(partitioned(env), passthrough="off"))
    begin = 12288 * 512
    root = os.open(m / "disk", os.O_RDWR)
    part = os.open(m / "disk.d/partitions/2", os.O_RDWR)
    try:
        area = mmap.mmap(part, 8 * MiB)
    except OSError as e:
        equal(e.errno, errno.ENODEV, "mmap")
        raise Skip("the kernel maps no uncached files (Linux 6.6)") from e
    for i in range(30):
        text = b"number %d" % i
        _ = area[i * 5000:i * 5000 + 10]
        os.pwrite(root, text, begin + i * 5000)
        wait_for(lambda t=text, a=i * 5000: area[a:a + len(t)] == t, "the mapping to follow")
    area[100:105] = b"store"
    area.flush()
    equal(os.pread(root, 5, begin + 100), b"store", "what was stored")
    area.close()
    os.close(part)
    os.close(root)


@case("a changed table is seen at once, and open partitions are bounded by what they were",
      needs=["sfdisk"])
def changed_table(env):
    image = partitioned(env)
    m = env.mount(env.simple(image, passthrough="off"))
    top = m / "disk.d/partitions"
    handles = {n: os.open(top / n, os.O_RDWR) for n in ("1", "2")}
    first = os.pread(handles["1"], 4096, 0)
    write_table(m / "disk", "label: gpt\nstart=2048,size=8192\nstart=12288,size=8192\n"
                            "start=40960,size=2048,name=new\n")
    equal(files_of(top), [1, 2, 3], "files")
    equal(os.stat(top / "2").st_size, 8192 * 512, "the new length")
    equal(os.readlink(top / "by-label/new"), "../3", "the new label")
    equal(os.pread(handles["1"], 4096, 0), first, "one that stayed")
    os.pwrite(handles["1"], b"goes on", 0)
    before = image.read_bytes()
    for act in (lambda fd: os.pread(fd, 10, 0), lambda fd: os.pwrite(fd, b"lost", 6 * MiB),
                lambda fd: os.lseek(fd, 0, os.SEEK_DATA)):
        with fails_with(errno.ENODEV):
            act(handles["2"])
    contains(m.read("disk.d/last-error"), "'disk.d/partitions/2' is gone: the partition table was "
                                          "changed")
    check(image.read_bytes() == before, "bytes were changed through one that is gone")
    pwrite(m / "disk", 0, bytes(MiB))
    pwrite(m / "disk", 31 * MiB, bytes(MiB))
    equal(files_of(top), [], "without a table")
    with fails_with(errno.ENODEV):
        os.pread(handles["1"], 10, 0)
    write_table(m / "disk", LABELS["gpt"])
    equal(os.pread(handles["1"], 7, 0), b"goes on", "one that the table names again")
    for fd in handles.values():
        os.close(fd)


@case("a table that is written by lease, while nobody has a partition open, is seen",
      needs=["sfdisk"])
def table_by_lease(env):
    m = env.mount(env.simple(partitioned(env), passthrough="off"))
    table = [pread(m / "disk", 0, MiB), pread(m / "disk", 31 * MiB, MiB)]
    fd = os.open(m / "disk", os.O_RDWR)
    for i in range(20):
        os.pwrite(fd, table[0] if i % 2 else bytes(MiB), 0)
        os.pwrite(fd, table[1] if i % 2 else bytes(MiB), 31 * MiB)
        equal(files_of(m / "disk.d/partitions"), [1, 2] if i % 2 else [], f"files, {i}")
    os.close(fd)


@case("what is wrong with a table is said, and its backup is used", needs=["sfdisk"])
def damaged(env):
    image = partitioned(env)
    pwrite(image, 512 + 70, b"\xff")
    m = env.mount(env.simple(image))
    equal(files_of(m / "disk.d/partitions"), [1, 2], "files")
    contains(m.read("disk.d/partitions/table"), "problem: the primary GPT at 0x200 is not valid")
    contains(m.read("disk.d/partitions/table"), "is used instead")
    pwrite(m / "disk", 32 * MiB - 512 + 70, b"\xff")
    equal(files_of(m / "disk.d/partitions"), [], "files without either")
    contains(m.read("disk.d/partitions/table"), "there is no valid one")


@case("a file system on the whole disk is no table", needs=["mkfs.ext4", "mkfs.vfat"])
def whole_disk(env):
    for kind in ("ext4", "vfat"):
        image = env.raw(f"{kind}.raw", 64 * MiB)
        run(f"mkfs.{kind}", *(["-q"] if kind == "ext4" else []), image)
        m = env.mount(env.simple(image), name=kind)
        equal(files_of(m / "disk.d/partitions"), [], "files")
        contains(m.read("disk.d/partitions/table"), f"the disk itself holds: {kind}")
        m.umount()


@case("exclusive: true keeps writers of the raw file and of partitions apart", needs=["sfdisk"])
def exclusive(env):
    m = env.mount(env.simple(partitioned(env), exclusive=True, passthrough="off"))
    part = m / "disk.d/partitions/1"
    fd = os.open(m / "disk", os.O_RDWR)
    with fails_with(errno.EBUSY):
        os.open(part, os.O_RDWR)
    contains(m.read("disk.d/last-error"), f"while process {os.getpid()} (")
    contains(m.read("disk.d/last-error"), "has the raw file open for writing")
    os.close(os.open(part, os.O_RDONLY))
    os.close(fd)
    fd = wait_for_open(part)
    contains(m.read("disk.d/openers"), "rw partitions/1")
    with fails_with(errno.EBUSY):
        os.open(m / "disk", os.O_RDWR)
    contains(m.read("disk.d/last-error"), "has partition 1 open for writing")
    os.close(os.open(m / "disk", os.O_RDONLY))
    os.close(os.open(m / "disk.d/partitions/2", os.O_RDWR))
    os.close(fd)


def wait_for_open(path):
    found = []

    def opened():
        try:
            found.append(os.open(path, os.O_RDWR))
            return True
        except OSError as e:
            equal(e.errno, errno.EBUSY, "open")
            return False
    wait_for(opened, "the release of the other file")
    return found[0]


@case("while the kernel writes to the file by itself partitions are busy", needs=["sfdisk"])
def passed_through(env):
    image = partitioned(env)
    done = env.mount_status(env.simple(image, growable=True, passthrough="on"))
    if done.returncode != 0:
        raise Skip("no passthrough here")
    m = env.adopt(done)
    fd = os.open(m / "disk", os.O_RDWR)
    if "passthrough" not in m.read("disk.d/openers"):
        raise Skip("no passthrough here")
    with fails_with(errno.EBUSY):
        os.open(m / "disk.d/partitions/1", os.O_RDONLY)
    contains(m.read("disk.d/last-error"), "a partition of 'disk' cannot be opened now: the kernel")
    os.close(fd)
    fd = wait_for_open(m / "disk.d/partitions/1")
    with open(m / "disk", "r+b"):
        check("passthrough" not in m.read("disk.d/openers"), "passed through beside a partition")
    os.close(fd)


@case("fuse2fs mounts a partition file", needs=["sfdisk", "mkfs.ext4", "fuse2fs"])
def file_system(env):
    image = partitioned(env, "label: gpt\nstart=2048,size=57344\n")
    m = env.mount(env.simple(image))
    part = m / "disk.d/partitions/1"
    run("mkfs.ext4", "-q", "-F", part)
    equal(table_of(m)["partitions"][0]["fuse-driver"], "fuse2fs", "what to try")
    inside = env.directory("inside")
    run("fuse2fs", "-o", "rw", part, inside)
    (inside / "file").write_bytes(pattern(3 * MiB))
    run("umount", inside)
    wait_for(lambda: m.read("disk.d/openers") == "", "fuse2fs to end")
    m.umount()
    run("dd", f"if={image}", f"of={env / 'part'}", "bs=1M", "skip=1", "count=28")
    run("e2fsck", "-fn", env / "part")
    run("debugfs", "-R", f"dump /file {env / 'file'}", env / "part")
    check((env / "file").read_bytes() == pattern(3 * MiB), "the file differs")


@case("a loop device over a partition file", needs=["sfdisk", "mkfs.ext4", "losetup"])
def looped(env):
    m = env.mount(env.simple(partitioned(env, "label: gpt\nstart=2048,size=57344\n")))
    part = m / "disk.d/partitions/1"
    run("mkfs.ext4", "-q", "-F", part)
    device = env.loop_device(part)
    inside = env.kernel_mount(device, "inside")
    (inside / "file").write_bytes(pattern(3 * MiB))
    run("umount", inside)
    env.detach(device)
    run("e2fsck", "-fn", part)


@case("qcow2: partitions, and those of the layer below", needs=["sfdisk", "qemu-img"])
def layers(env):
    raw = partitioned(env)
    run("qemu-img", "convert", "-O", "qcow2", raw, env / "base.qcow2")
    env.qcow2("top.qcow2", None, env / "base.qcow2")
    node = {"backing": {"driver": "qcow2", "file": {"driver": "file",
                                                   "filename": str(env / "base.qcow2")}}}
    m = env.mount(env.simple(env / "top.qcow2", "qcow2", node=node))
    begin = 12288 * 512
    pwrite(m / "disk.d/partitions/2", 5, b"new")
    whole = raw.read_bytes()
    check((m / "disk.d/layers/1/partitions/2").read_bytes() == whole[begin:begin + 8 * MiB], "below")
    equal(pread(m / "disk.d/layers/0/partitions/2", 5, 3), b"new", "the live layer")
    write_table(m / "disk", "label: gpt\nstart=2048,size=2048\n")
    equal(files_of(m / "disk.d/partitions"), [1], "files")
    equal(files_of(m / "disk.d/layers/1/partitions"), [1, 2], "files of the layer below")


@case("a failed root has no partitions", needs=[])
def no_medium(env):
    m = env.mount(env.simple(env / "missing.raw"))
    for name in ("disk.d/partitions/table",):
        with fails_with(errno.ENOMEDIUM):
            (m / name).read_text()
    with fails_with(errno.ENOMEDIUM):
        os.listdir(m / "disk.d/partitions")


FROZEN_BY = ("snapshots", "points")


@case("partitions below snapshots and points are those of their instant",
      needs=["sfdisk", "qemu-img"], unpassed=True)
def frozen(env):
    raw = partitioned(env)
    whole = raw.read_bytes()
    run("qemu-img", "convert", "-O", "qcow2", raw, env / "a.qcow2")
    m = env.mount(env.simple(env / "a.qcow2", "qcow2"))
    one, two = (whole[2048 * 512:10240 * 512], whole[12288 * 512:28672 * 512])
    top = m / "disk.d"
    opened = {}
    for kind in FROZEN_BY:
        os.mkdir(top / kind / "then")  # a point, too, while a snapshot is open
        opened[kind] = os.open(top / kind / "then/partitions/2", os.O_RDONLY)
    pwrite(top / "partitions/2", 5, b"new")
    write_table(m / "disk", "label: gpt\nstart=4096,size=2048,name=late\n")
    equal(files_of(top / "partitions"), [1], "files now")
    for kind in FROZEN_BY:
        where = f"disk.d/{kind}/then/partitions"
        equal(files_of(m / where), [1, 2], f"{kind}: files")
        equal([(p["label"], p["start"], p["size"]) for p in table_of(m, where)["partitions"]],
              [("one", 2048 * 512, len(one)), ("two", 12288 * 512, len(two))], f"{kind}: table")
        check((m / where / "1").read_bytes() == one, kind, "has other bytes in 1")
        check((m / where / "by-label/two").read_bytes() == two, kind, "has other bytes in two")
        check(os.pread(opened[kind], len(two), 0) == two, kind, "has other bytes where it was open")
        equal((os.stat(m / where / "1").st_mode & 0o222, os.stat(m / where / "1").st_size),
              (0, len(one)), f"{kind}: mode and size")
        equal(os.stat(m / where / "1").st_mtime_ns, os.stat(m / where / "../disk").st_mtime_ns,
              f"{kind}: time")
        with fails_with(errno.EROFS):
            os.open(m / where / "1", os.O_RDWR)
        with fails_with(errno.EBUSY):
            os.rmdir(top / kind / "then")  # its partition is open
        os.close(opened[kind])
        equal(pread(top / "partitions/1", 0, 1 * MiB),
              pread(m / "disk", 4096 * 512, 1 * MiB), "the live one")


@case("a partition of a snapshot is not taken for one of a later snapshot of its name",
      needs=["sfdisk", "qemu-img"], unpassed=True)
def frozen_again(env):
    run("qemu-img", "convert", "-O", "qcow2", partitioned(env), env / "a.qcow2")
    m = env.mount(env.simple(env / "a.qcow2", "qcow2"))
    for kind in FROZEN_BY:
        seen = m / "disk.d" / kind / "again"
        numbers, inodes = [], []
        for script in ("start=2048,size=2048,name=a\nstart=6144,size=2048,name=b\n",
                       "start=4096,size=2048,name=c\n"):
            write_table(m / "disk", "label: gpt\n" + script)
            os.mkdir(seen)
            numbers.append(files_of(seen / "partitions"))
            begin = 2048 if len(inodes) == 0 else 4096
            check((seen / "partitions/1").read_bytes() == pread(m / "disk", begin * 512, MiB),
                  kind, "has the bytes of another")
            inodes.append((os.stat(seen / "partitions/1").st_ino,
                           os.stat(seen / "partitions").st_ino))
            for directory in [seen] + [m / "disk.d/bitmaps/again"] * (kind == "points"):
                run("python3", "-c", f"import os; os.rmdir({str(directory)!r})")  # we have looked
        equal(numbers, [[1, 2], [1]], f"{kind}: files")
