//! Objects that are lost or damaged.

use super::{World, image};
use serde_json::Value;
use std::fs;

#[test]
fn repair_puts_back_what_this_host_knows() {
    let world = World::new();
    image(&world.path("img"), 1);
    let uid = world.backup("img", "vm");
    for file in [format!("repo/versions/{uid}"), format!("repo/ok/{uid}"), "repo/backyfs.repository".into()] {
        fs::remove_file(world.path(&file)).unwrap();
    }
    assert!(String::from_utf8(world.run(&["ls"]).stderr).unwrap().contains("its second copy serves"));
    fs::remove_file(world.path("repo/spare/backyfs.repository")).unwrap();
    world.fails(&["ls"], 20, "the header of the backyfs repository");
    assert_eq!(world.run(&["repair", "--dry-run"]).status.code(), Some(20));
    world.fails(&["ls"], 20, "the header of the backyfs repository");
    let said = world.ok(&["repair"]);
    assert!(said.contains("backyfs.repository") && said.contains(&format!("versions/{uid}")), "{said}");
    world.ok(&["scrub"]);
    world.ok(&["restore", &uid, &world.text("out")]);
    assert_eq!(fs::read(world.path("img")).unwrap(), fs::read(world.path("out")).unwrap());
    // Another host, for which the record is lost, finds the image by its map.
    for directory in ["versions", "ok"] {
        fs::remove_file(world.path(&format!("repo/{directory}/{uid}"))).unwrap();
    }
    let elsewhere = ["--state-dir", &world.text("elsewhere"), "--key-file", &world.text("key")];
    let run = |args: &[&str]| world.ok(&[args, &elsewhere].concat());
    let found: Value = serde_json::from_str(&run(&["repair", "--orphans", "--json"])).unwrap();
    let root = found[0]["root"].as_str().unwrap();
    run(&["repair", "--recover", &root[..10], "--name", "back"]);
    let row = &world.json(&["ls", "back"])[0];
    assert_eq!((&row["valid"], row["size_bytes"].as_u64().unwrap() % 65536), (&Value::from("incomplete"), 0));
}

#[test]
fn a_directory_of_keys_is_enough() {
    let world = World::new();
    image(&world.path("img"), 1);
    let uid = world.backup("img", "vm");
    for lost in ["keys", "spare"] {
        fs::remove_dir_all(world.path(&format!("repo/{lost}"))).unwrap();
        let elsewhere = ["--state-dir", &world.text(lost), "--key-file", &world.text("key")];
        world.ok(&[&["ls"], &elsewhere[..]].concat());
        let said = world.ok(&[&["repair"], &elsewhere[..]].concat());
        assert!(said.contains(&format!("{lost}/")), "{said}");
        assert!(world.ok(&[&["ls"], &elsewhere[..]].concat()).contains(&uid));
        world.ok(&["scrub"]);
        assert_eq!(
            fs::read_dir(world.path(&format!("repo/{lost}"))).unwrap().count(),
            if lost == "keys" { 3 } else { 4 }
        );
    }
}
