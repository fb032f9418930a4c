# SPDX-License-Identifier: MIT
"""What a command line says that cannot be carried out: the sentence, the status, and no new file."""
import os

from interop import bgfs, contains, equal

ENDLESS = "blkdebug::" * 40 + "a.qcow2"


def case_every_sentence_is_said():
    bgfs("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    bgfs("create", "-q", "-f", "qcow2", "small.qcow2", "64k")
    bgfs("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "huge.qcow2", "2E")
    with open("long", "wb") as f:
        f.truncate(65537)
    files = sorted(os.listdir("."))
    for sentence, words in (
            ("names more than 16 layers", ("info", ENDLESS)),
            ("option '-T': 'none-such' is no cache mode; they are none,",
             ("compare", "-T", "none-such", "a.qcow2", "small.qcow2")),
            ("'small.qcow2' has 65536 bytes, fewer than the 1048576 bytes of the source",
             ("convert", "-n", "-O", "qcow2", "a.qcow2", "small.qcow2")),
            ("--skip-broken-bitmaps needs --bitmaps",
             ("convert", "--skip-broken-bitmaps", "-O", "qcow2", "a.qcow2", "o.qcow2")),
            ("the sources have 11529215046068469760 bytes in all; 9223372035781033984 is the most",
             ("convert", "-O", "raw", *["huge.qcow2"] * 5, "o.raw")),
            ("one driver at a time; see 'bgfs drivers --help'", ("drivers", "raw", "qcow2")),
            ("the format of 'null-co://' must be given, with -f or 'driver'", ("info", "null-co://")),
            ("no options were given for an image", ("info", "--image-opts", "")),
            ("is given twice: as 'qcow2' and, with -f, as 'raw'",
             ("info", "-f", "raw", 'json:{"driver":"qcow2","file.filename":"a.qcow2"}')),
            ("there is no format 'blkdebug'", ("measure", "-O", "blkdebug", "a.qcow2")),
            ("how large an image of format 'bitmap-view' will be cannot be told",
             ("measure", "-O", "bitmap-view", "a.qcow2")),
            ("'null-co://' is not something an image can be created in",
             ("create", "-f", "qcow2", "null-co://", "1M")),
            ("9223372036854774785 bytes are too many: an image has 9223372035781033984 at most",
             ("create", "-f", "raw", "big.raw", "9223372036854774785")),
            ("'o.qcow2' would be the data-file of 'o.qcow2' and is the image itself or its backing file; "
             "nothing was written", ("create", "-f", "qcow2", "-o", "data_file=o.qcow2", "o.qcow2", "1M")),
            ("'extended_l2' needs version 3; use 'compat=1.1'",
             ("create", "-q", "-f", "qcow2", "-o", "compat=0.10,extended_l2=on", "o.qcow2", "1M")),
            ("'data_file' needs version 3; use 'compat=1.1'",
             ("create", "-q", "-f", "qcow2", "-o", "compat=0.10,data_file=d.raw", "o.qcow2", "1M")),
            ("'encrypt.format' needs 'encrypt.key-secret', the id of the secret to encrypt with",
             ("create", "-q", "-f", "qcow2", "-o", "encrypt.format=luks", "o.qcow2", "1M")),
            ("option 'preallocation' is one of off, falloc, full, not 'metadata'",
             ("create", "-q", "-f", "raw", "-o", "preallocation=metadata", "o.raw", "1M")),
            ("protocol 'blkdebug' takes a file of rules, or nothing, and an image: blkdebug:CONFIG:IMAGE",
             ("info", "blkdebug:rules")),
            ("'/dev/null' is neither a file nor a block device",
             ("info", "-f", "raw", 'json:{"driver":"file","filename":"/dev/null"}')),
            ("is not a block device; use driver 'file' for files",
             ("info", 'json:{"driver":"host_device","filename":"a.qcow2"}')),
            ("secret 'key': 'long' holds more than the 65536 bytes that a secret has",
             ("info", "--object", "secret,id=key,file=long", "a.qcow2")),
            ("'refcount_bits' is 3; it must be 1, 2, 4, 8, 16, 32 or 64",
             ("amend", "-o", "refcount_bits=3", "a.qcow2")),
            ("images of format 'raw' cannot be amended", ("amend", "-f", "raw", "-o", "size=1", "a.qcow2")),
            ("there is no format 'nope' for the backing file",
             ("rebase", "-u", "-f", "qcow2", "-b", "b.raw", "-F", "nope", "a.qcow2")),
            ("has no bitmap 'y'; there are none", ("bitmap", "--merge", "x", "a.qcow2", "y")),
            ("'-o ro' and '--writable' contradict each other",
             ("mount", "--writable", "-F", "qcow2", "-o", "ro", "a.qcow2", "."))):
        done = bgfs(*words, status=2 if words[0] == "compare" else 1)
        equal(done.out, "", f"what {words} prints")
        contains(done.err, f"bgfs {words[0]}: ", f"{words}")
        contains(done.err, sentence, f"{words}")
        equal(len(done.err) < 1200, True, f"a sentence that can be read: {done.err}")
        equal(sorted(os.listdir(".")), files, f"files after {words}")
