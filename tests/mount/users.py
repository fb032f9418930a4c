# SPDX-License-Identifier: MIT
"""Mounting without being root of the machine: through fusermount3, and in a user namespace."""
import errno
import os

from mount_suite import *  # noqa: F403

NOBODY = 65534


def as_nobody(env):
    """A directory tree that nobody may use, and how to run as nobody."""
    os.chown(env.dir, NOBODY, NOBODY)
    if not os.stat("/usr/bin/fusermount3").st_mode & 0o4000:
        raise Skip("fusermount3 is not set-user-ID here")
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]


def owned(path):
    os.chown(path, NOBODY, NOBODY)
    return path


@case("an ordinary user mounts, uses and unmounts through fusermount3",
      needs=["fusermount3", "setpriv", "qemu-img"])
def ordinary(env):
    before = as_nobody(env)
    image = owned(env.qcow2("a.qcow2", "8M"))
    graph = owned(env.simple(image, "qcow2"))
    owned(env.directory())
    m = env.mount(graph, before=before)
    write = f"printf hello | dd of={m / 'disk'} bs=5 seek=100 conv=notrunc status=none"
    run(*before, "sh", "-c", write)
    equal(run(*before, "cat", m / "disk.d/state").stdout, "ok\n", "state")
    with fails_with(errno.EACCES):
        os.stat(m / "disk")  # root is another user: FUSE mounts are private
    done = run(*before, BGFS, "umount", m.path, ok=False)
    equal((done.returncode, done.stderr), (0, ""), "umount")
    qemu_check(image)


@case("an ordinary user's busy mount and errors are told", needs=["fusermount3", "setpriv"],
      unpassed=True)
def ordinary_busy(env):
    before = as_nobody(env)
    image = owned(env.raw("a.raw", MiB))
    graph = owned(env.simple(image))
    where = owned(env.directory())
    m = env.mount(graph, before=before)
    holder = subprocess.Popen([*before, "sh", "-c", f"exec 3<{m / 'disk'}; echo open; read x"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    equal(holder.stdout.readline(), "open\n", "the holder")
    done = run(*before, BGFS, "umount", m.path, ok=False)
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, f"process {holder.pid} ", "standard error")
    holder.communicate("\n")
    run(*before, BGFS, "umount", m.path)
    os.chown(where, 0, 0)
    done = env.mount_status(graph, before=before)
    equal(done.returncode, 32, "on a directory of somebody else")
    equal(os.path.ismount(where), False, "is it mounted")


@case("root of a user namespace mounts by mount(2)", needs=["unshare"], unpassed=True)
def namespace(env):
    image = env.raw("a.raw", MiB, b"in a namespace")
    graph = env.simple(image)
    where = env.directory()
    script = f"""set -e
      {BGFS} mount {graph} {where}
      cat {where}/disk.d/state
      head -c 14 {where}/disk; echo
      printf new | dd of={where}/disk conv=notrunc status=none
      {BGFS} umount {where}
      ! grep -q {where} /proc/self/mountinfo
      """
    done = run("unshare", "-Ur", "-m", "bash", "-c", script, ok=False, env=env.environment)
    if "unshare failed" in done.stderr or "unshare: " in done.stderr:
        raise Skip(f"no user namespaces: {done.stderr.strip()}")
    equal(done.returncode, 0, f"exit status ({done.stdout}{done.stderr})")
    equal(done.stdout, "ok\nin a namespace\n", "standard output")
    equal(pread(image, 0, 14), b"new" + b"in a namespace"[3:], "the image")


@case("root lets others in, as the export's mode says", needs=["setpriv"])
def others(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB, b"public"), writable=False, mode="0444"))
    as_other = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    equal(run(*as_other, "head", "-c", "6", m / "disk").stdout, "public", "the disk")
    equal(run(*as_other, "cat", m / "disk.d/state").stdout, "read-only\n", "state")


@case("fuse2fs mounts the disk for an ordinary user without a loop device",
      needs=["fuse2fs", "mkfs.ext4", "fusermount3", "setpriv"])
def with_fuse2fs(env):
    before = as_nobody(env)
    image = owned(env.qcow2("a.qcow2", "64M"))
    graph = owned(env.simple(image, "qcow2"))
    owned(env.directory())
    tree = owned(env.directory("tree"))
    m = env.mount(graph, before=before)
    run(*before, "mkfs.ext4", "-q", "-F", "-E", f"root_owner={NOBODY}:{NOBODY}", m / "disk")
    for attempt in range(2):
        run(*before, "fuse2fs", m / "disk", tree, "-o", "rw,fakeroot")
        if attempt == 0:
            run(*before, "sh", "-c", f"echo kept > {tree}/file && mkdir {tree}/dir")
        equal(run(*before, "cat", tree / "file").stdout, "kept\n", "the file")
        run(*before, "fusermount3", "-u", tree)
        wait_for(lambda: run(*before, "cat", m / "disk.d/openers").stdout == "", "fuse2fs to end")
    run(*before, BGFS, "umount", m.path)
    qemu_check(image)
