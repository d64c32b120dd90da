"""sources/: configured volumes as files, copied to and from the backups inside the daemon."""

import errno
import json
import os
import subprocess
import time
from pathlib import Path

from lab.case import test
from lab.cluster import namespace, patch, rbd, snapshots, table
from lab.shell import KIB, MIB, TIB, check, equal, eventually, needs, pattern, raises, same, sh


def configure(w, tables, *options):
    """Writes the configuration and mounts with it."""
    config = w.root / "backyfs.toml"
    config.write_text(tables)
    w.env["BACKYFS_CONFIG"] = str(config)
    w.run("init")
    return w.up(*options)


def images(w):
    """A directory of images as the source `images`."""
    at = w.root / "images"
    (at / "host").mkdir(parents=True, exist_ok=True)
    return at, f'[sources.images]\nkind = "file"\npath = "{at}"\n'


@test(mounted=False)
def an_image_is_copied_inside_the_mount(w, samples):
    at, tables = images(w)
    sh("cp", "--sparse=always", samples / "disk.img", at / "host" / "vm")
    configure(w, tables)
    source = w.mnt / "sources" / "images" / "host" / "vm"
    equal(os.listdir(w.mnt / "sources"), ["images"], "what is configured")
    equal(os.listdir(w.mnt / "sources" / "images"), ["host"], "its directories")
    info, real = source.stat(), (at / "host" / "vm").stat()
    equal((info.st_size, info.st_mtime_ns), (real.st_size, real.st_mtime_ns), "size and time")
    check(info.st_blocks * 512 >= info.st_size, "it looks full, so that cp hands it to the daemon")
    same(samples / "disk.img", source, "read through the kernel")
    before = counter(w, "BytesRead")
    sh("cp", source, w.incoming("vm"))
    # Only the daemon's own reading is counted; what passes through the kernel is not.
    check(counter(w, "BytesRead") - before >= real.st_blocks * 512 // 2, "the daemon did the copy")
    same(samples / "disk.img", w.original("vm"))
    with w.adds(64 * KIB):
        sh("cp", source, w.incoming("vm"))
    check(len(w.versions("vm")) == 2, "two versions")
    # Nothing here can be changed.
    for change in (lambda: open(source, "r+b"), lambda: open(source.parent / "new", "wb"), lambda: os.unlink(source), lambda: os.mkdir(source.parent / "d")):
        with raises(errno.EROFS, errno.EPERM, errno.EACCES):
            change()


@test(mounted=False)
def parts_at_odd_places(w, samples):
    at, tables = images(w)
    content = pattern("odd", 3 * MIB + 777)
    (at / "vm").write_bytes(content)
    configure(w, tables)
    source = os.open(w.mnt / "sources" / "images" / "vm", os.O_RDONLY)
    target = os.open(w.incoming("x"), os.O_RDWR | os.O_CREAT)
    want = bytearray()
    for frm, to, n in ((0, 0, MIB), (MIB + 1, MIB, 300_000), (262_144, 2 * MIB, MIB), (3 * MIB, 5 * MIB, 9 * MIB)):
        done = 0
        while got := os.copy_file_range(source, target, n - done, frm + done, to + done):
            done += got
            if done == n:
                break
        equal(done, min(n, len(content) - frm), "bytes copied")
        want.extend(bytes(max(0, to + done - len(want))))
        want[to : to + done] = content[frm : frm + done]
    os.close(target), os.close(source)
    check(w.original("x").read_bytes() == bytes(want), "published")


@test(mounted=False)
def restoring_makes_what_was_not_there(w, samples):
    at, tables = images(w)
    configure(w, tables, "-o", "restore-to-sources=new")
    sh("cp", samples / "disk.img", w.incoming("vm"))
    folder = w.mnt / "sources" / "images"
    sh("cp", "--sparse=never", w.original("vm"), folder / "dense")
    sh("cp", w.original("vm"), folder / "host" / "sparse")
    # `--sparse=never` asks cp for zeros in holes, and cp writes them.
    made = at / "host" / "sparse"
    same(samples / "disk.img", at / "dense")
    same(samples / "disk.img", made)
    check(made.stat().st_blocks * 512 <= (samples / "disk.img").stat().st_blocks * 512 + MIB, f"{made} is sparse")
    # What is there stays, and what is not whole is not there.
    (at / "dense").write_bytes(b"precious")
    check(sh("cp", w.original("vm"), folder / "dense", ok=False).returncode != 0, "an existing image is not overwritten")
    check((at / "dense").read_bytes() == b"precious", "it is what it was")
    writer = subprocess.Popen(["bash", "-c", 'exec 3> "$1"; head -c 3000000 /dev/urandom >&3; kill -9 $$', "bash", str(folder / "killed")])
    writer.wait()
    time.sleep(0.5)
    check(not (at / "killed").exists() and not (folder / "killed").exists(), "a killed writer makes no image")
    sh("cp", w.original("vm"), folder / "killed")
    same(samples / "disk.img", at / "killed")


@test(mounted=False)
def a_restore_by_copy_is_seen_at_work(w, samples):
    at, tables = images(w)
    configure(w, tables, "-o", "restore-to-sources=new")
    sh("cp", samples / "disk.img", w.incoming("vm"))
    progress = w.mnt / "status/progress"
    # By bytes, of which nobody knows how many there will be; then inside the mount, where that is known.
    with open(w.mnt / "sources/images/slow", "wb") as f:
        f.write(b"x" * MIB)
        f.flush()
        check(progress.read_text().startswith("restore images/slow: "), progress.read_text())
        row = w.json("status")["jobs"][0]
        equal((row["verb"], row["what"], row["pid"]), ("restore", "images/slow", w.pid()), "status")
        time.sleep(1.1)
        f.write(b"y" * MIB)
        f.flush()
        eventually("how far it is", lambda: "2.0 MiB" in progress.read_text())
    eventually("it is done", lambda: progress.read_text() == "nothing is being done\n")
    with open(w.original("vm"), "rb") as version, open(w.mnt / "sources/images/fast", "wb") as f:
        size = os.fstat(version.fileno()).st_size
        time.sleep(1.1)
        done = os.copy_file_range(version.fileno(), f.fileno(), 16 * MIB, 0, 0)
        row = w.json("status")["jobs"][0]
        equal((row["what"], row["done"], row["total"]), ("images/fast", done, size), "a copy inside the mount")
        while got := os.copy_file_range(version.fileno(), f.fileno(), size, done, done):
            done += got
    same(samples / "disk.img", at / "fast")


@test(mounted=False)
def restoring_over_what_is_there_by_force_only(w, samples):
    at, tables = images(w)
    (at / "vm").write_bytes(b"old")
    configure(w, tables, "-o", "restore-to-sources=force")
    sh("cp", samples / "disk.img", w.incoming("vm"))
    with raises(errno.EPERM):
        open(w.mnt / "sources" / "images" / "vm", "r+b")
    sh("cp", "--sparse=never", w.original("vm"), w.mnt / "sources" / "images" / "vm")
    same(samples / "disk.img", at / "vm")


@test(mounted=False)
def restoring_over_a_device_leaves_nothing_of_what_it_held(w, samples):
    backing = w.root / "backing"
    backing.write_bytes(pattern("old", 24 * MIB))
    device = sh("losetup", "--find", "--show", backing).stdout.decode().strip()
    try:
        configure(w, f'[sources.disk]\nkind = "file"\npath = "{device}"\n', "-o", "restore-to-sources=force")
        image = w.root / "image"
        with open(image, "wb") as f:
            f.write(b"first")
            f.seek(7 * MIB + 5)
            f.write(b"middle")
            f.truncate(16 * MIB)
        sh("cp", image, w.incoming("vm"))
        # cp skips the holes of what it copies: the file it truncated is empty, as far as it knows.
        for how in ("auto", "never"):
            sh("cp", f"--sparse={how}", w.original("vm"), w.mnt / "sources" / "disk" / Path(device).name)
            with open(device, "rb") as f:
                check(f.read(16 * MIB) == image.read_bytes(), f"restored with --sparse={how}")
            sh("dd", "if=/dev/urandom", f"of={device}", "bs=1M", "count=24", "oflag=direct")
    finally:
        w.down()
        sh("losetup", "-d", device)


@test(mounted=False)
def hints_of_a_huge_image(w, samples):
    """What the issue of cost promises, in small: nothing hinted costs nothing, whatever the size."""
    w.run("init")
    disk = w.root / "disk"
    with open(disk, "wb") as f:
        f.truncate(TIB)
        f.seek(300 * MIB)
        f.write(pattern("huge", MIB))
    w.run("backup", disk, "vm")
    hints = w.root / "hints"
    hints.write_text("[]")
    with w.adds(64 * KIB):
        w.run("backup", disk, "vm", "--hints", hints)
    with open(disk, "r+b") as f:
        f.seek(TIB // 2 + 5)
        f.write(b"changed")
    hints.write_text(json.dumps([{"offset": TIB // 2 + 5, "length": 7, "exists": "true"}]))
    uid = w.run("backup", disk, "vm", "--hints", hints).stdout.decode().strip()
    out = w.root / "out"
    w.run("restore", uid, out)
    for at, n in ((300 * MIB, MIB), (TIB // 2, 4096), (TIB - 4096, 4096)):
        with open(disk, "rb") as a, open(out, "rb") as b:
            a.seek(at), b.seek(at)
            check(a.read(n) == b.read(n), f"restored at {at}")


@test(mounted=False)
def an_image_of_another_format_is_backed_up_as_its_disk(w, samples):
    """By --format only: what a file is to be read as is never guessed."""
    needs("qemu-img", "qemu-nbd", "qemu-io")
    w.run("init")
    raw, qcow2, top, disk = samples / "disk.img", w.root / "vm.qcow2", w.root / "top.qcow2", w.root / "disk"
    sh("qemu-img", "convert", "-c", "-O", "qcow2", raw, qcow2)
    uid = w.run("backup", "--format", "qcow2", qcow2, "vm").stdout.decode().strip()
    equal(w.json("show", uid)["size_bytes"], raw.stat().st_size, "bytes of the disk")
    w.run("restore", uid, disk)
    same(raw, disk)
    # What was written since, into a file that holds the differences.
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", qcow2, "-F", "qcow2", top)
    sh("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x41 1M 64k", top)
    with w.adds(256 * KIB):
        uid = w.run("backup", "--format", "qcow2", top, "vm").stdout.decode().strip()
    sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, w.root / "now")
    w.run("restore", "--force", uid, disk)
    same(w.root / "now", disk)
    # The same disk, so nothing of it is new, whatever holds it.
    sh("qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", top, w.root / "vm.vmdk")
    with w.adds(64 * KIB):
        w.run("backup", "--format", "vmdk", w.root / "vm.vmdk", "vm")
    # Without being told, a file is what it is.
    uid = w.run("backup", qcow2, "file").stdout.decode().strip()
    w.run("restore", "--force", uid, disk)
    same(qcow2, disk)
    for wrong, said in ((("qcow2", raw), b"qcow2"), (("vhdx", qcow2), b"vhdx"), (("nonsense", qcow2), b"nonsense"), (("qcow2", w.root / "none"), b"none")):
        refused = w.run("backup", "--format", *wrong, "wrong", ok=False)
        equal(refused.returncode, 5, f"code of {wrong}: {refused.stderr}")
        check(said in refused.stderr, refused.stderr)
    equal({row["name"] for row in w.json("ls")}, {"vm", "file"}, "names")


# What follows needs a real cluster: tests/lab/ceph makes one, and CEPH_CONF names it.


def pool(w):
    """A namespace of its own in the pool `rbd`, as the source `ceph`."""
    at, name = namespace()
    return at, table("ceph", kind="rbd", pool="rbd", namespace=name, conf=os.environ["CEPH_CONF"])


def holds(path, expected):
    check(Path(path).read_bytes() == bytes(expected), f"{path} is what it should be")


def counter(w, name):
    """What the daemon has counted of something."""
    text = (w.mnt / "status" / "counters").read_text()
    return next((int(line.split()[1]) for line in text.splitlines() if line.split()[0] == name), 0)


@test(mounted=False, seconds=400)
def rbd_images_are_backed_up_by_what_changed(w, samples):
    at, tables = pool(w)
    rbd("import", samples / "disk.img", f"{at}/vm")
    rbd("snap", "create", f"{at}/vm@theirs")
    configure(w, tables)
    source = w.mnt / "sources" / "ceph" / "vm"
    equal(os.listdir(source.parent), ["vm"], "images of the pool")
    sh("cp", source, w.incoming("vm"))
    same(samples / "disk.img", w.original("vm"))
    kept = w.read(w.uid("vm"), "snapshot_name")
    check(kept.startswith("backyfs-"), f"the version names its snapshot: {kept!r}")
    eventually("one snapshot is kept, theirs stays", lambda: sorted(snapshots(f"{at}/vm")) == sorted(["theirs", kept]))
    # An incremental copy reads what changed, keeps its snapshot and drops the one before.
    expected = bytearray((samples / "disk.img").read_bytes())
    patch(w, f"{at}/vm", expected, 5 * MIB + 4096, b"A" * 4096)
    before = counter(w, "BytesRead")
    sh("cp", source, w.incoming("vm"))
    check(counter(w, "BytesRead") - before <= 5 * MIB, f"{counter(w, 'BytesRead') - before} bytes were read")
    holds(w.original("vm"), expected)
    second = w.read(w.uid("vm"), "snapshot_name")
    eventually("the newest snapshot is kept alone", lambda: sorted(snapshots(f"{at}/vm")) == sorted(["theirs", second]))
    # The command does the same; what is not kept as a backup leaves nothing.
    patch(w, f"{at}/vm", expected, 0, b"B" * 4096)
    w.run("backup", "ceph:vm", "vm")
    holds(w.original("vm"), expected)
    holds(source, expected)
    third = w.read(w.uid("vm"), "snapshot_name")
    eventually("reading alone keeps no snapshot", lambda: sorted(snapshots(f"{at}/vm")) == sorted(["theirs", third]))
    # Killed in the middle of it: the next run cleans up.
    child = subprocess.Popen([w.binary, "backup", "--full", "ceph:vm", "other"], env=w.env)
    time.sleep(0.3)
    child.kill()
    child.wait()
    w.run("backup", "ceph:vm", "vm")
    fourth = w.read(w.uid("vm"), "snapshot_name")
    # It was killed before or after it published; only in the latter case its snapshot is a base.
    others = [row["snapshot_name"] for row in w.json("ls", "other")] if (w.mnt / "by_name" / "other").exists() else []
    left = set(snapshots(f"{at}/vm")) - {"theirs", fourth}
    check(left <= set(others), f"left behind: {left}")


@test(mounted=False, seconds=400)
def rbd_images_are_restored(w, samples):
    at, tables = pool(w)
    configure(w, tables, "-o", "restore-to-sources=new")
    sh("cp", samples / "disk.img", w.incoming("vm"))
    folder = w.mnt / "sources" / "ceph"
    sh("cp", "--sparse=never", w.original("vm"), folder / "dense")
    sh("cp", w.original("vm"), folder / "sparse")
    w.run("restore", "vm", "ceph:by-command")
    for name in ("dense", "sparse", "by-command"):
        out = w.root / name
        rbd("export", f"{at}/{name}", out)
        same(samples / "disk.img", out, name)
        out.unlink()
    data = (samples / "disk.img").stat().st_blocks * 512
    for name in ("sparse", "by-command"):
        check(held(f"{at}/{name}") <= data + MIB, f"{name} holds {held(f'{at}/{name}')} bytes of {data}")
    check(w.run("restore", "vm", "ceph:dense", ok=False).returncode == 1, "an existing image is refused")
    w.run("restore", "vm", "ceph:dense", "--force")
    equal(sorted(os.listdir(folder)), ["by-command", "dense", "sparse"], "nothing unfinished is left")
    # Of another size: one grows, the other keeps what is beyond.
    size = (samples / "disk.img").stat().st_size
    for name, other in (("small", size // 2 // MIB * MIB), ("large", size + 8 * MIB)):
        with open(w.root / "old", "wb") as f:
            f.write(pattern(name, other))
        rbd("import", "--no-progress", w.root / "old", f"{at}/{name}")
        w.run("restore", "vm", f"ceph:{name}", "--force")
        rbd("export", "--no-progress", f"{at}/{name}", w.root / "new")
        equal((w.root / "new").stat().st_size, max(size, other), f"size of the {name} one")
        sh("cmp", "-n", size, w.root / "new", samples / "disk.img")
        (w.root / "new").unlink()
        rbd("rm", "--no-progress", f"{at}/{name}")
    # Over an image that holds something else, whose places nobody writes to.
    w.down()
    with open(w.root / "old", "wb") as f:
        f.write(pattern("old", (samples / "disk.img").stat().st_size))
    rbd("import", "--no-progress", w.root / "old", f"{at}/old")
    w.up("-o", "restore-to-sources=force")
    sh("cp", w.original("vm"), folder / "old")
    rbd("export", "--no-progress", f"{at}/old", w.root / "new")
    same(samples / "disk.img", w.root / "new", "restored over an image")


def held(image):
    """Bytes of an image that are no hole."""
    rows = json.loads(rbd("diff", "--format", "json", image).stdout)
    return sum(int(row["length"]) for row in rows if str(row["exists"]).lower() == "true")


@test(mounted=False, seconds=300)
def hints_of_another_tool(w, samples):
    """What `rbd diff` prints is taken as it is, and the version it begins from is named."""
    at, _ = pool(w)
    w.run("init")
    image, content = f"{at}/vm", bytearray((samples / "disk.img").read_bytes())
    rbd("import", "--no-progress", samples / "disk.img", image)
    rbd("snap", "create", "--no-progress", f"{image}@a")
    first = w.run("backup", f"rbd:{image}@a", "vm").stdout.decode().strip()
    w.run("backup", samples / "small.img", "vm")
    patch(w, image, content, 3 * MIB + 5, pattern("here", 70_000))
    patch(w, image, content, len(content) - 9000, pattern("there", 9000))
    rbd("snap", "create", "--no-progress", f"{image}@b")
    hints = rbd("diff", "--format", "json", "--from-snap", "a", f"{image}@b").stdout
    hints = hints if isinstance(hints, bytes) else hints.encode()
    uid = w.run("backup", f"rbd:{image}@b", "vm", "--hints", "-", "--from", first, input=hints).stdout.decode().strip()
    w.run("restore", uid, w.root / "out")
    check((w.root / "out").read_bytes() == bytes(content), "the version by hints")
    shown = json.loads(w.run("show", "--json", uid).stdout)
    check(json.dumps(shown).find(first) >= 0, f"it was made from the first: {shown}")
    # Hints that leave something out are found by the sample, or by nothing; those that lie past the end always.
    bad = json.dumps([{"offset": len(content), "length": MIB, "exists": True}]).encode()
    done = w.run("backup", f"rbd:{image}@b", "vm", "--hints", "-", "--from", first, input=bad, ok=False)
    check(done.returncode == 1 and b"end" in done.stderr, done.stderr)


@test(mounted=False, seconds=300)
def a_snapshot_removed_while_it_is_read_makes_no_version(w, samples):
    """A removed snapshot reads as zeros, without any error (librbd)."""
    at, tables = pool(w)
    rbd("import", "--no-progress", samples / "disk.img", f"{at}/vm")
    rbd("snap", "create", "--no-progress", f"{at}/vm@theirs")
    configure(w, tables)
    source = os.open(w.mnt / "sources" / "ceph" / "vm@theirs", os.O_RDONLY)
    target = os.open(w.incoming("vm"), os.O_RDWR | os.O_CREAT)
    rbd("bench", "--io-type", "write", "--io-size", "1M", "--io-total", str(os.fstat(source).st_size), f"{at}/vm")
    rbd("snap", "rm", "--no-progress", f"{at}/vm@theirs")
    with raises(errno.EIO, errno.ENOENT):
        os.copy_file_range(source, target, os.fstat(source).st_size)
    for fd in (source, target):
        try:
            os.close(fd)
        except OSError:
            pass
    check(not (w.mnt / "by_name" / "vm").exists(), "nothing was published")
