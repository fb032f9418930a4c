# SPDX-License-Identifier: MIT
""".bgfs/jobs: long work that goes on while everything is served."""
import contextlib
import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading

from commits import chain
from mount_suite import *  # noqa: F403

SIZE = 16 * MiB
READ = ["type", "state", "done", "total", "progress", "error"]
TRIGGERS = ["cancel", "pause", "resume", "complete", "dismiss"]
JOB = ".bgfs/jobs/commit-disk"
# A slice of it is over at once and the next one is long in coming, so that it can be looked at.
SLOWLY = "commit wait=no speed=64K"


def bgfs(*words, **options):
    return run(BGFS, *words, ok=False, **options)


def jobs(m):
    return sorted(os.listdir(m / ".bgfs/jobs"))


def has_begun(m):
    try:
        return m.read(f"{JOB}/state") != "created\n"
    except OSError:
        return True  # and is over


def begun(env, command=SLOWLY, length=8 * MiB, **more):
    """A mount of a chain whose overlay holds something, while it is committed; and the content."""
    m = env.mount(chain(env, **more))
    pwrite(m / "disk", 0, pattern(length, seed=5))
    content = bytearray(pread(m / "disk", 0, SIZE))
    m.command("disk.d/ctl", command)
    wait_for(lambda: has_begun(m), "the job to begin")
    return m, content


def cancel(m, job=JOB):
    m.command(f"{job}/cancel", "1\n")


def events_of(m, *names):
    return [e for e in map(json.loads, m.read(".bgfs/events").splitlines()) if e["event"] in names]


def statuses(m, job="commit-disk"):
    return [e["data"]["status"] for e in events_of(m, "JOB_STATUS_CHANGE") if e["data"]["id"] == job]


def images_are_sound(env, content, base=None):
    """After the mount: both images are whole, the chain reads as wanted, and the base, if asked."""
    for name in ("base.qcow2", "top.qcow2"):
        qemu_check(env / name)
    for name, wanted in (("top.qcow2", content), ("base.qcow2", base)):
        if wanted is None:
            continue
        run("qemu-img", "convert", "-O", "raw", env / name, env / "raw")
        equal((env / "raw").read_bytes() == bytes(wanted), True, f"what {name} reads as")


@case("a job is a directory of one value a file, which is gone when the job is over",
      needs=["qemu-img", "qemu-io"])
def directory(env):
    m = env.mount(chain(env))
    equal(jobs(m), [], "jobs before")
    m.umount()
    m, content = begun(env)
    equal(jobs(m), ["commit-disk"], "jobs")
    equal(sorted(os.listdir(m / JOB)), sorted([*READ, *TRIGGERS, "speed"]), "files")
    for name in READ:
        equal(stat.S_IMODE(os.stat(m / JOB / name).st_mode), 0o444, f"mode of {name}")
    for name in TRIGGERS:
        equal(stat.S_IMODE(os.stat(m / JOB / name).st_mode), 0o200, f"mode of {name}")
    equal(stat.S_IMODE(os.stat(m / JOB / "speed").st_mode), 0o644, "mode of speed")
    check(stat.S_ISDIR(os.stat(m / JOB).st_mode), "it is no directory")
    equal(m.read(f"{JOB}/type"), "commit\n", "type")
    equal(m.read(f"{JOB}/state"), "running\n", "state")
    equal(m.read(f"{JOB}/speed"), "65536\n", "speed")
    equal(m.read(f"{JOB}/error"), "", "error")
    wait_for(lambda: int(m.read(f"{JOB}/done")) > 0, "some progress")
    done, total = int(m.read(f"{JOB}/done")), int(m.read(f"{JOB}/total"))
    check(0 < done < total and total >= SIZE, f"{done} of {total}")
    percent = m.read(f"{JOB}/progress")
    check(percent.endswith("\n") and 0 < float(percent) < 100, f"progress {percent!r}")
    state = os.open(m / JOB / "state", os.O_RDONLY)
    pause = os.open(m / JOB / "pause", os.O_WRONLY)
    cancel(m)
    equal(jobs(m), [], "jobs afterwards")
    for name in (JOB, f"{JOB}/state"):
        with fails_with(errno.ENOENT):
            os.stat(m / name)
    equal(os.read(state, 100), b"running\n", "what was open reads as it was then")
    with fails_with(errno.ENOENT):
        os.write(pause, b"1")
    os.close(state)
    os.close(pause)
    equal(statuses(m), ["created"] * 0 + ["running", "aborting", "concluded", "null"], "statuses")
    equal(len(events_of(m, "BLOCK_JOB_CANCELLED")), 1, "BLOCK_JOB_CANCELLED")
    m.umount()
    images_are_sound(env, content)


@case("a job is paused, resumed, given another speed, and refuses what it cannot do with a sentence",
      needs=["qemu-img", "qemu-io"])
def verbs(env):
    m, content = begun(env)

    def refuse(name, text, number, sentence):
        found = m.refusal(f"{JOB}/{name}", text)
        equal(found[0], number, f"errno of {text!r} to {name} ({found[1]!r})")
        contains(found[1], sentence, "the sentence")
        contains(m.read(".bgfs/last-error").splitlines()[-1], sentence, "last-error")

    for name in TRIGGERS:
        refuse(name, "yes", errno.EINVAL, f"write 1 to {name} the job, not 'yes'")
    for text in ("fast", "-1", "-20M", " "):
        refuse("speed", text, errno.EINVAL, f"'{text}' is no speed: write bytes a second")
    refuse("resume", "1", errno.EINVAL, "was not paused, and cannot be resumed")
    refuse("complete", "1", errno.EOPNOTSUPP, "completes by itself")
    refuse("dismiss", "1", errno.EBUSY, "cancel it, or wait until it is concluded")
    m.command(f"{JOB}/pause", "1\n")
    equal(m.read(f"{JOB}/state"), "paused\n", "state")
    done = m.read(f"{JOB}/done")
    refuse("pause", "1", errno.EINVAL, "is paused already")
    refuse("dismiss", "1", errno.EBUSY, "is paused and cannot be dismissed now")
    m.command(f"{JOB}/speed", "0")  # it stays where it is
    pwrite(m / "disk", 12 * MiB, b"while it is paused")
    content[12 * MiB:12 * MiB + 18] = b"while it is paused"
    equal(m.read(f"{JOB}/done"), done, "done while it is paused")
    equal(m.read(f"{JOB}/speed"), "0\n", "speed")
    m.command(f"{JOB}/speed", "1G\n")
    equal(m.read(f"{JOB}/speed"), f"{GiB}\n", "speed")
    m.command(f"{JOB}/resume", "1\n")
    wait_for(lambda: jobs(m) == [], "the end of the commit")
    equal(statuses(m)[-1], "null", "the last status")
    done = events_of(m, "BLOCK_JOB_COMPLETED")
    equal(len(done), 1, "BLOCK_JOB_COMPLETED")
    check("error" not in done[0]["data"], done)
    equal(done[0]["data"]["device"], "commit-disk", "device")
    equal(done[0]["data"]["len"], done[0]["data"]["offset"], "offset")
    equal(pread(m / "disk", 0, SIZE) == bytes(content), True, "the disk")
    equal([e["present"] for e in json.loads(m.read("disk.d/layers/0/map.json"))], [False],
          "the map of the overlay")
    m.umount()
    images_are_sound(env, content, base=content)


class Guest(threading.Thread):
    """Writes small blocks all over the disk, and knows what it has written."""

    def __init__(self, path, content, seed=1):
        super().__init__()
        self.path, self.content, self.random = path, content, random.Random(seed)
        self.is_over, self.failure, self.count = threading.Event(), None, 0
        self.size = len(content)
        self.start()

    def run(self):
        try:
            fd = os.open(self.path, os.O_RDWR)
            while not self.is_over.is_set():
                at = self.random.randrange(self.size // 512 - 64) * 512
                block = self.random.randbytes(512 * self.random.randrange(1, 64))
                equal(os.pwrite(fd, block, at), len(block), "a write of the guest")
                self.content[at:at + len(block)] = block
                self.count += 1
            os.close(fd)
        except BaseException as e:  # noqa: B902
            self.failure = e

    def writes_some(self):
        """Waits until it has written twenty blocks more."""
        before = self.count
        wait_for(lambda: self.count > before + 20 or self.failure, "the guest")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.is_over.set()
        self.join()
        if self.failure and kind is None:
            raise Failure(f"the guest failed: {self.failure}")


@case("commits that begin, end and are cancelled while a guest writes lose nothing",
      needs=["qemu-img", "qemu-io"], timeout=300)
def under_a_guest(env):
    for thread in ({}, {"iothread": "t"}):
        m = env.mount(chain(env, export=thread))
        content = bytearray(pread(m / "disk", 0, SIZE))
        rng = random.Random(7)
        with Guest(m / "disk", content) as guest:
            for _ in range(12):
                m.command("disk.d/ctl", "commit")
                guest.writes_some()  # so that the next one is long
                m.command("disk.d/ctl", SLOWLY)
                for _ in range(rng.randrange(4)):
                    m.refusal(f"{JOB}/{rng.choice(['pause', 'resume'])}", "1")
                check(JOB.split("/")[-1] in jobs(m), "the job has gone by itself")
                cancel(m)
        equal(pread(m / "disk", 0, SIZE) == bytes(content), True, "the disk")
        m.command("disk.d/ctl", "commit")
        m.umount()
        images_are_sound(env, content, base=content)


@case("who looks at a root of another thread while commits begin and end is in nobody's way",
      needs=["qemu-img", "qemu-io"], timeout=300)
def under_looks(env):
    """The races are for the thread sanitizer to see."""
    m = env.mount(chain(env, export={"iothread": "t"}))
    os.mkdir(m / "disk.d/bitmaps/b")
    os.mkdir(m / "disk.d/snapshots/s")
    failed = []
    stop = threading.Event()

    def commit():
        number, sentence = m.refusal("disk.d/ctl", "commit")
        check(number == 0 or "already; wait for it" in sentence, sentence)

    def look():
        seen = 0
        while not stop.is_set():
            equal(set(os.listdir(m / "disk.d/bitmaps")) - {"#commit"}, {"b"}, "bitmaps")
            equal(os.listdir(m / "disk.d/snapshots"), ["s"], "snapshots")
            equal(len(pread(m / "disk", 0, 4096)), 4096, "a read")  # opened each time
            contains(m.read("disk.d/info"), "qcow2", "info")
            for node in os.listdir(m / "disk.d/nodes"):
                m.read(f"disk.d/nodes/{node}/permissions")
                m.read(f"disk.d/nodes/{node}/options.json")
            commit()
            seen += 1
        check(seen > 0, "nobody looked")

    def looking():
        try:
            look()
        except Exception as e:
            failed.append(e)

    watching = [threading.Thread(target=looking) for _ in range(2)]
    for t in watching:
        t.start()
    try:
        for i in range(40):
            pwrite(m / "disk", i % 16 * MiB, pattern(64 * KiB, seed=i))
            commit()
    finally:
        stop.set()
        for t in watching:
            t.join()
    equal(failed, [], "what who looked has seen")
    content = pread(m / "disk", 0, SIZE)
    m.umount()
    images_are_sound(env, content, base=content)


@case("who waits for a commit is told when it is cancelled, and cancels it when interrupted",
      needs=["qemu-img", "qemu-io"])
def waited_for(env):
    m = env.mount(chain(env))
    pwrite(m / "disk", 0, pattern(8 * MiB))
    content = pread(m / "disk", 0, SIZE)
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(m.refusal("disk.d/ctl", "commit speed=64K")))
    waiting.start()
    wait_for(lambda: jobs(m) == ["commit-disk"], "the job")
    cancel(m)
    waiting.join()
    equal(found[0][0], errno.ECANCELED, found[0][1])
    contains(found[0][1], "job 'commit-disk' was cancelled; 'disk' keeps all that it has")
    contains(m.read("disk.d/last-error").splitlines()[-1], "was cancelled", "last-error")
    writer = subprocess.Popen([sys.executable, "-c",
                               "import os, sys\n"
                               "fd = os.open(sys.argv[1], os.O_WRONLY)\n"
                               "os.write(fd, b'commit speed=64K')", m / "disk.d/ctl"])
    wait_for(lambda: jobs(m) == ["commit-disk"], "the job")
    writer.send_signal(signal.SIGTERM)
    writer.wait(20)
    wait_for(lambda: jobs(m) == [], "the end of the job")
    equal(statuses(m)[-1], "null", "status")
    equal(pread(m / "disk", 0, SIZE) == content, True, "the disk")
    m.umount()
    images_are_sound(env, content)


@case("a commit that is completed by hand follows the guest until then",
      needs=["qemu-img", "qemu-io"])
def by_hand(env):
    m, content = begun(env, "commit wait=no complete=manual")
    wait_for(lambda: m.read(f"{JOB}/state") == "ready\n", "it to be ready")
    equal(len(events_of(m, "BLOCK_JOB_READY")), 1, "BLOCK_JOB_READY")
    m.command(f"{JOB}/pause", "1")
    equal(m.read(f"{JOB}/state"), "standby\n", "state")
    number, sentence = m.refusal(f"{JOB}/complete", "1")
    equal(number, errno.EBUSY, sentence)
    contains(sentence, "is standby and cannot be completed now; resume it first")
    m.command(f"{JOB}/resume", "1")
    wait_for(lambda: m.read(f"{JOB}/state") == "ready\n", "it to be ready again")
    pwrite(m / "disk", 9 * MiB, b"late")
    content[9 * MiB:9 * MiB + 4] = b"late"
    m.command(f"{JOB}/complete", "1")
    equal(jobs(m), [], "jobs")
    total = events_of(m, "BLOCK_JOB_COMPLETED")[0]["data"]["len"]
    check(total > SIZE, f"what was written again is not in the total of {total}")
    m.umount()
    images_are_sound(env, content, base=content)


@case("what would pull the chain from under a commit is refused, and says which job is in the way",
      needs=["qemu-img", "qemu-io"])
def in_the_way(env):
    for thread in ({}, {"iothread": "t"}):
        m, content = begun(env, export={"growable": True, **thread})
        os.mkdir(m / "disk.d/bitmaps/free")  # which nothing is wrong with

        def refuse(name, text):
            number, sentence = m.refusal(name, text)
            equal(number, errno.EBUSY, f"errno of {text!r} to {name} ({sentence!r})")
            contains(sentence, "job 'commit-disk'", "the sentence")

        def refuse_directory(name, log):
            with fails_with(errno.EBUSY):
                os.mkdir(m / name)
            contains(m.read(log).splitlines()[-1], "job 'commit-disk'", f"what {name} is told")

        graph = (env / "graph.yaml").read_text()
        for text in (graph.replace('"writable": true', '"writable": true, "mode": "0600"'),
                     graph.replace('"backing": "base"', '"backing": null')):
            check(text != graph, "the graph was not edited")
            (env / "graph.yaml").write_text(text)
            refuse(".bgfs/reload", "1")
            refuse(".bgfs/reload", "force")
            contains(m.read(".bgfs/reload-plan"), "job 'commit-disk'", "reload-plan")
        (env / "graph.yaml").write_text(graph)
        refuse("disk.d/ctl", "commit")
        refuse("disk.d/ctl", "check")
        refuse("disk.d/ctl", "check repair=leaks")
        refuse("disk.d/ctl", "backing top none")
        refuse("disk.d/size", "+1M")
        refuse_directory("disk.d/snapshots/mon", "disk.d/last-error")
        refuse_directory("disk.d/points/mon", "disk.d/last-error")
        refuse_directory(".bgfs/snapshots/mon", ".bgfs/last-error")
        refuse_directory(".bgfs/points/mon", ".bgfs/last-error")
        equal(m.read(f"{JOB}/state"), "running\n", "state")
        cancel(m)
        os.rmdir(m / "disk.d/bitmaps/free")
        os.mkdir(m / "disk.d/snapshots/mon")
        os.rmdir(m / "disk.d/snapshots/mon")
        m.command(".bgfs/reload", "1")
        m.umount()
        images_are_sound(env, content)


@case("a snapshot is not gone back to, renamed or deleted under a commit",
      needs=["qemu-img", "qemu-io"])
def snapshots(env):
    m = env.mount(chain(env))
    os.mkdir(m / "disk.d/snapshots/mon")
    pwrite(m / "disk", 0, pattern(8 * MiB))
    m.command("disk.d/ctl", SLOWLY)
    number, sentence = m.refusal("disk.d/ctl", "revert mon")
    equal(number, errno.EBUSY, sentence)
    contains(sentence, "job 'commit-disk'")
    with fails_with(errno.EBUSY):
        os.rmdir(m / "disk.d/snapshots/mon")
    contains(m.read("disk.d/last-error").splitlines()[-1], "job 'commit-disk'", "last-error")
    cancel(m)
    m.command("disk.d/ctl", "revert mon")
    m.umount()


@case("unmounting ends jobs in good order, whoever waits for them",
      needs=["qemu-img", "qemu-io"])
def unmounted(env):
    m, content = begun(env)
    m.umount()
    images_are_sound(env, content)
    for thread in ({}, {"iothread": "t"}):
        m = env.mount_foreground(chain(env, export=thread))
        found = []
        ctl = os.open(m / "disk.d/ctl", os.O_WRONLY)

        def wait(fd=ctl, found=found):
            try:
                os.write(fd, b"commit speed=64K")
                found.append(0)
            except OSError as e:
                found.append(e.errno)

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_for(lambda: jobs(m) == ["commit-disk"], "the job")
        os.kill(m.pid, signal.SIGTERM)
        equal(m.process.wait(30), 0, "exit status")
        waiting.join()
        equal(found, [errno.ECANCELED], "who waits")
        with contextlib.suppress(OSError):  # its mount is gone: it is closed all the same
            os.close(ctl)
        env.mounts.remove(m)
        images_are_sound(env, content)


@case("a mount that is killed in the middle of a commit has lost nothing",
      needs=["qemu-img", "qemu-io"], timeout=300)
def killed(env):
    content = None
    rng = random.Random(3)
    for turn in range(8):
        m = env.mount_foreground(chain(env), name=f"mnt{turn}")
        if content is not None:
            equal(pread(m / "disk", 0, SIZE) == bytes(content), True, f"the disk in turn {turn}")
        content = bytearray(pread(m / "disk", 0, SIZE))
        pwrite(m / "disk", 0, pattern(8 * MiB, seed=turn))
        content[:8 * MiB] = pattern(8 * MiB, seed=turn)
        m.command("disk.d/ctl", f"commit wait=no speed={rng.choice(['64K', '1M', '2M'])}")
        done = rng.randrange(6 * MiB)

        def has_come_far():
            try:
                return int(m.read(f"{JOB}/done")) > done
            except FileNotFoundError:  # it has ended
                return True

        pwrite(m / "disk", 10 * MiB, b"%08d" % turn)
        content[10 * MiB:10 * MiB + 8] = b"%08d" % turn
        fsync(m / "disk")
        m.command(f"{JOB}/speed", "0")
        wait_for(has_come_far, "some progress")
        m.process.kill()
        m.process.wait(30)
        run("umount", "-l", m.path)
        env.mounts.remove(m)
    m = env.mount(chain(env))
    equal(pread(m / "disk", 0, SIZE) == bytes(content), True, "the disk")
    m.command("disk.d/ctl", "commit")
    m.umount()
    run("qemu-img", "convert", "-O", "raw", env / "base.qcow2", env / "raw")
    equal((env / "raw").read_bytes() == bytes(content), True, "what the base reads as")


@case("a job that fails while nobody waits stays until its reason was read",
      needs=["qemu-img", "qemu-io"])
def failed(env):
    m = env.mount(chain(env))
    pwrite(m / "disk", 0, pattern(MiB))
    content = pread(m / "disk", 0, SIZE)
    reader = env.mount(env / "base.qcow2", name="reader")  # who keeps others from writing to it
    number, sentence = m.refusal("disk.d/ctl", "commit")
    equal(number, errno.EBUSY, sentence)
    equal(jobs(m), [], "who has waited was told")
    m.command("disk.d/ctl", "commit wait=no")
    wait_for(lambda: m.read(f"{JOB}/state") == "concluded\n", "its end")
    contains(m.read(f"{JOB}/error"), "base.qcow2", "error")
    check(m.read(f"{JOB}/error").endswith("\n"), "error has no newline at its end")
    equal(len(events_of(m, "BLOCK_JOB_ERROR")), 2, "BLOCK_JOB_ERROR")
    check("error" in events_of(m, "BLOCK_JOB_COMPLETED")[-1]["data"], "BLOCK_JOB_COMPLETED")
    for name in ("cancel", "pause", "resume"):
        number, sentence = m.refusal(f"{JOB}/{name}", "1")
        equal(number, errno.EBUSY, sentence)
        contains(sentence, "it is over, and can only be dismissed")
    m.command(f"{JOB}/dismiss", "1")
    equal(jobs(m), [], "after it was dismissed")
    m.command("disk.d/ctl", "commit wait=no")
    wait_for(lambda: m.read(f"{JOB}/state") == "concluded\n", "its end")
    reader.umount()
    m.command("disk.d/ctl", "commit")  # takes its place
    equal(jobs(m), [], "after one that went well")
    m.umount()
    images_are_sound(env, content, base=content)


@case("a check is a job, too: it shows how far it is and can be cancelled, not paused",
      needs=["qemu-img", "qemu-io"])
def checked(env):
    image = env.qcow2("big.qcow2", "64G", options="cluster_size=4k")
    run("qemu-io", "-c", "write -P 1 0 512M", image, timeout=100)
    m = env.mount(env.simple(image, "qcow2"))
    m.command("disk.d/ctl", "check")
    equal(statuses(m, "check-disk"), ["running", "pending", "concluded", "null"], "statuses")
    contains(m.read("disk.d/last-check"), "No errors", "last-check")
    m.command("disk.d/ctl", "check wait=no")
    try:
        number, sentence = m.refusal(".bgfs/jobs/check-disk/pause", "1")
    except FileNotFoundError:
        number = errno.ENOENT  # it was over before
    if number != errno.ENOENT:
        equal(number, errno.EOPNOTSUPP, sentence)
        contains(sentence, "a check goes through without a point where it could pause")
    wait_for(lambda: jobs(m) == [], "the end of the check")
    equal(statuses(m, "check-disk").count("null"), 2, "checks that have ended")
    number, sentence = m.refusal("disk.d/ctl", "check later")
    equal(number, errno.EINVAL, sentence)
    m.umount()


@case("a root whose leaks are given back is 'repairing' until that is done", needs=["qemu-img"])
def repairing(env):
    image = env / "big.qcow2"
    bgfs("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "256G")
    with open(image, "r+b") as f:  # what the first L2 table is about is nobody's any more
        f.seek(40)
        l1 = int.from_bytes(f.read(8), "big")
        f.seek(l1)
        f.write(bytes(8))
    m = env.mount(env.simple(image, "qcow2"))
    equal(m.read("disk.d/state"), "ok\n", "before")
    m.command("disk.d/ctl", "check repair=leaks wait=no")
    states = []
    while jobs(m):
        states.append(m.read("disk.d/state"))
    contains(states, "repairing\nspace that nobody uses is given back; requests wait\n", "meanwhile")
    contains(m.read("disk.d/last-check"), "Leaked cluster 4 refcount=1 reference=0", "what was repaired")
    equal(m.read("disk.d/state"), "ok\n", "after")
    m.command("disk.d/ctl", "check wait=no")
    served = 0
    while jobs(m):
        at = served % 256 * GiB  # a slow machine serves more of them than the disk has GiB
        equal(pread(m / "disk", at, 4096), bytes(4096), "a read beside a check")
        served += 1
    check(served > 3, f"{served} reads were served beside a check")
    m.umount()
    contains(run("qemu-img", "check", image).stdout, "No errors were found", "the image")


@case("overlays of external snapshots are merged by a job", needs=["qemu-img"])
def merged(env):
    image = env.raw("a.raw", SIZE)
    (env / "kept").mkdir()
    m = env.mount(env.simple(image, passthrough="off",
                             snapshots={"mode": "external", "directory": str(env / "kept")}))
    os.mkdir(m / "disk.d/snapshots/one")
    pwrite(m / "disk", 0, pattern(4 * MiB))
    os.mkdir(m / "disk.d/snapshots/two")
    pwrite(m / "disk", MiB, pattern(4 * MiB, seed=2))
    content = pread(m / "disk", 0, SIZE)
    os.rmdir(m / "disk.d/snapshots/one")
    equal(statuses(m, "merge-disk"), ["running", "pending", "concluded", "null"], "statuses")
    os.rmdir(m / "disk.d/snapshots/two")
    equal(jobs(m), [], "jobs")
    equal(pread(m / "disk", 0, SIZE) == content, True, "the disk")
    m.umount()


@case("bgfs job shows jobs and tells them what to do", needs=["qemu-img", "qemu-io"])
def command(env):
    def well(*words):
        done = bgfs("job", *words)
        equal((done.returncode, done.stderr), (0, ""), f"bgfs job {words}")
        return done.stdout

    m, content = begun(env)
    lines = well("list", m.path).splitlines()
    equal(lines[0].split(), ["job", "state", "percent", "speed", "error"], "the head")
    equal(lines[1].split()[:2], ["commit-disk", "running"], "the job")
    equal(lines[1].split()[3], "65536", "its speed")
    well("pause", m.path, "commit-disk")
    equal(m.read(f"{JOB}/state"), "paused\n", "state")
    well("speed", m.path, "commit-disk", "1M")
    equal(m.read(f"{JOB}/speed"), f"{MiB}\n", "speed")
    well("resume", m.path, "commit-disk")
    for words, status, sentence in (
            (["resume", m.path, "commit-disk"], 32, "was not paused"),
            (["complete", m.path, "commit-disk"], 32, "completes by itself"),
            (["dismiss", m.path, "commit-disk"], 32, "cannot be dismissed now"),
            (["speed", m.path, "commit-disk", "fast"], 32, "is no speed"),
            (["cancel", m.path, "commit-web"], 32,
             "there is no job 'commit-web'; there are commit-disk"),
            (["cancel", m.path], 1, "the directory of a mount and a job are expected"),
            (["speed", m.path, "commit-disk"], 1, "a job and a rate are expected"),
            (["list"], 1, "the directory of a mount is expected"),
            ([], 1, "one of list, cancel"),
            (["cancle", m.path, "x"], 1, "did you mean 'cancel'"),
            (["list", env.dir], 1, "")):
        done = bgfs("job", *words)
        equal(done.returncode, status, f"exit status of job {words} ({done.stderr})")
        contains(done.stderr, sentence, "standard error")
    well("cancel", m.path, "commit-disk")
    equal(well("list", m.path), "", "afterwards")
    contains(bgfs("job", "cancel", m.path, "commit-disk").stderr,
             "there is no job 'commit-disk', and no other one", "of none")
    done = bgfs("commit", "-r", "100M", m / "disk")
    equal((done.returncode, done.stdout), (0, "Image committed.\n"), f"commit -r ({done.stderr})")
    contains(bgfs("job", "--help").stdout, "bgfs job speed PLACE JOB RATE", "--help")
    m.umount()
    images_are_sound(env, content, base=content)


@case("the owner of a mount commands its jobs, and is told why not, without reading what he writes",
      needs=["qemu-img", "qemu-io", "setpriv"])
def as_owner(env):
    m = env.mount(chain(env))
    pwrite(m / "disk", 0, pattern(8 * MiB))
    m.umount()
    run("chown", "-R", "65534:65534", env.dir)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    m = env.mount(env / "graph.yaml", before=nobody)
    run(*nobody, BGFS, "commit", "--help")
    run(*nobody, "sh", "-c", f"echo '{SLOWLY}' > '{m / 'disk.d/ctl'}'")
    run(*nobody, BGFS, "job", "pause", m.path, "commit-disk")
    done = run(*nobody, BGFS, "job", "pause", m.path, "commit-disk", ok=False)
    equal(done.returncode, 32, "exit status")
    contains(done.stderr, "job 'commit-disk' is paused already", "standard error")
    run(*nobody, BGFS, "job", "cancel", m.path, "commit-disk")
    run(*nobody, BGFS, "umount", m.path)


@case("in a mount of one file the jobs are attributes", needs=["qemu-img", "qemu-io"])
def one_file(env):
    m = env.mount_file(chain(env))
    pwrite(m.path, 0, pattern(8 * MiB))
    m.command("disk.d/ctl", SLOWLY)
    equal(m.read(".bgfs/jobs/"), "commit-disk\n", "jobs")
    wait_for(lambda: m.read(f"{JOB}/state") == "running\n", "the job to run")
    m.command(f"{JOB}/pause", "1")
    equal(m.read(f"{JOB}/state"), "paused\n", "state")
    equal(m.refusal(f"{JOB}/dismiss", "1")[0], errno.EBUSY, "dismiss")
    equal(bgfs("job", "list", m.path).stdout.splitlines()[1].split()[:2],
          ["commit-disk", "paused"], "bgfs job list")
    equal(bgfs("job", "cancel", m.path, "commit-disk").returncode, 0, "bgfs job cancel")
    equal(m.read(".bgfs/jobs/"), "", "jobs afterwards")
    m.umount()
