//! Times the stages of a first backup by themselves, on real data: what the machine could do if nothing else had to be done.
//!
//! `limit SOURCE SCRATCH [THREADS] [BYTES]` reads files below SOURCE, at most BYTES of them, and prints one JSON object: for each stage its
//! seconds of CPU for a GiB of source, measured on THREADS threads, each with data of its own. `stat` and `open` are microseconds a file.
//! Stages: stat, open, read, cut, hash, zstd (as the engine does it by default, with its sample test; level 1; level −3), seal, unseal, unzip, write (to SCRATCH, which must exist, by the
//! local store, durably). Promises the same kernels as the engine uses, in frames of its size. Does not know the engine's pipeline: what it
//! adds is what the figures leave out.

#![expect(clippy::disallowed_methods, reason = "a program of its own, outside the engine, that is to read files and clocks")]

use longshore_engine::chunker::Cutter;
use longshore_format::config::Cut;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::keys::Keys;
use longshore_format::pack::{PackKey, PackWriter};
use longshore_format::{ChunkId, ChunkKind, PackName, SessionId};
use longshore_micro::Result;
use longshore_micro::kernels::keys;
use longshore_store::{Key, LocalSettings, LocalStore, Store};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const GIB: f64 = (1u64 << 30) as f64;
const FRAME: usize = 1 << 20;
const BATCH: usize = 2 << 20;
const SAMPLE: usize = 4 << 10;
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

/// One thread's way through its files: a batch is read, cut, hashed, squeezed and sealed while it lies in the processor's caches, in buffers
/// that are used again, as the engine does it.
struct Stages {
    sums: Sums,
    keys: Keys,
    cutter: Cutter,
    codec: Codec,
    store: LocalStore,
    writer: Option<PackWriter>,
    packs: u32,
    session: SessionId,
    pack: Vec<u8>,
    frame: Vec<u8>,
    squeezed: Vec<u8>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

impl Stages {
    fn new(scratch: &Path, name: usize) -> Result<Self> {
        let settings = LocalSettings { create: true, ..LocalSettings::default() };
        Ok(Self {
            sums: Sums::new(),
            keys: keys(),
            cutter: Cutter::new(&keys(), Cut::default())?,
            codec: Codec::new()?,
            store: LocalStore::open(scratch.join(format!("limit-{name}")), settings)?,
            writer: None,
            packs: 0,
            pack: Vec::with_capacity(PACK + (4 << 20)),
            session: SessionId([name as u8; 16]),
            frame: Vec::with_capacity(2 * FRAME),
            squeezed: Vec::with_capacity(3 * FRAME),
            sealed: Vec::with_capacity(2 * FRAME),
            opened: Vec::with_capacity(2 * FRAME),
        })
    }

    fn all(&mut self, paths: &[PathBuf]) -> Result<()> {
        // Whatever the kernel has of them it has read by now.
        paths.iter().for_each(|path| drop(File::open(path)));
        timed(&mut self.sums, "stat", || paths.iter().try_for_each(|path| Ok(std::fs::symlink_metadata(path).map(drop)?)))?;
        *self.sums.entry("files").or_default() += paths.len() as f64;
        let (mut batch, mut length) = (vec![0; BATCH], 0);
        for path in paths {
            let mut file = timed(&mut self.sums, "open", || Ok(File::open(path)?))?;
            loop {
                let got = timed(&mut self.sums, "read", || Ok(file.read(&mut batch[length..])?))?;
                length += got;
                if length == BATCH {
                    self.batch(&batch)?;
                    length = 0;
                } else if got == 0 {
                    break;
                }
            }
        }
        self.batch(&batch[..length])?;
        self.close_frame()?;
        self.close_pack()
    }

    fn batch(&mut self, bytes: &[u8]) -> Result<()> {
        *self.sums.entry("bytes").or_default() += bytes.len() as f64;
        let (cutter, mut rest, mut cuts) = (&self.cutter, bytes, Vec::new());
        timed(&mut self.sums, "cut", || {
            while !rest.is_empty() {
                let length = cutter.first(rest, true);
                cuts.push(length);
                rest = &rest[length..];
            }
            Ok(())
        })?;
        let mut at = 0;
        for length in cuts {
            let chunk = &bytes[at..at + length];
            at += length;
            let keys = &self.keys;
            timed(&mut self.sums, "hash", || Ok(std::hint::black_box(keys.chunk_id(ChunkKind::Data, chunk))))?;
            self.frame.extend_from_slice(chunk);
            if self.frame.len() >= FRAME {
                self.close_frame()?;
            }
        }
        Ok(())
    }

    fn close_frame(&mut self) -> Result<()> {
        let (frame, codec, squeezed) = (std::mem::take(&mut self.frame), &mut self.codec, &mut self.squeezed);
        if !frame.is_empty() {
            // What does not shrink is stored as it is, by three samples.
            let noise = timed(&mut self.sums, "zstd", || {
                for at in [0, frame.len() / 2, frame.len().saturating_sub(SAMPLE)] {
                    let sample = &frame[at..frame.len().min(at + SAMPLE)];
                    if codec.estimate(sample)? < sample.len() - sample.len() / 32 {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
            for (stage, how) in
                [("zstd -3", Compression::Zstd(-3)), ("zstd 1", Compression::Zstd(1)), ("zstd", Compression::Quick)]
            {
                squeezed.clear();
                let how = if noise { Compression::None } else { how };
                timed(&mut self.sums, stage, || Ok(codec.wrap(&frame, how, squeezed)?))?;
            }
            *self.sums.entry("stored").or_default() += squeezed.len() as f64;
            if self.writer.is_none() {
                self.packs += 1;
                let name = PackName { session: self.session, number: self.packs };
                self.writer = Some(PackWriter::new(&self.keys, name, [4; 32], std::mem::take(&mut self.pack))?);
            }
            if let Some(writer) = &mut self.writer {
                let chunks = vec![(ChunkId([0; 32]), squeezed.len() as u32)];
                timed(&mut self.sums, "seal", || {
                    Ok(writer.push(ChunkKind::Data, squeezed, chunks, Compression::None, codec)?)
                })?;
            }
            let opened = &mut self.opened;
            timed(&mut self.sums, "unzip", || Ok(codec.unwrap(squeezed, 4 << 20, "frame", opened)?))?;
        }
        self.frame = frame;
        self.frame.clear();
        if self.writer.as_ref().is_some_and(|writer| writer.size_bytes() >= PACK) { self.close_pack() } else { Ok(()) }
    }

    fn close_pack(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let pack = timed(&mut self.sums, "seal", || Ok(writer.finish(&mut self.codec)?))?;
        let key = PackKey::derive(&self.keys, pack.name, &pack.salt)?;
        for frame in &pack.frames {
            let (sealed, start) = (&mut self.sealed, frame.offset_bytes as usize);
            sealed.clear();
            sealed.extend_from_slice(&pack.bytes[start..start + frame.stored_bytes as usize]);
            timed(&mut self.sums, "unseal", || Ok(key.check_frame(frame.birth.ordinal, sealed)?))?;
        }
        // By the engine's own way to a disk; the sync is in it.
        let name = Key::new(pack.name.key())?;
        let body = bytes::Bytes::from(pack.bytes);
        timed(&mut self.sums, "write", || Ok(self.store.put_new(&name, body.clone())?))?;
        self.store.delete(&name)?;
        self.pack = body.try_into_mut().map(Vec::from).unwrap_or_default();
        Ok(())
    }
}

fn stages(paths: &[PathBuf], scratch: &Path, name: usize) -> Result<Sums> {
    let mut stages = Stages::new(scratch, name)?;
    stages.all(paths)?;
    std::fs::remove_dir_all(scratch.join(format!("limit-{name}")))?;
    Ok(stages.sums)
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
