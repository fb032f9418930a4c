# SPDX-License-Identifier: MIT
"""Internal snapshots as roots of their own beside the live disk."""
import errno
import random

from mount_suite import *  # noqa: F403


@case("a snapshot is a root beside the live disk and stays as it is while that is written",
      needs=["qemu-img", "qemu-io"], as_written=True)  # it shares a node with one that is written
def beside_the_live_disk(env):
    image = env.qcow2("a.qcow2", "8M", options="cluster_size=4k")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 3M", image)
    run(BGFS, "snapshot", "-c", "first", image)
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 2 1M 3M", image)
    run("qemu-img", "snapshot", "-c", "second", image)
    view = {"driver": "internal-snapshot", "read-only": True, "file": "live"}
    graph = env.graph(
        [{"node-name": "live", "driver": "qcow2", "discard": "unmap",
          "file": {"driver": "file", "filename": str(image)}},
         {"node-name": "one", "snapshot-name": "first", **view},
         {"node-name": "two", "snapshot-id": "2", **view}],
        [{"name": "live", "node-name": "live", "writable": True},
         {"name": "one", "node-name": "one"}, {"name": "two", "node-name": "two"}])
    run(BGFS, "config", "check", graph)
    m = env.mount(graph)
    first = b"\1" * (3 * MiB) + bytes(5 * MiB)
    second = b"\1" * MiB + b"\2" * (3 * MiB) + bytes(4 * MiB)
    live = bytearray(second)
    chance = random.Random(1)
    for round_ in range(60):
        at = chance.randrange(8 * MiB - 100_000)
        data = pattern(chance.randrange(1, 100_000), round_)
        pwrite(m / "live", at, data)
        live[at:at + len(data)] = data
        if round_ % 10 == 0:
            fallocate(m / "live", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, at, 65536)
            live[at:at + 65536] = bytes(65536)
            check(pread(m / "one", 0, 8 * MiB) == first, "the first snapshot")
            check(pread(m / "two", 0, 8 * MiB) == second, "the second snapshot")
    equal(data_ranges(m / "one"), [(0, 3 * MiB)], "where the first has data")
    check(pread(m / "live", 0, 8 * MiB) == bytes(live), "the live disk")
    with fails_with(errno.EACCES, errno.EPERM, errno.EROFS):
        pwrite(m / "one", 0, b"x")
    m.umount()
    run("qemu-img", "check", "-q", image)
    for name, content in (("first", first), ("second", second)):
        run("qemu-img", "convert", "-l", name, "-O", "raw", image, env / "o.raw")
        check((env / "o.raw").read_bytes() == content, name)
