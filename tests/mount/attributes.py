"""Attribute files: one value per file, applied by write(), validated by write(), shown at once."""

import errno
import os
import re
import time

from lab.case import test
from lab.shell import check, digest, equal, raises, script, sh


def version(w, samples, name="a"):
    w.incoming(name).parent.mkdir(exist_ok=True)
    sh("cp", samples / "small.img", w.incoming(name))
    return w.latest(name)


@test
def facts(w, samples):
    v = version(w, samples, "dir/a")
    uid = w.uid("dir/a")
    check(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uid), "UUIDv7")
    equal((v / "name").read_text(), "dir/a\n", "name")
    equal((v / "valid").read_text(), "valid\n", "valid")
    equal((v / "size").read_text(), f"{(samples / 'small.img').stat().st_size}\n", "size")
    equal((v / "protected").read_text(), "0\n", "protected")
    equal((v / "tags").read_text(), "", "no tags: empty")
    created = (v / "created").read_text().strip()
    check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", created), created)
    stamp = w.versions("dir/a")[0].name
    check(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", stamp) and created.startswith(stamp[:19]), (created, stamp))
    for name in os.listdir(v):
        path = v / name
        if name not in ("data", "original"):
            equal(path.stat().st_size, len(path.read_bytes()), f"size of {name} is true")
    for name in ("created", "size", "stats", "original"):
        with raises(errno.EACCES, errno.EPERM, errno.EROFS):
            (v / name).write_text("1\n")
    for name in ("x", "data2"):
        with raises(errno.EPERM, errno.EACCES, errno.EROFS):
            (v / name).write_text("1\n")


@test
def tags(w, samples):
    v = version(w, samples)
    read = lambda: sorted((v / "tags").read_text().splitlines())
    (v / "tags").write_text("golden\nkeep\n")
    equal(read(), ["golden", "keep"], "set")
    (v / "tags").write_text("one,two , three\n")
    equal(read(), ["one", "three", "two"], "commas")
    script('echo four >> "$1"', v / "tags")
    equal(read(), ["four", "one", "three", "two"], "append adds")
    script('{ echo a; echo b; } > "$1"', v / "tags")
    equal(read(), ["a", "b"], "writes of a handle accumulate")
    script(': > "$1"', v / "tags")
    sh("truncate", "-s", "0", v / "tags")
    equal(read(), ["a", "b"], "truncation alone does nothing")
    for bad in ("x/y\n", ".\n", "..\n", "ok\n..\n"):
        with raises(errno.EINVAL):
            with open(v / "tags", "w") as f:
                f.write(bad)
        equal(read(), ["a", "b"], f"{bad!r} changes nothing")
    for name in ("a", "b"):
        equal(digest(w.mnt / "by_tag" / name / "a" / w.versions("a")[0].name / "original"), digest(v / "original"), "by_tag")
    equal(sorted(os.listdir(w.mnt / "by_tag")), ["a", "b"], "by_tag")
    w.remount()
    equal(read(), ["a", "b"], "kept")
    (v / "tags").write_text("\n")
    equal((read(), os.listdir(w.mnt / "by_tag")), ([], []), "a lone newline clears")


@test
def a_bad_value_is_refused_by_write(w, samples):
    v = version(w, samples)
    for name, good, bad in (
        ("expire", "2030-01-02\n", ["soon\n", "2030-13-01\n", "2030-02-30\n"]),
        ("protected", "1\n", ["2\n", "yes please\n", "-1\n"]),
        ("valid", "valid\n", ["perhaps\n"]),
        ("tags", "t\n", ["a/b\n"]),
        ("overlay", None, ["keep\n"]),
        ("name", None, ["../x\n", "a//b\n", "/\n", "x" * 256 + "\n"]),
    ):
        if good:
            (v / name).write_text(good)
        before = (v / name).read_text()
        for text in bad:
            fd = os.open(v / name, os.O_WRONLY | os.O_TRUNC)
            try:
                with raises(errno.EINVAL):
                    os.write(fd, text.encode())
            finally:
                os.close(fd)
            equal((v / name).read_text(), before, f"{name} after {text!r}")
        done = script('echo "$2" > "$1"', v / name, bad[0].strip(), ok=False)
        check(done.returncode != 0, f"a shell sees it: {name}")


@test
def expire(w, samples):
    v = version(w, samples)
    (v / "expire").write_text("2030-01-02\n")
    check((v / "expire").read_text().startswith("2030-01-02"), "date")
    (v / "expire").write_text("2031-05-06T07:08:09Z\n")
    check((v / "expire").read_text().startswith("2031-05-06T07:08:09"), "moment")
    w.crash()
    check((v / "expire").read_text().startswith("2031-05-06"), "survives a crash")
    (v / "expire").write_text("\n")
    equal((v / "expire").read_text().strip(), "", "cleared")


@test
def snapshot_name_and_protected(w, samples):
    v = version(w, samples)
    (v / "snapshot_name").write_text("before upgrade\n")
    equal((v / "snapshot_name").read_text(), "before upgrade\n", "text")
    (v / "snapshot_name").write_text("\n")
    equal((v / "snapshot_name").read_text().strip(), "", "cleared")
    for value in ("1\n", "0\n", "1\n"):
        (v / "protected").write_text(value)
        equal((v / "protected").read_text(), value, "protected")
    rows = w.json("ls")
    equal((rows[0]["protected"], rows[0]["tags"], rows[0]["name"], rows[0]["uid"]), (True, [], "a", w.uid("a")), "ls --json")


@test
def without_newline_and_by_pieces(w, samples):
    v = version(w, samples)
    script('printf 2030-01-02 > "$1"', v / "expire")
    check((v / "expire").read_text().startswith("2030-01-02"), "no newline needed")
    script('printf "golden\\n" | tee "$1" > /dev/null', v / "tags")
    equal((v / "tags").read_text(), "golden\n", "tee")
    script('printf "x\\n" | dd of="$1" 2>/dev/null', v / "tags")
    equal((v / "tags").read_text(), "x\n", "dd")


@test
def renaming_by_the_name_file(w, samples):
    version(w, samples)
    uid = w.uid("a")
    w.by_version(uid).joinpath("name").write_text("new/b\n")
    equal(w.uid("new/b"), uid, "its new name")
    check(not (w.mnt / "by_name" / "a").exists(), "the old one is gone")


@test
def a_change_is_seen_by_commands_and_the_other_way(w, samples):
    v = version(w, samples)
    uid = w.uid("a")
    (v / "tags").write_text("golden\n")
    row = next(r for r in w.json("ls") if r["uid"] == uid)
    equal(row["tags"], ["golden"], "ls")
    w.run("tag", uid, "more")
    equal(sorted((v / "tags").read_text().split()), ["golden", "more"], "tag")
    w.run("untag", uid, "golden")
    equal((v / "tags").read_text(), "more\n", "untag")
    w.run("protect", uid)
    equal((v / "protected").read_text(), "1\n", "protect")
    w.run("unprotect", uid)
    equal((v / "protected").read_text(), "0\n", "unprotect")
    w.run("expire", uid, "2031-01-01")
    check((v / "expire").read_text().startswith("2031-01-01"), "expire")


@test
def order_is_by_time_and_latest_is_the_newest(w, samples):
    stamps = []
    for i in range(4):
        sh("dd", f"of={w.incoming('a')}", input=b"%d" % i)
        stamps.append(w.uid("a"))
        time.sleep(0.4)
    equal([os.path.basename(os.readlink(v)) for v in w.versions("a")], stamps, "by_name order")
    times = [w.by_version(u).stat().st_mtime for u in stamps]
    equal(times, sorted(times), "times are the backup's")
    check(all(abs(t - time.time()) < 60 for t in times), "and recent")
    check(not os.path.isabs(os.readlink(w.latest("a"))), "links are relative")
