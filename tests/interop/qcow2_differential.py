#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same operations through bgfs and through qemu-img and qemu-io: each seed has a shape of image
and a sequence of operations; each side works on an image of its own, and after every round both
images are read by both programs and compared.

    BGFS=build/release/fuse/bgfs tests/interop/qcow2_differential.py [--seed N] [--seeds N] [--jobs N]
                                                [--seconds N]

Prints which values and pairs of values of the shapes came up, and "N passed, M failed, K skipped".
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

BGFS = os.path.abspath(os.environ.get("BGFS", "build/release/fuse/bgfs"))
KIB = 1024
SECRET = "secret,id=sec0,data=correct horse battery staple"
SECOND = "secret,id=sec1,data=another passphrase"
FLAKY = "Unable to get accurate CPU usage"  # the peer of Debian 12, when it measures its speed

DIMENSIONS = {
    "version": (2, 3),
    "cluster": tuple(512 << n for n in range(13)),
    "refcount": (1, 2, 4, 8, 16, 32, 64),
    "extended": (False, True),
    "lazy": (False, True),
    "compression": ("zlib", "zstd"),
    "encryption": ("none", "luks", "aes"),
    "data_file": ("none", "plain", "raw"),
    "backing": ("none", "raw shorter", "raw longer", "qcow2 shorter", "qcow2 longer"),
    "start": ("empty", "compressed"),
    "origin": ("each its own", "equal bytes"),
}


# The deliberate differences, each with what is compared instead.
RULES = {
    "own-allocation": "where clusters lie, and what a zero write or a discard leaves of them, is each "
                      "program's own affair: maps are compared between the two programs on one "
                      "image, and what they call zero against the model",
    "holes-below": "whether data that are a hole of the file count as zeroes is guessed by both, in "
                   "other ways: of ranges that hold data, `zero` is not compared (and never wrong)",
    "past-the-file": "the file may end inside its last cluster: what is missing of it is zeroes to us "
                     "and data to the peer",
    "snapshot-icount": "qemu-img records an instruction count of 0 with snapshots, we record none",
    "snapshot-length": "the peer reads a snapshot as long as the disk is now, we as long as it was: "
                       "what it reads is compared as far as both go",
    "newer-members": "we print `encrypted` and `detached-header` as later versions of the peer do",
    "partial-tail": "a discard or a shrink that ends inside the last cluster: the peer may keep the "
                    "old bytes there, we clear them; lengths and such discards are whole clusters",
    "version-2-growth": "the peer refuses to grow version 2 over a longer backing file, we write "
                        "zeroes: not drawn",
    "no-aes-creation": "the legacy encryption is not made by us, only read and written: both sides "
                       "start from the peer's bytes",
    "own-keys": "two images made separately have other keys, salts and iteration counts: these "
                "members of info are left out across the two images",
    "key-needed": "the peer checks and shows an encrypted image without its key, as we do; both "
                  "are given it all the same",
}


def is_valid(s):
    v3_only = s["refcount"] != 16 or s["extended"] or s["lazy"] or s["compression"] != "zlib" or \
        s["data_file"] != "none"
    return not (
        (s["version"] == 2 and v3_only)
        or (s["extended"] and s["cluster"] < 16 * KIB)
        or (s["data_file"] == "raw" and (s["backing"] != "none" or s["encryption"] != "none"))
        or (s["data_file"] != "none" and s["start"] == "compressed")
        or (s["encryption"] != "none" and s["start"] == "compressed")
        or (s["backing"] != "none" and s["start"] == "compressed")
        or (s["encryption"] == "aes" and s["origin"] == "each its own"))  # no-aes-creation


def pairs_of(s):
    return set(itertools.combinations(sorted(s.items()), 2))


def draw(rng, fixed=()):
    """A valid shape with these values, or None if there hardly is one."""
    for _ in range(3000):
        s = {name: rng.choice(values) for name, values in DIMENSIONS.items()}
        s.update(fixed)
        if is_valid(s):
            return s
    return None


def possible_pairs():
    rng = random.Random(0)
    found = set()
    values = [(n, v) for n, all_ in DIMENSIONS.items() for v in all_]
    for a, b in itertools.combinations(values, 2):
        if a[0] != b[0] and tuple(sorted((a, b))) not in found:
            s = draw(rng, (a, b))
            if s:
                found |= pairs_of(s)
    return found


def shapes(first, count):
    """Those of the seeds: of a few random ones, the one with most pairs that have not come up."""
    rng = random.Random(1)
    missing = possible_pairs()
    total = len(missing)
    chosen = []
    for _ in range(first + count):
        some = [draw(rng) for _ in range(20)]
        if missing:
            some.append(draw(rng, rng.choice(sorted(missing, key=str))))
        best = max(some, key=lambda s: len(pairs_of(s) & missing))
        missing -= pairs_of(best)
        chosen.append(best)
    return chosen[first:], total


def run(*command, cwd, status=0):
    for _ in range(40):
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
        if FLAKY not in done.stderr:
            break
    if status is not None and done.returncode != status:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n"
                             f"{done.stdout}{done.stderr}")
    return done


class Case:
    def __init__(self, seed, shape, folder):
        self.rng = random.Random(seed)
        self.shape = shape
        self.ours, self.theirs = os.path.join(folder, "ours"), os.path.join(folder, "theirs")
        self.folder = folder
        clusters = self.rng.randrange(3, 7) if shape["cluster"] > 256 * KIB else \
            self.rng.randrange(12, 48)
        self.length = max(clusters * shape["cluster"], 16 * KIB)
        self.model = bytearray(self.length)
        self.snapshots = {}
        self.has_second_key = False
        self.secrets = ["--object", SECRET, "--object", SECOND] \
            if shape["encryption"] != "none" else []
        self.log = []

    # --- making

    def options(self):
        s = self.shape
        words = [f"cluster_size={s['cluster']}",
                 f"compat={'0.10' if s['version'] == 2 else '1.1'}"]
        if s["version"] == 3:
            words.append(f"refcount_bits={s['refcount']}")
            words += ["extended_l2=on"] * s["extended"] + ["lazy_refcounts=on"] * s["lazy"]
            words += ["compression_type=zstd"] * (s["compression"] == "zstd")
        if s["encryption"] != "none":
            words += [f"encrypt.format={s['encryption']}", "encrypt.key-secret=sec0"]
        if s["encryption"] == "luks":
            words += ["encrypt.iter-time=10", "encrypt.cipher-alg=aes-128"]
        if s["data_file"] != "none":
            words += ["data_file=i.data"] + ["data_file_raw=on"] * (s["data_file"] == "raw")
        return ",".join(words)

    def make_base(self):
        kind = self.shape["backing"]
        if kind == "none":
            return []
        format_, how = kind.split()
        length = self.length // 2 // 512 * 512 if how == "shorter" else self.length + 24 * KIB
        content = bytearray(length)
        words = []
        for begin in range(0, length, 24 * KIB):
            size = min(9 * KIB, length - begin)
            pattern = begin // KIB % 255 + 1
            content[begin:begin + size] = bytes([pattern]) * size
            words += ["-c", f"write -q -P {pattern} {begin} {size}"]
        run("qemu-img", "create", "-q", "-f", format_, "base", str(length), cwd=self.theirs)
        run("qemu-io", "-f", format_, *words, "base", cwd=self.theirs)
        shutil.copy(os.path.join(self.theirs, "base"), self.ours)
        shown = content[:self.length]
        self.model[:len(shown)] = shown
        return ["-b", "base", "-F", format_]

    def make(self):
        os.makedirs(self.ours)
        os.makedirs(self.theirs)
        backing = self.make_base()
        if self.shape["start"] == "compressed":
            for i in range(0, self.length, 3 * 512):
                self.model[i:i + 1024] = bytes([i // 512 % 255 + 1]) * len(self.model[i:i + 1024])
            with open(os.path.join(self.theirs, "source"), "wb") as f:
                f.write(self.model)
            shutil.copy(os.path.join(self.theirs, "source"), self.ours)
            run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", self.options(),
                "source", "i.qcow2", cwd=self.theirs)
        else:
            run("qemu-img", "create", "-q", *self.secrets[:2], "-f", "qcow2", *backing, "-o",
                self.options(), "i.qcow2", str(self.length), cwd=self.theirs)
        if self.shape["origin"] == "equal bytes" or self.shape["start"] == "compressed":
            for name in os.listdir(self.theirs):
                shutil.copy(os.path.join(self.theirs, name), self.ours)
        else:
            run(BGFS, "create", "-q", *self.secrets[:2], "-f", "qcow2", *backing, "-o",
                self.options(), "i.qcow2", str(self.length), cwd=self.ours)

    # --- the two programs

    def image(self, *more):
        words = ["driver=qcow2", "file.filename=i.qcow2", *more]
        if self.secrets:
            words.append("encrypt.key-secret=sec0")
        return ",".join(words)

    def tool(self, is_ours, verb, *words, cwd, image=None, status=0):
        """A verb on the image in `cwd`: by us, or by the peer."""
        where = [*self.secrets, "--image-opts"]
        if is_ours:
            where += ["--allow-references=.", "--allow-raw-references=."]
        head = [BGFS, verb] if is_ours else ["qemu-io"] if verb == "io" else ["qemu-img", verb]
        tail = [image] if image else []
        return run(*head, *where, *words, self.image(*(["discard=unmap"] if verb == "io" else [])),
                   *tail, cwd=cwd, status=status)

    def both(self, verb, *words):
        self.log.append(f"{verb} {' '.join(words)}")
        self.tool(True, verb, *words, cwd=self.ours)
        self.tool(False, verb, *words, cwd=self.theirs)

    # --- operations

    def span(self):
        cluster = self.shape["cluster"]
        unit = self.rng.choice([512, 512, cluster, KIB])
        begin = self.rng.randrange(len(self.model)) // unit * unit
        most = self.rng.choice([2 * KIB, 2 * cluster, 5 * cluster])
        size = max(unit, self.rng.randrange(1, most + 1) // unit * unit)
        return begin, min(size, len(self.model) - begin)

    def hides_nothing(self):
        return self.shape["version"] == 2 and self.shape["backing"] != "none"

    def may_resize(self):
        return not self.hides_nothing() and not (self.shape["version"] == 2 and self.snapshots)

    def command(self):
        kind = self.rng.randrange(100)
        begin, size = self.span()
        if kind < 50:
            pattern = self.rng.randrange(1, 256)
            self.model[begin:begin + size] = bytes([pattern]) * size
            return f"write -q -P {pattern} {begin} {size}"
        if kind < 70:
            self.model[begin:begin + size] = bytes(size)
            return f"write -q -z{' -u' if kind < 60 else ''} {begin} {size}"
        if kind < 84 and not self.hides_nothing():
            cluster = self.shape["cluster"]
            begin = begin // cluster * cluster  # partial-tail
            size = min(-(-size // cluster) * cluster, len(self.model) - begin)
            self.model[begin:begin + size] = bytes(size)
            return f"discard -q {begin} {size}"
        if kind < 90 and self.may_resize():
            cluster = self.shape["cluster"]
            count = self.rng.randrange(1, max(2, 2 * self.length // cluster))
            new = max(count * cluster, 4 * KIB)
            self.model = self.model[:new] + bytes(max(0, new - len(self.model)))
            return f"truncate {new}"
        return "flush"

    def requests(self, count=10):
        words = []
        for _ in range(count):
            words += ["-c", self.command()]
        self.both("io", *words)

    def snapshots_max(self):
        s = self.shape
        if s["data_file"] != "none" or (s["start"] == "compressed" and s["refcount"] <= 4):
            return 0  # compressed clusters share host clusters: the counts would overflow
        return {1: 0, 2: 1}.get(s["refcount"], 3)

    def change_snapshots(self):
        kind = self.rng.randrange(4)
        if self.snapshots and kind == 0:
            name = self.rng.choice(sorted(self.snapshots))
            self.both("snapshot", "-d", name)
            del self.snapshots[name]
        elif self.snapshots and kind == 1:
            name = self.rng.choice(sorted(self.snapshots))
            self.both("snapshot", "-a", name)
            self.model = bytearray(self.snapshots[name])
        elif len(self.snapshots) < self.snapshots_max():
            name = f"s{len(self.log)}"
            self.both("snapshot", "-c", name)
            self.snapshots[name] = bytes(self.model)

    def amend(self):
        if self.shape["encryption"] != "luks":
            return
        self.both("amend", "-o", "encrypt.state=inactive,encrypt.old-secret=sec1"
                  if self.has_second_key else
                  "encrypt.state=active,encrypt.new-secret=sec1,encrypt.iter-time=10")
        self.has_second_key = not self.has_second_key

    # --- comparing

    def content(self, is_ours, cwd, expected, *words):
        self.tool(is_ours, "convert", "-O", "raw", *words, cwd=cwd, image="raw")
        with open(os.path.join(cwd, "raw"), "rb") as f:
            found = f.read()
        if found != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b),
                      min(len(found), len(expected)))
            raise AssertionError(f"{'bgfs' if is_ours else 'the peer'} reads {cwd} {words} "
                                 f"otherwise at {at:#x}: {len(found)} of {len(expected)} bytes")

    def snapshot_content(self, is_ours, cwd, name, disk):
        if not is_ours and len(disk) != len(self.model):  # snapshot-length
            self.tool(False, "convert", "-O", "raw", "-l", name, cwd=cwd, image="raw")
            with open(os.path.join(cwd, "raw"), "rb") as f:
                found = f.read()
            common = min(len(found), len(disk))
            if found[:common] != disk[:common]:
                raise AssertionError(f"the peer reads snapshot {name} of {cwd} otherwise")
            return
        self.content(is_ours, cwd, disk, "-l", name)

    def json_of(self, is_ours, verb, cwd):
        done = self.tool(is_ours, verb, "--output=json", cwd=cwd, status=None)
        if done.returncode != 0:
            raise AssertionError(f"{verb} of {cwd}: status {done.returncode}\n{done.stdout}"
                                 f"{done.stderr}")
        return json.loads(done.stdout)

    def same(self, what, a, b):
        if a != b:
            raise AssertionError(f"{what} differs:\n{json.dumps(a)[:1500]}\n{json.dumps(b)[:1500]}")

    def comparable_map(self, extents, cwd):
        holder = "i.qcow2" if self.shape["data_file"] == "none" else "i.data"
        file_end = os.path.getsize(os.path.join(cwd, holder))
        merged = []
        for e in extents:
            if e["zero"] and any(self.model[e["start"]:e["start"] + e["length"]]):
                raise AssertionError(f"the map calls {e} zero, which it is not")
            if e["depth"] == 0 and e["present"] and e.get("offset", 0) >= file_end:
                e = dict(e, data=True)  # past-the-file
            e = dict(e, zero=e["zero"] and not e["data"])  # holes-below
            last = merged[-1] if merged else None
            if last and all(last[k] == e[k] for k in ("depth", "present", "zero", "data")) and \
                    last.get("offset", -1) + last["length"] == e.get("offset", -1 + last["length"]):
                last["length"] += e["length"]
            else:
                merged.append(e)
        return merged

    @staticmethod
    def comparable_info(found, with_keys):
        kept = {k: v for k, v in found.items()
                if k not in ("filename", "actual-size", "full-backing-filename", "children")}
        for s in kept.get("snapshots", []):
            for k in ("date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec"):
                s.pop(k, None)
            if not with_keys:
                s.pop("icount", None)  # snapshot-icount
        kept.pop("encrypted", None)  # newer-members
        data = kept.get("format-specific", {}).get("data", {})
        data.get("encrypt", {}).pop("detached-header", None)
        if not with_keys and "encrypt" in data:  # own-keys
            slots = data["encrypt"].get("slots", [])
            data["encrypt"] = {"format": data["encrypt"].get("format"),
                               "active": [s["active"] for s in slots]}
        return kept

    def compare(self):
        maps, infos = {}, {}
        for cwd in (self.ours, self.theirs):
            for is_ours in (True, False):
                self.content(is_ours, cwd, self.model)
                for name, disk in self.snapshots.items():
                    self.snapshot_content(is_ours, cwd, name, disk)
                checked = self.json_of(is_ours, "check", cwd)
                for bad in ("corruptions", "leaks", "check-errors"):
                    if checked.get(bad, 0):
                        raise AssertionError(f"check of {cwd}: {json.dumps(checked)}")
                maps[is_ours, cwd] = self.json_of(is_ours, "map", cwd)
                infos[is_ours, cwd] = self.json_of(is_ours, "info", cwd)
            self.same(f"map of {cwd}", *(self.comparable_map(maps[is_ours, cwd], cwd)
                                         for is_ours in (True, False)))
            self.same(f"info of {cwd}", *(self.comparable_info(infos[is_ours, cwd], True)
                                          for is_ours in (True, False)))
        self.same("info of the two images", *(self.comparable_info(infos[True, cwd], False)
                                              for cwd in (self.ours, self.theirs)))

    def run(self):
        self.make()
        self.compare()
        for round_ in range(3):
            if round_:
                self.change_snapshots()
            if round_ == 1:
                self.amend()
            self.requests()
            if round_ == 1:  # each image is also written by the other program
                self.ours, self.theirs = self.theirs, self.ours
            self.compare()


def run_seed(seed, shape, end):
    if time.monotonic() > end:
        return None
    with tempfile.TemporaryDirectory(prefix="bgfs-differential-", dir=scratch()) as folder:
        case = Case(seed, shape, folder)
        try:
            case.run()
            return ""
        except AssertionError as e:
            steps = "\n".join(case.log)
            return f"FAIL seed {seed}: {shape}\n{e}\noperations:\n{steps}"


def scratch():
    return os.environ.get("TMPDIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=float("inf"),
                        help="seeds that have not begun by then are skipped")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    all_shapes, pairs = shapes(chosen.seed, chosen.seeds)
    failed = skipped = 0
    ran = []
    end = time.monotonic() + chosen.seconds
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        seeds = range(chosen.seed, chosen.seed + chosen.seeds)
        for shape, why in zip(all_shapes, pool.map(run_seed, seeds, all_shapes,
                                                   itertools.repeat(end))):
            if why is None:
                skipped += 1
                continue
            ran.append(shape)
            if why:
                failed += 1
                print(why, flush=True)
    seen = set().union(*(pairs_of(s) for s in ran))
    values = {v for s in ran for v in s.items()}
    print(f"{len(values)} of {sum(map(len, DIMENSIONS.values()))} values, {len(seen)} of {pairs} "
          f"possible pairs of values")
    print(f"{len(ran) - failed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
