"""Disks used out of a bucket: what is not touched is not fetched, and what was fetched once is there."""

from lab import guest
from lab.case import test
from lab.distant import Distant
from lab.shell import MIB, check, equal, needs, pattern, sh


def received(s):
    """Bytes of objects that the daemon got since it was mounted."""
    lines = (s.mnt / "status/counters").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == "RequestBytesReceived")


def with_cache(w):
    s = Distant(w)
    s.env["BACKYFS_CACHE_SIZE"] = "512M"
    return s.start()


@test(mounted=False)
def a_loop_mount_fetches_what_is_touched_and_nothing_twice(w, samples):
    needs("mke2fs")
    s = with_cache(w)
    tree, image, at = w.root / "tree", w.root / "fs.img", w.root / "at"
    tree.mkdir()
    at.mkdir()
    contents = {f"file{i}": pattern(f"touched{i}", 12 * MIB + i) for i in range(8)}
    for name, content in contents.items():
        (tree / name).write_bytes(content)
    with open(image, "wb") as f:
        f.truncate(192 * MIB)
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image)
    sh("cp", image, s.incoming("fs"))
    stored = s.stored()
    check(stored > 90 * MIB, f"{stored} bytes: it does not compress")

    def look():
        """Mounts, lists, reads one file of eight; returns what that fetched."""
        s.remount()
        before = received(s)
        sh("mount", "-o", "loop,ro,noload", s.original("fs"), at)
        try:
            equal(sorted(path.name for path in at.iterdir() if path.name != "lost+found"), sorted(contents), "its directory")
            check((at / "file3").read_bytes() == contents["file3"], "one file of it")
        finally:
            sh("umount", at)
        return received(s) - before

    first = look()
    print(f"{first} of {stored} bytes for {len(contents['file3'])} of a file")
    # Whole blocks of 256 KiB, what is read ahead behind the file, superblock and inodes.
    check(12 * MIB <= first <= 12 * MIB + 20 * MIB, f"{first} of {stored} bytes were fetched for a file of 12 MiB")
    again = look()
    # What is read ahead behind the file depends on who is faster; the file itself is half of it.
    check(again <= first // 4, f"{again} of {first} bytes were fetched again, although the cache has them")


@test(mounted=False, slow=True, seconds=600)
def a_machine_boots_out_of_a_bucket(w, samples):
    needs(*guest.TOOLS)
    s = with_cache(w)
    machine = guest.Guest(guest.default_cache())
    image = w.root / "root.img"
    seeds = machine.make_root(image)
    sh("cp", image, s.incoming("vm"))
    fetched = []
    for turn in range(2):
        s.remount()
        before = received(s)
        said = machine.boot(s.data("vm"))
        equal(said["BOOTS"], "x" * turn, "what the boot before left")
        equal(said["READS"].split()[0], seeds, "files of the image as the guest reads them")
        fetched.append(received(s) - before)
    print(f"fetched at each boot: {fetched} of {s.stored()} stored")
    check(fetched[0] <= s.stored() + MIB, f"{fetched[0]} bytes for the first boot, {s.stored()} are stored")
    check(fetched[1] <= fetched[0] // 4, f"{fetched} bytes: the second boot reads what the first one brought")
