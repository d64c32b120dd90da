"""Every tool that copies, as it is: its bytes arrive, as one version, under the one name."""

import hashlib
import os
import subprocess
import sys
import time

from lab.case import test
from lab.shell import GIB, KIB, MIB, check, digest, equal, needs, same, script, sh

PYTHON_WRITE = "import sys,shutil; shutil.copyfileobj(open(sys.argv[1],'rb'), open(sys.argv[2],'wb'), 65536)"
PYTHON_COPYFILE = "import sys,shutil; shutil.copyfile(sys.argv[1], sys.argv[2])"
PYTHON_MMAP = """
import mmap, os, sys
content = open(sys.argv[1], 'rb').read()
fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, len(content))
m = mmap.mmap(fd, len(content))
m[:] = content
m.flush()
m.close()
os.close(fd)
"""
# name -> (needed program, bash script; $1 is the source, $2 the destination, $3 a scratch directory)
WAYS = {
    "cat": ("cat", 'cat "$1" > "$2"'),
    "tee": ("tee", 'tee "$2" < "$1" > /dev/null'),
    "tee_from_pipe": ("tee", 'cat "$1" | tee "$2" | cat > /dev/null'),
    "dd": ("dd", 'dd if="$1" of="$2"'),
    "dd_1m": ("dd", 'dd if="$1" of="$2" bs=1M'),
    "dd_4m": ("dd", 'dd if="$1" of="$2" bs=4M'),
    "dd_odd": ("dd", 'dd if="$1" of="$2" bs=12345'),
    "dd_direct": ("dd", 'dd if="$1" of="$2" bs=1M oflag=direct'),
    "dd_fsync": ("dd", 'dd if="$1" of="$2" bs=1M conv=fsync'),
    "dd_sync_writes": ("dd", 'dd if="$1" of="$2" bs=256K oflag=sync'),
    "dd_sparse": ("dd", 'dd if="$1" of="$2" bs=64K conv=sparse'),
    "dd_from_pipe": ("dd", 'cat "$1" | dd of="$2" bs=1M iflag=fullblock'),
    "cp": ("cp", 'cp "$1" "$2"'),
    "cp_a": ("cp", 'cp -a "$1" "$2"'),
    "cp_sparse": ("cp", 'cp --sparse=always "$1" "$2"'),
    "cp_dense": ("cp", 'cp --sparse=never "$1" "$2"'),
    "cp_reflink": ("cp", 'cp --reflink=auto "$1" "$2"'),
    "install": ("install", 'install -m 640 "$1" "$2"'),
    "mv_in": ("mv", 'cp -a "$1" "$3/x" && mv "$3/x" "$2"'),
    "rsync": ("rsync", 'rsync "$1" "$2"'),
    "rsync_a": ("rsync", 'rsync -a "$1" "$2"'),
    "rsync_inplace": ("rsync", 'rsync --inplace "$1" "$2"'),
    "rsync_inplace_delta": ("rsync", 'rsync -a --inplace --no-whole-file "$1" "$2"'),
    "rsync_sparse": ("rsync", 'rsync -S "$1" "$2"'),
    "rsync_partial": ("rsync", 'rsync --partial "$1" "$2"'),
    "rsync_append": ("rsync", 'rsync --append "$1" "$2"'),
    "rsync_preallocate": ("rsync", 'rsync --preallocate "$1" "$2"'),
    "tar": ("tar", 'cp "$1" "$3/${2##*/}" && tar -C "$3" -cf "$3/t.tar" "${2##*/}" && tar -C "${2%/*}" -xf "$3/t.tar"'),
    "tar_sparse": ("tar", 'cp --sparse=always "$1" "$3/${2##*/}" && tar -C "$3" -cSf "$3/t.tar" "${2##*/}" && tar -C "${2%/*}" -xSf "$3/t.tar"'),
    "gio": ("gio", 'gio copy "$1" "$2"'),
    "pv": ("pv", 'pv -q "$1" > "$2"'),
    "head": ("head", 'head -c 1000000000 "$1" > "$2"'),
    "zstd": ("zstd", 'zstd -qf "$1" -o "$3/z" && zstd -qf -d "$3/z" -o "$2"'),
    "gzip": ("gzip", 'gzip -c "$1" | gzip -dc > "$2"'),
    "busybox_cp": ("busybox", 'busybox cp "$1" "$2"'),
    "python_write": ("python3", f'python3 -c "{PYTHON_WRITE}" "$1" "$2"'),
    "python_copyfile": ("python3", f'python3 -c "{PYTHON_COPYFILE}" "$1" "$2"'),
    "python_mmap": ("python3", f'python3 -c "{PYTHON_MMAP}" "$1" "$2"'),
    "perl": ("perl", 'perl -MFile::Copy -e "copy(@ARGV) or die" "$1" "$2"'),
    "subshell_of_two": ("head", '(head -c 1000001 "$1"; tail -c +1000002 "$1") > "$2"'),
    "subshell_of_many": ("dd", '(for i in 0 1 2 3 4 5; do dd if="$1" bs=1000000 skip=$i count=1 2>/dev/null; done) > "$2"'),
    "descriptor_3": ("cat", 'exec 3> "$2"; head -c 7777 "$1" >&3; true; tail -c +7778 "$1" >&3; exec 3>&-'),
    "sync_f": ("sync", 'cp "$1" "$2" && sync "$2"'),
}


def _copies(tool, text):
    def run(w, samples):
        needs(tool)
        small, scratch = samples / "small.img", w.root / "scratch"
        scratch.mkdir()
        script(text, small, w.incoming("vm"), scratch)
        equal(len(w.versions("vm")), 1, "versions")
        for shown in (w.original("vm"), w.data("vm"), w.incoming("vm")):
            same(small, shown)
        equal((w.latest("vm") / "valid").read_text(), "valid\n", "valid")
        equal(os.listdir(w.mnt / "by_name"), ["vm"], "by_name")
        equal(os.listdir(w.incoming()), ["vm"], "incoming")
        with w.adds(160 * KIB):
            script(text, small, w.incoming("again"), scratch)
        same(small, w.original("again"))
        w.remount()
        same(small, w.original("vm"))

    return run


for _name, (_tool, _text) in WAYS.items():
    _f = _copies(_tool, _text)
    _f.__name__, _f.__module__ = _name, __name__
    test(_f)


@test
def a_whole_disk(w, samples):
    disk = samples / "disk.img"
    sh("cp", disk, w.incoming("host1.img"))
    same(disk, w.original("host1.img"))
    equal(w.original("host1.img").stat().st_size, disk.stat().st_size, "size")
    sh("fsck.ext4", "-fn", w.original("host1.img"))
    out = w.root / "out"
    sh("cp", w.original("host1.img"), out)
    same(disk, out)
    check(out.stat().st_blocks <= disk.stat().st_blocks + 4096, "cp of original makes a sparse file")


@test
def copying_again_stores_nothing(w, samples):
    disk = samples / "disk.img"
    sh("cp", disk, w.incoming("d"))
    for way in (["cp"], ["cp", "-a"], ["cp", "--sparse=never"], ["cp", "--sparse=always"]):
        with w.adds(128 * KIB):
            sh(*way, disk, w.incoming("d"))
    equal(len(w.versions("d")), 5, "each copy is a version")
    for v in w.versions("d"):
        same(disk, v / "original")


@test
def cp_a_keeps_attributes(w, samples):
    source = w.root / "s"
    sh("cp", samples / "small.img", source)
    os.chmod(source, 0o640)
    os.chown(source, 12, 34)
    os.utime(source, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    sh("cp", "-a", source, w.incoming("s"))
    for shown in (w.incoming("s"), w.original("s"), w.data("s")):
        info = shown.stat()
        equal((info.st_uid, info.st_gid, info.st_mtime_ns), (12, 34, 1_600_000_000_123_456_789), shown.name)
        if shown.name != "original":
            equal(info.st_mode & 0o777, 0o640, shown.name)
    w.remount()
    equal(w.incoming("s").stat().st_mtime_ns, 1_600_000_000_123_456_789, "after a remount")


@test
def rsync_a_twice_does_nothing(w, samples):
    source = w.root / "tree"
    (source / "sub").mkdir(parents=True)
    sh("cp", samples / "small.img", source / "a.img")
    sh("cp", samples / "small.img", source / "sub" / "b.img")
    sh("rsync", "-a", f"{source}/", w.incoming("host/"))
    names = ("host/a.img", "host/sub/b.img")
    for name in names:
        same(samples / "small.img", w.original(name))
    before = {name: w.versions(name) for name in names}
    with w.adds(0):
        out = sh("rsync", "-ai", f"{source}/", w.incoming("host/")).stdout.decode()
    files = [line for line in out.splitlines() if line[1:2] == "f"]
    equal(files, [], "files rsync wants to send again")
    equal({name: w.versions(name) for name in names}, before, "versions")
    w.remount()
    out = sh("rsync", "-ai", f"{source}/", w.incoming("host/")).stdout.decode()
    equal([line for line in out.splitlines() if line[1:2] == "f"], [], "after a remount")


@test
def rsync_inplace_stores_the_change(w, samples):
    source = w.root / "s"
    sh("cp", samples / "disk.img", source)
    sh("rsync", "-a", "--inplace", "--no-whole-file", source, w.incoming("s"))
    equal(len(w.versions("s")), 1, "versions")
    # rsync looks at whole seconds.
    time.sleep(1.1)
    with open(source, "r+b") as f:
        f.seek(17 * MIB + 3)
        f.write(b"changed" * 999)
    with w.adds(MIB):
        sh("rsync", "-a", "--inplace", "--no-whole-file", source, w.incoming("s"))
    equal(len(w.versions("s")), 2, "versions")
    same(source, w.original("s"))
    same(samples / "disk.img", w.versions("s")[0] / "original")


@test
def rsync_append_continues(w, samples):
    disk = samples / "disk.img"
    script('head -c 20000000 "$1" > "$2"', disk, w.incoming("s"))
    with w.adds(40 * MIB):
        sh("rsync", "--append", disk, w.incoming("s"))
    same(disk, w.original("s"))
    equal(w.versions("s")[0].joinpath("original").stat().st_size, 20_000_000, "the first one stays as it was")


def _qemu_img(*options, format="raw", prepare=None):
    def run(w, samples):
        disk = samples / "disk.img"
        if prepare:
            prepare(w, disk)
            time.sleep(1.1)
        before = len(w.versions("q"))
        sh("qemu-img", "convert", "-f", "raw", "-O", format, *options, disk, w.incoming("q"))
        equal(len(w.versions("q")), before + 1, "one run makes one version")
        sh("qemu-img", "compare", "-f", "raw", "-F", format, disk, w.original("q"))
        if format == "raw":
            same(disk, w.original("q"))
        else:
            sh("qemu-img", "check", w.original("q"))

    return run


def _existing(w, disk):
    with open(w.incoming("q"), "wb") as f:
        f.write(b"old" * 100_000)
        f.truncate(disk.stat().st_size)


for _name, _run in {
    "qemu_img_raw": _qemu_img(),
    "qemu_img_raw_direct": _qemu_img("-t", "none"),
    "qemu_img_raw_writethrough": _qemu_img("-t", "writethrough"),
    "qemu_img_raw_out_of_order": _qemu_img("-W", "-m", "8"),
    "qemu_img_raw_existing": _qemu_img("-n", prepare=_existing),
    "qemu_img_raw_existing_direct": _qemu_img("-n", "-t", "none", prepare=_existing),
    "qemu_img_qcow2": _qemu_img(format="qcow2"),
    "qemu_img_qcow2_direct": _qemu_img("-t", "none", format="qcow2"),
    "qemu_img_qcow2_compressed": _qemu_img("-c", format="qcow2"),
}.items():
    _run.__name__, _run.__module__ = _name, __name__
    test(_run)


@test
def qemu_img_create_and_dd(w, samples):
    sh("qemu-img", "create", "-f", "raw", w.incoming("c"), "8M")
    sh("qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", f"if={samples / 'disk.img'}", f"of={w.incoming('d')}", "count=9")
    script('cmp -n 9437184 "$1" "$2"', samples / "disk.img", w.original("d"))


@test
def parallel_writers_at_different_offsets(w, samples):
    disk, name = samples / "disk.img", w.incoming("p")
    size = disk.stat().st_size
    parts = 6
    each = size // parts // MIB
    text = 'dd if="$1" of="$2" bs=1M seek=$3 skip=$3 count=$4 conv=notrunc'
    # One descriptor stays open over all of them, so that they join one draft.
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    running = [
        subprocess.Popen(["bash", "-c", text, "bash", str(disk), str(name), str(i * each), str(each + (99 if i == parts - 1 else 0))], stderr=subprocess.DEVNULL)
        for i in reversed(range(parts))
    ]
    for p in running:
        equal(p.wait(), 0, "a writer's exit")
    os.close(fd)
    same(disk, w.original("p"))


@test
def threads_of_one_process_write_together(w, samples):
    code = """
import os, sys, threading
content = open(sys.argv[1], 'rb').read()
fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
step = 300_001
def work(start):
    for at in range(start * step, len(content), 4 * step):
        os.pwrite(fd, content[at:at + step], at)
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
os.close(fd)
"""
    sh(sys.executable, "-c", code, samples / "disk.img", w.incoming("t"))
    same(samples / "disk.img", w.original("t"))
    equal(len(w.versions("t")), 1, "versions")


@test(seconds=300)
def sparse_terabyte(w, samples):
    image = w.root / "t.img"
    with open(image, "wb") as f:
        f.truncate(1024 * GIB)
        for i in range(32):
            f.seek(i * 31 * GIB + i * 4097)
            f.write(hashlib.shake_128(bytes([i])).digest(MIB))
    sh("cp", image, w.incoming("t"))
    equal(w.original("t").stat().st_size, 1024 * GIB, "size")
    check(w.original("t").stat().st_blocks * 512 < 64 * MIB, "original's blocks are what it holds")
    with w.adds(MIB):
        sh("cp", image, w.incoming("t"))
    with w.adds(MIB):
        sh("rsync", "-S", "--inplace", "--append", image, w.incoming("t"))
    for i in (0, 7, 31):
        with open(w.original("t"), "rb") as f:
            f.seek(i * 31 * GIB + i * 4097)
            equal(hashlib.sha256(f.read(MIB)).digest(), hashlib.sha256(hashlib.shake_128(bytes([i])).digest(MIB)).digest(), f"piece {i}")
    out = w.root / "out"
    sh("cp", w.original("t"), out, timeout=250)
    check(out.stat().st_blocks * 512 < 64 * MIB, "its restore is sparse")


@test
def copies_out_equal(w, samples):
    disk, out = samples / "disk.img", w.root / "out"
    sh("cp", disk, w.incoming("o"))
    source = w.original("o")
    ways = {
        "cp -a": 'cp -a "$1" "$2"',
        "dd": 'dd if="$1" of="$2" bs=1M',
        "dd direct": 'dd if="$1" of="$2" bs=1M iflag=direct',
        "cat": 'cat "$1" > "$2"',
        "rsync": 'rsync -a -S "$1" "$2"',
        "qemu-img": 'qemu-img convert -f raw -O raw "$1" "$2"',
        "qemu-img direct": 'qemu-img convert -T none -f raw -O raw "$1" "$2"',
        "tar": 'tar -C "${1%/*}" -cSf - original | tar -xOSf - > "$2"',
    }
    for name, text in ways.items():
        script(text, source, out)
        same(disk, out, name)
        out.unlink()
    equal(digest(source), digest(disk), "original")
