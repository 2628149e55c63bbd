//! A reader of repositories that was written from docs/format.md alone and shares no line with the engine.
//!
//! Holds what the oracle must know of bytes: keys (chapter 3), sealed objects (4), slots (6), packs (7), the packs of an index segment (8),
//! trees (9), snapshots (10), sessions, usage and generations (11). Promises nothing about speed or memory: repositories of a simulation are small. What does not open is `None`, for
//! whatever reason. Of other people's code it uses the ciphers, hashes and zstd.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Birth name: session, pack number, ordinal.
pub type Birth = ([u8; 16], u32, u32);
/// A chunk's id.
pub type Id = [u8; 32];

const MAGIC: &[u8; 8] = b"LONGSHOR";
/// Format versions, which differ in nothing else.
const VERSIONS: [u8; 2] = [0, 1];

/// Bytes that are taken from the front.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
    fn uv(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.uv()?).ok()?;
        self.take(length)
    }
}

fn record(payload: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let (mut cursor, mut fields) = (Cursor(payload), Vec::new());
    while !cursor.0.is_empty() {
        fields.push((cursor.uv()?, cursor.bytes()?));
    }
    Some(fields)
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn open(key: &[u8], nonce: [u8; NONCE_LEN], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let mut buffer = sealed.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

fn unwrap_envelope(envelope: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor(envelope);
    let (codec, length) = (cursor.u8()?, cursor.u32()? as usize);
    let payload = match codec {
        0 => cursor.0.to_vec(),
        1 if length <= 256 << 20 => zstd::bulk::decompress(cursor.0, length).ok()?,
        _ => return None,
    };
    (payload.len() == length).then_some(payload)
}

fn expanded(key: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    blake3::Hasher::new_keyed(key).update(message).finalize_xof().fill(&mut out);
    out
}

struct SixtyFour;

impl hkdf::KeyType for SixtyFour {
    fn len(&self) -> usize {
        64
    }
}

/// One frame of a pack with its chunks.
#[derive(Clone, Debug)]
pub struct ReadFrame {
    /// Its birth name.
    pub birth: Birth,
    /// Ids of its chunks, with their plaintext.
    pub chunks: Vec<(Id, Bytes)>,
}

/// What an entry of a tree is.
#[derive(Clone, Debug)]
pub struct ReadEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// 1 directory, 2 file, others as in chapter 9.
    pub kind: u8,
    /// Permission bits.
    pub mode: u64,
    /// Items of a file or directory.
    pub content: Vec<Item>,
    /// A link's target.
    pub target: Vec<u8>,
}

/// One item of a content.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// A data chunk.
    Data(Id),
    /// So many zeros.
    Zeros(u64),
    /// A list chunk.
    List(Id),
    /// A piece of a directory.
    Piece(Id),
}

/// A snapshot object.
#[derive(Clone, Debug)]
pub struct ReadSnapshot {
    /// Whether it is committed, not aborted.
    pub committed: bool,
    /// The root directory.
    pub root: Option<ReadEntry>,
    /// Names of its usage tables: 64 digits each.
    pub usage: Vec<String>,
    /// Its parent.
    pub parent: Option<[u8; 16]>,
}

/// What a repair wrote down, as far as it keeps others from freeing something.
#[derive(Clone, Debug, Default)]
pub struct ReadRepair {
    /// Frames that snapshots need besides what their tables name.
    pub needs: BTreeMap<String, BTreeSet<Birth>>,
    /// Beginnings of the ids of chunks that were missed.
    pub wanted: BTreeSet<[u8; 8]>,
    /// Packs in which something is damaged.
    pub damaged: BTreeSet<String>,
}

/// Items, to the end of the bytes.
pub fn items(cursor: &mut Cursor<'_>, count: Option<u64>) -> Option<Vec<Item>> {
    let mut out = Vec::new();
    while count.map_or(!cursor.0.is_empty(), |count| (out.len() as u64) < count) {
        let (kind, span) = (cursor.u8()?, cursor.uv()?);
        out.push(match kind {
            0 => Item::Data(cursor.array()?),
            1 | 2 => Item::Zeros(span),
            3 => Item::List(cursor.array()?),
            4 => Item::Piece(cursor.array()?),
            _ => return None,
        });
    }
    Some(out)
}

/// The entries of a tree chunk.
pub fn entries(chunk: &[u8]) -> Option<Vec<ReadEntry>> {
    let (mut cursor, mut out) = (Cursor(chunk), Vec::new());
    while !cursor.0.is_empty() {
        out.push(entry(cursor.bytes()?)?);
    }
    Some(out)
}

fn entry(bytes: &[u8]) -> Option<ReadEntry> {
    let mut cursor = Cursor(bytes);
    let (kind, flags, name, mode) = (cursor.u8()?, cursor.u8()?, cursor.bytes()?.to_vec(), cursor.uv()?);
    for _ in 0..7 {
        // uid, gid, mtime, ctime, inode
        cursor.uv()?;
    }
    if flags & 2 != 0 {
        cursor.uv()?;
    }
    let (mut content, mut target) = (Vec::new(), Vec::new());
    match kind {
        1 | 2 => {
            if kind == 2 {
                cursor.uv()?;
            }
            let count = cursor.uv()?;
            content = items(&mut cursor, Some(count))?;
        }
        3 => target = cursor.bytes()?.to_vec(),
        4 | 5 => {
            cursor.uv()?;
            cursor.uv()?;
        }
        6 | 7 => {}
        _ => return None,
    }
    Some(ReadEntry { name, kind, mode, content, target })
}

/// An opened repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    master: [u8; 32],
    repository: [u8; 16],
}

impl Reader {
    /// Opens a key slot of kind 1 with its secret.
    #[must_use]
    pub fn from_slot(object_key: &str, slot: &[u8], secret: &[u8; 32]) -> Option<Self> {
        let mut cursor = Cursor(slot);
        let head = slot.get(..112)?;
        (cursor.take(8)? == MAGIC && cursor.u8()? == 2 && VERSIONS.contains(&cursor.u8()?) && cursor.take(2)? == [0, 0])
            .then_some(())?;
        (cursor.u32()? == 1).then_some(())?;
        let repository = cursor.array::<16>()?;
        let salt = cursor.array::<32>()?;
        let _ = cursor.take(16)?;
        let commitment = cursor.array::<32>()?;
        let wrapped = cursor.take(48)?;
        let label = cursor.0.len().checked_sub(32).and_then(|n| cursor.0.get(..n))?;
        let mut key = [0_u8; 64];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &salt)
            .extract(secret)
            .expand(&[b"longshore key slot 0"], SixtyFour)
            .ok()?
            .fill(&mut key)
            .ok()?;
        (key[32..] == commitment).then_some(())?;
        let aad = [head, object_key.as_bytes(), label].concat();
        let master = open(&key[..32], [0; 12], &aad, wrapped)?.try_into().ok()?;
        Some(Self { master, repository })
    }

    fn key(&self, label: &str) -> [u8; 32] {
        blake3::derive_key(&format!("longshore repository 0 {label}"), &[&self.master[..], &self.repository].concat())
    }

    /// The payload of a sealed object (chapter 4).
    #[must_use]
    pub fn object(&self, number: u8, kind: &str, object_key: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut cursor = Cursor(bytes);
        (cursor.take(8)? == MAGIC && cursor.u8()? == number && VERSIONS.contains(&cursor.u8()?) && cursor.take(2)? == [0, 0])
            .then_some(())?;
        let clear = cursor.u32()? as usize;
        (cursor.array::<16>()? == self.repository).then_some(())?;
        let salt = cursor.array::<32>()?;
        let commitment = cursor.array::<32>()?;
        let head = bytes.get(..96_usize.checked_add(clear)?)?;
        let key = expanded(&self.key(&format!("object {kind}")), &[&salt[..], object_key.as_bytes()].concat());
        (key[32..] == commitment).then_some(())?;
        unwrap_envelope(&open(&key[..32], [0; 12], &[head, object_key.as_bytes()].concat(), &bytes[head.len()..])?)
    }

    /// A snapshot object.
    #[must_use]
    pub fn snapshot(&self, session: &str, bytes: &[u8]) -> Option<ReadSnapshot> {
        let payload = self.object(7, "snapshot", &format!("snapshots/{session}"), bytes)?;
        let mut out = ReadSnapshot { committed: false, root: None, usage: vec![], parent: None };
        for (tag, value) in record(&payload)? {
            match tag {
                1 => out.committed = value == [1],
                5 => out.root = Some(entry(value)?),
                7 => out.usage.push(hex(value)),
                2 => out.parent = value.try_into().ok(),
                _ => {}
            }
        }
        Some(out)
    }

    /// The frames that a usage table names.
    #[must_use]
    pub fn usage(&self, name: &str, bytes: &[u8]) -> Option<Vec<Birth>> {
        births(&self.object(6, "usage", &format!("usage/{name}"), bytes)?)
    }

    /// What a repair wrote down.
    #[must_use]
    pub fn repair(&self, session: &str, bytes: &[u8]) -> Option<ReadRepair> {
        let payload = self.object(13, "repair", &format!("repairs/{session}"), bytes)?;
        let mut out = ReadRepair::default();
        for (tag, value) in record(&payload)? {
            let mut cursor = Cursor(value);
            match tag {
                1 => {
                    let snapshot = hex(cursor.take(16)?);
                    out.needs.insert(snapshot, births(cursor.0)?.into_iter().collect());
                }
                7 => out.wanted.extend(value.chunks_exact(8).filter_map(|id| <[u8; 8]>::try_from(id).ok())),
                9 => {
                    out.damaged.insert(pack_key(&cursor.array()?, cursor.u32()?));
                }
                _ => {}
            }
        }
        Some(out)
    }

    fn pack_key(&self, salt: &[u8], session: &[u8], number: u32) -> [u8; 64] {
        expanded(&self.key("pack"), &[salt, session, &number.to_le_bytes()].concat())
    }

    /// All frames of a pack, opened, each chunk's id made anew from its plaintext.
    #[must_use]
    pub fn pack(&self, bytes: &[u8]) -> Option<Vec<ReadFrame>> {
        let mut cursor = Cursor(bytes);
        (cursor.take(8)? == MAGIC && cursor.u8()? == 4 && VERSIONS.contains(&cursor.u8()?) && cursor.take(2)? == [0, 0])
            .then_some(())?;
        let number = cursor.u32()?;
        (cursor.array::<16>()? == self.repository).then_some(())?;
        let salt = cursor.array::<32>()?;
        let commitment = cursor.array::<32>()?;
        let session = cursor.array::<16>()?;
        let own = self.pack_key(&salt, &session, number);
        (own[32..] == commitment).then_some(())?;
        let mut trailer = Cursor(bytes.get(bytes.len().checked_sub(24)?..)?);
        let (length, count) = (trailer.u32()? as usize, trailer.u32()?);
        let _ = trailer.take(8)?;
        (trailer.take(8)? == b"LSPCKEND").then_some(())?;
        let at = bytes.len().checked_sub(24 + length)?;
        let name =
            |kind: u8, session: &[u8], number: u32| [&self.repository[..], &[kind, 0], session, &number.to_le_bytes()].concat();
        let mut aad = name(0x22, &session, number);
        aad.extend((at as u64).to_le_bytes());
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].fill(0xff);
        let header = unwrap_envelope(&open(&own[..32], nonce, &aad, bytes.get(at..at + length)?)?)?;
        let mut header = Cursor(&header);
        (header.uv()? == u64::from(count)).then_some(())?;
        let ids: BTreeMap<u8, [u8; 32]> =
            [(1, "chunk data"), (2, "chunk tree"), (3, "chunk list")].map(|(kind, label)| (kind, self.key(label))).into();
        let (mut out, mut born, mut offset) = (Vec::new(), 0, 112);
        for _ in 0..count {
            let (flags, kind) = (header.u8()?, header.u8()?);
            let (birth, frame_key) = if flags & 1 == 1 {
                let birth: Birth = (header.array()?, header.u32()?, header.u32()?);
                let salt = header.array::<32>()?;
                (birth, self.pack_key(&salt, &birth.0, birth.1))
            } else {
                born += 1;
                ((session, number, born - 1), own)
            };
            let stored = usize::try_from(header.uv()?).ok()?;
            let mut aad = name(0x21, &birth.0, birth.1);
            aad.extend(birth.2.to_le_bytes());
            let mut nonce = [0; NONCE_LEN];
            nonce[..4].copy_from_slice(&birth.2.to_le_bytes());
            let payload = unwrap_envelope(&open(&frame_key[..32], nonce, &aad, bytes.get(offset..offset + stored)?)?)?;
            let payload = Bytes::from(payload);
            offset += stored;
            let (mut chunks, mut from) = (Vec::new(), 0);
            for _ in 0..header.uv()? {
                let id = header.array::<32>()?;
                let to = from + usize::try_from(header.uv()?).ok()?;
                let plain = payload.get(from..to).map(|_| payload.slice(from..to))?;
                (*blake3::keyed_hash(ids.get(&kind)?, &plain).as_bytes() == id).then_some(())?;
                chunks.push((id, plain));
                from = to;
            }
            (from == payload.len()).then_some(())?;
            out.push(ReadFrame { birth, chunks });
        }
        (offset == at && header.0.is_empty()).then_some(out)
    }

    /// The kind of a session's marker, 1 for a writer, and the sessions that it adopts.
    #[must_use]
    pub fn marker(&self, session: &str, bytes: &[u8]) -> Option<(u8, Vec<String>)> {
        let payload = self.object(3, "session", &format!("sessions/{session}"), bytes)?;
        let fields = record(&payload)?;
        let kind = fields.iter().find(|(tag, _)| *tag == 1).and_then(|(_, value)| value.first().copied())?;
        Some((kind, fields.iter().filter(|(tag, _)| *tag == 5).map(|(_, session)| hex(session)).collect()))
    }

    /// The keys of what a tombstone names.
    #[must_use]
    pub fn tombstone(&self, generation: &str, bytes: &[u8]) -> Option<BTreeSet<String>> {
        let payload = self.object(9, "tombstone", &format!("tombstones/{generation}"), bytes)?;
        let mut out = BTreeSet::new();
        for (tag, value) in record(&payload)? {
            match tag {
                1 => {
                    let mut cursor = Cursor(value);
                    out.insert(pack_key(&cursor.array()?, cursor.u32()?));
                }
                3 => {
                    out.insert(format!("usage/{}", hex(value)));
                }
                _ => {}
            }
        }
        Some(out)
    }

    /// The writers that a generation waits for.
    #[must_use]
    pub fn open_writers(&self, generation: &str, bytes: &[u8]) -> Option<Vec<String>> {
        let payload = self.object(10, "open", &format!("open/{generation}"), bytes)?;
        Some(record(&payload)?.into_iter().filter(|(tag, _)| *tag == 1).map(|(_, session)| hex(session)).collect())
    }

    /// The keys of the packs that an index segment says something of; mere births are not among them.
    #[must_use]
    pub fn segment(&self, name: &str, bytes: &[u8]) -> Option<BTreeSet<String>> {
        let payload = self.object(5, "index", &format!("index/{name}"), bytes)?;
        let mut cursor = Cursor(&payload);
        let [packs, frames, chunks, replaced] = [(); 4].map(|()| cursor.u32());
        let (frames, chunks) = (u64::from(frames?), u64::from(chunks?));
        cursor.take(16 * replaced? as usize)?;
        let mut out = BTreeSet::new();
        for _ in 0..packs? {
            let (session, number, _, size) = (cursor.array()?, cursor.u32()?, cursor.u32()?, cursor.array::<8>()?);
            cursor.take(32)?;
            if u64::from_le_bytes(size) != 0 {
                out.insert(pack_key(&session, number));
            }
        }
        (cursor.0.len() as u64 == 32 * frames + (16 + 24 + 4) * chunks).then_some(out)
    }
}

/// Frames in the form of a usage table.
fn births(payload: &[u8]) -> Option<Vec<Birth>> {
    let mut cursor = Cursor(payload);
    let mut out = Vec::new();
    for _ in 0..cursor.uv()? {
        let (session, number, bits) = (cursor.array::<16>()?, cursor.u32()?, cursor.uv()?);
        let map = cursor.take(usize::try_from(bits.div_ceil(8)).ok()?)?;
        let set = (0..bits).filter(|k| map[(k / 8) as usize] >> (k % 8) & 1 == 1);
        out.extend(set.map(|k| (session, number, k as u32)));
    }
    cursor.0.is_empty().then_some(out)
}

fn pack_key(session: &[u8; 16], number: u32) -> String {
    format!("packs/{}-{number:08x}", hex(session))
}
