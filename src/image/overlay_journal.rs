//! The overlay's journal on disk: changes of the bitmap, appended in batches, rewritten when it has grown.
//!
//! A batch is one write, followed by fdatasync before the next batch is written. So after a crash at most the last batch
//! can be torn, and it was not acknowledged: what does not check out at the end of the file is cut off. A broken batch with a
//! good one behind it cannot come from a crash; it is damage, and is reported.

use crate::image::overlay_bitmap::Bitmap;
use crate::image::overlay_disk::{LocalDisk, LocalFile};
use crate::image::overlay_error::OverlayError;
use crate::image::overlay_format::{
    BATCH_HEADER_LEN, BATCH_MAGIC, BatchHeader, FORMAT_VERSION, FormatProblem, HEADER_LEN, Identity, MAX_ENTRY_LEN,
    MAX_PAYLOAD_LEN, Payload, decode_header, decode_payload, encode_header,
};
use crate::words::attribute::Mtime;
use crate::words::ids::Uid;
use std::io;
use std::sync::Arc;

/// Sizes that tests make small.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// A batch is closed when its payload has reached this.
    pub batch_bytes: usize,
    /// The journal is rewritten when it is this much longer than twice what it was after the last rewriting.
    pub slack_bytes: u64,
}

impl Tuning {
    /// For use.
    pub const DEFAULT: Self = Self { batch_bytes: 4 << 20, slack_bytes: 1 << 20 };
}

const _: () = assert!(Tuning::DEFAULT.batch_bytes + MAX_ENTRY_LEN <= MAX_PAYLOAD_LEN);

/// Names of an overlay's files.
pub struct Names {
    /// Content of units.
    pub data: String,
    /// The journal; the overlay exists when this does.
    pub map: String,
    /// A journal being written.
    pub new_map: String,
}

impl Names {
    /// Those of one version.
    pub fn of(uid: Uid) -> Self {
        Self { data: format!("{uid}.data"), map: format!("{uid}.map"), new_map: format!("{uid}.map.new") }
    }

    /// The version whose journal has this name.
    pub fn parse_map(name: &str) -> Option<Uid> {
        name.strip_suffix(".map")?.parse().ok()
    }
}

/// Why a batch was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The journal is as it was before; another try may succeed.
    Unchanged(io::Error),
    /// Nobody knows what is on the disk.
    Unknown(io::Error),
}

/// An open journal. The caller appends from one thread at a time.
pub struct Journal {
    file: Box<dyn LocalFile>,
    len: u64,
    next_sequence: u64,
    compact_len: u64,
}

/// What a journal says besides the bitmap.
pub struct Opened {
    /// For appending.
    pub journal: Journal,
    /// Time of the last batch; `None` when there is none.
    pub mtime: Option<Mtime>,
}

impl Journal {
    /// Makes an empty journal under its final name, durably.
    pub fn create(disk: &Arc<dyn LocalDisk>, names: &Names, identity: &Identity) -> io::Result<Self> {
        let mut journal = Self::begin(disk, names, identity)?;
        journal.file.sync_data()?;
        disk.rename(&names.new_map, &names.map)?;
        disk.sync()?;
        journal.compact_len = journal.len;
        Ok(journal)
    }

    fn begin(disk: &Arc<dyn LocalDisk>, names: &Names, identity: &Identity) -> io::Result<Self> {
        let file = disk.open(&names.new_map)?;
        file.set_len(0)?;
        file.write_at(&encode_header(identity), 0)?;
        Ok(Self { file, len: HEADER_LEN as u64, next_sequence: 1, compact_len: 0 })
    }

    /// Reads the journal into `bitmap` and cuts off a torn end.
    pub fn open(
        disk: &Arc<dyn LocalDisk>,
        names: &Names,
        identity: &Identity,
        bitmap: &Bitmap,
    ) -> Result<Opened, OverlayError> {
        let uid = identity.uid;
        let io = |source| OverlayError::io(uid, "read its journal", source);
        let damaged = |offset, problem| OverlayError::Damaged { uid, file: names.map.clone(), offset, problem };
        let file = disk.open(&names.map).map_err(io)?;
        let end = file.len_bytes().map_err(io)?;
        check_header(&*file, end, names, identity)?;
        let mut journal = Self { file, len: HEADER_LEN as u64, next_sequence: 1, compact_len: 0 };
        let mut mtime = None;
        while let Some((header, payload)) = journal.next_batch(end).map_err(io)? {
            let place = |first: u32, count: u32, page| {
                let fits = bitmap.fits(first + count - 1, &page) && (count == 1 || bitmap.fits(first, &page));
                if fits {
                    (first..first + count).for_each(|number| bitmap.restore(number, page.clone()));
                }
                fits
            };
            decode_payload(&payload, place).map_err(|problem| match problem {
                FormatProblem::Malformed(problem) => damaged(journal.len, problem),
                FormatProblem::TooNew(_) => damaged(journal.len, "a newer batch"),
            })?;
            mtime = Some(header.mtime);
            journal.len += (BATCH_HEADER_LEN + payload.len()) as u64;
            journal.next_sequence += 1;
        }
        if journal.len < end {
            if journal.is_followed_by_a_batch(end).map_err(io)? {
                return Err(damaged(journal.len, "a broken batch before a good one"));
            }
            journal.file.set_len(journal.len).map_err(io)?;
        }
        // A process that was killed may have appended and not synced. What was read just now is going to be shown, and the next
        // sync will not write it again: it has to be durable before anything is built on it.
        journal.file.sync_data().map_err(io)?;
        journal.compact_len = journal.len;
        Ok(Opened { journal, mtime })
    }

    fn next_batch(&self, end: u64) -> io::Result<Option<(BatchHeader, Vec<u8>)>> {
        let left = end - self.len;
        if left < BATCH_HEADER_LEN as u64 {
            return Ok(None);
        }
        let mut bytes = [0; BATCH_HEADER_LEN];
        self.file.read_at(&mut bytes, self.len)?;
        let Some(header) = BatchHeader::decode(&bytes) else { return Ok(None) };
        if header.sequence != self.next_sequence || left - (BATCH_HEADER_LEN as u64) < header.payload_len as u64 {
            return Ok(None);
        }
        let mut payload = vec![0; header.payload_len];
        self.file.read_at(&mut payload, self.len + BATCH_HEADER_LEN as u64)?;
        Ok((crc32c::crc32c(&payload) == header.payload_crc).then_some((header, payload)))
    }

    /// Whether the header of a later batch stands anywhere behind the end of the good ones.
    fn is_followed_by_a_batch(&self, end: u64) -> io::Result<bool> {
        const WINDOW: u64 = 1 << 20;
        let mut at = self.len;
        while at < end {
            // Windows overlap by a header, so that none is missed on a border.
            let mut window = vec![0; (WINDOW + BATCH_HEADER_LEN as u64).min(end - at) as usize];
            self.file.read_at(&mut window, at)?;
            let is_later = |bytes: &[u8]| {
                bytes.starts_with(&BATCH_MAGIC)
                    && BatchHeader::decode(bytes).is_some_and(|header| header.sequence > self.next_sequence)
            };
            if (0..window.len()).any(|from| is_later(&window[from..])) {
                return Ok(true);
            }
            at += WINDOW;
        }
        Ok(false)
    }

    /// Appends a batch; durable on return.
    pub fn append(&mut self, payload: &Payload, mtime: Mtime) -> Result<(), AppendError> {
        let end = self.len;
        if let Err(error) = self.write_batch(payload, mtime) {
            self.len = end;
            return Err(match self.file.set_len(end) {
                Ok(()) => AppendError::Unchanged(error),
                Err(_) => AppendError::Unknown(error),
            });
        }
        self.file.sync_data().map_err(AppendError::Unknown)?;
        self.next_sequence += 1;
        Ok(())
    }

    fn write_batch(&mut self, payload: &Payload, mtime: Mtime) -> io::Result<()> {
        let payload = payload.bytes();
        let payload_crc = crc32c::crc32c(payload);
        let header = BatchHeader { payload_len: payload.len(), sequence: self.next_sequence, mtime, payload_crc };
        let mut batch = Vec::with_capacity(BATCH_HEADER_LEN + payload.len());
        batch.extend(header.encode());
        batch.extend(payload);
        self.file.write_at(&batch, self.len)?;
        self.len += batch.len() as u64;
        Ok(())
    }

    /// Whether it is time for [`Self::rewrite`].
    pub fn is_long(&self, tuning: &Tuning) -> bool {
        self.len > self.compact_len.saturating_mul(2).saturating_add(tuning.slack_bytes)
    }

    /// Puts off the next rewriting after one that failed.
    pub fn postpone_rewriting(&mut self) {
        self.compact_len = self.len;
    }

    /// Writes a journal that says what `bitmap` says, and no more, under the name of a new one. It does not count until
    /// [`Self::replace`].
    pub fn rewrite(
        disk: &Arc<dyn LocalDisk>,
        names: &Names,
        identity: &Identity,
        bitmap: &Bitmap,
        (mtime, tuning): (Mtime, &Tuning),
    ) -> io::Result<Self> {
        let mut fresh = Self::begin(disk, names, identity)?;
        let mut payload = Payload::default();
        for page in bitmap.touched_pages() {
            payload.push(page, &bitmap.page(page));
            if payload.bytes().len() >= tuning.batch_bytes {
                fresh.write_batch(&std::mem::take(&mut payload), mtime)?;
                fresh.next_sequence += 1;
            }
        }
        // The last batch is written even when empty: it carries the time.
        fresh.write_batch(&payload, mtime)?;
        fresh.next_sequence += 1;
        fresh.file.sync_data()?;
        fresh.compact_len = fresh.len;
        Ok(fresh)
    }

    /// Puts a rewritten journal in the place of this one, durably.
    pub fn replace(&mut self, fresh: Self, disk: &Arc<dyn LocalDisk>, names: &Names) -> Result<(), AppendError> {
        disk.rename(&names.new_map, &names.map).map_err(AppendError::Unchanged)?;
        *self = fresh;
        disk.sync().map_err(AppendError::Unknown)
    }
}

fn check_header(file: &dyn LocalFile, end: u64, names: &Names, identity: &Identity) -> Result<(), OverlayError> {
    let uid = identity.uid;
    let damaged = |problem| OverlayError::Damaged { uid, file: names.map.clone(), offset: 0, problem };
    if end < HEADER_LEN as u64 {
        return Err(damaged("a cut header"));
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_at(&mut bytes, 0).map_err(|source| OverlayError::io(uid, "read its journal", source))?;
    let found = decode_header(&bytes).map_err(|problem| match problem {
        FormatProblem::TooNew(found) => OverlayError::TooNew { uid, found, known: FORMAT_VERSION },
        FormatProblem::Malformed(problem) => damaged(problem),
    })?;
    if found.uid != uid {
        return Err(damaged("the overlay of another version"));
    }
    if found.size_bytes != identity.size_bytes {
        let (expected_bytes, found_bytes) = (identity.size_bytes, found.size_bytes);
        return Err(OverlayError::OtherSize { uid, expected_bytes, found_bytes });
    }
    Ok(())
}
