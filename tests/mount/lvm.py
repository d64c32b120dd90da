"""Real logical volumes, thin and thick, in a virtual machine (see lab/lvm_guest.py)."""

import os

from lab import guest
from lab.case import test
from lab.lvm_guest import TOOLS, LvmGuest
from lab.shell import needs

SCRIPT = r"""
set -e
fail() { echo "GUEST-FAILED $*"; lvs -a vg; cat /tmp/said 2>/dev/null | tail -5; exit 1; }
export BACKYFS_TARGET=dir:/var/repository BACKYFS_STATE_DIR=/var/state BACKYFS_KEY_FILE=/var/key BACKYFS_CONFIG=/etc/backyfs.toml
cat > /etc/backyfs.toml <<TABLE
[sources.vg]
kind = "lvm"
group = "vg"
snapshot-size = "64M"
thin-pool = "pool"
[sources.small]
kind = "lvm"
group = "vg"
snapshot-size = "4M"
TABLE
vgcreate -q vg /dev/vdb
lvcreate -q -y --type thin-pool -L 192M --chunksize 64k -n pool vg
lvcreate -q -y -V 64M --thinpool vg/pool -n thin
lvcreate -q -y -L 48M -n thick vg
echo "GUEST-MADE volumes"
dd if=/dev/urandom of=/dev/vg/thin bs=1M count=24 2>/dev/null
dd if=/dev/urandom of=/dev/vg/thick bs=1M count=48 2>/dev/null
sync
backyfs init > /dev/null
ours() { lvs --noheadings -o lv_name vg | grep -c backyfs- || true; }
# A number of the version's statistics, from `show --json`.
number() { backyfs show "$1" --json | tr ',{' '\n\n' | sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p" | head -1; }

# Thick: nothing is kept.
backyfs -q backup vg:thick thick > /tmp/said 2>&1 || fail backup of thick
[ "$(ours)" = 0 ] || fail a snapshot of the thick volume was left
backyfs -q restore thick /tmp/out && cmp /tmp/out /dev/vg/thick || fail thick differs
rm /tmp/out
echo "GUEST-THICK kept nothing"

# Thin: the snapshot is kept, and the next backup reads what changed.
backyfs -q backup vg:thin thin > /tmp/said 2>&1 || fail backup of thin
[ "$(ours)" = 1 ] || fail one snapshot was to be kept, not $(ours)
dd if=/dev/urandom of=/dev/vg/thin bs=4k seek=5000 count=3 conv=notrunc 2>/dev/null
blkdiscard -o 4194304 -l 4194304 /dev/vg/thin || fail discard
dd if=/dev/urandom of=/dev/vg/thin bs=4k seek=12000 count=1 conv=notrunc 2>/dev/null
sync
backyfs backup vg:thin thin > /tmp/uid 2> /tmp/said || fail second backup of thin
[ "$(ours)" = 1 ] || fail the old snapshot was to go
written=$(number thin written_bytes)
[ "$written" -gt 0 ] && [ "$written" -le 2097152 ] || fail "$written bytes were read for a few that changed"
backyfs -q restore thin /tmp/out && cmp /tmp/out /dev/vg/thin || fail thin differs
echo "GUEST-THIN read $written bytes"

# Killed in the middle: the next run removes what was left.
backyfs -q backup --full vg:thin other > /tmp/said 2>&1 & killed=$!
sleep 1; kill -9 $killed 2>/dev/null || true; wait $killed 2>/dev/null || true
backyfs -q backup vg:thin thin > /tmp/said 2>&1 || fail backup after a crash
backyfs ls other > /dev/null 2>&1 && others=$(backyfs ls other --json | grep -c '"uid"' || true) || others=0
[ "$(ours)" -le $((1 + others)) ] || fail a crash left $(ours) snapshots
echo "GUEST-CRASH cleaned up"

# Killed while thin_delta ran: the view of the metadata is released by the next run. One of somebody else's is left, and all is read.
dmsetup message vg-pool-tpool 0 reserve_metadata_snap || fail reserve
backyfs -q backup vg:thin thin > /tmp/said 2>&1 || fail backup beside a view of the metadata
grep -q "everything is read" /tmp/said /var/state/backyfs.log 2>/dev/null || echo "GUEST-QUIET it said nothing"
dmsetup status vg-pool-tpool | cut -d' ' -f7 | grep -q '^-$' && fail "the view of somebody else was released"
echo taken > /run/backyfs-vg-pool-tpool.metadata-view
backyfs backup vg:thin thin > /tmp/uid 2> /tmp/said || fail backup after a crash of thin_delta
dmsetup status vg-pool-tpool | cut -d' ' -f7 | grep -q '^-$' || fail "a view of the metadata was left"
written=$(number thin written_bytes)
[ "$written" -le 2097152 ] || fail "$written bytes were read after a crash of thin_delta"
echo "GUEST-VIEW released"

# Restoring: a new volume, and over one by force.
backyfs -q restore thin vg:new > /tmp/said 2>&1 || fail restore to a new volume
cmp -n 67108864 /dev/vg/new /tmp/out || fail the new volume differs
backyfs -q restore thin vg:new > /tmp/said 2>&1 && fail an existing volume was overwritten
backyfs -q restore thin vg:new --force > /tmp/said 2>&1 || fail restore by force
cmp -n 67108864 /dev/vg/new /tmp/out || fail the volume differs after force
rm /tmp/out
echo "GUEST-RESTORE done"

# A snapshot that runs full while it is read: nothing is published, and nothing is left.
backyfs -q backup --full small:thick full > /tmp/said 2>&1 & running=$!
i=0; while [ "$(ours)" -lt 2 ] && [ $i -lt 100 ]; do i=$((i+1)); usleep 50000; done
dd if=/dev/urandom of=/dev/vg/thick bs=1M count=48 conv=notrunc,fsync 2>/dev/null
if wait $running; then code=0; else code=$?; fi
case $code in
  0) echo "GUEST-FULL the backup was faster than the writes" ;;
  5) grep -q "full or gone" /tmp/said || fail "it does not say why: $(cat /tmp/said)"
     backyfs ls full 2> /dev/null | grep -q full && fail a full snapshot was published
     echo "GUEST-FULL refused" ;;
  *) fail "code $code: $(cat /tmp/said)" ;;
esac
echo "GUEST-DONE"
"""


@test(mounted=False, seconds=900)
def volumes_thin_and_thick(w, samples):
    needs(*TOOLS)
    machine = LvmGuest(guest.default_cache(), w.binary, w.root)
    said = machine.run(SCRIPT, 850)
    print(said)
