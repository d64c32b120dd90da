"""Damage on the target: a flipped bit or a missing object is local, loud, and never a wrong byte."""

import json
import os
import random
import shutil

from lab.case import test
from lab.shell import KIB, MIB, check, digest, equal, eventually, same, sh

STEP = 64 * KIB


def files_of(w, *kinds):
    """Objects on the target in a fixed order; with kinds, only those below these directories."""
    found = sorted(p for p in w.repo.rglob("*") if p.is_file())
    return [p for p in found if not kinds or p.relative_to(w.repo).parts[0] in kinds]


def flip(path, offset, bit=0x10):
    """Flips one bit in place; twice is as before."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ bit]))
    path.chmod(mode)


def unreadable(path, source):
    """Offsets of 64 KiB pieces that cannot be read; anything read must be right."""
    bad = []
    with open(source, "rb") as a, open(path, "rb", buffering=0) as b:
        for offset in range(0, source.stat().st_size, STEP):
            want = a.read(STEP)
            try:
                got = os.pread(b.fileno(), STEP, offset)
            except OSError:
                bad.append(offset)
                continue
            check(got == want, f"wrong bytes at {offset} of {path}")
    return bad


@test
def a_flipped_bit_in_a_pack_touches_one_block(w, samples):
    disk = samples / "disk.img"
    sh("cp", disk, w.incoming("d"))
    seed = int(os.environ.get("BACKYFS_TEST_SEED", "1"))
    rnd = random.Random(seed)
    packs = max(files_of(w, "packs"), key=lambda p: p.stat().st_size)
    for _ in range(4):
        offset = rnd.randrange(200, packs.stat().st_size - 9000)
        w.down()
        flip(packs, offset)
        w.up()
        bad = unreadable(w.original("d"), disk)
        check(len(bad) <= 4 * MIB // STEP, f"seed {seed}, {packs.name} at {offset}: {len(bad)} pieces unreadable")
        if bad:
            log = "".join(p.read_text(errors="replace") for p in w.root.rglob("*.log"))
            check(w.uid("d") in log or packs.name in log, "the log names it")
            out = w.root / "out"
            done = w.run("restore", "d", out, ok=False)
            check(done.returncode != 0 and done.stderr.strip(), "restore fails and says why")
            check(not out.exists(), "nothing half bears its name")
            w.root.joinpath("out.backyfs-part").unlink(missing_ok=True)
        w.down()
        flip(packs, offset)
        w.up()
        same(disk, w.original("d"))


@test
def damage_is_never_deduplicated_against(w, samples):
    disk = samples / "disk.img"
    sh("cp", disk, w.incoming("d"))
    pack = max(files_of(w, "packs"), key=lambda p: p.stat().st_size)
    w.down()
    flip(pack, pack.stat().st_size // 2)
    w.up()
    bad = unreadable(w.original("d"), disk)
    check(bad, "the damage shows")
    sh("cp", disk, w.incoming("d"))
    same(disk, w.original("d"))
    w.remount()
    same(disk, w.original("d"))


@test
def what_readers_meet_is_marked_and_healed(w, samples):
    disk = samples / "disk.img"
    sh("cp", disk, w.incoming("d"))
    first = w.latest("d")
    pack = max(files_of(w, "packs"), key=lambda p: p.stat().st_size)
    w.down()
    flip(pack, pack.stat().st_size // 2)
    w.up()
    check(unreadable(first / "original", disk), "the damage shows")
    eventually("the version is marked", lambda: (first / "valid").read_text().startswith("invalid: damage: "), 40)
    done = w.run("scrub", ok=False)
    check(done.returncode == 20 and pack.name in done.stdout.decode(), f"scrub names it: {done.stdout}")
    check(pack.name in (w.mnt / "status" / "scrub").read_text(), "status/scrub shows it")
    sh("cp", disk, w.incoming("d"))
    w.run("scrub")
    equal((first / "valid").read_text(), "valid\n", "healed")
    w.remount()
    same(disk, first / "original")


@test
def a_missing_pack_is_local(w, samples):
    small, disk = samples / "small.img", samples / "disk.img"
    sh("cp", small, w.incoming("s"))
    first = set(files_of(w, "packs"))
    sh("cp", disk, w.incoming("d"))
    w.down()
    for pack in set(files_of(w, "packs")) - first:
        pack.unlink()
    w.up()
    same(small, w.original("s"))
    done = w.run("restore", "d", w.root / "out", ok=False)
    check(done.returncode != 0 and done.stderr.strip(), "restore says why")
    sh("cp", small, w.incoming("s2"))
    same(small, w.original("s2"))


def _state_of(w, samples, what):
    """Lists and restores everything with an empty state directory; returns (exit codes, what was restored right)."""
    shutil.rmtree(w.state, ignore_errors=True)
    listed = w.run("ls", "--json", ok=False)
    if listed.returncode != 0:
        check(listed.stderr.strip(), f"{what}: ls fails without a word")
        return "refused"
    rows = json.loads(listed.stdout)
    said = bool(listed.stderr.strip())
    right = 0
    for row in rows:
        out = w.root / "out"
        w.root.joinpath("out.backyfs-part").unlink(missing_ok=True)
        done = w.run("restore", row["uid"], out, ok=False)
        said |= bool(done.stderr.strip())
        if done.returncode == 0:
            source = samples / ("disk.img" if row["name"] == "d" else "small.img")
            equal(digest(out), digest(source), f"{what}: restored {row['name']}")
            right += 1
        out.unlink(missing_ok=True)
    return "whole" if right == 2 else ("said" if said else "silent")


@test(seconds=900)
def a_flipped_bit_in_every_kind_of_object(w, samples):
    sh("cp", samples / "small.img", w.incoming("s"))
    sh("cp", samples / "disk.img", w.incoming("d"))
    (w.latest("s") / "tags").write_text("t\n")
    (w.latest("s") / "protected").write_text("1\n")
    with open(w.data("s"), "r+b") as f:
        f.write(b"pin")
        os.fsync(f.fileno())
    sh("cp", samples / "small.img", w.incoming(".draft"))
    w.down()
    seed = int(os.environ.get("BACKYFS_TEST_SEED", "1"))
    rnd = random.Random(seed)
    kinds = {}
    for path in files_of(w):
        parts = path.relative_to(w.repo).parts
        kind = parts[0] if len(parts) == 1 or parts[0] not in ("keys", "spare") else f"{parts[0]}/{parts[1].split('-')[0]}"
        kinds.setdefault(kind, []).append(path)
    check({"packs", "index", "versions"} <= set(kinds), f"kinds found: {sorted(kinds)}")
    outcome = {}
    for kind, paths in kinds.items():
        for path in rnd.sample(paths, min(2, len(paths))):
            size = path.stat().st_size
            if size == 0:
                continue
            for offset in sorted({0, size - 1, rnd.randrange(size), rnd.randrange(size)}):
                what = f"seed {seed}: {path.relative_to(w.repo)} at {offset} of {size}"
                bit = 1 << rnd.randrange(8)
                flip(path, offset, bit)
                damaged = path.read_bytes()
                result = _state_of(w, samples, what)
                equal(path.exists() and path.read_bytes() == damaged, True, f"{what}: reading changes nothing")
                flip(path, offset, bit)
                check(result != "silent", f"{what}: a version is gone without a word")
                outcome.setdefault(kind, set()).add(result)
    equal(_state_of(w, samples, "healed"), "whole", "everything is there when the bits are back")
    # Blocks of a pack are only ever read after they were authenticated, so nothing but these may differ.
    check(outcome["versions"] <= {"refused", "said"}, f"a damaged version record was taken: {outcome}")


@test
def restoring_past_damage_says_what_it_zeroed(w, samples):
    disk, out = samples / "disk.img", w.root / "out"
    sh("cp", disk, w.incoming("d"))
    pack = max(files_of(w, "packs"), key=lambda p: p.stat().st_size)
    w.down()
    flip(pack, pack.stat().st_size // 2)
    done = w.run("restore", "d", out, ok=False)
    check(done.returncode == 20 and done.stderr.strip(), f"refused as damaged: {done.returncode} {done.stderr}")
    check(not out.exists(), "nothing half bears its name")
    done = w.run("restore", "--skip-damaged", "--continue", "d", out, ok=False)
    said = (done.stdout + done.stderr).decode()
    content, want = out.read_bytes(), disk.read_bytes()
    equal(len(content), len(want), "size")
    wrong = [at for at in range(0, len(want), 4 * KIB) if content[at : at + 4 * KIB] != want[at : at + 4 * KIB]]
    check(wrong and not any(content[at + i] for at in wrong for i in range(4 * KIB) if at + i < len(content)), "zeros, nothing else")
    check(wrong[-1] - wrong[0] < 4 * MIB, "one block")
    first = next(at for at in range(wrong[0], -1, -4 * KIB) if str(at) in said or at == 0)
    check(str(first) in said, f"it names the offset near {wrong[0]}: {said}")
