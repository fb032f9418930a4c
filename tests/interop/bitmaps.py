# SPDX-License-Identifier: MIT
"""Persistent bitmaps, ours and the peer's: each reads, changes and stores what the other has, and
says the same of it."""
import json
import os
import random
import shutil
import subprocess
import time

from interop import (PROGRAM, bgfs, contains, equal, is_sound, need, qemu_img, qemu_io, run, same_json,
                     same_output)


def make(name="a.qcow2", options="", size="4M"):
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), name, size)


def listed(image):
    found = json.loads(qemu_img("info", "--output=json", image).out)
    return {b["name"]: (sorted(b["flags"]), b["granularity"])
            for b in found["format-specific"]["data"].get("bitmaps", [])}


def dirty(image, name):
    """The runs that the peer's server says are dirty, of a copy: it opens images for writing."""
    need("qemu-nbd")
    shutil.copy(image, "copy.qcow2")
    socket = os.path.abspath("s")
    server = subprocess.Popen(["qemu-nbd", "-f", "qcow2", "-B", name, "-k", socket, "copy.qcow2"],
                              stderr=subprocess.PIPE)
    try:
        for _ in range(1000):
            if os.path.exists(socket) or server.poll() is not None:
                break
            time.sleep(0.01)
        if server.poll() is not None:
            raise AssertionError(f"qemu-nbd: {server.stderr.read()}")
        extents = json.loads(qemu_img(
            "map", "--output=json", "--image-opts",
            f"driver=nbd,server.type=unix,server.path={socket},"
            f"x-dirty-bitmap=qemu:dirty-bitmap:{name}").out)
    finally:
        try:
            server.wait(timeout=10)  # it serves one client
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stderr.close()
        if os.path.exists(socket):
            os.unlink(socket)
    runs = []
    for e in extents:
        if e["data"]:
            continue  # the peer shows the bit for dirty as the one for a hole
        if runs and runs[-1][1] == e["start"]:
            runs[-1] = (runs[-1][0], e["start"] + e["length"])
        else:
            runs.append((e["start"], e["start"] + e["length"]))
    return runs


def write(tool, image, *commands):
    words = [w for c in commands for w in ("-c", c)]
    if tool == "qemu-img":
        qemu_io("-f", "qcow2", *words, image)
    else:
        bgfs("io", "-f", "qcow2", *words, image)


def case_info_lists_them_as_the_peer_does():
    make()
    same_output("info", "a.qcow2")
    bgfs("bitmap", "--add", "a.qcow2", "one")
    qemu_img("bitmap", "--add", "-g", "512", "a.qcow2", "two")
    bgfs("bitmap", "--add", "--disable", "-g", "2M", "a.qcow2", "three with spaces")
    same_output("info", "a.qcow2")
    same_json("info", "--output=json", "a.qcow2")
    equal(listed("a.qcow2"), {"one": (["auto"], 65536), "two": (["auto"], 512),
                              "three with spaces": ([], 2 << 20)}, "bitmaps")
    is_sound("a.qcow2")
    same_output("check", "a.qcow2")
    bgfs("bitmap", "--remove-all", "a.qcow2")
    equal(listed("a.qcow2"), {}, "after --remove-all")
    is_sound("a.qcow2")
    same_output("info", "a.qcow2")
    for size, granularity in (("512", 4096), ("8K", 8192), ("2M", 65536)):
        for tool in ("qemu-img", PROGRAM):
            make("g.qcow2", f"cluster_size={size}")
            run(tool, "bitmap", "--add", "g.qcow2", "b", status=None)
            if listed("g.qcow2"):
                equal(listed("g.qcow2")["b"][1], granularity, f"{tool}: granularity over {size}")


def case_each_reads_what_the_other_has_recorded():
    for first, second in (("qemu-img", PROGRAM), (PROGRAM, "qemu-img")):
        make("a.qcow2", "cluster_size=4k")
        run(first, "bitmap", "--add", "-g", "4k", "a.qcow2", "b")
        write(first, "a.qcow2", "write 0 4k", "write 1M 100k")
        equal(dirty("a.qcow2", "b"), [(0, 4096), (1 << 20, (1 << 20) + 102400)], "of the first")
        write(second, "a.qcow2", "write 2M 1", "discard 3M 64k", "write -z 8k 4k")
        expected = [(0, 4096), (8192, 12288), (1 << 20, (1 << 20) + 102400),
                    (2 << 20, (2 << 20) + 4096), (3 << 20, (3 << 20) + 65536)]
        equal(dirty("a.qcow2", "b"), expected, f"of both, {second} second")
        run(second, "bitmap", "--add", "--disable", "--merge", "b", "-g", "64k", "a.qcow2", "all")
        run(second, "bitmap", "--clear", "a.qcow2", "b")
        equal(dirty("a.qcow2", "b"), [], "cleared")
        equal(dirty("a.qcow2", "all"),
              [(0, 65536), (1 << 20, (1 << 20) + 131072), (2 << 20, (2 << 20) + 65536),
               (3 << 20, (3 << 20) + 65536)], "merged")
        is_sound("a.qcow2")
        # All of a bitmap, which we store without a cluster.
        write(first, "a.qcow2", "write -z 0 4M")
        write(second, "a.qcow2", "read 0 4k")
        equal(dirty("a.qcow2", "b"), [(0, 4 << 20)], "all")
        is_sound("a.qcow2")


def case_random_sequences_by_both():
    for seed, options in enumerate(("cluster_size=512", "", "cluster_size=64k,extended_l2=on",
                                    "cluster_size=1k,refcount_bits=64", "cluster_size=2M",
                                    "lazy_refcounts=on,cluster_size=4k")):
        chance = random.Random(seed)
        size = 6 << 20
        make("a.qcow2", options, str(size))
        model = {}  # name: (granularity, enabled, set of granules)
        for _ in range(24):
            tool = chance.choice(("qemu-img", PROGRAM))
            if options == "cluster_size=512":
                tool = PROGRAM  # the peer has no room for them beside its feature names
            kind = chance.randrange(7)
            name = f"b{chance.randrange(3)}"
            if name not in model and kind < 5:
                granularity = 512 << chance.randrange(9)
                is_enabled = chance.random() < 0.7
                run(tool, "bitmap", "--add", *([] if is_enabled else ["--disable"]), "-g",
                    str(granularity), "a.qcow2", name)
                model[name] = [granularity, is_enabled, set()]
            elif kind == 0:
                run(tool, "bitmap", "--clear", "a.qcow2", name)
                model[name][2] = set()
            elif kind == 1:
                source = chance.choice(sorted(model))
                run(tool, "bitmap", "--merge", source, "a.qcow2", name)
                mark = [(i * model[source][0], model[source][0]) for i in model[source][2]]
                for offset, length in mark:
                    model[name][2] |= granules(offset, min(length, size - offset), model[name][0])
            elif kind == 2:
                model[name][1] = not model[name][1]
                run(tool, "bitmap", "--enable" if model[name][1] else "--disable", "a.qcow2", name)
            elif kind == 3 and name in model:
                run(tool, "bitmap", "--remove", "a.qcow2", name)
                del model[name]
            else:
                offset = chance.randrange(size - 1)
                length = chance.randrange(1, min(300000, size - offset))
                offset, length = offset & ~511, (length + 511) & ~511
                length = min(length, size - offset)
                write(tool, "a.qcow2", f"write -P {chance.randrange(255)} {offset} {length}")
                for b in model.values():
                    if b[1]:
                        b[2] |= granules(offset, length, b[0])
            is_sound("a.qcow2")
        equal({n: (["auto"] if b[1] else [], b[0]) for n, b in model.items()}, listed("a.qcow2"),
              f"{options}: bitmaps")
        for name, (granularity, _, dirt) in model.items():
            equal(dirty("a.qcow2", name), runs_of(dirt, granularity, size), f"{options}: {name}")


def granules(offset, length, granularity):
    return set(range(offset // granularity, (offset + length - 1) // granularity + 1))


def runs_of(found, granularity, size):
    runs = []
    for i in sorted(found):
        begin, end = i * granularity, min((i + 1) * granularity, size)
        if runs and runs[-1][1] == begin:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((begin, end))
    return runs


def case_actions_are_made_in_order_all_or_none():
    for tool in ("qemu-img", PROGRAM):
        make()
        run(tool, "bitmap", "--add", "--disable", "-g", "512", "a.qcow2", "b")
        run(tool, "bitmap", "--remove", "--add", "--enable", "-g", "4k", "a.qcow2", "b")
        equal(listed("a.qcow2"), {"b": (["auto"], 4096)}, tool)
        make("src.qcow2")
        run(tool, "bitmap", "--add", "src.qcow2", "x")
        write(tool, "src.qcow2", "write 1M 64k")
        run(tool, "bitmap", "--merge", "x", "-b", "src.qcow2", "-F", "qcow2", "a.qcow2", "b")
        equal(dirty("a.qcow2", "b"), [(1 << 20, (1 << 20) + 65536)], f"{tool}: from another image")
        run(tool, "bitmap", "--disable", "--image-opts",
            "driver=qcow2,file.driver=file,file.filename=a.qcow2", "b")
        equal(listed("a.qcow2"), {"b": ([], 4096)}, tool)
    # The peer has made what came before the action that fails.
    bgfs("bitmap", "--add", "--merge", "none", "a.qcow2", "n", status=1)
    bgfs("bitmap", "--clear", "--merge", "none", "a.qcow2", "b", status=1)
    equal(listed("a.qcow2"), {"b": ([], 4096)}, "after a failure")
    equal(dirty("a.qcow2", "b"), [(1 << 20, (1 << 20) + 65536)], "after a failure")
    is_sound("a.qcow2")


def case_exit_status_and_messages():
    make()
    bgfs("bitmap", "--add", "a.qcow2", "b")
    make("v2.qcow2", "compat=0.10")
    make("longer.qcow2", size="8M")
    bgfs("bitmap", "--add", "longer.qcow2", "b")
    os.truncate(os.open("r.raw", os.O_CREAT | os.O_RDWR), 65536)
    for words, message in (
            (["a.qcow2", "b"], "at least one of --add, --remove, --remove-all, --clear"),
            (["--add", "a.qcow2"], "one image and the name of a bitmap are expected"),
            (["--add", "a.qcow2", "b"], "there is a bitmap of that name already"),
            (["--clear", "a.qcow2", "x"], "has no bitmap 'x'; there are 'b'"),
            (["--remove", "a.qcow2", "x"], "has no bitmap 'x'; there are 'b'"),
            (["--merge", "x", "a.qcow2", "b"], "has no bitmap 'x'; there are 'b'"),
            (["--clear", "-g", "4k", "a.qcow2", "b"], "-g is only for --add"),
            (["--clear", "-b", "a.qcow2", "a.qcow2", "b"], "-b is only for --merge"),
            (["--merge", "b", "-F", "qcow2", "a.qcow2", "b"], "-F is only for -b"),
            (["--add", "-g", "1000", "a.qcow2", "c"],
             "option '-g': the granularity of a bitmap is a power of two from 512 to 2147483648"),
            (["--add", "-g", "foo", "a.qcow2", "c"], "option '-g'"),
            (["--add", "v2.qcow2", "b"], "a version 2 image cannot have bitmaps"),
            (["--add", "-f", "raw", "r.raw", "b"], "driver 'raw' keeps no bitmaps in its images"),
            (["--merge", "b", "-b", "longer.qcow2", "a.qcow2", "b"],
             "the bitmaps describe disks of different lengths: 8388608 bytes and 4194304"),
            (["--add", "missing.qcow2", "b"], "missing.qcow2")):
        equal(qemu_img("bitmap", *words, status=None).returncode, 1, f"the peer: {words}")
        contains(bgfs("bitmap", *words, status=1).err, message)
    contains(bgfs("bitmap", "--remove-all", "a.qcow2", "b", status=1).err, "one image is expected")
    contains(bgfs("bitmap", "--add", "a.qcow2", "x/y", status=1).err, "neither '/' nor control")
    equal(listed("a.qcow2"), {"b": (["auto"], 65536)}, "nothing was changed")


def case_one_in_use_is_only_removed():
    make()
    qemu_img("bitmap", "--add", "a.qcow2", "b")
    with open("a.qcow2", "r+b") as f:  # as after a crash: the flag in the directory
        head = f.read(65536)
        at = head.index(bytes.fromhex("2385287500000018")) + 24
        f.seek(int.from_bytes(head[at:at + 8], "big") + 12)
        f.write((3).to_bytes(4, "big"))
    same_output("info", "a.qcow2")
    equal(listed("a.qcow2"), {"b": (["auto", "in-use"], 65536)}, "flags")
    for words in (["--clear", "a.qcow2", "b"], ["--enable", "a.qcow2", "b"],
                  ["--add", "--merge", "b", "a.qcow2", "c"]):
        qemu_img("bitmap", *words, status=1)
        words = ["d" if w == "c" else w for w in words]  # which the peer has added
        contains(bgfs("bitmap", *words, status=1).err,
                 "is inconsistent (it was not stored after its image was written): it can only be "
                 "removed")
    write(PROGRAM, "a.qcow2", "write 0 64k")
    equal(listed("a.qcow2")["b"], (["auto", "in-use"], 65536), "still")
    bgfs("bitmap", "--remove", "a.qcow2", "b")
    equal(listed("a.qcow2"), {"c": (["auto"], 65536)}, "removed")
    is_sound("a.qcow2")


def case_they_survive_snapshots_and_resizing():
    make("a.qcow2", "cluster_size=4k")
    bgfs("bitmap", "--add", "-g", "4k", "a.qcow2", "b")
    write(PROGRAM, "a.qcow2", "write 0 8k", "truncate 6M", "write 5M 4k")
    equal(dirty("a.qcow2", "b"), [(0, 8192), (5 << 20, (5 << 20) + 4096)], "grown")
    bgfs("snapshot", "-c", "s", "a.qcow2")
    write(PROGRAM, "a.qcow2", "write 1M 4k")
    write("qemu-img", "a.qcow2", "truncate 4M")
    equal(dirty("a.qcow2", "b"), [(0, 8192), (1 << 20, (1 << 20) + 4096)], "shrunk by the peer")
    contains(bgfs("snapshot", "-a", "s", "a.qcow2", status=1).err, "persistent bitmaps")
    bgfs("snapshot", "-d", "s", "a.qcow2")
    is_sound("a.qcow2")
