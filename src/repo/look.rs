//! How far back a look at the target goes.
//!
//! At a target whose lists come in pages, a list of everything costs a request for each thousand objects, every time. Most objects
//! are named by UUIDv7, so that what is new sorts last: a look that begins [`MARGIN_MS`] before the newest that is known costs
//! one request however many there are. It never begins later than that long before now: a single name from a clock that ran ahead, or
//! of a version that had to come after such a one, must not hide what others write with the right time.
//!
//! What can be missed, and why that is harmless: an object whose name was made by a clock that stood more than the margin behind,
//! or that took longer than the margin to arrive. Servers of S3 refuse requests from clocks that are more than minutes off, and a
//! put that takes hours has failed. Should one be missed all the same, it is found by the next look at everything, of which there is
//! one in [`EVERYTHING_EACH`], by each rebuild, and when a block is wanted that no known fragment has. Nothing that is safe depends
//! on it: the check of a version believes only entries of the index that it has, and the condemned list is always read whole.

use crate::repo::{Core, RepoError};
use crate::words::stamp::Stamp;

/// How far before the newest known name a look begins.
const MARGIN_MS: u64 = 48 * 60 * 60 * 1000;
/// One look in so many is at everything.
const EVERYTHING_EACH: u64 = 32;
/// Under which the catalog keeps the number of looks.
const META_LOOKS: &str = "looks";

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What is new.
    Recent,
    /// Everything, also what is gone.
    Everything,
}

impl Core {
    /// Which look is next.
    pub(super) fn next_look(&self) -> Result<Look, RepoError> {
        if !self.target.is_paged() {
            return Ok(Look::Everything);
        }
        let kept = self.catalog.get_meta(META_LOOKS)?;
        let looks = kept.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        self.catalog.set_meta(META_LOOKS, &looks.wrapping_add(1).to_be_bytes())?;
        Ok(if looks % EVERYTHING_EACH == 0 { Look::Everything } else { Look::Recent })
    }

    /// The name after which a list is to begin; empty for all of it. `newest` is the UUIDv7 of the newest object that is known below
    /// `prefix`.
    pub(super) fn floor(&self, prefix: &str, look: Look, newest: Option<&[u8; 16]>) -> String {
        match newest {
            Some(newest) if look == Look::Recent && self.target.is_paged() => {
                floor_of(prefix, newest, self.clock.now())
            }
            _ => String::new(),
        }
    }
}

fn floor_of(prefix: &str, newest: &[u8; 16], now: Stamp) -> String {
    // RFC 9562, 5.7: the first 48 bits are milliseconds.
    let millis = newest[..6].iter().fold(0, |millis, byte| millis << 8 | u64::from(*byte));
    let millis = millis.min(u64::try_from(now.millis()).unwrap_or(0));
    let mut floor = [0; 16];
    floor[..6].copy_from_slice(&millis.saturating_sub(MARGIN_MS).to_be_bytes()[2..]);
    format!("{prefix}{}", uuid::Uuid::from_bytes(floor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock::{Clock, ClockExt, TestClock};

    #[test]
    fn a_look_begins_two_days_before_the_newest() {
        let clock = TestClock::new(Stamp::from_millis(1_795_372_262_123), 1);
        let at = |hours: i64| clock.uid_at(Stamp::from_millis(1_795_372_262_123 + hours * 3_600_000));
        let now = clock.now();
        let floor = floor_of("versions/", at(0).as_bytes(), now);
        assert!(format!("versions/{}", at(-47)) > floor && format!("versions/{}", at(-49)) < floor);
        assert!(floor_of("index/", &[0; 16], now) < format!("index/{}", at(0)));
        // Whatever the newest says.
        let floor = floor_of("versions/", at(24 * 365).as_bytes(), now);
        assert!(format!("versions/{}", at(-47)) > floor && format!("versions/{}", at(-49)) < floor);
    }
}
