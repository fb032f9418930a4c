# SPDX-License-Identifier: MIT
"""Roots served by threads of their own, and led from one to another while they are used."""
import errno
import os
import threading

from mount_suite import *  # noqa: F403


def graph_text(nodes, exports):
    return "version: 1\nnodes:\n" + "".join(f"  - {n}\n" for n in nodes) + \
        "exports:\n" + "".join(f"  - {e}\n" for e in exports)


def image(name, more=""):
    return f"{{ node-name: {name}, driver: qcow2{more}, " \
        f"file: {{ driver: file, filename: {name}.qcow2 }} }}"


def shown(name, iothread="", node=None, more="writable: true"):
    thread = f", iothread: {iothread}" if iothread else ""
    return f"{{ name: {name}, node-name: {node or name}, {more}{thread} }}"


def thread_names(m):
    tasks = f"/proc/{m.pid}/task"
    return {open(f"{tasks}/{t}/comm", encoding="ascii").read().strip() for t in os.listdir(tasks)}


def threads_of(m):
    features = dict(line.split(": ", 1) for line in m.read(".bgfs/features").splitlines())
    return features["iothreads"]


def reload(m):
    """Returns the sentence of a refusal, or None."""
    fd = os.open(m / ".bgfs/reload", os.O_RDWR)
    try:
        os.write(fd, b"1")
    except OSError:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)
    return None


def read_everything(m):
    """Every file below the control directories; returns how many."""
    count = 0
    for root in os.listdir(m.path):
        if not root.endswith(".d"):
            continue
        for directory, _, files in os.walk(m / root):
            for name in files:
                path = os.path.join(directory, name)
                if os.path.islink(path) or name == "disk":
                    continue
                with open(path, "rb") as file:
                    file.read()
                count += 1
    return count


@case("roots on threads of their own do all that others do", needs=["qemu-img"])
def everything(env):
    for name in ("a", "b"):
        env.qcow2(f"{name}.qcow2", "64M")
    env.qcow2("base.qcow2", "64M")
    env.qcow2("over.qcow2", "64M")
    nodes = [image("a"), image("b"), image("base"), image("over", ", backing: base")]
    exports = [shown("a", "one"), shown("b", "two", more="writable: true, growable: true"),
               shown("over"), shown("base", "one", more="open: on-demand")]
    m = env.mount(env.file("g.yaml", graph_text(nodes, exports)))
    equal(threads_of(m), "one two", "the threads in .bgfs/features")
    check({"one", "two"} <= thread_names(m), f"the kernel knows {thread_names(m)}")
    contains(m.read(".bgfs/graph.json"), '"iothread": "two"', "graph.json")
    # 'over' lives where 'base', with which it is connected, was told to live.
    contains(m.read(".bgfs/graph.yaml"), "iothread: one", "graph.yaml")
    data = pattern(3 * MiB)
    for name in ("a", "b", "over"):
        pwrite(m / name, MiB - 100, data)
        equal(pread(m / name, MiB - 100, len(data)) == data, True, f"what was written to {name}")
        check(os.stat(m / name).st_blocks * 512 >= len(data), f"the blocks of {name}")
    fallocate(m / "a", 3, 2 * MiB, MiB)  # punch
    equal(pread(m / "a", 2 * MiB, MiB), bytes(MiB), "the hole")
    check(len(data_ranges(m / "a")) > 1, "the hole is seen")
    fsync(m / "a")
    # From one thread to another, to the mount's own, and within one.
    for source, target in (("a", "b"), ("b", "over"), ("over", "a")):
        with open(m / source, "rb") as source_file, open(m / target, "r+b") as target_file:
            left, at = 2 * MiB, 0
            while left:
                done = os.copy_file_range(source_file.fileno(), target_file.fileno(), left,
                                          MiB + at, 40 * MiB + at)
                check(done > 0, "nothing was copied")
                left, at = left - done, at + done
        equal(pread(m / target, 40 * MiB, 2 * MiB) == pread(m / source, MiB, 2 * MiB), True,
              f"the copy from {source} to {target}")
    pwrite(m / "b", 64 * MiB, b"grown" + bytes(507))
    equal(os.stat(m / "b").st_size, 64 * MiB + 512, "what grew by writing")
    m.command("a.d/size", "+1M")
    equal(os.stat(m / "a").st_size, 65 * MiB, "what grew by its size file")
    with fails_with(errno.EPERM):
        os.truncate(m / "a", 0)
    with fails_with(errno.ENOSPC):
        pwrite(m / "a", 65 * MiB, b"past the end")
    os.utime(m / "a", (1, 1000000000))
    equal(os.stat(m / "a").st_mtime, 1000000000, "the time that was set")
    equal(pread(m / "over.d/layers/0/disk", MiB - 100, 4096), data[:4096], "the layer")
    equal(len(pread(m / "over.d/layers/1/disk", 0, 4096)), 4096, "the layer below")
    m.command("a.d/ctl", "flush")
    equal(len(pread(m / "base", 0, 512)), 512, "what was opened on demand")
    m.command("base.d/nodes/base/active", "0")
    equal(m.read("base.d/state").splitlines()[0], "stopped", "the state")
    with fails_with(errno.EBUSY):
        pread(m / "base", 0, 512)
    m.command("base.d/nodes/base/active", "1")
    equal(m.read("base.d/state").splitlines()[0], "read-only", "the state afterwards")
    equal(os.getxattr(m / "b", "user.bgfs.virtual-size"), str(64 * MiB + 512).encode(), "xattr")
    equal(os.getxattr(m / "b", "user.bgfs.state"), b"ok", "xattr")
    check(read_everything(m) > 100, "there are views")
    for name in ("metrics", "graph.dot", "files", "graph.json"):
        for node in ("a", "b"):
            contains(m.read(f".bgfs/{name}"), f"{node}" if name != "files" else f"{node}.qcow2",
                     name)
    os.sync()
    m.umount()
    for name in ("a", "b", "base", "over"):
        qemu_check(env / f"{name}.qcow2")


@case("a reload leads roots from thread to thread while they are written", needs=["qemu-img"],
      timeout=180)
def moving(env):
    names = ("a", "b")
    for name in names:
        env.qcow2(f"{name}.qcow2", "16M")
    nodes = [image(n) for n in names]
    graph = env.file("g.yaml", graph_text(nodes, [shown(n) for n in names]))
    m = env.mount(graph)
    equal(threads_of(m), "none", "the threads")
    stop, errors, counts = threading.Event(), [], dict.fromkeys(names, 0)

    def work(name, seed):
        fd = os.open(m / name, os.O_RDWR)
        try:
            while not stop.is_set():
                data = pattern(64 * 1024, seed + counts[name])
                at = counts[name] * 64 * 1024 % (16 * MiB)
                os.pwrite(fd, data, at)
                if os.pread(fd, len(data), at) != data:
                    errors.append(f"{name} at {at} is wrong")
                    return
                if counts[name] % 16 == 0:
                    os.fsync(fd)
                counts[name] += 1
        except OSError as e:
            errors.append(f"{name}: {e}")
        finally:
            os.close(fd)

    workers = [threading.Thread(target=work, args=(n, i * 1000)) for i, n in enumerate(names)]
    for w in workers:
        w.start()
    try:
        for one, two in (("x", ""), ("x", "x"), ("y", "x"), ("", "y"), ("x", "y"), ("y", "x")):
            seen = dict(counts)
            graph.write_text(graph_text(nodes, [shown("a", one), shown("b", two)]))
            if one == "x" and two == "x":
                plan = m.read(".bgfs/reload-plan")
                contains(plan, 'root b: changed: iothread: "x" instead of nothing', "the plan")
            equal(reload(m), None, f"the reload to {one!r} and {two!r}")
            wanted = " ".join(sorted({one, two} - {""})) or "none"
            equal(" ".join(sorted(threads_of(m).split())), wanted, "the threads")
            wait_for(lambda: errors or all(counts[n] > seen[n] + 3 for n in names), "more writes")
        # A mistake leaves everything where it is.
        graph.write_text(graph_text(nodes, [shown("a", "z"), shown("b", "z", node="nothing")]))
        check(reload(m).endswith("nothing was changed"), "the refusal")
        equal(" ".join(sorted(threads_of(m).split())), "x y", "the threads after a refusal")
    finally:
        stop.set()
        for w in workers:
            w.join()
    equal(errors, [], "the workers")
    graph.write_text(graph_text(nodes, [shown(n) for n in names]))
    equal(reload(m), None, "the reload back")
    equal(threads_of(m), "none", "the threads at the end")
    check(not {"x", "y"} & thread_names(m), "threads that nobody needs have ended")
    m.umount()
    for name in names:
        qemu_check(env / f"{name}.qcow2")


@case("connected nodes are brought together, and parted again, by a reload", needs=["qemu-img"])
def joining(env):
    for name in ("base", "low", "high"):
        env.qcow2(f"{name}.qcow2", "8M")
    run("qemu-io", "-c", "write -P 5 0 8M", env / "base.qcow2")
    low, high = image("low"), image("high")
    apart = graph_text([image("base"), low, high],
                       [shown("base", "one", more="writable: false"), shown("low", "two"),
                        shown("high", "three")])
    graph = env.file("g.yaml", apart)
    m = env.mount(graph)
    fd = os.open(m / "low", os.O_RDWR)
    equal(os.pread(fd, 512, 0), bytes(512), "no base yet")
    joined = graph_text([image("base"), image("low", ", backing: base"), high],
                        [shown("base", "one", more="writable: false"), shown("low"),
                         shown("high", "three")])
    graph.write_text(joined)
    equal(reload(m), None, "the reload that joins them")
    equal(sorted(threads_of(m).split()), ["one", "three"], "the threads")
    equal(os.pread(fd, 512, 0), b"\x05" * 512, "what the base holds")
    # Not both threads at once.
    wrong = joined.replace("node-name: low, writable: true",
                           "node-name: low, writable: true, iothread: two")
    graph.write_text(wrong)
    sentence = reload(m)
    for part in ("g.yaml:", "export 'low' has the iothread 'two'", "export 'base'", "has 'one'",
                 "nothing was changed"):
        contains(sentence, part, "the refusal")
    # A root that comes over what lives elsewhere.
    graph.write_text(joined.replace("exports:\n",
                                    "exports:\n  - { name: again, node-name: base }\n"))
    equal(reload(m), None, "the reload that adds a root")
    equal(pread(m / "again", 0, 512), b"\x05" * 512, "the root that came")
    graph.write_text(apart)
    equal(reload(m), None, "the reload that parts them")
    equal(sorted(threads_of(m).split()), ["one", "three", "two"], "the threads")
    equal(os.pread(fd, 512, 0), bytes(512), "no base any more")
    os.close(fd)
    m.umount()
    for name in ("base", "low", "high"):
        qemu_check(env / f"{name}.qcow2")
