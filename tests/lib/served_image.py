# SPDX-License-Identifier: MIT
"""One qcow2 image as a raw file, served by bgfs or by qemu-storage-daemon for the time of a block:

    with served_image.serve("bgfs", image, folder) as path: ...
"""
import contextlib
import os
import subprocess
import time

from interop import PROGRAM

LIMIT = 20.0  # seconds until something must have happened


def wait_until(claim, process, what):
    end = time.monotonic() + LIMIT
    while not claim():
        if process.poll() is not None:
            raise AssertionError(f"{what}: ended with {process.returncode}")
        if time.monotonic() > end:
            process.kill()
            raise AssertionError(f"{what}: not after {LIMIT} s")
        time.sleep(0.005)


def umount(where):
    """A process that another thread has just forked holds our descriptors until it runs a program."""
    end = time.monotonic() + LIMIT
    while True:
        done = subprocess.run([PROGRAM, "umount", where], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if "it is in use" not in done.stderr or time.monotonic() > end:
            raise AssertionError(f"bgfs umount ended with {done.returncode}: {done.stderr}")
        time.sleep(0.05)


def quote(words):
    """A flow mapping of YAML."""
    return "{" + ", ".join(f"{k}: {v}" for k, v in words.items()) + "}"


def graph_file(image, backing, data_file):
    """`backing` is None or (format, path)."""
    lines = ["version: 1", "nodes:"]
    disk = {"node-name": "disk", "driver": "qcow2", "discard": "unmap",
            "file": quote({"driver": "file", "filename": image})}
    if data_file:
        disk["data-file"] = quote({"driver": "file", "filename": data_file})
    if backing:
        lines.append("- " + quote({"node-name": "base", "driver": backing[0], "read-only": "true",
                                   "file": quote({"driver": "file", "filename": backing[1]})}))
        disk["backing"] = "base"
    lines += ["- " + quote(disk), "exports:",
              "- " + quote({"name": "disk", "node-name": "disk", "writable": "true"})]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def serve_by_bgfs(image, folder, backing, data_file):
    graph, where = os.path.join(folder, "graph.yaml"), os.path.join(folder, "mnt")
    with open(graph, "w", encoding="utf-8") as f:
        f.write(graph_file(image, backing, data_file))
    os.makedirs(where, exist_ok=True)
    subprocess.run([PROGRAM, "mount", graph, where], check=True)
    try:
        yield os.path.join(where, "disk")
    finally:
        umount(where)


@contextlib.contextmanager
def serve_by_daemon(image, folder, length):
    place = os.path.join(folder, "served")
    with open(place, "wb"):
        pass
    process = subprocess.Popen(
        ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,discard=unmap,filename={image}",
         "--blockdev", "driver=qcow2,node-name=d,file=f,discard=unmap",
         "--export", f"fuse,id=e,node-name=d,mountpoint={place},writable=on"])
    try:
        wait_until(lambda: os.stat(place).st_size == length, process, "qemu-storage-daemon")
        yield place
    finally:
        process.terminate()
        process.wait(LIMIT)
    if process.returncode != 0:
        raise AssertionError(f"qemu-storage-daemon ended with {process.returncode}")
