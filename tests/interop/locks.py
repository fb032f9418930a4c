# SPDX-License-Identifier: MIT
"""Two processes and one image: who excludes whom, and what each is told. The peers are qemu-io and
qemu-storage-daemon, and another bgfs."""
import contextlib
import json
import os
import pty
import select
import subprocess

from interop import PROGRAM, bgfs, contains, equal, fill, need, qemu_img, qemu_io, same_bytes

KINDS = ("raw", "qcow2")


def make(kind, name="a.img", size="1M"):
    qemu_img("create", "-q", "-f", kind, name, size)
    return os.path.abspath(name)


class Session:
    """A program that takes io commands from a pipe and holds its image while it waits. It prints to
    a terminal, so that it prints at once."""

    def __init__(self, *words):
        self.output, terminal = pty.openpty()
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=terminal,
                                        stderr=terminal)
        os.close(terminal)
        self.pid = self.process.pid
        self.prompt = "qemu-io> " if words[0] == "qemu-io" else None
        if self.prompt is not None:
            self.read_to(self.prompt)  # it is open now
        else:
            self.do("length")

    def do(self, command):
        """What it says to the command. The peer prints a prompt when it is ready for the next; we
        complain of a command that nobody knows."""
        prompts = self.prompt is not None
        self.process.stdin.write(f"{command}\n{'' if prompts else 'that-is-all' + chr(10)}".encode())
        self.process.stdin.flush()
        return self.read_to(self.prompt if prompts else '"that-is-all"')

    def read_to(self, end):
        said = ""
        while end not in said:
            ready, _, _ = select.select([self.output], [], [], 30)
            try:
                part = os.read(self.output, 65536) if ready else b""
            except OSError:  # the other end is closed
                part = b""
            if not part:
                raise AssertionError(f"waiting for {end}:\n{said}")
            said += part.decode()
        return said

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)

    def close(self):
        os.close(self.output)


@contextlib.contextmanager
def session(*words):
    made = Session(*words)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end()
        made.close()


def ours(kind, name, *options):
    return session(PROGRAM, "io", "-f", kind, *options, name)


def theirs(kind, name, *options):
    need("qemu-io")
    return session("qemu-io", "-f", kind, *options, name)


class Daemon:
    """qemu-storage-daemon with these nodes, and its monitor."""

    def __init__(self, *blockdevs):
        need("qemu-storage-daemon")
        words = ["qemu-storage-daemon"]
        for b in blockdevs:
            words += ["--blockdev", json.dumps(b)]
        words += ["--chardev", "stdio,id=m", "--monitor", "chardev=m"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        contains(self.process.stdout.readline().decode(), "QMP", "greeting")
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.process.stdin.write(
            (json.dumps({"execute": command, "arguments": arguments}) + "\n").encode())
        self.process.stdin.flush()
        while True:
            answer = json.loads(self.process.stdout.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']}")

    def end(self):
        self.process.stdin.close()
        self.process.terminate()
        self.process.stdout.close()
        self.process.wait(60)


@contextlib.contextmanager
def daemon(*blockdevs):
    made = Daemon(*blockdevs)
    try:
        yield made
    finally:
        made.end()


def node(kind, name, **options):
    """A blockdev that holds the image for writing."""
    return {"node-name": "top", "driver": kind, **options,
            "file": {"driver": "file", "filename": name, "node-name": "file"}}


def busy(command, path, lock, pid, program, hint=""):
    """The whole message: what was tried, who is in the way, what to do."""
    return (f"bgfs {command}: cannot open '{os.path.basename(path)}': cannot get the {lock} lock of "
            f"'{path}': process {pid} ({program}) uses the image; stop it, or open the image with "
            f"'read-only: true, force-share: true'{hint}\n")


GIVE_U = "; to look at it all the same, give -U"
WRITE, NO_WRITE = "'write'", "'no write'"


def case_a_peer_that_writes_refuses_us():
    for kind in KINDS:
        path = make(kind)
        with theirs(kind, "a.img") as peer:
            done = bgfs("io", "-f", kind, "-c", "write 0 1k", "a.img", status=1)
            lock = NO_WRITE if kind == "raw" else WRITE  # its raw users share writing, we do not
            equal(done.err, busy("io", path, lock, peer.pid, "qemu-io"), kind)
            equal(done.out, "", "output")
        bgfs("io", "-f", kind, "-c", "write 0 1k", "a.img")  # it is gone


def case_a_peer_that_writes_qcow2_refuses_readers_who_do_not_share():
    path = make("qcow2")
    with theirs("qcow2", "a.img") as peer:
        expected = busy("info", path, NO_WRITE, peer.pid, "qemu-io", GIVE_U)
        equal(bgfs("info", "a.img", status=1).err, expected)
        expected = busy("io", path, NO_WRITE, peer.pid, "qemu-io", GIVE_U)
        equal(bgfs("io", "-r", "-c", "read 0 1k", "a.img", status=1).err, expected)


def case_a_storage_daemon_that_writes_refuses_us():
    for kind in KINDS:
        path = make(kind)
        with daemon(node(kind, path)) as peer:
            peer.ask("nbd-server-start",
                     addr={"type": "unix", "data": {"path": os.path.abspath("nbd.sock")}})
            peer.ask("block-export-add", id="e", type="nbd", writable=True, **{"node-name": "top"})
            done = bgfs("io", "-f", kind, "-c", "write 0 1k", "a.img", status=1)
            # The kernel cuts the names of commands after 15 bytes.
            lock = NO_WRITE if kind == "raw" else WRITE
            equal(done.err, busy("io", path, lock, peer.pid, "qemu-storage-da"), kind)
            bgfs("io", "-r", "-U", "-f", kind, "-c", "read 0 1k", "a.img")


def case_a_storage_daemon_that_becomes_read_only_lets_us_write():
    path = make("raw")
    with daemon(node("raw", path)) as peer:
        peer.ask("nbd-server-start",
                 addr={"type": "unix", "data": {"path": os.path.abspath("nbd.sock")}})
        peer.ask("block-export-add", id="e", type="nbd", writable=True, **{"node-name": "top"})
        bgfs("io", "-f", "raw", "-c", "write 0 1k", "a.img", status=1)
        peer.ask("block-export-del", id="e")
        bgfs("io", "-f", "raw", "-c", "write -P 7 0 1k", "a.img")
        bgfs("io", "-r", "-f", "raw", "-c", "read -P 7 0 1k", "a.img")


def case_we_write_and_refuse_peers():
    for kind in KINDS:
        make(kind)
        with ours(kind, "a.img") as held:
            held.do("write -P 5 0 64k")
            held.do("flush")
            done = qemu_io("-f", kind, "-c", "write 0 1k", "a.img", status=1)
            contains(done.err, 'Failed to get "write" lock')
            contains(done.err, "Is another process using the image [a.img]?")
            if kind == "qcow2":
                done = qemu_img("info", "-f", kind, "a.img", status=1)
                contains(done.err, 'Failed to get shared "write" lock')
            done = qemu_img("resize", "-f", kind, "a.img", "2M", status=1)
            contains(done.err, "lock")
            # Those who say that they share may look.
            qemu_img("info", "-U", "-f", kind, "a.img")
            done = qemu_io("-r", "-U", "-f", kind, "-c", "read -P 5 0 64k", "a.img")
            contains(done.out, "read 65536/65536")
        qemu_io("-f", kind, "-c", "write 0 1k", "a.img")


def case_force_share_works_in_both_directions():
    for kind in KINDS:
        make(kind)
        qemu_io("-f", kind, "-c", "write -P 9 0 64k", "a.img")
        with theirs(kind, "a.img") as peer:
            with ours(kind, "a.img", "-r", "-U") as held:
                contains(held.do("read -P 9 0 64k"), "read 65536/65536")
                contains(peer.do("write -P 10 128k 64k"), "wrote 65536/65536")
                bgfs("info", "-U", "-f", kind, "a.img")
        # We read and share: a writer may come afterwards.
        with ours(kind, "a.img", "-r", "-U"):
            qemu_io("-f", kind, "-c", "write -P 11 0 64k", "a.img")
            bgfs("io", "-f", kind, "-c", "write -P 12 0 64k", "a.img")


def case_force_share_needs_read_only():
    make("raw")
    done = bgfs("io", "-U", "-f", "raw", "-c", "read 0 1k", "a.img", status=1)
    contains(done.err, "read-only")


def case_two_of_ours():
    for kind in KINDS:
        path = make(kind)
        with ours(kind, "a.img") as held:
            done = bgfs("io", "-f", kind, "-c", "write 0 1k", "a.img", status=1)
            equal(done.err, busy("io", path, WRITE, held.pid, "bgfs"), kind)
            bgfs("io", "-r", "-U", "-f", kind, "-c", "read 0 1k", "a.img")
        with ours(kind, "a.img", "-r"):
            bgfs("io", "-r", "-f", kind, "-c", "read 0 1k", "a.img")  # readers do not mind readers


def case_a_reader_keeps_writers_of_qcow2_away_and_those_of_raw_only_if_it_says_so():
    path = make("qcow2")
    with ours("qcow2", "a.img", "-r") as held:
        done = qemu_io("-f", "qcow2", "-c", "write 0 1k", "a.img", status=1)
        contains(done.err, 'Failed to get "write" lock')
        done = bgfs("io", "-f", "qcow2", "-c", "write 0 1k", "a.img", status=1)
        equal(done.err, busy("io", path, WRITE, held.pid, "bgfs"))


def case_what_becomes_read_only_lets_a_peer_write():
    make("raw")
    with ours("raw", "a.img") as held:
        held.do("write -P 1 0 64k")
        qemu_io("-f", "raw", "-c", "write 0 1k", "a.img", status=1)
        held.do("reopen -r")
        qemu_io("-f", "raw", "-c", "write -P 2 0 64k", "a.img")
        contains(held.do("read -P 2 0 64k"), "read 65536/65536")
        contains(held.do("write 0 1k"), "read-only")
        held.do("reopen -w")
        contains(held.do("write -P 3 0 64k"), "wrote 65536/65536")
        qemu_io("-f", "raw", "-c", "write 0 1k", "a.img", status=1)


def case_a_writer_is_gone_from_the_moment_it_dies():
    make("qcow2")
    with ours("qcow2", "a.img") as held:
        held.do("write -P 1 0 64k")
        held.process.kill()
        held.process.wait(60)
        held.process.stdin.close()
    qemu_io("-f", "qcow2", "-c", "write 0 1k", "a.img")


def nobody_writes(name, holders):
    """An image that others read as qcow2 is not written, and all of them are named."""
    done = qemu_io("-f", "qcow2", "-c", "write 0 1k", name, status=1)
    contains(done.err, 'Failed to get "write" lock')
    done = bgfs("io", "-f", "qcow2", "-c", "write 0 1k", name, status=1)
    contains(done.err, f"cannot get the 'write' lock of '{os.path.abspath(name)}': process ")
    for held, program in holders.items():
        contains(done.err, f"{held.pid} ({program})")


def access_of(pid, path):
    """How the process has the file open, for each descriptor."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as f:
                found.append(int(f.read().split()[3], 8) & os.O_ACCMODE)
    return found


def case_overlays_in_two_processes_share_their_backing_file():
    for kind in KINDS:
        make(kind, "base.img")
        fill("base.img", 3, format=kind)
        for name in ("one.qcow2", "two.qcow2", "three.qcow2"):
            qemu_img("create", "-q", "-f", "qcow2", "-b", "base.img", "-F", kind, name)
        allowed = ["--allow-raw-references=."]
        with ours("qcow2", "one.qcow2", *allowed) as first:
            with theirs("qcow2", "two.qcow2") as second:
                with ours("qcow2", "three.qcow2", *allowed) as third:
                    for n, held in enumerate((first, second, third)):
                        contains(held.do(f"write -P {n + 1} 64k 64k"), "wrote 65536/65536")
                    if kind == "qcow2":
                        nobody_writes("base.img", {first: "bgfs", second: "qemu-io",
                                                   third: "bgfs"})
        for n, name in enumerate(("one.qcow2", "two.qcow2", "three.qcow2")):
            qemu_io("-f", "qcow2", "-r", "-c", f"read -P {n + 1} 64k 64k", name)
            qemu_img("convert", "-O", "raw", name, "theirs.raw")
            bgfs("convert", *allowed, "-O", "raw", name, "ours.raw")
            same_bytes("ours.raw", "theirs.raw")
        bgfs("io", "-f", kind, "-c", "write 0 1k", "base.img")


def case_an_image_in_use_is_not_overwritten():
    path = make("qcow2")
    qemu_io("-f", "qcow2", "-c", "write -P 5 0 64k", "a.img")
    with theirs("qcow2", "a.img") as peer:
        for words in (["create", "-q", "-f", "qcow2", "a.img", "1M"],
                      ["create", "-q", "-f", "raw", "a.img", "1M"]):
            done = bgfs(*words, status=1)
            contains(done.err, f"lock of '{'a.img'}'")
            contains(done.err, f"process {peer.pid} (qemu-io) uses the image")
        contains(peer.do("read -P 5 0 64k"), "read 65536/65536")
    assert os.path.exists(path)


def case_locking_off_asks_nobody():
    path = make("raw")
    with theirs("raw", "a.img"):
        bgfs("io", "--image-opts", "-c", "write 0 1k",
             f"driver=raw,file.driver=file,file.filename={path},file.locking=off")
    with session(PROGRAM, "io", "--image-opts",
                 f"driver=raw,file.driver=file,file.filename={path},file.locking=off"):
        qemu_io("-f", "raw", "-c", "write 0 1k", "a.img")


def case_auto_read_only_waits_for_a_writer():
    path = make("raw")
    options = f"driver=raw,file.driver=file,file.filename={path},file.auto-read-only=on"
    with session(PROGRAM, "io", "--image-opts", "-r", options) as held:
        equal(access_of(held.pid, path), [os.O_RDONLY], "access")
    with session(PROGRAM, "io", "--image-opts", options) as held:
        contains(held.do("write -P 3 0 64k"), "wrote 65536/65536")
        equal(access_of(held.pid, path), [os.O_RDWR], "access")
