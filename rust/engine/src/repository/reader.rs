//! Chunks by id: frames fetched, opened, verified, and kept for a while.
//!
//! Promises that every byte it hands out hashes to the id that was asked for. Neighbouring frames are fetched together (one range
//! a region), opened frames are kept in a small cache with a byte budget; when a place is damaged or gone, other places of the
//! chunk are tried, then the index is reloaded once.

use super::index::{Found, Index};
use super::kept::Shared;
use super::{Repository, key};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use bytes::Bytes;
use longshore_format::envelope::Codec;
use longshore_format::id::{ChunkId, ChunkKind, PackName};
use longshore_format::index::FramePlace;
use longshore_format::limits;
use longshore_format::pack::{BirthName, PackKey};
use longshore_format::tree::{Entries, Entry, Item, Node, Owner, decode_list};
use longshore_store::StoreErrorKind;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// More is not kept, whatever the budget: reads go in the order in which frames were written, so a frame is wanted soon or not again.
const CACHE_BYTES_MAX: usize = 72 << 20;
/// How much of a pack is fetched at once.
const REGION_BYTES: u64 = 4 << 20;
/// The same by who reads trees alone. The pieces of one directory lie in as many packs as there were backups that changed it, and more: in
/// each, those that several threads wrote. So many places are read from by turns, and each wants its own region in a small cache.
const TREE_REGION_BYTES: u64 = 512 << 10;

/// Longest sealed frame: a raw payload with its envelope and tag.
pub(super) const FRAME_STORED_BYTES_MAX: usize = limits::FRAME_PAYLOAD_BYTES_MAX + 1024;

/// How long an index is good enough for one more chunk that is nowhere.
const RELOAD_PAUSE: Duration = Duration::from_secs(60);

/// How often one chunk is followed into another pack.
const MOVES_MAX: usize = 20;

/// Reads chunks of one repository; shared by all threads of a job.
#[derive(Debug)]
pub struct ChunkReader {
    repository: Repository,
    index: RwLock<Arc<Index>>,
    job: Arc<Job>,
    /// Payloads of data frames.
    frames: Shared<BirthName, Bytes>,
    /// Payloads of tree and list frames: a directory is come back to after much data has passed.
    tree_frames: Shared<BirthName, Bytes>,
    regions: Shared<(PackName, u64), Bytes>,
    region_bytes: u64,
    pack_keys: Mutex<HashMap<PackName, Arc<PackKey>>>,
    codecs: Mutex<Vec<(Codec, Vec<u8>)>>,
    reloaded: Mutex<Option<Duration>>,
    /// Packs that were not there, and whether one was found so since the index was last looked at.
    gone: Mutex<(HashSet<PackName>, bool)>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChunkReader {
    /// A reader over an index; about `budget_bytes` are kept in memory.
    #[must_use]
    pub fn new(repository: Repository, index: Arc<Index>, job: Arc<Job>, budget_bytes: usize) -> Self {
        let budget_bytes = budget_bytes.min(CACHE_BYTES_MAX);
        Self {
            repository,
            index: RwLock::new(index),
            job,
            frames: Shared::new(budget_bytes / 8 * 3),
            tree_frames: Shared::new(budget_bytes / 8),
            regions: Shared::new(budget_bytes / 2),
            region_bytes: REGION_BYTES,
            pack_keys: Mutex::new(HashMap::new()),
            codecs: Mutex::new(Vec::new()),
            reloaded: Mutex::new(None),
            gone: Mutex::default(),
        }
    }

    /// One for who reads trees and lists, and no file's data.
    #[must_use]
    pub fn of_trees(repository: Repository, index: Arc<Index>, job: Arc<Job>, budget_bytes: usize) -> Self {
        let budget_bytes = budget_bytes.min(CACHE_BYTES_MAX);
        Self {
            frames: Shared::new(0),
            tree_frames: Shared::new(budget_bytes / 2),
            region_bytes: TREE_REGION_BYTES,
            ..Self::new(repository, index, job, budget_bytes)
        }
    }

    /// The numbers of the regions in which a frame lies.
    fn regions_of(&self, place: &FramePlace) -> RangeInclusive<u64> {
        let last = (place.offset_bytes.saturating_add(u64::from(place.stored_bytes))).saturating_sub(1).max(place.offset_bytes);
        place.offset_bytes / self.region_bytes..=last / self.region_bytes
    }

    /// The index as it is now.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends a step early when the job was asked to stop.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn check(&self) -> Result<()> {
        self.job.check()
    }

    /// The repository that is read.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// A chunk's plaintext, verified.
    ///
    /// # Errors
    /// Corrupt when no place of it opens, or what the store says.
    pub fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<Bytes> {
        let mut used = self.index();
        for _ in 0..MOVES_MAX {
            let why = match self.try_places(kind, id, &used)? {
                Ok(bytes) => return Ok(bytes),
                Err(why) => why,
            };
            // It may have moved since the index was read.
            used = self.reload(&used)?.ok_or(why)?;
        }
        self.try_places(kind, id, &used)?
    }

    /// A younger index than `used`. None when the last one was loaded so lately that a damaged repository would be listed for each
    /// of its lost chunks; a pack that is gone is looked into whenever that was, once: a prune may have moved its frames.
    fn reload(&self, used: &Arc<Index>) -> Result<Option<Arc<Index>>> {
        let mut reloaded = lock(&self.reloaded);
        let now = self.index();
        if !Arc::ptr_eq(&now, used) {
            return Ok(Some(now));
        }
        let time = self.repository.world.clock.monotonic();
        let news = std::mem::take(&mut lock(&self.gone).1);
        if reloaded.is_some_and(|last| time.saturating_sub(last) < RELOAD_PAUSE)
            && !(news && self.repository.index_changed(used)?)
        {
            return Ok(None);
        }
        let fresh = Arc::new(self.repository.load_index_and_headers(&self.job)?);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        *reloaded = Some(time);
        Ok(Some(fresh))
    }

    /// The outer error ends the job; the inner one says that no place opened.
    fn try_places(&self, kind: ChunkKind, id: &ChunkId, index: &Index) -> Result<std::result::Result<Bytes, Error>> {
        let mut why = Error::corrupt(format!("chunk is in no index: chunk={id}"))
            .with_next_step("find what it hurts with: longshore repo check");
        let preferred = index.find(id);
        let others = std::iter::once_with(|| index.find_all(id)).flatten().filter(|f| Some(*f) != preferred);
        for found in preferred.into_iter().chain(others) {
            if found.frame.kind != kind {
                continue;
            }
            match self.read_place(id, &found) {
                Ok(bytes) => return Ok(Ok(bytes)),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::NewerFormat) => {
                    why = error
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Err(why))
    }

    fn read_place(&self, id: &ChunkId, found: &Found) -> Result<Bytes> {
        // Twice, as a first failure may be damage on the way or in memory.
        for _ in 0..2 {
            let payload = self.frame(&found.frame)?;
            let start = found.offset_bytes as usize;
            let range = start..start + found.length_bytes as usize;
            if let Some(chunk) = payload.get(range.clone())
                && self.repository.keys.chunk_id(found.frame.kind, chunk) == *id
            {
                return Ok(payload.slice(range));
            }
            self.frames_of(found.frame.kind).remove(&found.frame.birth);
        }
        Err(Error::corrupt(format!("chunk has other content than its id says: chunk={id}, pack={}", found.frame.pack)))
    }

    fn frames_of(&self, kind: ChunkKind) -> &Shared<BirthName, Bytes> {
        if kind == ChunkKind::Data { &self.frames } else { &self.tree_frames }
    }

    /// A frame's payload, its seal checked.
    ///
    /// # Errors
    /// Corrupt, or what the store says.
    fn frame(&self, place: &FramePlace) -> Result<Bytes> {
        self.frames_of(place.kind).get_or(place.birth, || {
            let payload = Bytes::from(self.open_twice(place)?);
            let bytes = payload.len() + 100;
            Ok((payload, bytes))
        })
    }

    /// Fetches and opens a frame, once more when it is damaged: only damage that stays is blamed on the object.
    fn open_twice(&self, place: &FramePlace) -> Result<Vec<u8>> {
        let mut last = None;
        for _ in 0..2 {
            match self.fetch_and_open(place) {
                Ok(payload) => return Ok(payload),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey) => last = Some(error),
                Err(error) => return Err(error),
            }
            for number in self.regions_of(place) {
                self.regions.remove(&(place.pack, number));
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("a frame was neither read nor refused")))
    }

    fn fetch_and_open(&self, place: &FramePlace) -> Result<Vec<u8>> {
        let mut payload = Vec::new();
        self.open_with(place, |stored| self.fetch(place, stored), &mut payload)?;
        Ok(payload)
    }

    /// Opens a frame whose sealed bytes `read` puts into the buffer that it is handed.
    pub(super) fn open_with(
        &self,
        place: &FramePlace,
        read: impl FnOnce(&mut Vec<u8>) -> Result<()>,
        payload: &mut Vec<u8>,
    ) -> Result<()> {
        let pack_key = self.pack_key(place)?;
        let (mut codec, mut stored) = match lock(&self.codecs).pop() {
            Some(pair) => pair,
            None => (Codec::new()?, Vec::new()),
        };
        let opened = read(&mut stored).and_then(|()| {
            let opened = pack_key.open_frame(place.birth.ordinal, &mut stored, &mut codec, payload);
            opened.map_err(|error| Error::from(error).while_doing(format_args!("pack {}", place.pack)))
        });
        lock(&self.codecs).push((codec, stored));
        opened
    }

    /// What a refused range means: of a pack that is gone, damage, which may be healed by a younger index.
    fn gone(&self, error: longshore_store::StoreError, pack: PackName) -> Error {
        if error.kind() != StoreErrorKind::NotFound {
            return Error::from(error);
        }
        let mut gone = lock(&self.gone);
        gone.1 |= gone.0.insert(pack);
        Error::corrupt(format!("pack is gone: pack={pack}")).with_next_step("find what it hurts with: longshore repo check")
    }

    /// Bytes of a pack.
    ///
    /// # Errors
    /// Corrupt when the pack is gone, or what the store says.
    pub(super) fn read_range(&self, pack: PackName, start: u64, length: u64, out: &mut Vec<u8>) -> Result<()> {
        self.job.check()?;
        out.resize(length as usize, 0);
        match self.repository.store.get_range_into(&key(pack.key())?, start, out) {
            Ok(()) => {
                self.job.bytes_stored.fetch_add(length, Relaxed);
                Ok(())
            }
            Err(error) => Err(self.gone(error, pack)),
        }
    }

    fn pack_key(&self, place: &FramePlace) -> Result<Arc<PackKey>> {
        if let Some(found) = lock(&self.pack_keys).get(&place.birth.pack) {
            return Ok(Arc::clone(found));
        }
        let derived = Arc::new(PackKey::derive(&self.repository.keys, place.birth.pack, &place.birth_salt)?);
        let mut keys = lock(&self.pack_keys);
        if keys.len() > 4096 {
            keys.clear();
        }
        keys.insert(place.birth.pack, Arc::clone(&derived));
        Ok(derived)
    }

    /// The sealed bytes of a frame, out of the regions of its pack in which it lies, or by a range of its own.
    fn fetch(&self, place: &FramePlace, stored: &mut Vec<u8>) -> Result<()> {
        self.job.check()?;
        stored.clear();
        let object = key(place.pack.key())?;
        let frame_end = place
            .offset_bytes
            .checked_add(u64::from(place.stored_bytes))
            .filter(|end| *end <= limits::PACK_BYTES_MAX && place.stored_bytes as usize <= FRAME_STORED_BYTES_MAX)
            .ok_or_else(|| Error::corrupt(format!("index names a frame where no pack reaches: pack={}", place.pack)))?;
        let size = self.index().pack_sizes().get(&place.pack).copied().unwrap_or(0);
        if size < frame_end {
            // A pack of this very session, or one that is gone or cut: the store decides.
            stored.extend_from_slice(&self.get_range(&object, place.offset_bytes, u64::from(place.stored_bytes), place)?);
            return Ok(());
        }
        for number in self.regions_of(place) {
            let (start, end) = (number * self.region_bytes, ((number + 1) * self.region_bytes).min(size));
            let region = self.regions.get_or((place.pack, number), || {
                let bytes = self.get_range(&object, start, end - start, place)?;
                let length = bytes.len();
                Ok((bytes, length))
            })?;
            let from = place.offset_bytes.max(start) - start;
            let to = frame_end.min(end) - start;
            let part = region.get(from as usize..to as usize);
            stored.extend_from_slice(part.ok_or_else(|| Error::corrupt(format!("pack was cut short: pack={}", place.pack)))?);
        }
        Ok(())
    }

    fn get_range(&self, object: &longshore_store::Key, start: u64, length: u64, place: &FramePlace) -> Result<Bytes> {
        match self.repository.store.get_range(object, start, length) {
            Ok(bytes) => {
                self.job.bytes_stored.fetch_add(bytes.len() as u64, Relaxed);
                Ok(bytes)
            }
            Err(error) => Err(self.gone(error, place.pack)),
        }
    }

    /// Calls `visit` with each item of a content that is not a list, reading list chunks as they come; stops early when it says so.
    ///
    /// # Errors
    /// What reading list chunks says, and what `visit` says.
    pub fn for_each_item(&self, content: &[Item], owner: Owner, visit: &mut dyn FnMut(&Item) -> Result<bool>) -> Result<bool> {
        self.items_at(content, owner, 0, visit)
    }

    fn items_at(&self, items: &[Item], owner: Owner, depth: usize, visit: &mut dyn FnMut(&Item) -> Result<bool>) -> Result<bool> {
        if depth > limits::LIST_DEPTH_MAX {
            return Err(Error::corrupt("lists are nested too deeply"));
        }
        for item in items {
            let go_on = match item {
                Item::List { id, span } => {
                    let bytes = self.chunk(ChunkKind::List, id)?;
                    let inner = decode_list(&bytes, owner, *span)?;
                    self.items_at(&inner, owner, depth + 1, visit)?
                }
                other => visit(other)?,
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Calls `visit` with each entry of a directory, in order; stops early when it says so.
    ///
    /// # Errors
    /// Corrupt, what the store says, what `visit` says.
    pub fn for_each_entry(&self, directory: &Entry, visit: &mut dyn FnMut(Entry) -> Result<bool>) -> Result<bool> {
        let Node::Directory { content } = &directory.node else {
            return Err(Error::internal("not a directory"));
        };
        let mut last = Vec::new();
        self.for_each_item(content, Owner::Directory, &mut |item| {
            let Item::Piece { id, span } = item else { return Err(Error::corrupt("a directory has an item of a file")) };
            let bytes = self.chunk(ChunkKind::Tree, id)?;
            let mut count = 0;
            for entry in Entries::new(&bytes, &last.clone()) {
                let entry = entry?;
                last.clone_from(&entry.name);
                count += 1;
                if !visit(entry)? {
                    return Ok(false);
                }
            }
            if count == *span {
                Ok(true)
            } else {
                Err(Error::corrupt("a piece has another number of entries than its directory says"))
            }
        })
    }

    /// The entry `name` of a directory.
    ///
    /// # Errors
    /// As [`ChunkReader::for_each_entry`].
    pub fn entry_named(&self, directory: &Entry, name: &[u8]) -> Result<Option<Entry>> {
        let mut found = None;
        self.for_each_entry(directory, &mut |entry| {
            let go_on = entry.name.as_slice() < name;
            if entry.name == name {
                found = Some(entry);
            }
            Ok(go_on)
        })?;
        Ok(found)
    }

    /// The entry at a path below `root`, components joined by slashes; empty: the root itself.
    ///
    /// # Errors
    /// `PathNotFound`, and as [`ChunkReader::for_each_entry`].
    pub fn entry_at(&self, root: &Entry, path: &[u8]) -> Result<Entry> {
        let mut entry = root.clone();
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".") {
            let found = if matches!(entry.node, Node::Directory { .. }) { self.entry_named(&entry, name)? } else { None };
            entry = found.ok_or_else(|| {
                let shown = String::from_utf8_lossy(path).into_owned();
                Error::new(ErrorKind::PathNotFound, format!("there is no such path in the snapshot: path={shown}"))
                    .with_next_step("look with: longshore volume ls SNAPSHOT")
            })?;
        }
        Ok(entry)
    }
}
