# SPDX-License-Identifier: MIT
"""commit: what an overlay holds goes down, as qemu-img commit does it."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

from interop import PROGRAM, bgfs, contains, digest, equal, is_sound, need, qemu_img, qemu_io, run

ALLOW = "--allow-raw-references=."


def chain(folder, base_format="raw"):
    os.mkdir(folder)
    os.chdir(folder)
    qemu_img("create", "-q", "-f", base_format, "base", "600k")
    qemu_io("-f", base_format, "-c", "write -P 1 0 600k", "base")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", base_format, "mid", "1M")
    qemu_io("-f", "qcow2", "-c", "write -P 2 100k 300k", "mid")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top")
    qemu_io("-f", "qcow2", "-c", "write -P 3 300k 400k", "-c", "write -z 0 64k", "top")
    os.chdir("..")


def content(image, fmt="qcow2"):
    qemu_img("convert", "-f", fmt, "-O", "raw", image, "content.raw")
    found = digest("content.raw")
    os.unlink("content.raw")
    return found


def until_let_go(*images):
    """The kernel gives the locks of a killed process back a moment later."""
    end = time.monotonic() + 10
    for image in images:
        while qemu_img("info", image, status=None).returncode != 0:
            if time.monotonic() > end:
                raise AssertionError(f"{image} stays locked")
            time.sleep(0.01)


def case_both_programs_leave_the_same():
    for base in ("raw", "qcow2"):
        for words in (("top",), ("-d", "top"), ("-b", "base", "top"), ("-b", "./base", "-q", "top"),
                      ("-f", "qcow2", "-t", "none", "top"), ("-q", "mid"), ("-r", "100M", "top")):
            outcomes = []
            for folder, program in (("ours", [PROGRAM, "commit", ALLOW]),
                                    ("theirs", ["qemu-img", "commit"])):
                chain(folder, base)
                os.chdir(folder)
                done = run(*program, *words)
                images = [("base", base), ("mid", "qcow2"), ("top", "qcow2")]
                where = [qemu_img("map", "-f", fmt, "--output=json", name).out
                         for name, fmt in images if base == "raw" or name != "base"]
                for name, fmt in images:
                    if fmt == "qcow2":
                        is_sound(name)
                outcomes.append([done.out, [content(n, f) for n, f in images],
                                 os.stat("base").st_size if base == "raw" else 0,
                                 [text.count('"depth": 0') for text in where[-1:]]])
                os.chdir("..")
                shutil.rmtree(folder)
            equal(outcomes[0], outcomes[1], f"commit {words} over {base}")


def case_what_cannot_be_says_why():
    chain("c")
    os.chdir("c")
    before = [digest(n) for n in ("base", "mid", "top")]

    def fails(*words, saying):
        done = bgfs("commit", *words, status=1)
        contains(done.err, saying)
        equal(done.out, "")
        equal([digest(n) for n in ("base", "mid", "top")], before, "the images")

    fails(saying="one image is expected; see 'bgfs commit --help'")
    fails(ALLOW, "-f", "raw", "base",
          saying="'base' does not have a backing file that its content could go to")
    fails(ALLOW, "-b", "nope", "top", saying="'nope' is not in the backing chain of 'top', which has")
    fails(ALLOW, "-b", "top", "top", saying="'top' is not in the backing chain of 'top'")
    fails(ALLOW, "-r", "x", "top", saying="option '-r': 'x' is not a size")
    fails("top", saying="--allow-raw-references=")
    # Who uses the base, or another overlay over it, is named.
    for words in (["-f", "qcow2", "mid"], ["-f", "qcow2", "-r", "mid"]):
        other = subprocess.Popen(["qemu-io", *words], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        other.stdin.write("length\n")
        other.stdin.flush()
        time.sleep(0.3)
        fails(ALLOW, "top", saying="qemu-io")
        other.communicate("quit\n")
    shutil.copy("mid", "kept")
    os.chmod("mid", 0o444)
    data = os.path.join(os.getcwd(), "raw-data")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", "flat", "1M")
    bgfs("commit", "-f", "qcow2", "flat", status=1)


def case_progress_is_shown_and_ends():
    chain("c")
    os.chdir("c")
    done = bgfs("commit", "-p", ALLOW, "top")
    contains(done.out, "    (100.00/100%)")
    contains(done.out, "\nImage committed.\n")
    chain("d")
    os.chdir("d")
    equal(bgfs("commit", "-p", "-q", ALLOW, "top").out, "")


def case_the_rate_is_kept():
    chain("c")
    os.chdir("c")
    begin = time.monotonic()
    bgfs("commit", "-q", "-r", "200k", "-d", ALLOW, "top")  # 400 KiB of data in two pieces or more
    bgfs("convert", "-r", "1M", ALLOW, "-O", "raw", "top", "flat")
    if time.monotonic() - begin < 0.3:
        raise AssertionError("neither was slowed down")
    contains(bgfs("convert", "-r", "-1", ALLOW, "top", "x", status=1).err, "is not a size")


def case_killed_at_any_moment_it_can_be_done_again():
    need("qemu-img")
    rng = random.Random(5)
    for attempt in range(12):
        os.mkdir(f"k{attempt}")
        os.chdir(f"k{attempt}")
        qemu_img("create", "-q", "-f", "qcow2", "base", "64M")
        qemu_io("-f", "qcow2", "-c", "write -q -P 1 0 40M", "base")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
        writes = [w for at in range(1, 64, 2) for w in ("-c", f"write -q -P {at} {at}M 700k")]
        qemu_io("-f", "qcow2", *writes, "top")
        wanted = content("top")
        process = subprocess.Popen([PROGRAM, "commit", "-q", "top"])
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        until_let_go("top", "base")
        equal(content("top"), wanted, "the overlay")
        for name in ("base", "top"):
            found = qemu_img("check", "-f", "qcow2", name, status=None)
            if found.returncode not in (0, 3):
                raise AssertionError(found.out + found.err)
        bgfs("commit", "-q", "top")
        equal(content("top"), wanted, "the overlay")
        equal(content("base"), wanted, "the base")
        os.chdir("..")
        shutil.rmtree(f"k{attempt}")


def case_a_base_that_keeps_its_data_in_a_file_of_its_own():
    need("qemu-img", "qemu-io")
    for raw in ("on", "off"):
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file=data,data_file_raw={raw}", "base", "1M")
        qemu_io("-c", "write -q -P 1 0 700k", "base")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
        qemu_io("-c", "write -q -P 2 100k 300k", "-c", "write -q -z 500k 64k", "top")
        wanted = content("top")
        bgfs("commit", "top")
        for name in ("base", "top"):
            equal(content(name), wanted, f"what {name} holds, data_file_raw={raw}")
            is_sound(name)
        depths = {e["depth"] for e in json.loads(qemu_img("map", "--output=json", "top").out)}
        equal(depths, {1}, "the overlay is empty")
        if raw == "on":
            equal(digest("data"), wanted, "the data file by itself")
        for name in ("base", "top", "data"):
            os.unlink(name)
