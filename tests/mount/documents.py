"""What the documents tell their readers to do is done, in order, on a machine of its own, and ends as they say."""

import json
import re
import secrets
import shlex
import shutil

from lab import guest
from lab.bucket import Bucket
from lab.case import test
from lab.house import HOME, house
from lab.pages import TOP, Shell, read
from lab.shell import check, equal, needs, pattern, same
from lab.table import NAMES
from services import understood

# The test's machine has no boot loader: kernel and initramfs are given to it. All else is the reader's command.
QEMU = """#!/bin/sh
exec /usr/bin/qemu-system-x86_64 -kernel {kernel} -initrd {initramfs} -append "console=ttyS0 quiet panic=-1" -no-reboot "$@"
"""
CONFIG = 'target = "dir:/srv/backup"\nkey-file = "/etc/backyfs.key"\n'
HOWTO = "docs/howto.md"
# Documents that show commands to be run, and blocks of them that no test runs.
PAGES = ("README.md", "docs/tutorial.md", HOWTO, "docs/troubleshooting.md", "docs/mounting.md", "docs/targets.md", "docs/schedules.md", "docs/backy2.md")
LEFT_OUT_MAX = 9
# Headings of troubleshooting.md that are no messages.
CHAPTERS = ("", "What a message means, and what to do", "Setting up", "Mounting and unmounting", "Copying", "Backing up and restoring", "Deleting", "The state directory")


@test(mounted=False, seconds=300)
def tutorial(w, samples):
    needs(*guest.TOOLS)
    small = guest.Guest(guest.default_cache())
    with house(w) as h:
        small.make_root(w.root / "vm1.img")
        image = h.at("/home/me/vm1.img")
        shutil.copy(w.root / "vm1.img", image)
        for path in (small.kernel, small.initramfs):
            shutil.copy(path, h.at("/home/me"))
        qemu = h.at("/usr/local/bin/qemu-system-x86_64")
        qemu.write_text(QEMU.format(kernel=f"/home/me/{small.kernel.name}", initramfs=f"/home/me/{small.initramfs.name}"))
        qemu.chmod(0o755)
        shell = Shell(h)
        for title, section in read("docs/tutorial.md").items():
            shell.play("docs/tutorial.md", section.steps)
            if title == "Boot it":
                check("GUEST-DONE" in shell.said, f"it booted: {shell.said}")
        same(image, h.at("/home/me/restored.img"))
        check(not h.mounted("/backups"), "unmounted")


def settled(h, samples):
    """What the how-tos begin with: a disk, two nights of backups of it, a mount. Returns what `init` said."""
    disk = h.at("/var/lib/vm1")
    shutil.copy(samples / "disk.img", disk)
    h.device("/dev/vg0/vm1", "/var/lib/vm1")
    h.at("/etc/backyfs.toml").write_text(CONFIG)
    said = h.inside("backyfs", "init").stdout.decode()
    h.inside("backyfs", "backup", "/dev/vg0/vm1", "vm1", "--created", "2025-11-21T02:00:00Z", "--quiet")
    with open(h.at("/dev/vg0/vm1"), "r+b") as device:
        device.seek(20 << 20)
        device.write(pattern("the second day", 4096))
    h.inside("backyfs", "backup", "/dev/vg0/vm1", "vm1", "--created", "2025-11-22T02:00:00Z", "--quiet")
    h.inside("mkdir", "/backups")
    h.inside("backyfs", "mount", "/backups")
    return said


def play(h, title, stand_in=None):
    Shell(h, stand_in=stand_in).play(HOWTO, read(HOWTO)[title].steps)


def how_to(title):
    """Marks a test of the section of this title: it gets a machine as `settled` leaves it."""

    def mark(f):
        def run(w, samples):
            with house(w) as h:
                f(w, h, samples, settled(h, samples))
                if h.mounted("/backups"):
                    h.inside("backyfs", "umount", "/backups")

        run.__name__, run.__module__ = f.__name__, __name__
        TITLES.add(title)
        return test(mounted=False, seconds=180)(run)

    return mark


TITLES = {"On the new machine"}


@how_to("Restore at 3 a.m.")
def restore_at_night(w, h, samples, said):
    with open(h.at("/dev/vg0/vm1"), "r+b") as device:
        device.write(bytes(8 << 20))
    play(h, "Restore at 3 a.m.")
    same(samples / "disk.img", h.at("/dev/vg0/vm1"))
    equal(h.at("/home/me/hello").read_text(), "hello\n", "the file")


@how_to("Restore with nothing but the recovery key")
def restore_with_recovery_key(w, h, samples, said):
    wanted = h.at("/dev/vg0/vm1").read_bytes()
    h.inside("backyfs", "umount", "/backups")
    h.inside("rm", "-r", "/etc/backyfs.toml", "/etc/backyfs.key", "/var/lib/backyfs")
    with open(h.at("/dev/vg0/vm1"), "r+b") as device:
        device.write(bytes(8 << 20))
    key = re.search(r"([0-9A-Z]{5}-){7}[0-9A-Z]{5}", said)[0]
    play(h, "Restore with nothing but the recovery key", {"EC9HW-TY5NZ-S2K8H-HRY9E-0CBY2-009Q1-MQX39-QNX15": key})
    check(h.at("/dev/vg0/vm1").read_bytes() == wanted, "the disk")
    h.inside("backyfs", "ls")


@how_to("Move to a new machine")
def new_machine(w, h, samples, said):
    with open(h.at("/backups/by_name/vm1/latest/data"), "r+b") as data:
        data.write(b"tried")
    play(h, "Move to a new machine")
    with house(w, "new") as new:
        new.inside("mkdir", "-p", "/srv")
        shutil.copytree(h.at("/srv/backup"), new.at("/srv/backup"))
        for name in ("backyfs.toml", "backyfs.key"):
            shutil.copy2(h.at("/etc") / name, new.at("/etc") / name)
        play(new, "On the new machine")
        equal(new.at("/backups/by_name/vm1-tried/latest/original").open("rb").read(5), b"tried", "what was tried")
        same(h.at("/dev/vg0/vm1"), new.at("/backups/by_name/vm1/latest/original"))
        new.inside("backyfs", "umount", "/backups")


@how_to("Replace the disk of the backups")
def replace_disk(w, h, samples, said):
    h.inside("mkdir", "-p", "/mnt/new")
    play(h, "Replace the disk of the backups")
    h.inside("rm", "-r", "/srv/backup")
    same(h.at("/dev/vg0/vm1"), h.at("/backups/by_name/vm1/latest/original"))


@how_to("The disk of the backups is failing")
def failing_disk(w, h, samples, said):
    h.inside("backyfs", "umount", "/backups")
    lost = max(h.at("/srv/backup/packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    lost.unlink()
    play(h, "The disk of the backups is failing")


@how_to("Ransomware")
def ransomware(w, h, samples, said):
    h.at("/var/lib/clean").write_bytes(bytes(48 << 20))
    h.device("/dev/vg0/vm1-clean", "/var/lib/clean")
    wanted = h.at("/dev/vg0/vm1").read_bytes()
    with open(h.at("/dev/vg0/vm1"), "r+b") as device:
        device.write(pattern("ransom", 48 << 20))
    h.inside("backyfs", "backup", "/dev/vg0/vm1", "vm1", "--quiet")
    play(h, "Ransomware")
    check(h.at("/dev/vg0/vm1-clean").read_bytes() == wanted, "the clean disk")


@how_to("USB disks in rotation")
def usb_disks(w, h, samples, said):
    h.inside("mkdir", "-p", "/var/lib/libvirt/images")
    shutil.copy(samples / "small.img", h.at("/var/lib/libvirt/images/a.img"))
    for name in ("one", "two"):
        with open(h.at(f"/var/lib/{name}"), "wb") as disk:
            disk.truncate(100 << 20)
    for name in ("one", "two"):
        # One is unplugged before the other comes.
        loop = h.device("/dev/sdb1", f"/var/lib/{name}")
        h.at("/etc/fstab").write_text("")
        play(h, "USB disks in rotation")
        h.unplug(loop)
        # Nothing like udev is there to tell that a label went away, and it would be believed for two seconds.
        h.inside("rm", "-r", "/dev/sdb1", "/run/blkid")
    # The first one again: it has its own repository, with what was due for it.
    h.device("/dev/sdb1", "/var/lib/one")
    h.inside("mount", "/mnt/usb")
    rows = h.inside("backyfs", "--config", "/etc/backyfs-usb.toml", "ls").stdout.decode()
    check("vms/a.img" in rows and "daily" in rows, rows)
    h.inside("umount", "/mnt/usb")


def literals():
    """Every text of the program, with `…` for what it puts in."""
    found = []
    for path in [*TOP.glob("src/**/*.rs"), *TOP.glob("mount-helper/src/*.rs")]:
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text(), re.S):
            text = re.sub(r"\\\n\s*", "", text).replace('\\"', '"')
            found.append(re.sub(r"\{[^{}]*\}", "…", text))
    return found


# What a machine needs to be in before a message can be met.
FULL = 'target = "dir:/mnt/full/b"\nkey-file = "/etc/backyfs.key"\nstate-dir = "/var/lib/small"\ngc-free-percent = 0\n'


def spoil(h):
    """Changes bytes inside a block that the newest version needs."""
    pack = max(h.at("/srv/backup/packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    pack.chmod(0o600)
    with open(pack, "r+b") as f:
        f.seek(1_000_000)
        f.write(b"spoilt")


@test(mounted=False, seconds=300)
def troubleshooting(w, samples):
    name, texts = "docs/troubleshooting.md", literals()
    sections = read(name)
    for title, section in sections.items():
        shown = [line for step in section.steps for line in step.shown or []]
        pieces = ".*".join(re.escape(piece) for piece in title.split("…"))
        known = any(re.search(pieces, text) for text in [*texts, *shown])
        check(known or title in CHAPTERS, f"{name}: nothing says {title!r}")
    with house(w) as h:
        settled(h, samples)
        shutil.copy(samples / "small.img", h.at("/home/me/small.img"))
        h.at("/home/me/large.img").write_bytes(pattern("large", 24 << 20))
        for device, size in (("tiny", 1), ("used", 64)):
            with open(h.at(f"/var/lib/{device}"), "wb") as f:
                f.truncate(size << 20)
            h.device(f"/dev/vg0/{device}", f"/var/lib/{device}")
        h.inside("mkfs.ext4", "-q", "/dev/vg0/used")
        h.inside("mkdir", "-p", "/mnt/used", "/mnt/full", "/mnt/small")
        h.inside("mount", "-t", "tmpfs", "-o", "size=20M", "tmpfs", "/mnt/full")
        h.at("/home/me/full.toml").write_text(FULL)
        h.inside("backyfs", "--config", "/home/me/full.toml", "init")
        shell = Shell(h)
        for title, section in sections.items():
            if title == "Input/output error":
                spoil(h)
            shell.play(name, section.steps)
        h.inside("backyfs", "umount", "/backups")


@how_to("A bucket in S3")
def bucket(w, h, samples, said):
    h.inside("backyfs", "umount", "/backups")
    b = Bucket()
    below = f"mount/{secrets.token_hex(8)}"
    play(h, "A bucket in S3", {
        "s3://backups/vmhost1": f"s3://{b.name}/{below}",
        "https://s3.example.org": f"http://{b.host}:{b.port}",
        "AKIAEXAMPLE": b.access,
        "SECRETEXAMPLE": b.secret,
    })
    check(any("/packs/" in key for key in b.list(below)), "it is in the bucket")
    same(h.at("/dev/vg0/vm1"), h.at("/backups/by_name/vm1/latest/original"))


@test(mounted=False)
def little_is_left_out(w, samples):
    """Every section of the how-tos has a test, and what is not run is counted."""
    equal({title for title, section in read(HOWTO).items() if section.steps} - TITLES, set(), "how-tos without a test")
    left_out = [(name, reason) for name in PAGES for section in read(name).values() for reason in section.left_out]
    print("\n".join(f"{name}: not run: {reason}" for name, reason in left_out))
    check(len(left_out) <= LEFT_OUT_MAX, f"{len(left_out)} blocks are not run: {left_out}")


@test(mounted=False)
def readme(w, samples):
    with house(w) as h:
        h.inside("mkdir", "-p", "/backups", "/mnt/usb", "/var/lib/libvirt/images")
        image = h.at("/var/lib/libvirt/images/vm1.img")
        shutil.copy(samples / "disk.img", image)
        shutil.copy(samples / "disk.img", h.at("/var/lib/vm1"))
        h.device("/dev/vg0/vm1", "/var/lib/vm1")
        sections = read("README.md")
        # The other machine is this one.
        shell = Shell(h, stand_in={"ssh host": "bash -c"})
        shell.play("README.md", sections.pop("What it does").steps)
        check(h.mounted("/mnt") and h.at("/mnt/hello").read_text() == "hello\n", "what is in the disk")
        h.inside("umount", "/mnt")
        same(samples / "disk.img", image)
        h.inside("backyfs", "umount", "/backups")
        for section in sections.values():
            shell.play("README.md", section.steps)
        for path in ("/dev/vg0/vm1", f"{HOME}/vm1.img"):
            same(samples / "disk.img", h.at(path))
        h.inside("backyfs", "umount", "/backups")


@test(mounted=False)
def other_pages(w, samples):
    with house(w) as h:
        settled(h, samples)
        old = h.at("/mnt/backy2/by_version_uid/UID/data")
        old.parent.mkdir(parents=True)
        shutil.copy(samples / "small.img", old)
        # Helpers that the page links where they belong.
        helper = h.at("/usr/sbin/mount.backyfs").read_bytes()
        for name in NAMES:
            h.at(f"/usr/sbin/{name}").unlink()
        h.at("/usr/local/bin/backyfs-mount-helper").write_bytes(helper)
        h.at("/usr/local/bin/backyfs-mount-helper").chmod(0o755)
        for name in PAGES[4:]:
            shell = Shell(h)
            for section in read(name).values():
                shell.play(name, section.steps)
        h.inside("umount", "/backups")
        h.at("/etc/fstab").write_text(next(line for line in (TOP / "docs/mounting.md").read_text().splitlines() if line.startswith("none ")))
        h.inside("mount", "-a")
        check(h.mounted("/backups"), "mounted by the helpers that were linked")
        h.inside("umount", "/backups")
        # Files of settings and policies are understood.
        blocks = [(name, *found) for name in sorted(TOP.glob("docs/*.md")) for found in re.findall(r"^```(toml|json)\n(.*?)^```$", name.read_text(), re.M | re.S)]
        check(len(blocks) >= 6, blocks)
        for name, kind, text in blocks:
            if kind == "json":
                json.loads(text)
                continue
            h.at("/etc/shown.toml").write_text(text)
            h.inside("chmod", "600", "/etc/shown.toml")
            h.inside("backyfs", "--config", "/etc/shown.toml", "--target", "dir:/srv/backup", "--key-file", "/etc/backyfs.key", "ls")


@test(mounted=False)
def commands_in_running_text_are_known(w, samples):
    """What stands between the lines, where no shell runs it: the program knows the command, its options, and how many things it takes."""
    pages = [TOP / "README.md", *sorted(TOP.glob("docs/*.md"))]
    spans = {span for page in pages for span in re.findall(r"`(backyfs [^`]+)`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S))}
    # A text that is hashed, and no command.
    spans.remove("backyfs recovery key")
    check(len(spans) > 25, spans)
    for span in spans:
        words = shlex.split(span)[1:]
        # An option that is named without its value.
        understood(w, words + ["1s"] if words[-1] == "--timeout" else words)
    known = set(re.findall(r"--[a-z][a-z0-9-]+", (TOP / "tests/help.txt").read_text()))
    text = (TOP / "docs/commands.md").read_text()
    named = set(re.findall(r"--[a-z][a-z0-9-]+", text))
    equal(sorted(named - known), [], "options that docs/commands.md names and no command has")
    # Settings are named by their keys, those of buckets in docs/targets.md.
    text += (TOP / "docs/targets.md").read_text()
    unnamed = {flag for flag in known - named if f"`{flag[2:].removeprefix('s3-')}`" not in text}
    equal(sorted(unnamed - {"--version", "--verbose", "--options"}), [], "options that no document names")


@test(mounted=False)
def only_measured_figures_are_compared(w, samples):
    """Every figure of the comparison is one of the benchmark, and no other program has any."""
    rows = lambda name: [[cell.strip() for cell in line.strip("|").split("|")] for line in (TOP / name).read_text().splitlines() if line.startswith("|")]
    measured = {row[0]: row[1:4] for row in rows("docs/testing.md") if len(row) == 5}
    compared = [row for row in rows("docs/comparison.md") if len(row) == 4 and re.search(r"\d", row[1])]
    check(len(compared) >= 5, compared)
    for work, *figures in compared:
        equal(figures, measured.get(work), f"docs/comparison.md: {work}")
    others = (TOP / "docs/comparison.md").read_text().split("## What each is for")[1]
    equal(re.findall(r"\d+(?:\.\d+)? (?:s|MB/s|MB|GB|minutes|times)\b", others), [], "figures that nobody measured")
