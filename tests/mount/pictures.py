# SPDX-License-Identifier: MIT
"""map.svg and graph.svg: pictures that any browser shows, of the same data as the JSON."""
import xml.etree.ElementTree as xml

from mount_suite import *  # noqa: F403

SVG = "{http://www.w3.org/2000/svg}"


def picture(m, name):
    text = m.read(name)
    for word in ("<script", "http-equiv", "@font-face", "href", "url("):
        check(word not in text, name, "has", word)
    tree = xml.fromstring(text)
    equal(tree.tag, f"{SVG}svg", "the element")
    return tree, [t.text for t in tree.iter(f"{SVG}text")], text


@case("map.svg shows data by depth, zeroes, holes and dirty parts", needs=["qemu-img", "qemu-io"])
def map_picture(env):
    base, top = env.qcow2("base.qcow2", "64M"), None
    run("qemu-io", "-f", "qcow2", "-c", "write 0 20M", base)
    top = env.qcow2("top.qcow2", None, base)
    run("qemu-img", "bitmap", "--add", top, "mon")
    run("qemu-io", "-f", "qcow2", "-c", "write 4M 2M", "-c", "write -z 30M 10M", top)
    node = {"backing": {"driver": "qcow2", "file": {"driver": "file", "filename": str(base)}}}
    m = env.mount(env.simple(top, "qcow2", node=node))
    _, lines, _ = picture(m, "disk.d/map.svg")
    for line in ("data, depth 0 (this image): 2 MiB (3.1%)", "data, depth 1: 18 MiB (28.1%)",
                 "zeroes, known to be: 10 MiB (15.6%)", "holes, nothing stored: 34 MiB (53.1%)"):
        check(line in lines, line, "is not in", lines)
    check(any(t.startswith("dirty in mon: ") and not t.endswith(" 0 B") for t in lines), lines)
    _, lines, _ = picture(m, "disk.d/layers/1/map.svg")
    check("data, depth 0 (this image): 20 MiB (31.2%)" in lines, lines)


@case("map.svg of a disk of 64 TiB is as short as any", needs=["qemu-img"])
def huge_picture(env):
    m = env.mount(env.simple(env.qcow2("a.qcow2", "64T", options="cluster_size=2M"), "qcow2"))
    _, lines, text = picture(m, "disk.d/map.svg")
    check("holes, nothing stored: 64 TiB (100.0%)" in lines, lines)
    check(len(text) < 10000, "it has", len(text), "bytes")


@case("graph.svg shows exports, nodes, roles and permissions")
def graph_picture(env):
    m = env.mount(env.simple(env.raw("a&b.raw", MiB)))
    _, lines, _ = picture(m, ".bgfs/graph.svg")
    for line in ("1 export, 2 nodes", "disk", "top", "file", "file: a&b.raw", "state: ok"):
        check(line in lines, line, "is not in", lines)
    check(any("write" in (t or "") for t in lines), "no permissions")
