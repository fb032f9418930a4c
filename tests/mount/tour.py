# SPDX-License-Identifier: MIT
"""The tour of README.md is what examples/tour prints."""
import pathlib
import re

from mount_suite import *  # noqa: F403

TOP = pathlib.Path(__file__).resolve().parents[2]


@case("the tour with coreutils goes through, and is what README.md shows",
      needs=["truncate", "dd", "cmp", "sed"], timeout=300)
def tour(env):
    place = env / "tour"
    path = f"{pathlib.Path(BGFS).parent}:{os.environ['PATH']}"
    done = run(TOP / "examples/tour", place, ok=False,
               env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}, stderr=subprocess.STDOUT)
    shown = re.search(r"^## A tour\n.*?```console\n(.*?)^```$", (TOP / "README.md").read_text(),
                      re.MULTILINE | re.DOTALL)
    check(shown is not None, "README.md has no tour")
    said = done.stdout.replace(str(place), "/tmp/tour").strip().splitlines()
    wanted = shown[1].strip().splitlines()
    for number, (mine, readme) in enumerate(zip(said, wanted)):
        equal(mine, readme, f"line {number + 1} of the tour")
    equal(len(said), len(wanted), "lines of the tour")
    equal(done.returncode, 0, "exit status")
    with fails_with(errno.ENOTEMPTY, errno.ENOTDIR, errno.ENOENT):
        os.rmdir(place / "mnt/web.d")  # it is unmounted
