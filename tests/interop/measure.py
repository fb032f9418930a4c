# SPDX-License-Identifier: MIT
"""What measure says is what qemu-img measure says, to the byte, and what convert then makes."""
import json
import os
import random

from interop import Skip, bgfs, contains, equal, qemu_img, qemu_io

SECRET = ("--object", "secret,id=s,data=abc")
OPTIONS = ("", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1",
           "refcount_bits=64", "extended_l2=on", "extended_l2=on,cluster_size=16k", "compat=0.10",
           "preallocation=metadata", "preallocation=falloc", "preallocation=full",
           "cluster_size=512,refcount_bits=64", "backing_file=x", "data_file=x",
           "lazy_refcounts=on,compression_type=zstd", "size=77M")


def same(*words):
    for _ in range(30):  # a peer that cannot time its key derivation measures nothing
        done = qemu_img("measure", "--output=json", *words, status=None)
        if "accurate CPU usage" not in done.err:
            break
    else:
        raise Skip("the peer cannot measure the processor")
    theirs = json.loads(done.out)
    ours = json.loads(bgfs("measure", "--output=json", *words).out)
    equal(ours, theirs, " ".join(words))
    text = "".join(f"{name}: {theirs[key]}\n" for name, key in (
        ("required size", "required"), ("fully allocated size", "fully-allocated"),
        ("bitmaps size", "bitmaps")) if key in theirs)
    equal(bgfs("measure", *words).out, text, " ".join(words))


def given(options):
    return ("-O", "qcow2", *(("-o", options) if options else ()))


def case_sizes():
    for size in ("0", "1", "512", "1000", "1M", "64M", "3G", "1000001k"):
        for options in OPTIONS:
            same(*given(options), "--size", size)
        same("-O", "raw", "--size", size)
    for size in ("1T", "100T", "1P"):
        for options in ("", "cluster_size=2M", "refcount_bits=64", "extended_l2=on"):
            if size != "1P" or "cluster" in options:
                same(*given(options), "--size", size)
    same("--size", "1M")


def case_encrypted():
    for cluster in ("64k", "512", "2M"):
        same(*given("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,"
                    f"cluster_size={cluster}"), *SECRET, "--size", "10M")


def case_sources():
    rng = random.Random(4)
    for options in ("", "cluster_size=4k", "extended_l2=on", "preallocation=metadata",
                    "compat=0.10"):
        if os.path.exists("s.qcow2"):
            os.unlink("s.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", *(("-o", options) if options else ()), "s.qcow2",
                 "60M")
        for _ in range(12):
            kind = rng.choice(("write", "write", "write -z", "write -z -u", "discard"))
            qemu_io("-c", f"{kind} {rng.randrange(59000)}k {rng.randrange(1, 900)}k", "s.qcow2")
        qemu_img("snapshot", "-c", "one", "s.qcow2")
        qemu_io("-c", "write 30M 9M", "s.qcow2")
        for target in OPTIONS[:-1]:
            same(*given(target), "-f", "qcow2", "s.qcow2")
            if "backing" not in target:
                same(*given(target), "-f", "qcow2", "-l", "one", "s.qcow2")
        same("-O", "raw", "s.qcow2")
        same("-O", "qcow2", "--image-opts", "driver=qcow2,file.filename=s.qcow2")


def case_raw_sources_and_chains():
    with open("r.raw", "wb") as f:
        f.write(b"x" * 100_000)
        f.seek(3_000_000)
        f.write(b"y" * 300)
        f.truncate(5_000_100)
    same("-O", "qcow2", "-f", "raw", "r.raw")
    same("-O", "raw", "-f", "raw", "r.raw")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "r.raw", "-F", "raw", "o.qcow2", "9M")
    qemu_io("-c", "write 4M 1M", "o.qcow2")
    theirs = json.loads(qemu_img("measure", "--output=json", "-O", "qcow2", "o.qcow2").out)
    ours = json.loads(bgfs("measure", "--output=json", "-O", "qcow2", "--allow-references=.",
                           "--allow-raw-references=.", "o.qcow2").out)
    equal(ours, theirs, "an overlay")


def case_convert_takes_what_was_said():
    qemu_img("create", "-q", "-f", "qcow2", "s.qcow2", "40M")
    qemu_io("-c", "write -P 1 0 7M", "-c", "write -P 2 20M 64k", "s.qcow2")
    said = json.loads(bgfs("measure", "--output=json", "-O", "qcow2", "s.qcow2").out)
    bgfs("convert", "-O", "qcow2", "s.qcow2", "t.qcow2")
    equal(os.path.getsize("t.qcow2"), said["required"], "the length of the file")


def case_wrong_command_lines_say_what_is_right():
    qemu_img("create", "-q", "-f", "qcow2", "s.qcow2", "1M")
    for words, why in (
            (("-O", "qcow2"), "--size, or one image that is going to be copied, is expected"),
            (("--size", "1M", "s.qcow2"), "--size is for a disk that is not there yet"),
            (("--size", "1M", "-f", "raw"), "-f, -l and --image-opts are about an image"),
            (("-O", "nonsense", "--size", "1M"), "there is no format 'nonsense'"),
            (("-O", "luks", "--size", "1M"), "there is no format 'luks'"),
            (("-O", "qcow2", "-o", "cluster_size=512", "--size", "1T"), "too long for clusters"),
            (("-O", "qcow2", "--size", "8E"), "too long for clusters of 65536 bytes"),
            (("-O", "raw", "--size", "8E"), "bytes is longer than"),
            (("-O", "qcow2", "-o", "cluster_size=3", "--size", "1M"), "'cluster_size' is 3"),
            (("-O", "qcow2", "-o", "encrypt.format=luks", "--size", "1M"), "needs 'encrypt.key-"),
            (("-O", "qcow2", "-o", "colour=red", "--size", "1M"), "'colour' is not known")):
        contains(bgfs("measure", *words, status=1).err, why, " ".join(words))
    contains(bgfs("measure", "-O", "qcow2", "-o", "help").out, "cluster_size=")


def case_bitmaps():
    """Of the source; what they take is counted apart."""
    for granularity in ("64k", "4k", "512"):
        for size, count in (("1M", 1), ("64G", 3), ("1T", 2)):
            qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", size)
            for i in range(count):
                qemu_img("bitmap", "--add", "-g", granularity, "b.qcow2", f"bitmap number {i}")
            for options in ("", "cluster_size=4k", "extended_l2=on", "refcount_bits=64"):
                same(*given(options), "b.qcow2")
            same("-O", "raw", "b.qcow2")
