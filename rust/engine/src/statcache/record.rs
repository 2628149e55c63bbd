//! How a stat cache is made.
//!
//! While a backup runs, each finished directory is appended to a nameless draft, its needs written as chunk ids where the frame is not known
//! yet. When everything is in the store, [`Recorder::publish`] reads the draft once, turns ids into frames through the index, and gives
//! the result its name by a rename. Memory: 8 bytes a directory. A failure ends the recording and nothing else.

use super::{
    BLOCK_HEAD_BYTES, Block, FRAME_BYTES, MAGIC, NOWHERE, PACK_BYTES, ROW_BYTES, SUM_BYTES, StatCache, birth, block_sum,
    print_of, row_of, u32_at,
};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::reader::ChunkReader;
use crate::system::{Draft, Named};
use longshore_format::id::{ChunkId, ChunkKind, PackName};
use longshore_format::pack::BirthName;
use longshore_format::tree::{Entry, Item, Owner, decode_list};
use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

/// One need in a draft: a tag, an id or a birth name, and the span of a list.
const NEED_BYTES: usize = 41;
const TAG_CHUNK: u8 = 0;
const TAG_FRAME: u8 = 1;
const TAG_FILE_LIST: u8 = 2;
const TAG_DIRECTORY_LIST: u8 = 3;
const DRAFT_HEAD_BYTES: usize = 16;

/// Takes in directories as they are finished.
#[derive(Debug)]
pub(crate) struct Recorder {
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    out: BufWriter<Draft>,
    blocks: u32,
}

/// What an entry needs of the repository.
pub(crate) enum Needs<'a> {
    /// The chunks of this content.
    Content(&'a [Item], Owner),
    /// What the entry in this row of an older cache needed.
    Kept(&'a StatCache, &'a Block<'a>, usize),
    /// What the directory itself needed there.
    KeptOwn(&'a StatCache, &'a Block<'a>),
}

/// A directory on its way into the draft.
#[derive(Debug, Default)]
pub(crate) struct DirectoryRecord {
    rows: Vec<u8>,
    names: Vec<u8>,
    needs: Vec<u8>,
}

fn put_need(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    let start = out.len();
    out.push(tag);
    out.extend_from_slice(bytes);
    out.resize(start + NEED_BYTES, 0);
}

impl DirectoryRecord {
    /// Adds an entry behind those before it in order of name.
    pub fn push(&mut self, entry: &Entry, child: u32, needs: Option<Needs<'_>>) {
        self.names.extend_from_slice(&entry.name);
        if let Some(needs) = needs {
            self.need(&needs);
        }
        let ends = ((self.names.len()) as u32, (self.needs.len() / NEED_BYTES) as u32);
        self.rows.extend_from_slice(&row_of(entry, ends.0, child, ends.1));
    }

    /// Adds an entry as it stands in an older cache; `child`: its block in the new one.
    pub fn keep(&mut self, cache: &StatCache, block: &Block<'_>, at: usize, child: u32) {
        self.names.extend_from_slice(block.name(at));
        put_frames(&mut self.needs, cache, block.frames(at));
        let mut bytes = [0; ROW_BYTES];
        bytes.copy_from_slice(block.row(at).0);
        bytes[0..4].copy_from_slice(&(self.names.len() as u32).to_le_bytes());
        bytes[64..72].copy_from_slice(&u64::from(child).to_le_bytes());
        bytes[72..76].copy_from_slice(&((self.needs.len() / NEED_BYTES) as u32).to_le_bytes());
        self.rows.extend_from_slice(&bytes);
    }

    /// Adds what the last entry, or at the end the directory itself, needs.
    pub fn need(&mut self, needs: &Needs<'_>) {
        let out = &mut self.needs;
        match needs {
            Needs::Content(items, owner) => {
                for item in *items {
                    let Some(id) = item.id() else { continue };
                    let tag = match (item, owner) {
                        (Item::List { .. }, Owner::File) => TAG_FILE_LIST,
                        (Item::List { .. }, Owner::Directory) => TAG_DIRECTORY_LIST,
                        _ => TAG_CHUNK,
                    };
                    let mut bytes = [0; 40];
                    bytes[..32].copy_from_slice(&id.0);
                    bytes[32..].copy_from_slice(&item.span().to_le_bytes());
                    put_need(out, tag, &bytes);
                }
            }
            Needs::Kept(cache, block, row) => put_frames(out, cache, block.frames(*row)),
            Needs::KeptOwn(cache, block) => put_frames(out, cache, block.own_frames()),
        }
    }
}

fn put_frames(out: &mut Vec<u8>, cache: &StatCache, frames: impl Iterator<Item = (u32, u32)>) {
    for frame in frames {
        if let Some(birth) = birth(cache.packs(), frame) {
            let mut bytes = [0; 24];
            bytes[..16].copy_from_slice(&birth.pack.session.0);
            bytes[16..20].copy_from_slice(&birth.pack.number.to_le_bytes());
            bytes[20..].copy_from_slice(&birth.ordinal.to_le_bytes());
            put_need(out, TAG_FRAME, &bytes);
        }
    }
}

impl Recorder {
    /// One that writes into a nameless file.
    pub fn new(draft: Draft) -> Self {
        Self { open: Mutex::new(Some(Open { out: BufWriter::with_capacity(1 << 18, draft), blocks: 0 })) }
    }

    /// Takes in a directory; its number, or [`NOWHERE`] when the recording has ended.
    pub fn record(&self, directory: &DirectoryRecord, own: &Entry) -> u32 {
        let mut own_bytes = Vec::new();
        own.encode_bare(&mut own_bytes);
        self.append(directory, &own_bytes)
    }

    fn append(&self, directory: &DirectoryRecord, own: &[u8]) -> u32 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = open.as_mut() else { return NOWHERE };
        let lengths = [directory.rows.len() / ROW_BYTES, directory.names.len(), directory.needs.len() / NEED_BYTES, own.len()];
        let mut head = [0; DRAFT_HEAD_BYTES];
        let mut fits = file.blocks < NOWHERE - 1;
        for (at, length) in lengths.into_iter().enumerate() {
            fits &= u32::try_from(length).is_ok();
            head[at * 4..at * 4 + 4].copy_from_slice(&(length as u32).to_le_bytes());
        }
        let wrote = fits
            && [&head[..], &directory.rows, &directory.names, &directory.needs, own]
                .into_iter()
                .all(|part| file.out.write_all(part).is_ok());
        if !wrote {
            tracing::debug!("Cannot record what the volume looks like, the next backup will be slower");
            *open = None;
            return NOWHERE;
        }
        file.blocks += 1;
        file.blocks - 1
    }

    /// Takes over a directory with all below it from an older cache; its new number.
    pub fn take_over(&self, cache: &StatCache, number: u32) -> u32 {
        struct Level<'a> {
            block: Block<'a>,
            next: usize,
            record: DirectoryRecord,
        }
        let level = |number| cache.block(number).map(|block| Level { block, next: 0, record: DirectoryRecord::default() });
        let Some(first) = level(number) else { return NOWHERE };
        let mut levels = vec![first];
        // What a directory became, on the way to the row that names it.
        let mut done: Option<u32> = None;
        loop {
            let Some(top) = levels.last_mut() else { return NOWHERE };
            if top.next == top.block.len() {
                top.record.need(&Needs::KeptOwn(cache, &top.block));
                let number = self.append(&top.record, top.block.own);
                levels.pop();
                if levels.is_empty() || number == NOWHERE {
                    return number;
                }
                done = Some(number);
                continue;
            }
            let row = top.block.row(top.next);
            let child = match (done.take(), row.child()) {
                (Some(number), _) => number,
                (None, NOWHERE) => NOWHERE,
                (None, child) => {
                    let Some(below) = level(child) else { return NOWHERE };
                    levels.push(below);
                    continue;
                }
            };
            top.record.keep(cache, &top.block, top.next, child);
            top.next += 1;
        }
    }

    /// Makes the cache for `root`, whose block is `number`. All packs must have been sent.
    ///
    /// # Errors
    /// When it could not be made; there is none then.
    pub fn publish(&self, number: u32, root: &Entry, reader: &ChunkReader, mut to: Named) -> Result<()> {
        let failed = |error: std::io::Error| Error::new(ErrorKind::Internal, format!("stat cache cannot be written: {error}"));
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open.filter(|o| number < o.blocks) else {
            return Err(Error::new(ErrorKind::Internal, "the recording had ended before its time"));
        };
        let mut draft = open.out.into_inner().map_err(|e| failed(e.into_error()))?;
        draft.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut draft = BufReader::with_capacity(1 << 18, draft);
        let (repository, salt) = (reader.repository(), reader.repository().world().salt());
        let keys = &repository.keys;
        let mut out = BufWriter::with_capacity(1 << 18, &mut to);
        let mut at = 0u64;
        let mut put = |bytes: &[u8], at: &mut u64| {
            *at += bytes.len() as u64;
            out.write_all(bytes).map_err(failed)
        };
        put(MAGIC, &mut at)?;
        put(&salt, &mut at)?;
        let mut packs = Packs::default();
        let mut offsets = Vec::with_capacity(open.blocks as usize * 8);
        let (mut head, mut body, mut block) = ([0; DRAFT_HEAD_BYTES], Vec::new(), Vec::new());
        for number in 0..open.blocks {
            reader.check()?;
            draft.read_exact(&mut head).map_err(failed)?;
            let [rows, names, needs, own] = [0, 4, 8, 12].map(|at| u32_at(&head, at) as usize);
            body.resize(rows * ROW_BYTES + names + needs * NEED_BYTES + own, 0);
            draft.read_exact(&mut body).map_err(failed)?;
            let (row_bytes, rest) = body.split_at_mut(rows * ROW_BYTES);
            let (name_bytes, rest) = rest.split_at(names);
            let (need_bytes, own_bytes) = rest.split_at(needs * NEED_BYTES);
            block.clear();
            block.resize(BLOCK_HEAD_BYTES, 0);
            block.extend_from_slice(row_bytes);
            block.extend_from_slice(name_bytes);
            let frames_at = block.len();
            let mut done = 0;
            for row in 0..=rows {
                let end = if row == rows { needs } else { u32_at(row_bytes, row * ROW_BYTES + 72) as usize };
                for need in need_bytes[done * NEED_BYTES..end * NEED_BYTES].chunks_exact(NEED_BYTES) {
                    packs.resolve(need, reader, &mut block)?;
                }
                done = end;
                packs.forget_last();
                if row < rows {
                    let frames = ((block.len() - frames_at) / FRAME_BYTES) as u32;
                    let field = BLOCK_HEAD_BYTES + row * ROW_BYTES + 72;
                    block[field..field + 4].copy_from_slice(&frames.to_le_bytes());
                }
            }
            let frames = (block.len() - frames_at) / FRAME_BYTES;
            block.extend_from_slice(own_bytes);
            for (slot, length) in [rows, names, frames, own].into_iter().enumerate() {
                block[SUM_BYTES + slot * 4..SUM_BYTES + slot * 4 + 4].copy_from_slice(&(length as u32).to_le_bytes());
            }
            let sum = block_sum(keys, &salt, number, &block[SUM_BYTES..]);
            block[..SUM_BYTES].copy_from_slice(&sum);
            offsets.extend_from_slice(&at.to_le_bytes());
            put(&block, &mut at)?;
        }
        let packs_at = at;
        let mut tables = packs.table;
        let count = (tables.len() / PACK_BYTES) as u64;
        let offsets_at = packs_at + tables.len() as u64;
        tables.extend_from_slice(&offsets);
        let mut trailer = Vec::new();
        for field in [packs_at, count, offsets_at, u64::from(open.blocks), u64::from(number)] {
            trailer.extend_from_slice(&field.to_le_bytes());
        }
        trailer.extend_from_slice(&print_of(keys, root));
        let sum = keys.cache_sum(&[&salt[..], &trailer].concat(), &tables);
        trailer.extend_from_slice(&sum);
        put(&tables, &mut at)?;
        put(&trailer, &mut at)?;
        out.flush().map_err(failed)?;
        drop(out);
        to.publish().map_err(failed)
    }
}

/// Birth packs by row, and the frame that was named last.
#[derive(Default)]
struct Packs {
    rows: HashMap<PackName, u32>,
    table: Vec<u8>,
    last: Option<BirthName>,
}

impl Packs {
    fn forget_last(&mut self) {
        self.last = None;
    }

    fn name(&mut self, birth: BirthName, out: &mut Vec<u8>) {
        if self.last.replace(birth) == Some(birth) {
            return;
        }
        let next = self.rows.len() as u32;
        let row = *self.rows.entry(birth.pack).or_insert(next);
        if row == next {
            self.table.extend_from_slice(&birth.pack.session.0);
            self.table.extend_from_slice(&birth.pack.number.to_le_bytes());
        }
        out.extend_from_slice(&row.to_le_bytes());
        out.extend_from_slice(&birth.ordinal.to_le_bytes());
    }

    /// Appends the frames behind one need.
    fn resolve(&mut self, need: &[u8], reader: &ChunkReader, out: &mut Vec<u8>) -> Result<()> {
        let mut id = ChunkId([0; 32]);
        id.0.copy_from_slice(&need[1..33]);
        let owner = match need[0] {
            TAG_FRAME => {
                let mut session = [0; 16];
                session.copy_from_slice(&need[1..17]);
                let pack = PackName { session: longshore_format::SessionId(session), number: u32_at(need, 17) };
                self.name(BirthName { pack, ordinal: u32_at(need, 21) }, out);
                return Ok(());
            }
            TAG_FILE_LIST => Some(Owner::File),
            TAG_DIRECTORY_LIST => Some(Owner::Directory),
            _ => None,
        };
        let mut find = |id: &ChunkId| {
            let found = reader.index().find(id).ok_or_else(|| Error::corrupt(format!("chunk is in no index: chunk={id}")))?;
            self.name(found.frame.birth, out);
            Ok::<(), Error>(())
        };
        find(&id)?;
        let Some(owner) = owner else { return Ok(()) };
        let mut lists = vec![(id, crate::statcache::u64_at(need, 33))];
        while let Some((id, span)) = lists.pop() {
            for item in decode_list(&reader.chunk(ChunkKind::List, &id)?, owner, span)? {
                if let Some(id) = item.id() {
                    find(&id)?;
                }
                if let Item::List { id, span } = item {
                    lists.push((id, span));
                }
            }
        }
        Ok(())
    }
}
