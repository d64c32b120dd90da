"""A small virtual machine: a Debian cloud kernel, an initramfs of busybox, and a root file system on the disk under test.

Everything it needs comes from Debian's archive and is kept in a cache directory: packages are downloaded and unpacked, the
kernel is never installed on the host. The guest writes a file, trims, unmounts and powers off; it reports on its serial port.
"""

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from .shell import MIB, Failed, sh

ROOT_SIZE = 64 * MIB
MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"]
INITRAMFS_INIT = """#!/bin/sh
/bin/busybox mount -t devtmpfs dev /dev
for m in {modules}; do /bin/busybox insmod /modules/$m.ko; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || {{ echo GUEST-FAILED mount; /bin/busybox poweroff -f; }}
exec /bin/busybox switch_root /root /sbin/init
"""
ROOT_INIT = """#!/bin/busybox sh
PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo "GUEST-BOOTS $(cat /boots 2>/dev/null)"
dd if=/dev/urandom of=/written bs=64k count=48 2>/dev/null
echo "GUEST-WRITTEN $(sha256sum < /written)"
echo "GUEST-READS $(cat /seed/* | sha256sum)"
echo -n x >> /boots
rm -rf /junk && mkdir /junk && i=0
while [ $i -lt 200 ]; do echo "$i" > /junk/$i; i=$((i+1)); done
sync
fstrim -v / || true
mount -o remount,ro / && echo GUEST-DONE
poweroff -f
"""


# What making and running a guest takes.
TOOLS = ("qemu-system-x86_64", "mke2fs", "dpkg-deb", "apt-get", "debugfs")


def _download(package, into):
    """Fetches a Debian package without installing it and unpacks it below `into`; returns that directory."""
    tree = into / package
    if tree.is_dir():
        return tree
    sh("apt-get", "download", package, cwd=into, timeout=600)
    deb = next(into.glob(f"{package}_*.deb"))
    unpacked = into / f"{package}.new"
    shutil.rmtree(unpacked, ignore_errors=True)
    sh("dpkg-deb", "-x", deb, unpacked)
    unpacked.rename(tree)
    deb.unlink()
    return tree


def unpacked(cache, package):
    """The directory of a Debian package, which is downloaded once."""
    Path(cache).mkdir(parents=True, exist_ok=True)
    with open(Path(cache) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _download(package, Path(cache))


def _kernel_package():
    """The package that the metapackage linux-image-cloud-amd64 depends on."""
    out = sh("apt-cache", "depends", "linux-image-cloud-amd64").stdout.decode()
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", out)
    if not found:
        raise Failed(f"linux-image-cloud-amd64 names no kernel: {out!r} (apt-get update?)")
    return found.group(1)


def _cpio(entries):
    """A 'newc' cpio archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst) of (name, mode, bytes)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


class Guest:
    """Kernel, initramfs and a root image, made once and kept in `cache`."""

    def __init__(self, cache):
        self.cache = Path(cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        with open(self.cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tree = _download(_kernel_package(), self.cache)
            busybox = _download("busybox-static", self.cache)
            self.busybox = next(b for b in (busybox / "bin/busybox", busybox / "usr/bin/busybox") if b.exists())
            self.kernel = next((tree / "boot").glob("vmlinuz-*"))
            self.initramfs = self.cache / "initramfs.gz"
            self._make_initramfs(tree)

    def _make_initramfs(self, tree):
        entries = [(d, 0o40755, b"") for d in ("bin", "dev", "modules", "root")]
        entries.append(("bin/busybox", 0o100755, self.busybox.read_bytes()))
        entries.append(("bin/sh", 0o120777, b"busybox"))
        for module in MODULES:
            ko = next(tree.rglob(f"{module}.ko"))
            entries.append((f"modules/{module}.ko", 0o100644, ko.read_bytes()))
        entries.append(("init", 0o100755, INITRAMFS_INIT.format(modules=" ".join(MODULES)).encode()))
        new = self.initramfs.with_suffix(".new")
        new.write_bytes(gzip.compress(_cpio(entries), 1, mtime=0))
        new.rename(self.initramfs)

    def make_root(self, image):
        """Writes a bootable ext4 image to `image`; returns the hex SHA-256 of its seed files' bytes in the order of their names."""
        tree = image.parent / f"{image.name}.tree"
        for d in ("bin", "sbin", "proc", "dev", "seed"):
            (tree / d).mkdir(parents=True)
        shutil.copy(self.busybox, tree / "bin/busybox")
        for applet in ("sh", "mount", "cat", "dd", "sha256sum", "rm", "mkdir", "sync", "fstrim", "poweroff", "echo", "["):
            (tree / "bin" / applet).symlink_to("busybox")
        (tree / "sbin/init").write_text(ROOT_INIT)
        (tree / "sbin/init").chmod(0o755)
        seen = hashlib.sha256()
        for i in range(8):
            content = hashlib.shake_128(bytes([i])).digest(777_777)
            (tree / "seed" / str(i)).write_bytes(content)
            seen.update(content)
        with open(image, "wb") as f:
            f.truncate(ROOT_SIZE)
        sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image)
        shutil.rmtree(tree)
        return seen.hexdigest()

    def boot(self, disk, cache_mode="writeback", aio="threads", seconds=300):
        """Boots with `disk` as the root disk and waits for the power-off; returns what the guest said, word -> rest of line."""
        drive = f"file={disk},format=raw,if=none,id=d0,cache={cache_mode},aio={aio},discard=unmap,detect-zeroes=unmap"
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "256", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", self.kernel, "-initrd", self.initramfs]
        argv += ["-append", "console=ttyS0 quiet panic=-1", "-drive", drive, "-device", "virtio-blk-pci,drive=d0"]
        run = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
        text = run.stdout.decode(errors="replace")
        said = dict(re.findall(r"GUEST-([A-Z]+) ?([^\r\n]*)", text))
        if run.returncode != 0 or "DONE" not in said:
            raise Failed(f"the guest did not finish ({run.returncode}): {text[-800:]} {run.stderr.decode()[-400:]}")
        return said


def file_in_image(image, path):
    """Bytes of a file inside an ext2/3/4 image, read without mounting it."""
    return sh("debugfs", "-R", f"cat {path}", image).stdout


def default_cache():
    """Where downloads stay between runs: beside the build, or as BACKYFS_TEST_CACHE says."""
    top = Path(__file__).resolve().parents[3]
    return Path(os.environ.get("BACKYFS_TEST_CACHE", top / "target" / "boot-cache"))
