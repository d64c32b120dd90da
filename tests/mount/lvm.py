"""Real logical volumes, thin and thick, in a virtual machine (see lab/lvm_guest.py)."""

from lab import guest
from lab.case import test
from lab.lvm_guest import TOOLS, LvmGuest, unit_tests
from lab.shell import check, needs

# What the script says when a part of it has held.
STEPS = "THICK WORN THIN CRASH CONTINUE VIEW RESTORE CONFORMS FULL MOUNT FULLMOUNT MOUNTCONTINUE MOUNTCRASH".split()

SCRIPT = r"""
set -e
fail() { lvs -a vg; cat /tmp/said 2>/dev/null | tail -5; echo "GUEST-FAILED $*"; exit 1; }
export BACKYFS_TARGET=dir:/var/repository BACKYFS_STATE_DIR=/var/state BACKYFS_KEY_FILE=/var/key BACKYFS_CONFIG=/etc/backyfs.toml
cat > /etc/backyfs.toml <<TABLE
[sources.vg]
kind = "lvm"
group = "vg"
snapshot-size = "64M"
snapshot-prefix = "nightly-"
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

# The process of a backup has the snapshot open that it reads (nothing but reading is left to do), and has read so many bytes.
# Interrupted: its snapshot is gone, so all of it is read again, as it is now. The time of the device says nothing.
opened() { i=0; until ls -l /proc/$1/fd 2>/dev/null | grep -q -- '-backyfs--'; do
  kill -0 $1 2>/dev/null && [ $i -lt 600 ] || fail the backup did not get as far as its snapshot; i=$((i+1)); usleep 20000; done; }
reads() { i=0; until [ "$(sed -n 's/^rchar: //p' /proc/$1/io 2>/dev/null || echo 0)" -ge "$2" ] 2>/dev/null; do
  kill -0 $1 2>/dev/null && [ $i -lt 2000 ] || fail the backup did not read $2 bytes; i=$((i+1)); usleep 10000; done; }
backyfs -q backup vg:thick half > /tmp/said 2>&1 & stopped=$!
opened $stopped; reads $stopped 12582912
kill -INT $stopped; wait $stopped && fail it was not interrupted
[ "$(ours)" = 0 ] || fail an interrupted backup left a snapshot of a thick volume
dd if=/dev/urandom of=/dev/vg/thick bs=1M count=1 conv=notrunc 2>/dev/null; sync
backyfs backup --continue vg:thick half > /tmp/uid 2> /tmp/said || fail to go on with thick
grep -q "snapshot of the interrupted backup is gone" /tmp/said || fail "it does not say that it begins anew: $(cat /tmp/said)"
backyfs -q restore half /tmp/out && cmp /tmp/out /dev/vg/thick || fail thick differs after going on
rm /tmp/out

# Bad sectors of a disk with sectors of 512 bytes: three of them, across a page.
cat > /tmp/table <<TABLE
0 8191 linear /dev/vg/thick 0
8191 3 error
8194 90110 linear /dev/vg/thick 8194
TABLE
made() { dmsetup create --noudevrules --noudevsync "$1" /tmp/table && dmsetup mknodes "$1" && [ -b "/dev/mapper/$1" ] || fail "there is no /dev/mapper/$1"; }
made worn
if backyfs backup /dev/mapper/worn worn > /tmp/uid 2> /tmp/said; then code=0; else code=$?; fi
[ "$code" = 5 ] || fail "code $code of a disk with bad sectors: $(cat /tmp/said)"
backyfs show "$(cat /tmp/uid)" --json > /tmp/shown
grep -q 'offset 4193792 (1536 bytes)' /tmp/shown || fail "other sectors: $(cat /tmp/shown)"
grep -q incomplete /tmp/shown || fail it counts as whole
backyfs -q restore "$(cat /tmp/uid)" /tmp/out > /tmp/said 2>&1 || fail restore what could be read
dd if=/dev/vg/thick of=/tmp/want bs=1M 2>/dev/null
dd if=/dev/zero of=/tmp/want bs=512 seek=8191 count=3 conv=notrunc 2>/dev/null
cmp /tmp/out /tmp/want || fail what lies beside bad sectors differs
rm /tmp/out
if cp /dev/mapper/worn /tmp/out 2>/dev/null; then fail the disk is not worn; fi
rm -f /tmp/out
backyfs backup --skip-errors /dev/mapper/worn skipped > /tmp/uid 2> /tmp/said || fail "--skip-errors: $(cat /tmp/said)"
# It is replaced by a good one: these sectors are read again, even when nothing is said to have changed.
dmsetup remove --noudevrules --noudevsync worn; echo "0 98304 linear /dev/vg/thick 0" > /tmp/table; made worn
echo '[]' > /tmp/hints
backyfs -q backup --hints /tmp/hints /dev/mapper/worn worn > /tmp/said 2>&1 || fail "after it was replaced: $(cat /tmp/said)"
backyfs -q restore worn /tmp/out && cmp /tmp/out /dev/vg/thick || fail sectors that were bad were not read again
rm -f /tmp/out /tmp/want; dmsetup remove --noudevrules --noudevsync worn
# More than 64 MiB that cannot be read is a disk that is broken.
printf '0 20480 linear /dev/vg/thick 0\n20480 143360 error\n' > /tmp/table; made broken
if backyfs backup /dev/mapper/broken broken > /tmp/uid 2> /tmp/said; then code=0; else code=$?; fi
[ "$code" = 5 ] || fail "code $code of a broken disk: $(cat /tmp/said)"
if backyfs show broken > /dev/null 2>&1; then fail a broken disk was published; fi
dmsetup remove --noudevrules --noudevsync broken
echo "GUEST-WORN told"

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
rm /tmp/out
echo "GUEST-THIN read $written bytes"

# Names of snapshots begin as configured; what others call almost so is theirs.
lvs --noheadings -o lv_name vg | grep -q ' nightly-backyfs-' || fail the snapshot has another name
lvcreate -q -s -n backyfs-theirs vg/thin > /dev/null 2>&1 || fail a snapshot of somebody else
lvcreate -q -s -n nightly-backyfs-theirs vg/thin > /dev/null 2>&1 || fail another snapshot of somebody else
ours() { lvs --noheadings -o lv_name vg | grep backyfs- | grep -vc theirs || true; }
ls_names() { backyfs ls "$1" --json 2>/dev/null | grep -c '"uid"' || true; }

# Killed between the taking of the snapshot and the end: nothing is published, and the next run removes it.
backyfs -q backup --full vg:thin other > /tmp/said 2>&1 & killed=$!
opened $killed
kill -9 $killed; wait $killed 2>/dev/null && fail it was not killed
[ "$(ours)" = 2 ] || fail the killed backup had no snapshot
[ "$(ls_names other)" = 0 ] || fail a killed backup was published
backyfs -q backup vg:thin thin > /tmp/said 2>&1 || fail backup after a crash
[ "$(ours)" = 1 ] || fail a crash left $(ours) snapshots
notes=$(find /var/state -name '*backyfs-*.json' | wc -l)
[ "$notes" = 1 ] || fail "$notes notes are left: $(find /var/state -name '*.json')"
echo "GUEST-CRASH cleaned up"

# Interrupted, killed while it goes on, and gone on with: it is what the volume was at first, whatever was written since.
dd if=/dev/vg/thin of=/tmp/then bs=1M 2>/dev/null
backyfs -q backup --full vg:thin thin > /tmp/said 2>&1 & stopped=$!
opened $stopped; reads $stopped 16777216
kill -INT $stopped; wait $stopped && fail it was not interrupted
[ "$(ours)" = 2 ] || fail the snapshot of an interrupted backup was to stay, not $(ours)
dd if=/dev/urandom of=/dev/vg/thin bs=1M count=2 conv=notrunc 2>/dev/null; sync
backyfs -q backup --full --continue vg:thin thin > /tmp/said 2>&1 & killed=$!
opened $killed
kill -9 $killed; wait $killed 2>/dev/null && fail it was not killed
[ "$(ours)" = 2 ] || fail the snapshot went with the killed backup that went on
backyfs backup --full --continue vg:thin thin > /tmp/uid 2> /tmp/said || fail to go on
grep -q "read again" /tmp/said && fail it began anew: $(cat /tmp/said)
backyfs -q restore thin /tmp/out && cmp /tmp/out /tmp/then || fail what was gone on with differs from the snapshot
rm /tmp/out /tmp/then
[ "$(ours)" = 1 ] || fail going on left $(ours) snapshots
backyfs -q backup vg:thin thin > /tmp/said 2>&1 || fail incremental after going on
backyfs -q restore thin /tmp/out && cmp /tmp/out /dev/vg/thin || fail thin differs after going on
rm /tmp/out
echo "GUEST-CONTINUE went on"

# Killed while thin_delta ran: the view of the metadata is released by the next run. One of somebody else's is left, and all is read.
dmsetup message vg-pool-tpool 0 reserve_metadata_snap || fail reserve
backyfs backup vg:thin thin > /tmp/uid 2> /tmp/said || fail backup beside a view of the metadata
grep -q "everything is read" /tmp/said || fail "beside a view of the metadata: $(cat /tmp/said)"
dmsetup status vg-pool-tpool | cut -d' ' -f7 | grep -q '^-$' && fail "the view of somebody else was released"
echo taken > /run/backyfs-vg-pool-tpool.metadata-view
backyfs backup vg:thin thin > /tmp/uid 2> /tmp/said || fail backup after a crash of thin_delta
dmsetup status vg-pool-tpool | cut -d' ' -f7 | grep -q '^-$' || fail "a view of the metadata was left"
written=$(number thin written_bytes)
[ "$written" -le 2097152 ] || fail "$written bytes were read after a crash of thin_delta"
echo "GUEST-VIEW released"

# Restoring: a new volume, and over one by force. Holes take no space of the pool.
mapped() { lvs --noheadings -o data_percent vg/$1 | cut -d. -f1 | tr -d ' '; }
backyfs -q restore thin /tmp/out || fail restore to a file
backyfs -q restore thin vg:new > /tmp/said 2>&1 || fail restore to a new volume
cmp -n 67108864 /dev/vg/new /tmp/out || fail the new volume differs
[ "$(mapped new)" -le $(($(mapped thin) + 5)) ] || fail holes were written: $(mapped new) against $(mapped thin) percent
if backyfs -q restore thin vg:new > /tmp/said 2>&1; then fail an existing volume was overwritten; fi
dd if=/dev/urandom of=/dev/vg/new bs=1M count=64 2>/dev/null; sync
backyfs -q restore thin vg:new --force > /tmp/said 2>&1 || fail restore by force
cmp -n 67108864 /dev/vg/new /tmp/out || fail the volume differs after force
[ "$(mapped new)" -le $(($(mapped thin) + 15)) ] || fail holes were not given back: $(mapped new) against $(mapped thin) percent
lvremove -q -y vg/new > /dev/null
# Killed in the middle: it is not there, is not begun anew without being told, and is gone on with.
backyfs -q restore thin vg:new > /tmp/said 2>&1 & killed=$!
i=0; until ls -l /proc/$killed/fd 2>/dev/null | grep -q 'new.backyfs--part'; do
  kill -0 $killed 2>/dev/null && [ $i -lt 600 ] || fail the restore was not killed in time; i=$((i+1)); usleep 20000; done
kill -9 $killed; wait $killed 2>/dev/null && fail the restore was not killed
lvs vg/new > /dev/null 2>&1 && fail an unfinished volume has its name
if backyfs -q restore thin vg:new > /tmp/said 2>&1; then fail an unfinished restore was begun anew; fi
grep -q -- --continue /tmp/said || fail it does not say how to go on
backyfs -q restore thin vg:new --continue > /tmp/said 2>&1 || fail to go on with a restore
cmp -n 67108864 /dev/vg/new /tmp/out || fail the volume differs after going on
[ "$(mapped new)" -le $(($(mapped thin) + 5)) ] || fail going on wrote holes: $(mapped new) against $(mapped thin) percent
lvs --noheadings -o lv_name vg | grep -q backyfs-part && fail an unfinished volume was left
lvremove -q -y vg/new > /dev/null
rm /tmp/out
echo "GUEST-RESTORE done"

# The conformance suite of sources, on these.
[ "$(lvs --noheadings -o lv_name vg | grep -c theirs)" = 2 ] || fail snapshots of somebody else were removed
lvremove -q -y vg/backyfs-theirs vg/nightly-backyfs-theirs > /dev/null 2>&1 || fail remove the snapshots of somebody else
BACKYFS_TEST_LVM=vg backyfs-units --ignored --exact source::lvm::tests::volumes_of_a_group > /tmp/said 2>&1 || fail the conformance suite: $(tail -20 /tmp/said)
grep -q '^test result: ok. 1 passed' /tmp/said || fail the conformance suite did not run: $(tail -3 /tmp/said)
echo "GUEST-CONFORMS thick and thin"

# A snapshot that runs full while it is read: the backup says so, nothing is published, and nothing is left.
kept=$(ours)
backyfs -q backup --full small:thick full > /tmp/said 2>&1 & running=$!
opened $running; kill -STOP $running
dd if=/dev/urandom of=/dev/vg/thick bs=1M count=48 conv=notrunc,fsync 2>/dev/null
kill -CONT $running
if wait $running; then code=0; else code=$?; fi
[ "$code" = 5 ] || fail "code $code of a backup of a full snapshot: $(cat /tmp/said)"
grep -q "full or gone" /tmp/said || fail "it does not say why: $(cat /tmp/said)"
[ "$(ls_names full)" = 0 ] || fail a full snapshot was published
[ "$(ours)" = "$kept" ] || fail a full snapshot was left
echo "GUEST-FULL refused"

# Through the mount: there and back by cp. (The shell would take its own.)
cp() { /bin/cp "$@"; }
count() { sed -n "s/^$1 //p" /mnt/status/counters; }
mkdir -p /mnt; backyfs mount -o restore-to-sources=new /mnt > /tmp/said 2>&1 || fail mount
ls /mnt/sources/vg | tr '\n' ' ' | grep -q '^thick thin $' || fail the volumes are $(ls /mnt/sources/vg)
cp /mnt/sources/vg/thin /mnt/incoming/m-thin || fail cp of thin
cmp /mnt/by_name/m-thin/latest/original /dev/vg/thin || fail the copy of thin differs
[ "$(ours)" = 2 ] || fail the snapshot of the copy was to be kept
dd if=/dev/urandom of=/dev/vg/thin bs=4k seek=7000 count=2 conv=notrunc 2>/dev/null; sync
before=$(count BytesRead)
[ "$before" -ge 16777216 ] || fail "the first copy read $before bytes"
cp /mnt/sources/vg/thin /mnt/incoming/m-thin || fail second cp of thin
[ $(($(count BytesRead) - before)) -le 2097152 ] || fail cp read $(($(count BytesRead) - before)) bytes for a few that changed
cmp /mnt/by_name/m-thin/latest/original /dev/vg/thin || fail the second copy of thin differs
[ "$(ours)" = 2 ] || fail $(ours) snapshots after the second copy
cp /mnt/sources/vg/thick /mnt/incoming/m-thick || fail cp of thick
cmp /mnt/by_name/m-thick/latest/original /dev/vg/thick || fail the copy of thick differs
[ "$(ours)" = 2 ] || fail the copy of thick left a snapshot
cp /mnt/by_name/m-thin/latest/original /mnt/sources/vg/back || fail cp to a new volume
cmp /dev/vg/back /dev/vg/thin || fail the volume copied back differs
[ "$(lvs --noheadings --units m --nosuffix -o lv_size vg/back | cut -d. -f1 | tr -d ' ')" = 64 ] || fail the volume copied back has another size
[ "$(mapped back)" -le $(($(mapped thin) + 5)) ] || fail cp wrote holes: $(mapped back) against $(mapped thin) percent
if cp /mnt/by_name/m-thin/latest/original /mnt/sources/vg/back 2> /tmp/said; then fail cp overwrote a volume; fi
lvremove -q -y vg/back > /dev/null
echo "GUEST-MOUNT there and back"

# A thick snapshot that runs full under cp: cp fails, and nothing counts as a backup.
cp /mnt/sources/small/thick /mnt/incoming/m-full 2> /tmp/said & running=$!
daemon=$(pidof backyfs)
opened $daemon; kill -STOP $daemon
dd if=/dev/urandom of=/dev/vg/thick bs=1M count=12 conv=notrunc,fsync 2>/dev/null
kill -CONT $daemon
if wait $running; then fail cp of a full snapshot ended well; fi
[ -e /mnt/by_name/m-full/latest ] && fail a full snapshot was published
ls /mnt/by_name/m-thick > /dev/null || fail the mount hangs
echo "GUEST-FULLMOUNT refused"

# A copy of a thin volume whose writer is killed, and one whose daemon is: repeated, it goes on with what was copied, though the volume was
# written to meanwhile. What was not copied yet is read, as a device does not say what it does not map.
until_ours() { i=0; while [ "$(ours)" -ne "$1" ] && [ $i -lt 200 ]; do i=$((i+1)); usleep 50000; done; [ "$(ours)" = "$1" ] || fail "$(ours) snapshots are left, not $1"; }
crash() { kill -9 $(pidof backyfs); umount -l /mnt; i=0; while pidof backyfs > /dev/null && [ $i -lt 100 ]; do i=$((i+1)); usleep 50000; done; }
kept=2; until_ours $kept
for how in writer daemon; do
  case $how in
    writer) if copier /mnt/sources/vg/thin /mnt/incoming/m-cut-$how 33554432 die; then fail the copier was not killed; fi ;;
    daemon) copier /mnt/sources/vg/thin /mnt/incoming/m-cut-$how 33554432 wait > /tmp/copier & running=$!
      i=0; until grep -q synced /tmp/copier; do kill -0 $running 2>/dev/null && [ $i -lt 1200 ] || fail the copier did not get that far; i=$((i+1)); usleep 50000; done
      crash; kill -9 $running; wait $running 2>/dev/null && fail the copier was not killed
      backyfs mount -o restore-to-sources=new /mnt > /tmp/said 2>&1 || fail mount after a crash ;;
  esac
  [ -e /mnt/by_name/m-cut-$how/latest ] && fail half a copy of a killed $how counts as a backup
  i=0; until [ -s /mnt/status/drafts ]; do [ $i -lt 200 ] || fail nothing is left of the copy; i=$((i+1)); usleep 50000; done
  until_ours $((kept + 1))
  dd if=/dev/urandom of=/dev/vg/thin bs=4k seek=1000 count=2 conv=notrunc 2>/dev/null; sync
  before=$(count BytesRead)
  cp /mnt/sources/vg/thin /mnt/incoming/m-cut-$how || fail cp after a killed $how
  read=$(($(count BytesRead) - before))
  [ "$read" -le 35651584 ] || fail "after a killed $how $read bytes were read, and 33554432 of 67108864 had been copied"
  cmp /mnt/by_name/m-cut-$how/latest/original /dev/vg/thin || fail what was gone on with after a killed $how differs
  kept=$((kept + 1)); until_ours $kept
done
echo "GUEST-MOUNTCONTINUE went on"

# The daemon is killed while a volume is open: the next one removes its snapshot.
exec 3< /mnt/sources/vg/thick
[ "$(ours)" = $((kept + 1)) ] || fail an open volume has no snapshot
kill -9 $(pidof backyfs); exec 3<&-
umount -l /mnt; i=0; while pidof backyfs > /dev/null && [ $i -lt 100 ]; do i=$((i+1)); usleep 50000; done
[ "$(ours)" = $((kept + 1)) ] || fail who removed the snapshot?
backyfs mount /mnt > /tmp/said 2>&1 || fail mount after a crash
until_ours $kept
backyfs umount /mnt || fail umount
echo "GUEST-MOUNTCRASH cleaned up"
echo "GUEST-DONE"
"""


@test(mounted=False, seconds=900)
def volumes_thin_and_thick(w, samples):
    needs(*TOOLS)
    machine = LvmGuest(guest.default_cache(), w.binary, unit_tests(w.root / "units"), w.root)
    said = machine.run(SCRIPT, 850)
    print(said)
    missing = [step for step in STEPS if step not in said]
    check(not missing, f"the guest did not come to {missing}")
