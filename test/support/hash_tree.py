#!/usr/bin/env python3
"""The hash tree of docs/formats/hash-tree.md, written from that page alone, to compare with obdconv's.

usage: hash_tree.py HEAD_HASH INDEX_HASH < CONTENT
Prints the root, and the SHA-256 of the tree as it is stored.
"""
import hashlib
import struct
import sys


def sha(data):
    return hashlib.sha256(data).digest()


def tree_of(content, head_hash, index_hash):
    hashes = [sha(content[at:at + 4096]) for at in range(0, len(content), 4096)]
    levels = []
    while len(hashes) > 1:
        nodes = [b"".join(hashes[at:at + 128]).ljust(4096, b"\0") for at in range(0, len(hashes), 128)]
        levels.append(nodes)
        hashes = [sha(node) for node in nodes]
    top = hashes[0] if hashes else bytes(32)
    if levels and len(levels[0]) > 2:
        levels[0] = levels[0][-2:] + levels[0][:-2]
    header = struct.pack("<8sIIQQ", b"OBDTREE\0", 1, 4096, len(content), 0)
    header = (header + top + head_hash + index_hash).ljust(512, b"\0")
    return sha(header), header + b"".join(b"".join(nodes) for nodes in reversed(levels))


root, tree = tree_of(sys.stdin.buffer.read(), bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]))
print(root.hex(), sha(tree).hex(), len(tree))
