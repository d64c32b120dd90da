"""Several hosts, and several processes of one host, on one target: each sees what the others did, none takes anything from them."""

import errno
import json
import os
import shutil
import stat
import subprocess
import threading
import time

from lab.case import test
from lab.host import Host, hosts
from lab.shell import KIB, MIB, check, digest, equal, eventually, pattern, raises, same, sh


def put(host, name, content):
    """Writes a version in another process, which ends."""
    host.incoming(name).parent.mkdir(parents=True, exist_ok=True)
    sh("dd", f"of={host.incoming(name)}", "bs=1M", input=content)


def contents(host, name):
    """What the versions of a name hold, as digests."""
    return sorted(digest(version / "original") for version in host.versions(name))


@test(mounted=False)
def each_sees_the_other_within_the_interval(w, samples):
    with hosts(w, "a", "b") as (a, b):
        for host in (a, b):
            host.env["BACKYFS_REFRESH_INTERVAL"] = "1s"
            host.up()
        images = {a: pattern("a", 3 * MIB), b: pattern("b", 3 * MIB)}
        threads = [threading.Thread(target=put, args=(h, n, images[h])) for h in (a, b) for n in ("same", h.root.name)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for host in (a, b):
            eventually("all versions are seen", lambda: [len(host.versions(n)) for n in ("same", "a", "b")] == [2, 1, 1], 10)
        equal(contents(a, "same"), contents(b, "same"), "the same content")
        equal(a.uid("same"), b.uid("same"), "the same latest")
        equal(b.original("a").read_bytes(), images[a], "one reads what the other wrote")
        b.run("restore", "a", b.root / "restored")
        equal((b.root / "restored").read_bytes(), images[a], "and restores it")


@test(mounted=False)
def refresh_shows_it_at_once(w, samples):
    with hosts(w, "a", "b") as (a, b):
        a.up(), b.up()
        put(a, "dir/vm", b"1" * 100_000)
        # What is not there is asked for first: the kernel must not remember that it was not.
        check(not b.latest("dir/vm").exists() and not b.incoming("dir/vm").exists(), "unknown")
        equal(os.listdir(b.mnt / "by_name"), [], "nothing yet")
        check(not b.by_version(a.uid("dir/vm")).exists(), "no version")
        equal(b.refresh()["records"], 1, "learnt")
        equal(b.original("dir/vm").read_bytes(), b"1" * 100_000, "content")
        equal(os.listdir(b.incoming("dir")), ["vm"], "incoming/")
        (a.latest("dir/vm") / "tags").write_text("t1\n")
        first = a.uid("dir/vm")
        os.chmod(a.incoming("dir/vm"), 0o640)
        put(a, "dir/vm", b"2" * 100_000)
        equal(b.uid("dir/vm"), first, "not yet")
        check(not (b.mnt / "by_tag/t1").exists(), "not yet")
        b.refresh()
        equal(b.uid("dir/vm"), a.uid("dir/vm"), "latest leads on")
        equal(b.original("dir/vm").read_bytes(), b"2" * 100_000, "to what it should")
        equal(len(os.listdir(b.mnt / "by_tag/t1/dir/vm")), 1, "by_tag")
        eventually("the mode", lambda: stat.S_IMODE((b.by_version(first) / "original").stat().st_mode) == 0o440, 3)
        # The same the other way round, and what goes.
        b.run("rm", "--force", first)
        check(not b.by_version(first).exists(), "gone at once where it was deleted")
        check(a.by_version(first).exists(), "not yet elsewhere")
        a.refresh()
        check(not a.by_version(first).exists() and not (a.mnt / "by_tag/t1").exists(), "gone")
        os.rename(b.incoming("dir/vm"), b.incoming("moved"))
        a.refresh()
        equal((os.listdir(a.mnt / "by_name"), os.listdir(a.incoming("dir"))), (["moved"], []), "moved")
        equal(a.incoming("moved").read_bytes(), b"2" * 100_000, "with its content")


@test(mounted=False)
def other_processes_of_the_host_are_seen_at_once(w, samples):
    with hosts(w, "a") as (a,):
        a.up()
        source = a.root / "source"
        source.write_bytes(pattern("s", 300 * KIB))
        check(not a.incoming("vm").exists() and not a.latest("vm").exists(), "unknown")
        a.run("backup", source, "vm")
        uid = a.uid("vm")
        same(source, a.original("vm"))
        same(source, a.incoming("vm"))
        a.run("tag", uid, "t1")
        equal(((a.latest("vm") / "tags").read_text(), os.listdir(a.mnt / "by_tag")), ("t1\n", ["t1"]), "tag")
        a.run("protect", uid)
        equal((a.latest("vm") / "protected").read_text(), "1\n", "protect")
        os.unlink(a.incoming("vm"))
        check(not a.incoming("vm").exists(), "hidden")
        source.write_bytes(pattern("t", 300 * KIB))
        a.run("backup", source, "vm")
        same(source, a.incoming("vm"))
        equal(len(a.versions("vm")), 2, "versions")
        a.run("unprotect", uid)
        a.run("rm", "--force", uid)
        equal(len(a.versions("vm")), 1, "versions")
        check(not (a.mnt / "by_tag/t1").exists() and not a.by_version(uid).exists(), "gone")


@test(mounted=False)
def tags_of_one_version_edited_on_both(w, samples):
    with hosts(w, "a", "b", "c") as (a, b, c):
        a.up(), b.up()
        put(a, "vm", b"x" * 10_000)
        b.refresh()
        with open(a.latest("vm") / "tags", "a") as f:
            f.write("from-a\nboth\n")
        with open(b.latest("vm") / "tags", "a") as f:
            f.write("from-b\nboth\n")
        (a.latest("vm") / "expire").write_text("2031-01-01\n")
        (b.latest("vm") / "expire").write_text("2032-01-01\n")
        a.refresh(), b.refresh()
        c.up()
        want = [(host.latest("vm") / name).read_text() for host in (c,) for name in ("tags", "expire")]
        check(set(want[0].split()) == {"from-a", "from-b", "both"}, f"nothing is lost: {want}")
        for host in (a, b):
            equal([(host.latest("vm") / name).read_text() for name in ("tags", "expire")], want, "all agree")
            equal(sorted(os.listdir(host.mnt / "by_tag")), ["both", "from-a", "from-b"], "by_tag")


@test(mounted=False)
def a_third_machine_with_key_and_target_only(w, samples):
    with hosts(w, "a", "b", "c") as (a, b, c):
        a.up(), b.up()
        sh("cp", samples / "small.img", a.incoming("vm"))
        put(b, "other", pattern("b", MIB))
        b.refresh()
        put(b, "vm", pattern("b2", MIB))
        fd = os.open(a.incoming("unfinished"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, pattern("draft", MIB))
        os.fsync(fd)
        a.kill()
        c.up()
        equal(sorted(n["name"] for n in c.json("ls")), ["other", "vm", "vm"], "versions")
        equal(c.original("vm").read_bytes(), pattern("b2", MIB), "latest")
        same(samples / "small.img", c.versions("vm")[0] / "original")
        c.run("restore", c.json("ls")[0]["uid"], c.root / "restored")
        same(samples / "small.img", c.root / "restored")
        equal(c.incoming("unfinished").read_bytes(), pattern("draft", MIB), "what fsync acknowledged is within reach")
        # The state of its own host is lost: it is a third machine too.
        try:
            os.close(fd)
        except OSError:
            pass
        c.down()
        shutil.rmtree(c.state)
        c.up()
        equal(c.original("other").read_bytes(), pattern("b", MIB), "again")


@test(mounted=False, seconds=240)
def drafts_belong_to_who_writes_them(w, samples):
    with hosts(w, "a", "b") as (a, b):
        a.up(), b.up()
        put(a, "vm", b"old" * 5000)
        b.refresh()
        fd = os.open(a.incoming("vm"), os.O_WRONLY)
        os.pwrite(fd, pattern("a", 2 * MIB), 0)
        os.fsync(fd)
        b.refresh()
        equal(b.incoming("vm").read_bytes(), b"old" * 5000, "the other host shows the newest version")
        check(f"of host {a.json('status')['host']}" in (b.mnt / "status/drafts").read_text(), "status names whose it is")
        [draft] = b.json("status")["drafts"]
        equal((draft["name"], draft["host"]), ("vm", a.json("status")["host"]), "so does the command")
        check(b"may still be writing" in b.run("rm", draft["uid"], ok=False).stderr, "it is not removed by accident")
        # Everything the other host does to the name leaves the draft alone.
        put(b, "vm", pattern("b", MIB))
        with open(b.incoming("vm"), "r+b") as f:
            f.write(b"patched")
        os.unlink(b.incoming("vm"))
        put(b, "new", b"n" * 1000)
        os.rename(b.incoming("new"), b.incoming("vm"))
        b.remount()
        b.env["BACKYFS_DRAFT_EXPIRE_DAYS"] = "0"
        b.remount()
        time.sleep(2.5)
        del b.env["BACKYFS_DRAFT_EXPIRE_DAYS"]
        a.refresh()
        os.pwrite(fd, b"end", 2 * MIB)
        os.close(fd)
        a.refresh()
        want = pattern("a", 2 * MIB) + b"end"
        equal(a.original("vm").read_bytes(), want, "the draft became a version")
        b.refresh()
        equal(b.original("vm").read_bytes(), want, "everywhere")
        equal((b.mnt / "status/drafts").read_text(), "", "and is no draft any more")
        # A host that is gone for good: its draft is taken over, then removed.
        fd = os.open(a.incoming("vm"), os.O_WRONLY | os.O_TRUNC)
        os.write(fd, pattern("last", 2 * MIB))
        os.fsync(fd)
        a.kill()
        try:
            os.close(fd)
        except OSError:
            pass
        b.refresh()
        [draft] = b.json("status")["drafts"]
        b.run("adopt", draft["uid"])
        equal(b.incoming("vm").read_bytes(), pattern("last", 2 * MIB), "adopted")
        b.run("rm", "--force", draft["uid"])
        sh("dd", f"of={b.incoming('vm')}", "conv=notrunc", "bs=1M", "seek=2", input=b"!" * 1000)
        equal(b.original("vm").read_bytes(), pattern("last", 2 * MIB) + b"!" * 1000, "and finished")
        equal(b.json("status")["drafts"], [], "nothing is left")
        a.up()
        equal(a.original("vm").read_bytes(), b.original("vm").read_bytes(), "the other is back")


@test(mounted=False, seconds=240)
def two_mounts_of_one_host_write_one_name(w, samples):
    with hosts(w, "a") as (a,):
        a.up()
        other = Host(w, "a2", state=a.state, inside=a)
        try:
            other.up()
            fds = {h: os.open(h.incoming("vm"), os.O_WRONLY | os.O_CREAT) for h in (a, other)}
            for host, fd in fds.items():
                os.write(fd, pattern(host.root.name, MIB))
                os.fsync(fd)
            for host, fd in fds.items():
                equal(host.incoming("vm").stat().st_size, MIB, "its own draft")
                os.write(fd, b"end")
            os.close(fds[a])
            equal(a.original("vm").read_bytes(), pattern("a", MIB) + b"end", "the first")
            os.fsync(fds[other])
            os.close(fds[other])
            equal(other.original("vm").read_bytes(), pattern("a2", MIB) + b"end", "the second")
            equal(len(a.versions("vm")), 2, "both are there")
            # A mount that died leaves its draft to the other.
            a.run("backup", w.key, "left")
            fd = os.open(other.incoming("left"), os.O_WRONLY | os.O_TRUNC)
            os.write(fd, pattern("left", MIB))
            os.fsync(fd)
            equal(a.incoming("left").read_bytes(), w.key.read_bytes(), "not while its writer lives")
            other.kill()
            try:
                os.close(fd)
            except OSError:
                pass
            equal(a.incoming("left").read_bytes(), pattern("left", MIB), "now it is this one's")
            sh("dd", f"of={a.incoming('left')}", "conv=notrunc", "bs=1M", "seek=1", input=b"!" * 1000)
            equal(a.original("left").read_bytes(), pattern("left", MIB) + b"!" * 1000, "continued")
            sh(*a.enter, "umount", "-l", other.inner)
        finally:
            for pid in list(processes(other)):
                os.kill(pid, 9)


def processes(host):
    """Its daemons."""
    from lab.world import processes_of

    return processes_of(host.inner)


@test(mounted=False)
def colliding_names_and_moments_both_stay(w, samples):
    with hosts(w, "a", "b") as (a, b):
        a.up(), b.up()
        put(a, "x", b"a" * 5000)
        put(b, "x/y", b"b" * 5000)
        put(b, "x/latest", b"l" * 5000)
        for host in (a, b):
            host.refresh()
            equal(host.original("x").read_bytes(), b"a" * 5000, "the file")
            equal(host.original("x/y").read_bytes(), b"b" * 5000, "the one below")
            equal((host.mnt / "by_name/x/latest~/latest/original").read_bytes(), b"l" * 5000, "the one that looks like a link")
            with raises(errno.ENOTDIR):
                os.open(host.incoming("x/z"), os.O_WRONLY | os.O_CREAT)
        b.run("backup", samples / "small.img", "x/y")
        put(a, "x", b"A" * 5000)
        os.rename(a.incoming("x"), a.incoming("x0"))
        same(samples / "small.img", b.original("x/y"))
        b.refresh()
        put(b, "x/y", b"B" * 5000)
        equal((b.original("x/y").read_bytes(), len(b.versions("x0"))), (b"B" * 5000, 2), "renamed out of the way")
        # One name, many versions, as fast as both can.
        threads = [threading.Thread(target=lambda h=h: [put(h, "fast", bytes([n]) * 1000) for n in range(4)]) for h in (a, b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        a.refresh(), b.refresh()
        equal(len(a.versions("fast")), 8, "each has a name of its own")
        equal([p.name for p in a.versions("fast")], [p.name for p in b.versions("fast")], "the same on both")
        for version in a.versions("fast"):
            equal(os.path.basename(os.readlink(version)), os.path.basename(os.readlink(b.mnt / "by_name/fast" / version.name)), "and leads to the same")
        newest = max(json_created(a, "fast"))
        put(b, "fast", b"last" * 100)
        check(max(json_created(b, "fast")) >= newest, "moments only rise")
        a.refresh()
        equal((a.uid("fast"), a.original("fast").read_bytes()), (b.uid("fast"), b"last" * 100), "latest")


def json_created(host, name):
    """Moments of the versions of a name."""
    return [row["created"] for row in host.json("ls", name)]


@test(mounted=False)
def a_target_put_back_to_an_old_copy(w, samples):
    with hosts(w, "a", "b", bucket=False) as (a, b):
        a.up(), b.up()
        put(a, "vm", pattern("1", 2 * MIB))
        (a.latest("vm") / "tags").write_text("t1\n")
        old = a.uid("vm")
        b.refresh()
        shutil.copytree(w.repo, w.root / "saved")
        put(a, "vm", pattern("2", 2 * MIB))
        (a.by_version(old) / "tags").write_text("t2\n")
        put(a, "later", pattern("3", MIB))
        b.refresh()
        aside = w.root / "aside"
        os.rename(w.repo, aside)
        os.rename(w.root / "saved", w.repo)
        done = a.run("refresh", "--json", ok=False)
        equal(done.returncode, 20, "versions are lost")
        found = json.loads(done.stdout)
        check(found["rebuilt"], f"it is noticed: {found}")
        equal(json.loads(a.run("refresh", "--json", ok=False).stdout)["rebuilt"], None, "once")
        equal([(row["name"], row["tags"]) for row in a.json("ls")], [("vm", ["t1"])], "what is there, and no more")
        equal(a.uid("vm"), old, "in the mount, too")
        check(not a.latest("later").exists(), "what is gone is not shown")
        # The other host has not looked, and takes blocks for stored that are gone. It finds out before it acknowledges anything.
        done = sh("dd", f"of={b.incoming('vm')}", "bs=1M", input=pattern("2", 2 * MIB), ok=False)
        if done.returncode != 0:
            check(b"Input/output error" in done.stderr, "the writer hears of it")
            put(b, "vm", pattern("2", 2 * MIB))
        equal(b.original("vm").read_bytes(), pattern("2", 2 * MIB), "read back")
        a.refresh()
        a.run("restore", "vm", a.root / "restored")
        equal((a.root / "restored").read_bytes(), pattern("2", 2 * MIB), "by the other host as well")
        fresh = Host(w, "c", inside=a)
        fresh.run("restore", "vm", fresh.root / "restored")
        equal((fresh.root / "restored").read_bytes(), pattern("2", 2 * MIB), "and by one that knew nothing")
        shutil.rmtree(aside)


@test(mounted=False)
def a_rebuild_beside_a_mount_hides_nothing(w, samples):
    with hosts(w, "a") as (a,):
        a.up()
        for i in range(5):
            put(a, f"vm{i}", pattern(f"{i}", 300 * KIB))
        done = threading.Event()
        seen = []

        def look():
            while not done.is_set():
                seen.append((len(os.listdir(a.mnt / "by_version")), a.latest("vm3").exists(), len(a.json("ls")) >= 5))

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for i in range(4):
                p = subprocess.Popen([*a.enter, a.binary, "rebuild", *(["--from-packs"] if i % 2 else [])], env=a.env)
                put(a, f"beside{i}", pattern(f"b{i}", 300 * KIB))
                equal(p.wait(60), 0, "rebuild")
        finally:
            done.set()
            looker.join()
        check(len(seen) > 3 and all(n >= 5 and there and all_listed for n, there, all_listed in seen), f"never fewer: {seen}")
        for i in range(4):
            equal(a.original(f"beside{i}").read_bytes(), pattern(f"b{i}", 300 * KIB), "written meanwhile")
        # One that is killed changes nothing.
        p = subprocess.Popen([*a.enter, a.binary, "rebuild", "--from-packs"], env=a.env)
        time.sleep(0.05)
        p.kill(), p.wait()
        equal(len(os.listdir(a.mnt / "by_version")), 9, "after a rebuild was killed")
        a.run("rebuild")
        equal(len(os.listdir(a.mnt / "by_version")), 9, "and after another")


def counter(host, name):
    """One counter of a daemon."""
    lines = (host.mnt / "status/counters").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)


@test(mounted=False)
def what_was_read_once_needs_no_target(w, samples):
    with hosts(w, "a", bucket=False) as (a,):
        a.env["BACKYFS_CACHE_SIZE"] = "128M"
        a.up()
        sh("cp", samples / "disk.img", a.incoming("vm"))
        a.remount()
        same(samples / "disk.img", a.original("vm"))
        check(counter(a, "TargetReads") > 0, "the first time it comes from the target")
        check(counter(a, "DiskCacheMisses") > counter(a, "DiskCacheHits"), "and only what is in it twice from the cache")
        a.remount()
        before = a.json("status")["cache"]
        check(before["bytes"] > MIB and before["limit_bytes"] == 128 * MIB, f"kept: {before}")
        # Nothing can be read there any more.
        packs = w.repo / "packs"
        os.rename(packs, w.root / "away")
        os.mkdir(packs)
        same(samples / "disk.img", a.original("vm"))
        equal((counter(a, "TargetReads"), counter(a, "DiskCacheMisses")), (0, 0), "the second time nothing does")
        check(counter(a, "DiskCacheHits") > 0, "it comes from the cache")
        a.run("restore", "vm", a.root / "restored")
        same(samples / "disk.img", a.root / "restored")
        os.rmdir(packs)
        os.rename(w.root / "away", packs)
        # Damage in the cache costs nothing but reading again.
        a.down()
        for segment in (a.state / "cache").rglob("*.seg"):
            with open(segment, "r+b") as f:
                f.seek(segment.stat().st_size // 2)
                f.write(bytes(100))
        a.up()
        same(samples / "disk.img", a.original("vm"))
        check(counter(a, "TargetReads") > 0 and counter(a, "Damage") == 0, "read again, and no damage")
        shutil.rmtree(a.state / "cache")
        a.remount()
        same(samples / "disk.img", a.original("vm"))


@test(mounted=False)
def a_full_disk_under_the_cache_fails_no_read(w, samples):
    with hosts(w, "a") as (a,):
        cache = a.root / "small"
        cache.mkdir()
        sh(*a.enter, "mount", "-t", "tmpfs", "-o", "size=3m", "none", cache)
        a.env |= {"BACKYFS_CACHE_SIZE": "128M", "BACKYFS_CACHE_DIR": str(cache)}
        a.up()
        sh("cp", samples / "disk.img", a.incoming("vm"))
        for _ in range(2):
            a.remount()
            same(samples / "disk.img", a.original("vm"))
        check("cannot be written to" in (a.state / "backyfs.log").read_text(), "it is told")
        equal(counter(a, "Damage"), 0, "damage")
        a.down()
        sh(*a.enter, "umount", cache)
