# SPDX-License-Identifier: MIT
"""bgfs export add and remove: roots that are there after a remount."""
import json
import os
import random
import subprocess
import threading
import time

from mount_suite import *  # noqa: F403


def bgfs(*words, **options):
    return run(BGFS, *words, ok=False, **options)


def graph_of(env, include="[conf.d/*.yaml]"):
    env.raw("base.raw", MiB, b"base")
    graph = env / "graph.yaml"
    graph.write_text(f"version: 1\ninclude: {include}\n"
                     "nodes: [{node-name: base, driver: raw, file: {driver: file, filename: "
                     "base.raw}}]\nexports: [{name: base, node-name: base}]\n")
    return graph


def served(m):
    return m.read(".bgfs/exports").split()


def kept(env):
    """Every file of conf.d, hidden ones too, and what the lock file says."""
    place = env / "conf.d"
    names = sorted(os.listdir(place)) if place.exists() else []
    return names, (env / "graph.yaml.lock").read_text()


@case("an export that is added is kept in a fragment and there after a remount, until removed")
def add_and_remove(env):
    graph = graph_of(env)
    m = env.mount(graph)
    image = env.raw("new.raw", MiB, b"new")
    equal(bgfs("export", "add", m.path, "alias", "--node-name", "base").returncode, 0, "a node")
    done = bgfs("export", "add", "-F", "raw", "-w", "-o", "growable=true", "-o", "mode=0640",
                "--node-option", "discard=unmap", "--node-option", "file.cache.direct=true",
                m.path, "new", image)
    equal((done.returncode, done.stderr), (0, ""), "an image")
    equal(served(m), ["base", "alias", "new"], "roots")
    equal(pread(m / "new", 0, 3), b"new", "the new root")
    pwrite(m / "new", MiB, b"longer")
    equal(os.stat(m / "new").st_mode & 0o777, 0o640, "mode")
    contains(m.read(".bgfs/files"), f"rw,direct {image}", "files")
    m.umount()
    m = env.mount(graph)
    equal(served(m), ["base", "alias", "new"], "roots after a remount")
    equal(bgfs("export", "remove", m.path, "new").returncode, 0, "remove")
    equal(served(m), ["base", "alias"], "roots")
    equal(kept(env), (["alias.yaml"], ""), "what is left beside the graph")
    m.umount()
    m = env.mount(graph)
    equal(served(m), ["base", "alias"], "roots after a remount")
    m.umount()


@case("a fragment that somebody has written is added under its own name")
def from_fragment(env):
    m = env.mount(graph_of(env))
    env.raw("x.raw", MiB, b"x")
    text = "# kept as it is\nnodes: [{node-name: x, driver: raw, file: {driver: file, " \
           "filename: ../x.raw}}]\nexports:\n- {name: one, node-name: x}\n- {name: two, " \
           "node-name: x}\n"
    (env / "both.yaml").write_text(text)
    done = bgfs("export", "add", m.path, "--from", env / "both.yaml")
    equal((done.returncode, done.stderr), (0, ""), "add --from")
    equal(served(m), ["base", "one", "two"], "roots")
    equal((env / "conf.d/both.yaml").read_text(), text, "the fragment")
    equal(bgfs("export", "remove", m.path, "both").returncode, 0, "remove")
    equal(served(m), ["base"], "roots")
    m.umount()


@case("what cannot be exported is refused with the reason, and nothing is changed")
def refused(env):
    graph = graph_of(env)
    m = env.mount(graph)
    image = env.raw("new.raw", MiB)
    equal(bgfs("export", "add", m.path, "taken", "--node-name", "base").returncode, 0, "add")
    before = m.read(".bgfs/graph.json"), m.read(".bgfs/reload-plan"), kept(env)
    for words, wanted in (
            ((["add"], "n", "--node-name", "bass"), "bass"),
            ((["add"], "n", env / "missing.raw", "-F", "raw"), "missing.raw"),
            ((["add"], "n", image, "-F", "rwa"), "rwa"),
            ((["add"], "base", image, "-F", "raw"), "base"),
            ((["add"], "taken", "--node-name", "base"), "taken.yaml' already"),
            ((["add"], "n", image, "-F", "raw", "-o", "writeable=true"), "writeable"),
            ((["remove"], "never"), "never.yaml"),
            ((["remove"], "base"), "is removed there")):
        done = bgfs("export", *words[0], m.path, *words[1:])
        equal(done.returncode, 32, f"exit status of {words} ({done.stderr})")
        contains(done.stderr, wanted, "standard error")
        check(done.stderr.endswith("; nothing was changed\n"), "the end of", done.stderr)
        equal((m.read(".bgfs/graph.json"), m.read(".bgfs/reload-plan"), kept(env)), before,
              f"the mount and the files after {words}")
    with open(m / "taken"):
        done = bgfs("export", "remove", m.path, "taken")
        equal(done.returncode, 32, "removing what is open")
        contains(done.stderr, "has it open", "standard error")
    equal((m.read(".bgfs/graph.json"), kept(env)), (before[0], before[2]), "what is left")
    for words, wanted in ((("add", m.path), "the name"), (("add", m.path, "n"), "--node-name"),
                          (("add", m.path, "n", image), "-F"), (("remove", m.path), "a name"),
                          (("ad", m.path), "did you mean 'add'"), ((), "'add' or 'remove'"),
                          (("add", m.path, "n", "--from", image), "--from takes everything"),
                          (("add", m.path, "n.d", "--node-name", "base"), ".d"),
                          (("add", m.path, "a/b", "--node-name", "base"), "/"),
                          (("add", env.dir, "n", "--node-name", "base"), "no mount"),
                          (("add", m.path, "n", "--node-name", "base", "-F", "raw"), "-F"),
                          (("add", m.path, "n", "--node-name", "b", "-o", "x"), "NAME=VALUE")):
        done = bgfs("export", *words)
        equal(done.returncode, 1, f"exit status of {words}")
        contains(done.stderr, wanted, "standard error")
    m.umount()


@case("a graph without a matching include says which line to add")
def no_include(env):
    for include in ("[]", "[other/*.yml]", "[a*/x.yaml]"):
        m = env.mount(graph_of(env, include))
        done = bgfs("export", "add", m.path, "n", "--node-name", "base")
        equal(done.returncode, 32, "exit status")
        contains(done.stderr, "add the line 'include: [conf.d/*.yaml]' to it", "standard error")
        m.umount()
    m = env.mount(env / "base.raw", "-F", "raw", name="short")
    done = bgfs("export", "add", m.path, "n", "--node-name", "base")
    equal(done.returncode, 32, "exit status of a mount of one image")
    contains(done.stderr, "is no graph file", "standard error")
    m.umount()


@case("fifty that add an export at once all succeed, and survive a remount", timeout=300)
def fifty(env):
    graph = graph_of(env)
    m = env.mount(graph)
    fd = os.open(m / "base", os.O_RDONLY)
    words = [[BGFS, "export", "add", str(m.path), f"r{i:02}", "--node-name", "base"]
             for i in range(25)]
    for i in range(25, 50):
        image = env.raw(f"i{i}.raw", MiB, f"image {i}".encode())
        words.append([BGFS, "export", "add", "-F", "raw", str(m.path), f"r{i:02}", str(image)])
    callers = [subprocess.Popen(w, stderr=subprocess.PIPE, text=True, env=env.environment)
               for w in words]
    for caller in callers:
        message = caller.communicate(timeout=200)[1]
        equal((caller.returncode, message), (0, ""), "a caller")
    wanted = sorted(["base"] + [f"r{i:02}" for i in range(50)])
    equal(sorted(served(m)), wanted, "roots")
    equal(os.pread(fd, 4, 0), b"base", "what was open all the time")
    os.close(fd)
    m.umount()
    m = env.mount(graph)
    equal(sorted(served(m)), wanted, "roots after a remount")
    for i in range(25, 50):
        equal(pread(m / f"r{i}", 0, 8), f"image {i}".encode(), f"r{i}")
    # And fifty that take them away.
    callers = [subprocess.Popen([BGFS, "export", "remove", str(m.path), f"r{i:02}"],
                                stderr=subprocess.PIPE, text=True) for i in range(50)]
    for caller in callers:
        message = caller.communicate(timeout=200)[1]
        equal((caller.returncode, message), (0, ""), "a caller")
    equal(served(m), ["base"], "roots")
    equal(kept(env), ([], ""), "what is left beside the graph")
    m.umount()


@case("callers killed at any moment leave nothing that the next one does not clear up",
      timeout=300)
def killed(env):
    graph = graph_of(env)
    m = env.mount(graph)
    random.seed(20261123)
    # How long one takes, to spread the kills over all of it.
    begin = time.monotonic()
    equal(bgfs("export", "add", m.path, "steady", "--node-name", "base").returncode, 0, "add")
    whole = time.monotonic() - begin
    outcomes = {"added": 0, "not added": 0}
    for i in range(40):
        verb = ["add", str(m.path), "victim", "--node-name", "base"]
        is_there = "victim" in served(m)
        if is_there:
            verb = ["remove", str(m.path), "victim"]
        caller = subprocess.Popen([BGFS, "export", *verb], stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, whole * 1.1))
        caller.kill()
        caller.wait()
        # Any next caller first clears up, whatever it wants itself.
        done = bgfs("export", "add", m.path, f"next{i}", "--node-name", "base")
        equal((done.returncode, done.stderr), (0, ""), f"the next caller, round {i}")
        roots = sorted(served(m))
        files = sorted(n[:-5] for n in os.listdir(env / "conf.d") if not n.startswith("."))
        equal(files, [r for r in roots if r != "base"], f"fragments and roots, round {i}")
        equal((env / "graph.yaml.lock").read_text(), "", "the note of what is under way")
        contains(m.read(".bgfs/reload-plan"), f"kept: {len(roots)} roots", "the plan")
        outcomes["added" if "victim" in roots else "not added"] += 1
        equal(bgfs("export", "remove", m.path, f"next{i}").returncode, 0, "remove")
    check(all(outcomes.values()), "kills fell always on the same side:", outcomes)
    m.umount()
    m = env.mount(graph)
    equal(sorted(served(m)), sorted(["base"] + [n[:-5] for n in os.listdir(env / "conf.d")
                                                if not n.startswith(".")]), "after a remount")
    m.umount()


@case("what a killed caller left at each step is finished or undone")
def left_behind(env):
    graph = graph_of(env)
    m = env.mount(graph)
    place, lock = env / "conf.d", env / "graph.yaml.lock"
    place.mkdir()
    text = json.dumps({"exports": [{"name": "left", "node-name": "base"}]})
    hidden = place / ".left.yaml.removed"

    def next_caller():
        equal(bgfs("export", "add", m.path, "next", "--node-name", "base").returncode, 0, "add")
        equal(bgfs("export", "remove", m.path, "next").returncode, 0, "remove")
        equal(lock.read_text(), "", "the note")
        check(not (place / "next.yaml").exists(), "next.yaml is left")

    # add: noted, fragment named, reload not asked for (the first caller to reload must not add it).
    lock.write_text(f"add {place}/left.yaml\n")
    (place / "left.yaml").write_text(text)
    next_caller()
    equal((served(m), (place / "left.yaml").exists()), (["base"], False), "an add not reloaded")
    # The same with a fragment that is wrong, which would keep everybody from reloading.
    lock.write_text(f"add {place}/left.yaml\n")
    (place / "left.yaml").write_text("nodes: [")
    next_caller()
    equal((served(m), (place / "left.yaml").exists()), (["base"], False), "a wrong add")
    # add: reloaded, note not cleared.
    (place / "left.yaml").write_text(text)
    m.command(".bgfs/reload", "1")
    lock.write_text(f"add {place}/left.yaml\n")
    next_caller()
    equal((served(m), (place / "left.yaml").exists()), (["base", "left"], True), "an add done")
    # remove: renamed, reload not asked for.
    lock.write_text(f"remove {place}/left.yaml\n")
    (place / "left.yaml").rename(hidden)
    next_caller()
    equal((served(m), (place / "left.yaml").exists()), (["base", "left"], True), "a remove undone")
    # remove: reloaded, hidden file still there.
    (place / "left.yaml").rename(hidden)
    m.command(".bgfs/reload", "1")
    lock.write_text(f"remove {place}/left.yaml\n")
    next_caller()
    equal((served(m), hidden.exists()), (["base"], False), "a remove finished")
    # A note that was not written whole, and one of which nothing was done.
    for note in ("add /some", f"add {place}/other.yaml\n", f"remove {place}/other.yaml\n", "x\n"):
        lock.write_text(note)
        next_caller()
        equal(served(m), ["base"], f"roots after {note!r}")
    m.umount()
