# SPDX-License-Identifier: MIT
"""nodes/NAME/debug/ of a blkdebug node: what it shows, breakpoints, and what does not wait for them."""
import errno
import json
import os
import signal
import subprocess
import sys

from mount_suite import *  # noqa: F403

DEBUG = "web.d/nodes/bug/debug"


def graph(env, of_top=None, **options):
    node = {"node-name": "top", "driver": "qcow2", **(of_top or {}),
            "file": {"node-name": "bug", "driver": "blkdebug", **options,
                     "image": {"node-name": "host", "driver": "file", "filename": str(env / "web.qcow2")}}}
    return env.graph([node], [{"name": "web", "node-name": "top", "writable": True}])


def debugged(env, **options):
    image = env.qcow2("web.qcow2", "16M")
    return image, env.mount(graph(env, **options))


def reload_changed(env, m):
    graph(env, of_top={"l2-cache-size": "1M"})
    m.command(".bgfs/reload", "1")


def writer(path, offset, text="x"):
    """A process that writes there once and says how it went; it holds the file open until it ends."""
    script = ("import os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\n"
              "try:\n  os.pwrite(fd, sys.argv[3].encode() * 4096, int(sys.argv[2]))\n"
              "except OSError as e: sys.exit(e.errno)\n")
    return subprocess.Popen([sys.executable, "-c", script, str(path), str(offset), text])


def kept(m, text):
    wait_for(lambda: m.read(f"{DEBUG}/suspended") == text, f"'{text}' in suspended")


@case("debug/ shows rules, state and breakpoints, and is there for blkdebug nodes alone")
def shown(env):
    _, m = debugged(env, **{"inject-error": [{"event": "refblock_alloc", "errno": 28, "once": True}],
                            "set-state": [{"event": "write_aio", "state": 1, "new_state": 5}]})
    check("debug" in os.listdir(m / "web.d/nodes/bug"), "debug is not listed")
    for other in ("top", "host"):
        check("debug" not in os.listdir(m / f"web.d/nodes/{other}"), f"debug of {other}")
        with fails_with(errno.ENOENT):
            os.stat(m / f"web.d/nodes/{other}/debug")
    equal(sorted(os.listdir(m / DEBUG)), ["breakpoints", "ctl", "events", "rules", "state", "suspended"],
          "debug/")
    equal(m.read(f"{DEBUG}/rules"), "inject-error event=refblock_alloc errno=28 once=on\n"
          "set-state event=write_aio state=1 new_state=5\n", "rules")
    equal(m.read(f"{DEBUG}/state"), "1\n", "state")
    equal(m.read(f"{DEBUG}/ctl"), "break EVENT TAG\nremove_break TAG\nresume TAG\n", "ctl")
    contains(m.read(f"{DEBUG}/events"), "l2_load: a part of an L2 table is about to be read", "events")
    contains(m.read("web.d/help"), "remove_break TAG", "help")
    pwrite(m / "web", 0, b"x")
    equal(m.read(f"{DEBUG}/state"), "5\n", "state after a write")
    options = json.loads(m.read("web.d/nodes/bug/options.json"))
    equal(options["inject-error"][0]["event"], "refblock_alloc", "options.json")
    m.umount()
    qemu_check(env / "web.qcow2")


@case("a breakpoint keeps a write until it is resumed; what cannot be is refused with a sentence")
def breakpoints(env):
    image, m = debugged(env)
    m.command(f"{DEBUG}/ctl", "break write_aio first")
    equal(m.read(f"{DEBUG}/breakpoints"), "first: write_aio\n", "breakpoints")
    process = writer(m / "web", 0)
    kept(m, "first: write_aio\n")
    equal(m.read(f"{DEBUG}/breakpoints"), "", "breakpoints once it is reached")
    contains(m.read(".bgfs/events"), "BLKDEBUG_SUSPENDED", "events")
    equal(pread(m / "web", MiB, 1), b"\0", "a read beside it")
    equal(process.poll(), None, "the writer")
    for text, number, sentence in (
            ("break no_such_event t", errno.EINVAL, "there is no event 'no_such_event'"),
            ("break l2_laod t", errno.EINVAL, "did you mean 'l2_load'?"),
            ("resume other", errno.ENOENT, "no request is suspended as 'other'"),
            ("remove_break other", errno.ENOENT, "there is no breakpoint 'other'"),
            ("break write_aio", errno.EINVAL, "write 'break EVENT TAG'"),
            ("jump", errno.EINVAL, "'jump' is no command")):
        found, why = m.refusal(f"{DEBUG}/ctl", text)
        equal(found, number, text)
        contains(why, sentence, text)
        contains(m.read("web.d/last-error"), sentence, "last-error")
    m.command(f"{DEBUG}/ctl", "resume first")
    equal(process.wait(20), 0, "the writer in the end")
    equal(pread(m / "web", 0, 2), b"xx", "what it wrote")
    m.command(f"{DEBUG}/ctl", "break write_aio second")
    process = writer(m / "web", 0, "y")
    kept(m, "second: write_aio\n")
    m.command(f"{DEBUG}/ctl", "remove_break second")
    equal(process.wait(20), 0, "the second writer")
    m.umount()
    qemu_check(image)


@case("a snapshot, a reload and the end of a mount do not wait for a breakpoint")
def not_kept(env):
    image, m = debugged(env)
    for index, change in enumerate((lambda: os.mkdir(m / "web.d/snapshots/s"),
                                    lambda: reload_changed(env, m))):
        m.command(f"{DEBUG}/ctl", "break write_aio t")
        process = writer(m / "web", index * MiB)
        kept(m, "t: write_aio\n")
        change()
        equal(process.wait(20), 0, "the writer")
        equal(m.read(f"{DEBUG}/suspended"), "", "suspended")
    m.command(f"{DEBUG}/ctl", "break write_aio t")
    m.command(f"{DEBUG}/ctl", "break flush_to_os u")
    process = writer(m / "web", 8 * MiB)
    kept(m, "t: write_aio\n")
    os.kill(m.pid, signal.SIGTERM)
    check(process.wait(30) in (0, errno.ENOTCONN, errno.EIO), "the last writer")
    wait_for(lambda: not os.path.exists(m / "web"), "the end of the mount", 30)
    qemu_check(image)


@case("an injected error reaches who writes, and the image stays sound")
def injected(env):
    image, m = debugged(env, **{"inject-error": [{"event": "cluster_alloc", "errno": 28, "once": True,
                                                  "iotype": "write"}]})
    # The write of the new table, or of the data, whichever comes first.
    with fails_with(errno.ENOSPC):
        pwrite(m / "web", 0, b"a" * 4096)
    pwrite(m / "web", 0, b"b" * 4096)
    equal(pread(m / "web", 0, 1), b"b", "the second attempt")
    stats = json.loads(m.read("web.d/nodes/bug/stats.json"))
    equal(stats["driver-specific"]["injected-errors"], 1, "injected-errors")
    m.umount()
    qemu_check(image)
