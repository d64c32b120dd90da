"""One clear sentence and a non-zero exit: wrong keys, foreign directories, newer formats, second inits, bad mounts."""

import os
import shutil

from lab.case import test
from lab.shell import MIB, check, equal, same, sh


def refused(done, what):
    """Non-zero, something on stderr, no stack of nonsense."""
    check(done.returncode != 0, f"{what}: exit 0")
    lines = done.stderr.decode().strip().splitlines()
    check(1 <= len(lines) <= 6, f"{what}: {lines}")


@test
def wrong_key(w, samples):
    sh("cp", samples / "small.img", w.incoming("s"))
    other = w.root / "other"
    other.write_bytes(os.urandom(64))
    other.chmod(0o600)
    env = {"BACKYFS_KEY_FILE": str(other), "BACKYFS_STATE_DIR": str(w.root / "s2")}
    for args in (["ls"], ["restore", "s", w.root / "out"], ["rebuild"]):
        refused(w.run(*args, ok=False, env=env), args)
    missing = {"BACKYFS_KEY_FILE": str(w.root / "none"), "BACKYFS_STATE_DIR": str(w.root / "s3")}
    refused(w.run("ls", ok=False, env=missing), "missing key file")
    check(not (w.root / "none").exists(), "only init makes a key file")
    check(not (w.root / "out").exists(), "nothing restored")


@test(mounted=False)
def foreign_directory(w, samples):
    strange = w.root / "strange"
    strange.mkdir()
    (strange / "photo.jpg").write_bytes(b"mine")
    env = {"BACKYFS_TARGET": f"dir:{strange}"}
    (w.root / "m").mkdir()
    for args in (["init"], ["ls"], ["mount", w.root / "m"], ["rebuild"]):
        refused(w.run(*args, ok=False, env=env), args)
    equal(os.listdir(strange), ["photo.jpg"], "untouched")


@test(mounted=False)
def no_repository(w, samples):
    (w.root / "m").mkdir()
    for args in (["ls"], ["mount", w.root / "m"], ["restore", "x", w.root / "out"]):
        refused(w.run(*args, ok=False), args)
    check(not w.repo.exists() or os.listdir(w.repo) == [], "nothing was made")


@test
def second_init(w, samples):
    sh("cp", samples / "small.img", w.incoming("s"))
    before = sorted((p, p.read_bytes()) for p in w.repo.rglob("*") if p.is_file())
    key = w.key.read_bytes()
    refused(w.run("init", ok=False), "init")
    refused(w.run("init", ok=False, env={"BACKYFS_STATE_DIR": str(w.root / "s2"), "BACKYFS_KEY_FILE": str(w.root / "k2")}), "init elsewhere")
    equal(sorted((p, p.read_bytes()) for p in w.repo.rglob("*") if p.is_file()), before, "the repository is untouched")
    equal(w.key.read_bytes(), key, "the key is untouched")
    same(samples / "small.img", w.original("s"))


@test
def newer_format(w, samples):
    sh("cp", samples / "small.img", w.incoming("s"))
    w.down()
    copies = (w.repo / "backyfs.repository", w.repo / "spare/backyfs.repository")
    content = copies[0].read_bytes()
    refusals = []
    for offset in range(min(24, len(content))):
        elsewhere = {"BACKYFS_STATE_DIR": str(w.root / f"s{offset}")}
        for number, copy in enumerate(copies):
            copy.chmod(0o600)
            copy.write_bytes(content[:offset] + bytes([content[offset] ^ 0x40]) + content[offset + 1 :])
            done = w.run("ls", ok=False, env=elsewhere)
            if number == 0:
                check(done.returncode == 0 and b"second copy" in done.stderr, f"header byte {offset}: {done.stderr}")
                shutil.rmtree(w.root / f"s{offset}")
        refused(done, f"header byte {offset}")
        refusals.append(done.stderr.decode().lower())
        copies[0].write_bytes(content)
        copies[1].write_bytes(content)
    check(any("newer" in text or "version" in text for text in refusals), f"none speaks of the format's version: {set(refusals)}")
    w.up()


@test
def mounting_where_it_cannot(w, samples):
    refused(w.run("mount", w.root / "nowhere", ok=False), "no such directory")
    (w.root / "file").write_text("x")
    refused(w.run("mount", w.root / "file", ok=False), "a file")
    done = w.run("mount", w.mnt, ok=False)
    check(done.returncode != 0, "mounted twice")
    sh("cp", samples / "small.img", w.incoming("s"))
    refused(w.run("umount", w.root, ok=False), "umount of what is no mount of ours")


@test
def unknown_versions_and_bad_names(w, samples):
    sh("cp", samples / "small.img", w.incoming("s"))
    for args in (
        ["restore", "nope", w.root / "out"],
        ["show", "nope"],
        ["tag", "nope", "x"],
        ["tag", "s", "a/b"],
        ["expire", "s", "soon"],
        ["rm", "--force", "nope"],
        ["backup", w.root / "no-such-file", "x"],
        ["backup", samples / "small.img", "../x"],
        ["diff", "s", "nope"],
        ["restore", "s@1999-01-01", w.root / "out"],
    ):
        refused(w.run(*args, ok=False), args)
    check(not (w.root / "out").exists(), "nothing restored")
    equal(len(w.json("ls")), 1, "nothing made")


@test
def restore_overwrites_only_with_force(w, samples):
    sh("cp", samples / "disk.img", w.incoming("s"))
    out = w.root / "out"
    out.write_bytes(b"precious")
    refused(w.run("restore", "s", out, ok=False), "an existing file")
    equal(out.read_bytes(), b"precious", "untouched")
    w.run("restore", "--force", "s", out)
    same(samples / "disk.img", out)
    backing = w.root / "backing"
    with open(backing, "wb") as f:
        f.truncate(samples.joinpath("disk.img").stat().st_size)
    device = sh("losetup", "--find", "--show", backing).stdout.decode().strip()
    try:
        refused(w.run("restore", "s", device, ok=False), "a device")
        check(not any(backing.read_bytes()[: MIB]), "untouched")
        # Whatever the device held must not show through the backup's holes.
        sh("dd", "if=/dev/urandom", f"of={device}", "bs=1M", "count=48", ok=False)
        w.run("restore", "--force", "s", device)
        same(samples / "disk.img", device)
    finally:
        sh("losetup", "-d", device)
    with open(backing, "r+b") as f:
        f.truncate(MIB)
    device = sh("losetup", "--find", "--show", backing).stdout.decode().strip()
    try:
        refused(w.run("restore", "--force", "s", device, ok=False), "a device that is too small")
    finally:
        sh("losetup", "-d", device)
