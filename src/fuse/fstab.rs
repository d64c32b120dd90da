//! What is to be mounted: `/etc/fstab` (fstab(5)).

use crate::fuse::options::split;
use crate::words::mount_table::unescape;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where it lies.
pub const FSTAB: &str = "/etc/fstab";

/// One line that mounts something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FstabLine {
    /// From 1.
    pub number: usize,
    /// What is mounted: its first field.
    pub source: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Type of filesystem.
    pub fs_type: String,
    /// Its options, without quotes.
    pub options: Vec<String>,
}

impl FstabLine {
    /// Whether somebody mounts it without being told to.
    pub fn is_automatic(&self) -> bool {
        let has = |wanted: &str| self.options.iter().any(|option| option == wanted);
        !has("noauto") || has("x-systemd.automount")
    }

    /// Whether it holds a filesystem that files may lie in.
    fn holds_files(&self) -> bool {
        self.mountpoint.is_absolute() && self.fs_type != "swap"
    }
}

/// All lines of the table; none when there is no table.
pub fn lines() -> Vec<FstabLine> {
    parse(&fs::read(FSTAB).unwrap_or_default())
}

fn parse(text: &[u8]) -> Vec<FstabLine> {
    let line = |(index, line): (usize, &[u8])| {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let source = fields.next().filter(|source| !source.starts_with(b"#"))?;
        let mut path = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
        if path.is_absolute() {
            // Without a slash at its end.
            path = path.components().collect();
        }
        let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
        let (source, fs_type) = (text(source), text(fields.next()?));
        let options = split(&text(fields.next().unwrap_or(b"defaults")));
        Some(FstabLine { number: index + 1, source, mountpoint: path, fs_type, options })
    };
    text.split(|&byte| byte == b'\n').enumerate().filter_map(line).collect()
}

/// The line of the filesystem that a path will lie in, if it has one of its own: the root always is mounted.
pub fn holding<'a>(lines: &'a [FstabLine], path: &Path) -> Option<&'a FstabLine> {
    let above = lines
        .iter()
        .filter(|line| line.holds_files() && line.mountpoint != Path::new("/") && path.starts_with(&line.mountpoint));
    above.max_by_key(|line| line.mountpoint.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_line_holds_a_path() {
        let text = b"# a comment\n\nUUID=1 / ext4 defaults 0 1\nUUID=2\t/mnt/usb\\040disk/ ext4 noauto,x-y=\"a,b\" 0 2\n\
                     UUID=3 none swap sw 0 0\nnas:/x /mnt nfs\n/dev/sdb /mnt/usb\\040disk/deep ext4 noauto,x-systemd.automount\nbroken\n";
        let lines = parse(text);
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        assert_eq!(lines[1].options, ["noauto", "x-y=a,b"]);
        assert_eq!(lines[3].source, "nas:/x");
        let number = |path: &str| holding(&lines, Path::new(path)).map(|line| line.number);
        assert_eq!(number("/mnt/usb disk/backup"), Some(4));
        assert_eq!(number("/mnt/usb disk/deep/backup"), Some(7));
        assert_eq!(number("/mnt/usb"), Some(6));
        assert_eq!(number("/srv"), None);
        assert_eq!([1, 3, 4].map(|index| lines[index].is_automatic()), [false, true, true]);
    }
}
