"""Lines of fstab, mounted by the real mount(8) through the helpers in /sbin, and unmounted by the real umount(8)."""

import errno
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.bucket import Bucket
from lab.case import test
from lab.shell import MIB, check, equal, eventually, pattern, raises, same, sh
from lab.table import machine
from lab.world import World

AUTOMOUNT = Path(__file__).with_name("lab") / "automount.py"


def repository(m, name):
    """Another repository with a key of its own; its target and the options it needs."""
    other = World(m.w.binary, m.w.root, name)
    other.run("init")
    return f"dir:{other.repo}", f"state-dir={other.state},key-file={other.key}"


@test(mounted=False)
def lines_of_every_spelling(w, samples):
    with machine(w) as m:
        config = m.root / "backyfs.toml"
        config.write_text(f'target = "dir:{w.repo}"\nstate-dir = "{w.state}"\nkey-file = "{w.key}"\n')
        (a, b, c, d) = (m.dir(name) for name in ("a", "b", "c", "with space"))
        quoted = m.options("memory=64M", "comment=mine", 'temporary-names="*.part,*.tmp"')
        m.lines(
            "# the target first, as everyone writes it",
            f"dir:{w.repo} {a} backyfs config={config},_netdev,nofail,x-systemd.automount 0 0",
            f"none {b} fuse.backyfs noauto,config={config},noexec 0 0",
            f"{w.repo} {c} backyfs noauto,{quoted} 0 0",
            f"backyfs {str(d).replace(' ', chr(92) + '040')} backyfs noauto,target=dir:{w.repo},{m.options()} 0 0",
        )
        for dir, source in ((a, f"dir:{w.repo}"), (b, "none"), (c, str(w.repo)), (d, "backyfs")):
            m.mount(dir)
            equal(m.mounted(dir)[:2], ("fuse.backyfs", source), f"{dir} in the table of mounts")
            sh("cp", samples / "small.img", m.at(dir) / "incoming" / dir.name)
            same(samples / "small.img", m.at(dir) / "by_name" / dir.name / "latest/original")
            check(m.at(dir).joinpath("by_name/a").is_dir(), "all are one repository")
        check("noexec" in m.mounted(b)[2] and "noexec" not in m.mounted(a)[2], "flags of the mount")
        config_text = (m.at(c) / "status/config").read_text()
        check('"*.part", "*.tmp"' in config_text and "67108864" in config_text, config_text)
        equal(len(m.daemons()), 4, "a daemon each")
        # What mount(8) notes of options that are not the kernel's: systemd and `umount -a -O` look at that.
        equal(m.on_the_network(), [str(a)], "only the first needs the network")
        m.umount("-a", "-O", "_netdev")
        check(m.mounted(a) is None and m.mounted(b), "unmounted before the network goes")
        m.mount(a)
        for dir in (a, b, c, d):
            m.umount(dir)
            equal(m.mounted(dir), None, "unmounted")
        equal(m.daemons(), [], "umount(8) returns when the daemon has ended")
        # Without a line in the table.
        for kind in ("backyfs", "fuse.backyfs"):
            m.mount("-t", kind, "-o", m.options(), f"dir:{w.repo}", a)
            equal(m.mounted(a)[:2], ("fuse.backyfs", f"dir:{w.repo}"), "by hand")
            m.umount("-t", "fuse.backyfs", a)
        m.mount("-f", a)
        equal(m.mounted(a), None, "-f does everything but mount")


@test(mounted=False)
def all_of_it_twice(w, samples):
    with machine(w) as m:
        (a, b, later) = (m.dir(name) for name in ("a", "b", "later"))
        second, options = repository(m, "second")
        m.lines(
            f"dir:{w.repo} {a} backyfs {m.options()} 0 0",
            f"{second} {b} fuse.backyfs {options},nofail 0 0",
            f"dir:{w.repo} {later} backyfs noauto,{m.options()} 0 0",
        )
        for _ in range(2):
            m.mount("-a")
            equal(len(m.daemons()), 2, "one daemon for each line, however often")
            equal(m.mounted(later), None, "noauto")
        check(b"already" in m.mount(a, ok=False).stderr, "by name it is refused")
        sh("cp", samples / "small.img", m.at(a) / "incoming/vm")
        sh("cp", samples / "disk.img", m.at(b) / "incoming/vm")
        same(samples / "small.img", m.at(a) / "by_name/vm/latest/original")
        same(samples / "disk.img", m.at(b) / "by_name/vm/latest/original")
        m.umount(a, b)
        m.mount("-a", "-t", "backyfs")
        equal((m.mounted(a) is None, m.mounted(b)), (False, None), "by type")
        m.umount("-a", "-t", "fuse.backyfs")
        equal(m.daemons(), [], "all are gone")


@test(mounted=False)
def read_only_and_remounted(w, samples):
    with machine(w) as m:
        a = m.dir("a")
        m.lines(f"dir:{w.repo} {a} backyfs ro,{m.options('memory=100M', 'upload-limit=1G')} 0 0")
        w.run("backup", samples / "small.img", "vm")
        m.mount(a)
        for act in (lambda: open(m.at(a) / "incoming/new", "w"), lambda: os.rmdir(m.at(a) / "by_version" / os.listdir(m.at(a) / "by_version")[0])):
            with raises(errno.EROFS):
                act()
        same(samples / "small.img", m.at(a) / "by_name/vm/latest/original")
        m.mount("-o", "remount,rw", a)
        sh("cp", samples / "disk.img", m.at(a) / "incoming/vm")
        with open(m.at(a) / "incoming/open", "wb") as f:
            f.write(b"x")
            f.flush()
            check("in use" in m.refused("-o", "remount,ro", a), "somebody writes")
        m.mount("-o", "remount,ro,noexec", a)
        check({"ro", "noexec"} <= set(m.mounted(a)[2]), m.mounted(a))
        with raises(errno.EROFS):
            open(m.at(a) / "incoming/new", "w")
        # What can change does, what is the same is accepted, and all else is refused with what it is.
        m.mount("-o", "remount,rw,upload-limit=10M,memory=102400K", a)
        equal((m.at(a) / "status/upload-limit").read_text(), "10485760\n", "the limit")
        said = m.refused("-o", "remount,rw,upload-limit=20M,memory=200M", a)
        check('memory is "104857600" and cannot become "209715200" while it is mounted' in said, said)
        equal((m.at(a) / "status/upload-limit").read_text(), "10485760\n", "all or nothing")
        check("allow_other is off" in m.refused("-o", "remount,rw,allow_other", a), "decided when it was mounted")
        check("not known" in m.refused("-o", "remount,colour=red", a), "a mistake is one here, too")
        said = m.refused("-o", f"remount,target=dir:{w.root}/elsewhere", a)
        check("target" in said, said)
        m.umount(a)
        check(b"not mounted" in m.mount("-o", "remount,ro", a, ok=False).stderr, "nothing to remount")
        # Where somebody restores, a limit changes and nothing can be written, not for a moment.
        m.mount(a)
        writer = subprocess.Popen(["bash", "-c", 'while :; do ( : > "$1" ) 2> /dev/null && echo written; done', "bash", m.at(a) / "incoming/never"], stdout=subprocess.PIPE)
        try:
            for rate in ("3M", "none"):
                m.mount("-o", f"remount,noexec,download-limit={rate}", a)
        finally:
            writer.kill()
        equal(writer.communicate()[0], b"", "writing was refused all the time")
        m.mount("-o", "remount,noexec,upload-limit=3M,download-limit=4M", a)
        limits = [(m.at(a) / "status" / name).read_text() for name in ("upload-limit", "download-limit")]
        equal(limits, ["3145728\n", "4194304\n"], "both limits")
        check({"ro", "noexec"} <= set(m.mounted(a)[2]), m.mounted(a))
        same(samples / "disk.img", m.at(a) / "by_name/vm/latest/original")
        with raises(errno.EROFS):
            open(m.at(a) / "incoming/new", "w")
        m.mount("-o", "remount,rw", a)
        sh("cp", samples / "small.img", m.at(a) / "incoming/again")
        # What cannot be done, because somebody writes, changes no limit either.
        with open(m.at(a) / "incoming/open", "wb") as f:
            f.write(b"x")
            f.flush()
            check("in use" in m.refused("-o", "remount,ro,upload-limit=5M", a), "somebody writes")
            equal((m.at(a) / "status/upload-limit").read_text(), "1073741824\n", "all or nothing")
        m.umount(a)


@test(mounted=False)
def by_a_user(w, samples):
    with machine(w) as m:
        home = m.root / "home"
        home.mkdir()
        mnt = home / "mnt"
        mnt.mkdir()
        config = home / "backyfs.toml"
        config.write_text('target = "dir:repo"\n'.replace("repo", f"{home}/repo") + f'state-dir = "{home}/state"\nkey-file = "{home}/key"\n')
        shutil.copy(samples / "small.img", home)
        for part in ("backyfs", "backyfs-mount-helper"):
            shutil.copy(os.path.join(os.path.dirname(w.binary), part), m.tmp / part)
        for name in ("mount.backyfs", "umount.fuse.backyfs"):
            link = m.at("/usr/sbin") / name
            link.unlink()
            link.symlink_to(m.tmp / "backyfs-mount-helper")
        sh("chown", "-R", "nobody:nogroup", home)
        m.lines(f"none {mnt} backyfs noauto,user,config={config} 0 0", f"none {m.dir('b')} backyfs noauto,config={config} 0 0")
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin"]
        m.inside(*user, m.tmp / "backyfs", f"--config={config}", "init")
        m.inside(*user, "mount", mnt)
        check("nosuid" in m.mounted(mnt)[2] and m.mounted(mnt)[0] == "fuse.backyfs", "mounted")
        m.inside(*user, "cp", home / "small.img", mnt / "incoming/vm")
        m.inside(*user, "cmp", home / "small.img", mnt / "by_name/vm/latest/original")
        done = m.inside(*user, "mount", m.root / "b", ok=False)
        check(done.returncode != 0 and m.mounted(m.root / "b") is None, "without `user` only root may")
        daemon = user[:4] + ["env", "-i", "PATH=/usr/bin:/bin"]
        daemon[1] = "--reuid=daemon"
        check(m.inside(*daemon, "umount", mnt, ok=False).returncode != 0, "not by somebody else")
        m.inside(*user, "umount", mnt)
        equal((m.mounted(mnt), m.daemons()), (None, []), "unmounted by the one who mounted")
        m.inside(*user, "mount", mnt)
        m.umount(mnt)
        equal(m.mounted(mnt), None, "or by root")
        eventually("the daemon ends", lambda: not m.daemons(), 20)


@test(mounted=False)
def a_target_that_is_a_line_itself(w, samples):
    with machine(w) as m:
        a, disk = m.dir("a"), m.dir("usb")
        image = m.root / "usb.img"
        with open(image, "wb") as f:
            f.truncate(64 * MIB)
        sh("mke2fs", "-q", "-t", "ext4", image)
        target = f"dir:{disk}/backup"
        state = f"state-dir={m.root}/state,key-file={m.root}/key"
        mine = f"{target} {a} backyfs {state},wait-for-target=20 0 0"
        m.lines(mine, f"{image} {disk} ext4 loop,noauto 0 0")
        said = m.refused(a)
        check(f"{disk}, which is not mounted (/etc/fstab line 2, noauto)" in said, said)
        m.inside("mount", disk)
        m.inside(w.binary, "init", env=m.env | {"BACKYFS_TARGET": target, "BACKYFS_STATE_DIR": f"{m.root}/state", "BACKYFS_KEY_FILE": f"{m.root}/key"})
        m.mount(a)
        m.umount(a), m.umount(disk)
        m.lines(mine, f"{image} {disk} ext4 loop,nofail 0 0")
        waiting = subprocess.Popen([*m.prefix, "mount", a], env=m.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(2)
        equal((waiting.poll(), m.mounted(a)), (None, None), "it waits")
        equal(os.listdir(disk), [], "and writes nothing where the disk is not")
        m.mount(disk)
        said = waiting.communicate(timeout=20)[1]
        equal(waiting.returncode, 0, said)
        check(f"waiting for {disk} to be mounted (/etc/fstab line 2)".encode() in said, said)
        equal(m.mounted(a)[0], "fuse.backyfs", "mounted")
        sh("cp", samples / "small.img", m.at(a) / "incoming/vm")
        m.umount(a), m.umount(disk)
        m.lines(mine.replace("=20", "=1"), f"{image} {disk} ext4 loop,nofail 0 0")
        said = m.refused("-o", "wait-for-target=1s", a)
        check("was not mounted within 1 s (/etc/fstab line 2)" in said, said)
        # All at once, as init does, in whatever order.
        m.lines(mine, f"{image} {disk} ext4 loop 0 0")
        m.mount("-a", "-F")
        same(samples / "small.img", m.at(a) / "by_name/vm/latest/original")
        m.umount(a), m.umount(disk)


@test(mounted=False)
def mistakes_are_told_with_their_place(w, samples):
    with machine(w) as m:
        a, config, exposed = m.dir("a"), m.root / "c.toml", m.root / "exposed"
        config.write_text(f'target = "dir:{w.repo}"\nkey-file = "{w.key}"\nmemory = "lots"\n')
        no_key = m.root / "no-key.toml"
        no_key.write_text(f'target = "dir:{w.repo}"\nkey-file = "/nope"\n')
        exposed.write_bytes(w.key.read_bytes())
        exposed.chmod(0o644)
        files = m.root / "files"
        files.mkdir()
        (files / "something").write_text("else")

        def said(source, options):
            m.lines("# first", "", f"{source} {a} backyfs {options} 0 0")
            text = m.refused(a)
            equal((m.mounted(a), m.daemons()), (None, []), "nothing is mounted")
            return text

        repo, good = f"dir:{w.repo}", m.options()
        for source, options, *parts in (
            ("none", f"config={config}", f"{config} line 3, memory: ", '"lots"'),
            (repo, f"{good},colour=red", '/etc/fstab line 3, mount option "colour=red" is not known'),
            (repo, f"{good},memory=1M", "/etc/fstab line 3, mount option memory: 1M is too little"),
            (repo, f"{good},source=images", "/etc/fstab line 3, mount option source=images: write NAME:file:/DIR"),
            (repo, f"{good},wait-for-target=soon", "wait-for-target: "),
            (repo, f"{good},target=dir:/elsewhere", f"two targets: {repo}, and target=dir:/elsewhere"),
            (repo, f"{good},s3-secret-key=abc", "a secret would be seen by everyone"),
            ("ftp://x/y", good, "/etc/fstab line 3, mount option target: ", "write dir:/path or s3://bucket/prefix"),
            (f"dir:{m.root}/absent", good, f"{m.root}/absent is missing; is it mounted?"),
            (f"dir:{files}", good, f"there is no backyfs repository at dir:{files}"),
            (repo, f"state-dir={w.state},key_file={m.root}/no-key", f"/etc/fstab line 3, mount option key-file: {m.root}/no-key does not exist"),
            (repo, f"state-dir={w.state},key-file={exposed}", f"/etc/fstab line 3, mount option key-file: {exposed} can be read", f"chmod 600 {exposed}"),
            ("none", f"config={no_key}", f"{no_key} line 2, key-file: /nope does not exist"),
            (repo, f"{good},config=/none.toml", "/none.toml"),
        ):
            text = said(source, options)
            check(all(part in text for part in parts), f"{source} {options}: {text}")
        # Two lines for one directory: the one is blamed that says it.
        m.lines(f"dir:{m.root}/old {a} backyfs noauto,memory=1G,{good} 0 0", f"{repo} {a} backyfs noauto,memory=1M,{good} 0 0")
        text = m.refused(repo)
        check("/etc/fstab line 2, mount option memory: 1M is too little" in text, text)
        m.lines(f"{repo} {a} backyfs {good} 0 0")
        text = m.refused("-o", "colour=red", a)
        check('backyfs: mount option "colour=red" is not known' in text, f"it stands in no line: {text}")
        (a / "file").write_text("x")
        check("is not empty" in m.refused(a), "what is there would be hidden")
        (a / "file").unlink()
        text = m.mount(m.root / "nowhere", ok=False).stderr
        check(text, "no line at all")
        os.rename(w.repo, m.root / "away")
        check(str(w.repo) in m.refused(a), "the target is away")
        os.rename(m.root / "away", w.repo)
        m.mount(a)
        m.umount(a)
        # A directory that cannot be written to is good for restores; it is told.
        m.inside("mount", "--bind", w.repo, w.repo)
        m.inside("mount", "-o", "remount,bind,ro", w.repo)
        check(b"cannot be written to" in m.mount(a).stderr, "a warning")
        m.umount(a)
        equal(m.mount("-o", "ro", a).stderr, b"", "nothing to warn of")
        m.umount(a)


@test(mounted=False)
def a_bucket(w, samples):
    """The line that every manual shows, and what is said when the server does not let us in."""
    bucket = Bucket()
    target = f"s3://{bucket.name}/fstab/{secrets.token_hex(8)}"
    with machine(w) as m:
        a, config, credentials = m.dir("a"), m.root / "backyfs.toml", m.root / "s3"
        keys = f"[default]\naws_access_key_id = {bucket.access}\naws_secret_access_key = "
        server = f'[s3]\nendpoint = "http://{bucket.host}:{bucket.port}"\ncredentials-file = "{credentials}"\n'
        config.write_text(f'state-dir = "{m.root}/state"\nkey-file = "{m.root}/key"\n{server}')
        credentials.write_text(keys + bucket.secret)
        credentials.chmod(0o600)
        m.inside(w.binary, f"--config={config}", f"--target={target}", "init", env=m.env)
        line = f"{{}} {a} backyfs config={config},_netdev,nofail,x-systemd.automount 0 0"
        m.lines(line.format(target))
        for _ in range(2):
            m.mount("-a")
            equal((m.mounted(a)[:2], len(m.daemons())), (("fuse.backyfs", target), 1), "mounted once")
        equal(m.on_the_network(), [str(a)], "it needs the network")
        sh("cp", samples / "disk.img", m.at(a) / "incoming/vm")
        same(samples / "disk.img", m.at(a) / "by_name/vm/latest/original")
        m.umount(a)
        equal((m.mounted(a), m.daemons()), (None, []), "umount(8) waited for it")
        check(any("/packs/" in key for key in bucket.list(target.split("/", 3)[3])), "it is in the bucket")
        # Where there is no repository, and where there is no bucket.
        m.lines(line.format(target + "x"))
        said = m.refused(a)
        check(f"there is no backyfs repository at {target}x" in said, f"a prefix that is spelt wrongly: {said}")
        m.lines(line.format("s3://no-such-bucket-here/x"))
        check("no-such-bucket-here" in m.refused(a), "a bucket that is not there")
        m.lines(line.format(target))
        credentials.write_text(keys + "wrong")
        said = m.refused(a)
        check("s3://" in said and "wrong" not in said, said)
        credentials.unlink()
        check(f"{config} line 5, s3-credentials-file: {credentials}: No such file" in m.refused(a), "no keys at all")
        m.lines(line.format(target).replace("_netdev", "s3_credentials_file=/nope"))
        check("/etc/fstab line 1, mount option s3-credentials-file: /nope: No such file" in m.refused(a), "the line is named")
        # A server that does not answer: one line says what is waited for, one what came of it, and no log.
        m.lines(line.format(target).replace("_netdev", "s3-endpoint=http://127.0.0.1:9"))
        credentials.write_text(keys + bucket.secret)
        credentials.chmod(0o600)
        done = m.mount(a, ok=False)
        said = done.stderr.decode().splitlines()
        equal((done.returncode, len(said), said[0]), (32, 2, f"backyfs: waiting for {target} to answer"), said)
        check("cannot be reached" in said[1], said)
        done = m.inside(w.binary, "-v", "mount", "-o", f"config={config},target={target},s3-endpoint=http://127.0.0.1:9", a, env=m.env, ok=False)
        check(b" WARN " in done.stderr, "the log for who wants it")
        equal((m.mounted(a), m.daemons()), (None, []), "nothing is mounted")
        # By a command, without any line: what is in a bucket needs the network.
        m.inside(w.binary, "mount", "-o", f"config={config},target={target}", a, env=m.env)
        equal(m.on_the_network(), [str(a)], "it always does")
        m.umount(a)


@test(mounted=False)
def mounted_when_somebody_looks(w, samples):
    with machine(w) as m:
        w.run("backup", samples / "small.img", "vm")
        a = m.dir("a")
        m.lines(f"dir:{w.repo} {a} backyfs noauto,x-systemd.automount,{m.options()} 0 0")
        watcher = subprocess.Popen([*m.prefix, sys.executable, AUTOMOUNT, a], env=m.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            equal(watcher.stdout.readline(), b"watching\n", "it watches")
            equal(m.mounted(a)[0], "autofs", "nothing is mounted yet")
            # The daemon must not wait for the mount that waits for it.
            m.inside("cmp", samples / "small.img", a / "by_name/vm/latest/original", timeout=30)
            equal(m.mounted(a)[0], "fuse.backyfs", "mounted by looking")
            m.umount(a)
            equal((m.mounted(a)[0], m.daemons()), ("autofs", []), "unmounted")
            m.inside("ls", a / "by_name/vm", timeout=30)
            m.umount(a)
            m.lines(f"dir:{w.repo} {a} backyfs noauto,x-systemd.automount,colour=red 0 0")
            check(m.inside("ls", a / "by_name", ok=False, timeout=30).returncode != 0, "who looks is told that it failed")
        finally:
            watcher.stdin.close()
            watcher.wait(20)


@test(mounted=False)
def sources_as_options(w, samples):
    with machine(w) as m:
        a, images = m.dir("a"), m.root / "images"
        images.mkdir()
        shutil.copy(samples / "small.img", images / "vm.img")
        config = m.root / "c.toml"
        config.write_text(f'[sources.other]\nkind = "file"\npath = "{samples}"\n')
        options = m.options(f"config={config}", f"source=images:file:{images}", f"source=one:{images}/vm.img")
        m.lines(f"dir:{w.repo} {a} backyfs {options} 0 0")
        m.mount(a)
        equal(sorted(os.listdir(m.at(a) / "sources")), ["images", "one", "other"], "sources/")
        m.inside("cp", a / "sources/images/vm.img", a / "incoming/vm")
        same(samples / "small.img", m.at(a) / "by_name/vm/latest/original")
        m.mount("-o", "remount,noexec", a)
        check("[sources.new]" in m.refused("-o", f"remount,source=new:{images}", a), "not while it is mounted")
        m.umount(a)


@test(mounted=False, seconds=240)
def unmounting_waits_and_tells(w, samples):
    with machine(w) as m:
        a, real, at = m.dir("a"), m.root / "real", m.dir("target")
        shutil.copytree(w.repo, real / "repo")
        m.inside("mount", "--bind", real, at)
        m.lines(f"dir:{at}/repo {a} backyfs {m.options('draft-expire-days=1')} 0 0")
        m.mount(a)
        # What an fsync did not make durable is so when umount(8) returns, daemon and all.
        content = pattern("x", 3 * MIB)
        writer = subprocess.Popen(["bash", "-c", f'exec 3> "{m.at(a)}/incoming/vm"; cat >&3; sleep 1000'], stdin=subprocess.PIPE)
        writer.stdin.write(content)
        writer.stdin.close()
        eventually("it is written", lambda: (m.at(a) / "incoming/vm").stat().st_size == len(content))
        done = m.umount(a, ok=False)
        said = done.stderr.decode()
        equal((done.returncode, m.mounted(a)[0]), (32, "fuse.backyfs"), f"it is in use: {said}")
        check(f"{a} is in use by " in said and f"umount -l {a}" in said and f"umount -f {a}" in said, said)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        m.umount(a)
        equal(m.daemons(), [], "the daemon has ended")
        m.mount(a)
        equal((m.at(a) / "incoming/vm").read_bytes(), content, "the draft is there")
        # Out of sight: who has a file open may finish.
        with open(m.at(a) / "incoming/lazy", "wb") as f:
            f.write(b"1" * 5000)
            f.flush()
            m.umount("-l", a)
            equal(m.mounted(a), None, "out of sight")
            f.write(b"2" * 5000)
        eventually("the daemon ends", lambda: not m.daemons(), 30)
        m.mount(a)
        equal((m.at(a) / "by_name/lazy/latest/original").read_bytes(), b"1" * 5000 + b"2" * 5000, "and is a version")
        # Cut off.
        f = open(m.at(a) / "incoming/cut", "wb", buffering=0)
        f.write(b"1" * 5000)
        m.umount("-f", a)
        equal((m.mounted(a), m.daemons()), (None, []), "cut off")
        with raises(errno.ECONNABORTED, errno.ENOTCONN):
            f.write(b"2" * 5000)
        try:
            f.close()
        except OSError:
            pass
        # A target that is away: the writer is told, and nothing is left to wait for.
        m.mount(a)
        m.inside("umount", "-l", at)
        done = sh("dd", f"of={m.at(a)}/incoming/lost", "bs=1M", input=pattern("lost", 2 * MIB), ok=False)
        check(done.returncode != 0, "the writer is told")
        m.umount(a)
        equal((m.mounted(a), m.daemons()), (None, []), "unmounted all the same")
        # A daemon that was killed leaves a mount that does not answer.
        m.inside("mount", "--bind", real, at)
        m.mount(a)
        os.kill(m.daemons()[0], signal.SIGKILL)
        eventually("it is dead", lambda: not m.daemons())
        m.umount(a)
        equal(m.mounted(a), None, "cleaned up")
        m.mount(a)
        os.kill(m.daemons()[0], signal.SIGKILL)
        eventually("it is dead", lambda: not m.daemons())
        status = m.inside(w.binary, f"--target=dir:{at}/repo", f"--state-dir={w.state}", f"--key-file={w.key}", "status").stdout.decode()
        check(f"dead: {a}: the daemon that served it has died; run `umount {a}`" in status and re.search("mounted at: +nowhere", status), status)
        equal(m.mount(a).stderr.decode(), f"backyfs: {a} was left by a daemon that died: unmounting it\n", "it is told, and not as a log")
        check(" INFO " in (w.state / "backyfs.log").read_text().split(f"{a} was left by a daemon that died")[-2].splitlines()[-1], "the log has it, too")
        same_text = (m.at(a) / "by_name/lazy/latest/original").read_bytes()[:3]
        equal(same_text, b"111", "mounted over it, and answers")
        m.umount(a)
        check(b"not mounted" in m.umount(a, ok=False).stderr, "not mounted")
        m.inside("umount", at)


@test(mounted=False)
def unmounting_from_a_target_that_hangs(w, samples):
    with machine(w) as m:
        a, disk, image = m.dir("a"), m.dir("disk"), m.root / "disk.img"
        with open(image, "wb") as f:
            f.truncate(64 * MIB)
        sh("mke2fs", "-q", "-t", "ext4", image)
        m.inside("mount", "-o", "loop", image, disk)
        sh("cp", "-a", w.repo, m.at(disk) / "repo")
        m.mount("-t", "backyfs", "-o", m.options(), f"dir:{disk}/repo", a)
        m.inside("fsfreeze", "--freeze", disk)
        try:
            writer = subprocess.Popen(["dd", f"of={m.at(a)}/incoming/vm", "bs=1M"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            writer.stdin.write(pattern("vm", 2 * MIB))
            writer.stdin.close()
            time.sleep(1.5)
            equal(writer.poll(), None, "it waits for the target")
            said = m.umount(a, ok=False).stderr
            # Who waits in close() has let go of the descriptor, and is found by nobody.
            check(b"is in use by nobody who can be seen" in said and b"waiting for the target" in said and b"umount -f" in said, said)
            forced = subprocess.Popen([*m.prefix, "umount", "-f", a], env=m.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            check(writer.wait(20) != 0, "it is cut off")
            eventually("it is unmounted", lambda: m.mounted(a) is None)
            time.sleep(6)
        finally:
            m.inside("fsfreeze", "--unfreeze", disk)
        said = forced.communicate(timeout=30)[1]
        check(forced.returncode == 0 and b"was killed: what the target had not taken is lost" in said, said)
        equal(m.daemons(), [], "the daemon is gone")
        m.mount("-t", "backyfs", "-o", m.options(), f"dir:{disk}/repo", a)
        equal(os.listdir(m.at(a) / "by_name"), [], "nothing was acknowledged, and nothing is shown")
        m.umount(a)
        m.umount(disk)
