#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images of every shape, made by qemu-img and read by bgfs, and the other way round.

    BGFS=build/release/fuse/bgfs tests/interop/qcow2_images.py
"""
import json, os, subprocess, sys, tempfile

BGFS = os.environ.get("BGFS", "bgfs")
LENGTH = 9 * 1024 * 1024 + 512

SHAPES = (
    [f"cluster_size={size}" for size in ("512", "1k", "2k", "4k", "8k", "16k", "32k", "64k",
                                         "128k", "256k", "512k", "1M", "2M")]
    + [f"refcount_bits={bits}" for bits in (1, 2, 4, 8, 16, 32, 64)]
    + [f"cluster_size=512,refcount_bits={bits}" for bits in (1, 64)]
    + ["compat=0.10", "compat=0.10,cluster_size=4k", "extended_l2=on",
       "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M", "lazy_refcounts=on",
       "compression_type=zstd", "preallocation=metadata", "preallocation=falloc",
       "preallocation=full", "preallocation=metadata,extended_l2=on"]
)


def run(*command, ok=(0,)):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in ok:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def source(path):
    """Text, zeroes and noise in turn, so that compression and holes both happen."""
    with open(path, "wb") as f:
        for i in range(0, LENGTH, 96 * 1024):
            f.seek(i)
            f.write(b"line %08d of a text that compresses\n" % i * 800)
            f.write(os.urandom(20000))
        f.truncate(LENGTH)


def info(image):
    found = json.loads(run("qemu-img", "info", "--output=json", "-f", "qcow2", image))
    return {k: v for k, v in found.items() if k not in ("filename", "actual-size")}


def reads_the_same(raw, options, folder, compressed):
    image, back = os.path.join(folder, "i.qcow2"), os.path.join(folder, "back.raw")
    flags = ["-c"] if compressed else []
    run("qemu-img", "convert", *flags, "-f", "raw", "-O", "qcow2", "-o", options, raw, image)
    run(BGFS, "convert", "-f", "qcow2", "-O", "raw", image, back)
    run("cmp", raw, back)
    ours = json.loads(run(BGFS, "map", "--output=json", "-f", "qcow2", image))
    theirs = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", image))
    if ours != theirs:
        pairs = [p for p in zip(ours, theirs) if p[0] != p[1]]
        raise AssertionError(f"bgfs map differs from qemu-img map: {pairs[:1] or (ours, theirs)}")


def is_written_the_same(raw, options, folder):
    image = os.path.join(folder, "i.qcow2")
    run(BGFS, "convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, image)
    run("qemu-img", "check", "-q", "-f", "qcow2", image)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, image)


def kinds(image):
    """The map without places: [(end, has one, data, zero)]."""
    runs = []
    for e in json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", image)):
        kind = ("offset" in e, e["data"], e["zero"])
        if runs and runs[-1][1:] == kind:
            runs.pop()
        runs.append((e["start"] + e["length"], *kind))
    return runs


def is_compressed_the_same(raw, options, folder):
    """What is compressed, what is not, what is nothing; in a file as long but for the odd table."""
    ours, theirs = os.path.join(folder, "ours.qcow2"), os.path.join(folder, "theirs.qcow2")
    run(BGFS, "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, ours)
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, theirs)
    run("qemu-img", "check", "-q", "-f", "qcow2", ours)
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, ours)
    maps = [kinds(i) for i in (ours, theirs)]
    if maps[0] != maps[1]:
        raise AssertionError(f"maps differ: {[p for p in zip(*maps) if p[0] != p[1]][:1]}")
    if os.path.getsize(ours) > os.path.getsize(theirs) * 1.001:
        raise AssertionError(f"{os.path.getsize(ours)} bytes, theirs {os.path.getsize(theirs)}")


def compresses_what_lies_across(folder):
    """Sources whose lengths are no clusters, a target that is there and longer, zeroes in clusters."""
    at = lambda name: os.path.join(folder, name)
    parts = [b"a" * 70000 + b"\0" * 70288, b"b" * 512, b"\0" * 150016 + b"c" * 5632]
    for i, part in enumerate(parts):
        with open(at(str(i)), "wb") as f:
            f.write(part)
    with open(at("all"), "wb") as f:
        f.write(b"".join(parts))
    for more in ([], ["-S", "0"], ["-W", "-m", "16"]):
        run(BGFS, "convert", "-c", *more, "-f", "raw", "-O", "qcow2", at("0"), at("1"), at("2"),
            at("x.qcow2"))
        run("qemu-img", "check", "-q", "-f", "qcow2", at("x.qcow2"))
        run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", at("all"), at("x.qcow2"))
    run("qemu-img", "create", "-q", "-f", "qcow2", at("long.qcow2"), "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 1M", at("long.qcow2"))
    run(BGFS, "convert", "-c", "-n", "-f", "raw", "-O", "qcow2", at("all"), at("long.qcow2"))
    run("qemu-img", "check", "-q", "-f", "qcow2", at("long.qcow2"))
    length = sum(map(len, parts))
    run("qemu-io", "-f", "qcow2", "-c", f"read -q -P 9 {length} {(1 << 20) - length}",
        at("long.qcow2"))
    run("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", at("long.qcow2"), str(length))
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", at("all"), at("long.qcow2"))


def is_created_the_same(options, folder):
    ours, theirs = os.path.join(folder, "ours.qcow2"), os.path.join(folder, "theirs.qcow2")
    run(BGFS, "create", "-q", "-f", "qcow2", "-o", options, ours, str(LENGTH))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, theirs, str(LENGTH))
    run("qemu-img", "check", "-q", "-f", "qcow2", ours)
    if info(ours) != info(theirs):
        raise AssertionError(f"info differs: {info(ours)} {info(theirs)}")


def reads_a_chain(folder):
    """Three layers of different shapes, the middle one short."""
    at = lambda name: os.path.join(folder, name)
    run("qemu-img", "create", "-q", "-f", "qcow2", at("0.qcow2"), "6M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 6M", at("0.qcow2"))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", "0.qcow2", "-F",
        "qcow2", at("1.qcow2"), "3M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 2 1000k 100k", "-c", "write -q -z 2M 99k",
        at("1.qcow2"))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "1.qcow2", "-F",
        "qcow2", at("2.qcow2"), "5M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 3 1M 50k", "-c", "write -q -z 2900k 200k",
        at("2.qcow2"))
    allow = "--allow-references=" + folder
    run(BGFS, "convert", "-f", "qcow2", "-O", "raw", allow, at("2.qcow2"), at("raw"))
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", at("raw"), at("2.qcow2"))
    ours = json.loads(run(BGFS, "map", "--output=json", "-f", "qcow2", allow, at("2.qcow2")))
    theirs = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", at("2.qcow2")))
    if ours != theirs:
        raise AssertionError(f"maps of the chain differ: {ours} {theirs}")


def main():
    passed = failed = 0

    def case(name, check, *arguments):
        nonlocal passed, failed
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(*arguments, folder)
                passed += 1
            except AssertionError as e:
                failed += 1
                print(f"FAIL {name}\n{e}")

    with tempfile.TemporaryDirectory() as top:
        raw = os.path.join(top, "source.raw")
        source(raw)
        for options in SHAPES:
            case(f"create {options}", is_created_the_same, options)
            case(f"write {options}", is_written_the_same, raw, options)
            case(f"read {options}",
                 lambda f, o=options: reads_the_same(raw, o, f, compressed=False))
            if "preallocation" not in options:
                case(f"write compressed {options}", is_compressed_the_same, raw, options)
                case(f"read compressed {options}",
                     lambda f, o=options: reads_the_same(raw, o, f, compressed=True))
        case("read a chain", reads_a_chain)
        case("compress what lies across", compresses_what_lies_across)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
