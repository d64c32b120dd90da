"""kill -9 and SIGTERM of the daemon at any moment: what was acknowledged is there, what was not never looks complete."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time

from lab.case import test
from lab.shell import MIB, check, digest, equal, eventually, pattern, same, script, sh


@test
def versions_and_attributes_survive(w, samples):
    sh("cp", samples / "disk.img", w.incoming("r"))
    (w.latest("r") / "tags").write_text("t1\n")
    uid = w.uid("r")
    w.crash()
    equal((w.uid("r"), (w.latest("r") / "tags").read_text()), (uid, "t1\n"), "uid and tags")
    same(samples / "disk.img", w.original("r"))


@test
def fsync_makes_a_draft_durable(w, samples):
    disk = samples / "disk.img"
    fd = os.open(w.incoming("d"), os.O_RDWR | os.O_CREAT)
    with open(disk, "rb") as f:
        os.write(fd, f.read(20 * MIB))
    os.fsync(fd)
    os.write(fd, b"not acknowledged")
    w.kill()
    try:
        os.close(fd)
    except OSError:
        pass
    w.up()
    check(w.incoming("d").stat().st_size >= 20 * MIB, "the draft is there")
    script('cmp -n 20971520 "$1" "$2"', disk, w.incoming("d"))
    equal(w.versions("d"), [], "but is no version")
    w.down()
    shutil.rmtree(w.state)
    w.run("rebuild")
    w.up()
    script('cmp -n 20971520 "$1" "$2"', disk, w.incoming("d"))
    with w.adds(2 * MIB + disk.stat().st_size - 20 * MIB):
        sh("cp", disk, w.incoming("d"))
    same(disk, w.original("d"))


@test
def a_copy_under_way_fails_and_is_not_shown(w, samples):
    sh("cp", samples / "small.img", w.incoming("c"))
    good = w.uid("c")
    p = subprocess.Popen(["dd", "if=/dev/urandom", f"of={w.incoming('c')}", "bs=1M"], stderr=subprocess.DEVNULL)
    eventually("it writes", lambda: w.incoming("c").stat().st_size > 8 * MIB, 20)
    w.kill()
    check(p.wait(30) != 0, "the writer sees it")
    w.up()
    equal(w.uid("c"), good, "latest")
    same(samples / "small.img", w.original("c"))
    sh("cp", samples / "disk.img", w.incoming("c"))
    same(samples / "disk.img", w.original("c"))


@test
def sigterm_drains(w, samples):
    fd = os.open(w.incoming("d"), os.O_RDWR | os.O_CREAT)
    os.write(fd, pattern("d", 9 * MIB))
    w.kill(signal.SIGTERM)
    check(not w.mnt_is_mounted(), "unmounted")
    try:
        os.close(fd)
    except OSError:
        pass
    w.up()
    check(w.incoming("d").read_bytes() == pattern("d", 9 * MIB), "what was written is in the draft")
    equal(w.versions("d"), [], "not a version")


@test
def umount_with_a_writer(w, samples):
    fd = os.open(w.incoming("d"), os.O_RDWR | os.O_CREAT)
    os.write(fd, pattern("d", MIB))
    done = w.run("umount", w.mnt, ok=False, timeout=60)
    if done.returncode != 0:
        check(b"in use by python3" in done.stderr, done.stderr)
        os.close(fd)
        check(w.original("d").read_bytes() == pattern("d", MIB), "the writer went on")


@test
def nothing_is_left_after_umount(w, samples):
    sh("cp", samples / "small.img", w.incoming("u"))
    pid = w.pid()
    w.down()
    check(not os.path.exists(f"/proc/{pid}"), "umount waits for the daemon, even for its parent to take note")
    equal(os.listdir(w.mnt), [], "the mountpoint is empty")


@test
def rebuilding_the_catalog_gives_the_same(w, samples):
    w.incoming("h").mkdir()
    for i in range(3):
        sh("cp", samples / "small.img", w.incoming(f"h/v{i % 2}"))
        (w.latest(f"h/v{i % 2}") / "tags").write_text(f"t{i}\n")
    sh("cp", samples / "small.img", w.incoming(".part"))
    w.run("rm", "--force", w.uid("h/v1"))
    before = w.json("ls")
    w.down()
    shutil.rmtree(w.state)
    w.run("rebuild")
    w.up()
    equal(w.json("ls"), before, "ls")
    same(samples / "small.img", w.incoming(".part"))
    same(samples / "small.img", w.original("h/v0"))


@test
def a_stale_mount_is_cleaned_up(w, samples):
    sh("cp", samples / "small.img", w.incoming("a"))
    for _ in range(3):
        w.crash()
        same(samples / "small.img", w.original("a"))


class Worker(threading.Thread):
    """Copies, patches and scribbles until the mount goes away, and remembers what was acknowledged."""

    def __init__(self, w, number, seed, samples):
        super().__init__(daemon=True)
        self.w, self.name_, self.rnd = w, f"n{number}", random.Random(f"{seed} {number}")
        self.samples = samples
        self.acknowledged = {}  # uid -> digest
        self.overlay = {}  # (uid, 4 KiB page) -> bytes acknowledged by fsync, or None while in doubt
        self.steps = 0

    def run(self):
        try:
            while True:
                self.step()
                self.steps += 1
        except (OSError, AssertionError, subprocess.SubprocessError, StopIteration):
            pass

    def step(self):
        w, rnd = self.w, self.rnd
        kind = rnd.random()
        if kind < 0.6 or not self.acknowledged:
            source = w.root / f"source-{self.name_}"
            source.write_bytes(rnd.randbytes(rnd.randrange(1, 6 * MIB)) + bytes(rnd.randrange(MIB)))
            sh(*rnd.choice((["cp"], ["rsync", "--inplace"], ["cp", "-a"], ["rsync", "-a"])), source, w.incoming(self.name_))
            # The copy was acknowledged; which uid it got is asked while the daemon lives.
            self.pending = digest(source)
            self.acknowledged[w.uid(self.name_)] = self.pending
            self.pending = None
        else:
            uid = rnd.choice(list(self.acknowledged))
            path = w.by_version(uid) / "data"
            page = rnd.randrange(max(1, path.stat().st_size // 4096))
            content = rnd.randbytes(min(4096, path.stat().st_size - page * 4096))
            self.overlay[uid, page] = None
            fd = os.open(path, os.O_WRONLY)
            try:
                os.pwrite(fd, content, page * 4096)
                os.fsync(fd)
                self.overlay[uid, page] = content
            finally:
                os.close(fd)


def _random_kills(rounds):
    def run(w, samples):
        seed = int(os.environ.get("BACKYFS_TEST_SEED", "1"))
        rnd = random.Random(seed)
        known, overlay = {}, {}
        for turn in range(rounds):
            workers = [Worker(w, f"{turn}-{i}", seed, samples) for i in range(2)]
            [t.start() for t in workers]
            time.sleep(rnd.choice((0.05, 0.2, 0.5, 1.0, 2.0)) * rnd.random() + 0.02)
            w.kill()
            [t.join(60) for t in workers]
            w.up()
            where = f"seed {seed}, round {turn}"
            for t in workers:
                known.update(t.acknowledged)
                overlay.update(t.overlay)
            for uid, want in known.items():
                equal(digest(w.by_version(uid) / "original"), want, f"{where}: {uid}")
            for (uid, page), content in overlay.items():
                if content is not None:
                    with open(w.by_version(uid) / "data", "rb") as f:
                        f.seek(page * 4096)
                        check(f.read(len(content)) == content, f"{where}: overlay of {uid} at page {page}")
            # Anything else that shows as complete must be a whole copy whose acknowledgement the crash swallowed.
            whole = {t.pending for t in workers if getattr(t, "pending", None)}
            for t in workers:
                source = w.root / f"source-{t.name_}"
                if source.exists():
                    whole.add(digest(source))
            for row in w.json("ls"):
                if row["uid"] not in known and row["valid"] == "valid":
                    got = digest(w.by_version(row["uid"]) / "original")
                    check(got in whole, f"{where}: {row} is shown as complete and is no copy of anything")
                    known[row["uid"]] = got
        check(known, "something was copied")

    return run


_run = _random_kills(8)
_run.__name__, _run.__module__ = "random_kills", __name__
test(seconds=300)(_run)
_run = _random_kills(80)
_run.__name__, _run.__module__ = "many_random_kills", __name__
test(seconds=1800, slow=True)(_run)
