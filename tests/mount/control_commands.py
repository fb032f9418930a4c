# SPDX-License-Identifier: MIT
"""bgfs reload, state, wait and events: control files as commands."""
import json
import os
import select
import signal
import subprocess
import threading
import time

from mount_suite import *  # noqa: F403


def graph_of(env, **roots):
    """A graph of raw roots; a root whose image is None has none."""
    nodes = [{"node-name": n, "driver": "raw",
              "file": {"driver": "file", "filename": str(i or env / f"{n}.missing")}}
             for n, i in roots.items()]
    # Passed through, an open root could not be removed by force.
    return env.graph(nodes, [{"name": n, "node-name": n, "passthrough": "off"} for n in roots])


def bgfs(*words, **options):
    return run(BGFS, *words, ok=False, **options)


@case("bgfs reload applies an edit, says why it refuses one, and shows its plan")
def reload(env):
    image = env.raw("a.raw", MiB)
    graph = graph_of(env, a=image)
    m = env.mount(graph)
    good = graph.read_text()
    equal(bgfs("reload", m.path).returncode, 0, "reload of what is there")
    graph_of(env, a=image, b=env.raw("b.raw", MiB))
    plan = bgfs("reload", "--dry-run", m.path)
    equal(plan.returncode, 0, f"dry run ({plan.stderr})")
    contains(plan.stdout, "root b: added", "the plan")
    equal(m.read(".bgfs/exports"), "a\n", "roots after a dry run")
    equal(bgfs("reload", m.path).returncode, 0, "reload")
    equal(m.read(".bgfs/exports"), "a\nb\n", "roots")
    # Refused: the YAML is wrong.
    graph.write_text(good.replace('"raw"', '"rwa"', 1))
    for words, ending in ((["reload"], "; nothing was changed\n"), (["reload", "-n"], "")):
        done = bgfs(*words, m.path)
        equal(done.returncode, 32, f"exit status of {words}")
        contains(done.stderr, "there is no driver 'rwa'", "standard error")
        check(done.stderr.endswith(ending), "the end of", done.stderr)
    # Refused because a root is in use, unless forced.
    graph.write_text(good)
    with open(m / "b"):
        done = bgfs("reload", m.path)
        equal(done.returncode, 32, "reload while a root is in use")
        contains(done.stderr, "has it open", "standard error")
        check(done.stderr.endswith("; nothing was changed\n"), "the end of", done.stderr)
        plan = bgfs("reload", "--dry-run", m.path)
        equal(plan.returncode, 32, "dry run while a root is in use")
        contains(plan.stdout, "would be refused: ", "the plan")
        equal(bgfs("reload", "--force", m.path).returncode, 0, "reload --force")
    equal(m.read(".bgfs/exports"), "a\n", "roots")
    m.umount()


@case("a wrong call and what is no mount are exit status 1, with words")
def misuse(env):
    m = env.mount(graph_of(env, a=env.raw("a.raw", MiB)))
    for words in (["reload"], ["reload", m.path, "x"], ["reload", "--nothing", m.path],
                  ["events"], ["events", m.path, "x"], ["state"], ["state", m.path, "a", "b"],
                  ["wait", m.path], ["wait", m.path, "a", "b"],
                  ["wait", "--timeout=soon", m.path, "a"], ["trace-points", "x"]):
        done = bgfs(*words)
        equal(done.returncode, 1, f"exit status of {words}")
        check(done.stderr.startswith(f"bgfs {words[0]}: "), "standard error:", done.stderr)
    for verb, more in (("reload", []), ("events", []), ("state", []), ("wait", ["a"])):
        for where, what in ((env.dir, "is no mount of bgfs"), (env / "nothing", "is no mount")):
            done = bgfs(verb, where, *more)
            equal(done.returncode, 1, f"exit status of {verb}")
            contains(done.stderr, what, "standard error")
        equal(bgfs(verb, "--help").returncode, 0, f"{verb} --help")
    for verb in ("state", "wait"):
        done = bgfs(verb, m.path, "aa")
        equal(done.returncode, 1, f"exit status of {verb} of an unknown root")
        contains(done.stderr, "there is no root 'aa'; did you mean 'a'?", "standard error")
    os.kill(m.pid, signal.SIGKILL)
    wait_for(lambda: bgfs("state", m.path).stderr.endswith("has died; mount it again\n"),
             "the connection to end")


@case("bgfs state says how every root is, wait until one can be used")
def states(env):
    good = env.raw("a.raw", MiB)
    m = env.mount(graph_of(env, a=good, b=None))
    done = bgfs("state", m.path)
    equal(done.returncode, 32, "exit status with a failed root")
    lines = done.stdout.splitlines()
    equal(lines[0], "a: read-only", "the first line")
    check(lines[1].startswith("b: failed: ") and "b.missing" in lines[1], lines[1])
    equal(bgfs("state", m.path, "a").stdout, "a: read-only\n", "one root")
    equal(bgfs("state", m.path, "a").returncode, 0, "exit status of a good root")
    equal(bgfs("wait", m.path, "a").returncode, 0, "wait for a good root")
    done = bgfs("wait", m.path, "b")
    equal(done.returncode, 32, "wait for a failed root")
    contains(done.stderr, "root 'b' is failed: ", "standard error")
    m.umount()


@case("bgfs wait opens a root that is opened on demand, and gives up in time")
def on_demand(env):
    below = env.mount(env.simple(env.raw("a.raw", MiB)), name="below")
    node = {"node-name": "top", "driver": "raw",
            "file": {"driver": "file", "filename": str(below / "disk")}}
    m = env.mount(env.graph([node], [{"name": "late", "node-name": "top", "open": "on-demand"}],
                            name="late.yaml"))
    contains(bgfs("state", m.path).stdout, "late: opening", "state before")
    begin = time.monotonic()
    equal(bgfs("wait", "--timeout", "20s", m.path, "late", timeout=30).returncode, 0, "wait")
    check(time.monotonic() - begin < 10, "it took long")
    equal(bgfs("state", m.path).stdout, "late: read-only\n", "state after")
    m.umount()
    below.umount()


@case("bgfs events prints what happened; -f goes on until the mount ends")
def events(env):
    m = env.mount(graph_of(env, a=env.raw("a.raw", MiB)))
    listed = [json.loads(line)["event"] for line in bgfs("events", m.path).stdout.splitlines()]
    equal(listed, ["ROOT_OPENED", "MOUNT_READY"], "events")
    # With io_uring in the mount poll says nothing any more: -f must neither spin nor miss any.
    fd = os.open(m / "a", os.O_RDONLY)
    select.poll().register(fd)
    poller = select.poll()
    poller.register(fd)
    poller.poll(1000)
    os.close(fd)
    follower = subprocess.Popen([BGFS, "events", "-f", str(m.path)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
    for wanted in listed:
        equal(json.loads(follower.stdout.readline())["event"], wanted, "a kept event")
    ticks = sum(map(int, open(f"/proc/{follower.pid}/stat").read().split()[13:15]))
    time.sleep(0.5)
    equal(sum(map(int, open(f"/proc/{follower.pid}/stat").read().split()[13:15])), ticks,
          "processor time spent on waiting")
    waits = []
    for _ in range(3):
        begin = time.monotonic()
        m.command(".bgfs/reload", "1")
        for wanted in ("RELOAD_BEGUN", "RELOAD_APPLIED"):
            equal(json.loads(follower.stdout.readline())["event"], wanted, "a new event")
        waits.append(time.monotonic() - begin)
    check(min(waits) < 2, "they came late:", waits)
    done = bgfs("umount", m.path)
    contains(done.stderr, "(bgfs) has ", "umount while somebody follows")
    os.kill(m.pid, signal.SIGKILL)
    equal(follower.wait(10), 32, "exit status when the mount has ended")
    contains(follower.stderr.read(), "has ended", "standard error")
    follower.stdout.close()
    follower.stderr.close()


@case("events of a reload say what was applied and why one was refused")
def reload_events(env):
    graph = graph_of(env, a=env.raw("a.raw", MiB))
    m = env.mount(graph)
    good = graph.read_text()
    graph.write_text("version: 2")
    bgfs("reload", m.path)
    graph.write_text(good.replace('"name": "a"', '"name": "new"'))
    bgfs("reload", m.path)
    events = [json.loads(line) for line in m.read(".bgfs/events").splitlines()][2:]
    equal([e["event"] for e in events][:4], ["RELOAD_BEGUN", "RELOAD_REFUSED", "RELOAD_BEGUN",
                                             "ROOT_OPENED"], "events")
    contains(events[1]["data"]["reason"], "version", "reason")
    equal({(e["event"], e["data"].get("root")) for e in events[3:]},
          {("ROOT_OPENED", "new"), ("ROOT_CLOSED", "a"), ("RELOAD_APPLIED", None)}, "what happened")
    contains(events[-1]["data"]["plan"], "root new: added", "the plan")
    contains(m.read(".bgfs/log"), "warn reload reload.refuse source=", "the log")
    m.umount()
