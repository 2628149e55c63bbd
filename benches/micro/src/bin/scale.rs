//! Backs a volume up that exists only as a rule, into a store that keeps no packs: what ten million files or 64 GiB take of memory and time
//! without a disk that could hold them.
//!
//! `scale FILES FILE_BYTES [WORKERS]` prints one JSON object: seconds of the first and of the unchanged backup, the largest anonymous memory
//! beyond the start of each, and how much was stored. Names, sizes and contents come from a seed; a directory holds a thousand files. The
//! second run finds trees and index again, but no stat cache (there is no folder for one), as on a new node. Promises that nothing is
//! written. Does not restore: there are no packs to read.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, outside the engine, that is to read clocks and its own memory"
)]

use bytes::Bytes;
use longshore_engine::backup;
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::seams::World;
use longshore_engine::volume::{
    Dir, Extent, Fs, Kind, Loss, Metadata, Name, Names, ReadFile, RootOptions, Stat, Time, VolumeError, VolumeErrorKind,
    WriteFile,
};
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_micro::{Result, made, whole};
use longshore_store::{Key, MemoryStore, Page, Put, Store, StoreError};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const FANOUT: u64 = 1000;
const POOL_BYTES: usize = 8 << 20;
type Answer<T> = std::result::Result<T, VolumeError>;

fn refused<T>(call: &'static str) -> Answer<T> {
    Err(VolumeError { kind: VolumeErrorKind::Unsupported, call, errno: None })
}

/// The rule: how many files, how long, and the bytes from which contents are taken.
#[derive(Debug)]
struct Rule {
    files: u64,
    file_bytes: u64,
    pool: Vec<u8>,
}

impl Rule {
    fn stat(&self, kind: Kind, inode: u64) -> Stat {
        let size_bytes = if kind == Kind::File { self.file_bytes } else { 4096 };
        let time = Time { secs: 1_700_000_000 + (inode % 1_000_000) as i64, nanos: 1000 };
        let (mode, links) = if kind == Kind::File { (0o644, 1) } else { (0o755, 2) };
        Stat {
            kind,
            mode,
            uid: 1000,
            gid: 1000,
            size_bytes,
            allocated_bytes: size_bytes.next_multiple_of(4096),
            mtime: time,
            ctime: time,
            inode,
            device: 1,
            links,
            rdev: (0, 0),
        }
    }
}

#[derive(Clone, Debug)]
struct RuleFs(Arc<Rule>);

/// The files from `first` to `first + count`: by directories of a thousand each when there are more.
#[derive(Debug)]
struct RuleDir {
    rule: Arc<Rule>,
    first: u64,
    count: u64,
}

impl RuleDir {
    fn leaf(&self) -> bool {
        self.count <= FANOUT
    }

    /// How many files each subdirectory holds.
    fn share(&self) -> u64 {
        let mut share = FANOUT;
        while self.count.div_ceil(share) > FANOUT {
            share *= FANOUT;
        }
        share
    }

    fn number(name: &[u8]) -> Answer<u64> {
        std::str::from_utf8(name).ok().and_then(|n| n.get(1..)?.parse().ok()).ok_or(VolumeError {
            kind: VolumeErrorKind::NotFound,
            call: "stat",
            errno: None,
        })
    }
}

impl Fs for RuleFs {
    fn open_root(&self, _: &Path, _: RootOptions) -> Answer<Box<dyn Dir>> {
        Ok(Box::new(RuleDir { rule: Arc::clone(&self.0), first: 0, count: self.0.files }))
    }

    fn create_root(&self, _: &Path, _: RootOptions) -> Answer<Box<dyn Dir>> {
        refused("create root")
    }
}

impl Dir for RuleDir {
    fn names(&self) -> Answer<Names> {
        let (letter, count) = if self.leaf() { ('f', self.count) } else { ('d', self.count.div_ceil(self.share())) };
        Ok((0..count).map(|n| format!("{letter}{n:04}").into_bytes()).collect())
    }

    fn stat_self(&self) -> Answer<Stat> {
        Ok(self.rule.stat(Kind::Directory, (1 << 40) + self.first * 8 + self.count.ilog10() as u64))
    }

    fn stat(&self, name: &[u8]) -> Answer<Stat> {
        if name.first() == Some(&b'd') {
            let number = Self::number(name)?;
            let sub = RuleDir { rule: Arc::clone(&self.rule), first: self.first + number * self.share(), count: self.share() };
            return Ok(self.rule.stat(Kind::Directory, (1 << 40) + sub.first * 8 + sub.count.ilog10() as u64));
        }
        Ok(self.rule.stat(Kind::File, 1 + self.first + Self::number(name)?))
    }

    fn open_dir(&self, name: &[u8]) -> Answer<Box<dyn Dir>> {
        let (share, number) = (self.share(), Self::number(name)?);
        let count = share.min(self.count - number * share);
        // What `stat` said of it must still be so: a short last directory is counted as a whole one.
        let rule = Arc::clone(&self.rule);
        Ok(Box::new(RuleDir { rule, first: self.first + number * share, count }))
    }

    fn open_file(&self, name: &[u8]) -> Answer<Box<dyn ReadFile>> {
        Ok(Box::new(RuleFile { rule: Arc::clone(&self.rule), number: self.first + Self::number(name)? }))
    }

    fn read_link(&self, _: &[u8]) -> Answer<Name> {
        refused("read link")
    }

    fn xattrs_self(&self) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn xattrs(&self, _: &[u8], _: Kind) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn create_dir(&self, _: &[u8]) -> Answer<Box<dyn Dir>> {
        refused("create directory")
    }

    fn create_file(&self, _: &[u8]) -> Answer<Box<dyn WriteFile>> {
        refused("create file")
    }

    fn open_file_for_update(&self, _: &[u8]) -> Answer<Box<dyn WriteFile>> {
        refused("open file")
    }

    fn create_symlink(&self, _: &[u8], _: &[u8]) -> Answer<()> {
        refused("create link")
    }

    fn create_special(&self, _: &[u8], _: Kind, _: (u32, u32)) -> Answer<()> {
        refused("create special file")
    }

    fn hard_link(&self, _: &[u8], _: &dyn Dir, _: &[u8]) -> Answer<()> {
        refused("link")
    }

    fn rename(&self, _: &[u8], _: &[u8]) -> Answer<()> {
        refused("rename")
    }

    fn remove_all(&self, _: &[u8]) -> Answer<()> {
        refused("remove")
    }

    fn set_metadata(&self, _: &[u8], _: Kind, _: &Metadata) -> Answer<Vec<Loss>> {
        refused("set metadata")
    }

    fn set_metadata_self(&self, _: &Metadata) -> Answer<Vec<Loss>> {
        refused("set metadata")
    }

    fn sync_filesystem(&self) -> Answer<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[derive(Debug)]
struct RuleFile {
    rule: Arc<Rule>,
    number: u64,
}

impl ReadFile for RuleFile {
    fn stat(&self) -> Answer<Stat> {
        Ok(self.rule.stat(Kind::File, 1 + self.number))
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Answer<usize> {
        let length = (buf.len() as u64).min(self.rule.file_bytes.saturating_sub(offset_bytes)) as usize;
        let mut at = 0;
        while at < length {
            // Each mebibyte of each file begins elsewhere in the pool, and carries its own number: nothing is a duplicate.
            let place = offset_bytes + at as u64;
            let (block, within) = (place >> 20, (place & 0xf_ffff) as usize);
            let mark = (self.number << 24 | block).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let piece = (length - at).min((1 << 20) - within);
            let start = (mark >> 42) as usize % (POOL_BYTES - (1 << 20)) + within;
            buf[at..at + piece].copy_from_slice(&self.rule.pool[start..start + piece]);
            if within == 0 {
                let known = piece.min(8);
                buf[at..at + known].copy_from_slice(&mark.to_le_bytes()[..known]);
            }
            at += piece;
        }
        Ok(length)
    }

    fn next_extent(&self, offset_bytes: u64) -> Answer<Option<Extent>> {
        let length_bytes = self.rule.file_bytes.saturating_sub(offset_bytes);
        Ok((length_bytes > 0).then_some(Extent { offset_bytes, length_bytes, hole: false }))
    }

    fn xattrs(&self) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> Answer<usize> {
        self.read_at(offset_bytes, buf)
    }
}

/// Keeps everything but what packs of data hold: of those, lengths alone.
#[derive(Debug)]
struct Discarding {
    kept: MemoryStore,
    sizes: std::sync::Mutex<std::collections::BTreeMap<Key, u64>>,
    stored_bytes: AtomicU64,
}

/// Trees are read again by the next backup, and their packs are small; packs longer than this are of data.
const TREE_PACK_BYTES_MAX: usize = 6 << 20;

impl Discarding {
    fn sizes(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<Key, u64>> {
        self.sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Store for Discarding {
    fn put_new(&self, key: &Key, body: Bytes) -> std::result::Result<Put, StoreError> {
        self.stored_bytes.fetch_add(body.len() as u64, Relaxed);
        if key.as_str().starts_with("packs/") && body.len() > TREE_PACK_BYTES_MAX {
            self.sizes().insert(key.clone(), body.len() as u64);
            return Ok(Put::Created);
        }
        self.kept.put_new(key, body)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> std::result::Result<Bytes, StoreError> {
        self.kept.get(key, limit_bytes)
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> std::result::Result<Bytes, StoreError> {
        self.kept.get_range(key, offset_bytes, length_bytes)
    }

    fn head(&self, key: &Key) -> std::result::Result<u64, StoreError> {
        if let Some(size) = self.sizes().get(key) {
            return Ok(*size);
        }
        self.kept.head(key)
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> std::result::Result<Page, StoreError> {
        let mut page = self.kept.list(prefix, after, limit)?;
        let sizes = self.sizes();
        let end = if page.more { page.entries.last().map(|e| e.key.clone()) } else { None };
        page.entries.extend(
            sizes
                .iter()
                .filter(|(k, _)| {
                    k.as_str().starts_with(prefix) && after.is_none_or(|a| *k > a) && end.as_ref().is_none_or(|e| *k <= e)
                })
                .map(|(key, size)| longshore_store::Entry { key: key.clone(), size_bytes: *size }),
        );
        page.entries.sort_by(|a, b| a.key.cmp(&b.key));
        if page.entries.len() > limit {
            page.entries.truncate(limit);
            page.more = true;
        }
        Ok(page)
    }

    fn delete(&self, key: &Key) -> std::result::Result<(), StoreError> {
        self.sizes().remove(key);
        self.kept.delete(key)
    }

    fn describe(&self) -> String {
        "discarding".into()
    }
}

fn anon_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Does some work; returns its seconds, and the largest anonymous memory beyond that before it, less what the store itself keeps.
fn watched(store: &Discarding, work: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = anon_kib();
    let seconds = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                peak.fetch_max(anon_kib().saturating_sub(before + kept_kib(store)), Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        done.store(true, Relaxed);
        result.map(|()| seconds)
    })?;
    Ok((seconds, peak.load(Relaxed) as f64 / 1024.0))
}

/// What lies in the store's memory and would lie on a disk.
fn kept_kib(store: &Discarding) -> u64 {
    let discarded: u64 = store.sizes().values().sum();
    store.stored_bytes.load(Relaxed).saturating_sub(discarded) / 1024
}

fn main() -> Result<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|n| n.parse()).collect::<std::result::Result<_, _>>()?;
    let [files, file_bytes, rest @ ..] = &arguments[..] else {
        return Err("usage: scale FILES FILE_BYTES [WORKERS]".into());
    };
    let workers = rest.first().copied().unwrap_or(2) as usize;
    let mut pool = made::text(1, POOL_BYTES / 2);
    pool.extend(made::noise(1, POOL_BYTES / 2));
    let fs = RuleFs(Arc::new(Rule { files: *files, file_bytes: *file_bytes, pool }));
    let store =
        Arc::new(Discarding { kept: MemoryStore::new(), sizes: std::sync::Mutex::default(), stored_bytes: AtomicU64::new(0) });
    let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let repository =
        Repository::init(shared, World::system(), &Unlock::Secret([1; 32]), "", Argon2Cost::default(), Cache::none())?;
    let run = || -> Result<()> {
        let mut options = whole::backup_options(workers);
        options.upload_threads = 1;
        options.compression = longshore_engine::packer::CompressionChoice::Auto;
        let summary = backup::run(&repository, &fs, &Arc::new(Job::new()), &options)?;
        if summary.exit_code == 0 { Ok(()) } else { Err("the backup lost something".into()) }
    };
    let (first, first_mib) = watched(&store, run)?;
    let stored = store.stored_bytes.load(Relaxed);
    let (again, again_mib) = watched(&store, run)?;
    writeln!(
        std::io::stdout().lock(),
        "{{\"files\": {files}, \"bytes\": {}, \"first_seconds\": {first:.3}, \"first_anon_mib\": {first_mib:.1}, \
         \"again_seconds\": {again:.3}, \"again_anon_mib\": {again_mib:.1}, \"stored_bytes\": {stored}}}",
        files * file_bytes
    )?;
    Ok(())
}
