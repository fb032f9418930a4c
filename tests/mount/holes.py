# SPDX-License-Identifier: MIT
"""Holes: that they are seen, kept, made, and that making them gives space back."""
import errno
import os

from mount_suite import *  # noqa: F403


def blocks(path):
    return os.stat(path).st_blocks * 512


@case("SEEK_DATA and SEEK_HOLE tell where data is, ENXIO at the end")
def seeking(env):
    m = env.mount(env.simple(env.raw("a.raw", 8 * MiB, pattern(MiB), offset=2 * MiB)))
    equal(data_ranges(m / "disk"), [(2 * MiB, 3 * MiB)], "data")
    fd = os.open(m / "disk", os.O_RDONLY)
    equal(os.lseek(fd, 2 * MiB + 5, os.SEEK_DATA), 2 * MiB + 5, "within data")
    equal(os.lseek(fd, 0, os.SEEK_HOLE), 0, "a hole at once")
    equal(os.lseek(fd, 2 * MiB, os.SEEK_HOLE), 3 * MiB, "the next hole")
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        for offset in (8 * MiB, 9 * MiB):
            with fails_with(errno.ENXIO):
                os.lseek(fd, offset, whence)
    with fails_with(errno.ENXIO):
        os.lseek(fd, 3 * MiB, os.SEEK_DATA)
    equal(os.lseek(fd, 8 * MiB - 1, os.SEEK_HOLE), 8 * MiB - 1, "a hole at the last byte")
    os.close(fd)


@case("a full disk has its end as its only hole")
def full(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB, pattern(MiB))))
    equal(data_ranges(m / "disk"), [(0, MiB)], "data")
    fd = os.open(m / "disk", os.O_RDONLY)
    equal(os.lseek(fd, 0, os.SEEK_HOLE), MiB, "the hole at the end")
    os.close(fd)


@case("st_blocks is what the image takes and follows writes and holes")
def allocated(env):
    image = env.raw("a.raw", 8 * MiB, pattern(MiB))
    m = env.mount(env.simple(image))
    equal(blocks(m / "disk"), blocks(image), "st_blocks")
    pwrite(m / "disk", 4 * MiB, pattern(2 * MiB))
    equal(blocks(m / "disk"), blocks(image), "st_blocks after a write")
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, MiB)
    equal(blocks(m / "disk"), blocks(image), "st_blocks after a hole")


@case("an empty disk is not shown with zero blocks, which tar takes for a hole", needs=["tar"])
def never_zero_blocks(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    check(os.stat(m / "disk").st_blocks > 0, "st_blocks is 0")


@case("punched holes read as zeroes and give their space back")
def punch(env):
    image = env.raw("a.raw", 8 * MiB, pattern(8 * MiB))
    m = env.mount(env.simple(image))
    before = blocks(image)
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, MiB, 2 * MiB)
    equal(pread(m / "disk", MiB, 2 * MiB) == b"\0" * 2 * MiB, True, "the hole")
    equal(pread(m / "disk", 3 * MiB, MiB) == pattern(8 * MiB)[3 * MiB:4 * MiB], True, "behind it")
    check(blocks(image) <= before - 2 * MiB, "no space was given back")
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 100, 50)
    equal(pread(m / "disk", 90, 70), pattern(200)[90:100] + b"\0" * 50 + pattern(200)[150:160],
          "a hole of a few bytes")
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 7 * MiB, 9 * MiB)
    equal(os.stat(m / "disk").st_size, 8 * MiB, "st_size after a hole across the end")
    equal(pread(m / "disk", 7 * MiB, MiB) == b"\0" * MiB, True, "the hole across the end")


@case("zeroed ranges read as zeroes; what does not fit is refused", unpassed=True)
def zero_range(env):
    m = env.mount(env.simple(env.raw("a.raw", 4 * MiB, pattern(4 * MiB))))
    fallocate(m / "disk", FALLOC_ZERO_RANGE, MiB, MiB)
    equal(pread(m / "disk", MiB, MiB) == b"\0" * MiB, True, "the range")
    fallocate(m / "disk", FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 3 * MiB, 5 * MiB)
    equal(pread(m / "disk", 3 * MiB, MiB) == b"\0" * MiB, True, "the range across the end")
    with fails_with(errno.ENOSPC):
        fallocate(m / "disk", FALLOC_ZERO_RANGE, 3 * MiB, 5 * MiB)
    with fails_with(errno.EOPNOTSUPP):
        fallocate(m / "disk", FALLOC_COLLAPSE, 0, MiB)
    equal(os.stat(m / "disk").st_size, 4 * MiB, "st_size")


@case("plain fallocate reserves space and changes no byte", unpassed=True)
def reserve(env):
    image = env.raw("a.raw", 8 * MiB, pattern(MiB), offset=MiB)
    m = env.mount(env.simple(image))
    fallocate(m / "disk", 0, 0, 8 * MiB)
    check(blocks(image) >= 8 * MiB, "no space was reserved")
    equal(pread(m / "disk", 0, 8 * MiB) == b"\0" * MiB + pattern(MiB) + b"\0" * 6 * MiB, True,
          "the content")
    with fails_with(errno.ENOSPC):
        fallocate(m / "disk", 0, 7 * MiB, 2 * MiB)
    equal(os.stat(m / "disk").st_size, 8 * MiB, "st_size")


@case("fallocate of more than the host has fails with ENOSPC and takes nothing")
def reserve_too_much(env):
    image = env.raw("a.raw", 8 * TiB)
    m = env.mount(env.simple(image))
    with fails_with(errno.ENOSPC):
        fallocate(m / "disk", 0, 0, 8 * TiB)
    equal(blocks(image), 0, "what the image takes")
    contains(m.read("disk.d/last-error"), "cannot reserve")


@case("a growable disk grows by fallocate")
def grow(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), growable=True))
    fallocate(m / "disk", 0, 2 * MiB, MiB)
    equal(os.stat(m / "disk").st_size, 3 * MiB, "st_size")


@case("cp, tar -S and dd keep holes", needs=["cp", "tar", "dd", "cmp"])
def keep(env):
    image = env.raw("a.raw", 64 * MiB, pattern(MiB), offset=32 * MiB)
    m = env.mount(env.simple(image, writable=False))
    run("cp", m / "disk", env / "auto")
    run("cp", "--sparse=always", m / "disk", env / "always")
    run("tar", "-C", m.path, "-Scf", env / "tar", "disk")
    check(os.stat(env / "tar").st_size < 4 * MiB, "tar -S stored the holes")
    run("tar", "-C", env.dir, "-xf", env / "tar")
    run("dd", f"if={m / 'disk'}", f"of={env / 'dd'}", "bs=1M", "conv=sparse")
    for copy in ("auto", "always", "disk", "dd"):
        run("cmp", env / copy, image)
        check(blocks(env / copy) <= 2 * MiB, copy, "has lost its holes")


@case("an 8 TiB sparse disk is sought and trimmed quickly", timeout=60)
def huge(env):
    image = env / "a.raw"
    try:
        with open(image, "wb") as f:
            f.truncate(8 * TiB)
    except OSError as e:
        raise Skip(f"the file system takes no file of that length: {e}")
    pwrite(image, 7 * TiB, b"far")
    m = env.mount(env.simple(image))
    found = data_ranges(m / "disk")
    equal(len(found), 1, "runs of data")
    check(found[0][0] <= 7 * TiB < found[0][1], "data is elsewhere", found)
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 8 * TiB)
    equal(data_ranges(m / "disk"), [], "data after a trim of everything")
