# SPDX-License-Identifier: MIT
"""A thousand roots in one mount: memory and time in proportion to what is used."""
import errno
import os
import shutil
import signal
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
    env.raw("odd", MiB + 1000)
    env.raw("junk", 4096, b"no header")
    env.qcow2("image", "5M")
    file = {n: {"driver": "file", "filename": n} for n in ("whole", "odd", "image", "gone", "junk")}
    nodes = [
        {"node-name": "raw", "driver": "raw", "file": file["whole"]},
        {"node-name": "window", "driver": "raw", "offset": MiB, "size": 4096, "file": "raw"},
        {"node-name": "rest", "driver": "raw", "offset": MiB, "file": "raw"},
        {"node-name": "odd", "driver": "raw", "file": file["odd"]},
        {"node-name": "qcow2", "driver": "qcow2", "file": file["image"]},
        {"node-name": "filter", "driver": "copy-on-read", "file": "qcow2"},
        {"node-name": "gone", "driver": "qcow2", "file": file["gone"]},
        {"node-name": "junk", "driver": "qcow2", "file": file["junk"]},
        {"node-name": "null", "driver": "null-co", "size": "7M"},
    ]
    wanted = {"raw": 3 * MiB, "window": 4096, "rest": 2 * MiB, "qcow2": 5 * MiB, "filter": 5 * MiB,
              "null": 7 * MiB, "gone": 0, "junk": 0, "odd": MiB + 1000}
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n, "open": "on-demand"}
                                    for n in wanted]))
    equal({n: os.stat(m / n).st_size for n in wanted}, wanted, "lengths")
    states = {n: m.read(f"{n}.d/state").splitlines()[0] for n in wanted}
    equal(states, {**dict.fromkeys(wanted, "opening"), "null": "read-only", "gone": "failed",
                   "junk": "failed"}, "states")
    equal(os.stat(m / "gone").st_mode & 0o777, 0, "the mode of a failed root")
    for name in ("raw", "window", "rest", "odd", "qcow2", "filter"):
        before = os.stat(m / name)
        equal(len(pread(m / name, 0, 16 * MiB)), wanted[name], name)
        after = os.stat(m / name)
        for key in ("st_size", "st_blocks", "st_mtime_ns", "st_mode", "st_ino"):
            equal(getattr(after, key), getattr(before, key), f"{key} of {name}")
    m.umount()


@case("a root on demand whose image the mount has covered is an error, and waits for nobody")
def covered_image(env):
    images = env.directory("images")
    env.raw("images/disk", MiB)
    m = env.mount(env.graph(
        [{"node-name": "n", "driver": "raw",
          "file": {"driver": "file", "filename": str(images / "disk")}}],
        [{"name": "disk", "node-name": "n", "open": "on-demand"}]))
    run("mount", "--bind", m.path, images)
    try:
        equal(os.stat(m / "disk").st_mode & 0o777, 0, "the mode of a failed root")
        contains(m.read("disk.d/state"), "lies in", "state")
        with fails_with(errno.ENOMEDIUM):
            os.open(m / "disk", os.O_RDONLY)
    finally:
        run("umount", images)
    m.command("disk.d/ctl", "retry")
    equal(os.stat(m / "disk").st_size, MiB, "the length after a retry")
    m.umount()


@case("names and attributes at the top are kept, and forgotten when they change")
def kept_attributes(env):
    for transport in ("dev", "auto"):
        kept_over(env, transport)


def kept_over(env, transport):
    image = env.raw("image", 4 * MiB)
    env.raw("other", MiB)

    def graph(*names, **export):
        nodes = [{"node-name": n, "driver": "raw", "file": {"driver": "file", "filename": str(f)}}
                 for n, f in (("top", image), ("other", env / "other"))]
        return env.graph(nodes, [{"name": n, "node-name": "other" if n == "other" else "top",
                                  "writable": True, **export} for n in names])

    m = env.mount(graph("disk", "other"), "-o", f"transport={transport}")
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


@case("a root that grows tells the kernel of others that show the same", as_written=True)
def kept_of_others(env):
    for transport in ("dev", "auto"):
        image = env.raw("image", 4 * MiB)
        m = env.mount(env.graph(
            [{"node-name": "n", "driver": "raw",
              "file": {"driver": "file", "filename": str(image)}}],
            [{"name": "one", "node-name": "n", "writable": True, "growable": True},
             {"name": "two", "node-name": "n"}]), "-o", f"transport={transport}")
        for i in range(5, 15):
            equal(os.stat(m / "two").st_size, (i - 1) * MiB, "before")
            m.command("one.d/size", f"{i}M")
            equal(os.stat(m / "two").st_size, i * MiB, "after a command, at once")
        late = 0
        for i in range(15, 25):
            equal(os.stat(m / "two").st_size, (i - 1) * MiB, "before")
            pwrite(m / "one", i * MiB - 4096, b"x" * 4096)
            begin = time.monotonic()
            wait_for(lambda: os.stat(m / "two").st_size == i * MiB, "the new length")
            late += time.monotonic() - begin > 0.5
        check(late < 5 or IS_SANITIZED, "the kernel forgets lengths only in time: so did", late)
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


# A sanitizer makes each request dear.
CALLERS = 1000 if IS_SANITIZED else 10_000
CALL_LENGTH = 16 * KiB
# What a request that waits takes beside its payload: its task, and over several queues the page
# that it lies in.
KIB_PER_WAITING = 8


def block(path):
    """A process with CALLERS threads that make one read or write of `path` each; it ends with the
    number of those that failed, up to 255. Of every second block `number` is written, all bytes
    being `number` modulo 251."""
    import _thread

    pid = os.fork()
    if pid:
        return pid
    _thread.stack_size(64 * KiB)
    fd = os.open(path, os.O_RDWR)
    done = []

    def call(number):
        at = number * CALL_LENGTH
        try:
            if number % 2:
                length = len(os.pread(fd, CALL_LENGTH, at))
            else:
                length = os.pwrite(fd, bytes([number % 251]) * CALL_LENGTH, at)
        except OSError:
            length = 0
        done.append(length)

    for number in range(CALLERS):  # Thread.start would wait for each to run
        _thread.start_new_thread(call, (number,))
    while len(done) < CALLERS:
        time.sleep(0.01)
    os._exit(min(sum(length != CALL_LENGTH for length in done), 255))


def check_responsive(m):
    """Whoever does not ask for what is blocked is answered soon."""
    begin = time.monotonic()
    equal(len(os.listdir(m.path)), 6, "names")
    run("ls", "-l", m.path)
    contains(m.read(".bgfs/features"), "transport: dev", "features")
    contains(m.read("top.d/info"), "virtual size", "info")
    check(time.monotonic() - begin < (20 if IS_SANITIZED else 3), "looking around took",
          time.monotonic() - begin)


@case("10,000 blocked callers take no more memory than the budget, and block nobody else",
      timeout=300, as_written=True)
def blocked_callers(env):
    nodes = [{"node-name": n, "driver": "null-co", "size": "64G", "latency-ns": latency}
             for n, latency in (("stuck", 15 * 10**9), ("slow", 3 * 10**8))]
    nodes.append({"node-name": "top", "driver": "raw",
                  "file": {"driver": "file", "filename": str(env.raw("image", 64 * MiB))}})
    graph = env.graph(nodes, [{"name": n, "node-name": n, "writable": True}
                              for n in ("stuck", "slow", "top")])
    for queues in (1, 2):
        m = env.mount(graph, "-o", f"transport=dev,queues={queues}")
        # Those of one mount are killed, those of the other are all answered in the end.
        blocked_on(m, "stuck" if queues == 2 else "slow")
        m.umount()


def blocked_on(m, name):
    pwrite(m / "top", 0, b"x" * MiB)
    before = resident_kib(m.pid)
    child = block(m / name)
    few = 8 * MiB // CALL_LENGTH  # that many run, and take half of the budget
    try:
        wanted = CALLERS if name == "stuck" else 2 * few if CALLERS > 2 * few else 1
        wait_for(lambda: limits_of(m)["requests-running"] > wanted, "callers that are blocked", 60)
        now = limits_of(m)
        check(now["payload-held"] <= 8 * MiB, "one root holds more than half:", now)
        check_responsive(m)
        if name == "stuck":
            check(now["payload-held"] > 7 * MiB, "it holds less than its share:", now)
            check(now["payload-waiting"] >= CALLERS - few, now)
            check(now["payload-parked"] >= (CALLERS // 2 - few) * CALL_LENGTH, now)
        if not IS_SANITIZED:
            grown = resident_kib(m.pid) - before
            most = (now["payload-budget"] + now["buffers-kept-max"] + now["leased-memory-max"]
                    ) // KiB + KIB_PER_WAITING * CALLERS
            check(grown < most, "grown by", grown, "KiB of at most", most)
        for i in range(16):  # the other root is served as ever
            pwrite(m / "top", i * MiB, bytes([i]) * MiB)
            equal(pread(m / "top", i * MiB, MiB), bytes([i]) * MiB, "read back")
    finally:
        if name == "stuck":
            os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    equal(status, -signal.SIGKILL if name == "stuck" else 0, "callers that failed")
    wait_for(lambda: limits_of(m)["requests-running"] < 8, "the end of all requests", 60)
    now = limits_of(m)
    equal([now[k] for k in ("payload-held", "payload-waiting", "payload-parked",
                            "leased-memory-held")], [0, 0, 0, 0], "what is left")
    check(now["payload-held-most"] <= now["payload-budget"] == 16 * MiB, now)


@case("writes that waited in the file come out as they went in", needs=["qemu-img"], as_written=True)
def parked_writes(env):
    import concurrent.futures
    for queues in (1, 2):
        image = env.qcow2(f"parked{queues}.qcow2", "64M")
        nodes = [{"node-name": "n", "driver": "qcow2", "file": {
            "driver": "file", "filename": str(image), "cache": {"direct": True}}}]
        m = env.mount(env.graph(nodes, [{"name": "disk", "node-name": "n", "writable": True}]),
                      "-o", f"transport=dev,queues={queues},payload-budget=4M")
        data = [pattern(MiB if i % 3 else 200 * KiB, seed=i) for i in range(64)]
        seen = [0]

        def write(i):
            if i % 8 == 7:
                seen[0] = max(seen[0], limits_of(m)["payload-parked"])
            pwrite(m / "disk", i * MiB, data[i])

        for _ in range(20):  # on a busy machine nobody may look while some wait
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                list(pool.map(write, range(64)))
            if seen[0] > 0:
                break
        check(seen[0] > 0, "none has waited in the file")
        for i in range(64):
            equal(pread(m / "disk", i * MiB, len(data[i])) == data[i], True,
                  f"queues={queues}: the bytes at {i} MiB")
        check(limits_of(m)["payload-held-most"] <= 4 * MiB, limits_of(m))
        m.umount()
        qemu_check(image)


@case("what is served by lease and waits for its file stays within a bound")
def leased_memory(env):
    import concurrent.futures
    for queues in (1, 2):
        image = env.raw("direct", 64 * MiB, pattern(64 * MiB, seed=9))
        nodes = [{"node-name": "top", "driver": "raw", "file": {
            "driver": "file", "filename": str(image), "cache": {"direct": True}}}]
        m = env.mount(env.graph(nodes, [{"name": "disk", "node-name": "top", "writable": True}]),
                      "-o", f"transport=dev,queues={queues},payload-budget=4M")
        equal(limits_of(m)["leased-memory-max"], MiB, "the bound")
        wanted = pattern(64 * MiB, seed=9)
        again = pattern(MiB, seed=10)
        seen = [0]

        def look(i):
            length = (4 * KiB, 128 * KiB, 700 * KiB)[i % 3]
            at = i * 512 * KiB
            if i % 4 == 3:
                pwrite(m / "disk", at, again[:512 * KiB])
                return pread(m / "disk", at, 512 * KiB) == again[:512 * KiB]
            seen[0] = max(seen[0], limits_of(m)["leased-memory-held"])
            length = min(length, 512 * KiB)
            return pread(m / "disk", at, length) == wanted[at:at + length]

        for _ in range(3):  # once to learn, then by lease
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                equal(set(pool.map(look, range(127))), {True}, f"queues={queues}: content")
        check(seen[0] <= MiB, "held by lease", seen[0])
        equal(limits_of(m)["leased-memory-held"], 0, "held in the end")
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


def alternating_image(path, extents, cluster=64 * KiB, stride=2):
    """A qcow2 image, to be read, of so many runs: data and nothing take turns, a cluster of data
    every `stride` clusters, and all data is one cluster."""
    import struct
    length = extents // 2 * stride * cluster
    tables = -(-length // cluster * 8 // cluster)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, cluster.bit_length() - 1,
                         length, 0, tables, cluster, 2 * cluster, 1, 0, 0, 0, 0, 0, 4, 104)
    data_at = 4 * cluster
    l2_at = data_at + cluster
    entries = struct.pack(">Q", data_at) + bytes(8 * (stride - 1))
    with open(path, "wb") as f:
        f.write(header)
        f.seek(cluster)
        f.write(b"".join(struct.pack(">Q", l2_at + i * cluster) for i in range(tables)))
        f.seek(2 * cluster)
        f.write(struct.pack(">Q", 3 * cluster))  # one refcount block, which says nothing
        f.seek(data_at)
        f.write(b"d" * cluster)
        f.seek(l2_at)
        per_table = cluster // len(entries)
        for first in range(0, extents // 2, per_table):
            f.write(entries * min(per_table, extents // 2 - first))
        f.truncate(l2_at + tables * cluster)
    return path


def peak_kib(pid):
    return int(next(line for line in open(f"/proc/{pid}/status") if "VmHWM" in line).split()[1])


@case("maps of 100,000 runs, and of a million in 64 TiB, are read as they are made, in bounded memory",
      timeout=300)
def many_extents(env):
    import json
    alternating_image(env / "many", 100_000)
    alternating_image(env / "more", 1_048_576, 2 * MiB, 64)
    nodes = [{"node-name": n, "driver": "qcow2", "read-only": True,
              "file": {"driver": "file", "filename": str(env / n)}} for n in ("many", "more")]
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
    equal(os.stat(m / "more.d/map.json").st_size, 0, "st_size before it was read")
    begin = time.monotonic()
    with open(m / "more.d/map.json", "rb", buffering=0) as f:
        start = f.read(4096)
        first_byte = time.monotonic() - begin
        contains(start.decode(), '[{ "start": 0, "length": 2097152, "depth": 0', "the first entries")
        rest = b"".join(iter(lambda: f.read(MiB), b""))
        whole = time.monotonic() - begin
        if not IS_SANITIZED:
            check(first_byte < whole / 4, "the first byte took", first_byte, "s of", whole)
            check(peak_kib(pid) - before < 128 * 1024, "mapping took", peak_kib(pid) - before, "KiB")
        text = start + rest
        equal(os.pread(f.fileno(), 1000, len(text) - 2000), text[-2000:-1000], "what is kept")
        with fails_with(errno.ENODATA):
            os.pread(f.fileno(), 10, 0)
    contains(m.read("more.d/last-error"), "of this text were read already", "last-error")
    equal(os.stat(m / "more.d/map.json").st_size, len(text), "st_size when it was read")
    equal(os.stat(m / "more").st_size, 64 * TiB, "the disk")
    equal(text.count(b'"start"'), 1_048_576, "entries")
    equal(text == run(BGFS, "map", "-U", "--output=json", env / "more").stdout.encode(), True,
          "the text of bgfs map")
    equal(run("tail", "-c", "100", m / "more.d/map.json").stdout.encode(), text[-100:], "its end")
    with open(m / "more.d/map", "rb") as f:  # at a place, without what is before
        equal(len(os.pread(f.fileno(), 4096, 20 * MiB)), 4096, "far behind the beginning")
    m.umount()


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
