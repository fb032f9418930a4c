# SPDX-License-Identifier: MIT
"""Every verb, interrupted at random moments: what it reads stays as it was, what it changes is whole
and shows what it did, a new target is gone, one that was there is called incomplete, and no file is
left that was not there before."""
import os
import random
import shutil
import signal
import struct
import subprocess
import time

from interop import PROGRAM, contains, digest, equal, fill, is_sound, need, qemu_img, qemu_io

ATTEMPTS = 6
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Commands, what they may change, and the target they may leave incomplete.
TABLE = (
    ("convert -f raw -O qcow2 a.raw new", (), None),
    ("convert -c -f raw -O qcow2 a.raw new", (), None),
    ("convert -f qcow2 -O raw top.qcow2 new", (), None),
    ("convert -f raw -O qcow2 -o preallocation=full a.raw new", (), None),
    ("convert -f raw -O raw a.raw there", (), "there"),
    ("convert -n -f raw -O raw a.raw there", (), "there"),
    ("convert --bitmaps -f qcow2 -O qcow2 one.qcow2 new", (), None),
    ("dd -f raw -O qcow2 if=a.raw of=new bs=64k", (), None),
    ("create -f raw -o preallocation=full new 96M", (), None),
    ("create -f qcow2 -o preallocation=full new 96M", (), None),
    ("create -f qcow2 -o preallocation=metadata,cluster_size=512 new 96M", (), None),
    ("compare -f raw -F qcow2 a.raw one.qcow2", (), None),
    ("map -f qcow2 --output=json fine.qcow2", (), None),
    ("measure -f qcow2 -O qcow2 fine.qcow2", (), None),
    ("check -f qcow2 fine.qcow2", (), None),
    ("check -f qcow2 -r all leaky.qcow2", ("leaky.qcow2",), None),
    ("commit -f qcow2 top.qcow2", ("top.qcow2", "middle.qcow2"), None),
    ("commit -f qcow2 -d -b base.qcow2 top.qcow2", ("base.qcow2",), None),
    ("rebase -f qcow2 -b base.qcow2 -F qcow2 top.qcow2", ("top.qcow2",), None),
    ("rebase -f qcow2 -b  top.qcow2", ("top.qcow2",), None),
    ("resize -f qcow2 --preallocation=full one.qcow2 +64M", ("one.qcow2",), None),
    ("resize -f raw --preallocation=full a.raw +64M", ("a.raw",), None),
    ("snapshot -c new fine.qcow2", ("fine.qcow2",), None),
    ("snapshot -a old fine.qcow2", ("fine.qcow2",), None),
    ("snapshot -d old fine.qcow2", ("fine.qcow2",), None),
    ("amend -f qcow2 -o compat=0.10 version3.qcow2", ("version3.qcow2",), None),
    ("amend -f qcow2 -o refcount_bits=64 fine.qcow2", ("fine.qcow2",), None),
    ("bitmap -f qcow2 --add --merge b0 one.qcow2 b1", ("one.qcow2",), None),
    ("bench -f raw -w -c 2000 a.raw", ("a.raw",), None),
)


def make():
    length = 48 << 20
    qemu_img("create", "-q", "a.raw", str(length))
    fill("a.raw", 1, 60, length, format="raw")
    qemu_io("-f", "raw", "-c", "write -q -P 5 0 30M", "a.raw")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "a.raw", "one.qcow2")
    qemu_img("bitmap", "--add", "-g", "512", "one.qcow2", "b0")
    qemu_io("-c", "write -q -P 6 1M 3M", "one.qcow2")
    with open("there", "wb") as f:
        f.write(b"somebody's" * (5 << 20))
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", str(length))
    qemu_io("-c", "write -q -P 1 0 40M", "base.qcow2")
    for name, below, what in (("middle.qcow2", "base.qcow2", "write -q -P 2 4M 24M"),
                              ("top.qcow2", "middle.qcow2", "write -q -P 3 8M 30M")):
        qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", name)
        qemu_io("-c", what, name)
    # Many small pieces.
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "fine.qcow2", "16M")
    fill("fine.qcow2", 2, 150)
    qemu_io("-c", "write -q -P 4 0 12M", "fine.qcow2")
    qemu_img("snapshot", "-c", "old", "fine.qcow2")
    fill("fine.qcow2", 3, 60)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "version3.qcow2", "64M")
    qemu_io("-c", "write -q -z 0 64M", "version3.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "leaky.qcow2", "16M")
    qemu_io("-c", "write -q -P 4 0 4M", "leaky.qcow2")
    leak("leaky.qcow2", 1030, 2000)


def leak(image, first, end):
    """Clusters behind the end of the file, counted and used by nobody (spec, "Host cluster management")."""
    with open(image, "r+b") as f:
        f.seek(48)
        f.seek(struct.unpack(">Q", f.read(8))[0])
        block = struct.unpack(">Q", f.read(8))[0]
        f.seek(block + 2 * first)
        if any(f.read(2 * (end - first))):
            raise AssertionError("these clusters are in use")
        f.seek(block + 2 * first)
        f.write(struct.pack(">H", 1) * (end - first))
        f.truncate(end * 4096)


def content(image):
    qemu_img("convert", "-O", "raw", image, "../content")
    return digest("../content")


def start(words):
    return subprocess.Popen([PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in SIGNALS])


def stamp(path):
    s = os.stat(path)
    return s.st_mtime_ns, s.st_ctime_ns, s.st_size


STAMPS = {}  # of the files in "now" that are as they were made


def again():
    os.makedirs("now", exist_ok=True)
    for name in os.listdir("now"):
        if not os.path.exists(f"fresh/{name}"):
            os.unlink(f"now/{name}")
    for name in os.listdir("fresh"):
        path = f"now/{name}"
        if not os.path.exists(path) or stamp(path) != STAMPS.get(name):
            shutil.copyfile(f"fresh/{name}", path)
            STAMPS[name] = stamp(path)
    os.chdir("now")


def digests(before):
    """Of the files here; what was not written since it was made is what it was."""
    return {name: before[name] if stamp(name) == STAMPS.get(name) else digest(name)
            for name in os.listdir(".")}


def duration(words):
    again()
    begin = time.monotonic()
    done = start(words)
    err = done.communicate()[1].decode()
    if done.returncode not in (0, 1 if words[0] == "compare" else 0):
        raise AssertionError(f"{' '.join(words)}: {err}")
    os.chdir("..")
    return time.monotonic() - begin


def look(words, may_change, target, before, shown, child, err, sent):
    line = " ".join(words)
    is_over = child.returncode == 0 or (words[0] == "compare" and child.returncode == 1)
    if not is_over:
        equal(child.returncode, -sent, f"{line}\n{err}\nstatus")
    after = digests(before)
    extra = set(after) - set(before) - ({"new"} if is_over and child.returncode == 0 else set())
    equal(extra, set(), f"{line} ({child.returncode}): files left\n{err}\n")
    for name, was in before.items():
        if name not in may_change and name != target:
            equal(after[name], was, f"{line}: {name}")
    if target and not is_over and after[target] != before[target]:
        contains(err, f"'{target}' is incomplete", line)
    for name in may_change:
        if name == "leaky.qcow2":  # some of it may be left to do
            equal(qemu_img("check", "-q", name, status=None).returncode in ((0,) if is_over else (0, 3)), True,
                  f"{line}: {name}")
        elif name.endswith(".qcow2"):
            is_sound(name)
    # What an interrupted verb has done in part nobody can see.
    for name in ("top.qcow2", "one.qcow2", "leaky.qcow2", "version3.qcow2"):
        if name in may_change and words[0] != "resize":
            equal(content(name), shown[name], f"{line}: the bytes of {name}")


def case_every_verb_at_any_moment():
    need("qemu-img")
    rng = random.Random(7)
    os.mkdir("fresh")
    os.chdir("fresh")
    make()
    before = {name: digest(name) for name in os.listdir(".")}
    shown = {name: content(name) for name in before if name.endswith(".qcow2")}
    os.chdir("..")
    ended = 0
    for line, may_change, target in TABLE:
        words = line.split(" ")
        seconds = duration(words)
        for attempt in range(ATTEMPTS):
            again()
            child = start(words)
            time.sleep(rng.uniform(0.004, seconds))
            sent = SIGNALS[attempt % len(SIGNALS)]
            child.send_signal(sent)
            err = child.communicate()[1].decode()
            look(words, may_change, target, before, shown, child, err, sent)
            ended += child.returncode < 0
            os.chdir("..")
    if ended < len(TABLE) * ATTEMPTS / 5:
        raise AssertionError(f"only {ended} of {len(TABLE) * ATTEMPTS} were interrupted")
