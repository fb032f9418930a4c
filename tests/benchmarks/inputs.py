# SPDX-License-Identifier: MIT
"""What the command lines work on: images made once in a run, by qemu-img and qemu-io, when the
first row needs them."""
import functools
import os
import random

from . import images, machine
from .machine import GiB, KiB, MiB, run

CLUSTER = 64 * KiB
# Of every four MiB two are data, one is written zeroes, one is a hole.
HALF_LENGTH = 512 * MiB
TEXT_LENGTH = 128 * MiB
OVERLAYS, CLUSTERS_OF_OVERLAY = 8, 256
CLUSTERS_TO_COMMIT = 1024
TERABYTE = 1024 * GiB
CLUSTERS_OF_SPARSE = 256
# Data and hole by turns, each one cluster of 4 KiB.
FRAGMENTS, FRAGMENT = 50000, 4 * KiB
# What all of them take, with what one row writes.
SPACE = 2 * GiB


class Inputs:
    """Paths by name."""

    def __init__(self, directory):
        self.directory = directory
        machine.require_space(directory, SPACE)

    @functools.cached_property
    def half_raw(self):
        path = self.directory / "half.raw"
        with open(path, "wb") as file:
            for index in range(HALF_LENGTH // MiB):
                if index % 4 < 3:
                    file.seek(index * MiB)
                    file.write(images.chunk(index) if index % 4 < 2 else bytes(MiB))
            file.truncate(HALF_LENGTH)
        return path

    @functools.cached_property
    def half_qcow2(self):
        path = self.directory / "half.qcow2"
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.half_raw, path)
        return path

    @functools.cached_property
    def other_qcow2(self):
        """Not what half_raw is: its last sector differs."""
        path = self.directory / "other.qcow2"
        images.create_qcow2(path, HALF_LENGTH, self.half_qcow2, "qcow2")
        images.write_patterns(path, [(HALF_LENGTH - 512, 512, 1)])
        return path

    @functools.cached_property
    def text_raw(self):
        """Compresses to about half. Clusters are compressed one by one, so that a MiB with another
        beginning is as good as another MiB."""
        path = self.directory / "text.raw"
        texts = [text(number) for number in range(8)]
        with open(path, "wb") as file:
            for index in range(TEXT_LENGTH // MiB):
                file.write(b"%016d" % index + texts[index % len(texts)][16:])
        return path

    @functools.cached_property
    def text_qcow2(self):
        path = self.directory / "text.qcow2"
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", self.text_raw, path)
        return path

    @functools.cached_property
    def chain(self):
        """The top, and all below it."""
        paths = [self.half_qcow2]
        for number in range(OVERLAYS):
            path = self.directory / f"overlay-{number}.qcow2"
            images.create_qcow2(path, HALF_LENGTH, paths[0], "qcow2")
            scatter(path, HALF_LENGTH, CLUSTERS_OF_OVERLAY, number)
            paths.insert(0, path)
        return paths

    @functools.cached_property
    def overlay(self):
        """To be committed; names its base without a directory, so that both can be copied."""
        path = self.directory / "overlay.qcow2"
        images.create_qcow2(path, HALF_LENGTH, self.half_qcow2.name, "qcow2")
        scatter(path, HALF_LENGTH, CLUSTERS_TO_COMMIT, OVERLAYS)
        return path

    @functools.cached_property
    def sparse(self):
        path = self.directory / "sparse.qcow2"
        images.create_qcow2(path, TERABYTE)
        scatter(path, TERABYTE, CLUSTERS_OF_SPARSE, OVERLAYS + 1)
        return path

    @functools.cached_property
    def metadata(self):
        """Every cluster of 1 TiB allocated, none written."""
        path = self.directory / "metadata.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path,
            TERABYTE)
        return path

    @functools.cached_property
    def fragments(self):
        """A qcow2 image; each fragment of data begins with its number."""
        raw, path = self.directory / "fragments.raw", self.directory / "fragments.qcow2"
        filling = images.chunk(0)[:FRAGMENT - 8]
        with open(raw, "wb") as file:
            for index in range(FRAGMENTS):
                file.seek(2 * index * FRAGMENT)
                file.write(mark_of(index) + filling)
            file.truncate(2 * FRAGMENTS * FRAGMENT)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", f"cluster_size={FRAGMENT}",
            "-S", FRAGMENT, raw, path)
        raw.unlink()
        return path


def inputs_of(settings, place):
    if "inputs" not in settings.kept:
        directory = settings.work(place) / "inputs"
        directory.mkdir(exist_ok=True)
        settings.kept["inputs"] = Inputs(directory)
    return settings.kept["inputs"]


def mark_of(fragment):
    """Its first bytes."""
    return fragment.to_bytes(8, "big")


def text(seed):
    """One MiB of words."""
    source = random.Random(seed)
    words = [source.randbytes(source.randrange(2, 8)).hex().encode() for _ in range(4096)]
    return b" ".join(source.choices(words, k=MiB // 4))[:MiB]


def scatter(path, length, count, seed):
    """Writes clusters all over an image."""
    source = random.Random(seed)
    clusters = source.sample(range(length // CLUSTER), count)
    images.write_patterns(path, [(cluster * CLUSTER, CLUSTER, source.randrange(1, 256))
                                 for cluster in clusters])


def warm(path):
    """Reads what a file holds, past its holes, so that it comes from the page cache afterwards."""
    with open(path, "rb", buffering=0) as file:
        at, length = 0, os.fstat(file.fileno()).st_size
        while at < length:
            try:
                at = file.seek(at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole is left
                return
            end = file.seek(at, os.SEEK_HOLE)
            file.seek(at)
            while at < end:
                at += len(file.read(min(end - at, MiB)))
