"""Without root: a user mounts through fusermount3, copies, restores and unmounts."""

import os
import shutil

from lab.case import test
from lab.shell import Failed, check, equal, needs, sh
from lab.world import mounts_below

USER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")


@test(mounted=False)
def a_user_of_their_own(w, samples):
    needs("fusermount3")
    check(os.stat(shutil.which("fusermount3")).st_mode & 0o4000, "fusermount3 is setuid")
    home = w.root / "home"
    home.mkdir()
    (home / "mnt").mkdir()
    binary = home / "backyfs"
    shutil.copy(w.binary, binary)
    shutil.copy(samples / "disk.img", home / "disk.img")
    sh("chown", "-R", "nobody:nogroup", home)
    for above in (w.root, *w.root.parents):
        if above.stat().st_mode & 0o001 == 0:
            if above.owner() != "root" or not str(above).startswith(str(w.root.parent.parent)):
                raise Failed(f"{above} is closed to others: name another place with --work")
            above.chmod(above.stat().st_mode | 0o011)
    user = lambda *argv, **kw: sh(*USER, f"HOME={home}", f"BACKYFS_TARGET=dir:{home}/repo", f"BACKYFS_STATE_DIR={home}/state", f"BACKYFS_KEY_FILE={home}/key", *argv, cwd=home, **kw)
    user(binary, "init")
    user(binary, "mount", home / "mnt")
    try:
        user("cp", home / "disk.img", home / "mnt/incoming/d")
        user("cmp", home / "disk.img", home / "mnt/by_name/d/latest/original")
        user("bash", "-c", 'echo t > "$1" && grep -qx t "$1"', "bash", home / "mnt/by_name/d/latest/tags")
        equal(user("stat", "-c", "%U", home / "mnt/incoming/d").stdout, b"nobody\n", "owner")
        killed = user("bash", "-c", 'dd if=/dev/urandom of="$1" bs=1M 2>/dev/null & sleep 0.5; kill -9 $!; wait; sleep 0.5; cmp "$2" "$3"', "bash", home / "mnt/incoming/d", home / "disk.img", home / "mnt/by_name/d/latest/original", ok=False)
        equal(killed.returncode, 0, "a killed writer publishes nothing")
    finally:
        user(binary, "umount", home / "mnt", ok=False)
    check(not mounts_below(home / "mnt"), "unmounted")
    user(binary, "mount", home / "mnt")
    user("cmp", home / "disk.img", home / "mnt/by_name/d/latest/original")
    user(binary, "umount", home / "mnt")


@test(mounted=False)
def without_any_settings(w, samples):
    home = w.root / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("BACKYFS_", "XDG_"))} | {"HOME": str(home), "BACKYFS_STATE_DIR": str(home / "state")}
    sh(w.binary, "mount", w.mnt, env=env)
    try:
        sh("cp", samples / "small.img", w.incoming("s"))
        sh("cmp", samples / "small.img", w.original("s"))
    finally:
        sh(w.binary, "umount", w.mnt, env=env)
    sh(w.binary, "mount", w.mnt, env=env)
    sh("cmp", samples / "small.img", w.original("s"))
    sh(w.binary, "umount", w.mnt, env=env)
