//! Bytes of the overlay's journal; docs/format.md has the tables. Pure: no I/O, never panics, trusts no length.

use crate::image::overlay_page::{PAGE_UNITS, PLANE_WORDS, Page, Planes, UNIT_BYTES, UnitState};
use crate::words::attribute::Mtime;
use crate::words::ids::Uid;

/// Newest format this program reads and the one it writes.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the journal's header.
pub const HEADER_LEN: usize = 64;
/// Bytes of a batch's header.
pub const BATCH_HEADER_LEN: usize = 36;
/// First bytes of every batch.
pub const BATCH_MAGIC: [u8; 4] = *b"bkyB";
/// Most bytes of a batch's payload.
pub const MAX_PAYLOAD_LEN: usize = 8 << 20;

const MAGIC: [u8; 8] = *b"bkyOVLY1";
const ENTRY_HEADER_LEN: usize = 12;
const PLANE_LEN: usize = PLANE_WORDS * 8;
/// Above this many changes of state two planes are shorter.
const MAX_CHANGES: usize = 2 * PLANE_LEN / 2;
/// Most bytes one entry takes.
pub const MAX_ENTRY_LEN: usize = ENTRY_HEADER_LEN + 2 * PLANE_LEN;
const _: () = assert!(PAGE_UNITS == 1 << 13, "a change of state holds 13 bits of unit number");
const _: () = assert!(MAX_CHANGES <= u16::MAX as usize);

/// What an overlay belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The version overlaid.
    pub uid: Uid,
    /// Bytes of its image.
    pub size_bytes: u64,
}

/// Bytes that do not follow the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatProblem {
    /// The format is newer than this program.
    #[error("format {0}")]
    TooNew(u32),
    /// Anything else.
    #[error("{0}")]
    Malformed(&'static str),
}

use FormatProblem::Malformed;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// The header of a journal.
pub fn encode_header(identity: &Identity) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(UNIT_BYTES as u32).to_le_bytes());
    header[16..32].copy_from_slice(identity.uid.as_bytes());
    header[32..40].copy_from_slice(&identity.size_bytes.to_le_bytes());
    header[40..44].copy_from_slice(&(PAGE_UNITS as u32).to_le_bytes());
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads a header back.
///
/// # Errors
/// When it is not one, or a newer one.
pub fn decode_header(bytes: &[u8; HEADER_LEN]) -> Result<Identity, FormatProblem> {
    if bytes[..8] != MAGIC {
        return Err(Malformed("no overlay header"));
    }
    let field = |at| u32_at(bytes, at).unwrap_or(0);
    if field(60) != crc32c::crc32c(&bytes[..60]) {
        return Err(Malformed("wrong checksum of the header"));
    }
    if field(8) > FORMAT_VERSION {
        return Err(FormatProblem::TooNew(field(8)));
    }
    if u64::from(field(12)) != UNIT_BYTES || field(40) as usize != PAGE_UNITS {
        return Err(Malformed("unknown geometry"));
    }
    let uid = bytes[16..].first_chunk().copied().map(Uid::from_bytes).ok_or(Malformed("no uid"))?;
    Ok(Identity { uid, size_bytes: u64_at(bytes, 32).unwrap_or(0) })
}

/// What stands before the payload of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes of the payload.
    pub payload_len: usize,
    /// 1 for the first batch of a file, then one more each.
    pub sequence: u64,
    /// The data file's time when the batch was made.
    pub mtime: Mtime,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

impl BatchHeader {
    /// To bytes.
    pub fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut header = [0; BATCH_HEADER_LEN];
        header[..4].copy_from_slice(&BATCH_MAGIC);
        header[4..8].copy_from_slice(&(self.payload_len as u32).to_le_bytes());
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&self.mtime.seconds.to_le_bytes());
        header[24..28].copy_from_slice(&self.mtime.nanos.to_le_bytes());
        header[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&header[..32]);
        header[32..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// From the bytes a batch begins with; `None` when no batch begins here.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<BATCH_HEADER_LEN>()?;
        if header[..4] != BATCH_MAGIC || u32_at(header, 32)? != crc32c::crc32c(&header[..32]) {
            return None;
        }
        let payload_len = u32_at(header, 4)? as usize;
        let mtime = Mtime { seconds: u64_at(header, 16)?.cast_signed(), nanos: u32_at(header, 24)?.min(999_999_999) };
        let decoded = Self { payload_len, sequence: u64_at(header, 8)?, mtime, payload_crc: u32_at(header, 28)? };
        (payload_len <= MAX_PAYLOAD_LEN).then_some(decoded)
    }
}

/// The payload of a batch while it is put together: entries, each the new states of one page or of a run of uniform pages.
#[derive(Debug, Default)]
pub struct Payload {
    bytes: Vec<u8>,
    /// The last entry when it can still grow: where it begins, what it says.
    open: Option<(usize, u32, u32, UnitState)>,
}

impl Payload {
    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a page. Uniform pages that follow each other share an entry.
    pub fn push(&mut self, number: u32, page: &Page) {
        match page {
            Page::Uniform(state) => self.push_uniform(number, *state),
            Page::Mixed(planes) => self.push_mixed(number, page, planes),
        }
    }

    fn push_uniform(&mut self, number: u32, state: UnitState) {
        if let Some((at, first, count, open_state)) = &mut self.open
            && *open_state == state
            && first.checked_add(*count) == Some(number)
        {
            *count += 1;
            self.bytes[*at + 4..*at + 8].copy_from_slice(&count.to_le_bytes());
            return;
        }
        self.open = Some((self.bytes.len(), number, 1, state));
        self.push_entry_header(number, state as u8, 0);
    }

    fn push_mixed(&mut self, number: u32, page: &Page, planes: &Planes) {
        self.open = None;
        let mut changes = Vec::new();
        let mut unit = 0;
        while unit < PAGE_UNITS && changes.len() <= MAX_CHANGES {
            let (state, end) = page.run_at(unit);
            changes.push(unit as u16 | (state as u16) << 13);
            unit = end;
        }
        if changes.len() <= MAX_CHANGES {
            self.push_entry_header(number, FORM_CHANGES, changes.len() as u16);
            changes.iter().for_each(|change| self.bytes.extend(change.to_le_bytes()));
        } else {
            self.push_entry_header(number, FORM_PLANES, 0);
            planes.data.iter().chain(&planes.zero).for_each(|word| self.bytes.extend(word.to_le_bytes()));
        }
    }

    fn push_entry_header(&mut self, number: u32, form: u8, changes: u16) {
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend([form, 0]);
        self.bytes.extend(changes.to_le_bytes());
    }
}

const FORM_CHANGES: u8 = 3;
const FORM_PLANES: u8 = 4;

fn state_of(number: u16) -> Option<UnitState> {
    [UnitState::Base, UnitState::Data, UnitState::Zero].get(usize::from(number)).copied()
}

/// Reads a payload: calls `place` with each run of pages `(first, count, page)`. A page past 2^32 is refused here, one past
/// the end of the image by `place`, which says whether it took the run.
///
/// # Errors
/// When the payload is malformed or `place` refuses; earlier pages were placed then.
pub fn decode_payload(mut bytes: &[u8], mut place: impl FnMut(u32, u32, Page) -> bool) -> Result<(), FormatProblem> {
    const SHORT: FormatProblem = Malformed("a cut entry");
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at_checked(ENTRY_HEADER_LEN).ok_or(SHORT)?;
        let first = u32_at(header, 0).ok_or(SHORT)?;
        let count = u32_at(header, 4).ok_or(SHORT)?;
        let changes = usize::from(u16_at(header, 10).ok_or(SHORT)?);
        let form = header[8];
        let body_len = match form {
            FORM_CHANGES => changes * 2,
            FORM_PLANES => 2 * PLANE_LEN,
            _ => 0,
        };
        let (body, rest) = rest.split_at_checked(body_len).ok_or(SHORT)?;
        let page = match form {
            FORM_CHANGES => decode_changes(body)?,
            FORM_PLANES => decode_planes(body)?,
            _ => Page::Uniform(state_of(form.into()).ok_or(Malformed("an unknown form of entry"))?),
        };
        if count == 0 || first.checked_add(count).is_none() || form >= FORM_CHANGES && count != 1 {
            return Err(Malformed("an impossible run of pages"));
        }
        if !place(first, count, page) {
            return Err(Malformed("a page past the end of the image"));
        }
        bytes = rest;
    }
    Ok(())
}

fn decode_changes(body: &[u8]) -> Result<Page, FormatProblem> {
    let changes: Vec<u16> = body.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let unit_of = |change: u16| usize::from(change & 0x1fff);
    if changes.first().is_none_or(|first| unit_of(*first) != 0) {
        return Err(Malformed("a page that does not begin at its first unit"));
    }
    let mut page = Page::Uniform(UnitState::Base);
    for (index, change) in changes.iter().enumerate() {
        let end = changes.get(index + 1).map_or(PAGE_UNITS, |next| unit_of(*next));
        if end <= unit_of(*change) {
            return Err(Malformed("changes of state out of order"));
        }
        page.set(unit_of(*change)..end, state_of(change >> 13).ok_or(Malformed("an unknown state"))?);
    }
    Ok(page)
}

fn decode_planes(body: &[u8]) -> Result<Page, FormatProblem> {
    let word = |index: usize| u64_at(body, index * 8).unwrap_or(0);
    let data = std::array::from_fn(word);
    let zero = std::array::from_fn(|index| word(PLANE_WORDS + index));
    if data.iter().zip(&zero).any(|(data, zero)| data & zero != 0) {
        return Err(Malformed("a unit in two states"));
    }
    Ok(Page::from_planes(Box::new(Planes { data, zero })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity { uid: Uid::from_bytes([7; 16]), size_bytes: 1 << 40 };

    #[test]
    fn a_header_with_any_bit_flipped_is_refused() {
        let header = encode_header(&IDENTITY);
        assert_eq!(decode_header(&header), Ok(IDENTITY));
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_header(&flipped).is_err(), "bit {bit}");
        }
    }

    fn decoded(payload: &Payload) -> Vec<(u32, Page)> {
        let mut pages = Vec::new();
        let place = |first, count, page: Page| {
            pages.extend((first..first + count).map(|number| (number, page.clone())));
            true
        };
        decode_payload(payload.bytes(), place).unwrap();
        pages
    }

    #[test]
    fn pages_of_every_kind_come_back() {
        let mut sparse = Page::Uniform(UnitState::Base);
        sparse.set(0..1, UnitState::Zero);
        sparse.set(8191..8192, UnitState::Data);
        let mut dense = Page::Uniform(UnitState::Data);
        (0..PAGE_UNITS).step_by(2).for_each(|unit| assert_eq!(dense.set(unit..unit + 1, UnitState::Zero), -1));
        let mut pages =
            vec![(3, sparse), (4, dense.clone()), (9, Page::Uniform(UnitState::Base)), (u32::MAX - 1, dense)];
        pages.splice(2..2, (5..9).map(|number| (number, Page::Uniform(UnitState::Zero))));
        let mut payload = Payload::default();
        pages.iter().for_each(|(number, page)| payload.push(*number, page));
        assert_eq!(decoded(&payload), pages);
        assert_eq!(payload.bytes().len(), 12 + 6 + 2 * MAX_ENTRY_LEN + 12 + 12);
    }

    #[test]
    fn a_whole_terabyte_discarded_is_one_entry() {
        let mut payload = Payload::default();
        (0..32768).for_each(|number| payload.push(number, &Page::Uniform(UnitState::Zero)));
        assert_eq!(payload.bytes().len(), ENTRY_HEADER_LEN);
        assert_eq!(decoded(&payload).len(), 32768);
    }

    proptest! {
        #[test]
        fn decoders_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), form in 0u8..6, changes in 0u16..40) {
            let _ = BatchHeader::decode(&bytes);
            let _ = decode_payload(&bytes, |_, _, _| true);
            let mut entry = vec![0, 0, 0, 0, 1, 0, 0, 0, form, 0];
            entry.extend(changes.to_le_bytes());
            entry.extend(&bytes);
            let _ = decode_payload(&entry, |_, _, _| true);
        }
    }
}
