"""A machine on which backyfs is installed: a namespace of mounts with an fstab, helpers in /sbin and a configuration file of its own. mount(8)
and umount(8) are the real ones. Nothing is seen outside."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from .shell import Failed, check, equal, eventually, sh
from .world import processes_of

NAMES = ("mount.backyfs", "mount.fuse.backyfs", "umount.backyfs", "umount.fuse.backyfs")
# The directory of helpers with ours added, a table and a configuration of its own, a device that users may open (as udev makes it).
INSTALL = """
set -e
mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$1/upper,workdir=$1/work" overlay /usr/sbin
mount --bind "$1/fstab" /etc/fstab
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
mkdir -p /run/mount
mount -t tmpfs -o mode=755 tmpfs /run/mount
"""


class Machine:
    """See the module. `w` is a world that is not mounted, whose repository the machine uses."""

    def __init__(self, w):
        self.w, self.root = w, w.root / "machine"
        self.tmp = self.root / "disk"
        self.tmp.mkdir(parents=True)
        helper = Path(w.binary).with_name("backyfs-mount-helper")
        check(os.access(helper, os.X_OK), f"{helper}: not there; cargo build --workspace")
        # An overlay cannot lie on every filesystem, but it can on this one.
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.tmp)
        for name in ("upper", "work"):
            (self.tmp / name).mkdir()
        for name in NAMES:
            (self.tmp / "upper" / name).symlink_to(helper)
        self.fstab = self.tmp / "fstab"
        self.fstab.write_text("")
        self.holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        mine = os.readlink("/proc/self/ns/mnt")
        eventually("a machine of its own", lambda: os.readlink(f"/proc/{self.holder.pid}/ns/mnt") != mine)
        self.prefix = ["nsenter", f"--target={self.holder.pid}", "--mount", "--"]
        self.inside("bash", "-c", INSTALL, "bash", self.tmp)
        # What init would say of the system: nothing of the tests' settings.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("BACKYFS_")}

    def lines(self, *lines):
        """Writes the table."""
        self.fstab.write_text("\n".join(lines) + "\n")

    def inside(self, *argv, **kw):
        """Runs a program on this machine."""
        return sh(*self.prefix, *argv, **kw)

    def mount(self, *args, ok=True, **kw):
        """The real mount(8)."""
        return self._run("mount", *args, ok=ok, **kw)

    def umount(self, *args, ok=True, **kw):
        """The real umount(8)."""
        return self._run("umount", *args, ok=ok, **kw)

    def _run(self, *argv, ok, **kw):
        done = sh(*self.prefix, *argv, ok=False, env=self.env, **kw)
        check(b"panicked" not in done.stderr, done.stderr)
        if ok and done.returncode != 0:
            raise Failed(f"{' '.join(map(str, argv))} -> exit {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done

    def refused(self, *args, code=32):
        """mount(8) fails with one line, which is returned."""
        done = self.mount(*args, ok=False)
        text = done.stderr.decode()
        equal(done.returncode, code, f"exit code of mount {args}: {text}")
        check(text.count("\n") == 1, f"one line: {text}")
        return text

    def dir(self, name):
        """A mountpoint on this machine, made when needed."""
        path = self.root / name
        path.mkdir(exist_ok=True)
        return path

    def at(self, path):
        """A path of this machine as seen from outside."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def mounted(self, path):
        """(type, source, options of the mount) of what is mounted there last; None when nothing is."""
        found = None
        with open(f"/proc/{self.holder.pid}/mountinfo") as table:
            for line in table:
                fields = line.split()
                if re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[4]) == str(path):
                    dash = fields.index("-")
                    found = (fields[dash + 1], fields[dash + 2], fields[5].split(","))
        return found

    def on_the_network(self):
        """Mountpoints that are unmounted before the network goes, as findmnt(8) sees it."""
        return self.inside("findmnt", "--mtab", "-no", "TARGET", "-O", "_netdev", ok=False).stdout.decode().split()

    def daemons(self):
        """Pids of its daemons."""
        return list(processes_of(self.root))

    def options(self, *more):
        """Options that a line needs to use the repository of the world."""
        return ",".join([f"state-dir={self.w.state}", f"key-file={self.w.key}", *more])

    def end(self):
        """Ends its daemons and its namespace."""
        for pid in self.daemons():
            os.kill(pid, signal.SIGKILL)
        self.holder.kill()
        self.holder.wait()
        eventually("its disk is free", lambda: sh("umount", self.tmp, ok=False).returncode == 0)


@contextlib.contextmanager
def machine(w):
    """`with machine(w) as m:` makes the repository of `w`, and a machine without any mount."""
    w.run("init")
    made = Machine(w)
    try:
        yield made
        left = made.daemons()
        check(not left, f"daemons are left: {left}")
    finally:
        made.end()
