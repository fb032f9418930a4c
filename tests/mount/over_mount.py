# SPDX-License-Identifier: MIT
"""bgfs snapshot, bitmap, info, map, check and point on the raw file of a mount."""
import json
import os
import subprocess

from mount_suite import *  # noqa: F403


def bgfs(*words, **options):
    return run(BGFS, *words, ok=False, **options)


def well(*words):
    done = bgfs(*words)
    equal((done.returncode, done.stderr), (0, ""), f"bgfs {' '.join(map(str, words))}")
    return done.stdout


def ways(env, image, fmt, **export):
    """The same image as raw files: beside its control directory, bound elsewhere, mounted alone."""
    graph = env.simple(image, fmt, **export)
    m = env.mount(graph)
    yield m / "disk"
    bound = env.file("bound.img", "")
    run("mount", "--bind", m / "disk", bound)
    yield bound
    run("umount", bound)
    m.umount()
    m = env.mount_file(graph)
    yield m.path
    m.umount()


def control_of(disk):
    return lambda name: os.getxattr(disk, f"user.bgfs.{name}").decode()


def without_dates(text):
    return [line.split()[:2] for line in text.splitlines()]


@case("bgfs snapshot lists, creates, applies and deletes through the mount", needs=["qemu-img"])
def snapshots(env):
    image = env.qcow2("a.qcow2", "8M")
    for disk in ways(env, image, "qcow2"):
        equal(well("snapshot", "-l", disk), "", "no snapshots")
        pwrite(disk, 0, b"first")
        well("snapshot", "-c", "mon", disk)
        pwrite(disk, 0, b"later")
        well("snapshot", "-c", "tue", disk)
        listed = without_dates(well("snapshot", disk))
        equal(listed, without_dates(run("qemu-img", "snapshot", "-U", "-l", image).stdout), "-l")
        well("snapshot", "-a", "mon", disk)
        equal(pread(disk, 0, 5), b"first", "after -a")
        well("snapshot", "-a", "2", disk)
        equal(pread(disk, 0, 5), b"later", "after -a by id")
        for words, wanted in ((("-d", "none"), "'none'"), (("-a", "none"), "'none'"),
                              (("-c", "a/b"), ""), (("-c", "mon"), "already")):
            done = bgfs("snapshot", *words, disk)
            equal(done.returncode, 1, f"exit status of {words}")
            check(done.stderr.startswith("bgfs snapshot: "), done.stderr)
            contains(done.stderr, wanted, "standard error")
        well("snapshot", "-d", "snapshot.id=1", disk)
        well("snapshot", "-d", "tue", disk)
        equal(well("snapshot", "-l", disk), "", "what is left")
        with open(disk):
            well("snapshot", "-c", "x", disk)
            done = bgfs("snapshot", "-a", "x", disk)
            equal(done.returncode, 1, "-a while it is open")
            contains(done.stderr, f"while process {os.getpid()} ", "standard error")
        well("snapshot", "-d", "x", disk)
    qemu_check(image)


@case("bgfs snapshot --rename does what mv does", needs=["qemu-img"])
def renamed(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount(env.simple(image, "qcow2"))
    disk = m / "disk"
    for name in ("mon", "tue"):
        well("snapshot", "-c", name, disk)
    well("snapshot", "--rename", "mon", "--to", "first", disk)
    equal(sorted(os.listdir(m / "disk.d/snapshots")), ["first", "tue"], "after it")
    contains(run("qemu-img", "snapshot", "-U", "-l", image).stdout, "first", "the image")
    for words, wanted in ((("none", "--to", "x"), "there is no snapshot 'none'"),
                          (("first", "--to", "tue"), "tue' is there already"),
                          (("first", "--to", "a/b"), "is no name for a snapshot")):
        done = bgfs("snapshot", "--rename", *words, disk)
        equal((done.returncode, done.stdout), (1, ""), f"{words}: {done.stderr}")
        contains(done.stderr, wanted, f"{words}")
    done = bgfs("snapshot", "--rename", "first", "--to", "x", m.path)
    equal(done.returncode, 1, "of all roots")
    contains(done.stderr, f"'bgfs snapshot --rename first --to x {m.path}/ROOT'", "what to do")
    m.umount()
    m = env.mount_file(env.simple(image, "qcow2"))
    done = bgfs("snapshot", "--rename", "first", "--to", "x", m.path)
    equal(done.returncode, 1, "without a directory")
    contains(done.stderr, "is alone, without its control directory", "why")
    m.umount()


@case("bgfs get and set are every control file as a command", needs=["qemu-img"])
def get_and_set(env):
    image = env.qcow2("a.qcow2", "8M")
    for disk in ways(env, image, "qcow2"):
        equal(well("get", disk, "size"), f"{8 * MiB}\n", "size")
        equal(well("get", disk, "state"), "ok\n", "state")
        contains(well("get", disk, "nodes/"), "top", "a directory")
        well("snapshot", "-c", "mon", disk)
        equal(well("get", disk, "snapshots/mon/hold"), "0\n", "not held")
        well("set", disk, "snapshots/mon/hold", "1")
        done = bgfs("snapshot", "-d", "mon", disk)
        equal(done.returncode, 1, "held")
        contains(done.stderr, "hold", "held")
        done = bgfs("set", disk, "snapshots/mon/hold", "2")
        equal((done.returncode, done.stdout), (32, ""), done.stderr)
        contains(done.stderr, "bgfs set: ", "refused")
        well("set", disk, "snapshots/mon/hold", "0")
        well("snapshot", "-d", "mon", disk)
        for words, status, wanted in (((disk,), 1, "a place and a name are expected"),
                                      ((disk, "sise"), 32, "; did you mean 'size'?"),
                                      ((disk, "snapshots/mon/hole"), 32, "hole"),
                                      ((disk, "nodes/top/option.json"), 32, "; did you mean 'options.json'?"),
                                      ((image, "size"), 1, "is no mount of bgfs")):
            done = bgfs("get", *words)
            equal((done.returncode, done.stdout), (status, ""), f"{words}: {done.stderr}")
            contains(done.stderr, wanted, f"{words}")
        done = bgfs("set", disk, "size")
        equal(done.returncode, 1, done.stderr)
        contains(done.stderr, "a place, a name and a value are expected", "without a value")
    m = env.mount(env.simple(image, "qcow2"))
    equal(well("get", m.path, "exports"), "disk\n", "of the mount")
    well("set", m.path, "log-level", "debug")
    contains(bgfs("set", m.path, "log_level", "debug").stderr, "; did you mean 'log-level'?", "misspelt")
    contains(well("get", m.path, "log-level"), "debug", "log-level")
    equal(well("get", m / "disk", "snapshots"), "", "an empty directory")
    contains(well("get", m / "disk", "nodes"), "top", "a directory by its name")
    m.umount()


@case("bgfs snapshot on the directory of a mount is about all of its roots", needs=["qemu-img"])
def group_snapshots(env):
    images = {name: env.qcow2(f"{name}.qcow2", "8M") for name in ("a", "b")}
    nodes = [{"node-name": n, "driver": "qcow2", "file": {"driver": "file", "filename": str(i)}}
             for n, i in images.items()]
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n, "writable": True} for n in images]))
    equal(well("snapshot", "-l", m.path), "", "no snapshots")
    well("snapshot", "-c", "mon", m.path)
    well("snapshot", "-c", "only-a", m / "a")
    well("snapshot", "-c", "tue", m.path)
    equal(well("snapshot", m.path), "mon\ntue\n", "-l")
    for image in images.values():
        contains(run("qemu-img", "snapshot", "-U", "-l", image).stdout, "mon", str(image))
    well("snapshot", "-d", "mon", m.path)
    equal(sorted(os.listdir(m / "a.d/snapshots")), ["only-a", "tue"], "a")
    equal(os.listdir(m / "b.d/snapshots"), ["tue"], "b")
    for words, wanted in ((("-a", "tue"), f"bgfs snapshot -a tue {m.path}/ROOT"),
                          (("-d", "only-a"), "only-a"), (("-c", "x/../y"), "'x/../y'"),
                          (("-c", "tue"), "already")):
        done = bgfs("snapshot", *words, m.path)
        equal(done.returncode, 1, f"status of {words}")
        contains(done.stderr, wanted, f"{words}")
    m.umount()
    done = bgfs("snapshot", "-l", m.path)
    equal(done.returncode, 1, "status where there is no mount")
    contains(done.stderr, str(m.path), "no mount")


@case("snapshots with odd names, two of one name, are found by name and id", needs=["qemu-img"])
def odd_names(env):
    image = env.qcow2("a.qcow2", "8M")
    for name in ("twin", "twin", "a/b", "50%", "new\nline"):
        run("qemu-img", "snapshot", "-c", name, image)
    m = env.mount(env.simple(image, "qcow2"))
    for which in ("snapshot.id=2", "a/b", "50%", "new\nline", "twin"):
        well("snapshot", "-d", which, m / "disk")
    equal(well("snapshot", "-l", m / "disk"), "", "what is left")
    m.umount()


@case("bgfs bitmap acts through the mount, and says what is not kept", needs=["qemu-img"],
      unpassed=True)
def bitmaps(env):
    image = env.qcow2("a.qcow2", "8M")
    for disk in ways(env, image, "qcow2"):
        well("bitmap", "--add", "-g", "32K", disk, "one")
        well("bitmap", "--add", "--disable", disk, "two")
        pwrite(disk, 0, b"dirty")
        control = control_of(disk)
        equal([control(f"bitmaps/{b}/{k}") for b in ("one", "two")
               for k in ("granularity", "enabled", "count")],
              ["32768", "1", "32768", "65536", "0", "0"], "granularity, enabled, count")
        well("bitmap", "--merge", "one", disk, "two")
        equal(control("bitmaps/two/count"), "65536", "after --merge")
        well("bitmap", "--enable", "--clear", disk, "two")
        equal([control(f"bitmaps/two/{k}") for k in ("enabled", "count")], ["1", "0"], "after both")
        for words, wanted in ((("--add", disk, "one"), "already"),
                              (("--remove", disk, "none"), "none"),
                              (("--merge", "none", disk, "one"), "none"),
                              (("--merge", "x", "-b", image, disk, "one"), "-b is not for"),
                              (("--add", "-g", "3", disk, "bad"), "")):
            done = bgfs("bitmap", *words)
            equal(done.returncode, 1, f"exit status of {words}")
            contains(done.stderr, wanted, "standard error")
        done = bgfs("bitmap", "--clear", "--merge", "none", disk, "one")
        equal(done.returncode, 1, "exit status when the second fails")
        contains(done.stderr, "the first 1 of 2 actions were carried out", "standard error")
        well("bitmap", "--remove", disk, "one")
        well("bitmap", "--remove-all", disk)
        equal(control("bitmaps/"), "", "what is left")
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    done = bgfs("bitmap", "--add", m / "disk", "b")
    equal(done.returncode, 0, "of a raw image")
    contains(done.stderr, "bitmap 'b' is not kept in the image", "standard error")
    m.umount()


@case("a name that is a way to somewhere else, or to nothing, is refused", needs=["qemu-img"],
      unpassed=True)
def names(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", MiB), "qcow2"))

    def there():
        return {kind: sorted(os.listdir(m / f"disk.d/{kind}"))
                for kind in ("snapshots", "bitmaps", "points")}

    os.mkdir(m / "disk.d/bitmaps/known")
    before = there()
    for name in ("../bitmaps/x", "../snapshots/x", "a/b", "", ".", ".."):
        for kind, words in (("snapshot", ("snapshot", "-c", name, m / "disk")),
                            ("bitmap", ("bitmap", "--add", m / "disk", name)),
                            ("point", ("point", "add", m / "disk", name)),
                            ("point", ("point", "remove", m / "disk", name)),
                            ("point", ("point", "add", m.path, name))):
            done = bgfs(*words)
            check(done.returncode != 0, words, "is refused")
            contains(done.stderr, f"'{name}' is no name for a {kind}: a name is not empty, has no "
                     "'/', and is not '.' or '..'", f"{words}")
    for action in ("--remove", "--clear", "--enable", "--disable"):
        done = bgfs("bitmap", action, m / "disk", "nosuch")
        check(done.returncode != 0, action, "is refused")
        contains(done.stderr, "there is no bitmap 'nosuch'; there are known", action)
    equal(there(), before, "nothing was made or removed")
    run("rmdir", m / "disk.d/bitmaps/known")
    contains(bgfs("bitmap", "--clear", m / "disk", "nosuch").stderr,
             "there is no bitmap 'nosuch', and no other one", "of none")


@case("bgfs info and map print of a raw file what they print of its image", needs=["qemu-img"])
def info_and_map(env):
    base = env.qcow2("base.qcow2", "8M")
    run("qemu-io", "-c", "write -P 1 1M 1M", base)
    image = env.qcow2("a.qcow2", None, backing=base)
    run("qemu-io", "-c", "write -P 2 0 64k", image)
    node = {"backing": {"driver": "qcow2", "read-only": True,
                        "file": {"driver": "file", "filename": str(base)}}}
    verbs = (("info", "--output=json"), ("info",), ("info", "--backing-chain", "--output=json"),
             ("info", "--backing-chain"), ("map",), ("map", "--output=json"))

    def shown(name):
        texts = []
        for verb in verbs:
            text = well(*verb, name)
            if "--output=json" in verb:
                found = json.loads(text)
                for layer in found if isinstance(found, list) else [found]:
                    for key in ("actual-size", "dirty-flag", "children"):
                        layer.pop(key, None)
                text = json.dumps(found, sort_keys=True)
            texts.append("\n".join(l for l in text.splitlines() if "disk size" not in l))
        return texts

    wanted = shown(image)
    graph = env.simple(image, "qcow2", node=node)
    m = env.mount(graph)
    bound = env.file("bound.img", "")
    run("mount", "--bind", m / "disk", bound)
    for disk in (m / "disk", bound):
        for verb, found, expected in zip(verbs, shown(disk), wanted):
            equal(found, expected, f"{verb} of {disk}")
    for words, sentence in ((("info", "--limits"), "--limits is not for"),
                            (("map", "-s", "1M"), "-s and -l are not for")):
        done = bgfs(*words, m / "disk")
        equal(done.returncode, 1, f"exit status of {words}")
        contains(done.stderr, sentence, "standard error")
    # With a format it is a file like any other.
    contains(well("info", "-f", "raw", m / "disk"), "file format: raw", "info -f raw")
    equal(json.loads(well("map", "-f", "raw", "--output=json", m / "disk"))[0]["depth"], 0, "map")
    run("umount", bound)
    m.umount()


@case("bgfs check looks through an image that is in use, and leaves what it found in last-check",
      needs=["qemu-img"])
def checked(env):
    image = env.qcow2("a.qcow2", "8M")
    run("qemu-io", "-c", "write -P 1 0 1M", image)
    for disk in ways(env, image, "qcow2"):
        done = bgfs("check", disk)
        equal((done.returncode, done.stderr), (0, ""), "a sound image")
        contains(done.stdout, "No errors were found on the image.", "standard output")
        found = json.loads(well("check", "--output=json", disk))
        wanted = json.loads(run("qemu-img", "check", "-U", "--output=json", image).stdout)
        equal({k: found[k] for k in wanted if k != "filename"},
              {k: wanted[k] for k in wanted if k != "filename"}, "as the peer says")
        equal(bgfs("check", "-q", disk).stdout, "", "-q")
    m = env.mount(env.simple(image, "qcow2"))
    equal(m.read("disk.d/last-check"), "never: write 'check' to ctl\n", "last-check at first")
    equal(m.read("disk.d/last-check.json"), "{}\n", "last-check.json at first")
    m.command("disk.d/ctl", "check")
    contains(m.read("disk.d/last-check"), "No errors were found on the image.", "last-check")
    for text, sentence in (("check everything", "write 'check' or 'check repair=leaks', not 'check everything'"),
                           ("check repair=all", "unmount it and run 'bgfs check -r all'")):
        found = m.refusal("disk.d/ctl", text)
        contains(found[1], sentence, text)
    equal(bgfs("check", "-r", "all", m / "disk").returncode, 1, "-r all")
    m.umount()
    # A cluster that nobody uses, and one that is used and not counted.
    os.truncate(image, 120 * 65536)
    with open(image, "r+b") as f:
        f.seek(48)
        table = int.from_bytes(f.read(8), "big")
        f.seek(table)
        block = int.from_bytes(f.read(8), "big")
        f.seek(block + 2 * 100)
        f.write(b"\0\1")
    m = env.mount(env.simple(image, "qcow2"))
    done = bgfs("check", m / "disk")
    equal(done.returncode, 3, "a leak")
    contains(done.stderr, "Leaked cluster 100", "standard error")
    contains(done.stdout, "1 leaked clusters were found", "standard output")
    contains(m.read("disk.d/last-check"), "Leaked cluster 100", "last-check")
    equal(json.loads(m.read("disk.d/last-check.json"))["leaks"], 1, "last-check.json")
    m.umount()
    m = env.mount(env.simple(image, "qcow2", writable=False))
    contains(m.refusal("disk.d/ctl", "check repair=leaks")[1], "is exported read-only")
    m.umount()
    m = env.mount(env.simple(image, "qcow2"))
    done = bgfs("check", "-r", "leaks", m / "disk")
    equal(done.returncode, 0, f"repair ({done.stderr})")
    contains(done.stdout, "    1 leaked clusters\n    0 corruptions\n", "standard output")
    pwrite(m / "disk", 4 * MiB, pattern(2 * MiB))  # takes the cluster
    equal(pread(m / "disk", 4 * MiB, 2 * MiB) == pattern(2 * MiB), True, "what was written")
    equal(pread(m / "disk", 0, MiB), b"\1" * MiB, "what was there")
    equal(bgfs("check", m / "disk").returncode, 0, "afterwards")
    m.umount()
    qemu_check(image)
    m = env.mount(env.simple(env.raw("a.raw", MiB)))
    equal(bgfs("check", m / "disk").returncode, 63, "a format without checks")
    m.umount()


@case("a check beside writers finds nothing and mixes nothing", needs=["qemu-img"], timeout=200)
def checked_under_load(env):
    image = env.qcow2("a.qcow2", "256M")
    m = env.mount(env.simple(image, "qcow2"))
    writer = subprocess.Popen(
        ["python3", "-c", "import os, sys\n"
         "fd = os.open(sys.argv[1], os.O_RDWR)\n"
         "for i in range(0, 256 << 20, 64 << 10):\n"
         "    os.pwrite(fd, ((b'%09d' % i) * 7000)[:65536], i)\n", str(m / "disk")])
    env.others.append(writer)
    count = 0
    while writer.poll() is None or count < 3:
        done = bgfs("check", m / "disk")
        check(done.returncode in (0, 3), f"status {done.returncode}: {done.stderr}")
        count += 1
    equal(writer.wait(), 0, "the writer")
    equal(bgfs("check", m / "disk").returncode, 0, "at the end")
    for i in range(0, 256 * MiB, 5 * MiB):
        equal(pread(m / "disk", i, 9), b"%09d" % i, f"at {i}")
    m.umount()
    qemu_check(image)


@case("leaks are given back again and again while others write", needs=["qemu-img"], timeout=200)
def repaired_under_load(env):
    image = env.qcow2("a.qcow2", "128M")
    run("qemu-io", "-c", "write -P 1 0 1M", image)
    os.truncate(image, 2200 * 65536)
    with open(image, "r+b") as f:  # 200 clusters that nobody uses
        f.seek(48)
        f.seek(int.from_bytes(f.read(8), "big"))
        block = int.from_bytes(f.read(8), "big")
        f.seek(block + 2 * 1000)
        f.write(b"\0\1" * 200)
    m = env.mount(env.simple(image, "qcow2"))
    writer = subprocess.Popen(
        ["python3", "-c", "import os, sys\n"
         "fd = os.open(sys.argv[1], os.O_RDWR)\n"
         "for turn in range(3):\n"
         "    for i in range(0, 128 << 20, 64 << 10):\n"
         "        os.pwrite(fd, (b'%d %09d' % (turn, i)) * 5957, i)\n"
         "    if turn < 2:\n"
         "        os.system('fallocate -p -o 0 -l 134217728 ' + sys.argv[1])\n", str(m / "disk")])
    env.others.append(writer)
    fixed = 0
    while writer.poll() is None:
        done = bgfs("check", "-r", "leaks", "--output=json", m / "disk")
        check(done.returncode in (0, 3), f"status {done.returncode}: {done.stderr}")
        fixed += json.loads(done.stdout).get("leaks-fixed", 0)
    equal(writer.wait(), 0, "the writer")
    check(fixed >= 200, f"only {fixed} leaks were repaired")
    for i in range(0, 128 * MiB, 64 * KiB):
        equal(pread(m / "disk", i, 11), b"2 %09d" % i, f"at {i}")
    m.umount()
    qemu_check(image)


@case("who names an image that is mounted is told which raw file to name", needs=["qemu-img"])
def locked(env):
    image = env.qcow2("a.qcow2", "8M")
    m = env.mount(env.simple(image, "qcow2"))
    for words in (("snapshot", "-c", "x"), ("info",), ("check",), ("map",)):
        done = bgfs(*words, image)
        equal(done.returncode, 1, f"exit status of {words}")
        contains(done.stderr, f"; a mount shows it as '{m / 'disk'}': name that file instead",
                 f"standard error of {words}")
    m.umount()
    m = env.mount_file(env.simple(image, "qcow2"))
    contains(bgfs("info", image).stderr, f"a mount shows it as '{m.path}'", "a mount of one file")
    m.umount()
    equal(bgfs("info", image).returncode, 0, "after umount")


@case("a raw file that cannot be commanded says so")
def no_control(env):
    m = env.mount(env.simple(env.raw("a.raw", MiB), control="none"))
    done = bgfs("info", m / "disk")
    equal(done.returncode, 1, "exit status")
    contains(done.stderr, "whose export has 'control: none'", "standard error")
    contains(well("info", "-f", "raw", m / "disk"), "file format: raw", "with -f")
    m.umount()


@case("bgfs point adds, lists and removes points of one root and of all", unpassed=True)
def points(env):
    image, other = env.raw("a.raw", MiB, b"before"), env.raw("b.raw", MiB)
    nodes = [{"node-name": n, "driver": "raw", "file": {"driver": "file", "filename": str(f)}}
             for n, f in (("a", image), ("b", other))]
    m = env.mount(env.graph(nodes, [{"name": n, "node-name": n, "writable": True} for n in "ab"]))
    well("point", "add", m / "a", "mon")
    pwrite(m / "a", 0, b"after!")
    equal(pread(m / "a.d/points/mon/disk", 0, 6), b"before", "the point")
    equal(well("point", "list", m / "a"), "mon: ok\n", "list")
    equal(well("point", "list", m / "b"), "", "list of the other root")
    well("point", "add", m.path, "all")
    equal(well("point", "list", m.path), "all\nmon\n", "list of all roots")
    equal(well("point", "list", m / "b"), "all: ok\n", "list of the other root")
    done = bgfs("point", "add", m / "a", "mon")
    equal(done.returncode, 32, "one that is there")
    contains(done.stderr, "mon", "standard error")
    well("point", "remove", m.path, "all")
    well("point", "remove", m / "a", "mon")
    for words, wanted in (((), "'add', 'remove' or 'list' is expected"),
                          (("ad", m.path), "did you mean 'add'?"),
                          (("add", m.path), "and a name are expected"),
                          (("list",), "a raw file or a directory is expected"),
                          (("list", env.dir), "is no mount of bgfs")):
        done = bgfs("point", *words)
        equal(done.returncode, 1, f"exit status of {words}")
        contains(done.stderr, wanted, "standard error")
    equal(bgfs("point", "remove", m / "a", "none").returncode, 32, "one that is not there")
    m.umount()
    m = env.mount_file(env.simple(image))
    well("point", "add", m.path, "mon")
    equal(well("point", "list", m.path), "mon: ok\n", "of a mount of one file")
    well("point", "remove", m.path, "mon")
    m.umount()


@case("bgfs resize makes a mounted disk longer and shorter", needs=["qemu-img"], unpassed=True)
def resized(env):
    for fmt in ("raw", "qcow2"):
        image = env.raw("a.raw", MiB) if fmt == "raw" else env.qcow2("a.qcow2", "1M")
        for disk in ways(env, image, fmt):
            for words, length in ((("2M",), 2), (("+1M",), 3), (("--shrink", "-2M"), 1)):
                equal(well("resize", *words[:-1], disk, words[-1]), "Image resized.\n", "its answer")
                equal(os.stat(disk).st_size, length * MiB, f"after {words}")
            pwrite(disk, MiB - 4, b"tail")
            for words, sentence in ((("512k",), "use the --shrink option"), (("-1M",), "be positive"),
                                    (("--preallocation=full", "2M"), "use fallocate(1) on it")):
                done = bgfs("resize", *words[:-1], disk, words[-1])
                equal((done.returncode, done.stdout), (1, ""), f"{words} is refused")
                contains(done.stderr, sentence, "why")
            equal(pread(disk, MiB - 4, 8), b"tail", "what is at the end")


@case("bgfs flush, retry and backing do what ctl does", needs=["qemu-img"])
def verbs_of_roots(env):
    for name, byte in (("one", 1), ("two", 2)):
        run("qemu-io", "-c", f"write -P {byte} 0 1M", env.qcow2(f"{name}.qcow2", "4M"))
    env.qcow2("web.qcow2", "4M")
    nodes = [{"node-name": n, "driver": "qcow2", "file": {"driver": "file", "filename": str(env / f"{n}.qcow2")}}
             for n in ("one", "two", "web", "late")]
    nodes[2]["backing"] = "one"
    exports = [{"name": n, "node-name": n, "writable": n == "web"} for n in ("web", "late")]
    m = env.mount(env.graph(nodes, exports))
    web, late = m / "web", m / "late"
    equal(pread(web, 0, 1), b"\1", "before")
    pwrite(web, MiB, b"new")
    equal(well("flush", web), "", "flush")
    equal(well("backing", web, "web", "two"), "", "backing")
    equal((pread(web, 0, 1), pread(web, MiB, 3)), (b"\2", b"new"), "after")
    for words, status, saying in (
            (("backing", web, "web", "three"), 32, "there is no node 'three'"),
            (("backing", web, "web"), 1, "the raw file of a root and the names of two nodes are expected"),
            (("flush",), 1, "the raw file of a root is expected"),
            (("flush", env / "one.qcow2"), 1, "is not the raw file of a root of a mount"),
            (("flush", env / "none"), 1, "is not the raw file of a root of a mount"),
            (("retry", late), 32, "late.qcow2"),
            (("retry", web), 32, "retry")):
        done = bgfs(*words)
        equal((done.returncode, done.stdout), (status, ""), f"{words}: {done.stderr}")
        contains(done.stderr, saying, f"{words}")
    env.qcow2("late.qcow2", "1M")
    equal(well("retry", late), "", "retry")
    equal(os.stat(late).st_size, MiB, "the root that had failed")
    equal(well("backing", web, "web", "none"), "", "no backing node")
    equal(pread(web, 0, 1), b"\0", "without one")
    m.umount()
