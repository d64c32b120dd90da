//! Mount options, as mount(8) and fstab(5) write them.

use nix::mount::MsFlags;

/// The type the mount table shows.
pub const FS_TYPE: &str = "fuse.backyfs";
/// The part of it after `fuse.`.
pub const SUBTYPE: &str = "backyfs";

/// Who may use the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Only the user who mounted it.
    Owner,
    /// Everyone, as far as owner and mode of each file allow: the kernel checks them (`allow_other` and
    /// `default_permissions`).
    Everyone,
}

/// What the kernel is told when mounting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// What the mount table shows as the source.
    pub source: String,
    /// Who may use it.
    pub audience: Audience,
    /// Flags of mount(2).
    flags: MsFlags,
    /// Their names, for fusermount3.
    words: Vec<String>,
    remount: bool,
    /// Whether it needs the network: it is unmounted before that goes.
    pub needs_network: bool,
}

/// Beginnings of options that others care about. The last ones are in the mount table, from where mount(8) takes them when it remounts.
const IGNORED: [&str; 9] =
    ["x-", "X-", "comment=", "subtype=", "user=", "user_id=", "group_id=", "max_read=", "blksize="];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Set,
    Clear,
}

/// The flag of mount(2) that a word sets or clears.
fn flag_of(word: &str) -> Option<(MsFlags, Word)> {
    let (set, clear) = (|flag| Some((flag, Word::Set)), |flag| Some((flag, Word::Clear)));
    match word {
        "ro" => set(MsFlags::MS_RDONLY),
        "rw" => clear(MsFlags::MS_RDONLY),
        "noexec" => set(MsFlags::MS_NOEXEC),
        "exec" => clear(MsFlags::MS_NOEXEC),
        "noatime" => set(MsFlags::MS_NOATIME),
        "atime" => clear(MsFlags::MS_NOATIME),
        "nodiratime" => set(MsFlags::MS_NODIRATIME),
        "diratime" => clear(MsFlags::MS_NODIRATIME),
        "relatime" => set(MsFlags::MS_RELATIME),
        "norelatime" => clear(MsFlags::MS_RELATIME),
        "strictatime" => set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => clear(MsFlags::MS_STRICTATIME),
        "sync" => set(MsFlags::MS_SYNCHRONOUS),
        "async" => clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => set(MsFlags::MS_DIRSYNC),
        _ => None,
    }
}

impl MountOptions {
    /// Safe ones: no devices, no set-id programs.
    pub fn new(source: &str, audience: Audience) -> Self {
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        Self { source: source.to_owned(), audience, flags, words: Vec::new(), remount: false, needs_network: false }
    }

    /// Takes the options it knows out of a comma-separated list (which may quote commas with a backslash) and returns the
    /// others. What only mount(8) and systemd care about is dropped.
    pub fn absorb(&mut self, list: &str) -> Vec<String> {
        split(list).into_iter().filter(|option| !self.take(option)).collect()
    }

    /// Takes one option; whether it knows it.
    pub fn take(&mut self, option: &str) -> bool {
        if let Some((flag, word)) = flag_of(option) {
            // The last word counts: remounting appends to what fstab says.
            self.words.retain(|other| flag_of(other).is_none_or(|(theirs, _)| theirs != flag));
            self.flags.set(flag, word == Word::Set);
            if word == Word::Set {
                self.words.push(option.to_owned());
            }
            return true;
        }
        match option {
            "allow_other" => self.audience = Audience::Everyone,
            "remount" => self.remount = true,
            "_netdev" => self.needs_network = true,
            // What mount(8), systemd and udisks care about, and what must not be changed.
            "default_permissions"
            | "defaults"
            | "auto"
            | "noauto"
            | "user"
            | "users"
            | "nouser"
            | "owner"
            | "group"
            | "nofail"
            | "dev"
            | "suid"
            | "nodev"
            | "nosuid"
            // What other filesystems are told in a line of fstab, and changes nothing here.
            | "lazytime"
            | "nolazytime"
            | "iversion"
            | "noiversion"
            | "mand"
            | "nomand"
            | "silent"
            | "loud"
            | "" => {}
            _ if IGNORED.iter().any(|prefix| option.starts_with(prefix)) => {}
            _ => match option.strip_prefix("fsname=") {
                Some(source) => source.clone_into(&mut self.source),
                None => return false,
            },
        }
        true
    }

    /// Whether a mount that exists is to be changed.
    pub fn is_remount(&self) -> bool {
        self.remount
    }

    /// Whether nothing may be written through the mount.
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MsFlags::MS_RDONLY)
    }

    pub(super) fn flags(&self) -> MsFlags {
        self.flags
    }

    /// The data argument of mount(2), for an open /dev/fuse.
    pub(super) fn kernel_data(&self, fd: i32, uid: u32, gid: u32) -> String {
        let shared = match self.audience {
            Audience::Owner => "",
            Audience::Everyone => ",allow_other,default_permissions",
        };
        format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid}{shared}")
    }

    /// The `-o` argument of fusermount3, which wants commas and backslashes in values quoted.
    pub(super) fn helper_list(&self) -> String {
        let source = self.source.replace('\\', "\\\\").replace(',', "\\,");
        let mut words =
            vec!["nosuid".to_owned(), "nodev".to_owned(), format!("fsname={source}"), format!("subtype={SUBTYPE}")];
        if self.audience == Audience::Everyone {
            words.extend(["allow_other".to_owned(), "default_permissions".to_owned()]);
        }
        words.extend(self.words.iter().cloned());
        words.join(",")
    }
}

/// Splits at commas that no backslash and no pair of double quotes protects, and takes both away: mount(8) leaves them as they are.
pub(super) fn split(list: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => options.push(String::new()),
            c => {
                let c = if c == '\\' { chars.next().unwrap_or('\\') } else { c };
                options.last_mut().expect("it starts with one and only grows").push(c);
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_words_are_sorted_out() {
        let mut options = MountOptions::new("dir:/x,y", Audience::Owner);
        let rest =
            options.absorb("rw,_netdev,x-systemd.automount,comment=a\\,b,noauto,noexec,ro,target=dir:/a\\,b,memory=1G,keep=\"days3,weeks4\"");
        assert_eq!(rest, ["target=dir:/a,b", "memory=1G", "keep=days3,weeks4"]);
        assert!(options.needs_network && !MountOptions::new("dir:/x", Audience::Owner).needs_network);
        assert!(
            options.flags().contains(MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
        );
        assert_eq!(options.kernel_data(5, 0, 0), "fd=5,rootmode=40000,user_id=0,group_id=0");
        assert_eq!(options.helper_list(), "nosuid,nodev,fsname=dir:/x\\,y,subtype=backyfs,noexec,ro");
        options.absorb("rw,exec,user=me,user_id=0,remount");
        assert!(options.is_remount() && !options.flags().intersects(MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC));
        assert_eq!(options.helper_list(), "nosuid,nodev,fsname=dir:/x\\,y,subtype=backyfs");
        options.absorb("allow_other,fsname=z");
        assert!(options.kernel_data(5, 0, 0).ends_with(",allow_other,default_permissions"));
        assert_eq!((options.source.as_str(), options.audience), ("z", Audience::Everyone));
    }
}
