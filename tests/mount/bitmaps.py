# SPDX-License-Identifier: MIT
"""NAME.d/bitmaps/: dirty bitmaps as directories, and what the peer says of them afterwards."""
import errno
import json
import os
import random
import signal
import struct
import threading
import time

from mount_suite import *  # noqa: F403


def last_error(m, root="disk"):
    return m.read(f"{root}.d/last-error").splitlines()[-1]


def known_to_peer(image):
    """{name: (granularity, flags)} as the peer lists what the image has."""
    info = json.loads(run("qemu-img", "info", "--output=json", image).stdout)
    listed = info["format-specific"]["data"].get("bitmaps", [])
    return {b["name"]: (b["granularity"], sorted(b["flags"])) for b in listed}


def dirty_to_peer(image, name):
    """[(start, length)] of what the peer finds dirty in a bitmap of an image."""
    options = (f"driver=nbd,server.type=unix,server.path={image}.sock,"
               f"x-dirty-bitmap=qemu:dirty-bitmap:{name}")
    import subprocess
    server = subprocess.Popen(["qemu-nbd", "-r", "-f", "qcow2", "-k", f"{image}.sock", "-B", name,
                               str(image)], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: os.path.exists(f"{image}.sock") or server.poll() is not None, "qemu-nbd")
        found = json.loads(run("qemu-img", "map", "--output=json", "--image-opts", options).stdout)
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()
        if os.path.exists(f"{image}.sock"):
            os.unlink(f"{image}.sock")
    # The peer shows dirty parts as those without data.
    return merged((e["start"], e["length"]) for e in found if not e["data"])


def merged(runs):
    out = []
    for start, length in runs:
        if out and out[-1][0] + out[-1][1] == start:
            out[-1] = (out[-1][0], out[-1][1] + length)
        else:
            out.append((start, length))
    return out


def dirty_here(m, name):
    found = json.loads(m.read(f"disk.d/bitmaps/{name}/map.json"))
    at = 0
    for e in found:
        equal(e["start"], at, "map.json has no gaps")
        at += e["length"]
    return [(e["start"], e["length"]) for e in found if e["dirty"]]


@case("mkdir adds a bitmap that records, rmdir removes it; the peer agrees on every bit",
      needs=["qemu-img", "qemu-nbd"])
def recorded(env):
    image = env.qcow2("a.qcow2", "16M")
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/bitmaps"
    equal(os.listdir(at), [], "at first")
    check("bitmaps" in os.listdir(m / "disk.d"), "the directory is listed")
    pwrite(m / "disk", 0, b"x" * MiB)
    os.mkdir(at / "mon")
    equal(sorted(os.listdir(at / "mon")),
          ["clear", "count", "dirty", "enabled", "granularity", "hold", "map", "map.json", "merge",
           "persistent", "state"], "what one has")
    for name, text in (("count", "0"), ("granularity", "65536"), ("enabled", "1"),
                       ("persistent", "1"), ("hold", "0")):
        equal(m.read(f"disk.d/bitmaps/mon/{name}"), text + "\n", name)
    equal(m.read("disk.d/bitmaps/mon/state").splitlines()[0], "ok", "state")
    pwrite(m / "disk", 5 * MiB + 1, b"y")
    pwrite(m / "disk", 6 * MiB - 1, b"yy")
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 65536, 65536)
    wanted = [(65536, 65536), (5 * MiB, 65536), (6 * MiB - 65536, 131072)]
    equal(dirty_here(m, "mon"), wanted, "map.json")
    equal(m.read("disk.d/bitmaps/mon/count"), f"{4 * 65536}\n", "count")
    equal([line.split() for line in m.read("disk.d/bitmaps/mon/map").splitlines()[1:]],
          [[hex(s), hex(n)] for s, n in wanted], "map")
    os.mkdir(at / "tue")
    pwrite(m / "disk", 8 * MiB, b"z")
    with fails_with(errno.EEXIST):
        os.mkdir(at / "tue")
    os.rmdir(at / "tue")
    check(not os.path.exists(at / "tue"), "removed")
    with fails_with(errno.ENOENT):
        os.rmdir(at / "tue")
    with fails_with(errno.EPERM):
        os.rename(at / "mon", at / "other")
    contains(last_error(m), "merge", "last-error")
    wanted.append((8 * MiB, 65536))
    equal(dirty_here(m, "mon"), wanted, "map.json")
    m.umount()
    equal(known_to_peer(image), {"mon": (65536, ["auto"])}, "as the peer lists them")
    equal(dirty_to_peer(image, "mon"), wanted, "as the peer reads it")
    qemu_check(image)
    m = env.mount(env.simple(image, "qcow2"))
    equal(dirty_here(m, "mon"), wanted, "mounted again")
    m.umount()


@case("granularity is set before the first bit, enabled at any time, clear and merge are verbs",
      needs=["qemu-img", "qemu-nbd"])
def changed(env):
    image = env.qcow2("a.qcow2", "16M")
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/bitmaps"
    for name in ("a", "b", "with space", "sum"):
        os.mkdir(at / name)
    m.command("disk.d/bitmaps/a/granularity", "4K")
    m.command("disk.d/bitmaps/with space/granularity", "1M")
    equal(m.read("disk.d/bitmaps/a/granularity"), "4096\n", "granularity")
    for bad in ("3000", "1", "x", "4G", "\n"):
        equal(m.refusal("disk.d/bitmaps/a/granularity", bad)[0], errno.EINVAL, f"granularity {bad}")
    pwrite(m / "disk", 4 * MiB, b"1")
    number, sentence = m.refusal("disk.d/bitmaps/a/granularity", "64K")
    equal(number, errno.EBUSY, "with a bit set")
    contains(sentence, "4096 bytes are dirty", "the sentence")
    equal(dirty_here(m, "a"), [(4 * MiB, 4096)], "a")
    m.command("disk.d/bitmaps/b/enabled", "0")
    pwrite(m / "disk", 8 * MiB, b"2")
    equal(dirty_here(m, "b"), [(4 * MiB, 65536)], "b did not record")
    contains(m.read("disk.d/bitmaps/b/state"), "does not record", "state")
    m.command("disk.d/bitmaps/sum/clear", "1")
    equal(dirty_here(m, "sum"), [], "cleared")
    m.command("disk.d/bitmaps/sum/granularity", "512")
    m.command("disk.d/bitmaps/sum/merge", "a\nb\nwith space\n")
    whole = [(4 * MiB, MiB), (8 * MiB, MiB)]
    equal(dirty_here(m, "sum"), whole, "merged")
    for text, wanted in (("nothing", errno.ENOENT), ("\n", errno.EINVAL), ("a\nnothing", errno.ENOENT)):
        equal(m.refusal("disk.d/bitmaps/b/merge", text)[0], wanted, f"merge {text!r}")
    equal(dirty_here(m, "b"), [(4 * MiB, 65536)], "all of them or none")
    for name, text in (("clear", "yes"), ("enabled", "2"), ("hold", "2")):
        equal(m.refusal(f"disk.d/bitmaps/b/{name}", text)[0] if name != "clear" else
              write_only(m, f"disk.d/bitmaps/b/{name}", text), errno.EINVAL, name)
    for name in ("clear", "merge"):
        with fails_with(errno.EACCES, errno.EINVAL):
            open(at / "b" / name).read()
    m.umount()
    equal(known_to_peer(image), {"a": (4096, ["auto"]), "b": (65536, []), "sum": (512, ["auto"]),
                                 "with space": (MiB, ["auto"])}, "as the peer lists them")
    equal(dirty_to_peer(image, "sum"), whole, "as the peer reads it")
    qemu_check(image)


def write_only(m, name, text):
    fd = os.open(m / name, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
        return 0
    except OSError as e:
        return e.errno
    finally:
        os.close(fd)


@case("dirty shows the live data where it is dirty, and holes elsewhere", needs=["qemu-img"])
def dirty(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount(env.simple(image, "qcow2"))
    pwrite(m / "disk", 0, pattern(8 * MiB))
    os.mkdir(m / "disk.d/bitmaps/mon")
    shown = m / "disk.d/bitmaps/mon/dirty"
    equal(os.stat(shown).st_size, 8 * MiB, "st_size")
    equal(data_ranges(shown), [], "nothing is dirty")
    check(pread(shown, 0, 8 * MiB) == bytes(8 * MiB), "nothing is dirty")
    fd = os.open(shown, os.O_RDONLY)
    pwrite(m / "disk", 3 * MiB + 5, b"changed")
    fallocate(m / "disk", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 5 * MiB, 65536)
    equal(data_ranges(shown), [(3 * MiB, 3 * MiB + 65536), (5 * MiB, 5 * MiB + 65536)], "data")
    wanted = bytearray(8 * MiB)
    wanted[3 * MiB:3 * MiB + 65536] = pattern(8 * MiB)[3 * MiB:3 * MiB + 65536]
    wanted[3 * MiB + 5:3 * MiB + 12] = b"changed"
    check(os.pread(fd, 8 * MiB, 0) == bytes(wanted), "through a file that was open before")
    with fails_with(errno.EROFS):
        os.open(shown, os.O_RDWR)
    for attempt, what in ((lambda: os.rmdir(m / "disk.d/bitmaps/mon"), "rmdir"),
                          (lambda: m.command("disk.d/bitmaps/mon/clear", "1"), "clear"),
                          (lambda: m.command("disk.d/size", "+1M"), "size")):
        with fails_with(errno.EBUSY):
            attempt()
    contains(m.read("disk.d/bitmaps/mon/state"), "in-use", "state")
    contains(m.read("disk.d/last-error"), f"open in process {os.getpid()}", "last-error")
    os.close(fd)
    wait_for(lambda: m.read("disk.d/bitmaps/mon/state").startswith("ok"), "the release")
    m.command("disk.d/bitmaps/mon/clear", "1")
    m.command("disk.d/size", "+1M")
    equal(os.stat(shown).st_size, 9 * MiB, "st_size")
    os.rmdir(m / "disk.d/bitmaps/mon")


@case("a held bitmap is neither changed nor removed, and goes on recording", needs=["qemu-img"])
def held(env):
    image = env.qcow2("a.qcow2", "8M")
    graph = env.simple(image, "qcow2")
    m = env.mount(graph)
    os.mkdir(m / "disk.d/bitmaps/mon")
    m.command("disk.d/bitmaps/mon/hold", "1")
    m.command("disk.d/bitmaps/mon/hold", "1")
    equal(m.read("disk.d/bitmaps/mon/hold"), "1\n", "hold")
    lines = m.read("disk.d/bitmaps/mon/state").splitlines()
    equal(lines[0], "in-use", "state")
    contains(lines[1], "disk.d/bitmaps/mon/hold", "the reason")
    for attempt in (lambda: os.rmdir(m / "disk.d/bitmaps/mon"),
                    lambda: m.command("disk.d/bitmaps/mon/clear", "1"),
                    lambda: m.command("disk.d/bitmaps/mon/enabled", "0"),
                    lambda: m.command("disk.d/bitmaps/mon/granularity", "4K"),
                    lambda: m.command("disk.d/size", "+1M")):
        with fails_with(errno.EBUSY):
            attempt()
    pwrite(m / "disk", 0, b"x")
    equal(dirty_here(m, "mon"), [(0, 65536)], "it records")
    env.graph([], [])  # the image would leave
    with fails_with(errno.EBUSY, errno.EINVAL):
        m.command(".bgfs/reload", "1")
    m.command("disk.d/bitmaps/mon/hold", "0")
    os.rmdir(m / "disk.d/bitmaps/mon")
    os.mkdir(m / "disk.d/bitmaps/tue")
    m.command("disk.d/bitmaps/tue/hold", "1")
    m.umount()  # whoever held it has gone
    equal(list(known_to_peer(image)), ["tue"], "after unmounting")


@case("raw and version 2 images: bitmaps are kept in memory, and say so; read-only ones are locked",
      needs=["qemu-img", "qemu-io"], unpassed=True)
def in_memory(env):
    for name, fmt, part in (("r.raw", "raw", "driver 'raw'"), ("old.qcow2", "qcow2", "version 2")):
        image = env.raw(name, MiB) if fmt == "raw" else env.qcow2(name, "1M", options="compat=0.10")
        m = env.mount(env.simple(image, fmt), name=name.split(".")[0])
        os.mkdir(m / "disk.d/bitmaps/mon")
        equal(m.read("disk.d/bitmaps/mon/persistent"), "0\n", "persistent")
        lines = m.read("disk.d/bitmaps/mon/state").splitlines()
        equal(lines[0], "ok", "state")
        contains(lines[1], part, "the reason")
        contains(lines[1], "ends with the mount", "the reason")
        pwrite(m / "disk", 512 * KiB, b"x")
        equal(dirty_here(m, "mon"), [(512 * KiB, 65536)], "it records")
        m.umount()
        m = env.mount(env.simple(image, fmt), name=name.split(".")[0])
        equal(os.listdir(m / "disk.d/bitmaps"), [], "after the mount")
        m.umount()
    image = env.qcow2("ro.qcow2", "1M")
    run("qemu-img", "bitmap", "--add", image, "there")
    run("qemu-io", "-c", "write 0 1", image)
    m = env.mount(env.simple(image, "qcow2", writable=False), name="ro")
    equal(m.read("disk.d/bitmaps/there/state").splitlines()[0], "locked", "state")
    equal(dirty_here(m, "there"), [(0, 65536)], "what the peer has recorded")
    equal(pread(m / "disk.d/bitmaps/there/dirty", 0, 3), b"\xcd\0\0", "dirty")
    for attempt in (lambda: os.mkdir(m / "disk.d/bitmaps/x"),
                    lambda: os.rmdir(m / "disk.d/bitmaps/there"),
                    lambda: m.command("disk.d/bitmaps/there/clear", "1")):
        with fails_with(errno.EROFS, errno.EACCES):
            attempt()
    contains(m.read("disk.d/last-error"), "read-only", "last-error")


@case("what was not stored is inconsistent: it says so first, and can only be removed",
      needs=["qemu-img"])
def inconsistent(env):
    image = env.qcow2("a.qcow2", "1M")
    graph = env.simple(image, "qcow2")
    m = env.mount(graph)
    os.mkdir(m / "disk.d/bitmaps/mon")
    m.umount()
    m = env.mount(graph)
    pwrite(m / "disk", 0, b"x")
    fsync(m / "disk")
    os.kill(m.pid, signal.SIGKILL)
    wait_for(lambda: not os.path.ismount(m.path) or dead(m.path), "the mount to die")
    m = env.mount(graph)
    lines = m.read("disk.d/bitmaps/mon/state").splitlines()
    equal(lines[0], "inconsistent", "state")
    contains(lines[1], "rmdir", "the advice")
    for name in ("count", "map", "map.json", "dirty"):
        with fails_with(errno.EIO):
            (m / "disk.d/bitmaps/mon" / name).read_bytes()
    for name, text in (("clear", "1"), ("enabled", "0"), ("granularity", "4K")):
        check(write_only(m, f"disk.d/bitmaps/mon/{name}", text) != 0, name)
        contains(last_error(m), "inconsistent", "last-error")
    os.rmdir(m / "disk.d/bitmaps/mon")
    os.mkdir(m / "disk.d/bitmaps/mon")
    equal(m.read("disk.d/bitmaps/mon/state").splitlines()[0], "ok", "another")
    m.umount()
    equal(known_to_peer(image), {"mon": (65536, ["auto"])}, "as the peer lists them")
    qemu_check(image)


def dead(path):
    try:
        os.stat(path)
        return False
    except OSError:
        return True


@case("no write is missing from a bitmap that was added while the disk is written",
      needs=["qemu-img"], timeout=120)
def added_under_load(env):
    """Bitmaps come and go while writers run; what differs from a copy made before one was added is
    dirty in it."""
    image = env.qcow2("a.qcow2", "16M", options="cluster_size=4k")
    m = env.mount(env.simple(image, "qcow2"))
    stop = threading.Event()

    def write(who):
        fd, chance = os.open(m / "disk", os.O_RDWR), random.Random(who)
        number = 0
        while not stop.is_set():
            number += 1
            os.pwrite(fd, struct.pack("<QQ", who, number), chance.randrange(4096) * 4096)
        os.close(fd)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    try:
        for i in range(8):
            os.mkdir(m / f"disk.d/bitmaps/b{i}")
            m.command(f"disk.d/bitmaps/b{i}/enabled", "1")
            os.mkdir(m / f"disk.d/snapshots/s{i}")
            time.sleep(0.1)
            os.mkdir(m / f"disk.d/snapshots/t{i}")
            dirty_runs = dirty_here(m, f"b{i}")
            before = pread(m / f"disk.d/snapshots/s{i}/disk", 0, 16 * MiB)
            after = pread(m / f"disk.d/snapshots/t{i}/disk", 0, 16 * MiB)
            marked = bytearray(16 * MiB // 4096)
            for start, length in dirty_runs:
                for block in range(start // 4096, (start + length) // 4096):
                    marked[block] = 1
            for block in range(len(marked)):
                part = slice(block * 4096, block * 4096 + 4096)
                check(before[part] == after[part] or marked[block], i, "block", block)
            if i % 2:
                os.rmdir(m / f"disk.d/bitmaps/b{i}")
    finally:
        stop.set()
        for t in threads:
            t.join()
    m.umount()
    equal(sorted(known_to_peer(image)), ["b0", "b2", "b4", "b6"], "as the peer lists them")
    qemu_check(image)


@case("foreign names of bitmaps show with %XX, and can be looked at and removed",
      needs=["qemu-img"])
def foreign_names(env):
    image = env.qcow2("a.qcow2", "1M")
    make_bitmaps(image, [b"a/b", b"a%2Fb", b"tab\there", b"n" * 1023, b"plain"])
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/bitmaps"
    shown = os.listdir(at)
    equal(len(set(shown)), 5, "as many names as bitmaps")
    check(shown[0].startswith("a%2Fb%id="), shown)
    equal(shown[1:3] + shown[4:], ["a%2Fb", "tab%09here", "plain"], "the names")
    check(len(shown[3]) <= 255 and shown[3].startswith("nnn"), shown[3])
    for name in shown:
        equal((at / name / "count").read_text(), "0\n", name)
        equal(pread(at / name / "dirty", 0, 1), b"\0", name)
    for name in shown[:4]:
        os.rmdir(at / name)
    m.umount()
    equal(list(known_to_peer(image)), ["plain"], "what is left")
    qemu_check(image)


def make_bitmaps(image, names):
    """Writes a directory of clear bitmaps into an image that has none, after the specification."""
    with open(image, "r+b") as f:
        head = bytearray(f.read(4096))
        cluster = 1 << struct.unpack(">I", head[20:24])[0]
        size = struct.unpack(">Q", head[24:32])[0]
        rc_at = struct.unpack(">Q", head[48:56])[0]
        header_length = struct.unpack(">I", head[100:104])[0]
        end = os.fstat(f.fileno()).st_size
        end += -end % cluster
        bits = -(-size // 65536)
        entries = -(-bits // (cluster * 8))
        check(entries * 8 <= cluster, "a table is one cluster")
        parts, tables = [], end
        for i, name in enumerate(names):
            entry = struct.pack(">QIIBBHI", tables + i * cluster, entries, 2, 1, 16, len(name), 0)
            entry += name
            parts.append(entry + bytes(-len(entry) % 8))
        directory = b"".join(parts)
        at = tables + len(names) * cluster
        clusters = len(names) + -(-len(directory) // cluster)
        f.seek(at)
        f.write(directory.ljust(-(-len(directory) // cluster) * cluster, b"\0"))
        # The extension goes before those that are there.
        extension = struct.pack(">II", 0x23852875, 24) + struct.pack(
            ">IIQQ", len(names), 0, len(directory), at)
        old = bytes(head[header_length:4096 - len(extension)])
        head[header_length:] = extension + old
        head[88:96] = struct.pack(">Q", struct.unpack(">Q", head[88:96])[0] | 1)
        f.seek(0)
        f.write(head)
        # Refcounts, in more blocks if need be.
        first, last = end // cluster, end // cluster + clusters
        per_block, more = cluster // 2, last
        f.seek(rc_at)
        table = bytearray(f.read(cluster))
        index = 0
        while index * per_block < more:
            place = struct.unpack(">Q", table[index * 8:index * 8 + 8])[0]
            if place == 0:
                place = more * cluster
                more += 1
                table[index * 8:index * 8 + 8] = struct.pack(">Q", place)
                f.seek(place)
                f.write(bytes(cluster))
            index += 1
        for index in range(index):
            place = struct.unpack(">Q", table[index * 8:index * 8 + 8])[0]
            f.seek(place)
            block = bytearray(f.read(cluster))
            for c in range(max(first, index * per_block), min(more, (index + 1) * per_block)):
                block[c % per_block * 2:c % per_block * 2 + 2] = b"\0\1"
            f.seek(place)
            f.write(block)
        f.seek(rc_at)
        f.write(table)


@case("as many bitmaps as an image may have are listed and looked at", needs=["qemu-img", "ls"],
      timeout=600)
def many(env):
    image = env.qcow2("a.qcow2", "1M", options="cluster_size=4k")
    count = 65_535
    make_bitmaps(image, [f"bitmap {i}".encode() for i in range(count)])
    m = env.mount(env.simple(image, "qcow2"))
    at = m / "disk.d/bitmaps"
    def timed(*command):
        begin = processor_seconds(m.pid)
        lines = run(*command).stdout.count("\n")
        return lines, processor_seconds(m.pid) - begin
    lines, plain = timed("ls", "-U", at)
    equal(lines, count, "ls")
    lines, long = timed("ls", "-la", at)
    equal(lines, count + 3, "ls -la")
    check(plain < 4 and long < 120, "it takes too long", plain, long)
    equal((at / "bitmap 65534/count").read_text(), "0\n", "the last")
    with fails_with(errno.EOPNOTSUPP):
        os.mkdir(at / "one more")
    contains(last_error(m), "65535", "last-error")
    os.rmdir(at / "bitmap 1")
    os.mkdir(at / "one more")
    m.umount()
