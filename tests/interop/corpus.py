# SPDX-License-Identifier: MIT
"""The developer corpus: images made elsewhere, read and compared; and broken ones, refused or read,
but never a crash, a hang, or a hog. BGFS_CORPUS says where it is; ../shared/corpus if not."""
import bz2
import gzip
import json
import lzma
import os
import resource
import shutil
import subprocess
import sys

import interop
from interop import REPORT, Skip

FORMATS = ("raw", "qcow2")  # the others wait for their drivers
MEMORY_MAX = 1 << 30


def corpus():
    place = os.environ.get("BGFS_CORPUS") or os.path.join(interop.TOP, "..", "shared", "corpus")
    if not os.path.exists(os.path.join(place, "verify.py")):
        raise Skip("the corpus is not here; BGFS_CORPUS says where it is")
    return os.path.abspath(place)


def verify(place, *options):
    results = "results.json"
    template = (f"{interop.PROGRAM} convert --allow-raw-references=. -O raw "
                "[[--object secret,id=sec0,file={key}]] [[-l snapshot.name={snapshot}]] {spec} {out}")
    subprocess.run([sys.executable, os.path.join(place, "verify.py"), "--json", results, *options,
                    "--", template], stdout=subprocess.DEVNULL, check=False)
    with open(results, encoding="utf-8") as f:
        return json.load(f)


def case_images_are_read_right():
    place = corpus()
    wrong = []
    passed = 0
    for kind in FORMATS:
        for r in verify(place, "--format", kind):
            if r["result"] == "FAIL":
                wrong.append(f"{r['id']}: {r['why']}")
            passed += r["result"] == "PASS"
    if wrong:
        raise AssertionError("\n".join(wrong))
    assert passed > 0, "the corpus has no image of our formats"


def unpack(source, target):
    openers = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
    opener = openers.get(os.path.splitext(source)[1], open)
    with opener(source, "rb") as packed, open(target, "wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)


def limit_memory():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def survives(words, name):
    """Ends by itself, without a crash, in time and memory; returns what was wrong."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               preexec_fn=limit_memory)
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"{name}: {words[1]} hangs"
    text = err.decode("utf-8", "replace")
    if process.returncode not in (0, 1):
        return f"{name}: {words[1]} ended with {process.returncode}: {text[-300:]}"
    if REPORT.search(text):
        return f"{name}: {words[1]}: {text[-2000:]}"
    if process.returncode == 1 and not text.startswith("bgfs "):
        return f"{name}: {words[1]} failed without a word"
    return None


def case_broken_images_do_no_harm():
    folder = os.path.join(corpus(), "bad")
    if not os.path.isdir(folder):
        raise Skip("the corpus has no broken images")
    wrong = []
    count = 0
    for packed in sorted(os.listdir(folder)):
        name = packed[:-3] if packed.endswith(".xz") else packed
        image = name.rsplit("__", 1)[-1] if "__" in name else name
        unpack(os.path.join(folder, packed), image)
        count += 1
        for words in (["info", "--backing-chain", image], ["map", "--output=json", image],
                      ["convert", "-O", "raw", image, "out.raw"],
                      ["io", "-r", "-c", "read -q 0 64k", "-c", "map", image]):
            problem = survives([interop.PROGRAM, *words], name)
            if problem:
                wrong.append(problem)
        for left in (image, "out.raw"):
            if os.path.exists(left):
                os.unlink(left)
    if wrong:
        raise AssertionError("\n".join(wrong[:40]))
    assert count > 0, "no broken image was found"
