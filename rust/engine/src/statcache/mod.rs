//! The stat cache: what `statx` said of every entry at the last backup, and which frames each needs.
//!
//! One file a source, in the repository's cache folder, mapped and read in place. It holds a block a directory: rows of fixed width in
//! order of name, names, frames, and the directory's own entry. Promises to be used for nothing but the very tree it was made from: it
//! bears a keyed print of the root's entry, which names all trees below, and every block a keyed sum under the file's own salt. A file that
//! is torn, truncated, foreign or stale is no cache, and a block that is damaged is a directory not known. Frames are named by birth, so
//! the caller can ask the store's listing of today whether they are still there. Knows nothing of the volume; never written in place.
//!
//! Layout, all little-endian: magic, salt; blocks; packs (20 bytes each); offsets of blocks (8 bytes each); trailer. Blocks are in the
//! order in which directories were finished, so those below a directory stand before it and have smaller numbers.

mod record;

pub(crate) use record::{DirectoryRecord, Needs, Recorder};

use crate::volume::{Kind, Stat};
use longshore_format::Keys;
use longshore_format::id::{PackName, SessionId};
use longshore_format::pack::BirthName;
use longshore_format::tree::{Entry, Node};
use longshore_kernels::map::Map;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LSSTAT\x00\x01";
const HEAD_BYTES: usize = 40;
const TRAILER_BYTES: usize = 40 + 32 + 32;
const PACK_BYTES: usize = 20;
const ROW_BYTES: usize = 80;
const SUM_BYTES: usize = 16;
const BLOCK_HEAD_BYTES: usize = SUM_BYTES + 16;
const FRAME_BYTES: usize = 8;
/// No block: not a directory, or one that was not recorded.
pub(crate) const NOWHERE: u32 = u32::MAX;

const LINKED: u8 = 1;
/// Changed while it was read, or incomplete: to be read again whatever its times say.
const UNSTABLE: u8 = 2;

/// A stat cache, mapped.
#[derive(Debug)]
pub(crate) struct StatCache {
    map: Map,
    keys: Arc<Keys>,
    packs: Vec<PackName>,
    offsets_at: usize,
    blocks: u32,
    root: u32,
}

/// One directory's part of it, its sum checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    rows: &'a [u8],
    names: &'a [u8],
    frames: &'a [u8],
    own: &'a [u8],
}

/// One entry's row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a>(&'a [u8]);

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Directory => 1,
        Kind::File => 2,
        Kind::Symlink => 3,
        Kind::BlockDevice => 4,
        Kind::CharDevice => 5,
        Kind::Fifo => 6,
        Kind::Socket => 7,
    }
}

fn device_numbers(major: u32, minor: u32) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

/// The name of a root's state in sums.
fn print_of(keys: &Keys, root: &Entry) -> [u8; 32] {
    let mut bytes = Vec::new();
    root.encode_bare(&mut bytes);
    keys.cache_sum(b"stat cache root", &bytes)
}

fn block_sum(keys: &Keys, salt: &[u8], number: u32, body: &[u8]) -> [u8; SUM_BYTES] {
    let mut name = [0; 36];
    name[..32].copy_from_slice(salt);
    name[32..].copy_from_slice(&number.to_le_bytes());
    let mut out = [0; SUM_BYTES];
    out.copy_from_slice(&keys.cache_sum(&name, body)[..SUM_BYTES]);
    out
}

impl StatCache {
    /// Takes a mapped file if it was made from exactly this root, under this repository's key.
    pub fn open(map: Map, keys: &Arc<Keys>, root: &Entry) -> Option<Self> {
        let all = map.as_ref();
        let trailer_at = all.len().checked_sub(TRAILER_BYTES).filter(|at| *at >= HEAD_BYTES)?;
        let (body, trailer) = all.split_at(trailer_at);
        if !body.starts_with(MAGIC) || trailer.get(40..72)? != print_of(keys, root) {
            return None;
        }
        let packs_at = usize::try_from(u64_at(trailer, 0)).ok()?;
        let packs = usize::try_from(u64_at(trailer, 8)).ok()?;
        let offsets_at = usize::try_from(u64_at(trailer, 16)).ok()?;
        let blocks = u32::try_from(u64_at(trailer, 24)).ok()?;
        let root_number = u32::try_from(u64_at(trailer, 32)).ok()?;
        let tables = body.get(packs_at..)?;
        let lengths = packs.checked_mul(PACK_BYTES)?.checked_add((blocks as usize).checked_mul(8)?)?;
        if tables.len() != lengths || offsets_at != packs_at + packs * PACK_BYTES || root_number >= blocks {
            return None;
        }
        let mut name = all.get(8..HEAD_BYTES)?.to_vec();
        name.extend_from_slice(&trailer[..72]);
        if trailer.get(72..)? != keys.cache_sum(&name, tables) {
            return None;
        }
        let packs = tables[..packs * PACK_BYTES]
            .chunks_exact(PACK_BYTES)
            .map(|p| Some(PackName { session: SessionId(p[..16].try_into().ok()?), number: u32_at(p, 16) }))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { keys: Arc::clone(keys), packs, offsets_at, blocks, root: root_number, map })
    }

    /// Number of the root's block.
    pub fn root(&self) -> u32 {
        self.root
    }

    /// Birth packs that frames name by their row.
    pub fn packs(&self) -> &[PackName] {
        &self.packs
    }

    /// A directory's block; none when it is damaged.
    pub fn block(&self, number: u32) -> Option<Block<'_>> {
        let (block, whole) = self.lay_out(number)?;
        let salt = self.map.as_ref().get(8..HEAD_BYTES)?;
        (whole[..SUM_BYTES] == block_sum(&self.keys, salt, number, &whole[SUM_BYTES..])).then_some(block)
    }

    /// The same for a block whose sum was found right before: nobody writes to the file in between.
    pub fn block_again(&self, number: u32) -> Option<Block<'_>> {
        self.lay_out(number).map(|(block, _)| block)
    }

    fn lay_out(&self, number: u32) -> Option<(Block<'_>, &[u8])> {
        if number >= self.blocks {
            return None;
        }
        let all = self.map.as_ref();
        let at = usize::try_from(u64_at(all, self.offsets_at + 8 * number as usize)).ok()?;
        let head = all.get(at..at.checked_add(BLOCK_HEAD_BYTES)?)?;
        let (rows, names) = (u32_at(head, SUM_BYTES) as usize, u32_at(head, SUM_BYTES + 4) as usize);
        let (frames, own) = (u32_at(head, SUM_BYTES + 8) as usize, u32_at(head, SUM_BYTES + 12) as usize);
        let (rows, frames) = (rows.checked_mul(ROW_BYTES)?, frames.checked_mul(FRAME_BYTES)?);
        let length = rows.checked_add(names)?.checked_add(frames)?.checked_add(own)?;
        let block = all.get(at..at.checked_add(BLOCK_HEAD_BYTES)?.checked_add(length)?)?;
        let rest = &block[BLOCK_HEAD_BYTES..];
        let (row_bytes, rest) = rest.split_at(rows);
        let (name_bytes, rest) = rest.split_at(names);
        let (frame_bytes, own) = rest.split_at(frames);
        Some((Block { rows: row_bytes, names: name_bytes, frames: frame_bytes, own }, block))
    }
}

impl<'a> Block<'a> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.rows.len() / ROW_BYTES
    }

    /// An entry's row.
    pub fn row(&self, at: usize) -> Row<'a> {
        Row(self.rows.get(at * ROW_BYTES..(at + 1) * ROW_BYTES).unwrap_or_default())
    }

    fn start(&self, at: usize, field: usize) -> usize {
        if at == 0 { 0 } else { u32_at(self.row(at - 1).0, field) as usize }
    }

    /// An entry's name.
    pub fn name(&self, at: usize) -> &'a [u8] {
        self.names.get(self.start(at, 0)..u32_at(self.row(at).0, 0) as usize).unwrap_or_default()
    }

    /// Frames that an entry's content needs, as rows of the pack table and ordinals.
    pub fn frames(&self, at: usize) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        let end = u32_at(self.row(at).0, 72) as usize;
        pairs(self.frames.get(self.start(at, 72) * FRAME_BYTES..end * FRAME_BYTES).unwrap_or_default())
    }

    /// Frames that the directory's own trees and lists need.
    pub fn own_frames(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        pairs(self.frames.get(self.start(self.len(), 72) * FRAME_BYTES..).unwrap_or_default())
    }

    /// All frames.
    pub fn all_frames(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        pairs(self.frames)
    }

    /// The directory's own entry.
    pub fn own(&self) -> Option<Entry> {
        Entry::decode_bare(self.own, true).or_else(|_| Entry::decode_bare(self.own, false)).ok()
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> + use<'_> {
    bytes.chunks_exact(FRAME_BYTES).map(|f| (u32_at(f, 0), u32_at(f, 4)))
}

impl Row<'_> {
    /// Whether an entry is as it was in all that `statx` says, and was captured whole.
    pub fn is(&self, stat: &Stat) -> bool {
        let row = self.0;
        let linked = stat.kind != Kind::Directory && stat.links > 1;
        let size = match stat.kind {
            Kind::File => stat.size_bytes,
            Kind::BlockDevice | Kind::CharDevice => device_numbers(stat.rdev.0, stat.rdev.1),
            _ => 0,
        };
        row.len() == ROW_BYTES
            && row[6] == kind_number(stat.kind)
            && row[7] == u8::from(linked) * LINKED
            && u64_at(row, 16) == size
            && u64_at(row, 24) == stat.inode
            && u64_at(row, 32) == stat.mtime.secs as u64
            && u64_at(row, 40) == stat.ctime.secs as u64
            && u32_at(row, 48) == stat.mtime.nanos
            && u32_at(row, 52) == stat.ctime.nanos
            && u32_at(row, 4) & 0xffff == stat.mode
            && u32_at(row, 8) == stat.uid
            && u32_at(row, 12) == stat.gid
            && u64_at(row, 56) == if linked { stat.device } else { 0 }
    }

    /// Number of a subdirectory's block.
    pub fn child(&self) -> u32 {
        u64_at(self.0, 64).try_into().unwrap_or(NOWHERE)
    }
}

/// Whether an entry says of itself what `statx` says, as [`Row::is`].
pub(crate) fn is_as_recorded(entry: &Entry, stat: &Stat) -> bool {
    Row(&row_of(entry, 0, NOWHERE, 0)).is(stat)
}

/// A row as bytes; the ends of its name and frames are filled in by who knows them.
fn row_of(entry: &Entry, name_end: u32, child: u32, frames_end: u32) -> [u8; ROW_BYTES] {
    let (kind, size) = match &entry.node {
        Node::Directory { .. } => (Kind::Directory, 0),
        Node::File { size_bytes, .. } => (Kind::File, *size_bytes),
        Node::Symlink { .. } => (Kind::Symlink, 0),
        Node::BlockDevice { major, minor } => (Kind::BlockDevice, device_numbers(*major, *minor)),
        Node::CharDevice { major, minor } => (Kind::CharDevice, device_numbers(*major, *minor)),
        Node::Fifo => (Kind::Fifo, 0),
        Node::Socket => (Kind::Socket, 0),
    };
    let mut row = [0; ROW_BYTES];
    row[0..4].copy_from_slice(&name_end.to_le_bytes());
    row[4..6].copy_from_slice(&(entry.mode as u16).to_le_bytes());
    row[6] = kind_number(kind);
    row[7] = (u8::from(entry.link_device.is_some()) * LINKED) | (u8::from(entry.changed || entry.incomplete) * UNSTABLE);
    row[8..12].copy_from_slice(&entry.uid.to_le_bytes());
    row[12..16].copy_from_slice(&entry.gid.to_le_bytes());
    row[16..24].copy_from_slice(&size.to_le_bytes());
    row[24..32].copy_from_slice(&entry.inode.to_le_bytes());
    row[32..40].copy_from_slice(&entry.mtime.secs.to_le_bytes());
    row[40..48].copy_from_slice(&entry.ctime.secs.to_le_bytes());
    row[48..52].copy_from_slice(&entry.mtime.nanos.to_le_bytes());
    row[52..56].copy_from_slice(&entry.ctime.nanos.to_le_bytes());
    row[56..64].copy_from_slice(&entry.link_device.unwrap_or(0).to_le_bytes());
    row[64..72].copy_from_slice(&u64::from(child).to_le_bytes());
    row[72..76].copy_from_slice(&frames_end.to_le_bytes());
    row
}

/// A frame by name.
pub(crate) fn birth(packs: &[PackName], (pack, ordinal): (u32, u32)) -> Option<BirthName> {
    packs.get(pack as usize).map(|pack| BirthName { pack: *pack, ordinal })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes its own files and may fail loudly")]
mod tests {
    use super::*;
    use crate::system::{Draft, Named};
    use crate::{job::Job, repository::Repository, repository::cache::Cache, repository::reader::ChunkReader, seams::World};
    use longshore_format::keys::{Argon2Cost, Unlock};
    use longshore_format::tree::Time;

    fn entry(name: &[u8], node: Node) -> Entry {
        Entry {
            name: name.to_vec(),
            mode: 0o4755,
            uid: 1,
            gid: 70_000,
            mtime: Time { secs: -3, nanos: 4 },
            ctime: Time { secs: 5, nanos: 6 },
            inode: 7,
            link_device: None,
            changed: false,
            incomplete: false,
            xattrs: vec![],
            node,
        }
    }

    fn stat(size_bytes: u64) -> Stat {
        let time = |secs, nanos| crate::volume::Time { secs, nanos };
        Stat {
            kind: Kind::File,
            mode: 0o4755,
            uid: 1,
            gid: 70_000,
            size_bytes,
            allocated_bytes: 0,
            mtime: time(-3, 4),
            ctime: time(5, 6),
            inode: 7,
            device: 8,
            links: 1,
            rdev: (0, 0),
        }
    }

    #[test]
    fn a_file_opens_whole_and_no_byte_of_it_may_turn() {
        let folder = tempfile::tempdir().unwrap();
        let unlock = Unlock::Secret([1; 32]);
        let store = Arc::new(longshore_store::MemoryStore::new());
        let repository = Repository::init(store, World::system(), &unlock, "", Argon2Cost::default(), Cache::none()).unwrap();
        let index = Arc::new(crate::repository::index::Index::empty());
        let reader = ChunkReader::new(repository.clone(), index, Arc::new(Job::new()), 1 << 20);
        let directory = || Node::Directory { content: vec![] };
        let recorder = Recorder::new(Draft::new(folder.path(), "d").unwrap());
        let mut below = DirectoryRecord::default();
        below.push(&entry(b"file", Node::File { size_bytes: 9, content: vec![] }), NOWHERE, None);
        let below = recorder.record(&below, &entry(b"below", directory()));
        let mut top = DirectoryRecord::default();
        top.push(&entry(b"below", directory()), below, None);
        let root = entry(b"", directory());
        let top = recorder.record(&top, &root);
        recorder.publish(top, &root, &reader, Named::new(folder.path(), "f", "u").unwrap()).unwrap();
        let (path, bad_path) = (folder.path().join("f"), folder.path().join("bad"));
        let open = |path: &std::path::Path, root: &Entry| StatCache::open(Map::open(path).ok()?, &repository.keys, root);
        let cache = open(&path, &root).unwrap();
        let block = cache.block(cache.root()).unwrap();
        assert_eq!((block.len(), block.name(0), block.row(0).child()), (1, &b"below"[..], below));
        let block = cache.block(below).unwrap();
        assert_eq!((block.name(0), block.own().unwrap().name), (&b"file"[..], b"below".to_vec()));
        assert!(block.row(0).is(&stat(9)) && !block.row(0).is(&stat(10)));
        assert!(open(&path, &Entry { uid: 9, ..root.clone() }).is_none(), "another root");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&bad_path, &bad).unwrap();
            let whole = open(&bad_path, &root).is_some_and(|c| c.block(top).is_some() && c.block(below).is_some());
            assert!(!whole, "byte {at} of {}", good.len());
        }
        for length in 0..good.len() {
            std::fs::write(&bad_path, &good[..length]).unwrap();
            assert!(open(&bad_path, &root).is_none(), "cut to {length}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "drafts leave nothing behind");
    }

    #[test]
    fn every_field_that_statx_tells_is_compared() {
        let row = row_of(&entry(b"f", Node::File { size_bytes: 9, content: vec![] }), 1, NOWHERE, 0);
        let same = |stat: &Stat| Row(&row).is(stat);
        let now = stat(9);
        assert!(same(&now));
        let time = |secs, nanos| crate::volume::Time { secs, nanos };
        let others = [
            Stat { kind: Kind::Fifo, ..now.clone() },
            Stat { mode: 0o755, ..now.clone() },
            Stat { uid: 2, ..now.clone() },
            Stat { gid: 2, ..now.clone() },
            Stat { size_bytes: 8, ..now.clone() },
            Stat { mtime: time(-3, 5), ..now.clone() },
            Stat { mtime: time(3, 4), ..now.clone() },
            Stat { ctime: time(5, 7), ..now.clone() },
            Stat { ctime: time(6, 6), ..now.clone() },
            Stat { inode: 8, ..now.clone() },
            Stat { links: 2, ..now.clone() },
        ];
        for other in others {
            assert!(!same(&other), "{other:?}");
        }
        for marked in [Entry { changed: true, ..entry(b"f", Node::Fifo) }, Entry { incomplete: true, ..entry(b"f", Node::Fifo) }]
        {
            let now = Stat { kind: Kind::Fifo, ..now.clone() };
            assert!(Row(&row_of(&entry(b"f", Node::Fifo), 1, NOWHERE, 0)).is(&now));
            assert!(!Row(&row_of(&marked, 1, NOWHERE, 0)).is(&now), "to be read again");
        }
    }
}
