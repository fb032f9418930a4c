# SPDX-License-Identifier: MIT
"""Goes through the rows: begins a stage when its first row is due, lets the servers of a row take
turns, ends the stage after its last."""
import os
import subprocess
import time

from . import figures, machine, report
from .machine import Broken, Unavailable

FAILURES = (Broken, OSError, subprocess.SubprocessError)


def measure_all(rows, settings, say):
    """{name: row as saved}."""
    results, at = {}, 0
    while at < len(rows):
        stage = rows[at].stage
        last = at
        while last + 1 < len(rows) and rows[last + 1].stage is stage:
            last += 1
        measure_stage(stage, rows[at:last + 1], settings, results, say)
        at = last + 1
    return results


def measure_stage(stage, rows, settings, results, say):
    def give_up(state, why):
        for row in rows:
            if row.name not in results:
                results[row.name] = empty_result(row, state, str(why))
                say(report.row_text(row.name, results[row.name]))

    try:
        stage.begin(settings)
        for row in rows:
            try:
                results[row.name] = measure_row(row, settings)
            except FAILURES as why:
                results[row.name] = empty_result(row, "failed", str(why))
            say(report.row_text(row.name, results[row.name]))
    except Unavailable as why:
        give_up("not available", why)
    except FAILURES as why:
        give_up("failed", why)
    finally:
        try:
            stage.end()
        except FAILURES as why:
            # What was measured is worth nothing if the image is not what it should be.
            for row in rows:
                results[row.name] |= empty_result(row, "failed", f"at the end: {why}")
            say(f"{stage.where}: all rows above FAILED at the end: {why}")


def empty_result(row, state, reason):
    return {"title": row.title, "where": row.stage.where, "state": state, "reason": reason,
            "unit": row.load.unit if row.load else row.unit, "goals": row.goals, "servers": {},
            "missing": {}, "failed": {}, "figures": [], "unjudged": list(row.goals)}


def measure_row(row, settings):
    stage = row.stage
    taking_part = [s for s in stage.servers
                   if s.can_write or row.load is None or not row.load.writes]
    missing = dict(stage.missing)
    for server in stage.servers:
        if server not in taking_part:
            missing[server.name] = "cannot write"
    rounds = take_turns(row, taking_part, settings)
    by_server = {s.name: figures.of_server(s.role, rounds[s.name], row.is_cost)
                 | {"detail": s.detail} for s in taking_part}
    found = figures.of_row(row, by_server)
    return empty_result(row, "measured", "") | {
        "servers": by_server, "missing": missing, "failed": dict(stage.failed), "figures": found,
        "unjudged": figures.unjudged(row, found)}


def take_turns(row, taking_part, settings):
    """{server: its rounds}. Another server begins each round, so that none always runs first."""
    rounds = {server.name: [] for server in taking_part}
    if row.load is not None and row.load.warms_up:
        for server in taking_part:
            read_all(server.path)
    for number in range(settings.rounds):
        first = number % len(taking_part)
        for server in taking_part[first:] + taking_part[:first]:
            rounds[server.name].append(row.stage.measure(row.load, server, number))
    return rounds


def read_all(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(machine.MiB):
            pass


def new_run(settings, programs):
    return {"version": 1, "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "machine": machine.describe(), "programs": programs,
            "settings": {"seconds": settings.seconds, "rounds": settings.rounds,
                         "nice": os.nice(0)}, "rows": {}}
