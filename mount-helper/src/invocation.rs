//! How mount(8) and umount(8) call their helpers:
//!
//! ```text
//! mount.TYPE SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]
//! umount.TYPE DIR [-nlfvr] [-N NAMESPACE] [-t TYPE.SUBTYPE]
//! ```

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    Mount(Mount),
    Umount(Umount),
    Version,
}

/// What is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The first field of fstab.
    pub source: String,
    pub dir: String,
    /// As they were given, each `-o` with its commas and quotes.
    pub options: Vec<String>,
    pub how: How,
}

/// What is to be unmounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Umount {
    pub dir: String,
    pub is_lazy: bool,
    pub is_forced: bool,
    pub how: How,
}

/// How to go about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// `-f` of mount(8): everything but the mount itself.
    pub is_fake: bool,
    /// `-v`.
    pub is_verbose: bool,
}

/// Reads the arguments that follow the name of the program.
///
/// # Errors
/// A sentence, when they are not those of a helper.
pub fn parse(name: &str, arguments: &[String]) -> Result<Invocation, String> {
    let is_umount = name.starts_with("umount");
    let (mut places, mut options, mut how) = (Vec::new(), Vec::new(), How::default());
    let (mut is_lazy, mut is_forced) = (false, false);
    let mut rest = arguments.iter();
    let mut only_places = false;
    while let Some(argument) = rest.next() {
        let flags = match argument.strip_prefix('-') {
            _ if only_places => None,
            Some("-") => {
                only_places = true;
                continue;
            }
            Some("-version") => return Ok(Invocation::Version),
            flags => flags.filter(|flags| !flags.is_empty()),
        };
        let Some(flags) = flags else {
            places.push(argument.clone());
            continue;
        };
        for (at, flag) in flags.char_indices() {
            let mut value = || {
                let attached = &flags[at + flag.len_utf8()..];
                let value = if attached.is_empty() { rest.next().cloned() } else { Some(attached.to_owned()) };
                value.ok_or_else(|| format!("-{flag} needs a value"))
            };
            match flag {
                'o' if !is_umount => options.push(value()?),
                't' => drop(value()?),
                'N' => return Err("-N is not supported: run mount(8) in that namespace with nsenter(1)".to_owned()),
                'V' => return Ok(Invocation::Version),
                'v' => how.is_verbose = true,
                'f' if is_umount => is_forced = true,
                'f' => how.is_fake = true,
                'l' if is_umount => is_lazy = true,
                // No table is kept; no option is ever ignored; a busy mount stays as it is.
                'n' | 's' | 'r' | 'w' => {}
                _ => return Err(format!("-{flag} is not known; mount(8) and umount(8) call this program")),
            }
            if matches!(flag, 'o' | 't') {
                break;
            }
        }
    }
    match (is_umount, places.as_slice()) {
        (true, [dir]) => Ok(Invocation::Umount(Umount { dir: dir.clone(), is_lazy, is_forced, how })),
        (false, [source, dir]) => {
            Ok(Invocation::Mount(Mount { source: source.clone(), dir: dir.clone(), options, how }))
        }
        (true, _) => Err(format!("usage: {name} DIR [-lfv]")),
        (false, _) => Err(format!("usage: {name} TARGET DIR [-fv] [-o OPTIONS]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().unwrap();
        parse(&name, &words.collect::<Vec<_>>())
    }

    #[test]
    fn what_mount_sends() {
        let Ok(Invocation::Mount(mount)) =
            parsed("mount.fuse.backyfs s3://b/p /m -s -n -o rw,memory=1G -t fuse.backyfs")
        else {
            panic!("a mount");
        };
        assert_eq!((mount.source.as_str(), mount.dir.as_str()), ("s3://b/p", "/m"));
        assert_eq!((mount.options, mount.how), (vec!["rw,memory=1G".to_owned()], How::default()));
        let Ok(Invocation::Mount(mount)) = parsed("mount.backyfs -fvo a -ob none -- -odd") else { panic!("a mount") };
        assert_eq!((mount.dir.as_str(), mount.options), ("-odd", vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(mount.how, How { is_fake: true, is_verbose: true });
    }

    #[test]
    fn what_umount_sends() {
        let Ok(Invocation::Umount(umount)) = parsed("umount.fuse.backyfs /m -n -l -v -r") else { panic!("an umount") };
        assert_eq!(
            (umount.dir.as_str(), umount.is_lazy, umount.is_forced, umount.how.is_verbose),
            ("/m", true, false, true)
        );
        let Ok(Invocation::Umount(umount)) = parsed("umount.backyfs /m -lf") else { panic!("an umount") };
        assert!(umount.is_lazy && umount.is_forced && !umount.how.is_fake);
    }

    #[test]
    fn what_nobody_sends() {
        for line in [
            "mount.backyfs /m",
            "mount.backyfs a /m x",
            "umount.backyfs",
            "mount.backyfs a /m -o",
            "mount.backyfs a /m -q",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parsed("mount.backyfs a /m -N 12").unwrap_err().contains("nsenter"));
        assert!(parsed("umount.backyfs /m -o x").is_err());
        assert_eq!(parsed("mount.backyfs -V"), Ok(Invocation::Version));
    }
}
