"""Buckets with rules of their own: who may do what, versions that are kept, locks; and how much is asked of a server at a time."""

import json
import os
import re
import secrets
from contextlib import contextmanager
from pathlib import Path

from distant import noise
from lab.bucket import Bucket
from lab.case import test
from lab.distant import Distant
from lab.proxy import Fault
from lab.shell import MIB, check, equal, same, sh

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "targets.md"


@contextmanager
def own_bucket(**headers):
    """A bucket that nobody else uses. It goes with what is in it; what is locked stays until its server does."""
    bucket = Bucket(f"backyfs-{secrets.token_hex(6)}", {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        yield bucket
    finally:
        for key in bucket.list():
            bucket.delete(key)
        bucket.ask("DELETE", "")


def documented_policy(bucket, below):
    """The smallest policy of docs/targets.md, for this bucket and prefix, as a policy of the bucket for the guest."""
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    text = next(block for block in blocks if '"Statement"' in block)
    policy = json.loads(text.replace("my-backups", bucket.name).replace("vmhost1", below))
    for statement in policy["Statement"]:
        statement["Principal"] = {"AWS": ["arn:aws:iam:::user/guest"]}
    return policy


def permit(bucket, policy):
    status, body = bucket.ask("PUT", "", {"policy": ""}, json.dumps(policy).encode())
    check(status in (200, 204), f"the policy is refused: {status} {body[:300]}")


def guest():
    return os.environ["BACKYFS_TEST_S3_GUEST"].split(":")


def guest_keys():
    return dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), guest()))


def asked_as_guest(bucket, *request):
    """Status of a request of the guest."""
    owner = bucket.access, bucket.secret
    bucket.access, bucket.secret = guest()
    try:
        return bucket.ask(*request)[0]
    finally:
        bucket.access, bucket.secret = owner


@test(mounted=False)
def the_smallest_policy_is_enough(w, samples):
    disk, small = samples / "disk.img", samples / "small.img"
    with own_bucket() as bucket:
        s = Distant(w, prefix="hosts/vmhost1", bucket=bucket)
        policy = documented_policy(bucket, s.below)
        permit(bucket, policy)
        bucket.put("elsewhere", b"of others")
        s.env |= guest_keys()
        s.start()
        # Everything that a host does.
        sh("cp", disk, s.incoming("vm"))
        sh("cp", small, s.incoming("old"))
        same(disk, s.original("vm"))
        (s.latest("vm") / "tags").write_text("golden\n")
        s.run("rm", "--force", s.uid("old"))
        sh("cp", disk, s.incoming("vm"))
        s.run("scrub", "--quiet")
        s.remount()
        s.down()
        s.run("gc", "--quiet")
        s.run("key", "list")
        s.run("rekey")
        s.run("repair", "--quiet")
        s.run("rebuild")
        s.run("restore", "vm", w.root / "out", "--quiet")
        same(disk, w.root / "out")
        equal([v["tags"] for v in s.json("ls", "vm")][0], ["golden"], "attributes")
        # It is the smallest: what is beside the prefix is none of this user's business.
        equal(asked_as_guest(bucket, "GET", "elsewhere"), 403, "an object of others")
        equal(asked_as_guest(bucket, "GET", "", {"list-type": "2"}), 403, "a list of everything")
        equal(asked_as_guest(bucket, "PUT", "hosts/other/x", None, b"x"), 403, "an object elsewhere")
        # Who may only read lists, mounts and restores.
        policy["Statement"][0]["Action"] = ["s3:GetObject"]
        permit(bucket, policy)
        before = s.objects()
        reader = Distant(w, "reader", prefix=s.below, bucket=bucket)
        reader.env |= guest_keys()
        reader.key.write_bytes(s.key.read_bytes())
        reader.key.chmod(0o600)
        equal(len(reader.json("ls", "vm")), 2, "versions that a reader sees")
        (w.root / "out").unlink()
        reader.run("restore", "vm", w.root / "out", "--quiet")
        same(disk, w.root / "out")
        text = reader.sentence("backup", small, "new")
        check("AccessDenied" in text, text)
        text = reader.sentence("rm", "--force", reader.json("ls", "vm")[0]["uid"])
        check("AccessDenied" in text, text)
        reader.up("-o", "ro")
        same(disk, reader.original("vm"))
        reader.down()
        equal(s.objects(), before, "what a reader left")


@test(mounted=False)
def versions_that_a_bucket_keeps_and_locks(w, samples):
    """With Object Lock a bucket keeps versions, too; a default retention holds for whatever is stored."""
    disk = samples / "disk.img"
    with own_bucket(x_amz_bucket_object_lock_enabled="true") as bucket:
        rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
        status, body = bucket.ask("PUT", "", {"object-lock": ""}, rule.encode())
        check(status == 200, f"no lock: {status} {body[:300]}")
        s = Distant(w, bucket=bucket).start()
        sh("cp", disk, s.incoming("vm"))
        sh("cp", samples / "small.img", s.incoming("old"))
        packs = {key for key in bucket.list(s.below) if "/packs/" in key}
        check(packs, "packs")
        # A thief with the keys of the host: everything is removed, and collected.
        for name in ("vm", "old"):
            s.run("rm", "--force", s.uid(name))
        s.down()
        s.run("gc", "--quiet")
        left = {key for key in bucket.list(s.below) if "/packs/" in key}
        check(not left & packs, f"packs that were collected are shown: {left & packs}")
        kept = bucket.versions(s.below)
        check(packs <= set(kept), f"packs are gone: {packs - set(kept)}")
        check(all(kept[key] == 1 for key in packs), f"a pack was written twice: {kept}")
        # The repository goes on as anywhere.
        s.up()
        sh("cp", disk, s.incoming("vm"))
        same(disk, s.original("vm"))
        s.run("scrub", "--quiet")
        s.down()
        s.run("gc", "--quiet")
        s.run("restore", "vm", w.root / "out", "--quiet")
        same(disk, w.root / "out")


@test(mounted=False)
def no_more_requests_at_a_time_than_wanted(w, samples):
    image = noise(w, "noise", 160 * MIB)
    most = {}
    for wanted in (2, 6):
        s = Distant(w, f"at{wanted}")
        # Packs wait in memory: with little, fewer are on their way.
        s.env |= {"BACKYFS_S3_CONCURRENCY": str(wanted), "BACKYFS_MEMORY": "1G"}
        s.start()
        s.proxy.rule = lambda request: Fault("slow", seconds=0.6) if request.below("packs") else None
        s.proxy.most.clear()
        sh("cp", image, s.incoming("a"))
        puts = s.proxy.most["put"]
        s.down()
        s.proxy.most.clear()
        s.run("restore", "a", w.root / f"out{wanted}", "--quiet")
        same(image, w.root / f"out{wanted}")
        (w.root / f"out{wanted}").unlink()
        most[wanted] = puts, s.proxy.most["get"]
        check(max(most[wanted]) <= wanted, f"{wanted} requests at a time: {most}")
    equal(most[2], (2, 2), "as many as wanted")
    check(min(most[6]) > 2, f"more when more are wanted: {most}")


@test(mounted=False)
def memory_stays_within_the_budget(w, samples):
    """A server that is slower than whoever copies: what waits for it is bounded."""
    image = noise(w, "noise", 512 * MIB)
    peaks = {}
    for memory in ("64M", "256M"):
        s = Distant(w, f"with{memory}")
        s.env["BACKYFS_MEMORY"] = memory
        s.start()
        s.proxy.rule = lambda request: Fault("slow", seconds=0.2) if request.below("packs") else None
        sh("cp", image, s.incoming("a"))
        s.proxy.rule = None
        wrote = largest(s)
        s.remount()
        same(image, s.original("a"))
        peaks[memory] = wrote, largest(s)
        s.down()
    print(f"largest resident set in MiB, writing and reading: {peaks}")
    check(max(peaks["64M"]) <= 64 * 2 and max(peaks["256M"]) <= 256 * 1.5, f"MiB: {peaks}")


def largest(s):
    """The largest resident set that the daemon ever had, in MiB (proc(5))."""
    status = Path(f"/proc/{s.pid()}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024
