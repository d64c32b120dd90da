//! Which packs are to go, and why: a pure function of what is known about all of them. A pack whose blocks are partly needed goes
//! when copying those is worth it; deleting is for others to do safely.

use crate::words::ids::PackId;
use crate::words::record::BlockKind;
use crate::words::stamp::Stamp;

/// A pack goes when at least this share of it is not needed any more.
pub const DEAD_PERCENT_DEFAULT: u8 = 50;
/// So many small packs of a kind are made into few large ones.
const SMALL_PACKS_MIN: usize = 16;
/// A pack is small below this part of what packs are closed at.
const SMALL_DIVISOR: u64 = 4;

/// What is known of a pack. Bytes are those on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackFacts {
    /// The pack.
    pub pack: PackId,
    /// Data or map.
    pub kind: BlockKind,
    /// Of the whole pack.
    pub size_bytes: u64,
    /// Blocks in it.
    pub blocks: u32,
    /// Of frames of blocks that are needed and that no other pack holds for everyone (the lowest of several packs does).
    pub live_bytes: u64,
    /// How many blocks those are.
    pub live_blocks: u32,
    /// Whether anything ever needed it.
    pub standing: Standing,
}

/// Whether anything ever needed a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A record refers to something in it, or did.
    Referenced,
    /// No record is known that ever did, since this moment at least: a backup that is under way, or one that was never finished.
    Unfinished(Stamp),
    /// Likewise, and no index fragment names it.
    Unindexed(Stamp),
}

/// What there is to decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A pack goes when at least this share of it, in percent, is not needed.
    pub dead_percent: u8,
    /// Bytes at which packs are closed.
    pub pack_bytes: u64,
    /// What unfinished backups stored goes after this.
    pub unfinished_ms: i64,
    /// The moment.
    pub now: Stamp,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It goes.
    Condemn(Reason),
    /// It stays.
    Keep(Kept),
}

/// Why a pack goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing in it is needed any more.
    Dead,
    /// An unfinished backup stored it, long ago.
    Abandoned,
    /// Much of it is not needed any more; the rest is copied.
    Sparse,
    /// It is one of many small ones.
    Small,
}

/// Why a pack stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Enough of it is needed.
    Needed {
        /// Bytes that are not.
        dead_bytes: u64,
    },
    /// A backup that is under way, or that may be repeated, stored it.
    Unfinished {
        /// When it may go.
        until: Stamp,
    },
}

/// Bytes of a pack that hold nothing: header, footer and trailer, roughly.
fn overhead_bytes(pack: &PackFacts) -> u64 {
    u64::from(pack.blocks) * 44 + 200
}

fn dead_bytes(pack: &PackFacts) -> u64 {
    pack.size_bytes.saturating_sub(pack.live_bytes).saturating_sub(overhead_bytes(pack))
}

/// Decides about each pack, in the order given.
pub fn choose(packs: &[PackFacts], policy: &Policy) -> Vec<Choice> {
    let mut choices: Vec<Choice> = packs.iter().map(|pack| alone(pack, policy)).collect();
    for kind in [BlockKind::Data, BlockKind::Map] {
        let is_small = |(pack, choice): &(&PackFacts, &mut Choice)| {
            let stays = matches!(choice, Choice::Keep(Kept::Needed { .. }));
            stays && pack.kind == kind && pack.size_bytes < policy.pack_bytes / SMALL_DIVISOR
        };
        let small: Vec<_> = packs.iter().zip(&mut choices).filter(is_small).collect();
        if small.len() >= SMALL_PACKS_MIN {
            small.into_iter().for_each(|(_, choice)| *choice = Choice::Condemn(Reason::Small));
        }
    }
    choices
}

fn alone(pack: &PackFacts, policy: &Policy) -> Choice {
    match pack.standing {
        Standing::Unfinished(since) | Standing::Unindexed(since) => {
            let until = since.plus_millis(policy.unfinished_ms);
            if policy.now < until {
                Choice::Keep(Kept::Unfinished { until })
            } else {
                Choice::Condemn(Reason::Abandoned)
            }
        }
        Standing::Referenced if pack.live_blocks == 0 => Choice::Condemn(Reason::Dead),
        Standing::Referenced => {
            let dead_bytes = dead_bytes(pack);
            if dead_bytes * 100 >= pack.size_bytes * u64::from(policy.dead_percent.max(1)) {
                Choice::Condemn(Reason::Sparse)
            } else {
                Choice::Keep(Kept::Needed { dead_bytes })
            }
        }
    }
}

/// Cuts what is to go into rounds, each condemned, copied and deleted before the next begins, so that space comes back early and
/// little is copied twice after a crash. What costs nothing to delete comes first, then what gives most for what is copied.
pub fn rounds(mut going: Vec<PackFacts>, blocks_max: u64, copy_max_bytes: u64) -> Vec<Vec<PackId>> {
    going.sort_by_key(|pack| (pack.live_bytes * 1000 / pack.size_bytes.max(1), pack.pack));
    let mut rounds: Vec<Vec<PackId>> = Vec::new();
    let (mut blocks, mut copied) = (u64::MAX, 0);
    for pack in going {
        let next = (blocks.saturating_add(u64::from(pack.blocks)), copied + pack.live_bytes);
        if next.0 > blocks_max || next.1 > copy_max_bytes {
            rounds.push(Vec::new());
            (blocks, copied) = (u64::from(pack.blocks), pack.live_bytes);
        } else {
            (blocks, copied) = next;
        }
        if let Some(round) = rounds.last_mut() {
            round.push(pack.pack);
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const HOUR_MS: i64 = 3_600_000;
    const NOW: Stamp = Stamp::from_millis(1_795_372_262_123);
    const POLICY: Policy = Policy { dead_percent: 50, pack_bytes: 32 * MIB, unfinished_ms: 24 * HOUR_MS, now: NOW };

    fn pack(size_bytes: u64, live_bytes: u64) -> PackFacts {
        PackFacts {
            pack: PackId::from_bytes([1; 32]),
            kind: BlockKind::Data,
            size_bytes,
            blocks: 100,
            live_bytes,
            live_blocks: u32::from(live_bytes > 0),
            standing: Standing::Referenced,
        }
    }

    #[test]
    fn each_pack_by_itself() {
        let ago = |hours: i64| NOW.plus_millis(-hours * HOUR_MS);
        let standing = |standing| PackFacts { standing, ..pack(32 * MIB, 0) };
        let keeps = |since: Stamp| Choice::Keep(Kept::Unfinished { until: since.plus_millis(24 * HOUR_MS) });
        let needed = |dead_bytes| Choice::Keep(Kept::Needed { dead_bytes });
        let overhead = 100 * 44 + 200;
        for (facts, expected) in [
            (pack(32 * MIB, 0), Choice::Condemn(Reason::Dead)),
            (pack(32 * MIB, 1), Choice::Condemn(Reason::Sparse)),
            (pack(32 * MIB, 16 * MIB - overhead), Choice::Condemn(Reason::Sparse)),
            (pack(32 * MIB, 16 * MIB), needed(16 * MIB - overhead)),
            (pack(32 * MIB, 32 * MIB - overhead), needed(0)),
            (pack(32 * MIB, 32 * MIB), needed(0)),
            (standing(Standing::Unfinished(NOW)), keeps(NOW)),
            (standing(Standing::Unfinished(ago(23))), keeps(ago(23))),
            (standing(Standing::Unfinished(ago(24))), Choice::Condemn(Reason::Abandoned)),
            (standing(Standing::Unindexed(ago(1))), keeps(ago(1))),
            (standing(Standing::Unindexed(ago(25))), Choice::Condemn(Reason::Abandoned)),
            // A clock that was put back keeps longer.
            (standing(Standing::Unfinished(ago(-5))), keeps(ago(-5))),
        ] {
            assert_eq!(choose(&[facts], &POLICY), [expected], "{facts:?}");
        }
    }

    #[test]
    fn small_packs_go_when_there_are_many_of_a_kind() {
        let map = PackFacts { kind: BlockKind::Map, ..pack(MIB, MIB) };
        let large = pack(8 * MIB, 8 * MIB);
        let unfinished = PackFacts { standing: Standing::Unfinished(NOW), ..pack(MIB, 0) };
        let few: Vec<_> = [vec![pack(MIB, MIB); 15], vec![map; 15], vec![large; 9], vec![unfinished; 9]].concat();
        assert!(choose(&few, &POLICY).iter().all(|choice| matches!(choice, Choice::Keep(_))));
        let many = [few, vec![map]].concat();
        let expect = |facts: &PackFacts| facts.kind == BlockKind::Map;
        for (facts, choice) in many.iter().zip(choose(&many, &POLICY)) {
            assert_eq!(choice == Choice::Condemn(Reason::Small), expect(facts), "{facts:?}");
        }
    }

    #[test]
    fn rounds_begin_with_what_is_free_and_have_an_end() {
        let named = |n: u8, live_bytes| PackFacts { pack: PackId::from_bytes([n; 32]), ..pack(32 * MIB, live_bytes) };
        let going = vec![named(1, 16 * MIB), named(2, 0), named(3, 8 * MIB), named(4, 0)];
        let ids = |rounds: Vec<Vec<PackId>>| -> Vec<Vec<u8>> {
            rounds.iter().map(|round| round.iter().map(|pack| pack.as_bytes()[0]).collect()).collect()
        };
        assert_eq!(ids(rounds(going.clone(), 1000, 24 * MIB)), [vec![2, 4, 3, 1]]);
        assert_eq!(ids(rounds(going.clone(), 1000, 20 * MIB)), [vec![2, 4, 3], vec![1]]);
        assert_eq!(ids(rounds(going.clone(), 250, 24 * MIB)), [vec![2, 4], vec![3, 1]]);
        assert_eq!(ids(rounds(going, 1, 1)), [vec![2], vec![4], vec![3], vec![1]]);
        assert!(rounds(Vec::new(), 1, 1).is_empty());
    }
}
