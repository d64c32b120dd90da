"""`data`: the disk to write on. Writes go to an overlay that is durable at fsync and dropped on request; `original` never shows it."""

import errno
import mmap
import os
import random
import shutil
import time

from lab.case import test
from lab.shell import KEEP_SIZE, MIB, PUNCH_HOLE, ZERO_RANGE
from lab.shell import check, equal, fallocate, needs, pattern, raises, same, sh


def version(w, samples, name="o"):
    sh("cp", samples / "disk.img", w.incoming(name))
    return w.data(name)


def scribble(path, at=1_234_567, content=b"scribble" * 1000):
    with open(path, "r+b", buffering=0) as f:
        f.seek(at)
        f.write(content)
        os.fsync(f.fileno())


def discard(w, name="o"):
    (w.latest(name) / "overlay").write_text("discard\n")


@test
def writes_are_private_and_kept(w, samples):
    data = version(w, samples)
    scribble(data)
    want = bytearray((samples / "disk.img").read_bytes())
    want[1_234_567 : 1_234_567 + 8000] = b"scribble" * 1000
    check(data.read_bytes() == bytes(want), "data shows it")
    same(samples / "disk.img", w.original("o"))
    check(int((w.latest("o") / "overlay").read_text().split()[0]) >= 8000, "overlay tells its size")
    w.remount()
    check(data.read_bytes() == bytes(want), "after a remount")
    w.crash()
    check(data.read_bytes() == bytes(want), "after a crash")
    same(samples / "disk.img", w.original("o"))


@test
def discarding(w, samples):
    data = version(w, samples)
    with open(data, "r+b", buffering=0) as f:
        f.write(b"x" * 100_000)
        with raises(errno.EBUSY):
            discard(w)
    with open(data, "rb", buffering=0) as reader:
        equal(reader.read(5), b"xxxxx", "overlaid")
        discard(w)
        equal(os.pread(reader.fileno(), 5, 0), (samples / "disk.img").read_bytes()[:5], "stale pages are gone")
    same(samples / "disk.img", data)
    equal((w.latest("o") / "overlay").read_text().split()[0], "0", "overlay size")
    w.remount()
    same(samples / "disk.img", data)
    scribble(data)
    scribble(data, 0, b"again")
    discard(w)
    same(samples / "disk.img", data)


@test
def what_is_refused(w, samples):
    data = version(w, samples)
    size = data.stat().st_size
    with raises(errno.EPERM):
        os.close(os.open(data, os.O_WRONLY | os.O_TRUNC))
    for to in (0, size - 1, size + 1):
        with raises(errno.EPERM):
            os.truncate(data, to)
    os.truncate(data, size)
    fd = os.open(data, os.O_RDWR)
    try:
        with raises(errno.ENOSPC):
            os.pwrite(fd, b"x" * 4096, size)
        with raises(errno.EPERM, errno.ENOSPC):
            fallocate(fd, 0, size, 4096)
        equal(os.fstat(fd).st_size, size, "size")
    finally:
        os.close(fd)
    with raises(errno.EPERM, errno.EACCES, errno.EROFS):
        os.close(os.open(w.original("o"), os.O_WRONLY))
    done = sh("cp", samples / "small.img", data, ok=False)
    check(done.returncode != 0, "cp over data")
    same(samples / "disk.img", data)


@test
def seeded_writes_match_a_plain_file(w, samples):
    seed = int(os.environ.get("BACKYFS_TEST_SEED", "1"))
    rnd, plain = random.Random(seed), w.root / "plain"
    data = version(w, samples)
    shutil.copyfile(samples / "disk.img", plain)
    size = plain.stat().st_size
    for turn in range(3):
        fds = [os.open(p, os.O_RDWR) for p in (data, plain)]
        for step in range(300):
            n = min(rnd.choice((1, 512, 4095, 4096, 65_536, 300_001)), size)
            at = rnd.randrange(size - n + 1)
            op = rnd.random()
            if op < 0.5:
                content = rnd.randbytes(n)
                [os.pwrite(fd, content, at) for fd in fds]
            elif op < 0.65:
                mode = rnd.choice((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE))
                [fallocate(fd, mode, at, n) for fd in fds]
            else:
                got, want = (os.pread(fd, n, at) for fd in fds)
                check(got == want, f"seed {seed} turn {turn} step {step}: {n} bytes at {at}")
        os.fsync(fds[0])
        [os.close(fd) for fd in fds]
        same(plain, data, f"seed {seed} turn {turn}")
        w.remount() if turn == 0 else w.crash()
        same(plain, data, f"seed {seed} turn {turn}, mounted again")
    same(samples / "disk.img", w.original("o"))


@test
def keeping_it_as_a_new_version(w, samples):
    data = version(w, samples)
    scribble(data)
    fd = os.open(data, os.O_RDWR)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 3 * MIB)
    os.fsync(fd)
    os.close(fd)
    with w.adds(2 * MIB):
        sh("cp", data, w.incoming("kept"))
    same(data, w.original("kept"))
    discard(w)
    same(samples / "disk.img", data)


@test
def mapped(w, samples):
    data = version(w, samples)
    want = bytearray((samples / "disk.img").read_bytes())
    fd = os.open(data, os.O_RDWR)
    m = mmap.mmap(fd, 0)
    check(m[:] == bytes(want), "mapped bytes")
    for i in range(0, len(want) - 5000, 977_777):
        m[i : i + 5000] = want[i : i + 5000] = pattern(i, 5000)
    m.flush()
    os.fsync(fd)
    m.close()
    os.close(fd)
    check(data.read_bytes() == bytes(want), "read back")
    w.crash()
    check(data.read_bytes() == bytes(want), "after a crash")
    same(samples / "disk.img", w.original("o"))
    fd = os.open(w.original("o"), os.O_RDONLY)
    m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    check(m[:] == (samples / "disk.img").read_bytes(), "original mapped")
    m.close()
    os.close(fd)


@test
def holes(w, samples):
    data = version(w, samples)
    disk, original = samples / "disk.img", w.original("o")
    size = disk.stat().st_size
    fd = os.open(original, os.O_RDONLY)
    at, seen = 0, 0
    content = disk.read_bytes()
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            equal(e.errno, errno.ENXIO, "end")
            start = size
        check(not any(content[at:start]), f"SEEK_DATA skipped data in {at}..{start}")
        if start == size:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        check(at > start, "progress")
        seen += at - start
    os.close(fd)
    check(seen < size, "the image's free space is a hole")
    check(original.stat().st_blocks * 512 < size, "blocks")
    scribble(data, 0, b"x" * 4096)
    out = w.root / "out"
    sh("cp", data, out)
    same(data, out)


@test(seconds=300)
def fio_verify(w, samples):
    needs("fio")
    data = version(w, samples)
    common = ["fio", "--name=v", f"--filename={data}", "--size=40M", "--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--allow_file_create=0", "--file_append=0", "--output-format=terse", "--overwrite=1", "--fallocate=none"]
    for options in (
        ["--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=psync"],
        ["--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=0", "--blockalign=512", "--direct=1", "--ioengine=libaio", "--iodepth=16"],
        ["--rw=randwrite", "--bs=8k", "--direct=1", "--ioengine=io_uring", "--iodepth=16"],
        ["--rw=randrw", "--bs=4k", "--direct=0", "--ioengine=psync", "--fsync=64"],
        ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"],
    ):
        # fio leaves a file with the state of its verification where it runs.
        done = sh(*common, *options, timeout=120, ok=False, cwd=w.root)
        check(done.returncode == 0, f"{options}: {done.stdout.decode()[-300:]} {done.stderr.decode()[-600:]}")
    same(samples / "disk.img", w.original("o"))
    discard(w)
    same(samples / "disk.img", data)


@test
def state_directory_full(w, samples):
    # The overlay's own small file system.
    data = version(w, samples)
    w.down()
    moved = w.root / "moved"
    w.state.rename(moved)
    w.state.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", w.state)
    try:
        sh("cp", "-a", "--sparse=always", f"{moved}/.", w.state)
        w.up()
        fd = os.open(data, os.O_RDWR)
        acknowledged = 0
        with raises(errno.ENOSPC, errno.EIO):
            for at in range(0, 47 * MIB, MIB):
                os.pwrite(fd, pattern(at, MIB), at)
                os.fsync(fd)
                acknowledged = at + MIB
        for at in range(0, acknowledged, MIB):
            check(os.pread(fd, MIB, at) == pattern(at, MIB), f"acknowledged bytes at {at}")
        os.close(fd)
        same(samples / "disk.img", w.original("o"))
        sh("mount", "-o", "remount,size=256M", w.state)
        fd = os.open(data, os.O_RDWR)
        for at in range(0, 47 * MIB, MIB):
            os.pwrite(fd, pattern(at, MIB), at)
        os.fsync(fd)
        os.close(fd)
        w.remount()
        check(data.read_bytes()[: 47 * MIB] == b"".join(pattern(at, MIB) for at in range(0, 47 * MIB, MIB)), "room again, all of it")
        w.down()
    finally:
        w.mnt_is_mounted() and w.down()
        sh("umount", w.state)


@test
def its_time_is_its_last_write(w, samples):
    data = version(w, samples)
    first = data.stat().st_mtime
    time.sleep(1.2)
    scribble(data)
    check(data.stat().st_mtime >= first + 1, "mtime moved")
    equal(w.original("o").stat().st_mtime, first, "original's is the backup's")
