//! Contents, items and directory entries: docs/format.md chapter 9.
//!
//! Encoders append to a buffer; decoders borrow from the chunk. Iterators yield one entry or item at a time, so a directory of any
//! size is read piece by piece.
//!
//! Over 500 lines because encoder and decoder of one layout stand side by side with their tests.

use crate::id::ChunkId;
use crate::wire::{Reader, put_bytes, put_sv, put_uv};
use crate::{FormatError, Result, limits};

/// One item of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A chunk of file bytes.
    Data {
        /// Its id.
        id: ChunkId,
        /// Its length in bytes.
        span: u64,
    },
    /// Bytes that read as zero and take no room.
    Hole {
        /// How many.
        span: u64,
    },
    /// Bytes that read as zero and take room.
    Zeros {
        /// How many.
        span: u64,
    },
    /// More items, in a list chunk.
    List {
        /// Its id.
        id: ChunkId,
        /// Sum of the spans in it.
        span: u64,
    },
    /// A piece of a directory, in a tree chunk.
    Piece {
        /// Its id.
        id: ChunkId,
        /// Number of entries in it.
        span: u64,
    },
}

impl Item {
    /// Bytes or entries that it covers.
    #[must_use]
    pub fn span(&self) -> u64 {
        match *self {
            Self::Data { span, .. }
            | Self::Hole { span }
            | Self::Zeros { span }
            | Self::List { span, .. }
            | Self::Piece { span, .. } => span,
        }
    }

    /// The chunk that it names, if any.
    #[must_use]
    pub fn id(&self) -> Option<ChunkId> {
        match *self {
            Self::Data { id, .. } | Self::List { id, .. } | Self::Piece { id, .. } => Some(id),
            Self::Hole { .. } | Self::Zeros { .. } => None,
        }
    }

    /// Appends its encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Data { .. } => 0,
            Self::Hole { .. } => 1,
            Self::Zeros { .. } => 2,
            Self::List { .. } => 3,
            Self::Piece { .. } => 4,
        });
        put_uv(out, self.span());
        if let Some(id) = self.id() {
            out.extend_from_slice(&id.0);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let tag = reader.u8()?;
        let span = reader.uv_max(limits::FILE_BYTES_MAX)?;
        if span == 0 {
            return Err(reader.corrupt("an item covers nothing"));
        }
        let item = match tag {
            0 => Self::Data { id: ChunkId(reader.array()?), span },
            1 => Self::Hole { span },
            2 => Self::Zeros { span },
            3 => Self::List { id: ChunkId(reader.array()?), span },
            4 => Self::Piece { id: ChunkId(reader.array()?), span },
            _ => return Err(reader.corrupt(format!("unknown item: tag={tag}"))),
        };
        if matches!(item, Self::Data { span, .. } if span > limits::CHUNK_BYTES_MAX as u64) {
            return Err(reader.corrupt("a chunk is longer than allowed"));
        }
        Ok(item)
    }
}

/// Whose items are read: a file and a directory take different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Items 0 to 3.
    File,
    /// Items 3 and 4.
    Directory,
}

impl Owner {
    fn allows(self, item: &Item) -> bool {
        match item {
            Item::List { .. } => true,
            Item::Piece { .. } => self == Self::Directory,
            Item::Data { .. } | Item::Hole { .. } | Item::Zeros { .. } => self == Self::File,
        }
    }
}

/// Reads the items of a list chunk.
///
/// # Errors
/// Corrupt, also when the spans do not sum up to `span` (the span of the item that names the list).
pub fn decode_list(bytes: &[u8], owner: Owner, span: u64) -> Result<Vec<Item>> {
    let mut reader = Reader::new(bytes, "list");
    let mut items = Vec::with_capacity(bytes.len() / 34 + 1);
    let mut sum = 0u64;
    while !reader.is_empty() {
        let item = Item::decode(&mut reader)?;
        if !owner.allows(&item) {
            return Err(reader.corrupt("an item is of the wrong kind"));
        }
        sum = sum.checked_add(item.span()).ok_or_else(|| reader.corrupt("spans overflow"))?;
        items.push(item);
    }
    if sum != span {
        return Err(FormatError::corrupt("list", format!("its spans do not sum up: sum={sum}, expected={span}")));
    }
    Ok(items)
}

/// Appends a content.
pub fn encode_content(items: &[Item], out: &mut Vec<u8>) {
    put_uv(out, items.len() as u64);
    for item in items {
        item.encode(out);
    }
}

fn decode_content(reader: &mut Reader<'_>, owner: Owner) -> Result<Vec<Item>> {
    let count = reader.len_max(reader.rest().len() / 2)?;
    let mut items = Vec::with_capacity(count.min(reader.rest().len() / 2));
    let mut sum = 0u64;
    for _ in 0..count {
        let item = Item::decode(reader)?;
        if !owner.allows(&item) {
            return Err(reader.corrupt("an item is of the wrong kind"));
        }
        sum = sum
            .checked_add(item.span())
            .filter(|s| *s <= limits::FILE_BYTES_MAX)
            .ok_or_else(|| reader.corrupt("spans overflow"))?;
        items.push(item);
    }
    Ok(items)
}

/// Seconds and nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds past them, below 10⁹.
    pub nanos: u32,
}

impl Time {
    fn encode(self, out: &mut Vec<u8>) {
        put_sv(out, self.secs);
        put_uv(out, u64::from(self.nanos));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { secs: reader.sv()?, nanos: reader.uv_max(999_999_999)? as u32 })
    }
}

/// What kind of thing an entry is, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory and its pieces.
    Directory {
        /// Items 3 and 4.
        content: Vec<Item>,
    },
    /// A regular file.
    File {
        /// Its length in bytes.
        size_bytes: u64,
        /// Items 0 to 3.
        content: Vec<Item>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Vec<u8>,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; empty for the root alone.
    pub name: Vec<u8>,
    /// Permission bits, 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Inode change time; not restored.
    pub ctime: Time,
    /// Inode number; not restored.
    pub inode: u64,
    /// Device, for entries that have other names; equal device and inode are one file.
    pub link_device: Option<u64>,
    /// Changed while it was read.
    pub changed: bool,
    /// Some of the content, or the extended attributes, could not be read.
    pub incomplete: bool,
    /// Extended attributes ascending by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The rest.
    pub node: Node,
}

const CHANGED: u8 = 1;
const LINKED: u8 = 2;
const XATTRS: u8 = 4;
const INCOMPLETE: u8 = 8;

impl Entry {
    /// Appends the entry without its outer length, as a snapshot holds the root.
    pub fn encode_bare(&self, out: &mut Vec<u8>) {
        out.push(match self.node {
            Node::Directory { .. } => 1,
            Node::File { .. } => 2,
            Node::Symlink { .. } => 3,
            Node::BlockDevice { .. } => 4,
            Node::CharDevice { .. } => 5,
            Node::Fifo => 6,
            Node::Socket => 7,
        });
        let flag = |on: bool, bit| if on { bit } else { 0 };
        out.push(
            flag(self.changed, CHANGED)
                | flag(self.link_device.is_some(), LINKED)
                | flag(!self.xattrs.is_empty(), XATTRS)
                | flag(self.incomplete, INCOMPLETE),
        );
        put_bytes(out, &self.name);
        for number in [self.mode, self.uid, self.gid] {
            put_uv(out, u64::from(number));
        }
        self.mtime.encode(out);
        self.ctime.encode(out);
        put_uv(out, self.inode);
        if let Some(device) = self.link_device {
            put_uv(out, device);
        }
        match &self.node {
            Node::Directory { content } => encode_content(content, out),
            Node::File { size_bytes, content } => {
                put_uv(out, *size_bytes);
                encode_content(content, out);
            }
            Node::Symlink { target } => put_bytes(out, target),
            Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => {
                put_uv(out, u64::from(*major));
                put_uv(out, u64::from(*minor));
            }
            Node::Fifo | Node::Socket => {}
        }
        if !self.xattrs.is_empty() {
            put_uv(out, self.xattrs.len() as u64);
            for (name, value) in &self.xattrs {
                put_bytes(out, name);
                put_bytes(out, value);
            }
        }
    }

    /// Appends the entry as a tree chunk holds it. Returns how many bytes.
    pub fn encode(&self, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> usize {
        scratch.clear();
        self.encode_bare(scratch);
        let before = out.len();
        put_bytes(out, scratch);
        out.len() - before
    }

    /// Reads an entry without its outer length. `root`: the name must be empty, else it must not.
    ///
    /// # Errors
    /// Corrupt, `TooLarge`.
    pub fn decode_bare(bytes: &[u8], root: bool) -> Result<Self> {
        let mut reader = Reader::new(bytes, "entry");
        let kind = reader.u8()?;
        let flags = reader.u8()?;
        if flags & !(CHANGED | LINKED | XATTRS | INCOMPLETE) != 0 {
            return Err(reader.corrupt(format!("unknown flags: flags={flags}")));
        }
        let name = reader.bytes_max(limits::NAME_BYTES_MAX)?.to_vec();
        check_name(&name, root)?;
        let mode = reader.uv_max(0o7777)? as u32;
        let (uid, gid) = (reader.uv32()?, reader.uv32()?);
        let (mtime, ctime) = (Time::decode(&mut reader)?, Time::decode(&mut reader)?);
        let inode = reader.uv()?;
        let link_device = if flags & LINKED != 0 { Some(reader.uv()?) } else { None };
        let node = match kind {
            1 => Node::Directory { content: decode_content(&mut reader, Owner::Directory)? },
            2 => {
                let size_bytes = reader.uv_max(limits::FILE_BYTES_MAX)?;
                let content = decode_content(&mut reader, Owner::File)?;
                if content.iter().map(Item::span).sum::<u64>() != size_bytes {
                    return Err(reader.corrupt("the content has another length than the file"));
                }
                Node::File { size_bytes, content }
            }
            3 => Node::Symlink { target: reader.bytes_max(limits::TARGET_BYTES_MAX)?.to_vec() },
            4 => Node::BlockDevice { major: reader.uv32()?, minor: reader.uv32()? },
            5 => Node::CharDevice { major: reader.uv32()?, minor: reader.uv32()? },
            6 => Node::Fifo,
            7 => Node::Socket,
            _ => return Err(reader.corrupt(format!("unknown kind: kind={kind}"))),
        };
        if matches!(&node, Node::Symlink { target } if target.is_empty() || target.contains(&0)) {
            return Err(reader.corrupt("target of a symbolic link is empty or holds a zero byte"));
        }
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if flags & XATTRS != 0 {
            let count = reader.len_max(limits::XATTRS_MAX)?;
            if count == 0 {
                return Err(reader.corrupt("says that it has xattrs and has none"));
            }
            for _ in 0..count {
                let key = reader.bytes_max(limits::XATTR_NAME_BYTES_MAX)?.to_vec();
                let value = reader.bytes_max(limits::XATTR_VALUE_BYTES_MAX)?.to_vec();
                if key.is_empty() || key.contains(&0) || xattrs.last().is_some_and(|(last, _)| *last >= key) {
                    return Err(reader.corrupt("xattr names are empty or out of order"));
                }
                xattrs.push((key, value));
            }
        }
        reader.finish()?;
        Ok(Self {
            name,
            mode,
            uid,
            gid,
            mtime,
            ctime,
            inode,
            link_device,
            changed: flags & CHANGED != 0,
            incomplete: flags & INCOMPLETE != 0,
            xattrs,
            node,
        })
    }
}

fn check_name(name: &[u8], root: bool) -> Result<()> {
    let good = if root { name.is_empty() } else { is_valid_name(name) };
    if good { Ok(()) } else { Err(FormatError::corrupt("entry", "its name is not allowed")) }
}

/// Whether bytes may be the name of an entry.
#[must_use]
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= limits::NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| matches!(b, 0 | b'/'))
}

/// Reads the entries of a tree chunk, one after the other.
#[derive(Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    last: Vec<u8>,
    failed: bool,
}

impl<'a> Entries<'a> {
    /// The entries of a tree chunk; names must come after `after` (empty: the first piece).
    #[must_use]
    pub fn new(bytes: &'a [u8], after: &[u8]) -> Self {
        Self { reader: Reader::new(bytes, "tree"), last: after.to_vec(), failed: false }
    }

    fn read(&mut self) -> Result<Entry> {
        let entry = Entry::decode_bare(self.reader.bytes_max(limits::ENTRY_BYTES_MAX)?, false)?;
        if entry.name <= self.last {
            return Err(self.reader.corrupt("entries are out of order"));
        }
        self.last.clone_from(&entry.name);
        Ok(entry)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        let entry = self.read();
        self.failed = entry.is_err();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_item(owner: Owner) -> BoxedStrategy<Item> {
        let id = any::<[u8; 32]>().prop_map(ChunkId);
        let span = 1..1_000_000u64;
        match owner {
            Owner::File => prop_oneof![
                (id.clone(), span.clone()).prop_map(|(id, span)| Item::Data { id, span }),
                span.clone().prop_map(|span| Item::Hole { span }),
                span.clone().prop_map(|span| Item::Zeros { span }),
                (id, span).prop_map(|(id, span)| Item::List { id, span }),
            ]
            .boxed(),
            Owner::Directory => prop_oneof![
                (id.clone(), span.clone()).prop_map(|(id, span)| Item::Piece { id, span }),
                (id, span).prop_map(|(id, span)| Item::List { id, span })
            ]
            .boxed(),
        }
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let node = prop_oneof![
            proptest::collection::vec(any_item(Owner::Directory), 0..5).prop_map(|content| Node::Directory { content }),
            proptest::collection::vec(any_item(Owner::File), 0..5)
                .prop_map(|content| Node::File { size_bytes: content.iter().map(Item::span).sum(), content }),
            proptest::collection::vec(1..=255u8, 1..300).prop_map(|target| Node::Symlink { target }),
            (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
            (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
            Just(Node::Fifo),
            Just(Node::Socket),
        ];
        let name = proptest::collection::vec(any::<u8>().prop_filter("name byte", |b| *b != 0 && *b != b'/'), 1..255)
            .prop_filter("dots", |n| n != b"." && n != b"..");
        let xattrs = proptest::collection::btree_map(
            proptest::collection::vec(1..=255u8, 1..30),
            proptest::collection::vec(any::<u8>(), 0..50),
            0..4,
        );
        (
            name,
            0..0o7777u32,
            any::<(u32, u32, u64, Option<u64>, bool, bool)>(),
            (any::<i64>(), 0..1_000_000_000u32, any::<i64>(), 0..1_000_000_000u32),
            xattrs,
            node,
        )
            .prop_map(
                |(name, mode, (uid, gid, inode, link_device, changed, incomplete), (ms, mn, cs, cn), xattrs, node)| Entry {
                    name,
                    mode,
                    uid,
                    gid,
                    mtime: Time { secs: ms, nanos: mn },
                    ctime: Time { secs: cs, nanos: cn },
                    inode,
                    link_device,
                    changed,
                    incomplete,
                    xattrs: xattrs.into_iter().collect(),
                    node,
                },
            )
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in any_entry()) {
            let (mut scratch, mut out) = (Vec::new(), Vec::new());
            entry.encode(&mut scratch, &mut out);
            let back: Vec<_> = Entries::new(&out, b"").collect::<Result<_>>().unwrap();
            prop_assert_eq!(&back, &[entry]);
        }

        #[test]
        fn damaged_entries_never_panic_and_never_decode_to_more_than_they_say(entry in any_entry(), at: usize, bit in 0..8u8) {
            let mut out = Vec::new();
            entry.encode_bare(&mut out);
            let at = at % out.len();
            out[at] ^= 1 << bit;
            if let Ok(other) = Entry::decode_bare(&out, false) {
                let mut again = Vec::new();
                other.encode_bare(&mut again);
                prop_assert_eq!(again, out);
            }
        }
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert!(!is_valid_name(name));
        }
        assert!(is_valid_name(b"...") && is_valid_name(&[0xff, 0xfe]));
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let entry = |name: &[u8]| Entry {
            name: name.to_vec(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            ctime: Time::default(),
            inode: 0,
            link_device: None,
            changed: false,
            incomplete: false,
            xattrs: vec![],
            node: Node::Fifo,
        };
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        entry(b"b").encode(&mut scratch, &mut out);
        entry(b"b").encode(&mut scratch, &mut out);
        assert!(Entries::new(&out, b"").collect::<Result<Vec<_>>>().is_err(), "twice the same name");
        assert!(Entries::new(&out, b"c").collect::<Result<Vec<_>>>().is_err(), "before the piece ahead");
    }
}
