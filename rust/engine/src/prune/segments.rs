//! The index as a prune leaves it: without packs that are gone, without segments that cannot be read, without very many small ones.
//!
//! Promises that a segment goes only after everything it says of packs that stay was written elsewhere, and is there: where the header of a
//! pack has rotted, a segment is the last that knows where its frames lie. Of whole packs the index is a hint, and what is not written costs
//! requests, so a full store makes this room do nothing. Memory: one segment being built, and one that
//! is read again for its chunks.

use super::{Prune, Sight};
use crate::error::{ErrorKind, Result};
use crate::repository::cursor::is_damage;
use crate::repository::index::SegmentBytes;
use longshore_format::id::{PackName, RandomName};
use longshore_format::index::{Segment, SegmentBuilder, index_key, seal_segment};
use longshore_store::Put;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Chunks at which a segment that is being written is closed.
const CHUNKS_MAX: usize = 64 << 10;
/// A segment of fewer chunks is small.
const SMALL_CHUNKS: usize = 8 << 10;
/// So many small segments are merged.
const SMALL_SEGMENTS: usize = 8;

impl Prune<'_> {
    /// Adds packs that no segment lists to the index in memory, from their headers; those that cannot be read stay unknown.
    pub(super) fn index_headers(&mut self, packs: &[PackName], sizes: &HashMap<PackName, u64>) -> Result<()> {
        let mut builder = SegmentBuilder::new();
        for pack in packs {
            self.job.check()?;
            let size = sizes.get(pack).copied().unwrap_or(0);
            match self.repository.pack_header(*pack, size, &mut self.codec) {
                Ok((salt, frames)) => {
                    builder.add_pack(*pack, salt, size, &frames);
                    self.unstored.insert(*pack);
                }
                Err(error) if is_damage(&error) => {
                    tracing::warn!(pack = %pack, error = %error, "Cannot read the header of a pack");
                }
                Err(error) => return Err(error),
            }
            if builder.chunks() >= CHUNKS_MAX {
                let payload = std::mem::take(&mut builder).payload()?;
                self.index.add_segment(Segment::new(SegmentBytes::Held(payload))?);
            }
        }
        if !builder.is_empty() {
            self.index.add_segment(Segment::new(SegmentBytes::Held(builder.payload()?))?);
        }
        Ok(())
    }

    /// Adds all packs that no segment lists, in the order of their names, so that what is asked follows from what is there alone.
    pub(super) fn index_unlisted(&mut self, sizes: &HashMap<PackName, u64>) -> Result<()> {
        let listed = self.listed_packs();
        let unlisted: BTreeSet<PackName> = sizes.keys().filter(|pack| !listed.contains(pack)).copied().collect();
        self.index_headers(&unlisted.into_iter().collect::<Vec<_>>(), sizes)
    }

    /// Sends a segment, and knows it. Whether it is there; where it is not, what it says of packs has to be sent again.
    pub(super) fn put_segment(&mut self, builder: SegmentBuilder) -> Result<bool> {
        if builder.is_empty() {
            return Ok(true);
        }
        let name = self.repository.world.name();
        let payload = builder.payload()?;
        let bytes = seal_segment(&self.repository.keys, name, self.repository.world.salt(), &payload, &mut self.codec)?;
        // Nobody else has its name: what is there already is the beginning of a try that failed.
        if self.put(&index_key(name), bytes)? != Some(Put::Created) {
            let segment = Segment::new(SegmentBytes::Held(payload))?;
            self.unstored.extend(segment.packs().filter(|row| row.size_bytes != 0).map(|row| row.name));
            self.index.add_segment(segment);
            return Ok(false);
        }
        self.report.segments_written += 1;
        let segment = self.repository.keep_segment(name, payload)?;
        self.index.add_stored_segment(name, segment)?;
        Ok(true)
    }

    /// Step 5: segments without `doomed` packs and those that are gone; then the ones they replace are deleted.
    pub(super) fn rewrite_index(&mut self, sight: &Sight, doomed: &BTreeSet<PackName>) -> Result<()> {
        match self.try_rewrite(sight, doomed) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                tracing::warn!(error = %error, "The store is full, leaving the index as it is");
                Ok(())
            }
            done => done,
        }
    }

    fn try_rewrite(&mut self, sight: &Sight, doomed: &BTreeSet<PackName>) -> Result<()> {
        let sizes = &sight.sizes;
        let damaged: Vec<RandomName> =
            self.index.damaged.iter().map(|(name, _)| *name).filter(|name| !self.replaced.contains(name)).collect();
        if !damaged.is_empty() {
            self.index_unlisted(sizes)?;
        }
        let stored: Vec<(RandomName, Arc<Segment<SegmentBytes>>)> =
            self.index.named_segments().into_iter().filter(|(name, _)| !self.replaced.contains(name)).collect();
        let unlisted = self.there_and_unlisted(&stored, sizes)?;
        let stays =
            |pack: &PackName, size: u64| sizes.get(pack).or_else(|| unlisted.get(pack)) == Some(&size) && !doomed.contains(pack);
        let is_stale =
            |segment: &Segment<SegmentBytes>| segment.packs().any(|row| row.size_bytes != 0 && !stays(&row.name, row.size_bytes));
        let is_small = |name: RandomName, segment: &Segment<SegmentBytes>| self.index.chunks_of(name, segment) < SMALL_CHUNKS;
        let small = stored.iter().filter(|(name, s)| is_small(*name, s)).count();
        let (mut old, kept): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|(name, s)| is_stale(s) || small >= SMALL_SEGMENTS && is_small(*name, s));
        if old.is_empty() && damaged.is_empty() && self.unstored.is_empty() {
            return Ok(());
        }
        // A pack is written once, wherever it stands.
        let mut written: BTreeSet<PackName> =
            kept.iter().flat_map(|(_, s)| s.packs()).filter(|row| row.size_bytes != 0).map(|row| row.name).collect();
        let held = self.index.unnamed_segments();
        let mut builder = SegmentBuilder::new();
        let (mut gone, mut unreadable) = (Vec::new(), Vec::new());
        let mut is_kept = true;
        for at in 0..old.len() + held.len() {
            self.job.check()?;
            let segment = match old.get(at) {
                None => Arc::clone(&held[at - old.len()]),
                Some(named) => match self.repository.whole_segment(&self.index, named, &mut self.codec) {
                    Ok(Some(segment)) => segment,
                    Ok(None) => {
                        gone.push(named.0);
                        continue;
                    }
                    // It could be read when this prune began. It stays, and the next one makes it anew from headers.
                    Err(error) if is_damage(&error) => {
                        tracing::warn!(segment = %named.0, error = %error, "Cannot read an index segment again, leaving it");
                        unreadable.push(named.0);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let keep: BTreeSet<PackName> = segment
                .packs()
                .filter(|row| row.size_bytes != 0 && stays(&row.name, row.size_bytes) && !written.contains(&row.name))
                .map(|row| row.name)
                .collect();
            builder.add_segment(&segment, |pack| keep.contains(pack));
            written.extend(keep);
            if builder.chunks() >= CHUNKS_MAX {
                is_kept &= self.put_segment(std::mem::take(&mut builder))?;
            }
        }
        old.retain(|(name, _)| !gone.contains(name) && !unreadable.contains(name));
        self.replaced.extend(gone);
        is_kept &= self.put_segment(builder)?;
        if !is_kept {
            tracing::warn!("An index segment is not there after it was put, leaving those that it was to replace");
            return Ok(());
        }
        self.unstored.clear();
        for name in old.iter().map(|(name, _)| *name).chain(damaged) {
            self.job.check()?;
            if self.repository.delete(&index_key(name))? {
                self.report.segments_deleted += 1;
            }
            self.replaced.insert(name);
        }
        Ok(())
    }

    /// Packs of which a segment tells and that no listing shows, with their length, when they are there: a listing may leave out what it likes,
    /// and no backup would rely on what the index does not tell of. What a decision names is gone, and not asked for.
    fn there_and_unlisted(
        &mut self,
        stored: &[(RandomName, Arc<Segment<SegmentBytes>>)],
        sizes: &HashMap<PackName, u64>,
    ) -> Result<HashMap<PackName, u64>> {
        let rows = stored.iter().flat_map(|(_, segment)| segment.packs()).filter(|row| row.size_bytes != 0);
        let mut unlisted: BTreeSet<PackName> = rows.map(|row| row.name).filter(|pack| !sizes.contains_key(pack)).collect();
        if !unlisted.is_empty() {
            let spent = self.repository.spent(self.job, &mut self.codec)?;
            unlisted.retain(|pack| !spent.has_pack(pack));
        }
        let mut there = HashMap::new();
        for pack in unlisted {
            self.job.check()?;
            there.extend(self.repository.size_of(&pack.key())?.map(|size| (pack, size)));
        }
        Ok(there)
    }

    /// Packs whose frames some segment lists.
    fn listed_packs(&self) -> BTreeSet<PackName> {
        self.index.segments().iter().flat_map(|s| s.packs()).filter(|row| row.size_bytes != 0).map(|row| row.name).collect()
    }
}
