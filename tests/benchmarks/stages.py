# SPDX-License-Identifier: MIT
"""What has to stand before a row can be measured: images, and all servers of the row at once."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

from . import fio, images, machine, servers
from .machine import BGFS, GiB, MiB, Broken, Unavailable
from .servers import Bgfs, Graph, Native, Reference


class Settings:
    """How this run measures, and where; keeps what several stages are made from."""

    def __init__(self, seconds, rounds, disk):
        self.seconds, self.rounds = seconds, rounds
        self.core = machine.last_core()
        self.places = {"tmpfs": "/dev/shm", "disk": disk}
        self.works = {}
        self.kept = {}

    def work(self, place):
        if place not in self.works:
            where = self.places[place]
            if (machine.filesystem_of(where) == "tmpfs") != (place == "tmpfs"):
                raise Unavailable(f"{where} is on {machine.filesystem_of(where)}, not on {place}")
            self.works[place] = pathlib.Path(
                tempfile.mkdtemp(prefix=f"bgfs-bench-{os.getpid()}-", dir=where))
        return self.works[place]

    def template(self, place):
        """(raw, qcow2) with the known content; copied, never served for writing."""
        if place not in self.kept:
            machine.require_space(self.places[place], 7 * images.LENGTH)
            raw, qcow2 = self.work(place) / "template.raw", self.work(place) / "template.qcow2"
            images.write_raw(raw)
            images.write_qcow2(raw, qcow2)
            self.kept[place] = raw, qcow2
        return self.kept[place]

    def clean_up(self):
        for directory in self.works.values():
            images.remove_tree(directory)
        self.works, self.kept = {}, {}


class Stage:
    """Made when the table of rows is; begun when its first row is due, ended after its last."""

    def __init__(self, place="tmpfs", is_pinned=True):
        self.place, self.is_pinned = place, is_pinned
        self.settings = self.directory = self.core = None
        self.servers, self.missing, self.failed = [], {}, {}
        self.marked = []  # servers that a mark was written through

    @property
    def where(self):
        return f"{self.place}, {'one core' if self.is_pinned else 'any core'}"

    length = images.LENGTH
    mark_offset = images.MARK_OFFSET

    def require(self):
        """Unavailable if the machine or this bgfs lacks what all its rows need."""

    def candidates(self):
        """The servers, made but not started; fills `missing`."""
        raise NotImplementedError

    def begin(self, settings):
        self.settings = settings
        self.core = settings.core if self.is_pinned else None
        self.servers, self.missing, self.failed, self.marked = [], {}, {}, []
        self.require()
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=settings.work(self.place)))
        for server in self.candidates():
            self.servers.append(server)
            try:
                self.start(server)
            except Broken as why:
                if server.role != "peer":
                    raise Broken(f"{server.name}: {why}") from why
                self.drop(server, str(why))

    def drop(self, server, why):
        """A peer that fails takes no row with it, but is not forgotten either."""
        self.failed[server.name] = why
        self.servers.remove(server)
        server.stop()

    def start(self, server):
        server.start(self.length)
        self.check(server)

    def check(self, server):
        images.require_content(server.path)
        self.write_mark(server)

    def write_mark(self, server):
        if server.can_write:
            images.write_mark(server.path, self.mark_offset)
            self.marked.append(server)

    def end(self):
        try:
            for server in self.servers:
                server.stop()
            self.check_images()
        finally:
            for server in self.servers:
                server.stop()
            self.servers = []
            if self.directory is not None:
                images.remove_tree(self.directory)
                self.directory = None

    def check_images(self):
        for server in self.marked:
            if server in self.servers and server.graph.image_format == "qcow2":
                images.require_mark_in_image(server.graph.image, self.mark_offset, self.directory)

    def place_of(self, name):
        directory = self.directory / name.replace(" ", "-")
        directory.mkdir()
        return directory

    def make(self, kind, graph, **more):
        return kind(graph, self.place_of(more.get("name", kind.name)), self.core, **more)

    def measure(self, load, server, number):
        return fio.measure(load, server.path, images.MEASURED, self.settings.seconds, number,
                           self.core, server.pids, self.directory)


class FullImage(Stage):
    """A qcow2 image whose every cluster is allocated, and the raw file with the same bytes."""

    def __init__(self, place="tmpfs", is_pinned=True, export=""):
        super().__init__(place, is_pinned)
        self.export = export

    def graph_for(self, name, template, kind):
        image = self.directory / f"{name}.{kind}"
        images.copy(template, image)
        return Graph(str(image), kind, is_direct=self.place == "disk",
                     export=self.export if name == "bgfs" else "")

    def candidates(self):
        raw, qcow2 = self.settings.template(self.place)
        yield self.make(Native, self.graph_for("native", raw, "raw"))
        ours = self.graph_for("bgfs", qcow2, "qcow2")
        yield self.make(Bgfs, ours)
        peers, self.missing = servers.peers_of(ours)
        for peer in peers:
            yield self.make(peer, self.graph_for(peer.name, qcow2, "qcow2"))


class EmptyImage(Stage):
    """A qcow2 image without a single cluster, of which every round takes another part."""
    AREA = 4 * GiB
    SEQUENTIAL_AREA = 256 * MiB
    # What a round may write; see machine.touch_memory.
    FRESH_MEMORY = 384 * MiB

    def __init__(self, depth, area=0):
        super().__init__()
        self.depth, self.area = depth, area or self.AREA

    @property
    def length(self):
        return self.area * self.settings.rounds + MiB

    def measure(self, load, server, number):
        machine.touch_memory(self.settings.places["tmpfs"], self.FRESH_MEMORY)
        return super().measure(load, server, number)

    def candidates(self):
        yield self.make(Native, self.sparse_file())
        peers, self.missing = servers.peers_of(Graph(""), needs_writes=True)
        for kind in [Bgfs, *peers]:
            image = self.directory / f"{kind.name}.qcow2"
            images.create_qcow2(image, self.length)
            yield self.make(kind, Graph(str(image)))

    def sparse_file(self):
        path = self.directory / "native.raw"
        path.touch()
        os.truncate(path, self.length)
        return Graph(str(path), "raw")

    @property
    def mark_offset(self):
        return self.length - MiB

    def check(self, server):
        images.require_zeroes(server.path, self.area // 2, MiB)
        self.write_mark(server)


class Overlay(EmptyImage):
    """An empty qcow2 image over a raw base full of data, so long that who asks for each write where
    the data of the base end notices it (on tmpfs that is a walk over every page)."""
    AREA = 256 * MiB
    BASE = 4 * GiB

    @property
    def length(self):
        return max(self.BASE, super().length)

    def candidates(self):
        base = self.base()
        peers, self.missing = servers.peers_of(Graph("", backing=((base, "raw"),)),
                                               needs_writes=True)
        for kind in [Bgfs, *peers]:
            image = self.directory / f"{kind.name}.qcow2"
            images.create_qcow2(image, self.length, base, "raw")
            yield self.make(kind, Graph(str(image), backing=((str(base), "raw"),)))

    def base(self):
        if "base" not in self.settings.kept:
            written = 3 * self.area * self.settings.rounds
            machine.require_space(self.settings.places[self.place], self.length + written)
            path = self.settings.work(self.place) / "base.raw"
            images.write_raw(path, self.length)
            self.settings.kept["base"] = path
        return self.settings.kept["base"]

    def check(self, server):
        images.require_content(server.path)
        self.write_mark(server)


class Chain(Stage):
    """64 empty overlays over a full image, and one."""

    def check(self, server):
        images.require_content(server.path)

    def candidates(self):
        for kind, name, depth in ((Bgfs, "bgfs", 64), (Reference, "chain of 1", 1)):
            paths = [self.settings.template(self.place)[1]]
            for number in range(depth):
                path = self.directory / f"{name.replace(' ', '-')}-{number}.qcow2"
                images.create_qcow2(path, self.length, paths[0], "qcow2")
                paths.insert(0, path)
            graph = Graph(str(paths[0]), backing=tuple((str(p), "qcow2") for p in paths[1:]),
                          is_read_only=True)
            yield self.make(kind, graph, **({"name": name} if kind is Reference else {}))


class Passthrough(Stage):
    """A raw image whose file the kernel reads and writes by itself."""
    EXPORT = ", growable: true, passthrough: on"

    def require(self):
        machine.require_root("passthrough")
        with tempfile.TemporaryDirectory() as directory:
            image = pathlib.Path(directory) / "image"
            image.write_bytes(bytes(MiB))
            asked = Bgfs(Graph(str(image), "raw", export=self.EXPORT), pathlib.Path(directory))
            done = subprocess.run([BGFS, "config", "check", str(asked.write_yaml())], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise Unavailable(re.sub(r".*?graph\.yaml(:\d+)*: ", "", done.stdout.strip()))

    def candidates(self):
        raw, _ = self.settings.template(self.place)
        for kind in (Native, Bgfs, servers.QemuStorageDaemon):
            image = self.directory / f"{kind.name}.raw"
            images.copy(raw, image)
            graph = Graph(str(image), "raw", export=self.EXPORT if kind is Bgfs else "")
            try:
                kind.require(graph)
            except Unavailable as why:
                self.missing[kind.name] = str(why)
                continue
            yield self.make(kind, graph)


class OnLoop:
    """A file of an ext4 file system on a loop device over what a server serves."""
    can_write = True

    def __init__(self, server):
        self.server, self.device, self.path = server, None, None
        self.name, self.role, self.graph = server.name, server.role, server.graph
        self.detail = ""
        self.mount_point = server.directory / "ext4"

    @property
    def pids(self):
        return self.server.pids

    def start(self, length):
        self.server.start(length)
        self.detail = self.server.detail
        fio.require_writes_kept_apart(self.server.path, self.server.directory)
        self.device = machine.run("losetup", "--find", "--show", "--direct-io=on",
                                  self.server.path).strip()
        machine.run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.device)
        self.mount_point.mkdir()
        machine.run("mount", self.device, self.mount_point)
        path = self.mount_point / "file"
        images.write_raw(path, images.MEASURED)
        self.path = str(path)

    def stop(self):
        self.path = None
        machine.unmount(str(self.mount_point))
        if self.device is not None:
            machine.run("losetup", "--detach", self.device)
            self.await_detached()
            self.device = None
        self.server.stop()

    def await_detached(self):
        """Its server must not go while the kernel still holds the file."""
        backing = pathlib.Path("/sys/block", pathlib.Path(self.device).name, "loop")
        machine.wait_until(lambda: not backing.exists(), what=self.device)


class Loop(Stage):
    """A file system on a loop device over each server."""
    length = 2 * images.MEASURED

    def require(self):
        machine.require_root("a loop device")
        machine.require_commands("losetup", "mkfs.ext4")
        if not os.path.exists("/dev/loop-control"):
            raise Unavailable("there are no loop devices")

    def __init__(self):
        super().__init__(is_pinned=False)

    def candidates(self):
        native = self.directory / "native.raw"
        native.touch()
        os.truncate(native, self.length)
        yield OnLoop(self.make(Native, Graph(str(native), "raw")))
        peers, self.missing = servers.peers_of(Graph(""), needs_writes=True)
        for kind in [Bgfs, *peers]:
            image = self.directory / f"{kind.name}.qcow2"
            images.create_qcow2(image, self.length)
            yield OnLoop(self.make(kind, Graph(str(image))))

    def check(self, server):
        machine.run("sync", "-f", server.path)
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("1")
        images.require_content(server.path)


class BackgroundBgfs(Bgfs):
    """As a person mounts an image: the command returns when it can be used."""

    def start(self, length):
        self.mount_point.mkdir(exist_ok=True)
        machine.run(*machine.pinned(self.core), BGFS, "mount", "--writable", "-F", "qcow2",
                    self.graph.image, self.mount_point)
        self.path = str(self.mount_point / "disk")

    def stop(self):
        self.path = None
        machine.unmount(str(self.mount_point))
        machine.await_end_of(str(self.mount_point))


class MountTime(Stage):
    """From the command to the first look at the disk; nothing runs between rounds."""

    def __init__(self):
        super().__init__(is_pinned=False)

    def candidates(self):
        _, qcow2 = self.settings.template(self.place)
        peers, self.missing = servers.peers_of(Graph(""))
        for kind in [BackgroundBgfs, *peers]:
            image = self.directory / f"{kind.name}.qcow2"
            images.copy(qcow2, image)
            yield self.make(kind, Graph(str(image)))

    def start(self, server):
        super().start(server)
        self.clear(server)

    def measure(self, load, server, number):
        begin = time.monotonic()
        server.start(self.length)
        length = os.stat(server.path).st_size
        taken = time.monotonic() - begin
        if length != self.length:
            raise Broken(f"{server.path} has {length} bytes instead of {self.length}")
        self.clear(server)
        return fio.Round(taken * 1000, 0, 0.0, 0.0)

    def clear(self, server):
        server.stop()
        for left in server.directory.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


class Memory(FullImage):
    """What a server holds when it has worked for a while."""
    WORK = (fio.Load("randread", "4k", depth=32), fio.Load("randwrite", "4k", depth=32),
            fio.Load("read", "1M", depth=4), fio.Load("write", "1M", depth=4))

    def candidates(self):
        return (s for s in super().candidates() if s.role != "native")

    def measure(self, load, server, number):
        for work in self.WORK:
            if server.can_write or not work.writes:
                fio.measure(work, server.path, images.MEASURED, min(self.settings.seconds, 0.2),
                            number, self.core, server.pids, self.directory)
        return fio.Round(sum(map(machine.resident_bytes, server.pids)) / MiB, 0, 0.0, 0.0)
