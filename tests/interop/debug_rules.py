# SPDX-License-Identifier: MIT
"""`blkdebug` beside qemu-io's: the same rules and breakpoints, the same outcome of each command."""
import json
import os
import re
import shutil
import subprocess

from interop import PROGRAM, bgfs, contains, equal, need, qemu_img, qemu_io

TIMES = re.compile(r"(\d+(\.\d+)? \w+, \d+ ops; ).*")
IMAGE = "blkdebug:rules:image"


def rule(kind="inject-error", **members):
    return f"[{kind}]\n" + "".join(f'{name} = "{value}"\n' for name, value in members.items())


def make_images():
    qemu_img("create", "-q", "-f", "qcow2", "image", "4M")
    qemu_io("-c", "write -q -P 7 0 64k", "image")
    qemu_img("create", "-q", "-f", "raw", "raw", "1M")


def is_whole(image):
    """Nothing in it contradicts anything; what an error has cost may be leaked."""
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", image], capture_output=True, check=False)
    if done.returncode not in (0, 3):
        raise AssertionError(f"{image}: {done.stdout.decode()}{done.stderr.decode()}")


def outcome_of(program, place, words):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree("fresh", place)
    done = subprocess.run([*program, *words], cwd=place, capture_output=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=60)
    is_whole(f"{place}/image")
    return TIMES.sub(r"\1", done.stdout.decode()), done.returncode


def both(*lines, rules="", image=(IMAGE,)):
    """What both programs print and how they end."""
    need("qemu-io")
    if not os.path.isdir("fresh"):
        os.mkdir("fresh")
        os.chdir("fresh")
        make_images()
        os.chdir("..")
    with open("fresh/rules", "w", encoding="utf-8") as f:
        f.write(rules)
    words = [word for line in lines for word in ("-c", line)] + list(image)
    ours = outcome_of([PROGRAM, "io"], "ours", words)
    theirs = outcome_of(["qemu-io"], "theirs", words)
    equal(ours, theirs, f"{rules}{' '.join(words)}")
    return ours


def case_breakpoints():
    stop = ("aio_write -P 1 1M 64k", "wait_break A", "read -P 7 0 64k")
    for event in ("write_aio", "cluster_alloc", "pwritev", "pwritev_done"):
        out = both(f"break {event} A", *stop[:2], "resume A", "aio_flush", "read -P 1 1M 64k")[0]
        contains(out, "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n", event)
    both("break write_aio A", *stop, "resume A", "aio_flush", "resume A")
    both("break write_aio A", "break write_aio B", *stop, "wait_break B", "resume A", "resume B", "aio_flush")
    both("break write_aio A", "break write_aio A", *stop, "resume A", "resume A", "aio_flush")
    both("break write_aio A", *stop[:2], "write -P 2 2M 4k", "resume A", "aio_flush", "read -P 2 2M 4k")
    both("break write_aio A", *stop[:2], "remove_break A", "aio_flush")
    both("break write_aio A", "remove_break A", "write 1M 4k", "remove_break A")
    both("break read_aio A", "aio_read -P 7 0 4k", "wait_break A", "resume A", "aio_flush")
    both("break cow_write A", "aio_write -P 1 1M 4k", "aio_flush", "read -P 1 1M 4k", "remove_break A")
    both("break flush_to_os A", "aio_write -P 1 1M 64k", "wait_break A", "resume A", "aio_flush")
    both("break write_aio A", "aio_write 0 4k", "wait_break A", "resume A", "aio_flush", "length",
         image=["-f", "raw", "blkdebug::raw"])


def case_messages():
    for line in ("help break", "help remove_break", "help resume", "help wait_break", "break", "break a",
                 "break a b c", "break no_such_event A", "break none A", "remove_break", "remove_break A",
                 "resume A", "resume", "wait_break", "wait_break a b"):
        both(line)
    for line in ("break l2_load A", "remove_break A", "resume A"):
        both(line, image=["image"])


def case_every_event_is_known_to_both():
    header = os.path.join(os.path.dirname(__file__), "..", "..", "graph", "model", "debug_event.h")
    with open(header, encoding="utf-8") as f:
        events = re.findall(r'\{debug_event::\w+, "(\w+)"', f.read())
    equal(len(events) > 40, True, "so many events")
    both(*(f"break {event} A" for event in events), "remove_break A")
    both(*(f"break {event}_ A" for event in events))


def case_rules():
    write, read = "write -P 1 1M 64k", "read -P 7 0 4k"
    both(read, write, "read 1M 4k", rules=rule(event="read_aio", errno=28))
    both(write, "read 0 4k", rules=rule(event="write_aio", errno=28, once="on"))
    both(write, write, "read -P 1 1M 64k", rules=rule(event="write_aio", errno=28, once="on"))
    both(write, write, rules=rule(event="write_aio", errno=28, once="on") +
         rule(event="write_aio", errno=5, once="on"))
    both(read, "read 64k 4k", "read 0 512", rules=rule(event="read_aio", errno=5, sector=641))
    both(read, "read 0 512", "read 0 4k", rules=rule(event="read_aio", errno=5, sector=641, once="on"))
    both(read, rules=rule(event="read_aio", errno=0))
    both(read, read, rules=rule(event="read_aio", immediately="on", once="on"))
    both("read 0 4k", read, read, rules=rule(event="l2_load", errno=5, once="on"))
    both(*[read] * 4, rules=rule("set-state", event="read_aio", state=1, new_state=2) +
         rule("set-state", event="read_aio", state=2, new_state=3) +
         rule(event="read_aio", state=3, errno=6, once="on"))
    both(*[read] * 3, rules=rule("set-state", event="read_aio", new_state=2) +
         rule("set-state", event="read_aio", new_state=3) +
         rule(event="read_aio", state=3, errno=6) + rule(event="read_aio", state=2, errno=28))
    for event in ("cluster_alloc", "l2_update", "l1_update", "refblock_load"):
        both(write, "read -P 7 0 64k", rules=rule(event=event, errno=28, once="on"))


def case_rules_as_options():
    over = "driver=blkdebug,image.driver=file,image.filename=raw,discard=unmap"
    every = ("read 0 512", "write 0 512", "write -z 0 512", "discard 0 512", "read 512 512")
    for kind in ("read", "write", "write-zeroes", "discard"):
        both(*every, image=["--image-opts", f"{over},inject-error.0.event=none,inject-error.0.iotype={kind}"])
    both(*every, image=["--image-opts", f"{over},inject-error.0.event=none,inject-error.0.sector=1"])
    both(*every, image=["--image-opts", f"{over},inject-error.0.event=none,inject-error.0.errno=28,"
                        "inject-error.0.once=on,inject-error.1.event=none,inject-error.1.errno=5,"
                        "inject-error.1.immediately=on,inject-error.1.sector=1"])
    both("map", "length", image=["--image-opts", f"{over},inject-error.0.event=none"])
    both("write -P 1 1 511", "read -P 1 1 511", "length", image=["--image-opts", f"{over},align=4096,max-transfer=4096"])
    both("length", image=["--image-opts", "driver=blkdebug,image.filename=raw"])
    both("length", "read -P 7 0 64k", image=["--image-opts", "driver=qcow2,file.driver=blkdebug,file.image.filename=image"])
    both("read 0 512", image=["json:" + json.dumps(
        {"driver": "blkdebug", "inject-error": [{"event": "none"}],
         "image": {"driver": "file", "filename": "raw"}})])
    for wrong in ("align=3", "align=4096,max-transfer=512", "align=4096,opt-discard=6144",
                  "inject-error.0.event=bogus", "inject-error.0.iotype=read", "inject-error.1.event=none",
                  "inject-error.0.event=none,inject-error.0.foo=1", "take-child-perms.0=bogus"):
        both("length", image=["--image-opts", f"{over},{wrong}"])


def case_names():
    make_images()
    with open("rules", "w", encoding="utf-8") as f:
        f.write(rule(event="l1_update"))
    for name in ("blkdebug:rules:image", "blkdebug::image", "blkdebug::file:image", "blkdebug::blkdebug::image"):
        equal(bgfs("io", "-c", "length", name).out, "4 MiB\n", name)
        equal(json.loads(bgfs("info", "--output=json", name).out)["format"], "qcow2", name)
    # What is written into headers is a name that the peer takes, too.
    bgfs("create", "-q", "-f", "qcow2", "-b", "blkdebug::image", "-F", "qcow2", "-u", "over", "4M")
    equal(qemu_io("-c", "read -P 7 0 64k", "over").returncode, 0, "the peer reads through it")
    contains(bgfs("io", "-c", "length", "over", status=1).err, "headers lead to files of the host only")
    for name, why in (("blkdebug:image", "blkdebug:CONFIG:IMAGE or blkdebug::IMAGE"),
                      ("blkdebug:none:image", "cannot open the file of rules 'none'"),
                      ("blkdebug::", "an empty file name names no image"),
                      ("blkdebug:" + ":blkdebug:" * 20 + ":image", "names more than 16 layers")):
        contains(bgfs("io", "-c", "length", name, status=1).err, why)


def case_nothing_waits_for_ever():
    make_images()
    stop = ("-c", "break write_aio A", "-c", "aio_write -P 1 1M 64k", "-c", "wait_break A")
    for end in ("aio_flush", "close", "quit"):
        done = bgfs("io", *stop, "-c", end, "blkdebug::image", timeout=30)
        contains(done.out, "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\nwrote 65536/65536", end)
    contains(bgfs("io", "-c", "break flush_to_os A", "-c", "write -q 1M 64k", "-t", "writeback", "blkdebug::image",
                  timeout=30).out, "", "closing")
    for words, why in ((["wait_break A"], "no request is in flight that could reach breakpoint 'A'"),
                       (["break l1_update A", "aio_read 0 4k", "wait_break A"], "no request is in flight")):
        done = bgfs("io", *(w for word in words for w in ("-c", word)), "blkdebug::image", status=1, timeout=30)
        contains(done.err, why)
        contains(done.out, "Could not wait for request: No such file or directory\n")
    contains(bgfs("io", "-c", "wait_break A", "image", status=1, timeout=30).err, "takes breakpoints; open it as blkdebug")
    is_whole("image")
