# SPDX-License-Identifier: MIT
"""One root on one regular file, as containers like it."""
import errno
import json
import mmap
import os
import signal
import subprocess

from fstab import fstab, helpers, mount8, mounts_on, options_of
from mount_suite import *  # noqa: F403


def bgfs(*words, **options):
    return run(BGFS, *words, ok=False, **options)


def two_roots(env, **export):
    """Roots `disk`, writable, and `other`."""
    image, other = env.raw("a.raw", 4 * MiB, b"the disk"), env.raw("b.raw", MiB, b"another")
    return env.graph(
        [{"node-name": n, "driver": "raw", "discard": "unmap",
          "file": {"driver": "file", "filename": str(i)}} for n, i in (("a", image), ("b", other))],
        [{"name": "disk", "node-name": "a", "writable": True, **export},
         {"name": "other", "node-name": "b"}])


def restored(m):
    equal(m.path.read_text(), WHAT_WAS_THERE, "what was there before the mount")


@case("one root of a graph on a file: stat, data, holes, mapping, direct I/O, and what was there")
def one_root(env):
    graph = two_roots(env)
    m = env.mount_file(graph, "-o", "export=disk")
    equal(m.read(".bgfs/exports"), "disk\n", "roots")
    status = os.stat(m.path)
    equal((status.st_size, status.st_mode), (4 * MiB, 0o100600), "stat")
    fd = os.open(m.path, os.O_RDWR)
    equal(os.pread(fd, 8, 0), b"the disk", "its bytes")
    os.pwrite(fd, pattern(MiB), MiB)
    os.fsync(fd)
    area = mmap.mmap(fd, 4 * MiB)
    equal(area[MiB:MiB + 64], pattern(64), "through a mapping")
    area[0:6] = b"mapped"
    area.flush()
    area.close()
    os.close(fd)
    equal(data_ranges(m.path), [(0, 4096), (MiB, 2 * MiB)], "holes")
    fallocate(m.path, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, MiB, MiB // 2)
    equal(data_ranges(m.path), [(0, 4096), (MiB + MiB // 2, 2 * MiB)], "holes after punching")
    fd = os.open(m.path, os.O_RDWR | os.O_DIRECT)
    room = mmap.mmap(-1, 4096)
    equal(os.preadv(fd, [room], 0), 4096, "O_DIRECT")
    equal(room[:6], b"mapped", "what was mapped")
    os.close(fd)
    host, seen = os.statvfs(env.dir), os.statvfs(m.path)
    equal((seen.f_blocks, seen.f_frsize), (host.f_blocks, host.f_frsize), "statfs")
    contains(run("findmnt", "-no", "FSTYPE,SOURCE", m.path).stdout, f"fuse.bgfs {graph}", "findmnt")
    m.umount()
    restored(m)
    equal(pread(env / "a.raw", 0, 6), b"mapped", "the image")


@case("one image on a file, by the short form, with and without its export named",
      needs=["qemu-img"])
def short_form(env):
    image = env.qcow2("a.qcow2", "8M")
    for options in (["-F", "qcow2", "-w"], ["-F", "qcow2", "-w", "-o", "export=disk"],
                    ["-o", "writable,format=qcow2"]):
        m = env.mount_file(image, *options)
        pwrite(m.path, 100, b"written")
        equal(bgfs("state", m.path).stdout, "disk: ok\n", "state")
        m.umount()
        restored(m)
    qemu_check(image)
    m = env.mount_file(image)
    equal((pread(m.path, 100, 7), m.read("disk.d/state")), (b"written", "read-only\n"), "probed")
    m.umount()


@case("a disk that cannot be truncated says how to resize it where there is no directory",
      as_written=True)
def lengths(env):
    m = env.mount_file(two_roots(env), "-o", "export=disk")
    for call in (lambda: os.truncate(m.path, 0), lambda: open(m.path, "wb")):
        with fails_with(errno.EPERM):
            call()
    contains(m.read("disk.d/last-error"), f"setfattr -n user.bgfs.size -v SIZE {m.path}",
             "last-error")
    with fails_with(errno.ENOSPC):
        pwrite(m.path, 4 * MiB, b"x")
    m.command("disk.d/size", "5M")
    pwrite(m.path, 4 * MiB, b"x")
    equal(os.stat(m.path).st_size, 5 * MiB, "st_size")
    m.umount()


@case("a loop device on a file, with a file system in it", needs=["mkfs.ext4", "losetup"],
      unpassed=True)
def loop(env):
    m = env.mount_file(env.simple(env.raw("a.raw", 32 * MiB)))
    run("mkfs.ext4", "-q", "-E", "nodiscard", m.path)
    device = env.loop_device(m.path)
    where = env.kernel_mount(device, "ext4", "-o", "discard")
    (where / "file").write_bytes(pattern(5 * MiB))
    done = bgfs("umount", m.path)
    equal(done.returncode, 32, "umount while a loop device is there")
    contains(done.stderr, f"is backed by {m.path}", "standard error")
    run("umount", where)
    env.detach(device)
    run("e2fsck", "-fn", m.path)
    m.umount()
    run("e2fsck", "-fn", env / "a.raw")


@case("with cache: kernel nothing stale is read after size, revert and reload",
      needs=["qemu-img"], unpassed=True)
def cached(env):
    image = env.qcow2("a.qcow2", "4M")
    m = env.mount_file(env.simple(image, "qcow2", cache="kernel"))
    pwrite(m.path, 0, b"first")
    run("setfattr", "-n", "user.bgfs.snapshots/mon", m.path)
    pwrite(m.path, 0, b"later")
    equal(pread(m.path, 0, 5), b"later", "before")
    m.command("disk.d/ctl", "revert mon")
    equal(pread(m.path, 0, 5), b"first", "after the revert")
    m.command("disk.d/size", "6M")
    equal(os.stat(m.path).st_size, 6 * MiB, "st_size")
    m.command("disk.d/size", "shrink 4M")
    other = env.qcow2("b.qcow2", "4M")
    run("qemu-io", "-c", "write -P 0x62 0 64k", other)
    graph = env / "graph.yaml"
    graph.write_text(graph.read_text().replace("a.qcow2", "b.qcow2").replace('"top"', '"pot"'))
    equal((bgfs("reload", m.path).stderr, pread(m.path, 0, 4)), ("", b"bbbb"), "after a reload")
    m.umount()


@case("passthrough serves the one file by the kernel itself", as_written=True)
def passed_through(env):
    m = env.mount_file(env.simple(env.raw("a.raw", MiB, b"x"), growable=True, passthrough="on"),
                       "-o", "transport=dev")
    fd = os.open(m.path, os.O_RDWR)
    contains(m.read("disk.d/openers"), "rw passthrough", "openers")
    os.pwrite(fd, b"by the kernel", MiB)
    equal(os.fstat(fd).st_size, MiB + 13, "st_size")
    os.close(fd)
    m.umount()
    equal(pread(env / "a.raw", MiB, 13), b"by the kernel", "the image")


@case("-o writeback on a file: what is held back is written by close, flush, reload and umount",
      unpassed=True)
def writeback(env):
    image = env.raw("a.raw", MiB)
    m = env.mount_file(env.simple(image, growable=True), "-o", "export=disk,writeback")
    fd = os.open(m.path, os.O_RDWR)
    os.pwrite(fd, b"held back", 0)
    m.command("disk.d/ctl", "flush")
    equal(pread(image, 0, 9), b"held back", "after flush")
    os.pwrite(fd, b"longer", 2 * MiB)
    m.command(".bgfs/reload", "1")
    equal(pread(image, 2 * MiB, 6), b"longer", "after a reload")
    equal(m.refusal("disk.d/size", "+1M")[0], errno.EBUSY, "size")
    os.pwrite(fd, b"third", 0)
    os.close(fd)
    m.umount()
    equal(pread(image, 0, 5), b"third", "after umount")
    m = env.mount_file(env.simple(image, growable=True), "-o", "export=disk,writeback")
    fd = os.open(m.path, os.O_RDWR)
    os.pwrite(fd, b"ended", 0)
    os.kill(m.pid, signal.SIGTERM)
    wait_for(lambda: not os.path.ismount(m.path), "the mount to end")
    wait_for(lambda: pread(image, 0, 5) == b"ended", "what was held back")
    try:
        os.close(fd)
    except OSError:
        pass  # nobody is there any more


@case("commands on a file: state, wait, events, reload; what is not for one file is said")
def commands(env):
    graph = two_roots(env)
    good = graph.read_text()
    m = env.mount_file(graph, "-o", "export=disk")
    for words, wanted in ((("state", m.path), "disk: ok\n"),
                          (("state", m.path, "disk"), "disk: ok\n"), (("wait", m.path), ""),
                          (("wait", m.path, "disk"), ""), (("reload", m.path), "")):
        done = bgfs(*words)
        equal((done.returncode, done.stdout, done.stderr), (0, wanted, ""), words)
    contains(bgfs("reload", "-n", m.path).stdout, "kept: 1 roots", "the plan")
    graph.write_text(good.replace('"raw"', '"rwa"', 1))
    for words in (("reload",), ("reload", "--dry-run")):
        done = bgfs(*words, m.path)
        equal(done.returncode, 32, f"exit status of {words}")
        contains(done.stderr, "there is no driver 'rwa'", "standard error")
    graph.write_text(good)
    events = [json.loads(l)["event"] for l in bgfs("events", m.path).stdout.splitlines()]
    equal(events, ["ROOT_OPENED", "MOUNT_READY", "RELOAD_BEGUN", "RELOAD_APPLIED", "RELOAD_BEGUN",
                   "RELOAD_REFUSED"], "events")
    follower = subprocess.Popen([BGFS, "events", "-f", str(m.path)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
    env.others.append(follower)
    for wanted in events:
        equal(json.loads(follower.stdout.readline())["event"], wanted, "a kept event")
    equal(bgfs("reload", m.path).returncode, 0, "reload")
    for wanted in ("RELOAD_BEGUN", "RELOAD_APPLIED"):
        equal(json.loads(follower.stdout.readline())["event"], wanted, "a new event")
    done = bgfs("state", m.path, "other")
    equal(done.returncode, 1, "a root that is not shown")
    contains(done.stderr, "there is no root 'other'", "standard error")
    done = bgfs("export", "add", m.path, "n", "--node-name", "b")
    equal(done.returncode, 32, "export add")
    contains(done.stderr, "is a mount of one file, which shows one root and no other", "standard error")
    m.umount()
    equal(follower.wait(10), 32, "exit status of who follows")
    follower.stdout.close()
    done = bgfs("state", m.path)
    equal((done.returncode, "is no mount of bgfs" in done.stderr), (1, True), "after umount")


@case("where a file cannot be mounted on the reason is said, with the status of mount(8)")
def refused(env):
    graph = two_roots(env)
    below = env.mount(env.raw("c.raw", MiB), "-F", "raw", name="below")
    plain = env.file("plain.img", WHAT_WAS_THERE)
    os.mkfifo(env / "fifo")
    for options, where, status, wanted in (
            ([], env / "missing.img", 32, "does not exist; make a directory there (mkdir), or an "
                                          "empty file (touch)"),
            ([], env / "fifo", 32, "it is neither a directory nor a regular file"),
            ([], plain, 1, "has 2 (disk, other): say which with -o export=NAME"),
            (["-o", "export=dsk"], plain, 1, "has no export 'dsk', which 'export=dsk' asks for; did "
                                             "you mean 'disk'?"),
            (["-o", "export=disk"], below / "disk", 32, "it lies in the mount of"),
            (["-o", "export=disk"], below / "disk.d/state", 32, "it lies in the mount of"),
            (["-o", "export=disk"], env / "a.raw", 32, "it is what would be mounted, and hidden by that"),
            (["-o", "export=disk"], graph, 32, "it is what would be mounted, and hidden by that")):
        done = bgfs("mount", *options, graph, where, env=env.environment)
        equal(done.returncode, status, f"exit status of {where} ({done.stderr})")
        contains(done.stderr, wanted, "standard error")
        check(not os.path.ismount(where) if where != below / "disk" else True, "mounted", where)
    m = env.mount_file(graph, "-o", "export=disk", name="plain.img")
    done = bgfs("mount", "-o", "export=disk", graph, plain)
    equal((done.returncode, done.stderr), (0, ""), "what is there already")
    for words in (("-o", "export=other", graph), ("-F", "raw", env / "c.raw")):
        done = bgfs("mount", *words, plain)
        equal(done.returncode, 32, "something else there")
        contains(done.stderr, f"it shows '{graph}' already; unmount it first (bgfs umount {plain})",
                 "standard error")
    equal(len(mounts_on(plain)), 1, "mounts")
    m.umount()
    below.umount()


@case("a root that cannot be opened is no mount of one file, whether it is required or not")
def failed(env):
    graph = two_roots(env)
    (env / "a.raw").unlink()
    done = env.mount_file_status(graph, "-o", "export=disk")
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "a.raw", "standard error")
    equal((env / "disk.img").read_text(), WHAT_WAS_THERE, "the file")


@case("a reload that takes away or renames the export of a file changes nothing and says so")
def reload_without(env):
    graph = two_roots(env)
    good = graph.read_text()
    for options in (["-o", "export=disk"], None):
        if options is None:  # the only one need not be named, and is the one for good
            content = json.loads(good)
            content["exports"] = content["exports"][:1]
            good = json.dumps(content)
            graph.write_text(good)
        m = env.mount_file(graph, *(options or []))
        fd = os.open(m.path, os.O_RDWR)
        for text in (good.replace('"name": "disk"', '"name": "renamed"'),
                     json.dumps({**json.loads(good), "exports": [{"name": "b", "node-name": "b"}]})):
            graph.write_text(text)
            done = bgfs("reload", "--force", m.path)
            equal(done.returncode, 32, "exit status")
            contains(done.stderr, "has no export 'disk', which 'export=disk' asks for",
                     "standard error")
            check(done.stderr.endswith("; nothing was changed\n"), "the end of", done.stderr)
            os.pwrite(fd, b"goes on", 0)
        graph.write_text(good)
        os.close(fd)
        # Another export more is none of its business; another disk under its name is.
        content = json.loads(good)
        content["exports"] = [{**content["exports"][0], "mode": "0604"},
                              {"name": "third", "node-name": "b"}]
        graph.write_text(json.dumps(content))
        equal(bgfs("reload", m.path).stderr, "", "a reload")
        equal((m.read(".bgfs/exports"), os.stat(m.path).st_mode), ("disk\n", 0o100604), "after it")
        content["exports"] = [{"name": "disk", "node-name": "b"}]
        graph.write_text(json.dumps(content))
        equal(bgfs("reload", m.path).stderr, "", "a reload to another node")
        equal((pread(m.path, 0, 7), os.stat(m.path).st_size), (b"another", MiB), "its bytes")
        graph.write_text(good)
        m.umount()
        restored(m)


@case("a process that died leaves a file that says so; mounting again replaces it")
def died(env):
    graph = two_roots(env)
    m = env.mount_file(graph, "-o", "export=disk")
    os.kill(m.pid, signal.SIGKILL)
    wait_for(lambda: bgfs("state", m.path).stderr.endswith("has died; mount it again\n"),
             "the connection to end")
    again = env.mount_file(graph, "-o", "export=disk")
    contains(again.stderr, "holds a mount whose process has died; it is replaced", "standard error")
    equal((pread(again.path, 0, 8), len(mounts_on(again.path))), (b"the disk", 1), "again")
    os.kill(again.pid, signal.SIGKILL)
    wait_for(lambda: run("stat", again.path, ok=False).returncode != 0, "the connection to end")
    equal(bgfs("umount", again.path).returncode, 0, "umount of what is dead")
    restored(again)


@case("umount of a file says who has it open", unpassed=True)
def busy(env):
    m = env.mount_file(two_roots(env), "-o", "export=disk")
    with open(m.path):
        done = bgfs("umount", m.path)
        equal(done.returncode, 32, "exit status")
        contains(done.stderr, f"process {os.getpid()} (", "standard error")
        contains(done.stderr, f"has {m.path} open", "standard error")
    m.umount()
    done = bgfs("umount", m.path)
    equal(done.returncode, 1, "umount of no mount")
    contains(done.stderr, "is no mount of bgfs", "standard error")


@case("fstab with a file: mount -a, remount read-only and back, umount(8)", needs=["mount"],
      unpassed=True)
def in_fstab(env):
    graph = two_roots(env)
    where = env.file("disk image.img", WHAT_WAS_THERE)
    table = fstab(env, f"{graph} {str(where).replace(' ', chr(92) + '040')} fuse.bgfs "
                       "export=disk,nofail")
    with helpers(env):
        for _ in range(2):
            mount8(env, "-T", table, "-a")
        equal(len(mounts_on(where)), 1, "mounts")
        m = FileMount(env, where)
        env.mounts.append(m)
        pid = m.pid
        mount8(env, "-o", "remount,ro", where)
        check("ro" in options_of(where)[0], "it is not read-only")
        equal(m.read("disk.d/state"), "read-only\n", "state")
        with fails_with(errno.EROFS):
            os.open(where, os.O_RDWR)
        # A reload that cannot go through an attribute, either.
        equal(bgfs("reload", where).stderr, "", "reload while read-only")
        graph.write_text(graph.read_text().replace('"version": 1', '"version": 9'))
        done = bgfs("reload", where)
        equal((done.returncode, done.stderr.endswith("; nothing was changed\n")), (32, True),
              f"a refused one ({done.stderr})")
        graph.write_text(graph.read_text().replace('"version": 9', '"version": 1'))
        mount8(env, "-T", table, "-o", "remount,rw", where)
        check("rw" in options_of(where)[0], "it is not writable")
        equal(m.pid, pid, "the process")
        pwrite(where, 0, b"x")
        run("umount", where)
        equal(mounts_on(where), [], "mounts after umount")
        equal(where.read_text(), WHAT_WAS_THERE, "what was there")


@case("an ordinary user mounts on a file of their own, and not on another's",
      needs=["fusermount3", "setpriv"], unpassed=True)
def ordinary(env):
    from users import as_nobody, owned
    before = as_nobody(env)
    image = owned(env.raw("a.raw", MiB))
    graph = owned(env.simple(image))
    owned(env.file("disk.img", WHAT_WAS_THERE))
    m = env.mount_file(graph, before=before)
    run(*before, "sh", "-c",
        f"printf hello | dd of={m.path} bs=5 seek=100 conv=notrunc status=none")
    equal(run(*before, "getfattr", "--only-values", "-n", "user.bgfs.state", m.path).stdout, "ok",
          "state")
    equal(run(*before, BGFS, "state", m.path).stdout, "disk: ok\n", "bgfs state")
    with fails_with(errno.EACCES):
        os.stat(m.path)  # FUSE mounts are private
    done = run(*before, BGFS, "umount", m.path, ok=False)
    equal((done.returncode, done.stderr), (0, ""), "umount")
    restored(m)
    equal(pread(image, 500, 5), b"hello", "the image")
    os.chown(m.path, 0, 0)
    done = env.mount_file_status(graph, before=before)
    equal(done.returncode, 32, f"on a file of somebody else ({done.stderr})")
    equal(os.path.ismount(m.path), False, "is it mounted")


@case("a directory with export=NAME shows that root alone, as ever")
def on_directory(env):
    m = env.mount(two_roots(env), "-o", "export=other")
    equal((os.listdir(m.path), pread(m / "other", 0, 7)), (["other", "other.d"], b"another"), "roots")
    with fails_with(errno.ENODATA):
        os.getxattr(m / "other", "user.bgfs.mount/pid")
    m.umount()
