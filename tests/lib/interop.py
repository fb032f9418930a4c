# SPDX-License-Identifier: MIT
"""What the interop cases share: running our program and its peers, and comparing what they say.

A case file is tests/interop/NAME.py with functions case_SOMETHING(); each runs in an empty directory
of its own, passes by returning, fails by raising, and raises Skip where it cannot be run.
"""
import hashlib
import json
import os
import random
import re
import shutil
import subprocess

REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|ThreadSanitizer|"
                    r"runtime error:|bgfs: bug:|terminate called|Segmentation fault")
TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


class Skip(Exception):
    """The case cannot be run here; says why."""


def find_program():
    path = os.environ.get("BGFS")
    if path:
        return os.path.abspath(path)
    for place in ("build/release/fuse/bgfs", "build/debug/fuse/bgfs", "build/fuse/bgfs"):
        if os.path.exists(os.path.join(TOP, place)):
            return os.path.join(TOP, place)
    raise SystemExit("no bgfs is built; build it or say where it is with BGFS=PATH")


PROGRAM = find_program()


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            raise Skip(f"{program} is not installed")


def run(*words, status=0, stdin=b"", timeout=120):
    """Runs a command; status None accepts any. Returns it with out and err as text."""
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout)
    done.out = done.stdout.decode("utf-8", "replace")
    done.err = done.stderr.decode("utf-8", "replace")
    shown = " ".join(words)
    if REPORT.search(done.err):
        raise AssertionError(f"{shown}\ncrash report:\n{done.err}")
    if done.returncode < 0 or (status is not None and done.returncode != status):
        raise AssertionError(f"{shown}\nexit status {done.returncode}, not {status}\n"
                             f"{done.out}{done.err}")
    return done


def bgfs(*words, **how):
    return run(PROGRAM, *words, **how)


def qemu_img(*words, **how):
    need("qemu-img")
    return run("qemu-img", *words, **how)


def qemu_io(*words, **how):
    need("qemu-io")
    return run("qemu-io", *words, **how)


def equal(found, expected, what="value"):
    if found != expected:
        raise AssertionError(f"{what}:\n--- found\n{found}\n--- expected\n{expected}")


def contains(text, part, what="text"):
    if part not in text:
        raise AssertionError(f"{what} does not contain {part!r}:\n{text}")


def same_output(*words):
    """Our image verb prints what qemu-img prints, to the byte, with the same exit status."""
    theirs = qemu_img(*words, status=None)
    ours = bgfs(*words, status=None)
    equal(ours.out, theirs.out, "output of " + " ".join(words))
    equal(ours.returncode, theirs.returncode, "exit status of " + " ".join(words))
    return ours


def same_json(*words):
    """The same for JSON whose members may come in another order."""
    theirs = qemu_img(*words)
    ours = bgfs(*words)
    equal(json.loads(ours.out), json.loads(theirs.out), "output of " + " ".join(words))


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


def same_bytes(a, b):
    equal(digest(a), digest(b), f"sha256 of {a} and {b}")


def read_identically(image, *options):
    """We read the image as qemu-img does: content, map and info."""
    qemu_img("convert", "-O", "raw", image, "theirs.raw")
    bgfs("convert", *options, "-O", "raw", image, "ours.raw")
    same_bytes("ours.raw", "theirs.raw")
    os.unlink("ours.raw")
    os.unlink("theirs.raw")


def is_sound(image):
    """qemu-img finds neither errors nor leaks."""
    done = qemu_img("check", "--output=json", image)
    found = json.loads(done.out)
    equal(found.get("check-errors"), 0, f"check-errors of {image}")
    equal(found.get("corruptions", 0), 0, f"corruptions of {image}")
    equal(found.get("leaks", 0), 0, f"leaks of {image}")


class Requests:
    """Commands for io, drawn from a seed, with what they do to a byte array."""

    def __init__(self, seed, length, unit=1, zeroes=True, discards=False):
        self.random = random.Random(seed)
        self.model = bytearray(length)
        self.unit = unit
        self.zeroes = zeroes
        self.discards = discards

    def place(self):
        length = len(self.model)
        most = self.random.choice((512, 4096, 65536, 200_000))
        begin = self.random.randrange(0, length, self.unit)
        size = min(self.random.randint(1, most), length - begin)
        size = max(size - size % self.unit, min(self.unit, length - begin))
        return begin, size

    def command(self):
        begin, size = self.place()
        kinds = ["write"] * 6 + (["zero"] * 2 if self.zeroes else []) + ["flush"]
        kinds += ["discard"] if self.discards else []
        kind = self.random.choice(kinds)
        if kind == "flush":
            return "flush"
        if kind == "discard":
            return f"discard -q {begin} {size}"
        if kind == "zero":
            self.model[begin:begin + size] = bytes(size)
            flags = self.random.choice(("-z", "-zu"))
            return f"write -q {flags} {begin} {size}"
        pattern = self.random.randint(0, 255)
        self.model[begin:begin + size] = bytes([pattern]) * size
        flags = self.random.choice(("", "-f"))
        return f"write -q {flags} -P {pattern} {begin} {size}"

    def commands(self, count):
        words = []
        for _ in range(count):
            words += ["-c", self.command()]
        return words


def fill(image, seed=1, count=40, length=None, unit=512, format="qcow2", options=()):
    """Writes and zeroes drawn from a seed, by qemu-io."""
    if length is None:
        length = json.loads(qemu_img("info", "-U", "--output=json", "-f", format, image).out)[
            "virtual-size"]
    requests = Requests(seed, length, unit)
    qemu_io(*options, "-f", format, *requests.commands(count), image)
    return requests.model
