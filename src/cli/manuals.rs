//! `manuals`: manual pages and completions, from the same texts as `--help`.

use crate::cli::args::{Manuals, command};
use crate::control::Key;
use anyhow::Context as _;
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use std::fs;
use std::path::Path;

const SOURCE: &str = concat!("backyfs ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "backyfs";

/// Options of mount(8) that are no settings: name, text.
const MOUNT_OPTIONS: [(&str, &str); 7] = [
    ("config=FILE", "The configuration file. What an option says wins over it."),
    (
        "source=NAME:file:/DIR, source=NAME:rbd:POOL[/NAMESPACE], source=NAME:lvm:GROUP",
        "A source below sources/NAME, as a table [sources.NAME] of the configuration file sets it up. Several times for several.",
    ),
    (
        "wait-for-target=TIME",
        "How long to wait until /etc/fstab has mounted what the target, the state directory and the keys lie in [default: 30s]",
    ),
    ("ro", "Nothing can be written through the mount."),
    ("user", "Everyone may mount it for themselves; the daemon runs as that user. Needs fusermount3."),
    ("allow_other", "The same as allow-other."),
    (
        "remount",
        "Changes flags of mount(8), upload-limit and download-limit; anything else is refused, unless it says what is in force.",
    ),
];

/// Settings that are no flags, because everyone could see them.
const SECRETS: [(Key, &str); 3] = [
    (Key::S3AccessKey, "Access key of the server"),
    (Key::S3SecretKey, "Its secret; the file must not be readable by others"),
    (Key::S3SessionToken, "Its session token; the file must not be readable by others"),
];

/// `backyfs manuals DIR`: writes below `DIR/share`.
///
/// # Errors
/// When a file cannot be written.
pub fn manuals(args: &Manuals) -> anyhow::Result<()> {
    let share = args.prefix.join("share");
    let man = share.join("man");
    for (name, page) in command_pages()? {
        write(&man.join("man1").join(format!("{name}.1")), &page)?;
    }
    write(&man.join("man5/backyfs.toml.5"), configuration_page().render().as_bytes())?;
    write(&man.join("man8/mount.backyfs.8"), mount_page().render().as_bytes())?;
    for (shell, path) in [
        (Shell::Bash, "bash-completion/completions/backyfs"),
        (Shell::Zsh, "zsh/site-functions/_backyfs"),
        (Shell::Fish, "fish/vendor_completions.d/backyfs.fish"),
    ] {
        let mut script = Vec::new();
        generate(shell, &mut command(), "backyfs", &mut script);
        write(&share.join(path), &script)?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(path, bytes));
    written.with_context(|| path.display().to_string())
}

/// A page for the program, one for each command, and one for each command of a command.
fn command_pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut root = command();
    root.build();
    let mut pages = vec![("backyfs".to_owned(), page_of(root.clone())?)];
    let mut waiting: Vec<Command> = root.get_subcommands().cloned().collect();
    while let Some(verb) = waiting.pop() {
        if verb.get_name() == "help" {
            continue;
        }
        waiting.extend(verb.get_subcommands().cloned());
        let name = verb.get_display_name().unwrap_or(verb.get_name()).to_owned();
        // The settings are the same everywhere: backyfs(1) has them.
        let own = verb.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        let about = "Settings and output options of backyfs(1) can be given as well.";
        pages.push((name, page_of(own.after_help(about))?));
    }
    Ok(pages)
}

fn page_of(command: Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    let page_of = Man::new(command).section("1").source(SOURCE).manual(MANUAL).date("");
    page_of.render(&mut page)?;
    Ok(page)
}

fn heading(name: &str, section: &str) -> Roff {
    let mut page = Roff::new();
    page.control("TH", [name, section, "", SOURCE, MANUAL]);
    page
}

fn section(page: &mut Roff, title: &str, text: &str) {
    page.control("SH", [title]);
    for paragraph in text.split("\n\n") {
        page.control("PP", []);
        page.text([roman(paragraph)]);
    }
}

fn tagged(page: &mut Roff, tag: &str, text: &str) {
    page.control("TP", []);
    page.text([bold(tag)]);
    page.text([roman(text)]);
}

/// Every setting but the name of the file itself, with what `--help` says of it.
fn settings(page: &mut Roff) {
    let root = command();
    for key in Key::ALL.into_iter().filter(|key| *key != Key::Config) {
        let flag = root.get_arguments().find(|arg| arg.get_long() == Some(key.name()));
        let help = flag.and_then(|arg| arg.get_help()).map(ToString::to_string);
        let secret = SECRETS.iter().find(|(other, _)| *other == key).map(|(_, text)| (*text).to_owned());
        let value = flag.and_then(|arg| arg.get_value_names()?.first()).map_or("TEXT", |name| name.as_str());
        page.control("TP", []);
        page.text([bold(key.name()), roman(" = "), italic(value)]);
        page.text([roman(help.or(secret).unwrap_or_default())]);
    }
}

fn configuration_page() -> Roff {
    let mut page = heading("backyfs.toml", "5");
    section(&mut page, "NAME", "backyfs.toml - configuration of backyfs");
    section(
        &mut page,
        "DESCRIPTION",
        "A file of TOML with one key for each setting. It is /etc/backyfs.toml, for users $XDG_CONFIG_HOME/backyfs.toml or \
         ~/.config/backyfs.toml, or the one that --config, the mount option config= or BACKYFS_CONFIG name. The default one may be absent.\n\n\
         Each setting can also be given as a flag (--state-dir), a mount option (state-dir=) and a variable (BACKYFS_STATE_DIR), \
         which win over the file in this order. Unknown keys are errors, told with their line.\n\n\
         Sizes take K, M, G, T (powers of 1024), times s, m, h. A list is a TOML array or a text with commas. A relative path starts where the \
         file lies.",
    );
    page.control("SH", ["SETTINGS"]);
    settings(&mut page);
    page.control("SH", ["TABLES"]);
    for (table, text) in [
        ("[s3]", "Settings that begin with s3-, without that: endpoint, region, access-key and so on."),
        (
            "[schedule.NAME]",
            "A schedule: interval, keep, sla. Of the built-in ones (hourly, daily, weekly, monthly and so on) any part can be changed.",
        ),
        (
            "[names.\"PATTERN\"]",
            "What holds for names that match: schedules, keep. The first table that matches counts.",
        ),
        (
            "[sources.NAME]",
            "What stands below sources/NAME of a mount: kind = \"file\" with path; \"rbd\" with pool, namespace, conf, user, snapshot-prefix; \"lvm\" with group, snapshot-size, snapshot-prefix, thin-pool.",
        ),
    ] {
        tagged(&mut page, table, text);
    }
    page.control("SH", ["EXAMPLE"]);
    page.control("EX", []);
    for line in [
        "target = \"s3://bucket/prefix\"",
        "key-file = \"backyfs.key\"",
        "memory = \"1G\"",
        "",
        "[s3]",
        "endpoint = \"https://s3.example.org\"",
        "credentials-file = \"s3-credentials\"",
        "",
        "[sources.images]",
        "kind = \"file\"",
        "path = \"/var/lib/libvirt/images\"",
        "",
        "[names.\"images/*\"]",
        "schedules = [\"daily\", \"weekly\"]",
    ] {
        page.text([roman(line)]);
    }
    page.control("EE", []);
    section(&mut page, "SEE ALSO", "backyfs(1), mount.backyfs(8)");
    page
}

fn mount_page() -> Roff {
    let mut page = heading("mount.backyfs", "8");
    section(
        &mut page,
        "NAME",
        "mount.backyfs, umount.fuse.backyfs - mount and unmount backyfs by mount(8), umount(8) and fstab(5)",
    );
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("mount -t backyfs"), roman(" [-o "), italic("OPTIONS"), roman("] "), italic("TARGET DIR")]);
    page.control("PP", []);
    page.text([bold("umount"), roman(" [-l|-f] "), italic("DIR")]);
    section(
        &mut page,
        "DESCRIPTION",
        "mount(8) and umount(8) call these programs, which call backyfs mount and backyfs umount. TARGET is dir:/PATH, s3://BUCKET/PREFIX, or none \
         when an option or the configuration file names it.\n\n\
         mount returns when the mount answers; mistakes are one line with file and line, and the code is 32. umount returns when everything that was written is durable and \
         the daemon has ended. A mount that is in use stays, and who uses it is named. umount -l takes it out of sight and lets them finish; umount -f \
         cuts them off, gives up what the target does not take, and ends a daemon that hangs.",
    );
    page.control("SH", ["OPTIONS"]);
    page.control("PP", []);
    page.text([roman("Those of mount(8), and these. A value with commas stands in double quotes; of an option that is there twice the last counts.")]);
    for (name, text) in MOUNT_OPTIONS {
        tagged(&mut page, name, text);
    }
    page.control("SH", ["SETTINGS"]);
    page.control("PP", []);
    page.text([roman("As in backyfs.toml(5), without spaces: memory=1G.")]);
    settings(&mut page);
    page.control("SH", ["EXAMPLE"]);
    page.control("EX", []);
    page.text([roman(
        "s3://bucket/prefix  /backups  backyfs  config=/etc/backyfs.toml,_netdev,nofail,x-systemd.automount  0 0",
    )]);
    page.control("EE", []);
    section(
        &mut page,
        "SEE ALSO",
        "backyfs-mount(1), backyfs-umount(1), backyfs.toml(5), mount(8), umount(8), fstab(5)",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_every_setting_has_its_place() {
        let dir = tempfile::tempdir().unwrap();
        manuals(&Manuals { prefix: dir.path().to_owned() }).unwrap();
        let man = dir.path().join("share/man");
        let read = |path: &str| fs::read_to_string(man.join(path)).unwrap().replace("\\-", "-").replace("\\*(Aq", "'");
        for verb in command().get_subcommands() {
            let page = read(&format!("man1/backyfs-{}.1", verb.get_name()));
            assert!(page.contains(&verb.get_about().unwrap().to_string()), "{page}");
            assert!(!page.contains("--state-dir"), "settings are in one page");
        }
        assert!(read("man1/backyfs-key-add.1").contains("new-key-file"));
        assert!(read("man1/backyfs.1").contains("--state-dir"));
        for page in ["man5/backyfs.toml.5", "man8/mount.backyfs.8"] {
            let text = read(page);
            for key in Key::ALL.into_iter().filter(|key| *key != Key::Config) {
                let at = text
                    .find(&format!("\\fB{}\\fR = ", key.name()))
                    .unwrap_or_else(|| panic!("{page}: {}", key.name()));
                let help = text[at..].lines().nth(1).unwrap_or_default();
                assert!(help.len() > 5 && !help.starts_with('.'), "{page}: {} has no text", key.name());
            }
        }
        for script in [
            "bash-completion/completions/backyfs",
            "zsh/site-functions/_backyfs",
            "fish/vendor_completions.d/backyfs.fish",
        ] {
            let text = fs::read_to_string(dir.path().join("share").join(script)).unwrap();
            assert!(text.contains("rebuild") && text.contains("state-dir"), "{script}");
        }
    }
}
