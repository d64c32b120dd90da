//! What damage makes of a version's validity. Pure.
//!
//! Only what a scrub (or a read) has said is taken back by one: an `invalid` that a person wrote stays until a person takes it
//! away. One that says which sectors of its source could not be read keeps that, and an incomplete version stays incomplete,
//! since it must never become `latest`; the damage is added to their reasons.

use crate::ops::scrub::assess::Assessment;
use crate::source::bad_sectors::BadSectors;
use crate::words::attribute::Validity;

/// How reasons begin that speak of damage to what is stored.
const PREFIX: &str = "damage: ";
/// What stands between the reason why a version is incomplete and its damage.
const BETWEEN: &str = "; ";

/// Longest reason, in bytes.
const REASON_MAX_BYTES: usize = 1000;

/// What the validity should be, if it should be another.
pub fn remark(now: &Validity, found: &Assessment) -> Option<Validity> {
    let wanted = if found.lost_bytes > 0 { damaged(now, &reason(found)) } else { healed(now, found) };
    (wanted != *now).then_some(wanted)
}

fn damaged(now: &Validity, reason: &str) -> Validity {
    match now {
        // A schedule is met by such a version as long as nothing else is wrong with it. What it lacks is not cut off: the next backup
        // reads those places again.
        Validity::Invalid(said) if BadSectors::parse(said).is_some() => {
            Validity::Invalid(format!("{}{BETWEEN}{reason}", without_damage(said)))
        }
        Validity::Invalid(said) if !said.starts_with(PREFIX) => now.clone(),
        Validity::Incomplete(said) => {
            let mut said = without_damage(said).to_owned();
            said.truncate(said.floor_char_boundary(REASON_MAX_BYTES - reason.len().min(REASON_MAX_BYTES)));
            Validity::Incomplete(format!("{said}{BETWEEN}{reason}"))
        }
        _ => Validity::Invalid(reason.to_owned()),
    }
}

/// Whether a scrub has said that there is damage.
pub fn speaks_of_damage(validity: &Validity) -> bool {
    let said = validity.reason();
    said.starts_with(PREFIX) || said.contains(&format!("{BETWEEN}{PREFIX}"))
}

/// Damage is over only when every block was seen good.
fn healed(now: &Validity, found: &Assessment) -> Validity {
    match now {
        Validity::Invalid(said) if said.starts_with(PREFIX) && found.unseen == 0 => Validity::Valid,
        Validity::Invalid(said) if BadSectors::parse(said).is_some() && found.unseen == 0 => {
            Validity::Invalid(without_damage(said).to_owned())
        }
        Validity::Incomplete(said) if found.unseen == 0 => Validity::Incomplete(without_damage(said).to_owned()),
        _ => now.clone(),
    }
}

fn without_damage(said: &str) -> &str {
    said.rfind(&format!("{BETWEEN}{PREFIX}")).map_or(said, |at| &said[..at])
}

fn reason(found: &Assessment) -> String {
    let first = found.ranges.first();
    let place = first.map(|range| format!(", the first of them at offset {}: {}", range.offset, range.reason));
    let mut text = format!("{PREFIX}{} bytes cannot be read{}", found.lost_bytes, place.unwrap_or_default());
    text.truncate(text.floor_char_boundary(REASON_MAX_BYTES / 2));
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::scrub::report::LostRange;

    fn lost(bytes: u64) -> Assessment {
        let ranges = vec![LostRange { offset: 4096, length: bytes, reason: "a bit flipped".to_owned() }];
        Assessment { unseen: 0, lost_bytes: bytes, ranges }
    }

    #[test]
    fn damage_is_marked_once_and_taken_back_when_all_was_seen() {
        let (good, unseen) = (Assessment::default(), Assessment { unseen: 3, ..Assessment::default() });
        let marked = remark(&Validity::Valid, &lost(512)).unwrap();
        let Validity::Invalid(reason) = &marked else { panic!("{marked:?}") };
        assert_eq!(reason, "damage: 512 bytes cannot be read, the first of them at offset 4096: a bit flipped");
        assert_eq!(remark(&marked, &lost(512)), None);
        assert!(remark(&marked, &lost(1024)).is_some());
        assert_eq!(remark(&marked, &unseen), None);
        assert_eq!(remark(&marked, &good), Some(Validity::Valid));
        assert_eq!(remark(&Validity::Valid, &good), None);
    }

    #[test]
    fn what_people_and_writers_said_stays() {
        let by_hand = Validity::Invalid("I do not trust it".to_owned());
        assert_eq!((remark(&by_hand, &lost(1)), remark(&by_hand, &Assessment::default())), (None, None));
        let lacking = Validity::Invalid("the source could not be read at offset 0 (512 bytes)".to_owned());
        let both = remark(&lacking, &lost(512)).unwrap();
        assert!(both.reason().contains("offset 0 (512 bytes); damage: 512") && speaks_of_damage(&both), "{both}");
        assert_eq!(remark(&both, &lost(512)), None);
        assert_eq!(remark(&both, &Assessment { unseen: 3, ..Assessment::default() }), None);
        assert_eq!(remark(&both, &Assessment::default()), Some(lacking.clone()));
        assert_eq!(remark(&lacking, &Assessment::default()), None);
        let incomplete = Validity::Incomplete("cp was killed".to_owned());
        let both = remark(&incomplete, &lost(512)).unwrap();
        assert!(!both.is_complete() && both.reason().starts_with("cp was killed; damage: 512"), "{both}");
        assert_eq!(remark(&both, &lost(512)), None);
        assert_eq!(remark(&both, &Assessment::default()), Some(incomplete.clone()));
        assert_eq!(remark(&incomplete, &Assessment::default()), None);
    }
}
