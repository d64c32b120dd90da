//! Drafts against a plain vector of bytes.

use crate::image::{DraftImage, ImageReader, Settled};
use crate::repo::testing::{TestRepository, create, small};
use crate::words::monitor::Counter;
use crate::words::record::{BlockKind, ImageRef};
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

#[test]
fn writers_that_name_their_blocks_lose_nothing_to_settles_and_other_writers() {
    const EACH: u64 = 8;
    let world = create(&small());
    let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), None);
    // Each writer has its own blocks, and what it does to them comes in order. Others settle meanwhile.
    let models: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let write = |writer: u64| {
            let draft = &draft;
            move || {
                let (from, mut model) = (writer * EACH * BLOCK, vec![0; (EACH * BLOCK) as usize]);
                for step in 0..300u64 {
                    let at = (step * 5 % (EACH - 2)) * BLOCK;
                    let len = (BLOCK * (1 + step % 3)) as usize;
                    match step % 7 {
                        // Partly, whole, and as a hole: each replaces what is in flight.
                        0 => {
                            draft.write_at(from + at + 9, &[3; 700]).unwrap();
                            model[at as usize + 9..][..700].fill(3);
                        }
                        1 => {
                            draft.punch(from + at, BLOCK).unwrap();
                            model[at as usize..][..BLOCK as usize].fill(0);
                        }
                        // Of few values, so that blocks are new, pending, known and zero.
                        _ => {
                            let value = (step / 3 % 5) as u8;
                            let mut data = vec![value; len];
                            if value > 2 {
                                data[1] = step as u8;
                            }
                            draft.write_named(from + at, &data).unwrap();
                            model[at as usize..][..len].copy_from_slice(&data);
                        }
                    }
                }
                model
            }
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(write(writer))).collect();
        for _ in 0..20 {
            draft.settle().unwrap();
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let mut model = models.concat();
    model.truncate(draft.size_bytes() as usize);
    check(&world, &draft.settle().unwrap(), &model);
}

#[test]
fn a_block_that_is_damaged_is_stored_anew_by_who_names_it() {
    let world = create(&small());
    let block = vec![7; BLOCK as usize];
    let write = |base: Option<ImageRef>| {
        let draft = DraftImage::new(Arc::clone(&world.repo), ImageRef::empty(world.repo.block_size()), base);
        draft.write_named(0, &block).unwrap();
        draft.settle().unwrap()
    };
    let first = write(None);
    let id = world.repo.data_id(&block);
    let stored = || world.tally.get(Counter::BlocksStored);
    let before = stored();
    write(Some(first.image));
    write(None);
    assert_eq!(stored(), before, "while it is sound it is not");
    let pack = world.repo.catalog().locations(&id).unwrap()[0].pack;
    world.repo.settle_damage(pack, BlockKind::Data, Some("flipped"), &[id].into()).unwrap();
    write(Some(first.image));
    assert_eq!(stored(), before + 1, "the base has it, and it is bad");
    write(None);
    assert_eq!(stored(), before + 1, "the new copy is sound");
}
