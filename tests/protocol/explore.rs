//! Visits every state that a model can reach. States are remembered by 64-bit fingerprints: among ten million states the chance
//! that two share one is below one in 300,000.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What is explored.
pub trait Model {
    /// One moment.
    type State: Clone + Hash;

    /// Where it begins.
    fn first(&self) -> Self::State;
    /// Everything that can happen next, with words for it.
    fn next(&self, state: &Self::State, out: &mut Vec<(String, Self::State)>);
    /// What is wrong with a state.
    fn fault(&self, state: &Self::State) -> Option<String>;
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing is wrong in any of so many states.
    Sound(usize),
    /// The fault, and how it came about.
    Broken(String, Vec<String>),
}

/// A fingerprint is a hash already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Fx, as in the Rust compiler, with a final mix (SplitMix64).
#[derive(Default)]
struct Mix(u64);

impl Mix {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let mut z = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut mix = Mix::default();
    state.hash(&mut mix);
    mix.finish()
}

/// A state on the way: the step that led there, in words, and the steps from it that were not taken yet.
type Opened<S> = (String, Vec<(String, S)>);

/// Depth first. Gives up, with a panic, beyond `limit` states.
pub fn explore<M: Model>(model: &M, limit: usize) -> Outcome {
    let mut seen: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    let first = model.first();
    seen.insert(fingerprint(&first));
    let mut stack: Vec<Opened<M::State>> = Vec::new();
    let mut next = Vec::new();
    model.next(&first, &mut next);
    stack.push(("the beginning".to_owned(), next));
    while let Some((_, waiting)) = stack.last_mut() {
        let Some((words, state)) = waiting.pop() else {
            stack.pop();
            continue;
        };
        if !seen.insert(fingerprint(&state)) {
            continue;
        }
        if let Some(fault) = model.fault(&state) {
            let mut way: Vec<String> = stack.into_iter().map(|(words, _)| words).collect();
            way.push(words);
            return Outcome::Broken(fault, way);
        }
        assert!(seen.len() <= limit, "more than {limit} states");
        let mut next = Vec::new();
        model.next(&state, &mut next);
        stack.push((words, next));
    }
    Outcome::Sound(seen.len())
}
