#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether the benchmark can be believed: what it makes of numbers, and that it refuses wrong bytes.

  tests/benchmarks/self_test.py [FILTER]

The last case measures one row for a moment, with the program that BGFS names.
"""
import contextlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
from benchmarks import commands_test, figures, fio, images, machine, main  # noqa: E402
from benchmarks import measuring, plot, report, request_cost, rows, stages  # noqa: E402
from benchmarks.fio import Load, Round  # noqa: E402
from benchmarks.machine import Broken, MiB, Unavailable  # noqa: E402
from benchmarks.rows import BEST_PEER, CHAIN, ITSELF, NATIVE, PEER_CPU, SERVER_CPU  # noqa: E402
from benchmarks.rows import Row  # noqa: E402


def rounds(*values, server=0.0):
    return [Round(v, 1000, server, server) for v in values]


def server_results(is_cost=False, **by_name):
    """bgfs=("ours", 1, 2, 3): a role and what each round gave."""
    return {name.replace("_", " "): figures.of_server(role, rounds(*values), is_cost)
            for name, (role, *values) in by_name.items()}


def row(goals=None, load=Load("randread", "4k"), stage=None, name="a-row"):
    unit = "ms" if load is None else ""
    return Row(name, "a title", stage or FakeStage(), load, goals or {}, unit)


class FakeServer:
    def __init__(self, name, role, value=100.0, can_write=True, fault=None):
        self.name, self.role, self.value, self.can_write = name, role, value, can_write
        self.fault, self.path, self.pids, self.is_running = fault, None, [], False
        self.detail = "over a wire"

    def start(self, _length):
        self.path, self.is_running = f"/{self.name}", True

    def stop(self):
        self.path, self.is_running = None, False


class FakeStage(stages.Stage):
    """Servers that are nothing but numbers."""

    def __init__(self, *servers, require=None, at_end=None):
        super().__init__()
        self.given, self.why, self.at_end = servers, require, at_end
        self.turns = []

    def begin(self, settings):
        self.settings, self.servers, self.missing, self.failed = settings, [], {}, {}
        self.marked = []
        if self.why is not None:
            raise self.why
        for server in self.given:
            self.servers.append(server)
            try:
                self.start(server)
            except Broken as why:
                if server.role != "peer":
                    raise
                self.drop(server, str(why))

    def check(self, server):
        if server.fault == "wrong bytes":
            raise Broken("it gives wrong bytes")

    def measure(self, load, server, number):
        if server.fault == "fails":
            raise Broken("it fell over")
        self.turns.append(server.name)
        return Round(server.value + number, 1000, 0.01, 0.02)

    def end(self):
        super().end()
        if self.at_end is not None:
            raise self.at_end


def settings(count=3):
    made = stages.Settings(0.1, count, "/var/tmp")
    return made


def measured(*chosen, count=3):
    """What measure_all makes of rows, and what it said."""
    said = []
    return measuring.measure_all(list(chosen), settings(count), said.append), "\n".join(said)


def run_of(**by_row):
    """A run as saved, from rows as measured."""
    return {"version": 1, "time": "2026-01-01 00:00:00",
            "programs": {"qcowmount": "1", "nbdfuse": ""},
            "machine": {"kernel": "6", "machine": "x86_64", "processor": "P", "cores": 2,
                        "bgfs": "0", "fio": "3", "fuse over io_uring": "allowed"},
            "settings": {"seconds": 1, "rounds": 3}, "rows": by_row}


def result_of(goals=None, **by_name):
    r = row(goals)
    found = figures.of_row(r, server_results(**by_name))
    return measuring.empty_result(r, "measured", "") | {
        "servers": server_results(**by_name), "figures": found,
        "unjudged": figures.unjudged(r, found)}


def named(found, name):
    return next(f for f in found if f["name"] == name)


def outcome_of(*words):
    """(status, standard output, standard error) of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main.main(list(words), "about")
        except SystemExit as ended:
            status = ended.code
    return status, out.getvalue(), err.getvalue()


class TheTable(unittest.TestCase):
    def test_no_two_rows_have_one_name(self):
        names = [r.name for r in rows.all_rows()]
        self.assertEqual(len(names), len(set(names)))

    def test_every_goal_has_its_row(self):
        goals = {r.name: r.goals for r in rows.all_rows() if r.goals}
        self.assertEqual(goals, {
            "read-4k-qd1": {BEST_PEER: 2.6, SERVER_CPU: 8},
            "read-4k-qd32": {BEST_PEER: 2.4, SERVER_CPU: 5},
            "write-4k-qd1": {BEST_PEER: 2.1}, "write-4k-qd32": {BEST_PEER: 2.1},
            "read-1m": {BEST_PEER: 3.5}, "write-1m": {BEST_PEER: 1.0},
            "read-4k-16-threads-unpinned": {BEST_PEER: 2.0},
            "allocate-4k-qd1": {BEST_PEER: 2.0}, "allocate-4k-qd32": {BEST_PEER: 2.0},
            "allocate-sequential-1m": {BEST_PEER: 1.0},
            "allocate-over-base-4k-qd1": {BEST_PEER: 10.0},
            "allocate-over-base-4k-qd32": {BEST_PEER: 10.0},
            "chain-read-4k-qd1": {CHAIN: 0.95}, "chain-read-4k-qd32": {CHAIN: 0.95},
            "passthrough-read-4k": {NATIVE: 0.9}, "passthrough-read-1m": {NATIVE: 0.9},
            "passthrough-write-1m": {NATIVE: 0.8}, "passthrough-write-4k": {NATIVE: 0.9},
            "loop-read-4k-qd32": {NATIVE: 0.4}, "loop-read-1m": {NATIVE: 0.4},
            "loop-fdatasync-4k": {NATIVE: 0.5}, "cached-read-4k": {NATIVE: 0.9},
            "mount-time": {ITSELF: 30}, "resident-memory": {ITSELF: 40},
            "convert-to-qcow2": {BEST_PEER: 1.0}, "convert-to-raw": {BEST_PEER: 1.0},
            "convert-compressing": {BEST_PEER: 1.0}, "convert-decompressing": {BEST_PEER: 1.0},
            "convert-chain": {BEST_PEER: 1.0}, "convert-1t-to-qcow2": {BEST_PEER: 1.0},
            "convert-1t-to-raw": {BEST_PEER: 1.0}, "compare": {BEST_PEER: 1.0},
            "check-1t": {BEST_PEER: 1.0}, "map-fragmented": {BEST_PEER: 1.0},
            "commit": {BEST_PEER: 1.0},
        })

    def test_rows_of_one_stage_stand_together(self):
        seen, last = [], None
        for r in rows.all_rows():
            if r.stage is not last:
                self.assertFalse(any(r.stage is s for s in seen), r.name)
                seen.append(r.stage)
                last = r.stage

    def test_rows_are_chosen_by_name_and_pattern_in_the_order_of_the_table(self):
        names = [r.name for r in rows.choose(["write-1m", "read-4k-qd1", "chain-*"])]
        self.assertEqual(names,
                         ["read-4k-qd1", "write-1m", "chain-read-4k-qd1", "chain-read-4k-qd32"])
        with self.assertRaisesRegex(ValueError, "no row is called 'reed-4k'"):
            rows.choose(["reed-4k"])


class Figures(unittest.TestCase):
    def test_a_ratio_is_the_median_of_those_of_the_rounds_against_the_best_peer(self):
        found = figures.of_row(row({BEST_PEER: 2.0}), server_results(
            bgfs=("ours", 900, 300, 30), slow=("peer", 500, 10, 10), fast=("peer", 300, 120, 12),
            native=("native", 900, 600, 60)))
        best = named(found, BEST_PEER)
        self.assertEqual((best["against"], best["met"]), ("fast", True))
        self.assertEqual((best["value"], best["least"], best["most"]), (2.5, 2.5, 3.0))
        self.assertEqual(named(found, NATIVE)["value"], 0.5)

    def test_the_cpu_time_of_the_best_peer_is_compared_too(self):
        by_server = {"bgfs": figures.of_server("ours", rounds(10, 10, server=0.01), False),
                     "q": figures.of_server("peer", rounds(5, 5, server=0.03), False)}
        found = named(figures.of_row(row(), by_server), PEER_CPU)
        self.assertEqual(found["against"], "q")
        self.assertAlmostEqual(found["value"], 3)

    def test_less_is_better_where_a_row_is_a_cost(self):
        found = figures.of_row(row({ITSELF: 30}, load=None), server_results(
            is_cost=True, bgfs=("ours", 40), quick=("peer", 20), slow=("peer", 100)))
        self.assertEqual(named(found, BEST_PEER)["against"], "quick")
        self.assertAlmostEqual(named(found, BEST_PEER)["value"], 0.5)
        self.assertEqual(named(found, ITSELF)["value"], 40)
        self.assertFalse(named(found, ITSELF)["met"])

    def test_a_cost_without_a_limit_is_nothing_but_a_ratio(self):
        found = figures.of_row(row({BEST_PEER: 1.0}, load=None), server_results(
            is_cost=True, bgfs=("ours", 40, 50), peer=("peer", 40, 50)))
        self.assertEqual([(f["name"], f["value"], f["met"]) for f in found],
                         [(BEST_PEER, 1.0, True)])
        self.assertTrue(plot.is_ratio_row({"figures": found, "goals": {BEST_PEER: 1.0}}))

    def test_cpu_time_is_held_against_its_limit(self):
        ours = {"bgfs": figures.of_server("ours", rounds(100, 100, server=0.0079), False)}
        found = figures.of_row(row({SERVER_CPU: 8}), ours)
        self.assertAlmostEqual(named(found, SERVER_CPU)["value"], 7.9)
        self.assertTrue(named(found, SERVER_CPU)["met"])

    def test_a_goal_with_nothing_to_compare_with_is_not_judged(self):
        r = row({BEST_PEER: 2.0})
        found = figures.of_row(r, server_results(bgfs=("ours", 1)))
        self.assertEqual(figures.unjudged(r, found), [BEST_PEER])

    def test_our_own_other_graph_is_compared_with_by_name(self):
        found = figures.of_row(row({CHAIN: 0.95}),
                               server_results(bgfs=("ours", 90), chain_of_1=("reference", 100)))
        self.assertEqual([(f["name"], f["met"]) for f in found], [(CHAIN, False)])

    def test_fifteen_percent_either_way_are_a_difference(self):
        self.assertFalse(figures.differs(0.149))
        self.assertTrue(figures.differs(0.151))
        self.assertFalse(figures.differs(1 / 1.149 - 1))
        self.assertTrue(figures.differs(1 / 1.151 - 1))


class Comparison(unittest.TestCase):
    def test_old_and_new_stand_side_by_side_and_what_differs_is_said(self):
        old = run_of(same=result_of(bgfs=("ours", 100), q=("peer", 50)),
                     better=result_of(bgfs=("ours", 100), q=("peer", 50)),
                     gone=result_of(bgfs=("ours", 100), q=("peer", 50)))
        new = run_of(same=result_of(bgfs=("ours", 110), q=("peer", 50)),
                     better=result_of(bgfs=("ours", 150), r=("peer", 50)))
        lines = report.comparison(old, new).splitlines()
        self.assertEqual([line for line in lines if line.startswith("same")][0].split()[-3:],
                         ["2", "2.2", "+10%"])
        better = [line for line in lines if line.startswith("better")][0]
        self.assertIn("(another one)", better)
        self.assertEqual(better.split()[-4:], ["2", "3", "+50%", "differs"])
        self.assertTrue(any(line.split() == "gone measured in one of the runs only".split()
                            for line in lines))
        self.assertTrue(lines[-1].startswith("1 of 2 figures differ by more than 15%"))

    def test_other_settings_are_pointed_out(self):
        old, new = run_of(), run_of()
        old["settings"] = {"seconds": 9, "rounds": 3}
        self.assertIn("settings differ: seconds was 9, is 1", report.comparison(old, new))
        self.assertNotIn("settings differ", report.comparison(new, new))

    def test_another_machine_is_pointed_out(self):
        old, new = run_of(), run_of()
        old["machine"] = old["machine"] | {"fuse over io_uring": "switched off"}
        self.assertIn("machine differ: fuse over io_uring was switched off, is allowed",
                      report.comparison(old, new))


class Header(unittest.TestCase):
    def test_a_peer_that_is_not_installed_is_said(self):
        lines = report.header(run_of()).splitlines()
        self.assertIn("compared with qcowmount 1", lines)
        self.assertIn("not installed: nbdfuse", lines)


class Measuring(unittest.TestCase):
    def test_servers_take_turns_and_another_one_begins_each_round(self):
        stage = FakeStage(FakeServer("bgfs", "ours"), FakeServer("a", "peer"),
                          FakeServer("b", "peer"))
        measured(row(stage=stage))
        self.assertEqual(stage.turns, ["bgfs", "a", "b", "a", "b", "bgfs", "b", "bgfs", "a"])

    def test_the_median_and_the_spread_of_the_rounds_are_kept(self):
        found, _ = measured(row(stage=FakeStage(FakeServer("bgfs", "ours", 10))))
        ours = found["a-row"]["servers"]["bgfs"]
        self.assertEqual((ours["median"], ours["least"], ours["most"]), (11, 10, 12))
        self.assertEqual(ours["detail"], "over a wire")
        self.assertAlmostEqual(ours["server-us"]["median"], 10)
        self.assertAlmostEqual(ours["machine-us"]["median"], 20)

    def test_a_peer_with_wrong_bytes_is_left_out_and_named(self):
        wrong = FakeServer("wrong", "peer", 1000, fault="wrong bytes")
        found, said = measured(row({BEST_PEER: 1.0}, stage=FakeStage(
            FakeServer("bgfs", "ours"), wrong, FakeServer("right", "peer", 50))))
        self.assertEqual(found["a-row"]["failed"], {"wrong": "it gives wrong bytes"})
        self.assertEqual(named(found["a-row"]["figures"], BEST_PEER)["against"], "right")
        self.assertIn("FAILED, and left out: wrong: it gives wrong bytes", said)
        self.assertFalse(wrong.is_running)

    def test_our_own_wrong_bytes_fail_every_row_of_the_stage(self):
        stage = FakeStage(FakeServer("bgfs", "ours", fault="wrong bytes"))
        found, _ = measured(row(stage=stage, name="one"), row(stage=stage, name="two"))
        self.assertEqual({r["state"] for r in found.values()}, {"failed"})

    def test_a_row_that_breaks_leaves_the_next_one_alone(self):
        broken = FakeServer("bgfs", "ours", fault="fails")
        found, said = measured(row(stage=FakeStage(broken), name="one"),
                               row(stage=FakeStage(FakeServer("bgfs", "ours")), name="two"))
        self.assertEqual([r["state"] for r in found.values()], ["failed", "measured"])
        self.assertIn("failed: it fell over", said)
        self.assertFalse(broken.is_running)

    def test_an_image_found_broken_at_the_end_takes_its_figures_back(self):
        stage = FakeStage(FakeServer("bgfs", "ours"), at_end=Broken("it leaks"))
        found, said = measured(row(stage=stage))
        self.assertEqual((found["a-row"]["state"], found["a-row"]["figures"]), ("failed", []))
        self.assertIn("it leaks", said)

    def test_what_the_machine_lacks_is_not_available_and_no_failure(self):
        found, said = measured(row({NATIVE: 0.9}, stage=FakeStage(require=Unavailable("no root"))))
        self.assertEqual(found["a-row"]["state"], "not available")
        self.assertEqual(found["a-row"]["unjudged"], [NATIVE])
        self.assertIn("not available: no root", said)

    def test_who_cannot_write_takes_no_part_in_writes(self):
        stage = FakeStage(FakeServer("bgfs", "ours"), FakeServer("reader", "peer", can_write=False))
        found, _ = measured(row(stage=stage, load=Load("randwrite", "4k")))
        self.assertEqual(list(found["a-row"]["servers"]), ["bgfs"])
        self.assertEqual(found["a-row"]["missing"], {"reader": "cannot write"})


class Loads(unittest.TestCase):
    def test_allocating_writes_touch_each_cluster_once_over_all_rounds(self):
        area, clusters = 4 * MiB, []
        for number in range(3):
            lines = [line.split() for line in fio.once_script("/f", area, number).splitlines()]
            writes = [(int(w[2]), int(w[3])) for w in lines if w[1] == "write"]
            self.assertTrue(all(area * number <= at < area * (number + 1) for at, _ in writes))
            self.assertTrue(all(at % 4096 == 0 and length == 4096 for at, length in writes))
            clusters += [at // fio.CLUSTER for at, _ in writes]
        self.assertEqual(sorted(clusters), list(range(3 * area // fio.CLUSTER)))
        self.assertNotEqual(clusters, sorted(clusters))

    def test_sequential_allocating_writes_begin_where_the_round_before_ended(self):
        load = rows.onwards("1M", 4, 8 * MiB)
        words = fio.command_of(load, "/f", load.length, 0.25, 3, pathlib.Path("/"))
        self.assertIn("--rw=write", words)
        self.assertIn(f"--offset={24 * MiB}", words)
        self.assertIn(f"--size={8 * MiB}", words)
        self.assertNotIn("--time_based", words)

    def test_a_load_says_what_fio_needs(self):
        words = fio.command_of(rows.READ_16_THREADS, "/f", 64 * MiB, 0.25, 0, pathlib.Path("/"))
        for word in ("--rw=randread", "--bs=4k", "--ioengine=psync", "--numjobs=16", "--direct=1",
                     "--runtime=250ms", "--time_based", f"--size={64 * MiB}"):
            self.assertIn(word, words)


class WritesInFlight(unittest.TestCase):
    def test_who_keeps_them_apart_passes(self):
        fio.require_kept_apart(0, "")

    def test_who_mixes_them_up_is_told_with_the_places(self):
        said = "verify: bad header offset 45056, wanted 40960 at file /x offset 40960"
        with self.assertRaisesRegex(Broken, "mixes up .* at 0xa000 lies what was written to 0xb00"):
            fio.require_kept_apart(1, said)

    def test_who_loses_them_is_told(self):
        with self.assertRaisesRegex(Broken, "does not give back"):
            fio.require_kept_apart(1, "crc32c: verify failed at file /x offset 1")

    def test_anything_else_is_passed_on(self):
        with self.assertRaisesRegex(Broken, "ended with 1: fio: no such engine"):
            fio.require_kept_apart(1, "fio: no such engine")


class Content(unittest.TestCase):
    CHECKED = ((0, MiB), (2 * MiB, MiB))

    def setUp(self):
        self.path = pathlib.Path(tempfile.mkdtemp()) / "disk"
        self.addCleanup(shutil.rmtree, self.path.parent)
        images.write_raw(self.path, 3 * MiB)

    def test_right_bytes_pass(self):
        images.require_content(self.path, self.CHECKED)

    def test_one_wrong_bit_is_found(self):
        with open(self.path, "r+b") as file:
            file.seek(2 * MiB + 4711)
            byte = file.read(1)[0]
            file.seek(2 * MiB + 4711)
            file.write(bytes([byte ^ 4]))
        with self.assertRaisesRegex(Broken, "gives wrong bytes at 0x200000, 0x100000 long"):
            images.require_content(self.path, self.CHECKED)

    def test_two_places_swapped_are_found(self):
        data = self.path.read_bytes()
        self.path.write_bytes(data[2 * MiB:] + data[MiB:2 * MiB] + data[:MiB])
        with self.assertRaisesRegex(Broken, "wrong bytes at 0x0"):
            images.require_content(self.path, self.CHECKED)

    def test_an_early_end_is_found(self):
        os.truncate(self.path, 3 * MiB - 512)
        with self.assertRaisesRegex(Broken, "it ends 512 bytes early"):
            images.require_content(self.path, self.CHECKED)

    def test_bytes_in_an_empty_image_are_found(self):
        with self.assertRaisesRegex(Broken, "bytes that nobody wrote at 0x100000"):
            images.require_zeroes(self.path, MiB, MiB)

    @unittest.skipIf(shutil.which("qemu-img") is None, "qemu-img is not installed")
    def test_a_write_that_never_reached_the_image_is_found(self):
        image = self.path.parent / "image.qcow2"
        images.create_qcow2(image, 4 * MiB)
        with self.assertRaisesRegex(Broken, "does not hold what was written"):
            images.require_mark_in_image(image, 3 * MiB, self.path.parent)


class Picture(unittest.TestCase):
    def draw(self, **by_row):
        drawn = plot.draw(run_of(**by_row))
        tree = xml.etree.ElementTree.fromstring(drawn)
        space = "{http://www.w3.org/2000/svg}"
        bars = [r for r in tree.iter(space + "rect") if r.get("class") == "bar"]
        legend = 3
        return bars[legend:], [t.text for t in tree.iter(space + "text")]

    def test_a_bar_goes_from_one_to_the_ratio_and_its_colour_is_the_verdict(self):
        bars, texts = self.draw(
            quick=result_of({BEST_PEER: 1.5}, bgfs=("ours", 200), q=("peer", 100)),
            slow=result_of({BEST_PEER: 1.5}, bgfs=("ours", 50), q=("peer", 100)),
            plain=result_of(bgfs=("ours", 50), q=("peer", 100)))
        self.assertEqual([b.get("fill") for b in bars],
                         [plot.COLOURS[v] for v in ("met", "missed", "no goal")])
        right, left = bars[0], bars[1]
        one = float(right.get("x"))
        self.assertAlmostEqual(float(left.get("x")) + float(left.get("width")), one, delta=0.2)
        self.assertAlmostEqual(float(left.get("width")), float(right.get("width")), delta=0.2)
        for words in ("quick", "2.00x of 1.5x", "0.50x"):
            self.assertIn(words, texts)

    def test_names_cannot_break_the_picture_and_missing_rows_are_said(self):
        gone = measuring.empty_result(row({NATIVE: 0.9}), "not available", "<&>")
        bars, texts = self.draw(**{"a<b&c": gone})
        self.assertEqual(bars, [])
        self.assertIn("a<b&c", texts)
        self.assertIn("not available", texts)

    def test_a_limit_has_a_bar_of_its_own(self):
        cost = row({ITSELF: 30}, load=None)
        found = figures.of_row(cost, server_results(is_cost=True, bgfs=("ours", 45)))
        bars, texts = self.draw(
            time=measuring.empty_result(cost, "measured", "") | {"figures": found})
        self.assertEqual(len(bars), 1)
        self.assertIn("45 of 30 ms", texts)


class TheCommand(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def saved(self, **by_row):
        path = self.directory / "run.json"
        path.write_text(json.dumps(run_of(**by_row)), encoding="utf-8")
        return str(path)

    def test_an_unknown_row_is_a_mistake_in_usage(self):
        status, _, errors = outcome_of("no-such-row")
        self.assertEqual(status, 2)
        self.assertIn("no row is called 'no-such-row'; see --list", errors)

    def test_no_time_is_a_mistake_in_usage(self):
        status, _, errors = outcome_of("--rounds", "0")
        self.assertEqual(status, 2)
        self.assertIn("there is at least one round", errors)

    def test_the_list_names_every_row_with_its_goals(self):
        status, out, _ = outcome_of("--list")
        self.assertEqual(status, 0)
        self.assertEqual(len(out.splitlines()), len(list(rows.all_rows())))
        self.assertIn("best peer 2.6, server CPU 8", out)

    def test_a_missed_goal_matters_only_when_asked(self):
        run = self.saved(a=result_of({BEST_PEER: 2.0}, bgfs=("ours", 1), q=("peer", 1)))
        self.assertEqual(outcome_of("--load", run)[0], 0)
        self.assertEqual(outcome_of("--load", run, "--require-goals")[0], 1)

    def test_a_goal_that_nobody_judged_is_not_met(self):
        run = self.saved(a=result_of({BEST_PEER: 2.0}, bgfs=("ours", 1)))
        self.assertEqual(outcome_of("--load", run)[0], 0)
        self.assertEqual(outcome_of("--load", run, "--require-goals")[0], 1)

    def test_a_row_that_failed_is_the_status_and_one_not_available_is_not(self):
        failed = self.saved(a=measuring.empty_result(row(), "failed", "why"))
        self.assertEqual(outcome_of("--load", failed)[0], 1)
        gone = self.saved(a=measuring.empty_result(row(), "not available", "why"))
        self.assertEqual(outcome_of("--load", gone)[0], 0)

    def test_met_goals_are_counted(self):
        run = self.saved(a=result_of({BEST_PEER: 2.0}, bgfs=("ours", 4), q=("peer", 1)),
                         b=result_of({NATIVE: 0.9}, bgfs=("ours", 1), native=("native", 2)))
        status, out, _ = outcome_of("--load", run)
        self.assertEqual(status, 0)
        self.assertIn("1 met, 1 missed, 0 not judged", out)

    def test_without_a_program_nothing_is_measured(self):
        missing = str(self.directory / "bgfs")
        with unittest.mock.patch.object(main, "BGFS", missing):
            status, _, errors = outcome_of("read-4k-qd1")
        self.assertEqual(status, 1)
        self.assertIn(f"there is no bgfs at {missing}; set BGFS", errors)

    def test_what_is_no_run_is_refused(self):
        path = self.directory / "x.json"
        path.write_text("{}", encoding="utf-8")
        status, _, errors = outcome_of("--load", str(path))
        self.assertEqual(status, 1)
        self.assertIn("is no saved run of this benchmark", errors)

    def test_a_run_is_saved_loaded_compared_and_drawn(self):
        run = self.saved(a=result_of(bgfs=("ours", 4), q=("peer", 1)))
        copy, picture = self.directory / "copy.json", self.directory / "plot.svg"
        status, out, _ = outcome_of("--load", run, "--save", str(copy), "--compare", run, "--plot",
                                    str(picture))
        self.assertEqual(status, 0)
        self.assertEqual(json.loads(copy.read_text()), json.loads(pathlib.Path(run).read_text()))
        self.assertIn("0 of 1 figures differ", out)
        self.assertTrue(picture.read_text().startswith("<svg"))


class RequestCost(unittest.TestCase):
    CASE = ("read", "raw/file", 1)

    def program(self, text, status=0):
        path = pathlib.Path(tempfile.mkdtemp()) / "program"
        self.addCleanup(shutil.rmtree, path.parent)
        path.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {status}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def tally_of(self, check, *arguments):
        """The counts, and what was printed."""
        tally, out = request_cost.Tally(), io.StringIO()
        with contextlib.redirect_stdout(out):
            check(*arguments, tally)
        return (tally.passed, tally.failed, tally.skipped), out.getvalue()

    def allocations(self, text, status=0):
        return self.tally_of(request_cost.check_allocations, self.program(text, status), self.CASE)

    def test_no_trip_to_the_heap_passes_and_one_fails_with_who_made_it(self):
        self.assertEqual(self.allocations("allocations before: 9\nallocations: 0\n")[0], (1, 0, 0))
        counts, said = self.allocations("allocations before: 9\nallocations: 1\nallocated by me\n")
        self.assertEqual(counts, (0, 1, 0))
        self.assertIn("1 for 2000 requests", said)
        self.assertIn("allocated by me", said)

    def test_a_counter_that_never_counts_fails(self):
        counts, said = self.allocations("allocations before: 0\nallocations: 0\n")
        self.assertEqual(counts, (0, 1, 0))
        self.assertIn("the counter does not work", said)

    def test_a_program_that_fails_fails(self):
        self.assertEqual(self.allocations("", status=1)[0], (0, 1, 0))

    def test_ten_percent_more_instructions_than_recorded_are_the_limit(self):
        for count, recorded, wanted in ((1099, 1000, (1, 0, 0)), (1101, 1000, (0, 1, 0)),
                                        (500, 1000, (1, 0, 0)), (1000, None, (0, 0, 1))):
            counts, _ = self.tally_of(request_cost.check_instructions, self.CASE, count, recorded)
            self.assertEqual(counts, wanted, (count, recorded))

    def test_a_counter_with_a_record_goes_before_one_without(self):
        def never(_program, _case):
            raise request_cost.Unable("it cannot")

        counters = {"never": never, "one": lambda *_: 1, "two": lambda *_: 2}
        choose, known = request_cost.choose_counter, {request_cost.record_name("two"): {}}
        with unittest.mock.patch.object(request_cost, "COUNTERS", counters):
            self.assertEqual(choose("", None, known), ("two", "never: it cannot"))
            self.assertEqual(choose("", None, {})[0], "one")
            self.assertEqual(choose("", "never", {}), (None, "never: it cannot"))

    def test_a_profile_without_the_measured_part_is_a_failure(self):
        with unittest.mock.patch.object(request_cost, "run"), \
                unittest.mock.patch.object(shutil, "which", lambda _: "valgrind"):
            with self.assertRaisesRegex(request_cost.Broken, "was never reached"):
                request_cost.callgrind_count("", self.CASE)

    def test_every_case_is_on_record_for_valgrind(self):
        record = json.loads(request_cost.RECORD.read_text())
        names = [request_cost.name_of(c) for c in request_cost.cases([1, 32])]
        self.assertEqual(sorted(record["x86_64 callgrind"]), sorted(names))


def lacks():
    """Why a real row cannot be measured here; empty: it can."""
    commands = [c for c in ("fio", "qemu-img", "taskset") if shutil.which(c) is None]
    if commands:
        return ", ".join(commands) + ": not installed"
    if not os.access(machine.BGFS, os.X_OK):
        return f"there is no bgfs at {machine.BGFS}"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"


class ARealRow(unittest.TestCase):
    @unittest.skipIf(lacks(), lacks())
    def test_one_row_is_measured_and_leaves_nothing_behind(self):
        with tempfile.TemporaryDirectory() as directory:
            saved = os.path.join(directory, "run.json")
            status, out, errors = outcome_of("--seconds", "0.1", "--rounds", "1", "write-4k-qd1",
                                             "--save", saved)
            self.assertEqual(status, 0, out + errors)
            result = json.loads(pathlib.Path(saved).read_text())["rows"]["write-4k-qd1"]
        self.assertEqual(result["state"], "measured", result["reason"])
        for server in ("bgfs", "native"):
            self.assertGreater(result["servers"][server]["median"], 0)
        ours = result["servers"]["bgfs"]
        self.assertGreater(ours["server-us"]["median"], 0)
        self.assertGreater(ours["machine-us"]["median"], ours["server-us"]["median"])
        self.assertTrue(ours["detail"].startswith("over "), ours["detail"])
        ours = f"bgfs-bench-{os.getpid()}-"
        self.assertEqual([name for name in os.listdir("/dev/shm") if name.startswith(ours)], [])
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            self.assertNotIn(ours, mounts.read())


def run_all(pattern):
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{pattern}*"] if pattern else None
    suite = unittest.TestSuite(loader.loadTestsFromModule(module)
                               for module in (sys.modules[__name__], commands_test))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed, "
          f"{len(result.skipped)} skipped")
    return 1 if bad or result.testsRun == 0 else 0


if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1] if len(sys.argv) > 1 else ""))
