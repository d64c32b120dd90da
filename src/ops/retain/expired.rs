//! What may go, and why the rest stays.
//!
//! A version with an expiry goes when that has passed, and not before: keep rules do not touch it. A version without one goes when the
//! keep rules of its name have no use for it; without such rules it stays for ever. Rules thin out good versions only: damaged
//! ones may heal, incomplete ones are for people to decide, protected ones stay.
//!
//! **The newest good version of a name stays**, whatever schedules and rules say: of a machine that is no longer backed up there
//! must be something left after a year. Where the newest that counts for schedules is another, since it lacks sectors that its source
//! could not read, both stay. Only an expiry that a person chose takes it: one on a version that carries no
//! schedule's tag.

use crate::ops::retain::keep::Kept;
use crate::ops::retain::{KeepRules, Made, Policy, Standing};
use crate::words::stamp::Stamp;
use std::fmt;

/// What becomes of a version, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may go.
    Goes(Cause),
    /// It would go, were it not the newest good one.
    Newest(Cause),
    /// It would go, were it not protected.
    Protected(Cause),
    /// It stays.
    Stays(Cause),
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It expired then, or will.
    Expire(Stamp),
    /// What the keep rules say.
    Rules(Kept),
    /// It has no expiry, and its name no keep rules.
    NoRule,
    /// It has no expiry, and keep rules do not judge what lacks sectors of its source.
    Lacking,
    /// It has no expiry, and keep rules do not judge what is damaged.
    Damaged,
    /// It has no expiry, and keep rules do not judge what is incomplete.
    Incomplete,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expire(at) => write!(f, "expire is {at}"),
            Self::Rules(Kept::Latest) => f.write_str("it is one of the latest"),
            Self::Rules(Kept::OldestOf(unit, _)) => write!(f, "it is the oldest of its {}", unit.one()),
            Self::Rules(Kept::NotOldestOf(unit, _)) => {
                write!(f, "an older version of its {} is kept", unit.one())
            }
            Self::Rules(Kept::TooOld) => f.write_str("it is older than the keep rules reach"),
            Self::Rules(Kept::FromTheFuture) => f.write_str("its date lies in the future"),
            Self::NoRule => f.write_str("it has no expiry"),
            Self::Lacking => f.write_str("it lacks sectors that could not be read, and has no expiry"),
            Self::Damaged => f.write_str("it is damaged and has no expiry"),
            Self::Incomplete => f.write_str("it is incomplete and has no expiry"),
        }
    }
}

/// What becomes of each of `versions`, which are all of one name, in their order. `keep` are its keep rules.
///
/// Applied again to those that stay, nothing goes.
pub fn judge(versions: &[Made], keep: Option<&KeepRules>, policy: &Policy, now: Stamp) -> Vec<Fate> {
    let newest = newest(versions);
    let thinned: Vec<&Made> = versions.iter().filter(|made| is_thinned(made)).collect();
    let mut verdicts = keep.map(|keep| keep.judge(&thinned, now, &policy.zone).into_iter());
    let mut fates = Vec::with_capacity(versions.len());
    for (at, made) in versions.iter().enumerate() {
        let (goes, cause) = match (made.expire, made.standing) {
            (Some(expire), _) => (expire <= now, Cause::Expire(expire)),
            (None, Standing::Lacking) => (false, Cause::Lacking),
            (None, Standing::Damaged) => (false, Cause::Damaged),
            (None, Standing::Incomplete) => (false, Cause::Incomplete),
            (None, Standing::Good) => match verdicts.as_mut().filter(|_| is_thinned(made)).and_then(Iterator::next) {
                Some(kept) => (!kept.stays(), Cause::Rules(kept)),
                None => (false, Cause::NoRule),
            },
        };
        let chosen = made.expire.is_some() && !made.tags.iter().any(|tag| policy.is_schedule(tag));
        fates.push(match goes {
            false => Fate::Stays(cause),
            true if made.protected => Fate::Protected(cause),
            true if newest.contains(&Some(at)) && !chosen => Fate::Newest(cause),
            true => Fate::Goes(cause),
        });
    }
    fates
}

/// Whether keep rules judge it.
fn is_thinned(made: &Made) -> bool {
    made.standing == Standing::Good && made.expire.is_none() && !made.protected
}

/// The newest good version and the newest that counts for schedules, mostly the same; when none counts, the newest complete one.
pub(super) fn newest(versions: &[Made]) -> [Option<usize>; 2] {
    let newest_of = |is: fn(Standing) -> bool| {
        let of = versions.iter().enumerate().filter(|(_, made)| is(made.standing));
        of.max_by_key(|(_, made)| (made.created, made.uid)).map(|(at, _)| at)
    };
    let counting = newest_of(Standing::counts).or_else(|| newest_of(|standing| standing == Standing::Damaged));
    [newest_of(|standing| standing == Standing::Good), counting]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::retain::made::samples::{at, made};
    use proptest::prelude::*;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text, Stamp::from_millis(0)).unwrap()
    }

    fn expiring(created: &str, expire: &str, tags: &[&str]) -> Made {
        Made { expire: Some(stamp(expire)), ..made(created, tags) }
    }

    #[test]
    fn an_expiry_decides_alone_and_the_newest_needs_one_that_was_chosen() {
        let policy = Policy::default();
        let now = stamp("2026-11-22T12:00:00Z");
        let keep: KeepRules = "days3".parse().unwrap();
        let past = Cause::Expire(stamp("2026-11-20"));
        let scheduled = expiring("2026-11-10T12:00:00Z", "2026-11-20", &["daily"]);
        let chosen = expiring("2026-11-10T12:00:00Z", "2026-11-20", &["mine"]);
        let plain = made("2026-11-01T12:00:00Z", &[]);
        let future = expiring("2026-11-01T12:00:00Z", "2026-12-01", &[]);
        let protected = Made { protected: true, ..scheduled.clone() };
        let damaged = Made { standing: Standing::Damaged, ..made("2026-11-21T12:00:00Z", &["daily"]) };
        let incomplete = Made { standing: Standing::Incomplete, ..made("2026-11-21T12:00:00Z", &[]) };
        let fresh = made("2026-11-22T00:00:00Z", &[]);
        let earlier = expiring("2026-11-09T12:00:00Z", "2026-11-20", &["daily"]);
        let lacking =
            Made { standing: Standing::Lacking, ..expiring("2026-11-11T12:00:00Z", "2026-11-20", &["daily"]) };
        let lacking_for_ever = Made { expire: None, ..lacking.clone() };
        let one = |versions: &[&Made], keep: Option<&KeepRules>| {
            let versions: Vec<Made> = versions.iter().map(|made| (*made).clone()).collect();
            judge(&versions, keep, &policy, now)[0]
        };
        for (versions, rules, expected) in [
            (&[&scheduled, &fresh][..], None, Fate::Goes(past)),
            (&[&scheduled], None, Fate::Newest(past)),
            // What is newer is no good: the last good one stays.
            (&[&scheduled, &damaged, &incomplete], None, Fate::Newest(past)),
            (&[&chosen], None, Fate::Goes(past)),
            // What is newer lacks sectors: both are the last of their kind.
            (&[&scheduled, &lacking], None, Fate::Newest(past)),
            (&[&lacking, &scheduled], None, Fate::Newest(past)),
            (&[&lacking, &earlier, &scheduled], None, Fate::Newest(past)),
            (&[&earlier, &lacking, &fresh], None, Fate::Goes(past)),
            (&[&lacking, &fresh], None, Fate::Goes(past)),
            (&[&lacking_for_ever, &fresh], Some(&keep), Fate::Stays(Cause::Lacking)),
            (&[&protected, &fresh], None, Fate::Protected(past)),
            (&[&future, &fresh], Some(&keep), Fate::Stays(Cause::Expire(stamp("2026-12-01")))),
            (&[&plain, &fresh], None, Fate::Stays(Cause::NoRule)),
            (&[&plain, &fresh], Some(&keep), Fate::Goes(Cause::Rules(Kept::TooOld))),
            (&[&plain], Some(&keep), Fate::Newest(Cause::Rules(Kept::TooOld))),
            (&[&damaged, &fresh], Some(&keep), Fate::Stays(Cause::Damaged)),
            (&[&incomplete, &fresh], Some(&keep), Fate::Stays(Cause::Incomplete)),
        ] {
            assert_eq!(one(versions, rules), expected, "{versions:?}");
        }
    }

    fn any_made() -> impl Strategy<Value = Made> {
        let standing = prop_oneof![
            6 => Just(Standing::Good), 1 => Just(Standing::Lacking), 1 => Just(Standing::Damaged), 1 => Just(Standing::Incomplete)
        ];
        let expire = proptest::option::of(-400_000_000..400_000_000i64);
        let tag = prop_oneof![Just(None), Just(Some("daily")), Just(Some("mine"))];
        (0..200i64, standing, expire, tag, proptest::bool::weighted(0.1)).prop_map(
            |(age, standing, expire, tag, protected)| {
                let base = Stamp::from_millis(1_795_372_262_123);
                let tags: Vec<&str> = tag.into_iter().collect();
                let expire = expire.map(|ms| base.plus_millis(ms));
                Made { standing, expire, protected, ..at(base.plus_millis(-age * 5_000_000 + 20_000_000), &tags) }
            },
        )
    }

    proptest! {
        /// Pruning twice is pruning once, protected versions stay, and of a name with a good version one is left unless a person
        /// let it expire.
        #[test]
        fn pruning_again_changes_nothing(
            versions in proptest::collection::vec(any_made(), 1..60),
            rules in prop_oneof![Just(None), Just(Some("latest2,hours12,days3")), Just(Some("weeks1,months2")), Just(Some("years1"))],
        ) {
            let (policy, now) = (Policy::default(), Stamp::from_millis(1_795_372_262_123));
            let rules: Option<KeepRules> = rules.map(|rules: &str| rules.parse().unwrap());
            let fates = judge(&versions, rules.as_ref(), &policy, now);
            let left: Vec<Made> = versions
                .iter()
                .zip(&fates)
                .filter(|(_, fate)| !matches!(fate, Fate::Goes(_)))
                .map(|(made, _)| made.clone())
                .collect();
            prop_assert!(judge(&left, rules.as_ref(), &policy, now).iter().all(|fate| !matches!(fate, Fate::Goes(_))));
            for (made, fate) in versions.iter().zip(&fates) {
                prop_assert!(!made.protected || !matches!(fate, Fate::Goes(_)));
            }
            let good = |made: &&Made| made.standing == Standing::Good;
            let newest = versions.iter().filter(good).max_by_key(|made| (made.created, made.uid));
            if let Some(newest) = newest {
                let chosen = newest.expire.is_some_and(|at| at <= now) && !newest.tags.contains("daily");
                prop_assert!(chosen || left.contains(newest));
            }
        }
    }
}
