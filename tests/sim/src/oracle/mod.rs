//! The oracle: what was acknowledged, what must therefore be there, and whether it is.
//!
//! It sees every object at the moment in which it appears in the store or goes, and nothing else but what processes were told to do and
//! said they did. It reads objects by [`format`], which was written from docs/format.md and shares no code with the engine. After
//! every such event it holds (the numbers are those of docs/reliability.md):
//!
//! - I1: an acknowledged snapshot has the content of the volume that was backed up;
//! - I2: a snapshot counts only when all that it needs is there, by the headers of packs and not by the index; its usage tables cover it;
//! - I7: nothing goes that a snapshot which counts needs, no snapshot goes that nobody deleted, no commit key is freed, no marker of an
//!   open writer is taken away.
//!
//! I4 and I5 are asked when a prune has ended: [`left`] says what nobody needs, and what keeps it. I6 follows from I2: the index is not believed.

pub mod format;
pub mod left;

use crate::process::SECRET;
use crate::volume::{Thing, Tree, difference};
use bytes::Bytes;
use format::{Birth, Id, Item, ReadEntry, ReadFrame, ReadRepair, Reader, hex};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A snapshot that counts.
#[derive(Debug)]
pub struct Counted {
    /// What it holds, as far as it could be read.
    pub tree: Tree,
    /// Its parent.
    pub parent: Option<String>,
    chunks: BTreeSet<Id>,
    usage: Vec<String>,
}

/// All that the oracle knows. Clones are cheap: objects never change.
#[derive(Clone, Debug)]
pub struct Ledger {
    reader: Arc<Reader>,
    packs: BTreeMap<String, Arc<Vec<ReadFrame>>>,
    /// Packs that cannot be read: torn.
    torn: BTreeSet<String>,
    chunks: HashMap<Id, (Bytes, u32)>,
    usage: BTreeMap<String, Arc<BTreeSet<Birth>>>,
    /// Everything under `snapshots/`.
    listed: BTreeSet<String>,
    /// Objects under `snapshots/` that cannot be read.
    unreadable: BTreeSet<String>,
    counted: BTreeMap<String, Arc<Counted>>,
    removed: BTreeSet<String>,
    /// Generations whose decision cannot be read.
    stuck: BTreeSet<String>,
    /// Writers that have a marker, and whom they adopt.
    writers: BTreeMap<String, Vec<String>>,
    /// What tombstones name, and for whom their generations wait; empty when that cannot be read.
    tombstones: BTreeMap<String, BTreeSet<String>>,
    open: BTreeMap<String, Vec<String>>,
    /// The packs of index segments; empty when they cannot be read.
    segments: BTreeMap<String, BTreeSet<String>>,
    /// What repairs wrote down.
    repairs: BTreeMap<String, Arc<ReadRepair>>,
    /// When each object appeared, as a number, except those that are kept for ever.
    births: BTreeMap<String, u64>,
    born: u64,
    intended: BTreeSet<String>,
    /// Packs and usage tables that were damaged on purpose: whoever finds them so may let them go.
    damaged: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    /// Those of the acknowledged that do not count and that nobody was told to delete; kept up wherever one of these three changes.
    lost: BTreeSet<String>,
    /// Secrets by which the repository may be opened, and slots that somebody was told to take away.
    secrets: Vec<[u8; 32]>,
    given_up: BTreeSet<String>,
    violations: Vec<String>,
}

impl Ledger {
    /// The ledger of an empty repository.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self {
            reader: Arc::new(reader),
            packs: BTreeMap::new(),
            torn: BTreeSet::new(),
            chunks: HashMap::new(),
            usage: BTreeMap::new(),
            listed: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            counted: BTreeMap::new(),
            removed: BTreeSet::new(),
            stuck: BTreeSet::new(),
            writers: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            open: BTreeMap::new(),
            segments: BTreeMap::new(),
            repairs: BTreeMap::new(),
            births: BTreeMap::new(),
            born: 0,
            intended: BTreeSet::new(),
            damaged: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            lost: BTreeSet::new(),
            secrets: vec![SECRET],
            given_up: BTreeSet::new(),
            violations: vec![],
        }
    }

    /// Notes what must not be.
    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The first thing that must not be.
    #[must_use]
    pub fn violation(&self) -> Option<&str> {
        self.violations.first().map(String::as_str)
    }

    /// An object has appeared.
    pub fn created(&mut self, key: &str, body: &Bytes) {
        let (folder, name) = key.split_once('/').unwrap_or(("", key));
        if !left::FOR_EVER.contains(&folder) {
            self.born += 1;
            self.births.insert(key.to_owned(), self.born);
        }
        match folder {
            "packs" => match self.reader.pack(body) {
                None => {
                    self.torn.insert(key.to_owned());
                }
                Some(frames) => {
                    for (id, plain) in frames.iter().flat_map(|frame| &frame.chunks) {
                        self.chunks.entry(*id).or_insert_with(|| (plain.clone(), 0)).1 += 1;
                    }
                    self.packs.insert(key.to_owned(), Arc::new(frames));
                }
            },
            "usage" => {
                if let Some(births) = self.reader.usage(name, body) {
                    self.usage.insert(name.to_owned(), Arc::new(births.into_iter().collect()));
                }
            }
            "sessions" => {
                if let Some((1, adopts)) = self.reader.marker(name, body) {
                    self.writers.insert(name.to_owned(), adopts);
                }
            }
            "tombstones" => {
                self.tombstones.insert(name.to_owned(), self.reader.tombstone(name, body).unwrap_or_default());
            }
            "open" => {
                self.open.insert(name.to_owned(), self.reader.open_writers(name, body).unwrap_or_default());
            }
            "index" => {
                self.segments.insert(name.to_owned(), self.reader.segment(name, body).unwrap_or_default());
            }
            "repairs" => {
                self.repairs.insert(name.to_owned(), Arc::new(self.reader.repair(name, body).unwrap_or_default()));
            }
            "snapshots" => self.snapshot_created(name, body),
            "decisions" if self.reader.object(11, "decision", key, body).is_none() => {
                self.stuck.insert(name.to_owned());
            }
            // Of a key slot that somebody takes away.
            "removed" if self.given_up.contains(name) => {}
            "removed" => {
                if !self.intended.contains(name) {
                    self.violations.push(format!("I7: a snapshot was deleted that nobody told to delete: {name}"));
                }
                self.removed.insert(name.to_owned());
                self.counted.remove(name);
                self.judge(name);
            }
            _ => {}
        }
    }

    fn snapshot_created(&mut self, name: &str, body: &Bytes) {
        self.listed.insert(name.to_owned());
        let Some(snapshot) = self.reader.snapshot(name, body) else {
            self.unreadable.insert(name.to_owned());
            return;
        };
        if !snapshot.committed || self.removed.contains(name) {
            return;
        }
        let mut counted = Counted {
            tree: Tree::new(),
            parent: snapshot.parent.map(|p| hex(&p)),
            chunks: BTreeSet::new(),
            usage: snapshot.usage.clone(),
        };
        let read = match &snapshot.root {
            Some(root) => self.read_directory(root, b"", &mut counted),
            None => Err("it has no root".to_owned()),
        };
        if let Err(why) = read {
            self.violations.push(format!("I2: a snapshot counts and is not whole: {name}: {why}"));
        }
        self.check_usage(name, &counted);
        self.counted.insert(name.to_owned(), Arc::new(counted));
        self.judge(name);
    }

    /// Whether a session is lost, after what that depends on has changed.
    fn judge(&mut self, session: &str) {
        if self.acknowledged.contains(session) && !self.counted.contains_key(session) && !self.intended.contains(session) {
            self.lost.insert(session.to_owned());
        } else {
            self.lost.remove(session);
        }
    }

    fn check_usage(&mut self, name: &str, counted: &Counted) {
        let tables: Vec<_> = counted.usage.iter().map(|table| self.usage.get(table)).collect();
        if tables.iter().any(Option::is_none) {
            self.violations.push(format!("I2: a snapshot counts and a usage table of it is not there: {name}"));
            return;
        }
        let mut covered = BTreeSet::new();
        for frame in self.packs.values().flat_map(|frames| frames.iter()) {
            if tables.iter().flatten().any(|table| table.contains(&frame.birth)) {
                covered.extend(frame.chunks.iter().map(|(id, _)| *id));
            }
        }
        if !counted.chunks.is_subset(&covered) {
            self.violations.push(format!("I2: a snapshot's usage tables do not cover it: {name}"));
        }
    }

    fn chunk(&self, id: &Id, counted: &mut Counted) -> Result<Bytes, String> {
        counted.chunks.insert(*id);
        self.chunks.get(id).map(|(plain, _)| plain.clone()).ok_or_else(|| format!("no pack holds chunk {}", hex(id)))
    }

    fn read_directory(&self, directory: &ReadEntry, at: &[u8], counted: &mut Counted) -> Result<(), String> {
        let mut pieces = vec![];
        self.flatten(&directory.content, counted, &mut pieces)?;
        for piece in pieces {
            let Item::Piece(id) = piece else { return Err("a directory holds something else than pieces".to_owned()) };
            let plain = self.chunk(&id, counted)?;
            for entry in format::entries(&plain).ok_or("a tree chunk cannot be read")? {
                let path = if at.is_empty() { entry.name.clone() } else { [at, b"/", &entry.name].concat() };
                let thing = match entry.kind {
                    1 => {
                        self.read_directory(&entry, &path, counted)?;
                        Thing::Directory(entry.mode)
                    }
                    2 => self.read_file(&entry, counted)?,
                    3 => Thing::Link(entry.target.clone()),
                    other => Thing::Other(other),
                };
                counted.tree.insert(path, thing);
            }
        }
        Ok(())
    }

    fn read_file(&self, file: &ReadEntry, counted: &mut Counted) -> Result<Thing, String> {
        let mut items = vec![];
        self.flatten(&file.content, counted, &mut items)?;
        let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
        for item in items {
            let plain = match item {
                Item::Data(id) => self.chunk(&id, counted)?,
                Item::Zeros(span) => Bytes::from(vec![0; usize::try_from(span).map_err(|e| e.to_string())?]),
                Item::List(_) | Item::Piece(_) => return Err("a file holds pieces".to_owned()),
            };
            length += plain.len() as u64;
            hasher.update(&plain);
        }
        Ok(Thing::File(file.mode, length, *hasher.finalize().as_bytes()))
    }

    fn flatten(&self, items: &[Item], counted: &mut Counted, out: &mut Vec<Item>) -> Result<(), String> {
        for item in items {
            if let Item::List(id) = item {
                let plain = self.chunk(id, counted)?;
                let below = format::items(&mut format::Cursor(&plain), None).ok_or("a list chunk cannot be read")?;
                self.flatten(&below, counted, out)?;
            } else {
                out.push(*item);
            }
        }
        Ok(())
    }

    /// An object has gone.
    pub fn deleted(&mut self, key: &str) {
        let (folder, name) = key.split_once('/').unwrap_or(("", key));
        self.births.remove(key);
        match folder {
            "packs" => {
                self.torn.remove(key);
                for (id, _) in self.packs.remove(key).iter().flat_map(|f| f.iter()).flat_map(|frame| &frame.chunks) {
                    let Some((_, holders)) = self.chunks.get_mut(id) else { continue };
                    *holders -= 1;
                    if *holders == 0 {
                        self.chunks.remove(id);
                        let is_known = self.damaged.contains(key);
                        if !is_known && let Some((snapshot, _)) = self.counted.iter().find(|(_, c)| c.chunks.contains(id)) {
                            self.violations.push(format!("I7: {key} was deleted, and snapshot {snapshot} needs a chunk of it"));
                        }
                    }
                }
            }
            "usage" => {
                self.usage.remove(name);
                if let Some((snapshot, _)) = self.counted.iter().find(|(_, counted)| counted.usage.iter().any(|u| u == name)) {
                    self.violations.push(format!("I7: {key} was deleted, and snapshot {snapshot} needs it"));
                }
            }
            "snapshots" => {
                self.unreadable.remove(name);
                self.listed.remove(name);
                if !self.removed.contains(name) {
                    self.violations.push(format!("I7: {key} was deleted without a removal: its writer could commit again"));
                }
            }
            "sessions" => {
                let ended = self.listed.contains(name) || self.removed.contains(name);
                if self.writers.remove(name).is_some() && !ended {
                    self.violations.push(format!("I7: the marker of an open writer was taken away: {name}"));
                }
            }
            "tombstones" => drop(self.tombstones.remove(name)),
            "open" => drop(self.open.remove(name)),
            "index" => drop(self.segments.remove(name)),
            "repairs" => drop(self.repairs.remove(name)),
            "keys" if !self.given_up.contains(name) => {
                self.violations.push(format!("I1: a key slot went that nobody took away: {name}"));
            }
            "removed" | "config" | "decisions" => self.violations.push(format!("I7: {key} is kept for ever, and was deleted")),
            _ => {}
        }
    }

    /// Somebody is told to delete a snapshot: from now on it may go.
    pub fn intend(&mut self, session: &str) {
        self.intended.insert(session.to_owned());
        self.judge(session);
    }

    /// Somebody was given this secret, by which the repository opens.
    pub fn hand_out(&mut self, secret: [u8; 32]) {
        self.secrets.push(secret);
    }

    /// Somebody is told to take a key slot away: from now on it may go.
    pub fn give_up(&mut self, slot: &str) {
        self.given_up.insert(slot.to_owned());
    }

    /// Whether somebody was.
    #[must_use]
    pub fn was_given_up(&self, slot: &str) -> bool {
        self.given_up.contains(slot)
    }

    /// Whether a slot opens by a secret that was handed out, and the repository by what is in it.
    #[must_use]
    pub fn opens(&self, key: &str, slot: &[u8]) -> bool {
        self.secrets.iter().any(|secret| Reader::from_slot(key, slot, secret).is_some_and(|reader| reader == *self.reader))
    }

    /// Whether something shows that there is a snapshot: a usage table that its session wrote, or a child.
    #[must_use]
    pub fn is_named(&self, snapshot: &str) -> bool {
        let is_child = |counted: &Arc<Counted>| counted.parent.as_deref() == Some(snapshot);
        self.usage.keys().any(|table| table.ends_with(snapshot)) || self.counted.values().any(is_child)
    }

    /// Whether a generation has a list of open writers.
    #[must_use]
    pub fn has_open(&self, generation: &str) -> bool {
        self.open.contains_key(generation)
    }

    /// Whether it has a tombstone.
    #[must_use]
    pub fn has_tombstone(&self, generation: &str) -> bool {
        self.tombstones.contains_key(generation)
    }

    /// Writers that the list of a generation names.
    #[must_use]
    pub fn open_of(&self, generation: &str) -> &[String] {
        self.open.get(generation).map_or(&[], Vec::as_slice)
    }

    /// An object was damaged on purpose. The oracle goes on to believe that it is whole, and lets it go.
    pub fn damage(&mut self, key: &str) {
        self.damaged.insert(key.to_owned());
    }

    /// A process says that it made a snapshot of this volume.
    pub fn acknowledge(&mut self, session: &str, truth: &Tree) {
        self.acknowledged.insert(session.to_owned());
        self.judge(session);
        match self.counted.get(session) {
            Some(counted) => {
                if let Some(what) = difference(truth, &counted.tree) {
                    self.violations.push(format!("I1: snapshot {session} is not what was backed up: {what}"));
                }
            }
            None if self.intended.contains(session) => {}
            None => self.violations.push(format!("I1: snapshot {session} was acknowledged and does not count")),
        }
    }

    /// Snapshots that count.
    #[must_use]
    pub fn counted(&self) -> &BTreeMap<String, Arc<Counted>> {
        &self.counted
    }

    /// Snapshots that were acknowledged, nobody was told to delete, and do not count.
    #[must_use]
    pub fn lost(&self) -> Option<&String> {
        self.lost.first()
    }

    /// Whether a snapshot may go or is gone.
    #[must_use]
    pub fn may_go(&self, session: &str) -> bool {
        self.intended.contains(session)
    }

    /// Objects under `snapshots/` that cannot be read, and are not removed.
    #[must_use]
    pub fn unreadable(&self) -> Vec<String> {
        self.unreadable.iter().filter(|s| !self.removed.contains(*s)).cloned().collect()
    }

    /// Whether the decision of a generation cannot be read.
    #[must_use]
    pub fn is_stuck(&self, generation: &str) -> bool {
        self.stuck.contains(generation)
    }

    /// Packs that cannot be read.
    #[must_use]
    pub fn torn(&self) -> &BTreeSet<String> {
        &self.torn
    }
}
