# SPDX-License-Identifier: MIT
"""Images with known bytes, and whether a server gives them back."""
import hashlib
import os
import random
import shutil

from .machine import Broken, MiB, run

# What is measured, and behind it a place for a write whose bytes are looked at afterwards.
MEASURED = 256 * MiB
LENGTH = MEASURED + MiB
MARK_OFFSET, MARK_LENGTH = MEASURED, 64 << 10
# Beginning, somewhere in the middle, end: what is compared before anything is measured.
CHECKED = ((0, MiB), (MEASURED // 3 // MiB * MiB, 8 * MiB), (MEASURED - MiB, MiB))


def chunk(index, seed=1):
    """One MiB of the content: no two are alike, and none has zeroes to be skipped."""
    return random.Random(seed << 32 | index).randbytes(MiB)


def mark():
    return random.Random(4711).randbytes(MARK_LENGTH)


def digest_of_content(offset, length):
    found = hashlib.sha256()
    for index in range(offset // MiB, (offset + length) // MiB):
        found.update(chunk(index % (MEASURED // MiB)))
    return found.hexdigest()


def digest_of_file(path, offset, length):
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while length > 0:
            part = file.read(min(length, MiB))
            if not part:
                raise Broken(f"it ends {length} bytes early")
            found.update(part)
            length -= len(part)
    return found.hexdigest()


def require_content(path, checked=CHECKED):
    """A benchmark of wrong bytes is worthless."""
    for offset, length in checked:
        found, wanted = digest_of_file(path, offset, length), digest_of_content(offset, length)
        if found != wanted:
            raise Broken(f"it gives wrong bytes at {offset:#x}, {length:#x} long: "
                         f"their sha256 begins with {found[:12]} instead of {wanted[:12]}")


def require_zeroes(path, offset, length):
    zeroes = hashlib.sha256(bytes(length)).hexdigest()
    if digest_of_file(path, offset, length) != zeroes:
        raise Broken(f"it gives bytes that nobody wrote at {offset:#x}, {length:#x} long")


def write_mark(path, offset=MARK_OFFSET):
    """Writes through a server, and reads it back."""
    fd = os.open(path, os.O_RDWR)
    try:
        if os.pwrite(fd, mark(), offset) != MARK_LENGTH:
            raise Broken("it took less than was written to it")
        os.fsync(fd)
        if os.pread(fd, MARK_LENGTH, offset) != mark():
            raise Broken("it does not give back what was written")
    finally:
        os.close(fd)


def require_mark_in_image(image, offset, scratch):
    """When its server has gone: the image is sound and holds what was written."""
    run("qemu-img", "check", "-q", "-f", "qcow2", image)
    out = scratch / "mark"
    run("qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={MARK_LENGTH}",
        f"skip={offset // MARK_LENGTH}", f"count={offset // MARK_LENGTH + 1}", f"if={image}",
        f"of={out}")
    found = out.read_bytes()[:MARK_LENGTH]
    out.unlink()
    if found != mark():
        raise Broken(f"{image} does not hold what was written through its server")


def write_raw(path, length=LENGTH):
    with open(path, "wb") as file:
        known = [chunk(index) for index in range(min(length, MEASURED) // MiB)]
        for at in range(0, length, MiB):
            file.write(known[at // MiB % len(known)])
        file.flush()
        os.fsync(file.fileno())


def write_qcow2(raw, path):
    """Every cluster allocated, none compressed or skipped."""
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-S", "0", raw, path)


def create_qcow2(path, length, backing=None, backing_format=None):
    below = ["-b", backing, "-F", backing_format] if backing else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *below, path, length)


def write_patterns(path, writes):
    """Writes (offset, length, byte) into a qcow2 image."""
    run("qemu-io", "-f", "qcow2", path, input="".join(
        f"write -q -P {byte} {offset} {length}\n" for offset, length, byte in writes))


def copy(source, target):
    """A copy of its own: no extent is shared, holes stay holes, nothing waits to be written."""
    run("cp", "--sparse=always", "--reflink=never", source, target)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def remove_tree(path):
    shutil.rmtree(path, ignore_errors=True)
