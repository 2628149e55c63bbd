//! Index segments: docs/format.md chapter 8.
//!
//! [`SegmentBuilder`] collects packs and seals a segment; [`Segment`] reads one in place from any bytes (memory or a map), without
//! building anything: a lookup is a binary search over 16-byte records and one comparison of the whole id.
//!
//! Over 500 lines because writer and reader of one layout stand side by side with their tests.

use crate::envelope::Codec;
use crate::id::{ChunkId, ChunkKind, PackName, RandomName, SessionId};
use crate::pack::{BirthName, Frame};
use crate::repair::chunk_prefix as prefix;
use crate::seal::{self, ObjectType};
use crate::{FormatError, Keys, Result, limits};
use std::collections::BTreeMap;

const HEAD_BYTES: usize = 16;
const REPLACED_BYTES: usize = 16;
const PACK_BYTES: usize = 64;
const FRAME_BYTES: usize = 32;
const LOOKUP_BYTES: usize = 16;
const REST_BYTES: usize = 24;

/// The store key of a segment.
#[must_use]
pub fn index_key(name: RandomName) -> String {
    format!("index/{name}")
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// Its name.
    pub birth: BirthName,
    /// Salt of its birth pack.
    pub birth_salt: [u8; 32],
    /// The pack in which it lies now.
    pub pack: PackName,
    /// Where it begins there.
    pub offset_bytes: u64,
    /// Sealed length.
    pub stored_bytes: u32,
    /// Length of its payload.
    pub payload_bytes: u32,
    /// What its chunks hold.
    pub kind: ChunkKind,
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Row of its frame in the segment.
    pub frame: u32,
    /// Where it begins in the frame's payload.
    pub offset_bytes: u32,
    /// Its length.
    pub length_bytes: u32,
}

/// A pack as a segment lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// Its name.
    pub name: PackName,
    /// Its size; 0 when it is listed as a birth pack only.
    pub size_bytes: u64,
    /// Its salt.
    pub salt: [u8; 32],
}

/// Collects packs for one segment.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    replaces: Vec<RandomName>,
    packs: Vec<PackRow>,
    pack_rows: BTreeMap<PackName, u32>,
    frames: Vec<[u8; FRAME_BYTES]>,
    chunks: Vec<(ChunkId, u32, u32, u32)>,
}

impl SegmentBuilder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the new segment holds all of an older one.
    pub fn replaces(&mut self, name: RandomName) {
        self.replaces.push(name);
    }

    /// Number of chunks so far.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.replaces.is_empty()
    }

    fn pack_row(&mut self, name: PackName, salt: [u8; 32]) -> u32 {
        let next = self.packs.len() as u32;
        let packs = &mut self.packs;
        *self.pack_rows.entry(name).or_insert_with(|| {
            packs.push(PackRow { name, size_bytes: 0, salt });
            next
        })
    }

    /// Adds all frames of a pack.
    pub fn add_pack(&mut self, name: PackName, salt: [u8; 32], size_bytes: u64, frames: &[Frame]) {
        let row = self.pack_row(name, salt);
        self.packs[row as usize].size_bytes = size_bytes;
        for frame in frames {
            let birth_row = self.pack_row(frame.birth.pack, frame.birth_salt);
            let frame_row = self.frames.len() as u32;
            let mut record = [0; FRAME_BYTES];
            record[0..4].copy_from_slice(&birth_row.to_le_bytes());
            record[4..8].copy_from_slice(&frame.birth.ordinal.to_le_bytes());
            record[8..12].copy_from_slice(&row.to_le_bytes());
            record[12..16].copy_from_slice(&frame.stored_bytes.to_le_bytes());
            record[16..24].copy_from_slice(&frame.offset_bytes.to_le_bytes());
            record[24..28].copy_from_slice(&(frame.payload_bytes() as u32).to_le_bytes());
            record[28] = frame.kind.number();
            self.frames.push(record);
            let mut at = 0u32;
            for (id, length) in &frame.chunks {
                self.chunks.push((*id, frame_row, at, *length));
                at += length;
            }
        }
    }

    /// Adds, of another segment, the packs that `keep` names, each with all that the segment says of it.
    pub fn add_segment<B: AsRef<[u8]>>(&mut self, segment: &Segment<B>, keep: impl Fn(&PackName) -> bool) {
        // Row there → row here; rows of frames that stay behind are never looked up.
        let mut packs = vec![None; segment.packs];
        let mut frames = vec![u32::MAX; segment.frames];
        let kept: Vec<bool> = segment.packs().map(|row| row.size_bytes != 0 && keep(&row.name)).collect();
        for row in 0..segment.frames {
            let mut record = [0; FRAME_BYTES];
            record.copy_from_slice(segment.frame_record(row));
            let (birth, pack) = (u32_at(&record, 0), u32_at(&record, 8));
            if !kept[pack as usize] {
                continue;
            }
            let mut here = |there: u32| {
                *packs[there as usize].get_or_insert_with(|| {
                    let row = segment.pack(there);
                    self.pack_row(row.name, row.salt)
                })
            };
            let (birth_row, pack_row) = (here(birth), here(pack));
            self.packs[pack_row as usize].size_bytes = segment.pack(pack).size_bytes;
            record[0..4].copy_from_slice(&birth_row.to_le_bytes());
            record[8..12].copy_from_slice(&pack_row.to_le_bytes());
            frames[row] = self.frames.len() as u32;
            self.frames.push(record);
        }
        for row in 0..segment.chunks {
            let place = segment.place(row);
            let frame = frames[place.frame as usize];
            if frame != u32::MAX {
                self.chunks.push((segment.id(row), frame, place.offset_bytes, place.length_bytes));
            }
        }
    }

    /// The payload of the segment.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn payload(mut self) -> Result<Vec<u8>> {
        self.chunks.sort_unstable_by_key(|chunk| chunk.0);
        let size = HEAD_BYTES
            + self.replaces.len() * REPLACED_BYTES
            + self.packs.len() * PACK_BYTES
            + self.frames.len() * FRAME_BYTES
            + self.chunks.len() * (LOOKUP_BYTES + REST_BYTES + 4);
        if size > limits::INDEX_BYTES_MAX {
            return Err(FormatError::TooLarge {
                what: "index segment",
                size: size as u64,
                limit: limits::INDEX_BYTES_MAX as u64,
            });
        }
        let mut out = Vec::with_capacity(size);
        for count in [self.packs.len(), self.frames.len(), self.chunks.len(), self.replaces.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for name in &self.replaces {
            out.extend_from_slice(&name.0);
        }
        for pack in &self.packs {
            out.extend_from_slice(&pack.name.session.0);
            out.extend_from_slice(&pack.name.number.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&pack.size_bytes.to_le_bytes());
            out.extend_from_slice(&pack.salt);
        }
        for frame in &self.frames {
            out.extend_from_slice(frame);
        }
        for (id, frame, offset, _) in &self.chunks {
            out.extend_from_slice(&prefix(id).to_le_bytes());
            out.extend_from_slice(&frame.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        for (id, ..) in &self.chunks {
            out.extend_from_slice(&id.0[8..]);
        }
        for (.., length) in &self.chunks {
            out.extend_from_slice(&length.to_le_bytes());
        }
        Ok(out)
    }
}

/// Seals a segment's payload.
///
/// # Errors
/// `Library`.
pub fn seal_segment(keys: &Keys, name: RandomName, salt: [u8; 32], payload: &[u8], codec: &mut Codec) -> Result<Vec<u8>> {
    seal::seal_object(keys, ObjectType::Index, &index_key(name), salt, b"", payload, codec)
}

/// Opens a sealed segment; hand the payload to [`Segment::new`].
///
/// # Errors
/// Corrupt, `WrongKey`.
pub fn open_segment(keys: &Keys, name: RandomName, bytes: &[u8], codec: &mut Codec) -> Result<Vec<u8>> {
    seal::open_object(keys, ObjectType::Index, &index_key(name), bytes, limits::INDEX_BYTES_MAX, codec)
}

/// A segment, read in place.
#[derive(Debug)]
pub struct Segment<B> {
    bytes: B,
    packs: usize,
    frames: usize,
    chunks: usize,
    replaced: usize,
}

impl<B: AsRef<[u8]>> Segment<B> {
    /// Checks the layout: lengths, rows in range, order of the lookup. Reads all of it once.
    ///
    /// # Errors
    /// Corrupt.
    pub fn new(bytes: B) -> Result<Self> {
        let wrong = |why: &str| FormatError::corrupt("index segment", why);
        let all = bytes.as_ref();
        if all.len() < HEAD_BYTES {
            return Err(wrong("it ends too early"));
        }
        let count = |at: usize| u32_at(all, at) as usize;
        let segment = Self { packs: count(0), frames: count(4), chunks: count(8), replaced: count(12), bytes };
        let all = segment.bytes.as_ref();
        let size = HEAD_BYTES as u64
            + segment.replaced as u64 * REPLACED_BYTES as u64
            + segment.packs as u64 * PACK_BYTES as u64
            + segment.frames as u64 * FRAME_BYTES as u64
            + segment.chunks as u64 * (LOOKUP_BYTES + REST_BYTES + 4) as u64;
        if size != all.len() as u64 {
            return Err(wrong("its counts do not fit its length"));
        }
        for row in 0..segment.frames {
            let record = segment.frame_record(row);
            let rows_fit = (u32_at(record, 0) as usize) < segment.packs && (u32_at(record, 8) as usize) < segment.packs;
            let sizes_fit = u32_at(record, 12) as usize <= limits::FRAME_PAYLOAD_BYTES_MAX + limits::STORED_EXTRA_BYTES_MAX
                && u32_at(record, 24) as usize <= limits::FRAME_PAYLOAD_BYTES_MAX;
            if !sizes_fit {
                return Err(wrong("a frame is larger than allowed"));
            }
            if !rows_fit || ChunkKind::from_number(record[28]).is_err() {
                return Err(wrong("a frame names a pack or a kind that is not there"));
            }
        }
        let mut last = None;
        for row in 0..segment.chunks {
            let id = segment.id(row);
            let frame = u32_at(segment.lookup(row), 8) as usize;
            let end = u64::from(u32_at(segment.lookup(row), 12)) + u64::from(segment.length(row));
            if frame >= segment.frames || end > u64::from(u32_at(segment.frame_record(frame), 24)) {
                return Err(wrong("a chunk lies outside its frame"));
            }
            if last.is_some_and(|l| l > id) {
                return Err(wrong("its chunks are out of order"));
            }
            last = Some(id);
        }
        Ok(segment)
    }

    fn at(&self, table: usize, row: usize, width: usize) -> &[u8] {
        let start = table + row * width;
        &self.bytes.as_ref()[start..start + width]
    }

    fn pack_table(&self) -> usize {
        HEAD_BYTES + self.replaced * REPLACED_BYTES
    }

    fn frame_table(&self) -> usize {
        self.pack_table() + self.packs * PACK_BYTES
    }

    fn lookup_table(&self) -> usize {
        self.frame_table() + self.frames * FRAME_BYTES
    }

    fn rest_table(&self) -> usize {
        self.lookup_table() + self.chunks * LOOKUP_BYTES
    }

    fn frame_record(&self, row: usize) -> &[u8] {
        self.at(self.frame_table(), row, FRAME_BYTES)
    }

    fn lookup(&self, row: usize) -> &[u8] {
        self.at(self.lookup_table(), row, LOOKUP_BYTES)
    }

    fn length(&self, row: usize) -> u32 {
        u32_at(self.at(self.rest_table() + self.chunks * REST_BYTES, row, 4), 0)
    }

    /// Number of chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks
    }

    /// Whether it lists no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Number of frames.
    #[must_use]
    pub fn frame_count(&self) -> usize {
        self.frames
    }

    /// Segments that this one holds all of.
    pub fn replaced(&self) -> impl Iterator<Item = RandomName> + '_ {
        (0..self.replaced).map(|row| {
            let mut name = [0; 16];
            name.copy_from_slice(self.at(HEAD_BYTES, row, REPLACED_BYTES));
            RandomName(name)
        })
    }

    /// The packs that it lists.
    pub fn packs(&self) -> impl Iterator<Item = PackRow> + '_ {
        (0..self.packs).map(|row| self.pack(row as u32))
    }

    fn pack(&self, row: u32) -> PackRow {
        let record = self.at(self.pack_table(), row as usize, PACK_BYTES);
        let mut session = [0; 16];
        session.copy_from_slice(&record[..16]);
        let mut salt = [0; 32];
        salt.copy_from_slice(&record[32..64]);
        PackRow {
            name: PackName { session: SessionId(session), number: u32_at(record, 16) },
            size_bytes: u64_at(record, 24),
            salt,
        }
    }

    /// The frame in a row, if there is one.
    #[must_use]
    pub fn frame(&self, row: u32) -> Option<FramePlace> {
        if row as usize >= self.frames {
            return None;
        }
        let record = self.frame_record(row as usize);
        let birth = self.pack(u32_at(record, 0));
        let pack = self.pack(u32_at(record, 8));
        Some(FramePlace {
            birth: BirthName { pack: birth.name, ordinal: u32_at(record, 4) },
            birth_salt: birth.salt,
            pack: pack.name,
            offset_bytes: u64_at(record, 16),
            stored_bytes: u32_at(record, 12),
            payload_bytes: u32_at(record, 24),
            kind: ChunkKind::from_number(record[28]).ok()?,
        })
    }

    /// The id in a row.
    #[must_use]
    pub fn id(&self, row: usize) -> ChunkId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&u64_at(self.lookup(row), 0).to_be_bytes());
        id[8..].copy_from_slice(self.at(self.rest_table(), row, REST_BYTES));
        ChunkId(id)
    }

    /// The place in a row.
    #[must_use]
    pub fn place(&self, row: usize) -> ChunkPlace {
        let record = self.lookup(row);
        ChunkPlace { frame: u32_at(record, 8), offset_bytes: u32_at(record, 12), length_bytes: self.length(row) }
    }

    /// All places of a chunk; compares the whole id.
    pub fn find(&self, id: &ChunkId) -> impl Iterator<Item = ChunkPlace> + '_ {
        let id = *id;
        self.rows_of(prefix(&id)).filter(move |row| self.id(*row) == id).map(|row| self.place(row))
    }

    /// The places of all chunks whose id begins so.
    pub fn find_prefix(&self, prefix: u64) -> impl Iterator<Item = ChunkPlace> + '_ {
        self.rows_of(prefix).map(|row| self.place(row))
    }

    fn rows_of(&self, wanted: u64) -> impl Iterator<Item = usize> + '_ {
        let table = self.lookup_table();
        let key = |row: usize| u64_at(self.at(table, row, LOOKUP_BYTES), 0);
        // Rows before `low` have lesser keys, those from `high` on have not.
        let (mut low, mut high) = (0usize, self.chunks);
        // Ids are uniform: by proportion one lands within 2⁷ rows of 2¹⁶, from there within ten. So four lines of memory are touched
        // where halving would touch twelve.
        let rows_in = |distance: u64| ((u128::from(distance) * self.chunks as u128) >> 64) as usize;
        let mut guess = rows_in(wanted);
        let mut below = true;
        for _ in 0..2 {
            if low >= high {
                break;
            }
            let row = guess.clamp(low, high - 1);
            let found = key(row);
            below = found < wanted;
            if below {
                low = row + 1;
                guess = row.saturating_add(rows_in(wanted - found));
            } else {
                high = row;
                guess = row.saturating_sub(rows_in(found - wanted));
            }
        }
        let mut step = 1;
        while low < high && step < high - low {
            let row = if below { low + step } else { high - step };
            let lesser = key(row) < wanted;
            if lesser {
                low = row + 1;
            } else {
                high = row;
            }
            if lesser != below {
                break;
            }
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if key(middle) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low..self.chunks).take_while(move |row| u64_at(self.lookup(*row), 0) == wanted)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn name(n: u32) -> PackName {
        PackName { session: SessionId([n as u8; 16]), number: n }
    }

    fn frame(pack: u32, ordinal: u32, ids: &[(ChunkId, u32)]) -> Frame {
        Frame {
            birth: BirthName { pack: name(pack), ordinal },
            birth_salt: [pack as u8; 32],
            kind: ChunkKind::Data,
            offset_bytes: u64::from(ordinal) * 1000,
            stored_bytes: 77,
            chunks: ids.to_vec(),
        }
    }

    proptest! {
        #[test]
        fn lookups_equal_a_map(ids in proptest::collection::btree_map(any::<[u8; 32]>(), 0..1000u32, 0..200), other: [u8; 32], clash in 0..4usize) {
            let mut model = BTreeMap::new();
            let mut builder = SegmentBuilder::new();
            let mut ids: Vec<(ChunkId, u32)> = ids.into_iter().map(|(id, length)| (ChunkId(id), length)).collect();
            // Ids that share their first 8 bytes must be told apart.
            let twins: Vec<_> = ids.iter().take(clash).map(|(id, l)| { let mut t = *id; t.0[31] ^= 1; (t, l + 1) }).collect();
            ids.extend(twins);
            for (ordinal, group) in ids.chunks(3).enumerate() {
                builder.add_pack(name(ordinal as u32), [ordinal as u8; 32], 5000, &[frame(ordinal as u32, 0, group)]);
                let mut at = 0;
                for (id, length) in group {
                    model.insert(*id, (name(ordinal as u32), at, *length));
                    at += length;
                }
            }
            let segment = Segment::new(builder.payload().unwrap()).unwrap();
            prop_assert_eq!(segment.len(), ids.len());
            for (id, (pack, at, length)) in &model {
                let found: Vec<_> = segment.find(id).collect();
                prop_assert_eq!(found.len(), 1);
                prop_assert_eq!((found[0].offset_bytes, found[0].length_bytes), (*at, *length));
                prop_assert_eq!(segment.frame(found[0].frame).unwrap().pack, *pack);
            }
            prop_assert_eq!(segment.find(&ChunkId(other)).count(), usize::from(model.contains_key(&ChunkId(other))));
        }
    }

    #[test]
    fn every_chunk_of_many_is_found_however_the_ids_lie() {
        let hashed = |n: u32| *blake3::hash(&n.to_le_bytes()).as_bytes();
        // As ids are; crowded at both ends, where a guess by proportion is far off; and in growing steps.
        let crowded = |n: u32| {
            let mut id = hashed(n);
            id[..6].fill(if n.is_multiple_of(2) { 0 } else { 255 });
            id
        };
        let growing = |n: u32| {
            let mut id = hashed(n);
            id[..8].copy_from_slice(&(u64::from(n) * u64::from(n) * u64::from(n)).to_be_bytes());
            id
        };
        let kinds: [&dyn Fn(u32) -> [u8; 32]; 3] = [&hashed, &crowded, &growing];
        for (kind, id_of) in kinds.into_iter().enumerate() {
            let mut builder = SegmentBuilder::new();
            let chunks: Vec<(ChunkId, u32)> = (0..20_000).map(|n| (ChunkId(id_of(n)), n)).collect();
            for (number, some) in chunks.chunks(500).enumerate() {
                builder.add_pack(name(number as u32), [0; 32], 9, &[frame(number as u32, 0, some)]);
            }
            let segment = Segment::new(builder.payload().unwrap()).unwrap();
            for (id, length) in &chunks {
                assert!(segment.find(id).any(|place| place.length_bytes == *length), "{kind}: {id}");
                let mut other = *id;
                other.0[7] ^= 1;
                assert_eq!(segment.find(&other).count(), 0, "{kind}: {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_of_a_segment_says_what_it_said(
            packs in proptest::collection::vec((0..4u32, proptest::collection::vec(any::<[u8; 32]>(), 1..6)), 1..12), keep: u16
        ) {
            let mut whole = SegmentBuilder::new();
            for (at, (birth, ids)) in packs.iter().enumerate() {
                // Some packs hold frames that were born elsewhere.
                let ids: Vec<_> = ids.iter().map(|id| (ChunkId(*id), 9)).collect();
                whole.add_pack(name(at as u32 + 10), [at as u8; 32], 5000 + at as u64, &[frame(*birth, at as u32, &ids)]);
            }
            let whole = Segment::new(whole.payload().unwrap()).unwrap();
            let is_kept = |pack: &PackName| keep >> (pack.number - 10) & 1 == 1;
            let mut part = SegmentBuilder::new();
            part.add_segment(&whole, is_kept);
            let part = Segment::new(part.payload().unwrap()).unwrap();
            let say = |segment: &Segment<Vec<u8>>, all: bool| {
                let mut rows: Vec<_> = (0..segment.len())
                    .map(|row| (segment.id(row), segment.place(row), segment.frame(segment.place(row).frame).unwrap()))
                    .filter(|(_, _, frame)| all || is_kept(&frame.pack))
                    .map(|(id, place, frame)| (id, place.offset_bytes, place.length_bytes, format!("{frame:?}")))
                    .collect();
                rows.sort_by(|a, b| (a.0, &a.3).cmp(&(b.0, &b.3)));
                rows
            };
            prop_assert_eq!(say(&part, true), say(&whole, false));
            for row in part.packs().filter(|row| row.size_bytes != 0) {
                prop_assert_eq!(Some(row), whole.packs().find(|other| other.name == row.name));
            }
        }
    }

    #[test]
    fn a_segment_with_rows_out_of_range_is_refused() {
        let mut builder = SegmentBuilder::new();
        builder.replaces(RandomName([9; 16]));
        builder.add_pack(name(1), [1; 32], 10, &[frame(1, 0, &[(ChunkId([5; 32]), 4)])]);
        let good = builder.payload().unwrap();
        assert_eq!(Segment::new(&good[..]).unwrap().replaced().collect::<Vec<_>>(), [RandomName([9; 16])]);
        let frame_at = HEAD_BYTES + REPLACED_BYTES + PACK_BYTES;
        for (at, value) in [(0, 2), (4, 9), (frame_at, 1), (frame_at + 8, 7), (frame_at + 24, 3), (frame_at + FRAME_BYTES + 8, 1)]
        {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Segment::new(&bad[..]).is_err(), "byte {at}");
        }
        for cut in 0..good.len() {
            assert!(Segment::new(&good[..cut]).is_err(), "cut at {cut}");
        }
    }
}
