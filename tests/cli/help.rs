//! What `--help` says, kept in tests/help.txt. `BACKYFS_ACCEPT_HELP=1` accepts what it is now.

use std::path::Path;

#[test]
fn help_is_as_it_was() {
    let mut text = String::new();
    let mut root = backyfs::cli::command().term_width(100);
    root.build();
    text.push_str(&root.render_long_help().to_string());
    for verb in root.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        // The settings are the same everywhere.
        let own = verb.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg }).term_width(100);
        text.push_str(&format!("\n===== {}\n{}", verb.get_name(), own.clone().render_long_help()));
    }
    let text: String = text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("BACKYFS_ACCEPT_HELP").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "docs/commands.md may have to follow");
}
