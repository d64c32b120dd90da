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
}

impl MountOptions {
    /// Safe ones: no devices, no set-id programs.
    pub fn new(source: &str, audience: Audience) -> Self {
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        Self { source: source.to_owned(), audience, flags, words: Vec::new() }
    }

    /// Takes the options it knows out of a comma-separated list (which may quote commas with a backslash) and returns the
    /// others. What only mount(8) and systemd care about is dropped.
    pub fn absorb(&mut self, list: &str) -> Vec<String> {
        split(list).into_iter().filter(|option| !self.take(option)).collect()
    }

    fn take(&mut self, option: &str) -> bool {
        let flag = match option {
            "ro" => MsFlags::MS_RDONLY,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            "strictatime" => MsFlags::MS_STRICTATIME,
            "sync" => MsFlags::MS_SYNCHRONOUS,
            "dirsync" => MsFlags::MS_DIRSYNC,
            "nodev" | "nosuid" => return true,
            "allow_other" => {
                self.audience = Audience::Everyone;
                return true;
            }
            "default_permissions"
            | "rw"
            | "exec"
            | "async"
            | "atime"
            | "diratime"
            | "defaults"
            | "auto"
            | "noauto"
            | "user"
            | "users"
            | "nouser"
            | "owner"
            | "group"
            | "_netdev"
            | "nofail"
            | "dev"
            | "suid"
            | "" => return true,
            _ if option.starts_with("x-") || option.starts_with("X-") || option.starts_with("comment=") => return true,
            _ if option.starts_with("subtype=") => return true,
            _ => match option.strip_prefix("fsname=") {
                Some(source) => {
                    source.clone_into(&mut self.source);
                    return true;
                }
                None => return false,
            },
        };
        self.flags |= flag;
        self.words.push(option.to_owned());
        true
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

/// Splits at commas that no backslash quotes.
fn split(list: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => options.push(String::new()),
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
            options.absorb("rw,_netdev,x-systemd.automount,comment=a\\,b,noauto,noexec,ro,target=dir:/a\\,b,memory=1G");
        assert_eq!(rest, ["target=dir:/a,b", "memory=1G"]);
        assert!(
            options.flags().contains(MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
        );
        assert_eq!(options.kernel_data(5, 0, 0), "fd=5,rootmode=40000,user_id=0,group_id=0");
        assert_eq!(options.helper_list(), "nosuid,nodev,fsname=dir:/x\\,y,subtype=backyfs,noexec,ro");
        options.absorb("allow_other,fsname=z");
        assert!(options.kernel_data(5, 0, 0).ends_with(",allow_other,default_permissions"));
        assert_eq!((options.source.as_str(), options.audience), ("z", Audience::Everyone));
    }
}
