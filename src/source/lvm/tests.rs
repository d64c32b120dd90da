//! On real volumes: `BACKYFS_TEST_LVM` names a volume group that has a thin pool `pool` and room for 40 MiB beside it.

use crate::source::Volume;
use crate::source::conformance::{self, New};
use crate::source::lvm::{Group, LvmVolume};
use crate::source::volume::{Moment, SNAPSHOT_MARK};
use crate::words::clock::{ClockExt, SystemClock};

fn run(program: &str, arguments: &[&str]) -> String {
    super::tools::run(program, arguments).unwrap()
}

/// The conformance suite on a thick and on a thin volume.
#[test]
#[ignore = "it needs a volume group, which a virtual machine has (tests/mount/lvm.py)"]
fn volumes_of_a_group() {
    let group = std::env::var("BACKYFS_TEST_LVM").expect("BACKYFS_TEST_LVM names a volume group");
    for (thin_pool, holds) in [(None, New::Anything), (Some("pool".to_owned()), New::Zeros)] {
        let group = Group { thin_pool, snapshot_prefix: "test-".into(), ..Group::new(&group) };
        let [first, other] =
            ["conform", "conform-other"].map(|name| LvmVolume { group: group.clone(), volume: name.into() });
        let expected = conformance::restores_in_every_manner(&first, &other, holds);
        let name = format!("{}{SNAPSHOT_MARK}{}", first.snapshot_prefix(), SystemClock.uuid());
        let source = first.open(Moment::Now { name: &name }).unwrap();
        conformance::reads_what_it_holds(&*source, &expected);
        source.check().unwrap();
        drop(source);
        // One of somebody else's stays, whatever is asked for.
        let theirs = "backyfs-theirs";
        let from = format!("{}/conform", group.group);
        let room: &[&str] = if group.thin_pool.is_some() { &[] } else { &["--extents", "2"] };
        run("lvcreate", &[&["--snapshot", "--name", theirs], room, &[from.as_str()]].concat());
        for gone in [&name, theirs, &name] {
            first.remove_snapshot(gone).unwrap();
        }
        let left = run("lvs", &["--noheadings", "-o", "lv_name", &group.group]);
        let left: Vec<&str> = left.split_whitespace().collect();
        assert!(left.contains(&theirs) && !left.contains(&name.as_str()), "{left:?}");
        for volume in [theirs, "conform", "conform-other.backyfs-part"] {
            run("lvremove", &["--yes", &format!("{}/{volume}", group.group)]);
        }
    }
}
