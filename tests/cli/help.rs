//! What `--help` says, kept in tests/help.txt. `BACKYFS_ACCEPT_HELP=1` accepts what it is now.

use std::path::Path;

#[test]
fn help_is_as_it_was() {
    let mut text = String::new();
    let mut root = backyfs::cli::command().term_width(100);
    root.build();
    text.push_str(&root.render_long_help().to_string());
    add(&mut text, "", &mut root);
    let text: String = text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("BACKYFS_ACCEPT_HELP").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "docs/commands.md may have to follow");
}

/// The helps of the verbs below a command, and of those below them. The settings are the same everywhere.
fn add(text: &mut String, above: &str, command: &mut clap::Command) {
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        let name = format!("{above}{}", verb.get_name());
        let own = verb.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg }).term_width(100);
        text.push_str(&format!("\n===== {name}\n{}", own.clone().render_long_help()));
        add(text, &format!("{name} "), verb);
    }
}
