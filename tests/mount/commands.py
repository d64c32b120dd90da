"""Commands on the repository itself, with and without a mount beside them."""

import json
import os
import time

from lab.case import test
from lab.shell import MIB, check, digest, equal, pattern, same, script, sh
from lab.world import World


@test(mounted=False)
def backup_and_restore_without_a_mount(w, samples):
    w.run("init")
    disk, out = samples / "disk.img", w.root / "out"
    uid = w.run("backup", disk, "vm", "--tag", "a,b", "--expire", "2031-01-02", "--snapshot", "s1").stdout.decode().split()[-1]
    row = w.json("ls")[0]
    equal((row["uid"], row["name"], row["size_bytes"], row["valid"], row["tags"], row["snapshot_name"], row["protected"]), (uid, "vm", disk.stat().st_size, "valid", ["a", "b"], "s1", False), "ls")
    check(row["expire"].startswith("2031-01-02"), row)
    for version in (uid, uid[:20], "vm", f"vm@{row['created'][:10]}"):
        w.run("restore", version, out)
        same(disk, out)
        check(out.stat().st_blocks <= disk.stat().st_blocks + 4096, "sparse by default")
        out.unlink()
    equal(script('"$1" restore vm - | cmp - "$2"', w.binary, disk, env=w.env).returncode, 0, "to standard output")
    w.run("restore", "--sparse=no", "vm", out)
    check(out.stat().st_blocks * 512 >= disk.stat().st_size, "every block of it")
    with w.adds(128 * 1024):
        w.run("backup", disk, "vm")
    w.up()
    same(disk, w.original("vm"))


@test
def backup_of_a_block_device(w, samples):
    copy = w.root / "copy"
    sh("cp", samples / "disk.img", copy)
    device = sh("losetup", "--find", "--show", copy).stdout.decode().strip()
    try:
        w.run("backup", device, "dev")
    finally:
        sh("losetup", "-d", device)
    same(copy, w.original("dev"))


@test
def continued_restore(w, samples):
    disk, out = samples / "disk.img", w.root / "out"
    w.run("backup", disk, "vm")
    w.run("restore", "vm", out)
    for left in (w.root / "out.backyfs-part", out):
        out.rename(left) if left != out else None
        with open(left, "r+b") as f:
            f.seek(20 * MIB)
            f.write(b"y" * MIB)
        os.truncate(left, 40 * MIB)
        if left == out:
            w.run("restore", "--continue", "--force", "vm", out)
        else:
            check(w.run("restore", "vm", out, ok=False).returncode != 0, "an unfinished restore is not started over unasked")
            w.run("restore", "--continue", "vm", out)
        same(disk, out)


@test
def diff_shows_what_changed(w, samples):
    copy = w.root / "copy"
    sh("cp", samples / "disk.img", copy)
    first = w.run("backup", copy, "vm").stdout.decode().split()[-1]
    equal(w.json("diff", first, "vm")["changed_bytes"], 0, "nothing")
    with open(copy, "r+b") as f:
        f.seek(10 * MIB)
        f.write(pattern("x", 4096))
    time.sleep(1.1)
    w.run("backup", copy, "vm")
    found = w.json("diff", first, "vm")
    check(4096 <= found["changed_bytes"] <= MIB, found)
    check(any(r["offset"] <= 10 * MIB < r["offset"] + r["length"] for r in found["ranges"]), found)


@test
def show_du_and_status(w, samples):
    w.run("backup", samples / "disk.img", "h/vm")
    w.run("backup", samples / "small.img", "h/small")
    equal(w.json("show", "h/vm")["name"], "h/vm", "show")
    rows = w.json("du")["rows"]
    equal(sorted(r["name"] for r in rows), ["h/small", "h/vm"], "du")
    check(all(r["stored_bytes"] > 0 for r in rows), rows)
    status = w.json("status")
    check(str(w.mnt) in status["mounts"], status["mounts"])
    equal([r["name"] for r in w.json("ls", "h/vm")], ["h/vm"], "ls NAME")
    equal(len(w.json("ls", "h")), 2, "ls DIRECTORY")
    for verb in (["ls"], ["show", "h/vm"], ["du"], ["status"], ["diff", "h/vm", "h/small"]):
        check(w.run(*verb).stdout.strip(), f"{verb} prints")


@test
def tags_and_filters(w, samples):
    for i, name in enumerate(("a", "b", "c")):
        (w.root / name).write_bytes(b"%d" % i * 1000)
        w.run("backup", w.root / name, name)
    w.run("tag", "a", "gold", "old")
    w.run("tag", "b", "gold")
    names = lambda *options: [r["name"] for r in w.json("ls", *options)]
    equal(names("--tag", "gold"), ["a", "b"], "by tag")
    equal(sorted(os.listdir(w.mnt / "by_tag" / "gold")), ["a", "b"], "the mount sees it")
    w.run("untag", "a", "gold")
    equal(names("--tag", "gold"), ["b"], "untag")
    w.run("expire", "c", "2001-01-01")
    equal(names("--expired"), ["c"], "expired")
    w.run("expire", "c", "never")
    equal(names("--expired"), [], "never")
    w.run("protect", "a", "b")
    equal([r["protected"] for r in w.json("ls")], [True, True, False], "protect")


@test
def export_and_import(w, samples):
    uid = w.run("backup", samples / "disk.img", "vm").stdout.decode().split()[-1]
    w.run("tag", uid, "gold")
    file = w.root / "vm.json"
    w.run("export", uid, file)
    json.loads(file.read_text())
    equal(json.loads(w.run("export", uid).stdout), json.loads(file.read_text()), "to standard output")
    w.run("rm", "--force", uid)
    equal(w.json("ls"), [], "gone")
    w.run("import", file)
    rows = w.json("ls")
    equal([(r["name"], r["tags"]) for r in rows], [("vm", ["gold"])], "back, with its tags")
    same(samples / "disk.img", w.original("vm"))


@test
def settings_from_everywhere(w, samples):
    w.down()
    config = w.root / "backyfs.toml"
    config.write_text(f'target = "dir:{w.repo}"\nstate-dir = "{w.state}"\nkey-file = "{w.key}"\n')
    bare = {k: v for k, v in w.env.items() if not k.startswith("BACKYFS_")}
    sh(w.binary, "backup", "--config", config, samples / "small.img", "a", env=bare)
    flags = [f"--target=dir:{w.repo}", f"--state-dir={w.state}", f"--key-file={w.key}"]
    rows = json.loads(sh(w.binary, "ls", "--json", *flags, env=bare).stdout)
    equal([r["name"] for r in rows], ["a"], "flags")
    rows = json.loads(sh(w.binary, "ls", "--json", env={**bare, "BACKYFS_CONFIG": str(config)}).stdout)
    equal([r["name"] for r in rows], ["a"], "BACKYFS_CONFIG")
    options = f"target=dir:{w.repo},state-dir={w.state},key-file={w.key},memory=128M"
    sh(w.binary, "mount", w.mnt, "-o", options, env=bare)
    try:
        same(samples / "small.img", w.original("a"))
    finally:
        sh(w.binary, "umount", w.mnt, env=bare)
    done = sh(w.binary, "ls", "--memory", "lots", *flags, env=bare, ok=False)
    check(done.returncode != 0 and b"memory" in done.stderr, done.stderr)
    config.write_text('no-such-key = 1\n')
    done = sh(w.binary, "ls", "--config", config, env=bare, ok=False)
    check(done.returncode != 0 and b"no-such-key" in done.stderr, done.stderr)


@test(mounted=False)
def passphrase_file(w, samples):
    phrase = w.root / "phrase"
    phrase.write_text("correct horse battery staple\n")
    phrase.chmod(0o600)
    del w.env["BACKYFS_KEY_FILE"]
    w.env["BACKYFS_PASSPHRASE_FILE"] = str(phrase)
    w.start()
    sh("cp", samples / "small.img", w.incoming("a"))
    same(samples / "small.img", w.original("a"))
    phrase.write_text("wrong\n")
    check(w.run("ls", ok=False, env={"BACKYFS_STATE_DIR": str(w.root / "s2")}).returncode != 0, "a wrong passphrase")
    phrase.write_text("correct horse battery staple\n")


@test(mounted=False)
def the_recovery_key_opens_it(w, samples):
    said = w.run("init").stdout.decode() + w.run("ls").stderr.decode()
    words = [word for line in said.splitlines() for word in line.split() if word.count("-") >= 4]
    check(words, f"init shows a recovery key: {said!r}")
    w.run("backup", samples / "small.img", "a")
    recovery = w.root / "recovery"
    recovery.write_text(words[0] + "\n")
    recovery.chmod(0o600)
    env = {"BACKYFS_PASSPHRASE_FILE": str(recovery), "BACKYFS_STATE_DIR": str(w.root / "s2")}
    w.key.unlink()
    del w.env["BACKYFS_KEY_FILE"]
    w.run("restore", "a", w.root / "out", env=env)
    equal(digest(w.root / "out"), digest(samples / "small.img"), "restored with nothing else")


@test
def two_mounts_of_one_repository(w, samples):
    other = World(w.binary, w.root, "other", repo=w.repo)
    other.key.write_bytes(w.key.read_bytes())
    other.key.chmod(0o600)
    other.up()
    sh("cp", samples / "disk.img", w.incoming("a"))
    sh("cp", samples / "small.img", other.incoming("b"))
    w.remount(), other.remount()
    for each in (w, other):
        same(samples / "disk.img", each.original("a"))
        same(samples / "small.img", each.original("b"))
    other.down()


@test
def help_of_everything(w, samples):
    text = w.run("--help").stdout.decode()
    for verb in ("init", "mount", "umount", "status", "backup", "restore", "ls", "show", "diff", "du", "tag", "untag", "expire", "protect", "unprotect", "rm", "export", "import", "rebuild"):
        check(verb in text, verb)
        check(w.run(verb, "--help").stdout, verb)
