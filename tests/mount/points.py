# SPDX-License-Identifier: MIT
"""NAME.d/points/ and .bgfs/points/: frozen instants, and the increments between them."""
import errno
import fcntl
import itertools
import json
import os
import pathlib
import random
import shutil
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
              ["disk", "info.json", "map", "map.json", "partitions", "since", "state"], "what a point has")
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
    run(BGFS, "reload", m.path)
    equal(os.listdir(at), ["tue"], "it is still there")
    run("rmdir", at / "tue")
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
                                     "points": {"limit": "1M", "directory": "."}}]))
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


def fio_job(path, name, *options):
    """Writes to a disk in one way until it is ended."""
    return subprocess.Popen(
        ["fio", f"--name={name}", f"--filename={path}", f"--size={SIZE}", "--allow_file_create=0",
         "--time_based", "--runtime=200", "--thread", "--bsrange=512-64k", "--blockalign=512",
         "--ioengine=psync", "--rate_iops=400", *options], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE)


def keep_discarding(paths, is_over, seed):
    rng = random.Random(seed)
    while not is_over.wait(0.002):
        at = rng.randrange(SIZE // 512) * 512
        mode = rng.choice([FALLOC_ZERO_RANGE, FALLOC_PUNCH_HOLE]) | FALLOC_KEEP_SIZE
        fallocate(rng.choice(paths), mode, at, min(SIZE - at, rng.randrange(1, 400) * 512))


def restore(way, source, target):
    """A copy as people make one: dense, sparse, or with cat."""
    if way == "cat":
        with open(target, "wb") as out:
            run("cat", source, stdout=out)
    else:
        run("cp", f"--sparse={way}", source, target)


WAYS = ("always", "never", "cat")


@case("the nightly recipe: a full copy and seven increments while fio writes, and any night restored",
      needs=["qemu-img", "fio"], unpassed=True, timeout=300)
def nightly(env):
    rng = random.Random(3)
    m = three_roots(env)
    for root in ROOTS:
        scribble(m / root, rng, 30)
    writers = []
    for root in ROOTS:
        writers += [fio_job(m / root, "random", "--rw=randwrite"),
                    fio_job(m / root, "zeroes", "--rw=randwrite", "--zero_buffers"),
                    fio_job(m / root, "rewrites", "--rw=write", "--offset=1m", "--size=2m")]
    is_over = threading.Event()
    discarding = threading.Thread(target=keep_discarding, args=([m / r for r in ROOTS], is_over, 4))
    discarding.start()
    nights = [f"night{n}" for n in range(8)]
    instants = {}
    try:
        for number, night in enumerate(nights):
            before = {root: whole(m / root) for root in ROOTS}
            for root in ROOTS:
                wait_for(lambda r=root, last=before: whole(m / r) != last[r], "some writes")
            os.mkdir(m / f".bgfs/points/{night}")
            for root in ROOTS:
                point = m / f".bgfs/points/{night}/{root}"
                instants[night, root] = whole(point / "disk")
                way = WAYS[(number + ROOTS.index(root)) % len(WAYS)]
                if number == 0:
                    restore(way, point / "disk", env / f"{root}.full")
                    continue
                source = point / f"since/{nights[number - 1]}.qcow2"
                target = env / f"{root}.{night}.qcow2"
                restore(way, source, target)
                equal(target.stat().st_size, source.stat().st_size, "its length")
            run("sync", env.dir)
            run("rmdir", m / f".bgfs/points/{night}")
            if number:
                for root in ROOTS:
                    run("rmdir", m / f"{root}.d/bitmaps/{nights[number - 1]}")
        for w in writers:
            equal(w.poll(), None, f"fio goes on to the end ({w.args[1]})")
        equal(discarding.is_alive(), True, "discards go on to the end")
    finally:
        is_over.set()
        discarding.join()
        for w in writers:
            w.terminate()
        for w in writers:
            w.communicate()
    m.umount()
    equal(len({bytes(i) for (night, root), i in instants.items() if root == "flat"}), len(nights),
          "different instants")
    for root in ROOTS:
        below = (env / f"{root}.full", "raw")
        equal(below[0].read_bytes() == instants[nights[0], root], True, f"{root}, the first night")
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
        for number, night in enumerate(nights[1:]):
            restore(WAYS[number % len(WAYS)], m / night, env / "restored.raw")
            equal((env / "restored.raw").read_bytes() == instants[night, root], True,
                  f"{root} on {night}, mounted")
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


@case("reloads and snapshots of other roots go on around a point, and its own root stays as it is",
      needs=["qemu-img"], unpassed=True)
def beside_edits(env):
    (env / "kept").mkdir()
    names = ("disk", "side", "new")
    for name in names:
        env.qcow2(f"{name}.qcow2", SIZE)

    def graph(roots, **of_disk):
        options = of_disk.pop("node", {})
        return env.graph(
            [{"node-name": n, "driver": "qcow2", **(options if n == "disk" else {}),
              "file": {"driver": "file", "filename": str(env / f"{n}.qcow2")}} for n in roots],
            [{"name": n, "node-name": n, "writable": True,
              "snapshots": {"mode": "external", "directory": str(env / "kept")},
              **(of_disk if n == "disk" else {})} for n in roots])

    m = env.mount(graph(["disk", "side"]))
    pwrite(m / "disk", 0, b"1" * MiB)
    os.mkdir(m / "disk.d/bitmaps/b")
    pwrite(m / "disk", 0, b"2" * MiB)
    at = m / "disk.d/points/p"
    os.mkdir(at)
    pwrite(m / "disk", MiB // 2, b"3" * MiB)

    def stays():
        equal(pread(at / "disk", 0, 2 * MiB) == b"2" * MiB + bytes(MiB), True, "the instant")
        equal(pread(m / "disk", 0, 2 * MiB) == b"2" * (MiB // 2) + b"3" * MiB + bytes(MiB // 2),
              True, "the disk")
        equal(os.listdir(at / "since"), ["b.qcow2"], "increments")

    graph(["disk", "side", "new"])
    run(BGFS, "reload", m.path)
    stays()
    os.mkdir(m / "side.d/snapshots/s")
    pwrite(m / "side", 0, b"4" * MiB)
    stays()
    graph(["disk", "side"], mode="0640")  # what is no matter of nodes
    run(BGFS, "reload", m.path)
    equal(os.stat(m / "disk").st_mode & 0o7777, 0o640, "the mode")
    stays()
    for roots, of_disk in ((["side"], {}), (["disk", "side"], {"node": {"discard": "unmap"}}),
                           (["disk", "side"], {"writable": False}),
                           (["disk", "side"], {"iothread": "t"})):
        graph(roots, **of_disk)
        sentence = "cannot be changed while 'disk' has point 'p'; end it with rmdir disk.d/points/p"
        contains(m.read(".bgfs/reload-plan"), f"would be refused: root 'disk' and what it shares "
                 f"nodes with {sentence}", f"the plan of {roots} {of_disk}")
        for force in ([], ["--force"]):
            done = run(BGFS, "reload", *force, m.path, ok=False)
            equal(done.returncode != 0, True, f"reload {force}")
            contains(done.stderr, sentence, "its error")
        stays()
    graph(["disk", "side"], mode="0640")
    run("cp", at / "since/b.qcow2", env / "b.qcow2")
    qemu_check(env / "b.qcow2")
    run("rmdir", at)
    graph(["disk", "side"], node={"discard": "unmap"})
    run(BGFS, "reload", m.path)
    m.umount()
    qemu_check(env / "disk.qcow2")


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


EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"

# Stands for a command of the recipe: the one whose turn it is fails, or the recipe is killed before
# or after it.
FAULTY = """#!/bin/sh
turn=$(($(cat "$TURNS") + 1))
echo $turn > "$TURNS"
if [ $turn = "$FAULT" ]; then
  [ "$FAULT_KIND" != after ] || {real} "$@"
  [ "$FAULT_KIND" = fails ] || kill -KILL $PPID
  exit 1
fi
exec {real} "$@"
"""


def faulty_commands(env):
    where = env / "faulty"
    where.mkdir()
    for name in ("mkdir", "cp", "sync", "mv", "rmdir", "rm"):
        (where / name).write_text(FAULTY.replace("{real}", shutil.which(name)))
        (where / name).chmod(0o755)
    return where


def back_up(env, m, where, fault=0, kind=""):
    """Runs the recipe; True: it got to the end without meeting the fault."""
    (env / "turns").write_text("0")
    done = run(EXAMPLES / "nightly", m.path, where, ok=False,
               env={**os.environ, "PATH": f"{env / 'faulty'}:{os.environ['PATH']}",
                    "TURNS": str(env / "turns"), "FAULT": str(fault), "FAULT_KIND": kind})
    met = int((env / "turns").read_text()) >= fault > 0
    if not met:
        equal(done.returncode, 0, f"its end ({done.stderr})")
    else:
        check(done.returncode != 0, "a run of which a step failed succeeds")
    return not met


def runs_in(where):
    return sorted(n for n in os.listdir(where) if n.endswith("Z"))


@case("examples/nightly: whichever step fails or is the last before a kill, nothing is lost",
      needs=["qemu-img", "flock"], unpassed=True, timeout=300)
def example(env):
    rng = random.Random(6)
    m = three_roots(env)
    where = env / "backup"
    where.mkdir()
    faulty_commands(env)
    then = {}

    def note():
        for name in runs_in(where):
            then.setdefault(name, {root: whole(m / root) for root in ROOTS})

    steps = 0
    for kind in ("fails", "before", "after"):
        fault, is_over = 0, False
        while not is_over:
            for root in ROOTS:
                scribble(m / root, rng, 3)
            fault += 1
            known = runs_in(where)
            is_over = back_up(env, m, where, fault, kind)
            equal([n for n in known if n not in runs_in(where)], [], "runs that are gone")
            note()
            steps += not is_over
        equal(os.listdir(m / ".bgfs/points"), [], "points left by one that ended well")
        for root in ROOTS:
            equal(os.listdir(m / f"{root}.d/bitmaps"), runs_in(where)[-1:], "bitmaps")
        equal([n for n in os.listdir(where) if n.endswith(".part")], [], "copies left half done")
    check(steps > 30, "only", steps, "steps were made to fail")
    # Without space for the copies.
    full = env / "full"
    full.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full)
    try:
        done = run(EXAMPLES / "nightly", m.path, full, ok=False)
        check(done.returncode != 0, "a run without space succeeds")
        contains(done.stderr, "not all went well; the last run that is complete is none", "what it says")
        equal(os.listdir(full), ["lock"], "what it left")
    finally:
        run("umount", full)
    equal(os.listdir(m / ".bgfs/points"), [], "points left")
    with open(where / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(EXAMPLES / "nightly", m.path, where, ok=False)
        equal(done.returncode, 1, "a second run at once")
        contains(done.stderr, "another run is under way", "what it says")
    back_up(env, m, where)
    note()
    m.umount()
    for name in runs_in(where):
        for image in (where / name).glob("*.qcow2"):
            qemu_check(image)
    increments = [n for n in then if (where / n / "over.qcow2").exists()]
    check(len(increments) >= 7, "only", len(increments), "of", len(then), "runs are increments")
    (env / "nights.yaml").write_text(run(EXAMPLES / "nights", where).stdout)
    m = env.mount(env / "nights.yaml")
    for name, instants in then.items():
        for root in ROOTS:
            equal(whole(m / f"{root}.{name}") == instants[root], True, f"{root} of {name}")
    m.umount()
