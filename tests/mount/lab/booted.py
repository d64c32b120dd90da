"""A machine that systemd has booted: the first process of namespaces of its own is the real one, with udev, journal and generators. Units are
started, mounts are made and devices appear as on any machine; nothing is seen outside.

The system below is this one, by an overlay that is thrown away. systemd and udev come from Debian's archive, unpacked and not installed,
so that they are of one version; which of their units start is said here, and those that would change the kernel's settings do not."""

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

from .guest import default_cache, unpacked
from .host import RELAY, start_relay
from .shell import MIB, check, eventually, needs, sh
from .table import NAMES

PACKAGES = ("systemd", "libsystemd-shared", "udev")
CONTRIB = Path(__file__).resolve().parents[3] / "contrib"
# Who holds the namespaces. When its standard input ends, even because the test was killed, the machine ends and its group of processes goes.
HOLD = """
set -e
mkdir -p "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/$2"
unshare --mount --pid --fork --kill-child --propagation private bash -c "$3" bash "$1" "$2" < /dev/null > "$1/console" 2>&1 &
# Whoever removes the directories of a test that was killed takes away what is mounted there, but not where somebody is.
cd "$1/cgroup"
echo "$!"
read -r _ || :
echo 1 > "$2/cgroup.kill"
wait "$!" 2> /dev/null || :
for _ in $(seq 100); do
    find "$2" -depth -type d -exec rmdir {} + 2> /dev/null && break
    sleep 0.1
done
"""
# The first process of the machine until it becomes systemd. Only what it mounts is seen there, and of the kernel's settings nothing is changed.
BUILD = """
set -e
root=$1/root
echo 0 > "$1/cgroup/$2/cgroup.procs"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t fusectl fusectl sys/fs/fuse/connections
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty fuse autofs loop-control; do cp -a "/dev/$name" dev/; done
chmod 666 dev/fuse
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=755 tmpfs run
# systemd listens to udev from the beginning, where it sees that there is one: by this, or by a /dev that is the kernel's.
mkdir run/udev
touch run/udev/control
for name in tmp dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$name"; done
exec unshare --cgroup bash -c '
set -e
mount -t cgroup2 cgroup2 sys/fs/cgroup
pivot_root . .
umount -l .
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 /lib/systemd/systemd --show-status=false --log-target=journal-or-kmsg'
"""
# The rules of udev that a disk needs. It hears of the devices of the whole machine: others would load modules for them, or set the clock.
RULES = ("50-udev-default.rules", "60-block.rules", "60-persistent-storage.rules", "99-systemd.rules")
# What starts of systemd itself: no terminals, no logins, nothing that sets the kernel or the clock.
STARTED = ("systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket")


# What of all that a kernel, or the container that this runs in, may not give.
PROBE = """
set -e
mount -t cgroup2 cgroup2 "$1"
mkdir "$1/$2"
rmdir "$1/$2"
umount "$1"
mount -t tmpfs tmpfs "$1"
mkdir "$1/root" "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
test -c /dev/autofs
"""


def hindrance(w):
    """Why no machine can be booted here; empty when one can."""
    at = w.root / "probe"
    at.mkdir()
    argv = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--propagation", "private"]
    done = sh(*argv, "bash", "-c", PROBE, "bash", at, f"backyfs-probe-{os.getpid()}", ok=False)
    return "" if done.returncode == 0 else done.stderr.decode().strip() or f"exit code {done.returncode}"


class Booted:
    """See the module. `boot` starts it; before that `at` reaches its disk, and afterwards everything that is mounted there, too."""

    def __init__(self, w):
        helper = Path(w.binary).with_name("backyfs-mount-helper")
        check(os.access(helper, os.X_OK), f"{helper}: not there; cargo build --workspace")
        needs("unshare", "nsenter", "pivot_root", "setpriv", "perl", "losetup", "addpart", "mke2fs", "dpkg-deb", "apt-get")
        self.w, self.disk, self.name = w, w.root / "booted", f"backyfs-test-{os.getpid()}"
        self.disk.mkdir()
        self.holder, self.first, self.relays, self.loops = None, None, [], []
        sh("mount", "-t", "tmpfs", "-o", "mode=755,size=3G", "tmpfs", self.disk)
        for part in ("root", "upper", "work"):
            (self.disk / part).mkdir()
        root = self.disk / "root"
        sh("mount", "-t", "overlay", "-o", f"lowerdir=/,upperdir={self.disk}/upper,workdir={self.disk}/work", "overlay", root)
        cache = default_cache()
        for package in PACKAGES:
            tree = unpacked(cache, package)
            for top in ("bin", "sbin", "lib", "usr"):
                if (tree / top).is_dir():
                    check((root / top).resolve().is_relative_to(root), f"/{top} is a link that leads out of the overlay")
                    sh("cp", "-a", "--remove-destination", f"{tree / top}/.", root / top)
        units, rules, own = root / "lib/systemd/system", root / "lib/udev/rules.d", root / "etc/systemd/system"
        generators = root / "lib/systemd/system-generators"
        sh("rm", "-f", *(path for path in (*rules.iterdir(), *generators.iterdir()) if path.name not in (*RULES, "systemd-fstab-generator")))
        sh("rm", "-rf", own, root / "etc/udev", *units.glob("*.wants"), *root.glob("etc/backyfs*"), root / "var/lib/backyfs", root / "backups", root / "etc/init.d", units / "systemd-journald-audit.socket")
        for directory in (own, units / "sockets.target.wants", root / "etc/udev/rules.d", root / "backups"):
            directory.mkdir(parents=True)
        for unit in STARTED:
            (units / "sockets.target.wants" / unit).symlink_to(f"../{unit}")
        # As Debian enables it: what _netdev is said of is started with it.
        (units / "multi-user.target.wants").mkdir()
        (units / "multi-user.target.wants/remote-fs.target").symlink_to("../remote-fs.target")
        (units / "default.target").unlink(missing_ok=True)
        (units / "default.target").symlink_to("multi-user.target")
        # One that is known to be this machine's: with none, everything would be the first boot.
        self.write("/etc/machine-id", os.urandom(16).hex() + "\n")
        self.write("/etc/fstab", "")
        # Groups that udev's rules name, of this machine.
        with open(root / "etc/group", "a") as groups:
            groups.writelines(f"{name}:x:{number}:\n" for number, name in enumerate(("input", "render", "sgx", "kvm"), 890))
        # It is copied: what is mounted here would be a unit there.
        sh("cp", "--remove-destination", w.binary, root / "usr/bin/backyfs")
        sh("cp", "--remove-destination", helper, root / "usr/sbin" / NAMES[0])
        for link in NAMES[1:]:
            (root / "usr/sbin" / link).unlink(missing_ok=True)
            (root / "usr/sbin" / link).symlink_to(NAMES[0])
        for unit in (*CONTRIB.glob("systemd/*.service"), *CONTRIB.glob("systemd/*.timer")):
            sh("install", "-m", "644", unit, own)
        sh("install", "-m", "644", CONTRIB / "udev/80-backyfs-usb.rules", root / "etc/udev/rules.d")
        # What is kept of the journal is no part of this machine, and what the kernel audits no business of it.
        self.write("/etc/systemd/journald.conf", "[Journal]\nStorage=volatile\nAudit=no\n")
        # What the cloud that the test runs in would answer is no part of it.
        self.write("/etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=AWS_EC2_METADATA_DISABLED=true\n")

    def at(self, path):
        """A path of this machine as seen from outside."""
        return Path(f"/proc/{self.first}/root{path}") if self.first else Path(f"{self.disk}/root{path}")

    def write(self, path, text, mode=0o644):
        """Writes a file of this machine, in place of whatever is there: a link could lead out of it."""
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).unlink(missing_ok=True)
        self.at(path).write_text(text)
        self.at(path).chmod(mode)

    def boot(self):
        """Turns it on, and returns when all units are started or have failed."""
        argv = ["unshare", "--mount", "--net", "--uts", "--ipc", "--propagation", "private", "bash", "-c", HOLD, "bash", self.disk, self.name, BUILD]
        # In a session of its own, so that it outlives the test long enough to tidy up.
        self.holder = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        outer = self.holder.stdout.readline()
        check(outer, "the kernel gives no namespaces, or no cgroup2 that a directory can be made in: what it said is above")
        children = Path("/proc/{0}/task/{0}/children".format(int(outer)))
        self.first = int(eventually("its first process", lambda: children.read_text().split(), 20)[0])
        eventually("it is systemd", lambda: self._console() or Path(f"/proc/{self.first}/comm").read_bytes() == b"systemd\n", 20)
        spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", f"--wd=/proc/{self.first}/root"]
        self.prefix = ["nsenter", f"--target={self.first}", *spaces, "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"]
        eventually("systemd answers", lambda: self.at("/run/systemd/private").exists(), 30)
        return self.inside("systemctl", "is-system-running", "--wait", ok=False, timeout=90).stdout.decode().strip()

    def _console(self):
        """What was said before there was a journal is a failure."""
        text = (self.disk / "console").read_text()
        check(not text, f"it does not boot: {text}")

    def inside(self, *argv, **kw):
        """Runs a program there as root, outside of all units."""
        return sh(*self.prefix, *argv, **kw)

    def inside_off(self, *argv):
        """Runs a program on its disk while it is off."""
        return sh("chroot", self.at("/"), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *argv)

    def systemctl(self, *words, ok=True):
        """systemctl(1), with what the units concerned said when it fails."""
        done = self.inside("systemctl", *words, ok=False)
        if ok and done.returncode != 0:
            check(False, f"systemctl {' '.join(map(str, words))} -> {done.returncode}: {done.stderr.decode()} {self.journal()[-700:]}")
        return done.stdout.decode().strip() if ok else done

    def show(self, unit, *names):
        """Properties of a unit as systemd has them now: one value, or a list of them."""
        table = dict(line.partition("=")[::2] for line in self.systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines())
        values = [table.get(name) for name in names]
        return values[0] if len(names) == 1 else values

    def journal(self, unit=None):
        """What a unit wrote, and what systemd wrote about it."""
        which = [f"--unit={unit}"] if unit else []
        self.inside("journalctl", "--sync")
        return self.inside("journalctl", "--no-pager", "--output=cat", *which).stdout.decode()

    def finished(self, unit, seconds=60):
        """Waits until a unit that runs once has ended; returns its result and exit code."""
        eventually(f"{unit} has run", lambda: self.show(unit, "ActiveState") in ("inactive", "failed") and self.show(unit, "ExecMainExitTimestampMonotonic") != "0", seconds)
        return tuple(self.show(unit, "Result", "ExecMainStatus"))

    def mounted(self, path):
        """(type, source) of what is mounted there last; None when nothing is."""
        found = None
        for line in Path(f"/proc/{self.first}/mountinfo").read_text().splitlines():
            fields = line.split()
            if re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[4]) == str(path):
                dash = fields.index("-")
                found = (fields[dash + 1], fields[dash + 2])
        return found

    def connect(self, port):
        """Lets it reach a server of this machine's loopback."""
        socket = self.w.root / f"relay-{port}"
        self.relays.append(start_relay([sys.executable, RELAY, "outside", socket, port]))
        self.relays.append(start_relay(["nsenter", f"--target={self.first}", "--net", "--", sys.executable, RELAY, "inside", socket, port]))

    def plug(self, image):
        """A disk with one partition, which begins at the second MiB, is plugged in; returns the partition. The kernel makes no nodes in a directory
        that is not its own, so the test does, and udev hears of the disk when they are there, as it would elsewhere."""
        self.inside("udevadm", "control", "--stop-exec-queue")
        # Its partitions go when it goes. Not every kernel reads their tables, but each can be told of one.
        loop = sh("losetup", "--partscan", "--find", "--show", image).stdout.decode().strip()
        self.loops.append(loop)
        if not Path(f"/sys/class/block/{Path(loop).name}p1").exists():
            sh("addpart", loop, 1, MIB // 512, (image.stat().st_size - MIB) // 512)
        partition = f"{loop}p1"
        for device in (loop, partition):
            numbers = Path(f"/sys/class/block/{Path(device).name}/dev").read_text()
            os.mknod(self.at(device), stat.S_IFBLK | 0o660, os.makedev(*map(int, numbers.split(":"))))
        self.inside("udevadm", "control", "--start-exec-queue")
        return partition

    def unplug(self, partition):
        """It is pulled out."""
        loop = partition.removesuffix("p1")
        sh("losetup", "--detach", loop)
        self.loops.remove(loop)
        for device in (loop, partition):
            self.at(device).unlink()

    def power_off(self):
        """As by its switch: returns when all units are stopped and all processes have ended. It is told by a signal: at its end it stops all
        processes for a moment, and nsenter(1), which stops with the program it runs, would stay so for ever, outside."""
        os.kill(self.first, signal.SIGRTMIN + 4)
        eventually("it is off", lambda: not Path(f"/proc/{self.first}").exists(), 60)
        self._hold_no_more()

    def _hold_no_more(self):
        for relay in self.relays:
            relay.kill()
            relay.wait()
        self.relays.clear()
        if self.holder:
            self.holder.stdin.close()
            self.holder.wait(60)
            self.holder.stdout.close()
        self.holder = self.first = None

    def end(self):
        """Everything goes: processes, mounts, devices, files."""
        try:
            self._hold_no_more()
        finally:
            for loop in self.loops:
                sh("losetup", "--detach", loop, ok=False)
            for at in (self.disk / "root", self.disk):
                eventually(f"{at} is free", lambda: sh("umount", at, ok=False).returncode == 0, 20)


@contextlib.contextmanager
def booted(w):
    """`with booted(w) as m:` gives a machine on which backyfs and all its units are installed, and which is still off."""
    made = Booted(w)
    try:
        yield made
    except Exception:
        if made.first:
            print(f"--- end of the journal:\n{made.journal()[-3000:]}")
        raise
    finally:
        made.end()
