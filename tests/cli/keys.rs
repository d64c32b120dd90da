//! Secrets that come and go.

use super::{World, image};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn keys_come_and_go_and_the_last_one_stays() {
    let world = World::new();
    image(&world.path("img"), 1);
    world.backup("img", "vm");
    let secret = |name: &str, text: &str| {
        fs::write(world.path(name), text).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        world.text(name)
    };
    let (first, second) = (secret("first", "correct horse\n"), secret("second", "battery staple\n"));
    let with =
        |file: &str, args: &[&str]| world.run(&[args, &["--key-file", "absent", "--passphrase-file", file]].concat());
    assert!(!with(&first, &["ls"]).status.success());
    world.ok(&["key", "add", "--new-passphrase-file", &first]);
    world.fails(&["key", "add", "--new-passphrase-file", &first], 1, "opens the repository already");
    assert!(with(&first, &["ls"]).status.success());
    world.ok(&["key", "passwd", "--new-passphrase-file", &second]);
    assert!(!with(&first, &["ls"]).status.success() && with(&second, &["ls"]).status.success());
    world.ok(&["key", "add", "--new-key-file", &world.text("key2")]);
    world.ok(&["ls", "--key-file", &world.text("key2")]);
    fs::set_permissions(world.path("key2"), fs::Permissions::from_mode(0o644)).unwrap();
    world.fails(&["ls", "--key-file", &world.text("key2")], 1, "chmod 600");
    let recovery = world.json(&["key", "recovery"])["recovery_key"].as_str().unwrap().to_owned();
    let paper = secret("paper", &recovery);
    assert!(with(&paper, &["ls"]).status.success());
    // Everything but the slot in use goes; that one only by force; the last never.
    let slots = world.json(&["key", "list"])["slots"].as_array().unwrap().clone();
    assert_eq!(slots.len(), 4);
    for slot in &slots {
        let id = slot["slot"].as_str().unwrap();
        if slot["in_use"] == true {
            world.fails(&["key", "remove", id], 1, "opened just now");
        } else {
            world.ok(&["key", "remove", id]);
        }
    }
    let left = world.json(&["key", "list"])["slots"].as_array().unwrap().clone();
    assert_eq!(left.len(), 1);
    world.fails(&["key", "remove", left[0]["slot"].as_str().unwrap(), "--force"], 1, "it stays");
    assert_eq!(world.json(&["rekey"])["key_version"], 2);
    assert!(world.json(&["rekey", "--migrate"])["blocks"].as_u64().unwrap() > 0);
    world.ok(&["restore", "vm", &world.text("out")]);
    assert_eq!(fs::read(world.path("img")).unwrap(), fs::read(world.path("out")).unwrap());
    assert!(world.ok(&["key", "list"]).contains("key version 2 of 2"));
}
