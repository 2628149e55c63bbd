//! One process's way to the store: where every call takes its turn and may be broken.
//!
//! A [`Plan`] sees each call before it is made and says how long it takes and what becomes of it. Promises that the same plan does the
//! same, and that a process that has died changes nothing any more.

use crate::sea::Sea;
use crate::stage::Stage;
use bytes::Bytes;
use longshore_store::layers::Verb;
use longshore_store::{Key, Page, Put, Store, StoreError, StoreErrorKind};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What becomes of a call. What does not apply to its verb passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing special.
    Pass,
    /// Fails; the store is not asked.
    FailBefore(StoreErrorKind),
    /// The store does it, and the answer is lost.
    FailAfter(StoreErrorKind),
    /// Put, delete: fails, and lands so many nanoseconds later.
    Late(u64),
    /// Put: only a beginning lands, and the call fails.
    Torn(usize),
    /// Put, delete: answered as done, and nothing was.
    Lose,
    /// List: leaves out what a store may leave out.
    Short(u64),
    /// List: leaves out snapshots, sessions, tombstones, open writers and removals that something else shows.
    Hide(u64),
    /// List: shows what was deleted.
    Stale(u64),
    /// List: nothing is there.
    Empty,
    /// Range: a byte in the middle is wrong. Put: the same, in what lands.
    Garbled,
    /// Put: lands although the key is taken, in place of what is there.
    Overwrite,
    /// The process dies, and the store is not asked.
    DieBefore,
    /// The process dies after the store did it.
    DieAfter,
    /// The process dies while a put is torn.
    DieTorn(usize),
}

/// A call, as a plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which call of this process.
    pub number: u64,
    /// What is asked.
    pub verb: Verb,
    /// Key or prefix.
    pub key: &'a str,
}

/// Chooses fates.
pub trait Plan: Send {
    /// How many nanoseconds pass before the call, and what becomes of it.
    fn next(&mut self, call: &Call<'_>) -> (u64, Fate);
}

impl<F: FnMut(&Call<'_>) -> (u64, Fate) + Send> Plan for F {
    fn next(&mut self, call: &Call<'_>) -> (u64, Fate) {
        self(call)
    }
}

struct State {
    plan: Box<dyn Plan>,
    number: u64,
    dead: bool,
    disturbed: bool,
    misled: bool,
    /// Names of sessions and generations that the job was shown.
    shown: BTreeSet<String>,
}

/// A way to the store.
pub struct Link {
    sea: Arc<Sea>,
    stage: Arc<Stage>,
    process: usize,
    state: Mutex<State>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("process", &self.process).finish_non_exhaustive()
    }
}

fn dead() -> StoreError {
    StoreError::new(StoreErrorKind::Io, "this process is dead")
}

fn fault(kind: StoreErrorKind, key: &str) -> StoreError {
    StoreError::new(kind, format!("fault on purpose: key={key}"))
}

fn garbled(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    if let Some(middle) = bytes.get_mut(body.len() / 2) {
        *middle ^= 1;
    }
    Bytes::from(bytes)
}

/// Listings whose names have to be shown again by those that follow.
const NAMING: [&str; 3] = ["sessions/", "tombstones/", "open/"];

const LOST: StoreErrorKind = StoreErrorKind::Unavailable;

impl Link {
    /// The way of a process.
    #[must_use]
    pub fn new(sea: Arc<Sea>, stage: Arc<Stage>, process: usize, plan: Box<dyn Plan>) -> Arc<Self> {
        let state = State { plan, number: 0, dead: false, disturbed: false, misled: false, shown: BTreeSet::new() };
        Arc::new(Self { sea, stage, process, state: Mutex::new(state) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Its place on the stage.
    #[must_use]
    pub fn process(&self) -> usize {
        self.process
    }

    /// Lets the process die now.
    pub fn die(&self) {
        self.lock().dead = true;
    }

    /// Whether any call had another fate than to pass.
    #[must_use]
    pub fn was_disturbed(&self) -> bool {
        self.lock().disturbed
    }

    /// Whether a listing did not show it what is there.
    #[must_use]
    pub fn was_misled(&self) -> bool {
        self.lock().misled
    }

    /// Another job begins, which knows nothing of what the last one was shown.
    pub fn begin_job(&self) {
        self.lock().shown.clear();
    }

    /// Remembers whom a page or an object names.
    fn show(&self, names: impl IntoIterator<Item = String>) {
        self.lock().shown.extend(names);
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().number
    }

    fn step<T>(&self, verb: Verb, key: &str, call: impl FnOnce(Fate) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (pause, fate) = {
            let mut state = self.lock();
            if state.dead {
                return Err(dead());
            }
            let number = state.number;
            state.number += 1;
            let (pause, fate) = state.plan.next(&Call { number, verb, key });
            state.disturbed |= fate != Fate::Pass;
            state.misled |= matches!(fate, Fate::Short(_) | Fate::Hide(_) | Fate::Stale(_) | Fate::Empty);
            (pause, fate)
        };
        let now = self.stage.step(self.process, pause);
        self.sea.land(now);
        self.sea.turn(now);
        let result = match fate {
            Fate::FailBefore(kind) => Err(fault(kind, key)),
            Fate::DieBefore => {
                self.die();
                Err(dead())
            }
            fate => call(fate),
        };
        if self.stage.tells() {
            let failure = result.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
            self.stage.tell(self.process, &format!("{verb} {key} {fate:?}{failure}"));
        }
        self.stage.note(self.process, key, (verb.number() as u64) << 1 | u64::from(result.is_ok()));
        match fate {
            Fate::FailAfter(kind) => Err(fault(kind, key)),
            Fate::DieAfter | Fate::DieTorn(_) => {
                self.die();
                Err(dead())
            }
            _ => result,
        }
    }
}

impl Store for Link {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.step(Verb::PutNew, key.as_str(), |fate| {
            let cut = |keep: usize| body.slice(..keep.min(body.len().saturating_sub(1)));
            if matches!(fate, Fate::Lose | Fate::Torn(_) | Fate::DieTorn(_)) {
                self.sea.note_lie();
            }
            match fate {
                Fate::Lose => Ok(if self.sea.objects().head(key).is_ok() { Put::Exists } else { Put::Created }),
                Fate::Torn(keep) => self.sea.put(self.process, key, cut(keep)).and(Err(fault(LOST, key.as_str()))),
                Fate::DieTorn(keep) => self.sea.put(self.process, key, cut(keep)),
                Fate::Late(nanos) => {
                    self.sea.put_later(self.process, self.stage.now().saturating_add(nanos), key, body.clone());
                    Err(fault(LOST, key.as_str()))
                }
                Fate::Garbled => self.sea.put(self.process, key, garbled(&body)),
                Fate::Overwrite => Ok(self.sea.put_over(self.process, key, body.clone())),
                _ => self.sea.put(self.process, key, body.clone()),
            }
        })
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let got = self.step(Verb::Get, key.as_str(), |_| self.sea.objects().get(key, limit_bytes));
        if got.is_ok()
            && let Some(generation) = key.as_str().strip_prefix("open/")
        {
            self.show(self.sea.open_writers_of(generation));
        }
        got
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        self.step(Verb::GetRange, key.as_str(), |fate| {
            let range = self.sea.objects().get_range(key, offset_bytes, length_bytes)?;
            Ok(if fate == Fate::Garbled { garbled(&range) } else { range })
        })
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        self.step(Verb::Head, key.as_str(), |_| self.sea.objects().head(key))
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let page = self.step(Verb::List, prefix, |fate| match fate {
            Fate::Empty => Ok(Page::default()),
            Fate::Short(seed) => self.sea.short_list(seed, prefix, after, limit),
            Fate::Hide(seed) => {
                let shown = self.lock().shown.clone();
                self.sea.hiding_list(seed, prefix, after, limit, &shown)
            }
            Fate::Stale(seed) => self.sea.stale_list(seed, prefix, after, limit),
            _ => self.sea.objects().list(prefix, after, limit),
        })?;
        if NAMING.contains(&prefix) {
            self.show(page.entries.iter().filter_map(|entry| entry.key.as_str().strip_prefix(prefix)).map(str::to_owned));
        }
        Ok(page)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.step(Verb::Delete, key.as_str(), |fate| match fate {
            Fate::Lose => Ok(()),
            Fate::Late(nanos) => {
                self.sea.delete_later(self.process, self.stage.now().saturating_add(nanos), key);
                Err(fault(LOST, key.as_str()))
            }
            _ => self.sea.delete(self.process, key),
        })
    }

    fn describe(&self) -> String {
        "sea".to_owned()
    }
}
