# SPDX-License-Identifier: MIT
"""What cp, tar, rsync, du and grep make of a mount; and that a mount that is read-only leaves no
trace in any file of a chain."""
import hashlib
import json

from mount_suite import *  # noqa: F403

SIZE = 4 * MiB
MARK = b"a mark that is nowhere else\n"
ROOTS = ("chain", "flat", "image")


def three_images(env, **export):
    """A chain of two, a plain qcow2 image, a raw file: data, holes, and one mark in each."""
    flat = env.raw("flat.raw", SIZE)
    for name, backing in (("base", None), ("chain", env / "base.qcow2"), ("image", None)):
        env.qcow2(f"{name}.qcow2", SIZE if backing is None else None, backing)
    text = env / "mark"
    text.write_bytes(MARK.ljust(4096, b"."))
    for image, offset in (("base", MiB), ("image", 2 * MiB)):
        run("qemu-io", "-f", "qcow2", "-c", f"write -s {text} {offset} 4k", env / f"{image}.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 65 0 64k", env / "chain.qcow2")
    with open(flat, "r+b") as f:
        f.seek(3 * MiB)
        f.write(MARK.ljust(4096, b"."))
    nodes = [{"node-name": n, "driver": "qcow2", **more,
              "file": {"driver": "file", "filename": str(env / f"{n}.qcow2")}}
             for n, more in (("base", {"read-only": True}), ("chain", {"backing": "base"}),
                             ("image", {}))]
    nodes.append({"node-name": "flat", "driver": "raw",
                  "file": {"driver": "file", "filename": str(flat)}})
    return env.graph(nodes, [{"name": n, "node-name": n, "passthrough": "off", **export}
                             for n in ROOTS])


def read_bytes(m, root):
    lines = m.read(f"{root}.d/stats").splitlines()
    return next(int(line.split(": ")[1]) for line in lines if line.startswith("read-bytes: "))


@case("over control: hidden cp, tar, rsync, du and grep touch each image once and exit 0",
      needs=["cp", "tar", "rsync", "du", "grep", "qemu-io"], as_written=True)
def hidden(env):
    m = env.mount(three_images(env, control="hidden"))
    whole = {root: (m / root).read_bytes() for root in ROOTS}

    def copies(where):
        equal(sorted(os.listdir(where)), list(ROOTS), f"names in {where.name}")
        for root in ROOTS:
            equal((where / root).read_bytes() == whole[root], True, f"{root} in {where.name}")
            check(os.stat(where / root).st_blocks * 512 < SIZE // 2, f"{where.name} is sparse")

    def with_tar():
        run("tar", "-C", m.path, "-S", "-cf", env / "all.tar", ".")
        (env / "tar").mkdir()
        run("tar", "-C", env / "tar", "-xf", env / "all.tar")

    def with_grep():
        found = run("grep", "-r", "-l", "-a", MARK.decode().strip(), m.path).stdout.split()
        equal(sorted(os.path.basename(f) for f in found), list(ROOTS), "what grep finds")

    def with_du():
        lines = run("du", "-a", "--apparent-size", "-B1", m.path).stdout.splitlines()
        listed = {os.path.basename(line.split("\t")[1]): int(line.split("\t")[0]) for line in lines}
        equal({n: listed[n] for n in ROOTS}, {n: SIZE for n in ROOTS}, "what du lists")
        equal(len(lines), len(ROOTS) + 1, "lines of du")

    for tool, use, in (("cp -a", lambda: run("cp", "-a", m.path, env / "cp")),
                       ("tar", with_tar),
                       ("rsync", lambda: run("rsync", "-aS", f"{m.path}/", env / "rsync")),
                       ("grep", with_grep), ("du", with_du)):
        before = {root: read_bytes(m, root) for root in ROOTS}
        use()
        for root in ROOTS:
            count = read_bytes(m, root) - before[root]
            least = 0 if tool == "du" else 4096
            check(least <= count <= SIZE, f"{tool} reads", count, "bytes of", root)
    for name in ("cp", "tar", "rsync"):
        copies(env / name)
    equal(m.read("image.d/state"), "read-only\n", "what is not listed is there by name")


def contents(files):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def traces(files):
    return {p.name: (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_blocks, s.st_mode)
            for p in files for s in [os.stat(p)]}


@case("-o ro writes nothing at all: bytes, times and names stay as they are",
      needs=["qemu-img", "qemu-io"])
def untouched(env):
    graph = three_images(env, writable=True)
    # Images that somebody left open: dirty, with a bitmap in use, with a snapshot.
    run("qemu-img", "snapshot", "-c", "s", env / "image.qcow2")
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", env / "image.qcow2", "b")
    dirty = env.qcow2("dirty.qcow2", SIZE, options="lazy_refcounts=on")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 66 0 256k", "-c", "flush", "-c", "sigraise 9",
        dirty, ok=False)
    contains(run("qemu-img", "info", "-U", dirty).stdout, "dirty", "what was left")
    nodes = json.loads(graph.read_text())["nodes"]
    nodes.append({"node-name": "dirty", "driver": "qcow2",
                  "file": {"driver": "file", "filename": str(dirty)}})
    # Of what the kernel reads by itself it sets st_atime, as for any reader of the file.
    graph = env.graph(nodes, [{"name": n, "node-name": n, "writable": True, "passthrough": "off"}
                              for n in (*ROOTS, "dirty")])
    files = sorted(p for p in env.dir.iterdir() if p.suffix in (".raw", ".qcow2"))
    bytes_before = contents(files)
    for p in files:  # older than st_mtime: reading would change it
        os.utime(p, ns=(1_000_000_000, os.stat(p).st_mtime_ns))
    before = traces(files)
    inside = sorted(os.listdir(env.dir))
    m = env.mount(graph, "-o", "ro")
    for root in (*ROOTS, "dirty"):
        equal(len((m / root).read_bytes()), SIZE, "bytes read")
        for name in ("map.json", "info", "partitions/table", "layers/0/map", "state"):
            check(len(m.read(f"{root}.d/{name}")) > 0, name, "is empty")
        with fails_with(errno.EROFS):
            os.open(m / root, os.O_RDWR)
    check((m / "image.d/snapshots/s/disk").read_bytes() == (m / "image").read_bytes(), "a snapshot")
    equal(pread(m / "dirty", 0, 4), b"BBBB", "what is dirty is read")
    m.umount()
    equal(traces(files), before, "times and lengths")
    equal(contents(files) == bytes_before, True, "bytes")
    equal(sorted(n for n in os.listdir(env.dir) if n != "mnt"), [n for n in inside if n != "mnt"],
          "names")


@case("forty layers are tellable apart", needs=["qemu-img", "qemu-io"], timeout=300)
def forty(env):
    count = 40
    for n in range(count):
        name = f"layer{n:02}.qcow2"
        env.qcow2(name, SIZE if n == 0 else None, env / f"layer{n - 1:02}.qcow2" if n else None)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {n + 1} {n * 64}k 64k",
            "-c", f"write -P {n + 101} 3M 64k", env / name)
    node = None
    for n in range(count):
        node = {"node-name": f"n{n:02}", "driver": "qcow2",
                "file": {"driver": "file", "filename": str(env / f"layer{n:02}.qcow2")},
                **({"backing": node} if node else {})}
    m = env.mount(env.graph([node], [{"name": "disk", "node-name": node["node-name"]}]))
    names = os.listdir(m / "disk.d/layers")
    equal(sorted(int(n) for n in names if n.isdigit()), list(range(count)), "layers")
    for depth in range(count):
        n = count - 1 - depth
        layer = m / f"disk.d/layers/{depth}"
        equal((layer / "file").read_text(), f"{env / f'layer{n:02}.qcow2'}\n", "its file")
        equal(os.readlink(m / f"disk.d/layers/by-node/n{n:02}"), f"../{depth}", "by-node")
        own = [(r["start"], r["length"]) for r in json.loads((layer / "map.json").read_text())
               if r["data"]]
        equal(own, [(n * 65536, 65536), (3 * MiB, 65536)], f"what layer {depth} alone holds")
        equal(pread(layer / "disk", 3 * MiB, 1), bytes([n + 101]), "merged down")
        equal(pread(layer / "disk", n * 65536, 1), bytes([n + 1]), "its own")
        equal(pread(layer / "disk", (n + 1) * 65536, 1), b"\0", "nothing of what is above")
        equal(json.loads((layer / "info.json").read_text())["filename"],
              str(env / f"layer{n:02}.qcow2"), "info.json")
    depths = {r["start"]: r["depth"] for r in json.loads(m.read("disk.d/map.json")) if r["data"]}
    equal(depths, {**{n * 65536: count - 1 - n for n in range(count)}, 3 * MiB: 0}, "depths")


@case("a chain that comes from another host is found with references.rewrite", needs=["qemu-img"])
def rewritten(env):
    here = env / "here"
    here.mkdir()
    env.qcow2("here/base.qcow2", SIZE)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", here / "base.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/srv/old host/images/base.qcow2",
        "-F", "qcow2", here / "top.qcow2", str(SIZE))
    nodes = [{"node-name": "top", "driver": "qcow2",
              "file": {"driver": "file", "filename": str(here / "top.qcow2")}}]
    exports = [{"name": "disk", "node-name": "top"}]
    m = env.mount(env.graph(nodes, exports))
    with fails_with(errno.ENOMEDIUM):
        pread(m / "disk", 0, 1)
    contains(m.read("disk.d/last-error"), "/srv/old host/images/base.qcow2", "what is missing")
    m.umount()
    m = env.mount(env.graph(nodes, exports,
                            references={"allow": ["here"],
                                        "rewrite": {"/srv/old host/images/": "./here/"}}))
    equal(pread(m / "disk", 0, 3), b"\7\7\7", "the base is read")
    equal(m.read("disk.d/layers/1/file"), f"{here / 'base.qcow2'}\n", "its file")
