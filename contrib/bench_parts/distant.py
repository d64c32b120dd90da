"""Backup and restore through an S3 server: backyfs beside restic and rclone, and what curl makes of the same line.

The limit is curl: files of the size of packs, PUT from files and GET into files, with signatures, by as many processes as do it
fastest. backyfs must reach 0.7 of it with data that does not compress, and be ahead of restic both ways.

All files are in memory (/dev/shm), so that the line is measured and not a disk. Curl's answers into /dev/null are shown too.

The best of several runs counts for each of them, curl too. A virtual machine that has to get its memory back from its host takes up to
three times as long for the same, whoever asks; that says nothing about the programs, and a median of few runs would.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from .contestants import Backyfs, Restic
from .table import Row

PACK = 32 << 20
BUCKET = "backyfs-bench"
RESTORES = 3
WAYS = ("up", "down", "null")
PROCESSES = (1, 2, 4, 8)
# curl leaves the hash of an empty body out of what it signs.
EMPTY = ["-H", "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]


def server():
    """Address, access key and secret key of BACKYFS_TEST_S3."""
    url = urllib.parse.urlsplit(os.environ["BACKYFS_TEST_S3"])
    return f"http://{url.hostname}:{url.port}", url.username, url.password


def forget_deleted():
    """radosgw keeps what was deleted for hours; the cluster of the tests is in memory."""
    if os.environ.get("CEPH_CONF"):
        subprocess.run(["radosgw-admin", "gc", "process", "--include-all"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Curl:
    """The limit of the line."""

    def __init__(self):
        self.endpoint, access, secret = server()
        self.options = ["curl", "-sSf", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{access}:{secret}"]
        self.prefix = f"curl-{secrets.token_hex(4)}"

    def bucket(self):
        """Makes the bucket."""
        subprocess.run([*self.options, *EMPTY, "-o", "/dev/null", "-X", "PUT", f"{self.endpoint}/{BUCKET}"], check=True)

    def _all(self, commands, processes):
        running, start = [], time.monotonic()
        for command in commands:
            if len(running) >= processes:
                check(running.pop(0))
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        for process in running:
            check(process)
        return time.monotonic() - start

    def measure(self, packs, room):
        """Bytes a second each way, by the number of processes that is fastest."""
        total = sum(pack.stat().st_size for pack in packs)
        best = {way: 0.0 for way in WAYS}
        urls = [f"{self.endpoint}/{BUCKET}/{self.prefix}/{pack.name}" for pack in packs]
        for processes in PROCESSES:
            # The body is signed, as backyfs's is.
            up = [[*self.options, "-H", f"x-amz-content-sha256: {sha256(pack)}", "-T", pack, url] for pack, url in zip(packs, urls)]
            down = [[*self.options, *EMPTY, "-o", room / f"got{number}", url] for number, url in enumerate(urls)]
            null = [[*self.options, *EMPTY, "-o", "/dev/null", url] for url in urls]
            for way, commands in (("up", up), ("down", down), ("null", null)):
                best[way] = max(best[way], total / self._all(commands, processes))
            for got in room.glob("got*"):
                got.unlink()
        for url in urls:
            subprocess.run([*self.options, *EMPTY, "-X", "DELETE", url], check=False, stderr=subprocess.DEVNULL)
        return best


def sha256(path):
    """Hex digest, made before the clock runs."""
    return subprocess.run(["sha256sum", path], check=True, stdout=subprocess.PIPE).stdout.split()[0].decode()


def check(process):
    """Waits for a process that must succeed."""
    _, error = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{process.args[0]}: exit {process.returncode}: {error.decode(errors='replace')}")


class DistantBackyfs(Backyfs):
    """cp into the mount, and the command `restore`."""

    def __init__(self, room, binary):
        self.endpoint, self.access, self.secret = server()
        self.prefix = f"backyfs-{secrets.token_hex(4)}"
        self.target = f"s3://{BUCKET}/{self.prefix}"
        super().__init__(room, binary)

    def settings(self):
        return super().settings() | {
            "BACKYFS_TARGET": self.target,
            "BACKYFS_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def restore(self, image, to):
        return self.timed(self.binary, "restore", "--quiet", "disk", to)

    def cp_back(self, to):
        """Seconds for cp out of the mount."""
        return self.timed("cp", self.latest() / "original", to)


class DistantRestic(Restic):
    """restic with its defaults, to the same server."""

    def settings(self):
        endpoint, access, secret = server()
        where = f"s3:{endpoint}/{BUCKET}/restic-{secrets.token_hex(4)}"
        return super().settings() | {"RESTIC_REPOSITORY": where, "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}


class Rclone(Restic):
    """rclone copy: the whole image as one object, neither compressed nor encrypted."""

    name = "rclone"

    def settings(self):
        endpoint, access, secret = server()
        config = {"TYPE": "s3", "PROVIDER": "Ceph", "ENDPOINT": endpoint, "ACCESS_KEY_ID": access, "SECRET_ACCESS_KEY": secret}
        self.where = f"bench:{BUCKET}/rclone-{secrets.token_hex(4)}"
        return {f"RCLONE_CONFIG_BENCH_{key}": value for key, value in config.items()}

    def prepare(self):
        """Nothing to make."""

    def back_up(self, image):
        return self.timed("rclone", "copy", "--ignore-times", image, self.where)

    def restore(self, image, to):
        out = self.room / "out"
        seconds = self.timed("rclone", "copy", f"{self.where}/{image.name}", out)
        (out / image.name).rename(to)
        return seconds


def make_noise(path, length):
    """A file that does not compress."""
    with open(path, "wb") as f:
        for _ in range(length // PACK):
            f.write(os.urandom(PACK))


def run(given, size, rounds, figures, images_of, same_bytes):
    """Measures everything; `images_of` gives a compressible image of the same size."""
    room = Path(tempfile.mkdtemp(prefix="backyfs-bench.", dir="/dev/shm"))
    try:
        noise = room / "noise.img"
        make_noise(noise, size)
        packs = []
        for number in range(min(size // PACK, 16)):
            pack = room / f"pack{number}"
            pack.write_bytes(os.urandom(PACK))
            packs.append(pack)
        curl = Curl()
        curl.bucket()
        for _ in range(rounds):
            for way, rate in curl.measure(packs, room).items():
                figures.add("curl", f"{way} MB/s", rate / 1e6)
            for kind, image in (("noise", noise), ("files", images_of())):
                link = room / "disk.img"
                link.unlink(missing_ok=True)
                if image.parent == room:
                    os.link(image, link)
                else:
                    shutil.copyfile(image, link)
                for name, make in (
                    ("rclone", lambda: Rclone(room)),
                    ("restic", lambda: DistantRestic(room)),
                    ("backyfs", lambda: DistantBackyfs(room, given.binary)),
                ):
                    one(name, make, kind, link, room, figures, same_bytes)
                    forget_deleted()
    finally:
        subprocess.run(["rm", "-rf", room], check=True)


def one(name, make, kind, image, room, figures, same_bytes):
    """Backup and restore of an image by one of them."""
    it, out = make(), room / "restored"
    try:
        figures.add(name, f"{kind} up", it.back_up(image))
        it.prepare_restore()
        for _ in range(RESTORES):
            figures.add(name, f"{kind} down", it.restore(image, out))
            same_bytes(image, out)
            out.unlink()
        if name == "backyfs":
            # Once: the kernel keeps what it has read.
            figures.add(name, f"{kind} cp down", it.cp_back(out))
            same_bytes(image, out)
            out.unlink()
    finally:
        it.done()


def rows_of(figures, size):
    """The table."""
    rows = []
    for way, verb in (("up", "backup by cp"), ("down", "restore")):
        limit = figures.most("curl", f"{way} MB/s")
        rate = size / 1e6 / figures.least("backyfs", f"noise {way}")
        note = f"{rate / limit:.2f} of curl's {limit:.0f} MB/s"
        if way == "down":
            note += f"; {rate / figures.most('curl', 'null MB/s'):.2f} of its {figures.most('curl', 'null MB/s'):.0f} MB/s into /dev/null"
        rows.append(Row(f"{verb}, noise", rate, "MB/s", at_least=0.7 * limit, note=note))
    for kind in ("noise", "files"):
        for way, verb in (("up", "backup by cp"), ("down", "restore"), ("cp down", "cp original FILE")):
            key = f"{kind} {way}"
            theirs = f"{kind} {'down' if way == 'cp down' else way}"
            opponents = {
                "restic": (figures.least("restic", theirs), None if way == "cp down" else 1.0),
                "rclone": (figures.least("rclone", theirs), None),
            }
            rows.append(Row(f"{verb}, {kind}", figures.least("backyfs", key), "s", opponents))
    return rows
