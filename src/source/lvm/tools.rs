//! LVM's own tools, and what they say.

use crate::source::SourceError;
use serde::Deserialize;
use std::io;
use std::process::{Command, Stdio};

/// A logical volume, as `lvs` describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Lv {
    /// Its name.
    #[serde(rename = "lv_name")]
    pub name: String,
    #[serde(rename = "lv_size")]
    size: String,
    #[serde(rename = "lv_attr")]
    attr: String,
    /// The pool of a thin one; empty for a thick one.
    #[serde(rename = "pool_lv")]
    pub pool: String,
    #[serde(rename = "thin_id")]
    thin_id: String,
    #[serde(rename = "lv_snapshot_invalid")]
    invalid: String,
    #[serde(rename = "vg_extent_size")]
    extent: String,
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Rows>,
}

#[derive(Deserialize)]
struct Rows {
    lv: Vec<Lv>,
}

impl Lv {
    /// Bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size.parse().unwrap_or(0)
    }

    /// Bytes of a volume of its group that is to hold so many: a volume consists of whole extents.
    pub fn whole_extents(&self, bytes: u64) -> u64 {
        let extent = self.extent.parse().unwrap_or(0).max(1);
        bytes.max(1).checked_next_multiple_of(extent).unwrap_or(bytes)
    }

    /// Whether it is allocated from a pool as it is written.
    pub fn is_thin(&self) -> bool {
        self.attr.starts_with('V')
    }

    /// Its number in its pool.
    pub fn thin_id(&self) -> Option<&str> {
        Some(self.thin_id.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether what was never written of it reads as zero, around what is written, too: its pool zeroes blocks before it hands
    /// them out. (The eighth character of lv_attr, lvs(8).)
    pub fn begins_as_zeros(&self) -> bool {
        self.is_thin() && self.attr.chars().nth(7) == Some('z')
    }

    /// Whether it is a thick snapshot that ran full: what it held is lost.
    pub fn is_overrun(&self) -> bool {
        !matches!(self.invalid.as_str(), "" | "unknown" | "0")
    }

    /// Whether it holds data of users, and not of LVM.
    pub fn is_plain(&self) -> bool {
        // The first character of lv_attr (lvs(8)): ordinary, origin, thin, raid, mirror, cached, writecached.
        matches!(self.attr.chars().next(), Some('-' | 'o' | 'V' | 'r' | 'R' | 'm' | 'M' | 'C' | 'O' | 's' | 'S'))
    }
}

/// Runs a tool and returns what it prints.
///
/// # Errors
/// What it says on standard error, or that it is not installed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, SourceError> {
    let failed = |said: String| SourceError::Tool { program: format!("{program} {}", arguments.join(" ")), said };
    // Texts and numbers of every tool are to be those of no language.
    let mut command = Command::new(program);
    // Its tools tell of every file that they inherit, LMDB's among them, before they say what matters.
    command.args(arguments).envs([("LC_ALL", "C"), ("LVM_SUPPRESS_FD_WARNINGS", "1")]).stdin(Stdio::null());
    let done = command.output();
    let done = done.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed("it is not installed (packages lvm2 and thin-provisioning-tools)".into()),
        _ => failed(error.to_string()),
    })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(failed(said))
}

const COLUMNS: &str = "lv_name,lv_size,lv_attr,pool_lv,thin_id,lv_snapshot_invalid,vg_extent_size";

/// Every volume of a group.
///
/// # Errors
/// When there is no such group.
pub fn volumes(group: &str) -> Result<Vec<Lv>, SourceError> {
    let options = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o", COLUMNS, group];
    let text = run("lvs", &options)?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| SourceError::Tool { program: "lvs".into(), said: format!("{error} in what it says") })?;
    Ok(report.report.into_iter().flat_map(|rows| rows.lv).collect())
}

/// One volume of a group.
///
/// # Errors
/// As [`volumes`].
pub fn volume(group: &str, name: &str) -> Result<Option<Lv>, SourceError> {
    Ok(volumes(group)?.into_iter().find(|lv| lv.name == name))
}

/// What device mapper calls a volume: hyphens in names are doubled.
pub fn mapped(group: &str, name: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), name.replace('-', "--"))
}

/// Whether a thin volume shows another volume where it maps nothing: its line in the table of device mapper is `START LENGTH thin
/// POOL NUMBER [ORIGIN]` (thin-provisioning.rst of the kernel). What is not understood is taken for one.
pub fn has_external_origin(table: &str) -> bool {
    let words: Vec<&str> = table.split_whitespace().collect();
    !(words.len() == 5 && words[2] == "thin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lvs_says() {
        let text = r#"{"report": [{"lv": [
            {"lv_name":"root", "lv_size":"4294967296", "lv_attr":"-wi-ao----", "pool_lv":"", "thin_id":"", "lv_snapshot_invalid":"unknown", "vg_extent_size":"4194304"},
            {"lv_name":"pool", "lv_size":"1073741824", "lv_attr":"twi-aotz--", "pool_lv":"", "thin_id":"", "lv_snapshot_invalid":"unknown", "vg_extent_size":"4194304"},
            {"lv_name":"vm", "lv_size":"536870912", "lv_attr":"Vwi-a-tz--", "pool_lv":"pool", "thin_id":"7", "lv_snapshot_invalid":"unknown", "vg_extent_size":"4194304"},
            {"lv_name":"snap", "lv_size":"536870912", "lv_attr":"Swi-I-s---", "pool_lv":"", "thin_id":"", "lv_snapshot_invalid":"snapshot invalid", "vg_extent_size":"4194304"}]}]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        let [root, pool, vm, snap] = &report.report[0].lv[..] else { panic!() };
        assert!(root.is_plain() && !root.is_thin() && !root.is_overrun() && root.size_bytes() == 4 << 30);
        assert_eq!((root.whole_extents(0), root.whole_extents((4 << 20) + 1)), (4 << 20, 8 << 20));
        assert!(vm.begins_as_zeros() && !root.begins_as_zeros() && !pool.begins_as_zeros());
        assert!(!pool.is_plain() && vm.is_plain() && vm.is_thin());
        assert_eq!((vm.thin_id(), root.thin_id()), (Some("7"), None));
        assert!(snap.is_overrun());
        assert!(!has_external_origin("0 131072 thin 253:2 5\n"));
        assert!(has_external_origin("0 131072 thin 253:2 5 253:7\n") && has_external_origin(""));
        assert_eq!(mapped("a-b", "c"), "a--b-c");
    }
}
