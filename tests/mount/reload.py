# SPDX-License-Identifier: MIT
"""Editing the graph file of a mount and reloading it."""
import errno
import os
import signal
import threading

from mount_suite import *  # noqa: F403


def graph_text(nodes, exports):
    return "version: 1\nnodes:\n" + "".join(f"  - {n}\n" for n in nodes) + \
        "exports:\n" + "".join(f"  - {e}\n" for e in exports)


def qcow2(name, more=""):
    return f"{{ node-name: {name}, driver: qcow2{more}, " \
        f"file: {{ driver: file, filename: {name}.qcow2 }} }}"


def shown(name, node=None, more="writable: true"):
    return f"{{ name: {name}, node-name: {node or name}, {more} }}"


def two_roots(env):
    for name in ("a", "b"):
        env.qcow2(f"{name}.qcow2", "64M")
    graph = env.file("g.yaml", graph_text([qcow2("a"), qcow2("b")], [shown("a"), shown("b")]))
    return graph, env.mount(graph)


def reload(m, word="1"):
    """Returns the sentence of a refusal, or None."""
    fd = os.open(m / ".bgfs/reload", os.O_RDWR)
    try:
        os.write(fd, word.encode())
    except OSError:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)
    return None


@case("a reload keeps open handles and what was written, adds roots and removes them",
      needs=["qemu-img"])
def differences(env):
    graph, m = two_roots(env)
    pwrite(m / "a", MiB, pattern(3 * MiB))
    fd = os.open(m / "a", os.O_RDWR)
    env.qcow2("c.qcow2", "8M")
    graph.write_text(graph_text([qcow2("a", ", discard: unmap"), qcow2("c")],
                                [shown("a"), shown("c")]))
    plan = m.read(".bgfs/reload-plan")
    for line in ("root a: changed", "root b: removed", "root c: added", "node c: opened",
                 "node b: closed"):
        contains(plan, line, "the plan")
    equal(reload(m), None, "the reload")
    equal(sorted(os.listdir(m.path)), ["a", "a.d", "c", "c.d"], "the mount")
    equal(os.pread(fd, 3 * MiB, MiB) == pattern(3 * MiB), True, "what an old handle reads")
    os.pwrite(fd, b"through the old handle", 0)
    equal(pread(m / "a", 0, 22), b"through the old handle", "what a new handle reads")
    equal(os.stat(m / "c").st_size, 8 * MiB, "the new root")
    contains(m.read(".bgfs/reload-plan"), "kept: 2 roots, 4 nodes", "the plan afterwards")
    os.close(fd)
    m.umount()
    for name in "abc":
        qemu_check(env / f"{name}.qcow2")


@case("what is wrong with an edit is said, and nothing is changed")
def refused(env):
    graph, m = two_roots(env)
    good = graph.read_text()
    pwrite(m / "a", 0, b"here")
    fsync(m / "a")
    before = m.read(".bgfs/graph.json")
    bad = [
        (good.replace("driver: qcow2", "driver: qcow3", 1), "there is no driver 'qcow3'"),
        (good.replace("a.qcow2", "nowhere.qcow2"), "nowhere.qcow2': No such file or directory"),
        (good.replace("a.qcow2", "b.qcow2"), "one of them is written"),
        ("version: 1\nnodes: [", "g.yaml:"),
        (good + "include: [conf.d/*.yaml]\n", "conf.d/x.yaml:1:1"),
        (good.replace("a.qcow2", "m/b"), "lies in"),
    ]
    env.file("conf.d/x.yaml", "nonsense: 1\n")
    for text, words in bad:
        graph.write_text(text.replace("m/b", str(m / "b")))
        sentence = reload(m)
        check(sentence is not None, "a reload was not refused:", words)
        contains(sentence, words, "the reason")
        check(sentence.endswith("nothing was changed"), "how the reason ends:", sentence)
        contains(m.read(".bgfs/last-error"), words, "last-error")
        equal(m.read(".bgfs/graph.json"), before, "the graph after a refused reload")
        equal(pread(m / "a", 0, 4), b"here", "the disk after a refused reload")
    with fails_with(errno.EINVAL):
        m.command(".bgfs/reload", "please")
    graph.write_text(good)
    equal(reload(m), None, "the reload of the text that was mounted")
    m.umount()


@case("a root that is open is not taken away, unless it is forced")
def in_use(env):
    graph, m = two_roots(env)
    only_b = graph_text([qcow2("b")], [shown("b")])
    fd = os.open(m / "a", os.O_RDWR)
    view = os.open(m / "a.d/info", os.O_RDONLY)
    os.pwrite(fd, b"kept", 0)
    graph.write_text(only_b)
    contains(reload(m), f"root 'a' would be removed, and process {os.getpid()} (", "the refusal")
    contains(m.read(".bgfs/reload-plan"), "would be refused: root 'a'", "the plan")
    equal(reload(m, "force"), None, "the forced reload")
    equal(sorted(os.listdir(m.path)), ["b", "b.d"], "the mount")
    for act in (lambda: os.pread(fd, 4, 0), lambda: os.pwrite(fd, b"x", 0),
                lambda: os.fsync(fd), lambda: os.lseek(fd, 0, os.SEEK_DATA)):
        with fails_with(errno.ENODEV):
            act()
    graph.write_text(graph_text([qcow2("a"), qcow2("b")], [shown("a"), shown("b")]))
    equal(reload(m), None, "the reload that brings it back")
    equal(pread(m / "a", 0, 4), b"kept", "the root that came back")
    with fails_with(errno.ENODEV):
        os.pread(fd, 4, 0)
    os.close(fd)
    os.close(view)
    fd = os.open(m / "a", os.O_WRONLY)
    graph.write_text(graph_text([qcow2("a"), qcow2("b")],
                                [shown("a", more="writable: false"), shown("b")]))
    contains(reload(m), "root 'a' would become read-only", "the refusal")
    os.close(fd)
    equal(reload(m), None, "the reload to read-only")
    with fails_with(errno.EROFS):
        os.open(m / "a", os.O_WRONLY)
    equal(pread(m / "a", 0, 4), b"kept", "the read-only root")
    m.umount()


@case("SIGHUP reloads, and reports what it could not")
def signalled(env):
    graph, m = two_roots(env)
    graph.write_text(graph_text([qcow2("a")], [shown("a")]))
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: os.listdir(m.path) == ["a", "a.d"], "the reload")
    graph.write_text("version: 2\n")
    os.kill(m.pid, signal.SIGHUP)
    wait_for(lambda: "'version' is 2" in m.read(".bgfs/last-error"), "the report")
    equal(os.listdir(m.path), ["a", "a.d"], "the mount")
    m.umount()


@case("a failed root is tried again by a reload and takes nothing with it")
def failed_root(env):
    graph = env.file("g.yaml", graph_text([qcow2("a"), qcow2("b")], [shown("a"), shown("b")]))
    env.qcow2("a.qcow2", "64M")
    m = env.mount(graph)
    equal(reload(m), None, "a reload with a root that fails still")
    with fails_with(errno.ENOMEDIUM):
        os.open(m / "b", os.O_RDONLY)
    env.qcow2("b.qcow2", "8M")
    equal(reload(m), None, "the reload")
    equal(os.stat(m / "b").st_size, 8 * MiB, "the root that had failed")
    m.umount()


@case("a backing node that was given at run time is in force until the state file is taken away",
      needs=["qemu-img"])
def state_file(env):
    for name, byte in (("one", 1), ("two", 2)):
        run("qemu-io", "-c", f"write -P {byte} 0 1M", env.qcow2(f"{name}.qcow2", "16M"))
    env.qcow2("web.qcow2", "16M")
    nodes = [qcow2("one"), qcow2("two"), qcow2("web", ", backing: one")]
    text = graph_text(nodes, [shown("web")])
    graph = env.file("g.yaml", text)
    state = env / "g.yaml.state"
    m = env.mount(graph)
    equal(pread(m / "web", 0, 1), b"\1", "before")
    for words, reason in (("backing web", "write 'backing NODE OTHER'"),
                          ("backing web three", "there is no node 'three'"),
                          ("backing nobody two", "there is no node 'nobody'"),
                          ("backing one web", "is below itself: ")):
        with fails_with(errno.EINVAL, errno.ENOENT):
            m.command("web.d/ctl", words)
        contains(m.read("web.d/last-error"), reason, "last-error")
        check(not state.exists(), "a refused change wrote the state file:", words)
    m.command("web.d/ctl", "backing web two")
    equal(pread(m / "web", 0, 1), b"\2", "after")
    contains(state.read_text(), '"web": "two"', "the state file")
    equal(reload(m), None, "a reload")
    equal(pread(m / "web", 0, 1), b"\2", "after a reload")
    graph.write_text(text.replace("name: web, node", "name: other, node"))
    with fails_with(errno.EBUSY):
        m.command("web.d/ctl", "backing web one")
    contains(m.read("web.d/last-error"), "was edited since it was read", "last-error")
    graph.write_text(text)
    m.umount()
    info = run("qemu-img", "info", "-U", "--output=json", env / "web.qcow2").stdout
    contains(info, str(env / "two.qcow2"), "what others find in the header")
    m = env.mount(graph)
    equal(pread(m / "web", 0, 1), b"\2", "after a remount")
    graph.write_text(graph_text(nodes, [shown("web"), shown("two")]))
    contains(reload(m), "is the backing of", "a writable root over it")
    graph.write_text(graph_text([nodes[0], qcow2("two", ", read-only: false"), nodes[2]],
                                [shown("web")]))
    contains(reload(m), "became the backing of 'web' at run time", "a writable node")
    check(run(BGFS, "config", "check", graph, ok=False).returncode != 0, "config check says yes")
    graph.write_text(text)
    m.command("web.d/ctl", "backing web none")
    equal(pread(m / "web", 0, 1), b"\0", "without a backing node")
    state.unlink()
    equal(reload(m), None, "the reload without a state file")
    equal(pread(m / "web", 0, 1), b"\1", "what the graph file says")
    m.umount()


@case("the backing of a root is swapped while it is written and read", needs=["qemu-img"])
def swapped(env):
    base = env.qcow2("base.qcow2", "16M")
    run("qemu-io", "-c", "write -P 7 0 16M", base)
    for name in ("one", "two"):
        (env / f"{name}.qcow2").write_bytes(base.read_bytes())
    env.qcow2("web.qcow2", "16M")
    text = graph_text([qcow2("one"), qcow2("two"),
                       qcow2("web", ", backing: one")], [shown("web")])
    graph = env.file("g.yaml", text)
    m = env.mount(graph)
    layer = os.open(m / "web.d/layers/1/disk", os.O_RDONLY)
    stop, wrong = threading.Event(), []

    def work(number):
        data, at = pattern(64 * KiB, seed=number), number * 4 * MiB
        fd = os.open(m / "web", os.O_RDWR)
        while not stop.is_set():
            os.pwrite(fd, data, at)
            if os.pread(fd, len(data), at) != data:
                wrong.append("what was written")
            if os.pread(fd, 4096, at + MiB) != b"\7" * 4096:
                wrong.append("the backing")
        os.close(fd)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    try:
        for i in range(20):
            graph.write_text(text.replace("backing: one", "backing: two") if i % 2 == 0 else text)
            equal(reload(m), None, f"reload {i}")
            equal(os.pread(layer, 4096, 0), b"\7" * 4096, "the handle of the layer")
    finally:
        stop.set()
        for t in threads:
            t.join()
    equal(wrong, [], "what was read")
    os.close(layer)
    m.umount()
    qemu_check(env / "web.qcow2")


@case("a node gives its image up to another process and takes it back", needs=["qemu-io"])
def handed_over(env):
    image = env.qcow2("a.qcow2", "16M")
    graph = env.file("g.yaml", graph_text([qcow2("a")], [shown("a", more="writable: false")]))
    run("qemu-io", "-c", "write -P 1 0 1M", image)
    m = env.mount(graph)
    equal(pread(m / "a", 0, 1), b"\1", "before")
    check(run("qemu-io", "-c", "write -P 2 0 1M", image, ok=False).returncode != 0,
          "qemu-io writes to an image that is shown")
    equal(m.read("a.d/nodes/a/active"), "1\n", "active")
    m.command("a.d/nodes/a/active", "0")
    equal(m.read("a.d/nodes/a/active"), "0\n", "active")
    with fails_with(errno.EBUSY):
        pread(m / "a", 0, 1)
    contains(m.read("a.d/state"), "stopped\n", "state")
    run("qemu-io", "-c", "write -P 2 0 1M", image)
    m.command("a.d/nodes/a/active", "1")
    equal(pread(m / "a", 0, 1), b"\2", "after")
    m.umount()
    graph.write_text(graph_text([qcow2("a")], [shown("a")]))
    m = env.mount(graph)
    with fails_with(errno.EACCES, errno.EPERM):
        m.command("a.d/nodes/a/active", "0")
    contains(m.read("a.d/last-error"), "cannot be deactivated: export 'a' writes to it",
             "last-error")
    equal(m.read("a.d/nodes/a/blockers"), "", "blockers")
    m.umount()


@case("neither a path nor a header leads into the mount itself, wherever it is bound to",
      needs=["qemu-img"])
def inwards(env):
    graph, m = two_roots(env)
    good = graph.read_text()
    bound = env.directory("bound")
    run("mount", "--bind", m.path, bound)
    try:
        (env / "link").symlink_to(bound)
        for place in (m.path, bound, env / "link"):
            graph.write_text(good.replace("a.qcow2", str(place / "a")))
            contains(reload(m), "lies in", f"the reason for {place}")
        for i, place in enumerate((m.path, bound, env / "link")):
            image = env / f"x{i}.qcow2"
            run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", str(place / "a"), "-F",
                "qcow2", image, "1M")
            graph.write_text(graph_text([qcow2("a"), qcow2("b"), qcow2(f"x{i}")],
                                        [shown("a"), shown("b"), shown(f"x{i}")]))
            contains(reload(m), "where this graph itself is mounted", f"the reason for {image}")
    finally:
        run("umount", bound)
    graph.write_text(good)
    equal(reload(m), None, "the reload of the text that was mounted")
    m.umount()


@case("an image with a data file becomes read-only and writable again, and is committed to",
      needs=["qemu-img", "qemu-io"])
def data_files(env):
    for raw in ("on", "off"):
        base, over = env / "base.qcow2", env / "over.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
            f"data_file={env / 'data'},data_file_raw={raw}", base, "8M")
        m = env.mount(env.simple(base, "qcow2"))
        pwrite(m / "disk", 0, pattern(MiB))
        m.command(".bgfs/reload", "ro")
        with fails_with(errno.EROFS, errno.EACCES, errno.EPERM):
            pwrite(m / "disk", 0, b"x")
        equal(pread(m / "disk", 0, MiB) == pattern(MiB), True, "read-only")
        m.command(".bgfs/reload", "rw")
        pwrite(m / "disk", 3 * MiB, b"again")
        m.umount()
        qemu_check(base)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
        m = env.mount(env.simple(over, "qcow2"))
        pwrite(m / "disk", 512 * KiB, pattern(MiB, seed=2))
        wanted = pread(m / "disk", 0, 8 * MiB)
        m.command("disk.d/ctl", "commit")
        equal(pread(m / "disk", 0, 8 * MiB) == wanted, True, "after the commit")
        m.umount()
        for image in (base, over):
            qemu_check(image)
        run("qemu-img", "convert", "-O", "raw", base, env / "flat")
        equal((env / "flat").read_bytes() == wanted, True, "what the base holds")
        if raw == "on":
            equal((env / "data").read_bytes() == wanted, True, "the data file by itself")
        (env / "data").unlink()
