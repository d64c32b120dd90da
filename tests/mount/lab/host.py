"""Several hosts on one machine: each has namespaces of its own for mounts and for the network, and a state directory of its own. They
share nothing but the target and the key.

The target is a directory, or a prefix in the bucket of all tests when BACKYFS_TEST_S3 names a server on loopback."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from .bucket import Bucket
from .shell import check, eventually
from .world import World, processes_of

RELAY = Path(__file__).with_name("relay.py")


class Host(World):
    """A World whose mount only its own processes see; from here it is reached through /proc."""

    def __init__(self, w, name, state=None, inside=None):
        self.holder = inside.holder if inside else _hold()
        super().__init__(w.binary, w.root, name, repo=w.repo, state=state)
        self.relay = None
        self.inner = self.mnt
        self.key = w.key
        self.mnt = Path(f"/proc/{self.holder.pid}/root{self.inner}")
        self.env |= {name: w.env[name] for name in w.env if name.startswith(("BACKYFS_", "AWS_"))} | {
            "BACKYFS_STATE_DIR": str(self.state),
            "BACKYFS_REFRESH_INTERVAL": "0",
        }
        self.enter = ["nsenter", f"--target={self.holder.pid}", "--mount", "--net", "--"]

    def connect(self, socket, port):
        """Lets it reach a server of this machine."""
        self.relay = start_relay([*self.enter, sys.executable, RELAY, "inside", socket, port])

    def up(self, *options):
        self.run("mount", *options, self.inner)
        check(self.mnt_is_mounted(), "mount returned before the mountpoint answered")
        return self

    def down(self):
        if self.mnt_is_mounted():
            self.run("umount", self.inner)
        check(not self.mnt_is_mounted(), "umount returned with the mount in place")

    def mnt_is_mounted(self):
        with open(f"/proc/{self.holder.pid}/mountinfo") as table:
            return any(line.split()[4] == str(self.inner) for line in table)

    def pid(self):
        found = list(processes_of(self.inner))
        check(found, "no daemon serves this mount")
        return found[0]

    def refresh(self):
        """Learns what the others did."""
        return self.json("refresh")

    def end(self):
        """Ends its daemon, whatever state it is in, and its namespaces."""
        for pid in processes_of(self.inner):
            os.kill(pid, signal.SIGKILL)
        for process in (self.relay, self.holder):
            if process:
                process.kill()
                process.wait()


def _hold():
    """A process that does nothing in namespaces of its own."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--net", "--propagation", "private", "sleep", "infinity"], stdin=subprocess.DEVNULL
    )
    mine = os.readlink("/proc/self/ns/mnt")
    eventually("a host of its own", lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != mine)
    return holder


def start_relay(argv):
    """Starts one side of a relay, and returns when it listens."""
    relay = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    check(relay.stdout.readline() == b"ready\n", "the relay works")
    return relay


@contextlib.contextmanager
def hosts(w, *names, bucket=True):
    """`with hosts(w, "a", "b") as (a, b):` makes the repository of `w` and gives hosts that are not yet up. With `bucket=False`
    it is in a directory in any case, for tests that look at its files."""
    distant = Bucket() if bucket and os.environ.get("BACKYFS_TEST_S3") else None
    outside, socket, made = None, w.root / "relay", []
    try:
        if distant:
            w.env |= {
                "BACKYFS_TARGET": f"s3://{distant.name}/hosts/{secrets.token_hex(8)}",
                "BACKYFS_S3_ENDPOINT": f"http://127.0.0.1:{distant.port}",
                "AWS_ACCESS_KEY_ID": distant.access,
                "AWS_SECRET_ACCESS_KEY": distant.secret,
            }
            outside = start_relay([sys.executable, RELAY, "outside", socket, distant.port])
        w.run("init")
        for name in names:
            made.append(Host(w, name))
            if distant:
                made[-1].connect(socket, distant.port)
        yield made
        for host in made:
            host.down()
    finally:
        for host in made:
            host.end()
        if outside:
            outside.kill()
            outside.wait()
