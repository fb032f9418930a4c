# SPDX-License-Identifier: MIT
"""Internal snapshots: as roots of their own beside the live disk, and NAME.d/snapshots/."""
import ctypes
import errno
import mmap
import os
import random
import signal
import struct
import subprocess
import threading
import time

from mount_suite import *  # noqa: F403


@case("a snapshot is a root beside the live disk and stays as it is while that is written",
      needs=["qemu-img", "qemu-io"], as_written=True)  # it shares a node with one that is written
def beside_the_live_disk(env):
    image = env.qcow2("a.qcow2", "8M", options="cluster_size=4k")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 3M", image)
    run(BGFS, "snapshot", "-c", "first", image)
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 2 1M 3M", image)
    run("qemu-img", "snapshot", "-c", "second", image)
    view = {"driver": "internal-snapshot", "read-only": True, "file": "live"}
    graph = env.graph(
        [{"node-name": "live", "driver": "qcow2", "discard": "unmap",
          "file": {"driver": "file", "filename": str(image)}},
         {"node-name": "one", "snapshot-name": "first", **view},
         {"node-name": "two", "snapshot-id": "2", **view}],
        [{"name": "live", "node-name": "live", "writable": True},
         {"name": "one", "node-name": "one"}, {"name": "two", "node-name": "two"}])
    run(BGFS, "config", "check", graph)
    m = env.mount(graph)
    first = b"\1" * (3 * MiB) + bytes(5 * MiB)
    second = b"\1" * MiB + b"\2" * (3 * MiB) + bytes(4 * MiB)
    live = bytearray(second)
    chance = random.Random(1)
    for round_ in range(60):
        at = chance.randrange(8 * MiB - 100_000)
        data = pattern(chance.randrange(1, 100_000), round_)
        pwrite(m / "live", at, data)
        live[at:at + len(data)] = data
        if round_ % 10 == 0:
            fallocate(m / "live", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, at, 65536)
            live[at:at + 65536] = bytes(65536)
            check(pread(m / "one", 0, 8 * MiB) == first, "the first snapshot")
            check(pread(m / "two", 0, 8 * MiB) == second, "the second snapshot")
    equal(data_ranges(m / "one"), [(0, 3 * MiB)], "where the first has data")
    check(pread(m / "live", 0, 8 * MiB) == bytes(live), "the live disk")
    with fails_with(errno.EACCES, errno.EPERM, errno.EROFS):
        pwrite(m / "one", 0, b"x")
    m.umount()
    run("qemu-img", "check", "-q", image)
    for name, content in (("first", first), ("second", second)):
        run("qemu-img", "convert", "-l", name, "-O", "raw", image, env / "o.raw")
        check((env / "o.raw").read_bytes() == content, name)


def names_of(image):
    """What the peer says of an image that nobody serves."""
    out = run("qemu-img", "info", "--output=json", image).stdout
    import json
    return [s["name"] for s in json.loads(out).get("snapshots", [])]


def last_error(m, root="disk"):
    return m.read(f"{root}.d/last-error").splitlines()[-1]


def converted(env, image, name):
    """The bytes of a snapshot, by the peer."""
    run("qemu-img", "convert", "-l", f"snapshot.name={name}", "-O", "raw", image, env / "o.raw")
    return (env / "o.raw").read_bytes()


@case("mkdir, rmdir and mv create, delete and rename snapshots, as the peer sees them",
      needs=["qemu-img"])
def made_and_removed(env):
    image = env.qcow2("a.qcow2", "4M")
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/snapshots"
    equal(os.listdir(at), [], "at first")
    check("snapshots" in os.listdir(m / "disk.d"), "the directory is listed")
    pwrite(m / "disk", 0, b"first")
    os.mkdir(at / "first")
    pwrite(m / "disk", 0, b"second")
    os.mkdir(at / "second")
    os.mkdir(at / "g\u00fcnther 50% %id=1")
    pwrite(m / "disk", 0, b"live!!")
    equal(sorted(os.listdir(at)), ["first", "g\u00fcnther 50% %id=1", "second"], "the names")
    equal(sorted(os.listdir(at / "first")),
          ["disk", "hold", "info.json", "map", "map.json", "partitions", "vmstate"], "what one has")
    for name, data in (("first", b"first\0"), ("second", b"second")):
        equal(pread(at / name / "disk", 0, 6), data, name)
        equal(os.stat(at / name / "disk").st_size, 4 * MiB, "its length")
    with fails_with(errno.EEXIST):
        os.mkdir(at / "first")
    os.rename(at / "first", at / "f")
    equal(pread(at / "f/disk", 0, 6), b"first\0", "renamed")
    check(not os.path.exists(at / "first"), "the former name")
    with fails_with(errno.EEXIST):
        os.rename(at / "f", at / "second")
    with fails_with(errno.EEXIST):
        renameat2(at / "f", at / "second", RENAME_NOREPLACE)
    renameat2(at / "f", at / "first again", RENAME_NOREPLACE)
    with fails_with(errno.EINVAL):
        renameat2(at / "first again", at / "second", RENAME_EXCHANGE)
    with fails_with(errno.EPERM):  # not EXDEV, after which mv copies and deletes
        os.rename(at / "second", m / "disk.d/second")
    with fails_with(errno.EPERM):
        os.rename(at / "second", at / "first again/second")
    os.rmdir(at / "second")
    check(not os.path.exists(at / "second"), "removed")
    with fails_with(errno.ENOENT):
        os.rmdir(at / "second")
    m.umount()
    equal(names_of(image), ["first again", "g\u00fcnther 50% %id=1"], "as the peer lists them")
    equal(converted(env, image, "first again")[:6], b"first\0", "as the peer reads it")
    qemu_check(image)


RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(source, target, flags):
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@case("names of new snapshots: what is refused says so, 240 bytes are allowed", needs=["qemu-img"])
def new_names(env):
    image = env.qcow2("a.qcow2", "1M")
    m = env.mount(env.simple(image, "qcow2"))
    at = os.fsencode(m / "disk.d/snapshots") + b"/"
    for bad, part in ((b"a\nb", "control"), (b"\x7f", "control"), (b"\xff\xfe", "UTF-8"),
                      (b"x" * 241, "240")):
        with fails_with(errno.EINVAL):
            os.mkdir(at + bad)
        contains(last_error(m), part, "last-error")
        contains(last_error(m), " mkdir EINVAL ", "last-error")
    os.mkdir(at + b"x" * 240)
    os.mkdir(at + "\u00fc".encode() * 120)
    os.mkdir(at + b"..a")
    with fails_with(errno.EINVAL):
        os.rename(at + b"..a", at + b"a\tb")
    equal(len(os.listdir(at)), 3, "those that were made")


@case("foreign names show with %XX and %id, and can be looked up, renamed, reverted to and removed",
      needs=["qemu-img"])
def foreign_names(env):
    image = env.qcow2("a.qcow2", "1M")
    make_snapshots(image, [b"same", b"same", b"a/b", b"tab\there", b"\xff", b".", b"..", b"",
                           b"long" * 200, b"same", b"a%2Fb", b"same%id=2"])
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/snapshots"
    shown = os.listdir(at)
    equal(len(set(shown)), 12, "as many names as snapshots")
    equal(shown[:8], ["same", "same%id=2%id=2", "a%2Fb%id=3", "tab%09here",
                      "%FF", "%2E", "%2E.", "%id=8"], "the names")
    check(shown[9] == "same%id=10", "a third of one name", shown)
    equal(shown[10:], ["a%2Fb", "same%id=2"], "names that look like that are their owners'")
    check(len(shown[8]) <= 255 and shown[8].startswith("longlong") and
          shown[8].endswith("%id=9"), "a long one", shown[8])
    for name in shown:
        equal(os.stat(at / name / "disk").st_size, 1 * MiB, name)
    m.command("disk.d/ctl", "revert %id=8")
    os.rename(at / "tab%09here", at / "tab")
    for name in ("%FF", "%2E", "%2E.", "%id=8", "same%id=10", shown[8], "a%2Fb%id=3"):
        os.rmdir(at / name)
    os.rmdir(at / "same")
    m.umount()
    equal(sorted(names_of(image)), ["a%2Fb", "same", "same%id=2", "tab"], "what is left")
    qemu_check(image)


def make_snapshots(image, names):
    """Writes a table of snapshots into an image that has none: each shows an empty disk, of which
    nothing is allocated. Dates differ."""
    with open(image, "r+b") as f:
        head = f.read(104)
        cluster = 1 << struct.unpack(">I", head[20:24])[0]
        size = struct.unpack(">Q", head[24:32])[0]
        entries = struct.unpack(">I", head[36:40])[0]
        rc_offset = struct.unpack(">Q", head[48:56])[0]
        end = os.fstat(f.fileno()).st_size
        end += -end % cluster
        l1_at = end  # all have an L1 table of their own
        l1_clusters = -(-entries * 8 // cluster)
        parts, clusters = [], l1_clusters * len(names)
        for i, name in enumerate(names):
            ident = str(i + 1).encode()
            entry = struct.pack(">QIHHIIQII", l1_at + i * l1_clusters * cluster, entries, len(ident),
                                len(name), 1700000000 + i, 0, 0, 0, 16)
            entry += struct.pack(">QQ", 0, size) + ident + name
            parts.append(entry + bytes(-len(entry) % 8))
        table = b"".join(parts)
        table_at = end + clusters * cluster
        table_clusters = -(-len(table) // cluster)
        f.seek(table_at + table_clusters * cluster - 1)
        f.write(b"\0")
        f.seek(table_at)
        f.write(table)
        f.seek(rc_offset)  # refcounts: in blocks behind everything
        first, last = end // cluster, table_at // cluster + table_clusters
        per_block = cluster // 2
        f.seek(60)
        f.write(struct.pack(">IQ", len(names), table_at))
        f.seek(rc_offset)
        rc_table = bytearray(f.read(cluster))
        at = last * cluster
        blocks = {}
        block_index = 0
        while block_index * per_block < last + len(blocks):
            offset = struct.unpack(">Q", rc_table[block_index * 8:block_index * 8 + 8])[0]
            if offset == 0:
                offset = at
                at += cluster
                rc_table[block_index * 8:block_index * 8 + 8] = struct.pack(">Q", offset)
                blocks[block_index] = bytearray(cluster)
            else:
                f.seek(offset)
                blocks[block_index] = bytearray(f.read(cluster))
            blocks[block_index, "at"] = offset
            block_index += 1
        for c in range(first, at // cluster):
            blocks[c // per_block][c % per_block * 2:c % per_block * 2 + 2] = b"\0\1"
        for i in range(block_index):
            f.seek(blocks[i, "at"])
            f.write(blocks[i])
        f.seek(rc_offset)
        f.write(rc_table)


@case("every snapshot taken while a counter is stamped over the disk holds a prefix of it",
      needs=["qemu-img"], timeout=240)
def prefixes(env):
    """Writers stamp rising numbers, each writer into blocks of its own; whatever number a snapshot
    holds, it holds all that were answered before it."""
    image = env.qcow2("a.qcow2", "16M", options="cluster_size=4k")
    m = env.mount(env.simple(image, "qcow2"))
    stop = threading.Event()
    floors = {}  # name -> what was answered before mkdir was called, and after it had returned
    answered = [0] * 4

    def stamp(who):
        fd = os.open(m / "disk", os.O_RDWR)
        number, chance = 0, random.Random(who)
        while not stop.is_set():
            number += 1
            # The number into a random block, then into the one that says how far it came.
            os.pwrite(fd, struct.pack("<QQ", who, number),
                      (who * 1024 + 1 + chance.randrange(1000)) * 4096)
            os.pwrite(fd, struct.pack("<QQ", who, number), who * 1024 * 4096)
            answered[who] = number
        os.close(fd)

    threads = [threading.Thread(target=stamp, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    held = []
    for i in range(12):
        time.sleep(0.1)
        before = list(answered)
        os.mkdir(m / f"disk.d/snapshots/s{i}")
        floors[f"s{i}"] = (before, list(answered))
        if i % 3 == 0:  # open while more are taken and the disk is written
            held.append((f"s{i}", os.open(m / f"disk.d/snapshots/s{i}/disk", os.O_RDONLY)))
    stop.set()
    for t in threads:
        t.join()
    kept = {}
    for name, (before, after) in floors.items():
        content = pread(m / f"disk.d/snapshots/{name}/disk", 0, 16 * MiB)
        kept[name] = content
        for who in range(4):
            _, reached = struct.unpack_from("<QQ", content, who * 1024 * 4096)
            check(before[who] <= reached <= after[who] + 1, name, who, before, reached, after)
            last = 0
            chance = random.Random(who)
            newest = {}
            for number in range(1, reached + 1):
                newest[chance.randrange(1000)] = number
            # One more may have been written that was not yet said to be.
            extra = chance.randrange(1000)
            for block in range(1000):
                _, found = struct.unpack_from("<QQ", content, (who * 1024 + 1 + block) * 4096)
                wanted = newest.get(block, 0)
                check(found == wanted or (block == extra and found == reached + 1),
                      name, who, block, found, wanted, reached)
    for name, fd in held:
        equal(os.pread(fd, 16 * MiB, 0) == kept[name], True, f"{name}, open all the time")
        os.close(fd)
    m.umount()
    qemu_check(image)
    for name, content in kept.items():
        check(converted(env, image, name) == content, name, "as the peer reads it")


@case("a snapshot in use, held, or listed is not deleted; the sentence says by whom",
      needs=["qemu-img", "rmdir", "ls"])
def kept(env):
    image = env.qcow2("a.qcow2", "1M")
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/snapshots"
    os.mkdir(at / "a")
    for part in ("disk", "vmstate"):
        fd = os.open(at / "a" / part, os.O_RDONLY)
        with fails_with(errno.EBUSY):
            os.rmdir(at / "a")
        contains(last_error(m), f"process {os.getpid()} (python3)", "last-error")
        os.close(fd)
    m.command("disk.d/snapshots/a/hold", "1")
    equal(m.read("disk.d/snapshots/a/hold"), "1\n", "hold")
    os.rename(at / "a", at / "b")
    equal(m.read("disk.d/snapshots/b/hold"), "1\n", "it is the snapshot that is held")
    with fails_with(errno.EBUSY):
        os.rmdir(at / "b")
    contains(last_error(m), "hold", "last-error")
    equal(m.refusal("disk.d/snapshots/b/hold", "2")[0], errno.EINVAL, "nonsense")
    m.command("disk.d/snapshots/b/hold", "0")
    os.listdir(at)  # of the parent: says nothing
    run("ls", at / "b")
    os.rmdir(at / "b")
    os.mkdir(at / "c")
    os.listdir(at / "c")
    with fails_with(errno.ENOTEMPTY):
        os.rmdir(at / "c")
    contains(last_error(m), f"process {os.getpid()}", "last-error")
    # In whatever thread.
    outcome = []
    def try_it():
        try:
            os.rmdir(at / "c")
        except OSError as e:
            outcome.append(e.errno)
    t = threading.Thread(target=try_it)
    t.start()
    t.join()
    equal(outcome, [errno.ENOTEMPTY], "another thread of the same process")
    run("rmdir", at / "c")
    os.mkdir(at / "c")  # another one: not looked into
    os.rmdir(at / "c")


@case("what one root holds no other root of the same image deletes", needs=["qemu-img"],
      as_written=True)
def held_elsewhere(env):
    image = env.qcow2("a.qcow2", "1M")
    nodes = [{"node-name": "n", "driver": "qcow2",
              "file": {"driver": "file", "filename": str(image)}}]
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": "n", "writable": True}
                                    for n in ("one", "two")]))
    os.mkdir(m / "one.d/snapshots/s")
    equal(os.listdir(m / "two.d/snapshots"), ["s"], "both show it")
    m.command("one.d/snapshots/s/hold", "1")
    with fails_with(errno.EBUSY):
        os.rmdir(m / "two.d/snapshots/s")
    contains(last_error(m, "two"), "one.d/snapshots", "last-error")
    m.command("one.d/snapshots/s/hold", "0")
    fd = os.open(m / "one.d/snapshots/s/disk", os.O_RDONLY)
    with fails_with(errno.EBUSY):
        os.rmdir(m / "two.d/snapshots/s")
    contains(last_error(m, "two"), "#one.d/snapshots/", "last-error")
    other = os.open(m / "one", os.O_RDONLY)
    number, sentence = m.refusal("two.d/ctl", "revert s")
    equal(number, errno.EBUSY, "open through the other")
    os.close(other)
    os.close(fd)
    wait_for(lambda: m.read("one.d/openers") == "", "the release")
    m.command("two.d/ctl", "revert s")
    os.rmdir(m / "two.d/snapshots/s")


@case("what was known of a removed snapshot does not become a later one of its name",
      needs=["qemu-img", "rmdir", "mkdir"])
def not_confused(env):
    image = env.qcow2("a.qcow2", "1M")
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/snapshots"
    pwrite(m / "disk", 0, b"old")
    os.mkdir(at / "a")
    inside = os.open(at / "a", os.O_PATH | os.O_DIRECTORY)
    run("rmdir", at / "a")
    pwrite(m / "disk", 0, b"new")
    run("mkdir", at / "a")  # the same name, and the same id
    with fails_with(errno.ENOENT, errno.ESTALE):
        os.open("disk", os.O_RDONLY, dir_fd=inside)
    equal(pread(at / "a/disk", 0, 3), b"new", "the later one")
    os.close(inside)
    # Names that change places.
    pwrite(m / "disk", 0, b"2nd")
    os.mkdir(at / "b")
    fd = os.open(at / "a/disk", os.O_RDONLY)
    os.rename(at / "a", at / "c")
    os.rename(at / "b", at / "a")
    os.rename(at / "c", at / "b")
    equal(pread(at / "a/disk", 0, 3), b"2nd", "a")
    equal(pread(at / "b/disk", 0, 3), b"new", "b")
    equal(os.pread(fd, 3, 0), b"new", "what was opened before stays what it was")
    os.close(fd)


@case("revert makes the disk what it was, for whoever opens it then, through every cache",
      needs=["qemu-img", "cat"], timeout=120, as_written=True)
def reverted(env):
    for cache in ("none", "kernel"):
        image = env.qcow2(f"{cache}.qcow2", "4M")
        m = env.mount(env.simple(image, "qcow2", cache=cache, growable=True), name=cache)
        pwrite(m / "disk", 0, pattern(1 * MiB, 1))
        os.mkdir(m / "disk.d/snapshots/before")
        pwrite(m / "disk", 0, pattern(1 * MiB, 2))
        m.command("disk.d/size", "8M")
        os.mkdir(m / "disk.d/snapshots/after")
        check(pread(m / "disk", 0, MiB) == pattern(MiB, 2), "as it was written")
        fd = os.open(m / "disk", os.O_RDONLY)
        mapped = None
        try:
            mapped = mmap.mmap(fd, 8 * MiB, mmap.MAP_PRIVATE, mmap.PROT_READ)
        except OSError:
            check(cache == "none", "cached files can be mapped")
        number, sentence = m.refusal("disk.d/ctl", "revert before")
        equal(number, errno.EBUSY, "while it is open")
        contains(sentence, f"process {os.getpid()} (python3)", "the sentence")
        if mapped is not None:
            mapped.close()
        os.close(fd)
        layer = os.open(m / "disk.d/layers/0/disk", os.O_RDONLY)
        wait_for(lambda: m.read("disk.d/openers").count("\n") == 1, "the release")
        number, sentence = m.refusal("disk.d/ctl", "revert before")
        equal(number, errno.EBUSY, "while its live layer is open")
        contains(sentence, "disk.d/layers/0/disk", "the sentence")
        os.close(layer)
        wait_for(lambda: m.read("disk.d/openers") == "", "the release")
        aside = os.open(m / "disk.d/snapshots/after/disk", os.O_RDONLY)
        time_before = os.stat(m / "disk").st_mtime_ns
        m.command("disk.d/ctl", "revert before")
        equal(os.stat(m / "disk").st_size, 4 * MiB, f"st_size, cache: {cache}")
        check(os.stat(m / "disk").st_mtime_ns > time_before, "st_mtime")
        check(pread(m / "disk", 0, MiB) == pattern(MiB, 1), f"its bytes, cache: {cache}")
        direct = os.open(m / "disk", os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, MiB) as page:
            os.preadv(direct, [page], 0)
            check(page[:] == pattern(MiB, 1), "read past the cache")
        os.close(direct)
        if cache == "kernel":
            fd = os.open(m / "disk", os.O_RDONLY)
            with mmap.mmap(fd, MiB, mmap.MAP_SHARED, mmap.PROT_READ) as page:
                check(page[:] == pattern(MiB, 1), "mapped")
            os.close(fd)
        check(os.pread(aside, MiB, 0) == pattern(MiB, 2), "another snapshot stays what it is")
        os.close(aside)
        wait_for(lambda: m.read("disk.d/openers") == "", "the release")
        m.command("disk.d/ctl", "revert after")
        equal(os.stat(m / "disk").st_size, 8 * MiB, "and forth")
        check(pread(m / "disk", 0, MiB) == pattern(MiB, 2), "and forth")
        for verb in ("revert", "revert nothing"):
            check(m.refusal("disk.d/ctl", verb)[0] in (errno.EINVAL, errno.ENOENT), verb)
        m.umount()
        qemu_check(image)
        check(converted(env, image, "before")[:MiB] == pattern(MiB, 1), "before")


@case("where there can be no snapshots mkdir says why and what to do", needs=["qemu-img"])
def refused(env):
    raw = env.raw("r.raw", MiB)
    m = env.mount(env.simple(raw), name="raw")
    equal(os.listdir(m / "disk.d/snapshots"), [], "of a raw disk")
    with fails_with(errno.EOPNOTSUPP):
        os.mkdir(m / "disk.d/snapshots/a")
    contains(last_error(m), "qcow2", "last-error")
    m.umount()
    image = env.qcow2("a.qcow2", "1M")
    run("qemu-img", "snapshot", "-c", "there", image)
    m = env.mount(env.simple(image, "qcow2", writable=False), name="ro")
    for attempt in (lambda: os.mkdir(m / "disk.d/snapshots/a"),
                    lambda: os.rmdir(m / "disk.d/snapshots/there"),
                    lambda: os.rename(m / "disk.d/snapshots/there", m / "disk.d/snapshots/b")):
        with fails_with(errno.EROFS):
            attempt()
        contains(last_error(m), "read-only", "last-error")
    equal(m.refusal("disk.d/ctl", "revert there")[0], errno.EROFS, "revert")
    equal(pread(m / "disk.d/snapshots/there/disk", 0, 1), b"\0", "but it can be read")
    for path in ("disk.d/x", "x", ".bgfs/x", "disk.d/layers/x", "disk.d/snapshots/there/x"):
        for attempt in (lambda: os.open(m / path, os.O_CREAT | os.O_WRONLY),
                        lambda: os.mknod(m / path), lambda: os.symlink("a", m / path),
                        lambda: os.link(m / "disk", m / path)):
            with fails_with(errno.EPERM):
                attempt()
    for path in ("disk.d/x", "x", "disk.d/layers/x", "disk.d/snapshots/there/x"):
        with fails_with(errno.EPERM):
            os.mkdir(m / path)
    for path in ("disk.d", "disk.d/layers", "disk.d/snapshots", "disk.d/layers/0"):
        with fails_with(errno.EPERM, errno.ENOTEMPTY):
            os.rmdir(m / path)
        with fails_with(errno.EPERM):
            os.rename(m / path, f"{m / path}2")
    with fails_with(errno.EPERM):
        os.unlink(m / "disk")
    contains(m.read(".bgfs/last-error"), "unlink EPERM", "of the mount")


@case("vmstate is what a snapshot holds of a machine, to the byte", needs=["qemu-img", "python3"])
def vmstate(env):
    image = env.qcow2("a.qcow2", "1M", options="cluster_size=4k")
    m = env.mount(env.simple(image, "qcow2"))
    os.mkdir(m / "disk.d/snapshots/none")
    equal(os.stat(m / "disk.d/snapshots/none/vmstate").st_size, 0, "none")
    equal((m / "disk.d/snapshots/none/vmstate").read_bytes(), b"", "none")
    m.umount()
    put_vmstate(image, b"state of a machine " * 1000)
    m = env.mount(env.simple(image, "qcow2"))
    found = m / "disk.d/snapshots/none/vmstate"
    equal(os.stat(found).st_size, 19000, "st_size")
    check(found.read_bytes() == b"state of a machine " * 1000, "its bytes")
    equal(pread(found, 18990, 100), b" a machine "[-10:], "its end")
    with fails_with(errno.EROFS):
        os.open(found, os.O_WRONLY)


def put_vmstate(image, data):
    """Lays data behind the disk of the first snapshot, as the specification has it: in the first
    L1 entry that the disk does not need. For clusters of 4 KiB."""
    cluster = 4096
    with open(image, "r+b") as f:
        head = f.read(104)
        size = struct.unpack(">Q", head[24:32])[0]
        table_at = struct.unpack(">Q", head[64:72])[0]
        rc_at = struct.unpack(">Q", head[48:56])[0]
        f.seek(table_at)
        entry = bytearray(f.read(64))
        used = -(-size // (cluster * 512))
        count = -(-len(data) // cluster)
        at = os.fstat(f.fileno()).st_size
        at += -at % cluster
        l1, l2, first = at, at + cluster, at + 2 * cluster
        old_l1, old_entries = struct.unpack(">QI", entry[:12])
        f.seek(old_l1)
        old = f.read(old_entries * 8)[:used * 8].ljust(used * 8, b"\0")
        f.seek(l1)
        f.write((old + struct.pack(">Q", l2)).ljust(cluster, b"\0"))
        f.write(b"".join(struct.pack(">Q", first + i * cluster) for i in range(count))
                .ljust(cluster, b"\0"))
        f.write(data.ljust(count * cluster, b"\0"))
        entry[:12] = struct.pack(">QI", l1, used + 1)
        entry[32:36] = struct.pack(">I", len(data))
        extra = struct.unpack(">I", entry[36:40])[0]
        check(extra >= 16, "the snapshot says its lengths itself")
        entry[40:48] = struct.pack(">Q", len(data))
        f.seek(table_at)
        f.write(entry[:48])
        f.seek(rc_at)
        block = struct.unpack(">Q", f.read(8))[0]
        f.seek(block + at // cluster * 2)
        f.write(b"\0\1" * (count + 2))


def close_dead(fd):
    try:
        os.close(fd)
    except OSError:  # its mount is gone: it is closed all the same
        pass


@case("unmounting, killing and reloading with snapshots open", needs=["qemu-img"], timeout=120)
def interrupted(env):
    image = env.qcow2("a.qcow2", "4M")
    other = env.raw("b.raw", MiB)
    nodes = [{"node-name": "n", "driver": "qcow2",
              "file": {"driver": "file", "filename": str(image)}},
             {"node-name": "r", "driver": "raw",
              "file": {"driver": "file", "filename": str(other)}}]
    exports = [{"name": "disk", "node-name": "n", "writable": True}]
    graph = env.graph(nodes, exports)
    m = env.mount(graph)
    pwrite(m / "disk", 0, b"one")
    os.mkdir(m / "disk.d/snapshots/one")
    fd = os.open(m / "disk.d/snapshots/one/disk", os.O_RDONLY)
    # A reload that is about something else.
    env.graph(nodes, exports + [{"name": "more", "node-name": "r"}])
    m.command(".bgfs/reload", "1")
    equal(os.pread(fd, 3, 0), b"one", "after a reload")
    check(os.path.exists(m / "more"), "what was added")
    # One that leads it to another thread, and back.
    for thread in ({"iothread": "t"}, {}):
        env.graph(nodes, [{**exports[0], **thread}])
        m.command(".bgfs/reload", "1")
        equal(os.pread(fd, 3, 0), b"one", "on another thread")
        equal(pread(m / "disk.d/snapshots/one/disk", 0, 3), b"one", "another that opens it")
        equal(pread(m / "disk.d/snapshots/one/vmstate", 0, 3), b"", "vmstate")
    # One that would change how the image is open.
    env.graph([{**nodes[0], "discard": "unmap"}, nodes[1]], exports)
    number, sentence = m.refusal(".bgfs/reload", "1")
    equal(number, errno.EBUSY, "the snapshot is open")
    contains(sentence, "its snapshot 'one' is open as node '#disk.d/snapshots/1@", "the sentence")
    # One that would take the image away.
    env.graph(nodes, [{"name": "more", "node-name": "r"}])
    number, sentence = m.refusal(".bgfs/reload", "1")
    equal(number, errno.EBUSY, "the root is in use")
    contains(sentence, "snapshots/one/disk", "the sentence")
    m.command(".bgfs/reload", "force")
    with fails_with(errno.ENODEV):
        os.pread(fd, 3, 0)
    os.close(fd)
    env.graph(nodes, exports)
    m.command(".bgfs/reload", "1")
    fd = os.open(m / "disk.d/snapshots/one/disk", os.O_RDONLY)
    equal(os.pread(fd, 3, 0), b"one", "back again")
    os.kill(m.pid, signal.SIGTERM)  # leaves the tree, though somebody has a file open
    with fails_with(errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.ECONNABORTED, errno.ECANCELED):
        for _ in range(1000):
            os.pread(fd, 3, 0)
            time.sleep(0.01)
    close_dead(fd)
    wait_for(lambda: run("qemu-img", "snapshot", "-l", image, ok=False).returncode == 0,
             "the image to be closed")
    equal(names_of(image), ["one"], "after it was told to end")
    m = env.mount(graph, name="again")
    os.mkdir(m / "disk.d/snapshots/two")
    fd = os.open(m / "disk.d/snapshots/two/disk", os.O_RDONLY)
    pwrite(m / "disk", 0, b"two")
    os.kill(m.pid, signal.SIGKILL)
    with fails_with(errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.ECONNABORTED, errno.ECANCELED):
        for _ in range(1000):
            os.pread(fd, 3, 0)
            time.sleep(0.01)
    close_dead(fd)
    m = env.mount(graph, name="again")
    equal(sorted(os.listdir(m / "disk.d/snapshots")), ["one", "two"], "after a kill")
    equal(pread(m / "disk.d/snapshots/two/disk", 0, 3), b"one", "two")
    m.umount()
    run("qemu-img", "check", "-q", "-r", "leaks", image, ok=False)
    qemu_check(image)


@case("10,000 snapshots are listed, looked at and deleted one by one", needs=["qemu-img", "ls"],
      timeout=240)
def many(env):
    image = env.qcow2("a.qcow2", "1M", options="cluster_size=4k")
    count = 10_000
    make_snapshots(image, [f"snapshot {i}".encode() for i in range(count)])
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/snapshots"
    def timed(*command):
        begin = processor_seconds(m.pid)
        lines = run(*command).stdout.count("\n")
        return lines, processor_seconds(m.pid) - begin
    lines, plain = timed("ls", "-U", at)
    equal(lines, count, "ls")
    lines, long = timed("ls", "-la", at)
    equal(lines, count + 3, "ls -la")
    check(plain < 2 and long < 20, "it takes too long", plain, long)
    equal(pread(at / "snapshot 9999/disk", 0, 3), bytes(3), "the last")
    os.rmdir(at / "snapshot 5000")
    os.mkdir(at / "one more")
    equal(len(os.listdir(at)), count, "one less, one more")


def three_roots(env, **spread):
    nodes, exports = [], []
    for name in ("a", "b", "c"):
        image = env.qcow2(f"{name}.qcow2", "4M", options="cluster_size=4k")
        nodes.append({"node-name": name, "driver": "qcow2",
                      "file": {"driver": "file", "filename": str(image)}})
        exports.append({"name": name, "node-name": name, "writable": True,
                        **({"iothread": spread[name]} if name in spread else {})})
    return nodes, exports


@case(".bgfs/snapshots takes one snapshot of all writable roots at one instant, on every thread",
      needs=["qemu-img"], timeout=120)
def group(env):
    """One writer stamps a rising number into a, then b, then c: at no instant is a later one ahead
    of an earlier one, or more than one behind."""
    for round_, spread in enumerate(({}, {"b": "t1", "c": "t2"})):
        nodes, exports = three_roots(env, **spread)
        m = env.mount(env.graph(nodes, exports, name=f"g{round_}.yaml"), name=f"m{round_}")
        stop, fds = threading.Event(), [os.open(m / n, os.O_RDWR) for n in "abc"]

        def stamp():
            number = 0
            while not stop.is_set():
                number += 1
                for fd in fds:
                    os.pwrite(fd, struct.pack("<Q", number), number % 512 * 8192)
                    os.pwrite(fd, struct.pack("<Q", number), 4 * MiB - 8)

        t = threading.Thread(target=stamp)
        t.start()
        try:
            for i in range(10):
                time.sleep(0.05)
                os.mkdir(m / f".bgfs/snapshots/s{i}")
        finally:
            stop.set()
            t.join()
            for fd in fds:
                os.close(fd)
        at = m / ".bgfs/snapshots"
        equal(sorted(os.listdir(at)), [f"s{i}" for i in range(10)], "those all have")
        check("snapshots" not in os.listdir(m.path), "it is not listed at the top")
        seen = []
        for i in range(10):
            equal(sorted(os.listdir(at / f"s{i}")), ["a", "b", "c"], "one link for each root")
            a, b, c = (struct.unpack("<Q", pread(at / f"s{i}" / n / "disk", 4 * MiB - 8, 8))[0]
                       for n in "abc")
            check(a >= b >= c >= a - 1, f"s{i}", a, b, c)
            seen.append((a, b, c))
        check(seen == sorted(seen) and seen[-1][0] > 10, "they go on", seen)
        os.mkdir(m / "a.d/snapshots/only a")
        equal(len(os.listdir(at)), 10, "what one has is not listed")
        with fails_with(errno.EEXIST):
            os.mkdir(at / "only a")
        equal(os.listdir(m / "b.d/snapshots").count("only a"), 0, "none was made")
        contains(m.read(".bgfs/last-error").splitlines()[-1], "'a' has a snapshot", "last-error")
        with fails_with(errno.EPERM):
            os.rename(at / "s1", at / "s2x")
        with fails_with(errno.ENOTEMPTY):  # this process has looked into all of them
            os.rmdir(at / "s0")
        run("rmdir", at / "s0")
        for n in "abc":
            check(not os.path.exists(m / f"{n}.d/snapshots/s0"), "deleted from", n)
        m.command("b.d/snapshots/s1/hold", "1")
        done = run("rmdir", at / "s1", ok=False)
        contains(done.stderr, "busy", "held in one")
        for n in "abc":
            check(os.path.exists(m / f"{n}.d/snapshots/s1"), "none was deleted", n)
        fd = os.open(at / "s2/c/disk", os.O_RDONLY)
        contains(run("rmdir", at / "s2", ok=False).stderr, "busy", "open in one")
        check(os.path.exists(m / "a.d/snapshots/s2"), "none was deleted")
        os.close(fd)
        m.umount()
        for i, n in enumerate("abc"):
            qemu_check(env / f"{n}.qcow2")
            check(struct.unpack("<Q", converted(env, env / f"{n}.qcow2", "s5")[-8:])[0]
                  == seen[5][i], "as the peer reads it", n)
            (env / f"{n}.qcow2").unlink()


@case("all roots are those that nobody has opened yet, too, and one that cannot be opened is told",
      needs=["qemu-img"])
def all_of_them(env):
    nodes, exports = three_roots(env)
    exports[1]["open"] = "on-demand"
    m = env.mount(env.graph(nodes, exports))
    os.mkdir(m / ".bgfs/snapshots/s")
    os.mkdir(m / ".bgfs/points/p")
    for n in "abc":
        equal(os.listdir(m / f"{n}.d/snapshots"), ["s"], f"snapshots of {n}")
        equal(os.listdir(m / f"{n}.d/points"), ["p"], f"points of {n}")
    run("rmdir", m / ".bgfs/points/p")
    # One that comes later has none of what was made of all that there were.
    image = env.qcow2("d.qcow2", "1M")
    nodes.append({"node-name": "d", "driver": "qcow2",
                  "file": {"driver": "file", "filename": str(image)}})
    exports.append({"name": "d", "node-name": "d", "writable": True})
    env.graph(nodes, exports)
    m.command(".bgfs/reload", "1")
    equal(os.listdir(m / ".bgfs/snapshots"), ["s"], "still a name of several")
    equal(sorted(os.listdir(m / ".bgfs/snapshots/s")), ["a", "b", "c"], "of those that have it")
    run("rmdir", m / ".bgfs/snapshots/s")
    for n in "abcd":
        equal(os.listdir(m / f"{n}.d/snapshots"), [], f"snapshots of {n}")
    with fails_with(errno.ENOENT):
        os.rmdir(m / ".bgfs/snapshots/s")
    m.umount()
    image.rename(env / "away")
    m = env.mount(env.graph(nodes, exports))
    for what in ("snapshots", "points"):
        with fails_with(errno.ENOMEDIUM):
            os.mkdir(m / f".bgfs/{what}/x")
        contains(m.read(".bgfs/last-error").splitlines()[-1],
                 "all writable roots are in it, or none: 'd' could not be opened: ", what)
        for n in "abc":
            equal(os.listdir(m / f"{n}.d/{what}"), [], f"{what} of {n}")
    m.umount()


@case("a snapshot of all roots is made in all or in none", needs=["qemu-img"])
def all_or_none(env):
    nodes, exports = three_roots(env)
    raw = env.raw("r.raw", MiB)
    nodes.append({"node-name": "r", "driver": "raw",
                  "file": {"driver": "file", "filename": str(raw)}})
    more = [{"name": "r", "node-name": "r", "writable": True}]
    m = env.mount(env.graph(nodes, exports + more))
    with fails_with(errno.EOPNOTSUPP):
        os.mkdir(m / ".bgfs/snapshots/x")
    contains(m.read(".bgfs/last-error"), "root 'r'", "last-error")
    for n in "abc":
        equal(os.listdir(m / f"{n}.d/snapshots"), [], "none was made")
    more[0]["writable"] = False
    env.graph(nodes, exports + more)
    m.command(".bgfs/reload", "1")
    os.mkdir(m / ".bgfs/snapshots/x")
    equal(os.listdir(m / ".bgfs/snapshots/x"), ["a", "b", "c"], "those that are written")
    m.umount()
    # The last of them is full: 65,536 snapshots are all that there may be.
    make_snapshots(env.qcow2("c.qcow2", "4M"), [str(i).encode() for i in range(65536)])
    m = env.mount(env.graph(nodes, exports + more))
    with fails_with(errno.EFBIG):
        os.mkdir(m / ".bgfs/snapshots/y")
    contains(m.read(".bgfs/last-error"), "65536", "last-error")
    for n in "ab":
        equal(os.listdir(m / f"{n}.d/snapshots"), ["x"], "those before it are taken back")
    m.umount()
    for n in "ab":
        qemu_check(env / f"{n}.qcow2")
        equal(names_of(env / f"{n}.qcow2"), ["x"], n)


class Reading:
    """Reads a disk over and over, and knows how long the longest took."""

    def __init__(self, path):
        self.path, self.longest, self.is_over = path, 0, False
        self.thread = threading.Thread(target=self.run)

    def run(self):
        fd, block = os.open(self.path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
        while not self.is_over:
            begin = time.monotonic()
            os.preadv(fd, [block], 0)
            self.longest = max(self.longest, time.monotonic() - begin)
            time.sleep(0.001)
        os.close(fd)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()


@case("a snapshot of a large image does not keep the requests of other roots waiting")
def beside_a_large_one(env):
    large, small = env / "large.qcow2", env / "small.qcow2"
    run(BGFS, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", large, "128G")
    run(BGFS, "create", "-q", "-f", "qcow2", small, "1M")
    nodes = [{"node-name": p.stem, "driver": "qcow2", "file": {"driver": "file", "filename": str(p)}}
             for p in (large, small)]
    m = env.mount(env.graph(nodes, [{"name": p.stem, "node-name": p.stem, "writable": True}
                                    for p in (large, small)]), "-o", "queues=1")
    waits = []
    with Reading(m / "small") as reading:
        for change in (os.mkdir, os.rmdir) * 2:  # each walks two million clusters
            reading.longest = 0
            begin = time.monotonic()
            change(m / "large.d/snapshots/s")
            waits.append(reading.longest / (time.monotonic() - begin))
    for kind, shares in (("mkdir", waits[0::2]), ("rmdir", waits[1::2])):
        check(min(shares) < 0.3, f"reads beside a {kind} waited for these parts of it: {shares}")
    m.umount()
