# SPDX-License-Identifier: MIT
"""What convert copies beside the disk, what it does about sources that cannot be read, and how it
tells how far it is."""
import json
import os
import pty
import random
import select
import signal
import struct
import subprocess
import time

from bitmaps import dirty
from interop import (PROGRAM, bgfs, contains, equal, fill, is_sound, qemu_img, qemu_io, run,
                     same_bytes)

BITMAPS_EXTENSION = 0x23852875


def fails(*words, saying, status=1):
    contains(bgfs(*words, status=status).err, saying, " ".join(words))


def bitmaps_of(image):
    data = json.loads(qemu_img("info", "--output=json", image).out)["format-specific"]["data"]
    return {b["name"]: (sorted(b["flags"]), b["granularity"]) for b in data.get("bitmaps", [])}


def put_in_use(image, name):
    """Marks a bitmap as one that was not stored, as a crash leaves it (bit 0 of its flags)."""
    with open(image, "r+b") as f:
        head = f.read(4096)
        at = struct.unpack(">I", head[100:104])[0]
        while struct.unpack(">I", head[at:at + 4])[0] != BITMAPS_EXTENSION:
            at += 8 + (struct.unpack(">I", head[at + 4:at + 8])[0] + 7) // 8 * 8
        count, _, length, directory = struct.unpack(">IIQQ", head[at + 8:at + 32])
        f.seek(directory)
        entries = f.read(length)
        at = 0
        for _ in range(count):
            flags, kind, bits, name_length, extra = struct.unpack(">IBBHI", entries[at + 12:at + 24])
            if entries[at + 24 + extra:at + 24 + extra + name_length] == name.encode():
                f.seek(directory + at + 12)
                f.write(struct.pack(">I", flags | 1))
                return
            at += (24 + extra + name_length + 7) // 8 * 8
    raise AssertionError(f"no bitmap {name}")


def make_with_bitmaps(image="a.qcow2"):
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    qemu_img("bitmap", "--add", image, "every")
    qemu_img("bitmap", "--add", "-g", "512", image, "fine")
    qemu_io("-c", "write -q -P 1 1M 300k", "-c", "write -q -P 2 5M 512", image)
    qemu_img("bitmap", "--disable", image, "fine")
    qemu_img("bitmap", "--add", "-g", "2M", image, "coarse")
    qemu_io("-c", "write -q -P 3 7M 64k", image)


def case_bitmaps_are_copied_as_by_the_peer():
    make_with_bitmaps()
    for options in ((), ("-c",), ("-o", "cluster_size=4k"), ("-W", "-m", "16")):
        bgfs("convert", "--bitmaps", "-O", "qcow2", *options, "a.qcow2", "ours.qcow2")
        qemu_img("convert", "--bitmaps", "-O", "qcow2", *options, "a.qcow2", "theirs.qcow2")
        equal(bitmaps_of("ours.qcow2"), bitmaps_of("theirs.qcow2"), "bitmaps")
        is_sound("ours.qcow2")
        run("qemu-img", "compare", "-s", "ours.qcow2", "theirs.qcow2")
        for name in ("every", "fine", "coarse"):
            bits = dirty("ours.qcow2", name)
            equal(bits, dirty("theirs.qcow2", name), f"bits of {name}")
            equal(bits != [], True, f"{name} has bits")
    equal(bitmaps_of("ours.qcow2")["fine"], ([], 512), "a disabled one stays so")


def case_bitmaps_of_a_target_that_is_there():
    make_with_bitmaps()
    qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", "8M")
    bgfs("convert", "-n", "--bitmaps", "-O", "qcow2", "a.qcow2", "b.qcow2")
    equal(bitmaps_of("b.qcow2"), bitmaps_of("a.qcow2"), "bitmaps")
    # Refused before a byte is written.
    qemu_io("-c", "write -q -P 9 0 64k", "b.qcow2")
    fails("convert", "-n", "--bitmaps", "-O", "qcow2", "a.qcow2", "b.qcow2",
          saying="the target has a bitmap 'every' already; remove one of them")
    qemu_io("-c", "read -P 9 0 64k", "b.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "c.qcow2", "9M")
    fails("convert", "-n", "--bitmaps", "-O", "qcow2", "a.qcow2", "c.qcow2",
          saying="the target has 9437184 bytes and the source 8388608, and bitmaps tell of disks of "
                 "one length")


def case_bitmaps_that_cannot_be_copied():
    make_with_bitmaps()
    bgfs("create", "-q", "r", "8M")
    with open("kept", "wb") as f:
        f.write(b"somebody's")
    for words, saying in (
            (("-f", "raw", "-O", "qcow2", "r", "kept"), "the format 'raw' of the source has no"),
            (("-O", "raw", "a.qcow2", "kept"), "'--bitmaps': the format 'raw' has no bitmaps"),
            (("-O", "qcow2", "-o", "compat=0.10", "a.qcow2", "kept"),
             "a version 2 image cannot have bitmaps; use 'compat=1.1'"),
            (("-O", "qcow2", "a.qcow2", "r", "kept"), "of one source; there are 2"),
            (("-O", "qcow2", "-l", "s", "a.qcow2", "kept"), "--bitmaps and -l exclude each other"),
            (("a.qcow2", "-"), "--bitmaps makes no sense for standard output")):
        fails("convert", "--bitmaps", *words, saying=saying)
        with open("kept", "rb") as f:
            equal(f.read(), b"somebody's", "what was there before")
    fails("convert", "--skip-broken-bitmaps", "a.qcow2", "x", saying="needs --bitmaps")
    fails("convert", "-n", "--bitmaps", "-O", "raw", "a.qcow2", "r",
          saying="'--bitmaps': the format 'raw' has no bitmaps")
    put_in_use("a.qcow2", "fine")
    fails("convert", "--bitmaps", "-O", "qcow2", "a.qcow2", "x",
          saying="bitmap 'fine' of the source is inconsistent: it was not stored after its image was "
                 "written; leave it out with --skip-broken-bitmaps")
    qemu_img("convert", "--bitmaps", "-O", "qcow2", "a.qcow2", "x", status=1)
    done = bgfs("convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", "a.qcow2", "x")
    contains(done.err, "warning: bitmap 'fine' is left out: it is inconsistent", "the warning")
    equal(sorted(bitmaps_of("x")), ["coarse", "every"], "the others")
    equal(bgfs("convert", "-q", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", "a.qcow2",
               "x").err, "", "quiet")


def spoil(image, entries):
    """L2 entries that lead nowhere: not aligned to a cluster."""
    with open(image, "r+b") as f:
        f.seek(40)
        f.seek(struct.unpack(">Q", f.read(8))[0])
        table = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
        for e in entries:
            f.seek(table + 8 * e)
            f.write(struct.pack(">Q", 1 << 63 | 0x123400))


def case_salvage_gives_what_can_be_read():
    for seed in range(6):
        rng = random.Random(seed)
        image = f"s{seed}.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o",
                 f"cluster_size={rng.choice(('4k', '64k', '1M'))}", image, "20M")
        fill(image, seed, 60)
        qemu_io("-c", "write -q -P 1 0 20M", image)
        cluster = json.loads(qemu_img("info", "--output=json", image).out)["cluster-size"]
        clusters = min(20 * 1024 * 1024 // cluster, cluster // 8)
        lost = sorted(rng.sample(range(clusters), rng.randrange(1, min(6, clusters))))
        spoil(image, lost)
        fails("convert", "-O", "raw", image, "x", saying="is corrupt")
        assert not os.path.exists("x"), "what is incomplete is removed"
        qemu_img("convert", "-q", "--salvage", "-O", "raw", image, "theirs")
        for options in ((), ("-W", "-m", "16"), ("-m", "1"), ("-C",)):
            done = bgfs("convert", "--salvage", "-O", "raw", *options, image, "ours")
            same_bytes("ours", "theirs")
        told = sum(int(line.split("warning: ")[1].split()[0]) for line in done.err.splitlines())
        equal(told, len(lost) * cluster, "what was lost is told")
        equal(bgfs("convert", "-q", "--salvage", "-O", "raw", image, "ours").err, "", "quiet")
        equal(bgfs("convert", "--salvage", image, "-").stdout, open("theirs", "rb").read(), "a stream")


def case_a_target_that_is_zero_is_not_zeroed():
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "8M")
    qemu_io("-c", "write -q -P 1 1M 300k", "-c", "write -q -P 2 5M 512", "a.qcow2")
    qemu_img("convert", "-O", "raw", "a.qcow2", "expected")
    for target, kind in (("b.qcow2", "qcow2"), ("b.raw", "raw")):
        qemu_img("create", "-q", "-f", kind, target, "8M")
        bgfs("convert", "-n", "--target-is-zero", "-f", "qcow2", "-O", kind, "a.qcow2", target)
        qemu_img("convert", "-f", kind, "-O", "raw", target, "content")
        same_bytes("content", "expected")
    # It is taken at its word: what was there shows where nothing was copied.
    qemu_img("create", "-q", "-f", "raw", "c.raw", "8M")
    qemu_io("-f", "raw", "-c", "write -q -P 7 3M 64k", "c.raw")
    bgfs("convert", "-n", "--target-is-zero", "-f", "qcow2", "-O", "raw", "a.qcow2", "c.raw")
    with open("c.raw", "rb") as f:
        f.seek(3 << 20)
        equal(f.read(65536), b"\7" * 65536, "what was there")
    bgfs("convert", "-n", "-f", "qcow2", "-O", "raw", "a.qcow2", "c.raw")
    same_bytes("c.raw", "expected")


def case_progress_for_programs():
    qemu_img("create", "-q", "a.raw", "64M")
    qemu_io("-f", "raw", "-c", "write -q -P 1 0 64M", "a.raw")
    for words in (("convert", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2"),
                  ("convert", "-f", "raw", "a.raw", "-"),
                  ("compare", "-F", "qcow2", "-f", "raw", "a.raw", "b.qcow2"),
                  ("check", "b.qcow2")):
        done = bgfs(words[0], "--progress=json", *words[1:])
        lines = [json.loads(line) for line in done.err.splitlines()]
        equal({(r["job"], r["unit"], r["total"]) for r in lines},
              {(words[0], *(("steps", lines[0]["total"]) if words[0] == "check"
                            else ("bytes", 64 << 20)))}, "what it is about")
        amounts = [r["done"] for r in lines]
        equal(amounts, sorted(amounts), "it goes forward")
        equal(amounts[-1], lines[0]["total"], "to the end")
        equal("done" in done.out[:200], False, "standard output has the answer only")
        equal(bgfs(words[0], "-q", "--progress=json", *words[1:]).err, "", "quiet")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "over.qcow2")
    qemu_io("-c", "write -q -P 2 0 1M", "over.qcow2")
    for verb, words in (("rebase", ("-b", "", "over.qcow2")),
                        ("amend", ("-o", "compat=0.10", "over.qcow2"))):
        lines = bgfs(verb, "--progress=json", *words).err.splitlines()
        equal(json.loads(lines[-1])["job"], verb, "the last line")
    fails("convert", "--progress=xml", "a.raw", "x", saying="the form is one of bar, json, not 'xml'")
    equal(bgfs("convert", "--progress=bar", "a.raw", "x", "-f", "raw").out[-15:],
          "(100.00/100%)\r\n", "a bar")


def on_terminal(*words, seconds=20):
    """What a command shows on a terminal, and its exit status."""
    master, slave = pty.openpty()
    child = subprocess.Popen([PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
    os.close(slave)
    shown, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(master)
    return shown.decode(), child.wait()


def case_long_work_is_shown_on_a_terminal():
    qemu_img("create", "-q", "a.raw", "8M")
    qemu_io("-f", "raw", "-c", "write -q -P 1 0 8M", "a.raw")
    equal(on_terminal("convert", "-f", "raw", "a.raw", "b.raw"), ("", 0), "short work")
    shown, status = on_terminal("convert", "-f", "raw", "-r", "3M", "a.raw", "b.raw")
    equal(status, 0, "status")
    contains(shown, "/100%)\r", "long work")
    equal(shown.endswith("\r\x1b[K"), True, f"it is gone at the end: {shown!r}")
    equal(on_terminal("convert", "-q", "-f", "raw", "-r", "3M", "a.raw", "b.raw"), ("", 0), "quiet")
    # Elsewhere nothing is shown, but to who asks.
    child = subprocess.Popen([PROGRAM, "convert", "-f", "raw", "-r", "3M", "a.raw", "b.raw"],
                             stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(1.2)
    child.send_signal(signal.SIGUSR1)
    out, err = child.communicate()
    equal((out, child.returncode, err.count(b"/100%)\n")), (b"", 0, 1), "told once")
