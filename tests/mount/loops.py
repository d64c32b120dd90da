"""Real file systems on `data` through loop devices: they mount, hold what is written, trim, and are clean afterwards."""

import hashlib
import os
import subprocess

from lab.case import test
from lab.shell import MIB, check, digest, equal, needs, pattern, same, sh

CHECKS = {
    "ext4": ["fsck.ext4", "-fn"],
    "xfs": ["xfs_repair", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
}
SIZES = {"ext4": 64 * MIB, "xfs": 320 * MIB, "btrfs": 160 * MIB}


def make(kind, path):
    """An image of a file system with some files in it."""
    needs(f"mkfs.{kind}")
    with open(path, "wb") as f:
        f.truncate(SIZES[kind])
    sh(f"mkfs.{kind}", *({"ext4": ["-q", "-F"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}[kind]), path)
    at = path.with_suffix(".at")
    at.mkdir()
    sh("mount", "-o", "loop", path, at)
    try:
        for i in range(6):
            (at / f"file{i}").write_bytes(pattern(i, MIB + i))
    finally:
        sh("umount", at)


class Attached:
    """A loop device on a file for the length of a block."""

    def __init__(self, path, direct):
        self.path, self.direct = path, direct

    def __enter__(self):
        self.device = sh("losetup", "--find", "--show", f"--direct-io={'on' if self.direct else 'off'}", self.path).stdout.decode().strip()
        if self.direct:
            equal(sh("losetup", "-nO", "DIO", self.device).stdout.split(), [b"1"], "direct I/O was taken")
        return self.device

    def __exit__(self, *_):
        sh("losetup", "-d", self.device)


def _worked_in(kind, direct):
    def run(w, samples):
        image, at = w.root / "fs.img", w.root / "at"
        make(kind, image)
        at.mkdir()
        sh("cp", image, w.incoming("fs"))
        want = {f"file{i}": pattern(i, MIB + i) for i in range(6)}
        for turn in range(2):
            with Attached(w.data("fs"), direct) as device:
                sh("mount", "-o", "discard" if turn else "defaults", device, at)
                try:
                    for name, content in want.items():
                        check((at / name).read_bytes() == content, f"turn {turn}: {name}")
                    for i in range(4):
                        name, content = f"new{turn}-{i}", pattern((turn, i), 3 * MIB + 17 * i)
                        (at / name).write_bytes(content)
                        want[name] = content
                    name = f"file{turn}"
                    (at / name).unlink()
                    del want[name]
                    sh("sync", "-f", at)
                    sh("fstrim", "-v", at)
                    sh("dd", f"if={at}/file5", f"of={at}/direct{turn}", "bs=64K", "oflag=direct")
                    want[f"direct{turn}"] = want["file5"]
                finally:
                    sh("umount", at)
            if turn == 0:
                w.remount()
        sh(*CHECKS[kind], w.data("fs"))
        same(image, w.original("fs"))
        # What was written can be kept: a copy of `data` is a version that mounts alike.
        sh("cp", w.data("fs"), w.incoming("kept"))
        same(w.data("fs"), w.original("kept"))
        sh(*CHECKS[kind], w.original("kept"))
        (w.latest("fs") / "overlay").write_text("discard\n")
        same(image, w.data("fs"))

    return run


for _kind in CHECKS:
    for _direct in (False, True):
        _run = _worked_in(_kind, _direct)
        _run.__name__, _run.__module__ = f"{_kind}{'_direct' if _direct else ''}", __name__
        test(seconds=300)(_run)


@test
def read_only_mount_of_original(w, samples):
    sh("cp", samples / "disk.img", w.incoming("d"))
    at = w.root / "at"
    at.mkdir()
    sh("mount", "-o", "loop,ro", w.original("d"), at)
    try:
        equal((at / "hello").read_text(), "hello\n", "a file")
    finally:
        sh("umount", at)
    same(samples / "disk.img", w.original("d"))


@test
def attached_data_is_in_use(w, samples):
    sh("cp", samples / "disk.img", w.incoming("d"))
    with Attached(w.data("d"), False) as device:
        fd = os.open(device, os.O_RDWR)
        os.pwrite(fd, b"x" * 4096, 8192)
        os.fsync(fd)
        os.close(fd)
        done = subprocess.run(["bash", "-c", 'echo discard > "$1"', "bash", w.latest("d") / "overlay"], stderr=subprocess.PIPE)
        check(done.returncode != 0 and b"busy" in done.stderr, done.stderr)
        check(w.run("rm", "--force", w.uid("d"), ok=False).returncode != 0, "and not deleted")
    (w.latest("d") / "overlay").write_text("discard\n")
    same(samples / "disk.img", w.data("d"))


@test
def whole_device_discarded(w, samples):
    sh("cp", samples / "disk.img", w.incoming("d"))
    for direct in (False, True):
        with Attached(w.data("d"), direct) as device:
            sh("blkdiscard", device)
            equal(digest(device), digest_of_zeros((samples / "disk.img").stat().st_size), "all zeros")
        with Attached(w.data("d"), direct) as device:
            sh("mkfs.ext4", "-q", "-F", device)
        sh("fsck.ext4", "-fn", w.data("d"))
        (w.latest("d") / "overlay").write_text("discard\n")
        same(samples / "disk.img", w.data("d"))


def digest_of_zeros(size):
    """SHA-256 of so many zeros."""
    return hashlib.sha256(bytes(size)).hexdigest()
