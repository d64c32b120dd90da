//! Ways to end a mount: politely, by force, out of sight.

use crate::{Mounted, PATIENCE, code, eventually};
use backyfs::fs::process;
use backyfs::fuse::mount::MountError;
use backyfs::fuse::umount::{Insistence, umount};
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_busy_mount_says_who_holds_it() {
    let m = Mounted::new();
    let daemon = m.daemon().unwrap();
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(File::create(m.path("a")).unwrap()).spawn().unwrap();
    let error = m.umount().unwrap_err();
    assert!(matches!(error, MountError::Busy { .. }));
    assert_eq!(error.to_string(), format!("{} is in use by cat[{}]", m.dir().display(), child.id()));
    drop(child.stdin.take());
    child.wait().unwrap();
    m.umount().unwrap();
    let left = fs::read_to_string(format!("/proc/{}/status", daemon.tgid)).unwrap_or_default();
    assert_eq!(left, "", "the daemon is gone when umount returns");
    assert!(m.mount_table().is_empty());
    assert_eq!(fs::read_to_string(m.top.path().join("drained")).unwrap(), "drained");
    assert_eq!(fs::read_dir(m.run()).unwrap().count(), 0, "no pid file stays");
    assert!(matches!(m.umount(), Err(MountError::NotMounted(_))));
}

#[test]
fn what_cannot_be_stored_keeps_a_mount_until_it_is_given_up() {
    let m = Mounted::new();
    fs::write(m.path("dozing"), "").unwrap();
    let said = std::sync::Mutex::new(Vec::new());
    let umount_in = |how, patience_ms| {
        umount(&m.dir(), &m.run(), how, Duration::from_millis(patience_ms), &|text| {
            said.lock().unwrap().push(text.to_owned());
        })
    };
    let late = umount_in(Insistence::Polite, 200).unwrap_err();
    assert!(matches!(late, MountError::NotStored { .. }) && late.to_string().contains("timed out"), "{late}");
    eventually("it is answered", || m.events().iter().any(|event| event == "fsyncdir /"));
    fs::remove_file(m.path("dozing")).unwrap();
    fs::write(m.path("refused"), "").unwrap();
    let refused = umount_in(Insistence::Polite, 10_000).unwrap_err().to_string();
    assert!(
        refused.contains("is not unmounted") && refused.contains(&format!("umount -f {}", m.dir().display())),
        "{refused}"
    );
    assert_eq!(m.mount_table().len(), 1, "it stays");
    let file = File::create(m.path("open")).unwrap();
    umount_in(Insistence::Forced, 10_000).unwrap();
    assert!(m.mount_table().is_empty() && m.daemon().is_none());
    assert_eq!(code(file.sync_all()), Some(libc::ENOTCONN));
    assert_eq!(said.into_inner().unwrap(), [] as [String; 0], "nothing took long enough to be told");
}

#[test]
fn out_of_sight_those_who_use_it_finish() {
    let m = Mounted::new();
    let mut file = File::create(m.path("a")).unwrap();
    let daemon = m.daemon().unwrap();
    umount(&m.dir(), &m.run(), Insistence::Lazy, PATIENCE, &|_| {}).unwrap();
    assert!(m.mount_table().is_empty());
    file.write_all(b"still there").unwrap();
    assert!(process::is_running(daemon));
    drop(file);
    eventually("the daemon ends", || !process::is_running(daemon));
    assert_eq!(fs::read_to_string(m.top.path().join("drained")).unwrap(), "drained");
}
