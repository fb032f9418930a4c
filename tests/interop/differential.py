#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same random operations through bgfs and through its peers, on two qcow2 images of one shape:
requests (by commands, and to the file that a mount or qemu-storage-daemon shows), snapshots,
resizing, amending, bitmaps, commits, copies within the host. After each round both images hold the
same bytes (a byte array says which, for the disk and every snapshot), have the same map and the same
info, are read alike by both programs, and are sound; what they stand on is the same, too.

    tests/interop/differential.py [--seeds COUNT] [--first SEED] [--jobs COUNT] [--keep DIRECTORY]

A seed is a shape and a sequence of operations; the shapes are drawn so that every value of every
property, and every pair of values that is possible, comes up. What bgfs does differently on purpose
is in `DIFFERENCES`. By default a sample that fits a test run.
"""
import argparse
import concurrent.futures
import ctypes
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib")]
from interop import PROGRAM, run  # noqa: E402
import qcow2_bitmaps  # noqa: E402
import served_image  # noqa: E402

SAMPLE = 24
KIB = 1024
SECRET = ["--object", "secret,id=sec0,data=a passphrase"]

# What bgfs does otherwise than qemu-img 7.2 and qemu-io 7.2, and why; each is looked for by name
# below, so that nothing else slips through.
DIFFERENCES = {
    "partial last cluster": "shrinking and growing again inside one cluster: qemu-io shows the old "
                            "bytes, bgfs zeroes; so lengths are whole clusters here",
    "version 2 over a longer backing file": "qemu-io cannot grow it, bgfs writes zeroes; not grown "
                                            "here",
    "snapshots of another length": "qemu-img reads them as long as the disk is now; compared as far "
                                   "as both go",
    "zeroes": "where the disk reads as zeroes, one may have nothing, a zero cluster, zeroes that "
              "were written, or a hole in the file; whatever a map calls zero must be zero",
    "detached-header": "a key of info that qemu-img has from 9.0 on",
    "compressed clusters packed into others": "qemu-io goes on packing into a host cluster that was "
                                              "freed and given to somebody else, over his data; so "
                                              "one compressed write a process there",
    "refused reverts": "with narrow refcounts qemu-img leaves the disk with another length, and "
                       "leaks; the image is put back",
    "refused snapshots": "with narrow refcounts it depends on how compressed clusters were packed; "
                         "qemu-img leaks what it counted up before, bgfs does not; and its own "
                         "check -r leaks took every snapshot from an image in that state",
    "refcount widths": "for some images qemu-img amend never ends; bgfs takes its turn then",
    "compressed over data": "qemu-io refuses to compress a cluster that is there, bgfs replaces it; "
                            "discarded before here",
}

LIBC = ctypes.CDLL(None, use_errno=True)
FALLOC_FL_ZERO_RANGE, FALLOC_FL_KEEP_SIZE = 0x10, 0x1

PROPERTIES = {
    "version": ["2", "3"],
    "cluster": [512, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 2048 * KIB],
    "refcount_bits": [1, 2, 4, 8, 16, 32, 64],
    "extended": [False, True],
    "compression": ["none", "zlib", "zstd"],
    "lazy": [False, True],
    "encryption": ["none", "luks", "aes"],
    "data_file": ["none", "plain", "raw"],
    "backing": ["none", "raw shorter", "qcow2 shorter", "qcow2 longer"],
}


def is_possible(s):
    if s["version"] == "2" and (s["refcount_bits"] != 16 or s["extended"] or s["lazy"]
                                or s["compression"] == "zstd" or s["data_file"] != "none"):
        return False
    if s["extended"] and s["cluster"] < 16 * KIB:
        return False
    if s["compression"] != "none" and (s["encryption"] != "none" or s["data_file"] != "none"):
        return False
    if s["data_file"] == "raw" and (s["backing"] != "none" or s["encryption"] != "none"):
        return False
    # The peer cannot create these together, or opens them with a warning.
    return not (s["encryption"] == "aes" and s["data_file"] != "none")


def pairs_of(s):
    return set(itertools.combinations(sorted(s.items()), 2))


def shapes(count):
    """The shape of each seed: of some that are drawn, the one with the most that is new."""
    rng = random.Random(0)
    seen = set()
    chosen = []
    for _ in range(count):
        drawn = []
        while len(drawn) < 40:
            s = {name: rng.choice(values) for name, values in PROPERTIES.items()}
            if is_possible(s):
                drawn.append(s)
        best = max(drawn, key=lambda s: len(pairs_of(s) - seen))
        seen |= pairs_of(best)
        chosen.append(best)
    return chosen, seen


def possible_pairs():
    """Every pair of values that some shape has."""
    found = set()
    for values in itertools.product(*PROPERTIES.values()):
        s = dict(zip(PROPERTIES, values))
        if is_possible(s):
            found |= pairs_of(s)
    return found


def merged(entries, key):
    """Runs of one kind: (end, kind)."""
    runs = []
    for e in entries:
        if runs and runs[-1][1] == key(e):
            runs.pop()
        runs.append((e["start"] + e["length"], key(e)))
    return runs


def one_compressed_each(commands):
    """DIFFERENCES["compressed clusters packed into others"]"""
    parts = [[]]
    for c in commands:
        if c.startswith("write -q -c") and any(b.startswith("write -q -c") for b in parts[-1]):
            parts.append([])
        parts[-1].append(c)
    return parts


def without_zeroes(entries, content, unit=512):
    """The layer that each unit of the disk is in, None where it reads as zeroes."""
    layers = []
    for e in entries:
        for at in range(e["start"], e["start"] + e["length"], unit):
            part = content[at:min(at + unit, e["start"] + e["length"])]
            is_zero = not any(part)
            if e["zero"] and not is_zero:
                raise AssertionError(f"the map says zero at {at}, where there is data: {e}")
            layers.append(None if is_zero else (e["depth"], e["data"]))
    return layers


class Side:
    """One image, and the programs that work on it in turn."""

    def __init__(self, folder, shape, length):
        self.folder, self.shape = folder, shape
        os.mkdir(folder)
        self.image = os.path.join(folder, "disk.qcow2")
        self.length = length

    def words(self, tool, verb):
        """The program and its options for a verb of qemu-img, or for io."""
        ours = tool == "bgfs"
        secret = SECRET if self.shape["encryption"] != "none" else []
        reference = []
        if ours and verb != "create" and (self.shape["backing"] != "none" or self.shape["data_file"] != "none"):
            reference = [f"--allow-references={self.folder}",
                         f"--allow-raw-references={self.folder}"]
        if verb == "io":
            return [PROGRAM, "io", *reference, *secret] if ours else ["qemu-io", *secret]
        return [PROGRAM if ours else "qemu-img", verb, *reference, *secret]

    def options(self):
        """The image by its options."""
        text = f"driver=qcow2,file.driver=file,file.filename={self.image}"
        if self.shape["encryption"] != "none":
            text += f",encrypt.format={self.shape['encryption']},encrypt.key-secret=sec0"
        return ["--image-opts", text]

    def call(self, tool, verb, *words, **how):
        return run(*self.words(tool, verb), *words, **how)


class Case:
    rounds = 5
    requests = 8

    def __init__(self, seed, shape, folder):
        self.rng = random.Random(seed)
        self.shape = dict(shape)  # amending changes it
        self.base = None  # what both sides stand on: its name, its format, the bytes it shows
        self.cluster = shape["cluster"]
        clusters = self.rng.randrange(4, 16) if self.cluster > 64 * KIB else \
            self.rng.randrange(8, 40)
        self.length = clusters * max(self.cluster, 2 * KIB)
        self.model = bytearray(self.length)
        self.snapshots = {}  # name -> content
        self.bitmaps = []
        self.next_name = 0
        self.log = []
        self.sides = [Side(os.path.join(folder, name), shape, self.length)
                      for name in ("ours", "theirs")]
        for side, tool in zip(self.sides, ("bgfs", "qemu-img")):
            self.create(side, tool)

    # -- making the images

    def create(self, side, tool):
        s = self.shape
        options = [f"compat={'0.10' if s['version'] == '2' else '1.1'}",
                   f"cluster_size={s['cluster']}"]
        if s["version"] == "3":
            options += [f"refcount_bits={s['refcount_bits']}"]
            options += [f"lazy_refcounts={'on' if s['lazy'] else 'off'}"]
            options += [f"extended_l2={'on' if s['extended'] else 'off'}"]
            if s["compression"] == "zstd":
                options += ["compression_type=zstd"]
        if s["data_file"] != "none":
            options += [f"data_file={os.path.join(side.folder, 'data')}"]
            options += [f"data_file_raw={'on' if s['data_file'] == 'raw' else 'off'}"]
        if s["encryption"] == "luks":
            options += ["encrypt.format=luks", "encrypt.key-secret=sec0", "encrypt.iter-time=10"]
        if s["encryption"] == "aes":  # which bgfs reads and writes, but does not make
            options += ["encrypt.format=aes", "encrypt.key-secret=sec0"]
            tool = "qemu-img"
        words = ["-q", "-f", "qcow2", *self.make_backing(side), "-o", ",".join(options), side.image,
                 str(self.length)]
        for _ in range(60):  # the peer measures how fast it is, and fails where that takes no time
            if side.call(tool, "create", *words, status=None).returncode == 0:
                return
        side.call(tool, "create", *words)

    def make_backing(self, side):
        kind = self.shape["backing"]
        if kind == "none":
            return []
        fmt, _, which = kind.partition(" ")
        length = self.length + 12 * KIB if which == "longer" else self.length // 2 // 512 * 512
        content = bytearray(length)
        for i, at in enumerate(range(0, length, 24 * KIB)):
            part = min(9 * KIB, length - at)
            content[at:at + part] = bytes([i % 255 + 1]) * part
        raw = os.path.join(side.folder, "base.raw")
        with open(raw, "wb") as f:
            f.write(content)
        shown = content[:self.length]
        self.model[:len(shown)] = shown
        self.base = (f"base.{fmt}", fmt, bytes(content))
        if fmt == "raw":
            return ["-b", "base.raw", "-F", "raw"]
        base = os.path.join(side.folder, "base.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base)
        os.unlink(raw)
        return ["-b", "base.qcow2", "-F", "qcow2"]

    # -- operations: each is done to both sides and to the model

    def span(self):
        unit = self.rng.choice([512, 512, self.cluster, KIB])
        at = self.rng.randrange(len(self.model)) // unit * unit
        most = self.rng.choice([2 * KIB, 2 * self.cluster, 5 * self.cluster])
        length = max(unit, self.rng.randrange(most) // unit * unit)
        return at, min(length, len(self.model) - at)

    def requests_of_a_round(self):
        commands = []
        for _ in range(self.requests):
            kind = self.rng.randrange(100)
            at, length = self.span()
            if kind < 45:
                pattern = self.rng.randrange(1, 256)
                commands.append(f"write -q -P {pattern} {at} {length}")
                self.model[at:at + length] = bytes([pattern]) * length
            elif kind < 65:
                commands.append(f"write -q -z{' -u' if kind < 55 else ''} {at} {length}")
                self.model[at:at + length] = bytes(length)
            elif kind < 78:
                commands.append(f"discard -q {at} {length}")
                self.discard(at, at + length)
            elif kind < 90 and self.shape["compression"] != "none":
                commands += self.compressed()
            elif kind < 95 and self.may_resize():
                new = self.rng.randrange(1, 2 * self.length // self.cluster + 2) * self.cluster
                commands.append(f"truncate {new}")
                self.model = self.model[:new] + bytes(max(0, new - len(self.model)))
            else:
                commands.append("flush")
        return commands

    def compressed(self):
        at = self.rng.randrange(len(self.model)) // self.cluster * self.cluster
        length = min(self.cluster, len(self.model) - at)
        if self.shape["version"] == "2" and self.shape["backing"] != "none":
            return []  # cannot be discarded before
        pattern = self.rng.randrange(1, 256)
        self.model[at:at + length] = bytes([pattern]) * length
        return [f"discard -q {at} {length}", f"write -q -c -P {pattern} {at} {length}"]

    def may_resize(self):
        if self.shape["version"] == "2" and (self.snapshots or self.shape["backing"] != "none"):
            return False
        return not self.bitmaps or self.shape["version"] == "3"

    def discard(self, begin, end):
        """Whole clusters read as zeroes; version 2 cannot discard over a backing file."""
        if self.shape["version"] == "2" and self.shape["backing"] != "none":
            return
        at_end = end == len(self.model)
        begin = (begin + self.cluster - 1) // self.cluster * self.cluster
        end = end if at_end else end // self.cluster * self.cluster
        if begin < end:
            self.model[begin:end] = bytes(end - begin)

    def do_requests(self, tools):
        commands = self.requests_of_a_round()
        self.log.append(commands)
        for side, tool in zip(self.sides, tools):
            for part in [commands] if tool == "bgfs" else one_compressed_each(commands):
                words = [w for c in part for w in ("-c", c)]
                done = side.call(tool, "io", "-d", "unmap", *words, *side.options())
                text = done.out + done.err
                if "failed" in text or "rror" in text:
                    raise AssertionError(f"{tool}: {text}")

    def serve(self, side, tool):
        if tool != "bgfs":
            return served_image.serve_by_daemon(side.image, side.folder, len(self.model))
        backing = (self.base[1], os.path.join(side.folder, self.base[0])) if self.base else None
        data = os.path.join(side.folder, "data") if self.shape["data_file"] != "none" else None
        return served_image.serve_by_bgfs(side.image, side.folder, backing, data)

    def do_served_requests(self, tools):
        """To the raw file that a mount of ours and qemu-storage-daemon show."""
        requests = []
        for _ in range(self.requests):
            at, length = self.span()
            pattern = self.rng.choice([0, 0, self.rng.randrange(1, 256)])
            requests.append((at, length, pattern))
            self.model[at:at + length] = bytes([pattern]) * length
        self.log.append(["served", requests])
        for side, tool in zip(self.sides, tools):
            with self.serve(side, tool) as path:
                fd = os.open(path, os.O_RDWR)
                try:
                    for at, length, pattern in requests:
                        self.serve_request(fd, at, length, pattern)
                    os.fsync(fd)
                finally:
                    os.close(fd)

    @staticmethod
    def serve_request(fd, at, length, pattern):
        if pattern:
            if os.pwrite(fd, bytes([pattern]) * length, at) != length:
                raise AssertionError(f"a short write at {at}")
            return
        mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
        if LIBC.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length)) != 0:
            raise AssertionError(f"zeroing at {at}: {os.strerror(ctypes.get_errno())}")

    def requests_somehow(self, tools):
        if self.shape["encryption"] == "none" and self.rng.randrange(3) == 0:
            self.do_served_requests(tools)
        else:
            self.do_requests(tools)

    def both(self, tools, verb, *words):
        """The same command on both sides ends alike; whether it succeeded."""
        self.log.append([verb, *words])
        status = []
        for side, tool in zip(self.sides, tools):
            tool = "qemu-img" if tool == "qemu-io" else tool
            done = side.call(tool, verb, *words, *side.options(), status=None)
            status.append((done.returncode, done.err))
        if (status[0][0] == 0) != (status[1][0] == 0):
            raise AssertionError(f"{verb} {' '.join(words)} ends differently: {status}")
        return status[0][0] == 0

    def take_snapshot(self, tools):
        name = f"s{self.next_name}"
        self.next_name += 1
        if self.shape["refcount_bits"] > 4:
            if self.both(tools, "snapshot", "-c", name):
                self.snapshots[name] = bytes(self.model)
            return
        # DIFFERENCES["refused snapshots"]
        self.log.append(["snapshot", "-c", name, "perhaps"])
        done = [side.call(t.replace("io", "img"), "snapshot", "-c", name, *side.options(),
                          status=None).returncode == 0
                for side, t in zip(self.sides, tools)]
        if all(done):
            self.snapshots[name] = bytes(self.model)
            return
        for side, tool, is_taken in zip(self.sides, tools, done):
            if is_taken:
                side.call("qemu-img", "snapshot", "-d", name, *side.options())
            elif tool != "bgfs":
                side.call("bgfs", "check", "-r", "leaks", *side.options())

    def delete_snapshot(self, tools):
        if self.snapshots:
            name = self.rng.choice(sorted(self.snapshots))
            if self.both(tools, "snapshot", "-d", name):
                del self.snapshots[name]

    def revert(self, tools):
        if not self.snapshots or self.bitmaps:
            return
        name = self.rng.choice(sorted(self.snapshots))
        by_peer = [s.image for s, tool in zip(self.sides, tools) if tool != "bgfs"]
        for image in by_peer:
            shutil.copy(image, image + ".before")
        if self.both(tools, "snapshot", "-a", name):
            self.model = bytearray(self.snapshots[name])
            return
        for image in by_peer:  # DIFFERENCES["refused reverts"]
            shutil.copy(image + ".before", image)

    def bitmap(self, tools, name, *words):
        self.log.append(["bitmap", name, *words])
        done = [side.call(t.replace("io", "img"), "bitmap", *words, *side.options(), name,
                          status=None).returncode == 0
                for side, t in zip(self.sides, tools)]
        if done[0] != done[1]:
            raise AssertionError(f"bitmap {name} {words} ends differently: {done}")
        return done[0]

    def add_bitmap(self, tools):
        name = f"b{self.next_name}"
        self.next_name += 1
        granularity = 512 << self.rng.randrange(8)
        if self.bitmap(tools, name, "--add", "-g", str(granularity)):
            self.bitmaps.append(name)

    def change_bitmap(self, tools):
        if self.bitmaps:
            other = self.rng.choice(self.bitmaps)
            self.bitmap(tools, self.rng.choice(self.bitmaps),
                        *self.rng.choice([["--clear"], ["--enable"], ["--disable"],
                                          ["--merge", other], ["--disable", "--clear"]]))

    def remove_bitmap(self, tools):
        if self.bitmaps:
            name = self.rng.choice(self.bitmaps)
            if self.bitmap(tools, name, "--remove"):
                self.bitmaps.remove(name)

    def amend_width(self, tools, option):
        self.log.append(["amend", "-o", option])
        for side, tool in zip(self.sides, tools):
            words = ["-q", "-o", option, *side.options()]
            shutil.copy(side.image, side.image + ".before")
            try:
                side.call(tool.replace("io", "img"), "amend", *words, timeout=10)
            except subprocess.TimeoutExpired:  # DIFFERENCES["refcount widths"]
                shutil.copy(side.image + ".before", side.image)
                side.call("bgfs", "amend", *words)
        self.shape["refcount_bits"] = int(option.split("=")[1])

    def amend(self, tools):
        if self.shape["version"] == "2":
            return
        choices = ["lazy_refcounts=on", "lazy_refcounts=off"]
        if not self.snapshots and self.shape["compression"] == "none":
            choices += [f"refcount_bits={bits}" for bits in (1, 2, 8, 16, 64)]
        if not self.bitmaps:
            choices.append(f"size={len(self.model) + self.cluster}")
        option = self.rng.choice(choices)
        if option.startswith("refcount"):
            self.amend_width(tools, option)
            return
        if self.both(tools, "amend", "-q", "-o", option):
            if option.startswith("size"):
                self.model += bytes(self.cluster)

    def commit(self, tools):
        """What the disk shows stays; the base shows it, too, up to the end of the disk."""
        if not self.base or self.snapshots:  # which would show the base as it is then
            return
        name, fmt, content = self.base
        if self.both(tools, "commit", "-q", *self.rng.choice([[], [], ["-d"]])):
            self.base = (name, fmt, bytes(self.model) + content[len(self.model):])

    def copy(self, tools):
        """Into another image and back, by copies that the host makes."""
        if self.shape["encryption"] != "none" or self.shape["data_file"] != "none":
            return
        self.log.append(["convert -C"])
        for side, tool in zip(self.sides, tools):
            tool = tool.replace("io", "img")
            other = os.path.join(side.folder, "other.qcow2")
            side.call(tool, "convert", "-C", "-O", "qcow2", *side.options(), other)
            found = side.call("qemu-img", "compare", "--image-opts", side.options()[1],
                              f"driver=qcow2,file.filename={other}", status=None)
            if found.returncode != 0:
                raise AssertionError(f"{tool} convert -C: {found.out}{found.err}")
            self.check_file(other)
            os.unlink(other)

    operations = [take_snapshot, take_snapshot, delete_snapshot, revert, add_bitmap, add_bitmap,
                  change_bitmap, change_bitmap, remove_bitmap, amend, amend, commit, commit, copy]

    # -- what must be so

    def check(self):
        for side in self.sides:
            self.check_content(side)
            self.check_base(side)
            self.check_sound(side)
        maps = []
        for side in self.sides:
            by_peer = json.loads(side.call("qemu-img", "map", "--output=json",
                                           *side.options()).out)
            by_us = json.loads(side.call("bgfs", "map", "--output=json", *side.options()).out)
            # Whether data is looked at for holes of the file depends on how much space the file
            # takes at that moment.
            one, other = (merged(m, lambda e: (e["depth"], e["present"], e["data"],
                                               e["zero"] and not e["data"],
                                               e.get("offset", e["start"]) - e["start"]))
                          for m in (by_us, by_peer))
            if one != other:
                raise AssertionError(f"bgfs map differs on {side.image}: "
                                     f"{[p for p in zip(one, other) if p[0] != p[1]][:1]}")
            maps.append(without_zeroes(by_us, self.model))
        if maps[0] != maps[1]:
            at = next(i for i, (a, b) in enumerate(zip(*maps)) if a != b)
            raise AssertionError(f"maps differ at {at * 512}: {maps[0][at]} and {maps[1][at]}")
        infos = [self.info(side) for side in self.sides]
        if infos[0] != infos[1]:
            raise AssertionError(f"info differs: {infos}")
        bits = [qcow2_bitmaps.read(side.image) for side in self.sides]
        if bits[0] != bits[1]:
            raise AssertionError(f"bitmaps differ: {bits}")

    def check_content(self, side):
        raw = os.path.join(side.folder, "raw")
        wanted = [([], bytes(self.model))]
        wanted += [(["-l", f"snapshot.name={name}"], content)
                   for name, content in self.snapshots.items()]
        for tool, (more, content) in itertools.product(("bgfs", "qemu-img"), wanted):
            side.call(tool, "convert", "-O", "raw", *more, *side.options(), raw)
            with open(raw, "rb") as f:
                found = f.read()
            if more and tool == "qemu-img" and len(content) != len(self.model):
                found, content = found[:len(content)], content[:len(found)]
            if found != content:
                at = next((i for i, (a, b) in enumerate(zip(found, content)) if a != b), "length")
                raise AssertionError(f"{tool} {more}: {side.image} differs from the model at {at}")
        os.unlink(raw)

    def check_base(self, side):
        if not self.base:
            return
        name, fmt, content = self.base
        raw = os.path.join(side.folder, "raw")
        run("qemu-img", "convert", "-f", fmt, "-O", "raw", os.path.join(side.folder, name), raw)
        with open(raw, "rb") as f:
            found = f.read()
        os.unlink(raw)
        if found != content:
            raise AssertionError(f"the base of {side.image} is not what was committed")
        if fmt == "qcow2":
            self.check_file(os.path.join(side.folder, name))

    @staticmethod
    def check_file(path):
        run("qemu-img", "check", "-q", "-f", "qcow2", path)
        run(PROGRAM, "check", "-q", "-f", "qcow2", path)

    @staticmethod
    def check_sound(side):
        for tool in ("bgfs", "qemu-img"):
            found = json.loads(side.call(tool, "check", "--output=json", *side.options()).out)
            if any(found.get(k, 0) for k in ("check-errors", "corruptions", "leaks")):
                raise AssertionError(f"{tool} check: {found}")

    @staticmethod
    def info(side):
        found = [json.loads(side.call(tool, "info", "--output=json", *side.options()).out)
                 for tool in ("bgfs", "qemu-img")]
        for f in found:
            f.pop("filename")  # the peer makes one of the options
            data = f.get("format-specific", {}).get("data", {})
            data.get("encrypt", {}).pop("detached-header", None)
        if found[0] != found[1]:
            raise AssertionError(f"bgfs info differs: {found}")
        info = found[0]
        for key in ("actual-size", "full-backing-filename", "dirty-flag"):
            info.pop(key, None)
        info.get("format-specific", {}).get("data", {}).pop("data-file", None)
        info.get("format-specific", {}).get("data", {}).pop("encrypt", None)
        for s in info.get("snapshots", []):
            for key in ("date-sec", "date-nsec", "icount"):
                s.pop(key, None)
        return info

    def run(self):
        self.check()
        for number in range(self.rounds):
            # In every other round each image is changed by the other program.
            tools = ("bgfs", "qemu-io") if number % 2 == 0 else ("qemu-io", "bgfs")
            self.requests_somehow(tools)
            self.rng.choice(self.operations)(self, tools)
            self.requests_somehow(tools)
            self.rng.choice(self.operations)(self, tools)
            self.check()


def run_seed(seed, shape, keep):
    folder = tempfile.mkdtemp(prefix="bgfs-differential-")
    case = None
    try:
        case = Case(seed, shape, os.path.join(folder))
        case.run()
        return None
    except Exception as e:  # noqa: BLE001: whatever it is, the other seeds run
        if keep:
            shutil.copytree(folder, os.path.join(keep, f"seed-{seed}"), dirs_exist_ok=True)
        log = "\n".join(map(str, case.log)) if case else ""
        return f"FAIL seed {seed} {shape}\n{e}\n{log}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SAMPLE)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep")
    a = parser.parse_args()
    chosen, seen = shapes(a.first + a.seeds)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        seeds = range(a.first, a.first + a.seeds)
        for seed, trouble in zip(seeds, pool.map(lambda s: run_seed(s, chosen[s], a.keep), seeds)):
            if seed % 50 == 49:
                print(f"seeds up to {seed} ran, {failed} failed", flush=True)
            if trouble:
                failed += 1
                print(trouble, flush=True)
    every = possible_pairs()
    print(f"{len(seen & every)} of {len(every)} pairs of values came up")
    print(f"{a.seeds - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not a.seeds else 0


if __name__ == "__main__":
    sys.exit(main())
