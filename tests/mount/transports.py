# SPDX-License-Identifier: MIT
"""How requests travel: over /dev/fuse or over io_uring."""
import contextlib
import os
import signal

from mount_suite import *  # noqa: F403


def transport_of(m):
    return dict(line.split(": ", 1) for line in m.read(".bgfs/features").splitlines())["transport"]


def without_uring():
    return bool(os.environ.get("BGFS_TEST_NO_IO_URING"))


@case("the ring is taken where it is enabled, unless /dev/fuse is asked for")
def choice(env):
    if not RING_SWITCH.exists():
        raise Skip("the kernel has no FUSE over io_uring")
    data = pattern(2 * MiB + 1000)
    env.raw("a.raw", 16 * MiB)
    graph = env.simple("a.raw", writable=True)
    for enabled, option, wanted in (("uring", "auto", "uring"), ("uring", "dev", "dev"),
                                    ("uring", "uring", "uring"), ("dev", "auto", "dev")):
        if wanted == "uring" and without_uring():
            wanted = "dev"
            if option == "uring":
                continue
        with ring_enabled(enabled):
            m = env.mount(graph, "-o", f"transport={option}")
            equal(transport_of(m), wanted, f"the transport for {option}, {enabled} enabled")
            name = next(n for n in os.listdir(m.path) if not n.endswith(".d"))
            pwrite(m / name, 12345, data)
            equal(pread(m / name, 12345, len(data)) == data, True, "what was written")
            m.umount()
        data = data[::-1]


@case("a ring that cannot be had is an error that says what to do")
def refused(env):
    env.raw("a.raw", MiB)
    graph = env.simple("a.raw")
    if RING_SWITCH.exists():
        with ring_enabled("dev"):
            done = env.mount_status(graph, "-o", "transport=uring")
            equal(done.returncode, 32, "the status")
            part = "older than Linux 5.19" if without_uring() else "enable_uring"
            contains(done.stderr, part, "the message")
            contains(done.stderr, "use transport=dev", "the message")
    done = env.mount_status(graph, "-o", "transport=pigeon")
    equal(done.returncode, 1, "the status of a transport that is none")
    contains(done.stderr, "a transport is auto", "the message")


@case("a mount over the ring ends with files open, killed or asked to", as_written=True)
def ends(env):
    if not RING_SWITCH.exists() or without_uring():
        raise Skip("no FUSE over io_uring here")
    env.raw("a.raw", 16 * MiB)
    graph = env.simple("a.raw", writable=True)
    with ring_enabled("uring"):
        for number in (signal.SIGTERM, signal.SIGKILL):
            m = env.mount_foreground(graph)
            equal(transport_of(m), "uring", "the transport")
            name = next(n for n in os.listdir(m.path) if not n.endswith(".d"))
            fd = os.open(m / name, os.O_RDWR)
            os.pwrite(fd, b"x" * MiB, 0)
            m.process.send_signal(number)
            status = m.process.wait(20)
            equal(status, 0 if number == signal.SIGTERM else -number, "the exit status")
            # With a request in the ring at that moment it is ECANCELED.
            with fails_with(errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ECANCELED):
                os.pread(fd, 4096, 0)
            with contextlib.suppress(OSError):  # its flush meets the end, too
                os.close(fd)
            if number == signal.SIGKILL:
                run("umount", "-l", m.path)
            equal((env / "a.raw").read_bytes()[:MiB] == b"x" * MiB, True, "what was written")
