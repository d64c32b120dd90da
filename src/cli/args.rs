//! What can be typed.

use crate::cli::args_repair::Repair;
use crate::cli::args_s3::Distant;
use crate::control::Key;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
VERSION is a uid, the unique beginning of one, NAME (its latest), or NAME@2026-11-22.

Exit codes: 0 done; 1 refused, not set up, or not understood; 3 a backup is late (sla); 4 a schedule was not met (sla); 5 the source cannot be read; 6 the target failed; \
20 damage was found; 100 anything else; 130 interrupted.";

/// A filesystem for backups of disks: mount it, and copying an image into incoming/ is the backup.
#[derive(Debug, Parser)]
#[command(name = "backyfs", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

/// The command line as clap knows it, for tests and manuals.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Settings that every command takes. Each can be a key of the configuration file, a mount option and a variable, too.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings (also BACKYFS_NAME, keys of the configuration file, and mount options)")]
pub struct Globals {
    /// Configuration file [default: /etc/backyfs.toml, or ~/.config/backyfs.toml for users]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<String>,
    /// Where the repository is, dir:/srv/backup or s3://bucket/prefix [default: one in the state directory]
    #[arg(long, global = true)]
    pub target: Option<String>,
    /// Local state [default: /var/lib/backyfs, or ~/.local/state/backyfs for users]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// File with the key [default: `key` in the state directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<String>,
    /// File with a passphrase, or the recovery key
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<String>,
    /// Memory for caches and buffers [default: 256M]
    #[arg(long, global = true, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Versions younger than this are deleted only with --force [default: 6d]
    #[arg(long, global = true, value_name = "AGE", alias = "min-age-days")]
    pub protect_younger: Option<String>,
    /// Schedules of names that no table of the configuration file matches, for example daily,weekly
    #[arg(long, global = true, value_name = "NAMES")]
    pub schedules: Option<String>,
    /// Keep rules of these names, for example latest3,days30,months12
    #[arg(long, global = true, value_name = "RULES")]
    pub keep: Option<String>,
    /// What days and months mean to schedules and keep rules [default: the system's]
    #[arg(long, global = true, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Patterns of names in incoming/ that become versions only when renamed, for example '*.part'
    #[arg(long, global = true, value_name = "PATTERNS")]
    pub temporary_names: Option<String>,
    /// A close() that takes longer fails [default: 10m]
    #[arg(long, global = true, value_name = "TIME")]
    pub commit_timeout: Option<String>,
    /// Unfinished copies in incoming/ go after this [default: 7]
    #[arg(long, global = true, value_name = "DAYS")]
    pub draft_expire_days: Option<String>,
    /// How often a mount learns what other hosts did, 0 for never [default: 60s]
    #[arg(long, global = true, value_name = "TIME")]
    pub refresh_interval: Option<String>,
    /// Keep what is read from the target on the local disk, up to this much [default: 0, nothing]
    #[arg(long, global = true, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Where that is kept [default: `cache` in the state directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<String>,
    /// Log of the daemon [default: `backyfs.log` in the state directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<String>,
    /// Let other users use the mount, as far as owner and mode allow [default: no]
    #[arg(long, global = true, value_name = "YES|NO", num_args = 0..=1, default_missing_value = "yes", require_equals = true)]
    pub allow_other: Option<String>,
    /// How often a mount collects what removed versions left: 12h, 1d, never [default: 1d]
    #[arg(long, global = true, value_name = "TIME")]
    pub gc_interval: Option<String>,
    /// A mount also collects when less of the target is free; 0: not for that [default: 10]
    #[arg(long, global = true, value_name = "PERCENT")]
    pub gc_free_percent: Option<String>,
    #[command(flatten)]
    pub distant: Distant,
    /// Let a mount write below sources/: what does not exist yet (new), what exists, too (force) [default: no]
    #[arg(long, global = true, value_name = "NO|NEW|FORCE")]
    pub restore_to_sources: Option<String>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// No progress
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more; twice, say everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
}

impl Globals {
    /// The settings that were given as flags.
    pub fn settings(&self) -> Vec<(Key, String)> {
        let given = [
            (Key::Config, &self.config),
            (Key::Target, &self.target),
            (Key::StateDir, &self.state_dir),
            (Key::KeyFile, &self.key_file),
            (Key::PassphraseFile, &self.passphrase_file),
            (Key::Memory, &self.memory),
            (Key::ProtectYounger, &self.protect_younger),
            (Key::Schedules, &self.schedules),
            (Key::Keep, &self.keep),
            (Key::TimeZone, &self.time_zone),
            (Key::TemporaryNames, &self.temporary_names),
            (Key::CommitTimeout, &self.commit_timeout),
            (Key::DraftExpireDays, &self.draft_expire_days),
            (Key::RefreshInterval, &self.refresh_interval),
            (Key::CacheSize, &self.cache_size),
            (Key::CacheDir, &self.cache_dir),
            (Key::LogFile, &self.log_file),
            (Key::AllowOther, &self.allow_other),
            (Key::GcInterval, &self.gc_interval),
            (Key::GcFreePercent, &self.gc_free_percent),
            (Key::RestoreToSources, &self.restore_to_sources),
        ];
        let given = given.into_iter().filter_map(|(key, text)| Some((key, text.clone()?)));
        given.chain(self.distant.settings()).collect()
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a repository, and a key file if there is none; shows the recovery key once
    Init(Init),
    /// Mount the repository; returns when the mount answers
    Mount(Mount),
    /// Finish what was written, unmount, and wait for the daemon to end
    Umount(Umount),
    /// The state at a glance: repository, target, what is late, scrubbed, damaged, running, unfinished, mounted
    Status(StatusArgs),
    /// Learn at once what other hosts did; a mount shows it then, too
    Refresh,
    /// Back up a file or a block device; prints the uid of the version
    Backup(Backup),
    /// Back up every volume of the configured sources that a schedule is due for, as SOURCE/VOLUME
    BackupDue(BackupDue),
    /// Restore a version to a file, a block device, or - for standard output
    Restore(Restore),
    /// List versions, oldest first
    Ls(Ls),
    /// Everything about a version
    Show(One),
    /// What differs between two versions
    Diff(Diff),
    /// Who takes the space, and what deleting would free
    Du(Du),
    /// What making versions cost, also of those that were deleted
    Stats(StatsArgs),
    /// Add tags to a version
    Tag(Tags),
    /// Remove tags from a version
    Untag(Tags),
    /// Set when a version may be pruned
    Expire(Expire),
    /// Keep versions from being deleted
    Protect(Many),
    /// Allow versions to be deleted again
    Unprotect(Many),
    /// Delete versions, or drafts by their uid
    Rm(Rm),
    /// Give back the space of what was removed
    Gc(Gc),
    /// Read what is stored, find damage, mark what it concerns
    Scrub(Scrub),
    /// What should be backed up now, and why
    Due(DueArgs),
    /// Which schedules are not met, and by how much
    Sla(Filtered),
    /// Delete versions that have expired or that keep rules have no use for
    Prune(Prune),
    /// Put back what is missing or damaged on the target, list what is gone
    Repair(Repair),
    /// Who can open the repository: key files, passphrases, the recovery key
    Key(KeyArgs),
    /// Seal everything new under a new key; with --migrate, everything old as well
    Rekey(Rekey),
    /// Copy another host's unfinished draft into this host's incoming/
    Adopt(Adopt),
    /// Write a version's metadata as JSON
    Export(Export),
    /// Publish an exported version again, while its blocks are there
    Import(Import),
    /// Learn the catalog anew from the target
    Rebuild(Rebuild),
    /// Write manual pages, and completions for bash, zsh and fish
    Manuals(Manuals),
}

#[derive(Debug, Args)]
pub struct Init {
    /// Bytes per block: a power of two, 4K to 4M
    #[arg(long, value_name = "SIZE", default_value = "256K")]
    pub block_size: String,
    /// zstd level, -7 to 19
    #[arg(long, value_name = "LEVEL", default_value_t = crate::control::session::ZSTD_LEVEL_DEFAULT, allow_negative_numbers = true)]
    pub zstd_level: i32,
    /// Bytes at which packs are closed
    #[arg(long, value_name = "SIZE", default_value = "32M")]
    pub pack_size: String,
}

#[derive(Debug, Args)]
pub struct Mount {
    /// An empty directory
    pub dir: PathBuf,
    /// Mount options: settings (target=dir:/x,memory=1G) and those of mount(8)
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Do not go into the background; log to standard error
    #[arg(long)]
    pub foreground: bool,
    /// How long to wait until /etc/fstab has mounted what the target lies in (also an option: wait-for-target=TIME)
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub wait_for_target: String,
    /// The options may come from /etc/fstab: mistakes in them are told with their line
    #[arg(long, hide = true)]
    pub from_fstab: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again every so often, with what a mount does meanwhile, until interrupted
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", require_equals = true)]
    pub watch: Option<String>,
}

#[derive(Debug, Args)]
pub struct Umount {
    /// Where it is mounted
    pub dir: PathBuf,
    /// How long to wait for the target, and for the daemon to finish
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub timeout: String,
    /// Take it out of sight at once; those who use it may finish. Waits for nothing
    #[arg(long, short)]
    pub lazy: bool,
    /// Cut off those who use it, and give up what the target does not take
    #[arg(long, short, conflicts_with = "lazy")]
    pub force: bool,
    /// The settings of the mount may stand in /etc/fstab
    #[arg(long, hide = true)]
    pub from_fstab: bool,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// A file, a block device, or SOURCE:VOLUME of a configured source
    pub source: String,
    /// Name of the backup
    pub name: String,
    /// Which snapshot of the source this is
    #[arg(long, value_name = "NAME", default_value = "")]
    pub snapshot: String,
    /// Tags (several times, or with commas)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// When it may be pruned: 2026-12-24, 30d, 2w
    #[arg(long, value_name = "DATE")]
    pub expire: Option<String>,
    /// When it was made, of a backup that is taken over from elsewhere: 2026-11-22T18:31:02Z. Schedules then add nothing
    #[arg(long, value_name = "DATE")]
    pub created: Option<String>,
    /// Version it was made from, instead of the newest of its name
    #[arg(long, value_name = "VERSION")]
    pub from: Option<String>,
    /// What has changed since that version, as `rbd diff --format json` writes it (- for standard input)
    #[arg(long, value_name = "FILE")]
    pub hints: Option<PathBuf>,
    /// Format of an image file, as qemu calls it: its disk is backed up. Never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: String,
    /// Read everything, whatever the source says of changes
    #[arg(long, conflicts_with = "hints")]
    pub full: bool,
    /// Go on where an interrupted backup stopped
    #[arg(long = "continue")]
    pub resume: bool,
    /// Accept sectors that cannot be read: the version counts as a backup, with zeros there
    #[arg(long)]
    pub skip_errors: bool,
}

#[derive(Debug, Args)]
pub struct Manuals {
    /// Below its directory `share`, for example /usr/local
    pub prefix: PathBuf,
}

#[derive(Debug, Args)]
pub struct BackupDue {
    /// Only these sources
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// What to restore
    pub version: String,
    /// A new file, a block device, or -
    pub destination: String,
    /// Overwrite what exists
    #[arg(long)]
    pub force: bool,
    /// Go on with a restore that did not finish: write only what differs
    #[arg(long = "continue")]
    pub resume: bool,
    /// Whether holes take no space in a file
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, default_value = "yes", default_missing_value = "yes", require_equals = true, value_parser = ["yes", "no"])]
    pub sparse: String,
    /// Write zeros for blocks that are damaged, and list them
    #[arg(long)]
    pub skip_damaged: bool,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Only this name, or names in this directory
    pub name: Option<String>,
    /// Only versions with this tag
    #[arg(long, short, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Only versions that may be pruned
    #[arg(long)]
    pub expired: bool,
    /// Only versions that are damaged or incomplete
    #[arg(long)]
    pub invalid: bool,
}

#[derive(Debug, Args)]
pub struct One {
    /// Which
    pub version: String,
}

#[derive(Debug, Args)]
pub struct Many {
    /// Which
    #[arg(required = true, value_name = "VERSION")]
    pub versions: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// The older version
    pub from: String,
    /// The newer version
    pub to: String,
}

#[derive(Debug, Args)]
pub struct Du {
    /// Only this name, or names in this directory
    pub name: Option<String>,
    /// One line for each name instead of each version
    #[arg(long)]
    pub names: bool,
    /// Only what deleting these versions, all of them, would free (several times, or with commas)
    #[arg(long, value_name = "VERSION", value_delimiter = ',', conflicts_with_all = ["name", "names"])]
    pub freed_by: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Only this name, names in this directory, or this version
    #[arg(value_name = "NAME|VERSION")]
    pub which: Option<String>,
    /// Only the newest so many
    #[arg(long, short, value_name = "COUNT")]
    pub last: Option<usize>,
    /// One line for each name, and one for all
    #[arg(long)]
    pub names: bool,
}

#[derive(Debug, Args)]
pub struct Tags {
    /// Which
    pub version: String,
    /// Tags
    #[arg(required = true, value_name = "TAG")]
    pub tags: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Expire {
    /// Which
    pub version: String,
    /// 2026-12-24, 2026-12-24T18:00:00Z, 30d, 2w; `never` or '' takes it away
    pub date: String,
}

#[derive(Debug, Args)]
pub struct Rm {
    /// Which: a uid, the beginning of one, or NAME@DATE; of a draft its whole uid
    #[arg(required = true, value_name = "VERSION")]
    pub versions: Vec<String>,
    /// Delete young versions, too (never protected ones), and drafts of other hosts
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Gc {
    /// Only say what would be done, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Take what unfinished backups stored at once, instead of after draft-expire-days
    #[arg(long)]
    pub unfinished: bool,
    /// A pack is rewritten when this share of it is not needed any more
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub dead_percent: u8,
    /// No other host uses this target: collect even where one might not see at once what others wrote
    #[arg(long)]
    pub only_host: bool,
}

#[derive(Debug, Args)]
pub struct Scrub {
    /// A version, or a name for all its versions; everything when it is left out
    #[arg(value_name = "VERSION|NAME")]
    pub what: Option<String>,
    /// Everything
    #[arg(long)]
    pub all: bool,
    /// Only so much of it, what was read longest ago first: with 16, seven scrubs read everything
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: Option<u8>,
    /// Compare the version with a source, as `backup` takes it, byte by byte
    #[arg(long, value_name = "SRC")]
    pub source: Option<String>,
    /// Only compare packs with their names: needs no key, and works on any host
    #[arg(long)]
    pub packs: bool,
    /// With --packs: only those after this one
    #[arg(long, value_name = "PACK", requires = "packs")]
    pub after: Option<String>,
    /// Bytes a second at most, for example 50M
    #[arg(long, value_name = "SIZE")]
    pub rate: Option<String>,
    /// Begin anew, even if a scrub was interrupted
    #[arg(long)]
    pub restart: bool,
}

#[derive(Debug, Args)]
pub struct DueArgs {
    /// Only this name, or names in this directory
    pub name: Option<String>,
    /// Only these schedules (several times, or with commas)
    #[arg(long = "schedule", short, value_name = "SCHEDULE", value_delimiter = ',')]
    pub only: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Filtered {
    /// Only this name, or names in this directory
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct Prune {
    /// Only this name, or names in this directory
    pub name: Option<String>,
    /// Delete nothing; say of every version what would become of it, and why
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Keep rules for all these names, instead of those of the configuration
    #[arg(long, value_name = "RULES")]
    pub rules: Option<String>,
}

#[derive(Debug, Args)]
pub struct Rekey {
    /// Make no new key, but seal everything that is under an older one under the newest
    #[arg(long)]
    pub migrate: bool,
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// List key slots and key versions
    List,
    /// Add a key file or a passphrase
    Add(KeyAdd),
    /// Take a key file or a passphrase away; the last slot stays
    Remove(KeyRemove),
    /// Change a passphrase
    Passwd(KeyPasswd),
    /// Make a new recovery key, shown once; the one before opens nothing any more
    Recovery,
}

/// The secret of a new slot; typed on the terminal when no file is named.
#[derive(Debug, Clone, Args)]
pub struct NewSecret {
    /// File with the new passphrase, instead of typing it
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// A key file; made when it does not exist
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
    pub new_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct KeyAdd {
    #[command(flatten)]
    pub new: NewSecret,
}

#[derive(Debug, Args)]
pub struct KeyRemove {
    /// The slot, or the beginning of its id
    pub slot: String,
    /// Even the slot that this host opens the repository with
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct KeyPasswd {
    /// Which, when there are several: the slot, or the beginning of its id
    #[arg(long, value_name = "SLOT")]
    pub slot: Option<String>,
    /// File with the new passphrase, instead of typing it
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Adopt {
    /// Its uid, as `status` lists it
    pub draft: String,
}

#[derive(Debug, Args)]
pub struct Export {
    /// Which
    pub version: String,
    /// A new file, or - for standard output
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Import {
    /// A file that `export` wrote, or - for standard input
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Rebuild {
    /// Look into every pack, as if all index fragments were lost
    #[arg(long)]
    pub from_packs: bool,
}
