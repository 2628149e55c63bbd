//! What is measured of the engine's kernels, one entry for each, with its input.
//!
//! A [`Kernel`] makes its input once and then does its work as often as it is asked; making and doing are apart so that only the work is
//! counted. Promises fixed inputs and keys. Does not know who measures.

use crate::{Error, Result, made};
use longshore_engine::chunker::{Cutter, is_zero};
use longshore_format::config::Cut;
use longshore_format::envelope::{Codec, Compression};
use longshore_format::id::RandomName;
use longshore_format::index::{Segment, SegmentBuilder, open_segment, seal_segment};
use longshore_format::pack::{self, BirthName, FinishedPack, Frame, PackWriter, VerifyUpload};
use longshore_format::tree::{Entries, Entry, Item, Node, Time};
use longshore_format::{ChunkId, ChunkKind, Keys, MasterKey, PackName, RepositoryId, SessionId};
use longshore_kernels::sieve::Sieve;

/// Work that can be done again and again; returns something that depends on all of it.
pub type Work = Box<dyn FnMut() -> Result<u64>>;

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Its name, `group/case`.
    pub name: &'static str,
    /// How much one round of work handles.
    pub amount: Amount,
    /// Makes the input.
    pub make: fn() -> Result<Work>,
}

/// How much one round of work handles.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// Bytes of plaintext.
    Bytes(u64),
    /// Things: lookups, entries.
    Items(u64),
}

const RUN: usize = 8 << 20;
const CHUNK: usize = 256 << 10;
const LOOKUPS: u64 = 10_000;
const INDEXED: u64 = 200_000;
const ENTRIES: u64 = 5_000;

/// All kernels.
pub const KERNELS: &[Kernel] = &[
    Kernel { name: "cut/noise", amount: Amount::Bytes(RUN as u64), make: || cut(made::noise(1, RUN)) },
    Kernel { name: "cut/text", amount: Amount::Bytes(RUN as u64), make: || cut(made::text(1, RUN)) },
    Kernel { name: "cut/pages", amount: Amount::Bytes(RUN as u64), make: || cut(made::pages(1, RUN)) },
    Kernel { name: "sieve/best", amount: Amount::Bytes(RUN as u64), make: || sieve(false) },
    Kernel { name: "sieve/scalar", amount: Amount::Bytes(RUN as u64), make: || sieve(true) },
    Kernel { name: "zero/block", amount: Amount::Bytes(RUN as u64), make: zero },
    Kernel { name: "hash/256KiB", amount: Amount::Bytes(RUN as u64), make: || hash(CHUNK) },
    Kernel { name: "hash/4KiB", amount: Amount::Bytes(RUN as u64), make: || hash(4 << 10) },
    Kernel {
        name: "zstd/text-1",
        amount: Amount::Bytes(RUN as u64),
        make: || compress(made::text(1, RUN), Compression::Zstd(1)),
    },
    Kernel {
        name: "zstd/text-quick",
        amount: Amount::Bytes(RUN as u64),
        make: || compress(made::text(1, RUN), Compression::Quick),
    },
    Kernel {
        name: "zstd/pages-1",
        amount: Amount::Bytes(RUN as u64),
        make: || compress(made::pages(1, RUN), Compression::Zstd(1)),
    },
    Kernel {
        name: "zstd/pages-quick",
        amount: Amount::Bytes(RUN as u64),
        make: || compress(made::pages(1, RUN), Compression::Quick),
    },
    Kernel {
        name: "zstd/pages-3",
        amount: Amount::Bytes(RUN as u64),
        make: || compress(made::pages(1, RUN), Compression::Zstd(3)),
    },
    Kernel { name: "zstd/open", amount: Amount::Bytes(RUN as u64), make: decompress },
    Kernel { name: "seal/256KiB", amount: Amount::Bytes(RUN as u64), make: seal },
    Kernel { name: "pack/verify", amount: Amount::Bytes(RUN as u64), make: verify },
    Kernel { name: "index/build", amount: Amount::Items(INDEXED), make: index_build },
    Kernel { name: "index/hit", amount: Amount::Items(LOOKUPS), make: || index_find(0) },
    Kernel { name: "index/miss", amount: Amount::Items(LOOKUPS), make: || index_find(1 << 40) },
    Kernel { name: "tree/encode", amount: Amount::Items(ENTRIES), make: tree_encode },
    Kernel { name: "tree/decode", amount: Amount::Items(ENTRIES), make: tree_decode },
];

/// The keys of every measurement.
#[must_use]
pub fn keys() -> Keys {
    Keys::derive(&MasterKey::new([7; 32]), RepositoryId([9; 16]))
}

fn cut(input: Vec<u8>) -> Result<Work> {
    let cutter = Cutter::new(&keys(), Cut::default())?;
    Ok(Box::new(move || {
        let (mut rest, mut sum) = (&input[..], 0u64);
        while !rest.is_empty() {
            let length = cutter.first(rest, true);
            sum = sum.wrapping_mul(31).wrapping_add(length as u64);
            rest = &rest[length..];
        }
        Ok(sum)
    }))
}

fn sieve(scalar: bool) -> Result<Work> {
    let (input, sieve) = (made::noise(1, RUN), Sieve::new(0x9e37_79b9, 0xc2b2_ae35));
    let sieve = if scalar { sieve.scalar() } else { sieve };
    Ok(Box::new(move || {
        let (mut at, mut passed) = (0, 0);
        while let Some(next) = sieve.next(&input, at) {
            passed += 1;
            at = next + 1;
        }
        Ok(passed)
    }))
}

fn zero() -> Result<Work> {
    let input = vec![0u8; RUN];
    Ok(Box::new(move || Ok(input.chunks(64 << 10).filter(|block| is_zero(block)).count() as u64)))
}

fn hash(length: usize) -> Result<Work> {
    let (keys, input) = (keys(), made::noise(2, RUN));
    Ok(Box::new(move || {
        Ok(input.chunks(length).fold(0, |sum, chunk| sum ^ u64::from(keys.chunk_id(ChunkKind::Data, chunk).0[0])))
    }))
}

fn compress(input: Vec<u8>, how: Compression) -> Result<Work> {
    let (mut codec, mut out) = (Codec::new()?, Vec::with_capacity(CHUNK + 64));
    Ok(Box::new(move || {
        let mut sum = 0;
        for chunk in input.chunks(CHUNK) {
            out.clear();
            sum += codec.wrap(chunk, how, &mut out)? as u64;
        }
        Ok(sum)
    }))
}

fn decompress() -> Result<Work> {
    let mut codec = Codec::new()?;
    let mut stored = Vec::new();
    for chunk in made::pages(1, RUN).chunks(CHUNK) {
        let mut out = Vec::new();
        codec.wrap(chunk, Compression::Zstd(1), &mut out)?;
        stored.push(out);
    }
    let mut out = Vec::with_capacity(CHUNK);
    Ok(Box::new(move || {
        let mut sum = 0;
        for envelope in &stored {
            codec.unwrap(envelope, CHUNK, "frame", &mut out)?;
            sum += out.len() as u64;
        }
        Ok(sum)
    }))
}

fn pack_of(input: &[u8], compression: Compression, codec: &mut Codec, buffer: Vec<u8>) -> Result<FinishedPack> {
    let (keys, name) = (keys(), PackName { session: SessionId([3; 16]), number: 1 });
    let mut writer = PackWriter::new(&keys, name, [4; 32], buffer)?;
    for chunk in input.chunks(CHUNK) {
        // The id is not what is measured here, so one of the length stands for it.
        let mut id = [0; 32];
        id[..4].copy_from_slice(&(chunk.len() as u32).to_le_bytes());
        writer.push(ChunkKind::Data, chunk, vec![(ChunkId(id), chunk.len() as u32)], compression, codec)?;
    }
    Ok(writer.finish(codec)?)
}

fn seal() -> Result<Work> {
    let (input, mut codec) = (made::noise(2, RUN), Codec::new()?);
    let mut buffer = Vec::with_capacity(RUN + (1 << 20));
    Ok(Box::new(move || {
        let pack = pack_of(&input, Compression::None, &mut codec, std::mem::take(&mut buffer))?;
        let sum = pack.bytes.len() as u64;
        buffer = pack.bytes;
        Ok(sum)
    }))
}

fn verify() -> Result<Work> {
    let (keys, mut codec) = (keys(), Codec::new()?);
    let name = PackName { session: SessionId([3; 16]), number: 1 };
    let mut writer = PackWriter::new(&keys, name, [4; 32], Vec::new())?;
    for chunk in made::pages(1, RUN).chunks(CHUNK) {
        let id = keys.chunk_id(ChunkKind::Data, chunk);
        writer.push(ChunkKind::Data, chunk, vec![(id, chunk.len() as u32)], Compression::Quick, &mut codec)?;
    }
    let pack = writer.finish(&mut codec)?;
    let (mut stored, mut payload) = (Vec::new(), Vec::new());
    Ok(Box::new(move || {
        pack::verify(&keys, &pack, VerifyUpload::Full, &mut codec, &mut stored, &mut payload)?;
        Ok(pack.bytes.len() as u64)
    }))
}

fn id_of(number: u64) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn builder() -> SegmentBuilder {
    let mut builder = SegmentBuilder::new();
    for pack in 0..INDEXED / 100 {
        let name = PackName { session: SessionId([3; 16]), number: pack as u32 };
        let frames: Vec<Frame> = (0..100)
            .map(|at| Frame {
                birth: BirthName { pack: name, ordinal: at as u32 },
                birth_salt: [4; 32],
                kind: ChunkKind::Data,
                offset_bytes: 200 + at * 100_000,
                stored_bytes: 100_000,
                chunks: vec![(id_of(pack * 100 + at), 250_000)],
            })
            .collect();
        builder.add_pack(name, [4; 32], 10_000_400, &frames);
    }
    builder
}

fn index_build() -> Result<Work> {
    let ids: Vec<ChunkId> = (0..INDEXED).map(id_of).collect();
    Ok(Box::new(move || {
        let mut builder = SegmentBuilder::new();
        for (number, ids) in ids.chunks(100).enumerate() {
            let name = PackName { session: SessionId([3; 16]), number: number as u32 };
            let chunks = ids.iter().map(|id| (*id, 250_000)).collect();
            let birth = BirthName { pack: name, ordinal: 0 };
            let frame =
                Frame { birth, birth_salt: [4; 32], kind: ChunkKind::Data, offset_bytes: 200, stored_bytes: 100_000, chunks };
            builder.add_pack(name, [4; 32], 100_400, &[frame]);
        }
        Ok(builder.payload()?.len() as u64)
    }))
}

fn index_find(offset: u64) -> Result<Work> {
    let (keys, mut codec, name) = (keys(), Codec::new()?, RandomName([5; 16]));
    let sealed = seal_segment(&keys, name, [6; 32], &builder().payload()?, &mut codec)?;
    let segment = Segment::new(open_segment(&keys, name, &sealed, &mut codec)?)?;
    let ids: Vec<ChunkId> = (0..LOOKUPS).map(|n| id_of(offset + n * 7 % INDEXED)).collect();
    Ok(Box::new(move || Ok(ids.iter().map(|id| segment.find(id).count() as u64).sum())))
}

fn entries() -> Vec<Entry> {
    (0..ENTRIES)
        .map(|n| Entry {
            name: format!("file-{n:07}.txt").into_bytes(),
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            mtime: Time { secs: 1_700_000_000 + n as i64, nanos: 123_456_789 },
            ctime: Time { secs: 1_700_000_000 + n as i64, nanos: 123_456_789 },
            inode: 9_000_000 + n,
            link_device: None,
            changed: false,
            incomplete: false,
            xattrs: vec![],
            node: Node::File { size_bytes: 4000, content: vec![Item::Data { id: id_of(n), span: 4000 }] },
        })
        .collect()
}

fn encoded(entries: &[Entry], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> u64 {
    out.clear();
    entries.iter().map(|entry| entry.encode(scratch, out) as u64).sum()
}

fn tree_encode() -> Result<Work> {
    let (entries, mut scratch, mut out) = (entries(), Vec::new(), Vec::new());
    Ok(Box::new(move || Ok(encoded(&entries, &mut scratch, &mut out))))
}

fn tree_decode() -> Result<Work> {
    let mut bytes = Vec::new();
    encoded(&entries(), &mut Vec::new(), &mut bytes);
    Ok(Box::new(move || {
        Entries::new(&bytes, b"").try_fold(0, |sum, entry| entry.map(|e| sum + e.name.len() as u64).map_err(Error::from))
    }))
}
