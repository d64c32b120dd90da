"""A partial copy is never taken for a backup: writers that are killed, that fail, that close and then fail."""

import os
import signal
import subprocess
import sys
import time

from lab.case import test
from lab.shell import MIB, check, equal, eventually, pattern, same, script, sh

OPEN = "import os,sys,threading,time; fd=os.open(sys.argv[1], os.O_WRONLY|os.O_CREAT|os.O_TRUNC); os.write(fd, b'x'*3000000); "


def good_version(w, samples, name="k"):
    sh("cp", samples / "small.img", w.incoming(name))
    return w.uid(name)


def python(w, code, name="k"):
    return subprocess.run([sys.executable, "-c", OPEN + code, str(w.incoming(name))], stderr=subprocess.DEVNULL).returncode


def partial(w, name="k", seconds=0.5, number=signal.SIGKILL):
    """A dd of endless random bytes that is stopped by a signal, even where this test runs under nohup(1)."""
    argv = ["dd", "if=/dev/urandom", f"of={w.incoming(name)}", "bs=1M"]
    p = subprocess.Popen(argv, stderr=subprocess.DEVNULL, preexec_fn=lambda: number != signal.SIGKILL and signal.signal(number, signal.SIG_DFL))
    eventually("dd writes", lambda: w.incoming(name).exists() and w.incoming(name).stat().st_size > 6 * MIB, 20)
    time.sleep(seconds)
    p.send_signal(number)
    p.wait(60)


def nothing_published(w, uid, name="k"):
    """The good version stays the newest complete one, now and a moment later."""
    eventually("latest is the good version", lambda: w.uid(name) == uid)
    time.sleep(0.5)
    equal(w.uid(name), uid, "latest")


@test
def kill_9(w, samples):
    good = good_version(w, samples)
    partial(w)
    nothing_published(w, good)
    equal(len(w.versions("k")), 1, "versions")
    check(w.incoming("k").stat().st_size > 0, "the draft stays")


@test
def other_signals(w, samples):
    good = good_version(w, samples)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGPIPE):
        partial(w, seconds=0.1, number=number)
        nothing_published(w, good)
        os.unlink(w.incoming("k"))
        sh("cp", samples / "small.img", w.incoming("k"))
        good = w.uid("k")


@test
def dd_interrupted(w, samples):
    good = good_version(w, samples)
    partial(w, number=signal.SIGINT)
    nothing_published(w, good)


@test
def exit_3_without_close(w, samples):
    good = good_version(w, samples)
    equal(python(w, "os._exit(3)"), 3, "exit code")
    nothing_published(w, good)
    equal(len(w.versions("k")), 1, "versions")


@test
def exit_0_without_close(w, samples):
    good_version(w, samples)
    python(w, "os._exit(0)")
    eventually("published", lambda: len(w.versions("k")) == 2)
    equal(w.original("k").read_bytes(), b"x" * 3_000_000, "content")


@test
def closed_then_exit_1(w, samples):
    good = good_version(w, samples)
    python(w, "os.close(fd); time.sleep(0.3); os._exit(1)")
    nothing_published(w, good)
    uid = next(r["uid"] for r in w.json("ls") if r["uid"] != good)
    check(w.read(uid, "valid").startswith("incomplete"), w.read(uid, "valid"))
    row = next(r for r in w.json("ls") if r["uid"] == uid)
    check(row["valid"] != "valid", row)
    equal(len(w.versions("k")), 2, "by_name shows it")
    equal((w.by_version(uid) / "original").read_bytes(), b"x" * 3_000_000, "it can be read")
    w.remount()
    equal(w.uid("k"), good, "still after a remount")
    (w.by_version(uid) / "valid").write_text("valid\n")
    equal((w.uid("k"), w.read(uid, "valid")), (uid, "valid"), "accepted by writing valid")


@test
def closed_then_killed(w, samples):
    good = good_version(w, samples)
    python(w, "os.close(fd); os.kill(os.getpid(), 9)")
    nothing_published(w, good)


@test
def closed_then_exit_0(w, samples):
    good = good_version(w, samples)
    python(w, "os.close(fd); time.sleep(0.3); os._exit(0)")
    time.sleep(1)
    check(w.uid("k") != good and w.read(w.uid("k"), "valid") == "valid", "complete")


@test(seconds=60)
def exit_1_long_after_close(w, samples):
    good = good_version(w, samples)
    python(w, "os.close(fd); time.sleep(13); os._exit(1)")
    time.sleep(0.5)
    check(w.uid("k") != good and w.read(w.uid("k"), "valid") == "valid", "more than 10 s after its close a version stands")


@test
def threads_that_exit_0(w, samples):
    good_version(w, samples)
    for code in (
        "threading.Thread(target=lambda: time.sleep(60), daemon=True).start(); os._exit(0)",
        "threading.Thread(target=lambda: (os.write(fd, b''), os._exit(0))).start(); time.sleep(60)",
        "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(8)]; sys.exit(0)",
    ):
        before = len(w.versions("k"))
        equal(python(w, code), 0, code)
        eventually(f"published: {code}", lambda: len(w.versions("k")) == before + 1)
        eventually("complete", lambda: w.read(w.uid("k"), "valid") == "valid" and w.original("k").stat().st_size == 3_000_000)


@test
def threads_that_exit_3(w, samples):
    good = good_version(w, samples)
    python(w, "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(8)]; time.sleep(.2); os._exit(3)")
    nothing_published(w, good)


@test
def failing_shell_group(w, samples):
    good = good_version(w, samples)
    script('{ cat "$1"; exit 5; } > "$2"', samples / "small.img", w.incoming("k"), ok=False)
    nothing_published(w, good)


@test
def read_error_of_the_source(w, samples):
    # A loop device whose backing file was cut short answers EIO beyond the cut. (With --inplace the process of rsync that
    # wrote exits 0, whatever its parents say: docs/semantics.md lists it as not detected.)
    backing = w.root / "backing"
    backing.write_bytes(pattern("backing", 24 * MIB))
    device = sh("losetup", "--find", "--show", backing).stdout.decode().strip()
    try:
        os.truncate(backing, 12 * MIB)
        for argv in (["cp", device], ["rsync", "--copy-devices", device]):
            name = f"k{len(argv)}"
            good = good_version(w, samples, name)
            time.sleep(1.1)
            check(sh(*argv, w.incoming(name), ok=False).returncode != 0, f"{argv} fails")
            nothing_published(w, good, name)
        good = good_version(w, samples, "d")
        check(sh("dd", f"if={device}", f"of={w.incoming('d')}", "bs=1M", ok=False).returncode != 0, "dd fails")
        nothing_published(w, good, "d")
    finally:
        sh("losetup", "-d", device)


def _continued(way):
    def run(w, samples):
        disk = samples / "disk.img"
        good = good_version(w, samples)
        p = subprocess.Popen(["bash", "-c", '(head -c 20000000 "$1"; sleep 60) | dd of="$2" bs=1M iflag=fullblock', "bash", str(disk), str(w.incoming("k"))], stderr=subprocess.DEVNULL, start_new_session=True)
        eventually("the draft grows", lambda: w.incoming("k").stat().st_size >= 19 * MIB and w.uid("k") == good, 20)
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        nothing_published(w, good)
        have = w.incoming("k").stat().st_size
        check(have >= 19 * MIB, f"the draft holds {have}")
        w.remount()
        equal(w.incoming("k").stat().st_size, have, "the draft survives a remount")
        before = w.stored()
        if way == "dd":
            sh("dd", f"if={disk}", f"of={w.incoming('k')}", "bs=1M", "seek=19", "skip=19", "conv=notrunc")
        elif way == "rsync":
            sh("rsync", "--append", disk, w.incoming("k"))
        else:
            sh("cp", disk, w.incoming("k"))
        same(disk, w.original("k"))
        equal(w.read(w.uid("k"), "valid"), "valid", "complete")
        added = w.stored() - before
        # The rest of the disk holds less than 10 MB; the first 20 MB are on the target already.
        check(added < 10 * MIB, f"continuing stored {added} bytes")

    return run


for _way in ("dd", "rsync", "cp"):
    _run = _continued(_way)
    _run.__name__, _run.__module__ = f"continued_by_{_way}", __name__
    test(_run)


@test
def an_unrelated_patch_does_not_complete(w, samples):
    good = good_version(w, samples)
    partial(w, seconds=0.1)
    nothing_published(w, good)
    sh("dd", f"of={w.incoming('k')}", "conv=notrunc", "bs=4096", "count=1", input=b"p" * 4096)
    nothing_published(w, good)


@test
def a_broken_draft_survives_a_crash_as_broken(w, samples):
    good = good_version(w, samples)
    partial(w, seconds=0.2)
    nothing_published(w, good)
    w.crash()
    equal(w.uid("k"), good, "latest")
    check(w.incoming("k").stat().st_size > 0, "the draft is there")
    sh("dd", f"of={w.incoming('k')}", "conv=notrunc", "bs=4096", "count=1", input=b"p" * 4096)
    nothing_published(w, good)


@test
def a_new_name_that_breaks_has_no_version(w, samples):
    partial(w, "fresh", seconds=0.1)
    time.sleep(0.5)
    check(w.uid("fresh") is None and w.versions("fresh") == [], "nothing in by_name")
    check("fresh" in os.listdir(w.incoming()), "the draft is in incoming")
    equal(w.json("ls"), [], "ls")


@test
def qemu_img_killed(w, samples):
    good = good_version(w, samples, "q")
    p = subprocess.Popen(["qemu-img", "convert", "-r", "4M", "-f", "raw", "-O", "raw", str(samples / "disk.img"), str(w.incoming("q"))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.2)
    check(p.poll() is None, "qemu-img is at work still when it is killed")
    p.kill(), p.wait()
    nothing_published(w, good, "q")


@test
def rsync_killed_leaves_only_a_draft(w, samples):
    good = good_version(w, samples, "r")
    p = subprocess.Popen(["rsync", "--bwlimit=8000", str(samples / "disk.img"), str(w.incoming("r"))], stderr=subprocess.DEVNULL)
    time.sleep(1)
    p.kill(), p.wait()
    nothing_published(w, good, "r")
    equal(os.listdir(w.mnt / "by_name"), ["r"], "no temporary name is published")
