# SPDX-License-Identifier: MIT
"""Images that we write are sound to the peer, and hold what was written."""
import itertools
import os

from interop import (Requests, bgfs, equal, fill, is_sound, qemu_img, qemu_io, same_bytes,
                     same_output)


def holds(image, model, *options):
    qemu_img("convert", "-O", "raw", image, "found.raw")
    with open("found.raw", "rb") as f:
        equal(f.read() == bytes(model), True, f"content of {image}")
    os.unlink("found.raw")


def case_created_images_with_every_option():
    for options in ["", "compat=0.10", "compat=1.1", "lazy_refcounts=on", "extended_l2=on",
                    "compression_type=zstd", "preallocation=metadata", "preallocation=falloc",
                    "preallocation=full", "extended_l2=on,cluster_size=16k"] + [
                        f"cluster_size={1 << b}" for b in range(9, 22)] + [
                            f"refcount_bits={1 << b}" for b in range(7)]:
        words = ["-o", options] if options else []
        same_output("create", "-f", "qcow2", *words, "a.qcow2", "3M")
        bgfs("create", "-q", "-f", "qcow2", *words, "a.qcow2", "3M")
        is_sound("a.qcow2")
        same_output("info", "a.qcow2")
        requests = Requests(7, 3 << 20)
        bgfs("io", "-f", "qcow2", *requests.commands(25), "a.qcow2")
        is_sound("a.qcow2")
        holds("a.qcow2", requests.model)


def case_requests_of_many_seeds():
    """The same requests by us and by qemu-io come to the same bytes, which are those of a model."""
    seeds = int(os.environ.get("BGFS_SEEDS", "40"))
    for seed in range(seeds):
        options = ("cluster_size=512", "cluster_size=4k", "", "extended_l2=on,cluster_size=16k",
                   "refcount_bits=1", "compat=0.10")[seed % 6]
        for name in ("ours.qcow2", "theirs.qcow2"):
            qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), name,
                     "2M")
        requests = Requests(seed, 2 << 20)
        words = requests.commands(50)
        bgfs("io", "-f", "qcow2", *words, "ours.qcow2")
        qemu_io("-f", "qcow2", *words, "theirs.qcow2")
        is_sound("ours.qcow2")
        qemu_img("compare", "ours.qcow2", "theirs.qcow2")
        holds("ours.qcow2", requests.model)


def case_requests_over_a_backing_file():
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    base = fill("base.qcow2", 11)
    for seed in range(12):
        bgfs("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "2M")
        requests = Requests(seed, 2 << 20)
        requests.model[:len(base)] = base
        bgfs("io", "-f", "qcow2", *requests.commands(30), "top.qcow2")
        is_sound("top.qcow2")
        holds("top.qcow2", requests.model)


def case_raw_requests():
    for seed in range(10):
        bgfs("create", "-q", "a.raw", "1M")
        requests = Requests(seed, 1 << 20)
        bgfs("io", "-f", "raw", *requests.commands(40), "a.raw")
        with open("a.raw", "rb") as f:
            equal(f.read() == bytes(requests.model), True, "content")


def case_conversions():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "8M")
    model = fill("a.qcow2", 21, 60)
    for options, extra in itertools.product(
            ("", "cluster_size=4k", "extended_l2=on", "compat=0.10", "compression_type=zstd"),
            ((), ("-W",), ("-m", "1"), ("-m", "16", "-W"), ("-S", "0"), ("-S", "64k"),
             ("-t", "none"), ("-t", "writethrough"), ("-t", "unsafe"), ("-T", "none"))):
        words = ["-o", options] if options else []
        bgfs("convert", "-O", "qcow2", *words, *extra, "a.qcow2", "b.qcow2")
        is_sound("b.qcow2")
        holds("b.qcow2", model)
    for extra in ((), ("-W",), ("-S", "0"), ("-m", "1"), ("-t", "none")):
        bgfs("convert", *extra, "a.qcow2", "b.raw")
        holds("b.raw", model)


def case_conversion_over_a_backing_file():
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", "4M")
    fill("base.qcow2", 31)
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "6M")
    fill("top.qcow2", 32, 8)
    # On the image the source stands on: only the difference is copied.
    bgfs("convert", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "top.qcow2", "thin.qcow2")
    is_sound("thin.qcow2")
    qemu_img("compare", "thin.qcow2", "top.qcow2")
    assert os.path.getsize("thin.qcow2") <= os.path.getsize("top.qcow2") + (1 << 20)
    # On another one: everything that differs.
    qemu_img("create", "-q", "-f", "qcow2", "other.qcow2", "5M")
    fill("other.qcow2", 33)
    bgfs("convert", "-O", "qcow2", "-B", "other.qcow2", "-F", "qcow2", "top.qcow2", "fat.qcow2")
    is_sound("fat.qcow2")
    qemu_img("compare", "fat.qcow2", "top.qcow2")


def case_conversion_into_an_existing_image():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
    model = fill("a.qcow2", 41)
    qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", "4M")
    fill("b.qcow2", 42, 60)
    bgfs("convert", "-n", "-O", "qcow2", "a.qcow2", "b.qcow2")
    is_sound("b.qcow2")
    holds("b.qcow2", model)
    with open("b.raw", "wb") as f:
        f.write(b"\xff" * (5 << 20))
    bgfs("convert", "-n", "-O", "raw", "a.qcow2", "b.raw")
    with open("b.raw", "rb") as f:
        content = f.read()
    equal(content[:4 << 20] == bytes(model), True, "what was converted")
    equal(content[4 << 20:] == b"\xff" * (1 << 20), True, "what lies behind it")


def case_several_sources_and_streams():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    model = fill("a.qcow2", 51)
    qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", "2M")
    model += fill("b.qcow2", 52)
    bgfs("convert", "-O", "qcow2", "a.qcow2", "b.qcow2", "ab.qcow2")
    is_sound("ab.qcow2")
    holds("ab.qcow2", model)
    for name in ("-", "/dev/stdout"):
        done = bgfs("convert", "-p", "-O", "raw", "a.qcow2", "b.qcow2", name)
        equal(done.stdout == bytes(model), True, "what was streamed")
    qemu_img("convert", "-O", "raw", "ab.qcow2", "x.raw")
    bgfs("convert", "--image-opts", "driver=qcow2,file.filename=ab.qcow2", "y.raw")
    same_bytes("x.raw", "y.raw")
    bgfs("convert", '{"a": 1}', "y.raw", status=1)


def case_snapshots_and_bitmaps_survive_our_writes():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    fill("a.qcow2", 61)
    qemu_img("snapshot", "-c", "before", "a.qcow2")
    qemu_img("convert", "-O", "raw", "-l", "snapshot.name=before", "a.qcow2", "before.raw")
    qemu_img("bitmap", "--add", "a.qcow2", "b0")
    bgfs("io", "-f", "qcow2", "-c", "write -q -P 9 0 256k", "a.qcow2")
    is_sound("a.qcow2")
    qemu_img("convert", "-O", "raw", "-l", "snapshot.name=before", "a.qcow2", "after.raw")
    same_bytes("before.raw", "after.raw")
    names = [b["name"] for b in __import__("json").loads(
        qemu_img("info", "--output=json", "a.qcow2").out)["format-specific"]["data"]["bitmaps"]]
    equal(names, ["b0"], "bitmaps")
