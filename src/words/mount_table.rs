//! Lines of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and of tables that write paths as it does.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor` of its device.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Type of filesystem, with its subtype: `fuse.backyfs`.
    pub fs_type: String,
    /// What is mounted.
    pub source: String,
    /// Options of the filesystem, as it was mounted first.
    pub options: Vec<String>,
}

impl MountEntry {
    /// All mounts of a table, in its order; lines that are none are left out.
    pub fn parse_all(table: &[u8]) -> impl Iterator<Item = Self> {
        table.split(|&b| b == b'\n').filter_map(parse)
    }
}

fn parse(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    // The number of optional fields varies; a single dash ends them.
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |index: usize| fields.get(index).map(|field| String::from_utf8_lossy(&unescape(field)).into_owned());
    Some(MountEntry {
        device: text(2)?,
        mountpoint: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fs_type: text(dash + 1)?,
        source: text(dash + 2)?,
        options: text(dash + 3).unwrap_or_default().split(',').map(str::to_owned).collect(),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(digits) = digits {
            plain.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
            rest = &tail[3..];
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_odd_paths() {
        let line =
            br"36 35 98:0 / /mnt/a\040b\134c rw,noatime master:1 shared:2 - fuse.backyfs dir:/x\040y rw,user_id=0";
        let expected = MountEntry {
            device: "98:0".into(),
            mountpoint: r"/mnt/a b\c".into(),
            fs_type: "fuse.backyfs".into(),
            source: "dir:/x y".into(),
            options: vec!["rw".into(), "user_id=0".into()],
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 / /mnt rw"), None);
        assert_eq!(unescape(br"\04"), br"\04");
    }
}
