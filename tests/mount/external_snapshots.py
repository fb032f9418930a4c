# SPDX-License-Identifier: MIT
"""`snapshots: {mode: external}`: overlays, for disks of any format, and what becomes of them."""
import errno
import json
import os
import random
import signal
import struct
import threading

from mount_suite import *  # noqa: F403

SIZE = 4 * MiB
ROOTS = ("flat", "image", "over")


def whole(path):
    with open(path, "rb") as f:
        return f.read()


def scribble(path, rng, count=12):
    for _ in range(count):
        at = rng.randrange(SIZE // 512) * 512
        length = min(SIZE - at, rng.randrange(1, 300) * 512)
        kind = rng.randrange(4)
        if kind < 2:
            mode = (FALLOC_ZERO_RANGE, FALLOC_PUNCH_HOLE)[kind] | FALLOC_KEEP_SIZE
            fallocate(path, mode, at, length)
        else:
            pwrite(path, at, rng.randbytes(length))


def graph_of(env, **export):
    """raw, qcow2, and qcow2 over a base."""
    if not (env / "flat.raw").exists():
        env.raw("flat.raw", SIZE)
        env.qcow2("image.qcow2", SIZE)
        env.qcow2("base.qcow2", SIZE)
        env.qcow2("over.qcow2", None, env / "base.qcow2")
        (env / "kept").mkdir()
    nodes = [{"node-name": "flat", "driver": "raw", "discard": "unmap",
              "file": {"driver": "file", "filename": str(env / "flat.raw")}}]
    nodes += [{"node-name": n, "driver": "qcow2", "discard": "unmap", **more,
               "file": {"driver": "file", "filename": str(env / f"{n}.qcow2")}}
              for n, more in (("image", {}), ("base", {"read-only": True}),
                              ("over", {"backing": "base"}))]
    return env.graph(nodes, [{"name": n, "node-name": n, "writable": True, "passthrough": "off",
                              "snapshots": {"mode": "external", "directory": "kept"}, **export}
                             for n in ROOTS])


def state_of(env):
    path = env / "graph.yaml.state"
    if not path.exists():
        return {}
    return json.loads("".join(line for line in path.read_text().splitlines(True)
                              if not line.startswith("#")))


def remove(path):
    run("rmdir", path)


def overlays(env):
    return sorted(os.listdir(env / "kept"))


@case("external snapshots of raw, qcow2 and a chain: each stays as it was, live and after a remount",
      needs=["qemu-img"], unpassed=True)
def made(env):
    rng = random.Random(1)
    m = env.mount(graph_of(env))
    then = {}
    for n in range(4):
        for root in ROOTS:
            scribble(m / root, rng)
            os.mkdir(m / f"{root}.d/snapshots/s{n}")
            then[root, n] = whole(m / root)
    for root in ROOTS:
        scribble(m / root, rng)
        then[root, "now"] = whole(m / root)
    for mounted in range(2):
        for root in ROOTS:
            top = m / f"{root}.d/snapshots"
            equal(sorted(os.listdir(top)), [f"s{n}" for n in range(4)], f"{root}: names")
            for n in range(4):
                equal(whole(top / f"s{n}/disk") == then[root, n], True, f"{root}, s{n}")
                equal(sorted(os.listdir(top / f"s{n}")),
                      ["disk", "hold", "info.json", "map", "map.json", "partitions"], "entries")
                equal(json.loads((top / f"s{n}/info.json").read_text())["virtual-size"], SIZE, "info")
                check(len(json.loads((top / f"s{n}/map.json").read_text())) > 0, "map.json")
            equal(whole(m / root) == then[root, "now"], True, f"{root} now")
            equal(sorted(os.listdir(m / f"{root}.d/layers"), key=len)[:5],
                  ["0", "1", "2", "3", "4"], "layers")
        m.umount()
        if mounted == 0:
            m = env.mount(graph_of(env))
    # Others find the same chain by the headers alone.
    state = state_of(env)
    for root in ROOTS:
        active = next(n for n in state["nodes"] if n["node-name"] == state["exports"][root])
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", active["file"]["filename"],
            env / "copy.raw")
        equal((env / "copy.raw").read_bytes() == then[root, "now"], True, f"{root} as others see it")
        run("qemu-img", "check", "-q", "-f", "qcow2", active["file"]["filename"])


@case("external snapshots are renamed, held and deleted one by one; the others stay, and space is given back",
      needs=["qemu-img"], unpassed=True)
def removed(env):
    rng = random.Random(2)
    m = env.mount(graph_of(env))
    for root in ROOTS:
        then = {}
        top = m / f"{root}.d/snapshots"
        for n in range(5):
            scribble(m / root, rng)
            os.mkdir(top / f"s{n}")
            then[f"s{n}"] = whole(m / root)
        scribble(m / root, rng)
        os.rename(top / "s3", top / "renamed")
        then["renamed"] = then.pop("s3")
        with fails_with(errno.EEXIST):
            os.mkdir(top / "s1")
        (top / "s1/hold").write_text("1")
        with fails_with(errno.EBUSY):
            os.rmdir(top / "s1")
        (top / "s1/hold").write_text("0")
        fd = os.open(top / "s1/disk", os.O_RDONLY)
        equal(run("rmdir", top / "s1", ok=False).returncode, 1, "one that is open is deleted")
        os.close(fd)
        now = whole(m / root)
        most = 0
        for name in ("s2", "s0", "s4", "renamed", "s1"):
            most = max(most, len(overlays(env)))
            remove(top / name)
            then.pop(name)
            equal(sorted(os.listdir(top)), sorted(then), f"{root}: names without {name}")
            for other, content in then.items():
                equal(whole(top / f"{other}/disk") == content, True, f"{root}: {other} without {name}")
            equal(whole(m / root) == now, True, f"{root} without {name}")
            scribble(m / root, rng, 3)
            now = whole(m / root)
            equal(m.read(f"{root}.d/last-error").count(" merge "), 0, m.read(f"{root}.d/last-error"))
        mine = [n for n in overlays(env) if n.startswith(f"{root}.")]
        equal(len(mine), 1, f"{root}: overlays left of {most}: {mine}")
    contents = {root: whole(m / root) for root in ROOTS}
    m.umount()
    m = env.mount(graph_of(env))
    for root in ROOTS:
        equal(whole(m / root) == contents[root], True, f"{root} after a remount")
        equal(os.listdir(m / f"{root}.d/snapshots"), [], "no snapshot")
    m.umount()
    state = state_of(env)
    for root in ROOTS:
        active = next(n for n in state["nodes"] if n["node-name"] == state["exports"][root])
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", active["file"]["filename"],
            env / "copy.raw")
        equal((env / "copy.raw").read_bytes() == contents[root], True, f"{root} by its headers")


def take_snapshots(disk, top, rng, count):
    """s0, s1, ...; what each holds."""
    then = {}
    for n in range(count):
        scribble(disk, rng)
        os.mkdir(top / f"s{n}")
        then[n] = whole(disk)
    return then


@case("reverting to an external snapshot, and back to a later one on another branch",
      needs=["qemu-img"], unpassed=True)
def reverted(env):
    rng = random.Random(3)
    m = env.mount(graph_of(env))
    for root in ROOTS:
        top = m / f"{root}.d/snapshots"
        then = take_snapshots(m / root, top, rng, 3)
        scribble(m / root, rng)
        fd = os.open(m / root, os.O_RDONLY)
        with fails_with(errno.EBUSY):
            m.command(f"{root}.d/ctl", "revert s1")
        os.close(fd)
        wait_for(lambda: m.read(f"{root}.d/openers") == "", "the disk to be closed")
        for n in (1, 2, 0, 2):
            m.command(f"{root}.d/ctl", f"revert s{n}")
            equal(whole(m / root) == then[n], True, f"{root}: s{n} is the disk")
            scribble(m / root, rng)
            changed = whole(m / root)
            for other in then:
                equal(whole(top / f"s{other}/disk") == then[other], True, f"{root}: s{other}")
            equal(whole(m / root) == changed, True, f"{root} goes on")
        os.mkdir(top / "branch")
        equal(whole(top / "branch/disk") == whole(m / root), True, "a snapshot on the branch")
        for name in ("s1", "s2", "branch", "s0"):
            remove(top / name)
            equal(whole(m / root) == changed, True, f"{root} without {name}")
        mine = [n for n in overlays(env) if n.startswith(f"{root}.")]
        equal(len(mine), 1, f"{root}: overlays left: {mine}")
    m.umount()


@case("reverting while snapshots are read, over the nodes that were opened for reading them",
      needs=["qemu-img"], unpassed=True)
def reverted_while_read(env):
    rng = random.Random(4)
    m = env.mount(graph_of(env))
    for root in ROOTS:
        top = m / f"{root}.d/snapshots"
        then = take_snapshots(m / root, top, rng, 4)
        reading = {}
        for n in (2, 1, 3, 0, 1, 0, 3, 2):
            for s in rng.sample(range(4), 2):
                if s not in reading:
                    reading[s] = os.open(top / f"s{s}/disk", os.O_RDONLY)
            m.command(f"{root}.d/ctl", f"revert s{n}")
            equal(whole(m / root) == then[n], True, f"{root}: s{n} is the disk")
            scribble(m / root, rng)
            for s, fd in reading.items():
                equal(os.pread(fd, len(then[s]), 0) == then[s], True, f"{root}: s{s} is read on")
            contains(m.read(".bgfs/graph.json"), f"/{root}.overlay-", "the graph")
            os.close(reading.pop(rng.choice(sorted(reading))))
        for fd in reading.values():
            os.close(fd)
        equal(m.read(f"{root}.d/last-error"), "", f"{root}: nothing went wrong")
        for n in range(4):
            remove(top / f"s{n}")
        wait_for(lambda: m.read(".bgfs/graph.json").count(f"/{root}.overlay-") <= 1,
                 f"the nodes of {root} that nobody needs to be closed")
    m.umount()


def stamp(paths, is_over, numbers):
    fds = [os.open(p, os.O_RDWR) for p in paths]
    n = 0
    while not is_over.is_set():
        n += 1
        os.pwrite(fds[n % len(fds)], struct.pack("<Q", n) * 64, (n // len(fds)) % 64 * 16384)
        numbers[0] = n
    for fd in fds:
        os.close(fd)


@case(".bgfs/snapshots with external ones is one instant of all roots, under writes; all or none",
      needs=["qemu-img"], unpassed=True)
def group(env):
    m = env.mount(graph_of(env))
    is_over, numbers = threading.Event(), [0]
    writer = threading.Thread(target=stamp, args=([m / r for r in ROOTS], is_over, numbers))
    writer.start()
    try:
        for i in range(5):
            wait_for(lambda least=numbers[0] + 300: numbers[0] > least, "some numbers")
            os.mkdir(m / f".bgfs/snapshots/g{i}")
            after = numbers[0]
            found = {}
            for index, root in enumerate(ROOTS):
                for place in range(64):
                    n, = struct.unpack("<Q", pread(m / f"{root}.d/snapshots/g{i}/disk",
                                                   place * 16384, 8))
                    if n:
                        equal(n % len(ROOTS), index, "a number's root")
                        found[n] = place
            newest = max(found)
            check(newest <= after + 1, "newest", newest, "after", after)
            for n in range(max(1, newest - 64 * len(ROOTS) + 1), newest + 1):
                check(n in found, "number", n, "of", newest, "is missing")
        os.mkdir(m / "image.d/snapshots/taken")
        equal(run("mkdir", m / ".bgfs/snapshots/taken", ok=False).returncode, 1, "one is there")
        equal([os.path.exists(m / f"{r}.d/snapshots/taken") for r in ROOTS], [False, True, False],
              "all or none")
        for i in range(5):
            remove(m / f".bgfs/snapshots/g{i}")
        remove(m / "image.d/snapshots/taken")
    finally:
        is_over.set()
        writer.join()
    equal([n for r in ROOTS for n in os.listdir(m / f"{r}.d/snapshots")], [], "snapshots left")
    equal(len(overlays(env)), len(ROOTS), "overlays left")
    m.umount()


@case("who is killed while external snapshots come and go finds every one as it was",
      needs=["qemu-img"], unpassed=True, timeout=300)
def killed(env):
    rng = random.Random(5)
    m = env.mount(graph_of(env))
    then, number = {r: {} for r in ROOTS}, 0
    for turn in range(6):
        for root in ROOTS:
            scribble(m / root, rng, 4)
            fsync(m / root)
        contents = {root: whole(m / root) for root in ROOTS}
        is_over = threading.Event()

        def churn(done=is_over, names=number):
            try:
                while not done.is_set():
                    names += 1
                    for root in ROOTS:
                        os.mkdir(m / f"{root}.d/snapshots/k{names}")
                    for root in ROOTS:
                        known = sorted(os.listdir(m / f"{root}.d/snapshots"))
                        if len(known) > 3:
                            run("rmdir", m / f"{root}.d/snapshots" / rng.choice(known), ok=False)
            except OSError:
                pass

        worker = threading.Thread(target=churn)
        worker.start()
        is_over.wait(rng.random() * 0.4)
        pid = m.pid
        os.kill(pid, signal.SIGKILL)
        is_over.set()
        worker.join()
        number += 1000
        wait_for(lambda p=pid: not os.path.exists(f"/proc/{p}"), "the end of the daemon")
        run("umount", "-l", m.path, ok=False)
        m = env.mount(graph_of(env))
        for root in ROOTS:
            equal(whole(m / root) == contents[root], True, f"{root}, turn {turn}")
            known = os.listdir(m / f"{root}.d/snapshots")
            for name in known:
                content = whole(m / f"{root}.d/snapshots/{name}/disk")
                if name in then[root]:
                    equal(content == then[root][name], True, f"{root}: {name}, turn {turn}")
                else:
                    equal(content == contents[root], True, f"{root}: {name} is new, turn {turn}")
            then[root] = {n: whole(m / f"{root}.d/snapshots/{n}/disk") for n in known}
    m.umount()


@case("external snapshots of a disk that grows all the time take nothing of it away",
      needs=["qemu-img"], unpassed=True)
def growing(env):
    m = env.mount(graph_of(env, growable=True))
    is_over, written = threading.Event(), {}

    def append(root):
        fd = os.open(m / root, os.O_WRONLY)
        at = SIZE
        while not is_over.is_set() and at < 16 * SIZE:
            data = struct.pack("<Q", at) * 512
            os.pwrite(fd, data, at)
            at += len(data)
        written[root] = at
        os.close(fd)

    writers = [threading.Thread(target=append, args=(r,)) for r in ROOTS]
    for w in writers:
        w.start()
    lengths = {r: [] for r in ROOTS}
    for n in range(8):
        for root in ROOTS:
            os.mkdir(m / f"{root}.d/snapshots/s{n}")
            lengths[root].append(os.stat(m / f"{root}.d/snapshots/s{n}/disk").st_size)
    is_over.set()
    for w in writers:
        w.join()
    for root in ROOTS:
        for at in range(SIZE, written[root], 4096):
            if pread(m / root, at, 8) != struct.pack("<Q", at):
                raise Failure(f"{root}: what was written at {at:#x} is gone")
        equal(os.stat(m / root).st_size, written[root], f"{root}: length")
        equal(lengths[root], sorted(lengths[root]), f"{root}: lengths of its snapshots")
        check(lengths[root][-1] > SIZE, f"{root} did not grow meanwhile")
        for n, length in enumerate(lengths[root]):
            content = whole(m / f"{root}.d/snapshots/s{n}/disk")
            equal(len(content), length, f"{root}, s{n}: length")
            for at in range(SIZE, length - 4095, 4096):
                may_be = [struct.pack("<Q", at)] + [bytes(8)] * (at + 4096 == length)  # on its way
                check(content[at:at + 8] in may_be, f"{root}, s{n} at {at:#x}: {content[at:at + 8]}")
    m.umount()


@case("`bgfs snapshot` and info know the external snapshots of a mounted disk",
      needs=["qemu-img"], unpassed=True)
def commands(env):
    m = env.mount(graph_of(env))
    for root in ROOTS:
        for name in ("one", "two"):
            run(BGFS, "snapshot", "-c", name, m / root)
        listed = run(BGFS, "snapshot", "-l", m / root).stdout
        equal([line.split()[1] for line in listed.splitlines()[2:]], ["one", "two"], "the list")
        equal([s["name"] for s in json.loads(m.read(f"{root}.d/info.json"))["snapshots"]],
              ["one", "two"], "info.json")
        pwrite(m / root, 0, b"later")
        wait_for(lambda r=root: m.read(f"{r}.d/openers") == "", "the disk to be closed")
        run(BGFS, "snapshot", "-a", "one", m / root)
        equal(pread(m / root, 0, 5), bytes(5), f"{root}, reverted")
        run(BGFS, "snapshot", "-d", "one", m / root)
        equal(os.listdir(m / f"{root}.d/snapshots"), ["two"], "what is left")
        run(BGFS, "snapshot", "-d", "two", m / root)
        check("snapshots" not in json.loads(m.read(f"{root}.d/info.json")), "info.json lists any")


@case("another root that shows a snapshot of its own accord stays there when the disk is reverted",
      needs=["qemu-img"], unpassed=True)
def other_root(env):
    m = env.mount(graph_of(env))
    pwrite(m / "flat", 0, b"then")
    os.mkdir(m / "flat.d/snapshots/s")
    graph = json.loads((env / "graph.yaml").read_text())
    graph["exports"].append({"name": "golden", "node-name": "flat"})
    (env / "graph.yaml").write_text(json.dumps(graph))
    m.command(".bgfs/reload", "1")
    equal(pread(m / "golden", 0, 4), b"then", "golden")
    for text in (b"now1", b"now2"):
        pwrite(m / "flat", 0, text)
        equal(pread(m / "golden", 0, 4), b"then", "golden, when the disk was written to")
        m.command("flat.d/ctl", "revert s")
        equal(pread(m / "flat", 0, 4), b"then", "the disk, reverted")
    pwrite(m / "flat", 0, b"now3")
    equal(pread(m / "golden", 0, 4), b"then", "golden, at last")
    remove(m / "flat.d/snapshots/s")
    equal((pread(m / "golden", 0, 4), pread(m / "flat", 0, 4)), (b"then", b"now3"), "without it")


@case("what stands in the way of an external snapshot is said, and nothing is left of it",
      needs=["qemu-img"], unpassed=True)
def refused(env):
    m = env.mount(graph_of(env))

    def last(root="flat"):
        return m.read(f"{root}.d/last-error").splitlines()[-1]

    os.mkdir(m / "flat.d/bitmaps/b")
    with fails_with(errno.EBUSY):
        os.mkdir(m / "flat.d/snapshots/s")
    contains(last(), "'flat' has bitmap 'b', which would not see", "last-error")
    remove(m / "flat.d/bitmaps/b")
    os.mkdir(m / "flat.d/points/p")
    with fails_with(errno.EBUSY):
        os.mkdir(m / "flat.d/snapshots/s")
    contains(last(), "has point 'p'", "last-error")
    remove(m / "flat.d/points/p")
    remove(m / "flat.d/bitmaps/p")
    graph = env / "graph.yaml"
    text = graph.read_text()
    graph.write_text(text.replace('"node-name": "image"', '"node-name": "other"'))
    with fails_with(errno.EBUSY):
        os.mkdir(m / "flat.d/snapshots/s")
    contains(last(), "was edited since it was read; reload it first", "last-error")
    graph.write_text(text)
    os.rmdir(env / "kept")
    with fails_with(errno.ENOENT):
        os.mkdir(m / "flat.d/snapshots/s")
    contains(last(), "cannot make the overlay", "last-error")
    os.mkdir(env / "kept")
    equal((overlays(env), state_of(env)), ([], {}), "what is left")
    with fails_with(errno.ENOENT):
        os.rmdir(m / "flat.d/snapshots/none")
    with fails_with(errno.ENOENT):
        m.command("flat.d/ctl", "revert none")
    os.mkdir(m / "flat.d/snapshots/s")
    pwrite(m / "flat", 0, b"later")
    with fails_with(errno.EBUSY):
        m.command("flat.d/ctl", "commit")
    contains(last(), "what is below it is snapshot 's' of 'flat'", "last-error")
    equal(pread(m / "flat.d/snapshots/s/disk", 0, 5), bytes(5), "the snapshot")
    with fails_with(errno.ENOTEMPTY):
        os.listdir(m / "flat.d/snapshots/s")
        os.rmdir(m / "flat.d/snapshots/s")
    m.umount()
    with fails_with(errno.EROFS):
        m = env.mount(graph, "-o", "ro")
        os.mkdir(m / "flat.d/snapshots/t")
    m.umount()
    # One root of another kind: there is no common instant.
    (env / "graph.yaml.state").unlink()
    exports = json.loads(text)["exports"]
    exports[1].pop("snapshots")
    m = env.mount(env.graph(json.loads(text)["nodes"], exports))
    with fails_with(errno.EOPNOTSUPP):
        os.mkdir(m / ".bgfs/snapshots/g")
    contains(m.read(".bgfs/last-error"), "do not both keep external snapshots", "last-error")


@case("an encrypted image and a filter have no external snapshots, and say why",
      needs=["qemu-img"], unpassed=True)
def not_for(env):
    (env / "kept").mkdir()
    (env / "key").write_text("secret")
    (env / "key").chmod(0o600)
    run(BGFS, "create", "-q", "-f", "qcow2", "--object", f"secret,id=k,file={env / 'key'}",
        "-o", "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10", env / "e.qcow2", "1M")
    env.raw("a.raw", MiB)
    external = {"snapshots": {"mode": "external", "directory": "kept"}, "writable": True}
    nodes = [{"node-name": "e", "driver": "qcow2", "encrypt": {"format": "luks", "key-secret": "k"},
              "file": {"driver": "file", "filename": str(env / "e.qcow2")}},
             {"node-name": "f", "driver": "copy-on-read",
              "file": {"node-name": "a", "driver": "raw",
                       "file": {"driver": "file", "filename": str(env / "a.raw")}}}]
    m = env.mount(env.graph(nodes, [{"name": "e", "node-name": "e", **external},
                                    {"name": "f", "node-name": "f", **external}],
                            secrets=[{"id": "k", "file": str(env / "key")}]))
    for root, sentence in (("e", "'e' is encrypted"), ("f", "which is no image by itself")):
        with fails_with(errno.EOPNOTSUPP):
            os.mkdir(m / f"{root}.d/snapshots/s")
        contains(m.read(f"{root}.d/last-error"), sentence, "last-error")
    equal(os.listdir(env / "kept"), [], "what is left")
