# SPDX-License-Identifier: MIT
""".bgfs/events: what happened, one line of JSON each, and how to wait for the next."""
import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

from mount_suite import *  # noqa: F403


def one_root(env, **more):
    return env.graph([{"node-name": "top", "driver": "raw",
                       "file": {"driver": "file", "filename": str(env.raw("a.raw", MiB))}}],
                     [{"name": "disk", "node-name": "top", "writable": True}], **more)


def failing(env):
    """A root that fails to open, and each `retry` makes one event more."""
    return env.graph([{"node-name": "top", "driver": "raw",
                       "file": {"driver": "file", "filename": str(env / "missing.raw")}}],
                     [{"name": "disk", "node-name": "top"}])


def retry(m):
    try:
        m.command("disk.d/ctl", "retry")
    except OSError:
        pass


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


@case("events are lines of JSON with timestamp, event and data, and end at the last one")
def shape(env):
    before = time.time()
    m = env.mount(one_root(env))
    with open(m / ".bgfs/events", "rb", buffering=0) as f:
        events = lines_of(f.readall().decode())
        equal(f.read(4096), b"", "at the end")
        equal(f.read(4096), b"", "at the end again")
    equal([e["event"] for e in events], ["ROOT_OPENED", "MOUNT_READY"], "events")
    for e in events:
        equal(sorted(e), ["data", "event", "timestamp"], "keys")
        at = e["timestamp"]["seconds"] + e["timestamp"]["microseconds"] / 1e6
        check(before - 1 <= at <= time.time() + 1, "the time of", e)
    equal(events[0]["data"], {"root": "disk", "node-name": "top", "state": "ok"}, "data")
    equal(events[1]["data"]["directory"], str(m.path), "directory")
    check(os.stat(m / ".bgfs/events").st_size > 0, "st_size is 0")
    m.umount()


@case("an open events file goes on with new events where it ended")
def goes_on(env):
    m = env.mount(failing(env))
    with open(m / ".bgfs/events", "rb", buffering=0) as f:
        first = lines_of(f.readall().decode())
        equal(first[0]["event"], "ROOT_FAILED", "first event")
        contains(first[0]["data"]["reason"], "missing.raw", "reason")
        for i in range(3):
            retry(m)
            got = lines_of(f.read(4096).decode())
            equal([e["event"] for e in got], ["ROOT_FAILED"], f"after retry {i}")
            equal(f.read(4096), b"", "then")
        # From the beginning again: everything that is kept.
        f.seek(0)
        equal(len(lines_of(f.readall().decode())), len(first) + 3, "all events")
        # A read smaller than a line gives the line in pieces.
        f.seek(0)
        pieces = b""
        while part := f.read(7):
            pieces += part
        equal(len(lines_of(pieces.decode())), len(first) + 3, "in pieces")
    m.umount()


@case("events in the thousands: the last 1024 are kept, a slow reader learns how many it lost")
def ring(env):
    m = env.mount(failing(env))
    slow = open(m / ".bgfs/events", "rb", buffering=0)
    head = slow.read(20)  # within the first line
    for _ in range(1500):
        retry(m)
    text = head + slow.read(1 << 20)
    while part := slow.read(1 << 20):
        text += part
    # What was begun was cut short: everything after it is whole.
    lines = text.decode().splitlines()
    equal(lines[0], head.decode(), "the line that was begun")
    events = [json.loads(line) for line in lines[1:]]
    equal(events[0]["event"], "EVENTS_LOST", "first whole line")
    # ROOT_FAILED and MOUNT_READY at mount, 1500 retries: all but 1024 are gone.
    equal(events[0]["data"], {"count": 1502 - 1024}, "how many")
    equal(len(events), 1025, "lines")
    slow.close()
    equal(len(m.read(".bgfs/events").splitlines()), 1024, "lines of a new reader")
    equal(os.stat(m / ".bgfs/events").st_size, len(m.read(".bgfs/events")), "st_size")
    m.umount()


@case("poll, select and epoll on events wake on the next event and not before")
def poll_wakes(env):
    m = env.mount(failing(env))
    for _ in range(3):
        for kind in ("poll", "select", "epoll"):
            with open(m / ".bgfs/events", "rb", buffering=0) as f:
                if kind == "poll":
                    poller = select.poll()
                    poller.register(f, select.POLLIN)
                    wait = lambda s: bool(poller.poll(s * 1000))  # noqa: E731
                elif kind == "select":
                    wait = lambda s: bool(select.select([f], [], [], s)[0])  # noqa: E731
                else:
                    poller = select.epoll()
                    poller.register(f, select.EPOLLIN)
                    wait = lambda s: bool(poller.poll(s))  # noqa: E731
                check(wait(5), kind, "does not see what is there already")
                f.readall()
                check(not wait(0.05), kind, "says there is more at the end")
                threading.Timer(0.1, retry, [m]).start()
                begin = time.monotonic()
                check(wait(10), kind, "is not woken by an event")
                check(time.monotonic() - begin < 5, kind, "is woken late")
                equal(len(lines_of(f.read(4096).decode())), 1, f"events after {kind}")
    # Ten that wait at once; one goes away while it waits.
    files = [open(m / ".bgfs/events", "rb", buffering=0) for _ in range(10)]
    for f in files:
        f.readall()
    script = "import select, sys; f = open(sys.argv[1], 'rb', 0); f.readall(); " \
             "print('up', flush=True); select.select([f], [], [])"
    gone = subprocess.Popen([sys.executable, "-c", script, str(m / ".bgfs/events")],
                            stdout=subprocess.PIPE)
    gone.stdout.readline()
    time.sleep(0.1)
    gone.kill()
    gone.wait()
    gone.stdout.close()
    threading.Timer(0.1, retry, [m]).start()
    for f in files:
        check(select.select([f], [], [], 10)[0], "one of ten is not woken")
        f.close()
    m.umount()


@case("who waits for an event is told when the mount ends")
def poll_at_end(env):
    m = env.mount(failing(env))
    f = open(m / ".bgfs/events", "rb", buffering=0)
    f.readall()
    threading.Timer(0.1, os.kill, [m.pid, signal.SIGKILL]).start()
    check(select.select([f], [], [], 10)[0], "not woken by the end")
    with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
        os.read(f.fileno(), 1)
    with fails_with(errno.ENOTCONN):
        f.close()


@case("raw files are always ready for poll, and io_uring stops asking")
def poll_raw(env):
    m = env.mount(one_root(env))
    fd = os.open(m / "disk", os.O_RDWR)
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLOUT)
    equal(poller.poll(5000), [(fd, select.POLLIN | select.POLLOUT)], "poll of a raw file")
    os.close(fd)
    # From now on the kernel answers for the whole mount: everything is ready, events too.
    with open(m / ".bgfs/events", "rb", buffering=0) as f:
        f.readall()
        check(select.select([f], [], [], 5)[0], "poll is still asked of the mount")
        equal(f.read(100), b"", "and there is nothing to read")
    m.umount()


@case("io_uring on a raw file: verified, over a mount over a mount, killed in the middle",
      needs=["fio"], timeout=180)
def uring_over_mounts(env):
    if os.environ.get("BGFS_TEST_NO_IO_URING"):
        raise Skip("io_uring is denied here")
    below = env.mount(env.simple(env.raw("a.raw", 64 * MiB)), name="below")
    node = {"node-name": "top", "driver": "raw",
            "file": {"driver": "file", "filename": str(below / "disk"), "aio": "io_uring"}}
    m = env.mount(env.graph([node], [{"name": "upper", "node-name": "top", "writable": True}],
                            name="upper.yaml"))
    fio = ["fio", "--name=j", f"--filename={m / 'upper'}", "--ioengine=io_uring", "--iodepth=16",
           "--bs=4k", "--size=64M", "--rw=randwrite", "--direct=1", "--thread", f"--aux-path={env.dir}"]
    done = run(*fio, "--io_size=8M", "--verify=crc32c", "--verify_fatal=1", timeout=120)
    contains(done.stdout, "err= 0", "fio")
    # Somebody waits for events of both meanwhile, and both polls are asked beside the I/O.
    waiting = [subprocess.Popen([sys.executable, "-c", "import select, sys\n"
                                 "f = open(sys.argv[1], 'rb', 0)\n"
                                 "while True: f.read(65536); select.select([f], [], [], 0.01)",
                                 str(x / ".bgfs/events")]) for x in (below, m)]
    for _ in range(5):
        writer = subprocess.Popen([*fio, "--time_based", "--runtime=60"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.7)
        writer.kill()
        writer.wait(20)
    equal(len(pread(m / "upper", 0, 4096)), 4096, "a read afterwards")
    for process in waiting:
        process.kill()
        process.wait()
    wait_for(lambda: m.read("upper.d/openers") == "", "the handles to be released")
    m.umount()
    below.umount()
