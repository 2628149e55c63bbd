//! What is added: whole frames out of packs whose header is damaged or that a prune is about to delete, and the index as the headers have it.
//!
//! Promises that a frame is opened and its chunks are compared before it moves, that its seal is checked in the bytes that are sent, and
//! that an index segment is deleted only after all it says rightly was written elsewhere. Memory: one pack, one segment.

use super::{Found, Repairing};
use crate::check::packs;
use crate::error::{Error, Result};
use crate::repository::cursor::is_damage;
use crate::repository::index::SegmentBytes;
use crate::repository::{key, opened};
use bytes::Bytes;
use longshore_format::id::{ChunkId, ChunkKind, PackName, RandomName};
use longshore_format::index::{FramePlace, Segment, SegmentBuilder, index_key, seal_segment};
use longshore_format::pack::{Frame, PackKey, PackWriter, VerifyUpload, check_chunks, verify};
use longshore_format::repair::Repair;
use longshore_format::usage::Usage;
use longshore_store::Put;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Chunks at which a segment is closed.
const SEGMENT_CHUNKS: usize = 64 << 10;

/// How often a segment is put that is not there when it is looked for.
const SEGMENT_TRIES: usize = 3;

/// Chunks of a frame: where each begins, its id and length.
type Chunks = Vec<(u32, ChunkId, u32)>;

/// Frames by pack and place.
type Placed = BTreeMap<PackName, BTreeMap<u64, Frame>>;

/// The pack that is being written.
#[derive(Default)]
pub(super) struct Out {
    next: u32,
    writer: Option<PackWriter>,
    segment: SegmentBuilder,
    sent: BTreeMap<PackName, u64>,
    /// Of several damaged packs with the same frame one is enough.
    moved: Usage,
}

/// Frames that lie whole in packs with a header.
fn whole_elsewhere(found: &Found) -> Usage {
    let mut whole = Usage::new();
    for segment in found.index.segments() {
        for place in (0..).map_while(|row| segment.frame(row)) {
            let is_spoilt = found.seen.damaged.get(&place.pack).is_some_and(|frames| frames.contains(place.birth));
            if found.seen.sums.contains_key(&place.pack) && !is_spoilt && found.seen.good.contains(place.birth) {
                whole.insert(place.birth);
            }
        }
    }
    whole
}

/// Frames as the index knows them, with their chunks, by pack and place: those that are wanted of what lies where.
fn placed(found: &Found, mut wants: impl FnMut(&FramePlace) -> bool) -> Placed {
    let mut out = Placed::new();
    for segment in found.index.segments() {
        let mut rows: HashMap<u32, (FramePlace, Chunks)> = HashMap::new();
        for row in 0..segment.frame_count() as u32 {
            if let Some(place) = segment.frame(row).filter(&mut wants) {
                rows.insert(row, (place, Vec::new()));
            }
        }
        if rows.is_empty() {
            continue;
        }
        for row in 0..segment.len() {
            let place = segment.place(row);
            if let Some((_, chunks)) = rows.get_mut(&place.frame) {
                chunks.push((place.offset_bytes, segment.id(row), place.length_bytes));
            }
        }
        for (place, mut chunks) in rows.into_values() {
            chunks.sort_unstable();
            chunks.dedup();
            let frame = Frame {
                birth: place.birth,
                birth_salt: place.birth_salt,
                kind: place.kind,
                offset_bytes: place.offset_bytes,
                stored_bytes: place.stored_bytes,
                chunks: chunks.into_iter().map(|(_, id, length)| (id, length)).collect(),
            };
            out.entry(place.pack).or_default().insert(frame.offset_bytes, frame);
        }
    }
    out
}

impl Repairing<'_> {
    /// Frames of packs without a header that are whole and lie in no other pack. All that the index knows of such packs is noted as spoilt.
    fn salvageable(&mut self, found: &Found) -> Placed {
        if found.seen.headless.is_empty() {
            return Placed::new();
        }
        let elsewhere = whole_elsewhere(found);
        placed(found, |place| {
            if !found.seen.headless.contains(&place.pack) {
                return false;
            }
            self.spoilt.entry(place.pack).or_default().insert(place.birth);
            let is_damaged = found.seen.damaged.get(&place.pack).is_some_and(|frames| frames.contains(place.birth));
            !is_damaged && !elsewhere.contains(place.birth)
        })
    }

    /// Moves frames that are needed from now on out of packs that a prune may be about to delete: it may have decided so before anybody needed
    /// them, and whoever writes down that he does may not rely on what lies there, as no writer may.
    pub(super) fn shelter(&mut self, found: &Found, record: &Repair) -> Result<()> {
        let mut needed = Usage::new();
        record.needs.values().for_each(|needs| needed.merge(needs));
        if needed.is_empty() || self.options.dry_run {
            return Ok(());
        }
        // What a decision names may be deleted at any time, also when it has come again.
        let spent = self.repository.spent(self.job, &mut self.codec)?;
        let is_there = |place: &FramePlace| found.seen.sums.contains_key(&place.pack) && found.seen.good.contains(place.birth);
        let mut stays = Usage::new();
        for place in
            found.index.segments().iter().flat_map(|segment| (0..).map_while(|row| segment.frame(row)).collect::<Vec<_>>())
        {
            if needed.contains(place.birth)
                && is_there(&place)
                && found.index.is_usable(&place.pack)
                && !spent.has_pack(&place.pack)
            {
                stays.insert(place.birth);
            }
        }
        let going = placed(found, |place| needed.contains(place.birth) && !stays.contains(place.birth) && is_there(place));
        self.move_all(&going)
    }

    /// Moves whole frames out of packs whose header is damaged; without a header they are lost together with the index.
    pub(super) fn salvage(&mut self, found: &mut Found) -> Result<()> {
        let packs = self.salvageable(found);
        for frames in packs.values() {
            self.report.frames_moved += frames.len() as u64;
            self.report.bytes_moved += frames.values().map(|frame| u64::from(frame.stored_bytes)).sum::<u64>();
        }
        if self.options.dry_run {
            return Ok(());
        }
        self.move_all(&packs)?;
        self.stuck.frames().for_each(|frame| found.seen.good.remove(frame));
        Ok(())
    }

    fn move_all(&mut self, packs: &Placed) -> Result<()> {
        for is_data in [true, false] {
            let mut out = std::mem::take(&mut self.out);
            for (pack, frames) in packs {
                self.job.at(pack.key().as_bytes());
                for frame in frames.values().filter(|frame| (frame.kind == ChunkKind::Data) == is_data) {
                    self.job.check()?;
                    if !out.moved.contains(frame.birth) {
                        self.move_frame(*pack, frame, &mut out)?;
                    }
                }
            }
            self.close(&mut out)?;
            self.out = out;
        }
        Ok(())
    }

    fn move_frame(&mut self, pack: PackName, frame: &Frame, out: &mut Out) -> Result<()> {
        let pack_key = PackKey::derive(&self.repository.keys, frame.birth.pack, &frame.birth_salt)?;
        let object = key(pack.key())?;
        let (repository, codec) = (self.repository, &mut self.codec);
        let (mut scratch, mut payload) = (Vec::new(), Vec::new());
        let read = || Ok(repository.store.get_range(&object, frame.offset_bytes, u64::from(frame.stored_bytes))?);
        let stored = opened(read, |stored: &Bytes| {
            scratch.clear();
            scratch.extend_from_slice(stored);
            pack_key.open_frame(frame.birth.ordinal, &mut scratch, codec, &mut payload)?;
            check_chunks(&repository.keys, frame, &payload)?;
            Ok(stored.clone())
        });
        let stored = match stored {
            // Its seal held a moment ago, so the index is wrong about it: it stays where it is, and the index keeps what it says of it.
            Err(error) if is_damage(&error) => {
                tracing::warn!(pack = %pack, error = %error, "Cannot move a frame");
                self.stuck.insert(frame.birth);
                return Ok(());
            }
            stored => stored?,
        };
        out.moved.insert(frame.birth);
        if out.writer.is_none() {
            let name = PackName { session: self.session, number: out.next };
            out.next += 1;
            out.writer = Some(PackWriter::new(&self.repository.keys, name, self.repository.world.salt(), Vec::new())?);
        }
        let Some(writer) = out.writer.as_mut() else { return Err(Error::internal("no pack is open")) };
        writer.push_moved(frame, &stored)?;
        self.job.bytes_moved.fetch_add(stored.len() as u64, Relaxed);
        if writer.size_bytes() >= self.options.pack_size_bytes { self.close(out) } else { Ok(()) }
    }

    fn close(&mut self, out: &mut Out) -> Result<()> {
        let Some(writer) = out.writer.take() else { return Ok(()) };
        let pack = writer.finish(&mut self.codec)?;
        let (mut scratch, mut payload) = (Vec::new(), Vec::new());
        verify(&self.repository.keys, &pack, VerifyUpload::Header, &mut self.codec, &mut scratch, &mut payload)?;
        for frame in &pack.frames {
            let start = frame.offset_bytes as usize;
            scratch.clear();
            scratch.extend_from_slice(&pack.bytes[start..start + frame.stored_bytes as usize]);
            PackKey::derive(&self.repository.keys, frame.birth.pack, &frame.birth_salt)?
                .check_frame(frame.birth.ordinal, &mut scratch)?;
        }
        let size = pack.bytes.len() as u64;
        if self.repository.store.put_new(&key(pack.name.key())?, Bytes::from(pack.bytes))? == Put::Exists {
            return Err(Error::internal(format!("a pack of this repair was there before it was sent: pack={}", pack.name)));
        }
        self.job.bytes_stored.fetch_add(size, Relaxed);
        out.segment.add_pack(pack.name, pack.salt, size, &pack.frames);
        out.sent.insert(pack.name, size);
        if out.segment.chunks() >= SEGMENT_CHUNKS { self.put_segment(std::mem::take(&mut out.segment)) } else { Ok(()) }
    }

    /// Segments in the store that say something wrong, each with the packs of which they do.
    pub(super) fn wrong_segments(&self, found: &Found) -> BTreeMap<RandomName, BTreeSet<PackName>> {
        let mut wrong: BTreeMap<RandomName, BTreeSet<PackName>> = BTreeMap::new();
        let sizes = found.index.pack_sizes();
        for (name, segment) in found.index.named_segments() {
            for row in segment.packs().filter(|row| row.size_bytes != 0) {
                // Of a pack that is not there, or whose header does not say otherwise, the rows may be all that is left.
                let has_header = found.seen.sums.contains_key(&row.name);
                if has_header && sizes.get(&row.name).is_some_and(|size| *size != row.size_bytes) {
                    wrong.entry(name).or_default().insert(row.name);
                }
            }
            for (pack, said) in packs::sums(&segment) {
                if found.seen.sums.get(&pack).is_some_and(|sum| *sum != said) {
                    wrong.entry(name).or_default().insert(pack);
                }
            }
        }
        wrong
    }

    /// Sends the index of what was moved, of packs that no segment listed, and of packs of which one was wrong; gives the segments
    /// that nobody needs then.
    pub(super) fn index(&mut self, found: &Found, wrong: &BTreeMap<RandomName, BTreeSet<PackName>>) -> Result<Vec<RandomName>> {
        let mut again: BTreeSet<PackName> = wrong.values().flatten().copied().collect();
        again.retain(|pack| found.seen.sums.contains_key(pack));
        let unlisted = found.index.unnamed_segments();
        self.report.packs_indexed =
            again.len() as u64 + unlisted.iter().map(|s| s.packs().filter(|row| row.size_bytes != 0).count() as u64).sum::<u64>();
        let mut old: Vec<RandomName> = wrong.keys().copied().collect();
        old.extend(found.index.damaged.iter().map(|(name, _)| *name));
        if self.options.dry_run {
            return Ok(old);
        }
        let mut builder = std::mem::take(&mut self.out.segment);
        for pack in again {
            self.job.check()?;
            let size = found.index.pack_sizes().get(&pack).copied().unwrap_or(0);
            match self.repository.pack_header(pack, size, &mut self.codec) {
                Ok((salt, frames)) => builder.add_pack(pack, salt, size, &frames),
                // A prune has deleted it meanwhile.
                Err(error) if is_damage(&error) => tracing::debug!(pack = %pack, error = %error, "A pack went away"),
                Err(error) => return Err(error),
            }
            self.put_when_full(&mut builder)?;
        }
        let named: HashMap<RandomName, Arc<Segment<SegmentBytes>>> = found.index.named_segments().into_iter().collect();
        let copied = wrong.iter().filter_map(|(name, packs)| Some((named.get(name)?, Some(packs))));
        for (segment, without) in copied.chain(unlisted.iter().map(|segment| (segment, None))) {
            self.job.check()?;
            builder.add_segment(segment, |pack| without.is_none_or(|packs| !packs.contains(pack)));
            self.put_when_full(&mut builder)?;
        }
        self.put_segment(builder)?;
        Ok(old)
    }

    fn put_when_full(&mut self, builder: &mut SegmentBuilder) -> Result<()> {
        if builder.chunks() >= SEGMENT_CHUNKS { self.put_segment(std::mem::take(builder)) } else { Ok(()) }
    }

    fn put_segment(&mut self, builder: SegmentBuilder) -> Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let payload = builder.payload()?;
        let mut tries = 0;
        // Others go on the strength of this one, and it may be the last that knows where the frames of a pack lie. One that is not there may
        // have been written into another by a prune since, which no second prune does in the same moment.
        loop {
            tries += 1;
            let (name, salt) = (self.repository.world.name(), self.repository.world.salt());
            let bytes = seal_segment(&self.repository.keys, name, salt, &payload, &mut self.codec)?;
            match self.repository.put_certainly(&index_key(name), Bytes::from(bytes)) {
                Ok(Put::Created) => break,
                // Nobody else has its name: what is there is the beginning of a try that failed.
                Ok(Put::Exists) if tries < SEGMENT_TRIES => {}
                Ok(Put::Exists) => {
                    return Err(Error::corrupt(format!("the store kept a part of an index segment: object={}", index_key(name)))
                        .with_next_step("look for faults of the store, then repair again"));
                }
                Err(error) if is_damage(&error) && tries < SEGMENT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
        self.report.segments_written += 1;
        Ok(())
    }

    /// Names and sizes of the packs that were sent.
    pub(super) fn sent(&self) -> &BTreeMap<PackName, u64> {
        &self.out.sent
    }
}
