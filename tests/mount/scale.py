# SPDX-License-Identifier: MIT
"""A thousand roots in one mount: memory and time in proportion to what is used."""
import errno
import os
import shutil
import time

from mount_suite import *  # noqa: F403

ROOTS = 1000
# A sanitizer keeps memory of its own for each byte; release builds are what the bound is about.
IS_SANITIZED = any(mark in open(BGFS, "rb").read() for mark in (b"__asan_init", b"__tsan_init"))


def resident_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise Failure("no VmRSS")


def thousand(env, changed=None, **export):
    if not (env / "i0.qcow2").exists():
        env.qcow2("i0.qcow2", "16M")
        for i in range(1, ROOTS):
            shutil.copy(env / "i0.qcow2", env / f"i{i}.qcow2")
    nodes = [{"node-name": f"n{i}", "driver": "qcow2",
              "file": {"driver": "file", "filename": f"i{i}.qcow2"},
              **({"discard": "unmap"} if i == changed else {})} for i in range(ROOTS)]
    exports = [{"name": f"r{i}", "node-name": f"n{i}", "writable": True, **export}
               for i in range(ROOTS)]
    return env.graph(nodes, exports)


@case("a thousand roots are mounted, listed, reloaded and closed", needs=["qemu-img"], timeout=300)
def thousand_roots(env):
    graph = thousand(env)
    begin = time.monotonic()
    m = env.mount(graph)
    check(time.monotonic() - begin < 60, "mounting took", time.monotonic() - begin)
    few = env.mount(env.graph([{"node-name": "x", "driver": "null-co", "size": "1M"}],
                              [{"name": "x", "node-name": "x"}], name="few.yaml"), name="few")
    if not IS_SANITIZED:
        each = (resident_kib(m.pid) - resident_kib(few.pid)) / ROOTS
        check(each < 64, f"a root takes {each} KiB")
    few.umount()
    equal(len(os.listdir(m.path)), 2 * ROOTS, "names")
    equal({os.stat(m / f"r{i}").st_size for i in range(ROOTS)}, {16 * MiB}, "lengths")
    said = run(BGFS, "reload", "--dry-run", m.path).stdout
    equal(said, f"kept: {ROOTS} roots, {2 * ROOTS} nodes\n", "the plan of no change")
    thousand(env, changed=7)
    said = run(BGFS, "reload", "--dry-run", m.path).stdout
    contains(said, "root r7: changed: its nodes change")
    contains(said, f"kept: {ROOTS - 1} roots")
    run(BGFS, "reload", m.path)
    said = run(BGFS, "reload", "--dry-run", m.path).stdout
    equal(said, f"kept: {ROOTS} roots, {2 * ROOTS} nodes\n", "the plan after the reload")
    pwrite(m / "r999", 4096, b"x" * 4096)
    m.umount()
    for name in ("i0.qcow2", "i999.qcow2"):
        qemu_check(env / name)


def total_requests(m):
    for line in m.read(".bgfs/metrics").splitlines():
        if line.startswith("bgfs_fuse_requests_total "):
            return int(float(line.split()[1]))
    raise Failure("no bgfs_fuse_requests_total")


def limits_of(m):
    lines = m.read(".bgfs/limits").splitlines()
    return {k: int(v) for k, v in (line.split(": ", 1) for line in lines)}


@case("roots on demand are shown with their lengths, and opened by whom uses them",
      needs=["qemu-img"], timeout=300)
def on_demand(env):
    m = env.mount(thousand(env, open="on-demand"))
    pid = m.pid

    def open_images():
        return sum(os.readlink(f"/proc/{pid}/fd/{f}").endswith(".qcow2")
                   for f in os.listdir(f"/proc/{pid}/fd"))

    before = resident_kib(pid)
    found = [os.lstat(m / name) for name in os.listdir(m.path)]
    equal(sum(s.st_size for s in found), ROOTS * 16 * MiB, "st_size of all")
    check(all(s.st_blocks > 0 for s in found if s.st_size), "st_blocks 0 is a hole")
    run("ls", "-la", m.path)
    equal(open_images(), 0, "images that are open after ls")
    if not IS_SANITIZED:
        check(resident_kib(pid) - before < 8 * 1024, "ls took", resident_kib(pid) - before, "KiB")
    equal(m.read("r1.d/state"), "opening\nit is opened on demand\n", "state")
    equal(open_images(), 0, "images that are open after state")
    contains(m.read("r6.d/info"), "virtual size: 16 MiB", "info")
    equal(open_images(), 1, "images that are open after info")
    equal(os.listdir(m / "r7.d/layers/0").count("disk"), 1, "a layer")
    equal(open_images(), 2, "images that are open after looking at layers")
    fd = os.open(m / "r5", os.O_RDWR)
    equal(open_images(), 3, "images that are open after open")
    equal(os.fstat(fd).st_size, 16 * MiB, "st_size of what is open")
    os.pwrite(fd, b"x", 0)
    os.close(fd)
    equal(m.read("r5.d/state"), "ok\n", "state")
    m.umount()
    qemu_check(env / "i5.qcow2")


@case("what is shown of a root on demand is right without opening it", needs=["qemu-img"])
def glances(env):
    env.raw("whole", 3 * MiB)
    env.raw("junk", 4096, b"no header")
    env.qcow2("image", "5M")
    file = {n: {"driver": "file", "filename": n} for n in ("whole", "image", "gone", "junk")}
    nodes = [
        {"node-name": "raw", "driver": "raw", "file": file["whole"]},
        {"node-name": "window", "driver": "raw", "offset": MiB, "size": 4096, "file": "raw"},
        {"node-name": "rest", "driver": "raw", "offset": MiB, "file": "raw"},
        {"node-name": "qcow2", "driver": "qcow2", "file": file["image"]},
        {"node-name": "filter", "driver": "copy-on-read", "file": "qcow2"},
        {"node-name": "gone", "driver": "qcow2", "file": file["gone"]},
        {"node-name": "junk", "driver": "qcow2", "file": file["junk"]},
        {"node-name": "null", "driver": "null-co", "size": "7M"},
    ]
    wanted = {"raw": 3 * MiB, "window": 4096, "rest": 2 * MiB, "qcow2": 5 * MiB, "filter": 5 * MiB,
              "null": 7 * MiB, "gone": 0, "junk": 0}
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n, "open": "on-demand"}
                                    for n in wanted]))
    equal({n: os.stat(m / n).st_size for n in wanted}, wanted, "lengths")
    states = {n: m.read(f"{n}.d/state").splitlines()[0] for n in wanted}
    equal(states, {**dict.fromkeys(wanted, "opening"), "null": "read-only", "gone": "failed",
                   "junk": "failed"}, "states")
    equal(os.stat(m / "gone").st_mode & 0o777, 0, "the mode of a failed root")
    for name in ("raw", "window", "rest", "qcow2", "filter"):
        before = os.stat(m / name)
        equal(len(pread(m / name, 0, 16 * MiB)), wanted[name], name)
        after = os.stat(m / name)
        for key in ("st_size", "st_blocks", "st_mtime_ns", "st_mode", "st_ino"):
            equal(getattr(after, key), getattr(before, key), f"{key} of {name}")
    m.umount()


@case("names and attributes at the top are kept, and forgotten when they change")
def kept_attributes(env):
    image = env.raw("image", 4 * MiB)
    env.raw("other", MiB)

    def graph(*names, **export):
        nodes = [{"node-name": n, "driver": "raw", "file": {"driver": "file", "filename": str(f)}}
                 for n, f in (("top", image), ("other", env / "other"))]
        return env.graph(nodes, [{"name": n, "node-name": "other" if n == "other" else "top",
                                  "writable": True, **export} for n in names])

    m = env.mount(graph("disk", "other"))
    os.stat(m / "disk")
    before = total_requests(m)
    for _ in range(1000):
        os.stat(m / "disk")
        os.stat(m / "disk.d")
    taken = total_requests(m) - before
    check(taken < 500, "2,000 times stat took", taken, "requests")  # one a second, not one each
    for i in range(1, 60):
        equal(os.stat(m / "disk").st_size, (4 if i == 1 else 4 + i - 1) * MiB, "before")
        m.command("disk.d/size", "+1M")
        equal(os.stat(m / "disk").st_size, (4 + i) * MiB, "st_size at once")
    times = set()
    for i in range(50):
        pwrite(m / "disk", i * 4096, b"x" * 4096)
        times.add(os.stat(m / "disk").st_mtime_ns)
    equal(len(times), 50, "different times of 50 writes")
    for i in range(10):
        mode = 0o600 + 0o40 * (i % 2)
        graph("disk", "other", mode=f"{mode:04o}")
        run(BGFS, "reload", m.path)
        equal(os.stat(m / "disk").st_mode & 0o777, mode, "mode at once")
        equal(os.stat(m / "disk.d").st_mode & 0o040, mode & 0o040, "mode of the directory")
        check(os.path.exists(m / "other"), "other is there")
        graph("disk", mode=f"{mode:04o}")
        run(BGFS, "reload", m.path)
        check(not os.path.exists(m / "other"), "other is gone at once")
        equal(os.stat(m.path).st_nlink, 3, "the link count of the mount")
        check(not os.path.exists(m / "other.d"), "its directory, too")
    graph("disk", control="none")
    os.stat(m / "disk.d")
    run(BGFS, "reload", m.path)
    check(not os.path.exists(m / "disk.d"), "the directory is gone at once")
    m.umount()


@case("what changes below is never kept by the kernel")
def kept_nothing(env):
    m = env.mount(env.simple(env.raw("image", MiB)))
    for name in ("disk.d/state", "disk.d/layers/0/disk", ".bgfs/features"):
        os.stat(m / name)
        before = total_requests(m)
        for _ in range(20):
            os.stat(m / name)
        check(total_requests(m) - before >= 20, name, "is kept")
    m.umount()


CALLERS = int(os.environ.get("BGFS_BLOCKED_CALLERS", "2000"))


def block(path, length, count):
    """A process with `count` threads that each wait in one read or write of `path`."""
    import random
    import threading

    pid = os.fork()
    if pid:
        return pid
    threading.stack_size(64 << 10)
    fd = os.open(path, os.O_RDWR)

    def call(number):
        if number % 2:
            os.pread(fd, length, number * length)
        else:
            os.pwrite(fd, b"x" * length, number * length)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    random.shuffle(threads)
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    os._exit(0)


@case("thousands of blocked callers take no more memory than the budget, and block nobody else",
      timeout=300)
def blocked_callers(env):
    nodes = [{"node-name": "stuck", "driver": "null-co", "size": "64G",
              "latency-ns": 15 * 10**9},
             {"node-name": "top", "driver": "raw",
              "file": {"driver": "file", "filename": str(env.raw("image", 64 * MiB))}}]
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n, "writable": True}
                                    for n in ("stuck", "top")]), "-o", "transport=dev")
    pid = m.pid
    pwrite(m / "top", 0, b"x" * MiB)
    before = resident_kib(pid)
    child = block(m / "stuck", 64 << 10, CALLERS)
    try:
        wait_for(lambda: limits_of(m)["requests-running"] > CALLERS, "callers that are blocked", 120)
        now = limits_of(m)
        check(now["payload-held"] <= now["payload-budget"] == 16 * MiB, now)
        check(now["payload-held"] <= 8 * MiB, "one root holds more than half:", now)
        check(now["payload-held"] > 7 * MiB, "it holds its share:", now)
        check(now["payload-waiting"] > CALLERS - 200, now)
        check(now["payload-parked"] > (CALLERS / 2 - 200) * (64 << 10), now)
        if not IS_SANITIZED:  # budget, buffers kept, and what a request is without its payload
            grown = resident_kib(pid) - before
            check(grown < 24 * 1024 + 8 * CALLERS, "grown by", grown, "KiB")
        for i in range(32):  # the other root is served as ever
            pwrite(m / "top", i * MiB, bytes([i]) * MiB)
        for i in range(32):
            equal(pread(m / "top", i * MiB, MiB), bytes([i]) * MiB, "read back")
    finally:
        os.kill(child, 9)
    os.waitpid(child, 0)
    wait_for(lambda: limits_of(m)["requests-running"] < 8, "the end of those that were killed", 60)
    now = limits_of(m)
    equal([now[k] for k in ("payload-held", "payload-waiting", "payload-parked")], [0, 0, 0],
          "what is left")
    check(now["payload-held-most"] <= 16 * MiB, now)
    m.umount()


@case("a small budget slows down and breaks nothing")
def small_budget(env):
    m = env.mount(env.simple(env.raw("image", 64 * MiB)), "-o", "transport=dev,payload-budget=4M")
    equal(limits_of(m)["payload-budget"], 4 * MiB, "the budget")
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: pwrite(m / "disk", i * MiB, bytes([i]) * MiB), range(64)))
        found = list(pool.map(lambda i: pread(m / "disk", i * MiB, MiB), range(64)))
    for i, data in enumerate(found):
        equal(data, bytes([i]) * MiB, f"the bytes at {i} MiB")
    check(limits_of(m)["payload-held-most"] <= 4 * MiB, limits_of(m))
    m.umount()
    done = env.mount_status(env.simple(env.raw("image", MiB)), "-o", "payload-budget=1M")
    equal(done.returncode, 1, "a budget that is too small")
    contains(done.stderr, "mount option 'payload-budget=1M': the memory for payloads is a size from "
                          "4M to 64G, such as 16M", "stderr")


def alternating_image(path, extents):
    """A qcow2 image, to be read, of so many runs: data and nothing take turns, cluster by cluster,
    and all data is one cluster."""
    import struct
    cluster = 64 * KiB
    tables = -(-extents * 8 // cluster)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, extents * cluster, 0,
                         tables, cluster, 2 * cluster, 1, 0, 0, 0, 0, 0, 4, 104)
    data_at = 4 * cluster
    l2_at = data_at + cluster
    entries = struct.pack(">QQ", data_at, 0) * (extents // 2)
    with open(path, "wb") as f:
        f.write(header)
        f.seek(cluster)
        f.write(b"".join(struct.pack(">Q", l2_at + i * cluster) for i in range(tables)))
        f.seek(2 * cluster)
        f.write(struct.pack(">Q", 3 * cluster))  # one refcount block, which says nothing
        f.seek(data_at)
        f.write(b"d" * cluster)
        f.seek(l2_at)
        f.write(entries)
        f.truncate(l2_at + tables * cluster)
    return path


def peak_kib(pid):
    return int(next(line for line in open(f"/proc/{pid}/status") if "VmHWM" in line).split()[1])


@case("an image of 100,000 runs is mapped, and one of a million asks for `bgfs map`", timeout=300)
def many_extents(env):
    import json
    nodes = [{"node-name": n, "driver": "qcow2", "read-only": True,
              "file": {"driver": "file", "filename": str(alternating_image(env / n, count))}}
             for n, count in (("many", 100_000), ("more", 1_000_000))]
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n} for n in ("many", "more")]))
    pid = m.pid
    before = peak_kib(pid)
    runs = json.loads(m.read("many.d/map.json"))
    equal(len(runs), 100_000, "runs")
    equal([r["data"] for r in runs[:4]], [True, False, True, False], "data and nothing")
    equal(len(m.read("many.d/map").splitlines()), 50_001, "lines of the table")
    if not IS_SANITIZED:
        check(peak_kib(pid) - before < 64 * 1024, "mapping took", peak_kib(pid) - before, "KiB")
    fd = os.open(m / "many", os.O_RDONLY)
    at = 0
    for i in range(1000):
        equal(os.lseek(fd, at, os.SEEK_HOLE), (2 * i + 1) * 64 * KiB, "a hole")
        at = os.lseek(fd, (2 * i + 1) * 64 * KiB, os.SEEK_DATA)
        equal(at, (2 * i + 2) * 64 * KiB, "data")
    os.close(fd)
    with fails_with(errno.EFBIG):
        m.read("more.d/map.json")
    contains(m.read("more.d/last-error"),
             "the map is longer than 64 MiB; use 'bgfs map' on the image", "last-error")
    if not IS_SANITIZED:
        check(peak_kib(pid) - before < 256 * 1024, "refusing took", peak_kib(pid) - before, "KiB")
    m.umount()
    lines = run(BGFS, "map", "--output=json", env / "more").stdout.count('"start"')
    equal(lines, 1_000_000, "entries of bgfs map")


@case("of an image of 64 TiB only what is used costs anything", needs=["qemu-img"], timeout=300)
def large_image(env):
    import json
    image = env.qcow2("large.qcow2", "64T")
    m = env.mount(env.simple(image, "qcow2"))
    pid = m.pid
    end = 64 * TiB
    pwrite(m / "disk", end - 4096, b"e" * 4096)
    fd = os.open(m / "disk", os.O_RDONLY)
    equal(os.lseek(fd, 0, os.SEEK_DATA), end - 64 * KiB, "SEEK_DATA from the beginning")
    equal(os.lseek(fd, 0, os.SEEK_HOLE), 0, "SEEK_HOLE from the beginning")
    equal(os.lseek(fd, end - 4096, os.SEEK_HOLE), end, "SEEK_HOLE at the end")
    equal(os.pread(fd, 8192, end - 4096), b"e" * 4096, "the end")
    os.close(fd)
    runs = json.loads(m.read("disk.d/map.json"))
    equal([(r["start"], r["length"], r["data"]) for r in runs],
          [(0, end - 64 * KiB, False), (end - 64 * KiB, 64 * KiB, True)], "map.json")
    if not IS_SANITIZED:
        check(peak_kib(pid) < 40 * 1024, "it takes", peak_kib(pid), "KiB")
    m.umount()
    qemu_check(image)
