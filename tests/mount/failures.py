"""Targets and state directories that fill up, vanish, turn read-only, and come back: clear errors, no damage, no restart."""

import errno
import os

from lab.case import test
from lab.shell import MIB, check, equal, eventually, pattern, raises, same, sh
from lab.world import World


def on_tmpfs(w, size, which="repo"):
    """A second world whose target (or state directory) is a small file system; returns it and the mountpoint."""
    at = w.root / "small"
    at.mkdir()
    sh("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at)
    return World(w.binary, w.root, "inner", **{which: at / which}), at


@test(mounted=False)
def target_full(w, samples):
    s, at = on_tmpfs(w, "48M")
    try:
        s.start()
        first = w.root / "first"
        first.write_bytes(pattern("first", 6 * MIB))
        sh("cp", first, s.incoming("a"))
        big = w.root / "big"
        big.write_bytes(pattern("big", 80 * MIB))
        for argv in (["cp"], ["rsync", "--inplace"], ["dd", "bs=1M"]):
            done = sh(*argv, f"if={big}", f"of={s.incoming('b')}", ok=False) if argv[0] == "dd" else sh(*argv, big, s.incoming("b"), ok=False)
            check(done.returncode != 0 and b"No space" in done.stderr, f"{argv}: {done.returncode} {done.stderr}")
        equal(s.versions("b"), [], "nothing half is shown")
        same(first, s.original("a"))
        small = w.root / "again"
        small.write_bytes(first.read_bytes())
        sh("cp", small, s.incoming("c"))
        sh("mount", "-o", "remount,size=400M", at)
        sh("cp", big, s.incoming("b"))
        same(big, s.original("b"))
        s.remount()
        same(big, s.original("b"))
        same(first, s.original("c"))
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at)


@test(mounted=False)
def target_full_at_a_tag(w, samples):
    s, at = on_tmpfs(w, "32M")
    try:
        s.start()
        sh("cp", samples / "small.img", s.incoming("a"))
        with raises(errno.ENOSPC):
            with open(at / "filler", "wb", buffering=0) as f:
                while True:
                    f.write(bytes(4096))
        with raises(errno.ENOSPC, errno.EIO):
            (s.latest("a") / "tags").write_text("x\n")
        equal((s.latest("a") / "tags").read_text(), "", "nothing changed")
        (at / "filler").unlink()
        (s.latest("a") / "tags").write_text("x\n")
        equal((s.latest("a") / "tags").read_text(), "x\n", "room again")
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at)


@test(mounted=False)
def state_directory_full(w, samples):
    s, at = on_tmpfs(w, "24M", "state")
    try:
        s.start()
        sh("cp", samples / "small.img", s.incoming("a"))
        with raises(errno.ENOSPC):
            with open(at / "filler", "wb", buffering=0) as f:
                while True:
                    f.write(bytes(4096))
        # It may work or fail with a clear error, never hang, never lose what was there, never lie.
        done = sh("cp", samples / "disk.img", s.incoming("b"), ok=False)
        check(done.returncode == 0 or b"No space" in done.stderr or b"Input/output" in done.stderr, done.stderr)
        same(samples / "small.img", s.original("a"))
        if done.returncode == 0:
            same(samples / "disk.img", s.original("b"))
        (at / "filler").unlink()
        sh("cp", samples / "disk.img", s.incoming("c"))
        same(samples / "disk.img", s.original("c"))
        s.remount()
        for name in ("a", "c"):
            same(samples / ("small.img" if name == "a" else "disk.img"), s.original(name))
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at)


@test(mounted=False)
def target_unmounted_and_back(w, samples):
    real, at = w.root / "real", w.root / "at"
    real.mkdir(), at.mkdir()
    sh("mount", "--bind", real, at)
    s = World(w.binary, w.root, "inner", repo=at / "repo")
    try:
        s.start()
        sh("cp", samples / "small.img", s.incoming("a"))
        uid = s.uid("a")
        s.remount()
        sh("umount", "-l", at)
        equal(os.listdir(at), [], "the target is away")
        done = sh("cp", samples / "disk.img", s.incoming("b"), ok=False)
        check(done.returncode != 0 and done.stderr, "a copy fails")
        sh("ls", "-lR", s.mnt / "by_name")
        equal(s.by_version(uid).joinpath("original").stat().st_size, (samples / "small.img").stat().st_size, "stat needs no target")
        with raises(errno.EIO, errno.ENOENT, errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EAGAIN, errno.ENXIO, errno.ENODEV):
            open(s.original("a"), "rb").read()
        with raises(errno.EIO, errno.ENOENT, errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EAGAIN, errno.ENXIO, errno.ENODEV):
            (s.latest("a") / "tags").write_text("x\n")
        equal(os.listdir(at), [], "nothing was written where the target is not")
        sh("mount", "--bind", real, at)
        eventually("it goes on by itself", lambda: _reads(s.original("a")), 30)
        same(samples / "small.img", s.original("a"))
        sh("cp", samples / "disk.img", s.incoming("b"))
        same(samples / "disk.img", s.original("b"))
        (s.latest("a") / "tags").write_text("x\n")
        s.remount()
        same(samples / "disk.img", s.original("b"))
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at, ok=False)


def _reads(path):
    try:
        path.read_bytes()
        return True
    except OSError:
        return False


@test(mounted=False)
def target_read_only_and_back(w, samples):
    at = w.root / "at"
    at.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=400M", "tmpfs", at)
    s = World(w.binary, w.root, "inner", repo=at / "repo")
    try:
        s.start()
        sh("cp", samples / "small.img", s.incoming("a"))
        sh("mount", "-o", "remount,ro", at)
        done = sh("cp", samples / "disk.img", s.incoming("b"), ok=False)
        check(done.returncode != 0, "a copy fails")
        equal(s.versions("b"), [], "nothing is shown")
        same(samples / "small.img", s.original("a"))
        sh("mount", "-o", "remount,rw", at)
        sh("cp", samples / "disk.img", s.incoming("b"))
        same(samples / "disk.img", s.original("b"))
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at)


@test(mounted=False)
def errors_stick_until_opened_anew(w, samples):
    s, at = on_tmpfs(w, "24M")
    try:
        s.start()
        fd = os.open(s.incoming("a"), os.O_WRONLY | os.O_CREAT)
        with raises(errno.ENOSPC):
            for i in range(64):
                os.write(fd, pattern(i, MIB))
            os.fsync(fd)
        sh("mount", "-o", "remount,size=400M", at)
        with raises(errno.ENOSPC, errno.EIO):
            os.fsync(fd)
        with raises(errno.ENOSPC, errno.EIO):
            os.close(fd)
        equal(s.versions("a"), [], "not published")
        sh("cp", samples / "small.img", s.incoming("a"))
        same(samples / "small.img", s.original("a"))
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at)
