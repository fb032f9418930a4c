#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What one 4 KiB request costs: no trip to the heap, and no more instructions than are on record.

  tests/benchmarks/request_cost.py [--program FILE] [--depth N]... [--counter NAME] [--record]

Neither number depends on the machine's mood. Instructions come from the processor's counter where
the machine lets a program have it, else from valgrind; the record, request_cost.json, has both
under names of their own. One line a claim; the last line counts them.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
RECORD = here / "request_cost.json"
PROGRAM = here.parent.parent / "build/release/tests/benchmarks/bgfs_request_cost"
REQUESTS = 2000
TOLERANCE = 0.10
# The C library would otherwise move pages by one instruction, which valgrind counts as thousands.
TUNABLES = "glibc.cpu.x86_rep_stosb_threshold=1000000:glibc.cpu.x86_rep_movsb_threshold=1000000"


class Unable(Exception):
    """The machine cannot count; the text says why."""


class Broken(Exception):
    """The program failed."""


def cases(depths):
    """(kind, graph, depth). null-co answers at once, so that depth makes no difference."""
    for graph in ("raw/null-co", "raw/file", "qcow2/file"):
        for kind in ("read", "write"):
            for depth in depths[:1] if graph == "raw/null-co" else depths:
                yield kind, graph, depth


def name_of(case):
    return "%s %s, depth %d" % case


def run(program, case, *before, extra=()):
    """The `name: value` lines of the program as a dictionary, and all it printed."""
    kind, graph, depth = case
    with tempfile.TemporaryDirectory(dir=scratch_place()) as scratch:
        environment = dict(os.environ, GLIBC_TUNABLES=TUNABLES, TMPDIR=scratch)
        try:
            done = subprocess.run(
                [*before, str(program), kind, graph, str(depth), str(REQUESTS), *extra], text=True,
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        except subprocess.TimeoutExpired:
            raise Broken("did not end within 300 s") from None
    if done.returncode != 0:
        raise Broken(done.stderr.strip() or f"ended with {done.returncode}")
    lines = [line.split(": ", 1) for line in done.stdout.splitlines()]
    return {pair[0]: pair[1] for pair in lines if len(pair) == 2}, done.stdout


def scratch_place():
    """Images in memory: what a disk does is not what is counted."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def perf_count(program, case):
    found, _ = run(program, case)
    if "instructions" not in found:
        raise Unable(found["no instructions"])
    return int(found["instructions"]) / REQUESTS


def callgrind_count(program, case):
    if shutil.which("valgrind") is None:
        raise Unable("valgrind is not installed")
    with tempfile.TemporaryDirectory() as directory:
        profile = os.path.join(directory, "profile")
        run(program, case, "valgrind", "--quiet", "--tool=callgrind",
            "--zero-before=bgfs_measured_begin", "--dump-before=bgfs_measured_end",
            "--callgrind-out-file=" + profile)
        if not os.path.exists(profile + ".1"):
            raise Broken("what is to be counted was never reached")
        with open(profile + ".1", encoding="ascii") as lines:
            totals = [line.split()[1] for line in lines if line.startswith("totals:")]
    return int(totals[0]) / REQUESTS


COUNTERS = {"perf": perf_count, "callgrind": callgrind_count}


def record_name(counter):
    return f"{platform.machine()} {counter}"


def choose_counter(program, wanted, record):
    """(the counter or None, why others cannot count). One that is on record goes first."""
    able, reasons = [], []
    for name in [wanted] if wanted else COUNTERS:
        try:
            COUNTERS[name](program, ("read", "raw/null-co", 1))
            able.append(name)
        except Unable as why:
            reasons.append(f"{name}: {why}")
    on_record = [name for name in able if record_name(name) in record]
    chosen = (on_record or able or [None])[0]
    return chosen, "; ".join(reasons)


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, word, claim, detail=""):
        setattr(self, word, getattr(self, word) + 1)
        print(f"{word:8}{claim}" + (f": {detail}" if detail else ""), flush=True)


def check_allocations(program, case, tally):
    claim = name_of(case) + ": no trip to the heap"
    try:
        found, _ = run(program, case)
        count = int(found["allocations"])
        if int(found["allocations before"]) == 0:
            raise Broken("not even setting up was counted: the counter does not work")
        if count == 0:
            tally.add("passed", claim)
            return
        _, text = run(program, case, extra=["--where"])
        tally.add("failed", claim, f"{count} for {REQUESTS} requests\n{text}")
    except Broken as why:
        tally.add("failed", claim, str(why))


def check_instructions(case, count, recorded, tally):
    claim = name_of(case) + ": instructions"
    if recorded is None:
        tally.add("skipped", claim, f"{count:.0f}; none are on record, see --record")
        return
    change = count / recorded - 1
    detail = f"{count:.0f} a request, {recorded:.0f} on record ({change:+.1%})"
    if change > TOLERANCE:
        tally.add("failed", claim, f"{detail}; at most {TOLERANCE:.0%} more are accepted")
        return
    if change < -TOLERANCE:
        detail += "; well done, now --record it"
    tally.add("passed", claim, detail)


def count_all(options, record, tally):
    counter, reasons = choose_counter(options.program, options.counter, record)
    if counter is None:
        for case in cases(options.depth):
            tally.add("skipped", name_of(case) + ": instructions", "cannot count: " + reasons)
        return
    print(f"instructions are counted by {counter}" + (f" ({reasons})" if reasons else ""))
    known = record.get(record_name(counter), {})
    found = {}
    for case in cases(options.depth):
        try:
            found[name_of(case)] = round(COUNTERS[counter](options.program, case))
        except (Broken, Unable) as why:
            tally.add("failed", name_of(case) + ": instructions", str(why))
            continue
        if not options.record:
            check_instructions(case, found[name_of(case)], known.get(name_of(case)), tally)
    if options.record:
        record[record_name(counter)] = {**known, **found}
        RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"recorded {len(found)} counts as '{record_name(counter)}' in {RECORD.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(PROGRAM),
                        help="bgfs_request_cost, a release build")
    parser.add_argument("--depth", type=int, action="append",
                        help="how many requests are in flight; default: 1 and 32")
    parser.add_argument("--counter", choices=COUNTERS)
    parser.add_argument("--record", action="store_true", help="what is counted is the new record")
    options = parser.parse_args()
    options.depth = options.depth or [1, 32]
    if not os.access(options.program, os.X_OK):
        print(f"there is no program at {options.program}", file=sys.stderr)
        return 1
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    tally = Tally()
    for case in cases(options.depth):
        check_allocations(options.program, case, tally)
    count_all(options, record, tally)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
