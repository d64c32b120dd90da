"""A Ceph cluster of a test's own, which may be stopped and broken; and what tests ask of any cluster."""

import json
import os
import signal
import struct
from contextlib import contextmanager
from pathlib import Path

from .shell import check, needs, sh

LAB = Path(__file__).resolve().parents[2] / "lab" / "ceph"


def rbd(*args, **kw):
    return sh("rbd", *args, **kw)


def snapshots(image, **kw):
    """Names of the snapshots of an image."""
    return [row["name"] for row in json.loads(rbd("snap", "ls", "--format", "json", image, **kw).stdout or b"[]")]


def ours(image, **kw):
    """Those that we made."""
    return [name for name in snapshots(image, **kw) if "backyfs-" in name]


def namespace():
    """A namespace of the test's own in the pool `rbd` of the cluster that CEPH_CONF names: its specification, and its name."""
    needs("rbd")
    check(os.environ.get("CEPH_CONF"), "CEPH_CONF names no cluster")
    name = f"t{os.getpid()}"
    rbd("namespace", "create", f"rbd/{name}")
    return f"rbd/{name}", name


def conf_with(w, name, *lines, conf=None):
    """A configuration file of the cluster with more in it, for a client of its own."""
    path = w.root / f"{name}.conf"
    path.write_text(Path(conf or os.environ["CEPH_CONF"]).read_text() + "\n[client]\n" + "\n".join(lines) + "\n")
    return path


def table(name, **keys):
    """A source of the configuration file."""
    return f"[sources.{name}]\n" + "".join(f'{key.replace("_", "-")} = "{value}"\n' for key, value in keys.items())


def patch(w, image, expected, offset, content, **kw):
    """Changes an image as its virtual machine would, and what is expected of it. The file is what `rbd export-diff` writes."""
    expected[offset : offset + len(content)] = content
    difference = w.root / "patch"
    difference.write_bytes(b"rbd diff v1\nw" + struct.pack("<QQ", offset, len(content)) + content + b"e")
    rbd("import-diff", "--no-progress", difference, image, **kw)


class Cluster:
    """One with authentication, below a directory of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.conf = directory / "ceph.conf"
        self.env = {**os.environ, "CEPH_CONF": str(self.conf)}
        for key in [key for key in self.env if key.startswith("BACKYFS_TEST_S3")]:
            del self.env[key]

    def rbd(self, *args, **kw):
        return rbd(*args, env=self.env, **kw)

    def ceph(self, *args, **kw):
        return sh("ceph", *args, env=self.env, **kw)

    def user(self, name, *capabilities):
        """Makes a user; the keyring lies where the configuration file says."""
        self.ceph("auth", "get-or-create", f"client.{name}", *capabilities, "-o", self.directory / f"client.{name}.keyring")

    def signal(self, daemon, number):
        """Signals the daemons of a kind."""
        for file in self.directory.glob(f"{daemon}*.pid"):
            os.kill(int(file.read_text()), number)

    @contextmanager
    def hanging(self):
        """While this lasts, the storage answers nobody."""
        self.signal("osd", signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal("osd", signal.SIGCONT)


@contextmanager
def cluster(w):
    needs("rbd", "ceph", "ceph-mon", "ceph-osd", "ceph-authtool")
    directory = w.root / "ceph"
    it = Cluster(directory)
    try:
        sh(LAB, "up", directory, env={**it.env, "BACKYFS_TEST_CEPHX": "1", "BACKYFS_TEST_OSD_BYTES": str(1 << 30)})
        yield it
    finally:
        sh(LAB, "down", directory, ok=False)
