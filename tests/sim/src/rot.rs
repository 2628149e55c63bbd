//! Every byte of a repository flipped, zeroed, cut: whoever reads finds it, or it changes nothing.
//!
//! One trial damages one object at one byte, then opens, lists, checks and restores every snapshot as the engine does for an operator. What
//! comes out must be what was backed up, or named as lost; what a restore misses a check must have found. Objects that steer prunes
//! and backups are damaged under those, too, while the oracle watches. Damage that nobody names must change nothing at all.

use crate::portrait::{Portrait, portrait};
use crate::process::{Birth, NEW_SECRET, Process, SECRET, bytes_at, session_id};
use crate::relic::Relic;
use crate::scene::{BEGIN, prune_options};
use crate::stage::{SimClock, SimRng, Stage};
use bytes::Bytes;
use longshore_engine::check::{self, CheckOptions};
use longshore_engine::job::Job;
use longshore_engine::prune::PruneOptions;
use longshore_engine::repository::Repository;
use longshore_engine::repository::cache::Cache;
use longshore_engine::restore::{self, RestoreOptions};
use longshore_engine::seams::{SystemSpawn, World};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Fs, RootOptions};
use longshore_format::id::SessionId;
use longshore_format::keys::Unlock;
use longshore_format::snapshot::Snapshot;
use longshore_store::{Key, MemoryStore, Page, Put, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// How a byte is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One of its bits is turned.
    Flip,
    /// It becomes zero.
    Zero,
    /// The object ends before it.
    Cut,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flip, Self::Zero, Self::Cut];

    /// The object damaged so; none when that changes nothing.
    fn apply(self, body: &Bytes, at: usize) -> Option<Bytes> {
        let mut out = body.to_vec();
        match self {
            Self::Flip => out[at] ^= 1 << (at % 8),
            Self::Zero if out[at] == 0 => return None,
            Self::Zero => out[at] = 0,
            Self::Cut => out.truncate(at),
        }
        Some(Bytes::from(out))
    }
}

/// What an operator sees of a repository.
#[derive(Debug, PartialEq)]
struct Sight {
    /// The listing; empty when there is none.
    list: Vec<(SessionId, Snapshot)>,
    /// What a check says, without its time.
    check: String,
    is_clean: bool,
    /// What each snapshot gives back, and whether that is said to be all.
    restored: BTreeMap<String, (Portrait, bool)>,
}

/// How the trials ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Mutations.
    pub mutations: u64,
    /// Of them, named by somebody.
    pub found: u64,
    /// Of them, without any effect.
    pub irrelevant: u64,
    /// Of them, tried under prunes and a backup, too.
    pub lived: u64,
}

/// The repository, and how it looks undamaged.
#[derive(Debug)]
pub struct Rot {
    relic: Relic,
    objects: Vec<(String, u64)>,
    undamaged: Sight,
    /// Objects that the restore of each snapshot asks for, undamaged.
    asked: BTreeMap<String, BTreeSet<String>>,
}

/// Notes what is asked for.
#[derive(Debug)]
struct Asked {
    inner: MemoryStore,
    keys: Mutex<BTreeSet<String>>,
}

impl Asked {
    fn note(&self, key: &Key) -> &MemoryStore {
        self.keys.lock().unwrap().insert(key.as_str().to_owned());
        &self.inner
    }
}

impl Store for Asked {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.note(key).put_new(key, body)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.note(key).get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.note(key).get_range(key, offset_bytes, length_bytes)
    }
    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.note(key).head(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.note(key).delete(key)
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn world(seed: u64) -> World {
    let clock = Arc::new(SimClock::new(Stage::alone(BEGIN), 0, 0, (0, 0)));
    World { clock, rng: Arc::new(SimRng::new(seed, 0)), spawn: Arc::new(SystemSpawn) }
}

impl Rot {
    /// Makes the repository and looks at it.
    #[must_use]
    pub fn new() -> Self {
        let relic = Relic::new();
        let fork = || relic.repository.with_world(world(1)).with_store(Arc::new(relic.sea.objects().fork()));
        let undamaged = look(&relic, &fork(), |_| true).expect("an undamaged repository gives back what it was given");
        let asked = relic.held.iter().map(|(session, truth)| {
            let store = Arc::new(Asked { inner: relic.sea.objects().fork(), keys: Mutex::new(BTreeSet::new()) });
            let repository = fork().with_store(Arc::<Asked>::clone(&store));
            restore_one(&repository, session, truth).expect("an undamaged restore");
            let keys = store.keys.lock().unwrap().clone();
            (session.clone(), keys)
        });
        let asked = asked.collect();
        assert!(undamaged.is_clean, "{undamaged:?}");
        assert!(undamaged.restored.values().all(|(_, whole)| *whole), "{undamaged:?}");
        Self { objects: relic.objects(), relic, undamaged, asked }
    }

    /// Bytes that can be damaged.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|(_, size)| size).sum()
    }

    /// Damages one byte in every way.
    ///
    /// # Errors
    /// The first damage that does harm.
    pub fn play(&self, byte: u64, tried: &mut Tried) -> Result<(), String> {
        let mut at = byte;
        for (key, size) in &self.objects {
            if at < *size {
                let body = bytes_at(self.relic.sea.objects(), key);
                for damage in Damage::ALL {
                    let Some(bad) = damage.apply(&body, at as usize) else { continue };
                    let done = catch_unwind(AssertUnwindSafe(|| self.one(key, &bad, byte, tried)));
                    let outcome = done.unwrap_or_else(|_| Err("the engine panicked".to_owned()));
                    outcome.map_err(|why| format!("{damage:?} of byte {at} of {size} of {key}: {why}"))?;
                    tried.mutations += 1;
                }
                return Ok(());
            }
            at -= size;
        }
        Ok(())
    }

    fn one(&self, key: &str, bad: &Bytes, seed: u64, tried: &mut Tried) -> Result<(), String> {
        // An object of unchanged length cannot move a restore that does not ask for it.
        let shorter = (bad.len() as u64) < self.relic.sea.size_bytes(key);
        let may_move = |session: &str| shorter || self.asked[session].contains(key);
        let store = Arc::new(self.relic.sea.objects().fork());
        store.overwrite(&Key::new(key).expect("a key"), bad.clone());
        let mut found = false;
        let mut sights = vec![];
        if key.starts_with("config/") || key.starts_with("keys/") {
            for secret in [SECRET, NEW_SECRET] {
                match Repository::open(Arc::<MemoryStore>::clone(&store), world(seed), &Unlock::Secret(secret), Cache::none()) {
                    Ok(repository) => sights.push(look(&self.relic, &repository, may_move)?),
                    Err(_) => found = true,
                }
            }
        } else {
            let repository = self.relic.repository.with_world(world(seed)).with_store(Arc::<MemoryStore>::clone(&store));
            sights.push(look(&self.relic, &repository, may_move)?);
        }
        for sight in &sights {
            let whole = sight.restored.values().all(|(_, whole)| *whole);
            if sight.is_clean && (!whole || sight.list != self.undamaged.list) {
                return Err(format!("a check finds nothing, and a restore is not whole: {sight:?}"));
            }
            found |= !sight.is_clean || sight.check != self.undamaged.check;
            let same = sight.restored.iter().all(|(session, restored)| self.undamaged.restored.get(session) == Some(restored));
            let is_same = same && sight.list == self.undamaged.list;
            if !found && !is_same {
                return Err(format!("nobody names the damage, and it changes something: {sight:?}"));
            }
        }
        if !key.starts_with("packs/") {
            tried.lived += 1;
            found |= self.live(key, bad, seed, &sights)?;
        }
        if found {
            tried.found += 1
        } else {
            tried.irrelevant += 1
        }
        Ok(())
    }

    /// Prunes and a backup over the damage: they refuse, or do no harm. Whether one refused.
    fn live(&self, key: &str, bad: &Bytes, seed: u64, before: &[Sight]) -> Result<bool, String> {
        let sea = self.relic.sea.fork();
        sea.objects().overwrite(&Key::new(key).expect("a key"), bad.clone());
        let birth = Birth::quiet(seed ^ 0x407);
        let mut process = Process::new(&sea, &Stage::alone(BEGIN), birth);
        if !(key.starts_with("config/") || key.starts_with("keys/")) {
            process = process.at_home(&self.relic.repository);
        }
        let mut refused = false;
        for _ in 0..2 {
            refused |= process.prune(&PruneOptions { fence_now: true, ..prune_options() }).is_err();
        }
        match process.back_up(&self.relic.volume, "a") {
            Ok(session) => {
                process
                    .restore(&session, &MadeUpFs::default())
                    .map_err(|e| format!("a backup over the damage is not whole: {e}"))?;
            }
            Err(_) => refused = true,
        }
        if let Some(what) = sea.oracle(|ledger| ledger.violation().map(str::to_owned)) {
            return Err(format!("prunes and a backup over the damage: {what}"));
        }
        let Ok(repository) = process.repository() else { return Ok(true) };
        let after = look(&self.relic, &repository, |session| before.iter().any(|sight| sight.restored.contains_key(session)))?;
        for (session, (was, whole)) in before.iter().flat_map(|sight| &sight.restored) {
            let is = after.restored.get(session);
            if is.is_none_or(|(is, still)| (*whole && !still) || was.keys().any(|path| !is.contains_key(path))) {
                return Err(format!("after prunes over the damage snapshot {session} gives back less: {was:?}, now {is:?}"));
            }
        }
        Ok(refused)
    }
}

impl Default for Rot {
    fn default() -> Self {
        Self::new()
    }
}

/// Lists, checks and restores.
///
/// # Errors
/// What comes out and is not what went in.
fn look(relic: &Relic, repository: &Repository, restores: impl Fn(&str) -> bool) -> Result<Sight, String> {
    let (rows, mut is_clean) = match repository.snapshots() {
        Ok((rows, damaged)) => (rows, damaged.is_empty()),
        Err(_) => (vec![], false),
    };
    let options = CheckOptions { read_percent: 100, workers: 0, memory_budget_bytes: 32 << 20, ..CheckOptions::default() };
    let check = match check::run(repository, &Arc::new(Job::new()), &options) {
        Ok(report) => {
            is_clean &= report.exit_code == 0;
            format!("{:?} {:?}", report.findings, report.hurt)
        }
        Err(error) => {
            is_clean = false;
            error.to_string()
        }
    };
    let mut restored = BTreeMap::new();
    for session in rows.iter().map(|row| row.session.to_string()) {
        let Some(truth) = relic.held.get(&session).filter(|_| restores(&session)) else { continue };
        restored.insert(session.clone(), restore_one(repository, &session, truth).map_err(|why| format!("{session}: {why}"))?);
    }
    let list = rows.into_iter().map(|row| (row.session, row.snapshot)).collect();
    Ok(Sight { list, check, is_clean, restored })
}

/// What a snapshot gives back, and whether that is said to be all of it.
fn restore_one(repository: &Repository, session: &str, truth: &Portrait) -> Result<(Portrait, bool), String> {
    let fs = MadeUpFs::default();
    let options = RestoreOptions {
        workers: 0,
        fetch_threads: 0,
        memory_budget_bytes: 32 << 20,
        ..RestoreOptions::new(session_id(session), "restored")
    };
    let summary = restore::run(repository, &fs, &Arc::new(Job::new()), &options);
    let root = fs.open_root(Path::new("restored"), RootOptions::default());
    let found = root.map(|root| portrait(&*root)).unwrap_or_default();
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    // What bears its name is whole, attributes apart, however the restore ended.
    for (path, thing) in &found {
        match truth.get(path) {
            Some(was) if was.content == thing.content => {}
            Some(was) => return Err(format!("wrong bytes: {}: {thing:?}, not {was:?}", text(path))),
            None if summary.is_ok() => return Err(format!("never was: {}", text(path))),
            None => {}
        }
    }
    let Ok(summary) = summary else { return Ok((Portrait::new(), false)) };
    let named = |path: &[u8]| {
        let holds = |loss: &[u8]| loss.is_empty() || path == loss || path.starts_with(&[loss, b"/"].concat());
        summary.losses.iter().any(|loss| holds(&loss.path))
    };
    for (path, thing) in &found {
        let was = &truth[path];
        // The name that was first may be lost, and another is first then.
        let is_linked = was.first == thing.first || was.first.as_ref().is_some_and(|first| !found.contains_key(first));
        if (was.looks != thing.looks || !is_linked) && !named(path) {
            return Err(format!("wrong and not named: {}: {thing:?}, not {was:?}", text(path)));
        }
    }
    let missing = truth.keys().find(|path| !found.contains_key(*path));
    if let Some(path) = missing.filter(|path| !named(path)) {
        return Err(format!("missing and not named: {}", text(path)));
    }
    if summary.exit_code == 0 && (missing.is_some() || found != *truth) {
        return Err("a restore says all is well, and it is not".to_owned());
    }
    Ok((found, summary.exit_code == 0))
}
