# SPDX-License-Identifier: MIT
"""A thousand roots in one mount: memory and time in proportion to what is used."""
import os
import shutil
import time

from mount_suite import *  # noqa: F403

ROOTS = 1000
# A sanitizer keeps memory of its own for each byte; release builds are what the bound is about.
IS_SANITIZED = any(mark in open(BGFS, "rb").read() for mark in (b"__asan_init", b"__tsan_init"))


def resident_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise Failure("no VmRSS")


def thousand(env, changed=None, **export):
    if not (env / "i0.qcow2").exists():
        env.qcow2("i0.qcow2", "16M")
        for i in range(1, ROOTS):
            shutil.copy(env / "i0.qcow2", env / f"i{i}.qcow2")
    nodes = [{"node-name": f"n{i}", "driver": "qcow2",
              "file": {"driver": "file", "filename": f"i{i}.qcow2"},
              **({"discard": "unmap"} if i == changed else {})} for i in range(ROOTS)]
    exports = [{"name": f"r{i}", "node-name": f"n{i}", "writable": True, **export}
               for i in range(ROOTS)]
    return env.graph(nodes, exports)


@case("a thousand roots are mounted, listed, reloaded and closed", needs=["qemu-img"], timeout=300)
def thousand_roots(env):
    graph = thousand(env)
    begin = time.monotonic()
    m = env.mount(graph)
    check(time.monotonic() - begin < 60, "mounting took", time.monotonic() - begin)
    few = env.mount(env.graph([{"node-name": "x", "driver": "null-co", "size": "1M"}],
                              [{"name": "x", "node-name": "x"}], name="few.yaml"), name="few")
    if not IS_SANITIZED:
        each = (resident_kib(m.pid) - resident_kib(few.pid)) / ROOTS
        check(each < 64, f"a root takes {each} KiB")
    few.umount()
    equal(len(os.listdir(m.path)), 2 * ROOTS, "names")
    equal({os.stat(m / f"r{i}").st_size for i in range(ROOTS)}, {16 * MiB}, "lengths")
    said = run(BGFS, "reload", "--dry-run", m.path).stdout
    equal(said, f"kept: {ROOTS} roots, {2 * ROOTS} nodes\n", "the plan of no change")
    thousand(env, changed=7)
    said = run(BGFS, "reload", "--dry-run", m.path).stdout
    contains(said, "root r7: changed: its nodes change")
    contains(said, f"kept: {ROOTS - 1} roots")
    run(BGFS, "reload", m.path)
    said = run(BGFS, "reload", "--dry-run", m.path).stdout
    equal(said, f"kept: {ROOTS} roots, {2 * ROOTS} nodes\n", "the plan after the reload")
    pwrite(m / "r999", 4096, b"x" * 4096)
    m.umount()
    for name in ("i0.qcow2", "i999.qcow2"):
        qemu_check(env / name)
