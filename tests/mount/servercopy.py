"""Copies inside the mount: no data moves, nothing is stored."""

import errno
import os

from lab.case import test
from lab.shell import KIB, MIB, check, equal, raises, same, script, sh


@test
def version_to_incoming(w, samples):
    disk = samples / "disk.img"
    sh("cp", disk, w.incoming("x"))
    with w.adds(64 * KIB):
        sh("cp", "--sparse=never", w.original("x"), w.incoming("y"))
    same(disk, w.original("y"))
    with w.adds(64 * KIB):
        sh("cp", w.original("x"), w.incoming("z"))
        sh("cp", "-a", w.data("x"), w.incoming("za"))
        script('cat "$1" > "$2"', w.original("x"), w.incoming("zc"))
        sh("cp", "--sparse=never", w.incoming("x"), w.incoming("zi"))
    for name in ("z", "za", "zc", "zi"):
        same(disk, w.original(name), name)


@test
def of_an_overlay_with_holes(w, samples):
    sh("cp", samples / "disk.img", w.incoming("x"))
    with open(w.data("x"), "r+b") as f:
        f.seek(5_000_001)
        f.write(b"overlay" * 100)
    with w.adds(MIB):
        sh("cp", "--sparse=never", w.data("x"), w.incoming("y"))
    same(w.data("x"), w.original("y"))
    same(samples / "disk.img", w.original("x"))


@test
def parts_at_odd_offsets(w, samples):
    sh("cp", samples / "small.img", w.incoming("x"))
    content = (samples / "small.img").read_bytes()
    source = os.open(w.original("x"), os.O_RDONLY)
    target = os.open(w.incoming("y"), os.O_RDWR | os.O_CREAT)
    want = bytearray()
    for frm, to, n in ((0, 0, 1_000_000), (1_000_001, 999_999, 700_003), (4 * MIB, 3 * MIB, MIB), (262_144, 5 * MIB, 786_432), (5 * MIB, 77, 9 * MIB)):
        done = 0
        while done < n:
            got = os.copy_file_range(source, target, n - done, frm + done, to + done)
            if got == 0:
                break
            done += got
        equal(done, min(n, len(content) - frm), "bytes copied")
        want.extend(bytes(max(0, to + done - len(want))))
        want[to : to + done] = content[frm : frm + done]
    check(os.pread(target, len(want) + 1, 0) == bytes(want), "read back")
    os.close(target), os.close(source)
    check(w.original("y").read_bytes() == bytes(want), "published")


@test
def link_is_a_copy(w, samples):
    sh("cp", samples / "disk.img", w.incoming("x"))
    with w.adds(64 * KIB):
        sh("ln", w.data("x"), w.incoming("new"))
    same(samples / "disk.img", w.original("new"))
    with raises(errno.EEXIST):
        os.link(w.data("x"), w.incoming("new"))
