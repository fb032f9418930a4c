# SPDX-License-Identifier: MIT
"""The raw file: what stat, cat, cp, dd, mmap, O_DIRECT and their like see."""
import errno
import mmap
import os
import shutil
import stat

from mount_suite import *  # noqa: F403


@case("a listing shows the disk with its size, mode and control directory", needs=["ls"])
def listing(env):
    m = env.mount(env.simple(env.raw("a.raw", 8 * MiB), mode="0640"))
    equal(sorted(os.listdir(m.path)), ["disk", "disk.d"], "the mount point")
    s = os.stat(m / "disk")
    equal(s.st_size, 8 * MiB, "st_size")
    equal(stat.S_IMODE(s.st_mode), 0o640, "mode")
    check(stat.S_ISREG(s.st_mode), "it is no regular file")
    check(stat.S_ISDIR(os.stat(m / ".bgfs").st_mode), ".bgfs is not reachable")
    contains(run("ls", "-la", m.path).stdout, "disk.d")
    m.umount()


@case("bytes written are read back, here and in the image")
def write_and_read(env):
    image = env.raw("a.raw", 8 * MiB)
    m = env.mount(env.simple(image))
    data = pattern(3 * MiB + 777)
    pwrite(m / "disk", 12345, data)
    equal(pread(m / "disk", 12345, len(data)) == data, True, "what was written")
    equal(pread(m / "disk", 8 * MiB - 10, 100), b"\0" * 10, "a read across the end")
    equal(pread(m / "disk", 8 * MiB, 100), b"", "a read past the end")
    m.umount()
    equal(image.read_bytes()[12345:12345 + len(data)] == data, True, "the image")
    equal(os.stat(image).st_size, 8 * MiB, "the image's size")


@case("cp and cat copy the disk whole", needs=["cp", "cat", "cmp"])
def copy_out(env):
    image = env.raw("a.raw", 4 * MiB, pattern(MiB), offset=MiB)
    m = env.mount(env.simple(image, writable=False))
    run("cp", m / "disk", env / "copy")
    run("cmp", env / "copy", image)
    with open(env / "cat", "wb") as out:
        run("cat", m / "disk", stdout=out, text=False)
    run("cmp", env / "cat", image)


@case("mmap reads and writes through")
def mapped(env):
    image = env.raw("a.raw", 4 * MiB, pattern(MiB))
    m = env.mount(env.simple(image))
    fd = os.open(m / "disk", os.O_RDWR)
    with mmap.mmap(fd, 4 * MiB) as area:
        equal(area[:MiB] == pattern(MiB), True, "what is mapped")
        area[2 * MiB:2 * MiB + 5] = b"hello"
        area.flush()
        equal(os.pread(fd, 5, 2 * MiB), b"hello", "a read after msync")
        os.pwrite(fd, b"world", 2 * MiB)
        equal(area[2 * MiB:2 * MiB + 5], b"world", "a mapping after a write")
    os.close(fd)
    m.umount()
    equal(pread(image, 2 * MiB, 5), b"world", "the image")


@case("O_DIRECT and O_DSYNC work")
def direct_and_durable(env):
    image = env.raw("a.raw", 4 * MiB)
    m = env.mount(env.simple(image))
    block = mmap.mmap(-1, 64 * KiB)
    block[:] = pattern(64 * KiB)
    fd = os.open(m / "disk", os.O_RDWR | os.O_DIRECT)
    equal(os.pwritev(fd, [block], 64 * KiB), 64 * KiB, "a direct write")
    back = mmap.mmap(-1, 64 * KiB)
    equal(os.preadv(fd, [back], 64 * KiB), 64 * KiB, "a direct read")
    equal(back[:] == block[:], True, "direct bytes")
    os.close(fd)
    pwrite(m / "disk", 0, b"x" * 4096, os.O_DSYNC)
    equal(pread(m / "disk", 0, 4096), b"x" * 4096, "a durable write")


@case("cache: kernel reads, writes and maps the same bytes")
def kernel_cache(env):
    image = env.raw("a.raw", 4 * MiB, pattern(MiB))
    m = env.mount(env.simple(image, cache="kernel"))
    equal(pread(m / "disk", 0, MiB) == pattern(MiB), True, "read through the page cache")
    pwrite(m / "disk", 100, b"abc")
    equal(pread(image, 100, 3), b"abc", "write-through: the image has it at once")
    fd = os.open(m / "disk", os.O_RDWR)
    with mmap.mmap(fd, 4 * MiB) as area:
        equal(area[100:103], b"abc", "a mapping")
        area[200:203] = b"def"
        area.flush()
    os.close(fd)
    equal(pread(image, 200, 3), b"def", "the image after msync")
    with fails_with(errno.ENOSPC):
        pwrite(m / "disk", 4 * MiB, b"x")
    m.command("disk.d/size", "+1M")
    equal(os.stat(m / "disk").st_size, 5 * MiB, "st_size after growing")
    equal(pread(m / "disk", 4 * MiB, 10), b"\0" * 10, "the new part")


@case("writes at the end fail with ENOSPC, straddling ones are short", unpassed=True)
def end_of_disk(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    fd = os.open(m / "disk", os.O_RDWR)
    with fails_with(errno.ENOSPC):
        os.pwrite(fd, b"x", MiB)
    with fails_with(errno.ENOSPC):
        os.pwrite(fd, b"x", 5 * MiB)
    equal(os.pwrite(fd, b"y" * 100, MiB - 10), 10, "a straddling write")
    os.lseek(fd, 0, os.SEEK_END)
    with fails_with(errno.ENOSPC):
        os.write(fd, b"x")
    os.close(fd)
    with fails_with(errno.ENOSPC):
        pwrite(m / "disk", 0, b"appended", os.O_APPEND)
    equal(os.stat(m / "disk").st_size, MiB, "st_size")
    equal(pread(m / "disk", MiB - 12, 12), b"\0\0" + b"y" * 10, "the last bytes")
    contains(m.read("disk.d/last-error"), "not growable")


@case("a disk cannot be truncated", needs=["truncate", "dd", "bash", "cp"], unpassed=True)
def not_truncated(env):
    image = env.raw("a.raw", MiB, pattern(MiB))
    m = env.mount(env.simple(image))
    with fails_with(errno.EPERM):
        os.truncate(m / "disk", 0)
    with fails_with(errno.EPERM):
        os.truncate(m / "disk", 2 * MiB)
    os.truncate(m / "disk", MiB)  # what it has already
    equal(run("bash", "-c", f": > {m / 'disk'}", ok=False).returncode, 1, "> onto the disk")
    (env / "new").write_bytes(b"n" * 1000)
    equal(run("cp", env / "new", m / "disk", ok=False).returncode, 1, "cp onto the disk")
    equal(run("dd", f"if={env / 'new'}", f"of={m / 'disk'}", ok=False).returncode, 1, "dd")
    equal(pread(m / "disk", 0, MiB) == pattern(MiB), True, "the content")
    contains(m.read("disk.d/last-error"), "bgfs convert -n -f raw -O raw backup.raw")
    run("dd", f"if={env / 'new'}", f"of={m / 'disk'}", "conv=notrunc")
    equal(pread(m / "disk", 0, 1001), b"n" * 1000 + pattern(MiB)[1000:1001], "dd conv=notrunc")


@case("on-truncate: zero makes plain cp restore exactly", needs=["cp", "cmp"], unpassed=True)
def truncate_to_zeroes(env):
    image = env.raw("a.raw", 4 * MiB, pattern(4 * MiB))
    m = env.mount(env.simple(image, **{"on-truncate": "zero"}))
    backup = env.raw("backup", 4 * MiB, b"kept", offset=2 * MiB)
    run("cp", "--sparse=always", backup, m / "disk")
    run("cmp", backup, m / "disk")
    equal(os.stat(m / "disk").st_size, 4 * MiB, "st_size")
    os.truncate(m / "disk", 0)
    equal(pread(m / "disk", 0, 4 * MiB) == b"\0" * 4 * MiB, True, "zeroes after truncate to 0")
    equal(os.stat(m / "disk").st_size, 4 * MiB, "st_size after truncate to 0")
    with fails_with(errno.EPERM):
        os.truncate(m / "disk", 100)
    m.umount()


@case("what the kernel had kept of a disk is gone when truncating has made it zeroes", as_written=True)
def truncate_what_is_kept(env):
    for cache in ("none", "kernel"):
        image = env.raw("a.raw", 4 * MiB, pattern(4 * MiB))
        m = env.mount(env.simple(image, cache=cache, **{"on-truncate": "zero"}))
        fd = os.open(m / "disk", os.O_RDWR)
        try:
            area = mmap.mmap(fd, 4 * MiB)
        except OSError as e:
            equal(e.errno, errno.ENODEV, "mmap")
            raise Skip("the kernel maps no uncached files (Linux 6.6)") from e
        equal(area[MiB:MiB + 4096], pattern(4 * MiB)[MiB:MiB + 4096], "what is kept")
        equal(os.pread(fd, 4096, 2 * MiB), pattern(4 * MiB)[2 * MiB:2 * MiB + 4096], "and read")
        os.ftruncate(fd, 0)
        equal(os.pread(fd, 4 * MiB, 0) == b"\0" * 4 * MiB, True, f"{cache}: read")
        wait_for(lambda a=area: a[:] == b"\0" * 4 * MiB, f"{cache}: zeroes to be mapped")
        area.close()
        os.close(fd)
        m.umount()


@case("a growable disk grows by writing and follows truncate")
def growable(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), growable=True))
    pwrite(m / "disk", 3 * MiB, b"end")
    equal(os.stat(m / "disk").st_size, 3 * MiB + 3, "st_size after a write past the end")
    equal(pread(m / "disk", MiB, 2 * MiB) == b"\0" * 2 * MiB, True, "the gap")
    os.truncate(m / "disk", 2 * MiB)
    equal(os.stat(m / "disk").st_size, 2 * MiB, "st_size after truncate")
    os.truncate(m / "disk", 4 * MiB)
    equal(pread(m / "disk", 3 * MiB, 3), b"\0" * 3, "what was cut off does not come back")


@case("a growable qcow2 disk grows by whole sectors", needs=["qemu-img"])
def growable_qcow2(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", "1M"), "qcow2", growable=True))
    pwrite(m / "disk", MiB, b"end")
    equal(os.stat(m / "disk").st_size, MiB + 512, "st_size")
    equal(pread(m / "disk", MiB, 512), b"end" + b"\0" * 509, "the last sector")


@case("a read-only export refuses writing with EROFS, to users with EACCES",
      needs=["runuser"])
def read_only(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), writable=False, mode="0444"))
    with fails_with(errno.EROFS):
        os.open(m / "disk", os.O_WRONLY)
    with fails_with(errno.EROFS):
        os.open(m / "disk", os.O_RDWR | os.O_TRUNC)
    with fails_with(errno.EROFS):
        os.truncate(m / "disk", 5)
    denied = run("runuser", "-u", "nobody", "--", "sh", "-c", f"echo x >> {m / 'disk'}", ok=False)
    contains(denied.stderr, "Permission denied")
    run("runuser", "-u", "nobody", "--", "cat", m / "disk", stdout=subprocess.DEVNULL)


@case("owner, group and mode of an export are its own", needs=["runuser"])
def ownership(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), owner=65534, group=65534, mode="0600"))
    s = os.stat(m / "disk")
    equal((s.st_uid, s.st_gid), (65534, 65534), "owner")
    equal(os.stat(m / "disk.d/state").st_uid, 65534, "owner of a view")
    run("runuser", "-u", "nobody", "--", "cat", m / "disk", stdout=subprocess.DEVNULL)
    with fails_with(errno.EPERM):
        os.chmod(m / "disk", 0o644)
    os.chmod(m / "disk", 0o600)


@case("names below the mount are neither made nor removed")
def fixed_names(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    with fails_with(errno.EPERM, errno.EACCES):
        os.open(m / "new", os.O_CREAT | os.O_WRONLY)
    with fails_with(errno.EPERM, errno.EACCES):
        os.mkdir(m / "new")
    with fails_with(errno.EPERM, errno.EACCES):
        os.unlink(m / "disk")
    with fails_with(errno.EPERM, errno.EACCES):
        os.rename(m / "disk", m / "other")
    with fails_with(errno.ENOENT):
        os.stat(m / "nothing")
    equal(os.stat(m / "disk").st_size, MiB, "the disk")


@case("inode numbers and times survive a remount")
def stable(env):
    graph = env.simple(env.raw("a.raw", MiB))
    seen = []
    for _ in range(2):
        m = env.mount(graph)
        if not seen:
            pwrite(m / "disk", 0, b"changed")
        names = ["disk", "disk.d", "disk.d/state", ".bgfs", ".bgfs/pid", "disk.d/layers/0/disk"]
        seen.append(({n: os.stat(m / n).st_ino for n in names}, os.stat(m / "disk").st_mtime_ns))
        m.umount()
    equal(seen[1][0], seen[0][0], "inode numbers")
    equal(len(set(seen[0][0].values())), 6, "distinct inode numbers")
    equal(seen[1][1], seen[0][1], "mtime after a remount")


@case("mtime grows with each change and only then")
def times(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    before = os.stat(m / "disk").st_mtime_ns
    pread(m / "disk", 0, 100)
    equal(os.stat(m / "disk").st_mtime_ns, before, "mtime after reading")
    for i in range(50):
        pwrite(m / "disk", i, b"x")
        after = os.stat(m / "disk").st_mtime_ns
        check(after > before, "mtime did not grow at change", i)
        before = after
    os.utime(m / "disk", ns=(10**9, 10**9))
    equal(os.stat(m / "disk").st_mtime_ns, 10**9, "mtime as utimensat set it")


@case("statfs is that of the file system below the image")
def space(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    host, seen = os.statvfs(env.dir), os.statvfs(m / "disk")
    equal((seen.f_blocks, seen.f_frsize), (host.f_blocks, host.f_frsize), "statfs")


@case("user.bgfs attributes answer and are not listed", needs=["cp"])
def attributes(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    equal(os.getxattr(m / "disk", "user.bgfs.format"), b"raw", "format")
    equal(os.getxattr(m / "disk", "user.bgfs.virtual-size"), b"1048576", "virtual-size")
    equal(os.getxattr(m / "disk", "user.bgfs.node-name"), b"top", "node-name")
    equal(os.getxattr(m / "disk", "user.bgfs.state"), b"ok", "state")
    with fails_with(errno.ENODATA):
        os.getxattr(m / "disk", "user.other")
    with fails_with(errno.ENODATA):
        os.getxattr(m / "disk", "security.capability")
    equal(os.listxattr(m / "disk"), [], "the list")
    with fails_with(errno.EOPNOTSUPP):
        os.setxattr(m / "disk", "user.x", b"y")
    equal(os.getxattr(m / "disk", "user.bgfs.state"), b"ok", "after what is not supported")
    run("cp", "-a", m / "disk", env / "copy")


@case("copy_file_range copies within the mount and keeps holes")
def copy_range(env):
    a = env.raw("a.raw", 8 * MiB, pattern(MiB), offset=2 * MiB)
    b = env.raw("b.raw", 8 * MiB, pattern(8 * MiB, seed=2))
    nodes = [{"node-name": n, "driver": "raw", "discard": "unmap",
              "file": {"driver": "file", "filename": str(p)}} for n, p in (("a", a), ("b", b))]
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n, "writable": True} for n in "ab"]))
    source, target = os.open(m / "a", os.O_RDONLY), os.open(m / "b", os.O_RDWR)
    done = 0
    while done < 8 * MiB:
        count = os.copy_file_range(source, target, 8 * MiB - done, done, done)
        check(count > 0, "copy_file_range stopped at", done)
        done += count
    equal(os.copy_file_range(source, target, 100, 8 * MiB, 0), 0, "past the end")
    equal(pread(m / "b", 0, 8 * MiB) == pread(m / "a", 0, 8 * MiB), True, "the copy")
    equal(data_ranges(m / "b"), [(2 * MiB, 3 * MiB)], "the holes of the copy")
    os.close(source)
    os.close(target)
    target = os.open(m / "b", os.O_RDWR)
    equal(os.copy_file_range(target, target, MiB, 2 * MiB, 5 * MiB), MiB, "within one disk")
    equal(pread(m / "b", 5 * MiB, MiB) == pattern(MiB), True, "the copy within one disk")
    os.close(target)
