# SPDX-License-Identifier: MIT
"""What this machine is, what it can do, and how busy it is."""
import ctypes
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time

BGFS = os.path.abspath(os.environ.get("BGFS", "build/release/fuse/bgfs"))
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """The machine, or this bgfs, lacks what a row needs; the text says what."""


class Broken(Exception):
    """Something failed that should not have."""


def run(*command, timeout=120, **options):
    """What a command prints; Broken when it fails."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, **options)
    if done.returncode != 0:
        raise Broken(f"{' '.join(map(str, command))} ended with {done.returncode}: "
                     f"{done.stdout.strip()}")
    return done.stdout


libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


def die_with_parent():
    """In a child: it does not outlive the benchmark, however that ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def enter_private_namespace():
    """Our mounts are seen by nobody else, and go when we do. A namespace that another program makes
    meanwhile would otherwise hold them, and their servers would not end. Needs root; without it the
    mounts are public."""
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNS) != 0:
        return
    if libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "/")


def processes_with(word):
    """Whose command line has this word."""
    def has_it(pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return word.encode() in file.read().split(b"\0")
        except OSError:
            return False
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if has_it(pid)]


def await_end_of(word, seconds=20):
    """Until no process has this word in its command line: those that stay are told to end."""
    end = time.monotonic() + seconds
    while left := processes_with(word):
        if time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGTERM)
            return
        time.sleep(0.01)


def pinned(core):
    """What goes before a command so that it stays on one core; None: anywhere."""
    return [] if core is None else ["taskset", "-c", str(core)]


def last_core():
    return max(os.sched_getaffinity(0))


def stat_fields(pid):
    """Of /proc/PID/stat, those behind the name: state is the first; None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def process_seconds(pid):
    """CPU time of a process with all its threads, those that have ended among them."""
    fields = stat_fields(pid)
    if fields is None:
        raise Broken(f"process {pid} is gone")
    return (int(fields[11]) + int(fields[12])) * TICK


def kernel_thread_seconds():
    """CPU time of the kernel's own threads: who moves the bytes of a loop device, say."""
    kthreadd, seconds = "2", 0.0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = stat_fields(pid)
        if fields is not None and fields[1] == kthreadd:
            seconds += (int(fields[11]) + int(fields[12])) * TICK
    return seconds


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * KiB
    raise Broken(f"process {pid} has no memory")


def is_mounted(path):
    # Not os.path.ismount: a mount whose server is gone cannot be looked at.
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return any(line.split()[4] == path for line in file)


def unmount(path):
    """Ends a FUSE mount of ours, however it fares."""
    if not is_mounted(path):
        return
    command = ["umount", path] if os.geteuid() == 0 else ["fusermount3", "-u", path]
    for attempt in range(50):
        lazily = ["-l"] if os.geteuid() == 0 else ["-z"]
        now = command if attempt < 49 else command[:1] + lazily + command[1:]
        subprocess.run(now, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if not is_mounted(path):
            return
        time.sleep(0.1)


def wait_until(is_true, process=None, seconds=20, what="it"):
    """Polls, often at first so that starting can be timed; Broken when the process ends before."""
    end = time.monotonic() + seconds
    while not is_true():
        if process is not None and process.poll() is not None:
            raise Broken(f"{what} ended with {process.returncode} before it served")
        if time.monotonic() > end:
            raise Broken(f"{what} serves nothing after {seconds} s")
        time.sleep(0.0005)


def filesystem_of(path):
    best, kind = "", ""
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields = line.split()
            at = fields[4]
            if (real == at or real.startswith(at.rstrip("/") + "/")) and len(at) >= len(best):
                best, kind = at, fields[fields.index("-") + 1]
    return kind


def require_space(directory, length):
    free = shutil.disk_usage(directory).free
    if free < length:
        raise Unavailable(f"{directory} has {free // MiB} MiB free, {length // MiB} are needed")


def touch_memory(directory, length):
    """Memory that a virtual machine's host has given back, or never gave, costs whoever touches it
    first several times what the writing costs. So what is about to be filled on tmpfs is taken
    once, by nobody's account, and is free again."""
    zeroes = bytes(MiB)
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(length // MiB):
            file.write(zeroes)


def require_commands(*names):
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise Unavailable("not installed: " + ", ".join(missing))


def require_root(for_what):
    if os.geteuid() != 0:
        raise Unavailable(f"{for_what} needs root")


def version_of(command, *arguments):
    """As the program says it; empty: it is not there."""
    if shutil.which(command) is None:
        return ""
    done = subprocess.run([command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    found = re.search(r"\d+(\.\d+)+|\d{6,}", done.stdout)
    return found.group() if found else "of unknown version"


def fuse_over_io_uring():
    """Whether the kernel lets a mount use it."""
    try:
        with open("/sys/module/fuse/parameters/enable_uring", encoding="ascii") as file:
            return "allowed" if file.read().strip() in ("Y", "1") else "switched off"
    except OSError:
        return "unknown to the kernel"


def describe():
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"kernel": platform.release(), "machine": platform.machine(), "processor": model,
            "cores": len(os.sched_getaffinity(0)), "bgfs": version_of(BGFS, "--version"),
            "fio": version_of("fio", "--version"), "fuse over io_uring": fuse_over_io_uring()}
