//! How fast and how large with a million blocks. Run it on purpose:
//! `cargo test --release --test catalog speed -- --ignored --nocapture`.

use crate::samples::{block, pack};
use backyfs::catalog::Catalog;
use backyfs::words::clock::SystemClock;
use backyfs::words::ids::FragmentId;
use std::time::Instant;

const BLOCKS: u64 = 1_000_000;
const BLOCKS_PER_PACK: u64 = 125;
const PACKS_PER_FRAGMENT: u64 = 8;

#[test]
#[ignore = "a measurement, takes a minute"]
fn a_million_blocks() {
    for per_call in [1, 100] {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path(), &SystemClock).unwrap();
        let packs: Vec<_> = (0..BLOCKS / BLOCKS_PER_PACK)
            .map(|at| pack(at, at * BLOCKS_PER_PACK..(at + 1) * BLOCKS_PER_PACK))
            .collect();
        let fragments: Vec<_> = packs
            .chunks(PACKS_PER_FRAGMENT as usize)
            .enumerate()
            .map(|(at, packs)| (FragmentId::from_bytes((at as u128).to_be_bytes()), packs.to_vec()))
            .collect();
        let start = Instant::now();
        for chunk in fragments.chunks(per_call) {
            catalog.absorb_fragments(chunk).unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        let (file, _) = catalog.size_bytes().unwrap();
        println!(
            "{per_call} fragments of 1000 blocks a call: absorb {:.0} blocks/s, {} calls of {:.1} ms, {:.1} bytes per block",
            BLOCKS as f64 / seconds,
            fragments.len().div_ceil(per_call),
            seconds * 1000.0 / (fragments.len() / per_call) as f64,
            file as f64 / BLOCKS as f64
        );
        let ids: Vec<_> = (0..200_000).map(|at| block(at * 7919 % (2 * BLOCKS))).collect();
        let rate = |seconds: f64| ids.len() as f64 / seconds;
        let start = Instant::now();
        let found = ids.iter().filter(|id| catalog.has_location(id).unwrap()).count();
        println!("has_location, one call each: {:.0}/s ({found} found)", rate(start.elapsed().as_secs_f64()));
        let start = Instant::now();
        let located: usize = ids.iter().map(|id| catalog.locations(id).unwrap().len()).sum();
        println!("locations, one call each: {:.0}/s", rate(start.elapsed().as_secs_f64()));
        assert_eq!(found, located);
        let start = Instant::now();
        let missing: usize = ids.chunks(1024).map(|ids| catalog.without_location(ids).unwrap().len()).sum();
        println!("without_location, 1024 a call: {:.0}/s", rate(start.elapsed().as_secs_f64()));
        assert_eq!(missing + found, ids.len());
        let start = Instant::now();
        catalog.set_meta("x", b"y").unwrap();
        println!("a durable commit: {:.2} ms", start.elapsed().as_secs_f64() * 1000.0);
        let start = Instant::now();
        catalog.set_verdict(backyfs::words::ids::Uid::NIL, backyfs::words::record::Verdict::Confirmed).unwrap();
        println!("a commit: {:.2} ms", start.elapsed().as_secs_f64() * 1000.0);
    }
}
