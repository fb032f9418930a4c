# SPDX-License-Identifier: MIT
"""compare: the same answers and exit status as qemu-img compare, and data read only where needed."""
import random
import signal
import subprocess
import time

from interop import PROGRAM, bgfs, contains, equal, qemu_img, qemu_io, same_output


def make(name, kind, length, *commands, options=()):
    qemu_img("create", "-q", "-f", kind, *options, name, length)
    words = [w for c in commands for w in ("-c", c)]
    if words:
        qemu_io("-f", kind, *words, name)


def images():
    make("raw", "raw", "1M", "write -q -P 1 0 1M")
    make("same", "qcow2", "1M", "write -q -P 1 0 1M")
    make("longer", "qcow2", "2M", "write -q -P 1 0 1M")
    make("tail", "qcow2", "2M", "write -q -P 1 0 1M", "write -q -P 2 1500k 1k")
    make("other", "qcow2", "2M", "write -q -P 1 0 1M", "write -q -P 2 700000 1")
    make("apart", "qcow2", "1M", "write -q -P 1 512k 512k", "write -q -P 1 0 512k")
    make("empty", "qcow2", "1M")
    make("zeroes", "qcow2", "1M", "write -q -z 0 1M")
    make("written", "qcow2", "1M", "write -q -P 0 0 1M")
    make("sparse", "raw", "1M")
    make("placed", "qcow2", "1M", options=("-o", "preallocation=metadata"))
    qemu_img("convert", "-c", "-O", "qcow2", "raw", "packed")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "same", "-F", "qcow2", "overlay")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "same", "-F", "qcow2", "changed")
    qemu_io("-c", "write -q -P 9 300k 1", "changed")
    for name, length in (("odd", 1000), ("even", 1024), ("three", 1025)):
        with open(name, "wb") as f:
            f.truncate(length)
    return ["raw", "same", "longer", "tail", "other", "apart", "empty", "zeroes", "written", "sparse",
            "placed", "packed", "overlay", "changed", "odd", "even", "three"]


def case_every_pair_has_the_peers_answer():
    names = images()
    for one in names:
        for two in names:
            same_output("compare", one, two)
            same_output("compare", "-s", one, two)


def case_options():
    images()
    for words in (["-q", "raw", "other"], ["-q", "raw", "same"], ["-sq", "longer", "same"],
                  ["-f", "raw", "-F", "qcow2", "raw", "same"], ["-T", "none", "raw", "same"],
                  ["-U", "raw", "same"], ["-f", "qcow2", "raw", "same"], ["-F", "foo", "raw", "same"],
                  ["raw", "none"], ["none", "raw"], ["-T", "foo", "raw", "same"], ["raw"],
                  ["-x", "raw", "same"], ["raw", "same", "same"],
                  ["--image-opts", "driver=raw,file.filename=raw", "driver=qcow2,file.filename=same"],
                  ["-f", "raw", "-F", "raw", "raw", "same"],
                  ['json:{"driver":"raw","offset":512,"size":512,"file":{"driver":"file",'
                   '"filename":"raw"}}', "same"]):
        same_output("compare", *words)
    contains(bgfs("compare", "raw", status=1).err, "two images are expected; see 'bgfs compare")
    contains(bgfs("compare", "-T", "foo", "raw", "same", status=2).err, "'foo' is no cache mode")
    contains(bgfs("compare", "raw", "none", status=2).err, "cannot open 'none': No such file")
    contains(bgfs("compare", "-p", "raw", "same").out, "    (100.00/100%)\r\nImages are identical.\n")


def case_what_cannot_be_read_has_a_status_of_its_own():
    images()
    with open("packed", "rb+") as f:  # the compressed bytes are no stream any more
        f.seek(0x50000)
        f.write(b"\xff" * 4096)
    theirs = qemu_img("compare", "packed", "raw", status=None).returncode
    done = bgfs("compare", "packed", "raw", status=theirs)
    equal(theirs, 4)
    contains(done.err, "'packed': the data at offset 0 cannot be read: ")
    make("cut", "qcow2", "8G", "write -q 0 1M", "write -q 6G 64k")
    table = int.from_bytes(open("cut", "rb").read(48)[40:48], "big")
    with open("cut", "rb+") as f:  # an L2 table outside of the file
        f.seek(table + 8 * 12)
        f.write((0x8000000000000000 | (1 << 40) | 512).to_bytes(8, "big"))
    make("like", "qcow2", "8G", "write -q 0 1M", "write -q 6G 64k")
    done = bgfs("compare", "cut", "like", status=3)
    contains(done.err, "'cut': what is stored at offset 6442450944 cannot be found out: ")
    equal(qemu_img("compare", "cut", "like", status=None).returncode, 3)


def case_random_images():
    rng = random.Random(11)
    for _ in range(25):
        content = [f"write -q -P {rng.randint(0, 2)} {rng.randrange(0, 4096) * 512} "
                   f"{rng.randint(1, 300) * 512}" for _ in range(rng.randint(0, 12))]
        kinds = [rng.choice(("raw", "qcow2")) for _ in range(2)]
        for name, kind in zip("ab", kinds):
            make(name, kind, "3M", *content,
                 options=("-o", "cluster_size=4k") if kind == "qcow2" and rng.random() < .4 else ())
        for _ in range(3):
            same_output("compare", "a", "b")
            same_output("compare", "b", "a")
            if kinds[0] == kinds[1] == "raw":
                same_output("compare", "-s", "a", "b")
            offset = rng.randrange(0, 3 << 20)
            qemu_io("-f", kinds[1], "-c", f"write -q -P {rng.randint(0, 3)} {offset} 1", "b")


def case_interrupted():
    for name in "ab":
        with open(name, "wb") as f:
            for at in range(0, 200):
                f.write(bytes([at + 1]) * 2**20)
    for how, number in ((signal.SIGINT, -2), (signal.SIGTERM, -15), (signal.SIGKILL, -9)):
        process = subprocess.Popen([PROGRAM, "compare", "a", "b"], stderr=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        time.sleep(0.03)
        process.send_signal(how)
        process.communicate()
        if process.returncode not in (number, 0):
            raise AssertionError(f"ended with {process.returncode}, not by {how}")
