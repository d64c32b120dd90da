//! `key` and `rekey`: who can open the repository, and under which key version new data is sealed.

use crate::cli::args::{KeyAdd, KeyArgs, KeyPasswd, KeyRemove, KeyVerb, NewSecret, Rekey};
use crate::cli::output::{self, Align, Table};
use crate::cli::progress::line;
use crate::cli::secret::ask_new_passphrase;
use crate::cli::setup::{Context, Open, interrupt};
use crate::control::{Settings, key_file, session};
use crate::format::slot::SlotKind;
use crate::ops::{OpsError, migrate};
use crate::repo::slots::SlotSummary;
use crate::repo::{RepoError, Repository};
use crate::seal::{KeyError, Secret};
use crate::words::ids::SlotId;
use crate::words::stamp::Stamp;
use serde_json::json;
use std::collections::BTreeSet;

/// `backyfs key`.
///
/// # Errors
/// What its verbs say.
pub fn key(context: &Context, args: &KeyArgs) -> anyhow::Result<()> {
    match &args.verb {
        KeyVerb::List => list(context),
        KeyVerb::Add(args) => add(context, args),
        KeyVerb::Remove(args) => remove(context, args),
        KeyVerb::Passwd(args) => passwd(context, args),
        KeyVerb::Recovery => recovery(context),
    }
}

fn word(slot: &SlotSummary) -> &'static str {
    match slot.kind {
        Some(SlotKind::Passphrase(_)) => "passphrase",
        Some(SlotKind::KeyFile) => "key file",
        Some(SlotKind::Recovery) => "recovery key",
        None => "damaged",
    }
}

/// The slots that the secrets of the settings open.
fn own_slots(repo: &Repository, settings: &Settings) -> anyhow::Result<BTreeSet<SlotId>> {
    let mut own = BTreeSet::new();
    for secret in session::secrets(settings)?.0 {
        own.extend(repo.slots_of(&secret)?);
    }
    Ok(own)
}

fn list(context: &Context) -> anyhow::Result<()> {
    let Open { repo, settings, .. } = context.open()?;
    let (slots, own) = (repo.slots()?, own_slots(&repo, &settings)?);
    let created = |slot: &SlotSummary| slot.created.map(Stamp::to_seconds_text);
    if context.globals.json {
        let rows: Vec<_> = slots
            .iter()
            .map(|slot| json!({"slot": slot.id.to_string(), "kind": word(slot), "created": created(slot), "in_use": own.contains(&slot.id)}))
            .collect();
        let versions: Vec<u32> = repo.key_versions().iter().map(|version| version.0).collect();
        output::json(&json!({"slots": rows, "key_version": repo.key_version().0, "key_versions": versions}))?;
        return Ok(());
    }
    let mut table =
        Table::new(&[("CREATED", Align::Left), ("KIND", Align::Left), ("SLOT", Align::Left), ("", Align::Left)]);
    for slot in &slots {
        let mark = if own.contains(&slot.id) { "opened this" } else { "" };
        table.row(vec![created(slot).unwrap_or_default(), word(slot).to_owned(), slot.id.to_string(), mark.to_owned()]);
    }
    let versions = repo.key_versions();
    output::print(&format!("{}key version {} of {}\n", table.render(), repo.key_version(), versions.len()))?;
    Ok(())
}

/// The secret for a new slot: from a file, or typed twice. A key file that does not exist is made.
fn new_secret(context: &Context, new: &NewSecret) -> anyhow::Result<Secret> {
    if let Some(path) = &new.new_key_file {
        return Ok(match key_file::read_key(path) {
            Err(crate::control::SetupError::NoSecret { .. }) => {
                let secret = key_file::create_key(path, &*context.clock)?;
                line(&format!("{} was made: keep a copy of it elsewhere", path.display()));
                secret
            }
            read => read?,
        });
    }
    match &new.new_passphrase_file {
        Some(path) => Ok(key_file::read_passphrase(path)?),
        None => Ok(ask_new_passphrase()?),
    }
}

fn tell(context: &Context, slot: SlotId, text: &str) -> anyhow::Result<()> {
    if context.globals.json {
        output::json(&json!({"slot": slot.to_string()}))?;
    } else {
        output::print(&format!("{slot}\n"))?;
        if !context.globals.quiet {
            line(text);
        }
    }
    Ok(())
}

fn add(context: &Context, args: &KeyAdd) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let secret = new_secret(context, &args.new)?;
    let slot = repo.add_slot(&secret)?;
    tell(context, slot, &format!("from now on this {} opens the repository, too", secret.word()))
}

/// The slot meant by the beginning of its id.
fn find(slots: &[SlotSummary], spec: &str) -> Result<SlotSummary, OpsError> {
    let mut found = slots.iter().filter(|slot| slot.id.to_string().starts_with(spec));
    match (found.next(), found.next()) {
        (Some(slot), None) => Ok(*slot),
        (None, _) => Err(OpsError::refused(format!("no key slot begins with {spec:?}: see `backyfs key list`"))),
        _ => Err(OpsError::refused(format!("{spec:?} means several key slots: give more digits"))),
    }
}

fn remove(context: &Context, args: &KeyRemove) -> anyhow::Result<()> {
    let Open { repo, settings, .. } = context.open()?;
    let slot = find(&repo.slots()?, &args.slot)?;
    let own = own_slots(&repo, &settings)?;
    if own.contains(&slot.id) && own.len() == 1 && !args.force {
        let problem = "it is the slot that was opened just now: without it this host cannot open the repository (--force removes it)";
        return Err(OpsError::refused(format!("key slot {} stays: {problem}", slot.id)).into());
    }
    repo.remove_slot(slot.id)?;
    if context.globals.json {
        output::json(&json!({"removed": slot.id.to_string()}))?;
    } else if !context.globals.quiet {
        line(&format!(
            "key slot {} ({}) was removed; whoever copied the repository before can still open that copy with it",
            slot.id,
            word(&slot)
        ));
    }
    Ok(())
}

fn passwd(context: &Context, args: &KeyPasswd) -> anyhow::Result<()> {
    let Open { repo, settings, .. } = context.open()?;
    let slots = repo.slots()?;
    let own = own_slots(&repo, &settings)?;
    let passphrases: Vec<_> = slots.iter().filter(|slot| matches!(slot.kind, Some(SlotKind::Passphrase(_)))).collect();
    let old = match &args.slot {
        Some(spec) => find(&slots, spec)?,
        None => match passphrases.iter().find(|slot| own.contains(&slot.id)).or(match passphrases.as_slice() {
            [only] => Some(only),
            _ => None,
        }) {
            Some(slot) => **slot,
            None if passphrases.is_empty() => {
                return Err(OpsError::refused("there is no passphrase to change: `backyfs key add` adds one").into());
            }
            None => {
                return Err(OpsError::refused(
                    "there are several passphrases: say which with --slot (see `backyfs key list`)",
                )
                .into());
            }
        },
    };
    let secret =
        new_secret(context, &NewSecret { new_passphrase_file: args.new_passphrase_file.clone(), new_key_file: None })?;
    let slot = repo.add_slot(&secret)?;
    // Only when the new one is durable and was read back.
    repo.remove_slot(old.id)?;
    let file = settings.passphrase_file.as_ref().map(|path| format!("; {} holds the old one still", path.display()));
    tell(context, slot, &format!("the passphrase was changed{}", file.unwrap_or_default()))
}

fn recovery(context: &Context) -> anyhow::Result<()> {
    let Open { repo, .. } = context.open()?;
    let old: Vec<_> = repo.slots()?.into_iter().filter(|slot| slot.kind == Some(SlotKind::Recovery)).collect();
    let (slot, recovery) = repo.add_recovery_slot()?;
    // Shown before the old one goes: if nobody can read it, nothing is lost.
    if context.globals.json {
        output::json(&json!({"slot": slot.to_string(), "recovery_key": recovery.to_string()}))?;
    } else {
        output::print(&format!(
            "New recovery key, shown this once:\n\n    {recovery}\n\nWrite it down; the one before opens nothing any more.\n"
        ))?;
    }
    for old in old {
        match repo.remove_slot(old.id) {
            Err(RepoError::Key(error)) if matches!(*error, KeyError::LastSlot { .. }) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// `backyfs rekey`.
///
/// # Errors
/// When the target fails.
pub fn rekey(context: &Context, args: &Rekey) -> anyhow::Result<()> {
    if args.migrate {
        return migrate(context);
    }
    let Open { repo, .. } = context.open()?;
    let version = repo.rekey()?;
    if context.globals.json {
        output::json(&json!({"key_version": version.0}))?;
    } else {
        output::print(&format!("{version}\n"))?;
        if !context.globals.quiet {
            line(&format!(
                "from now on everything new is sealed under key version {version}; what is stored stays as it is"
            ));
        }
    }
    Ok(())
}

fn migrate(context: &Context) -> anyhow::Result<()> {
    let Open { repo, progress, .. } = context.open_for_work()?;
    progress.tell(&repo, "rekey", "everything old");
    let migrated = migrate::migrate(&repo, &*progress, &interrupt());
    progress.finish();
    let migrated = migrated?;
    if context.globals.json {
        output::json(&migrated)?;
        return Ok(());
    }
    let (version, blocks, objects) = (migrated.key_version, migrated.blocks, migrated.objects);
    let packs = migrated.condemned_packs;
    output::print(&format!(
        "{blocks} blocks and {objects} other objects were sealed anew under key version {version}; {packs} old packs wait for a collection\n"
    ))?;
    for version in &migrated.unused {
        output::print(&format!("nothing is sealed under key version {version} any more\n"))?;
    }
    for needed in &migrated.needed {
        output::print(&format!("still in use: {needed}\n"))?;
    }
    Ok(())
}
