# SPDX-License-Identifier: MIT
"""dd and bench: the same files, result lines and exit status as the peer's."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

from interop import PROGRAM, bgfs, contains, digest, equal, is_sound, qemu_img, qemu_io, run

DD_LINES = [
    "if=a of=o", "if=a of=o bs=4k count=2", "if=a of=o bs=1000 count=2 skip=1", "if=a of=o skip=3000",
    "if=a of=o bs=1M skip=1", "if=a", "of=a", "if=a of=o bs=0", "if=a of=o bs=x", "if=a of=o count=0",
    "if=a of=o foo=1", "if=a of=o foo", "-O qcow2 if=a of=o", "-O qcow2 -f raw if=a of=o bs=64k skip=3 count=10",
    "-O qcow2 -f raw if=a of=o bs=64k skip=15 count=10", "if=odd of=o", "if=odd of=o bs=333",
    "if=a of=o bs=3G", "if=a of=o bs=1G", "if=a of=o count=-1", "-O foo if=a of=o", "if=none of=o", "if=a of=",
    "if=a of=no/o", "if=a of=b bs=512 count=2", "-f qcow2 if=q of=o bs=4k skip=1", "if=q of=o -U",
    "if=over of=o", "-O qcow2 if=over of=o bs=100 skip=7 count=900", "if=a if=q of=o",
    "--image-opts if=driver=raw,file.filename=a of=o", "-f qcow2 if=a of=o", "-n if=a of=o",
    "if=a of=o bs=1k count=1k skip=1k", "if=a of=o bs=1G count=8E skip=8E",
]


def images(folder):
    os.mkdir(folder)
    os.chdir(folder)
    qemu_img("create", "-q", "-f", "raw", "a", "1M")
    qemu_io("-f", "raw", "-c", "write -q -P 1 0 400k", "-c", "write -q -P 2 600k 400k", "a")
    shutil.copy("a", "b")
    qemu_img("convert", "-O", "qcow2", "a", "q")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "q", "-F", "qcow2", "over", "2M")
    qemu_io("-c", "write -q -P 3 700k 600k", "over")
    with open("odd", "wb") as f:
        f.write(b"x" * 1000)
    os.chdir("..")


def outcome(folder, program, words):
    shutil.copytree("images", folder)
    os.chdir(folder)
    done = run(*program, "dd", *words, status=None)
    found = [done.out, done.returncode]
    for name in sorted(os.listdir(".")):
        with open(name, "rb") as f:
            is_qcow2 = f.read(4) == b"QFI\xfb"
        if is_qcow2:
            is_sound(name)
        qemu_img("convert", "-f", "qcow2" if is_qcow2 else "raw", "-O", "raw", name, "content")
        found.append((name, is_qcow2, os.stat("content").st_size, digest("content")))
        os.unlink("content")
    os.chdir("..")
    shutil.rmtree(folder)
    return found


def case_both_programs_copy_the_same():
    images("images")
    for line in DD_LINES:
        words = line.split(" ")
        equal(outcome("ours", [PROGRAM], words), outcome("theirs", ["qemu-img"], words), "dd " + line)


def case_refusals_say_why():
    images("i")
    os.chdir("i")

    def fails(*words, saying):
        contains(bgfs("dd", *words, status=1).err, saying)

    fails("if=a", saying="both input (if=) and output (of=) are expected; see 'bgfs dd --help'")
    fails("if=a", "of=o", "sikp=3", saying="unrecognized operand 'sikp'; they are if=, of=, bs=, count=")
    fails("if=a", "of=o", "bs=0", saying="operand 'bs' is between 1 and 2147483647, not 0")
    fails("if=a", "of=o", "skip=x", saying="operand 'skip': 'x' is not a size")
    fails("if=a", "of=./a", saying="'./a' is needed to read the source: creating it anew would destroy it")
    fails("if=over", "of=q", saying="'q' is needed to read the source")
    contains(bgfs("dd", "if=a", "of=o", "skip=9999").err, "a: cannot skip to specified offset")
    bgfs("dd", "if=a", "of=o", "osize=3M")
    equal(os.stat("o").st_size, 3 << 20)
    equal(bgfs("compare", "a", "o").out, "Warning: Image size mismatch!\nImages are identical.\n")
    bgfs("dd", "if=a", "of=o", "osize=64k")
    equal(os.stat("o").st_size, 64 << 10)


def case_interrupted_a_new_target_is_removed_and_an_old_one_is_named():
    with open("a", "wb") as f:
        for at in range(150):
            f.write(bytes([at + 1]) * 2**20)
    before = digest("a")
    with open("old", "wb") as f:
        f.truncate(150 << 20)
    for verb in (["dd", "-f", "raw", "-O", "qcow2", "if=a", "of=new"],
                 ["convert", "-f", "raw", "-O", "qcow2", "a", "new"],
                 ["convert", "-n", "-f", "raw", "-O", "raw", "a", "old"],
                 ["dd", "-f", "raw", "if=a", "of=old"]):
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with open("old", "wb") as f:  # as long as there is nothing in it nothing was written
                f.truncate(150 << 20)
            if os.path.exists("new"):  # the last one was done before
                os.unlink("new")
            process = subprocess.Popen([PROGRAM, *verb], stderr=subprocess.PIPE)
            while process.poll() is None and not (
                    os.path.exists(verb[-1].removeprefix("of=")) and
                    os.stat(verb[-1].removeprefix("of=")).st_blocks > 4000):
                time.sleep(0.001)
            process.send_signal(how)
            said = process.communicate()[1].decode()
            if process.returncode == 0:
                continue  # it was done before
            equal(process.returncode, -how, said)
            name = verb[-1].removeprefix("of=")
            if name == "new":
                equal(os.path.exists("new"), False, "the new target")
                contains(said, "'new' was removed again")
            else:
                contains(said, "'old' is incomplete")
            contains(said, "interrupted")
        if os.path.exists("new"):
            os.unlink("new")
    equal(digest("a"), before, "the source")
    equal(sorted(os.listdir(".")), ["a", "old"])


def case_who_ignores_signals_is_not_ended_by_them():
    with open("a", "wb") as f:
        f.write(b"x" * (40 << 20))
    process = subprocess.Popen(["sh", "-c", f"trap '' HUP INT; exec {PROGRAM} convert -f raw -O qcow2 -r 60M a b"])
    time.sleep(0.3)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    equal(process.wait(), 0, "exit status")
    equal(bgfs("compare", "a", "b").out, "Images are identical.\n")


def case_progress_is_told_to_who_asks_by_a_signal():
    with open("a", "wb") as f:
        f.write(b"x" * (40 << 20))
    process = subprocess.Popen([PROGRAM, "convert", "-f", "raw", "-O", "qcow2", "-r", "30M", "a", "b"],
                               stderr=subprocess.PIPE)
    time.sleep(0.4)
    process.send_signal(signal.SIGUSR1)
    said = process.communicate()[1].decode()
    equal(process.returncode, 0, said)
    if not re.fullmatch(r"    \(\d+\.\d\d/100%\)\n", said):
        raise AssertionError(repr(said))


BENCH_LINES = [
    "-f raw -c 100 a", "-f qcow2 -c 100 -w q", "-f qcow2 -c 20 -w --pattern=5 -d 1 -s 64k -S 32k -o 64k q",
    "-f qcow2 -c 100 -w --flush-interval=10 q", "-f qcow2 -c 100 -w --flush-interval=10 --no-drain -d 4 q",
    "-f qcow2 -c 100 --flush-interval=10 q", "-f qcow2 -c 100 --no-drain q", "-c x a", "-f raw -S 0 -c 10 a",
    "-f raw -o 1M -c 10 a", "-f raw -s 2M -c 10 a", "-f raw -i io_uring -c 10 a", "-f raw -i threads -c 10 a",
    "-f raw -i foo -c 10 a", "-f raw -t none -c 10 a", "-f raw -t foo -c 10 a", "-U -f raw -c 10 a",
    "-f raw -c 1 -d 5 a", "-f raw -c 0 a", "-f raw -c 10 -s 3G a", "-f raw -c 10 -w --pattern=256 a",
    "-f raw -c 10 -s 100 a", "--image-opts driver=raw,file.filename=a -c 10", "none", "a b",
    "-f raw -c 100 -S 5G a", "-f raw -c 5000000000 a", "-f raw -c 1 -w --flush-interval=0 a",
]


def case_bench_prints_the_peers_lines():
    images("images")
    for line in BENCH_LINES:
        outcomes = []
        for program in (PROGRAM, "qemu-img"):
            shutil.copytree("images", "i")
            os.chdir("i")
            done = run(program, "bench", *line.split(" "), status=None)
            text = re.sub(r"\d+\.\d+ seconds", "T seconds", done.out)
            # What is printed before a request fails depends on when it does.
            content = [digest("a"), json.loads(qemu_img("map", "--output=json", "q").out)[0]["length"]]
            outcomes.append([text if done.returncode == 0 else "", done.returncode, content])
            os.chdir("..")
            shutil.rmtree("i")
        equal(outcomes[0], outcomes[1], "bench " + line)


def case_bench_refusals():
    images("i")
    os.chdir("i")

    def fails(*words, saying):
        contains(bgfs("bench", *words, status=1).err, saying)

    fails("-f", "raw", "-d", "0", "a", saying="option '-d': 0 is not between 1 and 65536")
    fails("-f", "raw", "-s", "0", "a", saying="option '-s': 0 is not between 1 and")
    fails("-f", "raw", "-i", "foo", "a", saying="option '-i': 'foo' is none of threads, io_uring")
    fails("-w", "a", saying="give -f raw")
    fails("-f", "raw", "-w", "-U", "a", saying="-U is for looking at images")
    fails("-f", "raw", "--flush-interval=9", "a", saying="--flush-interval is only available in write tests")
    fails("-f", "raw", "-w", "--flush-interval=9", "a", saying="the flush interval can't be smaller than the "
                                                               "depth: 64 requests are at once")
    fails("-f", "raw", "-s", "2M", "a", saying="the first request, 2097152 bytes at 0x0, does not lie inside")
    for options in ((), ("-n",), ("-i", "native"), ("-i", "threads"), ("-i", "io_uring", "-t", "none")):
        equal(bgfs("bench", "-q", "-f", "raw", "-c", "10", *options, "a").out, "")
