# SPDX-License-Identifier: MIT
"""Deleting is deliberate: what programs that delete trees do to snapshots, bitmaps and the rest."""
import errno
import os
import shutil
import subprocess
import sys

from mount_suite import *  # noqa: F403

INTERPRETER = sys.executable

# A tool that lists and deletes in threads, as parallel deleters do: it ignores every error.
THREADED = """
import os, sys, threading
def delete(path):
    try:
        inside = [e.path for e in os.scandir(path)] if os.path.isdir(path) else []
    except OSError:
        inside = []
    threads = [threading.Thread(target=delete, args=(p,)) for p in inside]
    for t in threads: t.start()
    for t in threads: t.join()
    for remove in (os.unlink, os.rmdir):
        try: remove(path)
        except OSError: pass
delete(sys.argv[1])
"""

# One that does not list, but tries the names it knows.
BLIND = """
import os, sys
for name in ("disk", "map", "state", "info.json"):
    try: os.unlink(os.path.join(sys.argv[1], name))
    except OSError: pass
os.rmdir(sys.argv[1])
"""

DELETERS = {
    "rm -rf": lambda env, where: run("rm", "-rf", where, ok=False),
    "rm -rfd": lambda env, where: run("rm", "-rfd", where, ok=False),
    "find -delete": lambda env, where: run("find", where, "-delete", ok=False),
    "find -empty -delete": lambda env, where: run("find", where, "-empty", "-delete", ok=False),
    "rsync --delete": lambda env, where: run(
        "rsync", "-a", "--delete", "--force", f"{env.directory('empty')}/", f"{where}/", ok=False),
    "rsync --ignore-errors": lambda env, where: run(
        "rsync", "-a", "--delete-before", "--force", "--ignore-errors",
        f"{env.directory('empty')}/", f"{where}/", ok=False),
    "shutil.rmtree": lambda env, where: run(
        INTERPRETER, "-c", "import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)",
        where, ok=False),
    "threads": lambda env, where: run(INTERPRETER, "-c", THREADED, where, ok=False),
    "tar --remove-files": lambda env, where: run(
        "tar", "-cf", "/dev/null", "--remove-files", "-C", os.path.dirname(where),
        os.path.basename(where), ok=False),
    "mv elsewhere": lambda env, where: run("mv", where, env / "moved", ok=False),
}


def tree(env):
    image = env.qcow2("a.qcow2", "256k")
    m = env.mount(env.simple(image, "qcow2"))
    pwrite(m / "disk", 0, b"content")
    for name in ("one", "two"):
        os.mkdir(m / "disk.d/snapshots" / name)
        os.mkdir(m / "disk.d/bitmaps" / name)
    return image, m


def check_whole(m, what):
    for kind in ("snapshots", "bitmaps"):
        equal(sorted(os.listdir(m / "disk.d" / kind)), ["one", "two"], f"{kind} after {what}")
    equal(pread(m / "disk", 0, 7), b"content", f"the disk after {what}")
    equal(pread(m / "disk.d/snapshots/one/disk", 0, 7), b"content", f"a snapshot after {what}")


@case("recursive deletes destroy nothing, wherever they begin",
      needs=["qemu-img", "rm", "find", "rsync", "tar", "mv"], timeout=240)
def recursive(env):
    image, m = tree(env)
    for what, delete in DELETERS.items():
        for where in ("disk.d/snapshots/one", "disk.d/snapshots", "disk.d/bitmaps/one",
                      "disk.d/bitmaps", "disk.d", ".bgfs/snapshots", ""):
            delete(env, str(m / where))
            check_whole(m, f"{what} of {where!r}")
            shutil.rmtree(env / "moved", ignore_errors=True)
    m.umount()
    qemu_check(image)
    names = run("qemu-img", "snapshot", "-l", image).stdout
    check("one" in names and "two" in names, "as the peer lists them", names)


@case("a process that was refused an unlink inside does not delete it either", needs=["qemu-img"])
def after_an_unlink(env):
    _, m = tree(env)
    for kind in ("snapshots", "bitmaps"):
        done = run(INTERPRETER, "-c", BLIND, m / "disk.d" / kind / "one", ok=False)
        contains(done.stderr, "Directory not empty", f"rmdir in {kind}")
    check_whole(m, "unlinks")
    contains(m.read("disk.d/last-error"), "rmdir ENOTEMPTY", "last-error")


# As BLIND, of what lies further down: who wanted to delete that wanted to delete all of it.
BLIND_BELOW = """
import os, sys
where, below = sys.argv[1:]
try: os.unlink(os.path.join(where, below))
except OSError: pass
os.rmdir(where)
"""


@case("a process that was refused an unlink anywhere below does not delete it either",
      needs=["qemu-img"])
def after_an_unlink_below(env):
    _, m = tree(env)
    os.mkdir(m / "disk.d/bitmaps/old")
    os.mkdir(m / "disk.d/points/p")
    os.mkdir(m / ".bgfs/snapshots/all")
    os.mkdir(m / ".bgfs/points/all")
    for where, below in (("disk.d/points/p", "disk"), ("disk.d/points/p", "since/old.qcow2"),
                         ("disk.d/points/p", "partitions/table"),
                         (".bgfs/points/all", "disk"), (".bgfs/points/all", "disk/since/old.qcow2"),
                         ("disk.d/snapshots/one", "partitions/table"),
                         (".bgfs/snapshots/all", "disk"),
                         (".bgfs/snapshots/all", "disk/partitions/table")):
        done = run(INTERPRETER, "-c", BLIND_BELOW, m / where, below, ok=False)
        contains(done.stderr, "Directory not empty", f"rmdir of {where} after {below}")
    for where in ("disk.d/points/p", ".bgfs/points/all", "disk.d/snapshots/one",
                  ".bgfs/snapshots/all"):
        check(os.path.isdir(m / where), where, "is there")
    for delete in DELETERS.values():
        for where in ("disk.d/points/p", "disk.d/points", ".bgfs/points/all", ".bgfs/points"):
            delete(env, str(m / where))
            shutil.rmtree(env / "moved", ignore_errors=True)
            equal(sorted(os.listdir(m / "disk.d/points")), ["all", "p"], "points")
    for name in ("all", "p"):
        run("rmdir", m / f"disk.d/points/{name}")


@case("looking in one process and deleting in another is deliberate",
      needs=["qemu-img", "ls", "find", "rmdir"])
def deliberate(env):
    _, m = tree(env)
    for kind in ("snapshots", "bitmaps"):
        run("ls", "-lR", m / "disk.d" / kind)
        run("find", m / "disk.d" / kind, "-maxdepth", "1", "-name", "one", "-exec", "rmdir", "{}",
            "+")
        equal(os.listdir(m / "disk.d" / kind), ["two"], kind)
        for name in os.listdir(m / "disk.d" / kind):  # the names alone are no look inside
            os.rmdir(m / "disk.d" / kind / name)
        equal(os.listdir(m / "disk.d" / kind), [], kind)


@case("a child of who has looked is another process; its threads are not", needs=["qemu-img"])
def children(env):
    _, m = tree(env)
    where = str(m / "disk.d/snapshots/one")
    done = run(INTERPRETER, "-c", "import os, sys, subprocess; os.listdir(sys.argv[1]); "
               "sys.exit(subprocess.call(['rmdir', sys.argv[1]]))", where, ok=False)
    equal(done.returncode, 0, "a child that removes it")
    where = str(m / "disk.d/snapshots/two")
    done = run(INTERPRETER, "-c",
               "import os, sys, threading\n"
               "t = threading.Thread(target=lambda: os.listdir(sys.argv[1]))\n"
               "t.start(); t.join()\n"
               "try: os.rmdir(sys.argv[1])\n"
               "except OSError as e: print(e.errno)", where)
    equal(done.stdout, f"{errno.ENOTEMPTY}\n", "another thread")
