//! Backups that were made elsewhere, taken over with their moments.

use crate::{MIB, World};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn a_backup_of_the_past_keeps_its_moment_and_schedules_do_not_touch_it() {
    let world = World::new();
    let config = fs::read_to_string(world.path("config.toml")).unwrap();
    fs::write(world.path("config.toml"), format!("{config}schedules = 'daily'\n")).unwrap();
    fs::write(world.path("new"), vec![1; MIB]).unwrap();
    fs::write(world.path("old"), vec![2; MIB]).unwrap();
    world.backup("new", "vm");
    let (old, moment) = (world.text("old"), "2019-03-01T02:00:00Z");
    let args = ["backup", &old, "vm", "--created", moment, "--quiet"];
    let uid = world.ok(&args).trim().to_owned();
    let listed = world.json(&["ls", "vm"]);
    let row = &listed[0];
    assert_eq!((row["uid"].as_str(), row["created"].as_str()), (Some(&*uid), Some("2019-03-01T02:00:00.000Z")));
    assert_eq!((row["tags"].as_array().unwrap().len(), listed[1]["tags"][0].as_str()), (0, Some("daily")));
    assert!(row["expire"].is_null() && !listed[1]["expire"].is_null());
    // The newest is the one whose moment is the latest, not the one that was made last.
    world.ok(&["restore", "vm", &world.text("out"), "--quiet"]);
    assert_eq!(fs::read(world.path("out")).unwrap(), vec![1; MIB]);
    world.ok(&["restore", "vm@2019", &world.text("out"), "--force", "--quiet"]);
    assert_eq!(fs::read(world.path("out")).unwrap(), vec![2; MIB]);
    world.fails(&args, 1, "has a version of 2019-03-01T02:00:00.000Z already");
    world.fails(&["backup", &old, "vm", "--created", "2999-01-01"], 1, "in the future");
    world.fails(&["backup", &old, "vm", "--created", "soon"], 1, "soon");
    // Another machine, which knows neither, finds both.
    let state = ["--state-dir", &world.text("other")];
    assert_eq!(world.json(&[&state[..], &["ls", "vm"]].concat()).as_array().unwrap().len(), 2);
}

fn take_over(world: &World, more: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/from-backy2");
    let mut command: Command = world.command(&[]);
    let envs: Vec<_> = command.get_envs().map(|(key, value)| (key.to_owned(), value.unwrap().to_owned())).collect();
    command = Command::new(script);
    command.arg(world.path("old")).args(more).env_clear().envs(envs).current_dir(world.path("."));
    command.env("BACKYFS", env!("CARGO_BIN_EXE_backyfs")).env("BACKY2", world.path("backy2")).output().unwrap()
}

#[test]
fn versions_of_backy2_are_taken_over_once() {
    let world = World::new();
    // What backy2 2.13 lists, and shows in its mount.
    let list = "u1|2025-03-01 02:00:00|1|0|2027-01-01 00:00:00|b_daily,x|snap 1|host/vm one\n\
                u2|2025-03-01 02:00:00|1|1||||host/vm one\n\
                u3|2025-03-02 02:00:00|0|0||||other\n";
    let program = world.path("backy2");
    fs::write(&program, format!("#!/bin/sh\n[ \"$1 $2 $3\" = '-m -s ls' ] && cat <<'END'\n{list}END\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for (uid, byte) in [("u1", 1), ("u2", 2), ("u3", 3)] {
        let dir = world.path("old/by_version_uid").join(uid);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("data"), vec![byte; 3 * MIB / 2]).unwrap();
    }
    let dry = take_over(&world, &["--dry-run"]);
    assert!(dry.status.success(), "{dry:?}");
    assert_eq!(world.json(&["ls"]).as_array().unwrap().len(), 0);
    for (round, said) in [(1, "2 taken over, 1 left out, 0 failed"), (2, "0 taken over, 3 left out, 0 failed")] {
        let output = take_over(&world, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains(said), "round {round}: {text}");
    }
    let rows = world.json(&["ls"]);
    let of = |row: usize, key: &str| rows[row][key].as_str().unwrap_or_default().to_owned();
    assert_eq!((of(0, "name"), of(0, "created")), ("host/vm one".into(), "2025-03-01T02:00:00.000Z".into()));
    assert_eq!((of(0, "snapshot_name"), of(0, "expire")), ("snap 1".into(), "2027-01-01T00:00:00Z".into()));
    assert_eq!(rows[0]["tags"], serde_json::json!(["b_daily", "x"]));
    assert_eq!((of(1, "created"), &rows[1]["protected"]), ("2025-03-01T02:00:00.001Z".into(), &true.into()));
    world.ok(&["restore", &of(0, "uid"), &world.text("out"), "--quiet"]);
    assert_eq!(fs::read(world.path("out")).unwrap(), vec![1; 3 * MIB / 2]);
    let invalid = take_over(&world, &["other", "--invalid"]);
    assert!(invalid.status.success(), "{invalid:?}");
    assert_eq!(world.json(&["ls", "other"])[0]["tags"], serde_json::json!(["backy2-invalid"]));
}
