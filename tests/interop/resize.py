# SPDX-License-Identifier: MIT
"""resize: the same lengths, contents and exit status as qemu-img resize."""
import os
import shutil

from interop import bgfs, contains, digest, equal, is_sound, qemu_img, qemu_io, run, PROGRAM

LINES = [
    ["b", "2M"], ["b", "+1M"], ["b", "-512k"], ["--shrink", "b", "-512k"], ["-q", "b", "+1M"],
    ["b", "+1M", "--shrink"], ["b", "--shrink", "512k"], ["b"], [], ["-f", "raw", "a", "+512"],
    ["-f", "raw", "a", "+1000"], ["--shrink", "-f", "raw", "a", "1000"], ["b", "0"],
    ["--shrink", "b", "-10M"], ["--preallocation=full", "b", "+1M"], ["--preallocation=foo", "b", "+1M"],
    ["--preallocation=falloc", "b", "512k"], ["--preallocation=falloc", "--shrink", "b", "512k"],
    ["--preallocation=falloc", "b", "+0"], ["b", "+0"], ["b", "x"], ["b", "9E"], ["b", "7E"],
    ["b", "1.5M"], ["--image-opts", "driver=qcow2,file.filename=b", "7M"], ["none", "3M"], ["b", "+"],
    ["b", "5000000"], ["-p", "b", "2M"], ["b", "c", "2M"], ["-f", "raw", "--preallocation=falloc", "a", "3M"],
    ["-f", "raw", "--preallocation=metadata", "a", "3M"], ["--preallocation", "off", "b", "3M"],
    ["--preallocation=metadata", "b", "3M"], ["snap", "+1M"], ["--shrink", "snap", "-512k"],
    ["old", "+1M"], ["over", "3M"], ["over", "--shrink", "256k"], ["-f", "qcow2", "a", "3M"],
    ["json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"b\"}}", "2M"],
]


def images(folder):
    os.mkdir(folder)
    os.chdir(folder)
    qemu_img("create", "-q", "-f", "raw", "a", "1M")
    for name in ("b", "c", "snap"):
        qemu_img("create", "-q", "-f", "qcow2", name, "1M")
        qemu_io("-c", "write -q -P 3 0 1M", name)
    qemu_io("-f", "raw", "-c", "write -q -P 3 0 1M", "a")
    qemu_img("snapshot", "-c", "s", "snap")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old", "1M")
    qemu_img("snapshot", "-c", "s", "old")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "c", "-F", "qcow2", "over", "512k")
    os.chdir("..")


def outcome(folder, program, words):
    shutil.copytree("images", folder)
    os.chdir(folder)
    done = run(*program, "resize", *words, status=None)
    found = [done.out, done.returncode]
    for name in sorted(os.listdir(".")):
        fmt = "raw" if name == "a" else "qcow2"
        if fmt == "qcow2":
            is_sound(name)
        qemu_img("convert", "-f", fmt, "-O", "raw", name, "content")
        found.append((name, os.stat("content").st_size, digest("content")))
        os.unlink("content")
    found.append(os.stat("a").st_size)
    os.chdir("..")
    shutil.rmtree(folder)
    return found


def case_both_programs_do_the_same():
    images("images")
    for words in LINES:
        equal(outcome("ours", [PROGRAM], words), outcome("theirs", ["qemu-img"], words),
              "resize " + " ".join(words))


def case_refusals_say_what_to_do():
    images("i")
    os.chdir("i")

    def fails(*words, saying):
        contains(bgfs("resize", *words, status=1).err, saying)

    fails("b", "512k", saying="'b': the disk has 1048576 bytes, and all data behind the first 524288 "
                              "would be deleted: use the --shrink option to perform a shrink operation")
    fails("b", "0", saying="'b': the new size must be positive")
    fails("b", "--shrink", "-9M", saying="'b': the new size must be positive; it has 1048576 bytes now")
    fails("b", "9E", saying="'b': a disk has")
    fails("b", "x", saying="'x' is not a size")
    fails("b", saying="one image and at the end its new size are expected; see 'bgfs resize --help'")
    fails("--preallocation=foo", "b", "2M", saying="'foo' is not one of off, metadata, falloc, full")
    fails("--preallocation=full", "b", "1M", saying="'b': preallocation can only be used for growing "
                                                    "images; this one has 1048576 bytes and would")
    fails("old", "2M", saying="cannot resize 'old' to 2097152 bytes")
    fails("a", "2M", saying="give -f raw")
    # Lengths are exact here; the peer counts from whole sectors.
    with open("odd", "wb") as f:
        f.truncate(1000)
    bgfs("resize", "-f", "raw", "odd", "+1")
    equal(os.stat("odd").st_size, 1001)
