//! One file of the cache: a header, frames back to back and, once it is full, a table of them and a trailer, so that a start
//! need not look at each frame. Byte by byte in docs/format.md, "The cache on the local disk".
//!
//! A segment that its writer did not finish is read frame by frame, by their headers. What of it a power cut has taken is found
//! out when a frame is opened.

use crate::format::frame::{self, FrameHeader};
use crate::words::ids::{BlockId, RepoId};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// End of the names of segments.
pub(super) const SUFFIX: &str = ".seg";
const MAGIC: [u8; 8] = *b"bkySEGM1";
const END_MAGIC: [u8; 8] = *b"bkySEND1";
/// Bytes before the first frame: magic and repository.
pub(super) const HEADER_LEN: u64 = 8 + RepoId::LEN as u64;
/// Bytes of the table for each frame: the beginning of the block's id, offset, length.
pub(super) const ENTRY_LEN: usize = 8 + 4 + 4;
/// Bytes after the table: its checksum, its offset, how many entries, zero, magic.
pub(super) const TRAILER_LEN: usize = 4 + 4 + 4 + 4 + 8;
/// The longest frame: a block of 4 MiB that did not shrink.
const FRAME_MAX_BYTES: u64 = (4 << 20) + frame::OVERHEAD as u64;

/// The beginning of a block's id. Ids are as good as random, so this tells blocks apart well enough to find them; the frame says
/// which block it really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ShortId(u64);

impl From<&BlockId> for ShortId {
    fn from(id: &BlockId) -> Self {
        Self(u64::from_le_bytes(id.as_bytes()[..8].try_into().expect("eight of 32 bytes")))
    }
}

/// Where a frame is in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    path: PathBuf,
    file: File,
    /// The reading that used it last, as counted by [`super::entries::Entries`].
    pub(super) last_used: AtomicU64,
    /// Where the next frame or the table goes; the size of the file once there is a table.
    pub(super) end: AtomicU64,
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) frames: Vec<(ShortId, Place)>,
    /// Whether it ends with a table.
    pub(super) finished: bool,
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl Segment {
    /// Makes an empty segment.
    pub(super) fn create(dir: &Path, number: u32, repo: RepoId) -> io::Result<Self> {
        let path = dir.join(format!("{number:08x}{SUFFIX}"));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let header = [&MAGIC[..], repo.as_bytes()].concat();
        file.write_all_at(&header, 0)?;
        let (last_used, end) = (AtomicU64::new(number.into()), AtomicU64::new(HEADER_LEN));
        Ok(Self { number, path, file, last_used, end })
    }

    /// Opens a segment and finds out what it holds.
    ///
    /// # Errors
    /// When it cannot be read or is none of this repository.
    pub(super) fn open(path: PathBuf, number: u32, repo: RepoId) -> io::Result<(Self, Contents)> {
        // Who may not write can read all the same.
        let file = File::options().read(true).write(true).open(&path).or_else(|_| File::open(&path))?;
        let mut header = [0; HEADER_LEN as usize];
        file.read_exact_at(&mut header, 0)?;
        if header[..8] != MAGIC || header[8..] != *repo.as_bytes() {
            return Err(invalid("it is no segment of this repository"));
        }
        let size = file.metadata()?.len();
        let (contents, end) = match read_table(&file, size) {
            Some(frames) => (Contents { frames, finished: true }, size),
            None => scan(&file, size)?,
        };
        let (last_used, end) = (AtomicU64::new(number.into()), AtomicU64::new(end));
        Ok((Self { number, path, file, last_used, end }, contents))
    }

    /// Fills `frame`; `false` when there is a frame of another block.
    ///
    /// # Errors
    /// When there is no frame, or not all of it.
    pub(super) fn read(&self, place: &Place, id: &BlockId, frame: &mut Vec<u8>) -> io::Result<bool> {
        frame.resize(place.len as usize, 0);
        self.file.read_exact_at(frame, place.offset.into())?;
        let header = FrameHeader::decode(frame).map_err(|_| invalid("there is no frame"))?;
        Ok(header.id == *id.as_bytes())
    }

    /// Appends a frame. Only the writer calls it; until it returns nobody knows the place.
    pub(super) fn append(&self, frame: &[u8]) -> io::Result<Place> {
        let at = self.end.load(Ordering::Relaxed);
        let too_long = |_| invalid("the segment is full");
        let place = Place { offset: at.try_into().map_err(too_long)?, len: frame.len().try_into().map_err(too_long)? };
        self.file.write_all_at(frame, at)?;
        self.end.store(at + frame.len() as u64, Ordering::Relaxed);
        Ok(place)
    }

    /// Writes the table behind the last frame.
    pub(super) fn finish(&self, frames: &[(ShortId, Place)]) -> io::Result<()> {
        let at = self.end.load(Ordering::Relaxed);
        let mut table = Vec::with_capacity(frames.len() * ENTRY_LEN + TRAILER_LEN);
        for (id, place) in frames {
            table.extend_from_slice(&id.0.to_le_bytes());
            table.extend_from_slice(&place.offset.to_le_bytes());
            table.extend_from_slice(&place.len.to_le_bytes());
        }
        let crc = crc32c::crc32c(&table);
        let offset = u32::try_from(at).map_err(|_| invalid("the segment is too long"))?;
        let count = u32::try_from(frames.len()).map_err(|_| invalid("the segment has too many frames"))?;
        for field in [crc, offset, count, 0] {
            table.extend_from_slice(&field.to_le_bytes());
        }
        table.extend_from_slice(&END_MAGIC);
        self.file.write_all_at(&table, at)?;
        let end = at + table.len() as u64;
        // What a frame that did not fit has left behind.
        self.file.set_len(end)?;
        self.end.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the file away; who reads from it goes on.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Bytes on disk.
    pub(super) fn size_bytes(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }
}

/// The table at the end; `None` when there is none that can be believed.
fn read_table(file: &File, size: u64) -> Option<Vec<(ShortId, Place)>> {
    let at = size.checked_sub(TRAILER_LEN as u64)?;
    let mut trailer = [0; TRAILER_LEN];
    file.read_exact_at(&mut trailer, at).ok()?;
    let field = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().expect("four bytes"));
    let (crc, offset, count) = (field(0), u64::from(field(4)), u64::from(field(8)));
    if trailer[16..] != END_MAGIC || offset < HEADER_LEN || offset + count * ENTRY_LEN as u64 != at {
        return None;
    }
    // No more than the file holds.
    let mut table = vec![0; usize::try_from(at - offset).ok()?];
    file.read_exact_at(&mut table, offset).ok()?;
    if crc32c::crc32c(&table) != crc {
        return None;
    }
    let frames = table.chunks_exact(ENTRY_LEN).map(|entry| {
        let field = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes"));
        let id = u64::from_le_bytes(entry[..8].try_into().expect("eight bytes"));
        (ShortId(id), Place { offset: field(8), len: field(12) })
    });
    let fits = |place: &Place| u64::from(place.offset) + u64::from(place.len) <= offset;
    Some(frames.filter(|(_, place)| fits(place)).collect())
}

/// Reads the header of one frame after the other, and where the last whole one ends.
fn scan(file: &File, size: u64) -> io::Result<(Contents, u64)> {
    let mut frames = Vec::new();
    let mut at = HEADER_LEN;
    let mut header = [0; frame::HEADER_LEN];
    while at + header.len() as u64 <= size {
        file.read_exact_at(&mut header, at)?;
        let Ok(found) = FrameHeader::decode(&header) else { break };
        let len = found.frame_len();
        if len > FRAME_MAX_BYTES || at + len > size {
            break;
        }
        let (Ok(offset), Ok(len)) = (u32::try_from(at), u32::try_from(len)) else { break };
        frames.push((ShortId::from(&BlockId::from_bytes(found.id)), Place { offset, len }));
        at += u64::from(len);
    }
    Ok((Contents { frames, finished: false }, at))
}
