//! Flags of `repair`.

use clap::Args;

#[derive(Debug, Args)]
pub struct Repair {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// List images whose records are lost
    #[arg(long)]
    pub orphans: bool,
    /// Make such an image a version again: the beginning of its root
    #[arg(long, value_name = "ROOT", requires = "name", conflicts_with_all = ["orphans", "dry_run"])]
    pub recover: Option<String>,
    /// With --recover: the name of that version
    #[arg(long, value_name = "NAME", requires = "recover")]
    pub name: Option<String>,
    /// Go on without an object that no host can read or put back: says what is lost, and moves it aside
    #[arg(long, value_name = "OBJECT", conflicts_with_all = ["orphans", "recover"])]
    pub give_up: Option<String>,
    /// With --give-up of a list of condemned packs: no other host uses this target at the moment
    #[arg(long, requires = "give_up")]
    pub only_host: bool,
}
