"""Backup of an image of a Ceph cluster: what reading costs beside a plain parallel reader, and what an incremental one costs."""

import json
import random
import struct
import subprocess
import time
from pathlib import Path

from .contestants import Backyfs
from .images import MIB
from .sources import CHUNK, THREADS, backup, hashing, reader_limit, reader_note
from .table import Row

IMAGE = "rbd/bench"
READER = Path(__file__).with_name("rbd_reader.py")


def rbd(*arguments, **kw):
    """What the cluster's tool prints."""
    done = subprocess.run(["rbd", *map(str, arguments)], capture_output=True, text=True, **kw)
    if done.returncode != 0:
        raise SystemExit(f"rbd {arguments[0]} failed: {done.stderr[-400:]}")
    return done.stdout + done.stderr


def plain_reader(size):
    """Seconds of reading an image with as many requests of the same size as a backup has under way, and nothing else."""
    start = time.perf_counter()
    rbd("bench", "--io-type", "read", "--io-size", CHUNK, "--io-threads", THREADS, "--io-total", size, IMAGE)
    return time.perf_counter() - start


def reader_that_hashes():
    """MB/s of reading an image and hashing what was read, on the same cores, some of which are the cluster's. `rbd bench` does not do for
    that: it drops what it reads as it came, in pieces, and puts it into no memory that could be hashed."""
    # The interpreter the library is for, without this directory, which has a module of its name.
    done = subprocess.run(["/usr/bin/python3", "-I", READER, IMAGE, str(CHUNK), str(THREADS)], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def change(room, pieces, size):
    """Rewrites so many MiB of the image all over it."""
    rnd, patch = random.Random(5), room / "patch"
    with open(patch, "wb") as f:
        f.write(b"rbd diff v1\n")
        for at in sorted(rnd.sample(range(size // MIB), pieces)):
            f.write(b"w" + struct.pack("<QQ", at * MIB, MIB) + rnd.randbytes(MIB))
        f.write(b"e")
    rbd("import-diff", "--no-progress", patch, IMAGE)
    patch.unlink()


def run(given, size, rounds, room, figures):
    """Everything, in a fresh repository."""
    add = lambda key, value: figures.add("backyfs", f"rbd {key}", value)
    disk = room / "disk.img"
    rnd = random.Random(6)
    with open(disk, "wb") as f:
        for _ in range(size // MIB):
            f.write(rnd.randbytes(MIB))
    rbd("import", "--no-progress", disk, IMAGE)
    it = Backyfs(room, given.binary)
    try:
        add("first s", backup(it, f"rbd:{IMAGE}", "vm")[0])
        for _ in range(rounds):
            # In turn, so that both meet the same machine.
            nothing = plain_reader(CHUNK)
            add("plain MB/s", size / 1e6 / (plain_reader(size) - nothing))
            add("hash MB/s", hashing(size))
            add("reader MB/s", reader_that_hashes())
            # What both take for nothing, to connect and to take and remove snapshots, is no reading.
            nothing = backup(it, f"rbd:{IMAGE}", "vm")[0]
            seconds = backup(it, "--full", f"rbd:{IMAGE}", "vm")[0]
            add("nothing s", nothing)
            add("full s", seconds)
            add("read MB/s", size / 1e6 / (seconds - nothing))
        change(room, size // MIB // 16, size)
        add("changed s", backup(it, f"rbd:{IMAGE}", "vm")[0])
        out = room / "out.img"
        start = time.perf_counter()
        subprocess.run([str(it.binary), "restore", "vm", "rbd:rbd/bench-restored"], env=it.env, check=True, stdout=subprocess.DEVNULL)
        add("restore MB/s", size / 1e6 / (time.perf_counter() - start))
        disk.unlink()
        rbd("export", "--no-progress", IMAGE, disk)
        rbd("export", "--no-progress", "rbd/bench-restored", out)
        if subprocess.run(["cmp", disk, out]).returncode != 0:
            raise SystemExit("what was restored differs: no figure of this run counts")
        out.unlink()
    finally:
        it.done()
        disk.unlink(missing_ok=True)
        for image in (IMAGE, "rbd/bench-restored"):
            for row in json.loads(subprocess.run(["rbd", "snap", "ls", "--format", "json", image], capture_output=True).stdout or b"[]"):
                subprocess.run(["rbd", "snap", "rm", "--no-progress", f"{image}@{row['name']}"], capture_output=True)
            subprocess.run(["rbd", "rm", "--no-progress", image], capture_output=True)


def rows(figures):
    """The lines of the table."""
    get = lambda name: figures.middle("backyfs", f"rbd {name}")
    return [
        Row("rbd, first backup", get("first s"), "s"),
        Row("rbd, nothing changed", get("nothing s"), "s"),
        Row("rbd, everything read again", get("full s"), "s"),
        Row("  the difference", get("read MB/s"), "MB/s", at_least=reader_limit(get), note=reader_note(get)),
        Row("rbd, a sixteenth changed", get("changed s"), "s", {"the first backup": (get("first s"), 0.5)}),
        Row("rbd, restore to a new image", get("restore MB/s"), "MB/s"),
    ]
