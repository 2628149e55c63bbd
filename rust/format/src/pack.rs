//! Packs and frames: docs/format.md chapter 7.
//!
//! [`PackWriter`] builds a pack in one buffer; [`verify`] opens what was built from the bytes that will be sent. Readers take a pack
//! apart by its trailer, header and frames, each of which may have been fetched alone. Knows nothing of stores.
//!
//! Over 500 lines because writer, check and reader of one layout stand side by side with their tests.

use crate::envelope::{Codec, Compression};
use crate::id::{ChunkId, ChunkKind, PackName, RepositoryId, SessionId};
use crate::keys::Keys;
use crate::wire::{Reader, put_uv};
use crate::{FormatError, Result, limits, seal};
use aws_lc_rs::aead::LessSafeKey;
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_64;

const PACK_TYPE: u8 = 4;
const FRAME_AAD_TYPE: u8 = 0x21;
const HEADER_AAD_TYPE: u8 = 0x22;
const HEADER_ORDINAL: u32 = u32::MAX;
const END_MAGIC: &[u8; 8] = b"LSPCKEND";
/// Length of what stands before the first frame.
pub const PREAMBLE_BYTES: usize = 112;
/// Length of a pack's trailer.
pub const TRAILER_BYTES: usize = 24;

/// A frame's name for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BirthName {
    /// The pack in which it was first written.
    pub pack: PackName,
    /// Its place among the frames born there.
    pub ordinal: u32,
}

/// A frame as a pack's header lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name.
    pub birth: BirthName,
    /// Salt of the pack in which it was born.
    pub birth_salt: [u8; 32],
    /// What its chunks hold.
    pub kind: ChunkKind,
    /// Where it begins in the pack.
    pub offset_bytes: u64,
    /// Sealed length.
    pub stored_bytes: u32,
    /// Ids and lengths of its chunks, in the order in which they lie.
    pub chunks: Vec<(ChunkId, u32)>,
}

impl Frame {
    /// Length of the payload: the sum of its chunks.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.chunks.iter().map(|(_, length)| u64::from(*length)).sum()
    }
}

/// A pack's key, ready to use.
pub struct PackKey {
    repository: RepositoryId,
    name: PackName,
    commitment: [u8; 32],
    cipher: LessSafeKey,
}

impl std::fmt::Debug for PackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackKey({})", self.name)
    }
}

impl PackKey {
    /// Derives the key of the pack `name` with its salt.
    ///
    /// # Errors
    /// `Library`.
    pub fn derive(keys: &Keys, name: PackName, salt: &[u8; 32]) -> Result<Self> {
        let sub = keys.pack(salt, &name.session.0, name.number);
        Ok(Self { repository: keys.repository(), name, commitment: sub.commitment(), cipher: sub.cipher()? })
    }

    fn frame_aad(&self, ordinal: u32) -> [u8; 42] {
        let mut aad = [0; 42];
        aad[..16].copy_from_slice(&self.repository.0);
        aad[16] = FRAME_AAD_TYPE;
        aad[18..34].copy_from_slice(&self.name.session.0);
        aad[34..38].copy_from_slice(&self.name.number.to_le_bytes());
        aad[38..].copy_from_slice(&ordinal.to_le_bytes());
        aad
    }

    fn header_aad(&self, offset_bytes: u64) -> [u8; 46] {
        let mut aad = [0; 46];
        aad[..38].copy_from_slice(&self.frame_aad(0)[..38]);
        aad[16] = HEADER_AAD_TYPE;
        aad[38..].copy_from_slice(&offset_bytes.to_le_bytes());
        aad
    }

    /// Opens a stored frame (taken by value of its bytes) into `payload`, which is replaced.
    ///
    /// `self` is the key of the frame's birth pack. `stored` is scratch: it is decrypted in place.
    ///
    /// # Errors
    /// Corrupt when the seal or the envelope does not hold.
    pub fn open_frame(&self, ordinal: u32, stored: &mut [u8], codec: &mut Codec, payload: &mut Vec<u8>) -> Result<()> {
        let plain = seal::open_in_place(&self.cipher, nonce(ordinal), &self.frame_aad(ordinal), stored, "frame")?;
        codec.unwrap(plain, limits::FRAME_PAYLOAD_BYTES_MAX, "frame", payload)
    }

    /// That a stored frame's seal holds; decrypts `stored` in place and looks no further.
    ///
    /// # Errors
    /// Corrupt when it does not.
    pub fn check_frame(&self, ordinal: u32, stored: &mut [u8]) -> Result<()> {
        seal::open_in_place(&self.cipher, nonce(ordinal), &self.frame_aad(ordinal), stored, "frame").map(|_| ())
    }
}

fn nonce(ordinal: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&ordinal.to_le_bytes());
    nonce
}

/// Builds one pack.
#[derive(Debug)]
pub struct PackWriter {
    key: PackKey,
    salt: [u8; 32],
    buffer: Vec<u8>,
    frames: Vec<Frame>,
    births: u32,
    chunks: usize,
}

/// Most bytes that a frame takes in the header, and each of its chunks.
const FRAME_HEADER_BYTES_MAX: usize = 2 + 16 + 4 + 4 + 32 + 5 + 5;
const CHUNK_HEADER_BYTES_MAX: usize = 32 + 5;
/// The count of frames, what wraps and seals the header, and the trailer.
const END_BYTES_MAX: usize = 128;

/// A pack that is complete.
#[derive(Debug)]
pub struct FinishedPack {
    /// Its name.
    pub name: PackName,
    /// Its salt.
    pub salt: [u8; 32],
    /// What is to be stored.
    pub bytes: Vec<u8>,
    /// Its frames.
    pub frames: Vec<Frame>,
    /// How many frames were born in it.
    pub births: u32,
}

impl PackWriter {
    /// Begins a pack; `salt` is random and never used before, `buffer` is cleared and reused.
    ///
    /// # Errors
    /// `Library`.
    pub fn new(keys: &Keys, name: PackName, salt: [u8; 32], mut buffer: Vec<u8>) -> Result<Self> {
        let key = PackKey::derive(keys, name, &salt)?;
        buffer.clear();
        buffer.extend_from_slice(seal::MAGIC);
        buffer.extend_from_slice(&[PACK_TYPE, keys.version(), 0, 0]);
        buffer.extend_from_slice(&name.number.to_le_bytes());
        buffer.extend_from_slice(&keys.repository().0);
        buffer.extend_from_slice(&salt);
        buffer.extend_from_slice(&key.commitment);
        buffer.extend_from_slice(&name.session.0);
        Ok(Self { key, salt, buffer, frames: Vec::new(), births: 0, chunks: 0 })
    }

    /// The pack's name.
    #[must_use]
    pub fn name(&self) -> PackName {
        self.key.name
    }

    /// How long it would be at most if it ended here. A chunk of a few bytes takes more in the header than in its frame.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let header = self.frames.len() * FRAME_HEADER_BYTES_MAX + self.chunks * CHUNK_HEADER_BYTES_MAX;
        self.buffer.len() + header + END_BYTES_MAX
    }

    /// Chunks so far.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Whether no frame is in it yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Compresses and seals `payload`, which is the plaintexts of `chunks` one behind the other, as a new frame. Returns its ordinal.
    ///
    /// # Errors
    /// `TooLarge`, `Library`.
    pub fn push(
        &mut self,
        kind: ChunkKind,
        payload: &[u8],
        chunks: Vec<(ChunkId, u32)>,
        compression: Compression,
        codec: &mut Codec,
    ) -> Result<u32> {
        if payload.len() > limits::FRAME_PAYLOAD_BYTES_MAX {
            let limit = limits::FRAME_PAYLOAD_BYTES_MAX as u64;
            return Err(FormatError::TooLarge { what: "frame", size: payload.len() as u64, limit });
        }
        if self.frames.len() >= limits::PACK_FRAMES_MAX {
            return Err(FormatError::TooLarge {
                what: "pack",
                size: self.frames.len() as u64 + 1,
                limit: limits::PACK_FRAMES_MAX as u64,
            });
        }
        let ordinal = self.births;
        let start = self.buffer.len();
        codec.wrap(payload, compression, &mut self.buffer)?;
        seal::seal_in_place(&self.key.cipher, nonce(ordinal), &self.key.frame_aad(ordinal), &mut self.buffer, start)?;
        self.births += 1;
        self.chunks += chunks.len();
        self.frames.push(Frame {
            birth: BirthName { pack: self.key.name, ordinal },
            birth_salt: self.salt,
            kind,
            offset_bytes: start as u64,
            stored_bytes: (self.buffer.len() - start) as u32,
            chunks,
        });
        Ok(ordinal)
    }

    /// Adds the sealed bytes of a frame that was born elsewhere, as they are.
    ///
    /// # Errors
    /// `TooLarge`; Corrupt when `stored` has another length than the frame says.
    pub fn push_moved(&mut self, frame: &Frame, stored: &[u8]) -> Result<()> {
        if stored.len() != frame.stored_bytes as usize {
            return Err(FormatError::corrupt("frame", "it has another length than its header says"));
        }
        if self.frames.len() >= limits::PACK_FRAMES_MAX {
            return Err(FormatError::TooLarge {
                what: "pack",
                size: self.frames.len() as u64 + 1,
                limit: limits::PACK_FRAMES_MAX as u64,
            });
        }
        let offset_bytes = self.buffer.len() as u64;
        self.buffer.extend_from_slice(stored);
        self.chunks += frame.chunks.len();
        self.frames.push(Frame { offset_bytes, ..frame.clone() });
        Ok(())
    }

    /// Writes header and trailer.
    ///
    /// # Errors
    /// `TooLarge`, `Library`.
    pub fn finish(mut self, codec: &mut Codec) -> Result<FinishedPack> {
        let mut header = Vec::new();
        put_uv(&mut header, self.frames.len() as u64);
        for frame in &self.frames {
            let moved = frame.birth.pack != self.key.name;
            header.push(u8::from(moved));
            header.push(frame.kind.number());
            if moved {
                header.extend_from_slice(&frame.birth.pack.session.0);
                header.extend_from_slice(&frame.birth.pack.number.to_le_bytes());
                header.extend_from_slice(&frame.birth.ordinal.to_le_bytes());
                header.extend_from_slice(&frame.birth_salt);
            }
            put_uv(&mut header, u64::from(frame.stored_bytes));
            put_uv(&mut header, frame.chunks.len() as u64);
            for (id, length) in &frame.chunks {
                header.extend_from_slice(&id.0);
                put_uv(&mut header, u64::from(*length));
            }
        }
        if header.len() > limits::PACK_HEADER_BYTES_MAX {
            let limit = limits::PACK_HEADER_BYTES_MAX as u64;
            return Err(FormatError::TooLarge { what: "pack header", size: header.len() as u64, limit });
        }
        let start = self.buffer.len();
        codec.wrap(&header, Compression::None, &mut self.buffer)?;
        let aad = self.key.header_aad(start as u64);
        seal::seal_in_place(&self.key.cipher, nonce(HEADER_ORDINAL), &aad, &mut self.buffer, start)?;
        let header_bytes = (self.buffer.len() - start) as u32;
        let sum = xxh3_64(&self.buffer);
        self.buffer.extend_from_slice(&header_bytes.to_le_bytes());
        self.buffer.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(END_MAGIC);
        Ok(FinishedPack { name: self.key.name, salt: self.salt, bytes: self.buffer, frames: self.frames, births: self.births })
    }
}

/// A pack's trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Length of the sealed header, which ends where the trailer begins.
    pub header_bytes: u32,
    /// Number of frames.
    pub frames: u32,
    /// XXH3-64 of everything before the trailer.
    pub sum: u64,
}

/// Reads the last [`TRAILER_BYTES`] of a pack of `pack_bytes`.
///
/// # Errors
/// Corrupt when they are no trailer or its lengths cannot be.
pub fn read_trailer(bytes: &[u8], pack_bytes: u64) -> Result<Trailer> {
    let mut reader = Reader::new(bytes, "pack trailer");
    let trailer = Trailer { header_bytes: reader.u32()?, frames: reader.u32()?, sum: reader.u64()? };
    if reader.take(8)? != END_MAGIC {
        return Err(reader.corrupt("its end mark is missing"));
    }
    reader.finish()?;
    let room = pack_bytes.checked_sub((PREAMBLE_BYTES + TRAILER_BYTES) as u64);
    let fits = room.is_some_and(|room| u64::from(trailer.header_bytes) <= room) && pack_bytes <= limits::PACK_BYTES_MAX;
    if !fits || trailer.frames as usize > limits::PACK_FRAMES_MAX {
        return Err(FormatError::corrupt(
            "pack trailer",
            format!("its lengths cannot be: header_bytes={}, pack_bytes={pack_bytes}", trailer.header_bytes),
        ));
    }
    Ok(trailer)
}

/// Reads the preamble and gives the pack's salt and key.
///
/// # Errors
/// Corrupt, Newer, `WrongKey`.
pub fn open_preamble(keys: &Keys, name: PackName, bytes: &[u8]) -> Result<([u8; 32], PackKey)> {
    let mut reader = Reader::new(bytes, "pack");
    seal::read_head(&mut reader, PACK_TYPE)?;
    let number = reader.u32()?;
    let repository = RepositoryId(reader.array()?);
    let salt = reader.array()?;
    let commitment: [u8; 32] = reader.array()?;
    let session = SessionId(reader.array()?);
    if number != name.number || session != name.session || repository != keys.repository() {
        return Err(FormatError::corrupt("pack", format!("it belongs elsewhere: pack={name}")));
    }
    let sub = keys.pack(&salt, &session.0, number);
    sub.check(&commitment, "pack")?;
    Ok((salt, PackKey { repository, name, commitment, cipher: sub.cipher()? }))
}

/// Opens the sealed header of a pack; `sealed` is scratch and lies at `offset_bytes` of the pack.
///
/// # Errors
/// Corrupt, `TooLarge`.
pub fn open_header(
    key: &PackKey,
    salt: &[u8; 32],
    offset_bytes: u64,
    trailer: Trailer,
    sealed: &mut [u8],
    codec: &mut Codec,
) -> Result<Vec<Frame>> {
    let plain = seal::open_in_place(&key.cipher, nonce(HEADER_ORDINAL), &key.header_aad(offset_bytes), sealed, "pack header")?;
    let mut payload = Vec::new();
    codec.unwrap(plain, limits::PACK_HEADER_BYTES_MAX, "pack header", &mut payload)?;
    let mut reader = Reader::new(&payload, "pack header");
    let count = reader.len_max(limits::PACK_FRAMES_MAX)?;
    if count != trailer.frames as usize {
        return Err(reader.corrupt("the trailer says another number of frames"));
    }
    let mut frames = Vec::with_capacity(count.min(payload.len() / 36 + 1));
    let mut at = PREAMBLE_BYTES as u64;
    let mut births = 0;
    let mut moved = HashSet::new();
    for _ in 0..count {
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(reader.corrupt(format!("unknown flags: flags={flags}")));
        }
        let kind = ChunkKind::from_number(reader.u8()?)?;
        let (birth, birth_salt) = if flags == 1 {
            let pack = PackName { session: SessionId(reader.array()?), number: reader.u32()? };
            let birth = BirthName { pack, ordinal: reader.u32()? };
            if pack == key.name {
                return Err(reader.corrupt("a frame is said to have moved from its own pack"));
            }
            if birth.ordinal == HEADER_ORDINAL || !moved.insert(birth) {
                return Err(reader.corrupt("a frame's name is not allowed or stands twice"));
            }
            (birth, reader.array()?)
        } else {
            births += 1;
            (BirthName { pack: key.name, ordinal: births - 1 }, *salt)
        };
        let stored_bytes = reader.len_max(limits::FRAME_PAYLOAD_BYTES_MAX + limits::STORED_EXTRA_BYTES_MAX)? as u32;
        let chunk_count = reader.len_max(reader.rest().len() / 33)?;
        if chunk_count == 0 {
            return Err(reader.corrupt("a frame holds no chunk"));
        }
        let mut chunks = Vec::with_capacity(chunk_count);
        let mut payload_bytes = 0u64;
        for _ in 0..chunk_count {
            let id = ChunkId(reader.array()?);
            let length = reader.len_max(limits::CHUNK_BYTES_MAX)? as u32;
            if length == 0 {
                return Err(reader.corrupt("a chunk is empty"));
            }
            payload_bytes += u64::from(length);
            chunks.push((id, length));
        }
        if payload_bytes > limits::FRAME_PAYLOAD_BYTES_MAX as u64 {
            return Err(FormatError::TooLarge {
                what: "frame",
                size: payload_bytes,
                limit: limits::FRAME_PAYLOAD_BYTES_MAX as u64,
            });
        }
        frames.push(Frame { birth, birth_salt, kind, offset_bytes: at, stored_bytes, chunks });
        at += u64::from(stored_bytes);
    }
    reader.finish()?;
    if at != offset_bytes {
        return Err(FormatError::corrupt(
            "pack header",
            format!("its frames do not fill the pack: end={at}, header_offset={offset_bytes}"),
        ));
    }
    Ok(frames)
}

/// Takes a whole pack apart: preamble, sum, trailer, header.
///
/// # Errors
/// Corrupt, Newer, `WrongKey`, `TooLarge`.
pub fn open_whole(keys: &Keys, name: PackName, bytes: &[u8], codec: &mut Codec) -> Result<(PackKey, Vec<Frame>)> {
    let (salt, key) = open_preamble(keys, name, bytes)?;
    let Some(body) = bytes.len().checked_sub(TRAILER_BYTES) else {
        return Err(FormatError::corrupt("pack", "ends too early"));
    };
    let trailer = read_trailer(&bytes[body..], bytes.len() as u64)?;
    if xxh3_64(&bytes[..body]) != trailer.sum {
        return Err(FormatError::corrupt("pack", format!("its checksum does not hold: pack={name}")));
    }
    let start = body - trailer.header_bytes as usize;
    let mut sealed = bytes[start..body].to_vec();
    let frames = open_header(&key, &salt, start as u64, trailer, &mut sealed, codec)?;
    Ok((key, frames))
}

/// How thoroughly a pack is looked at before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum VerifyUpload {
    /// Header, every seal, every payload, every chunk id.
    #[default]
    Full,
    /// Header and checksum.
    Header,
    /// Nothing.
    None,
}

/// Opens a finished pack from the bytes that will be sent and compares it with what was meant.
///
/// # Errors
/// Corrupt when an encoder or the memory failed: the pack must not be sent.
pub fn verify(
    keys: &Keys,
    pack: &FinishedPack,
    how: VerifyUpload,
    codec: &mut Codec,
    stored: &mut Vec<u8>,
    payload: &mut Vec<u8>,
) -> Result<()> {
    if how == VerifyUpload::None {
        return Ok(());
    }
    let (key, frames) = open_whole(keys, pack.name, &pack.bytes, codec)?;
    if frames != pack.frames {
        return Err(FormatError::corrupt("pack", format!("its header does not say what was written: pack={}", pack.name)));
    }
    if how == VerifyUpload::Header {
        return Ok(());
    }
    for frame in frames.iter().filter(|f| f.birth.pack == pack.name) {
        let start = frame.offset_bytes as usize;
        let sealed = &pack.bytes[start..start + frame.stored_bytes as usize];
        let aad = key.frame_aad(frame.birth.ordinal);
        seal::open_into(&key.cipher, nonce(frame.birth.ordinal), &aad, sealed, stored, "frame")?;
        check_chunks(keys, frame, codec.open(stored, limits::FRAME_PAYLOAD_BYTES_MAX, "frame", payload)?)?;
    }
    Ok(())
}

/// That a frame's payload is its chunks.
///
/// # Errors
/// Corrupt when a length or an id does not hold.
pub fn check_chunks(keys: &Keys, frame: &Frame, payload: &[u8]) -> Result<()> {
    let mut at = 0usize;
    for (id, length) in &frame.chunks {
        let end = at + *length as usize;
        let Some(chunk) = payload.get(at..end) else {
            return Err(FormatError::corrupt("frame", "its chunks are longer than its payload"));
        };
        if keys.chunk_id(frame.kind, chunk) != *id {
            return Err(FormatError::corrupt("chunk", format!("its content has another id: chunk={id}")));
        }
        at = end;
    }
    if at == payload.len() { Ok(()) } else { Err(FormatError::corrupt("frame", "its chunks are shorter than its payload")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKey;

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]))
    }

    fn name(n: u32) -> PackName {
        PackName { session: SessionId([3; 16]), number: n }
    }

    fn build(codec: &mut Codec) -> FinishedPack {
        let mut writer = PackWriter::new(&keys(), name(5), [4; 32], Vec::new()).unwrap();
        for (kind, parts) in
            [(ChunkKind::Data, vec![b"hello ".repeat(50), b"world".to_vec()]), (ChunkKind::Tree, vec![b"entries".to_vec()])]
        {
            let chunks = parts.iter().map(|p| (keys().chunk_id(kind, p), p.len() as u32)).collect();
            writer.push(kind, &parts.concat(), chunks, Compression::Zstd(1), codec).unwrap();
        }
        writer.finish(codec).unwrap()
    }

    #[test]
    fn a_pack_opens_and_verifies() {
        let mut codec = Codec::new().unwrap();
        let pack = build(&mut codec);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        verify(&keys(), &pack, VerifyUpload::Full, &mut codec, &mut a, &mut b).unwrap();
        assert_eq!(pack.frames.len(), 2);
        assert_eq!(pack.frames[0].offset_bytes, PREAMBLE_BYTES as u64);
    }

    #[test]
    fn every_byte_of_a_pack_matters() {
        let mut codec = Codec::new().unwrap();
        let pack = build(&mut codec);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for i in 0..pack.bytes.len() {
            let mut bytes = pack.bytes.clone();
            bytes[i] ^= 1;
            let bad = FinishedPack { bytes, frames: pack.frames.clone(), ..pack };
            assert!(verify(&keys(), &bad, VerifyUpload::Full, &mut codec, &mut a, &mut b).is_err(), "byte {i}");
            assert!(open_whole(&keys(), name(5), &pack.bytes[..i], &mut codec).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn a_flip_between_compression_and_sealing_is_caught_by_a_full_check_alone() {
        let mut codec = Codec::new().unwrap();
        let mut writer = PackWriter::new(&keys(), name(5), [4; 32], Vec::new()).unwrap();
        let meant = keys().chunk_id(ChunkKind::Data, b"meant");
        writer.push(ChunkKind::Data, b"other", vec![(meant, 5)], Compression::None, &mut codec).unwrap();
        let pack = writer.finish(&mut codec).unwrap();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(verify(&keys(), &pack, VerifyUpload::Header, &mut codec, &mut a, &mut b).is_ok());
        assert!(verify(&keys(), &pack, VerifyUpload::Full, &mut codec, &mut a, &mut b).is_err());
    }

    #[test]
    fn a_pack_that_holds_one_frame_twice_is_refused() {
        let mut codec = Codec::new().unwrap();
        let old = build(&mut codec);
        let frame = &old.frames[1];
        let range = frame.offset_bytes as usize..frame.offset_bytes as usize + frame.stored_bytes as usize;
        for times in [1, 2] {
            let mut writer = PackWriter::new(&keys(), name(9), [8; 32], Vec::new()).unwrap();
            for _ in 0..times {
                writer.push_moved(frame, &old.bytes[range.clone()]).unwrap();
            }
            let pack = writer.finish(&mut codec).unwrap();
            assert_eq!(open_whole(&keys(), name(9), &pack.bytes, &mut codec).is_ok(), times == 1);
        }
    }

    #[test]
    fn a_frame_moves_as_it_is_and_still_opens_by_its_birth_name() {
        let mut codec = Codec::new().unwrap();
        let old = build(&mut codec);
        let frame = &old.frames[1];
        let range = frame.offset_bytes as usize..frame.offset_bytes as usize + frame.stored_bytes as usize;
        let mut writer = PackWriter::new(&keys(), name(9), [8; 32], Vec::new()).unwrap();
        writer.push_moved(frame, &old.bytes[range]).unwrap();
        let id = keys().chunk_id(ChunkKind::Data, b"new");
        assert_eq!(writer.push(ChunkKind::Data, b"new", vec![(id, 3)], Compression::None, &mut codec).unwrap(), 0);
        let new = writer.finish(&mut codec).unwrap();
        let (_, frames) = open_whole(&keys(), name(9), &new.bytes, &mut codec).unwrap();
        assert_eq!(frames[0].birth, BirthName { pack: name(5), ordinal: 1 });
        assert_eq!(frames[1].birth, BirthName { pack: name(9), ordinal: 0 });
        let birth_key = PackKey::derive(&keys(), frames[0].birth.pack, &frames[0].birth_salt).unwrap();
        let start = frames[0].offset_bytes as usize;
        let mut stored = new.bytes[start..start + frames[0].stored_bytes as usize].to_vec();
        let mut payload = Vec::new();
        birth_key.open_frame(frames[0].birth.ordinal, &mut stored, &mut codec, &mut payload).unwrap();
        assert_eq!(payload, b"entries");
    }
}
