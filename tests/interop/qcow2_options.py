# SPDX-License-Identifier: MIT
"""The options of an open qcow2 node are taken and refused as by qemu-io, and info says what qemu-img
says of every kind of image."""
import json
import os

from interop import bgfs, contains, equal, qemu_img, qemu_io, run, same_json

VALUES = {
    "lazy-refcounts": ("on", "off", "1"),
    "pass-discard-request": ("on", "off", "x"),
    "pass-discard-snapshot": ("on", "off"),
    "pass-discard-other": ("on", "off"),
    "overlap-check": ("none", "constant", "cached", "all", "some"),
    "overlap-check.template": ("none", "constant", "cached", "all", "some"),
    "overlap-check.main-header": ("on", "off"),
    "overlap-check.active-l1": ("on", "off"),
    "overlap-check.active-l2": ("on", "off"),
    "overlap-check.refcount-table": ("on", "off"),
    "overlap-check.refcount-block": ("on", "off"),
    "overlap-check.snapshot-table": ("on", "off"),
    "overlap-check.inactive-l1": ("on", "off"),
    "overlap-check.inactive-l2": ("on", "off"),
    "overlap-check.bitmap-directory": ("on", "off", "perhaps"),
    "cache-size": ("1M", "64k", "10M", "x"),
    "l2-cache-size": ("1M", "64k", "4k", "-1"),
    "l2-cache-entry-size": ("4k", "64k", "512", "256", "128k", "5000"),
    "refcount-cache-size": ("256k", "1M"),
    "cache-clean-interval": ("0", "1", "600", "-1", "x"),
    "encrypt.format": ("luks", "aes", "rot13"),
    "no-such-option": ("1",),
}
TOGETHER = (
    "cache-size=2M,l2-cache-size=1M", "cache-size=2M,refcount-cache-size=512k",
    "cache-size=1M,l2-cache-size=2M", "cache-size=1M,refcount-cache-size=2M",
    "cache-size=3M,l2-cache-size=1M,refcount-cache-size=1M",
    "l2-cache-size=1M,refcount-cache-size=1M", "overlap-check=all,overlap-check.template=none",
    "overlap-check.template=none,overlap-check.active-l1=on", "lazy-refcounts=on,cache-size=1M,overlap-check=all",
    "data-file.filename=a.qcow2",
)


def outcome(tool, options):
    words = ("io", "--image-opts") if tool == "bgfs" else ("--image-opts",)
    image = f"driver=qcow2,file.filename=a.qcow2,{options}"
    call = bgfs if tool == "bgfs" else qemu_io
    done = call(*words, "-c", "write -P 7 0 64k", "-c", "read -P 7 0 64k", image, status=None)
    return "wrote 65536/65536" in done.out and "read 65536/65536" in done.out, done


def case_values_are_taken_or_refused_as_by_the_peer():
    for compat in ("1.1", "0.10"):
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "a.qcow2", "1G")
        lists = [f"{name}={value}" for name, values in VALUES.items() for value in values]
        for options in (*lists, *TOGETHER):
            theirs, said = outcome("qemu-io", options)
            ours, done = outcome("bgfs", options)
            equal(ours, theirs, f"whether '{options}' is taken, compat={compat}\npeer: "
                                f"{said.out}{said.err}\nours: {done.out}{done.err}")


def case_a_key_that_nothing_needs_is_refused():
    """The peer ignores it."""
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1G")
    taken, done = outcome("bgfs", "encrypt.key-secret=nobody")
    equal(taken, False)
    contains(done.out + done.err, "'encrypt' is given, but the image is not encrypted")


def case_discard_no_unref_is_newer_than_the_peer():
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "a.qcow2", "1G")
    taken, done = outcome("bgfs", "discard-no-unref=on")
    equal(taken, False)
    contains(done.out + done.err, "'discard-no-unref' needs an image of version 3")
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1G")
    equal(outcome("bgfs", "discard-no-unref=on")[0], True)


KINDS = ("", "compat=0.10", "cluster_size=4k", "lazy_refcounts=on", "refcount_bits=64",
         "extended_l2=on", "compression_type=zstd", "preallocation=metadata", "data_file=a.data",
         "data_file=a.data,data_file_raw=on", "cluster_size=2M,refcount_bits=1")


def case_info_says_what_the_peer_says_of_every_kind():
    for options in KINDS:
        for left in ("a.qcow2", "a.data"):
            if os.path.exists(left):
                os.unlink(left)
        qemu_img("create", "-q", "-f", "qcow2", *(("-o", options) if options else ()), "a.qcow2",
                 "20M")
        if "data_file" not in options and "refcount_bits=1" not in options:
            qemu_io("-c", "write 0 1M", "a.qcow2")
            qemu_img("snapshot", "-c", "one", "a.qcow2")
        same_json("info", "--output=json", "a.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "o.qcow2")
        same_json("info", "--output=json", "o.qcow2")
        same_json("info", "--output=json", "--backing-chain", "o.qcow2")


def case_limits():
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "a.qcow2", "20M")
    limits = json.loads(bgfs("info", "--limits", "--output=json", "a.qcow2").out)["limits"]
    equal(limits["request-alignment"], 1)
    equal(limits["discard-alignment"], 65536)
    equal(limits["write-zeroes-alignment"], 2048)
    for name in ("max-iov", "min-mem-alignment", "opt-mem-alignment"):
        if limits[name] < 1:
            raise AssertionError(f"{name} is {limits[name]}")
    text = bgfs("info", "--limits", "a.qcow2").out
    contains(text, "Block limits:\n    request alignment: 1\n")
    contains(text, "    write zeroes alignment: 2048\n")
    if "limits" in bgfs("info", "a.qcow2").out:
        raise AssertionError("limits are shown though nobody asked for them")
