# SPDX-License-Identifier: MIT
"""The command line of tests/bench."""
import argparse
import json
import os
import pathlib
import signal
import sys

from . import measuring, plot, report, rows, servers
from .machine import BGFS, Unavailable, enter_private_namespace, require_commands
from .stages import Settings

DEFAULT_SECONDS, DEFAULT_ROUNDS = 0.25, 5
QUICK_SECONDS, QUICK_ROUNDS = 0.15, 3


def parse(words, description):
    parser = argparse.ArgumentParser(prog="tests/bench", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", metavar="ROW", nargs="*",
                        help="names of rows, or patterns like 'read-*'; default: all")
    parser.add_argument("--list", action="store_true", help="show the rows and their goals")
    parser.add_argument("--quick", action="store_true",
                        help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS:g} s")
    parser.add_argument("--seconds", type=float, help=f"of a round; default: {DEFAULT_SECONDS:g}")
    parser.add_argument("--rounds", type=int,
                        help=f"for each server of a row; default: {DEFAULT_ROUNDS}")
    parser.add_argument("--nice", type=int, default=0, metavar="N",
                        help="of all that is measured; below 0, as root, on a busy machine")
    parser.add_argument("--disk", metavar="DIR", default="/var/tmp",
                        help="where the images of the rows on disk lie; default: /var/tmp")
    parser.add_argument("--save", metavar="FILE", help="write the run as JSON")
    parser.add_argument("--load", metavar="FILE", help="measure nothing, take a saved run")
    parser.add_argument("--compare", metavar="FILE", help="hold it against an earlier saved run")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the ratios and their goals")
    parser.add_argument("--require-goals", action="store_true",
                        help="exit with 1 also if a goal was missed or could not be judged")
    options = parser.parse_args(words)
    if options.seconds is None:
        options.seconds = QUICK_SECONDS if options.quick else DEFAULT_SECONDS
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else DEFAULT_ROUNDS
    if options.seconds <= 0 or options.rounds < 1:
        parser.error("there is at least one round, and it takes time")
    try:
        options.chosen = rows.choose(options.rows)
    except ValueError as why:
        parser.error(str(why))
    return options


def list_rows(chosen):
    for row in chosen:
        goals = ", ".join(f"{name} {value:g}" for name, value in row.goals.items())
        print(f"{row.name:<34}{row.title} ({row.stage.where})" + (f"; {goals}" if goals else ""))


def load(path):
    run = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    if run.get("version") != 1:
        raise ValueError(f"{path} is no saved run of this benchmark")
    return run


def say(text):
    print(text + "\n", flush=True)


def measure(options):
    require_commands("fio", "qemu-img", "taskset")
    if not os.access(BGFS, os.X_OK):
        raise Unavailable(f"there is no bgfs at {BGFS}; set BGFS to a release build of it")
    enter_private_namespace()
    os.nice(options.nice)
    settings = Settings(options.seconds, options.rounds, options.disk)
    run = measuring.new_run(settings, servers.versions())
    say(report.header(run))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    try:
        run["rows"] = measuring.measure_all(options.chosen, settings, say)
    finally:
        settings.clean_up()
    return run


def status_of(run, require_goals):
    results = run["rows"].values()
    if any(row["state"] == "failed" for row in results):
        return 1
    if require_goals and any(row["unjudged"] or not all(f.get("met", True) for f in row["figures"])
                             for row in results):
        return 1
    return 0


def main(words, description):
    options = parse(words, description)
    if options.list:
        list_rows(options.chosen)
        return 0
    try:
        earlier = load(options.compare) if options.compare else None
        run = load(options.load) if options.load else measure(options)
    except (Unavailable, OSError, ValueError) as why:
        print(f"tests/bench: {why}", file=sys.stderr)
        return 1
    say(report.goals_table(run))
    if options.save:
        pathlib.Path(options.save).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        pathlib.Path(options.plot).write_text(plot.draw(run), encoding="utf-8")
    if earlier is not None:
        say(report.comparison(earlier, run))
    return status_of(run, options.require_goals)
