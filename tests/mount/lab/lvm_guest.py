"""A virtual machine with LVM in it: device mapper is the kernel's, so its volumes cannot be made on every machine that runs tests.

The guest has the program under test, its unit tests, LVM's tools, cp and busybox on its root disk, and an empty second disk. It runs
one shell script and says on its serial port what came of it.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from .guest import MODULES, Guest, _cpio, _kernel_package
from .shell import MIB, Failed, sh

TOOLS = ("qemu-system-x86_64", "mke2fs", "dpkg-deb", "apt-get", "lvm", "dmsetup", "thin_delta", "ldd", "cargo", "cc", "strip")
FUSE_MODULES = ["fuse"]
DM_MODULES = ["libcrc32c", "dm-mod", "dm-bufio", "dm-bio-prison", "dm-persistent-data", "dm-thin-pool", "dm-snapshot"]
COMMANDS = ["lvs", "vgs", "pvs", "lvcreate", "lvremove", "lvchange", "lvextend", "lvreduce", "lvrename", "vgcreate", "pvcreate"]
# There is no udev in the guest: LVM makes its device nodes itself.
LVM_CONF = """activation { udev_sync = 0
 udev_rules = 0
 monitoring = 0 }
devices { obtain_device_list_from_udev = 0
 use_devicesfile = 0 }
global { event_activation = 0
 use_lvmpolld = 0 }
"""
# A copy by copy_file_range(2) that ends as it is told: killed by itself, or when everything is durable and somebody kills it.
COPIER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int from = open(argv[1], O_RDONLY), to = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0644);
    long length = atol(argv[3]);
    if (from < 0 || to < 0 || copy_file_range(from, 0, to, 0, length, 0) != length) return 3;
    if (!strcmp(argv[4], "die")) raise(SIGKILL);
    if (fsync(to) || write(1, "synced\n", 7) != 7) return 4;
    pause();
    return 5;
}
"""
INITRAMFS_INIT = """#!/bin/sh
/bin/busybox mount -t devtmpfs dev /dev
for m in {modules}; do /bin/busybox insmod /modules/$m.ko || echo GUEST-FAILED module $m; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || {{ echo GUEST-FAILED mount; /bin/busybox poweroff -f; }}
exec /bin/busybox switch_root /root /sbin/init
"""
INIT = """#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root LC_ALL=C
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mkdir -p /run/lock/lvm /dev/mapper
sh /script || echo "GUEST-FAILED the script ended with $?"
sync
poweroff -f
"""


def unit_tests(into):
    """The program's own unit tests, without what a debugger would want: BACKYFS_TEST_UNITS, else what cargo builds of this tree."""
    if given := os.environ.get("BACKYFS_TEST_UNITS"):
        sh("strip", "-o", into, given)
        return into
    features = os.environ.get("BACKYFS_FEATURES", "rbd")
    top = Path(__file__).resolve().parents[3]
    # As tests/run builds them, so that they are there already.
    argv = ["cargo", "test", "--release", "--no-run", "--workspace", "--lib", "--locked", "--features", features, "--message-format", "json"]
    for line in sh(*argv, cwd=top, timeout=1800).stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["executable"] and message["target"]["name"] == "backyfs":
            sh("strip", "-o", into, message["executable"])
            return into
    raise Failed("cargo built no unit tests")


def _libraries(binary):
    """Shared libraries of a program, as absolute paths."""
    return re.findall(r"(/\S+) \(0x", sh("ldd", binary).stdout.decode())


class LvmGuest:
    """The guest of a program; see the module."""

    def __init__(self, cache, binary, units, work):
        self.guest = Guest(cache)
        self.root, self.disk, self.initramfs = work / "root.img", work / "disk.img", work / "initramfs.gz"
        self._make_initramfs(Path(cache) / _kernel_package())
        self.tree = work / "tree"
        self._make_tree(binary, units)

    def _make_initramfs(self, kernel):
        entries = [(d, 0o40755, b"") for d in ("bin", "dev", "modules", "root")]
        entries.append(("bin/busybox", 0o100755, self.guest.busybox.read_bytes()))
        entries.append(("bin/sh", 0o120777, b"busybox"))
        modules = MODULES + DM_MODULES + FUSE_MODULES
        for module in modules:
            entries.append((f"modules/{module}.ko", 0o100644, next(kernel.rglob(f"{module}.ko")).read_bytes()))
        entries.append(("init", 0o100755, INITRAMFS_INIT.format(modules=" ".join(modules)).encode()))
        self.initramfs.write_bytes(gzip.compress(_cpio(entries), 1, mtime=0))

    def _make_tree(self, binary, units):
        tree = self.tree
        for d in ("bin", "sbin", "usr", "proc", "sys", "dev", "tmp", "run", "etc/lvm", "root", "var"):
            (tree / d).mkdir(parents=True)
        for link in ("usr/bin", "usr/sbin"):
            (tree / link).symlink_to("../bin")
        shutil.copy(self.guest.busybox, tree / "bin/busybox")
        applets = subprocess.run([self.guest.busybox, "--list"], capture_output=True, check=True).stdout.decode().split()
        for applet in applets:
            if not (tree / "bin" / applet).exists():
                (tree / "bin" / applet).symlink_to("busybox")
        # That of busybox knows nothing of copy_file_range(2).
        (tree / "bin/cp").unlink()
        programs = {Path(p).name: p for p in map(shutil.which, ("lvm", "dmsetup", "thin_delta", "cp"))}
        (tree / "copier.c").write_text(COPIER)
        sh("cc", "-o", tree.parent / "copier", tree / "copier.c")
        programs |= {"backyfs": binary, "backyfs-units": units, "copier": tree.parent / "copier"}
        for name, program in programs.items():
            real = Path(program).resolve()
            shutil.copy(real, tree / "bin" / name)
            for library in _libraries(real):
                to = tree / library.lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                if not to.exists():
                    shutil.copy(Path(library).resolve(), to)
        for name in ("thin_check", "thin_repair", "thin_dump"):
            (tree / "bin" / name).symlink_to("thin_delta")
        for command in COMMANDS:
            (tree / "bin" / command).symlink_to("lvm")
        (tree / "etc/lvm/lvm.conf").write_text(LVM_CONF)
        (tree / "sbin/init").write_text(INIT)
        (tree / "sbin/init").chmod(0o755)

    def run(self, script, seconds=500):
        """Boots, runs the script, and returns what it said: word -> rest of line, of the lines that begin with GUEST-."""
        (self.tree / "script").write_text(script)
        used = sum(p.lstat().st_size for p in self.tree.rglob("*"))
        for image, size in ((self.root, used * 3 // 2 + 400 * MIB), (self.disk, 640 * MIB)):
            with open(image, "wb") as f:
                f.truncate(size)
        sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", self.tree, self.root)
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "768", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", self.guest.kernel, "-initrd", self.initramfs]
        argv += ["-append", "console=ttyS0 quiet panic=-1"]
        for number, image in enumerate((self.root, self.disk)):
            argv += ["-drive", f"file={image},format=raw,if=none,id=d{number},cache=unsafe", "-device", f"virtio-blk-pci,drive=d{number}"]
        try:
            run = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"").decode(errors="replace")
            raise Failed(f"the guest was not done after {seconds} s: {said[-1800:]}") from None
        text = run.stdout.decode(errors="replace")
        said = dict(re.findall(r"GUEST-([A-Z]+) ?([^\r\n]*)", text))
        if run.returncode != 0 or "DONE" not in said or "FAILED" in said:
            raise Failed(f"the guest did not finish ({run.returncode}): {text[-1800:]} {run.stderr.decode()[-400:]}")
        return said
