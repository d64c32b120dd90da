"""The units of contrib/ under a real systemd: what they promise holds with everything they forbid themselves. The lines of fstab that become
units, and the rule of udev."""

import functools
import json
import os
import re
import secrets
import shutil
import time

from lab.booted import CONTRIB, booted, hindrance
from lab.bucket import Bucket
from lab.case import test
from lab.shell import MIB, check, equal, eventually, pattern, sh

MOUNT = "backyfs-mount@backups.service"
VERBS = ("backup", "prune", "scrub", "gc")
WRONG_KEY = "backyfs: wrong key file: it does not open this repository"
CONFIG = """target = "dir:/srv/repo"
key-file = "/etc/backyfs.key"
protect-younger = "0"
allow-other = true
[sources.images]
kind = "file"
path = "/srv/images"
[names."images/*"]
schedules = ["daily"]
"""
# A copy by another user, from a pipe, that is killed when something of it has arrived.
KILLED = """
mkfifo /tmp/pipe
chmod 666 /tmp/pipe
chmod 666 /backups/incoming/vm
setpriv --reuid=nobody --regid=nogroup --clear-groups -- cp /tmp/pipe /backups/incoming/vm & copy=$!
exec 3<> /tmp/pipe
yes partial | head -c 3000000 >&3
until head -c 7 /backups/incoming/vm | grep -q partial; do kill -0 $copy || exit; sleep 0.05; done
kill -9 $copy
wait $copy
"""
# What a service may try, and is told in the journal when it succeeds.
TRIES = """
for act in ': > /usr/tried' ': > /etc/tried' ': > /etc/lvm/tried' 'test -w /sys/kernel' 'test -w /sys/fs/cgroup' 'test -e /dev/fuse' 'unshare --uts true' 'chroot / true'; do
    ! sh -c "$act" 2> /dev/null || echo "could $act"
done
"""


def where_possible(run):
    """A test that is passed, and says why, where no machine can be booted."""

    @functools.wraps(run)
    def tried(w, samples):
        why = hindrance(w)
        if why:
            print(f"not run: {why}")
        else:
            run(w, samples)

    return test(mounted=False)(tried)


def configure(m, samples):
    """A configuration with a source. Its repository is made when the machine runs."""
    m.write("/etc/backyfs.toml", CONFIG)
    m.at("/srv/images").mkdir(parents=True)
    shutil.copy(samples / "small.img", m.at("/srv/images/a.img"))


def names(m):
    """Names of all versions, without any mount."""
    return sorted(row["name"] for row in json.loads(m.inside("backyfs", "ls", "--json").stdout))


def arrives(m, at, name):
    """A copy is a version when cp(1) returns."""
    m.inside("cp", "/srv/images/a.img", f"{at}/incoming/{name}")
    m.inside("cmp", "/srv/images/a.img", f"{at}/by_name/{name}/latest/original")


def stays(m, path, content):
    """Somebody writes and does not go. It is a child of the first process: nsenter(1) would stop with it when the machine is turned off, and
    nobody would bury it."""
    m.at("/srv/content").write_bytes(content)
    write = 'open F, "<", "/srv/content"; local $/; $_ = <F>; open F, ">", $ARGV[0]; syswrite F, $_; sleep 1000'
    m.inside("sh", "-c", f"perl -e '{write}' {path} > /dev/null 2>&1 &")
    eventually("it is written", lambda: m.inside("stat", "-c", "%s", path, ok=False).stdout.decode().strip() == str(len(content)))


@where_possible
def optional_a_mount_is_a_service(w, samples):
    with booted(w) as m:
        configure(m, samples)
        equal(m.boot(), "running", "booted")
        m.inside("backyfs", "init")
        m.systemctl("enable", "--now", MOUNT)
        equal(m.mounted("/backups")[0], "fuse.backyfs", "active means mounted")
        equal(m.show(MOUNT, "ActiveState", "StatusText"), ["active", "dir:/srv/repo is mounted at /backups"], "what systemd was told")
        status = m.at(f"/proc/{m.show(MOUNT, 'MainPID')}/status").read_text()
        bounds = int(re.search(r"CapBnd:\s+(\w+)", status)[1], 16).bit_count()
        given = next(line for line in (CONTRIB / "systemd/backyfs-mount@.service").read_text().splitlines() if line.startswith("CapabilityBoundingSet="))
        # A machine in a container may have less to give.
        check(0 < bounds <= len(given.split()), f"capabilities: {status}")
        check(re.search(r"NoNewPrivs:\s+1\n", status) and re.search(r"Seccomp:\s+2\n", status), status)
        arrives(m, "/backups", "vm")
        # How a writer of another user ended is seen with what the unit may do.
        m.inside("bash", "-c", KILLED, ok=False, timeout=60)
        eventually("how the writer ended is seen", lambda: "was killed by SIGKILL" in m.at("/backups/status/drafts").read_text())
        m.systemctl("stop", MOUNT)
        equal((m.mounted("/backups"), m.show(MOUNT, "ActiveState", "Result")), (None, ["inactive", "success"]), "stopped")
        equal(names(m), ["vm"], "what was killed is no version of it")
        # As the kernel does when memory is short: systemd mounts again, over what was left.
        m.systemctl("start", MOUNT)
        m.inside("kill", "-9", m.show(MOUNT, "MainPID"))
        eventually("it is mounted again", lambda: m.show(MOUNT, "ActiveState", "NRestarts") == ["active", "1"], 60)
        m.inside("cmp", "/srv/images/a.img", "/backups/by_name/vm/latest/original")
        # Somebody who does not let go: what was written is durable, and nothing is left.
        content = pattern("open", 2 * MIB)
        stays(m, "/backups/incoming/open", content)
        m.systemctl("stop", MOUNT)
        equal((m.mounted("/backups"), m.show(MOUNT, "ActiveState", "MainPID")), (None, ["inactive", "0"]), "stopped in use")
        check("/backups is in use by perl[" in m.journal(MOUNT), "it says by whom")
        m.systemctl("start", MOUNT)
        equal(m.at("/backups/incoming/open").read_bytes(), content, "what was written")
        # Enabled, it comes with the machine; and goes with it, whoever uses it.
        m.power_off()
        equal(m.boot(), "running", "booted once more")
        equal((m.mounted("/backups")[0], m.at("/backups/incoming/open").read_bytes()), ("fuse.backyfs", content), "it is back")


@where_possible
def optional_a_mount_that_is_refused_says_why(w, samples):
    with booted(w) as m:
        configure(m, samples)
        equal(m.boot(), "running", "booted")
        m.inside("backyfs", "init")
        m.inside("sh", "-c", "head -c 32 /dev/urandom > /etc/backyfs.key")
        check(m.systemctl("start", MOUNT, ok=False).returncode != 0, "who starts it is told")
        equal(m.show(MOUNT, "ActiveState", "ExecMainStatus", "NRestarts"), ["failed", "1", "0"], "it is not tried again and again")
        check(WRONG_KEY in m.systemctl("status", MOUNT, ok=False).stdout.decode(), m.journal(MOUNT))
        check(m.systemctl("start", "backyfs-scrub.service", ok=False).returncode != 0 and WRONG_KEY in m.journal("backyfs-scrub.service"), "so do the others")
        check(m.systemctl("start", "backyfs-mount@no-such.service", ok=False).returncode != 0, "there is no such directory")
        check("backyfs: /no/such " in m.journal("backyfs-mount@no-such.service"), m.journal("backyfs-mount@no-such.service"))


@where_possible
def optional_a_target_that_is_away_is_waited_for(w, samples):
    with booted(w) as m:
        configure(m, samples)
        equal(m.boot(), "running", "booted")
        m.inside("backyfs", "init")
        m.inside("mv", "/srv/repo", "/srv/away")
        check(m.systemctl("start", MOUNT, ok=False).returncode != 0, "who starts it is told")
        equal(m.show(MOUNT, "ActiveState", "ExecMainStatus"), ["activating", "6"], "it will be tried again")
        m.inside("mv", "/srv/away", "/srv/repo")
        eventually("it is mounted", lambda: m.show(MOUNT, "ActiveState") == "active", 30)


@where_possible
def optional_timers_make_up_for_what_was_missed(w, samples):
    with booted(w) as m:
        configure(m, samples)
        m.write("/srv/tries", TRIES)
        m.at("/etc/lvm").mkdir(exist_ok=True)
        equal(m.boot(), "running", "booted")
        m.inside("backyfs", "init")
        shutil.copy(samples / "disk.img", m.at("/srv/disk.img"))
        m.inside("backyfs", "backup", "/srv/disk.img", "old", "--tag", "x", "--expire", "2020-01-01")
        m.systemctl("enable", *(f"backyfs-{verb}.timer" for verb in VERBS))
        m.power_off()
        # Two weeks later. They do not all start at once elsewhere.
        for verb in VERBS:
            m.write(f"/etc/systemd/system/backyfs-{verb}.timer.d/test.conf", "[Timer]\nRandomizedDelaySec=0\n")
            m.write(f"/etc/systemd/system/backyfs-{verb}.service.d/test.conf", "[Service]\nExecStartPre=/bin/sh /srv/tries\n")
            m.write(f"/var/lib/systemd/timers/stamp-backyfs-{verb}.timer", "")
            os.utime(m.at(f"/var/lib/systemd/timers/stamp-backyfs-{verb}.timer"), (time.time() - 15 * 86400,) * 2)
        equal(m.boot(), "running", "booted once more")
        for verb in VERBS:
            equal(m.finished(f"backyfs-{verb}.service"), ("success", "0"), verb)
            could = re.findall(r"^could (.*)$", m.journal(f"backyfs-{verb}.service"), re.M)
            equal(could, [": > /etc/lvm/tried", "test -e /dev/fuse"] if verb == "backup" else [], f"what a {verb} may do besides")
        rows = {row.split()[-1]: row for row in m.systemctl("list-timers", "--no-legend", "--no-pager").splitlines()}
        check(all(f"backyfs-{verb}.timer" in rows.get(f"backyfs-{verb}.service", "") and " left " in rows[f"backyfs-{verb}.service"] for verb in VERBS), f"when they come next: {rows}")
        equal(names(m), ["images/a.img"], "what was due is backed up, what has expired is gone")
        check(json.loads(m.inside("backyfs", "status", "--json").stdout)["scrubbed"], "a scrub is recorded")
        m.systemctl("start", "backyfs-gc.service")
        packs = [path for path in m.at("/srv/repo").rglob("packs/**/*") if path.is_file()]
        check(sum(path.stat().st_size for path in packs) < 4 * MIB, f"its space is given back: {packs}")
        # Stopped, it goes on where it was the next time, which is no failure.
        m.at("/srv/images/b.img").write_bytes(pattern("b", 96 * MIB))
        slow = "/etc/systemd/system/backyfs-backup.service.d/slow.conf"
        m.write(slow, "[Service]\nEnvironment=BACKYFS_UPLOAD_LIMIT=8M\n")
        m.systemctl("daemon-reload")
        m.systemctl("start", "--no-block", "backyfs-backup.service")
        eventually("it is at work", lambda: json.loads(m.inside("backyfs", "status", "--json").stdout)["jobs"], 20)
        m.systemctl("stop", "backyfs-backup.service")
        equal((m.finished("backyfs-backup.service"), names(m)), (("success", "130"), ["images/a.img"]), "interrupted")
        m.at(slow).unlink()
        m.systemctl("daemon-reload")
        m.systemctl("start", "backyfs-backup.service")
        equal(names(m), ["images/a.img", "images/b.img"], "done")
        # Damage is a failed unit, and somebody is told.
        for path in m.at("/srv/repo").rglob("packs/**/*"):
            if path.is_file():
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 1
                path.write_bytes(content)
        m.write("/etc/systemd/system/tell.service", "[Service]\nType=oneshot\nExecStart=/bin/touch /srv/told\n")
        m.write("/etc/systemd/system/backyfs-scrub.service.d/tell.conf", "[Unit]\nOnFailure=tell.service\n")
        m.systemctl("daemon-reload")
        m.systemctl("start", "backyfs-scrub.service", ok=False)
        equal(m.finished("backyfs-scrub.service"), ("exit-code", "20"), "damage")
        eventually("somebody is told", m.at("/srv/told").exists)


@where_possible
def optional_lines_of_fstab_become_units(w, samples):
    with booted(w) as m:
        configure(m, samples)
        m.write("/etc/wrong.toml", CONFIG.replace("backyfs.key", "wrong.key"))
        m.inside_off("backyfs", "init")
        m.write("/etc/wrong.key", os.urandom(16).hex() + "\n", 0o600)
        for name in ("plain", "wrong"):
            m.at(f"/{name}").mkdir()
        m.write("/etc/fstab", """dir:/srv/repo /backups backyfs config=/etc/backyfs.toml,_netdev,nofail,x-systemd.automount,x-systemd.mount-timeout=15min 0 0
none /plain backyfs config=/etc/backyfs.toml,x-systemd.requires-mounts-for=/srv 0 0
none /wrong backyfs config=/etc/wrong.toml,nofail 0 0
""")
        equal(m.boot(), "degraded", "one of them fails")
        equal(m.systemctl("list-units", "--failed", "--plain", "--no-legend", "--no-pager").split()[0], "wrong.mount", "and no other")
        check(WRONG_KEY in m.journal("wrong.mount") and WRONG_KEY in m.systemctl("status", "wrong.mount", ok=False).stdout.decode(), m.journal("wrong.mount"))
        equal(m.show("plain.mount", "ActiveState", "SourcePath"), ["active", "/etc/fstab"], "mounted when the machine is up")
        arrives(m, "/plain", "vm")
        for _ in range(2):
            equal(m.show("backups.automount", "ActiveState") + m.mounted("/backups")[0], "activeautofs", "nothing is mounted before somebody looks")
            m.inside("cmp", "/srv/images/a.img", "/backups/by_name/vm/latest/original", timeout=60)
            equal((m.mounted("/backups")[0], m.show("backups.mount", "ActiveState")), ("fuse.backyfs", "active"), "mounted by looking")
            m.systemctl("stop", "backups.mount")
        arrives(m, "/backups", "vm2")
        # In use, it is refused, and by whom is told.
        content = pattern("open", 2 * MIB)
        stays(m, "/plain/incoming/open", content)
        check(m.systemctl("stop", "plain.mount", ok=False).returncode != 0, "refused")
        equal((m.mounted("/plain")[0], m.show("plain.mount", "ActiveState")), ("fuse.backyfs", "active"), "it stays")
        check("/plain is in use by perl[" in m.journal("plain.mount"), m.journal("plain.mount"))
        start = time.monotonic()
        m.power_off()
        check(time.monotonic() - start < 45, "turning the machine off does not wait for who uses it")
        m.boot()
        equal(m.at("/plain/incoming/open").read_bytes(), content, "what was written")
        equal(names(m), ["vm", "vm2"], "what is complete")


@where_possible
def optional_a_bucket_is_mounted_when_somebody_looks(w, samples):
    """The line that every manual shows: booting does not wait for the server."""
    bucket = Bucket()
    target = f"s3://{bucket.name}/systemd/{secrets.token_hex(8)}"
    with booted(w) as m:
        configure(m, samples)
        settings = f's3-endpoint = "http://127.0.0.1:{bucket.port}"\ns3-credentials-file = "/etc/s3"\n'
        m.write("/etc/backyfs.toml", settings + CONFIG.replace('target = "dir:/srv/repo"\n', ""))
        m.write("/etc/s3", f"[default]\naws_access_key_id = {bucket.access}\naws_secret_access_key = {bucket.secret}\n", 0o600)
        m.write("/etc/fstab", f"{target} /backups backyfs config=/etc/backyfs.toml,_netdev,nofail,x-systemd.automount 0 0\n")
        equal(m.boot(), "running", "without the server")
        after, before = m.show("backups.mount", "After", "Before")
        check("network-online.target" in after.split() and "umount.target" in before.split(), f"{after}; {before}")
        m.connect(bucket.port)
        m.inside("backyfs", f"--target={target}", "init")
        arrives(m, "/backups", "vm")
        equal(m.mounted("/backups"), ("fuse.backyfs", target), "mounted by looking")
        m.power_off()
        check(any("/packs/" in key for key in bucket.list(target.split("/", 3)[3])), "it is in the bucket")


@where_possible
def optional_a_disk_is_backed_up_to_when_it_is_plugged_in(w, samples):
    disk, image = w.root / "disk", w.root / "usb.img"
    disk.mkdir()
    w.run(f"--target=dir:{disk}/backups", "init")
    with open(image, "wb") as f:
        f.truncate(96 * MIB)
    sh("mke2fs", "-q", "-t", "ext4", "-L", "BACKYFS", "-d", disk, "-E", f"offset={MIB}", image, f"{95 * 1024}k")
    unit = "backyfs-usb.service"
    with booted(w) as m:
        configure(m, samples)
        m.write("/etc/backyfs-usb.toml", CONFIG.replace("/srv/repo", "/mnt/usb/backups").replace("backyfs.key", "usb.key"))
        shutil.copy(w.key, m.at("/etc/usb.key"))
        m.write("/etc/fstab", "".join(line + "\n" for line in (CONTRIB / "fstab/fstab.example").read_text().splitlines() if line.startswith("LABEL=")))
        m.at("/mnt/usb").mkdir(parents=True)
        equal(m.boot(), "running", "without the disk")
        for times, name in enumerate(("a.img", "b.img"), 1):
            shutil.copy(samples / "small.img", m.at("/srv/images") / name)
            partition = m.plug(image)
            # systemd forgets a unit that nothing refers to as soon as it has ended.
            ends = eventually("its unit has ended", lambda: (found := re.findall(rf"^(\w+) (?:to start )?{unit} - ", m.journal(unit), re.M))[2 * times - 1:] and found, 60)
            equal(ends, ["Starting", "Finished"] * times, m.journal(unit))
            equal(m.mounted("/mnt/usb"), None, "it can be unplugged")
            m.unplug(partition)
            eventually("it is gone", lambda: m.show("dev-disk-by\\x2dlabel-BACKYFS.device", "ActiveState") == "inactive", 20)
    offset = ["-o", f"loop,ro,offset={MIB}"]
    sh("mount", *offset, image, disk)
    try:
        rows = json.loads(w.run(f"--target=dir:{disk}/backups", "ls", "--json").stdout)
    finally:
        sh("umount", disk)
    equal(sorted(row["name"] for row in rows), ["images/a.img", "images/b.img"], "what was due, each time")
