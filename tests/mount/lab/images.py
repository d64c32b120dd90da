"""Disk images for the tests, made once per run: small real ext4 file systems and plain bytes."""

import random
from pathlib import Path

from .shell import KIB, MIB, pattern, sh


def make_disk(path, size=48 * MIB):
    """An ext4 image with text and random files: part compresses, part does not, part is a hole."""
    tree = Path(f"{path}.tree")
    tree.mkdir()
    (tree / "hello").write_text("hello\n")
    for i in range(24):
        (tree / f"random{i}").write_bytes(random.Random(i).randbytes(200_000 + i * 7919))
        (tree / f"text{i}").write_text(f"line {i}\n" * 20_000)
    with open(path, "wb") as f:
        f.truncate(size)
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path)
    sh("rm", "-r", tree)


def make_small(path, size=5 * MIB + 777):
    """Bytes that end inside a block: incompressible, then text, then a stretch of zeros, then incompressible again."""
    third = size // 3
    text = b"all work and no play makes jack a dull boy\n" * (third // 43 + 1)
    content = pattern("small", third) + text[:third]
    content += bytes(300 * KIB) + pattern("tail", size - len(content) - 300 * KIB)
    path.write_bytes(content)
