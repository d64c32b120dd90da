//! Every command, run as a program against a repository in a temporary directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod help;
mod keys;
mod moving;
mod repairing;

use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MIB: usize = 1 << 20;

/// A repository to be, and the variables that name it.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Without a repository.
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With one.
    fn new() -> Self {
        let world = Self::empty();
        world.ok(&["init", "--block-size", "64K", "--pack-size", "1M"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backyfs"));
        command.args(args).env_clear().env("HOME", self.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command.env("BACKYFS_CONFIG", self.path("config.toml")).current_dir(self.dir.path());
        if !self.path("config.toml").exists() {
            let text =
                format!("target = 'dir:{0}/repo'\nstate-dir = 'state'\nkey-file = 'key'\n", self.dir.path().display());
            fs::write(self.path("config.toml"), text).unwrap();
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs what must succeed; its standard output.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// Runs what must fail with a code and one sentence that contains `part`.
    fn fails(&self, args: &[&str], code: i32, part: &str) {
        let output = self.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("backyfs: ") && last.contains(part), "{args:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("internal error"), "{said}");
    }

    fn backup(&self, source: &str, name: &str) -> String {
        self.ok(&["backup", &self.text(source), name, "--quiet"]).trim().to_owned()
    }

    fn uids(&self) -> Vec<String> {
        let rows = self.json(&["ls"]);
        rows.as_array().unwrap().iter().map(|row| row["uid"].as_str().unwrap().to_owned()).collect()
    }

    fn stored_bytes(&self) -> u64 {
        files(&self.path("repo")).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Bytes that do not compress, different for each seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// A sparse image: 3 MiB of noise at 1 MiB, a few bytes at the end, a last block that is not whole.
fn image(path: &Path, seed: u64) -> Vec<u8> {
    let len = 8 * MIB + 12_345;
    let mut bytes = vec![0; len];
    bytes[MIB..4 * MIB].copy_from_slice(&noise(3 * MIB, seed));
    bytes[len - 5..].copy_from_slice(b"tail!");
    let file = File::create(path).unwrap();
    file.set_len(len as u64).unwrap();
    file.write_all_at(&bytes[MIB..4 * MIB], MIB as u64).unwrap();
    file.write_all_at(b"tail!", len as u64 - 5).unwrap();
    bytes
}

#[test]
fn init_makes_a_key_shows_the_recovery_key_and_works_once() {
    let world = World::empty();
    let said = world.ok(&["init"]);
    let recovery = said.lines().map(str::trim).find(|line| line.split('-').count() == 8).unwrap().to_owned();
    assert_eq!(fs::metadata(world.path("key")).unwrap().mode() & 0o777, 0o600);
    world.fails(&["init"], 1, "already holds a backyfs repository");
    world.ok(&["ls"]);
    // The recovery key opens it when the key is lost.
    fs::remove_file(world.path("key")).unwrap();
    world.fails(&["ls"], 1, "key does not exist");
    fs::write(world.path("paper"), recovery.to_lowercase()).unwrap();
    fs::set_permissions(world.path("paper"), fs::Permissions::from_mode(0o600)).unwrap();
    world.ok(&["ls", "--passphrase-file", &world.text("paper")]);
}

#[test]
fn wrong_keys_and_strange_targets_are_told_in_a_sentence() {
    let world = World::new();
    fs::write(world.path("other"), noise(64, 9)).unwrap();
    fs::set_permissions(world.path("other"), fs::Permissions::from_mode(0o640)).unwrap();
    world.fails(&["ls", "--key-file", &world.text("other")], 1, "chmod 600");
    fs::set_permissions(world.path("other"), fs::Permissions::from_mode(0o600)).unwrap();
    world.fails(&["ls", "--key-file", &world.text("other")], 1, "wrong key file");
    fs::create_dir(world.path("strange")).unwrap();
    fs::write(world.path("strange/photo.jpg"), b"mine").unwrap();
    let strange = format!("--target=dir:{}", world.text("strange"));
    world.fails(&["ls", &strange], 1, "no backyfs repository");
    world.fails(&["init", &strange, "--key-file", &world.text("unused")], 1, "photo.jpg");
    assert!(!world.path("unused").exists(), "a key for nothing is not left behind");
    assert_eq!(files(&world.path("strange")), [world.path("strange/photo.jpg")]);
    world.fails(&["ls", &format!("--target=dir:{}", world.text("none"))], 6, "is missing");
}

#[test]
fn settings_come_from_every_place_and_mistakes_are_named() {
    let world = World::new();
    fs::write(world.path("bad.toml"), "target = 'dir:/x'\ntraget = 1\n").unwrap();
    world.fails(&["ls", "--config", &world.text("bad.toml")], 1, "bad.toml line 2: there is no setting \"traget\"");
    world.fails(&["ls", "--config", &world.text("absent.toml")], 1, "absent.toml cannot be read");
    world.fails(&["ls", "--memory", "3"], 1, "--memory: 3 is too little");
    world.fails(&["mount", &world.text("x"), "-o", "colour=red"], 1, "colour=red");
    world.fails(&["mount", &world.text("x")], 1, "does not exist");
    let output = world.command(&["ls"]).env("BACKYFS_MIN_AGE_DAYS", "soon").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("BACKYFS_MIN_AGE_DAYS"));
    assert_eq!(world.run(&["frobnicate"]).status.code(), Some(1));
    assert_eq!(world.run(&["--version"]).status.code(), Some(0));
}

#[test]
fn without_a_target_backup_makes_its_own_repository() {
    let world = World::empty();
    image(&world.path("img"), 1);
    fs::write(world.path("config.toml"), "state-dir = 'own'\n").unwrap();
    world.fails(&["ls"], 1, "does not exist");
    let output = world.run(&["backup", &world.text("img"), "vm"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("own/recovery-key"), "{said}");
    for secret in ["own/key", "own/recovery-key"] {
        assert_eq!(fs::metadata(world.path(secret)).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(world.uids().len(), 1);
}

#[test]
fn a_backup_is_listed_shown_and_restored() {
    let world = World::new();
    let bytes = image(&world.path("img"), 1);
    fs::set_permissions(world.path("img"), fs::Permissions::from_mode(0o640)).unwrap();
    let source = world.text("img");
    let uid =
        world.ok(&["backup", &source, "host/vm", "--tag", "a,b", "--tag", "c", "--expire", "30d", "--snapshot", "s1"]);
    let rows = world.json(&["ls"]);
    let row = &rows[0];
    assert_eq!((&row["uid"], &row["name"]), (&Value::from(uid.trim()), &Value::from("host/vm")));
    assert_eq!((row["size_bytes"].as_u64(), row["valid"].as_str()), (Some(bytes.len() as u64), Some("valid")));
    assert_eq!((row["tags"].to_string().as_str(), &row["snapshot_name"]), ("[\"a\",\"b\",\"c\"]", &Value::from("s1")));
    let mut keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected =
        ["created", "expire", "name", "protected", "reason", "size_bytes", "snapshot_name", "tags", "uid", "valid"];
    assert_eq!(keys, expected);
    assert_eq!(world.json(&["ls", "host", "--tag", "b"]).as_array().unwrap().len(), 1);
    assert_eq!(world.json(&["ls", "hos"]).as_array().unwrap().len(), 0);
    assert_eq!(world.json(&["ls", "--expired"]).as_array().unwrap().len(), 0);
    assert!(world.ok(&["ls"]).lines().nth(1).unwrap().contains("host/vm"));
    let shown = world.json(&["show", "host/vm"]);
    assert_eq!((&shown["mode"], &shown["base"]), (&Value::from("0640"), &Value::Null));
    assert!(world.ok(&["show", &uid.trim()[..20]]).contains("snapshot_name"));

    world.ok(&["restore", "host/vm", &world.text("out")]);
    assert_eq!(fs::read(world.path("out")).unwrap(), bytes);
    let out = fs::metadata(world.path("out")).unwrap();
    assert_eq!(out.mode() & 0o777, 0o640);
    assert!(out.blocks() * 512 <= 3 * MIB as u64 + 200_000, "{} blocks: restores are sparse", out.blocks());
    assert_eq!(world.run(&["restore", "host/vm", "-"]).stdout, bytes);
    world.ok(&["restore", "host/vm", &world.text("full"), "--sparse=no"]);
    assert!(fs::metadata(world.path("full")).unwrap().blocks() * 512 >= 8 * MIB as u64);
    world.fails(&["restore", "no-such", &world.text("x")], 1, "no-such");
    assert!(!world.path("x").exists());
}

#[test]
fn what_exists_is_overwritten_only_with_force() {
    let world = World::new();
    let bytes = image(&world.path("img"), 1);
    world.backup("img", "vm");
    fs::write(world.path("out"), b"precious").unwrap();
    world.fails(&["restore", "vm", &world.text("out")], 1, "--force");
    assert_eq!(fs::read(world.path("out")).unwrap(), b"precious");
    world.ok(&["restore", "vm", &world.text("out"), "--force"]);
    assert_eq!(fs::read(world.path("out")).unwrap(), bytes);
    world.fails(&["restore", "vm", &world.dir.path().display().to_string(), "--force"], 1, "directory");
    world.fails(&["restore", "vm", "/dev/null", "--force"], 1, "neither a file nor a block device");
}

/// A loop device, detached at the end; `None` where there is none to be had.
struct LoopDevice(String);

impl LoopDevice {
    fn new(file: &Path) -> Self {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "this test needs loop devices: {}", String::from_utf8_lossy(&output.stderr));
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn block_devices_are_backed_up_and_restored_to() {
    let world = World::new();
    let mut bytes = image(&world.path("img"), 1);
    bytes.truncate(8 * MIB);
    fs::write(world.path("source"), &bytes).unwrap();
    fs::write(world.path("disk"), noise(10 * MIB, 5)).unwrap();
    fs::write(world.path("small"), noise(MIB, 5)).unwrap();
    let [source, disk, small] = ["source", "disk", "small"].map(|name| LoopDevice::new(&world.path(name)));
    world.ok(&["backup", &source.0, "vm"]);
    assert_eq!(world.run(&["restore", "vm", "-"]).stdout, bytes);
    world.fails(&["restore", "vm", &disk.0], 1, "--force");
    world.fails(&["restore", "vm", &small.0, "--force"], 1, "too few");
    world.ok(&["restore", "vm", &disk.0, "--force"]);
    let mut now = vec![0; 10 * MIB];
    File::open(&disk.0).unwrap().read_exact_at(&mut now, 0).unwrap();
    assert!(now[..8 * MIB] == bytes, "holes are zeroed on a device");
    assert!(now[8 * MIB..] == noise(10 * MIB, 5)[8 * MIB..], "what lies behind the image is left alone");
    let again = world.json(&["restore", "vm", &disk.0, "--force", "--continue"]);
    assert_eq!(again["written_bytes"].as_u64(), Some(0), "{again}");
}

#[test]
fn a_restore_goes_on_where_it_stopped() {
    let world = World::new();
    let bytes = image(&world.path("img"), 1);
    world.backup("img", "vm");
    // What a killed restore leaves: a part with some right blocks, some wrong bytes, and something in a hole.
    let mut part = bytes.clone();
    part[2 * MIB..2 * MIB + 10].fill(0xee);
    part[6 * MIB..6 * MIB + 10].fill(0xee);
    fs::write(world.path("out.backyfs-part"), &part).unwrap();
    world.fails(&["restore", "vm", &world.text("out")], 1, "--continue");
    let done = world.json(&["restore", "vm", &world.text("out"), "--continue"]);
    assert_eq!(fs::read(world.path("out")).unwrap(), bytes);
    assert_eq!(done["written_bytes"].as_u64(), Some(64 << 10), "{done}");
    assert!(!world.path("out.backyfs-part").exists());
}

#[test]
fn a_second_backup_costs_what_changed_and_diff_shows_it() {
    let world = World::new();
    let mut bytes = image(&world.path("img"), 1);
    world.backup("img", "vm");
    let before = world.stored_bytes();
    world.backup("img", "vm");
    assert!(world.stored_bytes() - before < 4096, "an unchanged image costs a record");
    bytes[2 * MIB + 100] ^= 1;
    bytes[7 * MIB] = 1;
    fs::write(world.path("img"), &bytes).unwrap();
    let made = world.json(&["backup", &world.text("img"), "vm"]);
    assert_eq!(made["stats"]["new_bytes"].as_u64(), Some(2 * (64 << 10)));
    let uids = world.uids();
    let diff = world.json(&["diff", &uids[1], &uids[2]]);
    let range = |offset: usize| serde_json::json!({"offset": offset, "length": 64 << 10, "exists": true});
    assert_eq!(diff["ranges"], serde_json::json!([range(2 * MIB), range(7 * MIB)]));
    assert_eq!(world.json(&["diff", &uids[0], &uids[1]])["changed_bytes"].as_u64(), Some(0));
    let du = world.json(&["du"]);
    let unique: Vec<_> =
        du["rows"].as_array().unwrap().iter().map(|row| row["unique_bytes"].as_u64().unwrap()).collect();
    assert_eq!(unique, [0, 0, 2 << 16]);
    let names = world.json(&["du", "--names"]);
    let held = names["rows"][0]["unique_bytes"].as_u64().unwrap();
    assert!(held > 3 * MIB as u64 && names["rows"][0]["versions"].as_u64() == Some(3), "{names}");
    assert!(world.ok(&["du"]).contains("FREED BY RM"));
}

#[test]
fn sources_that_cannot_be_read_publish_nothing() {
    let world = World::new();
    world.fails(&["backup", &world.text("none"), "vm"], 5, "none");
    world.fails(&["backup", &world.dir.path().display().to_string(), "vm"], 1, "directory");
    image(&world.path("img"), 1);
    world.fails(&["backup", &world.text("img"), "a//b"], 1, "name of a backup");
    world.fails(&["backup", &world.text("img"), "vm", "--tag", "a/b"], 1, "tag");
    world.fails(&["backup", &world.text("img"), "vm", "--expire", "soon"], 1, "soon");
    world.backup("img", "host");
    world.fails(&["backup", &world.text("img"), "host/vm"], 1, "collides");
    assert_eq!(world.uids().len(), 1);
}

#[test]
fn labels_change_and_protect() {
    let world = World::new();
    image(&world.path("img"), 1);
    let uid = world.backup("img", "vm");
    let row = |world: &World| world.json(&["ls"])[0].clone();
    world.ok(&["tag", "vm", "a", "b,c"]);
    world.ok(&["untag", &uid, "b"]);
    assert_eq!(row(&world)["tags"].to_string(), "[\"a\",\"c\"]");
    assert_eq!(world.json(&["expire", "vm", "2030-01-02"])[0]["expire"], "2030-01-02T00:00:00Z");
    world.ok(&["expire", "vm", ""]);
    assert_eq!(row(&world)["expire"], Value::Null);
    world.fails(&["expire", "vm", "2030-13-01"], 1, "2030-13-01");
    world.fails(&["tag", "vm", "a/b"], 1, "a/b");

    world.fails(&["rm", "vm"], 1, "is a name");
    world.fails(&["rm", &uid], 1, "old and versions are kept for 6d at least");
    world.ok(&["protect", "vm"]);
    world.fails(&["rm", "--force", &uid], 1, "protected");
    world.ok(&["unprotect", &uid]);
    world.fails(&["rm", "--force", &uid, "nonsense"], 1, "nonsense");
    assert_eq!(world.uids(), [uid.as_str()], "all or nothing");
    world.ok(&["rm", &uid, "--min-age-days", "0"]);
    assert!(world.uids().is_empty());
    world.fails(&["rm", "--force", &uid], 1, &uid);
}

#[test]
fn statistics_outlive_the_version_and_the_host() {
    let world = World::new();
    image(&world.path("img"), 1);
    let first = world.backup("img", "vm");
    image(&world.path("img"), 2);
    let second = world.backup("img", "vm");
    image(&world.path("img"), 3);
    world.backup("img", "host/vm");
    let freed = |uids: &str| world.json(&["du", "--freed-by", uids])["freed_bytes"].as_u64().unwrap();
    assert!(freed(&first) >= 3 << 20 && freed(&format!("{first},{second}")) >= freed(&first) + freed(&second));
    let du = world.json(&["du"]);
    assert_eq!(du["logical_bytes"].as_u64(), Some(3 * (8 * MIB as u64 + 12_345)));
    assert_eq!(du["unique_bytes"].as_u64(), Some(9 << 20 | 64 << 10));
    world.ok(&["rm", "--force", &first]);
    let stats = |which: &[&str]| world.json(&[&["stats"], which].concat());
    let before = stats(&[]);
    let row = &before[0];
    assert_eq!((row["uid"].as_str(), row["why"].as_str()), (Some(first.as_str()), Some("asked")));
    assert!(row["new_bytes"].as_u64().unwrap() > 3 << 20 && row["removed"].is_string(), "{row}");
    assert!(before[1]["removed"].is_null());
    // Another host, or this one without its state, learns it from the target.
    fs::remove_dir_all(world.path("state")).unwrap();
    assert_eq!(stats(&[]), before);
    // And what a disk has spoilt of it, when somebody has repaired it who knew.
    let tombstone = world.path(&format!("repo/tombstones/{first}"));
    let whole = fs::read(&tombstone).unwrap().len();
    fs::write(&tombstone, vec![0; whole]).unwrap();
    assert!(world.ok(&["repair"]).contains("tombstones"));
    fs::remove_dir_all(world.path("state")).unwrap();
    assert_eq!(stats(&[]), before);
    assert_eq!(stats(&["vm"]).as_array().unwrap().len(), 2);
    assert_eq!(stats(&["host", "--last", "1"])[0]["name"], "host/vm");
    assert_eq!(stats(&[&first[..30]])[0]["uid"].as_str(), Some(first.as_str()));
    let names = stats(&["--names"]);
    let counted: Vec<_> =
        names.as_array().unwrap().iter().map(|n| (&n["name"], &n["versions"], &n["removed"])).collect();
    let value = |text: &str| Value::from(text);
    let (one, none, two) = (Value::from(1), Value::from(0), Value::from(2));
    assert_eq!(counted, [(&value("host/vm"), &one, &none), (&value("vm"), &one, &one), (&Value::Null, &two, &one)]);
    world.fails(&["stats", "nobody"], 1, "nobody");
    assert!(world.ok(&["stats"]).lines().count() == 4 && world.ok(&["stats", "--names"]).contains("(all)"));
    assert!(world.ok(&["du", "--names"]).contains("when each block counts once"));
}

#[test]
fn an_exported_version_can_be_published_again() {
    let world = World::new();
    let bytes = image(&world.path("img"), 1);
    let uid = world.backup("img", "vm");
    world.ok(&["tag", "vm", "golden"]);
    world.ok(&["export", "vm", &world.text("vm.json")]);
    world.fails(&["export", "vm", &world.text("vm.json")], 1, "exists");
    let exported: Value = serde_json::from_str(&world.ok(&["export", "vm"])).unwrap();
    assert_eq!(exported["uid"], uid.as_str());
    world.fails(&["import", &world.text("vm.json")], 1, "exists");
    world.ok(&["rm", "--force", &uid]);
    let again = world.ok(&["import", &world.text("vm.json")]);
    assert_ne!(again.trim(), uid);
    assert_eq!(world.json(&["show", "vm"])["tags"], serde_json::json!(["golden"]));
    assert_eq!(world.json(&["export", "vm"])["created"], exported["created"]);
    assert_eq!(world.run(&["restore", "vm", "-"]).stdout, bytes);
    fs::write(world.path("bad.json"), "{}").unwrap();
    world.fails(&["import", &world.text("bad.json")], 1, "no export");
    let foreign = exported.to_string().replace(exported["repository"].as_str().unwrap(), &uid);
    fs::write(world.path("foreign.json"), foreign).unwrap();
    world.fails(&["import", &world.text("foreign.json")], 1, "belongs to repository");
}

#[test]
fn a_lost_catalog_and_a_lost_index_are_learnt_again() {
    let world = World::new();
    let bytes = image(&world.path("img"), 1);
    world.backup("img", "vm");
    world.ok(&["tag", "vm", "t1"]);
    let before = world.json(&["ls"]);
    fs::remove_dir_all(world.path("state")).unwrap();
    let learnt = world.json(&["rebuild"]);
    assert_eq!((learnt["records"].as_u64(), learnt["entries"].as_u64()), (Some(1), Some(1)));
    assert_eq!(learnt["packs_indexed"].as_u64(), Some(0));
    assert_eq!(world.json(&["ls"]), before);

    // All index fragments, and the footer of one pack.
    for fragment in files(&world.path("repo/index")) {
        fs::remove_file(fragment).unwrap();
    }
    let pack = files(&world.path("repo/packs")).remove(0);
    let len = fs::metadata(&pack).unwrap().len();
    File::options().write(true).open(&pack).unwrap().write_all_at(&[0; 8], len - 8).unwrap();
    let learnt = world.json(&["rebuild"]);
    assert_eq!(learnt["packs_indexed"], learnt["packs"]);
    assert_eq!(world.json(&["rebuild", "--from-packs"])["packs_indexed"].as_u64(), Some(0));
    assert_eq!(world.run(&["restore", "vm", "-"]).stdout, bytes);
    assert_eq!(world.json(&["ls"]), before);
}

#[test]
fn damage_stops_a_restore_or_is_skipped_and_listed() {
    let world = World::new();
    let bytes = image(&world.path("img"), 1);
    world.backup("img", "vm");
    let mut packs = files(&world.path("repo/packs"));
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let pack = File::options().read(true).write(true).open(packs.last().unwrap()).unwrap();
    let mut byte = [0];
    pack.read_exact_at(&mut byte, 200_000).unwrap();
    pack.write_all_at(&[byte[0] ^ 4], 200_000).unwrap();

    world.fails(&["restore", "vm", &world.text("out")], 20, "at offset");
    assert!(!world.path("out").exists() && world.path("out.backyfs-part").exists());
    assert_eq!(world.run(&["restore", "vm", "-"]).status.code(), Some(20));
    let output = world.run(&["restore", "vm", &world.text("out"), "--continue", "--skip-damaged", "--json"]);
    assert_eq!(output.status.code(), Some(20));
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
    let zeroed = restored["zeroed"].as_array().unwrap();
    assert_eq!((zeroed.len(), zeroed[0]["length"].as_u64()), (1, Some(64 << 10)), "{restored}");
    let mut expected = bytes;
    let offset = usize::try_from(zeroed[0]["offset"].as_u64().unwrap()).unwrap();
    expected[offset..offset + (64 << 10)].fill(0);
    assert_eq!(fs::read(world.path("out")).unwrap(), expected);
    assert_eq!(world.json(&["status"])["damaged_blocks"].as_u64(), Some(1));
    // The next backup stores the block again: damage never spreads.
    world.backup("img", "vm2");
    assert_eq!(world.run(&["restore", "vm2", "-"]).status.code(), Some(0));
}

#[test]
fn status_tells_what_there_is() {
    let world = World::new();
    image(&world.path("img"), 1);
    world.backup("img", "vm");
    let status = world.json(&["status"]);
    assert_eq!((status["versions"].as_u64(), status["names"].as_u64()), (Some(1), Some(1)));
    assert_eq!(status["target"], format!("dir:{}", world.text("repo")));
    assert_eq!((&status["mounts"], &status["drafts"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert!(status["target_free_bytes"].as_u64() > Some(0));
    assert!(world.ok(&["status"]).contains("mounted at"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let world = World::new();
    image(&world.path("img"), 1);
    world.backup("img", "vm");
    let mut child = world
        .command(&["restore", "vm", "-", "--quiet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Flips a byte in the middle of the largest file below a directory.
fn damage(dir: &Path) -> PathBuf {
    let largest = files(dir).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    largest
}

#[test]
fn scrub_names_damage_marks_it_and_sees_it_healed() {
    let world = World::new();
    image(&world.path("img"), 1);
    let uid = world.backup("img", "vm");
    assert_eq!(world.json(&["scrub"])["versions_good"], 1);
    let pack = damage(&world.path("repo/packs"));
    let name = pack.file_name().unwrap().to_str().unwrap();
    let output = world.run(&["scrub"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(20) && said.contains(name) && said.contains(&uid), "{said}");
    assert_eq!(world.json(&["ls"])[0]["valid"], "invalid");
    assert!(world.json(&["show", &uid])["scrub"]["lost_bytes"].as_u64().unwrap() > 0);
    // Without key and state, on any host.
    let bare = Command::new(env!("CARGO_BIN_EXE_backyfs"))
        .args(["scrub", "--packs", "--json", "--state-dir", "none", "--target"])
        .arg(format!("dir:{}", world.text("repo")))
        .env_clear()
        .env("HOME", world.path("nobody"))
        .current_dir(world.path("."))
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&bare.stdout).unwrap();
    assert_eq!((bare.status.code(), found["damaged_packs"].as_array().unwrap().len()), (Some(20), 1));
    assert!(!world.path("none").exists());
    world.backup("img", "vm");
    assert_eq!(world.json(&["scrub", "vm", "--restart"])["findings"][0]["marked"], "valid");
    assert!(world.json(&["ls"]).as_array().unwrap().iter().all(|row| row["valid"] == "valid"));
    assert!(world.ok(&["scrub", "--percent", "50"]).contains("50% of all"));
    world.ok(&["scrub", &uid, "--source", &world.text("img")]);
    let file = File::options().write(true).open(world.path("img")).unwrap();
    file.write_all_at(b"changed", 5 * MIB as u64 + 3).unwrap();
    let output = world.run(&["scrub", &uid, "--source", &world.text("img")]);
    assert_eq!(output.status.code(), Some(20));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "differs: 512 bytes at offset 5242880\n");
    world.fails(&["scrub", "--rate", "0"], 1, "--rate");
    world.fails(&["scrub", "--packs", "vm"], 1, "without a key");
    for given in ["--all", "--restart", "--percent=16"] {
        world.fails(&["scrub", "--packs", given], 1, "without a key");
        world.fails(&["scrub", "vm", "--source=disk", given], 1, "compares a whole version");
    }
}
