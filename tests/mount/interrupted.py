"""Copies, backups and restores of sources that stop in the middle: what follows goes on where they stopped, mixes nothing, and leaves
nothing behind. On a real cluster (tests/lab/ceph), which CEPH_CONF names."""

import json
import os
import signal
import subprocess
import sys
import time

from lab.case import test
from lab.cluster import cluster, conf_with, namespace, ours, patch, rbd, table
from lab.shell import KIB, MIB, check, equal, eventually, pattern, same, sh
from sources import configure, counter, holds

SIZE = 48 * MIB
PART = 32 * MIB
# A copy that ends as the second argument says: by a signal to itself, or when its standard input does.
COPIER = """
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
assert os.copy_file_range(source, target, int(sys.argv[3])) == int(sys.argv[3])
if len(sys.argv) > 4:
    os.kill(os.getpid(), int(sys.argv[4]))
os.fsync(target)
print("synced", flush=True)
sys.stdin.read()
"""


def image(w, name="vm", **keys):
    """An image of the cluster, its source in the configuration, and what it holds."""
    at, space = namespace()
    expected = bytearray(pattern("interrupted", SIZE))
    (w.root / "disk").write_bytes(expected)
    rbd("import", "--no-progress", w.root / "disk", f"{at}/{name}")
    keys.setdefault("conf", os.environ["CEPH_CONF"])
    return f"{at}/{name}", table("ceph", kind="rbd", pool="rbd", namespace=space, **keys), expected


def finished(w, at, name="vm", **kw):
    """The newest version's snapshot alone is left, and no draft."""
    kept = w.read(w.uid(name), "snapshot_name")
    eventually(f"only {kept} is left", lambda: ours(at, **kw) == [kept], 60)
    equal((w.mnt / "status" / "drafts").read_text(), "", "drafts")


@test(mounted=False, seconds=300)
def a_copy_whose_writer_is_killed_goes_on(w, samples):
    at, tables, expected = image(w)
    configure(w, tables)
    source = w.mnt / "sources" / "ceph" / "vm"
    for number in (signal.SIGKILL, signal.SIGTERM):
        copier = subprocess.run([sys.executable, "-c", COPIER, source, w.incoming("vm"), str(PART), str(int(number))])
        equal(copier.returncode, -number, "how the copy ended")
        versions = len(w.versions("vm"))
        eventually("a draft is left", lambda: (w.mnt / "status" / "drafts").read_text(), 15)
        eventually("with its snapshot", lambda: len(ours(at)) >= 1 + (versions > 0), 15)
        equal(len(w.versions("vm")), versions, "a copy that was killed is a version")
        # The machine writes on, before and behind the place where it stopped.
        for offset in (5 * MIB + 512, PART + 3 * MIB, SIZE - 4 * KIB):
            patch(w, at, expected, offset, os.urandom(4 * KIB))
        before = counter(w, "BytesRead")
        sh("cp", source, w.incoming("vm"))
        read = counter(w, "BytesRead") - before
        # The second time most of the rest stands unchanged in the version before.
        most = SIZE - PART + 10 * MIB if versions == 0 else 16 * MIB
        check(read <= most, f"{read} bytes were read after {PART} of {SIZE} had been copied")
        holds(w.original("vm"), expected)
        finished(w, at)


@test(mounted=False, seconds=300)
def a_copy_whose_daemon_is_killed_goes_on(w, samples):
    at, tables, expected = image(w)
    configure(w, tables)
    source = w.mnt / "sources" / "ceph" / "vm"
    copier = subprocess.Popen([sys.executable, "-c", COPIER, source, w.incoming("vm"), str(PART)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    equal(copier.stdout.readline(), b"synced\n", "what the copy said")
    w.kill()
    copier.kill()
    copier.wait(30)
    equal(len(ours(at)), 1, "snapshots of the copy")
    w.up()
    equal(len(ours(at)), 1, "the snapshot that what is durable was made from stays")
    patch(w, at, expected, MIB, b"A" * 4096)
    before = counter(w, "BytesRead")
    sh("cp", source, w.incoming("vm"))
    read = counter(w, "BytesRead") - before
    check(read <= SIZE - PART + 6 * MIB, f"{read} bytes were read after {PART} of {SIZE} had been copied")
    holds(w.original("vm"), expected)
    finished(w, at)
    # One that made nothing durable leaves nothing: what was a snapshot for it is removed by the next start.
    opened = subprocess.Popen([sys.executable, "-c", "import sys; f = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.read()", source],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    opened.stdout.readline()
    equal(len(ours(at)), 2, "an open image has a snapshot")
    w.kill()
    opened.kill()
    opened.wait(30)
    w.up()
    finished(w, at)


@test(mounted=False, seconds=300)
def a_copy_whose_daemon_is_killed_in_the_middle_of_a_part_goes_on(w, samples):
    expected = bytearray(pattern("in the middle", SIZE))
    (w.root / "disk").write_bytes(expected)
    with cluster(w) as ceph:
        ceph.rbd("import", "--no-progress", w.root / "disk", "rbd/vm")
        configure(w, table("ceph", kind="rbd", pool="rbd", conf=ceph.conf))
        source = w.mnt / "sources" / "ceph" / "vm"
        two_parts = f"import os, sys; fds = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT); assert os.copy_file_range(*fds, {PART}) == {PART}; print('half', flush=True); sys.stdin.read(1); os.copy_file_range(*fds, {SIZE - PART})"
        copier = subprocess.Popen([sys.executable, "-c", two_parts, source, w.incoming("vm")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        equal(copier.stdout.readline(), b"half\n", "what the copy said")
        drafts = w.repo / "drafts"
        before = set(holdings(drafts))
        with ceph.hanging():
            copier.stdin.write(b"\n")
            copier.stdin.flush()
            # Nobody asked for it: it is done every 20 seconds.
            stored = lambda: (set(holdings(drafts)) - before) & set(holdings(w.repo / "ok"))
            eventually("what was copied is stored while the next part is", stored, 60)
            check(copier.poll() is None, "the second part has ended")
            w.kill()
            copier.wait(30)
        eventually("the cluster answers", lambda: ceph.rbd("export", "--no-progress", "rbd/vm", w.root / "out", ok=False).returncode == 0, 60)
        w.up()
        patch(w, "rbd/vm", expected, MIB, b"A" * 4096, env=ceph.env)
        before = counter(w, "BytesRead")
        sh("cp", source, w.incoming("vm"))
        read = counter(w, "BytesRead") - before
        check(read <= SIZE - PART + 6 * MIB, f"{read} bytes were read after {PART} of {SIZE} had been copied")
        holds(w.original("vm"), expected)
        finished(w, "rbd/vm", env=ceph.env)
        w.down()


def holdings(directory):
    return sorted(os.listdir(directory)) if directory.is_dir() else []


# Each makes a draft that is not the beginning of the source, or not as far as it was written.
ODD_COPIERS = {
    "a part from elsewhere": "os.copy_file_range(source, target, part, 1 << 20, 0); os.kill(os.getpid(), 9)",
    "room for all of it": "os.ftruncate(target, size); os.copy_file_range(source, target, part); os.close(target); os._exit(1)",
    "bytes of its own": "os.copy_file_range(source, target, part); os.pwrite(target, b'own' * 1000, 7 << 20); os.kill(os.getpid(), 9)",
    "bytes of its own, and more of the source": "os.copy_file_range(source, target, 8 << 20); os.pwrite(target, b'own' * 1000, 3 << 20); "
    "os.copy_file_range(source, target, part - (8 << 20)); os.kill(os.getpid(), 9)",
}


@test(mounted=False, seconds=300)
def what_is_no_copy_of_the_source_is_not_gone_on_with(w, samples):
    at, tables, expected = image(w)
    configure(w, tables)
    source = w.mnt / "sources" / "ceph" / "vm"
    for number, (what, code) in enumerate(ODD_COPIERS.items()):
        name = f"vm{number}"
        program = f"import os, sys; source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC); part, size = {PART}, {SIZE}; {code}"
        copier = subprocess.run([sys.executable, "-c", program, source, w.incoming(name)])
        check(copier.returncode != 0, what)
        left = lambda: name in (w.mnt / "status" / "drafts").read_text() or any(row["valid"] == "incomplete" for row in w.json("ls", name))
        eventually(f"{what}: it is known to be incomplete", left, 15)
        sh("cp", source, w.incoming(name))
        holds(w.original(name), expected)
        # The next one relies on this version alone.
        sh("cp", source, w.incoming(name))
        holds(w.original(name), expected)


def run_until_half(w, at, seconds, number, *args, snapshots):
    """A command that is ended by a signal when it has the snapshot and has worked for some time."""
    child = subprocess.Popen([w.binary, *map(str, args)], env=w.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    eventually("it has a snapshot", lambda: len(ours(at)) == snapshots or child.poll() is not None, 30)
    time.sleep(seconds)
    check(child.poll() is None, f"it ended too early: {child.returncode}")
    child.send_signal(number)
    child.wait(60)
    equal(child.returncode, 130 if number == signal.SIGINT else -number, f"its code: {child.stderr.read().decode()}")


@test(mounted=False, seconds=300)
def a_backup_goes_on_with_its_snapshot(w, samples):
    at, tables, expected = image(w)
    conf = conf_with(w, "slow", f"rbd_qos_read_bps_limit = {12 * MIB}")
    at, tables = at, tables.replace(os.environ["CEPH_CONF"], str(conf))
    configure(w, tables)
    # Killed before it noted anything: nothing of it is left after the next.
    run_until_half(w, at, 0.2, signal.SIGKILL, "backup", "ceph:vm", "vm", snapshots=1)
    run_until_half(w, at, 2, signal.SIGINT, "backup", "ceph:vm", "vm", snapshots=2)
    eventually("one snapshot is left, that of the interrupted backup", lambda: len(ours(at)) == 1, 15)
    kept = ours(at)
    check(not w.latest("vm").exists(), "an interrupted backup is a version")
    then = bytes(expected)
    for offset in (MIB, SIZE - MIB):
        patch(w, at, expected, offset, os.urandom(64 * KIB))
    # Killed while it goes on: it can be gone on with again.
    run_until_half(w, at, 0.5, signal.SIGKILL, "backup", "--continue", "ceph:vm", "vm", snapshots=1)
    equal(ours(at), kept, "the snapshot after going on was killed")
    told = w.run("backup", "--continue", "ceph:vm", "vm")
    check(b"read again" not in told.stderr, told.stderr)
    holds(w.original("vm"), then)
    equal(w.read(w.uid("vm"), "snapshot_name"), kept[0], "the snapshot it goes on with")
    finished(w, at)
    # What follows is compared with that snapshot.
    w.run("backup", "ceph:vm", "vm")
    holds(w.original("vm"), expected)
    finished(w, at)
    # The snapshot that it would go on with is gone: everything is read, and it says so.
    run_until_half(w, at, 2, signal.SIGINT, "backup", "--full", "ceph:vm", "vm", snapshots=2)
    lost = [name for name in ours(at) if name != w.read(w.uid("vm"), "snapshot_name")]
    rbd("snap", "rm", "--no-progress", f"{at}@{lost[0]}")
    told = w.run("backup", "--full", "--continue", "ceph:vm", "vm")
    check(b"gone" in told.stderr, told.stderr)
    holds(w.original("vm"), expected)
    finished(w, at)


@test(mounted=False, seconds=300)
def a_restore_goes_on(w, samples):
    at, tables, expected = image(w)
    conf = conf_with(w, "slow", f"rbd_qos_write_bps_limit = {12 * MIB}")
    configure(w, tables.replace(os.environ["CEPH_CONF"], str(conf)))
    w.run("backup", "ceph:vm", "vm")
    space = at.rpartition("/")[0]
    images = lambda: rbd("ls", space).stdout.decode().split()
    child = subprocess.Popen([w.binary, "restore", "vm", "ceph:new"], env=w.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually("it has begun", lambda: "new.backyfs-part" in images(), 30)
    time.sleep(2.5)
    child.kill()
    equal(child.wait(60), -signal.SIGKILL, "it was killed in the middle")
    check("new" not in images(), "an unfinished restore has its name")
    check("new.backyfs-part" not in os.listdir(w.mnt / "sources" / "ceph"), "an unfinished restore is listed")
    refused = w.run("restore", "vm", "ceph:new", ok=False)
    equal(refused.returncode, 1, "code of a restore that would begin anew")
    check(b"--continue" in refused.stderr, refused.stderr)
    # A killed client is taken for one that is still writing for half a minute.
    def gone_on():
        done = w.run("restore", "vm", "ceph:new", "--continue", "--json", ok=False, timeout=120)
        check(done.returncode == 0 or b"in use" in done.stderr, done.stderr)
        return done.stdout if done.returncode == 0 else None

    told = json.loads(eventually("nobody has it open any more", gone_on, 60))
    check(told["kept_bytes"] >= 4 * MIB, f"it went on: {told}")
    rbd("export", "--no-progress", f"{space}/new", w.root / "out")
    same(w.root / "disk", w.root / "out", "restored")
    check("new.backyfs-part" not in images(), "something unfinished is left")
    (w.root / "out").unlink()
    # Over an image that exists, with consent: what was there goes, and going on finds what is right already.
    (w.root / "old").write_bytes(pattern("old", SIZE))
    rbd("import", "--no-progress", w.root / "old", f"{space}/old")
    child = subprocess.Popen([w.binary, "restore", "vm", "ceph:old", "--force"], env=w.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2.5)
    child.send_signal(signal.SIGINT)
    equal(child.wait(60), 130, "code of a restore that was interrupted")
    told = json.loads(w.run("restore", "vm", "ceph:old", "--force", "--continue", "--json", timeout=120).stdout)
    check(told["kept_bytes"] >= 4 * MIB, f"it went on: {told}")
    rbd("export", "--no-progress", f"{space}/old", w.root / "out")
    same(w.root / "disk", w.root / "out", "restored over an image")
