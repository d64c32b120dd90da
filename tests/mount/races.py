"""Names, handles and writers that cross each other's ways: what one does never makes another hang or lose what it was promised."""

import os
import subprocess
import sys
import time

from lab.case import test
from lab.shell import MIB, check, equal, eventually, fallocate, pattern, same, sh


def put(w, name, content):
    """Writes a version in another process, which ends."""
    sh("dd", f"of={w.incoming(name)}", "bs=1M", input=content, stdin=None)


def patch(w, name, content, seek=0):
    """Writes into what is there from another process, which ends."""
    sh("dd", f"of={w.incoming(name)}", "conv=notrunc", f"bs={len(content)}", f"seek={seek}", input=content, stdin=None)


@test
def what_was_renamed_over_is_put_away(w, samples):
    for i in range(2):
        put(w, ".t", b"%d" % i * 1000)
        os.rename(w.incoming(".t"), w.incoming("a"))
        time.sleep(2.5)
        equal(sh("cat", w.incoming("a"), timeout=20).stdout, b"%d" % i * 1000, "content")


@test
def unlinked_with_a_reader_is_put_away(w, samples):
    put(w, "a", b"1" * 1000)
    with open(w.incoming("a"), "rb") as reader:
        os.unlink(w.incoming("a"))
        time.sleep(1.5)
        equal(reader.read(), b"1" * 1000, "the reader goes on")
    time.sleep(1.5)
    equal(sh("ls", w.incoming(), timeout=20).stdout, b"", "hidden")


@test(seconds=60)
def a_reader_of_a_draft_keeps_its_bytes(w, samples):
    fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, pattern("a", 3 * MIB))
    reader = os.open(w.incoming("a"), os.O_RDONLY)
    equal(os.read(reader, 1000), pattern("a", 3 * MIB)[:1000], "while it is written")
    os.close(fd)
    time.sleep(13)
    got = b""
    while piece := os.read(reader, MIB):
        got += piece
    os.close(reader)
    check(got == pattern("a", 3 * MIB)[1000:], f"{len(got)} bytes long after the close")


@test
def fsync_through_a_reader_is_durable(w, samples):
    fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, pattern("a", 3 * MIB))
    reader = os.open(w.incoming("a"), os.O_RDONLY)
    os.fsync(reader)
    w.kill()
    for one in (fd, reader):
        try:
            os.close(one)
        except OSError:
            pass
    w.up()
    check(w.incoming("a").read_bytes() == pattern("a", 3 * MIB), "it is there")


@test
def a_patch_does_not_complete_what_a_crash_cut_off(w, samples):
    put(w, "a", b"good" * 1000)
    good = w.uid("a")
    fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_TRUNC)
    os.write(fd, pattern("a", 3 * MIB))
    os.fsync(fd)
    w.kill()
    try:
        os.close(fd)
    except OSError:
        pass
    w.up()
    equal(w.incoming("a").stat().st_size, 3 * MIB, "the draft")
    patch(w, "a", b"p" * 4096)
    equal(w.uid("a"), good, "latest after a patch")
    fd = os.open(w.incoming("a"), os.O_WRONLY)
    fallocate(fd, 0, 0, 9 * MIB)
    os.close(fd)
    os.rename(w.incoming("a"), w.incoming("b"))
    equal(w.versions("b"), [], "a new name makes nothing whole")
    patch(w, "b", pattern("rest", MIB), 3)
    want = b"p" * 4096 + pattern("a", 3 * MIB)[4096:] + pattern("rest", MIB)
    check(w.original("b").read_bytes()[: 4 * MIB] == want, "continued")


def broken(w, name, size):
    """A draft of this size whose writer was killed."""
    code = "import os,sys,time\nfd=os.open(sys.argv[1],os.O_WRONLY|os.O_CREAT|os.O_TRUNC)\nos.write(fd,os.urandom(int(sys.argv[2])))\nprint(1,flush=True)\ntime.sleep(60)"
    p = subprocess.Popen([sys.executable, "-c", code, w.incoming(name), str(size)], stdout=subprocess.PIPE)
    p.stdout.readline()
    p.kill(), p.wait()


@test
def making_room_does_not_mend(w, samples):
    for how in ("fallocate", "truncate"):
        broken(w, how, MIB)
        fd = os.open(w.incoming(how), os.O_WRONLY)
        fallocate(fd, 0, 0, 3 * MIB) if how == "fallocate" else os.ftruncate(fd, 3 * MIB)
        os.close(fd)
        time.sleep(0.3)
        equal(w.versions(how), [], how)
        size = w.incoming(how).stat().st_size
        os.truncate(w.incoming(how), size)
        equal(len(w.versions(how)), 1, f"{how}: accepted at the size it has")


@test
def the_first_break_counts(w, samples):
    broken(w, "a", MIB)
    code = "import os,sys\nfd=os.open(sys.argv[1],os.O_WRONLY)\nos.pwrite(fd,b'x'*4096,9<<20)\nos.kill(os.getpid(),9)"
    sh(sys.executable, "-c", code, w.incoming("a"), ok=False)
    patch(w, "a", b"y" * 4096, (9 << 20) // 4096 + 1)
    time.sleep(0.3)
    equal(w.versions("a"), [], "what the first writer left out is missing still")


@test
def a_version_from_elsewhere_is_what_the_next_patch_starts_from(w, samples):
    put(w, "a", b"1" * 8192)
    (w.root / "src").write_bytes(b"2" * 8192)
    w.run("backup", w.root / "src", "a")
    patch(w, "a", b"p" * 4096)
    equal(w.original("a").read_bytes(), b"p" * 4096 + b"2" * 4096, "content")


@test
def a_deleted_version_is_written_again(w, samples):
    fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"1" * 8192)
    other = os.dup(fd)
    os.close(other)
    uid = w.uid("a")
    w.run("rm", "--force", uid)
    os.pwrite(fd, b"2" * 8192, 0)
    os.pwrite(fd, b"1" * 8192, 0)
    os.close(fd)
    equal(w.original("a").read_bytes(), b"1" * 8192, "what close() acknowledged is there")


@test
def the_unlinked_does_not_come_back(w, samples):
    fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"1" * 8192)
    os.close(os.dup(fd))
    os.unlink(w.incoming("a"))
    os.write(fd, b"2" * 8192)
    os.fsync(fd)
    equal(os.listdir(w.incoming()), [], "after fsync")
    os.close(fd)
    time.sleep(0.3)
    equal((os.listdir(w.incoming()), len(w.versions("a"))), ([], 1), "after close")


@test(seconds=120)
def truncating_while_another_close_commits(w, samples):
    """Copies of equal length follow each other without waiting for the close of the one before."""
    code = """
import os, sys
name, byte, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import time
deadline = time.time() + 60
while True:
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        break
    except OSError as e:
        if e.errno != 16 or time.time() > deadline: raise
for i in range(count):
    os.write(fd, bytes([byte]) * 1000 + os.urandom(299000))
os.close(fd)
"""
    for turn in range(12):
        ps = [subprocess.Popen([sys.executable, "-c", code, w.incoming("a"), str(b), "30"]) for b in (1, 2, 3)]
        equal([p.wait(100) for p in ps], [0, 0, 0], "writers")
        equal(len(w.versions("a")), 3 * turn + 3, f"round {turn}: every close() that returned 0 has a version")
        for version in w.versions("a"):
            content = version.joinpath("original").read_bytes()
            equal({content[at] for at in range(0, 9_000_000, 300_000)}, {content[0]}, "each is one writer's")
    time.sleep(13)
    equal(len(w.incoming("a").read_bytes()), 9_000_000, "no draft hides the newest")
    equal((w.mnt / "status" / "drafts").read_text(), "", "no draft is left")


@test
def a_failure_is_noted_although_another_has_opened_the_name(w, samples):
    code = "import os,sys\nfd=os.open(sys.argv[1],os.O_WRONLY|os.O_CREAT|os.O_TRUNC)\nos.write(fd,b'x'*9000)\nos.close(fd)\nprint(1,flush=True)\nsys.stdin.read()\nos._exit(1)"
    p = subprocess.Popen([sys.executable, "-c", code, w.incoming("a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdout.readline()
    uid = w.uid("a")
    fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_TRUNC)
    p.stdin.close()
    p.wait()
    eventually("it is incomplete", lambda: w.read(uid, "valid").startswith("incomplete"))
    os.write(fd, b"good")
    os.close(fd)
    equal(w.original("a").read_bytes(), b"good", "the other's")


@test
def writers_side_by_side_leave_one_whole_disk(w, samples):
    """dd closes a duplicate before it writes; a part of the disk is zero; whoever is last finishes it."""
    disk = w.root / "disk"
    disk.write_bytes(os.urandom(4 * MIB) + bytes(2 * MIB) + os.urandom(6 * MIB))
    for i in range(12):
        name = w.incoming(f"p{i}")
        fd = os.open(name, os.O_RDWR | os.O_CREAT)
        parts = [
            subprocess.Popen(["dd", f"if={disk}", f"of={name}", "bs=1M", f"seek={k * 4}", f"skip={k * 4}", "count=4", "conv=notrunc"], stderr=subprocess.DEVNULL)
            for k in reversed(range(3))
        ]
        for part in parts:
            equal(part.wait(), 0, "a writer's exit")
        os.close(fd)
        same(disk, w.original(f"p{i}"))
