# SPDX-License-Identifier: MIT
"""Mounting, unmounting, dying: what is left behind, and when."""
import ctypes
import errno
import fcntl
import os
import signal
import sys
import time

from mount_suite import *  # noqa: F403


@case("after umount the image is clean and its lock is free, at once",
      needs=["qemu-img", "qemu-io"])
def closed(env):
    image = env.qcow2("a.qcow2", "64M", options="lazy_refcounts=on")
    graph = env.simple(image, "qcow2")
    for i in range(5):
        m = env.mount(graph)
        pwrite(m / "disk", i * 3 * MiB, pattern(MiB, seed=i))
        m.umount()
        qemu_check(image)
        run("qemu-io", "-c", "write 60M 512", image)  # takes the locks for writing
    for i in range(5):
        m = env.mount(graph, "-o", "ro")
        equal(pread(m / "disk", i * 3 * MiB, MiB) == pattern(MiB, seed=i), True, f"write {i}")
        m.umount()


@case("SIGKILL after fsync loses nothing", needs=["qemu-img"])
def killed(env):
    image = env.qcow2("a.qcow2", "64M")
    m = env.mount(env.simple(image, "qcow2"))
    for i in range(20):
        pwrite(m / "disk", i * 2 * MiB, pattern(100 * KiB, seed=i))
    fsync(m / "disk")
    pwrite(m / "disk", 60 * MiB, b"not synced")
    os.kill(m.pid, signal.SIGKILL)
    wait_for(lambda: dead(m), "the connection to end")
    m.umount()
    again = env.mount(env.simple(image, "qcow2"))
    for i in range(20):
        equal(pread(again / "disk", i * 2 * MiB, 100 * KiB) == pattern(100 * KiB, seed=i), True,
              f"write {i}")
    again.umount()
    found = run("qemu-img", "check", image, ok=False)
    check(found.returncode in (0, 3), "qemu-img check", found.stdout)  # 3: leaks, nothing lost


def dead(m):
    try:
        os.stat(m.path)
    except OSError as e:
        return e.errno == errno.ENOTCONN
    return False


def close_dead(fd):
    """Closes a file of a mount that is gone, which has nobody to tell it to."""
    try:
        os.close(fd)
    except OSError as e:
        check(e.errno in (errno.ENOTCONN, errno.ECONNABORTED), "close", e)


@case("a mount whose process died is replaced by the next")
def replaced(env):
    graph = env.simple(env.raw("a.raw", MiB, b"here"))
    m = env.mount(graph)
    os.kill(m.pid, signal.SIGKILL)
    wait_for(lambda: dead(m), "the connection to end")
    again = env.mount(graph)
    equal(pread(again / "disk", 0, 4), b"here", "the disk")
    again.umount()
    equal(os.path.ismount(again.path), False, "is something still mounted")


@case("SIGTERM and SIGINT flush, close and unmount, with files open too")
def terminated(env):
    image = env.qcow2("a.qcow2", "64M")
    graph = env.simple(image, "qcow2")
    for number, keeps_open in ((signal.SIGTERM, False), (signal.SIGINT, False),
                               (signal.SIGTERM, True)):
        m = env.mount_foreground(graph)
        pwrite(m / "disk", MiB, pattern(MiB, seed=number))
        fd = os.open(m / "disk", os.O_RDWR) if keeps_open else -1
        m.process.send_signal(number)
        equal(m.process.wait(30), 0, f"exit status ({m.process.stderr.read()})")
        equal(os.path.ismount(m.path), False, "is it mounted")
        if keeps_open:
            # ECANCELED: the kernel was about to put it into a ring that was ending.
            with fails_with(errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECANCELED):
                os.pread(fd, 10, 0)
            close_dead(fd)
        qemu_check(image)
        run("qemu-img", "convert", "-O", "raw", image, env / "raw")
        equal(pread(env / "raw", MiB, MiB) == pattern(MiB, seed=number), True, "what was written")


@case("dirty mapped pages are written when the daemon is told to end", unpassed=True)
def mapped_pages(env):
    import mmap
    image = env.raw("a.raw", MiB)
    m = env.mount_foreground(env.simple(image))
    fd = os.open(m / "disk", os.O_RDWR)
    area = mmap.mmap(fd, MiB)
    area[1000:1005] = b"dirty"
    m.process.send_signal(signal.SIGTERM)
    equal(m.process.wait(30), 0, "exit status")
    equal(pread(image, 1000, 5), b"dirty", "the image")
    del area
    close_dead(fd)


@case("plain umount(8) lets the daemon close everything", needs=["umount"])
def plain_umount(env):
    image = env.qcow2("a.qcow2", "64M")
    m = env.mount_foreground(env.simple(image, "qcow2"))
    pwrite(m / "disk", 0, pattern(MiB))
    run("umount", m.path)
    equal(m.process.wait(30), 0, "exit status")
    qemu_check(image)


@case("umount of a busy mount says who holds it, and changes nothing")
def busy(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    fd = os.open(m / "disk", os.O_RDONLY)
    done = m.umount(ok=False)
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, f"process {os.getpid()} (", "standard error")
    contains(done.stderr, f"{m / 'disk'} open", "standard error")
    equal(os.read(fd, 3), b"\0\0\0", "the open file")
    os.close(fd)
    m.umount()


@case("umount of what is no mount of ours is refused")
def not_ours(env):
    done = run(BGFS, "umount", env.dir, ok=False)
    equal(done.returncode, 1, "exit status")
    contains(done.stderr, "no mount of bgfs", "standard error")


@case("a failed last flush is the exit status of umount", unpassed=True)
def failed_flush(env):
    # The image lies on another mount, whose process dies: a disk that is pulled out.
    below = env.mount(env.simple(env.raw("a.raw", MiB)), name="below")
    node = {"node-name": "top", "driver": "raw",
            "file": {"driver": "file", "filename": str(below / "disk")}}
    m = env.mount(env.graph([node], [{"name": "upper", "node-name": "top", "writable": True,
                                      "flush-interval": "0"}], name="upper.yaml"))
    pwrite(m / "upper", 0, b"written and never flushed")
    os.kill(below.pid, signal.SIGKILL)
    wait_for(lambda: dead(below), "the connection to end")
    with fails_with(errno.EIO):
        pwrite(m / "upper", 0, b"lost")
    contains(m.read("upper.d/last-error"), "write", "last-error")
    done = m.umount(ok=False)
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "flushing 'upper'", "standard error")
    equal(os.path.ismount(m.path), False, "is it mounted")


@case("a second daemon on the same graph is refused with the reason")
def second(env):
    graph = env.simple(env.raw("a.raw", MiB))
    m = env.mount(graph)
    done = env.mount_status(graph, name="other")
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "mounted already", "standard error")
    contains(done.stderr, str(m.path), "standard error")
    contains(done.stderr, f"process {m.pid}", "standard error")
    equal(env.mount_status(graph).returncode, 0, "the same again on the same directory")
    equal(open("/proc/self/mountinfo").read().count(f" {m.path} "), 1, "mounts there")
    m.umount()
    env.mount(graph, name="other").umount()
    check(not [n for n in os.listdir(env.dir) if "lock" in n], "a lock file is left behind")


@case("a second writer of one image is refused by its lock", needs=["qemu-img"])
def second_writer(env):
    image = env.qcow2("a.qcow2", "8M")
    env.mount(image, "--writable", "-F", "qcow2")
    done = env.mount_status(image, "--writable", "-F", "qcow2", name="other")
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "lock", "standard error")


@case("fsname is the graph file byte for byte")
def names(env):
    image = env.raw("a.raw", MiB)
    plain = env.simple(image)
    strange = plain.rename(env / "a graph, with \\ and = and spaces.yaml")
    m = env.mount(strange)
    lines = [l.split() for l in open("/proc/self/mountinfo") if l.split()[4] == str(m.path)]
    kind, source = lines[0][lines[0].index("-") + 1:][:2]
    equal(kind, "fuse.bgfs", "type")
    equal(source.encode().decode("unicode_escape"), str(strange), "source")


@case("the caller learns the real error and status of the daemon")
def status(env):
    graph = env.simple(env.raw("a.raw", MiB))
    (env / "a.raw").unlink()
    done = env.mount_status(graph, "-o", "strict")
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "No such file", "standard error")


@case("--ready-fd is written when the mount is usable, --foreground stays")
def foreground(env):
    m = env.mount_foreground(env.simple(env.raw("a.raw", MiB, b"now")))
    equal(pread(m / "disk", 0, 3), b"now", "the disk")
    equal(m.process.poll(), None, "the daemon")
    equal(m.pid, m.process.pid, "pid")
    m.umount()


@case("a daemon in the background holds no file of its caller")
def detached(env):
    graph = env.simple(env.raw("a.raw", MiB))
    path = env.directory()
    # With a pipe as standard output, communicate() returns only when the daemon has let go of it.
    done = subprocess.run([BGFS, "mount", str(graph), str(path)], capture_output=True, timeout=30,
                          env=env.environment)
    equal(done.returncode, 0, "exit status")
    m = env.adopt(done)
    equal(os.readlink(f"/proc/{m.pid}/cwd"), "/", "working directory")
    for fd in (0, 1, 2):
        equal(os.readlink(f"/proc/{m.pid}/fd/{fd}"), "/dev/null", f"descriptor {fd}")


@case("a killed reader is answered and the mount goes on", needs=["dd"])
def killed_clients(env):
    m = env.mount(env.simple(env.raw("a.raw", 256 * MiB)))
    for _ in range(20):
        reader = subprocess.Popen(["dd", f"if={m / 'disk'}", "of=/dev/null", "bs=1M"],
                                  stderr=subprocess.DEVNULL)
        writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={m / 'disk'}", "bs=1M",
                                   "conv=notrunc"], stderr=subprocess.DEVNULL)
        time.sleep(0.005)
        reader.kill()
        writer.kill()
        reader.wait()
        writer.wait()
    equal(pread(m / "disk", 0, 10), b"\0" * 10, "the disk")
    wait_for(lambda: m.read("disk.d/openers") == "", "the handles to be released")
    m.umount()


@case("a killed process that waits for another request is answered at once", as_written=True)
def interrupted(env):
    # An image on another mount, whose daemon is stopped. Without the page cache a write of some
    # bytes reads the block around them first, and others in the same block wait for it.
    image = env.raw("a.raw", 64 * MiB)
    below = env.mount(env.simple(image), name="below")
    node = {"node-name": "top", "driver": "raw",
            "file": {"node-name": "low", "driver": "file", "filename": str(below / "disk"),
                     "cache": {"direct": True}}}
    m = env.mount(env.graph([node], [{"name": "upper", "node-name": "top", "writable": True,
                                      "flush-interval": "0"}], name="upper.yaml"))
    pwrite(m / "upper", 32 * MiB, b"x")
    lower = below.pid
    script = ("import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); print('open', flush=True); "
              "sys.stdin.readline(); os.pwrite(fd, sys.argv[2].encode() * 10, int(sys.argv[3]))")
    writers = []
    for text, offset in (("a", 0), ("b", 100)):
        writer = subprocess.Popen([sys.executable, "-c", script, str(m / "upper"), text,
                                   str(offset)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True)
        writers.append(writer)
        equal(writer.stdout.readline(), "open\n", "a writer")
    os.kill(lower, signal.SIGSTOP)
    try:
        for count, writer in enumerate(writers, 1):
            writer.stdin.write("\n")
            writer.stdin.flush()
            wait_for(lambda: m.read("upper.d/nodes/low/requests").count("write") == count,
                     "the write to be in flight")
        writers[1].kill()
        equal(writers[1].wait(10), -signal.SIGKILL, "the second writer")
        equal(writers[0].poll(), None, "the first writer")
    finally:
        os.kill(lower, signal.SIGCONT)
    equal(writers[0].wait(20), 0, "the first writer in the end")
    equal(pread(m / "upper", 0, 110), b"a" * 10 + b"\0" * 100, "what was written")
    for writer in writers:
        writer.stdin.close()
        writer.stdout.close()
    m.umount()
    below.umount()


@case("a timer's signals do not interrupt reads and writes")
def timers(env):
    m = env.mount(env.simple(env.raw("a.raw", 64 * MiB)))
    count = 0

    def tick(*_):
        nonlocal count
        count += 1

    before = signal.signal(signal.SIGUSR1, tick)
    helper = subprocess.Popen([sys.executable, "-c", "import os, signal\nwhile True: "
                               f"os.kill({os.getpid()}, signal.SIGUSR1)"])
    try:
        wait_for(lambda: count > 0, "the first signal")
        fd = os.open(m / "disk", os.O_RDWR)
        data = pattern(MiB)
        buffer = ctypes.create_string_buffer(MiB)
        done = 0
        while done < 64 or count < 100:
            at = ctypes.c_long(done % 64 * MiB)
            # The system calls themselves: Python's own functions would hide an EINTR.
            written = libc.pwrite(fd, data, ctypes.c_size_t(MiB), at)
            equal(written, MiB, f"write {done} (errno {ctypes.get_errno()})")
            read = libc.pread(fd, buffer, ctypes.c_size_t(MiB), at)
            equal(read, MiB, f"read {done} (errno {ctypes.get_errno()})")
            equal(buffer.raw == data, True, f"the bytes of read {done}")
            done += 1
        os.close(fd)
    finally:
        helper.kill()
        helper.wait()
        signal.signal(signal.SIGUSR1, before)


@case("flock and fcntl locks of clients are local and work")
def client_locks(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    first, second_fd = (os.open(m / "disk", os.O_RDWR) for _ in range(2))
    fcntl.flock(first, fcntl.LOCK_EX)
    with fails_with(errno.EWOULDBLOCK):
        fcntl.flock(second_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(first)
    os.close(second_fd)


@case("two roots over a chain of three overlays and a 64 TiB sparse image mount in under a second "
      "and 100 MiB", needs=["qemu-img"])
def quick(env):
    previous = env.qcow2("o0.qcow2", "64T")
    for i in range(1, 4):
        previous = env.qcow2(f"o{i}.qcow2", None, previous)
    other = env.raw("b.raw", 8 * MiB)
    nodes = [{"node-name": "o0", "driver": "qcow2",
              "file": {"driver": "file", "filename": str(env / "o0.qcow2")}}]
    nodes += [{"node-name": f"o{i}", "driver": "qcow2", "backing": f"o{i - 1}",
               "file": {"driver": "file", "filename": str(env / f"o{i}.qcow2")}}
              for i in range(1, 4)]
    nodes += [{"node-name": "b", "driver": "raw",
               "file": {"driver": "file", "filename": str(other)}}]
    graph = env.graph(nodes, [{"name": "big", "node-name": "o3", "writable": True},
                              {"name": "b", "node-name": "b"}])
    for attempt in range(3):  # the machine may be busy for one
        begin = time.monotonic()
        m = env.mount(graph)
        elapsed = time.monotonic() - begin
        if elapsed < 1 or attempt == 2:
            break
        m.umount()
    equal(os.stat(m / "big").st_size, 64 * TiB, "st_size")
    status_lines = open(f"/proc/{m.pid}/status").read().splitlines()
    resident = [int(l.split()[1]) for l in status_lines if l.startswith("VmRSS")][0]
    pwrite(m / "big", 63 * TiB, b"far away")
    equal(pread(m / "big", 63 * TiB, 8), b"far away", "a write far away")
    m.umount()
    qemu_check(previous)
    check(elapsed < 1, "it took", elapsed, "s")
    if "asan" not in open(BGFS, "rb").read(1 << 26).decode("latin1"):
        check(resident < 100 * 1024, "resident memory is", resident, "KiB")


@case(".bgfs/shutdown ends a mount that nobody uses, and another one when it is forced",
      needs=["qemu-img"])
def shut_down(env):
    image = env.qcow2("a.qcow2", "64M", options="lazy_refcounts=on")
    graph = env.simple(image, "qcow2")
    m = env.mount(graph)
    os.mkdir(m / "disk.d/snapshots/now")
    pwrite(m / "disk", 5 * MiB, pattern(MiB))
    contains(m.read(".bgfs/shutdown"), "force", "what it takes")
    for open_file in ("disk", "disk.d/layers/0/disk", "disk.d/snapshots/now/disk"):
        with open(m / open_file, "rb"):
            number, sentence = m.refusal(".bgfs/shutdown", "1\n")
            equal(number, errno.EBUSY, f"while {open_file} is open")
            contains(sentence, f"process {os.getpid()} (", open_file)
            contains(sentence, "or write force", open_file)
    number, sentence = m.refusal(".bgfs/shutdown", "now\n")
    equal(number, errno.EINVAL, "'now'")
    contains(sentence, "write 1 or force to shutdown, not 'now'")
    contains(m.read(".bgfs/last-error"), "shutdown", "last-error")
    pid = m.pid
    m.command(".bgfs/shutdown", "1\n")
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the mount")
    equal(os.path.ismount(m.path), False, "is it mounted")
    qemu_check(image)

    m = env.mount(graph)
    equal(pread(m / "disk", 5 * MiB, MiB) == pattern(MiB), True, "what was written")
    fd = os.open(m / "disk", os.O_RDWR)
    os.pwrite(fd, pattern(MiB, seed=2), 5 * MiB)
    pid = m.pid
    m.command(".bgfs/shutdown", "force")
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the mount")
    close_dead(fd)
    qemu_check(image)
    m = env.mount(graph)
    equal(pread(m / "disk", 5 * MiB, MiB) == pattern(MiB, seed=2), True, "what was written then")
    m.umount()
