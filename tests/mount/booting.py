"""A virtual machine boots from `data`, writes, powers off; the file system is clean and the backup untouched."""

import hashlib

from lab import guest
from lab.case import test
from lab.shell import check, equal, needs, same, sh

# (cache, aio): aio=native needs the host page cache bypassed.
MODES = (("writeback", "threads"), ("none", "threads"), ("none", "native"), ("none", "io_uring"), ("writeback", "io_uring"), ("directsync", "native"), ("unsafe", "threads"))


def _boots(cache_mode, aio):
    def run(w, samples):
        needs(*guest.TOOLS)
        machine = guest.Guest(guest.default_cache())
        image = w.root / "root.img"
        seeds = machine.make_root(image)
        sh("cp", image, w.incoming("vm"))
        for turn in range(2):
            said = machine.boot(w.data("vm"), cache_mode, aio)
            equal(said["BOOTS"], "x" * turn, "what the boot before left")
            equal(said["READS"].split()[0], seeds, "files of the image as the guest reads them")
            written = guest.file_in_image(w.data("vm"), "/written")
            equal(hashlib.sha256(written).hexdigest(), said["WRITTEN"].split()[0], "what the guest wrote")
            sh("fsck.ext4", "-fn", w.data("vm"))
            same(image, w.original("vm"))
            if turn == 0:
                w.remount()
        sh("cp", w.data("vm"), w.incoming("vm"))
        check(len(w.versions("vm")) == 2, "the booted disk is the next version")
        sh("fsck.ext4", "-fn", w.original("vm"))
        same(image, w.versions("vm")[0] / "original")

    return run


for _cache, _aio in MODES:
    _run = _boots(_cache, _aio)
    _run.__name__, _run.__module__ = f"{_cache}_{_aio}", __name__
    test(seconds=600)(_run)
