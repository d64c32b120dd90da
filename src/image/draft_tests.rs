//! Drafts against a plain vector of bytes.

use crate::image::{DraftImage, ImageReader, Settled};
use crate::repo::testing::{TestRepository, create, small};
use crate::words::monitor::Counter;
use crate::words::record::ImageRef;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    WriteNamed(u64, Vec<u8>),
    Punch(u64, u64),
    Truncate(u64),
    Read(u64, usize),
    Settle,
    Reopen,
    Graft(u64, u64, u64),
}

const BLOCK: u64 = 4096;
const SPAN: u64 = 40 * BLOCK;

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![1usize..10, 500usize..6000, Just(4096usize), 8000usize..40_000];
    let offset = prop_oneof![0..SPAN, (0..40u64).prop_map(|block| block * BLOCK)];
    let fill = prop_oneof![Just(0u8), 1u8..4];
    let fill2 = fill.clone();
    prop_oneof![
        6 => (offset.clone(), len.clone(), fill).prop_map(|(at, len, fill)| Op::Write(at, vec![fill; len])),
        4 => (offset.clone(), len.clone(), fill2).prop_map(|(at, len, fill)| Op::WriteNamed(at, vec![fill; len])),
        2 => (offset.clone(), 1u64..30_000).prop_map(|(at, len)| Op::Punch(at, len)),
        1 => (0..SPAN).prop_map(Op::Truncate),
        3 => (offset.clone(), len).prop_map(|(at, len)| Op::Read(at, len)),
        1 => Just(Op::Settle),
        1 => Just(Op::Reopen),
        1 => (0..20u64, 0..40u64, 1..20u64).prop_map(|(from, to, n)| Op::Graft(from * BLOCK, to * BLOCK, n * BLOCK)),
    ]
}

fn read_all(world: &TestRepository, settled: &Settled) -> Vec<u8> {
    let reader = ImageReader::new(Arc::clone(&world.repo), settled.image, "test");
    let mut bytes = vec![0; settled.image.size_bytes as usize];
    reader.read_at(0, &mut bytes).unwrap();
    bytes
}

fn check(world: &TestRepository, settled: &Settled, model: &[u8]) {
    assert_eq!(read_all(world, settled), model, "a settled image is what was written");
    let blocks = model.chunks(BLOCK as usize).filter(|block| block.iter().any(|byte| *byte != 0)).count() as u64;
    assert_eq!(settled.image.allocated_blocks, blocks, "zero blocks are holes, and they are counted right");
}

fn run(world: &TestRepository, ops: Vec<Op>) {
    let empty = ImageRef::empty(world.repo.block_size());
    let mut draft = DraftImage::new(Arc::clone(&world.repo), empty, None);
    let mut model: Vec<u8> = Vec::new();
    for op in ops {
        match op {
            Op::Write(at, ref data) | Op::WriteNamed(at, ref data) => {
                match op {
                    Op::Write(..) => draft.write_at(at, data),
                    _ => draft.write_named(at, data),
                }
                .unwrap();
                let (from, to) = (at as usize, at as usize + data.len());
                model.resize(model.len().max(to), 0);
                model[from..to].copy_from_slice(data);
            }
            Op::Punch(at, len) => {
                draft.punch(at, len).unwrap();
                let end = ((at + len) as usize).min(model.len());
                if (at as usize) < end {
                    model[at as usize..end].fill(0);
                }
            }
            Op::Truncate(size) => {
                draft.truncate(size).unwrap();
                model.resize(size as usize, 0);
            }
            Op::Read(at, len) => {
                let mut bytes = vec![9; len];
                let got = draft.read_at(at, &mut bytes).unwrap();
                let from = (at as usize).min(model.len());
                assert_eq!(&bytes[..got], &model[from..(from + len).min(model.len())]);
            }
            Op::Settle => check(world, &draft.settle().unwrap(), &model),
            Op::Reopen => {
                let settled = draft.settle().unwrap();
                draft = DraftImage::new(Arc::clone(&world.repo), settled.image, Some(settled.image));
            }
            Op::Graft(from, to, len) => {
                let settled = draft.settle().unwrap();
                let reader = ImageReader::new(Arc::clone(&world.repo), settled.image, "test");
                let len = len.min(model.len().saturating_sub(from as usize) as u64);
                let taken = draft.graft(&reader, from, to, len).unwrap() as usize;
                assert!(taken as u64 <= len);
                let source = model[from.min(model.len() as u64) as usize..][..taken].to_vec();
                model.resize(model.len().max(to as usize + taken), 0);
                if taken > 0 {
                    model[to as usize..to as usize + taken].copy_from_slice(&source);
                } else {
                    model.truncate(draft.size_bytes() as usize);
                }
            }
        }
        assert_eq!(draft.size_bytes(), model.len() as u64);
    }
    check(world, &draft.settle().unwrap(), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_draft_is_a_vector_of_bytes(ops in proptest::collection::vec(op(), 1..60)) {
        run(&create(&small()), ops);
    }
}

#[test]
fn equal_contents_have_equal_roots_and_cost_nothing() {
    let world = create(&small());
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let write = |base| {
        let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), base);
        for (part, at) in bytes.chunks(100_000).zip((0u64..).step_by(100_000)) {
            draft.write_at(at, part).unwrap();
        }
        draft.settle().unwrap()
    };
    let first = write(None);
    check(&world, &first, &bytes);
    let stored = world.tally.get(Counter::BlocksStored);
    let lookups = world.tally.get(Counter::IndexLookups);
    let second = write(Some(first.image));
    assert_eq!(second.image, first.image);
    assert_eq!(world.tally.get(Counter::BlocksStored), stored, "nothing is stored twice");
    assert!(second.stats.unchanged_bytes > bytes.len() as u64 - 8192, "every whole block was recognised by its place");
    assert!(world.tally.get(Counter::IndexLookups) - lookups < 10, "an unchanged block asks no index");
}

#[test]
fn a_small_change_in_a_huge_sparse_image_stores_a_path_of_nodes() {
    let world = create(&small());
    let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), None);
    draft.truncate(1 << 40).unwrap();
    draft.write_at((1 << 39) + 5, b"here").unwrap();
    let settled = draft.settle().unwrap();
    assert_eq!((settled.image.allocated_blocks, settled.image.depth().levels()), (1, 3));
    assert_eq!(draft.next_data(0).unwrap(), Some(1 << 39));
    assert_eq!(draft.next_hole(1 << 39).unwrap(), (1 << 39) + BLOCK);
    let reader = ImageReader::new(Arc::clone(&world.repo), settled.image, "test");
    assert_eq!(reader.next_data(0).unwrap(), Some(1 << 39));
    assert_eq!(reader.next_data((1 << 39) + BLOCK).unwrap(), None);
    assert_eq!(reader.next_hole(1 << 39).unwrap(), (1 << 39) + BLOCK);
    assert!(world.tally.get(Counter::BytesStored) < 4096);
    draft.truncate(0).unwrap();
    draft.truncate(1 << 30).unwrap();
    let empty = draft.settle().unwrap();
    assert!(empty.image.root.is_hole() && empty.image.allocated_blocks == 0);
}

#[test]
fn parallel_writers_and_settles_lose_nothing() {
    let world = create(&small());
    let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), None);
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let draft = &draft;
            scope.spawn(move || {
                // Pieces of different writers share blocks.
                for step in 0..500u64 {
                    let at = (step * 4 + writer) * 1000;
                    draft.write_at(at, &[(1 + writer as u8) * 10 + (step % 10) as u8; 1000]).unwrap();
                }
            });
        }
        for _ in 0..20 {
            draft.settle().unwrap();
        }
    });
    let bytes = read_all(&world, &draft.settle().unwrap());
    for (piece, at) in bytes.chunks(1000).zip(0u64..) {
        let (step, writer) = (at / 4, at % 4);
        assert!(piece.iter().all(|byte| *byte == (1 + writer as u8) * 10 + (step % 10) as u8), "piece {at}");
    }
}
