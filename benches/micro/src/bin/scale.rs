//! Backs a volume up that exists only as a rule, and restores it to nowhere: what ten million files or 64 GiB take of memory and time without
//! a disk that could hold them.
//!
//! `scale FILES FILE_BYTES SCRATCH [WORKERS]` prints one JSON object: seconds of the first backup, the unchanged one and the restore, and the
//! largest anonymous memory of each beyond its start. Repository and cache lie in SCRATCH, which must exist; where the packs would take more
//! than 4 GiB they are discarded, and nothing is restored. Promises that what comes back is as many files and bytes as went out. Does not
//! look at them: the tests of the engine do.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, outside the engine, that is to read clocks and its own memory"
)]

use bytes::Bytes;
use longshore_engine::backup;
use longshore_engine::job::Job;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::World;
use longshore_format::keys::{Argon2Cost, Unlock};
use longshore_micro::nowhere::Nowhere;
use longshore_micro::rule::RuleFs;
use longshore_micro::{Result, whole};
use longshore_store::{Key, LocalSettings, LocalStore, MemoryStore, Page, Put, Store, StoreError};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const FOLDER_BYTES_MAX: u64 = 4 << 30;

/// Keeps everything but what packs of data hold: of those, lengths alone.
#[derive(Debug, Default)]
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

    /// What lies in memory and would lie on a disk.
    fn kept_kib(&self) -> u64 {
        let discarded: u64 = self.sizes().values().sum();
        self.stored_bytes.load(Relaxed).saturating_sub(discarded) / 1024
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

/// What a piece of work took: seconds, and the largest anonymous memory beyond that before it, less what the store keeps in memory.
struct Took {
    seconds: f64,
    anon_mib: f64,
}

fn watched<T>(kept_kib: &(dyn Fn() -> u64 + Sync), work: impl FnOnce() -> Result<T>) -> Result<(T, Took)> {
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = anon_kib();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                peak.fetch_max(anon_kib().saturating_sub(before + kept_kib()), Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        done.store(true, Relaxed);
        result.map(|found| (found, seconds))
    })
    .map(|(found, seconds)| (found, Took { seconds, anon_mib: peak.load(Relaxed) as f64 / 1024.0 }))
}

/// A volume goes out twice and, where a folder has room for its packs, comes back.
fn measure(files: u64, file_bytes: u64, scratch: &Path, workers: usize) -> Result<Vec<(&'static str, f64)>> {
    let fs = RuleFs::new(files, file_bytes);
    let discarding = (files * file_bytes > FOLDER_BYTES_MAX).then(|| Arc::new(Discarding::default()));
    let store: Arc<dyn Store> = match &discarding {
        Some(store) => Arc::clone(store) as Arc<dyn Store>,
        None => Arc::new(LocalStore::open(scratch.join("store"), LocalSettings { create: true, ..LocalSettings::default() })?),
    };
    let kept_kib = || discarding.as_ref().map_or(0, |store| store.kept_kib());
    let cache = Cache::at(scratch.join("cache"));
    let repository = Repository::init(store, World::system(), &Unlock::Secret([1; 32]), "", Argon2Cost::default(), cache)?;
    let back_up = || {
        let mut options = whole::backup_options(workers);
        options.upload_threads = 1;
        options.compression = longshore_engine::packer::CompressionChoice::Auto;
        let summary = backup::run(&repository, &fs, &Arc::new(Job::new()), &options)?;
        match summary.snapshot {
            Some(snapshot) if summary.exit_code == 0 => Ok(snapshot),
            _ => Err("the backup lost something".into()),
        }
    };
    let (_, first) = watched(&kept_kib, back_up)?;
    let (snapshot, again) = watched(&kept_kib, back_up)?;
    let mut found = vec![
        ("first_seconds", first.seconds),
        ("first_anon_mib", first.anon_mib),
        ("again_seconds", again.seconds),
        ("again_anon_mib", again.anon_mib),
    ];
    if discarding.is_none() {
        let nowhere = Nowhere::default();
        let mut options = RestoreOptions::new(snapshot, "/nowhere");
        options.workers = workers;
        let (summary, took) = watched(&kept_kib, || Ok(restore::run(&repository, &nowhere, &Arc::new(Job::new()), &options)?))?;
        let taken = (nowhere.0.files.load(Relaxed), nowhere.0.bytes.load(Relaxed));
        if summary.exit_code != 0 || taken != (files, files * file_bytes) {
            return Err(format!("the restore lost something: files={}, bytes={}", taken.0, taken.1).into());
        }
        found.extend([("restore_seconds", took.seconds), ("restore_anon_mib", took.anon_mib)]);
    }
    Ok(found)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [files, file_bytes, scratch, rest @ ..] = &arguments[..] else {
        return Err("usage: scale FILES FILE_BYTES SCRATCH [WORKERS]".into());
    };
    let (files, file_bytes) = (files.parse()?, file_bytes.parse()?);
    let workers = rest.first().map_or(Ok(2), |n| n.parse())?;
    let found = measure(files, file_bytes, Path::new(scratch), workers)?;
    let figures: Vec<String> = found.iter().map(|(name, value)| format!("\"{name}\": {value:.3}")).collect();
    writeln!(std::io::stdout().lock(), "{{\"files\": {files}, \"bytes\": {}, {}}}", files * file_bytes, figures.join(", "))?;
    Ok(())
}
