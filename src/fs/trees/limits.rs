//! `status/upload-limit` and `status/download-limit`: bandwidth, changed while it is in use by writing to a file.

use crate::control::values::parse_rate;
use crate::fs::errno::Errno;
use crate::fs::nodes::StatusFile;
use crate::fs::seam::{Access, Answer, OpenRequest};
use crate::fs::trees::value_handle::slice_into;
use crate::target::{Limits, Throttle};
use parking_lot::Mutex;
use std::sync::Arc;

/// More than any rate is.
const TEXT_MAX_BYTES: u64 = 64;

/// Which throttle a file stands for; `None` for the files that only show something.
pub(super) fn throttle(limits: &Limits, file: StatusFile) -> Option<&Throttle> {
    match file {
        StatusFile::UploadLimit => Some(&limits.upload),
        StatusFile::DownloadLimit => Some(&limits.download),
        _ => None,
    }
}

/// What reading shows: bytes a second, or `none`.
pub(super) fn text(throttle: &Throttle) -> String {
    throttle.rate().map_or_else(|| "none\n".to_owned(), |rate| format!("{rate}\n"))
}

/// One of the files, open for writing.
pub(super) struct LimitHandle {
    limits: Arc<Limits>,
    file: StatusFile,
    access: Access,
    text: Mutex<Vec<u8>>,
}

impl LimitHandle {
    pub(super) fn new(limits: Arc<Limits>, file: StatusFile, request: &OpenRequest, current: String) -> Self {
        // A writer that does not read replaces the whole, wherever it writes; what it cannot see is no part of its value.
        let text = if request.access == Access::Write || request.truncate { Vec::new() } else { current.into_bytes() };
        Self { limits, file, access: request.access, text: Mutex::new(text) }
    }

    pub(super) fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Answer<()> {
        if !self.access.reads() {
            return Err(Errno::EBADF);
        }
        slice_into(&self.text.lock(), offset, len, buffer);
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.text.lock().len() as u64
    }

    /// Cuts what later writes start from; the rate stays until one of them.
    pub(super) fn set_len(&self, len: u64) -> Answer<()> {
        let len = usize::try_from(len).ok().filter(|len| *len as u64 <= TEXT_MAX_BYTES).ok_or(Errno::EFBIG)?;
        self.text.lock().resize(len, b'\n');
        Ok(())
    }

    /// Puts `data` into the text and tries the whole. A rate applies at once, also to what is on its way.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Answer<usize> {
        let end = offset.saturating_add(data.len() as u64);
        if end > TEXT_MAX_BYTES {
            return Err(Errno::EFBIG);
        }
        let mut text = self.text.lock();
        let mut tried = text.clone();
        tried.resize(tried.len().max(end as usize), b'\n');
        tried[offset as usize..end as usize].copy_from_slice(data);
        let rate = std::str::from_utf8(&tried).map_err(|_| Errno::EINVAL)?;
        let rate = parse_rate(rate).map_err(|problem| {
            tracing::info!("status/{}: {problem}", self.file.file_name());
            Errno::EINVAL
        })?;
        if let Some(throttle) = throttle(&self.limits, self.file) {
            throttle.set(rate);
            tracing::info!("{} is now {}", self.file.file_name(), self::text(throttle).trim());
        }
        *text = tried;
        Ok(data.len())
    }
}
