# SPDX-License-Identifier: MIT
"""Names of images: those we write into headers are opened by the peer, and those it writes by us."""
import json
import os

from interop import bgfs, contains, equal, fill, qemu_img, qemu_io, read_identically, same_bytes

ALLOW = ["--allow-references=.", "--allow-raw-references=."]


def same_chain(image):
    """Both follow the names in the headers to the same bytes."""
    qemu_img("convert", "-O", "raw", image, "theirs.raw")
    bgfs("convert", *ALLOW, "-O", "raw", image, "ours.raw")
    same_bytes("ours.raw", "theirs.raw")


def window(path, offset, size=None):
    """What the peer calls a window of a file, and so do we."""
    name = {"driver": "raw", "offset": offset, "file": {"driver": "file", "filename": path}}
    if size is not None:
        name["size"] = size
    return "json:" + json.dumps(name)


def case_relative_backing_in_another_directory():
    for place in ("a/b", "c"):
        os.makedirs(place)
    qemu_img("create", "-q", "-f", "qcow2", "c/base.qcow2", "1M")
    fill("c/base.qcow2", 3)
    bgfs("create", "-q", "-f", "qcow2", "-b", "../../c/base.qcow2", "-F", "qcow2", "a/b/top.qcow2")
    equal(json.loads(qemu_img("info", "--output=json", "a/b/top.qcow2").out)["backing-filename"],
          "../../c/base.qcow2", "backing-filename")
    same_chain("a/b/top.qcow2")
    bgfs("convert", *ALLOW, "-O", "qcow2", "-B", "../c/base.qcow2", "-F", "qcow2",
         "a/b/top.qcow2", "a/copy.qcow2")
    qemu_img("info", "--backing-chain", "a/copy.qcow2")
    qemu_img("compare", "a/copy.qcow2", "a/b/top.qcow2")


def case_names_with_colons_and_quotes():
    os.mkdir("odd")
    for name in ("b:c.qcow2", 'q"u o\\te.qcow2', "comma,name.qcow2", "ümlaut.qcow2"):
        qemu_img("create", "-q", "-f", "qcow2", os.path.abspath(os.path.join("odd", name)), "1M")
        fill(os.path.abspath(os.path.join("odd", name)), 4, 5)
        for given in (f"./{name}", os.path.abspath(os.path.join("odd", name)),
                      f"file:{os.path.abspath(os.path.join('odd', name))}"):
            bgfs("create", "-q", "-f", "qcow2", "-b", given, "-F", "qcow2", "odd/top.qcow2")
            same_chain("odd/top.qcow2")
    refused = bgfs("create", "-q", "-f", "qcow2", "-b", "b:c.qcow2", "-F", "qcow2", "odd/x.qcow2",
                   status=1)
    contains(refused.err, "there is no protocol 'b'; a file with that name is written './b:c.qcow2'")


def case_windows_of_raw_files_as_backing():
    qemu_img("create", "-q", "-f", "raw", "bytes", "1M")
    fill("bytes", 5, format="raw")
    path = os.path.abspath("bytes")
    for name in (window(path, 4096), window(path, 65536, 131072),
                 f'json:{{"driver":"raw","offset":512,"file.driver":"file","file.filename":"{path}"}}'):
        for program in (qemu_img, bgfs):
            program("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "top.qcow2", "1M")
            equal(json.loads(qemu_img("info", "--output=json", "top.qcow2").out)["backing-filename"],
                  name, "backing-filename")
            same_chain("top.qcow2")
            refused = bgfs("convert", "-O", "raw", "top.qcow2", "x", status=1)
            contains(refused.err, "a header cannot make a file a raw image")
            contains(refused.err, f"--allow-raw-references={os.getcwd()}")


def case_names_that_the_peer_writes():
    """blockdev-snapshot and convert record what the peer calls a graph."""
    qemu_img("create", "-q", "-f", "raw", "bytes", "1M")
    fill("bytes", 6, format="raw")
    path = os.path.abspath("bytes")
    qemu_img("create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", "top.qcow2")
    for name in (window(path, 512), window(path, 0, 65536)):
        qemu_img("rebase", "-q", "-u", "-b", name, "-F", "raw", "top.qcow2")
        same_chain("top.qcow2")
    info = json.loads(qemu_img("info", "--output=json", "--image-opts",
                               f"driver=raw,offset=512,file.driver=file,file.filename={path}").out)
    contains(info["filename"], "json:")
    qemu_img("convert", "-O", "raw", info["filename"], "theirs.raw")
    bgfs("convert", "-O", "raw", info["filename"], "ours.raw")
    same_bytes("ours.raw", "theirs.raw")


def case_a_whole_graph_as_a_name():
    qemu_img("create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    fill("base.qcow2", 7)
    qemu_img("create", "-q", "-f", "qcow2", "other.qcow2", "1M")
    fill("other.qcow2", 8)
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    qemu_io("-f", "qcow2", "-c", "write -P 1 64k 64k", "top.qcow2")

    def file(name):
        return {"driver": "file", "filename": os.path.abspath(name)}
    for backing in (None, {"driver": "qcow2", "file": file("other.qcow2")}):
        name = "json:" + json.dumps({"driver": "qcow2", "file": file("top.qcow2"),
                                     "backing": backing})
        qemu_img("convert", "-O", "raw", name, "theirs.raw")
        bgfs("convert", "-O", "raw", name, "ours.raw")
        same_bytes("ours.raw", "theirs.raw")
        # The same as the backing file of yet another image.
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "qcow2", "over.qcow2", "1M")
        same_chain("over.qcow2")


def case_null_has_a_name():
    bgfs("io", "-r", "-f", "raw", "-c", "read 0 4k", "null-co://")
    done = bgfs("io", "-r", "-f", "raw", "-c", "read 0 4k", "null-co://x", status=1)
    contains(done.err, "protocol 'null-co' has no files; the name that it takes is 'null-co://'")


def case_a_file_prefix_is_as_good_as_a_path():
    qemu_img("create", "-q", "-f", "qcow2", "a:b.qcow2".replace(":", "-"), "1M")
    read_identically("file:" + os.path.abspath("a-b.qcow2"))
