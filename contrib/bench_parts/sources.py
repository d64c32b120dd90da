"""What an incremental backup costs: by what changed, and not by how large the disk is."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .contestants import tree_bytes
from .images import MIB, TIB
from .table import Row

CHUNK = 4 * MIB
# As many as a backup has on few cores.
THREADS = 4
# Starts a program and tells what it took. The peak of a process counts that of whoever started it, so that one is small.
MEASURE = """
import os, sys, time
start = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(abs(os.waitstatus_to_exitcode(status)))
"""


def backup(it, *arguments):
    """Seconds and peak resident bytes of one backup command."""
    argv = [sys.executable, "-I", "-S", "-c", MEASURE, str(it.binary), "backup", *map(str, arguments)]
    done = subprocess.run(argv, env=it.env, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"backup {arguments} failed: no figure of this run counts")
    seconds, kib = done.stdout.split()
    return float(seconds), int(kib) * 1024


def plain_reader(image, use=lambda chunk: None):
    """MB/s of reading a file by as many threads as a backup uses, and nothing but `use` of each chunk."""
    size = image.stat().st_size
    fd = os.open(image, os.O_RDONLY)
    buffers = [bytearray(CHUNK) for _ in range(THREADS)]

    def read(worker):
        for at in range(worker * CHUNK, size, THREADS * CHUNK):
            got = os.preadv(fd, [buffers[worker]], at)
            use(memoryview(buffers[worker])[:got])

    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, range(THREADS)))
    os.close(fd)
    return size / 1e6 / (time.perf_counter() - start)


def hash_all(size):
    """Hashes so many bytes on all cores."""
    cores, data = os.cpu_count() or 1, bytes(CHUNK)

    def run(worker):
        for _ in range(worker * CHUNK, size, cores * CHUNK):
            hashlib.sha256(data)

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(run, range(cores)))


def sources_part(it, figures, room, change_bytes):
    """Hints on 1 TiB."""
    add = lambda key, value: figures.add("backyfs", f"sources {key}", value)
    disk, hints = room / "huge.img", room / "hints.json"
    rnd = random.Random(4)
    with open(disk, "wb") as f:
        f.truncate(TIB)
        for at in sorted(rnd.sample(range(TIB // MIB), 64)):
            f.seek(at * MIB)
            f.write(rnd.randbytes(MIB))
    backup(it, disk, "huge")
    hints.write_text("[]")
    before = tree_bytes(it.repository)
    seconds, peak = backup(it, disk, "huge", "--hints", hints)
    add("none s", seconds)
    add("none MiB", (tree_bytes(it.repository) - before) / MIB)
    add("none RSS MiB", peak / MIB)
    # As many bytes as a plain file of its own, at one place and all over the disk.
    pieces = change_bytes // MIB
    plain, told = room / "plain.img", []
    with open(disk, "r+b") as f, open(plain, "wb") as p:
        for at in sorted(rnd.sample(range(TIB // MIB), pieces)):
            content = rnd.randbytes(MIB)
            f.seek(at * MIB)
            f.write(content)
            p.write(rnd.randbytes(MIB))
            told.append({"offset": at * MIB, "length": MIB, "exists": True})
    hints.write_text(json.dumps(told))
    add("plain s", backup(it, plain, "plain")[0])
    seconds, peak = backup(it, disk, "huge", "--hints", hints)
    add("changed s", seconds)
    add("changed RSS MiB", peak / MIB)
    for path in (disk, plain, hints):
        path.unlink()


def known_part(it, figures, room, size, rounds):
    """An image that is known already, of bytes that all have to be hashed (none are zeros): what is left is reading and hashing."""
    add = lambda key, value: figures.add("backyfs", f"sources {key}", value)
    dense, rnd = room / "dense.img", random.Random(7)
    with open(dense, "wb") as f:
        for _ in range(size // MIB):
            f.write(rnd.randbytes(MIB))
    backup(it, dense, "dense")
    os.sync()
    for _ in range(rounds):
        # In turn, so that all meet the same machine.
        add("plain MB/s", plain_reader(dense))
        add("hash MB/s", hashing(size))
        add("reader MB/s", plain_reader(dense, hashlib.sha256))
        seconds, _ = backup(it, dense, "dense")
        add("read MB/s", size / 1e6 / seconds)
    dense.unlink()


def hashing(size):
    """MB/s of hashing alone."""
    start = time.perf_counter()
    hash_all(size)
    return size / 1e6 / (time.perf_counter() - start)


def reader_limit(get):
    """What reading must reach: 0.8 of a plain reader, or what whoever must read and hash on these cores can reach, if that is less; but
    for a twentieth, in which a process starts, opens a repository and compares samples."""
    return min(0.8 * get("plain MB/s"), 0.95 * get("reader MB/s"))


def reader_note(get):
    """What the limit is made of."""
    plain, hashed, both = (get(f"{what} MB/s") for what in ("plain", "hash", "reader"))
    return f"the lower of 0.8 x a plain reader ({plain:.0f}) and 0.95 x one that hashes, too ({both:.0f}); hashing alone: {hashed:.0f}"


def rows(figures):
    """The lines of the table."""
    get = lambda name: figures.middle("backyfs", f"sources {name}")
    table = []
    if figures.has("backyfs", "sources none s"):
        table += [
            Row("1 TiB, empty hints", get("none s"), "s", at_most=1),
            Row("  bytes it added", get("none MiB"), "MiB", at_most=1),
            Row("  peak resident set", get("none RSS MiB"), "MiB", at_most=256),
            Row("1 TiB, some MiB changed by hints", get("changed s"), "s", {"the same bytes alone": (get("plain s"), 1.25)}),
            Row("  peak resident set", get("changed RSS MiB"), "MiB", at_most=512),
        ]
    if figures.has("backyfs", "sources read MB/s"):
        table.append(Row("backup of a known image", get("read MB/s"), "MB/s", at_least=reader_limit(get), note=reader_note(get)))
    return table
