#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random requests, three times: by bgfs, by qemu-io, and on a byte array. All must agree, and
qemu-img check must find nothing in what bgfs leaves behind.

    BGFS=build/release/fuse/bgfs tests/interop/qcow2_random.py [SEEDS]
"""
import os, random, subprocess, sys, tempfile

BGFS = os.environ.get("BGFS", "bgfs")
KIB = 1024


def run(*command, ok=(0,)):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in ok:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


class Shape:
    """What kind of image a seed uses."""

    def __init__(self, rng):
        self.cluster = rng.choice([512, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 64 * KIB, 2048 * KIB])
        self.options = [f"cluster_size={self.cluster}"]
        self.is_v2 = rng.random() < 0.2
        if self.is_v2:
            self.options.append("compat=0.10")
        else:
            self.options.append(f"refcount_bits={rng.choice([1, 2, 4, 8, 16, 16, 32, 64])}")
            if rng.random() < 0.2:
                self.options.append("lazy_refcounts=on")
            if self.cluster >= 16 * KIB and rng.random() < 0.5:
                self.options.append("extended_l2=on")
        self.length = rng.randrange(16, 64) * max(self.cluster // 4, 4 * KIB) // 512 * 512
        self.backing = rng.choice([0, 0, self.length // 2, self.length + 12 * KIB]) // 512 * 512

    def __str__(self):
        return f"{','.join(self.options)} length={self.length} backing={self.backing}"


class Case:
    def __init__(self, seed, folder):
        self.rng = random.Random(seed)
        self.shape = Shape(self.rng)
        self.ours = os.path.join(folder, "ours.qcow2")
        self.theirs = os.path.join(folder, "theirs.qcow2")
        self.folder = folder
        self.model = bytearray(self.shape.length)
        self.create()

    def create(self):
        s = self.shape
        backing = []
        if s.backing:
            base = os.path.join(self.folder, "base.qcow2")
            run("qemu-img", "create", "-q", "-f", "qcow2", base, str(s.backing))
            writes = []
            for at in range(0, s.backing, 24 * KIB):
                length = min(9 * KIB, s.backing - at)
                pattern = at // KIB % 255 + 1
                writes += ["-c", f"write -q -P {pattern} {at} {length}"]
                if at < s.length:
                    self.model[at : at + length] = bytes([pattern]) * len(
                        self.model[at : at + length])
            run("qemu-io", "-f", "qcow2", *writes, base)
            backing = ["-b", "base.qcow2", "-F", "qcow2"]
        options = ",".join(s.options)
        run(BGFS, "create", "-q", "-f", "qcow2", *backing, "-o", options, self.ours, str(s.length))
        run("qemu-img", "create", "-q", "-f", "qcow2", *backing, "-o", options, self.theirs,
            str(s.length))

    def span(self):
        unit = self.rng.choice([512, 512, self.shape.cluster, KIB])
        at = self.rng.randrange(len(self.model)) // unit * unit
        most = self.rng.choice([2 * KIB, 2 * self.shape.cluster, 5 * self.shape.cluster])
        length = max(unit, self.rng.randrange(most) // unit * unit)
        return at, min(length, len(self.model) - at)

    def operations(self, count):
        commands = []
        for _ in range(count):
            kind = self.rng.randrange(100)
            at, length = self.span()
            if kind < 50:
                pattern = self.rng.randrange(1, 256)
                commands.append(f"write -q -P {pattern} {at} {length}")
                self.model[at : at + length] = bytes([pattern]) * length
            elif kind < 70:
                unmap = " -u" if kind < 60 else ""
                commands.append(f"write -q -z{unmap} {at} {length}")
                self.model[at : at + length] = bytes(length)
            elif kind < 85:
                commands.append(f"discard -q {at} {length}")
                self.discard(at, at + length)
            elif kind < 90 and not (self.shape.is_v2 and self.shape.backing):
                # qemu-io cannot grow version 2 over a longer backing file (bgfs writes zeroes).
                # Whole clusters: a partial last cluster may keep old bytes with qemu-io.
                step = max(self.shape.cluster, 512)
                new = self.rng.randrange(1, 2 * self.shape.length // step + 2) * step
                commands.append(f"truncate {new}")
                self.model = self.model[:new] + bytes(max(0, new - len(self.model)))
            else:
                commands.append("flush")
        return commands

    def discard(self, begin, end):
        """Whole clusters read as zeroes; version 2 cannot discard over a backing file."""
        if self.shape.is_v2 and self.shape.backing:
            return
        cluster = self.shape.cluster
        at_end = end == len(self.model)
        begin = (begin + cluster - 1) // cluster * cluster
        end = end if at_end else end // cluster * cluster
        if begin < end:
            self.model[begin:end] = bytes(end - begin)

    def apply(self, tool, image, commands):
        if tool == "bgfs":
            command = [BGFS, "io", "-f", "qcow2", "-d", "unmap"]
            if self.shape.backing:
                command += ["--allow-references=" + self.folder]
        else:
            command = ["qemu-io", "-f", "qcow2", "-d", "unmap"]
        for c in commands:
            command += ["-c", c]
        output = run(*command, image)
        if "failed" in output or "error" in output.lower():
            raise AssertionError(f"{tool}: {output}")

    def content(self, image):
        raw = os.path.join(self.folder, "raw")
        allow = ["--allow-references=" + self.folder] if self.shape.backing else []
        run(BGFS, "convert", "-f", "qcow2", "-O", "raw", *allow, image, raw)
        with open(raw, "rb") as f:
            return f.read()

    def check(self, when):
        run("qemu-img", "check", "-q", "-f", "qcow2", self.ours)
        run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", self.ours, self.theirs)
        for image in (self.ours, self.theirs):
            found = self.content(image)
            if found != self.model:
                at = next(i for i, (a, b) in enumerate(zip(found, self.model)) if a != b)
                raise AssertionError(f"{when}: {image} differs from the model at {at:#x}")

    def run(self):
        for round_ in range(3):
            commands = self.operations(12)
            # In the middle round each image is written by the other program.
            tools = ("bgfs", "qemu-io") if round_ != 1 else ("qemu-io", "bgfs")
            self.apply(tools[0], self.ours, commands)
            self.apply(tools[1], self.theirs, commands)
            self.check(f"round {round_}: {commands}")


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    passed = failed = 0
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                case = Case(seed, folder)
                case.run()
                passed += 1
            except AssertionError as e:
                failed += 1
                print(f"FAIL seed {seed}: {case.shape if 'case' in locals() else ''}\n{e}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
