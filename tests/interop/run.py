#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the interop cases: tests/interop/run.py [-x] [FILTER]...

A case is a function case_NAME() of a file, called FILE.NAME, or a whole file that has none and is a
program of its own. A filter is a regular expression on the case's name. -x stops at the first
failure. BGFS names the program to test. Prints one line a case and ends with "N passed, M failed, K
skipped".
"""
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
import interop  # noqa: E402


def all_cases():
    for name in sorted(os.listdir(HERE)):
        if not name.endswith(".py") or name == "run.py":
            continue
        with open(os.path.join(HERE, name), encoding="utf-8") as f:
            has_cases = re.search(r"^def case_", f.read(), re.M)
        if not has_cases:
            yield name[:-3], functools.partial(run_program, os.path.join(HERE, name))
            continue
        module = importlib.import_module(name[:-3])
        for item, function in list(vars(module).items()):
            if item.startswith("case_") and callable(function):
                yield f"{name[:-3]}.{item[5:]}", function


def run_program(path):
    """A file that is a program: passes with exit status 0, is skipped with 77."""
    done = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(os.environ, BGFS=interop.PROGRAM), check=False)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode == 77:
        raise interop.Skip(text.strip().splitlines()[-1] if text.strip() else "it says no more")
    if done.returncode != 0:
        raise AssertionError(f"exit status {done.returncode}\n{text[-4000:]}")


def run_case(function):
    """Runs it in a directory of its own; returns the outcome and why."""
    back = os.getcwd()
    place = tempfile.mkdtemp(prefix="bgfs-interop-")
    os.chdir(place)
    try:
        function()
        return "PASS", ""
    except interop.Skip as why:
        return "SKIP", str(why)
    except Exception as e:  # whatever goes wrong in a case is its failure
        return "FAIL", "".join(traceback.format_exception(type(e), e, e.__traceback__)[-3:])
    finally:
        os.chdir(back)
        shutil.rmtree(place, ignore_errors=True)


def main():
    words = sys.argv[1:]
    stops = "-x" in words
    filters = [re.compile(w) for w in words if w != "-x"]
    counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    for name, function in all_cases():
        if filters and not any(f.search(name) for f in filters):
            continue
        begin = time.monotonic()
        outcome, why = run_case(function)
        counts[outcome] += 1
        print(f"{outcome} {name} ({time.monotonic() - begin:.1f} s){': ' if why else ''}{why}",
              flush=True)
        if outcome == "FAIL" and stops:
            break
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 1 if counts["FAIL"] or not counts["PASS"] else 0


if __name__ == "__main__":
    sys.exit(main())
