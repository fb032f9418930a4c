# SPDX-License-Identifier: MIT
""".bgfs/log and .bgfs/log-level: trace points, switched at run time."""
import errno
import os
import re

from mount_suite import *  # noqa: F403

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (\w+) (\w+) ([a-z0-9.]+)((?: [a-z-]+=(?:"
                  r"[^\s\"]+|\"(?:[^\"\\]|\\.)*\"))+)$")


def points(text):
    found = []
    for line in text.splitlines():
        match = LINE.match(line)
        check(match, "a line of the log is malformed:", line)
        found.append(match[3])
    return found


@case("log-level switches trace points on and off, and log shows what they say", needs=["qemu-img"])
def levels(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount(env.simple(image, "qcow2", node={"file": {"node-name": "below", "driver": "file",
                                                            "filename": str(image)}}))
    contains(m.read(".bgfs/log-level"), "model: warn\n", "log-level")
    equal(m.read(".bgfs/log"), "", "the log of a mount where all is well")
    with open(m / ".bgfs/log", "rb", buffering=0) as log:
        equal(log.read(1 << 16), b"", "the log")
        pwrite(m / "disk", 0, b"unseen")
        m.command(".bgfs/log-level", "trace model\n")
        pwrite(m / "disk", 0, b"x" * 10)
        fsync(m / "disk")
        m.command(".bgfs/log-level", "off")
        pwrite(m / "disk", 0, b"unseen")
        text = b""
        while part := log.read(1 << 16):
            text += part
        seen = points(text.decode())
    for name in ("request.begin", "request.end", "flush.begin", "flush.end"):
        check(name in seen, name, "was not traced:", seen)
    equal(seen.count("request.begin"), seen.count("request.end"), "begun and ended")
    contains(text.decode(), "request.begin node=top type=write offset=0 length=10", "the log")
    check("fuse.request" not in seen, "another category was traced")
    equal(m.read(".bgfs/log").count("\n"), len(seen), "lines after everything was off")
    m.command(".bgfs/log-level", "trace fuse")
    pread(m / "disk", 0, 10)
    m.command(".bgfs/log-level", "off fuse")
    contains(m.read(".bgfs/log"), f"opcode=read inode={os.stat(m / 'disk').st_ino} ", "the log")
    fd = os.open(m / ".bgfs/log-level", os.O_RDWR)
    with fails_with(errno.EINVAL):
        os.write(fd, b"loud model")
    contains(os.read(fd, 4096).decode(), "'loud' is no level", "the sentence")
    os.close(fd)
    m.umount()


@case("in the foreground what is traced goes to standard error, too", needs=["qemu-img"])
def foreground(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount_foreground(env.simple(image, "qcow2"))
    m.command(".bgfs/log-level", "debug")
    pwrite(m / "disk", 0, b"x")
    # The daemon's last words come before it ends.
    run(BGFS, "umount", m.path)
    m.process.wait(30)
    text = m.process.stderr.read()
    for part in ("debug model node.close node=top outcome=ok", "info mount root.close root=disk",
                 "debug file lock.release path="):
        contains(text, part, "standard error")


@case("opening, permissions, locks and drains are traced as they happen", needs=["qemu-img"])
def decisions(env):
    image = env.qcow2("a.qcow2", "8M")
    node = {"node-name": "top", "driver": "qcow2", "file": {"driver": "file",
                                                            "filename": str(image)}}
    m = env.mount(env.graph([node], [{"name": "disk", "node-name": "top", "writable": True,
                                      "open": "on-demand"}]))
    m.command(".bgfs/log-level", "debug")
    pwrite(m / "disk", 0, b"x")
    text = m.read(".bgfs/log")
    seen = points(text)
    for name in ("node.open", "permissions.grant", "lock.take", "qcow2.open", "root.open"):
        check(name in seen, name, "was not traced:", seen)
    contains(text, "qcow2.open node=top version=3 cluster-size=65536 is-writable=true", "the log")
    with fails_with(errno.EINVAL):
        m.command("disk.d/ctl", "nonsense")
    contains(m.read(".bgfs/log"), "info mount command.fail verb=ctl:nonsense pid=", "the log")
    m.umount()
