# SPDX-License-Identifier: MIT
"""Images that we amend are those that qemu-img amends: what they say of themselves, what they hold,
and that qemu-img finds nothing wrong with them."""
import itertools
import json
import os
import shutil

from interop import bgfs, contains, equal, is_sound, qemu_img, qemu_io, run, same_bytes


def make(options, backing=False, snapshots=2):
    for left in ("a.qcow2", "x.data"):
        if os.path.exists(left):
            os.unlink(left)
    words = ()
    if backing:
        qemu_img("create", "-q", "-f", "raw", "base.raw", "4M")
        qemu_io("-f", "raw", "-c", "write -P 9 0 4M", "base.raw")
        words = ("-b", "base.raw", "-F", "raw")
    qemu_img("create", "-q", "-f", "qcow2", *(("-o", options) if options else ()), *words,
             "a.qcow2", "4M")
    for i in range(snapshots + 1):
        qemu_io("-c", f"write -P {i + 1} {i * 300}k 400k", "-c", f"write -z {i * 200}k 150k",
                "-c", f"write -z -u {2 + i % 2}M 300k", "-c", f"discard {i}M 100k", "a.qcow2")
        if i < snapshots:
            qemu_img("snapshot", "-c", f"s{i}", "a.qcow2")


def contents(image, snapshots):
    found = []
    for name in [None] + [f"s{i}" for i in range(snapshots)]:
        words = ("-l", f"snapshot.name={name}") if name else ()
        qemu_img("convert", "-O", "raw", *words, image, "out.raw")
        found.append(run("sha256sum", "out.raw").out.split()[0])
    return found


def facts(image):
    found = json.loads(qemu_img("info", "--output=json", image).out)
    for member in ("actual-size", "filename", "children"):
        found.pop(member, None)
    return found


CHANGES = (
    ("", "compat=0.10"), ("compat=0.10", "compat=1.1"), ("", "refcount_bits=64"),
    ("", "refcount_bits=8"), ("refcount_bits=64", "refcount_bits=16,compat=0.10"),
    ("refcount_bits=4", "refcount_bits=2"), ("", "lazy_refcounts=on"),
    ("lazy_refcounts=on", "lazy_refcounts=off"), ("lazy_refcounts=on", "compat=v2"),
    ("compat=0.10", "compat=1.1,lazy_refcounts=on,refcount_bits=32"),
    ("cluster_size=512", "refcount_bits=64"), ("cluster_size=512,refcount_bits=64",
                                               "refcount_bits=8"),
    ("cluster_size=2M", "compat=0.10"), ("cluster_size=4k", "compat=v2"),
    ("cluster_size=8k,compat=v2", "compat=v3"), ("extended_l2=on", "refcount_bits=8"),
)


def case_amended_images_are_the_peers():
    for (options, change), backing in itertools.product(CHANGES, (False, True)):
        what = f"{options} -> {change}, {'overlay' if backing else 'alone'}"
        make(options, backing)
        before = contents("a.qcow2", 2)
        shutil.copy("a.qcow2", "theirs.qcow2")
        shutil.copy("a.qcow2", "ours.qcow2")
        qemu_img("amend", "-o", change, "theirs.qcow2")
        bgfs("amend", "-f", "qcow2", "-o", change, "--allow-references=.",
             "--allow-raw-references=.", "ours.qcow2")
        is_sound("ours.qcow2")
        equal(facts("ours.qcow2"), facts("theirs.qcow2"), what)
        equal(contents("ours.qcow2", 2), before, f"content of the disk and snapshots, {what}")
        with open("ours.qcow2", "rb") as ours, open("theirs.qcow2", "rb") as theirs:
            equal(ours.read(24)[:8], theirs.read(24)[:8], f"magic and version, {what}")


def case_sizes_are_amended():
    for size in ("8M", "1M", "4M"):
        make("", snapshots=0)
        shutil.copy("a.qcow2", "theirs.qcow2")
        qemu_img("amend", "-o", f"size={size}", "theirs.qcow2")
        bgfs("amend", "-f", "qcow2", "-o", f"size={size}", "a.qcow2")
        is_sound("a.qcow2")
        equal(facts("a.qcow2"), facts("theirs.qcow2"), size)
        qemu_img("convert", "-O", "raw", "a.qcow2", "ours.raw")
        qemu_img("convert", "-O", "raw", "theirs.qcow2", "theirs.raw")
        same_bytes("ours.raw", "theirs.raw")


REFUSED = (
    ("", "compat=0.42"), ("", "nonsense=1"), ("", "backing_file=x"), ("", "cluster_size=4k"),
    ("", "preallocation=full"), ("", "encrypt.format=luks"), ("", "refcount_bits=7"),
    ("refcount_bits=8", "compat=0.10"), ("compat=0.10", "refcount_bits=8"),
    ("compat=0.10", "lazy_refcounts=on"), ("extended_l2=on", "compat=0.10"),
    ("data_file=x.data", "compat=0.10"), ("", "data_file=x"), ("", "data_file_raw=on"),
    ("", "size=1000"), ("", "refcount_bits=1"),
)


def case_what_the_peer_refuses_is_refused_and_changes_nothing():
    for options, change in REFUSED:
        make(options, snapshots=0 if "data_file" in options else 2)
        shutil.copy("a.qcow2", "before.qcow2")
        done = bgfs("amend", "-f", "qcow2", "-o", change, "--allow-references=.", "a.qcow2",
                    status=1)
        contains(done.err, "bgfs amend: ", change)
        same_bytes("a.qcow2", "before.qcow2")
        qemu_img("amend", "-o", change, "a.qcow2", status=1)


def case_differences_from_the_peer_are_deliberate():
    """A version 2 image with zstd clusters would read them as zlib. What is given as it is is no
    change."""
    make("compression_type=zstd")
    done = bgfs("amend", "-f", "qcow2", "-o", "compat=0.10", "a.qcow2", status=1)
    contains(done.err, "the image compresses with zstd, which version 2 (compat=0.10) does not")
    make("cluster_size=4k")
    bgfs("amend", "-f", "qcow2", "-o", "cluster_size=4k,extended_l2=off", "a.qcow2")


def case_help_and_progress():
    text = bgfs("amend", "-f", "qcow2", "-o", "help").out
    for name in ("compat", "lazy_refcounts", "refcount_bits", "size", "data_file", "encrypt.state"):
        contains(text, f"{name}=")
    make("")
    done = bgfs("amend", "-p", "-f", "qcow2", "-o", "refcount_bits=64", "a.qcow2")
    contains(done.out, "(100.00/100%)")
    equal(bgfs("amend", "-q", "-p", "-f", "qcow2", "-o", "refcount_bits=16", "-t",
               "writethrough", "a.qcow2").out, "")


def case_a_large_sparse_image_takes_little_time():
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "big.qcow2", "2T")
    qemu_io("-c", "write 0 64k", "-c", "write 1T 64k", "-c", "write -z 1500G 10M", "big.qcow2")
    before = facts("big.qcow2")
    bgfs("amend", "-f", "qcow2", "-o", "compat=0.10", "big.qcow2")
    bgfs("amend", "-f", "qcow2", "-o", "compat=1.1", "big.qcow2")
    bgfs("amend", "-f", "qcow2", "-o", "refcount_bits=64", "big.qcow2")
    bgfs("amend", "-f", "qcow2", "-o", "refcount_bits=16", "big.qcow2")
    is_sound("big.qcow2")
    equal(facts("big.qcow2"), before, "facts")
