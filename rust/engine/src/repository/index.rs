//! Where chunks lie: all index segments of a repository together, and what the running session adds.
//!
//! An index is a hint. [`Index::find`] returns only frames whose pack was listed and is in no tombstone when the index was loaded
//! (for who writes: and in no decision either), or was uploaded by this session since. A segment that cannot be read is replaced by the headers of the packs that no other
//! segment lists. Memory: segments are mapped from the cache when there is one; without, they are held, 44 bytes a chunk and 32 a frame, of
//! which a prune, that asks for no chunk, holds the frames alone.
//!
//! Over 500 lines because loading, leaving out what tombstones and decisions name, and what a session adds share one list of segments, whose
//! order lookups rely on.

pub(crate) use super::held::{Hold, SegmentBytes};
use super::held::{SUM_BYTES, without_chunks};
use super::lookups::Kept;
use super::{Repository, list, opened};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use longshore_format::envelope::Codec;
use longshore_format::generation::{Doomed, Role};
use longshore_format::id::{ChunkId, PackName, RandomName, SessionId, UsageName};
use longshore_format::index::{self, FramePlace, Segment, SegmentBuilder, index_key};
use longshore_format::limits;
use longshore_format::usage::Usage;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, RwLock};

/// Where a chunk lies, complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its frame.
    pub frame: FramePlace,
    /// Where it begins in the frame's payload.
    pub offset_bytes: u32,
    /// Its length.
    pub length_bytes: u32,
}

/// All that is known of where chunks lie.
#[derive(Debug, Default)]
pub struct Index {
    segments: RwLock<Vec<Arc<Segment<SegmentBytes>>>>,
    /// Their names, of those that are in the store.
    names: HashMap<usize, RandomName>,
    hold: Hold,
    /// How many chunks segments have that are held without them.
    chunks: HashMap<RandomName, usize>,
    usable: RwLock<HashSet<PackName>>,
    sizes: HashMap<PackName, u64>,
    /// Places of which a repair said that what lies there is damaged: read as a last resort, relied on by nobody.
    damaged_places: HashMap<PackName, Usage>,
    /// Segments that were listed.
    listed: BTreeSet<RandomName>,
    dead_tables: HashSet<UsageName>,
    /// Packs of another length than the index says.
    cut: HashSet<PackName>,
    /// Why a tombstone could not be read. Nothing may be relied on then by who writes; a reader need not mind.
    pub(crate) unknown_dead: Option<Error>,
    /// Segments that could not be read, by name and reason.
    pub damaged: Vec<(RandomName, String)>,
}

thread_local! {
    /// Which segment, of whatever index, had what this thread looked for last. What was stored together is asked for together, so mostly
    /// the first segment that is looked into is the right one, of sixteen that a million files have.
    static LAST_FOUND: Cell<usize> = const { Cell::new(0) };
}

/// What is done about packs that no segment lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unlisted {
    /// They are known by their headers.
    ByHeader,
    /// They are, when some segment cannot be read.
    AsDamaged,
}

/// Whether somebody may come to rest on what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Reading,
    Writing,
}

impl Repository {
    /// Reads tombstones, index segments and the list of packs, in this order (docs/format.md chapter 12).
    ///
    /// # Errors
    /// What the store says. Damaged segments and headers are noted, not fatal.
    pub fn load_index(&self, job: &Job) -> Result<Index> {
        self.load_index_how(job, Unlisted::AsDamaged, For::Reading)
    }

    /// The same for who writes: nothing that a decision ever named may be relied on.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn load_index_to_write(&self, job: &Job) -> Result<Index> {
        self.load_index_how(job, Unlisted::AsDamaged, For::Writing)
    }

    /// The same, and packs that no segment lists are known by their headers: for a reader that misses a chunk. One request or two
    /// for each such pack.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn load_index_and_headers(&self, job: &Job) -> Result<Index> {
        self.load_index_how(job, Unlisted::ByHeader, For::Reading)
    }

    /// Segments alone: a prune lists packs and reads tombstones itself, in its own order.
    pub(crate) fn load_segments(&self, job: &Job, hold: Hold) -> Result<Index> {
        let mut codec = Codec::new()?;
        for _ in 0..20 {
            if let Some(index) = self.read_segments(job, hold, &mut codec)? {
                return Ok(index);
            }
        }
        Err(index_is_restless())
    }

    fn load_index_how(&self, job: &Job, unlisted: Unlisted, purpose: For) -> Result<Index> {
        // A segment that vanished between listing and reading was replaced: begin again. Each round a prune must have ended, so few suffice.
        for _ in 0..20 {
            if let Some(index) = self.try_load_index(job, unlisted, purpose)? {
                return Ok(index);
            }
        }
        Err(index_is_restless())
    }

    fn try_load_index(&self, job: &Job, unlisted: Unlisted, purpose: For) -> Result<Option<Index>> {
        let mut codec = Codec::new()?;
        let (dead, mut dead_tables, unknown_dead) = self.tombstoned(purpose, &mut codec)?;
        let Some(mut index) = self.read_segments(job, Hold::All, &mut codec)? else { return Ok(None) };
        // Of a record that cannot be read nothing is known: what it said is found again by whoever repairs.
        index.damaged_places = self.repairs(&mut codec)?.damaged();
        let mut sizes = HashMap::new();
        list(&*self.store, "packs/", |entry| {
            if let Some(name) = entry.key.as_str().strip_prefix("packs/").and_then(|n| PackName::from_text(n).ok()) {
                sizes.insert(name, entry.size_bytes);
            }
            Ok(())
        })?;
        let mut usable: HashSet<PackName> = sizes.keys().filter(|name| !dead.contains(name)).copied().collect();
        // A pack whose size is not what the index says was cut short: nothing in it is relied on.
        for row in index.segments().iter().flat_map(|s| s.packs()) {
            if row.size_bytes != 0 && sizes.get(&row.name).is_some_and(|size| *size != row.size_bytes) {
                usable.remove(&row.name);
                index.cut.insert(row.name);
            }
        }
        if purpose == For::Writing {
            // After the packs were listed: one that was deleted and came again was named before it went.
            let spent = self.spent(job, &mut codec)?;
            usable.retain(|pack| !spent.has_pack(pack));
            dead_tables.extend(spent.tables());
        }
        (index.usable, index.sizes, index.dead_tables) = (RwLock::new(usable), sizes, dead_tables);
        index.unknown_dead = unknown_dead;
        if unlisted == Unlisted::ByHeader || !index.damaged.is_empty() {
            self.index_from_headers(&index, job, &mut codec)?;
        }
        Ok(Some(index))
    }

    /// None: a segment vanished between listing and reading.
    fn read_segments(&self, job: &Job, hold: Hold, codec: &mut Codec) -> Result<Option<Index>> {
        let names = self.segment_names()?;
        let hold = if self.cache.has_folder() { Hold::All } else { hold };
        let (mut index, mut damaged) = (Index { hold, ..Index::default() }, Vec::new());
        for name in &names {
            job.check()?;
            match self.load_segment(*name, codec) {
                Ok(Some(segment)) => index.add_stored_segment(*name, segment)?,
                Ok(None) => return Ok(None),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey) => {
                    tracing::warn!(segment = %name, error = %error, "Cannot read an index segment, reading pack headers instead");
                    damaged.push((*name, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        let known: BTreeSet<String> = names.iter().map(|n| format!("segments/{n}")).collect();
        for key in self.cache.keys("segments/") {
            if !known.contains(key.as_str()) {
                self.cache.delete(key.as_str());
            }
        }
        (index.damaged, index.listed) = (damaged, names);
        Ok(Some(index))
    }

    /// A segment of an index, with its chunks. None: it is gone, so another prune has written elsewhere what it said.
    pub(crate) fn whole_segment(
        &self,
        index: &Index,
        (name, segment): &(RandomName, Arc<Segment<SegmentBytes>>),
        codec: &mut Codec,
    ) -> Result<Option<Arc<Segment<SegmentBytes>>>> {
        match index.knows_chunks() {
            true => Ok(Some(Arc::clone(segment))),
            false => Ok(self.load_segment(*name, codec)?.map(Arc::new)),
        }
    }

    /// Names of the segments that there are now.
    fn segment_names(&self) -> Result<BTreeSet<RandomName>> {
        let mut names = BTreeSet::new();
        list(&*self.store, "index/", |entry| {
            names.extend(entry.key.as_str().strip_prefix("index/").and_then(|n| RandomName::from_hex(n).ok()));
            Ok(())
        })?;
        Ok(names)
    }

    /// Whether there are other segments now than when `index` was loaded. A prune that moves frames puts segments before it deletes
    /// packs, so of a pack that is gone while this says no, nothing is anywhere else.
    pub(crate) fn index_changed(&self, index: &Index) -> Result<bool> {
        Ok(self.segment_names()? != index.listed)
    }

    fn tombstoned(&self, purpose: For, codec: &mut Codec) -> Result<(HashSet<PackName>, HashSet<UsageName>, Option<Error>)> {
        let mut names = BTreeSet::new();
        // A tombstone that one listing leaves out the other names: where it does not yet, the prune will find the marker of who asks here.
        let prefixes: &[&str] = if purpose == For::Writing { &["tombstones/", "open/"] } else { &["tombstones/"] };
        for prefix in prefixes {
            list(&*self.store, prefix, |entry| {
                names.extend(entry.key.as_str().strip_prefix(prefix).and_then(|n| RandomName::from_hex(n).ok()));
                Ok(())
            })?;
        }
        let (mut packs, mut tables, mut unknown) = (HashSet::new(), HashSet::new(), None);
        for name in names {
            // Gone in between: its packs are gone too, and the listing of packs, which comes later, shows it.
            let read = || self.get(Role::Tombstone.key(name), limits::RECORD_BYTES_MAX);
            let doomed = opened(read, |read| match read {
                None => Ok(Doomed::default()),
                Some(bytes) => Ok(Doomed::decode(&self.keys, Role::Tombstone, name, bytes, codec)?),
            });
            let doomed = match doomed {
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey) => {
                    tracing::warn!(generation = %name, error = %error, "Cannot read a tombstone");
                    unknown = Some(error.with_next_step("a prune puts it right: longshore repo prune"));
                    continue;
                }
                doomed => doomed?,
            };
            packs.extend(doomed.packs);
            tables.extend(doomed.tables);
        }
        Ok((packs, tables, unknown))
    }

    fn load_segment(&self, name: RandomName, codec: &mut Codec) -> Result<Option<Segment<SegmentBytes>>> {
        let cache_key = format!("segments/{name}");
        if !self.asks_store
            && let Some(map) = self.cache.map(&cache_key)
        {
            if let Some((body, sum)) = map.as_ref().split_last_chunk::<SUM_BYTES>()
                && *sum == self.keys.cache_sum(&name.0, body)
            {
                self.cache.note(Kept::Index, true);
                return Ok(Some(Segment::new(SegmentBytes::Mapped(map))?));
            }
            self.cache.delete(&cache_key);
        }
        if !self.asks_store {
            self.cache.note(Kept::Index, false);
        }
        let read = || self.get(index_key(name), limits::INDEX_BYTES_MAX);
        let payload = opened(read, |read| match read {
            None => Ok(None),
            Some(bytes) => Ok(Some(index::open_segment(&self.keys, name, bytes, codec)?)),
        })?;
        payload.map(|payload| self.keep_segment(name, payload)).transpose()
    }

    /// Puts an opened segment into the cache and maps it from there, or holds it.
    pub(crate) fn keep_segment(&self, name: RandomName, mut payload: Vec<u8>) -> Result<Segment<SegmentBytes>> {
        if !self.cache.has_folder() {
            return Ok(Segment::new(SegmentBytes::Held(payload))?);
        }
        let cache_key = format!("segments/{name}");
        let sum = self.keys.cache_sum(&name.0, &payload);
        payload.extend_from_slice(&sum);
        self.cache.put(&cache_key, &payload);
        payload.truncate(payload.len() - SUM_BYTES);
        match self.cache.map(&cache_key) {
            Some(map) if map.as_ref().len() == payload.len() + SUM_BYTES && map.as_ref().starts_with(&payload) => {
                Ok(Segment::new(SegmentBytes::Mapped(map))?)
            }
            _ => Ok(Segment::new(SegmentBytes::Held(payload))?),
        }
    }

    /// Adds the packs that no segment lists to an index, from their headers: it is a hint, and a lost hint is no loss.
    ///
    /// # Errors
    /// What the store says. A header that cannot be read is left out.
    pub(crate) fn index_from_headers(&self, index: &Index, job: &Job, codec: &mut Codec) -> Result<()> {
        let listed: HashSet<PackName> =
            index.segments().iter().flat_map(|s| s.packs()).filter(|p| p.size_bytes != 0).map(|p| p.name).collect();
        let mut builder = SegmentBuilder::new();
        let missing: BTreeMap<PackName, u64> =
            index.sizes.iter().filter(|(n, _)| !listed.contains(n)).map(|(n, s)| (*n, *s)).collect();
        for (name, size) in missing {
            job.check()?;
            match self.pack_header(name, size, codec) {
                Ok((salt, frames)) => builder.add_pack(name, salt, size, &frames),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey) => {
                    tracing::warn!(pack = %name, error = %error, "Cannot read the header of a pack");
                }
                Err(error) => return Err(error),
            }
            if builder.chunks() >= 1 << 20 {
                index.add_segment(Segment::new(SegmentBytes::Held(std::mem::take(&mut builder).payload()?))?);
            }
        }
        index.add_segment(Segment::new(SegmentBytes::Held(builder.payload()?))?);
        Ok(())
    }
}

fn index_is_restless() -> Error {
    Error::new(ErrorKind::StoreUnavailable, "the index changed each time it was read").with_next_step("try again later")
}

impl Index {
    /// One that knows nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment<SegmentBytes>>> {
        self.segments.read().map(|s| s.clone()).unwrap_or_default()
    }

    pub(crate) fn add_segment(&self, segment: Segment<SegmentBytes>) {
        if let Ok(mut segments) = self.segments.write() {
            segments.push(Arc::new(segment));
        }
    }

    /// Segments that are in the store, by name.
    pub(crate) fn named_segments(&self) -> Vec<(RandomName, Arc<Segment<SegmentBytes>>)> {
        let segments = self.segments();
        let named = segments.into_iter().enumerate();
        named.filter_map(|(at, segment)| self.names.get(&at).map(|name| (*name, segment))).collect()
    }

    /// Frames that lie in packs that are there, as segments in the store say.
    pub(crate) fn frames_of_stored_segments(&self) -> Usage {
        let (mut frames, segments) = (Usage::new(), self.named_segments());
        let places = segments.iter().flat_map(|(_, segment)| (0..).map_while(|row| segment.frame(row)));
        places.filter(|place| self.sizes.contains_key(&place.pack)).for_each(|place| frames.insert(place.birth));
        frames
    }

    /// Segments that are only in memory.
    pub(crate) fn unnamed_segments(&self) -> Vec<Arc<Segment<SegmentBytes>>> {
        self.segments().into_iter().enumerate().filter(|(at, _)| !self.names.contains_key(at)).map(|(_, s)| s).collect()
    }

    /// Packs of these sessions that may be relied on and stand in no segment of the store, with their sizes.
    pub(crate) fn unnamed_packs_of(&self, sessions: &[SessionId]) -> BTreeMap<PackName, u64> {
        if sessions.is_empty() {
            return BTreeMap::new();
        }
        let wanted: HashSet<&SessionId> = sessions.iter().collect();
        let mut packs: BTreeMap<PackName, u64> = self
            .sizes
            .iter()
            .filter(|(name, _)| wanted.contains(&name.session) && self.is_usable(name))
            .map(|(name, size)| (*name, *size))
            .collect();
        for (_, segment) in self.named_segments() {
            for row in segment.packs().filter(|row| row.size_bytes != 0) {
                packs.remove(&row.name);
            }
        }
        packs
    }

    /// How many chunks a segment has in the store.
    pub(crate) fn chunks_of(&self, name: RandomName, segment: &Segment<SegmentBytes>) -> usize {
        self.chunks.get(&name).copied().unwrap_or_else(|| segment.len())
    }

    /// Whether chunks are found by their ids.
    pub(crate) fn knows_chunks(&self) -> bool {
        self.hold == Hold::All
    }

    /// Adds a segment that is in the store.
    pub(crate) fn add_stored_segment(&mut self, name: RandomName, mut segment: Segment<SegmentBytes>) -> Result<()> {
        if self.hold == Hold::Frames {
            self.chunks.insert(name, segment.len());
            segment = without_chunks(&segment)?;
        }
        self.names.insert(self.segments().len(), name);
        self.add_segment(segment);
        Ok(())
    }

    /// Says that a pack of this session is in the store.
    pub(crate) fn add_own_pack(&self, name: PackName) {
        if let Ok(mut usable) = self.usable.write() {
            usable.insert(name);
        }
    }

    /// Packs listed in the store when the index was loaded, with their sizes.
    #[must_use]
    pub fn pack_sizes(&self) -> &HashMap<PackName, u64> {
        &self.sizes
    }

    /// Whether a usage table stood in a tombstone: no snapshot may come to rest on it.
    #[must_use]
    pub fn is_dead_table(&self, name: &UsageName) -> bool {
        self.dead_tables.contains(name)
    }

    /// Whether a pack is as long as the index says.
    pub(crate) fn is_whole_pack(&self, name: &PackName) -> bool {
        !self.cut.contains(name)
    }

    /// Whether frames of a pack may be relied on.
    #[must_use]
    pub fn is_usable(&self, name: &PackName) -> bool {
        self.usable.read().is_ok_and(|u| u.contains(name))
    }

    /// Whether a repair found that what lies at a place is damaged.
    pub(crate) fn is_damaged_place(&self, place: &FramePlace) -> bool {
        self.damaged_places.get(&place.pack).is_some_and(|frames| frames.contains(place.birth))
    }

    /// Frames that are damaged in some pack.
    pub(crate) fn damaged_frames(&self) -> Usage {
        let mut all = Usage::new();
        self.damaged_places.values().for_each(|frames| all.merge(frames));
        all
    }

    /// Frames with a chunk whose id begins so.
    pub(crate) fn frames_with_prefix(&self, prefix: u64) -> Vec<FramePlace> {
        let segments = self.segments();
        segments.iter().flat_map(|s| s.find_prefix(prefix).filter_map(|place| s.frame(place.frame))).collect()
    }

    /// Number of chunks in all segments; those that stand in several count several times.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.segments().iter().map(|s| s.len() as u64).sum()
    }

    /// Whether no chunk is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A place of a chunk in a pack that may be relied on.
    #[must_use]
    pub fn find(&self, id: &ChunkId) -> Option<Found> {
        self.find_where(id, |place| self.is_usable(&place.pack) && !self.is_damaged_place(place))
    }

    /// All places of a chunk, also in packs that may not be relied on: for a reader that tries them in turn.
    #[must_use]
    pub fn find_all(&self, id: &ChunkId) -> Vec<Found> {
        let mut out = Vec::new();
        for segment in self.segments() {
            for place in segment.find(id) {
                if let Some(frame) = segment.frame(place.frame) {
                    out.push(Found { frame, offset_bytes: place.offset_bytes, length_bytes: place.length_bytes });
                }
            }
        }
        out
    }

    /// Shows places of a chunk, youngest segments first, until `visit` has seen enough.
    pub(crate) fn each_place(&self, id: &ChunkId, mut visit: impl FnMut(&Found) -> bool) {
        let Ok(segments) = self.segments.read() else { return };
        for segment in segments.iter().rev() {
            for place in segment.find(id) {
                if let Some(frame) = segment.frame(place.frame)
                    && visit(&Found { frame, offset_bytes: place.offset_bytes, length_bytes: place.length_bytes })
                {
                    return;
                }
            }
        }
    }

    fn find_where(&self, id: &ChunkId, good: impl Fn(&FramePlace) -> bool) -> Option<Found> {
        let segments = self.segments.read().ok()?;
        let last = LAST_FOUND.get();
        for at in std::iter::once(last).chain((0..segments.len()).rev().filter(|at| *at != last)) {
            let Some(segment) = segments.get(at) else { continue };
            for place in segment.find(id) {
                if let Some(frame) = segment.frame(place.frame)
                    && good(&frame)
                {
                    LAST_FOUND.set(at);
                    return Some(Found { frame, offset_bytes: place.offset_bytes, length_bytes: place.length_bytes });
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_format::id::ChunkKind;
    use longshore_format::pack::{BirthName, Frame};

    fn pack(number: u32) -> PackName {
        PackName { session: SessionId([7; 16]), number }
    }

    fn segment(number: u32, ids: &[u8]) -> Segment<SegmentBytes> {
        let mut builder = SegmentBuilder::new();
        let frame = Frame {
            birth: BirthName { pack: pack(number), ordinal: 0 },
            birth_salt: [0; 32],
            kind: ChunkKind::Data,
            offset_bytes: 0,
            stored_bytes: 9,
            chunks: ids.iter().map(|id| (ChunkId([*id; 32]), 1)).collect(),
        };
        builder.add_pack(pack(number), [0; 32], 99, &[frame]);
        Segment::new(SegmentBytes::Held(builder.payload().unwrap())).unwrap()
    }

    #[test]
    fn what_was_found_last_keeps_nothing_else_from_being_found() {
        let index = Index::default();
        for (number, ids) in [(0, &[1, 2][..]), (1, &[2, 3]), (2, &[4])] {
            index.add_segment(segment(number, ids));
            index.add_own_pack(pack(number));
        }
        let found = |id: u8| index.find(&ChunkId([id; 32])).map(|found| found.frame.pack.number);
        for (id, others) in [(1, [Some(0)].as_slice()), (2, &[Some(0), Some(1)]), (3, &[Some(1)]), (4, &[Some(2)]), (5, &[None])]
        {
            for before in 1..=5 {
                found(before);
                assert!(others.contains(&found(id)), "{id} after {before}");
            }
        }
        // A pack that may no longer be relied on is passed over, also where it was found last.
        for (gone, left) in [(0, 1), (1, 0)] {
            found(if gone == 0 { 1 } else { 3 });
            index.usable.write().unwrap().remove(&pack(gone));
            assert_eq!(found(2), Some(left));
            index.add_own_pack(pack(gone));
        }
        // Another index of fewer segments.
        found(4);
        let small = Index::default();
        assert_eq!(small.find(&ChunkId([1; 32])), None);
    }
}
