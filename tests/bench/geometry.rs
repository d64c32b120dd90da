//! Measures what block size, zstd level and pack size cost on real disk images; docs/decisions/0001-block-zstd-pack.md has a
//! run. `contrib/measure-geometry` makes the images and calls this as
//! `cargo bench --bench geometry -- [FIRST LATER...] [--reads FILE] [--packs DIR]`.
//!
//! The steps are those of a backup (zero check, HMAC-SHA-256, deduplication, zstd, XChaCha20-Poly1305), each timed with the CPU
//! clock of its thread, so other work on the machine disturbs little. LATER images are second versions of FIRST.
//! `--reads`: lines of `offset length` that a machine read while it booted. `--packs`: a directory on the disk to write to.

use anyhow::{Context, Result, bail};
use backyfs::format::layout;
use backyfs::target::{DirTarget, Target};
use backyfs::words::geometry::{BlockSize, FANOUT};
use backyfs::words::ids::{BlockId, PackId};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::collections::HashSet;
use std::fs::File;
use std::ops::AddAssign;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zstd::bulk::{Compressor, Decompressor};

const BLOCK_SIZES: [u64; 5] = [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];
const LEVELS: [i32; 3] = [-1, 1, 3];
/// What a frame adds to its ciphertext: header and tag.
const FRAME_BYTES: usize = 80 + 16;
/// What a block adds to the footer of its pack, and again to an index fragment.
const ENTRY_BYTES: u64 = 44;
const MIB: f64 = 1048576.0;

fn main() -> Result<()> {
    let (mut images, mut reads, mut packs) = (Vec::new(), None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--reads" => reads = Some(PathBuf::from(arguments.next().context("--reads FILE")?)),
            "--packs" => packs = Some(PathBuf::from(arguments.next().context("--packs DIR")?)),
            _ => images.push(PathBuf::from(argument)),
        }
    }
    // `cargo test --benches` runs this with no arguments: there is nothing to measure then.
    if !images.is_empty() {
        block_sizes_and_levels(&images)?;
    }
    if let Some(path) = reads {
        boot(&read_trace(&path)?)?;
    }
    packs.map_or(Ok(()), |directory| pack_sizes(&directory))
}

/// An image cut into blocks of one size.
struct Cut {
    file: File,
    ids: Vec<BlockId>,
    hash: Duration,
}

fn cut(path: &Path, size: BlockSize) -> Result<Cut> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let count = size.count(file.metadata()?.len());
    let (mut ids, mut hash, mut block) = (Vec::new(), Duration::ZERO, vec![0; size.bytes()]);
    for index in 0..count {
        read_block(&file, index, &mut block)?;
        if block.iter().all(|&byte| byte == 0) {
            ids.push(BlockId::HOLE);
            continue;
        }
        let begun = cpu();
        ids.push(name(&block));
        hash += cpu() - begun;
    }
    Ok(Cut { file, ids, hash })
}

fn name(block: &[u8]) -> BlockId {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&[7; 32]).expect("HMAC takes keys of any length");
    mac.update(block);
    BlockId::from_bytes(mac.finalize().into_bytes().into())
}

/// Fills `block`, with zeros past the end of the file.
fn read_block(file: &File, index: u64, block: &mut [u8]) -> Result<()> {
    let offset = index * block.len() as u64;
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    block[filled..].fill(0);
    Ok(())
}

/// What storing some blocks took.
#[derive(Default, Clone, Copy)]
struct Cost {
    blocks: u64,
    stored_bytes: u64,
    compress: Duration,
    seal: Duration,
    opened: u64,
    open: Duration,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.stored_bytes += other.stored_bytes;
        self.compress += other.compress;
        self.seal += other.seal;
        self.opened += other.opened;
        self.open += other.open;
    }
}

/// Compresses and seals the blocks at `indexes`, and opens every eighth again.
fn store(cut: &Cut, indexes: &[u64], size: BlockSize, level: i32) -> Result<Cost> {
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let shares = indexes.chunks(indexes.len().div_ceil(threads).max(1));
        let workers: Vec<_> = shares.map(|share| scope.spawn(|| store_share(cut, share, size, level))).collect();
        let mut sum = Cost::default();
        for worker in workers {
            sum += worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(sum)
    })
}

fn store_share(cut: &Cut, indexes: &[u64], size: BlockSize, level: i32) -> Result<Cost> {
    let (cipher, nonce) = (XChaCha20Poly1305::new(&[9; 32].into()), XNonce::from([3; 24]));
    let (mut compressor, mut decompressor) = (Compressor::new(level)?, Decompressor::new()?);
    let mut block = vec![0; size.bytes()];
    let mut out = vec![0; zstd::zstd_safe::compress_bound(size.bytes())];
    let mut plain = vec![0; size.bytes()];
    let mut cost = Cost::default();
    for (n, &index) in indexes.iter().enumerate() {
        read_block(&cut.file, index, &mut block)?;
        let begun = cpu();
        let mut len = compressor.compress_to_buffer(&block, &mut out)?;
        let raw = len >= block.len();
        if raw {
            len = block.len();
            out[..len].copy_from_slice(&block);
        }
        let compressed = cpu();
        let tag = cipher.encrypt_inout_detached(&nonce, &[0; 68], InOutBuf::from(&mut out[..len]));
        let sealed = cpu();
        let tag = tag.map_err(|_| anyhow::anyhow!("sealing failed"))?;
        cost.blocks += 1;
        cost.stored_bytes += (len + FRAME_BYTES) as u64;
        cost.compress += compressed - begun;
        cost.seal += sealed - compressed;
        if n % 8 == 0 {
            let id = cut.ids[usize::try_from(index)?];
            let begun = cpu();
            open(&cipher, &nonce, &tag, &mut out[..len], raw, &mut decompressor, &mut plain, id)?;
            cost.open += cpu() - begun;
            cost.opened += 1;
        }
    }
    Ok(cost)
}

#[allow(clippy::too_many_arguments, reason = "one call, spelt out to be timed")]
fn open(
    cipher: &XChaCha20Poly1305,
    nonce: &XNonce,
    tag: &Tag,
    sealed: &mut [u8],
    raw: bool,
    decompressor: &mut Decompressor<'_>,
    plain: &mut [u8],
    id: BlockId,
) -> Result<()> {
    let opened = cipher.decrypt_inout_detached(nonce, &[0; 68], InOutBuf::from(&mut *sealed), tag);
    opened.map_err(|_| anyhow::anyhow!("opening failed"))?;
    if raw {
        plain.copy_from_slice(sealed);
    } else {
        decompressor.decompress_to_buffer(sealed, plain)?;
    }
    if name(plain) != id {
        bail!("a block came back different");
    }
    Ok(())
}

/// Sealed bytes of the map nodes of `ids` that differ from those of `base` (all of them without a base).
fn map_bytes(ids: &[BlockId], base: Option<&[BlockId]>) -> Result<u64> {
    let (mut ids, mut base) = (ids.to_vec(), base.map(<[BlockId]>::to_vec));
    let (mut bytes, mut compressor) = (0, Compressor::new(1)?);
    loop {
        let leaves: Vec<&[BlockId]> = ids.chunks(FANOUT as usize).collect();
        for (n, leaf) in leaves.iter().enumerate() {
            let same = base.as_ref().is_some_and(|base| base.chunks(FANOUT as usize).nth(n) == Some(leaf));
            if !same && !leaf.iter().all(BlockId::is_hole) {
                let plain: Vec<u8> = leaf.iter().flat_map(|id| *id.as_bytes()).collect();
                bytes += (compressor.compress(&plain)?.len().min(plain.len()) + 8 + FRAME_BYTES) as u64;
            }
        }
        if leaves.len() == 1 {
            return Ok(bytes);
        }
        let up = |ids: &[BlockId]| -> Vec<BlockId> {
            ids.chunks(FANOUT as usize)
                .map(|leaf| name(&leaf.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<_>>()))
                .collect()
        };
        (base, ids) = (base.map(|base| up(&base)), up(&ids));
    }
}

fn block_sizes_and_levels(images: &[PathBuf]) -> Result<()> {
    let mut maps = Vec::new();
    println!(
        "| block | zstd | image | new blocks | stored MiB | hash s | compress s | seal s | open MB/s | open one, us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for bytes in BLOCK_SIZES {
        let size = BlockSize::new(bytes)?;
        let first = cut(&images[0], size)?;
        let known: HashSet<BlockId> = first.ids.iter().copied().collect();
        for path in images {
            let later = if *path == images[0] { None } else { Some(cut(path, size)?) };
            let image = later.as_ref().unwrap_or(&first);
            let mut seen = if later.is_some() { known.clone() } else { HashSet::new() };
            seen.insert(BlockId::HOLE);
            let fresh = (0..).zip(&image.ids).filter(|(_, id)| seen.insert(**id)).map(|(index, _)| index);
            let fresh: Vec<u64> = fresh.collect();
            let label = path.file_stem().unwrap_or_default().to_string_lossy();
            for level in LEVELS {
                let cost = store(image, &fresh, size, level)?;
                let open_us = cost.open.as_secs_f64() * 1e6 / cost.opened.max(1) as f64;
                println!(
                    "| {}K | {level} | {label} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {open_us:.0} |",
                    bytes >> 10,
                    cost.blocks,
                    cost.stored_bytes as f64 / MIB,
                    image.hash.as_secs_f64(),
                    cost.compress.as_secs_f64(),
                    cost.seal.as_secs_f64(),
                    bytes as f64 / open_us.max(1e-9),
                );
            }
            let map = map_bytes(&image.ids, later.is_some().then_some(&first.ids))?;
            let index = fresh.len() as u64 * ENTRY_BYTES;
            maps.push(format!(
                "| {}K | {label} | {:.0} | {:.0} |",
                bytes >> 10,
                map as f64 / 1024.0,
                index as f64 / 1024.0
            ));
        }
    }
    println!("\n| block | image | new map nodes KiB | index entries KiB |\n|---|---|---|---|\n{}", maps.join("\n"));
    Ok(())
}

/// Lines of `offset length`, in bytes.
fn read_trace(path: &Path) -> Result<Vec<(u64, u64)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines()
        .map(|line| line.split_once(' ').context("offset length").and_then(|(o, l)| Ok((o.parse()?, l.parse()?))))
        .collect()
}

/// How many distinct blocks the reads touch, with a cache that forgets nothing.
fn boot(reads: &[(u64, u64)]) -> Result<()> {
    let sum: u64 = reads.iter().map(|(_, len)| len).sum();
    println!("\nBoot: {} reads, {:.1} MiB.\n", reads.len(), sum as f64 / MIB);
    println!("| block | blocks opened | MiB opened | opened / read |\n|---|---|---|---|");
    for bytes in BLOCK_SIZES {
        let size = BlockSize::new(bytes)?;
        let touched: HashSet<u64> = reads
            .iter()
            .flat_map(|&(offset, len)| size.index_of(offset)..=size.index_of(offset + len.max(1) - 1))
            .collect();
        let opened = touched.len() as u64 * bytes;
        println!(
            "| {}K | {} | {:.0} | {:.2} |",
            bytes >> 10,
            touched.len(),
            opened as f64 / MIB,
            opened as f64 / sum as f64
        );
    }
    Ok(())
}

/// Writes 1 GiB as packs of several sizes, by one writer and by two at once; the best of three.
fn pack_sizes(directory: &Path) -> Result<()> {
    const TOTAL: usize = 1 << 30;
    let mut bytes = vec![0; 64 << 20];
    let mut state = 1u64;
    for chunk in bytes.chunks_exact_mut(8) {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    println!("\n| pack MiB | packs per TiB | put MB/s, one writer | put MB/s, two writers |\n|---|---|---|---|");
    for mib in [4usize, 8, 16, 32, 64] {
        let mut speeds = Vec::new();
        for writers in [1, 2] {
            let mut best = Duration::MAX;
            for _ in 0..3 {
                let root = tempfile::tempdir_in(directory)?;
                let target = DirTarget::open(root.path());
                target.prepare()?;
                let put = |writer: usize| -> Result<()> {
                    for n in (writer..TOTAL / (mib << 20)).step_by(writers) {
                        let mut id = [n as u8; 32];
                        id[1..9].copy_from_slice(&(n as u64).to_le_bytes());
                        target.put(&layout::pack(PackId::from_bytes(id)), &[&bytes[..mib << 20]])?;
                    }
                    Ok(())
                };
                let begun = Instant::now();
                std::thread::scope(|scope| {
                    let threads: Vec<_> = (0..writers)
                        .map(|writer| {
                            scope.spawn({
                                let put = &put;
                                move || put(writer)
                            })
                        })
                        .collect();
                    threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
                })?;
                best = best.min(begun.elapsed());
            }
            speeds.push(TOTAL as f64 / 1e6 / best.as_secs_f64());
        }
        println!("| {mib} | {} | {:.0} | {:.0} |", (1 << 20) / mib, speeds[0], speeds[1]);
    }
    Ok(())
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the one timespec it is given, which outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
