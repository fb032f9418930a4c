# SPDX-License-Identifier: MIT
"""The table of rows: what is measured, and how good it is meant to be."""
import dataclasses
import fnmatch

from .commands import Check, Commit, Compare, Convert, Map
from .fio import Load
from .stages import (Chain, EmptyImage, FullImage, Loop, Memory, MountTime, Overlay, Passthrough,
                     Stage)

# The names of figures: what ours is divided by, or what it costs.
BEST_PEER, NATIVE, CHAIN, SERVER_CPU, ITSELF = (
    "best peer", "native", "chain of 1", "server CPU", "itself")
# How many times the CPU time of ours the best peer's requests take, in server, client and kernel.
PEER_CPU = "best peer's CPU"


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    stage: Stage
    load: Load | None  # None: the stage knows what it measures
    goals: dict = dataclasses.field(default_factory=dict)  # by figure; at least, or at most a cost
    unit: str = ""

    @property
    def is_cost(self):
        return self.load is None


READ_1, READ_32 = Load("randread", "4k", 1), Load("randread", "4k", 32)
WRITE_1, WRITE_32 = Load("randwrite", "4k", 1), Load("randwrite", "4k", 32)
READ_1M, WRITE_1M = Load("read", "1M", 4), Load("write", "1M", 4)
READ_16_THREADS = Load("randread", "4k", threads=16, engine="psync")
WRITE_16_THREADS = Load("randwrite", "4k", threads=16, engine="psync")
FSYNC_4K = Load("randwrite", "4k", engine="psync", is_direct=False, options=("--fdatasync=1",))
BUFFERED_READ_1M = Load("read", "1M", engine="psync", is_direct=False)
BUFFERED_WRITE_4K = Load("randwrite", "4k", engine="psync", is_direct=False)
CACHED_READ = Load("randread", "4k", engine="psync", is_direct=False, warms_up=True)


def once(depth, area):
    """Each write into a cluster of its own."""
    return Load("randwrite", "4k", depth, is_once=True, length=area)


def onwards(block, depth, area):
    """One write behind the other, over nothing."""
    return Load("write", block, depth, is_once=True, length=area)


def image_rows(stage, suffix, goals):
    """The same clients on one stage."""
    clients = (
        ("read-4k-qd1", "4 KiB random read, depth 1", READ_1),
        ("read-4k-qd32", "4 KiB random read, depth 32", READ_32),
        ("write-4k-qd1", "4 KiB random write, depth 1", WRITE_1),
        ("write-4k-qd32", "4 KiB random write, depth 32", WRITE_32),
        ("read-1m", "1 MiB sequential read, depth 4", READ_1M),
        ("write-1m", "1 MiB sequential write, depth 4", WRITE_1M),
    )
    for name, title, load in clients:
        yield Row(name + suffix, f"qcow2, {title}", stage, load, goals.get(name, {}))


def command_rows():
    """Verbs of the command line beside qemu-img's."""
    for name, title, stage in (
            ("convert-to-qcow2", "convert raw, half of it data, to qcow2",
             Convert("half_raw", "raw", "qcow2")),
            ("convert-to-raw", "convert qcow2, half of it data, to raw",
             Convert("half_qcow2", "qcow2", "raw")),
            ("convert-compressing", "convert -c raw, text, to qcow2",
             Convert("text_raw", "raw", "qcow2", "-c")),
            ("convert-decompressing", "convert compressed qcow2, text, to raw",
             Convert("text_qcow2", "qcow2", "raw")),
            ("convert-chain", "convert 8 overlays over a base to one qcow2",
             Convert("chain", "qcow2", "qcow2")),
            ("convert-1t-to-qcow2", "convert qcow2 of 1 TiB, nearly empty, to qcow2",
             Convert("sparse", "qcow2", "qcow2")),
            ("convert-1t-to-raw", "convert qcow2 of 1 TiB, nearly empty, to raw",
             Convert("sparse", "qcow2", "raw")),
            ("compare", "compare raw with the same as qcow2", Compare()),
            ("check-1t", "check qcow2 with all metadata of 1 TiB", Check()),
            ("map-fragmented", "map qcow2 of 100000 extents", Map()),
            ("commit", "commit scattered clusters of an overlay", Commit())):
        yield Row(name, title, stage, None, {BEST_PEER: 1.0}, "s")


def all_rows():
    pinned, unpinned = FullImage(), FullImage(is_pinned=False)
    yield from image_rows(pinned, "", {
        "read-4k-qd1": {BEST_PEER: 2.6, SERVER_CPU: 8},
        "read-4k-qd32": {BEST_PEER: 2.4, SERVER_CPU: 5},
        "write-4k-qd1": {BEST_PEER: 2.1},
        "write-4k-qd32": {BEST_PEER: 2.1},
        "read-1m": {BEST_PEER: 3.5},
        "write-1m": {BEST_PEER: 1.0},
    })
    yield from image_rows(unpinned, "-unpinned", {})
    yield Row("read-4k-16-threads-unpinned", "qcow2, 4 KiB random read, 16 blocking threads",
              unpinned, READ_16_THREADS, {BEST_PEER: 2.0})
    yield Row("write-4k-16-threads-unpinned", "qcow2, 4 KiB random write, 16 blocking threads",
              unpinned, WRITE_16_THREADS)
    yield Row("buffered-read-1m-unpinned", "qcow2, 1 MiB sequential read without O_DIRECT",
              unpinned, BUFFERED_READ_1M)
    for depth in (1, 32):
        yield Row(f"allocate-4k-qd{depth}",
                  f"qcow2, 4 KiB writes into an empty image, depth {depth}", EmptyImage(depth),
                  once(depth, EmptyImage.AREA), {BEST_PEER: 2.0})
    for block, depth, suffix in (("4k", 32, "-qd32"), ("64k", 8, "-qd8"), ("1M", 4, "")):
        area = EmptyImage.SEQUENTIAL_AREA
        yield Row(f"allocate-sequential-{block.lower()}{suffix}",
                  f"qcow2, {block.replace('k', ' KiB').replace('M', ' MiB')} writes one behind the "
                  f"other into an empty image, depth {depth}", EmptyImage(depth, area),
                  onwards(block, depth, area), {BEST_PEER: 1.0} if block == "1M" else {})
    for depth in (1, 32):
        yield Row(f"allocate-over-base-4k-qd{depth}",
                  f"qcow2, 4 KiB writes into an empty overlay, depth {depth}", Overlay(depth),
                  once(depth, Overlay.AREA), {BEST_PEER: 10.0})
    chain = Chain()
    yield Row("chain-read-4k-qd1", "64 overlays, 4 KiB random read, depth 1", chain, READ_1,
              {CHAIN: 0.95})
    yield Row("chain-read-4k-qd32", "64 overlays, 4 KiB random read, depth 32", chain, READ_32,
              {CHAIN: 0.95})
    passthrough = Passthrough()
    for name, title, load, goal in (
            ("read-4k", "4 KiB random read, depth 1", READ_1, 0.9),
            ("read-1m", "1 MiB sequential read, depth 4", READ_1M, 0.9),
            ("write-1m", "1 MiB sequential write, depth 4", WRITE_1M, 0.8),
            ("write-4k", "4 KiB random write, depth 1", WRITE_1, 0.9)):
        yield Row("passthrough-" + name, f"raw with passthrough, {title}", passthrough, load,
                  {NATIVE: goal})
    loop = Loop()
    for name, title, load, goal in (
            ("read-4k-qd32", "4 KiB random read, depth 32", READ_32, 0.4),
            ("read-1m", "1 MiB sequential read, depth 4", READ_1M, 0.4),
            ("fdatasync-4k", "4 KiB random write, each with fdatasync", FSYNC_4K, 0.5)):
        yield Row("loop-" + name, f"ext4 on a loop device over qcow2, {title}", loop, load,
                  {NATIVE: goal})
    cached = FullImage(export=", cache: kernel")
    yield Row("cached-read-4k", "qcow2 with cache: kernel, 4 KiB random read of cached pages",
              cached, CACHED_READ, {NATIVE: 0.9})
    yield Row("buffered-write-4k", "qcow2 with cache: kernel, 4 KiB random write without O_DIRECT",
              cached, BUFFERED_WRITE_4K)
    yield Row("mount-time", "time to mount a qcow2 image", MountTime(), None, {ITSELF: 30}, "ms")
    yield Row("resident-memory", "resident memory after reads and writes", Memory(is_pinned=False),
              None, {ITSELF: 40}, "MiB")
    yield from image_rows(FullImage("disk"), "-disk", {})
    yield from image_rows(FullImage("disk", is_pinned=False), "-disk-unpinned", {})
    yield from command_rows()


def choose(patterns):
    """The rows of these names or patterns in the table's order; ValueError for what is no row's."""
    table = list(all_rows())
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(row.name, pattern) for row in table):
            raise ValueError(f"no row is called '{pattern}'; see --list")
    return [row for row in table
            if not patterns or any(fnmatch.fnmatchcase(row.name, p) for p in patterns)]
