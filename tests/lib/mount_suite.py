# SPDX-License-Identifier: MIT
"""What the cases of the mount suite share: a registry of cases, a directory for each that leaves
nothing behind, and mounts of the bgfs under test (environment variable BGFS)."""
import contextlib
import ctypes
import errno
import glob
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile

BGFS = os.path.abspath(os.environ.get("BGFS", "build/debug/fuse/bgfs"))
KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

cases = []
export_defaults = {}  # what every export of a graph has that says nothing else
# ... and one that is written to and is a file of the host as it is.
whole_file_defaults = {}
mount_defaults = []  # options of every mount that says nothing of them: "queues=4"


class Skip(Exception):
    """The machine lacks something; the case says what."""


class Failure(Exception):
    pass


RING_SWITCH = pathlib.Path("/sys/module/fuse/parameters/enable_uring")


@contextlib.contextmanager
def ring_enabled(transport):
    """The kernel offers FUSE over io_uring, or does not ("uring", "dev"); None: as it is."""
    before = RING_SWITCH.read_text() if transport and RING_SWITCH.exists() else None
    if before is not None:
        RING_SWITCH.write_text("1" if transport == "uring" else "0")
    try:
        yield
    finally:
        if before is not None:
            RING_SWITCH.write_text("1" if before.strip() == "Y" else "0")


def case(name, needs=(), timeout=120, as_written=False, unpassed=False):
    """Registers a function that takes an Env. `needs` are commands that must be installed. With
    `as_written` the suite adds nothing to its exports and mounts: it is about what --cache,
    --passthrough or --queues change, or says itself which roots have it. With `unpassed` it is about what cannot be so while
    the kernel serves a file by itself, and --passthrough=on is not for it."""

    def register(function):
        cases.append((name, function, tuple(needs), timeout, as_written, unpassed))
        return function

    return register


def check(claim, *what):
    if not claim:
        raise Failure(" ".join(str(w) for w in what) or "a claim does not hold")


def equal(found, wanted, what=""):
    if found != wanted:
        raise Failure(f"{what}: found {found!r}, wanted {wanted!r}")


def contains(text, part, what="the text"):
    if part not in text:
        raise Failure(f"{what} does not contain {part!r}: {text!r}")


class fails_with:
    """with fails_with(errno.EPERM): the block must raise that OSError."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        names = "/".join(errno.errorcode[n] for n in self.numbers)
        if kind is None:
            raise Failure(f"nothing failed, {names} was wanted")
        if not isinstance(value, OSError):
            return False
        if value.errno not in self.numbers:
            raise Failure(f"failed with {errno.errorcode.get(value.errno)}, {names} was wanted")
        return True


def run(*command, ok=True, **options):
    """Runs a command; fails the case when it fails (unless ok=False)."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("text", True)
    done = subprocess.run([str(c) for c in command], **options)
    if ok and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} ended with {done.returncode}: "
                      f"{done.stdout}{done.stderr}")
    return done


def pattern(length, seed=1):
    """Bytes that differ from place to place and hold no long run of zeroes."""
    unit = b"".join(((i * 2654435761 + seed * 40503) & 0xFFFFFFFF | 1).to_bytes(4, "little")
                    for i in range(16384))
    return (unit * (length // len(unit) + 1))[:length]


def pread(path, offset, length):
    fd = os.open(path, os.O_RDONLY)
    try:
        out = b""
        while len(out) < length:
            part = os.pread(fd, length - len(out), offset + len(out))
            if not part:
                break
            out += part
        return out
    finally:
        os.close(fd)


def pwrite(path, offset, data, flags=0):
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)
    finally:
        os.close(fd)


def fsync(path):
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


libc = ctypes.CDLL(None, use_errno=True)
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO_RANGE = 1, 2, 8, 16


def fallocate(path, mode, offset, length):
    fd = os.open(path, os.O_RDWR)
    try:
        off = ctypes.c_long
        if libc.fallocate(fd, mode, off(offset), off(length)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def data_ranges(path):
    """[(begin, end)] as SEEK_DATA and SEEK_HOLE tell it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size, at, found = os.fstat(fd).st_size, 0, []
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as e:
                equal(e.errno, errno.ENXIO, "SEEK_DATA after the last data")
                break
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            found.append((begin, at))
        return found
    finally:
        os.close(fd)


CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_BIND = 0x20000, 0x4000, 1 << 18, 0x1000


def enter_private_namespace():
    """Mounts of the suite are seen by nobody else and end with it. /dev/fuse may be opened by
    everybody there, as distributions have it."""
    def mounted(source, target, kind, flags):
        words = [w.encode() if w else None for w in (source, str(target), kind)]
        if libc.mount(*words, ctypes.c_ulong(flags), None) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot mount {target}: {os.strerror(number)}")

    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter a mount namespace")
    mounted(None, "/", None, MS_REC | MS_PRIVATE)
    device = os.stat("/dev/fuse")
    if device.st_mode & 0o006 == 0o006:
        return
    place = tempfile.mkdtemp(prefix="bgfs-dev-")
    mounted("tmpfs", place, "tmpfs", 0)
    os.mknod(f"{place}/fuse", 0o020666, device.st_rdev)
    os.chmod(f"{place}/fuse", 0o666)
    mounted(f"{place}/fuse", "/dev/fuse", None, MS_BIND)
    libc.umount2(place.encode(), 2)
    os.rmdir(place)


WHAT_WAS_THERE = "what was there before\n"


class Mount:
    def __init__(self, env, path, process=None):
        self.env, self.path, self.process = env, pathlib.Path(path), process

    def __truediv__(self, name):
        return self.path / name

    def read(self, name):
        return (self.path / name).read_text()

    def refusal(self, name, text):
        """The errno and the sentence that a control file answers a command with; (0, "") if it
        took it."""
        fd = os.open(self / name, os.O_RDWR)
        try:
            os.write(fd, text.encode())
            return 0, ""
        except OSError as e:
            return e.errno, os.read(fd, 4096).decode()
        finally:
            os.close(fd)

    def command(self, name, text):
        """Writes a control file."""
        fd = os.open(self.path / name, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    @property
    def pid(self):
        return int(self.read(".bgfs/pid"))

    def umount(self, ok=True):
        done = run(BGFS, "umount", self.path, ok=False)
        if ok and done.returncode != 0:
            raise Failure(f"umount ended with {done.returncode}: {done.stderr}")
        if self.process is not None and done.returncode == 0:
            status = self.process.wait(30)
            if ok:
                equal(status, 0, f"exit status of the daemon ({self.process.stderr.read()})")
        return done


class FileMount(Mount):
    """One root on one file: what Mount asks files for are attributes of it."""

    @staticmethod
    def attribute(name):
        head, rest = name.split("/", 1)
        return "user.bgfs." + (f"mount/{rest}" if head == ".bgfs" else rest)

    def read(self, name):
        text = os.getxattr(self.path, self.attribute(name)).decode()
        return text + "\n" if text else ""

    def command(self, name, text):
        os.setxattr(self.path, self.attribute(name), text.encode())

    def refusal(self, name, text):
        try:
            self.command(name, text)
            return 0, ""
        except OSError as e:
            log = ".bgfs/last-error" if name.startswith(".bgfs/") else "disk.d/last-error"
            return e.errno, self.read(log).splitlines()[-1].split(" ", 4)[4] + "\n"


def is_whole_file(name, nodes, directory):
    """Whether a node is one regular file of the file system of `directory`, byte for byte."""
    named = {n.get("node-name"): n for n in nodes}
    top = named.get(name, {})
    below = top.get("file")
    file = named.get(below, {}) if isinstance(below, str) else below
    return (top.get("driver") == "raw" and file is not None and file.get("driver") == "file"
            and not {"offset", "size", "detect-zeroes", "cache"} & set(top)
            and "cache" not in file and os.path.isfile(file["filename"])
            and os.stat(file["filename"]).st_dev == os.stat(directory).st_dev)


class Env:
    """One case's directory and what it has mounted."""

    def __init__(self, name):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bgfs-mount-"))
        self.dir.chmod(0o755)
        self.name, self.is_as_written, self.is_unpassed = name, False, False
        self.mounts, self.loops, self.others = [], [], []
        self.environment = dict(os.environ)
        log = self.dir / "sanitizer"
        for tool in ("ASAN", "UBSAN", "TSAN"):
            before = self.environment.get(f"{tool}_OPTIONS", "")
            self.environment[f"{tool}_OPTIONS"] = f"{before}:log_path={log}".lstrip(":")

    def __truediv__(self, name):
        return self.dir / name

    def raw(self, name, size, data=b"", offset=0):
        path = self.dir / name
        with open(path, "wb") as f:
            f.truncate(size)
            f.seek(offset)
            f.write(data)
        return path

    def file(self, name, text):
        path = self / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def qcow2(self, name, size, backing=None, options=""):
        path = self.dir / name
        words = ["qemu-img", "create", "-q", "-f", "qcow2"]
        if options:
            words += ["-o", options]
        if backing:
            words += ["-b", str(backing), "-F", "qcow2"]
        run(*words, path, *([size] if size is not None else []))
        return path

    def graph(self, nodes, exports, name="graph.yaml", **more):
        """A graph file; JSON is YAML."""
        path = self.dir / name
        exports = [{**self.defaults_of(e, nodes), **e} for e in exports]
        path.write_text(json.dumps({"version": 1, "nodes": nodes, "exports": exports, **more},
                                   indent=1))
        return path

    def defaults_of(self, export, nodes):
        if self.is_as_written:
            return {}
        more = export_defaults
        if (export.get("writable") and not self.is_unpassed and "cache" not in export
                and is_whole_file(export["node-name"], nodes, self.dir)):
            more = {**more, **whole_file_defaults}
        return more

    def with_defaults(self, options):
        given = [o.split("=")[0] for word in map(str, options) for o in word.split(",")]
        more = [] if self.is_as_written else \
            [o for o in mount_defaults if o.split("=")[0] not in given]
        return [*options, *(["-o", ",".join(more)] if more else [])]

    def simple(self, image, fmt="raw", node=None, **export):
        """The graph of one image with one root, `disk`."""
        export = {"name": "disk", "node-name": "top", "writable": True, **export}
        top = {"node-name": "top", "driver": fmt, "discard": "unmap",
               "file": {"driver": "file", "filename": str(image)}, **(node or {})}
        return self.graph([top], [export])

    def directory(self, name="mnt"):
        path = self.dir / name
        if name not in os.listdir(self.dir):  # what is mounted there may be dead
            path.mkdir()
        return path

    def mount_status(self, graph, *options, name="mnt", before=(), **more):
        """Runs bgfs mount and returns what became of it."""
        path = self.directory(name)
        return run(*before, BGFS, "mount", *self.with_defaults(options), graph, path, ok=False, env=self.environment,
                   **more)

    def mount(self, graph, *options, name="mnt", before=(), **more):
        return self.adopt(self.mount_status(graph, *options, name=name, before=before, **more), name)

    def adopt(self, done, name="mnt"):
        if done.returncode != 0:
            raise Failure(f"mount ended with {done.returncode}: {done.stderr}")
        mounted = Mount(self, self.dir / name)
        mounted.stderr = done.stderr
        self.mounts.append(mounted)
        return mounted

    def mount_file_status(self, graph, *options, name="disk.img", before=(), **more):
        """Runs bgfs mount on a regular file, which holds a few words until then."""
        path = self.dir / name
        if name not in os.listdir(self.dir):
            path.write_text(WHAT_WAS_THERE)
        return run(*before, BGFS, "mount", *self.with_defaults(options), graph, path, ok=False,
                   env=self.environment, **more)

    def mount_file(self, graph, *options, name="disk.img", before=(), **more):
        done = self.mount_file_status(graph, *options, name=name, before=before, **more)
        if done.returncode != 0:
            raise Failure(f"mount ended with {done.returncode}: {done.stderr}")
        mounted = FileMount(self, self.dir / name)
        mounted.stderr = done.stderr
        self.mounts.append(mounted)
        return mounted

    def mount_foreground(self, graph, *options, name="mnt", before=()):
        """The daemon as a child of ours: its exit status can be looked at."""
        path = self.directory(name)
        read_end, write_end = os.pipe()
        process = subprocess.Popen(
            [*map(str, before), BGFS, "mount", "--foreground", "--ready-fd", str(write_end),
             *self.with_defaults(options), str(graph), str(path)],
            pass_fds=(write_end,), stderr=subprocess.PIPE, text=True, env=self.environment)
        self.others.append(process)
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            line = ready.readline()
        if line != "ready\n":
            raise Failure(f"mount --foreground ended with {process.wait(30)}: "
                          f"{process.stderr.read()}")
        mounted = Mount(self, path, process)
        self.mounts.append(mounted)
        return mounted

    def loop_device(self, path, *options):
        made = run("losetup", "--find", "--show", *options, path, ok=False)
        if made.returncode != 0:
            raise Skip(f"no loop device: {made.stderr.strip()}")
        device = made.stdout.strip()
        self.loops.append(device)
        return device

    def detach(self, device):
        run("losetup", "-d", device)
        self.loops.remove(device)

    def kernel_mount(self, device, name, *options):
        path = self.directory(name)
        done = run("mount", *options, device, path, ok=False)
        if done.returncode != 0:
            raise Skip(f"cannot mount {device}: {done.stderr.strip()}")
        return path

    def daemons(self):
        """A descriptor for each serving process, readable when it has ended."""
        found = []
        for m in self.mounts:
            try:
                found.append(os.pidfd_open(m.pid))
            except OSError:
                pass  # unmounted, or dead
        return found

    def clean_mounts(self):
        for line in reversed(open("/proc/self/mountinfo").read().splitlines()):
            where = line.split()[4].replace("\\040", " ")
            if where.startswith(f"{self.dir}/"):
                run("umount", "-l", where, ok=False)

    def clean_up(self):
        """Takes everything away; returns what went wrong until then and nobody saw."""
        daemons = self.daemons()
        self.clean_mounts()
        for device in self.loops:
            run("losetup", "-d", device, ok=False)
        for process in self.others:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stderr:
                process.stderr.close()
        reports = []
        for daemon in daemons:
            if not select.select([daemon], [], [], 30)[0]:
                reports.append("a serving process did not end after its mount was gone")
                signal.pidfd_send_signal(daemon, signal.SIGKILL)
            os.close(daemon)
        reports += [open(p).read() for p in glob.glob(f"{self.dir}/sanitizer.*")]
        shutil.rmtree(self.dir, ignore_errors=True)
        return reports


def processor_seconds(pid):
    """What a process has used, which says how much work there was however busy the machine is."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def qemu_check(image):
    done = run("qemu-img", "check", image, ok=False)
    if done.returncode != 0:
        raise Failure(f"qemu-img check of {image} ended with {done.returncode}: "
                      f"{done.stdout}{done.stderr}")


def wait_for(condition, what, seconds=20):
    """Waits for something another process does; fails when it does not."""
    import time
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {seconds} s for {what}")
        time.sleep(0.01)
