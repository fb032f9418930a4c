# SPDX-License-Identifier: MIT
""".bgfs/metrics, held against the OpenMetrics text format 1.0."""
import errno
import math
import os
import re

from mount_suite import *  # noqa: F403

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"^({NAME})(?:\{{(.*)\}})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
SUFFIXES = {"counter": {"_total"}, "gauge": {""}, "info": {"_info"}, "stateset": {""},
            "histogram": {"_bucket", "_count", "_sum"}}


def parse_labels(text):
    labels, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        check(match, "malformed labels:", text)
        check(match[1] not in labels, "a label twice:", text)
        check(not match[1].startswith("__"), "a reserved label:", text)
        labels[match[1]] = re.sub(r'\\(["\\n])', lambda m: "\n" if m[1] == "n" else m[1], match[2])
        at = match.end()
    check(not text.endswith(","), "a comma at the end:", text)
    return labels


def parse_number(text):
    check(re.match(r"^[+-]?(\d+(\.\d+)?([eE][+-]?\d+)?|Inf|NaN)$", text), "no number:", text)
    return float(text)


def parse(text):
    """{family: (type, unit, {(suffix, labels): value})}; fails where a strict reader would."""
    check(text.endswith("# EOF\n"), "it does not end with # EOF and a newline")
    families, current, seen = {}, None, set()
    for line in text.splitlines()[:-1]:
        check(line and line.strip() == line, "a blank line or blanks around:", repr(line))
        if line.startswith("#"):
            word = re.match(rf"^# (TYPE|UNIT|HELP) ({NAME}) (.+)$", line)
            check(word, "malformed:", line)
            kind, name, rest = word.groups()
            if current is None or name != current["name"]:
                check(name not in families, "a family twice:", name)
                current = families[name] = {"name": name, "type": None, "unit": "", "help": None,
                                            "samples": {}}
            check(not current["samples"], "what describes", name, "comes behind its samples")
            key = kind.lower()
            check(not current[key], kind, "twice:", name)
            current[key] = rest
            if kind == "TYPE":
                check(rest in SUFFIXES, "unknown type:", line)
            if kind == "UNIT":
                check(name.endswith("_" + rest), "the name does not end with its unit:", line)
            continue
        match = SAMPLE.match(line)
        check(match and current, "malformed:", line)
        name, labels, value = match[1], parse_labels(match[2] or ""), parse_number(match[3])
        check(name.startswith(current["name"]), "a sample outside of its family:", line)
        suffix = name[len(current["name"]):]
        check(suffix in SUFFIXES[current["type"]], "a suffix of another type:", line)
        series = (suffix, tuple(sorted(labels.items())))
        check((name, series) not in seen, "a series twice:", line)
        seen.add((name, series))
        current["samples"][series] = value
    for family in families.values():
        check(family["type"] and family["help"], "not described:", family["name"])
        check_family(family)
    return families


def check_family(family):
    name, samples = family["name"], family["samples"]
    if family["type"] == "counter":
        check(not name.endswith("_total"), "a counter's family ends with _total:", name)
        check(all(v >= 0 for v in samples.values()), "a negative counter:", name)
    if family["type"] == "info":
        check(all(v == 1 for v in samples.values()), "an info that is not 1:", name)
    if family["type"] == "stateset":
        check(all(v in (0, 1) and name in dict(k[1]) for k, v in samples.items()), name)
    if family["type"] == "histogram":
        groups = {}
        for (suffix, labels), value in samples.items():
            rest = tuple(l for l in labels if l[0] != "le")
            group = groups.setdefault(rest, {"buckets": []})
            if suffix == "_bucket":
                group["buckets"].append((float(dict(labels)["le"]), value))
            else:
                group[suffix] = value
        for rest, group in groups.items():
            limits = [b[0] for b in group["buckets"]]
            counts = [b[1] for b in group["buckets"]]
            equal(limits, sorted(set(limits)), f"limits of {name} {rest}")
            equal(counts, sorted(counts), f"buckets of {name} {rest}")
            equal(limits[-1], math.inf, f"the last limit of {name}")
            equal(counts[-1], group["_count"], f"the count of {name}")
            check(group["_sum"] >= 0, "a negative sum:", name)


def value(families, family, suffix="", **labels):
    found = [v for (s, l), v in families[family]["samples"].items()
             if s == suffix and labels.items() <= dict(l).items()]
    equal(len(found), 1, f"series of {family} {labels}")
    return found[0]


@case("metrics are valid OpenMetrics text and count what was done", needs=["qemu-img"], as_written=True)
def metrics(env):
    image = env.qcow2("a.qcow2", "8M")
    node = {"node-name": "top", "driver": "qcow2",
            "file": {"node-name": "below", "driver": "file", "filename": str(image)}}
    missing = {"node-name": "gone", "driver": "raw",
               "file": {"driver": "file", "filename": str(env / "missing")}}
    # A name may hold what the format gives a meaning.
    strange = 'q"u\\o grüße'
    m = env.mount(env.graph([node, missing], [
        {"name": strange, "node-name": "top", "writable": True},
        {"name": "bad", "node-name": "gone"}]))
    before = parse(m.read(".bgfs/metrics"))
    fd = os.open(m / strange, os.O_RDWR)
    os.pwrite(fd, b"x" * 8192, 0)
    os.pwrite(fd, b"x" * 4096, MiB)
    os.fsync(fd)
    equal(len(os.pread(fd, 4096, 0)), 4096, "a read")
    now = parse(m.read(".bgfs/metrics"))

    def grown(family, **labels):
        return value(now, family, "_total", **labels) - value(before, family, "_total", **labels)

    equal(grown("bgfs_node_operations", node="top", operation="write"), 2, "writes")
    equal(grown("bgfs_node_bytes", node="top", operation="write"), 12288, "bytes written")
    equal(grown("bgfs_node_operations", node="top", operation="read"), 1, "reads")
    check(grown("bgfs_node_operations", node="below", operation="flush") >= 1, "no flush")
    equal(value(now, "bgfs_node_operation_duration_seconds", "_count", node="top",
                operation="write"), 2, "writes that were timed")
    equal(value(now, "bgfs_node_length_bytes", node="top"), 8 * MiB, "length")
    equal(value(now, "bgfs_node_requests_in_flight", node="top"), 0, "in flight")
    equal(value(now, "bgfs_root_openers", root=strange, mode="write"), 1, "openers")
    for root, word in ((strange, "ok"), ("bad", "failed")):
        states = {dict(l)["bgfs_root_state"]: v
                  for (_, l), v in now["bgfs_root_state"]["samples"].items()
                  if dict(l)["root"] == root}
        equal([w for w, v in states.items() if v], [word], f"the state of {root}")
        equal(len(states), 9, "words")
    info = dict(next(iter(now["bgfs_build"]["samples"]))[1])
    equal(f"bgfs {info['version']}\n", m.read(".bgfs/version"), "version")
    pid = m.pid
    found = len(os.listdir(f"/proc/{pid}/fd"))
    check(abs(value(now, "process_open_fds") - found) <= 8, "open descriptors")
    check(value(now, "process_resident_memory_bytes") > MiB, "memory")
    check(grown("bgfs_fuse_requests") > 3, "requests")
    with fails_with(errno.EACCES):
        os.open(m / ".bgfs/metrics", os.O_WRONLY)
    os.close(fd)
    m.umount()


@case("the reader of metrics is strict")
def strict(env):
    good = "# TYPE a counter\n# HELP a x\na_total 1\n# EOF\n"
    parse(good)
    for bad in ("# TYPE a counter\na_total 1\n", good.replace("a_total 1", "a 1"),
                good.replace("# EOF\n", "# EOF"), good.replace("a_total 1", "a_total 1\na_total 1"),
                good.replace("a_total 1", 'a_total{x="\\d"} 1'),
                good.replace("a_total 1", 'a_total{x="1",} 1'),
                good.replace("# HELP a x\n", ""), good.replace("a_total 1", "a_total one"),
                good.replace("# HELP", "# UNIT a seconds\n# HELP")):
        try:
            parse(bad)
        except Failure:
            continue
        raise Failure(f"taken: {bad!r}")
