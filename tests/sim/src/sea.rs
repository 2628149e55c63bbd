//! The store that all processes of a simulation share, and the oracle that watches it.
//!
//! Every object that appears or goes is shown to the oracle at that moment. Requests may be under way for long after their process has
//! given them up: they land when their time has come. Does not choose faults: a [`crate::link::Link`] does.

use crate::draw::Draw;
use crate::oracle::Ledger;
use bytes::Bytes;
use longshore_store::{Entry, Key, MemoryStore, Page, Put, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug)]
enum Late {
    Put(Key, Bytes),
    Delete(Key),
}

#[derive(Debug)]
struct State {
    ledger: Option<Ledger>,
    late: Vec<(u64, usize, Late)>,
    /// Who put the marker of a session, by its key.
    makers: HashMap<String, usize>,
    /// Processes whose session somebody else ended.
    fenced: BTreeSet<usize>,
    /// What was deleted and is not there again, with its length.
    gone: BTreeMap<String, u64>,
    /// Whether a put was kept in part, or answered and not kept.
    lied: bool,
    turns: u64,
    /// Turns at which a copy is taken, and the copies, with their moments.
    cuts: BTreeSet<u64>,
    taken: Vec<(u64, Arc<Sea>)>,
}

impl State {
    fn of(ledger: Option<Ledger>, lied: bool) -> Self {
        Self {
            ledger,
            late: vec![],
            makers: HashMap::new(),
            fenced: BTreeSet::new(),
            gone: BTreeMap::new(),
            lied,
            turns: 0,
            cuts: BTreeSet::new(),
            taken: vec![],
        }
    }
}

/// A shared store.
#[derive(Debug)]
pub struct Sea {
    objects: MemoryStore,
    state: Mutex<State>,
    /// Shared by all forks.
    moved: Arc<AtomicU64>,
}

impl Sea {
    /// An empty store that nobody watches yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { objects: MemoryStore::new(), state: Mutex::new(State::of(None, false)), moved: Arc::default() })
    }

    /// A copy of what is there now, without requests under way.
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        self.copy(&self.lock())
    }

    fn copy(&self, state: &State) -> Arc<Self> {
        let state = Mutex::new(State::of(state.ledger.clone(), state.lied));
        Arc::new(Self { objects: self.objects.fork(), state, moved: Arc::clone(&self.moved) })
    }

    /// Takes copies at these turns: what all find who come after everybody died there.
    pub fn cut_at(&self, turns: impl IntoIterator<Item = u64>) {
        self.lock().cuts.extend(turns);
    }

    /// Somebody is about to make a call.
    pub fn turn(&self, now: u64) {
        let mut state = self.lock();
        state.turns += 1;
        if !state.cuts.is_empty() && state.cuts.contains(&state.turns) {
            let copy = self.copy(&state);
            state.taken.push((now, copy));
        }
    }

    /// The copies, with their moments.
    #[must_use]
    pub fn taken(&self) -> Vec<(u64, Arc<Self>)> {
        std::mem::take(&mut self.lock().taken)
    }

    /// The store keeps a part of what it was given, or nothing, and says otherwise.
    pub fn note_lie(&self) {
        self.lock().lied = true;
    }

    /// Whether it ever did.
    #[must_use]
    pub fn has_lied(&self) -> bool {
        self.lock().lied
    }

    /// Writers that the list of a generation names.
    #[must_use]
    pub fn open_writers_of(&self, generation: &str) -> Vec<String> {
        self.lock().ledger.as_ref().map(|ledger| ledger.open_of(generation).to_vec()).unwrap_or_default()
    }

    /// How often, in this sea and all its forks, a prune moved frames out of a pack for what is dead in it.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// A prune did.
    pub fn note_moved(&self, packs: u64) {
        self.moved.fetch_add(packs, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an oracle watch from now on.
    pub fn watch(&self, ledger: Ledger) {
        self.lock().ledger = Some(ledger);
    }

    /// Asks or tells the oracle.
    pub fn oracle<T>(&self, ask: impl FnOnce(&mut Ledger) -> T) -> T {
        ask(self.lock().ledger.as_mut().expect("a sea is watched once its repository is made"))
    }

    /// The objects themselves.
    #[must_use]
    pub fn objects(&self) -> &MemoryStore {
        &self.objects
    }

    /// All keys under a prefix.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let page = self.objects.list(prefix, None, 1_000_000).expect("a listing of memory");
        page.entries.iter().map(|entry| entry.key.to_string()).collect()
    }

    /// Whether an object is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.size_bytes(key) > 0
    }

    /// Length of an object; 0 when it is absent.
    #[must_use]
    pub fn size_bytes(&self, key: &str) -> u64 {
        self.objects.head(&Key::new(key).expect("a key")).unwrap_or(0)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As a store.
    pub fn put(&self, process: usize, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let mut state = self.lock();
        let put = self.objects.put_new(key, body.clone())?;
        if put == Put::Created {
            state.gone.remove(key.as_str());
            if key.as_str().starts_with("sessions/") {
                state.makers.insert(key.as_str().to_owned(), process);
            }
            if let Some(session) = key.as_str().strip_prefix("snapshots/")
                && let Some(owner) = state.makers.get(&format!("sessions/{session}")).copied()
                && owner != process
            {
                state.fenced.insert(owner);
            }
            if let Some(ledger) = &mut state.ledger {
                ledger.created(key.as_str(), &body);
            }
        }
        Ok(put)
    }

    /// Lets an object take the place of another, as no store may.
    pub fn put_over(&self, process: usize, key: &Key, body: Bytes) -> Put {
        let mut state = self.lock();
        self.objects.overwrite(key, body.clone());
        if key.as_str().starts_with("sessions/") {
            state.makers.insert(key.as_str().to_owned(), process);
        }
        if let Some(ledger) = &mut state.ledger {
            ledger.created(key.as_str(), &body);
        }
        Put::Created
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// As a store.
    pub fn delete(&self, process: usize, key: &Key) -> Result<(), StoreError> {
        let mut state = self.lock();
        let was = self.objects.head(key).ok();
        self.objects.delete(key)?;
        if let Some(size_bytes) = was {
            state.gone.insert(key.as_str().to_owned(), size_bytes);
            if key.as_str().starts_with("sessions/")
                && let Some(owner) = state.makers.get(key.as_str()).copied()
                && owner != process
            {
                state.fenced.insert(owner);
            }
            if let Some(ledger) = &mut state.ledger {
                ledger.deleted(key.as_str());
            }
        }
        Ok(())
    }

    /// Whether somebody else ended a session of this process, or took its marker.
    #[must_use]
    pub fn was_fenced(&self, process: usize) -> bool {
        self.lock().fenced.contains(&process)
    }

    /// Sends a put on its way: it lands at `due`.
    pub fn put_later(&self, process: usize, due: u64, key: &Key, body: Bytes) {
        self.lock().late.push((due, process, Late::Put(key.clone(), body)));
    }

    /// The same for a deletion.
    pub fn delete_later(&self, process: usize, due: u64, key: &Key) {
        self.lock().late.push((due, process, Late::Delete(key.clone())));
    }

    /// Lets everything land that is due, in the order in which it is.
    pub fn land(&self, now: u64) {
        let mut due: Vec<_> = {
            let mut state = self.lock();
            if state.late.iter().all(|(at, _, _)| *at > now) {
                return;
            }
            let (due, rest) = std::mem::take(&mut state.late).into_iter().partition(|(at, _, _)| *at <= now);
            state.late = rest;
            due
        };
        due.sort_by_key(|(at, _, _)| *at);
        for (_, process, late) in due {
            // Nobody waits for the answer.
            let _ = match late {
                Late::Put(key, body) => self.put(process, &key, body).map(drop),
                Late::Delete(key) => self.delete(process, &key),
            };
        }
    }

    /// A listing that leaves out what a store may leave out by the rules of docs/reliability.md: any part of packs, index and usage; of
    /// snapshots those that another one, which is shown, names as its parent.
    ///
    /// # Errors
    /// As a store.
    pub fn short_list(&self, seed: u64, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let mut page = self.objects.list(prefix, after, limit)?;
        let mut draw = Draw::new(seed, 0x115);
        let all = draw.in_thousand(300);
        let last = if page.more { page.entries.last().map(|entry| entry.key.clone()) } else { None };
        if ["packs/", "index/", "usage/"].iter().any(|free| prefix.starts_with(free)) {
            page.entries.retain(|entry| last.as_ref() == Some(&entry.key) || !all && draw.in_thousand(500));
        } else if prefix == "snapshots/" {
            let mut hidden: BTreeSet<String> = BTreeSet::new();
            if let Some(ledger) = &self.lock().ledger {
                // Whoever names it must be shown, so only parents of those that are nobody's parent are left out.
                let parents: BTreeSet<&String> = ledger.counted().values().filter_map(|c| c.parent.as_ref()).collect();
                let leaves = ledger.counted().iter().filter(|(child, _)| !parents.contains(child));
                hidden.extend(leaves.filter_map(|(_, counted)| counted.parent.clone()).filter(|_| draw.in_thousand(500)));
            }
            page.entries.retain(|entry| {
                let name = entry.key.as_str().strip_prefix(prefix).unwrap_or_default();
                last.as_ref() == Some(&entry.key) || !hidden.contains(name)
            });
        }
        Ok(page)
    }

    /// A listing that leaves out half of what a prune must miss, by the rules of docs/reliability.md: snapshots of which a usage table or a child
    /// is there, sessions, tombstones and lists of open writers whose name the job was `shown` before. Of a generation never both
    /// its tombstone and its list. Removals are left out as it comes.
    ///
    /// # Errors
    /// As a store.
    pub fn hiding_list(
        &self,
        seed: u64,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        shown: &BTreeSet<String>,
    ) -> Result<Page, StoreError> {
        let mut page = self.objects.list(prefix, after, limit)?;
        let mut draw = Draw::new(seed, 0x41d);
        let all = draw.in_thousand(300);
        let state = self.lock();
        let Some(ledger) = &state.ledger else { return Ok(page) };
        // Even generations lose their tombstones, odd ones their lists.
        let is_even = |name: &str| name.ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e']);
        let is_named = |name: &str| match prefix {
            "snapshots/" => ledger.is_named(name),
            "sessions/" => shown.contains(name),
            "tombstones/" => shown.contains(name) && is_even(name) && ledger.has_open(name),
            "open/" => shown.contains(name) && !is_even(name) && ledger.has_tombstone(name),
            "removed/" => true,
            _ => false,
        };
        page.entries.retain(|entry| {
            let name = entry.key.as_str().strip_prefix(prefix).unwrap_or_default();
            !is_named(name) || !all && draw.in_thousand(500)
        });
        Ok(page)
    }

    /// A listing that shows some of what was deleted, too.
    ///
    /// # Errors
    /// As a store.
    pub fn stale_list(&self, seed: u64, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let mut page = self.objects.list(prefix, after, limit)?;
        let mut draw = Draw::new(seed, 0x57a1e);
        let state = self.lock();
        for (key, size_bytes) in state.gone.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let key = Key::new(key.clone()).expect("a key");
            if draw.in_thousand(500) && !page.more && after.is_none_or(|after| key > *after) {
                page.entries.push(Entry { key, size_bytes: *size_bytes });
            }
        }
        page.entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(page)
    }
}
