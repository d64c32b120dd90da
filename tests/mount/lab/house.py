"""A machine of its own for what a document tells its readers to do: root, processes and devices are its own, so that `/backups`,
`/etc/backyfs.toml` or `/dev/vg0/vm1` of a page can be just that. The system below is this one, by an overlay that is thrown away."""

import contextlib
import os
import stat
import subprocess
from pathlib import Path

from .shell import check, eventually, sh
from .table import NAMES

LOOPS = 64
# Where root, who does everything, is at home.
HOME = "/home/me"
# Processes of its own end with the first of them, and all mounts with them. That one is a shell, because it has to bury orphans.
BUILD = """
set -e
root=$1/root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty fuse loop-control; do
    [ ! -e "/dev/$name" ] || cp -a "/dev/$name" "$root/dev/"
done
chmod 666 "$root/dev/fuse"
for number in $(seq 0 $2); do mknod "$root/dev/loop$number" b 7 "$number"; done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
for name in run tmp dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$root/$name"; done
mkdir -p "$root/run/mount" "$root/home/me"
touch "$root/usr/bin/backyfs"
mount --bind "$3" "$root/usr/bin/backyfs"
rm -rf "$root"/etc/backyfs* "$root/var/lib/backyfs" "$root/backups"
: > "$root/etc/fstab"
exec chroot "$root" bash -c 'echo ready; sleep infinity & wait'
"""


class House:
    """See the module. Everything a test puts there goes through `at`; everything a reader does through `inside`."""

    def __init__(self, w, name="house"):
        helper = Path(w.binary).with_name("backyfs-mount-helper")
        check(os.access(helper, os.X_OK), f"{helper}: not there; cargo build --workspace")
        self.disk = w.root / name
        self.disk.mkdir()
        self.loops = []
        sh("mount", "-t", "tmpfs", "-o", "mode=755,size=3G", "tmpfs", self.disk)
        for part in ("root", "upper", "work"):
            (self.disk / part).mkdir()
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash", "-c", BUILD, "bash"]
        self.holder = subprocess.Popen([str(a) for a in [*argv, self.disk, LOOPS - 1, w.binary]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        check(self.holder.stdout.readline() == b"ready\n", "a machine of its own")
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        self.first = int(children.read_text().split()[0])
        self.prefix = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--root", f"--wd={self.at(HOME)}", "--"]
        (self.at("/usr/sbin") / NAMES[0]).write_bytes(helper.read_bytes())
        (self.at("/usr/sbin") / NAMES[0]).chmod(0o755)
        for link in NAMES[1:]:
            (self.at("/usr/sbin") / link).unlink(missing_ok=True)
            (self.at("/usr/sbin") / link).symlink_to(NAMES[0])
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("BACKYFS_", "AWS_", "XDG_"))}
        self.env |= {"HOME": HOME, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        # What a cloud would answer for the machine that the test runs on is no part of it.
        self.env["AWS_EC2_METADATA_DISABLED"] = "true"

    def at(self, path):
        """A path of this machine as seen from outside."""
        return Path(f"/proc/{self.first}/root{path}")

    def inside(self, *argv, **kw):
        """Runs a program there, in the reader's home."""
        return sh(*self.prefix, *argv, env=self.env, **kw)

    def mounted(self, path):
        """Whether something is mounted there."""
        return self.inside("mountpoint", "-q", path, ok=False).returncode == 0

    def device(self, path, image):
        """A block device at `path` whose content is a file of this machine."""
        loop = self.inside("losetup", "--find", "--show", image).stdout.decode().strip()
        self.loops.append(loop)
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.inside("cp", "-a", loop, path)
        check(stat.S_ISBLK(self.at(path).stat().st_mode), f"{path} is a device")
        return loop

    def unplug(self, loop):
        """Takes a device away. Its number may be somebody else's from then on."""
        self.inside("losetup", "-d", loop)
        self.loops.remove(loop)

    def end(self):
        """Everything goes: processes, mounts, devices, files."""
        for loop in self.loops:
            self.inside("losetup", "-d", loop, ok=False)
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        eventually("its disk is free", lambda: sh("umount", self.disk, ok=False).returncode == 0, 20)


@contextlib.contextmanager
def house(w, name="house"):
    """`with house(w) as h:` gives a machine on which backyfs is installed and nothing is set up."""
    made = House(w, name)
    try:
        yield made
    finally:
        made.end()
