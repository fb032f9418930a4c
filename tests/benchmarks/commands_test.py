# SPDX-License-Identifier: MIT
"""Whether the rows of command lines can be believed; part of self_test.py. Ours is a script here
that does what qemu-img does, but for what the case is about."""
import os
import pathlib
import shutil
import stat
import tempfile
import unittest
import unittest.mock
import zlib

from . import commands, inputs, machine, measuring, rows, stages
from .machine import GiB, KiB, MiB, Broken
from .rows import BEST_PEER

SMALL = {"HALF_LENGTH": 4 * MiB, "TEXT_LENGTH": 4 * MiB, "CLUSTERS_OF_OVERLAY": 4,
         "CLUSTERS_TO_COMMIT": 8, "TERABYTE": GiB, "CLUSTERS_OF_SPARSE": 4, "FRAGMENTS": 16,
         "SPACE": 64 * MiB}

HONEST = 'qemu-img "$@"\n'
LAST_WORD = "for last; do :; done\n"
# Another byte in the middle of what was made.
SPOIL = LAST_WORD + 'printf x | dd of="$last" conv=notrunc bs=1 seek=1048576 2>/dev/null\n'


def lacks():
    missing = [c for c in ("qemu-img", "qemu-io") if shutil.which(c) is None]
    return ", ".join(missing) + ": not installed" if missing else ""


@unittest.skipIf(lacks(), lacks())
class CommandLines(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.patch(inputs, **SMALL)
        self.patch(machine, filesystem_of=lambda _: "ext4")
        self.patch(os, sync=lambda: None)

    def patch(self, module, **values):
        patched = unittest.mock.patch.multiple(module, **values)
        patched.start()
        self.addCleanup(patched.stop)

    def script(self, body):
        path = self.directory / "program"
        path.write_text("#!/bin/sh\n" + body, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    def measured(self, name, ours=HONEST, count=2, peer="qemu-img"):
        """The result of one row, and what was said; ours and peer are a script or a command."""
        ours, peer = (self.script(p) if "\n" in p else p for p in (ours, peer))
        self.patch(commands, PROGRAMS=(("bgfs", "ours", ours), ("qemu-img", "peer", peer)))
        disk, said = self.directory / "disk", []
        disk.mkdir(exist_ok=True)
        settings = stages.Settings(0.1, count, str(disk))
        try:
            found = measuring.measure_all(rows.choose([name]), settings, said.append)
        finally:
            settings.clean_up()
        self.assertEqual(list(disk.iterdir()), [])
        return found[name], "\n".join(said)

    def assert_fails(self, name, ours, why):
        found, _ = self.measured(name, ours)
        self.assertEqual(found["state"], "failed")
        self.assertRegex(found["reason"], why)

    def test_every_row_is_measured_and_judged(self):
        for row in rows.command_rows():
            with self.subTest(row.name):
                found, _ = self.measured(row.name)
                self.assertEqual((found["state"], found["failed"]), ("measured", {}),
                                 found["reason"])
                self.assertEqual([f["name"] for f in found["figures"]], [BEST_PEER])
                self.assertEqual(len(found["servers"]["bgfs"]["values"]), 2)

    @unittest.skipUnless(os.access(machine.BGFS, os.X_OK), f"there is no bgfs at {machine.BGFS}")
    def test_our_own_program_gets_every_row_right(self):
        for row in rows.command_rows():
            with self.subTest(row.name):
                found, _ = self.measured(row.name, machine.BGFS, count=1)
                self.assertEqual(found["state"], "measured", found["reason"])

    def test_who_takes_longer_is_the_slower_one(self):
        found, said = self.measured("compare", "sleep 0.1\n" + HONEST)
        self.assertLess(found["figures"][0]["value"], 0.7)
        self.assertFalse(found["figures"][0]["met"])
        self.assertIn("against qemu-img, the best peer", said)

    def test_wrong_bytes_of_ours_fail_the_row(self):
        for name in ("convert-to-raw", "convert-decompressing", "convert-1t-to-raw"):
            self.assert_fails(name, HONEST + SPOIL, "Content mismatch at offset")

    def test_another_length_fails_the_row(self):
        self.assert_fails("convert-to-raw", HONEST + LAST_WORD + 'truncate -s -512 "$last"\n',
                          "target has another length than")

    def test_an_image_that_is_not_sound_fails_the_row(self):
        # The reference count of cluster 5; what the image shows stays the same.
        wrong_count = f"printf '\\2' | dd of=\"$last\" conv=notrunc bs=1 seek={0x20000 + 11} 2>&1\n"
        self.assert_fails("convert-to-qcow2", HONEST + LAST_WORD + wrong_count, "qemu-img check")

    def test_wrong_bytes_of_the_peer_leave_it_out(self):
        found, said = self.measured("convert-to-raw", "qemu-img", peer=HONEST + SPOIL)
        self.assertEqual((found["state"], found["unjudged"]), ("measured", [BEST_PEER]))
        self.assertIn("FAILED, and left out: qemu-img: ", said)

    def test_wrong_bytes_in_a_later_round_fail_the_row(self):
        count = self.directory / "count"
        later = f'echo >>{count}; test $(wc -l <{count}) -lt 3 && exit 0\n'
        self.assert_fails("convert-to-raw", HONEST + later + SPOIL, "Content mismatch")
        self.assertEqual(count.read_text(), "\n" * 3)

    def test_what_is_not_compressed_fails_the_row(self):
        self.assert_fails("convert-compressing", 'shift 2; qemu-img convert "$@"\n',
                          "it compresses to .* bytes, more than")

    def test_who_sees_no_difference_fails_the_row(self):
        self.assert_fails("compare", "true\n", "ended with 0 instead of 1")

    def test_who_does_not_look_at_every_cluster_fails_the_row(self):
        self.assert_fails("check-1t", """echo '{"check-errors": 0, "total-clusters": 16384}'\n""",
                          "allocated-clusters is None instead of 16384")
        self.assert_fails("check-1t", "echo No errors\n", "it prints no JSON")

    def test_a_map_with_another_place_fails_the_row(self):
        self.assert_fails("map-fragmented", HONEST.strip() + " | sed 's/offset\": /&1/'\n",
                          "fragment 0 does not lie at 0x")
        self.assert_fails("map-fragmented", HONEST.strip() + " | sed 's/4096/8192/'\n",
                          "extent 0 is .* instead of")
        self.assert_fails("map-fragmented", "echo []\n", "maps 0 extents instead of 32")

    def test_a_commit_that_changes_nothing_or_leaves_the_overlay_full_fails_the_row(self):
        self.assert_fails("commit", "true\n", "Content mismatch")
        self.assert_fails("commit", 'shift; qemu-img commit -d "$@"\n', "the overlay is not empty")

    def test_a_program_that_fails_is_quoted(self):
        self.assert_fails("convert-to-raw", "echo out of luck >&2; exit 7\n",
                          "convert .* ended with 7 instead of 0: out of luck")

    def test_a_program_that_is_missing_is_not_available(self):
        for ours, peer in (("qemu-img", "no-such-program"), ("no-such-program", "qemu-img")):
            found, said = self.measured("compare", ours, peer=peer)
            self.assertEqual(found["state"], "not available")
            self.assertEqual(found["unjudged"], [BEST_PEER])
            self.assertIn("not available: not installed: no-such-program", said)

    def test_too_little_space_is_not_available(self):
        self.patch(inputs, SPACE=1 << 60)
        found, _ = self.measured("compare")
        self.assertEqual(found["state"], "not available")


class Inputs(unittest.TestCase):
    def test_holes_are_not_read(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "file"
            with open(path, "wb") as file:
                file.truncate(1024 * GiB)
                file.seek(512 * GiB)
                file.write(bytes(64 * KiB))
            inputs.warm(path)

    def test_text_compresses_and_no_two_are_alike(self):
        text, other = inputs.text(1), inputs.text(2)
        self.assertEqual(len(text), MiB)
        self.assertNotEqual(text, other)
        self.assertLess(len(zlib.compress(text[:inputs.CLUSTER])), inputs.CLUSTER * 0.6)


class MapOfFragments(unittest.TestCase):
    def setUp(self):
        patched = unittest.mock.patch.object(inputs, "FRAGMENTS", 2)
        patched.start()
        self.addCleanup(patched.stop)
        self.path = pathlib.Path(tempfile.mkdtemp()) / "image"
        self.addCleanup(shutil.rmtree, self.path.parent)
        self.path.write_bytes(inputs.mark_of(1) + inputs.mark_of(0))
        self.extents = [self.extent(0, True) | {"offset": 8}, self.extent(1, False),
                        self.extent(2, True) | {"offset": 0}, self.extent(3, False)]

    def extent(self, index, is_data):
        return {"start": index * inputs.FRAGMENT, "length": inputs.FRAGMENT, "data": is_data,
                "zero": not is_data}

    def test_the_right_one_passes(self):
        commands.require_map(self.extents, self.path)

    def test_every_difference_is_found(self):
        for index, change, why in (
                (0, {"start": 512}, "extent 0 is"), (1, {"length": 512}, "extent 1 is"),
                (1, {"data": True}, "extent 1 is"), (2, {"zero": True}, "extent 2 is"),
                (2, {"offset": 8}, "fragment 1 does not lie at 0x8")):
            changed = [dict(extent) for extent in self.extents]
            changed[index] |= change
            with self.assertRaisesRegex(Broken, why):
                commands.require_map(changed, self.path)
