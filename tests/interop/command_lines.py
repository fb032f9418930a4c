#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Command lines drawn from seeds, of all image verbs, options and formats that both programs know,
run by both on copies of the same images: the same output, the same exit status, the same images.

  tests/interop/command_lines.py [--seeds N] [--first N] [--jobs N] [--show]

A seed is a set of images and LINES command lines, one after the other. When both succeed, the images
must be alike (content, length, sound, map, backing name, snapshots, bitmaps); when both fail, ours
must have left everything as it was. Where the programs are meant to differ, DIFFERENCES says so and
why; how often each came up is printed.
"""
import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")]
from interop import PROGRAM, REPORT  # noqa: E402

SAMPLE = 24  # seeds, where nothing else is asked for
LINES = 10
SECRET = "secret,id=key,data=open sesame"
CACHES = ("none", "writeback", "writethrough", "directsync", "unsafe")


class Outcome:
    """One run of one program."""

    def __init__(self, done):
        self.status = done.returncode
        self.out = done.stdout.decode("utf-8", "replace")
        self.err = done.stderr.decode("utf-8", "replace")


class Difference:
    """A way in which the programs are meant to differ: `applies(words, ours, theirs)`."""

    def __init__(self, name, why, applies):
        self.name, self.why, self.applies = name, why, applies


def ours_refuses(saying):
    pattern = re.compile(saying, re.S)
    return lambda words, ours, theirs: (ours.status != 0 and theirs.status == 0 and
                                        pattern.search(ours.err) is not None)


DIFFERENCES = [
    Difference("guessed raw", "writing to an image whose format is not recognised needs -f raw; the "
               "peer guesses and restricts writes to the first sector",
               lambda words, ours, theirs: ours.status != theirs.status and
               "has no format that is recognised" in ours.err),
    Difference("snapshots by id", "-d takes ids, too, as newer ones of the peer do",
               lambda words, ours, theirs: words[0] == "snapshot" and "-d" in words and
               ours.status == 0 and "snapshot not found" in theirs.err),
    Difference("target is a source", "making a target anew that is needed to read the source would "
               "destroy it; the peer truncates it first",
               ours_refuses("is needed to read the source: creating it anew would destroy it")),
    Difference("own backing file", "an image that names itself cannot be opened again",
               ours_refuses("cannot be its own backing file")),
    Difference("raw by header", "a raw backing file that only a header declares needs "
               "--allow-raw-references",
               lambda words, ours, theirs: "--allow-raw-references" in ours.err),
    Difference("exact lengths", "a raw file is as long as it is; the peer rounds up to sectors",
               lambda words, ours, theirs: ours.status == theirs.status == 0 and
               ours.out != theirs.out and re.search(r"-f ?raw .*\.qcow2$", " ".join(words))),
    Difference("quiet bench", "-q prints nothing; the peer's prints its results all the same",
               lambda words, ours, theirs: words[0] == "bench" and ours.status == theirs.status and
               ours.out == "" and any("q" in w for w in words if re.match(r"-\w+$", w))),
    Difference("bench at the end", "a request that would pass the end begins at 0 again; the peer's "
               "fails there",
               lambda words, ours, theirs: words[0] == "bench" and ours.status == 0 and
               "Failed request" in theirs.err),
    Difference("bitmaps and version 2", "version 2 knows no bitmaps, so that they would be lost",
               ours_refuses("has persistent bitmaps")),
    Difference("measure and its help", "an option that is not known is a mistake; the peer prints its "
               "help and succeeds", ours_refuses("^bgfs measure: option")),
    Difference("-U and a list", "what only looks may do so beside a writer; the peer's snapshot opens "
               "for writing unless -l is given",
               lambda words, ours, theirs: words[0] == "snapshot" and "-U" in words and
               ours.status == 0 and "force-share=on can only be" in theirs.err),
    Difference("map behind the end", "there is nothing; the peer prints an entry of no length",
               lambda words, ours, theirs: words[0] == "map" and ours.status == theirs.status and
               ours.out.strip() == "[]" and '"length": 0' in theirs.out),
    Difference("measure of version names", "v2 and v3 are names that create takes, too",
               lambda words, ours, theirs: words[0] == "measure" and ours.status == 0 and
               "Invalid compatibility level" in theirs.err),
    Difference("no action of snapshot", "lists them, as newer ones of the peer do",
               lambda words, ours, theirs: words[0] == "snapshot" and ours.status == theirs.status == 0 and
               ours.out.startswith("Snapshot list") and theirs.out == ""),
    Difference("repair and snapshots", "what snapshots hold is in use; the peer's -r leaks frees it",
               lambda words, ours, theirs: words[0] == "check" and "-r" in words and
               ours.status == theirs.status and "Leaked cluster" in theirs.err and
               ours.err == "" and not re.search("repaired|leaks", ours.out)),
    Difference("amend to what is so", "nothing is to be done; the peer refuses options of making",
               lambda words, ours, theirs: words[0] == "amend" and ours.status == 0 and
               "only supported for image creation" in theirs.err),
    Difference("backing not needed", "what says nothing of the content below does not open it",
               lambda words, ours, theirs: words[0] in ("check", "snapshot", "bitmap", "resize") and
               ours.status == 0 and "Could not open backing file" in theirs.err),
    Difference("names with a slash", "a new snapshot or bitmap has a name that a file can have",
               lambda words, ours, theirs: words[0] in ("snapshot", "bitmap") and ours.status != 0 and
               theirs.status == 0 and {"", "a/b"} & set(words) and "name" in ours.err),
    Difference("size as an option", "-o size= beside an operand: the operand counts; the peer refuses",
               lambda words, ours, theirs: words[0] == "create" and ours.status == 0 and
               "size=2M" in ",".join(words) and theirs.status == 1),
    Difference("no option at all", "-o '' asks for nothing; the peer refuses it",
               lambda words, ours, theirs: "-o" in words and words[words.index("-o") + 1:][:1] == [""] and
               ours.status == 0 and theirs.status == 1),
    Difference("created line of what fails", "a value that is wrong is found before the line that says "
               "what is being made", lambda words, ours, theirs: words[0] == "create" and
               ours.status == theirs.status == 1 and ours.out == "" and theirs.out.startswith("Formatting")),
    Difference("order of what is made", "the line names options in the order of their list, and a name "
               "with commas as it is", lambda words, ours, theirs: words[0] == "create" and
               ours.status == theirs.status and
               re.search("data_file|encrypt|json:", " ".join(words)) and
               sorted(re.split(r"[\s,]+", ours.out)) == sorted(re.split(r"[\s,]+", theirs.out))),
    Difference("no bitmap to copy", "then it does not matter that the target, or the source by its "
               "version, can have none",
               lambda words, ours, theirs: words[0] == "convert" and "--bitmaps" in words and
               ours.status == 0 and
               re.search("does not support bitmaps|Source lacks bitmap support", theirs.err)),
    Difference("name of an encrypted image", "which key it was opened with is no part of its name, so "
               "that names in its header can be relative to it", lambda words, ours, theirs:
               ours.status == 0 and "Cannot use relative backing file names for 'json:" in theirs.err),
    Difference("measure of what cannot be made", "options that create refuses are refused here, too; the "
               "peer gives a size for them", lambda words, ours, theirs: words[0] == "measure" and
               ours.status != 0 and theirs.status == 0 and
               re.search("needs version 3|contradict", ours.err)),
    Difference("no key needed", "what reads no content needs no key to it", lambda words, ours, theirs:
               (words[0] in ("check", "snapshot", "bitmap") or "help" in words) and ours.status == 0 and
               "'encrypt.key-secret' is required" in theirs.err),
    Difference("unknown option value", "an option or a combination of options that means nothing is "
               "refused; the peer ignores it",
               ours_refuses("exclude each other|makes? no sense|-U looks at|beside him|"
                            "are for a new target|is only for|-[fl], -l and --image-opts are about|"
                            "are about an image")),
]


def draw(rng, chances):
    """One of the keys, each as likely as its number says."""
    return rng.choices(list(chances), list(chances.values()))[0]


class Lines:
    """Draws command lines over a set of images."""

    def __init__(self, rng):
        self.rng = rng
        self.made = 0

    def some(self, chance, *words):
        return list(words) if self.rng.random() < chance else []

    def pick(self, *words):
        return self.rng.choice(words)

    def existing(self, fmt=None):
        names = {"raw": ["a.raw", "b.raw"],
                 "qcow2": ["a.qcow2", "b.qcow2", "over.qcow2", "top.qcow2", "old.qcow2", "z.qcow2",
                           "data.qcow2", "luks.qcow2"]}
        name = self.pick(*(names[fmt] if fmt else names["raw"] + 2 * names["qcow2"]))
        return name, "raw" if name.endswith(".raw") else "qcow2"

    def new(self):
        self.made += 1
        return f"new{self.made % 3}.img"

    def image(self, letter="f", fmt=None, may_be_options=True):
        """Words that name an image, in one of the ways there are: options, operand."""
        name, kind = self.existing(fmt)
        if self.rng.random() < .02:
            name = "missing"
        how = draw(self.rng, {"given": 6, "probed": 3, "wrong": .3, "options": 1, "json": .5,
                              "prefix": .4})
        secret = []
        if name == "luks.qcow2" and self.rng.random() < .9:
            secret = ["--object", SECRET]
            how = self.pick("options", "json") if may_be_options else "json"
        if how == "options" and may_be_options:
            return ["--image-opts", *secret], options_of(name, kind)
        if how == "json":
            return secret, 'json:{"driver": "%s", "file": {"driver": "file", "filename": "%s"}%s}' % (
                kind, name, ', "encrypt": {"key-secret": "key"}' if secret else "")
        if how == "prefix":
            return [f"-{letter}", kind], "file:" + name
        if how == "probed":
            return [], name
        if how == "wrong":
            return [f"-{letter}", self.pick("qcow2", "raw", "vmdk", "nosuch")], name
        return self.pick([f"-{letter}", kind], [f"-{letter}{kind}"]), name

    def size(self):
        return self.pick("0", "512", "64k", "1M", "1.5M", "2M", "3145728", "1x", "1000k", "4K", "1m")

    def cache(self, letter):
        return self.some(.12, f"-{letter}", self.pick(*CACHES, "nosuch") if self.rng.random() < .1
                         else self.pick(*CACHES))

    def verbosity(self, progress=True):
        return self.some(.15, "-q") + (self.some(.12, "-p") if progress else [])

    def create_options(self, fmt):
        if fmt != "qcow2":
            return self.some(.15, "-o", "preallocation=" + self.pick("off", "falloc", "full"))
        options = [o for o in (
            "compat=" + self.pick("0.10", "1.1", "v2", "v3"), "cluster_size=" + self.pick("4k", "64k", "512"),
            "lazy_refcounts=" + self.pick("on", "off"), "refcount_bits=" + self.pick("1", "16", "64"),
            "preallocation=" + self.pick("off", "metadata"), "compression_type=" + self.pick("zlib", "zstd"),
            "extended_l2=on", "nosuch=1") if self.rng.random() < (.02 if o.startswith("nosuch") else .1)]
        if self.rng.random() < .05:
            options += [f"data_file=data{self.pick(1, 2)}", *self.some(.5, "data_file_raw=on")]
        return ["-o", ",".join(options)] if options else []

    # -- the verbs

    def create(self):
        fmt = self.pick("raw", "qcow2", "qcow2")
        words = ["create", *self.some(.9, "-f", fmt), *self.create_options(fmt), *self.verbosity(False)]
        if self.rng.random() < .3:
            name, kind = self.existing()
            words += ["-b", name, *self.some(.9, "-F", kind), *self.some(.2, "-u")]
        words += self.some(.02, "-o", self.pick("size=2M", "", "compat=2", "compression_type=lz4"))
        return words + [self.new(), *self.some(.8, self.size())]

    def info(self):
        options, name = self.image()
        return ["info", *options, *self.some(.4, "--output=" + self.pick("json", "human", "xml")),
                *self.some(.3, "--backing-chain"), *self.some(.2, "-U"), name]

    def check(self):
        options, name = self.image()
        return ["check", *options, *self.some(.3, "--output=" + self.pick("json", "human")),
                *self.some(.2, "-r", self.pick("leaks", "all", "none")), *self.some(.1, "-U"),
                *self.verbosity(False), *self.cache("T"), name]

    def map(self):
        options, name = self.image()
        return ["map", *options, *self.some(.5, "--output=" + self.pick("json", "human")),
                *self.some(.2, "-s" if self.rng.random() < .5 else "--start-offset", self.size()),
                *self.some(.2, "-l", self.size()), *self.some(.2, "-U"), name]

    def convert(self):
        options, name = self.image()
        fmt = self.pick("raw", "qcow2")
        words = ["convert", *options, *self.some(.9, "-O", fmt), *self.create_options(fmt),
                 *self.verbosity(), *self.cache("t"), *self.cache("T"), *self.some(.1, "-U"),
                 *self.some(.15, "-c"), *self.some(.15, "-S", self.pick("0", "4k", "512", "64k")),
                 *self.some(.1, "-m", self.pick("1", "4", "16", "17")), *self.some(.1, "-W"),
                 *self.some(.05, "-C"), *self.some(.05, "-r", "100M"), *self.some(.15, "--bitmaps"),
                 *self.some(.05, "--skip-broken-bitmaps"), *self.some(.1, "--salvage")]
        if self.rng.random() < .15:
            below, kind = self.existing()
            words += ["-B", below, *self.some(.9, "-F", kind)]
        if self.rng.random() < .15:
            target, kind = self.existing()
            given = self.pick(["-O", kind, name, target], ["-O", kind, name, target],
                              ["--target-image-opts", name, options_of(target, kind)])
            return ["convert", "-n", *options, *self.verbosity(), *self.some(.1, "--bitmaps"), *given]
        words += self.some(.1, "-l", self.pick("s1", "snapshot.name=s1", "nosuch"))
        return words + [name, *self.some(.05, self.existing()[0]), self.new()]

    def compare(self):
        options, one = self.image()
        more, two = self.image("F", may_be_options="--image-opts" in options)
        if "--image-opts" in options and "--image-opts" not in more:
            two = f"driver=qcow2,file.filename={self.existing('qcow2')[0]}"
            more = []
        return ["compare", *options, *[w for w in more if w != "--image-opts"], *self.some(.2, "-s"),
                *self.verbosity(), *self.cache("T"), *self.some(.1, "-U"), one, two]

    def commit(self):
        options, name = self.image(fmt="qcow2")
        return ["commit", *options, *self.some(.2, "-d"), *self.some(.1, "-r", "100M"), *self.cache("t"), *self.verbosity(),
                *self.some(.25, "-b", self.pick("a.qcow2", "over.qcow2", "nosuch")), name]

    def rebase(self):
        options, name = self.image(fmt="qcow2")
        below, kind = self.existing()
        backing = self.pick(["-b", below, "-F", kind], ["-b", below, "-F", kind], ["-b", ""],
                            ["-b", below], [], ["-b", "nosuch", "-F", "qcow2"])
        return ["rebase", *options, *backing, *self.some(.2, "-u"), *self.cache("t"), *self.cache("T"),
                *self.verbosity(), *self.some(.05, "-U"), name]

    def resize(self):
        options, name = self.image()
        return ["resize", *options, *self.some(.4, "--shrink"), *self.some(.2, "-q"),
                *self.some(.2, "--preallocation=" + self.pick("off", "metadata", "falloc", "full", "foo")),
                name, self.pick("", "+", "-") + self.size()]

    def snapshot(self):
        options, name = self.image()
        action = self.pick(["-l"], [], ["-c", self.pick("s1", "s1", "s2", "s2", "a/b")], ["-a", self.pick("s1", "s2", "1")],
                           ["-d", self.pick("s1", "s2", "1")], ["-l", "-c", "s3"])
        options = [w for w in options if w in ("--image-opts", "--object", SECRET)]  # no format
        return ["snapshot", *options, *action, *self.some(.1, "-q"), *self.some(.1, "-U"), name]

    def bitmap(self):
        options, name = self.image(fmt="qcow2")
        actions = []
        for _ in range(self.pick(1, 1, 2)):
            actions += self.pick(["--add"], ["--add"], ["--remove"], ["--clear"], ["--enable"], ["--disable"],
                                 ["--merge", self.pick("b1", "b2")])
        if "--merge" in actions and self.rng.random() < .5:
            source, kind = self.existing("qcow2")
            actions += ["-b", source, *self.some(.7, "-F", kind)]
        return ["bitmap", *options, *actions, *self.some(.2, "-g", self.pick("64k", "4k", "1000", "512")),
                name, self.pick("b1", "b1", "b1", "b2", "b2", "b2", "a/b")]

    def measure(self):
        fmt = self.pick("raw", "qcow2")
        words = ["measure", "-O", fmt, *self.create_options(fmt),
                 *self.some(.4, "--output=" + self.pick("json", "human"))]
        if self.rng.random() < .4:
            return words + ["--size", self.size()]
        options, name = self.image()
        words += self.some(.1, "-l", self.pick("s1", "snapshot.name=s1", "nosuch"))
        return words + [*options, *self.some(.1, "-U"), name]

    def amend(self):
        options, name = self.image()
        return ["amend", *options, "-o", self.pick("compat=0.10", "compat=1.1", "lazy_refcounts=on",
                                                   "lazy_refcounts=off", "refcount_bits=32", "nosuch=1",
                                                   "size=3M", "cluster_size=4k", "help"),
                *self.verbosity(), *self.cache("t"), name]

    def dd(self):
        options, name = self.image()
        operands = [f"if={name}", f"of={self.new()}", *self.some(.6, "bs=" + self.pick("512", "4k", "1M", "1000", "0", "x")),
                    *self.some(.4, "count=" + self.pick("0", "1", "3", "100")),
                    *self.some(.4, "skip=" + self.pick("0", "1", "3", "5000")), *self.some(.02, "nosuch=1")]
        self.rng.shuffle(operands)
        return ["dd", *options, *self.some(.6, "-O", self.pick("raw", "qcow2")), *self.some(.1, "-U"), *operands]

    def bench(self):
        options, name = self.image()
        while "--object" in options:  # the peer's bench takes none
            options, name = self.image()
        return ["bench", *options, "-c", self.pick("0", "5", "30"), *self.some(.5, "-d", self.pick("1", "4")),
                *self.some(.4, "-s", self.pick("512", "4k", "64k")), *self.some(.3, "-S", self.pick("8k", "64k")),
                *self.some(.3, "-o", self.pick("0", "64k", "128k")), *self.some(.4, "-w"),
                *self.some(.2, "--pattern", self.pick("5", "0xff", "256")), *self.some(.2, "--flush-interval", "8"),
                *self.some(.1, "--no-drain"), *self.cache("t"), *self.some(.1, "-q"), name]

    verbs = {"create": 4, "info": 4, "check": 3, "map": 4, "convert": 8, "compare": 6, "commit": 4,
             "rebase": 6, "resize": 5, "snapshot": 5, "bitmap": 4, "measure": 4, "amend": 3, "dd": 4,
             "bench": 2}

    def line(self):
        words = getattr(self, draw(self.rng, self.verbs))()
        if self.rng.random() < .02:
            words.insert(1, self.pick("--nosuch", "-Y"))
        if self.rng.random() < .02:
            words.pop()
        return words


def options_of(name, kind):
    return f"driver={kind},file.filename={name}" + (",encrypt.key-secret=key" if name == "luks.qcow2" else "")


def run(folder, *words, check=True):
    done = subprocess.run(words, cwd=folder, capture_output=True, timeout=120, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done


def make_images(folder, rng):
    def image(name, length, *options, commands=8):
        fmt = "raw" if name.endswith(".raw") else "qcow2"
        for _ in range(20):  # a busy machine cannot measure how long a key takes
            made = run(folder, "qemu-img", "create", "-q", "-f", fmt, *options, name, str(length),
                       check="encrypt" not in " ".join(options))
            if made.returncode == 0:
                break
        words = []
        for _ in range(rng.randint(0, commands)):
            offset = rng.randrange(0, length, 512)
            size = min(rng.choice((512, 4096, 65536, 300_000)), length - offset)
            kind = rng.choice((f"-P {rng.randint(1, 3)}",) * 3 + ("-z", "-P 0"))
            words += ["-c", f"write -q {kind} {offset} {size}"]
        if words:
            run(folder, "qemu-io", *words, *opened(folder, name, fmt))

    lengths = [1 << 20, 1 << 20, 1536 << 10, 700 << 10]
    image("a.raw", rng.choice(lengths))
    shutil.copy(os.path.join(folder, "a.raw"), os.path.join(folder, "b.raw"))
    image("a.qcow2", rng.choice(lengths), "-o", rng.choice(("cluster_size=64k", "cluster_size=4k")))
    shutil.copy(os.path.join(folder, "a.qcow2"), os.path.join(folder, "b.qcow2"))
    if rng.random() < .5:
        run(folder, "qemu-io", "-f", "qcow2", "-c", f"write -q -P 4 {rng.randrange(0, 600 << 10)} 1k", "b.qcow2")
    run(folder, "qemu-img", "snapshot", "-c", "s1", "b.qcow2")
    run(folder, "qemu-img", "bitmap", "--add", "b.qcow2", "b1")
    image("over.qcow2", rng.choice(lengths), "-b", "a.qcow2", "-F", "qcow2")
    image("top.qcow2", rng.choice(lengths), "-b", "over.qcow2", "-F", "qcow2")
    image("old.qcow2", rng.choice(lengths), "-o", "compat=0.10")
    image("z.qcow2", 1 << 20, commands=0)
    raw = rng.choice(("on", "off"))
    image("data.qcow2", 1 << 20, "-o", f"data_file=data.file,data_file_raw={raw}")
    image("luks.qcow2", 1 << 20, "--object", SECRET, "-o",
          "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10")


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def files(folder):
    return {name: digest(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}


def is_qcow2(path):
    with open(path, "rb") as f:
        return f.read(4) == b"QFI\xfb"


def is_encrypted(path):
    with open(path, "rb") as f:
        return f.read(36)[32:] != bytes(4)


def opened(folder, name, fmt="qcow2"):
    """Words that have the peer open an image."""
    path = os.path.join(folder, name)
    if fmt == "qcow2" and is_qcow2(path) and is_encrypted(path):
        return ["--object", SECRET, "--image-opts",
                f"driver=qcow2,file.filename={name},encrypt.key-secret=key"]
    return ["-f", fmt, name]


def normal(words, out):
    """Output without what depends on time, place on disk and the program's name."""
    out = re.sub(r"    \(\d+\.\d\d/100%\)\r?", "", out)
    out = re.sub(r"Run completed in \d+\.\d+ seconds", "Run completed in T seconds", out)
    if any(re.search(r"help$", w) for w in words):
        return ""  # texts of our own
    out = re.sub(r"^disk size: .*\n", "", out, flags=re.M)
    out = re.sub(r'^ *"actual-size": \d+,?\n', "", out, flags=re.M)
    out = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", out)
    out = re.sub(r'"date-n?sec": \d+', '"date": 0', out)
    if words[0] == "check":
        out = re.sub(r"^Image end offset: \d+\n", "", out, flags=re.M)
        out = re.sub(r"= \d+\.\d+% allocated, \d+\.\d+% fragmented, ", "", out)
        out = re.sub(r'^ *"(image-end-offset|fragmented-clusters)": \d+,?\n', "", out, flags=re.M)
    if words[0] == "map":
        out = re.sub(r', "offset": \d+', "", out)
        out = re.sub(r"^(0x\w+ +|0 +)(0x\w+ +)(0x\w+|0) +", r"\1\2", out, flags=re.M)
    out = re.sub(r'json:\{[^\n]*luks\.qcow2\\?"\}\}', "luks.qcow2", out)
    out = re.sub(r'^ *"?detached.header"?: false,?\n', "", out, flags=re.M)  # newer ones print it
    lines = [line for line in out.splitlines() if line.strip()]
    if any(w.startswith("--output=json") for w in words):
        try:
            value = json.loads("\n".join(lines))
            if words[0] == "map":  # whether data is a hole of the file each finds out in its own way
                value = merged([(e["start"], e["length"], e["depth"], e["present"], e["data"],
                                 e["zero"] and not e["data"]) for e in value])
            return json.dumps(value, sort_keys=True)
        except ValueError:
            pass
    return "\n".join(lines)


def has_loop(folder, name):
    """rebase -u can make one; the peer follows it for ever."""
    seen = set()
    while name and name not in seen:
        seen.add(name)
        path = os.path.join(folder, name)
        if not os.path.exists(path) or not is_qcow2(path):
            return False
        done = run(folder, "qemu-img", "info", "-U", "--output=json", "-f", "qcow2", name)
        name = json.loads(done.stdout).get("backing-filename")
    return bool(name)


def describe(folder, name):
    """What an image is, as far as it has to be the same: by the peer's account."""
    path = os.path.join(folder, name)
    if not is_qcow2(path):
        return {"length": os.stat(path).st_size, "content": digest(path)}
    done = run(folder, "qemu-img", "info", "-U", "--output=json", "-f", "qcow2", name)
    info = json.loads(done.stdout)
    data = info["format-specific"]["data"]
    found = {"length": info["virtual-size"], "backing": info.get("backing-filename"),
             "backing-format": info.get("backing-filename-format"), "data": data,
             "snapshots": [(s["id"], s["name"]) for s in info.get("snapshots", [])],
             "cluster-size": info["cluster-size"]}
    if has_loop(folder, name):
        return found
    check = run(folder, "qemu-img", "check", "--output=json", *opened(folder, name), check=False)
    found["check"] = check.returncode
    raw = os.path.join(folder, "..", "content")
    done = run(folder, "qemu-img", "convert", "-O", "raw", *opened(folder, name), raw, check=False)
    if done.returncode != 0:
        return dict(found, content=done.stderr)
    found["content"] = digest(raw)
    done = run(folder, "qemu-img", "map", "--output=json", *opened(folder, name))
    found["map"] = where_data_is(json.loads(done.stdout), raw)
    return found


def where_data_is(entries, raw):
    """The layer of each sector that is not zero: how zeroes are kept, each program decides."""
    with open(raw, "rb") as f:
        content = f.read()
    runs = []
    for e in entries:
        for at in range(e["start"], e["start"] + e["length"], 512):
            if content[at:at + 512].strip(b"\0"):
                runs.append([at, 512, e["depth"]])
    return merged(runs)


def mapped_data(out, raw):
    """What a map for people says of each sector that is not zero; None: it is no such map."""
    if not out.startswith("Offset "):
        return None
    with open(raw, "rb") as f:
        content = f.read()
    runs = []
    for line in out.splitlines()[1:]:
        start, length, at, file = line.split()
        start, length, at = int(start, 16), int(length, 16), int(at, 16)
        for sector in range(start, start + length, 512):
            if content[sector:sector + 512].strip(b"\0"):
                runs.append([sector, 512, at - start, file])
    return merged(runs)


def merged(entries):
    out = []
    for start, length, *what in entries:
        if out and out[-1][2:] == what and out[-1][0] + out[-1][1] == start:
            out[-1][1] += length
        else:
            out.append([start, length, *what])
    return out


class Case:
    def __init__(self, seed, place):
        self.rng = random.Random(seed)
        self.place = place
        self.lines = Lines(self.rng)
        self.log = []
        self.met = collections.Counter()
        os.mkdir(os.path.join(place, "now"))
        make_images(os.path.join(place, "now"), self.rng)

    def folder(self, name):
        return os.path.join(self.place, name)

    def step(self):
        words = self.lines.line()
        self.log.append(" ".join(words))
        outcomes = []
        for side, program in (("ours", PROGRAM), ("theirs", "qemu-img")):
            shutil.rmtree(self.folder(side), ignore_errors=True)
            shutil.copytree(self.folder("now"), self.folder(side))
            outcomes.append(Outcome(run(self.folder(side), program, *words, check=False)))
        ours, theirs = outcomes
        if ours.status < 0 or REPORT.search(ours.err):
            raise AssertionError(f"ended with {ours.status}\n{ours.err}")
        for difference in DIFFERENCES:
            if difference.applies(words, ours, theirs):
                self.met[difference.name] += 1
                return
        if normal(words, ours.out) != normal(words, theirs.out) and self.differs_in_zeroes_only(words, ours, theirs):
            return
        if ours.status != theirs.status or normal(words, ours.out) != normal(words, theirs.out):
            raise AssertionError(f"exit status {ours.status}, the peer's {theirs.status}\n--- ours\n"
                                 f"{ours.out}{ours.err}--- theirs\n{theirs.out}{theirs.err}")
        self.met[words[0] + (" fails" if ours.status == 1 else "")] += 1
        if ours.status == 0 and (self.peer_changed_content(words) or self.joins_odd_lengths(words)):
            return
        self.compare_images(words, ours.status == 0 or words[0] in ("compare", "check"))

    def named_in(self, word):
        """The image that a word names, in whatever way; None: none that is there."""
        return next((n for n in os.listdir(self.folder("now")) if n in word), None)

    def differs_in_zeroes_only(self, words, ours, theirs):
        """Of a map for people: ours leaves out what is a hole of the file."""
        name = self.named_in(words[-1])
        if words[0] != "map" or ours.status != theirs.status or not name:
            return False
        fmt = "qcow2" if is_qcow2(self.folder(f"now/{name}")) else "raw"
        run(self.folder("now"), "qemu-img", "convert", "-O", "raw",
            *opened(self.folder("now"), name, fmt), "../content")
        found, expected = (mapped_data(side.out, self.folder("content")) for side in (ours, theirs))
        if found is None or found != expected:
            return False
        self.met["map: holes of the file"] += 1
        return True

    def content(self, side, name):
        return describe(self.folder(side), name).get("content")

    def peer_changed_content(self, words):
        """Of two verbs whose result has to show what their source did, it does not, and ours does:
        an overlay of version 2 without a backing file, whose zeroes nothing is written for, shows
        the new one's data; so does a copy with -B, of which holes are left out (-S), or what the
        source has from its own backing file, whatever the other one holds."""
        now = os.listdir(self.folder("now"))
        if words[0] == "check" and "-r" in words and words[-1] in now:
            before, ours, theirs = (describe(self.folder(f), words[-1]).get("snapshots")
                                    for f in ("now", "ours", "theirs"))
            if before == ours != theirs:
                self.met["check -r leaks: the peer's loses snapshots"] += 1
                return True
        if words[0] == "rebase" and "-u" not in words:
            source = target = next((n for n in now if n in words[-1]), None)
        elif words[0] == "convert" and "-B" in words:
            source, target = self.named_in(words[-2]), words[-1]
        else:
            return False
        before = self.content("now", source) if source else None
        if before is None or not before == self.content("ours", target) != self.content("theirs", target):
            return False
        self.met[f"{words[0]}: the peer's shows other data"] += 1
        return True

    def stands_on_another(self, words):
        """A copy over another backing file than the source's has all that the source shows; the
        peer's leaves out what the source has from below."""
        source = self.named_in(words[-2]) if words[0] == "convert" and "-B" in words else None
        if source is None or describe(self.folder("now"), source).get("backing") == words[words.index("-B") + 1]:
            return False
        self.met["convert -B: another backing file than the source's"] += 1
        return True

    def joins_odd_lengths(self, words):
        """Where the second of two sources begins: behind the first, or the peer's rounded up."""
        if words[0] != "convert" or "raw" not in " ".join(words[:words.index("-O") if "-O" in words else None]):
            return False
        sources = [n for w in words[:-1] for n in [self.named_in(w)] if n]
        if len(sources) < 2 or not any(os.stat(self.folder(f"now/{n}")).st_size % 512 for n in sources[:-1]):
            return False
        self.met["exact lengths"] += 1
        return True

    def ends_with_the_disk(self, name):
        """A data file of ours that is as long as its disk, while the peer's goes on with zeroes to
        the end of a cluster."""
        if name != "data.file":
            return False
        ours, theirs = (open(os.path.join(self.folder(f), name), "rb").read() for f in ("ours", "theirs"))
        more = theirs[len(ours):]
        if not more or not theirs.startswith(ours) or len(theirs) % 65536 or any(more) or len(more) >= 65536:
            return False
        self.met["data files end with the disk"] += 1
        return True

    def compare_images(self, words, has_succeeded):
        now, ours, theirs = (files(self.folder(f)) for f in ("now", "ours", "theirs"))
        if not has_succeeded:
            if set(ours) - set(now):
                raise AssertionError(f"a failure left {set(ours) - set(now)}")
            for name in ours:
                if ours[name] != now[name] and not name.startswith("new"):
                    before, after = (describe(self.folder(side), name) for side in ("now", "ours"))
                    if before != after:
                        raise AssertionError(f"{name} after a failure: {after}, before: {before}")
            return
        if set(ours) != set(theirs):
            raise AssertionError(f"files are {sorted(ours)}, the peer's {sorted(theirs)}")
        changed = [n for n in ours if ours[n] != now.get(n) or theirs[n] != now.get(n)]
        # What stands on a changed image may show something else now; both have to agree on that, too.
        for name in changed:
            one, other = (describe(self.folder(side), name) for side in ("ours", "theirs"))
            # Space that is added to an encrypted image reads as zeroes; the peer's as what its cipher
            # makes of the zeroes of the host.
            adds_encrypted = words[0] == "resize" and re.search(
                r"preallocation=(f\w+|metadata) .*encrypt", " ".join(words))
            left_out = ["map"] * self.stands_on_another(words) + ["map", "content"] * bool(adds_encrypted)
            if words[0] == "resize" and self.ends_with_the_disk(name):
                left_out += ["length", "content"]
            for key in left_out:
                one.pop(key, None)
                other.pop(key, None)
            for key in one.keys() | other.keys():
                if one.get(key) != other.get(key):
                    raise AssertionError(f"{name}: {key} is {one.get(key)}, the peer's {other.get(key)}")
        if any(has_loop(self.folder("ours"), name) for name in changed):
            return  # nobody can open them any more
        shutil.rmtree(self.folder("now"))
        os.rename(self.folder("ours" if self.rng.random() < .5 else "theirs"), self.folder("now"))


def run_seed(seed):
    place = tempfile.mkdtemp(prefix="bgfs-lines-")
    case = None
    try:
        case = Case(seed, place)
        for _ in range(LINES):
            case.step()
        return None, case.met
    except Exception as e:  # noqa: BLE001: whatever it is, the other seeds run
        log = "\n  ".join(case.log) if case else ""
        return f"FAIL seed {seed}\n  {log}\n{e}", case.met if case else collections.Counter()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SAMPLE)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--show", action="store_true", help="print how often what came up")
    a = parser.parse_args()
    if shutil.which("qemu-img") is None or shutil.which("qemu-io") is None:
        print("qemu-img is not installed")
        return 77
    failed, met = 0, collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for trouble, counts in pool.map(run_seed, range(a.first, a.first + a.seeds)):
            met += counts
            if trouble:
                failed += 1
                print(trouble, flush=True)
    for difference in DIFFERENCES:
        if met[difference.name]:
            print(f"{met[difference.name]} times {difference.name}: {difference.why}")
    if a.show:
        for name, count in sorted(met.items()):
            print(f"{count} {name}")
    print(f"{a.seeds - failed} passed, {failed} failed, 0 skipped; {sum(met.values())} command lines")
    return 1 if failed or not a.seeds else 0


if __name__ == "__main__":
    sys.exit(main())
