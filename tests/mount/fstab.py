# SPDX-License-Identifier: MIT
"""mount(8) with the real helpers: fstab, mount -a, remount, umount."""
import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess

from mount_suite import *  # noqa: F403


@contextlib.contextmanager
def helpers(env):
    """The helpers where mount(8) looks for them. What lies there is seen through an overlay of this
    suite's own mount namespace, so that the machine is not touched."""
    place = env.directory("sbin")
    run("mount", "-t", "tmpfs", "none", place)
    for name in ("upper", "work"):
        (place / name).mkdir()
    real = os.path.realpath("/sbin")
    done = run("mount", "-t", "overlay", "-o",
               f"lowerdir={real},upperdir={place}/upper,workdir={place}/work", "none", real,
               ok=False)
    if done.returncode != 0:
        raise Skip(f"no overlay over {real}: {done.stderr.strip()}")
    try:
        for name in ("mount.bgfs", "mount.fuse.bgfs", "umount.bgfs", "umount.fuse.bgfs"):
            os.symlink(BGFS, f"{real}/{name}")
        yield
    finally:
        run("umount", "-l", real)


def mount8(env, *words, ok=True):
    done = run("mount", *words, ok=False, env=env.environment)
    if ok:
        equal((done.returncode, done.stderr), (0, ""), f"mount {' '.join(map(str, words))}")
    return done


def mounts_on(path):
    return [l.split() for l in open("/proc/self/mountinfo")
            if l.split()[4].encode().decode("unicode_escape") == str(path)]


def options_of(path):
    line = mounts_on(path)[-1]
    return line[5].split(","), line[line.index("-") + 3].split(",")


def fstab(env, *lines):
    path = env / "fstab"
    path.write_text("".join(f"{line} 0 0\n" for line in lines))
    return path


def escaped(path):
    return str(path).replace("\\", "\\134").replace(" ", "\\040").replace("#", "\\043")


STRANGE = "a graph, with #1 and = and spaces.yaml"


@case("fstab with a strange source: mount -a twice never stacks, remount and umount find it",
      needs=["mount"])
def strange_source(env):
    graph = env.simple(env.raw("a.raw", MiB)).rename(env / STRANGE)
    where = env.directory("mnt with space")
    table = fstab(env, f"{escaped(graph)} {escaped(where)} bgfs "
                       "rw,nofail,_netdev,x-systemd.requires=x.mount,comment=hello")
    with helpers(env):
        for _ in range(3):
            mount8(env, "-T", table, "-a")
        equal(len(mounts_on(where)), 1, "mounts")
        m = env.adopt(run("true"), "mnt with space")
        pid = m.pid
        # By the first field, byte for byte; by the directory; and both.
        for words in (["-T", table, graph], ["-T", table, where], ["-t", "bgfs", graph, where]):
            mount8(env, *words, ok=False)
            equal(len(mounts_on(where)), 1, f"mounts after mount {words}")
        mount8(env, "-T", table, "-o", "remount", where)
        mount8(env, "-o", "remount,ro", where)
        check("ro" in options_of(where)[0], "it is not read-only")
        mount8(env, "-T", table, "-o", "remount,rw", where)
        equal(m.pid, pid, "the process")
        pwrite(m / "disk", 0, b"x")
        run("umount", where)
        equal(mounts_on(where), [], "mounts after umount")
        # umount(8) returned when everything was closed.
        with open(graph) as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)


@case("mount -a replaces our own dead mount", needs=["mount"])
def dead(env):
    graph = env.simple(env.raw("a.raw", MiB, b"alive"))
    where = env.directory()
    table = fstab(env, f"{graph} {where} fuse.bgfs defaults")
    with helpers(env):
        mount8(env, "-T", table, "-a")
        m = env.adopt(run("true"))
        os.kill(m.pid, signal.SIGKILL)
        wait_for(lambda: run("stat", where, ok=False).returncode != 0, "the connection to end")
        done = mount8(env, "-T", table, where, ok=False)
        equal(done.returncode, 0, f"mount ({done.stderr})")
        equal(pread(m / "disk", 0, 5), b"alive", "the disk")
        equal(len(mounts_on(where)), 1, "mounts")
        run("umount", where)


@case("two mount -a at once mount once", needs=["mount"])
def at_once(env):
    graph = env.simple(env.raw("a.raw", MiB))
    where = env.directory()
    table = fstab(env, f"{graph} {where} bgfs defaults")
    with helpers(env):
        for _ in range(5):
            callers = [subprocess.Popen(["mount", "-T", str(table), "-a"], env=env.environment,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True) for _ in range(3)]
            messages = [c.communicate(timeout=60)[1] for c in callers]
            equal([c.returncode for c in callers], [0, 0, 0], f"exit status ({messages})")
            equal(len(mounts_on(where)), 1, "mounts")
            run("umount", where)


def writable_graph(env, **more):
    image = env.raw("a.raw", MiB)
    return env.simple(image, **more), image


@case("remount by mount point alone: read-only and back, the images follow", needs=["mount"],
      unpassed=True)
def remount(env):
    graph, image = writable_graph(env)
    m = env.mount(graph)
    with helpers(env):
        pwrite(m / "disk", 0, b"first")
        reader = os.open(m / "disk", os.O_RDONLY)
        mount8(env, "-o", "remount,ro", m.path)
        with fails_with(errno.EROFS):
            os.open(m / "disk", os.O_RDWR)
        contains(m.read(".bgfs/files"), f"ro {image}", "files")
        equal(m.read("disk.d/state"), "read-only\n", "state")
        equal(os.pread(reader, 5, 0), b"first", "a handle from before")
        # A reload of a read-only mount cannot go through its control file.
        equal(run(BGFS, "reload", m.path).stderr, "", "reload while read-only")
        graph.write_text(graph.read_text().replace('"version": 1', '"version": 9'))
        done = run(BGFS, "reload", m.path, ok=False)
        equal(done.returncode, 32, "a refused reload while read-only")
        check(done.stderr.endswith("; nothing was changed\n"), "the end of", done.stderr)
        # The other half of the remount fails: it stays read-only.
        done = mount8(env, "-o", "remount,rw", m.path, ok=False)
        check(done.returncode != 0, "a remount with a wrong graph succeeded")
        contains(done.stderr, "'version' is 9", "standard error")
        check("ro" in options_of(m.path)[0], "it became writable")
        graph.write_text(graph.read_text().replace('"version": 9', '"version": 1'))
        mount8(env, "-o", "remount,rw", m.path)
        check("rw" in options_of(m.path)[0], "it is not writable")
        contains(m.read(".bgfs/files"), f"rw {image}", "files")
        pwrite(m / "disk", 0, b"third")
        equal(os.pread(reader, 5, 0), b"third", "a handle from before")
        os.close(reader)
        run("umount", m.path)


@case("remount reloads, changes flags of the kernel, and refuses what takes a new mount",
      needs=["mount"])
def remount_options(env):
    graph, _ = writable_graph(env)
    m = env.mount(graph)
    with helpers(env):
        env.raw("b.raw", MiB)
        node = {"node-name": "b", "driver": "raw", "file": {"driver": "file",
                                                            "filename": str(env / "b.raw")}}
        content = json.loads(graph.read_text())
        content["nodes"].append(node)
        content["exports"].append({"name": "b", "node-name": "b"})
        graph.write_text(json.dumps(content))
        mount8(env, "-o", "remount,nosuid,noexec", m.path)
        equal(m.read(".bgfs/exports"), "disk\nb\n", "roots")
        check({"nosuid", "noexec"} <= set(options_of(m.path)[0]), options_of(m.path))
        mount8(env, "-o", "remount,exec", m.path)
        check("noexec" not in options_of(m.path)[0], options_of(m.path))
        for option, wanted in (("max_read=65536", "cannot be changed while"),
                               ("allow_othr", "did you mean 'allow_other'"),
                               ("nothing", "is not known")):
            done = mount8(env, "-o", f"remount,{option}", m.path, ok=False)
            check(done.returncode != 0, "taken:", option)
            contains(done.stderr, wanted, "standard error")
        done = run("/sbin/mount.bgfs", env / "b.raw", m.path, "-o", "remount", ok=False)
        equal(done.returncode, 32, "remount of another source")
        contains(done.stderr, f"shows '{graph}', not '{env / 'b.raw'}'", "standard error")
        done = run("/sbin/mount.bgfs", env.dir, "-o", "remount", ok=False)
        equal(done.returncode, 32, "remount of what is no mount")
        contains(done.stderr, "is no mount of bgfs; mount it first", "standard error")
        run("umount", m.path)


@case("remount read-only is refused while somebody writes, and says who", needs=["mount"],
      unpassed=True)
def remount_busy(env):
    graph, _ = writable_graph(env)
    m = env.mount(graph)
    with helpers(env):
        fd = os.open(m / "disk", os.O_RDWR)
        done = mount8(env, "-o", "remount,ro", m.path, ok=False)
        check(done.returncode != 0, "it was remounted")
        contains(done.stderr, "has it open for writing", "standard error")
        contains(done.stderr, f"process {os.getpid()} (", "standard error")
        check("rw" in options_of(m.path)[0], "it became read-only")
        os.pwrite(fd, b"goes on", 0)
        os.close(fd)
        mount8(env, "-o", "remount,ro", m.path)
        run("umount", m.path)


@case("mount -f checks everything and mounts nothing", needs=["mount"])
def fake(env):
    graph, _ = writable_graph(env)
    where = env.directory()
    with helpers(env):
        mount8(env, "-f", "-t", "bgfs", graph, where)
        equal(mounts_on(where), [], "mounts")
        equal(run("/sbin/mount.bgfs", "-f", graph, where).stderr, "", "the helper with -f")
        graph.write_text("version: 2")
        done = run("/sbin/mount.bgfs", "-f", graph, where, ok=False)
        equal(done.returncode, 32, "the helper with -f and a wrong graph")
        equal(mounts_on(where), [], "mounts")
