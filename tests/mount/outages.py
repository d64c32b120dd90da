"""Sources that go away: clusters that hang, pools that are removed, users who may not, files that become shorter. Nothing hangs with
them, nothing half counts as a backup, and what comes back is gone on with."""

import errno
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from lab.case import test
from lab.cluster import cluster, conf_with, ours, table
from lab.shell import MIB, Failed, check, equal, eventually, pattern, raises, same, sh
from sources import configure, images

# What a client waits for, in seconds; the defaults would make the test last for minutes.
IMPATIENT = ("rados_osd_op_timeout = 8", "rados_mon_op_timeout = 8", "client_mount_timeout = 8")
SIZE = 24 * MIB


def begin(source, target, length):
    """Opens both and copies the first part of one into the other inside the daemon. Returns the descriptors."""
    fds = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    equal(os.copy_file_range(*fds, length), length, "the first part")
    return fds


def close_with(fd, *numbers):
    with raises(*numbers):
        os.close(fd)


def quickly(what, action, seconds=6.0):
    """It does not wait for the cluster."""
    start = time.monotonic()
    result = action()
    took = time.monotonic() - start
    check(took < seconds, f"{what} took {took:.1f} s")
    return result


def nothing_of(w, name):
    check(not w.latest(name).is_symlink(), f"{name} counts as a backup")


def read_by(child):
    """Bytes that a process has read, whatever it read them from; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{child.pid}/io").read_text().split()[1])
    except OSError:
        return 0


def in_the_middle(w, *words, bytes):
    """A command of ours that was stopped after it had read so much."""
    for _ in range(5):
        child = subprocess.Popen([w.binary, *map(str, words)], env=w.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while child.poll() is None:
            if read_by(child) >= bytes:
                child.send_signal(signal.SIGSTOP)
                # Before it had ended, when it is there now.
                if child.poll() is None:
                    return child
            time.sleep(0.001)
        child.communicate()
    raise Failed(f"{words} was done every time before it could be stopped")


def failed_for(child, *reasons):
    """It goes on, and fails with a sentence that names one of these."""
    child.send_signal(signal.SIGCONT)
    said = child.communicate(timeout=90)[1].decode()
    equal(child.returncode, 5, f"code of a backup whose source went: {said}")
    check(any(reason in said for reason in reasons), said)


@test(mounted=False)
def a_file_that_becomes_shorter_while_it_is_read(w, samples):
    at, tables = images(w)
    content = pattern("shrinks", SIZE)
    (at / "vm").write_bytes(content)
    configure(w, tables)
    source, target = begin(w.mnt / "sources" / "images" / "vm", w.incoming("vm"), 8 * MIB)
    os.truncate(at / "vm", 10 * MIB)
    with raises(errno.EIO):
        os.copy_file_range(source, target, SIZE)
    close_with(target, errno.EIO)
    os.close(source)
    nothing_of(w, "vm")
    # A plain reader is told, too, and repeating it makes a version of what is there now.
    with open(w.mnt / "sources" / "images" / "vm", "rb", buffering=0) as shrunk:
        os.truncate(at / "vm", MIB)
        with raises(errno.EIO):
            os.pread(shrunk.fileno(), MIB, 9 * MIB)
    sh("cp", w.mnt / "sources" / "images" / "vm", w.incoming("vm"))
    same(at / "vm", w.original("vm"))
    # So is whoever backs it up by command.
    (at / "vm").write_bytes(os.urandom(256 * MIB))
    child = in_the_middle(w, "backup", at / "vm", "by-command", bytes=24 * MIB)
    os.truncate(at / "vm", MIB)
    failed_for(child, "while it was being read")
    nothing_of(w, "by-command")
    w.run("backup", at / "vm", "by-command")
    same(at / "vm", w.original("by-command"))


@test(mounted=False, seconds=400)
def a_cluster_that_hangs_and_comes_back(w, samples):
    at, tables = images(w)
    (at / "vm").write_bytes(b"file")
    with cluster(w) as ceph:
        conf = conf_with(w, "impatient", *IMPATIENT, conf=ceph.conf)
        (w.root / "disk").write_bytes(pattern("hangs", SIZE))
        ceph.rbd("import", "--no-progress", w.root / "disk", "rbd/vm")
        configure(w, tables + table("ceph", kind="rbd", pool="rbd", conf=conf), "-o", "restore-to-sources=new")
        folder = w.mnt / "sources" / "ceph"
        fine = w.mnt / "sources" / "images"
        sh("cp", fine / "vm", w.incoming("fine"))
        source, target = begin(folder / "vm", w.incoming("vm"), 8 * MIB)
        with ceph.hanging():
            # Restoring to it waits for an answer, and nobody else does.
            making = threading.Thread(target=lambda: subprocess.run(["cp", w.original("fine"), folder / "new"], stderr=subprocess.DEVNULL))
            lookers = [subprocess.Popen(["stat", folder / f"none-{i}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for i in range(12)]
            making.start()
            time.sleep(1)
            quickly("ls of the mount", lambda: os.listdir(w.mnt))
            quickly("ls of what is configured", lambda: os.listdir(w.mnt / "sources"))
            equal(quickly("ls of another source", lambda: os.listdir(fine)), ["host", "vm"], "another source")
            quickly("stat in another source", lambda: (fine / "vm").stat())
            quickly("reading a backup", lambda: w.original("fine").read_bytes())
            quickly("making a backup", lambda: sh("cp", fine / "vm", w.incoming("fine")))
            # What asks the cluster is told that it does not answer.
            start = time.monotonic()
            with raises(errno.ETIMEDOUT, errno.EIO):
                os.copy_file_range(source, target, SIZE)
            with raises(errno.ETIMEDOUT, errno.EIO):
                (folder / "vm").stat()
            check(time.monotonic() - start < 60, f"told after {time.monotonic() - start:.0f} s")
            close_with(target, errno.ETIMEDOUT, errno.EIO)
            nothing_of(w, "vm")
            for looker in lookers:
                check(looker.wait(60) != 0, "what is not there was found")
            making.join(60)
            check(not making.is_alive(), "the restore hangs")
            command = w.run("backup", "ceph:vm", "by-command", ok=False, timeout=90)
            equal(command.returncode, 5, "code of a backup of a cluster that hangs")
            check(b"timed out" in command.stderr.lower(), command.stderr)
        os.close(source)
        # It is back: everything goes on, and nothing is left of what failed.
        eventually("the cluster is listed again", lambda: "vm" in listed(folder), 60)
        eventually("and its image can be looked at", lambda: size_of(folder / "vm") == SIZE, 60)
        # Its storage takes a while until it reads again.
        copied = lambda: sh("cp", folder / "vm", w.incoming("vm"), ok=False).returncode == 0
        eventually("and be copied", copied, 60)
        same(w.root / "disk", w.original("vm"))
        sh("cp", w.original("fine"), folder / "new")
        check((folder / "new").read_bytes() == b"file", "restored")
        w.run("backup", "ceph:vm", "by-command", timeout=90)
        kept = {w.read(w.uid(name), "snapshot_name") for name in ("vm", "by-command")}
        names = lambda: {line.split()[1].decode() for line in ceph.rbd("snap", "ls", "rbd/vm").stdout.splitlines()[1:]}
        eventually("only the snapshots of versions are kept", lambda: names() == kept, 20)
        w.down()


def listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def size_of(path):
    try:
        return path.stat().st_size
    except OSError:
        return None


@test(mounted=False, seconds=400)
def users_who_may_not_and_a_pool_that_goes(w, samples):
    with cluster(w) as ceph:
        (w.root / "disk").write_bytes(pattern("users", SIZE))
        ceph.rbd("namespace", "create", "rbd/mine")
        for image in ("rbd/mine/vm", "rbd/secret"):
            ceph.rbd("import", "--no-progress", w.root / "disk", image)
        ceph.rbd("snap", "create", "--no-progress", "rbd/mine/vm@theirs")
        ceph.user("backup", "mon", "profile rbd", "osd", "profile rbd pool=rbd namespace=mine")
        ceph.user("looker", "mon", "profile rbd-read-only", "osd", "profile rbd-read-only pool=rbd namespace=mine")
        ceph.ceph("osd", "pool", "create", "doomed", "8")
        ceph.rbd("pool", "init", "doomed")
        ceph.rbd("import", "--no-progress", w.root / "disk", "doomed/vm")
        conf = conf_with(w, "impatient", *IMPATIENT, conf=ceph.conf)
        mine = dict(kind="rbd", pool="rbd", namespace="mine", conf=conf)
        tables = table("mine", **mine, user="backup", snapshot_prefix="nightly-") + table("seen", **mine, user="looker")
        tables += table("all", kind="rbd", pool="rbd", conf=conf, user="backup") + table("doomed", kind="rbd", pool="doomed", conf=conf)
        slow = conf_with(w, "slow", *IMPATIENT, f"rbd_qos_read_bps_limit = {2 * MIB}", conf=ceph.conf)
        tables += table("slow", kind="rbd", pool="doomed", conf=slow)
        tables += table("nobody", **mine, user="nobody")
        configure(w, tables, "-o", "restore-to-sources=new")
        at = w.mnt / "sources"
        # Who may do what backups take, and no more than that.
        sh("cp", at / "mine" / "vm", w.incoming("vm"))
        w.run("backup", "mine:vm", "vm")
        same(w.root / "disk", w.original("vm"))
        kept = w.read(w.uid("vm"), "snapshot_name")
        check(kept.startswith("nightly-backyfs-"), kept)
        names = lambda: {line.split()[1].decode() for line in ceph.rbd("snap", "ls", "rbd/mine/vm").stdout.splitlines()[1:]}
        eventually("its snapshot is kept beside theirs", lambda: names() == {kept, "theirs"})
        sh("cp", w.original("vm"), at / "mine" / "restored")
        ceph.rbd("export", "--no-progress", "rbd/mine/restored", w.root / "out")
        same(w.root / "disk", w.root / "out")
        equal(w.run("backup", "all:secret", "secret", ok=False).returncode, 5, "code of what is not allowed")
        with raises(errno.EACCES, errno.EPERM, errno.EIO):
            (at / "all" / "secret").read_bytes()
        # Who may only look takes no snapshot, but reads one that is there.
        refused = w.run("backup", "seen:vm", "seen", ok=False)
        equal(refused.returncode, 5, "code of a backup without leave to take snapshots")
        check(b"not permitted" in refused.stderr or b"denied" in refused.stderr, refused.stderr)
        w.run("backup", "seen:vm@theirs", "seen")
        same(w.root / "disk", w.original("seen"))
        equal(w.run("backup", "nobody:vm", "nobody", ok=False, timeout=60).returncode, 5, "code of a user who is none")
        with raises(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.ENOTSUP):
            os.listdir(at / "nobody")
        equal(os.listdir(w.mnt / "sources" / "doomed"), ["vm"], "the pool")
        # The pool goes in the middle of a copy.
        source, target = begin(at / "doomed" / "vm", w.incoming("gone"), 8 * MIB)
        words = [w.binary, "backup", "slow:vm", "gone-by-command"]
        command = subprocess.Popen(words, env=w.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        eventually("the command has its snapshot", lambda: len(ours("doomed/vm", env=ceph.env)) == 2, 30)
        time.sleep(0.5)
        ceph.ceph("osd", "pool", "delete", "doomed", "doomed", "--yes-i-really-really-mean-it")
        check(command.poll() is None, "the backup ended before its pool was gone")
        start = time.monotonic()
        # A cluster may say that it is not allowed, as nothing is allowed in what is not there.
        gone = (errno.EIO, errno.ENOENT, errno.ETIMEDOUT, errno.EPERM)
        with raises(*gone):
            os.copy_file_range(source, target, SIZE)
        close_with(target, *gone)
        os.close(source)
        with raises(*gone):
            os.listdir(at / "doomed")
        check(time.monotonic() - start < 60, f"told after {time.monotonic() - start:.0f} s")
        failed_for(command, "rbd:doomed/vm cannot be read")
        for name in ("gone", "gone-by-command", "secret", "nobody"):
            nothing_of(w, name)
        equal(w.run("backup", "doomed:vm", "gone", ok=False, timeout=60).returncode, 5, "code of a pool that is gone")
        sh("cp", at / "mine" / "vm", w.incoming("vm"))
        w.down()
