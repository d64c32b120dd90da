"""A repository in a bucket of a real S3 server (Ceph's radosgw), and what becomes of it when the way there misbehaves."""

import errno
import os
import random
import threading
import time

from lab.case import test
from lab.distant import Distant
from lab.proxy import Fault
from lab.shell import KIB, MIB, check, equal, eventually, needs, pattern, raises, same, script, sh

TRANSIENT = ("status", "status", "lost", "reset", "cut", "wrong", "longer", "repeat", "refuse", "slow")


def noise(w, name, length):
    """A file of bytes that do not compress."""
    path = w.root / name
    path.write_bytes(pattern(name, length))
    return path


def seeded():
    """The test's own random numbers; the seed stands in the output of a failure."""
    seed = int(os.environ["BACKYFS_TEST_SEED"])
    print(f"seed {seed}")
    return random.Random(seed)


@test(mounted=False)
def whole_cycle(w, samples):
    s = Distant(w).start()
    disk = samples / "disk.img"
    s.incoming("host1").mkdir()
    sh("cp", disk, s.incoming("host1/vm"))
    same(disk, s.original("host1/vm"))
    with s.adds(64 * KIB):
        sh("cp", disk, s.incoming("host1/vm"))
        s.run("backup", disk, "host1/vm", "--quiet")
    equal(len(s.versions("host1/vm")), 3, "three versions")
    (s.latest("host1/vm") / "tags").write_text("golden\n")
    with open(s.data("host1/vm"), "r+b") as data:
        data.seek(4096)
        data.write(b"x" * 4096)
    equal(s.data("host1/vm").read_bytes()[4096:8192], b"x" * 4096, "the overlay")
    same(disk, s.original("host1/vm"))
    out = w.root / "out"
    s.run("restore", "host1/vm", out)
    same(disk, out)
    (s.latest("host1/vm") / "overlay").write_text("discard\n")
    check(all(key.partition("/")[0] in ("attributes", "backyfs.repository", "drafts", "index", "keys", "ok", "packs", "pins", "spare", "tmp", "versions")
              for key in s.objects()), s.objects())
    free = os.statvfs(s.mnt)
    used = (free.f_blocks - free.f_bfree) * free.f_frsize
    check(0 < used <= s.stored() and free.f_bavail, f"df shows {used} bytes used of {s.stored()} stored")
    s.down()
    # A machine with nothing but the key and the bucket.
    other = Distant(w, "other", prefix=s.below)
    other.key.write_bytes(s.key.read_bytes())
    other.key.chmod(0o600)
    other.up()
    same(disk, other.original("host1/vm"))
    equal((other.latest("host1/vm") / "tags").read_text(), "golden\n", "attributes")
    other.down()
    other.run("rebuild", "--from-packs")
    equal([v["tags"] for v in other.json("ls")], [v["tags"] for v in s.json("ls")], "rebuilt from packs")


@test(mounted=False)
def requests_are_few(w, samples):
    s = Distant(w).start()
    image = noise(w, "noise", 80 * MIB)
    s.proxy.take()
    connections = s.proxy.connections
    sh("cp", image, s.incoming("a"))
    asked = s.asked()
    puts = [what for what in asked if what.startswith("put")]
    # A PUT for each 16 MiB, and a constant: a pack of the map, a fragment, the record, its verdict.
    check(len(puts) <= 80 // 16 + 4, f"{len(puts)} puts: {sorted(puts)}")
    check(len(asked) - len(puts) <= 6, f"beside them: {[what for what in asked if not what.startswith('put')]}")
    check(s.proxy.connections - connections <= 8, f"{s.proxy.connections - connections} new connections")
    connections = s.proxy.connections
    sh("cp", image, s.incoming("a"))
    asked = s.asked()
    check(len(asked) <= 10, f"an unchanged copy: {asked}")
    equal(len([what for what in asked if "packs" in what]), 0, "nothing of packs")
    s.run("backup", image, "a", "--quiet")
    asked = s.asked()
    check(len(asked) <= 10, f"an unchanged backup by command, which opens the repository first: {asked}")
    # With many leaves of the map, and nothing of it in memory.
    large = w.root / "large"
    with open(large, "wb") as f:
        f.truncate(8 * 1024 * MIB)
        for at in range(0, 8 * 1024, 200):
            f.seek(at * MIB)
            f.write(pattern(f"piece {at}", 4096))
    sh("cp", large, s.incoming("large"))
    s.down()
    s.up()
    s.asked()
    sh("cp", large, s.incoming("large"))
    asked = s.asked()
    check(len(asked) <= 10, f"an unchanged copy of many parts: {asked}")
    s.run("backup", large, "large", "--quiet")
    asked = s.asked()
    check(len(asked) <= 10, f"an unchanged backup of many parts: {asked}")
    # Nor of one that is said not to have changed, of which a sample is compared: three parts of the map, and what leads there.
    (w.root / "hints").write_text("[]")
    s.run("backup", large, "large", "--quiet", "--hints", w.root / "hints")
    asked = s.asked()
    check(len([what for what in asked if "packs" in what]) <= 4 and len(asked) <= 14, f"a backup of what has not changed: {asked}")
    large.unlink()
    s.down()
    s.proxy.take()
    s.up()
    asked = s.asked()
    check(len(asked) <= 8, f"a mount: {asked}")
    connections = s.proxy.connections
    same(image, s.original("a"))
    asked = s.asked()
    # Neighbours come together: 320 blocks, in requests of megabytes unless a reader is faster than what is read ahead.
    check(len(asked) <= 80, f"{len(asked)} requests to read 80 MiB")
    check(s.proxy.connections - connections <= 8, f"{s.proxy.connections - connections} new connections")
    s.run("restore", "a", w.root / "out", "--quiet")
    reads = [what for what in s.asked() if what == "get packs"]
    same(image, w.root / "out")
    check(len(reads) <= 80, f"{len(reads)} requests to restore 80 MiB")
    names = [line.split()[0] for line in (s.mnt / "status" / "counters").read_text().splitlines()]
    check({"RequestsPut", "RequestsGet", "RequestsList"} <= set(names), names)


@test(mounted=False)
def kill_9_loses_nothing_acknowledged(w, samples):
    s = Distant(w).start()
    image = noise(w, "noise", 48 * MIB)
    sh("cp", samples / "disk.img", s.incoming("done"))
    fd = os.open(s.incoming("half"), os.O_WRONLY | os.O_CREAT)
    with open(image, "rb") as source:
        os.write(fd, source.read(20 * MIB))
        os.fsync(fd)
        os.write(fd, source.read(8 * MIB))
    s.kill()
    with raises(errno.ENOTCONN, errno.EIO, errno.ECONNABORTED):
        os.write(fd, b"x")
    try:
        os.close(fd)
    except OSError:
        pass
    s.up()
    same(samples / "disk.img", s.original("done"))
    equal(s.versions("half"), [], "half a copy is no backup")
    check(s.incoming("half").stat().st_size >= 20 * MIB, "what was synced is there")
    equal(s.incoming("half").read_bytes()[: 20 * MIB], image.read_bytes()[: 20 * MIB], "what was synced")
    with s.adds(32 * MIB):
        sh("rsync", "--inplace", "--no-whole-file", image, s.incoming("half"))
    same(image, s.original("half"))


@test(mounted=False)
def a_short_outage_is_waited_out(w, samples):
    s = Distant(w).start()
    image = noise(w, "noise", 80 * MIB)
    copy = threading.Thread(target=sh, args=("cp", image, s.incoming("a")))
    copy.start()
    eventually("a pack is on its way", lambda: any(r.kind == "put" and r.below("packs") for r in s.proxy.take()), 30)
    s.proxy.down()
    time.sleep(2.5)
    check(copy.is_alive(), "the copy waits")
    s.proxy.up()
    copy.join(60)
    check(not copy.is_alive(), "the copy goes on")
    same(image, s.original("a"))
    equal(len(s.versions("a")), 1, "one version")


@test(mounted=False)
def a_long_outage_is_an_error_and_the_draft_goes_on_afterwards(w, samples):
    s = Distant(w)
    s.env["BACKYFS_COMMIT_TIMEOUT"] = "12s"
    s.start()
    image = noise(w, "noise", 40 * MIB)
    half = 20 * MIB
    fd = os.open(s.incoming("a"), os.O_WRONLY | os.O_CREAT)
    with open(image, "rb") as source:
        os.write(fd, source.read(half))
        os.fsync(fd)
        s.proxy.down()
        start = time.monotonic()
        with raises(errno.EIO):
            while piece := source.read(MIB):
                os.write(fd, piece)
            os.fsync(fd)
    check(time.monotonic() - start < 60, f"an error after {time.monotonic() - start:.0f} s, the limit is 12 s")
    with raises(errno.EIO):
        os.close(fd)
    equal(s.versions("a"), [], "nothing is published")
    sh("ls", "-lR", s.mnt / "by_name", s.incoming())
    equal(s.incoming("a").stat().st_size, half, "the draft is what was last durable")
    s.proxy.up()
    eventually("it goes on by itself", lambda: _reads(s.incoming("a"), half), 30)
    equal(s.incoming("a").read_bytes(), image.read_bytes()[:half], "the draft's bytes")
    before = s.stored()
    script('dd if="$1" of="$2" bs=1M skip=20 seek=20 conv=notrunc status=none', image, s.incoming("a"))
    same(image, s.original("a"))
    check(s.stored() - before <= 21 * MIB, f"{s.stored() - before} bytes for the second half")
    check("cannot be reached" in s.log(), "the log says why")


def _reads(path, length):
    try:
        return len(path.read_bytes()) == length
    except OSError:
        return False


@test(mounted=False, seconds=240)
def any_fault_now_and_then_changes_nothing(w, samples):
    rnd = seeded()
    s = Distant(w)
    s.env["BACKYFS_S3_TIMEOUT"] = "5s"
    s.start()
    seen = {}

    streaks = {}

    def rule(request):
        # Never three times the same: what is wrong every time is an error, and rightly so.
        about = (request.method, request.path, request.query)
        streaks[about] = streaks.get(about, 0) + 1
        if rnd.random() > 0.2 or streaks[about] % 3 == 0:
            return None
        kind = rnd.choice(TRANSIENT)
        seen[kind] = seen.get(kind, 0) + 1
        if kind == "status" or kind == "lost":
            status, code = rnd.choice([(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests"), (503, ""), (504, "")])
            return Fault(kind, status, code) if kind == "status" or rnd.random() < 0.5 else Fault(kind, 0)
        return Fault(kind, seconds=0.3)

    s.proxy.rule = rule
    images = [samples / "disk.img", noise(w, "noise", 40 * MIB), samples / "small.img"]
    for round, image in enumerate(images):
        sh("cp", image, s.incoming(f"n{round}"))
        same(image, s.original(f"n{round}"))
        (s.latest(f"n{round}") / "tags").write_text("kept\n")
    s.remount()
    for round, image in enumerate(images):
        out = w.root / f"out{round}"
        s.run("restore", f"n{round}", out)
        same(image, out)
    s.proxy.rule = None
    print(f"faults: {seen}")
    check(sum(seen.values()) >= 8, f"too few faults to mean anything: {seen}")
    s.down()
    # Nothing was written twice under other names, and all of it is sound.
    equal(len([key for key in s.objects() if key.startswith("versions/")]), len(images), "versions")
    rebuilt = Distant(w, "rebuilt", prefix=s.below)
    rebuilt.key.write_bytes(s.key.read_bytes())
    rebuilt.key.chmod(0o600)
    rebuilt.run("rebuild", "--from-packs")
    for round, image in enumerate(images):
        rebuilt.run("restore", f"n{round}", w.root / f"again{round}")
        same(image, w.root / f"again{round}")
    damaged = [line for line in s.log().splitlines() if "damaged" in line]
    equal(damaged, [], "what went wrong on the way is not damage")


@test(mounted=False)
def a_put_that_took_effect_but_said_no(w, samples):
    s = Distant(w)
    for status in (500, 0):
        once = set()

        def rule(request):
            if request.kind not in ("put", "delete") or request.path in once:
                return None
            once.add(request.path)
            return Fault("lost", status)

        s.proxy.rule = rule
        name = f"n{status}"
        image = noise(w, name, 3 * MIB)
        if not s.mnt_is_mounted():
            # The header is created, not replaced: the answer was lost, and it is ours all the same.
            s.start()
        sh("cp", image, s.incoming(name))
        same(image, s.original(name))
        equal(len(s.versions(name)), 1, "one version")
        check(len(once) > 3, f"faults: {once}")


@test(mounted=False)
def wrong_bytes_for_ever_are_an_error_and_heal(w, samples):
    s = Distant(w).start()
    image = noise(w, "noise", 3 * MIB)
    sh("cp", image, s.incoming("a"))
    for kind in ("wrong", "cut", "longer", "repeat"):
        s.remount()
        s.proxy.rule = lambda r, kind=kind: Fault(kind) if r.kind == "get" and r.below("packs") and "range" in r.headers else None
        if kind == "repeat":
            s.proxy.rule = None
            s.original("a").open("rb").read(4096)
            s.proxy.rule = lambda r: Fault("repeat") if r.kind == "get" and r.below("packs") else None
            s.remount()
        s.proxy.take()
        start = time.monotonic()
        with raises(errno.EIO):
            s.original("a").read_bytes()
        asked = len([r for r in s.proxy.take() if r.kind == "get"])
        check(time.monotonic() - start < 60 and asked < 200, f"{kind}: {asked} requests in {time.monotonic() - start:.0f} s")
        s.proxy.rule = None
        same(image, s.original("a"))


@test(mounted=False)
def what_stays_is_told_in_one_sentence(w, samples):
    s = Distant(w)
    s.env["BACKYFS_COMMIT_TIMEOUT"] = "5s"
    s.start()
    sh("cp", samples / "small.img", s.incoming("a"))
    target = s.env["BACKYFS_TARGET"]
    start = time.monotonic()
    for expected, env in (
        ("there is no bucket backyfs-none", {"BACKYFS_TARGET": f"s3://backyfs-none/{s.below}"}),
        ("there is no backyfs repository at", {"BACKYFS_TARGET": target + "x"}),
        ("secret key", {"AWS_SECRET_ACCESS_KEY": "wrong"}),
        ("access key is not known", {"AWS_ACCESS_KEY_ID": "nobody"}),
        ("AccessDenied", dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), os.environ["BACKYFS_TEST_S3_GUEST"].split(":")))),
        ("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not", {"AWS_ACCESS_KEY_ID": ""}),
        ("there are no keys", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}),
        ("the endpoint is no address", {"BACKYFS_S3_ENDPOINT": "127.0.0.1"}),
    ):
        text = s.sentence("ls", **env)
        check(expected in text, f"{env}: {text}")
    check(time.monotonic() - start < 20, f"{time.monotonic() - start:.0f} s for errors that stay")
    for fault, expected in (
        (Fault("status", 400, "ExpiredToken"), "have expired"),
        (Fault("status", 403, "RequestTimeTooSkewed", headers=(("Date", "Mon, 23 Nov 2020 00:26:00 GMT"),)), "ahead of the server's"),
        (Fault("status", 301, "PermanentRedirect", headers=(("x-amz-bucket-region", "eu-west-9"),)), "in the region eu-west-9"),
        (Fault("status", 403, "AccessDenied"), "AccessDenied"),
        (Fault("status", 403, ""), "refuses"),
        (Fault("status", 200, ""), "S3 server"),
        (Fault("status", 404, ""), "is it one?"),
    ):
        s.proxy.rule = lambda request: fault
        for argv in (("ls",), ("init",), ("mount", s.root / "nowhere")):
            (s.root / "nowhere").mkdir(exist_ok=True)
            # How often it tries within the second is left to chance, and so is a warning that it goes on trying.
            state = {"BACKYFS_STATE_DIR": str(s.root / "fresh"), "BACKYFS_COMMIT_TIMEOUT": "1s", "BACKYFS_LOG": "error"}
            text = s.sentence(*argv, **state)
            check(expected in text, f"{argv} {fault}: {text}")
        s.proxy.rule = None
    s.proxy.down()
    start = time.monotonic()
    text = s.sentence("ls", code=6)
    check("refused" in text and 1 < time.monotonic() - start < 40, f"{text} after {time.monotonic() - start:.0f} s")
    s.proxy.up()
    # A running mount says the same in its log, and gives errors.
    s.proxy.rule = lambda request: Fault("status", 400, "ExpiredToken")
    done = sh("cp", samples / "disk.img", s.incoming("b"), ok=False)
    check(done.returncode != 0, "a copy with expired credentials")
    s.proxy.rule = None
    check("have expired" in s.log(), "the log names the reason")
    sh("cp", samples / "disk.img", s.incoming("b"))
    same(samples / "disk.img", s.original("b"))


@test(mounted=False)
def a_clock_that_is_wrong(w, samples):
    needs("faketime")
    s = Distant(w).start()
    done = sh("faketime", "-f", "+3h", s.binary, "ls", ok=False, env=s.env)
    text = done.stderr.decode()
    check(done.returncode == 6 and "minutes ahead of the server's" in text and "NTP" in text, f"{done.returncode}: {text}")


@test(mounted=False)
def what_is_not_empty_is_not_taken(w, samples):
    s = Distant(w)
    s.bucket.put(f"{s.below}/holiday.jpg", b"x")
    text = s.sentence("init", code=1)
    check("holiday.jpg" in text, text)
    equal(list(s.objects()), ["holiday.jpg"], "nothing was written")
    s.bucket.delete(f"{s.below}/holiday.jpg")
    s.start()
    check("already holds" in s.sentence("init", code=1), "a second init")
    # A bucket that lost everything is not an empty repository.
    sh("cp", samples / "small.img", s.incoming("a"))
    s.down()
    for key in s.objects():
        s.bucket.delete(f"{s.below}/{key}")
    check("no backyfs repository" in s.sentence("ls"), "an emptied bucket")


@test(mounted=False)
def credentials_are_read_anew_when_they_expire(w, samples):
    s = Distant(w)
    path = s.root / "credentials"

    def write(access, secret):
        path.write_text(f"[backup]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")

    write(s.bucket.access, s.bucket.secret)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del s.env[name]
    s.env |= {"BACKYFS_S3_CREDENTIALS_FILE": str(path), "BACKYFS_S3_PROFILE": "backup", "BACKYFS_COMMIT_TIMEOUT": "60s"}
    s.start()
    sh("cp", samples / "small.img", s.incoming("a"))
    old = f"Credential={s.bucket.access}/"
    s.proxy.rule = lambda r: Fault("status", 400, "ExpiredToken") if old in r.headers.get("authorization", "") else None
    # Whoever only looks is told at once; a writer waits until somebody has renewed them.
    start = time.monotonic()
    check("have expired" in s.sentence("ls", code=6) and time.monotonic() - start < 10, "a command says so at once")
    copy = threading.Thread(target=sh, args=("cp", samples / "disk.img", s.incoming("b")))
    copy.start()
    eventually("the log says why it waits", lambda: "have expired" in s.log(), 30)
    check(copy.is_alive(), "the copy waits")
    write(*os.environ["BACKYFS_TEST_S3_SECOND"].split(":"))
    copy.join(50)
    check(not copy.is_alive(), "the copy goes on")
    same(samples / "disk.img", s.original("b"))
    equal(len(s.versions("b")), 1, "one version")
    check("geheim" not in s.everything_said(), "a secret was shown")


@test(mounted=False)
def tls_with_a_certificate_of_our_own(w, samples):
    url, ca = os.environ["BACKYFS_TEST_S3_TLS"], os.environ["BACKYFS_TEST_S3_CA"]
    endpoint = "https://" + url.split("@")[1]
    s = Distant(w, endpoint=endpoint)
    start = time.monotonic()
    text = s.sentence("init", code=6)
    check("certificate" in text.lower() or "issuer" in text.lower(), text)
    check(time.monotonic() - start < 40, "a certificate that is not trusted")
    other = noise(w, "other", 100)
    check("no certificate" in s.sentence("init", BACKYFS_S3_CA_FILE=str(other)), "a file that is no certificate")
    config = s.root / "c.toml"
    config.write_text(f"[s3]\nca-file = {ca!r}\n")
    s.env["BACKYFS_CONFIG"] = str(config)
    s.start()
    sh("cp", samples / "disk.img", s.incoming("a"))
    same(samples / "disk.img", s.original("a"))


@test(mounted=False)
def the_bucket_in_the_name_of_the_host(w, samples):
    """As AWS has it; and packs in a storage class of the server's, which nothing else is in."""
    name, port = os.environ["BACKYFS_TEST_S3_NAME"], os.environ["BACKYFS_TEST_S3"].rpartition(":")[2]
    s = Distant(w, endpoint=f"http://{name}:{port}")
    hosts = s.root / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {name} {s.bucket.name}.{name}\n")
    s.env |= {"BACKYFS_S3_STYLE": "virtual", "BACKYFS_S3_STORAGE_CLASS": "COLD"}
    alone = ("unshare", "--mount", "--propagation", "private", "bash", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts, s.binary)
    for words in (("init",), ("backup", samples / "disk.img", "vm"), ("restore", "vm", s.root / "out")):
        sh(*alone, *words, "--quiet", env=s.env)
    same(samples / "disk.img", s.root / "out")
    classes = s.bucket.classes(s.below + "/").items()
    equal({(key.startswith(f"{s.below}/packs/"), kind) for key, kind in classes}, {(True, "COLD"), (False, "STANDARD")}, "storage classes")


@test(mounted=False)
def secrets_are_shown_nowhere(w, samples):
    s = Distant(w)
    s.env["BACKYFS_LOG"] = "trace"
    s.env["BACKYFS_COMMIT_TIMEOUT"] = "5s"
    config = s.root / "c.toml"
    config.write_text(f"[s3]\naccess-key = '{s.bucket.access}'\nsecret-key = '{s.bucket.secret}'\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del s.env[name]
    s.env["BACKYFS_CONFIG"] = str(config)
    config.chmod(0o644)
    check("chmod 600" in s.sentence("init", code=1), "a configuration that all can read")
    config.chmod(0o600)
    said = s.run("init", "-vv").stderr.decode()
    s.run("mount", "-vv", s.mnt)
    sh("cp", samples / "disk.img", s.incoming("a"))
    s.proxy.rule = lambda request: Fault("status", 403, "SignatureDoesNotMatch", message="the server's own words")
    sh("cp", samples / "small.img", s.incoming("b"), ok=False)
    s.proxy.rule = None
    said += s.everything_said() + s.run("status", "-vv").stderr.decode() + s.run("ls", "-vv").stdout.decode()
    check("version" in said, "something was said")
    check(s.bucket.secret not in said, "the secret key was shown")
    check("Signature=" not in said, "a signature was shown")
    for argv in (("ls", "-o", f"s3-secret-key={s.bucket.secret}"), ("ls", f"--s3-secret-key={s.bucket.secret}")):
        done = s.run(*argv, ok=False)
        check(done.returncode == 1, f"{argv[0]} with a secret on the command line: {done.returncode}")
    done = s.run("mount", "-o", f"s3-secret-key={s.bucket.secret}", s.root / "elsewhere", ok=False)
    check(done.returncode == 1 and s.bucket.secret.encode() not in done.stderr, done.stderr)


@test(mounted=False)
def bandwidth_is_limited_and_changes_while_mounted(w, samples):
    s = Distant(w)
    s.env["BACKYFS_UPLOAD_LIMIT"] = "4M"
    s.start()
    limit = s.mnt / "status" / "upload-limit"
    equal(limit.read_text(), "4194304\n", "as set")
    image = noise(w, "noise", 12 * MIB)
    start = time.monotonic()
    sh("cp", image, s.incoming("a"))
    took = time.monotonic() - start
    check(2.5 < took < 10, f"12 MiB at 4 MiB/s took {took:.1f} s")
    with raises(errno.EINVAL):
        limit.write_text("fast\n")
    limit.write_text("1M\n")
    copy = threading.Thread(target=sh, args=("cp", noise(w, "more", 12 * MIB), s.incoming("b")))
    start = time.monotonic()
    copy.start()
    time.sleep(2)
    check(copy.is_alive(), "slower than before")
    limit.write_text("none\n")
    copy.join(8)
    check(not copy.is_alive(), "faster at once")
    check("upload-limit = \"none\"" in (s.mnt / "status" / "config").read_text(), "status/config")
    (s.mnt / "status" / "download-limit").write_text("4M\n")
    s.remount()
    (s.mnt / "status" / "download-limit").write_text("4M\n")
    start = time.monotonic()
    same(image, s.original("a"))
    took = time.monotonic() - start
    check(2 < took < 10, f"12 MiB at 4 MiB/s took {took:.1f} s")


@test(mounted=False)
def many_versions_cost_no_more_requests(w, samples):
    s = Distant(w).start()
    for i in range(24):
        s.incoming(f"n{i % 4}").write_bytes(pattern(i, 5000))
    s.proxy.take()
    s.incoming("n0").write_bytes(pattern("last", 5000))
    publishing = s.asked()
    check(len(publishing) <= 10, f"a version among many: {publishing}")
    s.down()
    s.up()
    starting = s.asked()
    check(len(starting) <= 8, f"a mount among many: {starting}")
    # Nothing is read again that is known.
    equal([what for what in starting if what in ("get versions", "get index")], [], "known objects")


@test(mounted=False)
def silence_is_given_up_and_asked_again(w, samples):
    s = Distant(w)
    s.env["BACKYFS_S3_TIMEOUT"] = "2s"
    s.start()
    silent = set()

    def rule(request):
        what = (request.kind, request.below("packs"))
        if what in silent or request.kind == "delete":
            return None
        silent.add(what)
        return Fault("hang", seconds=8)

    s.proxy.rule = rule
    image = noise(w, "noise", 3 * MIB)
    start = time.monotonic()
    sh("cp", image, s.incoming("a"))
    s.remount()
    same(image, s.original("a"))
    took = time.monotonic() - start
    check(len(silent) >= 4 and took < 60, f"{took:.0f} s with silence instead of {silent}")
    equal(len(s.versions("a")), 1, "one version")


@test(mounted=False)
def lists_of_yesterday_delay_and_lose_nothing(w, samples):
    s = Distant(w).start()
    images = {name: noise(w, name, 2 * MIB) for name in ("first", "second", "third")}
    sh("cp", images["first"], s.incoming("vm"))
    other = Distant(w, "other", prefix=s.below)
    other.key.write_bytes(s.key.read_bytes())
    other.key.chmod(0o600)
    other.run("refresh")
    s.run("refresh")
    # From here on both are shown lists as they were.
    for host in (s, other):
        host.proxy.rule = lambda request: Fault("stale") if request.kind == "list" else None
    sh("cp", images["second"], s.incoming("vm"))
    other.run("backup", images["third"], "vm", "--quiet")
    for host in (s, other):
        host.run("refresh")
    same(images["second"], s.original("vm"))
    # Where a list begins changes with what is known, so some are new after all.
    check(len(s.versions("vm")) >= 2, "what was written here is not forgotten")
    check(len(other.json("ls")) >= 2, "nor there")
    for host in (s, other):
        host.proxy.rule = None
        host.run("refresh")
    equal([v["uid"] for v in s.json("ls")], [v["uid"] for v in other.json("ls")], "they agree")
    equal(len(s.versions("vm")), 3, "all are there")
    for version, name in zip(s.json("ls"), images):
        other.run("restore", version["uid"], w.root / f"out-{name}", "--quiet")
        same(images[name], w.root / f"out-{name}")
