"""The three programs that are compared, each with the same five verbs: fresh, back up, restore, stored bytes, done."""

import os
import shutil
import subprocess
import time
from pathlib import Path

BORG = ("--chunker-params", "fixed,4194304", "--compression", "zstd,1", "--files-cache", "disabled")


def tree_bytes(top):
    """Bytes of all files below a directory."""
    return sum(p.stat().st_size for p in Path(top).rglob("*") if p.is_file())


class Contestant:
    """One program with a repository in its own directory."""

    name = ""

    def __init__(self, room):
        self.room = Path(room) / self.name
        shutil.rmtree(self.room, ignore_errors=True)
        self.room.mkdir(parents=True)
        self.repository = self.room / "repository"
        self.env = {**os.environ, "HOME": str(self.room)}
        # rclone refuses to start with it, and nobody here needs it.
        self.env.pop("AWS_CA_BUNDLE", None)

    def run(self, *argv, **kw):
        """Runs a command in the contestant's own environment; what it prints on stderr is shown when it fails."""
        done = subprocess.run([str(a) for a in argv], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
        if done.returncode != 0:
            raise SystemExit(f"{argv}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}")
        return done

    def timed(self, *argv, **kw):
        """Seconds that a command takes, everything before it written out."""
        os.sync()
        start = time.monotonic()
        self.run(*argv, **kw)
        return time.monotonic() - start

    def timed_call(self, call):
        """Seconds that a function takes."""
        start = time.monotonic()
        call()
        return time.monotonic() - start

    def stored(self):
        """Bytes the repository takes."""
        return tree_bytes(self.repository)

    def prepare_restore(self):
        """Forgets what a long-running process would remember of the backup just made."""

    def done(self):
        """Ends what was started and removes the repository."""
        shutil.rmtree(self.room, ignore_errors=True)


class Borg(Contestant):
    """BorgBackup, fixed chunks of 4 MiB, zstd level 1, encrypted."""

    name = "borg"

    def __init__(self, room):
        super().__init__(room)
        self.env |= {"BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(self.room), "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        self.run("borg", "init", "--encryption=repokey", self.repository)
        self.archives = 0

    def back_up(self, image):
        """Seconds for one backup."""
        self.archives += 1
        # The archive names a path relative to the image's directory, so that extract writes one file.
        where = f"{self.repository}::{self.archives}"
        return self.timed("borg", "create", *BORG, where, image.name, cwd=image.parent)

    def restore(self, image, to):
        """Seconds to restore the newest backup of `image` to the file `to`."""
        out = self.room / "out"
        out.mkdir()
        seconds = self.timed("borg", "extract", f"{self.repository}::{self.archives}", cwd=out)
        (out / image.name).rename(to)
        out.rmdir()
        return seconds


class Restic(Contestant):
    """restic with its defaults."""

    name = "restic"

    def __init__(self, room):
        super().__init__(room)
        self.env |= self.settings()
        self.prepare()

    def settings(self):
        """Variables that say where it works."""
        return {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(self.repository), "RESTIC_CACHE_DIR": str(self.room / "cache")}

    def prepare(self):
        """Makes the repository."""
        self.run("restic", "init")

    def back_up(self, image):
        """Seconds for one backup."""
        return self.timed("restic", "backup", "--quiet", "--force", image.name, cwd=image.parent)

    def restore(self, image, to):
        """Seconds to restore the newest backup of `image` to the file `to`."""
        out = self.room / "out"
        seconds = self.timed("restic", "restore", "--quiet", "latest", "--target", out)
        next(p for p in out.rglob(image.name) if p.is_file()).rename(to)
        shutil.rmtree(out)
        return seconds


class Backyfs(Contestant):
    """backyfs with its defaults: cp into the mount and out of it."""

    name = "backyfs"

    def __init__(self, room, binary="target/release/backyfs"):
        super().__init__(room)
        self.binary, self.mount = Path(binary).resolve(), self.room / "mnt"
        self.mount.mkdir()
        self.env |= self.settings()
        self.peak_rss_bytes = 0
        self.run(self.binary, "init")
        self.up()

    def settings(self):
        """Variables that say where it works."""
        return {
            "BACKYFS_TARGET": f"dir:{self.repository}",
            "BACKYFS_STATE_DIR": str(self.room / "state"),
            "BACKYFS_KEY_FILE": str(self.room / "key"),
        }

    def up(self):
        """Mounts."""
        self.run(self.binary, "mount", self.mount)

    def down(self):
        """Notes the daemon's peak memory and unmounts."""
        if os.path.ismount(self.mount):
            self.note_memory()
            self.run(self.binary, "umount", self.mount)

    def daemon(self):
        """The process that serves the mount."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    # comm never blocks, cmdline of a process that hangs in some dead mount does.
                    if (process / "comm").read_bytes() != b"backyfs\n":
                        continue
                    argv = (process / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if os.path.basename(argv[0]) == b"backyfs" and str(self.mount).encode() in argv:
                    return int(process.name)
        raise SystemExit(f"no daemon serves {self.mount}")

    def note_memory(self):
        """Keeps the largest resident set the daemon ever had (VmHWM of proc(5))."""
        status = Path(f"/proc/{self.daemon()}/status").read_text()
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        self.peak_rss_bytes = max(self.peak_rss_bytes, kib * 1024)

    def back_up(self, image, name="disk"):
        """Seconds for one backup."""
        return self.timed("cp", image, self.mount / "incoming" / name)

    def latest(self, name="disk"):
        """The newest version's directory."""
        return self.mount / "by_name" / name / "latest"

    def restore(self, image, to):
        """Seconds to restore the newest version to the file `to`."""
        return self.timed("cp", self.latest() / "original", to)

    def prepare_restore(self):
        self.down()
        self.up()

    def done(self):
        self.down()
        super().done()
