"""Deleting: hard to do stupid things. rmdir deletes a version, and only one that may go; nothing else under the mount does."""

import errno
import os
import shutil
import time

from lab.case import test
from lab.shell import check, equal, raises, same, sh


def version(w, samples, name="a"):
    sh("cp", samples / "small.img", w.incoming(name))
    return w.uid(name)


@test
def a_young_version_stays(w, samples):
    uid = version(w, samples)
    with raises(errno.EPERM, errno.EBUSY):
        os.rmdir(w.by_version(uid))
    done = w.run("rm", uid, ok=False)
    check(done.returncode != 0 and done.stderr.strip(), "rm says why")
    same(samples / "small.img", w.original("a"))


@test(mounted=False)
def rmdir_deletes_an_old_one(w, samples):
    w.env["BACKYFS_MIN_AGE_DAYS"] = "0"
    w.start()
    uid = version(w, samples)
    with open(w.by_version(uid) / "original", "rb"):
        with raises(errno.EBUSY):
            os.rmdir(w.by_version(uid))
    with open(w.by_version(uid) / "data", "r+b") as f:
        f.write(b"scribble")
    with raises(errno.EBUSY):
        os.rmdir(w.by_version(uid))
    (w.by_version(uid) / "overlay").write_text("discard\n")
    (w.by_version(uid) / "protected").write_text("1\n")
    with raises(errno.EPERM):
        os.rmdir(w.by_version(uid))
    (w.by_version(uid) / "protected").write_text("0\n")
    # A process that tried to unlink inside is refused; another may delete.
    sh("rm", "-rf", w.by_version(uid), ok=False)
    sh("find", w.by_version(), "-delete", ok=False)
    sh("perl", "-MFile::Path", "-e", "File::Path::remove_tree(@ARGV)", w.by_version(uid), ok=False)
    equal(os.listdir(w.by_version()), [uid], "still there")
    sh("rmdir", w.by_version(uid))
    equal((os.listdir(w.by_version()), os.listdir(w.mnt / "by_name"), w.json("ls")), ([], [], []), "gone everywhere")
    w.crash()
    equal(os.listdir(w.by_version()), [], "and stays gone")


@test
def force_removes_a_young_one(w, samples):
    uid = version(w, samples)
    w.run("rm", "--force", uid)
    equal((os.listdir(w.by_version()), os.listdir(w.mnt / "by_name"), w.json("ls")), ([], [], []), "gone everywhere")
    w.remount()
    equal(os.listdir(w.by_version()), [], "and stays gone")
    w.down()
    shutil.rmtree(w.state, ignore_errors=True)
    w.run("rebuild")
    equal(w.json("ls"), [], "a rebuild does not bring it back")


@test
def protected_beats_force(w, samples):
    uid = version(w, samples)
    (w.by_version(uid) / "protected").write_text("1\n")
    check(w.run("rm", "--force", uid, ok=False).returncode != 0, "rm --force")
    with raises(errno.EPERM, errno.EBUSY):
        os.rmdir(w.by_version(uid))
    (w.by_version(uid) / "protected").write_text("0\n")
    w.run("rm", "--force", uid)
    equal(os.listdir(w.by_version()), [], "gone")


@test
def open_and_overlaid_versions_stay(w, samples):
    uid = version(w, samples)
    with open(w.by_version(uid) / "original", "rb"):
        check(w.run("rm", uid, ok=False).returncode != 0, "open")
        with raises(errno.EPERM, errno.EBUSY):
            os.rmdir(w.by_version(uid))
    with open(w.by_version(uid) / "data", "r+b") as f:
        f.write(b"scribble")
    with raises(errno.EPERM, errno.EBUSY):
        os.rmdir(w.by_version(uid))
    same(samples / "small.img", w.original("a"))


@test
def unlink_inside_is_refused_and_then_rmdir_too(w, samples):
    uid = version(w, samples)
    for name in os.listdir(w.by_version(uid)):
        with raises(errno.EPERM):
            os.unlink(w.by_version(uid) / name)
    with raises(errno.ENOTEMPTY, errno.EPERM, errno.EBUSY):
        os.rmdir(w.by_version(uid))


@test
def recursive_deletion_deletes_nothing(w, samples):
    uid = version(w, samples)
    for argv in (
        ["rm", "-rf", w.by_version(uid)],
        ["rm", "-rf", w.mnt / "by_version"],
        ["rm", "-rf", w.mnt / "by_name" / "a"],
        ["rm", "-rf", w.mnt / "by_tag"],
        ["find", w.by_version(), "-delete"],
        ["find", w.mnt / "by_name", "-delete"],
        ["perl", "-MFile::Path", "-e", "File::Path::remove_tree(@ARGV)", w.by_version(uid)],
        ["perl", "-MFile::Path", "-e", "File::Path::remove_tree(@ARGV)", w.by_version()],
    ):
        sh(*argv, ok=False)
        equal(os.listdir(w.by_version()), [uid], argv)
    shutil.rmtree(w.by_version(), ignore_errors=True)
    shutil.rmtree(w.by_version(uid), ignore_errors=True)
    same(samples / "small.img", w.original("a"))
    sh("rm", "-rf", *(w.mnt / d for d in ("incoming", "by_version", "by_name", "by_tag")), ok=False)
    w.remount()
    same(samples / "small.img", w.by_version(uid) / "original")


@test
def links_in_by_name_cannot_be_removed_or_made(w, samples):
    version(w, samples)
    for link in (w.versions("a")[0], w.latest("a")):
        with raises(errno.EPERM, errno.EACCES, errno.EROFS):
            os.unlink(link)
    with raises(errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOTSUP):
        os.symlink("x", w.mnt / "by_name" / "a" / "mine")
    with raises(errno.EPERM, errno.EACCES, errno.EROFS, errno.EXDEV):
        os.rename(w.versions("a")[0], w.mnt / "by_name" / "a" / "mine")


@test
def rm_by_every_spelling(w, samples):
    first = version(w, samples)
    time.sleep(1.1)
    second = version(w, samples)
    check(w.run("rm", "--force", "no-such", ok=False).returncode != 0, "unknown")
    w.run("rm", "--force", second)
    equal(w.uid("a"), first, "latest goes back")
    check(w.run("rm", "--force", "a", ok=False).returncode != 0 and w.uid("a") == first, "a name alone is too easily said")
    w.run("rm", "--force", first[:24])
    equal(w.json("ls"), [], "by the beginning of a uid")
