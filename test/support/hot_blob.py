#!/usr/bin/env python3
"""Checks the content of a hot blob by docs/formats/hot-blob.md and docs/formats/hash-tree.md alone; for tests.

usage: hot_blob.py < CONTENT

CONTENT is decompressed. Prints the layers, the runs, and the SHA-256 of all pages; fails if anything is not proved.
"""
import hashlib
import struct
import sys

PAGE = 4096
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc(data):
    value = 0
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value


def sha(data):
    return hashlib.sha256(data).digest()


def levels_of(size):
    counts, count = [], -(-size // PAGE)
    while count > 1:
        count = -(-count // 128)
        counts.append(count)
    return len(counts)


content = sys.stdin.buffer.read()
magic, version, page_bytes, layer_count, run_count, pages, zero = struct.unpack_from("<8s6I", content)
assert (magic, version, page_bytes, zero) == (b"OBDHOT\0\0", 1, PAGE, 0)
at = 32
layers = []
for _ in range(layer_count):
    layers.append(struct.unpack_from("<32s32sQ", content, at))
    at += 72
runs = []
for _ in range(run_count):
    runs.append(struct.unpack_from("<3I", content, at))
    at += 12
crcs = struct.unpack_from(f"<{pages}I", content, at)
at += 4 * pages
assert struct.unpack_from("<I", content, at)[0] == crc(content[:at])
at += 4


def take(count):
    global at
    part = content[at : at + count]
    assert len(part) == count
    at += count
    return part


headers, nodes, slot, digest = {}, {}, 0, hashlib.sha256()


def hash_of(layer, level, index):
    """The hash of a node; of a leaf for level -1."""
    if level + 1 == levels_of(layers[layer][2]):
        return headers[layer][32:64]
    node = nodes[layer, level + 1, index // 128]
    return node[index % 128 * 32 :][:32]


for layer, first, count in runs:
    if layer not in headers:
        headers[layer] = take(512)
        assert sha(headers[layer]) == layers[layer][1]
        assert struct.unpack_from("<Q", headers[layer], 16)[0] == layers[layer][2]
    for leaf in range(first, first + count):
        for level in reversed(range(levels_of(layers[layer][2]))):
            index = leaf // 128 ** (level + 1)
            if (layer, level, index) in nodes:
                continue
            node = take(PAGE)
            assert sha(node) == hash_of(layer, level, index)
            nodes[layer, level, index] = node
        page = take(PAGE)
        length = min(PAGE, layers[layer][2] - PAGE * leaf)
        assert sha(page[:length]) == hash_of(layer, -1, leaf)
        assert not any(page[length:])
        assert crc(page) == crcs[slot]
        digest.update(page)
        slot += 1
assert slot == pages and at == len(content)
for name, root, size in layers:
    print("layer", name.hex(), root.hex(), size)
for run in runs:
    print("run", *run)
print("pages", digest.hexdigest())
