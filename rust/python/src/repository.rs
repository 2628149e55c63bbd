//! A repository: opened and made, its snapshots and keys, its jobs.

use crate::errors::{raise, usage};
use crate::job::{self, Job, Outcome};
use crate::key::Key;
use crate::limits::{Limits, given};
use crate::listing::Listing;
use crate::results::{KeySlot, RepositoryStatus, Snapshot, id_of};
use crate::store::{Opened, Store};
use crate::words::{GivenHints, compression as compression_of, hints as hints_of, sessions, verify_upload as verify_upload_of};
use longshore_engine::backup::{self, BackupOptions, Hints, ParentChoice};
use longshore_engine::browse::{Browser, ListOptions};
use longshore_engine::check::{self, CheckOptions, Share};
use longshore_engine::job::Job as Counters;
use longshore_engine::priority::Priority;
use longshore_engine::prune::{self, PruneOptions};
use longshore_engine::repair::{self, RepairOptions};
use longshore_engine::repository as engine;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::World;
use longshore_engine::volume::{LinuxFs, RestorePolicy};
use longshore_engine::{Error, ErrorKind};
use longshore_format::id::RandomName;
use longshore_format::keys::Argon2Cost;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// An open repository.
#[pyclass(frozen, module = "longshore._native")]
pub struct Repository {
    engine: engine::Repository,
    opened: Opened,
    priority: Priority,
}

/// Snapshots, and the damaged ones by id and message.
type Listed = (Vec<Snapshot>, Vec<(String, String)>);

fn cache(folder: Option<PathBuf>, limit_bytes: Option<u64>) -> Cache {
    let cache = folder.map_or_else(Cache::none, Cache::at).counting(crate::counts::of_caches());
    match limit_bytes {
        Some(bytes) => cache.with_limit(bytes),
        None => cache,
    }
}

/// Whether there is a repository, without a key.
#[pyfunction]
fn exists(py: Python<'_>, store: &Store) -> PyResult<bool> {
    let open = store.open(false, given(None).0);
    job::call(py, move |_, cancelled| match open() {
        Ok(opened) => engine::Repository::exists(&*opened.for_call(cancelled)),
        Err(error) if error.kind() == ErrorKind::RepositoryNotFound => Ok(false),
        Err(error) => Err(error),
    })
}

/// Makes a repository.
#[pyfunction]
#[pyo3(signature = (store, key, *, cache_dir, cache_limit_bytes, limits, label))]
fn init(
    py: Python<'_>,
    store: &Store,
    key: &Key,
    cache_dir: Option<PathBuf>,
    cache_limit_bytes: Option<u64>,
    limits: Option<&Limits>,
    label: String,
) -> PyResult<Repository> {
    let (bounds, priority) = given(limits);
    let (open, unlock) = (store.open(true, bounds), key.0.clone());
    job::call(py, move |_, cancelled| {
        let (opened, cost) = (open()?, Argon2Cost::default());
        let store = opened.for_call(cancelled);
        let engine =
            engine::Repository::init(store, World::system(), &unlock, &label, cost, cache(cache_dir, cache_limit_bytes))?;
        Ok((engine, opened))
    })
    .map(|(engine, opened)| Repository { engine, opened, priority })
}

/// Opens a repository.
#[pyfunction]
#[pyo3(signature = (store, key, *, cache_dir, cache_limit_bytes, limits))]
fn open(
    py: Python<'_>,
    store: &Store,
    key: &Key,
    cache_dir: Option<PathBuf>,
    cache_limit_bytes: Option<u64>,
    limits: Option<&Limits>,
) -> PyResult<Repository> {
    let (bounds, priority) = given(limits);
    let (open, unlock) = (store.open(false, bounds), key.0.clone());
    job::call(py, move |_, cancelled| {
        let (opened, cache) = (open()?, cache(cache_dir, cache_limit_bytes));
        Ok((engine::Repository::open(opened.for_call(cancelled), World::system(), &unlock, cache)?, opened))
    })
    .map(|(engine, opened)| Repository { engine, opened, priority })
}

impl Repository {
    fn call<T: Clone + Send + 'static>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&engine::Repository, &Arc<Counters>) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        let (engine, opened) = (self.engine.clone(), self.opened.clone());
        job::call(py, move |counters, cancelled| body(&engine.with_store(opened.for_call(cancelled)), counters))
    }

    fn start(
        &self,
        py: Python<'_>,
        name: &str,
        body: impl FnOnce(&engine::Repository, &Arc<Counters>) -> Result<Outcome, Error> + Send + 'static,
    ) -> PyResult<Job> {
        let (engine, opened, priority) = (self.engine.clone(), self.opened.clone(), self.priority);
        let body = move |counters: &Arc<Counters>, cancelled: &Arc<AtomicBool>| {
            // Threads that it starts inherit it; those of calls, which somebody waits for, have the process's.
            priority.take();
            body(&engine.with_store(opened.for_job(cancelled)), counters)
        };
        job::start(py, name, body)
    }
}

#[pymethods]
impl Repository {
    /// The repository's identifier.
    #[getter]
    fn id(&self) -> String {
        self.engine.id().to_string()
    }

    /// The key slot that the key opened.
    #[getter]
    fn slot(&self) -> String {
        self.engine.slot().to_string()
    }

    /// All snapshots that count, oldest first, and the damaged ones by id and message.
    fn snapshots(&self, py: Python<'_>) -> PyResult<Listed> {
        let (rows, damaged) = self.call(py, |repository, _| repository.snapshots())?;
        let damaged = damaged.into_iter().map(|(session, error)| (id_of(session), error.message().to_owned())).collect();
        Ok((rows.iter().map(Snapshot::from).collect(), damaged))
    }

    /// One snapshot by id, unique prefix, or `latest`.
    #[pyo3(signature = (wanted, *, source))]
    fn find(&self, py: Python<'_>, wanted: String, source: Option<String>) -> PyResult<Snapshot> {
        self.call(py, move |repository, _| repository.find_snapshot(&wanted, source.as_deref())).map(|row| Snapshot::from(&row))
    }

    /// Deletes a snapshot.
    #[pyo3(signature = (snapshot_id, *, by))]
    fn remove(&self, py: Python<'_>, snapshot_id: String, by: String) -> PyResult<()> {
        self.call(py, move |repository, _| {
            repository.delete_snapshot(&snapshot_id, &by)?;
            Ok(())
        })
    }

    /// Its key slots.
    fn slots(&self, py: Python<'_>) -> PyResult<Vec<KeySlot>> {
        Ok(self.call(py, |repository, _| repository.slots())?.iter().map(KeySlot::from).collect())
    }

    /// Adds a key slot; gives its name.
    #[pyo3(signature = (key, *, label))]
    fn add_slot(&self, py: Python<'_>, key: &Key, label: String) -> PyResult<String> {
        let unlock = key.0.clone();
        self.call(py, move |repository, _| repository.add_slot(&unlock, &label, Argon2Cost::default()))
            .map(|name| name.to_string())
    }

    /// Takes a key slot away.
    fn remove_slot(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let parsed = RandomName::from_hex(name).map_err(|_| {
            usage(
                py,
                format!("a key slot's name is 32 hexadecimal digits: slot={name:?}"),
                "list them with: longshore repo key list",
            )
        })?;
        self.call(py, move |repository, _| repository.remove_slot(parsed))
    }

    /// What it holds.
    fn status(&self, py: Python<'_>) -> PyResult<RepositoryStatus> {
        self.call(py, |repository, counters| {
            let index = repository.load_index(counters)?;
            let (rows, damaged) = repository.snapshots()?;
            Ok(RepositoryStatus {
                id: repository.id().to_string(),
                format_version: repository.keys().version(),
                created_nanos: repository.config().created_nanos,
                packs: index.pack_sizes().len() as u64,
                pack_bytes: index.pack_sizes().values().sum(),
                chunks: index.len(),
                snapshots: rows.len() as u64,
                snapshots_damaged: damaged.len() as u64,
                slots: repository.slots()?.len() as u64,
                index_damaged: index.damaged.len() as u64,
            })
        })
    }

    /// New credentials, for running jobs too.
    fn set_credentials(&self, py: Python<'_>, access_key: &str, secret_key: &str, session_token: Option<String>) -> PyResult<()> {
        self.opened.set_credentials(access_key, secret_key, session_token).map_err(|error| raise(py, &error))
    }

    /// Starts a backup.
    #[pyo3(signature = (*, path, source, host, tags, parent, excludes, exclude_root_names, one_file_system, dry_run, strict, workers,
        memory_limit_bytes, compression, verify_upload, paranoid, hints))]
    #[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "named on the Python side")]
    fn backup(
        &self,
        py: Python<'_>,
        path: PathBuf,
        source: String,
        host: String,
        mut tags: Vec<(String, String)>,
        parent: Option<String>,
        excludes: Vec<String>,
        exclude_root_names: Vec<Vec<u8>>,
        one_file_system: bool,
        dry_run: bool,
        strict: bool,
        workers: usize,
        memory_limit_bytes: usize,
        compression: &str,
        verify_upload: &str,
        paranoid: bool,
        hints: Option<GivenHints>,
    ) -> PyResult<Job> {
        tags.sort();
        let hints = Arc::new(hints.map_or(Ok(Hints::default()), |hints| hints_of(py, hints))?);
        let mut options = BackupOptions {
            path,
            source,
            host,
            tags,
            parent: ParentChoice::Auto,
            excludes,
            exclude_root_names,
            one_file_system,
            dry_run,
            strict,
            paranoid,
            workers,
            upload_threads: self.opened.upload_threads(),
            memory_budget_bytes: memory_limit_bytes,
            compression: compression_of(py, compression)?,
            verify: verify_upload_of(py, verify_upload)?,
        };
        self.start(py, "longshore-backup", move |repository, counters| {
            options.parent = match parent.as_deref() {
                None => ParentChoice::Auto,
                Some("none") => ParentChoice::None,
                Some(wanted) => ParentChoice::Snapshot(repository.find_snapshot(wanted, Some(&options.source))?.session),
            };
            Ok(Outcome::Backup(Arc::new(backup::run_with_hints(repository, &LinuxFs, counters, &options, &hints)?)))
        })
    }

    /// Starts a restore.
    #[pyo3(signature = (*, snapshot_id, path, target, delete_extra, allow_setuid, allow_devices, allow_capabilities,
        allow_trusted_xattrs, allow_selinux, restore_owner, restore_root_metadata, dry_run, strict, keep_damaged, trust_times,
        workers, memory_limit_bytes, host))]
    #[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "named on the Python side")]
    fn restore(
        &self,
        py: Python<'_>,
        snapshot_id: String,
        path: Vec<u8>,
        target: PathBuf,
        delete_extra: bool,
        allow_setuid: bool,
        allow_devices: bool,
        allow_capabilities: bool,
        allow_trusted_xattrs: bool,
        allow_selinux: bool,
        restore_owner: bool,
        restore_root_metadata: bool,
        dry_run: bool,
        strict: bool,
        keep_damaged: bool,
        trust_times: bool,
        workers: usize,
        memory_limit_bytes: usize,
        host: String,
    ) -> PyResult<Job> {
        let policy =
            RestorePolicy { allow_setuid, allow_devices, allow_capabilities, allow_trusted_xattrs, allow_selinux, restore_owner };
        let fetch_threads = self.opened.fetch_threads();
        self.start(py, "longshore-restore", move |repository, counters| {
            let snapshot = repository.find_snapshot(&snapshot_id, None)?.session;
            let options = RestoreOptions {
                path,
                delete_extra,
                policy,
                workers,
                memory_budget_bytes: memory_limit_bytes,
                host,
                restore_root_metadata,
                dry_run,
                strict,
                keep_damaged,
                trust_times,
                fetch_threads,
                ..RestoreOptions::new(snapshot, target)
            };
            Ok(Outcome::Restore(Arc::new(restore::run(repository, &LinuxFs, counters, &options)?)))
        })
    }

    /// Bounds the traffic of all jobs together, from now on.
    #[pyo3(signature = (*, upload_bytes_per_second, download_bytes_per_second))]
    fn limit_traffic(&self, upload_bytes_per_second: u64, download_bytes_per_second: u64) {
        self.opened.limits().set_traffic(upload_bytes_per_second, download_bytes_per_second);
    }

    /// Forgets what checks, verifies and repairs have read.
    fn forget_journals(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |repository, _| {
            check::forget_journals(repository);
            Ok(())
        })
    }

    /// Starts a check of the whole repository.
    #[pyo3(signature = (*, read_percent, share, fresh, workers, memory_limit_bytes, host))]
    #[expect(clippy::too_many_arguments, reason = "named on the Python side")]
    fn check(
        &self,
        py: Python<'_>,
        read_percent: u8,
        share: Option<(u32, u32)>,
        fresh: bool,
        workers: usize,
        memory_limit_bytes: usize,
        host: String,
    ) -> PyResult<Job> {
        let share = share.map(|(part, parts)| Share { part, parts });
        let options = CheckOptions {
            share,
            read_percent,
            workers,
            memory_budget_bytes: memory_limit_bytes,
            host,
            fresh,
            keep_journal: false,
        };
        self.start(py, "longshore-check", move |repository, counters| {
            Ok(Outcome::Check(Arc::new(check::run(repository, counters, &options)?)))
        })
    }

    /// Starts a check of what one snapshot needs.
    #[pyo3(signature = (snapshot_id, *, tags_only, share, fresh, keep_journal, workers, memory_limit_bytes, host))]
    #[expect(clippy::too_many_arguments, reason = "named on the Python side")]
    fn verify(
        &self,
        py: Python<'_>,
        snapshot_id: String,
        tags_only: bool,
        share: Option<(u32, u32)>,
        fresh: bool,
        keep_journal: bool,
        workers: usize,
        memory_limit_bytes: usize,
        host: String,
    ) -> PyResult<Job> {
        let share = share.map(|(part, parts)| Share { part, parts });
        let options = CheckOptions {
            share,
            read_percent: 100,
            workers,
            memory_budget_bytes: memory_limit_bytes,
            host,
            fresh,
            keep_journal,
        };
        self.start(py, "longshore-verify", move |repository, counters| {
            let session = repository.find_snapshot(&snapshot_id, None)?.session;
            Ok(Outcome::Check(Arc::new(check::verify_snapshot(repository, session, !tags_only, counters, &options)?)))
        })
    }

    /// Starts a prune.
    #[pyo3(signature = (*, dry_run, forget, allow_empty, waste_percent, max_repack_bytes, fence_after_seconds, fence_now, fence))]
    #[expect(clippy::too_many_arguments, reason = "named on the Python side")]
    fn prune(
        &self,
        py: Python<'_>,
        dry_run: bool,
        forget: Vec<String>,
        allow_empty: bool,
        waste_percent: u8,
        max_repack_bytes: Option<u64>,
        fence_after_seconds: u64,
        fence_now: bool,
        fence: Vec<String>,
    ) -> PyResult<Job> {
        let options = PruneOptions {
            dry_run,
            forget: sessions(py, &forget)?,
            allow_empty,
            waste_percent,
            max_repack_bytes,
            fence_after: Duration::from_secs(fence_after_seconds),
            fence_now,
            fence: sessions(py, &fence)?,
            ..PruneOptions::default()
        };
        self.start(py, "longshore-prune", move |repository, counters| {
            Ok(Outcome::Prune(Arc::new(prune::run(repository, counters, &options)?)))
        })
    }

    /// Starts a repair.
    #[pyo3(signature = (*, dry_run, read_data, fresh, workers, memory_limit_bytes, host))]
    #[expect(clippy::too_many_arguments, reason = "named on the Python side")]
    fn repair(
        &self,
        py: Python<'_>,
        dry_run: bool,
        read_data: bool,
        fresh: bool,
        workers: usize,
        memory_limit_bytes: usize,
        host: String,
    ) -> PyResult<Job> {
        let options = RepairOptions {
            dry_run,
            read_data,
            workers,
            memory_budget_bytes: memory_limit_bytes,
            host,
            fresh,
            ..RepairOptions::default()
        };
        self.start(py, "longshore-repair", move |repository, counters| {
            Ok(Outcome::Repair(Arc::new(repair::run(repository, counters, &options)?)))
        })
    }

    /// Opens a directory of a snapshot to be listed page by page, from the beginning or after an entry.
    #[pyo3(signature = (snapshot_id, path, *, recursive, after, host))]
    fn listing(
        &self,
        py: Python<'_>,
        snapshot_id: String,
        path: Vec<u8>,
        recursive: bool,
        after: Option<Vec<u8>>,
        host: String,
    ) -> PyResult<Listing> {
        // A listing outlives this call, whose flags are set when it ends: it gets its own.
        let (engine, opened) = (self.engine.clone(), self.opened.clone());
        job::call(py, move |counters, _| {
            let repository = engine.with_store(opened.for_call(&Arc::new(AtomicBool::new(false))));
            let session = repository.find_snapshot(&snapshot_id, None)?.session;
            let options = ListOptions { recursive, ..ListOptions::default() };
            let browser = Browser::open(&repository, session, &host, &Arc::new(Counters::new()))?;
            let mut listing = browser.list(&path, &options)?;
            while let Some(after) = &after {
                counters.check()?;
                match listing.page(1)?.first() {
                    Some(row) if row.path == *after => break,
                    Some(_) => {}
                    None => {
                        let what = "no entry of this listing has the path that it is to go on after";
                        let message = format!("{what}: after={}", String::from_utf8_lossy(after));
                        return Err(Error::new(ErrorKind::Usage, message).with_next_step("begin anew"));
                    }
                }
            }
            Ok(Listing::new(listing))
        })
    }

    fn __repr__(&self) -> String {
        format!("Repository(id={}, store={})", self.engine.id(), self.engine.store().describe())
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Repository>()?;
    m.add_function(wrap_pyfunction!(exists, m)?)?;
    m.add_function(wrap_pyfunction!(init, m)?)?;
    m.add_function(wrap_pyfunction!(open, m)?)
}
