# SPDX-License-Identifier: MIT
"""NAME.d/points/ and .bgfs/points/: frozen instants, and the increments between them."""
import errno
import itertools
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import threading

from mount_suite import *  # noqa: F403

SIZE = 8 * MiB


def last_error(m, root="disk"):
    return m.read(f"{root}.d/last-error").splitlines()[-1]


def whole(path):
    with open(path, "rb") as f:
        return f.read()


def scribble(path, rng, count=12, size=SIZE):
    """Writes, zeroes and discards somewhere."""
    for _ in range(count):
        at = rng.randrange(size // 512) * 512
        length = min(size - at, rng.randrange(1, 400) * 512)
        kind = rng.randrange(4)
        if kind == 0:
            fallocate(path, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, at, length)
        elif kind == 1:
            fallocate(path, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, at, length)
        else:
            pwrite(path, at, rng.randbytes(length))


def three_roots(env):
    """qcow2 over a base, plain qcow2, raw."""
    env.qcow2("base.qcow2", SIZE)
    nodes = [
        {"node-name": "base", "driver": "qcow2", "read-only": True,
         "file": {"driver": "file", "filename": str(env / "base.qcow2")}},
        {"node-name": "over", "driver": "qcow2", "discard": "unmap", "backing": "base",
         "file": {"driver": "file",
                  "filename": str(env.qcow2("over.qcow2", None, env / "base.qcow2"))}},
        {"node-name": "plain", "driver": "qcow2", "discard": "unmap",
         "file": {"driver": "file", "filename": str(env.qcow2("plain.qcow2", SIZE))}},
        {"node-name": "flat", "driver": "raw", "discard": "unmap",
         "file": {"driver": "file", "filename": str(env.raw("flat.raw", SIZE))}}]
    return env.mount(env.graph(nodes, [{"name": n, "node-name": n, "writable": True,
                                        "passthrough": "off"} for n in ("over", "plain", "flat")]))


ROOTS = ("over", "plain", "flat")


@case("mkdir freezes a root of any format; the instant stays, and rmdir lets it go",
      needs=["qemu-img"], unpassed=True)
def frozen(env):
    rng = random.Random(1)
    m = three_roots(env)
    for root in ROOTS:
        scribble(m / root, rng, 60)
        then = whole(m / root)
        at = m / f"{root}.d/points"
        equal(os.listdir(at), [], "at first")
        os.mkdir(at / "tue")
        equal(os.listdir(at), ["tue"], "points")
        equal(sorted(os.listdir(at / "tue")),
              ["disk", "info.json", "map", "map.json", "since", "state"], "what a point has")
        equal(m.read(f"{root}.d/points/tue/state"), "ok\nkept: 0\n", "state")
        equal(whole(at / "tue/disk") == then, True, "the instant")
        fd = os.open(at / "tue/disk", os.O_RDONLY)
        for _ in range(3):
            scribble(m / root, rng)
            equal(os.pread(fd, SIZE, 0) == then, True, "the instant, after writes")
        now = whole(m / root)
        check(now != then, "the disk has changed")
        kept = int(m.read(f"{root}.d/points/tue/state").split("kept: ")[1])
        check(0 < kept <= SIZE, root, "kept", kept)
        equal(json.loads(m.read(f"{root}.d/points/tue/info.json"))["point"]["kept-bytes"], kept,
              "info.json")
        contains(run("rmdir", at / "tue", ok=False).stderr, "busy", "rmdir")
        contains(last_error(m, root), f"{root}.d/points/tue/disk open; close it there", "last-error")
        os.close(fd)
        run("rmdir", at / "tue")
        equal(os.listdir(at), [], "after rmdir")
        equal(whole(m / root) == now, True, "the disk")
        equal(os.listdir(m / f"{root}.d/bitmaps"), ["tue"], "the bitmap stays")
        scribble(m / root, rng)
    m.umount()
    for name in ("over", "plain"):
        qemu_check(env / f"{name}.qcow2")


@case("what cannot be is refused with a sentence, and deleters and reloads leave points alone",
      needs=["qemu-img"], unpassed=True)
def refused(env):
    image = env.qcow2("a.qcow2", SIZE)
    graph = env.simple(image, "qcow2")
    m = env.mount(graph)
    at = m / "disk.d/points"
    os.mkdir(at / "tue")
    with fails_with(errno.EEXIST):
        os.mkdir(at / "tue")
    os.mkdir(m / "disk.d/bitmaps/wed")
    with fails_with(errno.EEXIST):
        os.mkdir(at / "wed")
    contains(last_error(m), "has a bitmap 'wed' already, and a point begins one", "last-error")
    with fails_with(errno.ENOENT):
        os.rmdir(at / "none")
    with fails_with(errno.EPERM):
        os.rename(at / "tue", at / "x")
    with fails_with(errno.EPERM):
        os.unlink(at / "tue/disk")
    contains(last_error(m), "a point ends as a whole, with rmdir of its directory", "last-error")
    with fails_with(errno.ENOTEMPTY):
        os.rmdir(at / "tue")
    check(run("rm", "-rf", at / "tue", ok=False).returncode != 0, "rm -rf fails")
    run("find", at, "-delete", ok=False)
    equal(os.listdir(at), ["tue"], "it is still there")
    done = run(BGFS, "reload", m.path, ok=False)
    equal(done.returncode != 0, True, "reload")
    contains(done.stderr, "while 'disk' has point 'tue'; end it with rmdir disk.d/points/tue",
             "its error")
    run("rmdir", at / "tue")
    run(BGFS, "reload", m.path)
    m.umount()
    m = env.mount(env.graph(
        [{"node-name": "n", "driver": "qcow2", "file": {"driver": "file", "filename": str(image)}}],
        [{"name": "disk", "node-name": "n"}]))
    with fails_with(errno.EROFS):
        os.mkdir(m / "disk.d/points/x")
    contains(last_error(m), "is exported read-only: it does not change", "last-error")
    m.umount()
    m = env.mount(env.graph(
        [{"node-name": "n", "driver": "qcow2", "file": {"driver": "file", "filename": str(image)}}],
        [{"name": "disk", "node-name": "n", "writable": True,
          "points": {"directory": "/nowhere"}}]))
    with fails_with(errno.ENOENT):
        os.mkdir(m / "disk.d/points/x")
    contains(last_error(m), "has no space in '/nowhere' ('points: directory'", "last-error")
    m.umount()


@case("a point that is full breaks and says so, and the disk goes on", needs=["qemu-img"],
      unpassed=True)
def full(env):
    nodes = [{"node-name": "n", "driver": "raw",
              "file": {"driver": "file", "filename": str(env.raw("a.raw", SIZE, b"a" * SIZE))}}]
    m = env.mount(env.graph(nodes, [{"name": "disk", "node-name": "n", "writable": True,
                                     "points": {"limit": "1M", "directory": str(env.dir)}}]))
    os.mkdir(m / "disk.d/points/p")
    pwrite(m / "disk", 0, b"b" * MiB)
    equal(m.read("disk.d/points/p/state"), f"ok\nkept: {MiB}\nlimit: {MiB}\n", "state")
    equal(whole(m / "disk.d/points/p/disk") == b"a" * SIZE, True, "the instant")
    pwrite(m / "disk", 4 * MiB, b"c" * MiB)
    equal(pread(m / "disk", 4 * MiB, MiB), b"c" * MiB, "the disk goes on")
    state = m.read("disk.d/points/p/state").splitlines()
    equal(state[0], "broken", "state")
    contains(state[1], "'kept-max' allows 1048576", "its reason")
    with fails_with(errno.ENOSPC, errno.EIO):
        pread(m / "disk.d/points/p/disk", 0, 4096)
    run("rmdir", m / "disk.d/points/p")
    equal(pread(m / "disk", 0, MiB), b"b" * MiB, "the disk")
    m.umount()
    equal([n for n in os.listdir(env.dir) if "point" in n], [], "files left over")


def write_numbers(paths, is_over, numbers):
    """One after the other, over all roots: number n goes to the next root, at a place of its own."""
    fds = [os.open(p, os.O_RDWR) for p in paths]
    for n in itertools.count(1):
        if is_over.is_set():
            break
        place = (n // len(fds)) % 64
        os.pwrite(fds[n % len(fds)], struct.pack("<Q", n) * 64, place * 16384)
        numbers[0] = n
    for fd in fds:
        os.close(fd)


@case("a point of all roots is one instant of them all, under writes", needs=["qemu-img"],
      unpassed=True)
def one_instant(env):
    m = three_roots(env)
    is_over, numbers = threading.Event(), [0]
    writer = threading.Thread(target=write_numbers,
                              args=([m / r for r in ROOTS], is_over, numbers))
    writer.start()
    try:
        for i in range(6):
            wait_for(lambda least=numbers[0] + 300: numbers[0] > least, "some numbers")
            os.mkdir(m / f".bgfs/points/p{i}")
            after = numbers[0]
            found = {}
            for index, root in enumerate(ROOTS):
                disk = m / f".bgfs/points/p{i}/{root}/disk"
                for place in range(64):
                    n, = struct.unpack("<Q", pread(disk, place * 16384, 8))
                    if n:
                        equal(n % len(ROOTS), index, "a number's root")
                        found[n] = (index, place)
            newest = max(found)
            check(newest <= after + 1, "newest", newest, "after", after)
            for n in range(max(1, newest - 64 * len(ROOTS) + 1), newest + 1):
                check(n in found, "number", n, "of", newest, "is missing")
            check(os.path.islink(m / f".bgfs/points/p{i}/over"), "a link")
        for i in range(6):
            run("rmdir", m / f".bgfs/points/p{i}")
    finally:
        is_over.set()
        writer.join()
    equal(os.listdir(m / ".bgfs/points"), [], "all are gone")
    m.umount()
    for name in ("over", "plain"):
        qemu_check(env / f"{name}.qcow2")


def keep_scribbling(paths, is_over, seed):
    rng = random.Random(seed)
    while not is_over.is_set():
        scribble(rng.choice(paths), rng, 1)


@case("the nightly recipe: full copies, increments of all roots, and any night restored",
      needs=["qemu-img"], unpassed=True, timeout=240)
def nightly(env):
    rng = random.Random(3)
    m = three_roots(env)
    for root in ROOTS:
        scribble(m / root, rng, 30)
    is_over = threading.Event()
    writer = threading.Thread(target=keep_scribbling,
                              args=([m / r for r in ROOTS], is_over, 4))
    writer.start()
    nights = ["mon", "tue", "wed", "thu"]
    instants = {}
    try:
        for number, night in enumerate(nights):
            os.mkdir(m / f".bgfs/points/{night}")
            for root in ROOTS:
                point = m / f".bgfs/points/{night}/{root}"
                instants[night, root] = whole(point / "disk")
                if number == 0:
                    run("cp", "--sparse=always", point / "disk", env / f"{root}.full")
                    continue
                source = point / f"since/{nights[number - 1]}.qcow2"
                target = env / f"{root}.{night}.qcow2"
                if number % 2:
                    run("cp", "--sparse=always", source, target)
                else:
                    target.write_bytes(whole(source))  # as cat > does
                equal(target.stat().st_size, source.stat().st_size, "its length")
            run("rmdir", m / f".bgfs/points/{night}")
            if number:
                for root in ROOTS:
                    run("rmdir", m / f"{root}.d/bitmaps/{nights[number - 1]}")
            before = whole(m / "plain")
            wait_for(lambda last=before: whole(m / "plain") != last, "some writes")
    finally:
        is_over.set()
        writer.join()
    m.umount()
    for root in ROOTS:
        below = (env / f"{root}.full", "raw")
        for night in nights[1:]:
            image = env / f"{root}.{night}.qcow2"
            qemu_check(image)
            run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below[0], "-F", below[1], image)
            run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, env / "restored.raw")
            equal((env / "restored.raw").read_bytes() == instants[night, root], True,
                  f"{root} as it was on {night}")
            below = (image, "qcow2")
        nodes = [{"node-name": "full", "driver": "raw", "read-only": True,
                  "file": {"driver": "file", "filename": str(env / f"{root}.full")}}]
        for last, night in zip(["full", *nights[1:]], nights[1:]):
            nodes.append({"node-name": night, "driver": "qcow2", "read-only": True, "backing": last,
                          "file": {"driver": "file",
                                   "filename": str(env / f"{root}.{night}.qcow2")}})
        m = env.mount(env.graph(nodes, [{"name": n, "node-name": n} for n in nights[1:]]))
        for night in nights[1:]:
            equal(whole(m / night) == instants[night, root], True, f"{root} on {night}, mounted")
        m.umount()


@case("a point of all roots holds where two of them show one image", needs=["qemu-img"],
      as_written=True)
def shared_image(env):
    image = env.qcow2("a.qcow2", SIZE)
    nodes = [{"node-name": "n", "driver": "qcow2",
              "file": {"driver": "file", "filename": str(image)}}]
    m = env.mount(env.graph(nodes, [{"name": "a", "node-name": "n", "writable": True},
                                    {"name": "b", "node-name": "n", "writable": True}]))
    pwrite(m / "a", 0, b"1" * MiB)
    os.mkdir(m / ".bgfs/points/p")
    pwrite(m / "a", 0, b"2" * MiB)
    pwrite(m / "b", MiB // 2, b"3" * MiB)
    for root in ("a", "b"):
        then = pread(m / f"{root}.d/points/p/disk", 0, 2 * MiB)
        equal(then == b"1" * MiB + bytes(MiB), True, root)
        equal(os.listdir(m / f"{root}.d/bitmaps"), ["p"], "bitmaps")
    run("rmdir", m / ".bgfs/points/p")
    equal(pread(m / "a", 0, MiB) == b"2" * (MiB // 2) + b"3" * (MiB // 2), True, "the disk")
    m.umount()
    qemu_check(image)


@case("who is killed with points leaves an image as good as any", needs=["qemu-img"], unpassed=True)
def killed(env):
    image = env.qcow2("a.qcow2", SIZE)
    graph = env.simple(image, "qcow2")
    m = env.mount(graph)
    rng = random.Random(5)
    scribble(m / "disk", rng)
    os.mkdir(m / "disk.d/points/p")
    scribble(m / "disk", rng)
    fsync(m / "disk")
    now = whole(m / "disk")
    pid = m.pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "its end")
    run("umount", "-l", m.path)
    m = env.mount(graph)
    equal(os.listdir(m / "disk.d/points"), [], "points")
    equal(whole(m / "disk") == now, True, "the disk")
    m.umount()
    found = subprocess.run(["qemu-img", "check", image], capture_output=True, check=False)
    check(found.returncode in (0, 3), found.stdout, found.stderr)


@case("a mount ends with points, and a point of a mount that ends is not in the way",
      needs=["qemu-img"], unpassed=True)
def ended(env):
    image = env.qcow2("a.qcow2", SIZE)
    m = env.mount(env.simple(image, "qcow2"))
    pwrite(m / "disk", 0, b"x" * MiB)
    for name in ("a", "b", "c"):
        os.mkdir(m / f"disk.d/points/{name}")
        pwrite(m / "disk", 65536, name.encode() * 65536)
    run("rmdir", m / "disk.d/points/b")  # the one between
    equal(pread(m / "disk.d/points/a/disk", 65536, 10), b"x" * 10, "a")
    equal(pread(m / "disk.d/points/c/disk", 65536, 10), b"b" * 10, "c")
    m.umount()
    qemu_check(image)
    info = json.loads(run("qemu-img", "info", "--output=json", image).stdout)
    equal([b["name"] for b in info["format-specific"]["data"]["bitmaps"]], ["a", "b", "c"], "bitmaps")


def restored(env, root, runs, where):
    """What the files of a root say of the last run, read by the peer as a chain."""
    below = None
    for run_name in runs:
        full, image = where / f"{root}.{run_name}.raw", where / f"{root}.{run_name}.qcow2"
        if full.exists():
            below = (full, "raw")
            continue
        qemu_check(image)
        run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below[0], "-F", below[1], image)
        below = (image, "qcow2")
    run("qemu-img", "convert", "-f", below[1], "-O", "raw", below[0], env / "restored.raw")
    return (env / "restored.raw").read_bytes()


@case("examples/nightly backs all roots up, and a run that fails loses nothing", needs=["qemu-img"],
      unpassed=True)
def example(env):
    script = pathlib.Path(__file__).resolve().parents[2] / "examples" / "nightly"
    rng = random.Random(6)
    m = three_roots(env)
    where = env / "backup"
    where.mkdir()
    runs, then = [], {}
    for night in range(5):
        for root in ROOTS:
            scribble(m / root, rng, 6)
        if night == 3:  # no space for the copies
            blocked = env / "full"
            blocked.mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", blocked)
            try:
                for name in os.listdir(where):
                    if name == "last" or name.endswith(".base"):
                        (blocked / name).write_bytes((where / name).read_bytes())
                done = run(script, m.path, blocked, ok=False)
                check(done.returncode != 0, "a run without space fails")
                contains(done.stderr, "failed; the one of", "what it says")
                equal([n for n in os.listdir(blocked) if "part" in n], [], "parts left")
            finally:
                run("umount", blocked)
            equal(os.listdir(m / ".bgfs/points"), [], "points left")
        done = run(script, m.path, where, ok=False)
        equal(done.returncode, 0, f"its end ({done.stderr})")
        runs.append((where / "last").read_text().strip())
        for root in ROOTS:
            then[root] = whole(m / root)
            equal(os.listdir(m / f"{root}.d/bitmaps"), [runs[-1]], "bitmaps")
            equal(restored(env, root, runs, where) == then[root], True, f"{root}, night {night}")
    m.umount()
