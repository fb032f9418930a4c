# SPDX-License-Identifier: MIT
"""Hundreds of random edits, valid and invalid, are reloaded while fio writes and verifies. More of
them, or others: BGFS_RELOAD_EDITS, BGFS_RELOAD_SEED."""
import copy
import json
import os
import random
import re
import subprocess
import time

from mount_suite import *  # noqa: F403

EDITS = int(os.environ.get("BGFS_RELOAD_EDITS", "200"))
SEED = int(os.environ.get("BGFS_RELOAD_SEED", "0")) or random.randrange(1, 1 << 30)
ROOTS = {"plain": "psync", "flat": "io_uring", "layered": "io_uring"}


class Model:
    """What the graph file says, as far as it varies."""

    def __init__(self):
        self.options = {name: {} for name in ROOTS}  # generic options of the top node
        self.file_options = {name: {} for name in ROOTS}
        self.filters = {name: 0 for name in ROOTS}
        self.exports = {name: {} for name in ROOTS}
        self.backing = "base"
        self.size = {}
        self.extras = set()

    def text(self):
        nodes, exports = [], []

        def top(name, driver, filename, **more):
            file = {"driver": "file", "filename": filename, **self.file_options.get(name, {})}
            nodes.append({"node-name": name, "driver": driver, "file": file,
                          **self.options.get(name, {}), **more})
            above = name
            for i in range(self.filters.get(name, 0)):
                nodes.append({"node-name": f"{name}-filter{i}", "driver": "copy-on-read",
                              "file": above})
                above = f"{name}-filter{i}"
            exports.append({"name": name, "node-name": above, "writable": True,
                            **self.exports.get(name, {})})

        for name in ("base", "copy"):
            nodes.append({"node-name": name, "driver": "qcow2",
                          "file": {"driver": "file", "filename": f"{name}.qcow2"}})
        top("plain", "raw", "plain.raw", **self.size)
        top("flat", "qcow2", "flat.qcow2")
        top("layered", "qcow2", "layered.qcow2", backing=self.backing)
        for i in sorted(self.extras):
            top(f"extra{i}", "qcow2", f"extra{i}.qcow2")
        return json.dumps({"version": 1, "nodes": nodes, "exports": exports}, indent=1)

    def edit(self, chance):
        """One valid random change; returns what it was."""
        name = chance.choice(list(ROOTS))
        kind = chance.choice(["filter", "direct", "discard", "zeroes", "no-flush", "backing",
                              "extra", "extra", "export", "aio", "size", "iothread",
                              "iothread", "several"])
        if kind == "several":
            return ", ".join(self.edit(chance) for _ in range(chance.randint(2, 4)))
        if kind == "filter":
            self.filters[name] = (self.filters[name] + chance.choice([1, 2])) % 3
        elif kind == "direct":
            self.file_options[name]["cache"] = {"direct": chance.random() < 0.5}
        elif kind == "no-flush":
            self.options[name]["cache"] = {"no-flush": chance.random() < 0.5}
        elif kind == "aio":
            self.file_options[name]["aio"] = chance.choice(["threads", "io_uring"])
        elif kind == "discard":
            self.options[name]["discard"] = chance.choice(["ignore", "unmap"])
            self.options[name].pop("detect-zeroes", None)
        elif kind == "zeroes":
            self.options[name]["discard"] = "unmap"
            self.options[name]["detect-zeroes"] = chance.choice(["off", "on", "unmap"])
        elif kind == "backing":
            self.backing = "copy" if self.backing == "base" else "base"
        elif kind == "size":  # fio stays below all of them
            self.size = chance.choice([{}, {"size": "28M"}, {"size": "30M"}])
        elif kind == "extra":
            self.extras ^= {chance.randrange(4)}
        elif kind == "export":
            self.exports[name].update({"flush-interval": chance.choice(["0", "50ms", "5s"]),
                                       "mode": chance.choice(["0600", "0640"])})
        elif kind == "iothread":
            name = chance.choice([*ROOTS, "extra0", "extra1"])
            export = self.exports.setdefault(name, {})
            export.pop("iothread", None)
            if chance.random() < 0.7:
                export["iothread"] = chance.choice(["one", "two"])
        return f"{kind} {name}"


def spoiled(text, chance):
    """The text with one mistake; returns it and words of the refusal."""
    graph = json.loads(text)
    kind = chance.choice(["driver", "option", "missing", "removed", "read-only", "syntax", "twice",
                          "loop", "threads"])
    node = chance.choice([n for n in graph["nodes"] if n["node-name"] in ROOTS])
    if kind == "driver":
        node["driver"] = "qcow3"
    elif kind == "option":
        node["discards"] = "unmap"
    elif kind == "missing":
        node["file"]["filename"] = "nowhere"
    elif kind == "removed":
        graph["exports"] = [e for e in graph["exports"] if e["name"] != "flat"]
    elif kind == "read-only":
        graph["exports"][0]["writable"] = False
    elif kind == "twice":
        graph["nodes"].append(copy.deepcopy(node))
    elif kind == "threads":
        graph["exports"][0]["iothread"] = "one"
        graph["exports"].append({**graph["exports"][0], "name": "again", "iothread": "two"})
    elif kind == "loop":
        [n for n in graph["nodes"] if n["node-name"] == "base"][0]["backing"] = "layered"
        [n for n in graph["nodes"] if n["node-name"] == "copy"][0]["backing"] = "layered"
    return (text[:-10] if kind == "syntax" else json.dumps(graph)), kind


def shape(m):
    graph = json.loads(m.read(".bgfs/graph.json"))
    for node in graph["nodes"]:
        node.pop("virtual-size")
    graph["nodes"].sort(key=lambda node: node["node-name"])
    return graph


def descriptors(m):
    return len(os.listdir(f"/proc/{m.pid}/fd"))


def locks(m):
    """Locks of open file descriptions have no owner; those on our images count."""
    ours = {f"{os.stat(p).st_dev >> 8:02x}:{os.stat(p).st_dev & 255:02x}:{os.stat(p).st_ino}"
            for p in m.env.dir.glob("*.*")}
    with open("/proc/locks", encoding="ascii") as lines:
        return sorted(" ".join(line.split()[1:]) for line in lines
                      if line.split()[5] in ours and "OFDLCK" in line)


def reload(m):
    fd = os.open(m / ".bgfs/reload", os.O_RDWR)
    try:
        os.write(fd, b"1")
    except OSError:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)
    return None


def start_fio(m, name, engine, seconds):
    return subprocess.Popen(
        ["fio", f"--name={name}", f"--filename={m / name}", f"--ioengine={engine}",
         "--rw=randrw", "--bs=4k-32k", "--size=24M", "--iodepth=8", "--verify=crc32c",
         "--verify_backlog=32", "--verify_fatal=1", "--norandommap=0", "--fsync=64",
         f"--direct={0 if engine == 'psync' else 1}", "--time_based",
         f"--runtime={seconds}", f"--randseed={SEED}", "--aux-path=" + str(m.env.dir),
         "--output-format=normal"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=m.env.dir)


@case("random edits are reloaded while fio writes and verifies on three roots",
      needs=["fio", "qemu-img", "qemu-io"], timeout=600)
def under_load(env):
    # Without io_uring fio, too, has to do with what there is.
    ring = "libaio" if os.environ.get("BGFS_TEST_NO_IO_URING") else "io_uring"
    ROOTS.update(flat=ring, layered=ring)
    chance = random.Random(SEED)
    env.raw("plain.raw", 32 * MiB)
    for name in ("base", "flat", "extra0", "extra1", "extra2", "extra3"):
        env.qcow2(f"{name}.qcow2", "32M")
    run("qemu-io", "-c", "write -P 9 0 32M", env / "base.qcow2")
    (env / "copy.qcow2").write_bytes((env / "base.qcow2").read_bytes())
    env.qcow2("layered.qcow2", "32M")
    model = Model()
    first = model.text()
    graph = env.file("g.yaml", first)
    m = env.mount(graph)
    begin = (shape(m), descriptors(m), locks(m))
    workers = {n: start_fio(m, n, engine, 100_000) for n, engine in ROOTS.items()}
    done = []
    counts = {"valid": 0, "refused": 0}
    try:
        wait_for(lambda: all("fio" in m.read(f"{n}.d/openers") for n in ROOTS), "fio to begin")
        # fio closes its file between two passes, for a moment in which a root may well go.
        held = [os.open(m / n, os.O_RDWR) for n in ROOTS]
        for i in range(EDITS):
            time.sleep(chance.random() * 0.05)
            if chance.random() < 0.3:
                before = shape(m)
                text, kind = spoiled(model.text(), chance)
                graph.write_text(text)
                sentence = reload(m)
                done.append(f"{i}: {kind} -> {sentence}")
                check(sentence is not None and sentence.endswith("nothing was changed"),
                      f"edit {i} ({kind}) ended with {sentence!r}; seed {SEED}")
                equal(shape(m), before, f"the graph after refused edit {i} ({kind}), seed {SEED}")
                counts["refused"] += 1
                continue
            what = model.edit(chance)
            graph.write_text(model.text())
            sentence = reload(m)
            done.append(f"{i}: {what} -> {sentence}")
            equal(sentence, None, f"edit {i} ({what}), seed {SEED}, after {done[-4:]}")
            counts["valid"] += 1
            if chance.random() < 0.2:
                name = chance.choice([f"extra{e}" for e in model.extras] or ["plain"])
                equal(len(pread(m / name, 0, 4096)), 4096, "a read from another root")
            for name, worker in workers.items():
                if worker.poll() is not None:
                    raise Failure(f"fio on {name} ended after {done[-4:]}, seed {SEED}: "
                                  f"{worker.communicate()[0][-2000:]}")
        for fd in held:
            os.close(fd)
    finally:
        for worker in workers.values():
            worker.send_signal(2)  # it finishes its verification
        outputs = {n: w.communicate(timeout=120)[0] for n, w in workers.items()}
    for name, worker in workers.items():
        wrong = [line for line in outputs[name].splitlines()
                 if "verify" in line and ("bad" in line or "failed" in line)]
        written = re.search(r"write: IOPS=[1-9]", outputs[name])
        check(written, f"fio on {name} wrote nothing: {outputs[name][-2000:]}")
        check(worker.returncode in (0, 128) and not wrong and "err= 0" in outputs[name],
              f"fio on {name}, seed {SEED}: {outputs[name][-2000:]}")
    if os.environ.get("BGFS_RELOAD_SHOW"):
        print("\n".join(outputs.values()), "\n".join(done))
    graph.write_text(first)
    equal(reload(m), None, f"the reload back to the beginning, seed {SEED}")
    after = (shape(m), descriptors(m), locks(m))
    names = [sorted((n.get("filename", n["node-name"]), n["driver"], n["read-only"])
                    for n in s["nodes"] if not n["node-name"].startswith("#") or "filename" in n)
             for s in (begin[0], after[0])]
    equal(names[1], names[0], f"the nodes at the end, seed {SEED}")
    equal(after[1], begin[1], f"the descriptors at the end, seed {SEED}")
    equal(after[2], begin[2], f"the locks at the end, seed {SEED}")
    check(counts["refused"] > EDITS // 10 and counts["valid"] > EDITS // 3, f"{counts}")
    equal(m.read(".bgfs/pid").strip(), str(m.pid), "the daemon")
    m.umount()
    for name in ("base", "copy", "flat", "layered", *(f"extra{i}" for i in range(4))):
        qemu_check(env / f"{name}.qcow2")
