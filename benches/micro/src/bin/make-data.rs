//! Writes the data of whole measurements from a seed.
//!
//! ```text
//! make-data noise FILE SEED BYTES           bytes that do not compress
//! make-data database FILE SEED BYTES        8 KiB pages of rows
//! make-data log FILE SEED BYTES             lines of JSON
//! make-data small FOLDER SEED COUNT         that many text files, 40 B to 64 KiB, mostly below 4 KiB
//! make-data pages FILE SEED ROUND SHARE     writes that share of a database's pages anew, in place
//! make-data inserts FILE SEED COUNT         puts that many small insertions into a file
//! ```
//! Promises the same bytes, names, modes and modification times for the same arguments. Does not know what they are for.

#![expect(clippy::disallowed_methods, reason = "a program of its own, outside the engine, that is to write files")]

use longshore_micro::Result;
use longshore_micro::made::{self, Chance, Log, PAGE_BYTES, Words};
use std::fs::{File, FileTimes};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const BLOCK: usize = 4 << 20;
const FILES_PER_DIRECTORY: u64 = 500;
const DIRECTORIES_PER_DIRECTORY: u64 = 50;
/// 2023-11-14; every file's time is some seconds after it.
const EPOCH_SECS: u64 = 1_700_000_000;

fn stamp(path: &Path, after_secs: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::new(EPOCH_SECS + after_secs, 123_456_789);
    Ok(File::open(path)?.set_times(FileTimes::new().set_modified(time).set_accessed(time))?)
}

/// Writes `length` bytes that `block` gives piece by piece, each told its offset and length.
fn write(path: &Path, length: u64, mut block: impl FnMut(u64, usize) -> Vec<u8>) -> Result<()> {
    let file = File::create(path)?;
    let mut at = 0;
    while at < length {
        let piece = block(at, (length - at).min(BLOCK as u64) as usize);
        file.write_all_at(&piece, at)?;
        at += piece.len() as u64;
    }
    drop(file);
    stamp(path, 0)
}

fn database(path: &Path, seed: u64, length: u64) -> Result<()> {
    let words = Words::new(1);
    let mut page = [0; PAGE_BYTES];
    write(path, length / PAGE_BYTES as u64 * PAGE_BYTES as u64, |at, length| {
        let mut out = Vec::with_capacity(length);
        for number in at / PAGE_BYTES as u64..(at + length as u64) / PAGE_BYTES as u64 {
            made::page(seed, number, 0, &words, &mut page);
            out.extend_from_slice(&page);
        }
        out
    })
}

fn log(path: &Path, seed: u64, length: u64) -> Result<()> {
    let (mut log, mut over) = (Log::new(seed), Vec::new());
    write(path, length, |_, length| {
        let mut out = std::mem::take(&mut over);
        log.fill(&mut out, length);
        over = out.split_off(length);
        out
    })
}

fn small(folder: &Path, seed: u64, count: u64) -> Result<()> {
    let (pool, mut chance) = (made::text(seed, 32 << 20), Chance::new(seed));
    let mut directory = folder.to_path_buf();
    for number in 0..count {
        if number % FILES_PER_DIRECTORY == 0 {
            let leaf = number / FILES_PER_DIRECTORY;
            directory = folder.join(format!("{:03}/{leaf:05}", leaf / DIRECTORIES_PER_DIRECTORY));
            std::fs::create_dir_all(&directory)?;
        }
        let length = (7.6 + 1.2 * chance.normal()).exp().clamp(40.0, 65_536.0) as usize;
        let start = chance.below((pool.len() - length) as u64) as usize;
        let path = directory.join(format!("{number:08}.txt"));
        // A line of its own, so that no two files are equal.
        let mut file = BufWriter::new(File::create(&path)?);
        writeln!(file, "{number} {:016x}", chance.bits())?;
        file.write_all(&pool[start..start + length])?;
        let time = SystemTime::UNIX_EPOCH + Duration::new(EPOCH_SECS + number % 10_000_000, 1000);
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.set_times(FileTimes::new().set_modified(time))?;
    }
    Ok(())
}

fn pages(path: &Path, seed: u64, round: u64, share: f64) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let total = file.metadata()?.len() / PAGE_BYTES as u64;
    let (words, mut chance) = (Words::new(1), Chance::new(seed ^ round << 32));
    let mut page = [0; PAGE_BYTES];
    for _ in 0..((total as f64 * share) as u64).max(1) {
        let number = chance.below(total);
        // Version 0 is what it was made as.
        made::page(seed, number, round + 1, &words, &mut page);
        file.write_all_at(&page, number * PAGE_BYTES as u64)?;
    }
    drop(file);
    // Never the time that it was made with: some go by it alone.
    stamp(path, round + 1)
}

fn inserts(path: &Path, seed: u64, count: u64) -> Result<()> {
    let (mut bytes, mut chance) = (std::fs::read(path)?, Chance::new(seed));
    for _ in 0..count {
        let at = chance.below(bytes.len() as u64) as usize;
        let length = 1 + chance.below(64) as usize;
        let new = made::noise(chance.bits(), length);
        bytes.splice(at..at, new);
    }
    std::fs::write(path, bytes)?;
    stamp(path, 1)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["noise", path, seed, length] => {
            let seed = seed.parse()?;
            write(Path::new(path), length.parse()?, |at, length| {
                let mut out = vec![0; length];
                made::noise_at(seed, at, &mut out);
                out
            })
        }
        ["database", path, seed, length] => database(Path::new(path), seed.parse()?, length.parse()?),
        ["log", path, seed, length] => log(Path::new(path), seed.parse()?, length.parse()?),
        ["small", path, seed, count] => small(Path::new(path), seed.parse()?, count.parse()?),
        ["pages", path, seed, round, share] => pages(Path::new(path), seed.parse()?, round.parse()?, share.parse()?),
        ["inserts", path, seed, count] => inserts(Path::new(path), seed.parse()?, count.parse()?),
        _ => Err("usage: make-data noise|database|log|small|pages|inserts …; see the top of its source".into()),
    }
}
