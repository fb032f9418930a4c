# SPDX-License-Identifier: MIT
"""Several threads that take requests, and what they serve by lease."""
import errno
import glob
import os
import random
import subprocess
import threading

from mount_suite import *  # noqa: F403


def features(m):
    return dict(line.split(": ", 1) for line in m.read(".bgfs/features").splitlines())


def both(env):
    """The options of mounts with several queues, over either transport where there are both."""
    options = ["queues=4,transport=dev", "queues=1"]
    if RING_SWITCH.exists() and not os.environ.get("BGFS_TEST_NO_IO_URING"):
        options += ["queues=2", "queues=4"]
    return options


@case("without being asked there is a queue for each processor over a ring, and one over /dev/fuse",
      as_written=True)
def chosen(env):
    image = env.raw("a.raw", MiB)
    m = env.mount(env.simple(image))
    over_ring = features(m)["transport"] == "uring"
    wanted = min(len(os.sched_getaffinity(0)), 16) if over_ring else 1
    equal(features(m)["queues"], str(wanted), "the queues shown")
    equal(sum(open(f).read().startswith("queue-") for f in
              glob.glob(f"/proc/{m.pid}/task/*/comm")), wanted - 1, "threads beside the first")


@case("queues read and write what they know, and send home what they do not", needs=["qemu-img"])
def read_and_write(env):
    for option in both(env):
        image = env.qcow2(f"{option[7]}{len(option)}.qcow2", "64M")
        m = env.mount(env.simple(image, "qcow2", writable=True), "-o", option)
        equal(features(m)["queues"], option[7], "the queues shown")
        data = pattern(4 * MiB + 512, seed=5)
        pwrite(m / "disk", 12345 * 512, data)
        for _ in range(2):  # once to learn, once by lease
            equal(pread(m / "disk", 12345 * 512, len(data)) == data, True, f"{option}: content")
        again = pattern(4 * MiB + 512, seed=6)
        before = os.stat(m / "disk").st_mtime_ns
        pwrite(m / "disk", 12345 * 512, again)  # in place now
        check(os.stat(m / "disk").st_mtime_ns > before, option, "mtime stood still")
        fsync(m / "disk")
        equal(pread(m / "disk", 12345 * 512, len(again)) == again, True, f"{option}: in place")
        equal(pread(m / "disk", 40 * MiB, MiB) == bytes(MiB), True, f"{option}: a hole")
        m.umount()
        qemu_check(image)


@case("threads stamp their blocks while others discard, zero, reload and resize", timeout=240,
      needs=["qemu-img", "fallocate"])
def edited_under_load(env):
    block, blocks = 4096, 2048
    for option in both(env):
        image = env.qcow2(f"e{option[7]}{len(option)}.qcow2", "64M", options="cluster_size=4k")
        graph = env.graph([{"node-name": "n", "driver": "qcow2", "discard": "unmap",
                            "file": {"driver": "file", "filename": str(image)}}],
                          [{"name": "disk", "node-name": "n", "writable": True}])
        m = env.mount(graph, "-o", option)
        ends, strangers = threading.Event(), []

        def stamp(seed):
            chance = random.Random(seed)
            fd = os.open(m / "disk", os.O_RDWR)
            while not ends.is_set():
                index = chance.randrange(blocks)
                if chance.random() < 0.5:
                    os.pwrite(fd, index.to_bytes(8, "little") * (block // 8), index * block)
                    continue
                words = set(os.pread(fd, block, index * block)[i:i + 8]
                            for i in range(0, block, 8))
                if not words <= {index.to_bytes(8, "little"), bytes(8)}:
                    strangers.append((index, words))
            os.close(fd)

        threads = [threading.Thread(target=stamp, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        chance, fd = random.Random(7), os.open(m / "disk", os.O_RDWR)
        for i in range(120):
            at = chance.randrange(blocks - 16) * block
            fallocate(m / "disk", 3 if i % 2 else 0x11, at, 16 * block)  # punch, zero
            if i % 10 == 0:
                os.fsync(fd)
            if i % 40 == 20:
                m.command("disk.d/size", "+1M\n")
                m.command(".bgfs/reload", "force\n")
        os.close(fd)
        ends.set()
        for t in threads:
            t.join()
        equal(strangers[:1], [], f"{option}: blocks that belong elsewhere")
        m.umount()
        qemu_check(image)


@case("a disk is full although writes in place before it succeeded", needs=["qemu-img"])
def full_after_leases(env):
    small = env.directory("small")
    run("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", small)
    image = small / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
    m = env.mount(env.simple(image, "qcow2", writable=True))
    data = pattern(4096)
    # One descriptor: opening looks at the attributes, and so at all writes.
    with open(m / "disk", "r+b", buffering=0) as disk:
        for _ in range(5):
            os.pwrite(disk.fileno(), data, 0)  # in place, from the second on
        with fails_with(errno.ENOSPC):
            for i in range(1, 1024):
                os.pwrite(disk.fileno(), data, i * 64 * KiB)
        equal(m.read("disk.d/state").splitlines()[0], "full", "state")
        os.pwrite(disk.fileno(), data, 0)
    equal(m.read("disk.d/state"), "ok\n", "state after a write that found its place")
    m.umount()
    run("umount", small)


@case("a number of queues that cannot be is refused with what can be")
def refused(env):
    graph = env.simple(env.raw("a.raw", MiB))
    for option in ("queues=0", "queues=17", "queues=many", "queues=", "queues"):
        done = env.mount_status(graph, "-o", option)
        equal(done.returncode, 1, f"the status of {option}")
        contains(done.stderr, "a number from 1 to 16", f"the message of {option}")


@case("killed with queues at work, what was synced is there", needs=["qemu-img"])
def killed(env):
    for option in both(env):
        image = env.qcow2(f"k{option[7]}{len(option)}.qcow2", "16M")
        graph = env.simple(image, "qcow2", writable=True)
        m = env.mount(graph, "-o", option)
        for seed in (1, 2):
            data = pattern(2 * MiB, seed=seed)
            pwrite(m / "disk", 0, data)
        fsync(m / "disk")
        os.kill(m.pid, 9)
        wait_for(lambda: subprocess.run(["stat", str(m.path)], capture_output=True).returncode,
                 "the connection to end")
        run("umount", "-l", m.path)
        m = env.mount(graph, "-o", option)
        equal(pread(m / "disk", 0, len(data)) == data, True, f"{option}: what was synced")
        m.umount()
        qemu_check(image)
