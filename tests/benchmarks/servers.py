# SPDX-License-Identifier: MIT
"""Who serves an image as a raw file: bgfs, its peers, and the file itself.

A server is made with the graph to serve and a directory of its own, started, and stopped; between,
`path` is the raw file and `pids` are its processes. `role` says what it is in a row: ours, or what
ours is compared with (peer, native, reference).
"""
import dataclasses
import os
import re
import subprocess

from . import machine
from .machine import BGFS, Broken, Unavailable, wait_until


@dataclasses.dataclass(frozen=True)
class Graph:
    """What is served: an image, over a chain of backing images given from the top to the base."""
    image: str
    image_format: str = "qcow2"
    backing: tuple = ()  # (path, format), the next one down first
    is_direct: bool = False  # the server's own I/O passes the page cache by
    is_read_only: bool = False
    export: str = ""  # more options of our export


class Server:
    name = ""
    role = "peer"
    can_write = True

    def __init__(self, graph, directory, core=None):
        self.graph, self.directory, self.core = graph, directory, core
        self.path = None
        self.detail = ""  # how it serves, where there is more than one way
        self.processes = []

    @classmethod
    def require(cls, graph):
        """Unavailable unless it is installed and can serve such a graph."""

    @property
    def pids(self):
        return [p.pid for p in self.processes]

    def launch(self, *command, **options):
        """A process in the foreground that ends with us."""
        log = open(self.directory / "log", "ab")  # pylint: disable=consider-using-with
        child = subprocess.Popen([*machine.pinned(self.core), *map(str, command)], stdout=log,
                                 stderr=log, stdin=subprocess.DEVNULL,
                                 preexec_fn=machine.die_with_parent, **options)
        log.close()
        self.processes.append(child)
        return child

    def await_file(self, path, length):
        def is_served():
            return os.path.exists(path) and os.stat(path).st_size == length
        try:
            wait_until(is_served, self.processes[-1], what=self.name)
        except Broken as why:
            raise Broken(f"{why}: {self.log()}") from None
        self.path = path

    def log(self):
        try:
            return (self.directory / "log").read_text(errors="replace").strip()[-600:]
        except FileNotFoundError:
            return ""

    def end_processes(self, leave=()):
        """Asks them to end, the last one first; those in `leave` are about to end by themselves."""
        for child in reversed(self.processes):
            if child not in leave or not has_ended(child):
                child.terminate()
            if not has_ended(child):
                child.kill()
                child.wait()
        self.processes = []

    def start(self, length):
        raise NotImplementedError

    def stop(self):
        self.path = None
        self.end_processes()


def has_ended(child):
    try:
        child.wait(20)
        return True
    except subprocess.TimeoutExpired:
        return False


class Native(Server):
    """The raw file, with nobody between."""
    name, role = "native", "native"

    def start(self, length):
        self.path = self.graph.image


class Bgfs(Server):
    name, role = "bgfs", "ours"

    def definition(self):
        """The YAML of the graph; node0 is the top."""
        chain = [(self.graph.image, self.graph.image_format), *self.graph.backing]
        direct = ", cache: { direct: true }" if self.graph.is_direct else ""
        lines = ["version: 1", "nodes:"]
        for number in range(len(chain) - 1, -1, -1):
            path, kind = chain[number]
            below = f", backing: node{number + 1}" if number + 1 < len(chain) else ""
            lines.append(f"  - {{ node-name: node{number}, driver: {kind}{below}, "
                         f"file: {{ driver: file, filename: {path}{direct} }} }}")
        writable = "" if self.graph.is_read_only else ", writable: true"
        lines += ["exports:",
                  f"  - {{ name: disk, node-name: node0{writable}{self.graph.export} }}"]
        return "\n".join(lines) + "\n"

    def write_yaml(self):
        file = self.directory / "graph.yaml"
        file.write_text(self.definition(), encoding="utf-8")
        return file

    @property
    def mount_point(self):
        return self.directory / "mnt"

    def start(self, length):
        self.mount_point.mkdir()
        self.launch(BGFS, "mount", "--foreground", self.write_yaml(), self.mount_point)
        self.await_file(str(self.mount_point / "disk"), length)
        self.detail = self.transport()

    def transport(self):
        """How it takes requests: over /dev/fuse or a ring."""
        features = (self.mount_point / ".bgfs/features").read_text(encoding="utf-8")
        found = re.search(r"^transport: *(.*)$", features, re.MULTILINE)
        return f"over {found.group(1)}" if found else ""

    def stop(self):
        self.path = None
        machine.unmount(str(self.mount_point))
        self.end_processes(leave=self.processes)


class Reference(Bgfs):
    """bgfs on another graph, to hold ours against."""
    role = "reference"

    def __init__(self, graph, directory, core=None, name="reference"):
        super().__init__(graph, directory, core)
        self.name = name


def bool_word(is_on):
    return "on" if is_on else "off"


class QemuStorageDaemon(Server):
    name = "qemu-storage-daemon"

    @classmethod
    def require(cls, graph):
        machine.require_commands("qemu-storage-daemon")

    def blockdevs(self):
        """From the base to the top; the top is called top."""
        chain = [(self.graph.image, self.graph.image_format), *self.graph.backing]
        words, below = [], ""
        for number in range(len(chain) - 1, -1, -1):
            path, kind = chain[number]
            # O_DIRECT is what Linux's own asynchronous I/O is made for, and asks for it.
            caching = ",cache.direct=on,aio=native" if self.graph.is_direct else ""
            read_only = bool_word(number > 0 or self.graph.is_read_only)
            node = "top" if number == 0 else f"node{number}"
            words += ["--blockdev", f"driver=file,node-name=file{number},filename={path}{caching}"
                                    f",read-only={read_only}",
                      "--blockdev", f"driver={kind},node-name={node},file=file{number}{below}"
                                    f",read-only={read_only}"]
            below = f",backing={node}"
        return words

    def start(self, length):
        mount_point = self.directory / "export"
        mount_point.touch()
        self.launch("qemu-storage-daemon", *self.blockdevs(), "--export",
                    f"type=fuse,id=e,node-name=top,mountpoint={mount_point},"
                    f"writable={bool_word(not self.graph.is_read_only)}")
        self.await_file(str(mount_point), length)

    def stop(self):
        self.path = None
        self.end_processes()
        machine.unmount(str(self.directory / "export"))


class Nbdfuse(Server):
    """nbdfuse over qemu-nbd: two processes."""
    name = "nbdfuse"

    @classmethod
    def require(cls, graph):
        machine.require_commands("nbdfuse", "qemu-nbd")

    def start(self, length):
        socket, mount_point = self.directory / "socket", self.directory / "file"
        caching = ["--cache=none", "--aio=native"] if self.graph.is_direct else []
        read_only = ["--read-only"] if self.graph.is_read_only else []
        self.launch("qemu-nbd", "--persistent", "--shared=8", *caching, *read_only, "-f",
                    self.graph.image_format, "-k", socket, self.graph.image)
        wait_until(socket.exists, self.processes[-1], what="qemu-nbd")
        mount_point.touch()
        self.launch("nbdfuse", *(["-r"] if self.graph.is_read_only else []), mount_point,
                    f"nbd+unix:///?socket={socket}")
        self.await_file(str(mount_point), length)

    def stop(self):
        self.path = None
        machine.unmount(str(self.directory / "file"))
        self.end_processes(leave=self.processes[1:])


class Qcowmount(Server):
    """libqcow's mount: reads, one request at a time."""
    name = "qcowmount"
    can_write = False

    def __init__(self, graph, directory, core=None):
        super().__init__(graph, directory, core)
        self.daemons = []

    @classmethod
    def require(cls, graph):
        machine.require_commands("qcowmount")
        if graph.image_format != "qcow2" or graph.backing:
            raise Unavailable("serves single qcow2 images")
        if graph.is_direct:
            raise Unavailable("cannot pass the page cache by")

    def start(self, length):
        mount_point = self.directory / "mnt"
        mount_point.mkdir()
        # It goes into the background by itself; -v, its foreground, prints too much to be fair.
        machine.run(*machine.pinned(self.core), "qcowmount", self.graph.image, mount_point)
        path = str(mount_point / "qcow1")
        wait_until(lambda: os.path.exists(path) and os.stat(path).st_size == length,
                   what=self.name)
        self.path = path
        self.daemons = machine.processes_with(str(mount_point))

    @property
    def pids(self):
        return self.daemons

    def stop(self):
        self.path, self.daemons = None, []
        machine.unmount(str(self.directory / "mnt"))
        machine.await_end_of(str(self.directory / "mnt"))


PEERS = (QemuStorageDaemon, Nbdfuse, Qcowmount)


def peers_of(graph, needs_writes=False):
    """(classes that can serve it, what is missing and why)."""
    able, missing = [], {}
    for peer in PEERS:
        try:
            if needs_writes and not peer.can_write:
                raise Unavailable("cannot write")
            peer.require(graph)
            able.append(peer)
        except Unavailable as why:
            missing[peer.name] = str(why)
    return able, missing


def versions():
    """{program that ours is compared with: its version, or nothing if it is not installed}."""
    return {"qemu-storage-daemon": machine.version_of("qemu-storage-daemon", "--version"),
            "nbdfuse": machine.version_of("nbdfuse", "--version"),
            "qemu-nbd": machine.version_of("qemu-nbd", "--version"),
            "qcowmount": machine.version_of("qcowmount", "-V"),
            "qemu-img": machine.version_of("qemu-img", "--version")}
