"""The Debian package, installed in a system that has nothing else; `cargo deb` makes the same. A program without libraries; `cargo install`."""

import gzip
import os
import re
import shutil
import stat
from pathlib import Path

from lab.case import test
from lab.shell import check, equal, needs, same, sh

TOP = Path(__file__).resolve().parents[2]
HOOKS = "/usr/share/mmdebstrap/hooks/file-mirror-automount"

# In a mount namespace of its own. The target is a directory in the new system, the disk to back up one of its files.
LIFE = r"""
set -ex
mount --rbind /proc "$1/proc"
mknod -m 666 "$1/dev/fuse" c 10 229 || true
cp "$2" "$1/srv/disk.img"
chroot "$1" bash -exc '
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    mkdir /backups
    printf "target = \"dir:/srv/backups\"\n" > /etc/backyfs.toml
    backyfs init > /dev/null
    echo "none /backups backyfs config=/etc/backyfs.toml,memory=64M 0 0" > /etc/fstab
    mount -a
    mount -a
    grep -q " /backups fuse.backyfs " /proc/mounts
    cp /srv/disk.img /backups/incoming/vm
    cmp /srv/disk.img /backups/by_name/vm/latest/original
    umount /backups
    ! grep -q /backups /proc/mounts
    ! ls /run/backyfs/*.pid 2> /dev/null
    backyfs restore vm /srv/restored
    cmp /srv/disk.img /srv/restored
'
"""


# Making the system takes a minute or less, most of it waiting for downloads.
@test(mounted=False, seconds=900)
def installed_in_a_clean_system(w, samples):
    needs("mmdebstrap", "dpkg-deb", "strip")
    built = sh(TOP / "contrib/package", "--built", Path(w.binary).parent, "--output", w.root).stdout.decode().strip()
    codename = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)[1]
    root = w.root / "root"
    sh("mmdebstrap", "--quiet", "--variant=essential", f"--include=bash,diffutils,{built}", f"--hook-dir={HOOKS}", codename, root, timeout=400)
    try:
        sh("unshare", "--mount", "--propagation", "private", "bash", "-c", LIFE, "bash", root, samples / "small.img")
        for name in ("backyfs.1", "backyfs-backup.1", "backyfs-key-add.1", "backyfs.toml.5", "mount.backyfs.8"):
            page = root / "usr/share/man" / f"man{name[-1]}" / f"{name}.gz"
            check(b".TH" in gzip.decompress(page.read_bytes()), f"{name} is a manual page")
        for path in ("usr/lib/systemd/system/backyfs-mount@.service", "usr/share/bash-completion/completions/backyfs", "usr/share/doc/backyfs/copyright", "etc/logrotate.d/backyfs"):
            check((root / path).is_file(), path)
        equal(os.readlink(root / "usr/sbin/umount.fuse.backyfs"), "mount.backyfs", "one program")
        sh("chroot", root, "bash", "-n", "/usr/share/bash-completion/completions/backyfs")
        sh("chroot", root, "dpkg", "--purge", "backyfs")
        check(not (root / "usr/sbin/mount.backyfs").exists() and (root / "srv/backups/backyfs.repository").exists(), "what it made stays")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@test(mounted=False, seconds=1800, slow=True)
def cargo_deb_makes_the_same(w, samples):
    """`cargo deb` reads the same description as contrib/package, and makes a package with the same files, version and relations."""
    needs("cargo", "dpkg-deb")
    env = {**os.environ, "CARGO_INCREMENTAL": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
    sh("cargo", "install", "--quiet", "cargo-deb", "--locked", "--version", "3.8.0", "--debug", "--root", w.root / "tool", "--target-dir", w.root / "tool/target", env=env, timeout=1500)
    built = w.root / "built/release"
    built.mkdir(parents=True)
    for name in ("backyfs", "backyfs-mount-helper"):
        shutil.copy(Path(w.binary).with_name(name), built)
        sh("strip", built / name)
    # Where the description says that the manual pages are.
    sh(w.binary, "manuals", TOP / "target/manuals")
    env |= {"CARGO_TARGET_DIR": str(built.parent), "PATH": f"{w.root / 'tool/bin'}:{env['PATH']}"}
    sh("cargo", "deb", "--no-build", "--no-strip", "--output", w.root / "theirs.deb", cwd=TOP, env=env)
    ours = sh(TOP / "contrib/package", "--built", built, "--output", w.root).stdout.decode().strip()

    def content(package):
        listed = sh("dpkg-deb", "--contents", package).stdout.decode().splitlines()
        return sorted((line.split()[0], " ".join(line.split()[5:])) for line in listed if not line.endswith(" ./"))

    def field(package, name):
        return sh("dpkg-deb", "--field", package, name).stdout.decode().strip()

    equal(content(w.root / "theirs.deb"), content(ours), "files")
    for name in ("Package", "Version", "Architecture", "Maintainer", "Section", "Priority", "Recommends", "Suggests", "Description"):
        equal(field(w.root / "theirs.deb", name), field(ours, name), name)
    shutil.rmtree(w.root / "tool")


def built_quickly(w):
    """The environment for a build as releases are made, but with little optimisation: what is built matters here, not how fast it is."""
    quick = {"LTO": "off", "DEBUG": "0", "OPT_LEVEL": "1", "CODEGEN_UNITS": "16"}
    known = {"CARGO_INCREMENTAL": "0", "CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(w.root / "target"))}
    return {**os.environ, **known, **{f"CARGO_PROFILE_RELEASE_{key}": value for key, value in quick.items()}}


@test(mounted=False, seconds=3600, slow=True)
def a_program_without_libraries(w, samples):
    """contrib/static: its program backs up and restores where there is nothing but it, a key, a disk and a target."""
    needs("cargo", "ldd", "readelf", "strip")
    said = sh(TOP / "contrib/static", w.root / "static", env=built_quickly(w), timeout=3500).stdout.decode().splitlines()[-1]
    program = w.root / "static/backyfs"
    check(re.fullmatch(rf"{re.escape(str(program))}: static, with (musl|glibc) \(\S+\)", said), said)
    linked = sh("ldd", program, ok=False)
    check(b"statically linked" in linked.stdout or b"not a dynamic executable" in linked.stderr, linked)
    check(b"INTERP" not in sh("readelf", "--program-headers", program).stdout, "no loader is asked for")
    if os.uname().machine == "x86_64":
        check(b"chacha208backends6avx512" in program.read_bytes(), "the flags of .cargo/config.toml hold")
    root = w.root / "empty"
    for directory in ("etc", "srv", "tmp"):
        (root / directory).mkdir(parents=True)
    # What every container has.
    (root / "dev").mkdir()
    for device, minor in (("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / device, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    shutil.copy(program, root / "backyfs")
    shutil.copy(samples / "disk.img", root / "srv/disk.img")
    (root / "etc/backyfs.toml").write_text('target = "dir:/srv/backups"\nkey-file = "/etc/key"\nstate-dir = "/srv/state"\nmemory = "64M"\n')
    (root / "etc/hosts").write_text("127.0.0.1 store\n")
    run = lambda *words, ok=True: sh("chroot", root, "/backyfs", *words, env={"PATH": os.environ["PATH"]}, ok=ok)
    run("init")
    run("backup", "/srv/disk.img", "vm")
    run("restore", "vm", "/srv/restored")
    same(root / "srv/restored", samples / "disk.img")
    run("scrub")
    refused = run("backup", "rbd:rbd/vm", "vm", ok=False)
    check(refused.returncode != 0 and b"--features rbd" in refused.stderr, refused)
    # Names of hosts are found without libraries, too: a server that does not answer is another error than one that is not known.
    (root / "etc/s3.toml").write_text('target = "s3://bucket/prefix"\nkey-file = "/etc/key"\nstate-dir = "/srv/state"\n[s3]\naccess-key = "x"\nsecret-key = "y"\nendpoint = "http://store:9"\n')
    (root / "etc/s3.toml").chmod(0o600)
    refused = run("--config=/etc/s3.toml", "ls", ok=False).stderr.decode()
    check("cannot be reached" in refused and "refused" in refused.lower(), refused)


# Stand-ins that say what would be built; the Rust of the tests has no musl.
STAND_INS = {
    "rustc": 'case "$*" in *target-libdir*musl*) echo "$STAND/lib" ;; *) echo /nowhere ;; esac',
    "musl-gcc": "exit 0",
    "strip": "exit 0",
    "cargo": 'while [ $# -gt 0 ]; do case $1 in --target) target=$2 ;; --target-dir) to=$2 ;; --config) config=$2 ;; --features) exit 1 ;; esac; shift; done\n'
    'mkdir -p "$to/$target/release"; echo "$target; $config; ${RUSTFLAGS-unset}" > "$to/$target/release/backyfs"',
}


@test(mounted=False)
def musl_is_taken_where_it_is(w, samples):
    place = w.root / "stand"
    (place / "bin").mkdir(parents=True)
    for name, body in STAND_INS.items():
        (place / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (place / "bin" / name).chmod(0o755)
    env = {**os.environ, "STAND": str(place), "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "CARGO_TARGET_DIR": str(w.root / "target"), "RUSTFLAGS": ""}

    def built():
        said = sh(TOP / "contrib/static", w.root / "out", env=env).stdout.decode()
        return re.search(r"static, with (\w+) \((\S+)\)", said).groups(), (w.root / "out/backyfs").read_text().strip()

    machine = os.uname().machine
    equal(built()[0][0], "glibc", "there is a compiler, and no target")
    (place / "lib").mkdir()
    target = f"{machine}-unknown-linux-musl"
    # Flags in RUSTFLAGS, even none, would replace those of .cargo/config.toml; these are added to them.
    added = f"{target}; target.{target}.rustflags = ['-C', 'target-feature=+crt-static']"
    equal(built(), (("musl", target), f"{added}; unset"), "both are there")
    env["RUSTFLAGS"] = "-C opt-level=1"
    equal(built()[1], f"{added}; -C opt-level=1 -C target-feature=+crt-static", "flags of the one who builds")


@test(mounted=False, seconds=3600, slow=True)
def cargo_installs_it(w, samples):
    needs("cargo")
    version = re.search(r'^version = "(.*)"', (TOP / "Cargo.toml").read_text(), re.M)[1]
    place = w.root / "installed"
    sh("cargo", "install", "--path", ".", "--locked", "--root", place, cwd=TOP, env=built_quickly(w), timeout=3500)
    equal(sh(place / "bin/backyfs", "--version").stdout.decode(), f"backyfs {version}\n", "what was installed")
    equal([path.name for path in (place / "bin").iterdir()], ["backyfs"], "and nothing else")
