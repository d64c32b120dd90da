"""Units, timers and scripts of contrib/: systemd accepts them, and what they run does what they promise."""

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from lab.case import test
from lab.shell import check, equal, eventually, needs, same, sh
from lab.table import machine

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"


def understood(w, words):
    """Fails unless the program knows the command, its options and how many things it takes."""
    separator = words.index("--") if "--" in words else len(words)
    done = w.run(*words[:separator], "--help", *words[separator:], ok=False)
    check(done.returncode == 0 and b"Usage: backyfs " in done.stdout, f"{words}: {done.stderr.decode()}")


def install(m):
    """Puts program and manual pages where the units look for them, on this machine only."""
    for directory in ("bin", "share"):
        upper, work = m.tmp / f"{directory}-upper", m.tmp / f"{directory}-work"
        upper.mkdir(), work.mkdir()
        m.inside("mount", "-t", "overlay", "-o", f"lowerdir=/usr/{directory},upperdir={upper},workdir={work}", "overlay", f"/usr/{directory}")
    m.at("/usr/bin/backyfs").symlink_to(m.w.binary)
    m.inside(m.w.binary, "manuals", "/usr")


def allowed(unit):
    """The system calls that a unit allows, as systemd-analyze spells out its groups."""
    groups, name = {}, None
    for line in sh("systemd-analyze", "syscall-filter").stdout.decode().splitlines():
        if line.startswith("@"):
            name, groups[line.strip()] = line.strip(), []
        elif name and line.strip() and not line.strip().startswith("#"):
            groups[name].append(line.strip())

    def calls(word):
        return {call for member in groups[word] for call in calls(member)} if word.startswith("@") else {word}

    words = [word for line in unit.read_text().splitlines() if line.startswith("SystemCallFilter=") for word in line.partition("=")[2].split()]
    check(words, f"{unit.name} filters")
    # What systemd allows everybody.
    return {call for word in ["@default", *words] for call in calls(word)}


@test(mounted=False)
def the_units_allow_what_the_program_calls(w, samples):
    """A call that a unit's filter does not know fails with EPERM, and what it was for silently does not happen."""
    needs("systemd-analyze", "strace")
    w.run("init")
    trace = ["strace", "-f", "-qq", "-o", w.root / "trace"]

    def made():
        return set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)[ (]", (w.root / "trace").read_text(errors="replace"), re.M))

    for verb, *words in (("backup", samples / "disk.img", "vm"), ("scrub", "--percent", "16"), ("prune",), ("gc",)):
        sh(*trace, w.binary, verb, *words, env=w.env)
        equal(sorted(made() - allowed(CONTRIB / f"systemd/backyfs-{verb}.service")), [], f"{verb} calls what its unit does not allow")
    check("mincore" not in made(), "only what reads sources asks what is in memory")
    daemon = subprocess.Popen([*map(str, trace), w.binary, "mount", "--foreground", str(w.mnt)], env=w.env, stderr=subprocess.DEVNULL)
    try:
        eventually("it is mounted", lambda: os.path.ismount(w.mnt), 20)
        sh("cp", samples / "disk.img", w.incoming("two"))
        with open(w.data("two"), "r+b") as f:
            f.write(b"overlay")
            os.fsync(f.fileno())
        for path in (w.mnt / "status").iterdir():
            path.read_bytes()
    finally:
        w.down()
        daemon.wait(20)
    equal(sorted(made() - allowed(CONTRIB / "systemd/backyfs-mount@.service")), [], "a mount calls what its unit does not allow")


@test(mounted=False)
def systemd_accepts_the_units(w, samples):
    needs("systemd-analyze")
    units = [p for p in sorted(CONTRIB.glob("systemd/*")) if p.suffix in (".service", ".timer")]
    equal(len(units), 10, "units")
    with machine(w) as m:
        install(m)
        if not shutil.which("man"):
            # It looks for the manual pages that units name by running man(1).
            m.at("/usr/bin/man").write_text('#!/bin/sh\nfor a; do page=$a; done\ncase $page in *"("*) ls /usr/share/man/man*/"${page%%(*}"* ;; esac\n')
            m.at("/usr/bin/man").chmod(0o755)
        done = m.inside("systemd-analyze", "verify", *units, ok=False)
        equal((done.returncode, done.stderr.decode()), (0, ""), "systemd-analyze verify")
        pages = {word.split("(")[0] for unit in units for line in unit.read_text().splitlines() if line.startswith("Documentation=") for word in line.split("man:")[1:]}
        for page in pages:
            check(list(m.at("/usr/share/man").glob(f"man*/{page}.*")), f"{page}: no manual page")
    # The mount must be seen by everyone: nothing of this may give it a namespace of its own.
    mount = [line.split("=")[0] for line in (CONTRIB / "systemd/backyfs-mount@.service").read_text().splitlines()]
    private = [key for key in mount if key.startswith(("Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "TemporaryFileSystem", "DynamicUser", "RootDirectory", "Device"))]
    equal(private, [], "namespaces of the mount")
    needed = {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE"}
    bounds = next(line for line in (CONTRIB / "systemd/backyfs-mount@.service").read_text().splitlines() if line.startswith("CapabilityBoundingSet="))
    check(needed <= set(bounds.split("=")[1].split()), bounds)


@test(mounted=False)
def the_daemon_tells_systemd(w, samples):
    """What Type=notify hears, with the capabilities of the unit and no others."""
    w.run("init")
    path = w.root / "notify"
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(path))
    heard.settimeout(30)
    bounds = next(line for line in (CONTRIB / "systemd/backyfs-mount@.service").read_text().splitlines() if line.startswith("CapabilityBoundingSet="))
    kept = ",".join("+" + cap.removeprefix("CAP_").lower() for cap in bounds.split("=")[1].split())
    caps = ["setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", "--"]
    daemon = subprocess.Popen([*caps, w.binary, "mount", "--foreground", "-o", "allow_other", "--", w.mnt], env=w.env | {"NOTIFY_SOCKET": str(path)}, stdin=subprocess.DEVNULL)
    said = heard.recv(4096).decode()
    check("READY=1\n" in said and f"STATUS=dir:{w.repo} is mounted at {w.mnt}\n" in said, said)
    check(w.mnt_is_mounted(), "ready means mounted")
    sh("cp", samples / "small.img", w.incoming("vm"))
    same(samples / "small.img", w.original("vm"))
    # How a writer of another user ended is read from /proc, which takes CAP_SYS_PTRACE.
    os.chmod(w.incoming("vm"), 0o666)
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
    writer = subprocess.Popen([*user, "dd", f"of={w.incoming('vm')}", "bs=64K", "conv=notrunc"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    writer.stdin.write(b"partial " * 100_000)
    writer.stdin.flush()
    eventually("it has written", lambda: w.incoming("vm").read_bytes()[:7] == b"partial")
    writer.kill()
    writer.wait()
    eventually("its end is known", lambda: "was killed by SIGKILL" in (w.mnt / "status/drafts").read_text())
    equal(len(w.versions("vm")), 1, "and it made no version")
    daemon.terminate()
    said = heard.recv(4096).decode()
    check("STOPPING=1\n" in said and "STATUS=storing" in said, said)
    equal(daemon.wait(30), 0, "exit code")
    check(not w.mnt_is_mounted(), "unmounted")


@test(mounted=False)
def what_is_due_is_backed_up(w, samples):
    images = w.root / "images"
    (images / "host1").mkdir(parents=True)
    shutil.copy(samples / "small.img", images / "a.img")
    shutil.copy(samples / "small.img", images / "host1/b.img")
    config = w.root / "backyfs.toml"
    tables = f'[sources.images]\nkind = "file"\npath = "{images}"\n[names."images/*"]\nschedules = ["daily"]\n'
    config.write_text(tables)
    w.env["BACKYFS_CONFIG"] = str(config)
    w.run("init")
    lines = w.run("backup-due").stdout.decode().splitlines()
    equal([line.split(" ", 1)[1] for line in lines], ["images/a.img", "images/host1/b.img"], "every volume, wherever it lies")
    equal([row["tags"] for row in w.json("ls")], [["daily"], ["daily"]], "tagged with what they are due for")
    equal(w.json("backup-due"), [], "due is due once")
    # One that fails keeps nothing else from being backed up; the code is the first failure's.
    (images / "z.img").write_bytes(b"z" * 100_000)
    os.truncate(images / "z.img", 100_000)
    broken = w.root / "gone"
    config.write_text(tables + f'[sources.gone]\nkind = "lvm"\ngroup = "no-such-group"\n[names."gone/*"]\nschedules = ["daily"]\n')
    done = w.run("backup-due", "--json", ok=False)
    rows = json.loads(done.stdout)
    equal(done.returncode, 5, done.stderr)
    equal([(row["name"], row["uid"] is None) for row in rows], [("gone", True), ("images/z.img", False)], "one failed, one did not")
    check(rows[0]["problem"] and b"gone: " in done.stderr, rows)
    equal(w.json("backup-due", "images"), [], "only some sources")
    equal(w.run("backup-due", "other", ok=False).returncode, 1, "no such source")
    config.write_text('schedules = "daily"\n')
    check(b"no sources" in w.run("backup-due", ok=False).stderr, "nothing is configured")


MACHINE = """<domain><name>web1</name><devices>
<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{a}'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/iso'/><target dev='sda'/></disk>
<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='{b}'/><target dev='vdb'/></disk>
</devices></domain>"""

CLUSTERED = """<domain><name>web2</name><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{a}'/><target dev='vda'/></disk>
<disk type='network' device='disk'><driver name='qemu' type='raw'/><auth username='libvirt'/><source protocol='rbd' name='pool/web2'><host name='mon1' port='6789'/></source><target dev='vdb'/></disk>
<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='rbd' name='pool/data'><config file='/etc/ceph/other.conf'/></source><target dev='vdc'/></disk>
<disk type='network' device='disk'><source protocol='iscsi' name='iqn.2026-01.org.example:disk/0'/><target dev='vdd'/></disk>
<disk type='volume' device='disk'><source pool='default' volume='x'/><target dev='vde'/></disk>
<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='{b}'/><target dev='vdf'/></disk>
</devices></domain>"""

# A machine that has two disks and takes snapshots as virsh says, without a hypervisor.
VIRSH = """#!/bin/bash
echo "$*" >> "$LOG"
case $1 in
    dumpxml) cat "$XML" ;;
    snapshot-create-as) case "$*" in *--quiesce*) exit 1 ;; esac; touch "$DISK.snapshot" ;;
    domblklist) echo "vda $DISK.snapshot" ;;
    blockcommit) ;;
esac
"""


@test(mounted=False)
def libvirt_hooks(w, samples):
    needs("xmllint")
    w.run("init")
    disk, other, xml, log, bin = (w.root / name for name in ("vda.img", "vdb.img", "xml", "log", "bin"))
    shutil.copy(samples / "small.img", disk)
    other.write_bytes(b"other" * 10_000)
    xml.write_text(MACHINE.format(format="raw", a=disk, b=other))
    bin.mkdir()
    (bin / "backyfs").symlink_to(w.binary)
    (bin / "virsh").write_text(VIRSH)
    (bin / "virsh").chmod(0o755)
    # The cluster of other tests is none of the hook's.
    env = w.env | {"PATH": f"{bin}:{os.environ['PATH']}", "BACKYFS_RUN": "env", "LOG": str(log), "XML": str(xml), "DISK": str(disk), "CEPH_CONF": ""}
    hook = CONTRIB / "libvirt/qemu"
    sh(hook, "web1", "started", "begin", "-", input=xml.read_bytes(), env=env)
    equal(w.json("ls"), [], "only when it is shut down")
    sh(hook, "web1", "release", "end", "-", input=xml.read_bytes(), env=env)
    equal(sorted(row["name"] for row in w.json("ls")), ["web1/vda", "web1/vdb"], "each disk, and no other drive")
    w.run("restore", "web1/vda", w.root / "restored")
    same(disk, w.root / "restored")
    # One disk that fails keeps no other from being backed up, and what is not known is told.
    (bin / "backyfs").unlink()
    (bin / "backyfs").write_text(f'#!/bin/sh\necho "$CEPH_CONF $*" >> {log}\ncase "$*" in *"--format qcow2"*) exit 5 ;; *rbd:*) ;; *) exec {w.binary} "$@" ;; esac\n')
    (bin / "backyfs").chmod(0o755)
    done = sh(hook, "web2", "release", "end", "-", input=CLUSTERED.format(a=disk, b=other).encode(), env=env, ok=False)
    equal(log.read_text().splitlines(), [
        f" --quiet backup --format qcow2 {disk} web2/vda",
        " --quiet backup --format raw rbd:pool/web2 web2/vdb",
        "/etc/ceph/other.conf --quiet backup --format raw rbd:pool/data web2/vdc",
        f" --quiet backup --format raw {other} web2/vdf",
    ], "each disk that can be")
    said = done.stderr.decode().splitlines()
    check(done.returncode != 0 and any("web2/vdd" in row and "iscsi" in row for row in said) and any("web2/vde" in row and "volume" in row for row in said), said)
    understood(w, "--quiet backup --format raw rbd:pool/web2 web2/vdb".split())
    (bin / "backyfs").unlink()
    (bin / "backyfs").symlink_to(w.binary)
    log.write_text("")
    sh(CONTRIB / "libvirt/backyfs-live", "web1", env=env)
    equal(len(w.json("ls", "web1/vda")), 2, "while it runs")
    text = log.read_text()
    check("--quiesce" in text and text.count("snapshot-create-as") == 2, "without a guest agent it goes on without freezing")
    check(text.splitlines()[-1] == "blockcommit web1 vda --active --pivot" and not Path(f"{disk}.snapshot").exists(), text)
    # The snapshot is merged back whatever happens to the backup.
    log.write_text("")
    done = sh(CONTRIB / "libvirt/backyfs-live", "web1", env=env | {"BACKYFS_TARGET": "dir:/nowhere"}, ok=False)
    check(done.returncode == 6 and log.read_text().splitlines()[-1].startswith("blockcommit"), f"{done.returncode} {log.read_text()}")


@test(mounted=False)
def a_disk_that_is_plugged_in(w, samples):
    """What the unit for USB disks runs, as its shell gets it: a source that fails keeps nothing else from being done."""
    line = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", (CONTRIB / "systemd/backyfs-usb.service").read_text(), re.M)[1]
    w.run("init")
    images, config = w.root / "images", w.root / "usb.toml"
    images.mkdir()
    shutil.copy(samples / "small.img", images / "a.img")
    config.write_text(
        f'target = "dir:{w.repo}"\nstate-dir = "{w.state}"\nkey-file = "{w.key}"\nprotect-younger = "0"\n[sources.a-gone]\nkind = "lvm"\ngroup = "no-such-group"\n'
        f'[sources.images]\nkind = "file"\npath = "{images}"\n[names."*"]\nschedules = ["daily"]\n'
    )
    old = w.run("backup", samples / "disk.img", "vm", "--tag", "x", "--expire", "2020-01-01").stdout.decode().strip()
    w.run("backup", samples / "small.img", "vm", "--tag", "x", "--expire", "never")
    stored = sum(path.stat().st_size for path in w.repo.rglob("packs/**/*") if path.is_file())
    shell = line.replace("$$", "$").replace("/usr/bin/backyfs", str(w.binary)).replace("/etc/backyfs-usb.toml", str(config))
    done = sh("/bin/sh", "-c", shell, env={"PATH": os.environ["PATH"]}, ok=False)
    equal(done.returncode, 5, done.stderr)
    versions = w.json("ls")
    check(old not in [row["uid"] for row in versions] and "images/a.img" in [row["name"] for row in versions], versions)
    left = sum(path.stat().st_size for path in w.repo.rglob("packs/**/*") if path.is_file())
    check(left < stored / 2, f"the space of what expired is given back: {stored} bytes before, {left} after")


@test(mounted=False)
def the_sample_lines_are_understood(w, samples):
    with machine(w) as m:
        text = (CONTRIB / "fstab/fstab.example").read_text()
        m.lines(*text.splitlines())
        # mount(8) itself, and what our helper makes of each.
        targets = [line.split()[1] for line in text.splitlines() if line.split()[2:3] == ["backyfs"]]
        equal(len(targets), 3, "lines")
        for target in targets:
            done = m.mount("-f", "-v", target, ok=False)
            check(done.returncode == 0 and b"mount --from-fstab -o " in done.stdout, done.stderr)
    # Every line that units and cron run is one that the program understands, word by word.
    lines = [line.split("backyfs ", 1)[1].split(" > ")[0] for line in (CONTRIB / "cron/backyfs").read_text().splitlines() if "  root  " in line]
    for unit in CONTRIB.glob("systemd/*.service"):
        lines += re.findall(r"^Exec\w+=(?:/bin/sh -c ')?/usr/bin/backyfs (.*?)(?: \|\| .*)?$", unit.read_text(), re.M)
    equal(len(lines), 11, lines)
    for line in lines:
        understood(w, line.replace("%f", "/backups").replace('"$$1"', "/backups").split())
    needs("logrotate")
    sh("logrotate", "--debug", CONTRIB / "logrotate/backyfs")


# What Proxmox answers about a machine with a disk in a file, one in a cluster, and what is not to be backed up.
QM = """#!/bin/sh
[ "$1 $2 $3" = "config 100 --current" ] && cat <<'END'
agent: 1
name: web1
ide2: none,media=cdrom
sata0: local:iso/debian.iso,media=cdrom,size=600M
scsi0: local:100/vm-100-disk-0.raw,discard=on,size=5M
scsi1: ceph:vm-100-disk-1,size=5M
scsi2: thick:vm-100-disk-2,size=5M
scsi3: other:vm-100-disk-3,size=5M
scsi4: far:vm-100-disk-4,size=5M
sata5: nowhere:vm-100-disk-5,size=5M
virtio3: local:100/scratch.raw,backup=0,size=1M
unused0: local:100/old.raw
END
"""
PVESM = """#!/bin/sh
[ "$1" = path ] || exit 1
case $2 in
    local:100/vm-100-disk-0.raw) echo "$DISK" ;;
    ceph:vm-100-disk-1) echo rbd:pool/vm-100-disk-1:conf=/etc/pve/ceph.conf:id=admin:keyring=/etc/pve/priv/ceph/ceph.keyring ;;
    thick:vm-100-disk-2) echo /dev/vg/vm-100-disk-2-of-no-machine ;;
    other:vm-100-disk-3) echo rbd:pool/vm-100-disk-3:conf=/etc/pve/other.conf:id=backup ;;
    far:vm-100-disk-4) echo rbd:pool/vm-100-disk-4:conf=/etc/pve/far.conf:id=backup ;;
    *) exit 1 ;;
esac
"""


@test(mounted=False)
def proxmox_hook(w, samples):
    w.run("init")
    disk, bin, log = (w.root / name for name in ("vm-100-disk-0.raw", "bin", "log"))
    shutil.copy(samples / "small.img", disk)
    bin.mkdir()
    # What is said to the program is noted, and done where there is no cluster needed for it.
    note = f'#!/bin/sh\necho "$CEPH_CONF $*" >> {log}\ncase "$*" in *rbd:*) ;; *) exec {w.binary} "$@" ;; esac\n'
    for name, text in (("qm", QM), ("pvesm", PVESM), ("backyfs", note)):
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    config = w.root / "backyfs.toml"
    config.write_text('[sources.other]\nkind = "rbd"\npool = "pool"\nconf = "/etc/pve/other.conf"\nuser = "backup"\n')
    env = w.env | {"PATH": f"{bin}:{os.environ['PATH']}", "BACKYFS_RUN": "env", "DISK": str(disk), "BACKYFS_CONFIG": str(config), "CEPH_CONF": ""}
    hook = CONTRIB / "proxmox/backyfs-hook"
    for phase in ("pre-start", "post-start", "pre-stop"):
        sh(hook, "100", phase, env=env)
    check(not log.exists(), "only when it is shut down")
    done = sh(hook, "100", "post-stop", env=env, ok=False)
    lines = log.read_text().splitlines()
    equal(lines, [
        f" --quiet backup --format raw {disk} web1/scsi0",
        "/etc/pve/ceph.conf --quiet backup --format raw rbd:pool/vm-100-disk-1 web1/scsi1",
        " --quiet backup --format raw other:vm-100-disk-3 web1/scsi3",
    ], "each disk, and no other drive")
    said = done.stderr.decode()
    check(done.returncode != 0 and "web1/scsi2: /dev/vg/vm-100-disk-2-of-no-machine is not there" in said, said)
    check("web1/scsi4: " in said and "[sources.far]" in said and "web1/sata5: " in said, said)
    for line in lines:
        understood(w, line.split(" ", 1)[1].split())
    w.run("restore", "web1/scsi0", w.root / "restored")
    same(disk, w.root / "restored")


YAML = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"
# Keys that Kubernetes knows in the parts that are used (batch/v1 CronJob, core/v1 PodSpec and Container).
KNOWN = {
    "spec": "schedule concurrencyPolicy startingDeadlineSeconds successfulJobsHistoryLimit failedJobsHistoryLimit jobTemplate suspend timeZone",
    "job": "backoffLimit template activeDeadlineSeconds ttlSecondsAfterFinished",
    "pod": "restartPolicy terminationGracePeriodSeconds containers initContainers volumes securityContext serviceAccountName nodeSelector",
    "container": "name image command args env resources securityContext volumeDevices volumeMounts imagePullPolicy",
}


@test(mounted=False)
def kubernetes_cronjob(w, samples):
    """Without a cluster: it is YAML, uses keys that Kubernetes has, refers to what it declares, and the program understands what it is told."""
    documents = json.loads(sh("/usr/bin/python3", "-c", YAML, input=(CONTRIB / "kubernetes/backyfs-cronjob.yaml").read_bytes()).stdout)
    named = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    jobs = [d for d in documents if d["kind"] == "CronJob"]
    equal(len(jobs), 2, "jobs")

    def known(what, keys):
        unknown = set(keys) - set(KNOWN[what].split())
        check(not unknown, f"{what}: Kubernetes knows no {unknown}")

    config = w.root / "backyfs.toml"
    text = named["ConfigMap", "backyfs"]["data"]["backyfs.toml"]
    config.write_text(text.replace("s3://backups/cluster1", f"dir:{w.repo}").replace("/keys/key", str(w.key)).replace("/state", str(w.state)))
    w.run("--config", config, "init")
    for job in jobs:
        equal(job["apiVersion"], "batch/v1", "version")
        known("spec", job["spec"])
        equal(len(job["spec"]["schedule"].split()), 5, "a line of cron")
        check(job["spec"]["concurrencyPolicy"] in ("Allow", "Forbid", "Replace"), job["spec"]["concurrencyPolicy"])
        known("job", job["spec"]["jobTemplate"]["spec"])
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        known("pod", pod)
        check(pod["restartPolicy"] in ("Never", "OnFailure"), "jobs end")
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            for kind, claim, key in (("ConfigMap", "configMap", "name"), ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName")):
                if claim in volume and volume[claim][key] != "database":
                    check((kind, volume[claim][key]) in named, f"{volume}: not declared")
        equal(volumes["keys"]["secret"]["defaultMode"], 0o400, "nobody else reads the key")
        for container in pod["containers"] + pod.get("initContainers", []):
            known("container", container)
            check({mount["name"] for mount in container["volumeMounts"] + container.get("volumeDevices", [])} <= set(volumes), "volumes")
            equal(container["command"], ["backyfs"], "command")
            understood(w, container["args"])
            # Done for real, on a file in place of the device.
            args = [{"/config/backyfs.toml": str(config), "/dev/database": str(samples / "small.img")}.get(arg, arg) for arg in container["args"]]
            w.run(*args)
    equal([(row["name"], row["tags"]) for row in w.json("--config", config, "ls")], [("cluster1/database", ["nightly"])], "backed up")
