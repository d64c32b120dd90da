"""The disk images of the benchmark: real files of this machine in an ext4 file system, and the same disk some changes later."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
PAGE = 4 * KIB
SOURCES = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share")
# Constant identity and clock, so that the same files give the same image.
UUID, HASH_SEED, FAKE_TIME = "6c1a3e0e-5d0b-4c43-9a55-b0c0a7d1d15c", "0f9d3c52-91a7-4a30-8f11-3b1f2d7a9e60", "1700000000"


def sh(*argv, **kw):
    """Runs a program that must succeed."""
    return subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)


def _real_files(limit_bytes):
    """Regular files of this machine in a fixed order, shuffled with a fixed seed, up to `limit_bytes` in all."""
    found = []
    for top in SOURCES:
        for directory, below, names in os.walk(top):
            below.sort()
            found += [Path(directory, n) for n in sorted(names)]
    random.Random(1).shuffle(found)
    total = 0
    for path in found:
        if path.is_symlink() or not path.is_file():
            continue
        size = path.stat().st_size
        if size > limit_bytes // 8 or total + size > limit_bytes:
            continue
        total += size
        yield path


def make_base(image, size_bytes, files_bytes):
    """Writes an ext4 image of `size_bytes` holding about `files_bytes` of real files."""
    with tempfile.TemporaryDirectory(dir=image.parent, prefix="tree-") as top:
        for path in _real_files(files_bytes):
            to = Path(top + str(path))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            os.utime(to, (int(FAKE_TIME),) * 2)
        new = image.with_suffix(".new")
        with open(new, "wb") as f:
            f.truncate(size_bytes)
        features = f"hash_seed={HASH_SEED},lazy_itable_init=0,lazy_journal_init=0"
        environment = {**os.environ, "E2FSPROGS_FAKE_TIME": FAKE_TIME}
        sh("mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "-E", features, "-d", top, new, env=environment)
        new.rename(image)


def _change_pages(content, pages, rnd):
    """Overwrites 16 bytes somewhere in each of the given 4 KiB pages: the page changes, its texture does not."""
    for page in pages:
        at = min(page * PAGE + rnd.randrange(PAGE - 16), max(0, len(content) - 16))
        content[at : at + 16] = rnd.randbytes(16)


def _upgrade(path, rnd):
    """Replaces a file as a package manager does: new content beside it, then a rename. Returns the bytes written."""
    content = bytearray(path.read_bytes())
    _change_pages(content, range(len(content) // PAGE + 1), rnd)
    beside = path.with_name(path.name + ".dpkg-new")
    beside.write_bytes(content)
    beside.rename(path)
    return len(content)


def _update_in_place(path, rnd):
    """Rewrites runs of pages inside a file, as databases and mail stores do. Returns the bytes written."""
    written = 0
    size = path.stat().st_size
    with open(path, "r+b") as f:
        for _ in range(rnd.randint(1, 8)):
            length = min(size, rnd.choice((1, 1, 2, 4, 16, 64)) * PAGE)
            at = rnd.randrange(0, size - length + 1) // PAGE * PAGE
            f.seek(at)
            content = bytearray(f.read(length))
            _change_pages(content, range(len(content) // PAGE), rnd)
            f.seek(at)
            f.write(content)
            written += len(content)
    return written


def make_changed(base, image, change_bytes):
    """Writes a copy of `base` whose mounted file system was worked in until about `change_bytes` were written, all over it."""
    new = image.with_suffix(".new")
    sh("cp", "--sparse=always", base, new)
    rnd = random.Random(2)
    with tempfile.TemporaryDirectory(dir=image.parent, prefix="mounted-") as at:
        sh("mount", "-o", "loop", new, at)
        try:
            files = sorted(p for p in Path(at).rglob("*") if p.is_file() and not p.is_symlink() and p.stat().st_size >= PAGE)
            rnd.shuffle(files)
            written = 0
            for path in files:
                if written >= change_bytes:
                    break
                written += _upgrade(path, rnd) if rnd.random() < 0.6 else _update_in_place(path, rnd)
        finally:
            sh("umount", at)
    new.rename(image)


def changed_pages(a, b):
    """How many 4 KiB pages differ between two images of one size."""
    different = 0
    with open(a, "rb", buffering=0) as fa, open(b, "rb", buffering=0) as fb:
        while pa := fa.read(4 * MIB):
            pb = fb.read(len(pa))
            if pa != pb:
                different += sum(pa[i : i + PAGE] != pb[i : i + PAGE] for i in range(0, len(pa), PAGE))
    return different


def make_sparse(image, source, size_bytes, data_bytes):
    """Writes a sparse file of `size_bytes` with `data_bytes` of data taken from `source`, in pieces of 1 MiB all over it."""
    rnd = random.Random(3)
    pieces = data_bytes // MIB
    with open(source, "rb") as real, open(image, "wb") as f:
        f.truncate(size_bytes)
        filled = real.seek(0, os.SEEK_END) // MIB
        for at in sorted(rnd.sample(range(size_bytes // MIB), pieces)):
            real.seek(rnd.randrange(filled) * MIB)
            content = bytearray(real.read(MIB))
            content[:16] = rnd.randbytes(16)
            f.seek(at * MIB)
            f.write(content)
