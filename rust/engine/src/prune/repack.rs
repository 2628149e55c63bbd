//! Needed frames out of packs that are mostly dead, or small, into new ones: sealed bytes move as they are.
//!
//! Promises that a frame is opened and its chunks' ids are compared before it is moved, that its seal is checked in the bytes that
//! are sent, and that nothing is deleted here. A damaged frame is named and stays where it is. One pack is built at a time, and at
//! most one range of a source is held.

use super::choose::Row;
use super::report::Why;
use super::{Prune, Sight};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::cursor::is_damage;
use crate::repository::key;
use bytes::Bytes;
use longshore_format::id::{PackName, SessionId};
use longshore_format::index::SegmentBuilder;
use longshore_format::pack::{Frame, PackKey, PackWriter, VerifyUpload, check_chunks, verify};
use longshore_format::usage::Usage;
use longshore_store::Put;
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering::Relaxed;

/// Packs this much smaller than a full one are small.
const SMALL_DIVISOR: u64 = 4;
/// So many small packs of one kind are merged.
const SMALL_PACKS: usize = 8;
/// Frames closer than this are fetched together.
const GAP_BYTES: u64 = 256 << 10;
/// Most bytes fetched at once, one frame excepted.
const RANGE_BYTES: u64 = 8 << 20;
/// Chunks after which an index segment is sent.
const SEGMENT_CHUNKS: usize = 64 << 10;

/// What is being written.
struct Out {
    session: SessionId,
    next: u32,
    writer: Option<PackWriter>,
    segment: SegmentBuilder,
    buffer: Vec<u8>,
    moved: Usage,
}

impl Prune<'_> {
    /// Moves frames; whether any was.
    pub(super) fn repack(&mut self, sight: &Sight) -> Result<bool> {
        let chosen = self.sources(sight);
        if self.options.dry_run || chosen.is_empty() {
            return Ok(false);
        }
        let leaving: BTreeSet<PackName> = chosen.iter().map(|row| row.name).collect();
        let off = sight.off();
        let mut out = Out {
            session: self.repository.world.session(),
            next: 0,
            writer: None,
            segment: SegmentBuilder::new(),
            buffer: Vec::new(),
            moved: Usage::new(),
        };
        let done = self.move_all(sight, &chosen, &leaving, &off, &mut out);
        match done {
            // What was sent is indexed and helps; the rest waits until there is room.
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                tracing::warn!(error = %error, "The store is full, moving no more frames");
                self.report.used_reserve = true;
            }
            done => done?,
        }
        Ok(out.next > 0)
    }

    fn move_all(
        &mut self,
        sight: &Sight,
        chosen: &[Row],
        leaving: &BTreeSet<PackName>,
        off: &HashSet<PackName>,
        out: &mut Out,
    ) -> Result<()> {
        for is_data in [true, false] {
            for row in chosen.iter().filter(|row| row.is_data == is_data) {
                self.job.check()?;
                self.job.at(row.name.key().as_bytes());
                match self.move_needed(sight, row, leaving, off, out) {
                    Ok(()) => {
                        self.report.packs_repacked += 1;
                        self.verdicts.insert(row.name, Why::Repacked);
                    }
                    Err(error) if is_damage(&error) => {
                        tracing::warn!(pack = %row.name, error = %error, "Cannot move frames out of a damaged pack");
                        self.report.damaged.push((row.name.key(), error.to_string()));
                        self.verdicts.insert(row.name, Why::Damaged);
                    }
                    Err(error) => return Err(error),
                }
            }
            // Data on the one hand, trees and lists on the other never share a pack.
            self.close(out)?;
        }
        self.put_segment(std::mem::take(&mut out.segment)).map(drop)
    }

    /// Packs worth rewriting, the most wasteful first, within what this run may move.
    fn sources(&mut self, sight: &Sight) -> Vec<Row> {
        let sheltered = sight.look.sheltered();
        let stuck: HashSet<PackName> =
            sight.generations.iter().filter(|g| g.is_stuck()).flat_map(super::Generation::packs).copied().collect();
        let doomed = sight.tombstoned();
        // What is damaged and all that is left cannot be moved, so its pack stays whatever is moved out of it.
        let is_free =
            |row: &Row| row.known && row.live_frames > 0 && row.damaged_frames == 0 && !sheltered.contains(&row.name.session);
        let mut out: Vec<Row> =
            sight.places.rows.iter().filter(|row| is_free(row) && stuck.contains(&row.name)).copied().collect();
        let (spent, open): (Vec<Row>, Vec<Row>) = sight
            .places
            .rows
            .iter()
            .filter(|row| is_free(row) && !doomed.contains(&row.name))
            .copied()
            .partition(|row| sight.spent.contains(&row.name));
        // What came again after it was deleted is relied on by nobody.
        out.extend(spent);
        let wasteful = |row: &Row| {
            row.dead_bytes() > 0 && row.dead_bytes() * 100 >= row.frames_bytes * u64::from(self.options.waste_percent)
        };
        out.extend(open.iter().filter(|row| wasteful(row)));
        for is_data in [true, false] {
            let limit = self.options.pack_size_bytes as u64 / SMALL_DIVISOR;
            let small: Vec<Row> =
                open.iter().filter(|r| r.is_data == is_data && r.size_bytes < limit && !wasteful(r)).copied().collect();
            if small.len() >= SMALL_PACKS {
                out.extend(small);
            }
        }
        let waste = |row: &Row| row.dead_bytes() as u128 * 1_000_000 / u128::from(row.frames_bytes.max(1));
        out.sort_by(|a, b| waste(b).cmp(&waste(a)).then(a.name.cmp(&b.name)));
        let mut left = self.options.max_repack_bytes.unwrap_or(u64::MAX);
        let (mut within, mut beyond) = (Vec::new(), Vec::new());
        for row in out {
            if row.live_bytes <= left {
                left -= row.live_bytes;
                within.push(row);
            } else {
                beyond.push(row);
            }
        }
        self.verdicts.extend(beyond.iter().map(|row| (row.name, Why::RepackLimit)));
        if self.options.dry_run {
            self.verdicts.extend(within.iter().map(|row| (row.name, Why::Repacked)));
            self.report.packs_repacked = within.len() as u64;
            self.report.bytes_moved = within.iter().map(|row| row.live_bytes).sum();
        }
        within
    }

    /// Moves what is needed of one pack.
    fn move_needed(
        &mut self,
        sight: &Sight,
        row: &Row,
        leaving: &BTreeSet<PackName>,
        off: &HashSet<PackName>,
        out: &mut Out,
    ) -> Result<()> {
        let (_, frames) = self.repository.pack_header(row.name, row.size_bytes, &mut self.codec)?;
        let damaged = sight.look.repairs.damaged().remove(&row.name).unwrap_or_default();
        let wanted: Vec<&Frame> = frames
            .iter()
            .filter(|f| sight.look.needed.contains(f.birth) && !out.moved.contains(f.birth) && !damaged.contains(f.birth))
            .filter(|f| !sight.places.lies_elsewhere(&f.birth, &row.name, off, leaving))
            .collect();
        let object = key(row.name.key())?;
        let mut at = 0;
        while at < wanted.len() {
            self.job.check()?;
            let start = wanted[at].offset_bytes;
            let mut end = start + u64::from(wanted[at].stored_bytes);
            let mut until = at + 1;
            while let Some(next) = wanted.get(until)
                && next.offset_bytes <= end + GAP_BYTES
                && next.offset_bytes + u64::from(next.stored_bytes) - start <= RANGE_BYTES
            {
                end = next.offset_bytes + u64::from(next.stored_bytes);
                until += 1;
            }
            let range = self.repository.store.get_range(&object, start, end - start)?;
            for frame in &wanted[at..until] {
                let from = (frame.offset_bytes - start) as usize;
                let length = frame.stored_bytes as usize;
                let stored = range.get(from..from + length).ok_or_else(|| Error::corrupt("a range came back short"))?;
                match self.opens(frame, stored) {
                    Ok(()) => self.add(out, frame, stored)?,
                    // Once more: only damage that stays is damage.
                    Err(_) => {
                        let again = self.repository.store.get_range(&object, frame.offset_bytes, length as u64)?;
                        let named =
                            |error: Error| error.while_doing(format_args!("frame {} of {}", frame.birth.ordinal, row.name));
                        self.opens(frame, &again).map_err(named)?;
                        self.add(out, frame, &again)?;
                    }
                }
            }
            at = until;
        }
        Ok(())
    }

    /// That a sealed frame opens and is what its header says.
    fn opens(&mut self, frame: &Frame, stored: &[u8]) -> Result<()> {
        let pack_key = PackKey::derive(&self.repository.keys, frame.birth.pack, &frame.birth_salt)?;
        let (mut scratch, mut payload) = (stored.to_vec(), Vec::new());
        pack_key.open_frame(frame.birth.ordinal, &mut scratch, &mut self.codec, &mut payload)?;
        Ok(check_chunks(&self.repository.keys, frame, &payload)?)
    }

    fn add(&mut self, out: &mut Out, frame: &Frame, stored: &[u8]) -> Result<()> {
        if out.writer.is_none() {
            let name = PackName { session: out.session, number: out.next };
            out.next += 1;
            let buffer = std::mem::take(&mut out.buffer);
            out.writer = Some(PackWriter::new(&self.repository.keys, name, self.repository.world.salt(), buffer)?);
        }
        let Some(writer) = out.writer.as_mut() else { return Err(Error::internal("no pack is open")) };
        #[cfg(feature = "testing")]
        let stored = &garbled(stored)[..];
        writer.push_moved(frame, stored)?;
        out.moved.insert(frame.birth);
        self.report.bytes_moved += stored.len() as u64;
        self.job.bytes_moved.fetch_add(stored.len() as u64, Relaxed);
        if writer.size_bytes() >= self.options.pack_size_bytes { self.close(out) } else { Ok(()) }
    }

    /// Finishes, checks and sends the open pack.
    fn close(&mut self, out: &mut Out) -> Result<()> {
        let Some(writer) = out.writer.take() else { return Ok(()) };
        let pack = writer.finish(&mut self.codec)?;
        let (mut scratch, mut payload) = (Vec::new(), Vec::new());
        let checked = verify(&self.repository.keys, &pack, VerifyUpload::Header, &mut self.codec, &mut scratch, &mut payload)
            .map_err(Error::from)
            .and_then(|()| {
                for frame in &pack.frames {
                    let start = frame.offset_bytes as usize;
                    scratch.clear();
                    scratch.extend_from_slice(&pack.bytes[start..start + frame.stored_bytes as usize]);
                    let pack_key = PackKey::derive(&self.repository.keys, frame.birth.pack, &frame.birth_salt)?;
                    pack_key.check_frame(frame.birth.ordinal, &mut scratch)?;
                }
                Ok(())
            });
        checked.map_err(|error| {
            Error::internal(format!("a pack did not pass its check before it was sent, nothing of it was stored: {error}"))
                .with_next_step("memory or processor may be failing: test the machine, then prune again")
        })?;
        let size = pack.bytes.len() as u64;
        let body = Bytes::from(pack.bytes);
        // Not out of the room that is kept back: that is for what frees room.
        if self.repository.store.put_new(&key(pack.name.key())?, body.clone())? == Put::Exists {
            return Err(Error::internal(format!("a pack of this prune was there before it was sent: pack={}", pack.name)));
        }
        if let Ok(buffer) = body.try_into_mut() {
            out.buffer = buffer.into();
        }
        self.report.packs_written += 1;
        self.job.bytes_stored.fetch_add(size, Relaxed);
        out.segment.add_pack(pack.name, pack.salt, size, &pack.frames);
        if out.segment.chunks() >= SEGMENT_CHUNKS { self.put_segment(std::mem::take(&mut out.segment)).map(drop) } else { Ok(()) }
    }
}

/// Lets every prune of the process store something else than it read and opened, as prunes have done.
#[cfg(feature = "testing")]
pub static WRONG_REPACK: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[cfg(feature = "testing")]
fn garbled(stored: &[u8]) -> Vec<u8> {
    let mut stored = stored.to_vec();
    let middle = stored.len() / 2;
    stored[middle] ^= u8::from(WRONG_REPACK.load(std::sync::atomic::Ordering::Relaxed));
    stored
}
