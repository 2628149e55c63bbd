//! Compares ways to compress, on real data: docs/decisions/0011 has what it printed.
//!
//! `levels FOLDER [MIB]` reads up to so many MiB (default 128) of the files below FOLDER, spread over all of them, puts them one behind
//! another into frames of 1 MiB, leaves out frames that do not shrink, and prints for each way the seconds of one core for a GiB, to compress
//! and to decompress, and which part of the source is stored; best of three. Frames and contexts are those of the engine. Does not know what the
//! engine chooses (`envelope`): each way is spelled out in zstd's parameters.

#![expect(clippy::disallowed_methods, reason = "a program of its own, outside the engine, that is to read files and clocks")]

use longshore_micro::Result;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, ParamSwitch, Strategy, compress_bound};

const FRAME: usize = 1 << 20;
const SAMPLE: usize = 4 << 10;
const WINDOW_LOG: u32 = 20;
const ROUNDS: usize = 3;

/// A name, a level, and what is set beside it: logarithm of the table, least match, step, whether literals get Huffman's code.
type Way = (&'static str, i32, Option<(u32, u32, u32, bool)>);

const WAYS: [Way; 14] = [
    ("level 3", 3, None),
    ("level 2", 2, None),
    ("level 1, 2^15 places, matches of 6", 1, Some((15, 6, 0, true))),
    ("level 1, 2^15 places", 1, Some((15, 7, 0, true))),
    ("level 1", 1, None),
    ("level 1, 2^14 places, steps of 3", 1, Some((14, 7, 3, true))),
    ("quick: level 1, 2^13 places", 1, Some((13, 7, 0, true))),
    ("quick, steps of 3", 1, Some((13, 7, 3, true))),
    ("quick, steps of 2, no Huffman", 1, Some((13, 7, 2, false))),
    ("level 1, 2^12 places", 1, Some((12, 7, 0, true))),
    ("level -1", -1, None),
    ("level -2", -2, None),
    ("level -3", -3, None),
    ("level -5", -5, None),
];

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

fn said(code: usize) -> Box<dyn std::error::Error + Send + Sync> {
    zstd::zstd_safe::get_error_name(code).into()
}

fn context((_, level, more): Way) -> Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or("no memory for a context")?;
    let mut set = vec![CParameter::ContentSizeFlag(false), CParameter::CompressionLevel(level)];
    if let Some((places, least, step, huffman)) = more {
        let literals = if huffman { ParamSwitch::Enable } else { ParamSwitch::Disable };
        set.extend([
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::HashLog(places),
            CParameter::MinMatch(least),
            CParameter::TargetLength(step),
            CParameter::Strategy(Strategy::ZSTD_fast),
            CParameter::LiteralCompressionMode(literals),
        ]);
    }
    for parameter in set {
        context.set_parameter(parameter).map_err(said)?;
    }
    Ok(context)
}

/// A share of each file, so that all together are so long.
fn sample(folder: &Path, wanted: u64) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    files(folder, &mut all)?;
    let total: u64 = all.iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum();
    let step = (total / wanted.max(1)).clamp(1, (all.len() as u64 / 1000).max(1)) as usize;
    let some: Vec<_> = all.iter().step_by(step).collect();
    let length: u64 = some.iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum();
    let mut bytes = Vec::new();
    for path in some {
        let file = File::open(path)?;
        let share = (u128::from(file.metadata()?.len()) * u128::from(wanted.min(length)) / u128::from(length.max(1))) as u64;
        file.take(share).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rest @ ..] = &arguments[..] else { return Err("usage: levels FOLDER [MIB]".into()) };
    let wanted: u64 = rest.first().map_or(Ok(128), |n| n.parse())?;
    let bytes = sample(Path::new(folder), wanted << 20)?;
    let mut look = context(("", -5, None))?;
    let mut shrinks = |frame: &&[u8]| {
        let mut out = Vec::with_capacity(compress_bound(SAMPLE));
        [0, frame.len() / 2, frame.len().saturating_sub(SAMPLE)].into_iter().any(|at| {
            let sample = &frame[at..frame.len().min(at + SAMPLE)];
            out.clear();
            look.compress2(&mut out, sample).is_ok_and(|length| length < sample.len() - sample.len() / 32)
        })
    };
    let frames: Vec<&[u8]> = bytes.chunks(FRAME).filter(&mut shrinks).collect();
    let length: usize = frames.iter().map(|frame| frame.len()).sum();
    let gib = length.max(1) as f64 / (1u64 << 30) as f64;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{folder}: {} MiB in frames that shrink, of {} MiB", length >> 20, bytes.len() >> 20)?;
    writeln!(out, "{:36} {:>9} {:>11} {:>7} {:>9}", "", "compress", "decompress", "sum", "stored")?;
    let (mut squeezed, mut back) = (Vec::with_capacity(compress_bound(FRAME)), vec![0; FRAME]);
    for way in WAYS {
        let (mut best, mut stored) = ((f64::MAX, f64::MAX), 0);
        for _ in 0..ROUNDS {
            let (mut codec, mut decoder, mut spent) = (context(way)?, DCtx::create(), (0.0, 0.0));
            stored = 0;
            for frame in &frames {
                squeezed.clear();
                let started = Instant::now();
                stored += codec.compress2(&mut squeezed, frame).map_err(said)?.min(frame.len());
                spent.0 += started.elapsed().as_secs_f64();
                let started = Instant::now();
                decoder.decompress(&mut back[..], &squeezed).map_err(said)?;
                spent.1 += started.elapsed().as_secs_f64();
            }
            best = (best.0.min(spent.0), best.1.min(spent.1));
        }
        let (compress, decompress, part) = (best.0 / gib, best.1 / gib, 100.0 * stored as f64 / length.max(1) as f64);
        writeln!(out, "{:36} {compress:>9.2} {decompress:>11.2} {:>7.2} {part:>7.1} %", way.0, compress + decompress)?;
    }
    Ok(())
}
