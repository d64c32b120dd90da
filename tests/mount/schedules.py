"""Schedules: what is tagged by itself and when, what is due and late, and what `prune` deletes and spares."""

import os
import subprocess
import time

from lab.case import test
from lab.shell import check, equal, eventually, sh

QUICK = """
schedules = ["daily", "weekly"]

[schedule.quick]
interval = "2s"
keep = 1
sla = "1s"

[names."quick*"]
schedules = ["quick"]

[names."none"]
"""


def configured(w, text=QUICK, **env):
    """Starts the world with a configuration file."""
    config = w.root / "backyfs.toml"
    config.write_text(text)
    w.env |= {"BACKYFS_CONFIG": str(config), "BACKYFS_TIME_ZONE": "UTC"} | env
    return w.start()


# Opens, writes, closes, and goes on living: until it ends it may say that it failed.
LINGERS = 'exec 3> "$2"; cat "$1" >&3; exec 3>&-; eval "$3"'


def linger(w, samples, name, then):
    """A writer that does something else after its close."""
    return subprocess.Popen(["bash", "-c", LINGERS, "bash", samples / "small.img", w.incoming(name), then])


def tags(w, name):
    return (w.latest(name) / "tags").read_text().split()


def tagged(w, name, expected):
    eventually(f"{name} is tagged {expected}", lambda: tags(w, name) == expected, 20)


@test(mounted=False)
def the_mount_tags_when_the_writer_is_gone(w, samples):
    configured(w)
    writer = linger(w, samples, "vm", "sleep 3")
    eventually("the version is there", lambda: w.uid("vm") is not None)
    time.sleep(1)
    equal(tags(w, "vm"), [], "not while its writer could still fail")
    writer.wait()
    tagged(w, "vm", ["daily", "weekly"])
    expire = (w.latest("vm") / "expire").read_text()
    row = w.json("ls", "vm")[0]
    equal((row["tags"], row["expire"] + "\n"), (["daily", "weekly"], expire), "ls says so too")
    check(row["expire"][:10] > row["created"][:10], "it expires some day")
    # The second of the day is for no schedule, and neither is one of a name without any.
    with open(w.incoming("vm"), "r+b") as f:
        f.write(b"changed")
    sh("cp", samples / "small.img", w.incoming("none"))
    time.sleep(2)
    equal([r["tags"] for r in w.json("ls", "vm")], [["daily", "weekly"], []], "one of two is tagged")
    equal((tags(w, "none"), (w.latest("none") / "expire").read_text()), ([], "\n"), "no schedules, no tags")
    equal([r["name"] for r in w.json("due")], [], "nothing is due")


@test(mounted=False)
def renamed_and_linked_copies_are_tagged(w, samples):
    configured(w)
    sh("cp", samples / "small.img", w.incoming(".vm.part"))
    time.sleep(1.5)
    equal(w.json("ls"), [], "a temporary name is no version")
    sh("mv", w.incoming(".vm.part"), w.incoming("vm"))
    tagged(w, "vm", ["daily", "weekly"])
    sh("cp", "--sparse=never", w.original("vm"), w.incoming("copied"))
    tagged(w, "copied", ["daily", "weekly"])
    sh("ln", w.latest("vm") / "data", w.incoming("linked"))
    tagged(w, "linked", ["daily", "weekly"])


@test(mounted=False)
def who_fails_gets_no_tag_and_who_tags_is_not_corrected(w, samples):
    configured(w)
    linger(w, samples, "vm", "exit 1").wait()
    eventually("it is incomplete", lambda: [r["valid"] for r in w.json("ls", "vm")] == ["incomplete"])
    time.sleep(1.5)
    equal([r["tags"] for r in w.json("ls", "vm")], [[]], "an incomplete version counts for nothing")
    sh("cp", samples / "disk.img", w.incoming("vm"))
    tagged(w, "vm", ["daily", "weekly"])
    linger(w, samples, "own", f"echo mine > {w.latest('own')}/tags").wait()
    time.sleep(1.5)
    equal(tags(w, "own"), ["mine"], "what a person says stands")
    linger(w, samples, "until", f"echo 2040-01-01 > {w.latest('until')}/expire").wait()
    tagged(w, "until", ["daily", "weekly"])
    check((w.latest("until") / "expire").read_text().startswith("2040-01-01"), "who sets an expiry says nothing of tags")


@test(mounted=False)
def a_killed_daemon_loses_no_tag(w, samples):
    configured(w)
    writer = linger(w, samples, "vm", "exec sleep 150")
    try:
        eventually("the version is there", lambda: w.uid("vm") is not None)
        w.crash()
        equal(tags(w, "vm"), [], "nobody knows yet whether its writer fails")
        # A minute after it was made nobody is waited for.
        eventually("the next daemon tags it", lambda: tags(w, "vm") == ["daily", "weekly"], 75)
    finally:
        writer.kill()
        writer.wait()


@test(mounted=False)
def backup_tags_at_once_and_explicit_words_win(w, samples):
    configured(w)
    image = samples / "small.img"
    w.run("backup", image, "vm")
    w.run("backup", image, "mine", "--tag", "golden")
    w.run("backup", image, "until", "--expire", "2040-01-01")
    w.run("backup", image, "ever", "--expire", "never")
    rows = {r["name"]: r for r in w.json("ls")}
    equal(rows["vm"]["tags"], ["daily", "weekly"], "what is due")
    check(rows["vm"]["expire"] > rows["vm"]["created"], "and its expiry")
    equal((rows["mine"]["tags"], rows["mine"]["expire"]), (["golden"], None), "--tag replaces both")
    equal((rows["until"]["tags"], rows["until"]["expire"]), (["daily", "weekly"], "2040-01-01T00:00:00Z"), "--expire replaces the expiry")
    equal((rows["ever"]["tags"], rows["ever"]["expire"]), (["daily", "weekly"], None), "never is an expiry, too")
    due = w.json("due")
    equal([(r["name"], r["tags"], [s["reason"] for s in r["schedules"]]) for r in due], [("mine", ["daily", "weekly"], ["there is none yet"] * 2)], "due")
    equal(w.json("due", "--schedule", "daily")[0]["tags"], ["daily"], "one schedule")
    check((w.mnt / "status" / "due").read_text().startswith("daily,weekly "), "in the mount")
    check(w.run("due", "--schedule", "dayly", ok=False).returncode == 1, "a schedule that is none")


@test(mounted=False)
def what_is_late_has_its_exit_code(w, samples):
    configured(w)
    equal(w.run("sla").returncode, 0, "no names, no promises")
    w.run("backup", samples / "small.img", "quick1")
    equal(w.run("sla").returncode, 0, "just made")
    time.sleep(4)
    late = w.run("sla", "--json", ok=False)
    equal(late.returncode, 3, "late")
    check(b'"late"' in late.stdout and b'"by_seconds": 1' in late.stdout, late.stdout)
    check((w.mnt / "status" / "sla").read_text().startswith("late quick quick1: late by "), "in the mount")
    w.run("backup", samples / "small.img", "quick1")
    after = w.run("sla", ok=False)
    equal(after.returncode, 4, "what is past is another code")
    check(b"gap" in after.stdout, after.stdout)


@test(mounted=False)
def prune_plans_then_deletes_and_says_why(w, samples):
    configured(w, BACKYFS_PROTECT_YOUNGER="0")
    image = samples / "small.img"
    first = w.run("backup", image, "quick1").stdout.decode().strip()
    only = w.run("backup", image, "quick2").stdout.decode().strip()
    chosen = w.run("backup", image, "once", "--tag", "mine", "--expire", "2020-01-01").stdout.decode().strip()
    safe = w.run("backup", image, "safe", "--tag", "mine", "--expire", "2020-01-01").stdout.decode().strip()
    used = w.run("backup", image, "used", "--tag", "mine", "--expire", "2020-01-01").stdout.decode().strip()
    w.run("protect", safe)
    with open(w.by_version(used) / "data", "r+b") as f:
        f.write(b"scribble")
    time.sleep(5)
    last = w.run("backup", image, "quick1").stdout.decode().strip()
    plan = {r["uid"]: (r["action"], r["reason"]) for r in w.json("prune", "--dry-run")}
    equal({u: a for u, (a, _) in plan.items()}, {first: "delete", last: "keep", only: "spare", chosen: "delete", safe: "spare", used: "spare"}, "the plan")
    check("newest good version" in plan[only][1] and "protected" in plan[safe][1] and "overlay of" in plan[used][1], plan)
    equal(len(w.json("ls")), 6, "a dry run deletes nothing")
    told = (w.mnt / "status" / "prune").read_text()
    check(told.count("\n") == 6 and f"delete {first}" in told and f"keep {last}" in told, told)
    w.run("prune")
    equal(sorted(r["uid"] for r in w.json("ls")), sorted([last, only, safe, used]), "gone is what was to go")
    equal(sorted(os.listdir(w.by_version())), sorted([last, only, safe, used]), "in the mount as well")
    equal([r["action"] for r in w.json("prune") if r["action"] == "delete"], [], "pruning again deletes nothing")


@test(mounted=False)
def young_ones_are_spared_by_every_way(w, samples):
    configured(w, BACKYFS_PROTECT_YOUNGER="1h")
    uid = w.run("backup", samples / "small.img", "a", "--tag", "mine", "--expire", "2020-01-01").stdout.decode().strip()
    row = w.json("prune", "--dry-run")[0]
    equal(row["action"], "spare", "young")
    check("kept for 1h at least" in row["reason"], row)
    w.run("prune")
    check(w.run("rm", uid, ok=False).returncode == 1, "rm")
    check(sh("rmdir", w.by_version(uid), ok=False).returncode != 0, "rmdir")
    equal(len(w.json("ls")), 1, "still there")


@test(mounted=False)
def keep_rules_thin_out(w, samples):
    configured(w, 'keep = "latest2"\n', BACKYFS_PROTECT_YOUNGER="0")
    uids = [w.run("backup", samples / "small.img", "a").stdout.decode().strip() for _ in range(4)]
    w.run("expire", uids[0], "2040-01-01")
    w.run("prune")
    equal([r["uid"] for r in w.json("ls")], [uids[0], uids[2], uids[3]], "an expiry is its own rule")
    w.run("prune", "a", "--rules", "latest1")
    equal([r["uid"] for r in w.json("ls")], [uids[0], uids[3]], "other rules for once")
    check(w.run("prune", "--rules", "latest", ok=False).returncode == 1, "rules that are none")


@test(mounted=False)
def an_overlay_of_another_host_holds_a_version(w, samples):
    w.env["BACKYFS_PROTECT_YOUNGER"] = "0"
    w.start()
    sh("cp", samples / "small.img", w.incoming("a"))
    with open(w.data("a"), "r+b") as f:
        f.write(b"scribble")
    other = {"BACKYFS_STATE_DIR": str(w.root / "other")}
    uid = w.uid("a")
    refused = w.run("rm", uid, ok=False, env=other)
    check(refused.returncode == 1 and b"in use on host" in refused.stderr, refused.stderr)
    w.run("rm", "--force", uid, env=other)
    equal((w.by_version(uid) / "data").read_bytes()[:8], b"scribble", "it stays readable where it was written")
