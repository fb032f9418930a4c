# SPDX-License-Identifier: MIT
"""Encrypted qcow2 images: what we write the peer reads, and the other way round."""
import json
import os

from interop import Requests, bgfs, contains, equal, need, qemu_img, qemu_io, run, same_bytes

PASSPHRASE = "correct horse battery staple"
SECRET = "secret,id=sec0,file=key"
# The peer of Debian 12 fails now and then to measure how fast it is.
FLAKY = "Unable to get accurate CPU usage"


def with_key():
    with open("key", "w", encoding="utf-8") as f:
        f.write(PASSPHRASE)


def peer_img(*words, **how):
    for _ in range(40):
        done = qemu_img(*words, status=None)
        if FLAKY not in done.err:
            break
    equal(done.returncode, how.get("status", 0), " ".join(words) + "\n" + done.err)
    return done


def opts(image, **more):
    more.setdefault("encrypt.key-secret", "sec0")
    return ",".join(["driver=qcow2", f"file.filename={image}"] +
                    [f"{k}={v}" for k, v in more.items()])


def raw_of(tool, image, out):
    tool("convert", "--object", SECRET, "--image-opts", "-O", "raw", opts(image), out)


def reads_the_same(image, expected):
    for tool in (bgfs, qemu_img):
        raw_of(tool, image, "out.raw")
        same_bytes("out.raw", expected)
        os.unlink("out.raw")
    equal(qemu_img("check", "--output=json", "--object", SECRET, "--image-opts", opts(image),
                   status=None).returncode, 0, f"check of {image}")


CIPHERS = [
    "", "cipher-alg=aes-128", "cipher-alg=aes-192", "cipher-mode=cbc",
    "cipher-mode=cbc,ivgen-alg=essiv", "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain",
    "ivgen-alg=essiv,ivgen-hash-alg=sha256", "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
    "hash-alg=sha1", "hash-alg=sha512", "hash-alg=ripemd160", "hash-alg=sha224", "hash-alg=sha384",
    "hash-alg=md5",
]
READ_ONLY_CIPHERS = ["cipher-mode=ecb", "cipher-mode=ctr"]


def create_list(cipher):
    words = [f"encrypt.{w}" for w in cipher.split(",") if w]
    return ",".join(["encrypt.format=luks", "encrypt.key-secret=sec0", "encrypt.iter-time=10"] +
                    words)


def source(path, length=3 << 20):
    requests = Requests(7, length, zeroes=False)
    qemu_img("create", "-q", "-f", "raw", path, str(length))
    words = []
    for _ in range(40):
        words += ["-c", requests.command()]
    qemu_io("-f", "raw", *words, path)


def case_every_cipher_is_read_by_both():
    with_key()
    source("source.raw")
    for cipher in CIPHERS:
        bgfs("convert", "--object", SECRET, "-O", "qcow2", "-o", create_list(cipher), "source.raw",
             "ours.qcow2")
        reads_the_same("ours.qcow2", "source.raw")
    for cipher in CIPHERS + READ_ONLY_CIPHERS:
        peer_img("convert", "--object", SECRET, "-O", "qcow2", "-o", create_list(cipher),
                 "source.raw", "theirs.qcow2")
        reads_the_same("theirs.qcow2", "source.raw")
    for cipher in READ_ONLY_CIPHERS:
        done = bgfs("create", "--object", SECRET, "-f", "qcow2", "-o", create_list(cipher),
                    "no.qcow2", "1M", status=1)
        contains(done.err, "so no new images are made with it")
        assert not os.path.exists("no.qcow2")


SHAPES = ["cluster_size=512", "cluster_size=2M", "compat=0.10", "extended_l2=on",
          "lazy_refcounts=on", "refcount_bits=1", "preallocation=metadata,cluster_size=4k"]


def case_random_requests_by_turns():
    """We and the peer write into one image by turns; a byte array says what it holds."""
    with_key()
    for shape in SHAPES:
        length = 1 << 20
        bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", "-o",
             create_list("cipher-alg=aes-128") + "," + shape, "a.qcow2", str(length))
        requests = Requests(len(shape), length)
        for turn in range(6):
            words = []
            for _ in range(20):
                words += ["-c", requests.command()]
            tool = qemu_io if turn % 2 else lambda *w: bgfs("io", *w)
            tool("--object", SECRET, *words, "--image-opts", opts("a.qcow2"))
        with open("expected.raw", "wb") as f:
            f.write(requests.model)
        reads_the_same("a.qcow2", "expected.raw")


def case_chains_are_encrypted_in_part():
    with_key()
    source("source.raw")
    for top, base in (("luks", None), (None, "luks"), ("luks", "luks")):
        encrypted = ["-o", create_list("")]
        bgfs("convert", "--object", SECRET, "-O", "qcow2", *(encrypted if base else []),
             "source.raw", "base.qcow2")
        name = "base.qcow2"
        if base:
            name = "json:" + json.dumps({"driver": "qcow2", "encrypt.key-secret": "sec0",
                                         "file.filename": "base.qcow2"})
        bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", *(encrypted if top else []),
             "-b", name, "-F", "qcow2", "top.qcow2")
        image = opts("top.qcow2") if top else "driver=qcow2,file.filename=top.qcow2"
        for tool in (lambda *w: bgfs("io", *w), qemu_io):
            tool("--object", SECRET, "-c", "write -P 9 100000 70000", "--image-opts", image)
        bgfs("convert", "--object", SECRET, "--image-opts", "-O", "raw", image, "ours.raw")
        qemu_img("convert", "--object", SECRET, "--image-opts", "-O", "raw", image, "theirs.raw")
        same_bytes("ours.raw", "theirs.raw")


def case_info_needs_no_key_and_says_the_same():
    with_key()
    peer_img("create", "-q", "--object", SECRET, "-f", "qcow2", "-o",
             create_list("cipher-mode=cbc,ivgen-alg=essiv"), "a.qcow2", "1M")
    theirs = json.loads(qemu_img("info", "--output=json", "a.qcow2").out)
    ours = json.loads(bgfs("info", "--output=json", "a.qcow2").out)
    # Newer peers say that the header is where the data is.
    equal(ours["format-specific"]["data"]["encrypt"].pop("detached-header"), False, "detached")
    theirs["format-specific"]["data"]["encrypt"].pop("detached-header", None)
    equal(ours, theirs, "info")
    contains(bgfs("info", "a.qcow2").out, "encrypted: yes\n")
    for words in (("convert", "-O", "raw", "a.qcow2", "a.raw"), ("map", "a.qcow2")):
        contains(bgfs(*words, status=1).err, "cannot be read or written without the key")


def case_status_is_the_same():
    with_key()
    bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", "-o", create_list(""), "a.qcow2", "4M")
    bgfs("io", "--object", SECRET, "-c", "write -P 1 64k 200k", "-c", "write -z 1M 64k", "-c",
         "write -P 2 3M 1k", "--image-opts", opts("a.qcow2"))
    words = ("map", "--output=json", "--object", SECRET, "--image-opts", opts("a.qcow2"))
    equal(json.loads(bgfs(*words).out), json.loads(qemu_img(*words).out), "map")


def case_compressed_clusters_are_not_encrypted():
    """The peer writes them so; whoever reads them must not decrypt them."""
    with_key()
    bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", "-o", create_list(""), "a.qcow2", "1M")
    qemu_io("--object", SECRET, "-c", "write -c -P 5 64k 64k", "--image-opts", opts("a.qcow2"))
    done = bgfs("io", "--object", SECRET, "-c", "read -P 5 64k 64k", "--image-opts",
                opts("a.qcow2"))
    assert "failed" not in done.out + done.err


def case_legacy_aes_is_read_and_written():
    with open("key", "w", encoding="utf-8") as f:
        f.write("short")
    source("source.raw")
    peer_img("convert", "--object", SECRET, "-O", "qcow2", "-o",
             "encrypt.format=aes,encrypt.key-secret=sec0", "source.raw", "a.qcow2")
    reads_the_same("a.qcow2", "source.raw")
    for program in ("source.raw", "a.qcow2"):
        words = ["-c", "write -P 3 5000 100000"]
        if program == "a.qcow2":
            bgfs("io", "--object", SECRET, *words, "--image-opts", opts(program))
        else:
            bgfs("io", "-f", "raw", *words, program)
    reads_the_same("a.qcow2", "source.raw")
    done = bgfs("create", "--object", SECRET, "-f", "qcow2", "-o",
                "encrypt.format=aes,encrypt.key-secret=sec0", "b.qcow2", "1M", status=1)
    contains(done.err, "encryption with aes protects too little to make new images with it")


def case_headers_are_those_of_luks():
    need("cryptsetup")
    with_key()
    bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", "-o", create_list(""), "a.qcow2", "1M")
    with open("a.qcow2", "rb") as f:
        image = f.read()
    at = 112
    while image[at:at + 4] != bytes.fromhex("0537be77"):
        at += 8 + (int.from_bytes(image[at + 4:at + 8], "big") + 7) // 8 * 8
    begin = int.from_bytes(image[at + 8:at + 16], "big")
    length = int.from_bytes(image[at + 16:at + 24], "big")
    with open("header", "wb") as f:
        f.write(image[begin:begin + length] + bytes(1 << 20))
    shown = run("cryptsetup", "luksDump", "header").out
    contains(shown, "Cipher mode:   \txts-plain64")
    contains(shown, "Key Slot 0: ENABLED")
    contains(shown, "MK bits:       \t512")
    # Its own code opens the slot with our passphrase.
    run("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", "key", "header")
    run("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", "/dev/null", "header",
        status=None)


def case_nothing_says_the_passphrase():
    with_key()
    bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", "-o", create_list(""), "a.qcow2", "1M")
    wrong = f"secret,id=sec0,data={PASSPHRASE} "
    for words in (("info", "--output=json", "--object", SECRET, "a.qcow2"),
                  ("info", "--object", SECRET, "--image-opts", opts("a.qcow2")),
                  ("map", "--object", wrong, "--image-opts", opts("a.qcow2")),
                  ("map", "--object", wrong + ",,x=y,=", "--image-opts", opts("a.qcow2")),
                  ("convert", "--object", wrong, "--image-opts", "-O", "raw", opts("a.qcow2"), "o"),
                  ("io", "--object", SECRET, "-c", "info", "--image-opts", opts("a.qcow2"))):
        done = bgfs(*words, status=None)
        assert PASSPHRASE not in done.out + done.err, words
    contains(bgfs("map", "--object", wrong, "--image-opts", opts("a.qcow2"), status=1).err,
             "the secret opens none of the 1 active key slots")


def case_an_image_that_is_not_encrypted_takes_no_key():
    with_key()
    bgfs("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    done = bgfs("map", "--object", SECRET, "--image-opts", opts("a.qcow2"), status=1)
    contains(done.err, "'encrypt' is given, but the image is not encrypted; leave it out")


def amends(tool, *words, status=0):
    for _ in range(40):
        done = tool("amend", "--object", SECRET, "--object", "secret,id=new,data=other",
                    "--object", "secret,id=third,data=third", *words, status=None)
        if FLAKY not in done.err:
            break
    equal(done.returncode, status, " ".join(words) + done.err)
    return done


def opens(image, secret):
    """Which of us open the image with a secret."""
    words = ("map", "--object", f"secret,id=sec0,data={secret}", "--image-opts", opts(image))
    outcomes = [tool(*words, status=None).returncode for tool in (bgfs, qemu_img)]
    equal(outcomes[0], outcomes[1], f"opening with {secret}")
    return outcomes[0] == 0


def case_keys_are_added_and_erased_as_the_peer_does():
    with_key()
    add = "encrypt.state=active,encrypt.new-secret=new,encrypt.iter-time=10"
    for first, second in ((bgfs, qemu_img), (qemu_img, bgfs)):
        bgfs("create", "-q", "--object", SECRET, "-f", "qcow2", "-o", create_list(""), "a.qcow2",
             "1M")
        amends(first, "-o", add, "--image-opts", opts("a.qcow2"))
        assert opens("a.qcow2", PASSPHRASE) and opens("a.qcow2", "other")
        amends(second, "-o", "encrypt.state=active,encrypt.new-secret=third,encrypt.keyslot=6,"
               "encrypt.iter-time=10", "--image-opts", opts("a.qcow2"))
        assert opens("a.qcow2", "third")
        amends(first, "-o", "encrypt.state=inactive,encrypt.old-secret=new", "--image-opts",
               opts("a.qcow2"))
        assert not opens("a.qcow2", "other")
        amends(second, "-o", "encrypt.state=inactive,encrypt.keyslot=6", "--image-opts",
               opts("a.qcow2"))
        assert not opens("a.qcow2", "third") and opens("a.qcow2", PASSPHRASE)
        for tool in (bgfs, qemu_img):
            amends(tool, "-o", "encrypt.state=inactive,encrypt.keyslot=0", "--image-opts",
                   opts("a.qcow2"), status=1)
        assert opens("a.qcow2", PASSPHRASE)
        amends(first, "--force", "-o", "encrypt.state=inactive,encrypt.keyslot=0", "--image-opts",
               opts("a.qcow2"))
        assert not opens("a.qcow2", PASSPHRASE)
    contains(bgfs("amend", "-f", "qcow2", "-o", "help").out, "encrypt.keyslot=<num>")
    contains(bgfs("amend", "-f", "raw", "-o", "help", status=1).err, "that can be amended")
    contains(bgfs("amend", "a.qcow2", status=1).err, "-o with what to change")
    qemu_img("create", "-q", "-f", "raw", "b.raw", "1M")
    contains(bgfs("amend", "-f", "raw", "-o", "x=y", "b.raw", status=1).err,
             "images of format 'raw' cannot be amended")


def case_space_that_is_added_reads_as_zeroes():
    """Of the peer's it reads as what its cipher makes of the zeroes of the host."""
    with_key()
    for how in ("off", "metadata", "falloc", "full"):
        bgfs("create", "-q", "-f", "qcow2", "--object", SECRET, "-o", create_list(""), "a.qcow2", "1M")
        bgfs("io", "--object", SECRET, "--image-opts", "-c", "write -q -P 5 0 1M", opts("a.qcow2"))
        bgfs("resize", "-q", "--object", SECRET, f"--preallocation={how}", "--image-opts", opts("a.qcow2"), "2M")
        for tool in (lambda *w: bgfs("io", *w), qemu_io):
            tool("--object", SECRET, "--image-opts", "-c", "read -q -P 5 0 1M", "-c", "read -q -P 0 1M 1M",
                 opts("a.qcow2"))
        os.unlink("a.qcow2")
