//! Writing to attribute files: what a handle writes adds up, and is tried as a whole at each write.

use crate::catalog::VersionSummary;
use crate::fs::errno::Errno;
use crate::fs::nodes::VersionFile;
use crate::fs::seam::{Access, Answer, OpenRequest};
use crate::fs::trees::stat::attribute_of;
use crate::fs::trees::value::{self, Attribute, Value, ValueError};
use crate::fs::trees::{Trees, failed};
use crate::words::attribute::AttributeChange;
use crate::words::ids::Uid;
use crate::words::name::Name;
use parking_lot::Mutex;

/// More than any value is.
const TEXT_MAX_BYTES: u64 = 1 << 20;

/// An attribute file, or `overlay`, open for writing.
pub(super) struct ValueHandle {
    uid: Uid,
    file: VersionFile,
    access: Access,
    append: Append,
    text: Mutex<Vec<u8>>,
}

/// Where writes of a handle go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Append {
    /// Where they say.
    No,
    /// To the end.
    Yes,
}

impl ValueHandle {
    /// `current` is the text of the file now: what writes at a position start from.
    pub(super) fn new(uid: Uid, file: VersionFile, request: &OpenRequest, current: String) -> Self {
        let append = if request.append { Append::Yes } else { Append::No };
        // `overlay` takes a command; what it shows is no part of that.
        let is_fresh = request.truncate || file == VersionFile::Overlay && request.access == Access::Write;
        let mut text = if is_fresh { Vec::new() } else { current.into_bytes() };
        // Appending to a value of one line goes on in that line.
        if append == Append::Yes && file != VersionFile::Tags && text.last() == Some(&b'\n') {
            text.pop();
        }
        Self { uid, file, access: request.access, append, text: Mutex::new(text) }
    }

    pub(super) fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        if !self.access.reads() {
            return Err(Errno::EBADF);
        }
        slice_into(&self.text.lock(), offset, len, buffer);
        Ok(())
    }

    /// Bytes of what it would be now.
    pub(super) fn len(&self) -> u64 {
        self.text.lock().len() as u64
    }

    /// Cuts or fills what later writes start from. The value itself stays until one of them.
    pub(super) fn set_len(&self, len: u64) -> Answer<()> {
        let len = usize::try_from(len.min(TEXT_MAX_BYTES + 1)).unwrap_or(usize::MAX);
        if len as u64 > TEXT_MAX_BYTES {
            return Err(Errno::EFBIG);
        }
        self.text.lock().resize(len, 0);
        Ok(())
    }

    /// Puts `data` into the text and tries the whole. After an error both text and value are as before.
    pub(super) fn write(&self, trees: &Trees, offset: u64, data: &[u8]) -> Answer<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let mut text = self.text.lock();
        let at = if self.append == Append::Yes { text.len() as u64 } else { offset };
        let end = at.saturating_add(data.len() as u64);
        if end > TEXT_MAX_BYTES {
            return Err(Errno::EFBIG);
        }
        let (at, end) = (at as usize, end as usize);
        let mut tried = text.clone();
        tried.resize(tried.len().max(end), 0);
        tried[at..end].copy_from_slice(data);
        trees.set_value(self.uid, self.file, &tried)?;
        *text = tried;
        Ok(data.len())
    }
}

/// Appends the part of a text that a read asks for.
pub(super) fn slice_into(text: &[u8], offset: u64, len: usize, buffer: &mut Vec<u8>) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    buffer.extend_from_slice(&text[from..text.len().min(from.saturating_add(len))]);
}

impl Trees {
    /// Gives an attribute the value that a text means, or carries out a command.
    fn set_value(&self, uid: Uid, file: VersionFile, text: &[u8]) -> Answer<()> {
        let Some(attribute) = attribute_of(file) else {
            return match text.trim_ascii() {
                b"discard" => self.discard_overlay(uid),
                _ => Err(self.refuse(uid, file, "the only command is `discard`")),
            };
        };
        let version = self.version(uid)?;
        let value = value::parse(attribute, text, self.repo.clock().now());
        match value.map_err(|error: ValueError| self.refuse(uid, file, &error.to_string()))? {
            Value::Tags(tags) => self.repo.set_tags(uid, &tags).map_err(failed("change of tags")),
            Value::Change(AttributeChange::Name(name)) => self.set_name(&version, name),
            Value::Change(change) => {
                debug_assert_ne!(attribute, Attribute::Tags);
                self.repo.change_attributes(uid, &[change]).map(drop).map_err(failed("change of an attribute"))
            }
        }
    }

    /// A shell shows the number only; the log says why.
    fn refuse(&self, uid: Uid, file: VersionFile, problem: &str) -> Errno {
        tracing::info!("by_version/{uid}/{}: {problem}", file.file_name());
        Errno::EINVAL
    }

    /// EEXIST when the name would have to be a directory, ENOTDIR when a part of it is the name of another backup.
    fn set_name(&self, version: &VersionSummary, name: Name) -> Answer<()> {
        if name == version.attributes.name {
            return Ok(());
        }
        if let Some(other) = self.repo.catalog().collision(&name)? {
            tracing::info!("{} cannot be renamed to {name}: it collides with {other}", version.uid);
            let is_below = other.as_str().len() < name.as_str().len();
            return Err(if is_below { Errno::ENOTDIR } else { Errno::EEXIST });
        }
        let change = AttributeChange::Name(name);
        self.repo.change_attributes(version.uid, &[change]).map(drop).map_err(failed("change of a name"))
    }
}
