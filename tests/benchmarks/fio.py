# SPDX-License-Identifier: MIT
"""What a client does, and what it got: fio as a load, with the CPU time it took."""
import dataclasses
import json
import os
import random
import re
import subprocess

from . import machine
from .machine import Broken, MiB


@dataclasses.dataclass(frozen=True)
class Load:
    """One kind of client."""
    pattern: str  # as fio's --rw
    block: str
    depth: int = 1
    threads: int = 1
    engine: str = "io_uring"
    is_direct: bool = True
    options: tuple = ()  # more of fio's
    length: int = 0  # of the area of a round, where is_once
    # Nothing is touched twice, in this round or another: random requests go into a cluster each,
    # sequential ones from the beginning of the round's area on, until there is nothing left of it.
    is_once: bool = False
    warms_up: bool = False  # the file is read before

    @property
    def unit(self):
        return "MiB/s" if self.block == "1M" else "IOPS"

    @property
    def writes(self):
        return "write" in self.pattern


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round gave: the figure, and CPU seconds by who spent them. The machine's are those
    of server, client and the kernel's threads: what else runs here is nobody's cost."""
    value: float
    count: int
    server_seconds: float
    machine_seconds: float

    def microseconds(self, seconds):
        return seconds / self.count * 1e6 if self.count else 0.0


CLUSTER = 64 << 10


def command_of(load, path, length, seconds, number, scratch):
    words = ["fio", "--name=bench", f"--filename={path}", f"--rw={load.pattern}",
             f"--bs={load.block}", f"--iodepth={load.depth}", f"--ioengine={load.engine}",
             f"--direct={int(load.is_direct)}", f"--numjobs={load.threads}", "--thread",
             "--group_reporting", "--invalidate=0", f"--size={length}",
             f"--runtime={round(seconds * 1000)}ms", "--output-format=json"]
    if load.is_once and load.pattern == "write":
        return words + [f"--offset={load.length * number}"]
    if load.is_once:
        script = scratch / "requests"
        script.write_text(once_script(path, load.length, number), encoding="utf-8")
        return words + [f"--read_iolog={script}"]
    return words + ["--time_based", "--norandommap", *load.options]


def once_script(path, area, number):
    """What fio is to do in round `number`: 4 KiB somewhere in each cluster, in random order."""
    order = random.Random(number)
    clusters = list(range(area * number // CLUSTER, area * (number + 1) // CLUSTER))
    order.shuffle(clusters)
    lines = ["fio version 2 iolog", f"{path} add", f"{path} open"]
    lines += [f"{path} write {cluster * CLUSTER + order.randrange(CLUSTER // 4096) * 4096} 4096"
              for cluster in clusters]
    return "\n".join([*lines, f"{path} close"]) + "\n"


def run_fio(command, core, scratch):
    """fio's report of its one job. Its CPU time there is without that of fio's own start."""
    report = scratch / "fio.json"
    with open(scratch / "fio.errors", "w+", encoding="utf-8") as errors:
        child = subprocess.run([*machine.pinned(core), *command, f"--output={report}"],
                               stdout=errors, stderr=errors, check=False)
        errors.seek(0)
        said = errors.read().strip()
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    if child.returncode != 0 or "{" not in text:
        raise Broken(f"{' '.join(command)} ended with {child.returncode}: {said} {text[:400]}")
    report.unlink()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"] != 0:
        raise Broken(f"{' '.join(command)}: {os.strerror(job['error'])}")
    return job


def measure(load, path, length, seconds, number, core, pids, scratch):
    """One round."""
    if load.is_once:
        length = load.length
    served_before = sum(map(machine.process_seconds, pids))
    kernel_before = machine.kernel_thread_seconds()
    job = run_fio(command_of(load, path, length, seconds, number, scratch), core, scratch)
    in_kernel = machine.kernel_thread_seconds() - kernel_before
    served = sum(map(machine.process_seconds, pids)) - served_before
    client = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
    side = job["write"] if load.writes else job["read"]
    if side["total_ios"] == 0:
        raise Broken(f"{path}: not one request ended within {seconds} s")
    value = side["bw_bytes"] / MiB if load.unit == "MiB/s" else side["iops"]
    return Round(value, side["total_ios"], served, served + client + max(in_kernel, 0.0))


MISPLACED = re.compile(r"bad header offset (\d+), wanted (\d+)")


def require_writes_kept_apart(path, scratch):
    """Writes that are in flight at once each end up where they belong. One blocking client at a
    time never finds out; a loop device has many in flight, and a file system on a server that
    mixes them up is damaged before it is mounted."""
    command = ["fio", "--name=apart", f"--filename={path}", "--rw=write", "--bs=64k", "--size=16M",
               "--iodepth=32", "--ioengine=libaio", "--direct=1", "--verify=crc32c",
               "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0",
               f"--output={scratch / 'fio.apart'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (scratch / "fio.apart").read_text(encoding="utf-8") + done.stdout + done.stderr
    (scratch / "fio.apart").unlink()
    require_kept_apart(done.returncode, said)


def require_kept_apart(status, said):
    """What fio's verification came to."""
    if status == 0:
        return
    wrong = MISPLACED.search(said)
    if wrong:
        raise Broken("it mixes up writes that are in flight at once: at "
                     f"{int(wrong[2]):#x} lies what was written to {int(wrong[1]):#x}, so no file "
                     "system can be made on a loop device over it")
    if "verify failed" in said:
        raise Broken("it does not give back what was written while other writes were in flight, "
                     "so no file system can be made on a loop device over it")
    raise Broken(f"writes in flight at once ended with {status}: {said[:400]}")
