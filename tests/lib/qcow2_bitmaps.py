# SPDX-License-Identifier: MIT
"""The persistent bitmaps of a qcow2 image, straight from the file (spec, "Bitmaps"): none of the
programs under test is asked."""
import struct

BITMAPS = 0x23852875


def read(path):
    """{name: (flags, granularity, [(begin, end) of dirty bytes])}"""
    with open(path, "rb") as f:
        image = f.read()
    version, = struct.unpack_from(">I", image, 4)
    if version < 3:
        return {}
    cluster = 1 << struct.unpack_from(">I", image, 20)[0]
    length, = struct.unpack_from(">Q", image, 24)
    at, = struct.unpack_from(">I", image, 100)
    while True:
        kind, size = struct.unpack_from(">II", image, at)
        if kind in (0, BITMAPS):
            break
        at += 8 + (size + 7) // 8 * 8
    if kind == 0:
        return {}
    count, _, _, directory = struct.unpack_from(">IIQQ", image, at + 8)
    found = {}
    for _ in range(count):
        table, entries, flags, _, bits, name_size, extra = struct.unpack_from(">QIIBBHI", image,
                                                                              directory)
        name_at = directory + 24 + extra
        name = image[name_at:name_at + name_size].decode()
        found[name] = (flags, 1 << bits,
                       dirty_runs(image, table, entries, cluster, 1 << bits, length))
        directory = (name_at + name_size + 7) // 8 * 8
    return found


def dirty_runs(image, table, entries, cluster, granularity, length):
    runs = []
    for i in range(entries):
        entry, = struct.unpack_from(">Q", image, table + 8 * i)
        offset = entry & 0x00fffffffffffe00
        data = image[offset:offset + cluster] if offset else bytes([255 * (entry & 1)]) * cluster
        for byte, value in enumerate(data):
            for bit in range(8) if value else ():
                begin = ((i * cluster + byte) * 8 + bit) * granularity
                if value >> bit & 1 and begin < length:
                    end = min(begin + granularity, length)
                    if runs and runs[-1][1] == begin:
                        begin = runs.pop()[0]
                    runs.append((begin, end))
    return runs
