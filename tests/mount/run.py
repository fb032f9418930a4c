#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The mount suite: real mounts of the bgfs named by BGFS, looked at as its users would. Run as root.

  tests/mount/run.py [--deny-io-uring] [--transport uring|dev] [--cache none|kernel]
                     [--passthrough off|on] [--queues COUNT] [--list] [FILTER...]

A FILTER is part of a case's name. One line a case; the last line counts them. --transport enables
FUSE over io_uring in the kernel, or disables it, and puts it back at the end. --cache is that of
every export that names none, but in cases that are about it; so is --passthrough, and "on" makes
every writable export that is a file as it is one that the kernel serves by itself. --queues is that
of every mount that does not say. What --cache and --passthrough do not change is left out.
"""
import argparse
import importlib
import os
import pathlib
import shutil
import signal
import sys
import time
import traceback

here = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent / "lib")]
import deny_io_uring  # noqa: E402
import mount_suite  # noqa: E402

class TimedOut(Exception):
    pass


def ring(*_):
    raise TimedOut()


def run_case(name, function, needs, timeout, as_written, unpassed):
    """Returns (word, detail)."""
    missing = [c for c in needs if shutil.which(c) is None]
    if missing:
        return "skipped", f"needs {', '.join(missing)}"
    env = mount_suite.Env(name)
    env.is_as_written, env.is_unpassed = as_written, unpassed
    word, detail = "passed", ""
    signal.signal(signal.SIGALRM, ring)
    signal.alarm(timeout)
    try:
        function(env)
    except mount_suite.Skip as why:
        word, detail = "skipped", str(why)
    except mount_suite.Failure as why:
        word = "failed"
        detail = f"{why} [{traceback.extract_tb(why.__traceback__)[1].lineno}]"
    except TimedOut:
        word, detail = "failed", f"took longer than {timeout} s"
    except Exception:  # noqa: BLE001: whatever it is, the next case runs
        word, detail = "failed", traceback.format_exc(limit=-3)
    signal.alarm(0)
    reports = env.clean_up()
    if reports:
        word, detail = "failed", f"{detail}\n{''.join(reports)}"
    return word, detail


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deny-io-uring", action="store_true")
    parser.add_argument("--transport", choices=["uring", "dev"])
    parser.add_argument("--cache", choices=["none", "kernel"])
    parser.add_argument("--passthrough", choices=["off", "on"])
    parser.add_argument("--queues", type=int)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("filters", nargs="*")
    arguments = parser.parse_args()
    for path in sorted(here.glob("*.py")):
        if path.name != "run.py":
            importlib.import_module(path.stem)
    chosen = [c for c in mount_suite.cases
              if not arguments.filters or any(f in c[0] for f in arguments.filters)]
    if arguments.list:
        print("\n".join(c[0] for c in chosen))
        return 0
    if os.geteuid() != 0:
        print("the mount suite needs root: it mounts", file=sys.stderr)
        return 1
    if not os.access(mount_suite.BGFS, os.X_OK):
        print(f"there is no bgfs to test at {mount_suite.BGFS}; set BGFS", file=sys.stderr)
        return 1
    if arguments.transport == "uring" and not mount_suite.RING_SWITCH.exists():
        print("0 passed, 0 failed, 1 skipped: the kernel has no FUSE over io_uring")
        return 0
    mount_suite.enter_private_namespace()
    if arguments.cache:
        mount_suite.export_defaults["cache"] = arguments.cache
    if arguments.passthrough == "off":
        mount_suite.export_defaults["passthrough"] = "off"
    elif arguments.passthrough == "on":
        mount_suite.whole_file_defaults.update({"passthrough": "on", "growable": True})
    if arguments.queues:
        mount_suite.mount_defaults.append(f"queues={arguments.queues}")
    if arguments.deny_io_uring:
        deny_io_uring.install()
        os.environ["BGFS_TEST_NO_IO_URING"] = "1"
    chosen = leave_out(chosen, arguments)
    with mount_suite.ring_enabled(arguments.transport):
        return run_all(chosen)


def leave_out(chosen, arguments):
    """Those that --cache or --passthrough do not change run without them already."""
    def is_concerned(case):
        _, _, _, _, as_written, unpassed = case
        if arguments.passthrough == "on":
            return not as_written and not unpassed
        return not as_written or not (arguments.cache or arguments.passthrough)

    left = [c for c in chosen if is_concerned(c)]
    if len(left) < len(chosen):
        print(f"{len(chosen) - len(left)} cases are left out, which are the same without the option")
    return left


def run_all(chosen):
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for name, *case in chosen:
        begin = time.monotonic()
        word, detail = run_case(name, *case)
        count[word] += 1
        line = f"{word:8}{name} ({time.monotonic() - begin:.1f} s)"
        print(f"{line}: {detail}" if detail else line, flush=True)
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
