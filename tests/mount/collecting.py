"""Collecting: space of removed versions comes back, nothing else goes, whoever reads, writes, dies or collects at the same time."""

import errno
import os
import random
import shutil
import signal
import subprocess
import threading
import time

from failures import on_tmpfs
from lab.case import test
from lab.host import hosts
from lab.shell import KIB, MIB, check, equal, eventually, pattern, raises, sh

SMALL = ("init", "--block-size", "4K", "--pack-size", "256K")


def start(w):
    """A repository of many small packs, of which any version may be deleted at once."""
    w.env |= {"BACKYFS_MIN_AGE_DAYS": "0", "BACKYFS_GC_INTERVAL": "never", "BACKYFS_GC_FREE_PERCENT": "0"}
    w.run(*SMALL)
    return w.up()


def put(w, name, content):
    """Writes a version, and its uid."""
    sh("dd", f"of={w.incoming(name)}", "bs=1M", input=content)
    return w.uid(name)


def packs(w):
    """Bytes of all packs on the target."""
    return sum(path.stat().st_size for path in (w.repo / "packs").rglob("*") if path.is_file())


@test(mounted=False)
def space_comes_back(w, samples):
    start(w)
    kept, shared = pattern("kept", 3 * MIB), pattern("shared", MIB)
    put(w, "kept", kept + shared)
    before = packs(w)
    gone = put(w, "gone", shared + pattern("gone", 8 * MIB))
    full = packs(w)
    os.rmdir(w.by_version(gone))
    equal(packs(w), full, "rmdir gives back nothing yet")
    plan = w.json("gc", "--dry-run")
    check(sum(row["packs"] for row in plan["going"]) > 20 and plan["deleted_packs"] == 0, plan)
    equal(packs(w), full, "a dry run deletes nothing")
    check(b"would go" in w.run("gc", "--dry-run").stdout, "and says what it would do, in words")
    report = w.json("gc")
    equal((report["going"], report["obstacles"]), (plan["going"], []), "as planned")
    equal(report["freed_bytes"], full - packs(w), "it frees what it says")
    check(packs(w) < before + 700 * KIB, f"{before} bytes before, {packs(w)} now")
    check(b"nothing was removed" in w.run("gc").stdout, "and then there is nothing to do")
    equal(w.original("kept").read_bytes(), kept + shared, "content")
    w.remount()
    equal(w.original("kept").read_bytes(), kept + shared, "content")
    w.down()
    shutil.rmtree(w.state)
    w.run("rebuild")
    check(w.run("scrub", "--all").returncode == 0, "nothing is missing")


@test(mounted=False)
def killed_at_any_moment(w, samples):
    start(w)
    seed = int(os.environ["BACKYFS_TEST_SEED"])
    chance = random.Random(seed)
    images = {f"k{i}": pattern(f"k{i}", MIB) + pattern("all", MIB) for i in range(3)}
    for name, content in images.items():
        put(w, name, content)
    killed, lasts = 0, None
    for turn in range(12):
        gone = put(w, "gone", pattern(f"k{turn % 3}", 700 * KIB) + pattern(f"gone{turn}", 2 * MIB))
        os.rmdir(w.by_version(gone))
        collector = subprocess.Popen([w.binary, "gc", "--unfinished", "--dead-percent", "5"], env=w.env, stdout=subprocess.DEVNULL)
        if turn > 0:
            time.sleep(chance.uniform(0, lasts))
            collector.kill()
        began = time.monotonic()
        killed += collector.wait() == -signal.SIGKILL
        # The first one may end, and shows how long that takes.
        lasts = lasts or time.monotonic() - began
        for name, content in images.items():
            check(w.original(name).read_bytes() == content, f"seed {seed}, turn {turn}: {name} has other bytes")
    check(killed > 2, f"killed {killed} times only")
    report = w.json("gc", "--unfinished", "--dead-percent", "5")
    equal(report["obstacles"], [], "nothing is in its way")
    check(packs(w) < 5 * MIB, f"{packs(w)} bytes of packs for 4 MiB")
    check(w.run("scrub", "--all").returncode == 0, "nothing is missing")
    w.crash()
    for name, content in images.items():
        equal(w.original(name).read_bytes(), content, name)


@test(mounted=False)
def one_at_a_time_on_a_host_and_an_interrupt_ends_it(w, samples):
    start(w)
    gone = put(w, "gone", pattern("gone", 24 * MIB))
    os.rmdir(w.by_version(gone))
    first = subprocess.Popen([w.binary, "gc"], env=w.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    second = w.run("gc", ok=False)
    first.send_signal(signal.SIGINT)
    first.wait()
    check(second.returncode == 0 or b"another collection" in second.stderr, second.stderr)
    w.run("gc")
    equal(packs(w), 0, "one of them did it")


@test(mounted=False)
def beside_writers_readers_and_removals(w, samples):
    with hosts(w, "a", "b") as (a, b):
        for host in (a, b):
            host.env |= {"BACKYFS_MIN_AGE_DAYS": "0", "BACKYFS_REFRESH_INTERVAL": "1s", "BACKYFS_GC_FREE_PERCENT": "0"}
            host.up()
        base, wrong, ends = pattern("base", 2 * MIB), [], time.monotonic() + 12
        kept = {}

        def work(host, name, n=0):
            while time.monotonic() < ends and not wrong:
                content = base[n % 7 * 100_000 :] + pattern(f"{name}{n % 5}", MIB)
                sh("dd", f"of={host.incoming(name)}", "bs=1M", input=content)
                if host.original(name).read_bytes() != content:
                    wrong.append(f"{name} {n}")
                for old in host.versions(name)[:-2]:
                    host.run("rm", os.path.basename(os.readlink(old)))
                kept[name] = content
                n += 1

        def collect(host):
            while time.monotonic() < ends and not wrong:
                done = host.run("gc", "--dead-percent", "10", ok=False)
                if done.returncode != 0:
                    wrong.append(done.stderr)
                time.sleep(0.2)

        jobs = [threading.Thread(target=work, args=(h, n)) for h, n in ((a, "one"), (a, "two"), (b, "three"))]
        jobs += [threading.Thread(target=collect, args=(h,)) for h in (a, b)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        check(not wrong and len(kept) == 3, wrong)
        for host in (a, b):
            host.refresh()
            for name, content in kept.items():
                equal(host.original(name).read_bytes(), content, name)
            equal(host.run("scrub", "--all").returncode, 0, "nothing is missing")
            check("put back" not in (host.state / "backyfs.log").read_text(), "nobody took it for a target that was put back")


@test(mounted=False)
def what_another_process_reads_stays(w, samples):
    start(w)
    content = pattern("read", MIB)
    uid = put(w, "read", content)
    put(w, "read", pattern("newer", MIB))
    (w.by_version(uid) / "expire").write_text("2001-01-01\n")
    other = w.mnt.parent / "other"
    other.mkdir()
    w.run("mount", other)
    try:
        with open(w.by_version(uid) / "original", "rb") as reader:
            with raises(errno.EBUSY):
                os.rmdir(other / "by_version" / uid)
            for force in ([], ["--force"]):
                done = w.run("rm", *force, uid, ok=False)
                check(done.returncode != 0 and b"reading" in done.stderr, done.stderr)
            check(uid in w.run("status").stdout.decode(), "status names it")
            equal([row["uid"] for row in w.json("status")["readers"]], [uid], "and so in JSON")
            for dry in (["--dry-run"], []):
                rows = [row for row in w.json("prune", *dry) if row["uid"] == uid]
                check(rows and rows[0]["action"] == "spare" and "reading" in rows[0]["reason"], rows)
            listed = (w.mnt / "status" / "prune").read_text()
            check(any(uid in line and "reading" in line for line in listed.splitlines()), listed)
            w.run("gc", "--unfinished")
            check(reader.read() == content, "content")
        # The kernel releases what was closed a moment later.
        eventually("nobody reads it any more", lambda: not w.json("status")["readers"])
        os.rmdir(other / "by_version" / uid)
        check(not w.by_version(uid).exists(), "gone")
        w.run("gc")
        check(packs(w) < 1400 * KIB, f"{packs(w)} bytes for 1 MiB")
    finally:
        w.run("umount", other)


@test(mounted=False)
def what_is_open_here_survives_a_deletion_elsewhere(w, samples):
    with hosts(w, "a", "b", bucket=False) as (a, b):
        content = pattern("open", 3 * MIB)
        a.up(), b.up()
        sh("dd", f"of={a.incoming('vm')}", "bs=1M", input=content)
        uid = a.uid("vm")
        b.refresh()
        with open(b.by_version(uid) / "original", "rb", buffering=0) as reader:
            equal(reader.read(4096), content[:4096], "the beginning")
            eventually("b holds it", lambda: list((w.repo / "pins").rglob("*-*")), 20)
            done = a.run("rm", uid, ok=False)
            check(done.returncode != 0, "young, and in use elsewhere")
            a.run("refresh")
            a.run("rm", "--force", uid)
            status = a.json("status")
            equal([(pin["version"], pin["removed"]) for pin in status["foreign_pins"]], [(uid, True)], "status tells of it")
            a.run("gc", "--unfinished")
            equal(reader.read(), content[4096:], "the rest")
        eventually("b lets go", lambda: not list((w.repo / "pins").rglob("*-*")), 20)
        a.run("gc", "--unfinished")
        equal(packs(w), 0, "now it goes")


@test(mounted=False)
def by_itself(w, samples):
    w.env |= {"BACKYFS_MIN_AGE_DAYS": "0", "BACKYFS_GC_INTERVAL": "1s"}
    w.run(*SMALL)
    w.up()
    kept = pattern("kept", MIB)
    put(w, "kept", kept)
    gone = put(w, "gone", pattern("gone", 3 * MIB))
    os.rmdir(w.by_version(gone))
    eventually("the mount collects", lambda: packs(w) < 1400 * KIB, 20)
    equal(w.original("kept").read_bytes(), kept, "content")


@test(mounted=False)
def when_the_target_fills_up(w, samples):
    s, at = on_tmpfs(w, "24M")
    try:
        s.env |= {"BACKYFS_MIN_AGE_DAYS": "0", "BACKYFS_GC_INTERVAL": "never", "BACKYFS_GC_FREE_PERCENT": "40"}
        s.run(*SMALL)
        s.up()
        kept = pattern("kept", 4 * MIB)
        put(s, "kept", kept)
        gone = put(s, "gone", pattern("gone", 5 * MIB))
        os.rmdir(s.by_version(gone))
        s.remount()
        time.sleep(2)
        check(packs(s) > 8 * MIB, "there is room enough, and it is not time")
        gone = put(s, "gone", pattern("more", 10 * MIB))
        os.rmdir(s.by_version(gone))
        # It looks when it is mounted, and every minute.
        s.remount()
        eventually("the mount collects", lambda: packs(s) < 5 * MIB, 20)
        equal(s.original("kept").read_bytes(), kept, "content")
        later = pattern("later", 16 * MIB)
        put(s, "later", later)
        s.remount()
        for name, content in (("kept", kept), ("later", later)):
            equal(s.original(name).read_bytes(), content, f"content of {name}")
        equal(s.run("scrub", "--all").returncode, 0, "nothing is missing")
    finally:
        s.mnt_is_mounted() and s.down()
        sh("umount", at)


@test(mounted=False)
def a_writer_that_died_is_cleaned_up_after(w, samples):
    start(w)
    good = put(w, "vm", pattern("vm", MIB))
    (w.root / "source").write_bytes(pattern("dies", 64 * MIB))
    backup = subprocess.Popen([w.binary, "--quiet", "backup", w.root / "source", "dies"], env=w.env, stdout=subprocess.DEVNULL)
    eventually("it stores", lambda: packs(w) > 2 * MIB, 20)
    backup.kill()
    backup.wait()
    report = w.json("gc")
    check(report["staying"]["unfinished_packs"] > 0 and report["deleted_packs"] == 0, f"kept for repeating it: {report}")
    w.run("gc", "--unfinished")
    check(packs(w) < 1400 * KIB, f"{packs(w)} bytes for 1 MiB")
    check(not list((w.repo / "versions").rglob("*-*"))[1:], "no record of it")
    equal((w.uid("vm"), w.original("vm").read_bytes()), (good, pattern("vm", MIB)), "the other is as it was")
