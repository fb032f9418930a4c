# SPDX-License-Identifier: MIT
"""What the commands print and how they end: as the peer's where scripts look, and messages that
say what to do."""
import os
import re

from interop import bgfs, contains, equal, need, qemu_img, qemu_io, run, same_output


def timeless(text):
    """Results of io without how long they took, and without the peer's prompt."""
    text = re.sub(r"ops; .*", "ops; T", text)
    text = re.sub(r"^(\d+,1),.*", r"\1,T", text, flags=re.M)
    return text.replace("qemu-io> ", "")


IO_LINES = [
    ["write -P 0xab 0 64k", "read -P 0xab 0 64k", "read -P 0xac 0 64k", "write -q 0 1k",
     "write -C 0 3k", "read -v 0 40"],
    ["read -P 0 -s 100 -l 10 70k 1k", "read 2M 1k", "write 1M 1k", "write 1023k 2k"],
    ["length", "alloc 0 1M", "alloc 64k", "map"],
    ["write 64k 64k", "map", "alloc 64k 1M", "alloc 1M", "alloc 5M 1k"],
    ["frob"], ["read"], ["read 0 foo"], ["read 0 8E"], ["flush x"], ["help frob"],
    ["discard 128k 64k", "discard -C 0 64k", "discard -q 0 64k", "flush", "truncate 2M", "length"],
    ["writev 0 1k 2k", "readv -P 0xcd 0 1k 2k", "aio_write 0 4k", "aio_flush",
     "aio_read -P 0xcd 0 4k", "aio_flush", "aio_write -z 4k 4k", "aio_flush",
     "aio_read -P 7 0 1k", "aio_flush", "aio_read 5M 1k", "aio_flush"],
    ["write -z -n 0 1k", "write -u 0 1k", "write -zu 0 64k", "write -z -P 1 0 1k", "write -f 0 1k"],
    ["read -P 1 -s 100 0 10", "write -P 300 0 1", "write 0 3G", "write 1 1", "write 0 0"],
    ["read 0 1", "quit", "read 0 1"], ["sleep 1", "w 0 1", "r 0 1", "l", "q"],
]


def case_io_prints_the_peers_lines():
    for kind in ("raw", "qcow2"):
        for lines in IO_LINES:
            if kind == "raw" and "write -z -n 0 1k" in lines:
                continue  # a file can zero a part of a block; whether it is asked to is our business
            words = []
            for line in lines:
                words += ["-c", line]
            outcomes = []
            for program in (qemu_io, lambda *w, **how: bgfs("io", *w, **how)):
                qemu_img("create", "-q", "-f", kind, "a.img", "1M")
                done = program("-f", kind, *words, "a.img", status=None)
                outcomes.append((timeless(done.out), done.returncode))
            equal(outcomes[1], outcomes[0], f"{kind}: {lines}")


def case_io_reads_commands_from_standard_input():
    qemu_img("create", "-q", "-f", "qcow2", "a.img", "1M")
    script = b"write 0 1k\nread -P 0xcd 0 1k\n\nquit\nread 0 1k\n"
    done = bgfs("io", "-f", "qcow2", "a.img", stdin=script)
    equal(done.out.count("1024/1024"), 2, "results")
    done = bgfs("io", stdin=b"open -o driver=raw a.img\nlength\nclose\nlength\n", status=1)
    contains(done.err, "no file open, try 'help open'")
    done = bgfs("io", "-f", "qcow2", "a.img", status=1,
                stdin=b"reopen -r\nread 0 1k\nwrite 0 1k\nreopen -w\nwrite 0 1k\nopen a.img\n")
    contains(done.err, "the image was opened read-only")
    contains(done.err, "file open already, try 'help close'")
    equal(done.out.count("wrote"), 1, "writes")


def case_create_prints_the_peers_line():
    qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", "4M")
    for words in (["-f", "raw", "a", "1M"], ["a", "1000"], ["-f", "qcow2", "a", "1.5G"],
                  ["-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=8", "a", "7M"],
                  ["-f", "qcow2", "-o", "size=3M", "a"],
                  ["-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "a"],
                  ["-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "a", "8M"],
                  ["-f", "qcow2", "-o", "backing_file=b.qcow2,backing_fmt=qcow2", "a"],
                  ["-f", "qcow2", "-u", "-b", "none", "-F", "qcow2", "a", "8M"],
                  ["-q", "-f", "qcow2", "a", "8M"],
                  ["-f", "raw", "-o", "preallocation=falloc", "a", "1M"]):
        same_output("create", *words)
        same_output("info", *(["-f", "raw"] if "qcow2" not in words else []), "a")


def fails(*words, saying, status=1):
    done = bgfs(*words, status=status)
    for part in [saying] if isinstance(saying, str) else saying:
        contains(done.err, part, " ".join(words))


def case_wrong_command_lines_say_what_is_right():
    bgfs("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    bgfs("create", "-q", "a.raw", "1M")
    fails("inof", saying=["there is no command 'inof'; did you mean 'info'?", "the commands are"])
    fails("info", saying="one image is expected; see 'bgfs info --help'")
    fails("info", "--jsno", "a.raw", saying="option '--jsno' is not known")
    fails("info", "--output=xml", "a.raw", saying="'xml' is neither 'human' nor 'json'")
    fails("info", "none", saying="cannot open 'none': No such file or directory")
    fails("info", ".", saying="'.' is a directory, not an image")
    fails("info", "-f", "qcow3", "a.qcow2", saying="there is no driver 'qcow3'; did you mean "
                                                   "'qcow2'?")
    fails("info", "-f", "qcow2", "a.raw", saying="a.raw")
    fails("info", "json:{", saying="not")
    fails("info", "nbd:localhost", saying="there is no protocol 'nbd'; a file with that name is "
                                          "written './nbd:localhost'")
    fails("map", "-s", "12Q", "a.raw", saying="'12Q' is not a size")
    fails("create", saying="one file name and perhaps a size are expected")
    fails("create", "x", saying="'x': a new image needs a size")
    fails("create", "x", "9E", saying="bytes are too many")
    fails("create", "x", "1x", saying="'1x' is not a size")
    fails("create", "-f", "qcow", "x", "1M", saying="there is no format 'qcow'; did you mean "
                                                    "'qcow2'?")
    fails("create", "-f", "file", "x", "1M", saying="driver 'file' cannot create images")
    fails("create", "-f", "raw", "-b", "a.raw", "-F", "raw", "x", saying="format 'raw' has no "
                                                                         "backing files")
    fails("create", "-f", "qcow2", "-F", "raw", "x", "1M", saying="a backing format needs a "
                                                                  "backing file (-b)")
    fails("create", "-f", "qcow2", "-b", "a.qcow2", "x",
          saying="needs its format to be given, with -F (it looks like qcow2)")
    fails("create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcwo2", "x", "1M",
          saying="there is no format 'qcwo2' for the backing file; did you mean 'qcow2'?")
    fails("create", "-f", "qcow2", "-b", "none", "-F", "qcow2", "x", saying="'none'")
    fails("create", "-f", "qcow2", "-o", "cluster_sise=4k", "x", "1M",
          saying="did you mean 'cluster_size'?")
    fails("create", "-f", "qcow2", "-o", "=", "x", "1M", saying="is not a list of options")
    fails("create", "none/x", "1M", saying="cannot create 'none/x'")
    fails("create", "json:{}", "1M", saying="a new image is named by its path")
    fails("convert", "a.raw", saying="sources and a target are expected")
    fails("convert", "-c", "-O", "raw", "a.raw", "x",
          saying="'-c': the format 'raw' has no compressed clusters")
    for option, why in (("preallocation=metadata", "leaves the place it was given"),
                        ("data_file=d", "every cluster has its own place there"),
                        ("encrypt.format=luks", "compressed clusters would not be encrypted")):
        fails("convert", "-c", "-O", "qcow2", "-o", option, "a.raw", "x",
              saying=f"'{option.split('=')[0]}' and compression contradict each other: ")
        fails("convert", "-c", "-O", "qcow2", "-o", option, "a.raw", "x", saying=why)
    fails("convert", "-c", "-n", "-O", "raw", "a.qcow2", "a.raw",
          saying="'a.raw' has no clusters that could be compressed")
    fails("convert", "-c", "a.raw", "-", saying="-c makes no sense for standard output")
    fails("convert", "-C", "-c", "-O", "qcow2", "a.raw", "x", saying="-C and -c exclude each other")
    fails("convert", "-C", "-S", "4k", "a.raw", "x", saying="-C and -S exclude each other")
    fails("convert", "-l", "s", "a.qcow2", "x", saying="there is no snapshot 's'; there are none")
    fails("convert", "-S", "100", "a.raw", "x", saying="is a multiple of 512")
    fails("convert", "-m", "17", "a.raw", "x", saying="is a number from 1 to 16, not '17'")
    fails("convert", "-t", "foo", "a.raw", "x", saying="'foo' is no cache mode")
    fails("convert", "-n", "-o", "x=1", "a.raw", "x", saying="are for a new target")
    fails("convert", "--target-is-zero", "a.raw", "x", saying="--target-is-zero needs -n")
    fails("convert", "--target-image-opts", "a.raw", "driver=raw",
          saying="--target-image-opts needs -n")
    fails("convert", "-O", "qcow2", "a.raw", "-", saying="only raw can be written to standard "
                                                         "output")
    fails("convert", "-n", "a.raw", "-", saying="make no sense for standard output")
    fails("convert", "a.raw", "a.raw", saying="creating it anew would destroy it")
    fails("convert", "-n", "a.raw", "none", saying="No such file or directory")
    fails("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", "./a.raw",
          saying="'./a.raw' is needed to read the source, which it would overwrite")
    fails("convert", "-O", "qcow2", "-B", "a.qcow2", "-F", "qcow2", "a.qcow2", "a.qcow2", "x",
          saying="-B makes the target an overlay of what one source stands on; there are 2 sources")
    contains(bgfs("amend", "-o", "help", "a.qcow2").out, "refcount_bits=<num>")
    fails("amend", "-o", "help", "a.raw", saying="there is no format 'raw' that can be amended")
    equal(bgfs("check", "-q", "--output=json", "a.qcow2").out, "")
    for name in ("file:a.qcow2", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'):
        same_output("info", name)
    bgfs("create", "-q", "small", "512")
    fails("convert", "-n", "a.raw", "small", saying="'small' has 512 bytes, fewer than")
    fails("io", "a.raw", saying="writing needs to know it: give -f raw")
    fails("io", "-t", "foo", "a.raw", saying="'foo' is no cache mode")
    fails("io", "-i", "foo", "a.raw", saying="'foo' is none of threads, io_uring, native")
    fails("io", "-d", "foo", "a.raw", saying="is one of unmap, ignore, not 'foo'")
    fails("io", "-f", "raw", "-U", "-c", "length", "a.raw", saying="'force-share' needs 'read-only: "
                                                                   "true'")
    fails("config", saying="'check' and a graph file are expected")
    fails("config", "chekc", saying="did you mean 'check'?")
    fails("drivers", "qcow3", saying="there is no driver 'qcow3'; did you mean 'qcow2'?")
    fails("mount", saying="a graph file or an image, and a directory or file are expected")
    fails("mount", "a.raw", ".", saying="give -F raw", status=32)
    fails("mount", "-w", "a.qcow2", ".", saying="with -F FORMAT", status=32)
    fails("mount", "-w", "g.yaml", ".", saying="--writable and -F are for one image")
    fails("mount", "-w", "-o", "ro", "a.qcow2", ".", saying="contradict each other")
    fails("mount", "--ready-fd=x", "a.qcow2", ".", saying="is a number, not 'x'")
    fails("mount", "--ready-fd=77", "a.qcow2", ".", saying="77 is not open")
    fails("mount", "none.yaml", ".", saying="cannot open 'none.yaml'", status=32)
    fails("umount", saying="one directory, or one mounted file, is expected")
    assert not os.path.exists("x"), "something that failed left a file"


def case_help_and_version():
    contains(bgfs("--version").out, "bgfs ")
    contains(bgfs("help").out, "commands:")
    contains(bgfs("help", "convert").out, "usage: bgfs convert")
    for name in ("mount", "umount", "config", "drivers", "create", "info", "map", "convert", "io"):
        contains(bgfs(name, "--help").out, f"usage: bgfs {name}")
    contains(bgfs(status=1).err, "usage: bgfs COMMAND")
    contains(bgfs("drivers").out, "qcow2")
    contains(bgfs("drivers", "qcow2").out, "lazy-refcounts")
    contains(bgfs("create", "-f", "qcow2", "-o", "help").out, "cluster_size=<size>")
    contains(bgfs("convert", "-O", "qcow2", "-o", "help").out, "cluster_size=<size>")


def case_progress_is_shown_and_ends():
    bgfs("create", "-q", "a.raw", "8M")
    bgfs("io", "-f", "raw", "-c", "write -q -P 1 0 8M", "a.raw")
    done = bgfs("convert", "-p", "-f", "raw", "a.raw", "b.raw")
    assert done.out.startswith("    (0.00/100%)\r"), done.out
    assert done.out.endswith("    (100.00/100%)\r\n"), done.out
    equal(bgfs("convert", "-pq", "-f", "raw", "a.raw", "b.raw").out, "", "quiet")


def case_a_full_standard_output_is_a_failure():
    bgfs("create", "-q", "-f", "raw", "a.raw", "1M")
    if not os.path.exists("/dev/full"):
        return
    for words in ("info -f raw a.raw", "convert -f raw a.raw -", "help"):
        done = run("sh", "-c", f'"$0" {words} > /dev/full', bgfs_program(), status=1)
        contains(done.err, "standard output")


def bgfs_program():
    import interop
    return interop.PROGRAM


def case_graph_files_are_checked():
    with open("g.yaml", "w", encoding="utf-8") as f:
        f.write("version: 1\nnodes:\n"
                "  - {node-name: web, driver: qcow2, discrad: unmap,\n"
                "     file: {driver: file, filename: web.qcow2}}\n")
    fails("config", "check", "g.yaml",
          saying="g.yaml:3:37: node 'web': option 'discrad' is not known to driver 'qcow2'; did "
                 "you mean 'discard'?")
    with open("g.yaml", "w", encoding="utf-8") as f:
        f.write("version: 1\nnodes:\n  - {node-name: web, driver: raw, offset: 1000,\n"
                "     file: {driver: file, filename: a.raw}}\n")
    fails("config", "check", "g.yaml",
          saying="node 'web': option 'offset' is 1000, which is no multiple of 512")
    with open("g.yaml", "w", encoding="utf-8") as f:
        f.write("version: 1\ninclude: [f.yaml]\nnodes:\n"
                "  - {node-name: web, driver: qcow2, file: {driver: file, filename: web.qcow2}}\n")
    fails("config", "check", "g.yaml", saying="cannot open")
    with open("f.yaml", "w", encoding="utf-8") as f:
        f.write("exports: [{node-name: web, writable: true}]\n")
    contains(bgfs("config", "check", "g.yaml").out, "no mistake found; 1 root")
    contains(bgfs("config", "check", "--show", "g.yaml").out, '"filename": "')


def case_map_outputs():
    need("qemu-img")
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "64M")
    qemu_io("-f", "qcow2", "-c", "write -q 1M 1M", "-c", "write -q -z 8M 1M", "-c",
            "write -q 63M 64k", "a.qcow2")
    for words in ([], ["--output=json"], ["--output", "json", "-s", "1500k"],
                  ["--output=json", "-l", "3M"], ["-s", "1M", "-l", "512k"],
                  ["--output=json", "-s", "8M", "-l", "1"], ["-f", "qcow2"], ["-U"]):
        same_output("map", *words, "a.qcow2")
    spec = 'json:{"driver": "raw", "offset": 512, "file": {"driver": "file", "filename": "a.qcow2"}}'
    same_output("map", spec)
    same_output("map", "--output=json", spec)
    same_output("info", "--image-opts", "driver=qcow2,file.filename=a.qcow2")
