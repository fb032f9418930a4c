# SPDX-License-Identifier: MIT
"""New qcow2 images are laid out as the most common tool lays them out, byte for byte where nothing
is said to the contrary, and what it refuses to make is refused."""
import json
import os
import random
import struct

from interop import PROGRAM, Skip, bgfs, contains, equal, is_sound, qemu_img, run

SECRET = ("--object", "secret,id=s,data=abc")
LUKS = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"


class Layout:
    """Where the structures of an image lie, in clusters."""

    def __init__(self, path):
        with open(path, "rb") as f:
            head = f.read(104)
            (self.version,) = struct.unpack_from(">I", head, 4)
            (self.bits,) = struct.unpack_from(">I", head, 20)
            (self.l1_entries, self.l1, self.table, self.table_clusters) = struct.unpack_from(
                ">IQQI", head, 36)
            f.seek(0)
            self.first = f.read(1 << self.bits).rstrip(b"\0")
            f.seek(self.table)
            blocks = f.read(self.table_clusters << self.bits)
            f.seek(self.l1)
            entries = f.read(self.l1_entries * 8)
        self.blocks = [x for (x,) in struct.iter_unpack(">Q", blocks) if x]
        self.l2 = [x & 0x00fffffffffffe00 for (x,) in struct.iter_unpack(">Q", entries) if x]
        self.length = os.path.getsize(path)
        self.space = os.stat(path).st_blocks * 512


def make(tool, name, options, size, *words, status=0):
    given = ("-o", options) if options else ()
    words = (*words, "-q", "-f", "qcow2", *given, name, *((size,) if size else ()))
    if tool == "bgfs":
        return bgfs("create", *words, status=status)
    return run("qemu-img", "create", *words, status=status)


def both(options, size, *words):
    """Both tools make the image under one name, since names are stored. Returns both layouts."""
    layouts = []
    for tool, keep in (("qemu-img", "theirs.qcow2"), ("bgfs", "ours.qcow2")):
        for left in ("a.qcow2", "a.data"):
            if os.path.exists(left):
                os.unlink(left)
        make(tool, "a.qcow2", options, size, *words)
        os.replace("a.qcow2", keep)
        if os.path.exists("a.data"):
            layouts.append((Layout(keep), os.path.getsize("a.data")))
        else:
            layouts.append((Layout(keep), None))
    return layouts


def same_layout(options, size, *words):
    (theirs, their_data), (ours, our_data) = both(options, size, *words)
    what = f"{options} {size}"
    equal(ours.first, theirs.first, f"first cluster, {what}")
    if len(theirs.blocks) == 1 or "preallocation" not in options:
        # Blocks among preallocated clusters come before those they count, not within.
        equal(ours.blocks, theirs.blocks, f"refcount blocks, {what}")
        equal(ours.l2, theirs.l2, f"L2 tables, {what}")
    if size != "512" or "preallocation" not in options:  # we preallocate whole clusters
        equal(ours.length, theirs.length, f"file length, {what}")
    if size != "512":  # a part of a cluster: our raw data file is as long as the disk, not longer
        equal(our_data, their_data, f"data file length, {what}")


MATRIX = (
    "", "compat=0.10", "compat=v2", "compat=v3", "lazy_refcounts=on", "compression_type=zstd",
    "extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M",
    "refcount_bits=1", "refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "refcount_bits=32",
    "refcount_bits=64", "cluster_size=4k,refcount_bits=64", "data_file=a.data",
    "data_file=a.data,data_file_raw=on", "data_file=a.data,preallocation=metadata",
    "preallocation=metadata", "preallocation=metadata,extended_l2=on",
    "cluster_size=2M,preallocation=metadata", "compat=0.10,preallocation=metadata",
)


def case_the_layout_is_the_peers():
    for options in MATRIX:
        for size in ("0", "512", "1M", "64M", "10G"):
            same_layout(options, size)
    for size in ("1T", "100T"):
        same_layout("", size)
    for bits in range(9, 22):
        # Where an L1 table needs refcount blocks of its own, ours come before it, not within.
        for size in ("0", "1M", "64M", "5G") if bits > 9 else ("0", "1M", "64M"):
            same_layout(f"cluster_size={1 << bits}", size)


def case_the_layout_of_overlays_is_the_peers():
    qemu_img("create", "-q", "-f", "raw", "base.raw", "3M")
    for options in ("", "compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=8k",
                    "extended_l2=on", "extended_l2=on,preallocation=metadata",
                    "data_file=a.data", "compression_type=zstd,lazy_refcounts=on"):
        for size in ("", "1M", "8M"):
            same_layout(options, size, "-b", "base.raw", "-F", "raw")


def case_preallocated_space_is_the_peers():
    """Where the tables lie differs: the peer moves its refcount table and leaves a hole."""
    for mode in ("metadata", "falloc", "full"):
        for options in ("cluster_size=64k", "cluster_size=512", "cluster_size=2M", "compat=0.10",
                        "extended_l2=on", "refcount_bits=64"):
            (theirs, _), (ours, _) = both(f"{options},preallocation={mode}", "9M")
            what = f"{options} {mode}"
            slack = 0 if options != "cluster_size=512" else theirs.length // 50
            if abs(ours.length - theirs.length) > slack:
                raise AssertionError(f"{what}: {ours.length} bytes, {theirs.length} are the peer's")
            if mode != "metadata" and ours.space < (9 << 20):
                raise AssertionError(f"{what}: {ours.space} bytes are reserved of {9 << 20}")
            is_sound("ours.qcow2")
            maps = [json.loads(qemu_img("map", "--output=json", name).out)
                    for name in ("theirs.qcow2", "ours.qcow2")]
            for runs in maps:
                equal(runs[0]["start"] + sum(r["length"] for r in runs), 9 << 20, what)
    for options in ("data_file=a.data", "data_file=a.data,data_file_raw=on"):
        for mode in ("off", "metadata", "falloc", "full"):
            (_, theirs), (_, ours) = both(f"{options},preallocation={mode}", "9M")
            equal(ours, theirs, f"length of the data file, {options} {mode}")


def case_encrypted_images_are_laid_out_as_the_peer_does():
    """The L1 table, then the LUKS header. Preallocated data come after it, not before."""
    compared = 0
    for options in ("", ",cluster_size=4k", ",cluster_size=2M", ",extended_l2=on"):
        peer = ["create", "-q", "-f", "qcow2", *SECRET, "-o", LUKS + options, "t.qcow2", "64M"]
        for _ in range(20):  # a peer that cannot time its key derivation makes nothing
            done = run("qemu-img", *peer, status=None)
            if "accurate CPU usage" not in done.err:
                break
        else:
            continue
        compared += 1
        make("bgfs", "o.qcow2", LUKS + options, "64M", *SECRET)
        theirs, ours = Layout("t.qcow2"), Layout("o.qcow2")
        equal(ours.first, theirs.first, f"first cluster, {options}")
        equal(ours.blocks, theirs.blocks, f"refcount blocks, {options}")
        equal(ours.length, theirs.length, f"length, {options}")
    if not compared:
        raise Skip("the peer cannot measure the processor")


POOL = {
    "compat": ("0.10", "1.1", "v2", "v3", "0.42"),
    "cluster_size": ("512", "4k", "16k", "64k", "2M", "256", "4M", "3000", "0"),
    "refcount_bits": ("1", "16", "64", "0", "7", "128"),
    "lazy_refcounts": ("on", "off", "maybe"),
    "extended_l2": ("on", "off"),
    "compression_type": ("zlib", "zstd", "bzip2"),
    "preallocation": ("off", "metadata", "falloc", "full", "some"),
    "data_file": ("a.data",),
    "data_file_raw": ("on", "off"),
    "encryption": ("off",),
    "unknown_option": ("1",),
}
LIKELY = {name: values[:3] for name, values in POOL.items() if name != "unknown_option"}


def combination(rng):
    count = rng.choice((1, 2, 2, 3, 4))
    names = rng.sample(sorted(POOL if rng.random() < 0.2 else LIKELY), count)
    chosen = {}
    for name in names:
        chosen[name] = rng.choice(POOL[name] if rng.random() < 0.2 else LIKELY.get(name, ("1",)))
    return ",".join(f"{name}={value}" for name, value in chosen.items())


def facts(name):
    found = json.loads(qemu_img("info", "--output=json", name).out)
    for member in ("actual-size", "filename", "children"):
        found.pop(member, None)
    return found


def case_combinations_are_taken_or_refused_as_by_the_peer():
    rng = random.Random(20)
    qemu_img("create", "-q", "-f", "raw", "base.raw", "2M")
    taken = refused = 0
    for _ in range(220):
        options = combination(rng)
        words = ("-b", "base.raw", "-F", "raw") if rng.random() < 0.15 else ()
        size = rng.choice(("0", "1000", "1M", "5M"))
        outcomes = {}
        for tool in ("qemu-img", "bgfs"):
            for left in ("a.qcow2", "a.data"):
                if os.path.exists(left):
                    os.unlink(left)
            done = make(tool, "a.qcow2", options, size, *words, status=None)
            outcomes[tool] = done
            if done.returncode == 0:
                is_sound("a.qcow2")
                done.facts = facts("a.qcow2")
            elif tool == "bgfs" and os.path.exists("a.qcow2"):
                raise AssertionError(f"{options} {size}: refused, but a file is left")
        theirs, ours = outcomes["qemu-img"], outcomes["bgfs"]
        what = f"{options} {size} {words}\npeer: {theirs.err}ours: {ours.err}"
        equal(ours.returncode == 0, theirs.returncode == 0, f"whether it is made: {what}")
        if ours.returncode == 0:
            taken += 1
            equal(ours.facts, theirs.facts, what)
        else:
            refused += 1
            contains(ours.err, "bgfs create: ", what)
    if taken < 60 or refused < 40:
        raise AssertionError(f"{taken} taken, {refused} refused: the case proves little")


def case_options_that_are_refused_on_purpose():
    for options, why in (
            ("encryption=on", "encryption with aes protects too little"),
            ("encrypt.format=aes,encrypt.key-secret=s", "encryption with aes protects too little"),
            ("encryption=on,encrypt.format=luks", "'encryption' and 'encrypt.format' say the same"),
            ("encryption=off,encrypt.key-secret=s", "'encrypt.key-secret' is given without")):
        done = make("bgfs", "x.qcow2", options, "1M", *SECRET, status=1)
        contains(done.err, why, options)
        equal(os.path.exists("x.qcow2"), False, "a file is left")


def case_growing_and_shrinking_leave_no_longer_files_than_the_peer():
    for options in ("", "cluster_size=4k", "extended_l2=on", "refcount_bits=64"):
        for mode in ("off", "metadata", "falloc", "full"):
            lengths = []
            for tool in ("qemu-img", PROGRAM):
                make("bgfs", "g.qcow2", options, "3M")
                run("qemu-img", "resize", "-q", "--preallocation", mode, "g.qcow2", "7M") \
                    if tool == "qemu-img" else \
                    bgfs("io", "-f", "qcow2", "-c", f"truncate -m {mode} 7M", "g.qcow2")
                is_sound("g.qcow2")
                grown = Layout("g.qcow2")
                if mode in ("falloc", "full") and grown.space < (4 << 20):
                    raise AssertionError(f"{tool}: {mode} reserves {grown.space} bytes")
                run("qemu-img", "resize", "-q", "--shrink", "g.qcow2", "1M") \
                    if tool == "qemu-img" else \
                    bgfs("io", "-f", "qcow2", "-c", "truncate 1M", "g.qcow2")
                is_sound("g.qcow2")
                lengths.append((grown.length, Layout("g.qcow2").length))
            if abs(lengths[1][0] - lengths[0][0]) > 65536:  # tables lie in another order
                raise AssertionError(f"grown to {lengths[1][0]} bytes, {options} {mode}: the "
                                     f"peer's has {lengths[0][0]}")
            if lengths[1][1] > lengths[0][1]:
                raise AssertionError(f"shrunk to {lengths[1][1]} bytes, {options} {mode}: the "
                                     f"peer's has {lengths[0][1]}")
