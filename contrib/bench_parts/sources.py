"""What an incremental backup costs: by what changed, and not by how large the disk is."""

import hashlib
import json
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .contestants import tree_bytes
from .images import MIB, TIB
from .table import Row

CHUNK = 4 * MIB
THREADS = 4


def backup(it, *arguments):
    """Seconds and peak resident bytes of one backup command."""
    start = time.perf_counter()
    child = subprocess.Popen([str(it.binary), "backup", *map(str, arguments)], env=it.env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"backup {arguments} failed: no figure of this run counts")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


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


def sources_part(it, figures, room, base, change_bytes):
    """Hints on 1 TiB, and reading all of an image that is known already."""
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
    # Everything known: what is left is reading and hashing.
    backup(it, base, "base")
    dense = room / "dense.img"
    subprocess.run(["cp", "--sparse=never", base, dense], check=True)
    backup(it, dense, "dense")
    os.sync()
    add("plain MB/s", plain_reader(dense))
    # Both on these cores: what whoever must do both can reach.
    add("reader MB/s", plain_reader(dense, hashlib.sha256))
    seconds, _ = backup(it, dense, "dense")
    add("read MB/s", dense.stat().st_size / 1e6 / seconds)
    dense.unlink()


def reader_note(get):
    """What the limit is made of."""
    return f"0.8 of a plain reader that hashes ({get('reader MB/s'):.0f} MB/s; one that does not: {get('plain MB/s'):.0f})"


def rows(figures):
    """The lines of the table."""
    key = lambda name: f"sources {name}"
    if not figures.has("backyfs", key("none s")):
        return []
    get = lambda name: figures.middle("backyfs", key(name))
    return [
        Row("1 TiB, empty hints", get("none s"), "s", at_most=1),
        Row("  bytes it added", get("none MiB"), "MiB", at_most=1),
        Row("  peak resident set", get("none RSS MiB"), "MiB", at_most=256),
        Row("1 TiB, some MiB changed by hints", get("changed s"), "s", {"the same bytes alone": (get("plain s"), 1.25)}),
        Row("  peak resident set", get("changed RSS MiB"), "MiB", at_most=512),
        Row("backup of a known image", get("read MB/s"), "MB/s", at_least=0.8 * get("reader MB/s"), note=reader_note(get)),
    ]
