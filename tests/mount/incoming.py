"""Rules of incoming/: drafts, what they start from, when a version appears, names, renames, unlinks, sizes."""

import errno
import mmap
import os
import random
import stat
import subprocess
import sys
import time

from lab.case import test
from lab.shell import COLLAPSE, KEEP_SIZE, KIB, MIB, PUNCH_HOLE, ZERO_RANGE
from lab.shell import check, equal, eventually, fallocate, pattern, raises, same, script, sh


def put(w, name, content):
    """Writes a version in another process, which ends."""
    path = w.incoming(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    sh("dd", f"of={path}", "bs=1M", input=content)


@test
def truncating_open_with_a_writer_is_busy(w, samples):
    put(w, "a", b"first" * 1000)
    fd = os.open(w.incoming("a"), os.O_WRONLY)
    os.write(fd, b"second")
    done = script('echo x > "$1"', w.incoming("a"), ok=False)
    check(done.returncode != 0 and b"busy" in done.stderr, done.stderr)
    os.close(fd)
    equal(w.original("a").read_bytes(), b"second" + (b"first" * 1000)[6:], "the writer is undisturbed")
    script('echo x > "$1"', w.incoming("a"))
    equal(w.original("a").read_bytes(), b"x\n", "afterwards it works")


@test
def unlink_with_a_writer_is_busy(w, samples):
    put(w, "a", b"first" * 1000)
    fd = os.open(w.incoming("a"), os.O_WRONLY)
    os.write(fd, b"second")
    with raises(errno.EBUSY):
        os.unlink(w.incoming("a"))
    os.close(fd)
    equal(w.original("a").read_bytes()[:6], b"second", "content")


@test
def unlink_hides_and_deletes_nothing(w, samples):
    put(w, "a", b"first" * 1000)
    uid = w.uid("a")
    os.unlink(w.incoming("a"))
    check("a" not in os.listdir(w.incoming()), "hidden in incoming")
    check(not w.incoming("a").exists(), "hidden from stat")
    equal(w.uid("a"), uid, "by_name still has it")
    equal((w.by_version(uid) / "original").read_bytes(), b"first" * 1000, "by_version still has it")
    w.remount()
    check("a" not in os.listdir(w.incoming()), "still hidden after a remount")
    put(w, "a", b"again")
    equal((os.listdir(w.incoming()), len(w.versions("a"))), (["a"], 2), "published again, shown again")


@test
def unlink_discards_a_draft(w, samples):
    put(w, "a", b"first" * 1000)
    p = subprocess.Popen(["dd", "if=/dev/zero", f"of={w.incoming('a')}", "bs=1M"], stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    p.kill(), p.wait()
    eventually("the draft shows", lambda: w.incoming("a").stat().st_size > 5000)
    eventually("unlink is allowed", lambda: _unlinked(w.incoming("a")))
    check(len(w.versions("a")) == 1, "the version stays")
    put(w, "a", b"new")
    equal(w.original("a").read_bytes(), b"new", "nothing of the draft is left")


def _unlinked(path):
    try:
        os.unlink(path)
        return True
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        return False


@test
def remove_destination_install_and_tar_replace(w, samples):
    put(w, "a", b"first")
    for text in (
        'cp --remove-destination "$1" "$2"',
        'install -m 600 "$1" "$2"',
        'cp "$1" "$3/a" && tar -C "$3" -cf "$3.tar" a && tar -C "${2%/*}" -xf "$3.tar"',
        'cp "$1" "$3/a" && mv -f "$3/a" "$2"',
    ):
        (w.root / "s").mkdir(exist_ok=True)
        before = len(w.versions("a"))
        script(text, samples / "small.img", w.incoming("a"), w.root / "s")
        same(samples / "small.img", w.original("a"), text)
        equal(len(w.versions("a")), before + 1, text)


@test
def moves(w, samples):
    small = samples / "small.img"
    sh("cp", small, w.root / "x")
    sh("mv", w.root / "x", w.incoming("in"))
    check(not (w.root / "x").exists(), "moved in")
    same(small, w.original("in"))
    sh("mv", w.incoming("in"), w.incoming("other"))
    equal(os.listdir(w.incoming()), ["other"], "moved inside")
    equal((w.versions("in"), len(w.versions("other"))), ([], 1), "with its versions")
    same(small, w.original("other"))
    w.remount()
    same(small, w.original("other"))
    sh("mv", w.incoming("other"), w.root / "out")
    same(small, w.root / "out")
    equal(os.listdir(w.incoming()), [], "moved out")
    same(small, w.original("other"), "a version is never deleted by mv")


@test
def rename_moves_all_versions(w, samples):
    for i in range(3):
        put(w, "a", b"%d" % i * 1000)
    uids = [os.path.basename(os.readlink(v)) for v in w.versions("a")]
    os.rename(w.incoming("a"), w.incoming("b"))
    equal([os.path.basename(os.readlink(v)) for v in w.versions("b")], uids, "versions")
    check(not (w.mnt / "by_name" / "a").exists(), "the old name is gone")
    for uid in uids:
        equal(w.read(uid, "name"), "b", "name")


@test
def rename_onto_an_existing_name(w, samples):
    put(w, "b", b"b1"), put(w, "a", b"a1")
    os.rename(w.incoming("a"), w.incoming("b"))
    equal(len(w.versions("b")), 2, "a single version is appended")
    equal(w.original("b").read_bytes(), b"a1", "and is the newest")
    put(w, "c", b"c1"), put(w, "c", b"c2")
    with raises(errno.EEXIST):
        os.rename(w.incoming("c"), w.incoming("b"))
    equal((len(w.versions("b")), len(w.versions("c"))), (2, 2), "histories do not merge")


@test
def rename_into_a_directory_and_directories(w, samples):
    put(w, "a", b"a1")
    w.incoming("host").mkdir()
    os.rename(w.incoming("a"), w.incoming("host/a"))
    equal(w.original("host/a").read_bytes(), b"a1", "content")
    put(w, "host/b", b"b1")
    with raises(errno.ENOTEMPTY):
        os.rmdir(w.incoming("host"))


@test
def names_may_not_collide(w, samples):
    put(w, "host1", b"x")
    with raises(errno.ENOTDIR):
        w.incoming("host1/vm").write_bytes(b"y")
    put(w, "d/vm", b"x")
    with raises(errno.EISDIR):
        w.incoming("d").write_bytes(b"y")
    with raises(errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        os.rename(w.incoming("host1"), w.incoming("d"))


@test
def all_sorts_of_names(w, samples):
    names = ["a b", " lead", "trail ", "Ünï·çødé-名前", "x" * 255, "2026-01-01T00:00:00Z", "latest", "-dash", "per%cent",
             "quo'te\"s", "back\\slash", "a" * 200 + "/" + "b" * 255, "deep/" * 40 + "vm", "*?[", "emoji🦀", "tab\there", "semi;colon"]
    for name in names:
        put(w, name, name.encode() * 10)
    w.remount()
    for name in names:
        equal(w.original(name).read_bytes(), name.encode() * 10, name)
        equal((w.latest(name) / "name").read_text(), name + "\n", name)
        equal(w.incoming(name).stat().st_size, len(name.encode()) * 10, name)
    with raises(errno.ENAMETOOLONG):
        w.incoming("y" * 256).write_bytes(b"x")
    with raises(errno.EINVAL):
        w.incoming("new\nline").write_bytes(b"x")
    rows = w.json("ls")
    equal(sorted(r["name"] for r in rows), sorted(names), "ls --json")


@test(mounted=False)
def temporary_names_publish_by_rename(w, samples):
    w.env["BACKYFS_TEMPORARY_NAMES"] = "*.part"
    w.start()
    small = samples / "small.img"
    for temporary, final in ((".vm.Xq3f", "vm"), ("h/.vm.Xq3f", "h/vm"), (".dir/vm", "h/vm2"), ("vm3.part", "vm3")):
        w.incoming(temporary).parent.mkdir(exist_ok=True)
        sh("cp", small, w.incoming(temporary))
        equal(w.versions(temporary), [], temporary)
        same(small, w.incoming(temporary))
        os.rename(w.incoming(temporary), w.incoming(final))
        same(small, w.original(final), final)
        equal(w.read(w.uid(final), "name"), final, final)
    sh("cp", small, w.incoming(".keeps"))
    w.remount()
    same(small, w.incoming(".keeps"))
    w.crash()
    os.rename(w.incoming(".keeps"), w.incoming("vm"))
    equal(len(w.versions("vm")), 2, "renamed over a name it is its next version")


@test
def append_and_truncate(w, samples):
    put(w, "a", b"0123456789" * 50_000)
    script('echo tail >> "$1"', w.incoming("a"))
    equal(w.original("a").read_bytes(), b"0123456789" * 50_000 + b"tail\n", "appended")
    sh("truncate", "-s", "7", w.incoming("a"))
    equal(w.original("a").read_bytes(), b"0123456", "shrunk, committed at once")
    sh("truncate", "-s", "300000", w.incoming("a"))
    equal(w.original("a").read_bytes(), b"0123456" + bytes(299_993), "grown: zeros, not what was there before")
    equal(len(w.versions("a")), 4, "each was a change")
    sh("truncate", "-s", "300000", w.incoming("a"))
    equal(len(w.versions("a")), 4, "the same size is none")


@test
def no_change_makes_no_version(w, samples):
    put(w, "a", b"x" * 100_000)
    with w.adds(0):
        os.close(os.open(w.incoming("a"), os.O_RDWR))
        os.close(os.open(w.incoming("a"), os.O_WRONLY | os.O_APPEND))
        os.truncate(w.incoming("a"), 100_000)
    sh("touch", w.incoming("a"))
    os.chmod(w.incoming("a"), 0o600)
    os.chown(w.incoming("a"), 5, 6)
    os.utime(w.incoming("a"), ns=(7_000_000_001, 7_000_000_001))
    equal(len(w.versions("a")), 1, "versions")
    w.remount()
    info = w.incoming("a").stat()
    equal((stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns), (0o600, 5, 6, 7_000_000_001), "kept")


@test
def empty_files_are_not_published(w, samples):
    script('> "$1"', w.incoming("e"))
    equal((os.listdir(w.mnt / "by_name"), os.listdir(w.incoming())), ([], ["e"]), "stays in incoming only")
    equal(w.incoming("e").stat().st_size, 0, "size")
    script('echo now >> "$1"', w.incoming("e"))
    equal(w.original("e").read_bytes(), b"now\n", "content")


@test
def fallocate_modes(w, samples):
    fd = os.open(w.incoming("f"), os.O_RDWR | os.O_CREAT)
    content = bytearray(pattern("f", 3 * MIB))
    os.write(fd, content)
    fallocate(fd, 0, 3 * MIB - 5, MIB)
    content += bytes(4 * MIB - 5 - len(content))
    equal(os.fstat(fd).st_size, 4 * MIB - 5, "mode 0 grows")
    fallocate(fd, KEEP_SIZE, 3 * MIB, 9 * MIB)
    equal(os.fstat(fd).st_size, 4 * MIB - 5, "KEEP_SIZE does not")
    for mode, at, length in ((PUNCH_HOLE | KEEP_SIZE, 100_001, 900_003), (ZERO_RANGE | KEEP_SIZE, 2 * MIB + 1, 300 * KIB), (PUNCH_HOLE | KEEP_SIZE, 4 * MIB - 50, 9 * MIB)):
        fallocate(fd, mode, at, length)
        end = min(at + length, len(content))
        content[at:end] = bytes(end - at)
    fallocate(fd, ZERO_RANGE, 4 * MIB - 100, 200)
    content += bytes(4 * MIB + 100 - len(content))
    content[4 * MIB - 100 :] = bytes(200)
    with raises(errno.EOPNOTSUPP):
        fallocate(fd, COLLAPSE, 0, MIB)
    equal(os.fstat(fd).st_size, len(content), "size")
    os.lseek(fd, 0, os.SEEK_SET)
    check(os.read(fd, 9 * MIB) == bytes(content), "read back before close")
    os.close(fd)
    check(w.original("f").read_bytes() == bytes(content), "published bytes")


@test
def shared_mmap_writes(w, samples):
    fd = os.open(w.incoming("m"), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 3 * MIB)
    m = mmap.mmap(fd, 3 * MIB)
    want = bytearray(3 * MIB)
    for i in range(0, 3 * MIB, 37_777):
        piece = pattern(i, 1000)[: 3 * MIB - i]
        m[i : i + len(piece)] = piece
        want[i : i + len(piece)] = piece
    m.flush()
    os.pwrite(fd, b"between", 5)
    want[5:12] = b"between"
    check(m[5:12] == b"between", "the mapping sees write()")
    m.close()
    os.close(fd)
    check(w.original("m").read_bytes() == bytes(want), "published bytes")


@test
def mapped_pages_written_after_close(w, samples):
    code = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
os.close(fd)
m[1000:1008] = b'lasting!'
m.flush()
m.close()
"""
    sh(sys.executable, "-c", code, w.incoming("m"))
    eventually("the mapped bytes are in the newest version", lambda: w.uid("m") and w.original("m").read_bytes()[1000:1008] == b"lasting!")


@test
def holes_of_a_draft(w, samples):
    fd = os.open(w.incoming("h"), os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * MIB, 20 * MIB)
    os.ftruncate(fd, 50 * MIB)
    at = os.lseek(fd, 0, os.SEEK_DATA)
    check(16 * MIB <= at <= 20 * MIB, f"SEEK_DATA {at}")
    at = os.lseek(fd, 20 * MIB, os.SEEK_HOLE)
    check(21 * MIB <= at <= 25 * MIB, f"SEEK_HOLE {at}")
    with raises(errno.ENXIO):
        os.lseek(fd, 50 * MIB, os.SEEK_DATA)
    os.close(fd)


@test
def a_reader_keeps_its_version(w, samples):
    put(w, "a", b"old" * 100_000)
    with open(w.incoming("a"), "rb", buffering=0) as reader:
        fd = os.open(w.incoming("a"), os.O_WRONLY | os.O_TRUNC)
        os.write(fd, b"new")
        equal(w.incoming("a").stat().st_size, 3, "incoming shows the draft")
        equal(os.pread(reader.fileno(), 300_000, 0), b"old" * 100_000, "the handle shows its version")
        os.close(fd)
    equal(w.incoming("a").read_bytes(), b"new", "afterwards")


@test
def joining_writers_and_read_back(w, samples):
    put(w, "a", b"base" * 100_000)
    one = os.open(w.incoming("a"), os.O_RDWR)
    two = os.open(w.incoming("a"), os.O_RDWR)
    os.pwrite(one, b"ONE", 10)
    os.pwrite(two, b"TWO", 300_000)
    equal((os.pread(two, 3, 10), os.pread(one, 3, 300_000)), (b"ONE", b"TWO"), "both see both")
    os.close(one), os.close(two)
    want = bytearray(b"base" * 100_000)
    want[10:13], want[300_000:300_003] = b"ONE", b"TWO"
    equal(w.original("a").read_bytes(), bytes(want), "content")


@test
def children_holding_the_descriptor_do_not_publish(w, samples):
    text = """
exec 3> "$1"
$3 echo one >&3
(exit 0)
[ -z "$3" ] || test ! -e "$2/by_name/c" || exit 41
$3 echo two >&3
/bin/true
[ -z "$3" ] || test ! -e "$2/by_name/c" || exit 42
exec 3>&-
test -e "$2/by_name/c/latest" || exit 43
"""
    # A builtin's redirection is a close by the shell itself, which goes on writing: still one version in the end.
    for prefix in ("env", ""):
        script(text, w.incoming("c"), w.mnt, prefix)
        equal(w.original("c").read_bytes(), b"one\ntwo\n", "content")
        equal(len(w.versions("c")), 1, "versions")
        w.run("rm", "--force", w.uid("c"))


@test
def visible_everywhere_when_close_returns(w, samples):
    for i in range(30):
        fd = os.open(w.incoming(f"v{i % 3}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, b"%d" % i)
        os.close(fd)
        equal(w.original(f"v{i % 3}").read_bytes(), b"%d" % i, "latest")
        check(w.uid(f"v{i % 3}") in os.listdir(w.by_version()), "by_version")
    contents = [(v / "original").read_bytes() for v in w.versions("v0")]
    equal(contents, [b"%d" % i for i in range(0, 30, 3)], "several in one second all show, in order")


@test
def going_on_after_close_is_one_version(w, samples):
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC); os.write(fd, b'a' * 4096); os.close(fd)
fd = os.open(sys.argv[1], os.O_RDWR); os.pwrite(fd, b'b' * 4096, 4096); os.close(fd)
"""
    sh(sys.executable, "-c", code, w.incoming("g"))
    equal(len(w.versions("g")), 1, "the same process reopened")
    equal(w.original("g").read_bytes(), b"a" * 4096 + b"b" * 4096, "content")
    put(w, "h", b"a" * 4096)
    sh("dd", f"of={w.incoming('h')}", "conv=notrunc", "bs=4096", "seek=1", input=b"b" * 4096)
    equal(len(w.versions("h")), 2, "another process begins a new one")


@test(seconds=300)
def random_operations_match_a_plain_file(w, samples):
    seed = int(os.environ.get("BACKYFS_TEST_SEED", "1"))
    rnd, plain = random.Random(seed), w.root / "plain"
    limit = 9 * MIB
    for round_number in range(4):
        flags = os.O_RDWR | os.O_CREAT
        fds = [os.open(p, flags) for p in (w.incoming("model"), plain)]
        try:
            for step in range(250):
                op, at, n = rnd.random(), rnd.randrange(limit), rnd.choice((1, 511, 4096, 4097, 70_000, 262_144, 1_000_003))
                where = f"seed {seed} round {round_number} step {step}"
                if op < 0.55:
                    content = rnd.randbytes(n) if rnd.random() < 0.8 else bytes(n)
                    [os.pwrite(fd, content, at) for fd in fds]
                elif op < 0.63:
                    [os.ftruncate(fd, at) for fd in fds]
                elif op < 0.75:
                    mode = rnd.choice((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE, 0))
                    [fallocate(fd, mode, at, n) for fd in fds]
                elif op < 0.97:
                    got, want = (os.pread(fd, n, at) for fd in fds)
                    check(got == want, f"{where}: {n} bytes at {at} differ")
                else:
                    os.fsync(fds[0])
                equal(*(os.fstat(fd).st_size for fd in fds), where)
        finally:
            [os.close(fd) for fd in fds]
        if plain.stat().st_size:
            same(plain, w.original("model"), f"seed {seed} round {round_number}")
        if round_number == 1:
            w.remount()
        if round_number == 2:
            w.crash()


@test
def status_and_df(w, samples):
    info = os.statvfs(w.mnt)
    check(info.f_blocks * info.f_frsize > 0 and info.f_bavail <= info.f_blocks, "df shows the target")
    check(any(" fuse.backyfs " in line for line in open("/proc/self/mountinfo") if str(w.mnt) in line), "type")
    equal(sorted(n for n in os.listdir(w.mnt) if n in ("incoming", "by_version", "by_name", "by_tag")), ["by_name", "by_tag", "by_version", "incoming"], "trees")
    for place in ("by_version", "by_name", "by_tag"):
        with raises(errno.EPERM, errno.EROFS, errno.EACCES, errno.ENOTSUP, errno.ENOSYS):
            (w.mnt / place / "x").mkdir()


@test
def inodes_are_stable(w, samples):
    put(w, "a", b"x" * 1000)
    paths = [w.incoming("a"), w.original("a"), w.data("a"), w.by_version(w.uid("a"))]
    first = [p.stat().st_ino for p in paths]
    for _ in range(3):
        sh("ls", "-lR", w.mnt)
        equal([p.stat().st_ino for p in paths], first, "inode numbers")
    equal(len(set(first)), len(first), "and differ")
