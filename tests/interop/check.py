# SPDX-License-Identifier: MIT
"""bgfs check against qemu-img check: the corpus, and images spoilt at random. Counts, findings and
exit statuses are the same; what bgfs repairs, qemu-img finds nothing in, and both leave one content.
BGFS_CHECK_SEEDS says how many images are spoilt (300)."""
import collections
import json
import lzma
import os
import random
import shutil
import struct

import interop
from interop import Skip, bgfs, need, run

KIB = 1024
COUNTS = ("corruptions", "leaks", "check-errors", "total-clusters", "allocated-clusters",
          "fragmented-clusters", "compressed-clusters", "image-end-offset")
OFFSET = 0x00FFFFFFFFFFFE00


class Image:
    """The bytes of a qcow2 file, and where its tables are."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.bytes = bytearray(f.read())
        self.cluster = 1 << self.u32(20)
        self.is_extended = self.u32(4) >= 3 and self.u64(72) & 16 != 0
        self.entry = 16 if self.is_extended else 8

    def u64(self, at):
        return int.from_bytes(self.bytes[at:at + 8], "big")

    def u32(self, at):
        return int.from_bytes(self.bytes[at:at + 4], "big")

    def put(self, at, value, length=8):
        self.bytes[at:at + length] = value.to_bytes(length, "big")

    def words(self, at, count, step=8):
        """Places of words, those that say something twice as likely."""
        places = [at + i * step for i in range(count) if at + i * step + 8 <= len(self.bytes)]
        return places + 3 * [p for p in places if self.u64(p) != 0]

    def l1_tables(self):
        tables = [(self.u64(40), self.u32(36))]
        at = self.u64(64)
        for _ in range(self.u32(60)):
            tables.append((self.u64(at), self.u32(at + 8)))
            lengths = self.u32(at + 36) + int.from_bytes(self.bytes[at + 12:at + 14], "big") + \
                int.from_bytes(self.bytes[at + 14:at + 16], "big")
            at += (40 + lengths + 7) // 8 * 8
        return tables

    def l2_tables(self):
        found = set()
        for at, count in self.l1_tables():
            found |= {self.u64(at + 8 * i) & OFFSET for i in range(count)} - {0}
        return sorted(found)

    def blocks(self):
        table = self.u64(48)
        found = {self.u64(table + 8 * i) for i in range(self.u32(56) * self.cluster // 8)}
        return sorted(found - {0})

    def save(self, path):
        with open(path, "wb") as f:
            f.write(self.bytes)


# --- images ---------------------------------------------------------------------------------------

SHAPES = [("cluster_size=512", 128), ("cluster_size=4k", 512), ("cluster_size=64k", 4096),
          ("cluster_size=4k,refcount_bits=1", 512), ("cluster_size=2k,refcount_bits=64", 256),
          ("cluster_size=4k,refcount_bits=2", 512), ("cluster_size=1k,compat=0.10", 256),
          ("cluster_size=16k,extended_l2=on", 2048), ("cluster_size=32k,extended_l2=on", 2048),
          ("cluster_size=4k,lazy_refcounts=on", 512), ("cluster_size=2M", 8192),
          ("cluster_size=4k,refcount_bits=8", 1024)]


def make(path, rng, shape):
    options, length_k = shape
    length = length_k * KIB
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, str(length))
    has_snapshots = "refcount_bits=1" not in options and rng.random() < 0.5

    def touch(count):
        words = []
        for _ in range(count):
            at = rng.randrange(length // 512) * 512
            size = min(rng.randrange(1, length_k // 8) * KIB, length - at)
            verb = rng.choice([f"write -P {rng.randrange(1, 255)}"] * 4 + ["write -z", "discard"])
            words += ["-c", f"{verb} {at} {size}"]
        run("qemu-io", "-f", "qcow2", *words, path)

    touch(6)
    cluster = Image(path).cluster
    if rng.random() < 0.6:
        at = rng.randrange(length // cluster) * cluster
        words = ["-c", f"discard {at} {cluster}", "-c", f"write -c -P 7 {at} {cluster}"]
        run("qemu-io", "-f", "qcow2", *words, path, status=None)  # fails where something is
    if has_snapshots:
        run("qemu-img", "snapshot", "-c", "one", path)
        touch(3)
        if rng.random() < 0.5 and "refcount_bits=2" not in options:
            run("qemu-img", "snapshot", "-c", "two", path)
            touch(2)
    # Not both: qemu-img 7.2 loses the snapshots of images with bitmaps when it repairs them.
    if not has_snapshots and "compat" not in options and rng.random() < 0.5:
        run("qemu-img", "bitmap", "--add", "--enable", "-f", "qcow2", path, "bits")
        touch(2)


def spoil(image, rng):
    """One to four words of the metadata get another value."""
    places = []
    for at, count in image.l1_tables():
        places.append(("l1", image.words(at, count)))
    for at in image.l2_tables():
        places.append(("l2", image.words(at, image.cluster // image.entry, image.entry)))
        if image.is_extended:
            places.append(("bitmap", image.words(at + 8, image.cluster // 16, 16)))
    for at in image.blocks():
        places.append(("block", image.words(at, image.cluster // 8)))
    table = image.u64(48)
    places.append(("table", image.words(table, image.u32(56) * image.cluster // 8)))
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 2, 4])):
        kind, words = rng.choice(places)
        if not words:
            continue
        at = rng.choice(words)
        before = image.u64(at)
        others = [image.u64(p) for p in words]
        value = rng.choice([0, before ^ 1 << rng.randrange(64), rng.choice(others),
                            before ^ 1 << 63, before ^ 1 << 62, before + image.cluster,
                            before ^ 512, before ^ 1, rng.randrange(1 << 64) if
                            kind in ("block", "bitmap") else before ^ 1 << rng.randrange(9, 24)])
        value %= 1 << 64
        # An L1 entry that names nothing and still says something: qemu-img takes the header for an
        # L2 table, we do not.
        if kind == "l1" and value != 0 and value & OFFSET == 0:
            continue
        image.put(at, value)
        done.append((kind, hex(at), hex(before), hex(value)))
    return done


# --- comparing ------------------------------------------------------------------------------------


def check(program, path, *words):
    done = run(*program, *words, "--output=json", path, status=None, timeout=60)
    counts = json.loads(done.out) if done.out.strip() else {}
    said = done.err.replace("on the image file to fix.", "on the image file to fix.\n")
    lines = [line for line in said.splitlines()
             if not line.startswith(("qemu-img: ", "bgfs check: ", "WARNING", "qcow2: ",
                                    "Some clusters may be leaked"))]
    return done, {key: counts.get(key, 0) for key in COUNTS}, collections.Counter(lines)


QEMU = ("qemu-img", "check", "-f", "qcow2")
# What qemu-img asks for before it looks at an image, and bgfs does not.
NOT_NEEDED = ("Could not open backing file", "encrypt.key-secret", "Could not read bitmap_table",
              "No such file or directory", "Use of AES-CBC encrypted qcow2 images")
OURS = (interop.PROGRAM, "check", "-f", "qcow2")


def tell(done):
    """What a check said, each finding once and not all of them."""
    lines = list(dict.fromkeys(done.err.splitlines()))
    more = [f"... {len(lines) - 30} more"] if len(lines) > 30 else []
    return f"exit status {done.returncode}\n" + "\n".join(lines[:25] + more + lines[25:][-5:]) + \
        f"\n{done.out}"


def compare(path, what):
    """The reports of both; returns the exit status."""
    theirs, their_counts, their_lines = check(QEMU, path)
    ours, our_counts, our_lines = check(OURS, path)
    said = f"{what}\n--- qemu-img\n{tell(theirs)}--- bgfs\n{tell(ours)}"
    if theirs.returncode == 1 and any(reason in theirs.err for reason in NOT_NEEDED):
        return ours.returncode
    assert ours.returncode == theirs.returncode, f"{ours.returncode} {theirs.returncode} {said}"
    if ours.returncode == 1:
        return 1
    assert our_counts == their_counts, said
    assert set(our_lines) == set(their_lines), said
    return ours.returncode


def content(path):
    """What qemu-img reads in it; None if it cannot."""
    done = run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, "content.raw", status=None)
    if done.returncode != 0:
        return None
    with open("content.raw", "rb") as f:
        return f.read()


def compare_repairs(path, what, kind):
    before = content(path)
    shutil.copy(path, "theirs.qcow2")
    shutil.copy(path, "ours.qcow2")
    theirs, _, _ = check(QEMU, "theirs.qcow2", "-r", kind)
    ours, _, _ = check(OURS, "ours.qcow2", "-r", kind)
    said = f"{what}\n--- qemu-img -r {kind}\n{tell(theirs)}--- bgfs\n{tell(ours)}"
    after, _, _ = check(QEMU, "ours.qcow2")
    assert after.returncode == ours.returncode or ours.returncode == 1, \
        f"{said}--- then qemu-img {tell(after)}"
    is_refused = "something else lies" in ours.err
    # Where qemu-img gives up, bgfs may be able to repair.
    assert ours.returncode == theirs.returncode or is_refused or theirs.returncode == 1, said
    now = content("ours.qcow2")
    if before is not None:
        assert now == before, f"the content has changed: {said}"
    if now is not None and not is_refused and theirs.returncode != 1:
        other = content("theirs.qcow2")
        assert other is None or other == now, f"the contents differ: {said}"
    return ours.returncode


def case_images_spoilt_at_random():
    need("qemu-img", "qemu-io")
    seeds = int(os.environ.get("BGFS_CHECK_SEEDS", "300"))
    first = int(os.environ.get("BGFS_CHECK_FIRST", "0"))
    seen = collections.Counter()
    for seed in range(first, first + seeds):
        rng = random.Random(seed)
        if seed % 10 == 0 or seed == first:
            make("sound.qcow2", rng, rng.choice(SHAPES))
            assert compare("sound.qcow2", f"seed {seed}, sound") == 0
        image = Image("sound.qcow2")
        done = spoil(image, rng)
        image.save("spoilt.qcow2")
        what = f"seed {seed}: {done}"
        seen["check", compare("spoilt.qcow2", what)] += 1
        for kind in ("leaks", "all"):
            seen[kind, compare_repairs("spoilt.qcow2", what, kind)] += 1
    print(dict(seen))
    if seeds >= 300:
        assert min(seen["check", 0], seen["check", 2], seen["check", 3], seen["all", 0]) > 0, seen


def case_the_corpus():
    need("qemu-img")
    place = os.environ.get("BGFS_CORPUS") or os.path.join(interop.TOP, "..", "shared", "corpus")
    folders = [os.path.join(place, name) for name in ("bad", "images")]
    if not all(map(os.path.isdir, folders)):
        raise Skip("the corpus is not here; BGFS_CORPUS says where it is")
    seen = collections.Counter()
    wrong = []
    for folder in folders:
        for packed in sorted(os.listdir(folder)):
            if not packed.endswith(".qcow2.xz"):
                continue
            with lzma.open(os.path.join(folder, packed), "rb") as source, \
                    open("image.qcow2", "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            try:
                seen[compare("image.qcow2", packed)] += 1
            except AssertionError as e:
                wrong.append(str(e))
    print(dict(seen))
    assert not wrong, "\n".join(wrong)
    assert seen[0] > 0 and seen[1] > 0 and seen[2] > 0, seen


# --- the command ----------------------------------------------------------------------------------


def normal(text):
    """The output without who says it."""
    return text.replace("qemu-img: ", "").replace("bgfs check: ", "")


def case_the_text_is_that_of_qemu_img():
    need("qemu-img", "qemu-io")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "a.qcow2", "1M")
    run("qemu-io", "-c", "write 0 40k", "a.qcow2")
    image = Image("a.qcow2")
    block = image.blocks()[0]
    image.put(block + 40, 7, 2)
    image.save("leak.qcow2")
    entry = image.l2_tables()[0]
    image.put(entry, image.u64(entry) ^ 1 << 63)
    image.save("both.qcow2")
    for name, words in (("a", ()), ("leak", ()), ("both", ()), ("leak", ("-r", "leaks")),
                        ("both", ("-r", "leaks")), ("both", ("-r", "all")), ("a", ("-r", "all")),
                        ("both", ("-q",)), ("both", ("-q", "-r", "all"))):
        outcomes = []
        for program in (("qemu-img", "check"), (interop.PROGRAM, "check")):
            shutil.copy(f"{name}.qcow2", "x.qcow2")
            done = run(*program, *words, "x.qcow2", status=None)
            outcomes.append((done.returncode, done.out, sorted(set(done.err.splitlines()))))
        assert outcomes[0] == outcomes[1], f"{name} {words}: {outcomes}"


def case_what_cannot_be_checked():
    run("truncate", "-s", "1M", "a.raw")
    done = bgfs("check", "-f", "raw", "a.raw", status=63)
    assert normal(done.err) == "This image format does not support checks\n", done.err
    done = bgfs("check", "nowhere.qcow2", status=1)
    assert "cannot open 'nowhere.qcow2'" in done.err, done.err
    done = bgfs("check", status=1)
    assert "one image is expected" in done.err, done.err
    done = bgfs("check", "-r", "some", "a.raw", status=1)
    assert "'some' is neither 'leaks' nor 'all'" in done.err, done.err
    done = bgfs("check", "-U", "-r", "all", "a.raw", status=1)
    assert "-U looks at an image that others write" in done.err, done.err


def case_options_name_an_image():
    bgfs("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    done = bgfs("check", "--image-opts", "--output=json",
                "driver=qcow2,file.driver=file,file.filename=a.qcow2")
    assert json.loads(done.out)["format"] == "qcow2", done.out
    done = bgfs("check", "-T", "none", "-p", "a.qcow2")
    assert "(100.00/100%)" in done.out and "No errors" in done.out, done.out


def case_a_huge_image_takes_little_memory():
    """16 TiB, sparse: 32768 L2 tables would be 2 GiB; the tables that are there are all over."""
    need("qemu-img")
    bgfs("create", "-q", "-f", "qcow2", "huge.qcow2", "16T")
    words = [w for i in range(0, 16384, 512) for w in ("-c", f"write -q -P 1 {i}G 64k")]
    bgfs("io", "-f", "qcow2", *words, "huge.qcow2")
    image = "huge.qcow2"
    length = (16 << 40) - (1 << 30)  # ext4 has no files of 16 TiB
    try:
        os.truncate(image, length)
    except OSError as e:
        raise Skip(f"the file system has no files of 16 TiB: {e}") from e
    done = run("sh", "-c", f"ulimit -v {512 << 10}; exec {interop.PROGRAM} check {image}")
    assert "No errors were found" in done.out, done.out
    # A count far out: the block that holds it describes the end of the file.
    with open(image, "r+b") as f:
        f.seek(48)
        table = struct.unpack(">Q", f.read(8))[0]
        f.seek(table + 8 * (length // 65536 // 32768))
        f.write(struct.pack(">Q", length - 65536))
        f.seek(length - 65536)
        f.write(b"\0\1" * 1000)
    done = run("sh", "-c", f"ulimit -v {512 << 10}; exec {interop.PROGRAM} check {image}",
               status=None)
    assert done.returncode == 2 and f"cluster {length // 65536 - 1} " in done.err, done.err
    assert "1000 leaked clusters" in done.out, done.out
    done = run("sh", "-c", f"ulimit -v {512 << 10}; exec {interop.PROGRAM} check -r all {image}")
    assert "No errors were found" in done.out, done.out
