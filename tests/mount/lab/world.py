"""One repository, its state directory, its key and its mountpoint, driven from outside through the real binary."""

import json
import os
import re
import signal
import stat
import time
from pathlib import Path

from .shell import Failed, check, eventually, sh


def mounts_below(top):
    """Mountpoints at or below a directory, the innermost first."""
    prefix = str(top)
    found = []
    with open("/proc/self/mountinfo") as table:
        for line in table:
            at = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
            if at == prefix or at.startswith(prefix + "/"):
                found.append(at)
    return found[::-1]


def processes_of(top):
    """Ids of processes of this binary's name that were told a path below `top`: daemons that belong to the caller."""
    wanted = str(top).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # comm never blocks; cmdline of a process that hangs in a page fault of some dead mount does.
            if (entry / "comm").read_bytes() != b"backyfs\n":
                continue
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.path.basename(argv[0]) == b"backyfs" and any(a == wanted or a.startswith(wanted + b"/") for a in argv):
            yield int(entry.name)


def loops_below(top):
    """Loop devices whose backing file lies below a directory."""
    out = sh("losetup", "--json", "--output", "NAME,BACK-FILE", ok=False).stdout
    for row in json.loads(out or b'{"loopdevices": []}')["loopdevices"]:
        if str(row["back-file"] or "").startswith(str(top) + "/"):
            yield row["name"]


def clear(top):
    """Ends whatever was left below a test's directory: mounts, loop devices, daemons. Returns what was found, for the report."""
    top = Path(top)
    left = []
    for _ in range(3):
        mounts, loops = mounts_below(top), list(loops_below(top))
        for at in mounts:
            left.append(f"mount {at}")
            sh("umount", at, ok=False, timeout=30) if not _is_ours(at) else sh("umount", "-f", "-l", at, ok=False, timeout=30)
        for device in loops:
            left.append(f"loop {device}")
            sh("losetup", "-d", device, ok=False, timeout=30)
        if not mounts and not loops:
            break
        time.sleep(0.2)
    for pid in processes_of(top):
        left.append(f"daemon {pid}")
        os.kill(pid, signal.SIGKILL)
    for environment in top.glob("*/ceph/environment"):
        left.append(f"cluster {environment.parent}")
        for file in environment.parent.glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass
    return left


def _is_ours(at):
    """Whether the mount at a path is served by a daemon (and may need force)."""
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4] == at and " fuse.backyfs " in line for line in table)


class World:
    """The program under test with a repository of its own; see the module's first line."""

    def __init__(self, binary, root, name="w", repo=None, state=None):
        self.binary, self.root = str(binary), Path(root) / name
        self.root.mkdir(parents=True)
        self.mnt, self.key = self.root / "mnt", self.root / "key"
        self.repo, self.state = repo or self.root / "repo", state or self.root / "state"
        self.mnt.mkdir()
        # Others that belong to this one's test: they go down with it.
        self.others = []
        # What a command is run through to be in the namespaces of its host.
        self.enter = []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("BACKYFS_")}
        self.env |= {
            "BACKYFS_TARGET": f"dir:{self.repo}",
            "BACKYFS_STATE_DIR": str(self.state),
            "BACKYFS_KEY_FILE": str(self.key),
        }

    def run(self, *args, ok=True, env=None, **kw):
        """Runs a command of the program. No command may ever panic."""
        done = sh(*self.enter, self.binary, *args, ok=False, env={**self.env, **(env or {})}, **kw)
        check(b"panicked" not in done.stderr, f"{args} panicked: {done.stderr.decode(errors='replace')}")
        if ok and done.returncode != 0:
            raise Failed(f"backyfs {' '.join(map(str, args))} -> exit {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}")
        return done

    def json(self, *args):
        """What a command prints with --json."""
        return json.loads(self.run(*args, "--json").stdout)

    def start(self):
        """Makes the repository and mounts it."""
        self.run("init")
        return self.up()

    def up(self, *options):
        """Mounts; the mountpoint answers when the command returns."""
        self.run("mount", *options, self.mnt)
        check(os.path.ismount(self.mnt), "mount returned before the mountpoint answered")
        return self

    def down(self):
        """Unmounts and waits for the daemon."""
        for other in self.others:
            other.down()
        if self.mnt_is_mounted():
            self.run("umount", self.mnt)
        check(not self.mnt_is_mounted(), "umount returned with the mount in place")

    def mnt_is_mounted(self):
        """Whether something is mounted there, stale or not."""
        return bool(mounts_below(self.mnt))

    def remount(self):
        """Unmounts and mounts again."""
        self.down()
        return self.up()

    def pid(self):
        """The daemon that serves the mount."""
        found = list(processes_of(self.mnt))
        check(found, "no daemon serves this mount")
        return found[0]

    def kill(self, number=signal.SIGKILL):
        """Signals the daemon and waits until it is gone."""
        pid = self.pid()
        os.kill(pid, number)
        eventually("the daemon ends", lambda: not _alive(pid), 60)

    def crash(self):
        """kill -9 of the daemon, then a new mount over the stale one."""
        self.kill()
        return self.up()

    def incoming(self, name=""):
        """Path of a name below incoming/."""
        return self.mnt / "incoming" / name

    def versions(self, name):
        """The version directories of a name as they are listed, oldest first; none when there is no such name."""
        d = self.mnt / "by_name" / name
        return [d / p for p in os.listdir(d) if p != "latest" and (d / p).is_symlink()] if d.is_dir() else []

    def latest(self, name):
        """The newest complete version of a name."""
        return self.mnt / "by_name" / name / "latest"

    def uid(self, name):
        """Uid of the newest complete version; None when there is none."""
        link = self.latest(name)
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def original(self, name):
        """The newest version's `original`."""
        return self.latest(name) / "original"

    def data(self, name):
        """The newest version's `data`."""
        return self.latest(name) / "data"

    def by_version(self, uid=""):
        """Path below by_version/."""
        return self.mnt / "by_version" / uid

    def read(self, uid, attribute):
        """An attribute's value without its last newline."""
        return self.by_version(uid).joinpath(attribute).read_text().removesuffix("\n")

    def stored(self):
        """Bytes of all objects on the target."""
        total = 0
        for path in self.repo.rglob("*"):
            try:
                info = path.lstat()
            except FileNotFoundError:
                continue
            total += info.st_size if stat.S_ISREG(info.st_mode) else 0
        return total

    def adds(self, at_most):
        """`with w.adds(BYTES):` fails when the block stores more than that on the target."""
        return _Adds(self, at_most)


class _Adds:
    def __init__(self, world, at_most):
        self.world, self.at_most = world, at_most

    def __enter__(self):
        self.before = self.world.stored()
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.bytes = self.world.stored() - self.before
            check(self.bytes <= self.at_most, f"stored {self.bytes} bytes, at most {self.at_most} expected")


def _alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
