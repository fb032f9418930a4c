# SPDX-License-Identifier: MIT
"""Raw files that the kernel serves by itself: what is passed through, what stays true of it, and
what has to wait meanwhile."""
import errno
import functools
import mmap
import os
import signal

from mount_suite import *  # noqa: F403

case = functools.partial(case, as_written=True)  # noqa: F405

ON = {"writable": True, "growable": True, "passthrough": "on"}


def raw_node(name, image, more=None, **file):
    return {"node-name": name, "driver": "raw", "discard": "unmap",
            "file": {"driver": "file", "filename": str(image), **file}, **(more or {})}


def require_passthrough(m):
    line = next(x for x in m.read(".bgfs/features").splitlines() if x.startswith("passthrough: "))
    if line != "passthrough: yes":
        raise Skip(line)
    return m


def modes(m, root="disk"):
    """How the raw file is open: ["ro passthrough", "rw"]."""
    return [line.split(" ", 2)[2] for line in m.read(f"{root}.d/openers").splitlines()]


def metric(m, name, **labels):
    wanted = [f'{k}="{v}"' for k, v in labels.items()]
    return sum(int(line.rsplit(" ", 1)[1]) for line in m.read(".bgfs/metrics").splitlines()
               if line.startswith(f"{name}_total") and all(w in line for w in wanted))


def closed(m, root="disk"):
    """The kernel tells of a close when it likes."""
    wait_for(lambda: not modes(m, root), "the file to be closed")


@case("a read-only raw export is passed through for root, and costs no request per read")
def read_only(env):
    image = env.raw("a.raw", 4 * MiB + 1000, pattern(MiB), offset=MiB)
    m = require_passthrough(env.mount(env.simple(image, writable=False)))
    fd = os.open(m / "disk", os.O_RDONLY)
    equal(modes(m), ["ro passthrough"], "openers")
    before = metric(m, "bgfs_fuse_requests")
    for i in range(1000):
        os.pread(fd, 4096, 4096 * i)
    check(metric(m, "bgfs_fuse_requests") - before < 50, "a request for each read")
    equal(os.pread(fd, 8 * MiB, 0) == image.read_bytes(), True, "the bytes, and the end")
    with mmap.mmap(fd, 4 * MiB, prot=mmap.PROT_READ) as area:
        equal(area[MiB:2 * MiB] == pattern(MiB), True, "what is mapped")
    block = mmap.mmap(-1, 64 * KiB)
    direct = os.open(m / "disk", os.O_RDONLY | os.O_DIRECT)
    equal(os.preadv(direct, [block], MiB), 64 * KiB, "a direct read")
    equal(block[:] == pattern(64 * KiB), True, "direct bytes")
    os.close(direct)
    os.close(fd)
    with fails_with(errno.EROFS):
        os.open(m / "disk", os.O_WRONLY)
    closed(m)
    m.umount()


@case("what is not one file as it is, writable, cached or switched off goes through the server",
      needs=["qemu-img"])
def not_passed(env):
    image = env.raw("a.raw", MiB, b"bytes")
    disk = env.qcow2("b.qcow2", "1M")
    window = raw_node("window", image, {"offset": 512})
    nodes = [raw_node("plain", image), window, raw_node("direct", image, cache={"direct": True}),
             {"node-name": "qcow2", "driver": "qcow2",
              "file": {"driver": "file", "filename": str(disk)}},
             raw_node("rw", env.raw("c.raw", MiB))]
    exports = [{"name": "off", "node-name": "plain", "passthrough": "off"},
               {"name": "cached", "node-name": "plain", "cache": "kernel"},
               {"name": "window", "node-name": "window"}, {"name": "direct", "node-name": "direct"},
               {"name": "qcow2", "node-name": "qcow2"},
               {"name": "rw", "node-name": "rw", "writable": True, "growable": True},
               {"name": "plain", "node-name": "plain"}]
    m = require_passthrough(env.mount(env.graph(nodes, exports)))
    for export in exports:
        name = export["name"]
        fd = os.open(m / name, os.O_RDONLY)
        os.pread(fd, 10, 0)
        wanted = "ro passthrough" if name == "plain" else "ro"
        equal(modes(m, name), [wanted], name)
        os.close(fd)


@case("writes go to the file without a request each; size, space and times are those of the file")
def writes(env):
    image = env.raw("a.raw", MiB)
    m = require_passthrough(env.mount(env.simple(image, **ON)))
    fd = os.open(m / "disk", os.O_RDWR)
    equal(modes(m), ["rw passthrough"], "openers")
    before = metric(m, "bgfs_fuse_requests")
    for i in range(1000):
        os.pwrite(fd, b"x" * 4096, 4096 * (i % 256))
    check(metric(m, "bgfs_fuse_requests") - before < 50, "a request for each write")
    equal(pread(image, 0, MiB), b"x" * MiB, "the image")
    equal(os.stat(m / "disk").st_blocks, os.stat(image).st_blocks, "st_blocks")
    layer = m / "disk.d/layers/0/disk"
    for number in range(1, 4):  # grows
        os.pwrite(fd, b"end", number * 3 * MiB)
        size = number * 3 * MiB + 3
        equal(os.fstat(fd).st_size, size, "fstat")
        equal(os.stat(layer).st_size, size, "the layer's size")
        equal(pread(layer, size - 4, 10), b"\0end", "the layer's last bytes")
        equal(m.read("disk.d/size"), f"{size}\n", "size")
        contains(m.read("disk.d/info.json"), f'"virtual-size": {size}', "info.json")
    equal(os.stat(m / "disk").st_blocks, os.stat(image).st_blocks, "st_blocks when it has grown")
    os.pwrite(fd, b"z", 20 * MiB)  # and nobody looks until it is closed
    os.close(fd)
    closed(m)
    equal(os.stat(m / "disk").st_size, 20 * MiB + 1, "st_size after the last close")
    equal(m.read("disk.d/size"), f"{20 * MiB + 1}\n", "size after the last close")
    m.umount()
    equal(os.stat(image).st_size, 20 * MiB + 1, "the image's size")


@case("mtime grows with what the kernel writes, is set by utimensat, and survives a remount")
def times(env):
    graph = env.simple(env.raw("a.raw", MiB), **ON)
    m = require_passthrough(env.mount(graph))
    before = os.stat(m / "disk").st_mtime_ns
    fd = os.open(m / "disk", os.O_RDWR)
    os.pread(fd, 100, 0)
    equal(os.fstat(fd).st_mtime_ns, before, "mtime after reading")
    for i in range(20):
        os.pwrite(fd, b"x", i)
        wait_for(lambda: os.fstat(fd).st_mtime_ns > before, "mtime to grow")
        before = os.fstat(fd).st_mtime_ns
        equal(os.fstat(fd).st_mtime_ns, before, "a second look")
        equal(os.stat(m / "disk.d/layers/0/disk").st_mtime_ns, before, "the layer's mtime")
        os.pwrite(fd, b"y", i)
        os.utime(fd, ns=(10**9, 10**9))
        equal(os.fstat(fd).st_mtime_ns, 10**9, "mtime as it was set")
        before = 10**9
    os.pwrite(fd, b"last", 0)
    os.close(fd)
    closed(m)
    last = os.stat(m / "disk").st_mtime_ns
    check(last > 10**9, "the last write changed no time")
    m.umount()
    equal(os.stat(env.mount(graph) / "disk").st_mtime_ns, last, "mtime after a remount")


@case("all opens share one file: readers, writers, appending, truncating, mapped")
def shared(env):
    image = env.raw("a.raw", MiB, b"first")
    m = require_passthrough(env.mount(env.simple(image, **ON)))
    reader = os.open(m / "disk", os.O_RDONLY)
    writer = os.open(m / "disk", os.O_WRONLY)
    both = os.open(m / "disk", os.O_RDWR)
    appending = os.open(m / "disk", os.O_WRONLY | os.O_APPEND)
    equal(modes(m), ["ro passthrough"] + 3 * ["rw passthrough"], "openers")
    os.write(writer, b"second")
    equal(os.pread(reader, 6, 0), b"second", "what another has written")
    os.write(appending, b"appended")
    equal(os.fstat(both).st_size, MiB + 8, "st_size after appending")
    with mmap.mmap(both, MiB) as area:
        area[100:106] = b"mapped"
        equal(os.pread(reader, 6, 100), b"mapped", "a read beside a mapping")
    os.close(reader)
    os.close(both)
    os.ftruncate(writer, 3 * MiB)
    equal(os.stat(image).st_size, 3 * MiB, "ftruncate to more")
    os.ftruncate(writer, 2 * MiB)
    equal(os.stat(image).st_size, 2 * MiB, "ftruncate to less")
    os.pwrite(writer, b"p" * MiB, 0)
    fallocate(m / "disk", FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 64 * KiB, 64 * KiB)
    equal(pread(m / "disk", 64 * KiB, 64 * KiB), b"\0" * 64 * KiB, "a punched hole")
    equal(data_ranges(m / "disk")[0], (0, 64 * KiB), "the hole")
    os.pwrite(writer, b"d" * 64 * KiB, 64 * KiB)
    equal(data_ranges(m / "disk")[0], (0, MiB + 4 * KiB), "the hole was filled")
    fallocate(m / "disk", 0, 3 * MiB, MiB)
    equal(os.stat(m / "disk").st_size, 4 * MiB, "fallocate past the end")
    os.close(os.open(m / "disk", os.O_WRONLY | os.O_TRUNC))
    equal(os.stat(image).st_size, 0, "O_TRUNC")
    os.write(appending, b"again")
    equal(image.read_bytes(), b"again", "the image")
    os.close(writer)
    os.close(appending)
    closed(m)


@case("fsync, the flush interval and the last close make durable what the kernel wrote")
def durable(env):
    image = env.raw("a.raw", MiB)
    exports = [{"name": "disk", "node-name": "top", **ON, "flush-interval": "10ms"}]
    node = raw_node("top", image, **{"node-name": "medium"})
    m = require_passthrough(env.mount(env.graph([node], exports)))

    def flushes():
        return metric(m, "bgfs_node_operations", node="medium", operation="flush")

    fd = os.open(m / "disk", os.O_RDWR)
    for i in range(5):
        os.pwrite(fd, b"x", i)
        os.fsync(fd)
    asked = flushes()
    check(asked >= 5, "flushes of the file:", asked)
    wait_for(lambda: flushes() > asked + 5, "regular flushes")
    equal(metric(m, "bgfs_node_merged_flushes", node="medium"), 0, "flushes that did nothing")
    os.close(fd)
    closed(m)
    m.umount()


def check_busy(found, *parts):
    equal(found[0], errno.EBUSY, f"errno ({found[1]})")
    for part in (f"process {os.getpid()} (", "by itself", *parts):
        contains(found[1], part, "the sentence")


@case("while it is open whatever would move or must see the data is EBUSY, forced or not")
def busy(env):
    image = env.raw("a.raw", MiB, b"a")
    env.raw("b.raw", MiB, b"b")

    def graph(export=None, name="a.raw", **node):
        exports = [{"name": "disk", "node-name": "top", **ON, **(export or {})}]
        return env.graph([raw_node("top", env / name, node)],
                         exports if export != {} else [])

    m = require_passthrough(env.mount(graph()))
    fd = os.open(m / "disk", os.O_RDWR)
    for word in ("1", "force"):
        graph(name="b.raw")
        check_busy(m.refusal(".bgfs/reload", word), "nodes of root 'disk' cannot be changed now")
        graph(**{"detect-zeroes": "on"})
        check_busy(m.refusal(".bgfs/reload", word), "cannot be changed now")
        graph({"passthrough": "off"})
        check_busy(m.refusal(".bgfs/reload", word), "root 'disk' cannot be changed now")
        graph({"name": "other"})
        check_busy(m.refusal(".bgfs/reload", word), "root 'disk' cannot be removed now")
    contains(m.read(".bgfs/reload-plan"), "would be refused: root 'disk' cannot be removed now")
    check_busy(m.refusal("disk.d/size", "+1M"), "cannot be given another length now")
    check_busy(m.refusal("disk.d/nodes/top/write-threshold", "1M"), "cannot be used for")
    check_busy((errno.EBUSY, m.read("disk.d/nodes/top/blockers")), "internal-snapshot", "replace")
    graph({"mode": "0640"})
    equal(m.refusal(".bgfs/reload", "1"), (0, ""), "what changes no data")
    os.pwrite(fd, b"A", 0)
    equal(pread(image, 0, 1), b"A", "the file is served as before")
    os.close(fd)
    closed(m)
    equal(m.read("disk.d/nodes/top/blockers"), "", "blockers")
    m.command("disk.d/size", "+1M")
    graph(name="b.raw")
    m.command(".bgfs/reload", "1")
    equal(pread(m / "disk", 0, 1), b"b", "the other image")


@case("a file that is only read cannot be given up or replaced either")
def busy_reading(env):
    env.raw("b.raw", MiB, b"b")
    graph = env.simple(env.raw("a.raw", MiB, b"a"), writable=False)
    m = require_passthrough(env.mount(graph))
    fd = os.open(m / "disk", os.O_RDONLY)
    check_busy(m.refusal("disk.d/nodes/top/active", "0"), "cannot be changed now")
    graph.write_text(graph.read_text().replace("a.raw", "b.raw"))
    check_busy(m.refusal(".bgfs/reload", "force"), "nodes of root 'disk'")
    equal(os.pread(fd, 1, 0), b"a", "what is read")
    os.close(fd)
    closed(m)
    m.command("disk.d/nodes/top/active", "0")
    m.command("disk.d/nodes/top/active", "1")
    m.command(".bgfs/reload", "1")
    equal(pread(m / "disk", 0, 1), b"b", "the other image")


@case("passthrough: on fails a root that cannot be, with the line and the reason",
      needs=["qemu-img"])
def refused(env):
    image = env.raw("a.raw", MiB)
    disk = env.qcow2("b.qcow2", "1M")
    ro = {"passthrough": "on"}
    cases = [
        ("qcow2", {"node-name": "n", "driver": "qcow2",
                   "file": {"driver": "file", "filename": str(disk)}}, ro,
         "driver 'qcow2' keeps its own bytes in between"),
        ("window", raw_node("n", image, {"offset": 512}), ro, "show a part of the file"),
        ("direct", raw_node("n", image, cache={"direct": True}), ro, "'cache.direct' reads"),
        ("zeroes", raw_node("n", image, {"detect-zeroes": "on"}), ON, "'detect-zeroes' looks"),
        ("through", raw_node("n", image, {"cache": {"writeback": False}}), ON,
         "'cache.writeback: false' makes"),
    ]
    for name, node, export, reason in cases:
        graph = env.graph([node], [{"name": "disk", "node-name": "n", **export}], f"{name}.yaml")
        m = env.mount(graph)
        contains(m.stderr, "export 'disk' cannot be passed through: node '", name)
        contains(m.stderr, reason, name)
        contains(m.stderr, f"{name}.yaml:", "the line")
        equal(m.read("disk.d/state").split("\n")[0], "failed", "state")
        with fails_with(errno.ENOMEDIUM):
            os.open(m / "disk", os.O_RDONLY)
        m.umount()
        done = env.mount_status(graph, "-o", "strict")
        equal(done.returncode, 32, "strict")


@case("a reload to passthrough: on is refused where it cannot be, and holds for later opens",
      needs=["qemu-img"])
def reloaded(env):
    env.qcow2("b.qcow2", "1M")
    image = env.raw("a.raw", MiB)

    def graph(passthrough, fmt="raw", name="a.raw"):
        return env.graph([{"node-name": "top", "driver": fmt,
                           "file": {"driver": "file", "filename": str(env / name)}}],
                         [{"name": "disk", "node-name": "top", **ON, "passthrough": passthrough}])

    m = require_passthrough(env.mount(graph("off")))
    plain = os.open(m / "disk", os.O_RDWR)
    graph("on", "qcow2", "b.qcow2")
    contains(m.refusal(".bgfs/reload", "force")[1], "cannot be passed through: node 'top' (qcow2")
    graph("off", "qcow2", "b.qcow2")
    os.close(plain)
    closed(m)
    m.command(".bgfs/reload", "1")
    graph("on", "qcow2", "b.qcow2")  # nothing but the option
    contains(m.refusal(".bgfs/reload", "1")[1], "cannot be passed through: node 'top' (qcow2")
    graph("off")
    m.command(".bgfs/reload", "1")
    plain = os.open(m / "disk", os.O_RDWR)
    graph("on")
    m.command(".bgfs/reload", "1")
    second = os.open(m / "disk", os.O_RDWR)
    equal(modes(m), ["rw", "rw"], "while somebody has it open in the old way")
    os.pwrite(second, b"both", 0)
    equal(os.pread(plain, 4, 0), b"both", "the same bytes")
    os.close(plain)
    os.close(second)
    closed(m)
    third = os.open(m / "disk", os.O_RDWR)
    equal(modes(m), ["rw passthrough"], "later")
    os.pwrite(third, b"new", 0)
    os.close(third)
    equal(pread(image, 0, 4), b"newh", "the image")


@case("without CAP_SYS_ADMIN outside auto asks the server, and on says what is needed",
      needs=["unshare"])
def without_capability(env):
    image = env.raw("a.raw", MiB, b"in a namespace")
    auto = env.graph([raw_node("top", image)], [{"name": "disk", "node-name": "top"}], "auto.yaml")
    on = env.graph([raw_node("top", image)],
                   [{"name": "disk", "node-name": "top", "passthrough": "on"}], "on.yaml")
    where = env.directory()
    script = f"""set -e
      {BGFS} mount {auto} {where}
      grep passthrough: {where}/.bgfs/features
      head -c 14 {where}/disk; echo
      {BGFS} umount {where}
      {BGFS} mount {on} {where}
      head -c 1 {where}/disk || true
      head -n 1 {where}/disk.d/state
      {BGFS} umount {where}
      {BGFS} mount -o strict {on} {where}
      """
    done = run("unshare", "-Ur", "-m", "bash", "-c", script, ok=False, env=env.environment)
    if "unshare: " in done.stderr:
        raise Skip(f"no user namespaces: {done.stderr.strip()}")
    equal(done.returncode, 32, f"exit status ({done.stdout}{done.stderr})")
    if "passthrough: no: the kernel has no" in done.stdout:
        raise Skip("the kernel passes nothing through")
    needed = "passthrough takes CAP_SYS_ADMIN in the initial user namespace: mount as root"
    contains(done.stdout, f"passthrough: no: {needed}")
    contains(done.stdout, "in a namespace\nfailed\n")
    contains(done.stderr, "export 'disk' cannot be passed through: " + needed)
    contains(done.stderr, "root 'disk' is required and could not be opened")


@case("a file on a stack of file systems is not passed through, and on says so")
def stacked(env):
    for name in ("lower", "upper", "work", "merged"):
        env.directory(name)
    env.raw("lower/a.raw", MiB, b"stacked")
    options = f"lowerdir={env / 'lower'},upperdir={env / 'upper'},workdir={env / 'work'}"
    if run("mount", "-t", "overlay", "-o", options, "overlay", env / "merged", ok=False).returncode:
        raise Skip("no overlayfs here")
    image = env / "merged/a.raw"
    node = raw_node("top", image)
    auto = env.graph([node], [{"name": "disk", "node-name": "top"}], "auto.yaml")
    m = require_passthrough(env.mount(auto))
    equal(pread(m / "disk", 0, 7), b"stacked", "through the server")
    m.umount()
    on = env.graph([node], [{"name": "disk", "node-name": "top", "passthrough": "on"}])
    done = env.mount_status(on, "-o", "strict")
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "lies on a file system that is stacked on others (overlayfs)")


@case("many open it at the same time, again and again: all are passed through, none fails")
def opened_at_once(env):
    import concurrent.futures
    image = env.raw("a.raw", MiB, pattern(MiB))
    nodes = [raw_node("a", image), raw_node("b", env.raw("b.raw", MiB, pattern(MiB)))]
    m = require_passthrough(env.mount(env.graph(nodes, [
        {"name": "disk", "node-name": "a"}, {"name": "rw", "node-name": "b", **ON}])))

    def look(name):
        fd = os.open(m / name, os.O_RDONLY)
        try:
            return os.pread(fd, 4096, 4096) == pattern(MiB)[4096:8192]
        finally:
            os.close(fd)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for name in ("disk", "rw"):
            held = [pool.submit(os.open, m / name, os.O_RDONLY) for _ in range(16)]
            held = [h.result() for h in held]
            equal(set(modes(m, name)), {"ro passthrough"}, f"openers of {name}")
            for fd in held:
                os.close(fd)
            for _ in range(5):
                equal(set(pool.map(look, [name] * 100)), {True}, f"content of {name}")
    closed(m)
    m.umount()


@case("a served file stays locked while the kernel writes to it, though the mount was told to end",
      needs=["qemu-io"])
def told_to_end(env):
    image = env.raw("a.raw", MiB)
    m = env.mount_foreground(env.simple(image, **ON))
    require_passthrough(m)
    fd = os.open(m / "disk", os.O_RDWR)
    m.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not os.path.ismount(m.path), "the tree to be left")
    locked = run("qemu-io", "-f", "raw", "-c", "write 0 512", image, ok=False)
    contains(locked.stderr + locked.stdout, "lock", "what another writer is told")
    os.pwrite(fd, b"still", 0)
    equal(m.process.poll(), None, "has it ended")
    os.close(fd)
    equal(m.process.wait(30), 0, f"exit status ({m.process.stderr.read()})")
    run("qemu-io", "-f", "raw", "-c", "write 4k 512", image)
    equal(pread(image, 0, 5), b"still", "the image")


@case("a second signal ends it at once, with what was written on the disk")
def told_twice(env):
    image = env.raw("a.raw", MiB)
    m = env.mount_foreground(env.simple(image, **ON))
    require_passthrough(m)
    fd = os.open(m / "disk", os.O_RDWR)
    os.pwrite(fd, b"kept", 0)
    m.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not os.path.ismount(m.path), "the tree to be left")
    m.process.send_signal(signal.SIGTERM)
    equal(m.process.wait(30), 0, f"exit status ({m.process.stderr.read()})")
    equal(pread(image, 0, 4), b"kept", "the image")
    try:
        os.close(fd)
    except OSError:
        pass


@case("two roots of one file, one passed through and one not, see the same and both grow it")
def two_roots(env):
    image = env.raw("a.raw", MiB)
    exports = [{"name": "kernel", "node-name": "top", **ON},
               {"name": "server", "node-name": "top", **ON, "passthrough": "off"}]
    m = require_passthrough(env.mount(env.graph([raw_node("top", image)], exports)))
    kernel, server = os.open(m / "kernel", os.O_RDWR), os.open(m / "server", os.O_RDWR)
    equal((modes(m, "kernel"), modes(m, "server")), (["rw passthrough"], ["rw"]), "openers")
    for i in range(50):
        at = MiB + i * 8 * KiB
        os.pwrite(kernel, bytes([i]) * 4096, at)
        equal(os.fstat(server).st_size, at + 4096, "st_size at the server")
        equal(os.pread(server, 4096, at), bytes([i]) * 4096, "what the kernel has written")
        os.pwrite(server, bytes([i + 100]) * 4096, at + 4096)
        equal(os.pread(kernel, 8192, at), bytes([i]) * 4096 + bytes([i + 100]) * 4096, "both")
        equal(os.fstat(kernel).st_size, at + 8192, "st_size at the kernel")
    os.close(kernel)
    closed(m, "kernel")
    os.pwrite(server, b"last", 0)
    os.close(server)
    m.umount()
    equal(os.stat(image).st_size, MiB + 400 * KiB, "the image's size")


@case("a root of another thread is passed through, and follows the file as well")
def on_thread(env):
    image = env.raw("a.raw", MiB)
    m = require_passthrough(env.mount(env.simple(image, **ON, iothread="t1")))
    fd = os.open(m / "disk", os.O_RDWR)
    equal(modes(m), ["rw passthrough"], "openers")
    os.pwrite(fd, b"end", 2 * MiB)
    equal(os.fstat(fd).st_size, 2 * MiB + 3, "st_size")
    equal(pread(m / "disk.d/layers/0/disk", 2 * MiB, 10), b"end", "the layer")
    os.fsync(fd)
    check_busy(m.refusal("disk.d/size", "+1M"))
    os.close(fd)
    closed(m)
    m.command("disk.d/size", "+1M")
    m.umount()
    equal(os.stat(image).st_size, 3 * MiB + 3, "the image's size")
