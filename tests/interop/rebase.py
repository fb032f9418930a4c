# SPDX-License-Identifier: MIT
"""rebase: an overlay shows the same over another backing file, as with qemu-img rebase, at every
instant."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

from commit import until_let_go
from interop import PROGRAM, bgfs, contains, digest, equal, is_sound, qemu_img, qemu_io, run

ALLOW = "--allow-raw-references=."


def content(image, fmt="qcow2"):
    qemu_img("convert", "-f", fmt, "-O", "raw", image, "content.raw")
    found = digest("content.raw")
    os.unlink("content.raw")
    return found


def backing_of(image):
    info = json.loads(qemu_img("info", "--output=json", image).out)
    return info.get("backing-filename"), info.get("backing-filename-format")


class Chain:
    """top -> mid -> base, and another image that top may stand on, all drawn from a seed."""

    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        os.mkdir(folder)
        os.chdir(folder)
        self.base_format = self.random.choice(("raw", "qcow2"))
        self.make("base", self.base_format)
        self.make("other", self.random.choice(("raw", "qcow2")))
        self.make("mid", "qcow2", "base", self.base_format)
        self.make("side", "qcow2", "base", self.base_format)
        self.make("top", "qcow2", "mid", "qcow2")
        os.chdir("..")

    def make(self, name, fmt, below=None, below_format=None):
        r = self.random
        length = r.choice((300, 512, 1000, 1024, 1500)) << 10
        words = ["-b", below, "-F", below_format] if below else []
        if fmt == "qcow2":
            words += ["-o", ",".join((f"cluster_size={r.choice(('4k', '64k', '16k'))}",
                                      r.choice(("compat=1.1", "compat=1.1", "compat=0.10"))))]
            if r.random() < .25:
                words = words[:-1] + ["cluster_size=64k,extended_l2=on"]
        qemu_img("create", "-q", "-f", fmt, *words, name, str(length))
        commands = []
        for _ in range(r.randint(0, 10)):
            offset = r.randrange(0, length, 512)
            size = min(r.choice((512, 4096, 65536, 200_000)), length - offset)
            zero = r.random() < .3
            commands += ["-c", f"write -q {'-z' if zero else f'-P {r.randint(1, 3)}'} {offset} {size}"]
        if commands:
            qemu_io("-f", fmt, *commands, name)
        setattr(self, name, fmt)

    def target(self):
        name = self.random.choice(("base", "other", "side", "mid", ""))
        return name, getattr(self, name) if name else None


def case_random_chains_read_the_same_and_as_the_peers():
    for seed in range(30):
        outcomes = []
        for folder, program in (("ours", [PROGRAM, "rebase", ALLOW]), ("theirs", ["qemu-img", "rebase"])):
            chain = Chain(folder, seed)
            name, fmt = chain.target()
            os.chdir(folder)
            wanted = content("top")
            below = {n: digest(n) for n in ("base", "mid", "side", "other")}
            words = ["-b", name] + (["-F", fmt] if fmt else [])
            compressed = ["-c"] if folder == "ours" and seed % 3 == 0 else []
            done = run(*program, *compressed, "-f", "qcow2", *words, "top")
            equal(content("top"), wanted, f"seed {seed}: {folder}: content over {name!r}")
            equal({n: digest(n) for n in below}, below, "the other images")
            is_sound("top")
            outcomes.append([done.out, backing_of("top"), digest("mid")])
            if folder == "ours":
                bgfs("check", "-q", "top")
                size = os.stat("top").st_size
            elif not compressed and size > os.stat("top").st_size + (256 << 10):
                raise AssertionError(f"seed {seed}: {size} bytes, the peer's {os.stat('top').st_size}")
            os.chdir("..")
        equal(outcomes[0], outcomes[1], f"seed {seed}")
        shutil.rmtree("ours")
        shutil.rmtree("theirs")


def case_only_what_differs_is_written():
    qemu_img("create", "-q", "-f", "qcow2", "base", "4M")
    qemu_io("-c", "write -q -P 1 0 3M", "base")
    shutil.copy("base", "other")
    qemu_io("-c", "write -q -P 2 1M 64k", "-c", "write -q -P 2 3M 64k", "other")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
    qemu_io("-c", "write -q -P 3 2M 64k", "top")
    wanted = content("top")
    bgfs("rebase", "-b", "other", "-F", "qcow2", "top")
    equal(content("top"), wanted)
    held = [(e["start"], e["length"], e["zero"])
            for e in json.loads(qemu_img("map", "--output=json", "top").out) if e["depth"] == 0]
    equal(held, [(1 << 20, 65536, False), (2 << 20, 65536, False), (3 << 20, 65536, True)])


LINES = [
    ["top"], ["-b", "nope", "-F", "qcow2", "top"], ["-b", "other", "top"],
    ["-b", "other", "-F", "qcow2", "top"], ["-q", "-p", "-b", "other", "-F", "qcow2", "top"],
    ["-b", "", "top"], ["-u", "-b", "nope", "top"], ["-u", "-b", "nope", "-F", "foo", "top"],
    ["-u", "-b", "", "top"], ["-u", "-b", "nope", "-F", "qcow2", "top"], ["-u", "top"],
    ["-f", "raw", "-b", "other", "-F", "qcow2", "base"], ["-U", "-b", "mid", "-F", "qcow2", "top"],
    ["-t", "foo", "-b", "other", "top"], ["-T", "foo", "-b", "other", "top"],
    ["-t", "none", "-T", "none", "-b", "other", "-F", "qcow2", "top"],
    ["-b", "other", "top", "extra"], ["-F", "raw", "top"], ["-b", "top", "-F", "qcow2", "top"],
    ["-b", "base", "-F", "raw", "top"], ["none"], ["-b", "other", "-F", "raw", "top"],
    ["--image-opts", "-b", "base", "-F", "raw", "driver=qcow2,file.filename=top"],
    ["-u", "-b", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"other"}}', "-F", "qcow2",
     "top"], ["-b", "file:other", "-F", "qcow2", "top"], ["-x", "top"],
]


def lines_images():
    os.mkdir("lines")
    os.chdir("lines")
    qemu_img("create", "-q", "-f", "raw", "base", "1M")
    qemu_io("-f", "raw", "-c", "write -q -P 1 0 1M", "base")
    qemu_img("create", "-q", "-f", "qcow2", "other", "1M")
    qemu_io("-c", "write -q -P 2 500k 300k", "other")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "mid")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top", "2M")
    qemu_io("-c", "write -q -P 3 900k 600k", "top")
    os.chdir("..")


def case_lines_end_as_the_peers():
    lines_images()
    for words in LINES:
        outcomes = []
        for folder, program in (("ours", [PROGRAM, "rebase", ALLOW]), ("theirs", ["qemu-img", "rebase"])):
            shutil.copytree("lines", folder)
            os.chdir(folder)
            wanted = content("top")
            done = run(*program, *words, status=None)
            outcomes.append([done.out if "-p" not in words else "", done.returncode])
            if "-u" not in words and done.returncode == 0:
                equal(content("top"), wanted, f"{folder}: {words}")
            if folder == "theirs" or done.returncode == 0:
                outcomes[-1].append(backing_of("top") if done.returncode == 0 else None)
            else:
                outcomes[-1].append(None)
            os.chdir("..")
            shutil.rmtree(folder)
        equal(outcomes[0], outcomes[1], "rebase " + " ".join(words))


def case_refusals_say_why_and_change_nothing():
    lines_images()
    os.chdir("lines")
    before = {n: digest(n) for n in os.listdir(".")}

    def fails(*words, saying):
        contains(bgfs("rebase", ALLOW, *words, status=1).err, saying)
        equal({n: digest(n) for n in os.listdir(".")}, before, "the images")

    fails("top", saying="-b with the new backing file ('' for none), or -u, is expected; see")
    fails("-u", "-c", "-b", "x", "-F", "raw", "top", saying="-u writes no data, so that -c has nothing")
    fails("-b", "other", "top", saying="the backing file 'other' needs its format to be given, with "
                                       "-F (it looks like qcow2)")
    fails("-b", "other", "-F", "qcwo2", "top", saying="there is no format 'qcwo2' for the backing "
                                                      "file; did you mean 'qcow2'?")
    fails("-b", "top", "-F", "qcow2", "top", saying="'top' cannot be its own backing file")
    fails("-u", "-b", "./top", "-F", "qcow2", "top", saying="'top' cannot be its own backing file")
    fails("-b", "nope", "-F", "qcow2", "top", saying="'top' keeps its backing file and reads as before: "
                                                     "cannot open '")
    fails("-f", "raw", "-b", "other", "-F", "qcow2", "base", saying="images of format 'raw' name no "
                                                                    "backing file")
    fails("-f", "raw", "-u", "-b", "other", "-F", "qcow2", "base", saying="name no backing file")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=flat.data,data_file_raw=on", "flat", "1M")
    before["flat"], before["flat.data"] = digest("flat"), digest("flat.data")
    for how in (["-u"], []):
        fails(*how, "-b", "other", "-F", "qcow2", "flat", saying="the data file of the image is raw, and "
              "always holds all of the disk: the image cannot have a backing file")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "top", "-F", "qcow2", "above")
    before["above"] = digest("above")
    fails("-b", "above", "-F", "qcow2", "top", saying="'top' keeps its backing file")
    fails("-b", "above", "-F", "qcow2", "top", saying="another node of this process, or a process that "
          "cannot be seen from here, uses the image")
    done = run(PROGRAM, "rebase", "-b", "other", "-F", "qcow2", "top", status=1)
    contains(done.err, "--allow-raw-references=")


def case_a_zero_that_nothing_hides_is_kept():
    # Without a backing file there is nothing to do to make zeroes; over the new one there is.
    for options in ("compat=1.1", "compat=0.10", "cluster_size=4k", "extended_l2=on"):
        for name in ("top", "new"):
            if os.path.exists(name):
                os.unlink(name)
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, "top", "1M")
        qemu_img("create", "-q", "-f", "qcow2", "new", "2M")
        qemu_io("-c", "write -q -P 7 0 2M", "new")
        qemu_io("-c", "write -q -P 1 100k 3k", "top")
        wanted = content("top")
        bgfs("rebase", "-b", "new", "-F", "qcow2", "top")
        equal(content("top"), wanted, options)
        equal(backing_of("top"), ("new", "qcow2"))
        bgfs("rebase", "-b", "", "top")
        equal(content("top"), wanted, options)
        is_sound("top")


def big_chain():
    qemu_img("create", "-q", "-f", "qcow2", "base", "64M")
    qemu_io("-f", "qcow2", "-c", "write -q -P 1 0 40M", "base")
    qemu_img("create", "-q", "-f", "qcow2", "other", "48M")
    writes = [w for at in range(1, 48, 2) for w in ("-c", f"write -q -P {at} {at}M 700k")]
    qemu_io("-f", "qcow2", *writes, "other")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
    qemu_io("-f", "qcow2", "-c", "write -q -P 99 30M 4M", "top")


def case_killed_at_any_moment_it_reads_the_same():
    rng = random.Random(5)
    os.mkdir("start")
    os.chdir("start")
    big_chain()
    wanted = content("top")
    below = {n: digest(n) for n in ("base", "other")}
    os.chdir("..")
    for attempt in range(16):
        shutil.copytree("start", "k")
        os.chdir("k")
        how = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[attempt % 4]
        process = subprocess.Popen([PROGRAM, "rebase", "-q", "-b", "other", "-F", "qcow2", "top"],
                                   stderr=subprocess.PIPE)
        time.sleep(rng.random() * 0.25)
        process.send_signal(how)
        said = process.communicate()[1].decode()
        if process.returncode not in (0, -how):
            raise AssertionError(f"ended with {process.returncode}: {said}")
        if process.returncode and how != signal.SIGKILL and said:
            contains(said, "'top' keeps its backing file and reads as before")
        until_let_go("top", "base", "other")
        equal(content("top"), wanted, "the overlay")
        equal({n: digest(n) for n in ("base", "other")}, below, "the images below")
        equal(sorted(os.listdir(".")), ["base", "other", "top"])
        found = qemu_img("check", "-f", "qcow2", "top", status=None)
        if found.returncode not in (0, 3):
            raise AssertionError(found.out + found.err)
        bgfs("rebase", "-q", "-b", "other", "-F", "qcow2", "top")
        equal(content("top"), wanted, "the overlay")
        equal(backing_of("top"), ("other", "qcow2"))
        os.chdir("..")
        shutil.rmtree("k")
