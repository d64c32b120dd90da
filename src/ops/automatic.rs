//! Automatic tags: what a new version is labelled with, and when.
//!
//! A command knows that its source was read to the end, and publishes its version with its labels. A version made through the mount
//! waits until its writer is gone or a minute has passed: `cp` may still say that it failed. Meanwhile a note in the catalog
//! says that it waits. It is durable before the writer is told that its copy is safe, so a daemon that is killed loses no label:
//! the next one, or the next command that asks what is due, finds the note.
//!
//! Labels are decided for the moment of publication, whenever that is done, and by the versions before it; so they are the same whoever
//! decides. What a person has said meanwhile stands: whoever sets or takes tags decides about tags and expiry, whoever sets an expiry
//! about that alone. Otherwise an expiry would take the tags away, and with them the proof that the schedule was met.

use crate::ops::listing::history;
use crate::ops::retain::due::{self, Labels, Moment};
use crate::ops::retain::{Made, Policy};
use crate::repo::{RepoError, Repository};
use crate::words::attribute::AttributeChange;
use crate::words::ids::Uid;
use crate::words::name::Name;
use crate::words::stamp::Stamp;

/// How long a version waits for a writer of which nothing is heard.
pub const PATIENCE_MS: i64 = 60_000;

const NOTES: &str = "unlabelled/";

/// A version that waits for its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Which.
    pub uid: Uid,
    /// When it was published by this host's clock: `created` may have been moved behind a version from the future.
    pub at: Stamp,
    /// Whether its labels are being written: what is found of them then is no person's doing.
    pub begun: bool,
}

impl Note {
    /// For a version published just now.
    pub const fn new(uid: Uid, at: Stamp) -> Self {
        Self { uid, at, begun: false }
    }

    fn encode(&self) -> [u8; 9] {
        let mut bytes = [u8::from(self.begun); 9];
        bytes[..8].copy_from_slice(&self.at.millis().to_be_bytes());
        bytes
    }

    fn decode(key: &str, bytes: &[u8]) -> Option<Self> {
        let (at, begun) = bytes.split_first_chunk()?;
        Some(Self {
            uid: key.strip_prefix(NOTES)?.parse().ok()?,
            at: Stamp::from_millis(i64::from_be_bytes(*at)),
            begun: begun == [1],
        })
    }
}

fn key(uid: Uid) -> String {
    format!("{NOTES}{uid}")
}

/// What a version of a name is labelled with when it is made now, after the versions that are there.
///
/// # Errors
/// When the catalog fails.
pub fn labels(repo: &Repository, policy: &Policy, name: &Name) -> Result<Labels, RepoError> {
    labels_as_of(repo, policy, name, |versions| Moment::after(versions, repo.clock().now()), |_| true)
}

fn labels_as_of(
    repo: &Repository,
    policy: &Policy,
    name: &Name,
    moment: impl FnOnce(&[Made]) -> Moment,
    counts: impl Fn(&Made) -> bool,
) -> Result<Labels, RepoError> {
    let schedules = policy.schedules_of(name);
    if schedules.is_empty() {
        return Ok(Labels::default());
    }
    let mut versions = history(repo, name)?;
    versions.retain(counts);
    Ok(due::labels(&schedules, &versions, moment(&versions), &policy.zone))
}

/// Notes durably that a version waits for its labels. Does nothing when its name has no schedules.
///
/// # Errors
/// When the catalog fails.
pub fn note(repo: &Repository, policy: &Policy, name: &Name, note: Note) -> Result<bool, RepoError> {
    if policy.schedules_of(name).is_empty() {
        return Ok(false);
    }
    repo.catalog().set_meta(&key(note.uid), &note.encode())?;
    Ok(true)
}

/// Every version that waits on this host, in order of uid, that is of time.
///
/// # Errors
/// When the catalog fails.
pub fn notes(repo: &Repository) -> Result<Vec<Note>, RepoError> {
    Ok(repo.catalog().metas(NOTES)?.iter().filter_map(|(key, bytes)| Note::decode(key, bytes)).collect())
}

/// Labels a version that has waited, and takes its note away. A version that was deleted, marked incomplete, or whose tags somebody
/// changed meanwhile is left as it is; an expiry that somebody set stands beside the tags.
///
/// # Errors
/// When target or catalog fail. The note stays, and it can be repeated.
pub fn label(repo: &Repository, policy: &Policy, note: Note) -> Result<Labels, RepoError> {
    let mut given = Labels::default();
    let said = Said::of(repo, note.uid)?;
    if let Some(version) = repo.catalog().version_summary(note.uid)?
        && version.attributes.validity.is_complete()
        && (note.begun || !said.tags)
    {
        // What is due is due by the clock, as `due` says it; the expiry counts from whichever is later.
        let moment = Moment { now: note.at.min(version.created), created: note.at.max(version.created) };
        let before = |made: &Made| (made.created, made.uid) < (version.created, note.uid);
        given = labels_as_of(repo, policy, &version.attributes.name, |_| moment, before)?;
        // One that this began to write is there already, and one that a person set stands.
        given.expire = if said.expire { version.attributes.expire } else { given.expire };
        let tags = given.tags.iter().cloned().map(AttributeChange::AddTag);
        let expire = given.expire.filter(|_| !said.expire).map(|at| AttributeChange::Expire(Some(at)));
        let changes: Vec<_> = tags.chain(expire).collect();
        if !changes.is_empty() {
            // Whoever finds this cut short goes on with it.
            repo.catalog().set_meta(&key(note.uid), &Note { begun: true, ..note }.encode())?;
            repo.change_attributes(note.uid, &changes)?;
        }
    }
    repo.catalog().remove_meta(&key(note.uid))?;
    Ok(given)
}

/// What anybody has spoken of since a version was made.
struct Said {
    tags: bool,
    expire: bool,
}

impl Said {
    fn of(repo: &Repository, uid: Uid) -> Result<Self, RepoError> {
        let mut said = Self { tags: false, expire: false };
        for entry in repo.catalog().entries(uid)? {
            match entry.change {
                AttributeChange::AddTag(_) | AttributeChange::RemoveTag(_) => said.tags = true,
                AttributeChange::Expire(_) => said.expire = true,
                _ => {}
            }
        }
        Ok(said)
    }
}

/// Labels every version of this host that has waited long enough: what a daemon that is gone left behind.
///
/// # Errors
/// As [`label`].
pub fn label_overdue(repo: &Repository, policy: &Policy) -> Result<(), RepoError> {
    let now = repo.clock().now();
    for waiting in notes(repo)? {
        let waited_ms = now.millis() - waiting.at.millis();
        // A clock that was put back makes nobody wait for ever.
        if !(0..PATIENCE_MS).contains(&waited_ms) {
            label(repo, policy, waiting)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Settled;
    use crate::ops::commit::{Publication, publish_version};
    use crate::ops::retain::NameRule;
    use crate::repo::testing::{TestRepository, create, small};
    use crate::words::attribute::Validity;

    use crate::words::record::{ImageRef, Stats};

    fn policy() -> Policy {
        let schedules = vec!["daily".to_owned(), "weekly".to_owned()];
        Policy { names: vec![NameRule { pattern: "vm*".into(), schedules, keep: None }], ..Policy::default() }
    }

    fn publish(test: &TestRepository, name: &str) -> Note {
        let settled = Settled { image: ImageRef::empty(test.repo.block_size()), changes: 0, stats: Stats::default() };
        let publication = Publication::new(crate::repo::testing::attributes(name));
        let record = publish_version(&test.repo, &settled, publication).unwrap();
        Note::new(record.uid, record.created)
    }

    fn note_again(test: &TestRepository, note: Note) {
        test.repo.catalog().set_meta(&key(note.uid), &note.encode()).unwrap();
    }

    fn tags(test: &TestRepository, note: Note) -> Vec<String> {
        test.repo.version(note.uid).unwrap().attributes.tags.into_iter().collect()
    }

    #[test]
    fn waiting_versions_are_labelled_as_of_their_own_moment() {
        let (test, policy) = (create(&small()), policy());
        let name = Name::new("vm1").unwrap();
        let (first, second) = (publish(&test, "vm1"), publish(&test, "vm1"));
        assert!(note(&test.repo, &policy, &name, first).unwrap() && note(&test.repo, &policy, &name, second).unwrap());
        assert!(!note(&test.repo, &policy, &Name::new("other").unwrap(), first).unwrap());
        assert_eq!(notes(&test.repo).unwrap(), [first, second]);
        label_overdue(&test.repo, &policy).unwrap();
        assert_eq!(notes(&test.repo).unwrap().len(), 2, "it is too early for either");
        // Cut short after its first tag.
        let begun = Note { begun: true, ..first };
        note_again(&test, begun);
        test.repo.change_attributes(first.uid, &[AttributeChange::AddTag("daily".into())]).unwrap();
        assert_eq!(notes(&test.repo).unwrap()[0], begun);
        label(&test.repo, &policy, begun).unwrap();
        label(&test.repo, &policy, second).unwrap();
        assert_eq!(tags(&test, first), ["daily", "weekly"]);
        assert_eq!(tags(&test, second), [""; 0]);
        assert_eq!(notes(&test.repo).unwrap(), []);
        let expire = test.repo.version(first.uid).unwrap().attributes.expire.unwrap();
        assert_eq!(expire.millis(), (first.at.millis() + 6 * 7 * 86_400_000) / 1000 * 1000);
    }

    #[test]
    fn what_a_person_said_stands_and_what_is_incomplete_counts_for_nothing() {
        let (test, policy) = (create(&small()), policy());
        let failed = publish(&test, "vm1");
        test.repo.set_validity(failed.uid, Validity::Incomplete("cp failed".into())).unwrap();
        assert_eq!(label(&test.repo, &policy, failed).unwrap(), Labels::default());
        let mine = publish(&test, "vm1");
        test.repo.change_attributes(mine.uid, &[AttributeChange::AddTag("golden".into())]).unwrap();
        assert_eq!(label(&test.repo, &policy, mine).unwrap(), Labels::default());
        assert_eq!((tags(&test, failed), tags(&test, mine)), (vec![], vec!["golden".to_owned()]));
        // Neither stands for a daily backup.
        assert_eq!(labels(&test.repo, &policy, &Name::new("vm1").unwrap()).unwrap().tags.len(), 2);
        assert_eq!(labels(&test.repo, &policy, &Name::new("other").unwrap()).unwrap(), Labels::default());
        // One whose version is gone waits no longer; one left by a daemon that died is labelled by whoever comes next.
        let gone = publish(&test, "vm2");
        test.repo.remove_version(gone.uid).unwrap();
        let left = publish(&test, "vm2");
        for waiting in [gone, left] {
            let at = waiting.at.plus_millis(-PATIENCE_MS);
            note(&test.repo, &policy, &Name::new("vm2").unwrap(), Note { at, ..waiting }).unwrap();
        }
        label_overdue(&test.repo, &policy).unwrap();
        assert_eq!((tags(&test, left).len(), notes(&test.repo).unwrap().len()), (2, 0));
    }

    #[test]
    fn who_sets_an_expiry_takes_no_tags_away() {
        let (test, policy) = (create(&small()), policy());
        let expire_of = |note: Note| test.repo.version(note.uid).unwrap().attributes.expire;
        let mine = test.repo.clock().now().plus_millis(30 * 86_400_000);
        let mine = mine.plus_millis(-mine.millis().rem_euclid(1000));
        for (name, said) in [("vm1", Some(mine)), ("vm2", None)] {
            let version = publish(&test, name);
            test.repo.change_attributes(version.uid, &[AttributeChange::Expire(said)]).unwrap();
            label(&test.repo, &policy, version).unwrap();
            assert_eq!((tags(&test, version).len(), expire_of(version)), (2, said), "{name}");
            // Cut short after its first tag, and taken up again.
            let second = publish(&test, &format!("{name}-cut"));
            test.repo.change_attributes(second.uid, &[AttributeChange::Expire(said)]).unwrap();
            test.repo.change_attributes(second.uid, &[AttributeChange::AddTag("daily".into())]).unwrap();
            label(&test.repo, &policy, Note { begun: true, ..second }).unwrap();
            assert_eq!((tags(&test, second).len(), expire_of(second)), (2, said), "{name}");
            // The schedules are met.
            assert_eq!(labels(&test.repo, &policy, &Name::new(name).unwrap()).unwrap(), Labels::default());
        }
    }

    #[test]
    fn an_expiry_counts_from_the_later_of_clock_and_date() {
        const DAY_MS: i64 = 86_400_000;
        let policy = policy();
        // By how many days the date of the version before lies ahead of the clock, and how many days later than now the expiry may be.
        for (ahead_days, from_days) in [(-3, 0), (0, 0), (2, 2), (5 * 365, 5 * 365)] {
            let test = create(&small());
            let now = test.repo.clock().now();
            let earlier = now.plus_millis(ahead_days * DAY_MS);
            let settled =
                Settled { image: ImageRef::empty(test.repo.block_size()), changes: 0, stats: Stats::default() };
            let publication =
                Publication { created: Some(earlier), ..Publication::new(crate::repo::testing::attributes("vm1")) };
            publish_version(&test.repo, &settled, publication).unwrap();
            let command = labels(&test.repo, &policy, &Name::new("vm1").unwrap()).unwrap();
            let second = publish(&test, "vm1");
            let second = Note { at: test.repo.clock().now(), ..second };
            let mount = label(&test.repo, &policy, second).unwrap();
            for given in [command, mount] {
                let days = (given.expire.unwrap().millis() - now.millis() + DAY_MS / 2).div_euclid(DAY_MS);
                assert_eq!((given.tags.len(), days), (2, from_days + 6 * 7), "{ahead_days}");
            }
        }
    }
}
