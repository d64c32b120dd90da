//! Restoring to an image.
//!
//! A new image is called `NAME.backyfs-part` until it is whole, as a file is. One that exists is written in place, with consent: it
//! may have snapshots and clones, which a new image of its name would not have. One that somebody has open is refused.

use crate::source::SourceError;
use crate::source::destination::{Consent, Destination, Manner, Start};
use crate::source::file_destination::PART_SUFFIX;
use crate::source::rbd::RbdImage;
use crate::source::rbd::cluster::OpenPool;
use crate::source::rbd::image::{Image, Mode};
use crate::words::attribute::FileAttributes;
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
pub struct RbdDestination {
    what: String,
    pool: Arc<OpenPool>,
    name: String,
    image: Image,
    /// Under which name it is written, when that is not its own.
    part: Option<String>,
    is_named: AtomicBool,
    fresh: bool,
    size: Mutex<Size>,
}

/// Whoever writes without knowing how much it will be makes it larger with every write; each change of size is a message to all who
/// have the image open. So it grows in steps, and what is too much goes at the end.
struct Size {
    wanted: u64,
    made: u64,
}

/// See [`Size`].
const STEP_BYTES: u64 = 1 << 30;

/// A virtual machine, or another restore.
fn refuse_in_use(image: &Image, what: &str) -> Result<(), SourceError> {
    let failed = |source| SourceError::Destination { what: what.to_owned(), action: "opened", source };
    if image.watchers().map_err(failed)? > 1 {
        let problem = "it is in use: stop who has it open first".to_owned();
        return Err(SourceError::DestinationKind { what: what.to_owned(), problem });
    }
    Ok(())
}

impl RbdDestination {
    /// Makes it, or opens it.
    ///
    /// # Errors
    /// When it exists without consent, or is in use.
    pub fn open(image: &RbdImage, manner: &Manner) -> Result<Self, SourceError> {
        let what = image.to_string();
        let failed = |action| {
            let what = what.clone();
            move |source| SourceError::Destination { what, action, source }
        };
        let pool = OpenPool::open(&image.pool)?;
        let names = pool.images().map_err(failed("looked for"))?;
        let part = format!("{}{PART_SUFFIX}", image.image);
        let (exists, part_exists) = (names.contains(&image.image), names.contains(&part));
        if exists && manner.consent == Consent::None {
            return Err(SourceError::Exists { what });
        }
        let make = |name: &str| -> io::Result<Image> {
            Image::create(&pool, name, manner.size_bytes)?;
            Image::open(&pool, name, Mode::Write)
        };
        if exists {
            let open = Image::open(&pool, &image.image, Mode::Write).map_err(failed("opened"))?;
            refuse_in_use(&open, &what)?;
            if open.size_bytes().map_err(failed("measured"))? < manner.size_bytes {
                open.resize(manner.size_bytes).map_err(failed("resized"))?;
            }
            let made = open.size_bytes().map_err(failed("measured"))?;
            let (name, is_named, size) =
                (image.image.clone(), AtomicBool::new(true), Mutex::new(Size { wanted: made, made }));
            return Ok(Self { what, pool, name, image: open, part: None, is_named, fresh: false, size });
        }
        let (open, fresh) = match (part_exists, manner.start, manner.consent) {
            (true, Start::Anew, Consent::None) => {
                return Err(SourceError::Unfinished { path: format!("{}/{part}", image.pool).into() });
            }
            (true, Start::Anew, Consent::Force) => {
                Image::remove(&pool, &part).map_err(failed("removed"))?;
                (make(&part).map_err(failed("made"))?, true)
            }
            (true, Start::Resume, _) => {
                let open = Image::open(&pool, &part, Mode::Write).map_err(failed("opened"))?;
                refuse_in_use(&open, &what)?;
                open.resize(manner.size_bytes).map_err(failed("resized"))?;
                (open, false)
            }
            (false, ..) => (make(&part).map_err(failed("made"))?, true),
        };
        let (name, is_named) = (image.image.clone(), AtomicBool::new(false));
        let size = Mutex::new(Size { wanted: manner.size_bytes, made: manner.size_bytes });
        Ok(Self { what, pool, name, image: open, part: Some(part), is_named, fresh, size })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> SourceError {
        let what = self.what.clone();
        move |source| SourceError::Destination { what, action, source }
    }
}

impl Destination for RbdDestination {
    fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.image.read(offset + done as u64, &mut buffer[done..]).map_err(self.failed("read"))? {
                0 => return Err(self.failed("read")(io::ErrorKind::UnexpectedEof.into())),
                count => done += count,
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        self.image.write(offset, data).map_err(self.failed("written"))
    }

    fn zero(&self, range: &Range<u64>) -> Result<(), SourceError> {
        if range.is_empty() { Ok(()) } else { self.image.zero(range).map_err(self.failed("zeroed")) }
    }

    fn resize(&self, size_bytes: u64) -> Result<(), SourceError> {
        let mut size = self.size.lock();
        if size_bytes > size.made {
            // What exists grows no further than it must: it is not cut at the end.
            let step = if self.part.is_some() { STEP_BYTES } else { 1 };
            let made = size_bytes.checked_next_multiple_of(step).unwrap_or(size_bytes);
            self.image.resize(made).map_err(self.failed("resized"))?;
            size.made = made;
        } else if size_bytes < size.wanted && self.part.is_some() {
            // What is cut off must be zero when it comes back.
            self.image.resize(size_bytes).map_err(self.failed("resized"))?;
            size.made = size_bytes;
        }
        size.wanted = size_bytes;
        Ok(())
    }

    fn finish(&self, _: &FileAttributes) -> Result<String, SourceError> {
        self.image.flush().map_err(self.failed("made durable"))?;
        if let Some(part) = &self.part
            && !self.is_named.load(Ordering::Relaxed)
        {
            let mut size = self.size.lock();
            if size.made != size.wanted {
                self.image.resize(size.wanted).map_err(self.failed("resized"))?;
                size.made = size.wanted;
            }
            Image::rename(&self.pool, part, &self.name).map_err(self.failed("renamed (what was written is kept)"))?;
            self.is_named.store(true, Ordering::Relaxed);
        }
        Ok(self.what.clone())
    }
}
