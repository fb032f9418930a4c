# SPDX-License-Identifier: MIT
"""Command lines: how long ours and qemu-img's take for the same work, by turns, nothing mounted.

Nobody pays for another: what is read is in the page cache, what waits to be written is written
before, and what a command made is looked at and removed without a clock.
"""
import json
import os
import subprocess
import time

from . import fio, images, inputs, machine
from .machine import BGFS, Broken, run
from .stages import Stage

PROGRAMS = (("bgfs", "ours", BGFS), ("qemu-img", "peer", "qemu-img"))
TIMEOUT = 600


class Program:
    """Takes the place of a server in a row."""
    can_write, detail = True, ""

    def __init__(self, name, role, command, directory):
        self.name, self.role, self.command, self.directory = name, role, command, directory

    def run(self, words, status=0):
        """Seconds; what it prints lies in `output`."""
        command = [str(word) for word in (self.command, *words)]
        with open(self.output, "wb") as output:
            begin = time.monotonic()
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
            taken = time.monotonic() - begin
        if done.returncode != status:
            raise Broken(f"{' '.join(command)} ended with {done.returncode} instead of {status}: "
                         f"{done.stderr.decode(errors='replace').strip()}")
        return taken

    @property
    def output(self):
        return self.directory / "output"

    def printed_json(self):
        try:
            return json.loads(self.output.read_bytes())
        except ValueError as why:
            raise Broken(f"it prints no JSON: {why}") from None

    def stop(self):
        """Nothing runs between rounds."""


class CommandLine(Stage):
    """One command line of each program on the same inputs. What it makes lies in its program's
    directory, which is empty before."""

    def __init__(self):
        super().__init__("disk", is_pinned=False)

    def require(self):
        machine.require_commands(*(command for _, _, command in PROGRAMS), "qemu-img", "qemu-io")

    @property
    def inputs(self):
        return inputs.inputs_of(self.settings, self.place)

    def files(self, directory):
        """What it reads."""
        raise NotImplementedError

    def words(self, directory):
        raise NotImplementedError

    def prepare(self, directory):
        """Makes what it changes."""

    def check(self, program):
        """Broken unless the result is right."""
        raise NotImplementedError

    def candidates(self):
        self.files(self.directory)  # they are made now
        for name, role, command in PROGRAMS:
            yield Program(name, role, command, self.place_of(name))

    def start(self, program):
        """Without a clock: who does it wrong takes no part."""
        self.run(program)

    def measure(self, load, program, number):
        return fio.Round(self.run(program), 0, 0.0, 0.0)

    def run(self, program):
        self.prepare(program.directory)
        for path in self.files(program.directory):
            inputs.warm(path)
        os.sync()
        seconds = program.run(self.words(program.directory))
        self.check(program)
        images.remove_tree(program.directory)
        program.directory.mkdir()
        return seconds


class Convert(CommandLine):
    def __init__(self, source, source_format, target_format, *options):
        super().__init__()
        self.source, self.options = source, options
        self.source_format, self.target_format = source_format, target_format

    def files(self, directory):
        found = getattr(self.inputs, self.source)
        return found if isinstance(found, list) else [found]

    def words(self, directory):
        return ["convert", *self.options, "-f", self.source_format, "-O", self.target_format,
                self.files(directory)[0], directory / "target"]

    def check(self, program):
        target = program.directory / "target"
        source = self.files(program.directory)[0]
        require_same(source, self.source_format, target, self.target_format)
        if self.target_format == "qcow2":
            require_sound(target)
        if "-c" in self.options:
            most, taken = os.stat(source).st_size * 2 // 3, os.stat(target).st_size
            if taken > most:
                raise Broken(f"it compresses to {taken} bytes, more than {most}")


class Compare(CommandLine):
    """A raw image with the qcow2 image made from it."""

    def files(self, directory):
        return [self.inputs.half_raw, self.inputs.half_qcow2]

    def words(self, directory):
        return ["compare", "-f", "raw", "-F", "qcow2", *self.files(directory)]

    def start(self, program):
        """Who always says that they are the same is found out."""
        program.run(["compare", "-f", "raw", "-F", "qcow2", self.inputs.half_raw,
                     self.inputs.other_qcow2], status=1)
        super().start(program)

    def check(self, program):
        """Its status is the result."""


class Check(CommandLine):
    def files(self, directory):
        return [self.inputs.metadata]

    def words(self, directory):
        return ["check", "-f", "qcow2", "--output=json", *self.files(directory)]

    def check(self, program):
        found = program.printed_json()
        clusters = inputs.TERABYTE // inputs.CLUSTER
        wanted = {"check-errors": 0, "total-clusters": clusters, "allocated-clusters": clusters}
        wrong = [f"{key} is {found.get(key)} instead of {value}" for key, value in wanted.items()
                 if found.get(key) != value]
        if wrong:
            raise Broken("; ".join(wrong))


class Map(CommandLine):
    def files(self, directory):
        return [self.inputs.fragments]

    def words(self, directory):
        return ["map", "-f", "qcow2", "--output=json", *self.files(directory)]

    def check(self, program):
        path, = self.files(program.directory)
        require_map(program.printed_json(), path)


class Commit(CommandLine):
    """Clusters all over an overlay, into its base."""

    def sources(self):
        return [self.inputs.half_qcow2, self.inputs.overlay]

    def files(self, directory):
        return [directory / path.name for path in self.sources()]

    def prepare(self, directory):
        for source, copy in zip(self.sources(), self.files(directory)):
            images.copy(source, copy)

    def words(self, directory):
        return ["commit", "-f", "qcow2", self.files(directory)[-1]]

    def check(self, program):
        base, overlay = self.files(program.directory)
        for path in (base, overlay):
            require_sound(path)
            require_same(self.inputs.overlay, "qcow2", path, "qcow2")
        extents = json.loads(run("qemu-img", "map", "-f", "qcow2", "--output=json", overlay))
        if any(extent["depth"] == 0 for extent in extents):
            raise Broken("the overlay is not empty")


def require_same(one, one_format, other, other_format):
    """As qemu-img sees it, for whom zeroes behind the end of the other are no difference, but worth
    a warning."""
    said = run("qemu-img", "compare", "-f", one_format, "-F", other_format, one, other,
               timeout=TIMEOUT)
    if "size mismatch" in said:
        raise Broken(f"{other} has another length than {one}")


def require_sound(path):
    run("qemu-img", "check", "-q", "-f", "qcow2", path)


def require_map(extents, path):
    """Fragments of data and of nothing by turns, the data where the map says."""
    if len(extents) != 2 * inputs.FRAGMENTS:
        raise Broken(f"it maps {len(extents)} extents instead of {2 * inputs.FRAGMENTS}")
    with open(path, "rb") as file:
        for index, extent in enumerate(extents):
            is_data = index % 2 == 0
            wanted = (index * inputs.FRAGMENT, inputs.FRAGMENT, is_data, not is_data)
            found = tuple(extent.get(key) for key in ("start", "length", "data", "zero"))
            if found != wanted:
                raise Broken(f"extent {index} is {found} instead of {wanted}")
            if is_data:
                require_fragment(file, extent["offset"], index // 2)


def require_fragment(file, offset, fragment):
    if os.pread(file.fileno(), 8, offset) != inputs.mark_of(fragment):
        raise Broken(f"fragment {fragment} does not lie at {offset:#x}")
