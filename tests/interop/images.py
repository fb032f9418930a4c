# SPDX-License-Identifier: MIT
"""Images that the peer made are read as it reads them."""
import itertools
import os

from interop import (bgfs, equal, fill, qemu_img, qemu_io, read_identically, same_bytes,
                     same_json, same_output)


def make(name, options="", size="4M", seed=1, count=30):
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), name, size)
    fill(name, seed, count)


def case_every_cluster_size():
    for bits in range(9, 22):
        size = 1 << bits
        make("a.qcow2", f"cluster_size={size}", seed=bits)
        read_identically("a.qcow2")
        same_output("map", "--output=json", "a.qcow2")
        same_output("info", "a.qcow2")


def case_every_refcount_width():
    for bits in (1, 2, 4, 8, 16, 32, 64):
        make("a.qcow2", f"refcount_bits={bits},cluster_size=4k", seed=bits)
        read_identically("a.qcow2")
        same_output("info", "a.qcow2")


def case_version_2():
    make("a.qcow2", "compat=0.10")
    read_identically("a.qcow2")
    same_output("info", "a.qcow2")
    same_output("map", "--output=json", "a.qcow2")


def case_extended_l2():
    for size in ("16k", "64k", "2M"):
        make("a.qcow2", f"extended_l2=on,cluster_size={size}", count=60)
        read_identically("a.qcow2")
        same_output("map", "--output=json", "a.qcow2")
        same_output("info", "a.qcow2")


def case_compressed():
    make("source.qcow2", size="8M", count=60)
    for kind, size, extended in itertools.product(("zlib", "zstd"), ("4k", "64k", "2M"),
                                                  ("off", "on")):
        if extended == "on" and size == "4k":
            continue
        qemu_img("convert", "-c", "-O", "qcow2", "-o",
                 f"compression_type={kind},cluster_size={size},extended_l2={extended}",
                 "source.qcow2", "a.qcow2")
        read_identically("a.qcow2")
        same_output("map", "--output=json", "a.qcow2")
        same_output("map", "a.qcow2")  # fails alike: compressed clusters have no place
        same_output("info", "a.qcow2")


def case_preallocated_and_lazy():
    for options in ("preallocation=metadata", "preallocation=falloc", "preallocation=full",
                    "lazy_refcounts=on"):
        make("a.qcow2", options)
        read_identically("a.qcow2")
        same_output("map", "--output=json", "a.qcow2")
        same_output("info", "a.qcow2")


def chain(sizes, **options):
    """base.qcow2 and overlays o1, o2, ... of these sizes."""
    qemu_img("create", "-q", "-f", "qcow2", "o0.qcow2", sizes[0])
    fill("o0.qcow2", 100)
    for i, size in enumerate(sizes[1:], 1):
        qemu_img("create", "-q", "-f", "qcow2", "-b", f"o{i - 1}.qcow2", "-F", "qcow2",
                 f"o{i}.qcow2", size)
        fill(f"o{i}.qcow2", 100 + i, 12)
    return f"o{len(sizes) - 1}.qcow2"


def same_everywhere(image, *options):
    read_identically(image, *options)
    same_output("map", "--output=json", image)
    same_output("map", image)
    same_output("info", image)
    same_output("info", "--backing-chain", image)
    same_json("info", "--output=json", image)
    same_json("info", "--backing-chain", "--output=json", image)


def case_chains():
    same_everywhere(chain(["4M", "4M", "4M", "4M"]))


def case_chains_with_shorter_and_longer_overlays():
    same_everywhere(chain(["4M", "2M", "6M", "3M", "5M"]))


def case_chain_in_other_directories():
    os.makedirs("a/b")
    qemu_img("create", "-q", "-f", "qcow2", "a/base.qcow2", "1M")
    fill("a/base.qcow2", 3)
    qemu_img("create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2",
             "a/b/top.qcow2")
    fill("a/b/top.qcow2", 4, 5)
    same_output("info", "a/b/top.qcow2")
    read_identically("a/b/top.qcow2", "--allow-references=a")
    refused = bgfs("convert", "a/b/top.qcow2", "x.raw", status=1)
    assert "--allow-references=" in refused.err, refused.err
    assert not os.path.exists("x.raw"), "a refused conversion left a file"


def case_long_chain():
    same_everywhere(chain(["1M"] * 40))


def case_chain_on_a_raw_base():
    with open("base.raw", "wb") as f:
        f.write(os.urandom(3 << 20))
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
    fill("top.qcow2", 5, 5)
    same_output("info", "top.qcow2")
    same_output("info", "--backing-chain", "top.qcow2")
    refused = bgfs("convert", "top.qcow2", "x.raw", status=1)
    assert "a header cannot make a file a raw image" in refused.err, refused.err
    read_identically("top.qcow2", "--allow-raw-references=.")
    spec = ('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "top.qcow2"}, '
            '"backing": {"driver": "raw", "file": {"driver": "file", "filename": "base.raw"}}}')
    bgfs("convert", spec, "x.raw")
    qemu_img("convert", "top.qcow2", "y.raw")
    same_bytes("x.raw", "y.raw")


def case_backing_file_without_a_format():
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    fill("base.qcow2", 3)
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    # As images were made before the format was asked for: the extension becomes an unknown one.
    with open("top.qcow2", "r+b") as f:
        head = f.read(65536)
        at = head.index(bytes.fromhex("e2792aca"))  # the header extension that holds it
        length = int.from_bytes(head[at + 4:at + 8], "big")
        f.seek(at)
        f.write(bytes.fromhex("deadbeef") + length.to_bytes(4, "big"))
    read_identically("top.qcow2")
    same_output("info", "--backing-chain", "top.qcow2")


def case_backing_loops_are_refused():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2")
    qemu_img("rebase", "-u", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2")
    refused = bgfs("convert", "a.qcow2", "x.raw", status=1)
    assert "the backing chain loops" in refused.err, refused.err
    refused = bgfs("info", "--backing-chain", "a.qcow2", status=1)
    assert "creates an infinite loop" in refused.err, refused.err
    same_output("info", "a.qcow2")


def case_raw_files():
    qemu_img("create", "-q", "-f", "raw", "a.raw", "5M")
    qemu_io("-f", "raw", "-c", "write -q -P 1 1M 64k", "-c", "write -q -P 2 4M 1M", "a.raw")
    for words in (("info",), ("map",), ("map", "--output=json"), ("info", "--output=json"),
                  ("map", "--output=json", "-s", "1M", "-l", "128k")):
        same_output(words[0], "-f", "raw", *words[1:], "a.raw")
    bgfs("convert", "-f", "raw", "-O", "raw", "a.raw", "b.raw")
    same_bytes("a.raw", "b.raw")
    assert os.stat("b.raw").st_blocks <= os.stat("a.raw").st_blocks, "the copy takes more space"
    # An odd length is read as it is.
    with open("odd.raw", "wb") as f:
        f.write(os.urandom(100_001))
    bgfs("convert", "-f", "raw", "odd.raw", "odd-copy.raw")
    with open("odd.raw", "rb") as a, open("odd-copy.raw", "rb") as b:
        content = a.read()
        copy = b.read()
    equal(copy[:len(content)], content, "content")
    equal(copy[len(content):], bytes(len(copy) - len(content)), "what follows")


def case_an_image_in_use_is_readable_only_when_shared():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    import subprocess
    holder = subprocess.Popen(["qemu-io", "-f", "qcow2", "a.qcow2"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        while b"MiB" not in holder.stdout.readline():
            pass
        refused = bgfs("convert", "a.qcow2", "x.raw", status=1)
        assert "a.qcow2" in refused.err, refused.err
        assert refused.err.endswith("to look at it all the same, give -U\n"), refused.err
        bgfs("info", "-U", "a.qcow2")
        bgfs("convert", "-U", "a.qcow2", "x.raw")
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
    bgfs("info", "a.qcow2")
