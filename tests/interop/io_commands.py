# SPDX-License-Identifier: MIT
"""`bgfs io` beside qemu-io: the same commands, the same answers, the same images afterwards."""
import os
import re
import shutil
import signal
import subprocess

from interop import PROGRAM, bgfs, contains, equal, is_sound, need, qemu_img, qemu_io, same_bytes

RATE = re.compile(r"(\d+(\.\d+)? \w+, \d+ ops; ).*")


def make_chain():
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", "4M")
    qemu_io("-c", "write -q -P 7 0 3M", "base.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "over.qcow2")
    qemu_img("create", "-q", "raw", "1M")


def both(*words, err=False):
    """What both programs print and how they end, each on files of its own."""
    need("qemu-io")
    outcomes = []
    for program in ([PROGRAM, "io"], ["qemu-io"]):
        shutil.rmtree("i", ignore_errors=True)
        shutil.copytree("fresh", "i")
        done = subprocess.run([*program, *words], cwd="i", capture_output=True, check=False,
                              stdin=subprocess.DEVNULL)
        shutil.rmtree(program[0].rsplit("/", maxsplit=1)[-1], ignore_errors=True)
        os.rename("i", program[0].rsplit("/", maxsplit=1)[-1])
        text = RATE.sub(r"\1", done.stdout.decode())
        outcomes.append((text, done.returncode))
    equal(outcomes[0], outcomes[1], " ".join(words))
    for image in ("base.qcow2", "over.qcow2"):
        qemu_img("compare", "-s", f"bgfs/{image}", f"qemu-io/{image}")
        is_sound(f"bgfs/{image}")
    same_bytes("bgfs/raw", "qemu-io/raw")
    return outcomes[0]


def commands(*lines):
    words = []
    for line in lines:
        words += ["-c", line]
    return words


def case_options_do_the_same():
    os.mkdir("fresh")
    os.chdir("fresh")
    make_chain()
    os.chdir("..")
    over, every = "over.qcow2", []
    every += [("-C", *commands("read -P 7 64k 64k", "alloc 0 256k", "map", "info", "read 3M 64k"), over)]
    every += [("-s", *commands("write -P 9 0 64k", "read -P 9 0 64k", "read -P 7 64k 64k", "discard 1M 1M",
                               "flush", "truncate 8M", "length", "map"), over)]
    every += [("-m", "-n", *commands("write -P 3 0 64k", "read -P 3 0 64k", "readv -P 7 1M 512 4k",
                                     "aio_write -P 4 2M 64k", "aio_flush", "read -P 4 2M 64k"), over)]
    every += [(option, "-n", *commands("write -P 3 64k 64k", "read -P 3 64k 64k"), over)
              for option in ("-k", "-inative", "-ithreads", "-iio_uring")]
    every += [commands("write -b -P 5 0 4k", "read -b -P 5 0 4k", "read -b -P 5 100 1000", "read -b 512 100", "write -b 0 100", "write -c 1 65536", "write -b -P 6 1M 1k",
                       "read -b -P 6 1M 1k", "read -P 7 0 64k", "info") + [over],
              ["-r"] + commands("write -b -P 5 0 4k", "read -b -P 0 0 4k") + [over],
              ["-f", "raw"] + commands("read -b 0 4k", "write -b 0 4k", "info") + ["raw"]]
    every += [commands("write -b -z 0 4k", "write -b -f 0 64k", "sigraise 0", "length",
                       "reopen -o lazy-refcounts=on", "info", "reopen -r", "read -P 7 0 64k", "reopen -w",
                       "write -P 1 0 64k") + [over]]
    every += [commands("open -s over.qcow2", "write -P 9 0 64k", "close", "open over.qcow2", "read -P 7 0 64k",
                       "close", "open -C over.qcow2", "read -q 1M 64k", "close", "open -nk over.qcow2",
                       "map", "write -P 2 0 64k")]
    for words in every:
        both(*words)
    equal(both(*commands("abort", "length"), over)[1], -signal.SIGABRT, "abort")
    equal(both(*commands("length", f"sigraise {int(signal.SIGTERM)}", "length"), over),
          ("4 MiB\n", -signal.SIGTERM), "sigraise")


def case_what_changes_nothing():
    """-r registers buffers, which ours need not; null-aio is null-co by another name."""
    make_chain()
    for line in ("write -r -P 3 0 64k", "writev -r -P 4 64k 4k", "aio_write -r -P 5 128k 4k", "aio_flush",
                 "read -r -P 3 0 64k", "readv -r -P 4 64k 4k", "aio_read -r -P 5 128k 4k"):
        bgfs("io", "-f", "qcow2", "-c", line, "-c", "aio_flush", "over.qcow2")
    qemu_io("-c", "read -P 3 0 64k", "-c", "read -P 4 64k 4k", "-c", "read -P 5 128k 4k", "over.qcow2")
    for words in (["io", "-f", "raw", "-c", "write 0 64k", "-c", "read -P 0 0 64k", "-c", "length"],
                  ["map", "-f", "raw"], ["info", "-f", "raw"]):
        answers = []
        for name in ("null-co", "null-aio"):
            done = bgfs(*words, f"{name}://")
            answers.append(RATE.sub(r"\1", done.out).replace(name, "null"))
        equal(answers[0], answers[1], words)
        contains(answers[1], {"io": "1 GiB", "map": "0x40000000", "info": "1 GiB"}[words[0]])


def case_a_temporary_overlay_leaves_nothing():
    make_chain()
    os.mkdir("t")
    os.environ["TMPDIR"] = os.path.abspath("t")
    try:
        before = open("over.qcow2", "rb").read()
        for kill in ("", "sigraise 9"):
            bgfs("io", "-s", *commands("write -q -P 9 0 3M", *([kill] if kill else [])), "over.qcow2", status=None) \
                if not kill else subprocess.run([PROGRAM, "io", "-s", *commands("write -q -P 9 0 3M", kill),
                                                 "over.qcow2"], check=False)
            equal(os.listdir("t"), [], "files left")
            equal(open("over.qcow2", "rb").read(), before, "the image")
        # Not even where the image cannot be written to.
        bgfs("io", "-r", "-s", "-c", "read -P 7 0 64k", "over.qcow2")
        contains(bgfs("io", "-s", *commands("write -q 0 64k", "reopen -r", "read -P 205 0 64k"), "over.qcow2",
                      status=1).err, "what was written to the temporary overlay would be lost")
        os.environ["TMPDIR"] = os.path.abspath("none")
        contains(bgfs("io", "-s", "-c", "length", "over.qcow2", status=1).err, "(its directory is TMPDIR)")
    finally:
        del os.environ["TMPDIR"]


def case_a_reopen_that_fails_leaves_the_image_open():
    make_chain()
    done = bgfs("io", *commands("write -q -P 9 0 64k", "reopen -o foo=on", "read -q -P 9 0 64k"), "over.qcow2",
                status=1)
    contains(done.err, "option 'foo' is not known to driver 'qcow2'")
    equal(done.out, "", "the image is open as before")
    contains(bgfs("io", "-c", "sigraise 77", status=1).err, "there is no signal 77")
