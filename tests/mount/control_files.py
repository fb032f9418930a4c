# SPDX-License-Identifier: MIT
"""NAME.d/ and .bgfs/: what the views show, and what may be written to them."""
import errno
import json
import os
import stat

from mount_suite import *  # noqa: F403


def chain(env):
    """Three layers: base <- middle <- top, 1 MiB of data in each."""
    for name, backing, at in (("base", None, 1), ("middle", "base", 2), ("top", "middle", 3)):
        image = env.qcow2(f"{name}.qcow2", "16M" if backing is None else None,
                          backing and env / f"{backing}.qcow2")
        run("qemu-io", "-c", f"write -P {at} {at}M 1M", image)
    nodes = [{"node-name": n, "driver": "qcow2", **({"backing": b} if b else {}),
              "file": {"driver": "file", "filename": str(env / f"{n}.qcow2")}}
             for n, b in (("base", None), ("middle", "base"), ("top", "middle"))]
    return env.graph(nodes, [{"name": "web", "node-name": "top", "writable": True}])


@case("the views of a chain say what qemu-img says", needs=["qemu-img", "qemu-io"])
def as_the_peer(env):
    m = env.mount(chain(env))
    web = json.loads(m.read("web.d/info.json"))
    with_peer = json.loads(run("qemu-img", "info", "-U", "--output=json", env / "top.qcow2").stdout)
    for key in ("virtual-size", "format", "cluster-size", "actual-size", "format-specific",
                "dirty-flag", "backing-filename", "full-backing-filename"):
        equal(web.get(key), with_peer.get(key), f"info.json {key}")
    ours = json.loads(m.read("web.d/map.json"))
    theirs = json.loads(run("qemu-img", "map", "-U", "--output=json", env / "top.qcow2").stdout)
    known = set(theirs[0]) | {"offset"}
    equal([{k: v for k, v in e.items() if k in known} for e in ours], theirs, "map.json")
    contains(m.read("web.d/info"), "virtual size: 16 MiB (16777216 bytes)", "info")
    lines = m.read("web.d/map").splitlines()
    equal([line.split()[0] for line in lines[1:]], ["0x100000", "0x200000", "0x300000"], "map")


@case("layers are the chain: their map is their own, their disk is merged", needs=["qemu-io"])
def layers(env):
    m = env.mount(chain(env))
    equal(sorted(os.listdir(m / "web.d/layers")), ["0", "1", "2", "by-node"], "layers")
    for index, name in enumerate(("top", "middle", "base")):
        layer = f"web.d/layers/{index}"
        equal(m.read(f"{layer}/file"), f"{env / name}.qcow2\n", "file")
        own = [e for e in json.loads(m.read(f"{layer}/map.json")) if e["data"]]
        at = 3 - index
        equal([(e["start"], e["length"]) for e in own], [(at * MiB, MiB)], f"map of layer {index}")
        equal(os.readlink(m / f"web.d/layers/by-node/{name}"), f"../{index}", "by-node")
        for data in (1, 2, 3):
            found = pread(m / f"{layer}/disk", data * MiB, 4)
            equal(found, bytes([data if data <= at else 0]) * 4, f"layer {index} at {data}M")
        with fails_with(errno.EROFS):
            os.open(m / f"{layer}/disk", os.O_RDWR)
        equal(os.stat(m / f"{layer}/disk").st_size, 16 * MiB, "st_size")
        equal(json.loads(m.read(f"{layer}/info.json"))["format"], "qcow2", "info.json")
    pwrite(m / "web", 0, b"new")
    equal(pread(m / "web.d/layers/0/disk", 0, 3), b"new", "layer 0 is the live image")
    equal(pread(m / "web.d/layers/1/disk", 0, 3), b"\0\0\0", "layer 1 stays as it is")
    m.umount()
    qemu_check(env / "top.qcow2")


@case("nodes are directories with links to their children", needs=["qemu-io"])
def nodes(env):
    m = env.mount(chain(env))
    check({"top", "middle", "base"} <= set(os.listdir(m / "web.d/nodes")), "a node is missing")
    equal(m.read("web.d/nodes/top/driver"), "qcow2\n", "driver")
    equal(os.readlink(m / "web.d/nodes/top/backing"), "../middle", "backing")
    equal(m.read("web.d/nodes/top/backing/backing/driver"), "qcow2\n", "two links down")
    equal(m.read("web.d/nodes/top/file/driver"), "file\n", "the protocol node")
    options = json.loads(m.read("web.d/nodes/top/options.json"))
    equal((options["driver"], options["node-name"]), ("qcow2", "top"), "options.json")
    contains(m.read("web.d/nodes/top/limits"), "request-alignment: ", "limits")
    contains(m.read("web.d/nodes/top/permissions"), "export 'web'", "permissions")
    equal(m.read("web.d/nodes/top/requests"), "", "requests")
    contains(m.read("web.d/nodes/base/stats"), "reads: ", "stats")
    stats = json.loads(m.read("web.d/nodes/base/stats.json"))
    equal(stats["node-name"], "base", "stats.json")
    histogram = stats["stats"]["rd_latency_histogram"]
    equal(len(histogram["bins"]), len(histogram["boundaries"]) + 1, "the bins of a histogram")
    equal(sum(histogram["bins"]), stats["stats"]["rd_operations"], "what is in them")
    specific = json.loads(m.read("web.d/nodes/base/file/stats.json"))["driver-specific"]
    equal(specific["discard-nb-ok"], 0, "what only a file counts")
    equal(json.loads(m.read("web.d/stats.json"))["device"], "web", "stats.json of a root")
    for name in ("max-transfer", "max-hw-transfer", "max-vectors", "discard-alignment"):
        contains(m.read("web.d/nodes/top/limits"), name + ": ", "limits")
    threshold = m / "web.d/nodes/top/write-threshold"
    equal(m.read("web.d/nodes/top/write-threshold"), "0\n", "no write threshold")
    with open(threshold, "w") as f:
        f.write("1M\n")
    equal(m.read("web.d/nodes/top/write-threshold"), "1048576\n", "a write threshold")
    with fails_with(errno.EINVAL):
        with open(threshold, "w", buffering=1) as f:
            f.write("much\n")
    contains(m.read("web.d/last-error"), "'much' is no write threshold of 'top': write an offset "
             "such as 10G, or 0 for none", "what a write threshold is")
    with fails_with(errno.ENOENT):
        os.stat(m / "web.d/nodes/nothing")


@case("every listed view can be read, again and again", needs=["qemu-io"])
def all_readable(env):
    m = env.mount(chain(env))
    count = 0
    for top in ("web.d", ".bgfs"):
        for where, _, names in os.walk(m / top):
            for name in names:
                path = os.path.join(where, name)
                if name == "disk" or os.path.islink(path):
                    continue
                with open(path) as f:
                    text = f.read()
                check(text == "" or text.endswith("\n"), path, "does not end with a newline")
                if name.endswith(".json"):
                    json.loads(text)
                count += 1
    check(count > 40, "only", count, "views were found")


@case("a view's size is 0 until it was opened, then that of its text", needs=["tac", "tar"],
      unpassed=True)
def sizes(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    equal(os.stat(m / "disk.d/info").st_size, 0, "st_size before")
    text = m.read("disk.d/info")
    equal(os.stat(m / "disk.d/info").st_size, len(text), "st_size after")
    equal(run("tac", m / "disk.d/info").stdout.splitlines(), text.splitlines()[::-1], "tac")
    run("tar", "-C", m.path, "-cf", env / "tar", "disk.d/state", "disk.d/help")
    equal(run("tar", "-xOf", env / "tar", "disk.d/state").stdout, "ok\n", "tar")
    with open(m / "disk.d/stats") as before:
        first = before.read()
        pwrite(m / "disk", 0, b"x")
        before.seek(0)
        equal(before.read(), first, "one handle is one text")
    check(m.read("disk.d/stats") != first, "a new handle has a new text")


@case("a failed write has an errno, and its sentence on the descriptor and in last-error",
      needs=["bash"])
def sentences(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    fd = os.open(m / "disk.d/ctl", os.O_RDWR)
    with fails_with(errno.EINVAL):
        os.write(fd, b"fluhs\n")
    sentence = os.read(fd, 1000).decode()
    contains(sentence, "did you mean 'flush'", "the sentence")
    os.close(fd)
    line = m.read("disk.d/last-error").splitlines()[-1]
    contains(line, f"{os.getpid()} ctl:fluhs EINVAL {sentence.strip()}", "last-error")
    equal(os.stat(m / "disk.d/last-error").st_size, len(m.read("disk.d/last-error")), "st_size")
    contains(run("bash", "-c", f"exec 3<>{m / 'disk.d/ctl'}; echo nonsense >&3; cat <&3",
                 ok=False).stdout, "is no verb", "from a shell")
    with fails_with(errno.EINVAL):
        m.command("disk.d/ctl", "x" * 5000)
    for i in range(20):
        with fails_with(errno.EINVAL):
            m.command("disk.d/ctl", f"verb{i}")
    equal(len(m.read("disk.d/last-error").splitlines()), 16, "lines of last-error")
    with fails_with(errno.EACCES):
        os.open(m / "disk.d/info", os.O_WRONLY)
    run("bash", "-c", f"echo flush > {m / 'disk.d/ctl'}")
    contains(m.read("disk.d/ctl"), "flush", "the list of verbs")


@case("whatever is refused leaves its sentence, what the kernel asks by the way, too", unpassed=True)
def every_refusal(env):
    m = env.mount(env.graph(
        [{"node-name": n, "driver": "raw",
          "file": {"driver": "file", "filename": str(env.raw(f"{n}.raw", MiB))}}
         for n in ("gold", "disk")],
        [{"name": "gold", "node-name": "gold"},
         {"name": "disk", "node-name": "disk", "writable": True}]))

    def refused(number, sentence, action, root="disk"):
        with fails_with(number):
            action()
        contains(m.read(f"{root}.d/last-error").splitlines()[-1], sentence, sentence)

    refused(errno.EROFS, "open EROFS 'gold' is exported read-only",
            lambda: os.open(m / "gold", os.O_WRONLY), "gold")
    refused(errno.EROFS, "truncate EROFS", lambda: os.truncate(m / "gold", 0), "gold")
    refused(errno.EROFS, "utimens EROFS 'gold' is exported read-only, and so is its time",
            lambda: os.utime(m / "gold"), "gold")
    refused(errno.EACCES, "open:state EACCES '/disk.d/state' cannot be written; it only tells",
            lambda: os.open(m / "disk.d/state", os.O_WRONLY))
    refused(errno.EPERM, "chmod EPERM mode and owner of '/disk' come from its export",
            lambda: os.chmod(m / "disk", 0o777))
    refused(errno.EPERM, "chown EPERM mode and owner of '/disk' come from its export",
            lambda: os.chown(m / "disk", 12345, 12345))
    os.utime(m / "disk", ns=(0, 10**18))
    equal(os.stat(m / "disk").st_mtime_ns, 10**18, "the time of a writable one")


@case("size grows the disk, and shrinks it only when told so")
def resizing(env):
    image = env.raw("a.raw", MiB, pattern(MiB))
    m = env.mount(env.simple(image))
    equal(m.read("disk.d/size"), f"{MiB}\n", "size")
    m.command("disk.d/size", "2M\n")
    equal(os.stat(m / "disk").st_size, 2 * MiB, "st_size")
    m.command("disk.d/size", "+1M\n")
    equal(os.stat(m / "disk").st_size, 3 * MiB, "st_size after +1M")
    equal(pread(m / "disk", MiB, 2 * MiB) == b"\0" * 2 * MiB, True, "the new part")
    pwrite(m / "disk", 3 * MiB - 3, b"end")
    with fails_with(errno.EINVAL):
        m.command("disk.d/size", "1M")
    contains(m.read("disk.d/last-error"), "shrink", "last-error")
    for nonsense in ("", "big", "-1", "shrink", "shrink 5M", "+99999999T"):
        with fails_with(errno.EINVAL):
            m.command("disk.d/size", nonsense or "\n")
    m.command("disk.d/size", "shrink 512K")
    equal(os.stat(m / "disk").st_size, 512 * KiB, "st_size after shrinking")
    equal(os.stat(image).st_size, 512 * KiB, "the image")
    equal(pread(m / "disk", 0, MiB) == pattern(512 * KiB), True, "what is left")
    m2 = env.mount(env.graph([{"node-name": "n", "driver": "null-co", "size": MiB}],
                             [{"name": "null", "node-name": "n"}], name="other.yaml"), name="mnt2")
    with fails_with(errno.EROFS):
        m2.command("null.d/size", "2M")


@case("openers names who has the disk open", needs=["sleep"], unpassed=True)
def openers(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    equal(m.read("disk.d/openers"), "", "openers")
    fd = os.open(m / "disk", os.O_RDWR)
    line = m.read("disk.d/openers").split()
    equal((line[0], line[-1]), (str(os.getpid()), "rw"), "openers")
    os.close(fd)
    wait_for(lambda: m.read("disk.d/openers") == "", "the release")


@case(".bgfs says what is mounted and how")
def service(env):
    image = env.raw("a.raw", MiB)
    graph = env.simple(image)
    m = env.mount(graph)
    check(".bgfs" not in os.listdir(m.path), ".bgfs is listed")
    equal(m.read(".bgfs/exports"), "disk\n", "exports")
    equal(m.read(".bgfs/files"), f"rw {image}\n", "files")
    contains(m.read(".bgfs/version"), "bgfs ", "version")
    equal(m.read(".bgfs/graph.yaml").splitlines()[0], f"# read from {graph}", "graph.yaml")
    opened = json.loads(m.read(".bgfs/graph.json"))
    equal([n["driver"] for n in opened["nodes"]], ["raw", "file"], "graph.json")
    contains(m.read(".bgfs/graph.dot"), "digraph", "graph.dot")
    os.kill(m.pid, 0)
    contains(m.read(".bgfs/help"), "graph.dot", "help")
    features = dict(line.split(": ", 1) for line in m.read(".bgfs/features").splitlines())
    wanted = "threads" if os.environ.get("BGFS_TEST_NO_IO_URING") else "io_uring"
    equal(features["io"], wanted, "the backend in use")
    contains(features["fuse-flags"], "async-dio", "fuse-flags")
    # What is shown can be mounted again.
    copy = env / "shown.yaml"
    copy.write_text(m.read(".bgfs/graph.yaml"))
    m.umount()
    again = env.mount(copy)
    equal(os.stat(again / "disk").st_size, MiB, "the same graph again")


@case("control: hidden and none")
def control(env):
    image = env.raw("a.raw", MiB)
    nodes = [{"node-name": "n", "driver": "raw", "read-only": True,
              "file": {"driver": "file", "filename": str(image)}}]
    m = env.mount(env.graph(nodes, [
        {"name": "h", "node-name": "n", "control": "hidden"},
        {"name": "n", "node-name": "n", "control": "none"}]))
    equal(sorted(os.listdir(m.path)), ["h", "n"], "the mount point")
    equal(m.read("h.d/state"), "read-only\n", "a hidden directory")
    with fails_with(errno.ENOENT):
        os.stat(m / "n.d")


@case("views are as private as their disk", needs=["runuser"])
def private(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), mode="0640"))
    equal(stat.S_IMODE(os.stat(m / "disk.d").st_mode), 0o550, "mode of the directory")
    equal(stat.S_IMODE(os.stat(m / "disk.d/info").st_mode), 0o440, "mode of a view")
    equal(stat.S_IMODE(os.stat(m / "disk.d/ctl").st_mode), 0o640, "mode of ctl")
    denied = run("runuser", "-u", "nobody", "--", "cat", m / "disk.d/layers/0/disk", ok=False)
    contains(denied.stderr, "Permission denied")
