"""Without root: a user mounts through fusermount3, copies, restores and unmounts."""

import os
import shutil

from lab.case import test
from lab.shell import Failed, sh

# In a mount namespace of its own, /dev/fuse is open to everyone, as udev makes it; not every machine has udev.
AS_OTHERS_SEE_IT = 'mknod -m 666 "$1/fuse" c 10 229 && mount --bind "$1/fuse" /dev/fuse && shift && exec "$@"'
USER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
LIFE = """
set -ex
cd "$HOME"
./backyfs init > /dev/null
./backyfs mount "$HOME/mnt"
trap './backyfs umount "$HOME/mnt" 2> /dev/null || true' EXIT
grep -q " $HOME/mnt .* fuse.backyfs " /proc/self/mountinfo
cp disk.img mnt/incoming/d
cmp disk.img mnt/by_name/d/latest/original
echo t > mnt/by_name/d/latest/tags
grep -qx t mnt/by_name/d/latest/tags
[ "$(stat -c %U mnt/incoming/d)" = nobody ]
dd if=/dev/urandom of=mnt/incoming/d bs=1M 2> /dev/null & writer=$!
sleep 0.7; kill -9 $writer; wait $writer || true; sleep 0.7
cmp disk.img mnt/by_name/d/latest/original
printf x | dd of=mnt/by_name/d/latest/data conv=notrunc,fsync 2> /dev/null
! cmp -s disk.img mnt/by_name/d/latest/data
./backyfs umount "$HOME/mnt"
! grep -q " $HOME/mnt " /proc/self/mountinfo
./backyfs mount "$HOME/mnt"
cmp disk.img mnt/by_name/d/latest/original
kill -9 "$(pgrep -u nobody -f "^./backyfs mount $HOME/mnt|backyfs .*$HOME/mnt" | head -n 1)"; sleep 0.5
./backyfs mount "$HOME/mnt"
cmp disk.img mnt/by_name/d/latest/original
"""


@test(mounted=False)
def a_user_of_their_own(w, samples):
    if not shutil.which("fusermount3") or not os.stat(shutil.which("fusermount3")).st_mode & 0o4000:
        raise Failed("no setuid fusermount3: install fuse3")
    home = w.root / "home"
    (home / "mnt").mkdir(parents=True)
    shutil.copy(w.binary, home / "backyfs")
    shutil.copy(samples / "disk.img", home / "disk.img")
    sh("chown", "-R", "nobody:nogroup", home)
    for above in w.root.parents:
        if above.stat().st_mode & 0o001 == 0:
            raise Failed(f"{above} is closed to others: give --work a directory that is not")
    settings = (f"HOME={home}", f"BACKYFS_TARGET=dir:{home}/repo", f"BACKYFS_STATE_DIR={home}/state", f"BACKYFS_KEY_FILE={home}/key")
    sh("unshare", "--mount", "bash", "-c", AS_OTHERS_SEE_IT, "bash", w.root, *USER, *settings, "bash", "-c", LIFE)


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
