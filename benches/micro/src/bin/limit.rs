//! Times the stages of a first backup by themselves, on real data: what the machine could do if nothing else had to be done.
//!
//! `limit SOURCE SCRATCH [THREADS] [BYTES]` reads files below SOURCE, at most BYTES of them, and prints one JSON object: for each stage its
//! seconds of CPU for a GiB of source, measured on THREADS threads, each with data of its own. `stat` and `open` are microseconds a file.
//! Stages: stat, open, read, cut, hash, zstd (1 and −3, no sample test), seal, unseal, unzip, write (to SCRATCH, which must exist). The
//! write is what the page cache takes, then a sync by itself. Promises the same kernels as the engine uses. Does not know the engine's
//! pipeline: what it adds is what the figures leave out.

#![expect(clippy::disallowed_methods, reason = "a program of its own, outside the engine, that is to read files and clocks")]

use longshore_engine::chunker::Cutter;
use longshore_format::config::Cut;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::pack::{FinishedPack, PackKey, PackWriter};
use longshore_format::{ChunkId, ChunkKind, PackName, SessionId};
use longshore_micro::Result;
use longshore_micro::kernels::keys;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const GIB: f64 = (1u64 << 30) as f64;
const FRAME: usize = 256 << 10;
const PACK: usize = 32 << 20;
const LIMIT: u64 = 1 << 30;

/// Seconds by stage, summed over threads; under `bytes`, `files`, `stored` what they are for.
type Sums = BTreeMap<&'static str, f64>;

fn files(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), out)?;
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
    Ok(())
}

fn timed<T>(sums: &mut Sums, stage: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let out = work()?;
    *sums.entry(stage).or_default() += started.elapsed().as_secs_f64();
    Ok(out)
}

/// The bytes of some files as the engine would group them: short ones together, long ones cut.
struct Load {
    frames: Vec<Vec<u8>>,
}

fn load(paths: &[PathBuf], sums: &mut Sums) -> Result<Load> {
    let mut seen = 0;
    timed(sums, "stat", || {
        for path in paths {
            seen += std::fs::symlink_metadata(path)?.len();
        }
        Ok(())
    })?;
    timed(sums, "open", || {
        for path in paths {
            drop(File::open(path)?);
        }
        Ok(())
    })?;
    let mut whole = Vec::with_capacity(seen as usize);
    timed(sums, "read", || {
        for path in paths {
            File::open(path)?.read_to_end(&mut whole)?;
        }
        Ok(())
    })?;
    *sums.entry("bytes").or_default() += whole.len() as f64;
    *sums.entry("files").or_default() += paths.len() as f64;
    let cutter = Cutter::new(&keys(), Cut::default())?;
    let frames = timed(sums, "cut", || {
        let (mut rest, mut cuts) = (&whole[..], Vec::new());
        while !rest.is_empty() {
            let length = cutter.first(rest, true);
            cuts.push(length);
            rest = &rest[length..];
        }
        Ok(cuts)
    })?;
    let mut at = 0;
    let frames = frames
        .into_iter()
        .map(|length| {
            at += length;
            whole[at - length..at].to_vec()
        })
        .collect();
    Ok(Load { frames })
}

fn pack_up(stored: &[Vec<u8>], codec: &mut Codec, buffer: Vec<u8>) -> Result<FinishedPack> {
    let mut writer = PackWriter::new(&keys(), PackName { session: SessionId([3; 16]), number: 1 }, [4; 32], buffer)?;
    for payload in stored {
        writer.push(ChunkKind::Data, payload, vec![(ChunkId([0; 32]), payload.len() as u32)], Compression::None, codec)?;
    }
    Ok(writer.finish(codec)?)
}

fn stages(paths: &[PathBuf], scratch: &Path, name: usize) -> Result<Sums> {
    let mut sums = Sums::new();
    let load = load(paths, &mut sums)?;
    let (keys, mut codec) = (keys(), Codec::new()?);
    timed(&mut sums, "hash", || Ok(load.frames.iter().fold(0, |sum, frame| sum ^ keys.chunk_id(ChunkKind::Data, frame).0[0])))?;
    let mut squeeze = |sums: &mut Sums, stage, level| -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::with_capacity(load.frames.len());
        for frame in &load.frames {
            let mut out = Vec::with_capacity(FRAME * 5);
            timed(sums, stage, || Ok(codec.wrap(frame, Compression::Zstd(level), &mut out)?))?;
            all.push(out);
        }
        Ok(all)
    };
    drop(squeeze(&mut sums, "zstd -3", -3)?);
    let stored = squeeze(&mut sums, "zstd 1", 1)?;
    *sums.entry("stored").or_default() += stored.iter().map(Vec::len).sum::<usize>() as f64;
    let mut out = Vec::with_capacity(4 * FRAME);
    timed(&mut sums, "unzip", || {
        for envelope in &stored {
            codec.unwrap(envelope, 1 << 20, "frame", &mut out)?;
        }
        Ok(())
    })?;
    let path = scratch.join(format!("limit-{name}"));
    let mut file = File::create(&path)?;
    let mut buffer = Vec::with_capacity(PACK + (2 << 20));
    let (mut from, mut size) = (0, 0);
    for to in 1..=stored.len() {
        size += stored[to - 1].len();
        if size < PACK && to < stored.len() {
            continue;
        }
        let pack = timed(&mut sums, "seal", || pack_up(&stored[from..to], &mut codec, std::mem::take(&mut buffer)))?;
        let key = PackKey::derive(&keys, pack.name, &pack.salt)?;
        let mut sealed = Vec::with_capacity(4 * FRAME);
        timed(&mut sums, "unseal", || {
            for frame in &pack.frames {
                sealed.clear();
                let start = frame.offset_bytes as usize;
                sealed.extend_from_slice(&pack.bytes[start..start + frame.stored_bytes as usize]);
                key.check_frame(frame.birth.ordinal, &mut sealed)?;
            }
            Ok(())
        })?;
        timed(&mut sums, "write", || Ok(file.write_all(&pack.bytes)?))?;
        buffer = pack.bytes;
        (from, size) = (to, 0);
    }
    timed(&mut sums, "sync", || Ok(file.sync_all()?))?;
    drop(file);
    std::fs::remove_file(path)?;
    Ok(sums)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, scratch, rest @ ..] = &arguments[..] else {
        return Err("usage: limit SOURCE SCRATCH [THREADS] [BYTES]".into());
    };
    let threads: usize = rest.first().map_or(Ok(1), |n| n.parse())?;
    let limit: u64 = rest.get(1).map_or(Ok(LIMIT), |n| n.parse())?;
    let mut all = Vec::new();
    files(Path::new(source), &mut all)?;
    // Every n-th file, spread over the whole tree, up to the limit; one far beyond it is left out as long as there are others.
    let mut shares: Vec<Vec<PathBuf>> = vec![Vec::new(); threads];
    let total: u64 = all.iter().map(|p| p.symlink_metadata().map_or(0, |m| m.len())).sum();
    let step = (total / limit.max(1)).max(1) as usize;
    for (number, path) in all.into_iter().step_by(step).enumerate() {
        shares[number % threads].push(path);
    }
    let started = Instant::now();
    let results: Vec<Result<Sums>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            shares.iter().enumerate().map(|(name, paths)| scope.spawn(move || stages(paths, Path::new(scratch), name))).collect();
        running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let wall = started.elapsed().as_secs_f64();
    let mut sums = Sums::new();
    for result in results {
        for (stage, seconds) in result? {
            *sums.entry(stage).or_default() += seconds;
        }
    }
    let (bytes, files, stored) = (sums["bytes"].max(1.0), sums["files"].max(1.0), sums["stored"]);
    let mut fields = vec![format!(
        "\"threads\": {threads}, \"bytes\": {bytes}, \"files\": {files}, \"stored\": {stored}, \"seconds\": {wall:.3}"
    )];
    for (stage, seconds) in &sums {
        match *stage {
            "bytes" | "files" | "stored" => {}
            "stat" | "open" => fields.push(format!("\"{stage}\": {:.3}", seconds / files * 1e6)),
            _ => fields.push(format!("\"{stage}\": {:.4}", seconds / (bytes / GIB))),
        }
    }
    writeln!(std::io::stdout().lock(), "{{{}}}", fields.join(", "))?;
    Ok(())
}
