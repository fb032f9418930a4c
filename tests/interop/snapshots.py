# SPDX-License-Identifier: MIT
"""Internal snapshots, ours and the peer's: each lists, reads, applies and deletes what the other
took, and says the same."""
import json
import os
import random

from interop import (PROGRAM, Requests, bgfs, contains, equal, is_sound, qemu_img, qemu_io, run,
                     same_bytes, same_json, same_output)


def make(name="a.qcow2", options="", size="4M"):
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), name, size)


def content(tool, image, snapshot=None):
    words = ["-l", snapshot] if snapshot else []
    run(tool, "convert", "-f", "qcow2", "-O", "raw", *words, image, "content.raw")
    with open("content.raw", "rb") as f:
        data = f.read()
    os.unlink("content.raw")
    return data


def listed(image):
    found = json.loads(qemu_img("info", "--output=json", image).out)
    return [(s["id"], s["name"]) for s in found.get("snapshots", [])]


def case_the_list_and_info_are_the_peers():
    make()
    same_output("snapshot", "-l", "a.qcow2")
    for tool, name in (("qemu-img", "one"), (PROGRAM, "two"), ("qemu-img", "a name with spaces, long"),
                       (PROGRAM, "one")):
        run(tool, "snapshot", "-c", name, "a.qcow2")
    same_output("snapshot", "-l", "a.qcow2")
    same_output("snapshot", "-l", "-U", "a.qcow2")
    same_output("snapshot", "-l", "-q", "a.qcow2")
    same_output("snapshot", "--image-opts", "-l", "driver=qcow2,file.driver=file,file.filename=a.qcow2")
    same_output("info", "a.qcow2")
    same_json("info", "--output=json", "a.qcow2")
    equal(bgfs("snapshot", "a.qcow2").out, bgfs("snapshot", "-l", "a.qcow2").out, "no action")
    equal(bgfs("snapshot", "-l", "-f", "qcow2", "a.qcow2").out, bgfs("snapshot", "a.qcow2").out,
          "with -f")
    open("r.raw", "wb").close()
    os.truncate("r.raw", 65536)
    equal(bgfs("snapshot", "-l", "r.raw").out, "", "snapshots of a raw image")


def case_exit_status_and_messages():
    make()
    bgfs("snapshot", "-c", "s", "a.qcow2")
    for words in (["-a", "none", "a.qcow2"], ["-d", "none", "a.qcow2"], ["-l", "missing.qcow2"],
                  ["-c", "x", "-l", "a.qcow2"], ["-a", "s"], ["-z", "a.qcow2"],
                  ["-U", "-c", "x", "a.qcow2"]):
        equal(bgfs("snapshot", *words, status=None).returncode,
              qemu_img("snapshot", *words, status=None).returncode, " ".join(words))
    contains(bgfs("snapshot", "-d", "none", "a.qcow2", status=1).err,
             "bgfs snapshot: deleting snapshot 'none': there is no snapshot 'none'; there are 's' (id 1)")
    contains(bgfs("snapshot", "-c", "x", "-a", "s", "a.qcow2", status=1).err,
             "only one of -l, -c, -a, -d and --rename can be done at once")
    for words in (["--rename", "s"], ["--to", "t"], ["-d", "s", "--to", "t"]):
        contains(bgfs("snapshot", *words, "a.qcow2", status=1).err, "--rename and --to go together")
    contains(bgfs("snapshot", "-U", "-d", "s", "a.qcow2", status=1).err,
             "-U is for looking at images that somebody else is writing")
    contains(bgfs("snapshot", "-c", "a/b", "a.qcow2", status=1).err, "neither '/' nor control")
    contains(bgfs("snapshot", "-c", "x", status=1).err, "one image is expected")
    open("r.raw", "wb").close()
    contains(bgfs("snapshot", "-f", "raw", "-c", "x", "r.raw", status=1).err,
             "cannot have internal snapshots: driver 'raw' keeps none")
    contains(bgfs("convert", "-l", "s", "-O", "raw", "a.qcow2", "a.qcow2", "o.raw", status=1).err,
             "-l names a snapshot of one source; there are 2")
    equal(qemu_img("convert", "-l", "s", "-O", "raw", "a.qcow2", "a.qcow2", "o.raw",
                   status=None).returncode, 1, "the peer's")
    contains(bgfs("convert", "-l", "nope", "-O", "raw", "a.qcow2", "o.raw", status=1).err,
             "there is no snapshot 'nope'")
    bgfs("snapshot", "-c", "other", "a.qcow2")
    bgfs("snapshot", "--rename", "s", "--to", "renamed", "a.qcow2")
    equal([line.split()[1] for line in qemu_img("snapshot", "-l", "a.qcow2").out.splitlines()[2:]],
          ["renamed", "other"], "the names that the peer sees")
    bgfs("snapshot", "--rename", "snapshot.id=1", "--to", "s", "a.qcow2")
    contains(bgfs("snapshot", "--rename", "none", "--to", "t", "a.qcow2", status=1).err,
             "there is no snapshot 'none'; there are")
    contains(bgfs("snapshot", "--rename", "s", "--to", "other", "a.qcow2", status=1).err,
             "there is already a snapshot 'other' (id 2)")
    contains(bgfs("snapshot", "--rename", "s", "--to", "a/b", "a.qcow2", status=1).err, "neither '/'")
    bgfs("snapshot", "-d", "other", "a.qcow2")
    qemu_img("bitmap", "--add", "a.qcow2", "b")
    for tool in ("qemu-img", PROGRAM):
        run(tool, "snapshot", "-a", "s", "a.qcow2", status=1)
        run(tool, "snapshot", "-c", "t", "a.qcow2")
        run(tool, "snapshot", "-d", "t", "a.qcow2")


def case_ids_and_names_mean_what_they_mean_to_the_peer():
    for tool in ("qemu-img", PROGRAM):
        make()
        contents = {}
        for index, name in enumerate(("one", "1", "one", "2"), 1):
            qemu_io("-f", "qcow2", "-c", f"write -q -P {index} 0 64k", "a.qcow2")
            run(tool, "snapshot", "-c", name, "a.qcow2")
            contents[index] = content("qemu-img", "a.qcow2")
        equal(listed("a.qcow2"), [("1", "one"), ("2", "1"), ("3", "one"), ("4", "2")], "ids")
        for which, index in (("one", 1), ("1", 1), ("2", 2), ("3", 3), ("snapshot.name=2", 4),
                             ("snapshot.id=2", 2), ("snapshot.name=one,snapshot.id=3", 3)):
            equal(content(tool, "a.qcow2", which), contents[index], f"{tool} -l {which}")
        run(tool, "convert", "-l", "snapshot.id=2,snapshot.name=2", "-O", "raw", "a.qcow2", "o.raw",
            status=1)
        run(tool, "snapshot", "-a", "1", "a.qcow2")  # the id comes first
        equal(content("qemu-img", "a.qcow2"), contents[1], "after -a 1")
        run(tool, "snapshot", "-d", "1", "a.qcow2")  # the name does
        equal(listed("a.qcow2"), [("1", "one"), ("3", "one"), ("4", "2")], "after -d 1")
        run(tool, "snapshot", "-d", "one", "a.qcow2")
        equal(listed("a.qcow2"), [("3", "one"), ("4", "2")], "after -d one")
        is_sound("a.qcow2")
    bgfs("snapshot", "-d", "3", "a.qcow2")  # only an id: ours finds it all the same
    bgfs("snapshot", "-a", "snapshot.id=4", "a.qcow2")
    bgfs("snapshot", "-d", "snapshot.name=2,snapshot.id=4", "a.qcow2")
    equal(listed("a.qcow2"), [], "after all")
    is_sound("a.qcow2")


def case_a_snapshot_is_a_node_for_every_command():
    make()
    qemu_io("-f", "qcow2", "-c", "write -q -P 1 0 1M", "-c", "write -q -z 2M 64k", "a.qcow2")
    bgfs("snapshot", "-c", "s", "a.qcow2")
    qemu_img("convert", "-l", "s", "-O", "raw", "a.qcow2", "copy.raw")
    expected = json.loads(qemu_img("map", "--output=json", "a.qcow2").out)
    qemu_io("-f", "qcow2", "-c", "write -q -P 2 0 4M", "a.qcow2")
    options = "driver=internal-snapshot,snapshot-name=s,file.driver=qcow2,file.file.driver=file," \
              "file.file.filename=a.qcow2"
    found = json.loads(bgfs("map", "--output=json", "--image-opts", options).out)
    equal(found, expected, "map")
    bgfs("io", "-r", "--image-opts", "-c", "read -q -P 1 0 1M", "-c", "read -q -P 0 1M 3M", options)
    bgfs("convert", "--image-opts", "-O", "raw", options, "o.raw")
    same_bytes("o.raw", "copy.raw")


def case_snapshots_of_an_overlay():
    make("base.qcow2")
    qemu_io("-f", "qcow2", "-c", "write -q -P 9 0 3M", "base.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2")
    for tool, pattern in (("qemu-img", 1), (PROGRAM, 2)):
        qemu_io("-f", "qcow2", "-c", f"write -q -P {pattern} {pattern}00k 150k", "a.qcow2")
        run(tool, "snapshot", "-c", f"s{pattern}", "a.qcow2")
    qemu_io("-f", "qcow2", "-c", "write -q -z 0 4M", "a.qcow2")
    for name in ("s1", "s2"):
        equal(content(PROGRAM, "a.qcow2", name), content("qemu-img", "a.qcow2", name), name)
    bgfs("snapshot", "-a", "s1", "a.qcow2")
    equal(content("qemu-img", "a.qcow2"), content("qemu-img", "a.qcow2", "s1"), "applied")
    is_sound("a.qcow2")


def case_compressed_clusters_are_counted():
    make("source.qcow2")
    qemu_io("-f", "qcow2", "-c", "write -q -P 7 0 4M", "source.qcow2")
    qemu_img("convert", "-c", "-O", "qcow2", "source.qcow2", "a.qcow2")
    bgfs("snapshot", "-c", "s", "a.qcow2")
    is_sound("a.qcow2")
    bgfs("io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", "a.qcow2")
    is_sound("a.qcow2")
    bgfs("snapshot", "-c", "t", "a.qcow2")
    bgfs("snapshot", "-d", "s", "a.qcow2")
    is_sound("a.qcow2")
    qemu_img("snapshot", "-a", "t", "a.qcow2")
    bgfs("snapshot", "-d", "t", "a.qcow2")
    is_sound("a.qcow2")


class Sequence:
    """Writes, discards, resizes and snapshots, each by either program, against byte arrays."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.is_v2 = seed % 5 == 0
        cluster = self.random.choice((512, 1024, 4096, 16384, 65536))
        options = [f"cluster_size={cluster}"]
        if self.is_v2:
            options.append("compat=0.10")
        else:
            options.append(f"refcount_bits={self.random.choice((4, 8, 16, 16, 32, 64))}")
            if cluster >= 16384 and self.random.random() < 0.5:
                options.append("extended_l2=on")
            if self.random.random() < 0.2:
                options.append("lazy_refcounts=on")
        make(options=",".join(options), size="1M")
        self.requests = Requests(seed, 1 << 20, 512, discards=False)
        self.kept = {}  # by id

    def write(self):
        words = self.requests.commands(self.random.randint(1, 6))
        if self.random.random() < 0.5:
            qemu_io("-f", "qcow2", *words, "a.qcow2")
        else:
            bgfs("io", "-f", "qcow2", *words, "a.qcow2")

    def change(self, *words):
        run(self.random.choice(("qemu-img", PROGRAM)), "snapshot", *words, "a.qcow2")

    def create(self):
        if len(self.kept) > 4:
            return self.remove()
        before = set(self.kept)
        name = f"s{len(listed('a.qcow2'))}-{self.random.randrange(10 ** 6)}"
        self.change("-c", name)
        new = [(i, n) for i, n in listed("a.qcow2") if i not in before]
        equal([n for _, n in new], [name], "new snapshots")
        self.kept[new[0][0]] = (name, bytes(self.requests.model))

    def apply(self):
        if self.kept:
            name, model = self.kept[self.random.choice(sorted(self.kept))]
            self.change("-a", name)
            self.requests.model = bytearray(model)

    def remove(self):
        if self.kept:
            which = self.random.choice(sorted(self.kept))
            self.change("-d", self.kept.pop(which)[0])

    def resize(self):
        if self.is_v2:
            return
        length = self.random.randrange(1, 33) * 65536
        qemu_img("resize", "-q", "--shrink", "-f", "qcow2", "a.qcow2", str(length))
        model = self.requests.model
        self.requests.model = model[:length] + bytes(max(0, length - len(model)))

    def check(self):
        is_sound("a.qcow2")
        for tool in ("qemu-img", PROGRAM):
            equal(content(tool, "a.qcow2") == self.requests.model, True, f"the disk, by {tool}")
        equal(sorted(i for i, _ in listed("a.qcow2")), sorted(self.kept), "ids")
        for which, (name, model) in self.kept.items():
            equal(content(PROGRAM, "a.qcow2", name) == model, True, f"snapshot {which}")
            # The peer reads as much of it as the live disk is long; ours has its own length.
            live = len(self.requests.model)
            equal(content("qemu-img", "a.qcow2", name) == model[:live] + bytes(max(0, live - len(model))),
                  True, f"snapshot {which} by the peer")

    def run(self):
        for _ in range(3):
            for _ in range(6):
                self.random.choice((self.write, self.write, self.create, self.apply, self.remove,
                                    self.resize))()
            self.check()


def case_random_sequences():
    for seed in range(20):
        try:
            Sequence(seed).run()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
