# SPDX-License-Identifier: MIT
"""Real programs on the mounted disk: file systems through loop devices, fio, qemu-img, qemu-io."""
import hashlib
import json
import os
import pathlib

from mount_suite import *  # noqa: F403

SOURCE_TREE = pathlib.Path(__file__).resolve().parents[2]


def checksums(tree):
    """{path: digest} of the regular files below."""
    found = {}
    for where, _, names in os.walk(tree):
        for name in names:
            path = pathlib.Path(where) / name
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(tree))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def unpack(target):
    """Some hundred files of our own, and enough big ones to fill more than one table."""
    for name in ("graph", "fuse", "config", "drivers", "tests"):
        run("cp", "-r", SOURCE_TREE / name, target)
    for i in range(4):
        (target / f"big{i}").write_bytes(pattern(5 * MiB + i, seed=i))


def file_system(env, make, check_command, fmt):
    image = env.qcow2("a.qcow2", "512M") if fmt == "qcow2" else env.raw("a.raw", 512 * MiB)
    graph = env.simple(image, fmt)
    m = env.mount(graph)
    device = env.loop_device(m / "disk")
    run(*make, device)
    tree = env.kernel_mount(device, "tree")
    unpack(tree)
    wanted = checksums(tree)
    check(len(wanted) > 50, "only", len(wanted), "files")
    run("umount", tree)
    env.detach(device)
    m.umount()
    if fmt == "qcow2":
        qemu_check(image)
    m = env.mount(graph)
    device = env.loop_device(m / "disk")
    tree = env.kernel_mount(device, "tree")
    equal(checksums(tree), wanted, "the files after a remount")
    before = os.stat(image).st_blocks
    run("rm", "-r", *[tree / name for name in os.listdir(tree) if name.startswith("big")])
    # What is freed can be trimmed when that is committed and, for xfs, carried out.
    run("umount", tree)
    tree = env.kernel_mount(device, "tree")
    run("fstrim", tree)
    run("umount", tree)
    run(*check_command, device)
    env.detach(device)
    m.umount()
    given_back = (before - os.stat(image).st_blocks) * 512
    check(given_back > 15 * MiB, "fstrim gave back", given_back, "bytes")
    if fmt == "qcow2":
        qemu_check(image)


for fmt in ("raw", "qcow2"):
    for name, make, check_command in (
            ("ext4", ("mkfs.ext4", "-q"), ("fsck.ext4", "-fn")),
            ("xfs", ("mkfs.xfs", "-q"), ("xfs_repair", "-n")),
            ("btrfs", ("mkfs.btrfs", "-q"), ("btrfs", "check"))):
        case(f"{name} on a loop device over {fmt} keeps a source tree, and fstrim gives space back",
             needs=["losetup", make[0], check_command[0], "fstrim"], timeout=300)(
            lambda env, a=make, b=check_command, c=fmt: file_system(env, a, b, c))


@case("fio with four jobs verifies what it wrote", needs=["fio"], timeout=300)
def fio(env):
    image = env.qcow2("a.qcow2", "256M")
    m = env.mount(env.simple(image, "qcow2"))
    for engine, direct, depth in (("psync", 0, 1), ("libaio", 1, 16)):
        run("fio", "--name=v", f"--filename={m / 'disk'}", "--rw=randrw", "--bsrange=512-64k",
            "--size=48M", "--offset_increment=64M", "--numjobs=4", f"--ioengine={engine}",
            f"--direct={direct}", f"--iodepth={depth}", "--verify=crc32c", "--verify_fatal=1",
            "--fallocate=none", "--randrepeat=1", cwd=env.dir)
    m.umount()
    qemu_check(image)


@case("qemu-img and qemu-io work on the mounted disk", needs=["qemu-img", "qemu-io"])
def peers(env):
    image = env.qcow2("a.qcow2", "64M")
    m = env.mount(env.simple(image, "qcow2"))
    disk = m / "disk"
    script = ["write -P 1 1M 3M", "write -z 2M 1M", "discard 3M 512k", "flush", "read -P 1 1M 1M",
              "read -P 0 2M 1M", "aio_write -P 9 10M 64k", "aio_flush", "read -P 9 10M 64k"]
    words = [word for command in script for word in ("-c", command)]
    for cache in ("writeback", "none"):
        done = run("qemu-io", "-f", "raw", "-t", cache, *words, disk)
        check("failed" not in done.stdout, done.stdout)
    info = json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", disk).stdout)
    equal(info["virtual-size"], 64 * MiB, "virtual-size")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, env / "copy.qcow2")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, env / "copy.qcow2")
    other = env.raw("other", 64 * MiB, pattern(MiB), offset=32 * MiB)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", other, disk)
    m.umount()
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", other, image)
    qemu_check(image)


@case("rsync --inplace restores and then has nothing to do", needs=["rsync"])
def rsync(env):
    m = env.mount(env.simple(env.raw("a.raw", 8 * MiB)))
    backup = env.raw("disk", 8 * MiB, pattern(MiB), offset=4 * MiB)
    # Compares nanoseconds; whole seconds would not see what this case does within one.
    rsync_command = ("rsync", "--inplace", "--times", "--modify-window=-1", "--itemize-changes",
                     backup, m / "disk")
    run(*rsync_command)
    equal(pread(m / "disk", 0, 8 * MiB) == backup.read_bytes(), True, "the disk")
    equal(run(*rsync_command).stdout, "", "what a second run does")
    pwrite(m / "disk", 5, b"x")
    check(run(*rsync_command).stdout != "", "a change was not seen")
    equal(pread(m / "disk", 0, 10), b"\0" * 10, "the disk after a third run")
