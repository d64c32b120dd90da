//! Reading without leaving traces in the page cache: a backup of a disk must not push out what the machine works with.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

/// Pages of `range` (which starts on one) of which the page cache held nothing; `None` when the kernel does not say.
///
/// The kernel answers truly only to who may write the file (mincore(2)); to everyone else all of it seems to be there.
pub fn absent(file: &File, range: &Range<u64>) -> Option<Vec<Range<u64>>> {
    let len = range.end.saturating_sub(range.start);
    let (Ok(len_bytes), Ok(offset)) = (usize::try_from(len), libc::off_t::try_from(range.start)) else {
        return None;
    };
    if len_bytes == 0 {
        return Some(Vec::new());
    }
    let page = page_bytes();
    let mut resident = vec![0u8; len_bytes.div_ceil(page)];
    // SAFETY: a fresh private mapping, which is never read, only asked about; a failure is MAP_FAILED.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), len_bytes, libc::PROT_NONE, libc::MAP_SHARED, file.as_raw_fd(), offset) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping is `len_bytes` long and `resident` has a byte for each of its pages.
    let is_known = unsafe { libc::mincore(at, len_bytes, resident.as_mut_ptr()) } == 0;
    // SAFETY: exactly the mapping made above, to which no reference exists.
    unsafe { libc::munmap(at, len_bytes) };
    if !is_known {
        return None;
    }
    let mut absent: Vec<Range<u64>> = Vec::new();
    for (number, _) in resident.iter().enumerate().filter(|(_, byte)| **byte & 1 == 0) {
        let start = range.start + (number * page) as u64;
        // Whole pages: what is told of a part of one, the kernel lets pass when it is to forget it.
        let end = start + page as u64;
        match absent.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => absent.push(start..end),
        }
    }
    Some(absent)
}

/// Lets the kernel forget pages that were read.
pub fn forget(file: &File, ranges: &[Range<u64>]) {
    for range in ranges {
        advise(file, range.start, range.end - range.start, libc::POSIX_FADV_DONTNEED);
    }
}

/// Says that the file will be read in large parts in any order: nothing is to be read ahead.
pub fn announce_random(file: &File) {
    advise(file, 0, 0, libc::POSIX_FADV_RANDOM);
}

/// Lets the kernel forget all of a file whose pages are on disk.
pub fn forget_all(file: &File) {
    advise(file, 0, 0, libc::POSIX_FADV_DONTNEED);
}

fn advise(file: &File, offset: u64, len: u64, advice: libc::c_int) {
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) else { return };
    // Advice may be ignored, and so may its failure.
    // SAFETY: takes numbers only.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, advice) };
}

fn page_bytes() -> usize {
    // SAFETY: takes a number only.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    #[test]
    fn optional_only_what_was_absent_is_forgotten() {
        // tmpfs has nothing but the page cache: a file on disk is needed.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        forget_all(&file);
        let all = 0..1u64 << 20;
        if absent(&file, &all) != Some(vec![all.clone()]) {
            eprintln!("not tested: this filesystem keeps its pages");
            return;
        }
        advise(&file, 0, 0, libc::POSIX_FADV_RANDOM);
        file.read_exact_at(&mut [0; 4096], 0).unwrap();
        let before = absent(&file, &all).unwrap();
        assert_eq!(before.first().map(|range| range.start > 0), Some(true));
        file.read_exact_at(&mut vec![0; 1 << 20], 0).unwrap();
        assert_eq!(absent(&file, &all), Some(vec![]));
        forget(&file, &before);
        assert_eq!(absent(&file, &all), Some(before));
    }
}
