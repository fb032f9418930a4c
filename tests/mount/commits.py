# SPDX-License-Identifier: MIT
"""ctl commit: the content of an overlay that is in use goes down into its base."""
import errno
import json
import os
import threading
import time

from mount_suite import *  # noqa: F403


def bgfs(*words, **options):
    return run(BGFS, *words, ok=False, **options)


def chain(env, more_nodes=(), more_exports=(), base_options=None, export=None, size="16M",
          top_options=None):
    """base.qcow2 <- top.qcow2, with the base a node of its own."""
    base = env / "base.qcow2"
    if not base.exists():
        env.qcow2("base.qcow2", size)
        run("qemu-io", "-c", "write -P 1 0 2M", base)
        env.qcow2("top.qcow2", None, backing=base)
    file = {"driver": "file", "filename": str(base)}
    nodes = [{"node-name": "base", "driver": "qcow2", "discard": "unmap", "file": file,
              **(base_options or {})},
             {"node-name": "top", "driver": "qcow2", "discard": "unmap", "backing": "base",
              "file": {"driver": "file", "filename": str(env / "top.qcow2")}, **(top_options or {})},
             *more_nodes]
    return env.graph(nodes, [{"name": "disk", "node-name": "top", "writable": True,
                              **(export or {})}, *more_exports])


def space(path):
    return os.stat(path).st_blocks * 512


@case("commit gives the content to the base, empties the overlay, and nothing reads otherwise",
      needs=["qemu-img", "qemu-io"])
def committed(env):
    m = env.mount(chain(env))
    pwrite(m / "disk", MiB, pattern(2 * MiB))
    fallocate(m / "disk", FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 0, 65536)
    pwrite(m / "disk", 8 * MiB, b"alone")
    wanted = pread(m / "disk", 0, 16 * MiB)
    before = os.stat(m / "disk").st_mtime_ns
    with open(m / "disk", "rb") as reader:  # who reads is not in the way
        m.command("disk.d/ctl", "commit")
        equal(reader.read() == wanted, True, "through a file that was open")
    equal(os.stat(m / "disk").st_mtime_ns, before, "st_mtime: the bytes are the same")
    equal(pread(m / "disk", 0, 16 * MiB) == wanted, True, "the disk")
    equal(pread(m / "disk.d/layers/1/disk", 0, 16 * MiB) == wanted, True, "the layer below")
    equal([e["present"] for e in json.loads(m.read("disk.d/layers/0/map.json"))], [False],
          "the map of the overlay")
    equal(m.read("disk.d/bitmaps/state") if os.listdir(m / "disk.d/bitmaps") else "", "", "bitmaps")
    pwrite(m / "disk", 0, b"goes on")
    equal(pread(m / "disk.d/layers/1/disk", 0, 7), wanted[:7], "the base after that")
    equal(bgfs("commit", m / "disk").stdout, "Image committed.\n", "again, as a command")
    equal(pread(m / "disk.d/layers/1/disk", 0, 7), b"goes on", "the base after that")
    for option in (["-d"], ["-b", "base.qcow2"]):
        done = bgfs("commit", *option, m / "disk")
        equal(done.returncode, 1, f"exit status with {option}")
        contains(done.stderr, "-b and -d are not for", "standard error")
    m.umount()
    for name in ("base.qcow2", "top.qcow2"):
        qemu_check(env / name)
    run("qemu-img", "convert", "-O", "raw", env / "base.qcow2", env / "raw")
    equal((env / "raw").read_bytes() == b"goes on" + wanted[7:], True, "the base as the peer sees it")


@case("commit is refused with the reason where it is not safe, and nothing is changed",
      needs=["qemu-img", "qemu-io"])
def refused(env):
    def refuse(m, number, sentence, name="disk"):
        found = m.refusal(f"{name}.d/ctl", "commit")
        equal(found[0], number, f"errno ({found[1]})")
        contains(found[1], sentence)

    def untouched(what, **more):
        """A mount of the chain with something in the overlay, checked at its end."""
        m = env.mount(chain(env, **more))
        before = (env / "base.qcow2").read_bytes()
        if more.get("export", {}).get("writable", True):
            pwrite(m / "disk", 3 * MiB, b"in the overlay")
        what(m)
        m.umount()
        equal((env / "base.qcow2").read_bytes() == before, True, "the base")

    def opened(m):
        with open(m / "disk.d/layers/1/disk", "rb"):
            refuse(m, errno.EBUSY, f"while process {os.getpid()} (")
            refuse(m, errno.EBUSY, "has disk.d/layers/1/disk open; close it there")
        os.mkdir(m / "disk.d/points/mon")
        refuse(m, errno.EBUSY, "while it has point 'mon'; end it with rmdir disk.d/points/mon")
        os.rmdir(m / "disk.d/points/mon")
        for words in ("now", "wait=maybe", "wait=no later", "speed=", "speed=-1", "complete=yes"):
            number, sentence = m.refusal("disk.d/ctl", f"commit {words}")
            equal(number, errno.EINVAL, sentence)
            contains(sentence, "'wait=no', 'complete=manual' and 'speed=RATE'")

    untouched(opened)
    untouched(lambda m: refuse(m, errno.EPERM, "is 'read-only: true' in the graph file"),
              base_options={"read-only": True})
    untouched(lambda m: refuse(m, errno.EROFS, "is exported read-only"), export={"writable": False})
    untouched(lambda m: refuse(m, errno.EPERM, "is 'untrusted: true'"), export={"untrusted": True})
    untouched(lambda m: refuse(m, errno.EBUSY, "root 'golden' shows node 'base'"),
              more_exports=[{"name": "golden", "node-name": "base"}])
    env.qcow2("twin.qcow2", None, backing=env / "base.qcow2")
    twin = {"node-name": "twin", "driver": "qcow2", "backing": "base",
            "file": {"driver": "file", "filename": str(env / "twin.qcow2")}}
    untouched(lambda m: refuse(m, errno.EBUSY, "shows node 'base'"), more_nodes=[twin],
              more_exports=[{"name": "twin", "node-name": "twin"}])
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    refuse(m, errno.EINVAL, "has no backing file that its content could go to")
    m.umount()


@case("who writes while a commit runs loses nothing, and does not make it fail",
      needs=["qemu-img", "qemu-io"], timeout=300)
def beside_writers(env):
    m = env.mount(chain(env, size="256M"))
    content = bytearray(pread(m / "disk", 0, 256 * MiB))
    for turn in range(8):
        block = pattern(64 * MiB, seed=turn)
        at = (turn % 4) * 64 * MiB
        pwrite(m / "disk", at, block)
        content[at:at + len(block)] = block
        found = []
        commit = threading.Thread(target=lambda: found.append(m.refusal("disk.d/ctl", "commit")))
        commit.start()
        if turn % 2:
            for i in range(50):
                where = (turn * 7919 + i * 104729) * 4096 % (256 * MiB)
                pwrite(m / "disk", where, b"%06d!" % i)
                content[where:where + 7] = b"%06d!" % i
        commit.join()
        equal(found[0], (0, ""), f"turn {turn}")
        equal(pread(m / "disk", 0, 256 * MiB) == bytes(content), True, f"the disk, turn {turn}")
    m.command("disk.d/ctl", "commit")
    m.umount()
    for name in ("base.qcow2", "top.qcow2"):
        qemu_check(env / name)
    run("qemu-img", "convert", "-O", "raw", env / "base.qcow2", env / "raw")
    equal((env / "raw").read_bytes() == bytes(content), True, "the base")


@case("the mount can be looked at while a commit goes on", needs=["qemu-img", "qemu-io"])
def looked_at(env):
    m = env.mount(chain(env, size="256M"))
    pwrite(m / "disk", 0, pattern(200 * MiB))
    commit = threading.Thread(target=lambda: m.command("disk.d/ctl", "commit"))
    commit.start()
    slowest = 0
    while commit.is_alive():
        begin = time.monotonic()
        os.stat(m / "disk")
        os.listdir(m / "disk.d")
        m.read("disk.d/state")
        slowest = max(slowest, time.monotonic() - begin)
    check(slowest < 1, f"a look took {slowest} s")
    m.command(".bgfs/reload", "1")
    equal(m.read("disk.d/state"), "ok\n", "state")
    m.umount()


@case("reading ctl lists the verbs that could do something", needs=["qemu-img", "qemu-io"])
def verbs(env):
    def listed(m, root="disk"):
        return [line.split()[0] for line in m.read(f"{root}.d/ctl").splitlines()]

    image = env.raw("a.raw", MiB)
    nodes = [{"node-name": n, "driver": "raw", "file": {"driver": "file", "filename": str(f)}}
             for n, f in (("raw", image), ("bad", env / "missing"))]
    m = env.mount(chain(env, more_nodes=nodes,
                        more_exports=[{"name": "raw", "node-name": "raw", "writable": True},
                                      {"name": "bad", "node-name": "bad"}]))
    equal(listed(m), ["flush", "check", "revert", "commit", "backing"], "of a chain")
    equal(listed(m, "raw"), ["flush", "backing"], "of a raw image")
    equal(listed(m, "bad"), ["retry"], "of a root that failed")
    m.umount()
    m = env.mount(env / "base.qcow2", name="one")
    equal(listed(m), ["flush", "check"], "of one image, read-only")
    m.umount()
