//! A volume that exists only as a rule: names, sizes and contents come from a seed, a directory holds a thousand files.
//!
//! Promises that no two files share content, that what is asked twice is answered alike, and that it takes no memory for what it holds.
//! Cannot be written.

use crate::made;
use longshore_engine::volume::{
    Dir, Extent, Fs, Kind, Loss, Metadata, Name, Names, ReadFile, RootOptions, Stat, Time, VolumeError, VolumeErrorKind,
    WriteFile,
};
use std::path::Path;
use std::sync::Arc;

const FANOUT: u64 = 1000;
const POOL_BYTES: usize = 8 << 20;
type Answer<T> = std::result::Result<T, VolumeError>;

fn refused<T>(call: &'static str) -> Answer<T> {
    Err(VolumeError { kind: VolumeErrorKind::Unsupported, call, errno: None })
}

/// The rule: how many files, how long, and the bytes from which contents are taken.
#[derive(Debug)]
struct Rule {
    files: u64,
    file_bytes: u64,
    pool: Vec<u8>,
}

impl Rule {
    fn stat(&self, kind: Kind, inode: u64) -> Stat {
        let size_bytes = if kind == Kind::File { self.file_bytes } else { 4096 };
        let time = Time { secs: 1_700_000_000 + (inode % 1_000_000) as i64, nanos: 1000 };
        let (mode, links) = if kind == Kind::File { (0o644, 1) } else { (0o755, 2) };
        Stat {
            kind,
            mode,
            uid: 1000,
            gid: 1000,
            size_bytes,
            allocated_bytes: size_bytes.next_multiple_of(4096),
            mtime: time,
            ctime: time,
            inode,
            device: 1,
            links,
            rdev: (0, 0),
        }
    }
}

/// Such a volume.
#[derive(Clone, Debug)]
pub struct RuleFs(Arc<Rule>);

impl RuleFs {
    /// So many files of this length.
    #[must_use]
    pub fn new(files: u64, file_bytes: u64) -> Self {
        let mut pool = made::text(1, POOL_BYTES / 2);
        pool.extend(made::noise(1, POOL_BYTES / 2));
        Self(Arc::new(Rule { files, file_bytes, pool }))
    }
}

/// The files from `first` to `first + count`: by directories of a thousand each when there are more.
#[derive(Debug)]
struct RuleDir {
    rule: Arc<Rule>,
    first: u64,
    count: u64,
}

impl RuleDir {
    fn leaf(&self) -> bool {
        self.count <= FANOUT
    }

    /// How many files each subdirectory holds.
    fn share(&self) -> u64 {
        let mut share = FANOUT;
        while self.count.div_ceil(share) > FANOUT {
            share *= FANOUT;
        }
        share
    }

    fn number(name: &[u8]) -> Answer<u64> {
        std::str::from_utf8(name).ok().and_then(|n| n.get(1..)?.parse().ok()).ok_or(VolumeError {
            kind: VolumeErrorKind::NotFound,
            call: "stat",
            errno: None,
        })
    }
}

impl Fs for RuleFs {
    fn open_root(&self, _: &Path, _: RootOptions) -> Answer<Box<dyn Dir>> {
        Ok(Box::new(RuleDir { rule: Arc::clone(&self.0), first: 0, count: self.0.files }))
    }

    fn create_root(&self, _: &Path, _: RootOptions) -> Answer<Box<dyn Dir>> {
        refused("create root")
    }
}

impl Dir for RuleDir {
    fn names(&self) -> Answer<Names> {
        let (letter, count) = if self.leaf() { ('f', self.count) } else { ('d', self.count.div_ceil(self.share())) };
        Ok((0..count).map(|n| format!("{letter}{n:04}").into_bytes()).collect())
    }

    fn stat_self(&self) -> Answer<Stat> {
        Ok(self.rule.stat(Kind::Directory, (1 << 40) + self.first * 8 + self.count.ilog10() as u64))
    }

    fn stat(&self, name: &[u8]) -> Answer<Stat> {
        if name.first() == Some(&b'd') {
            let number = Self::number(name)?;
            let sub = RuleDir { rule: Arc::clone(&self.rule), first: self.first + number * self.share(), count: self.share() };
            return Ok(self.rule.stat(Kind::Directory, (1 << 40) + sub.first * 8 + sub.count.ilog10() as u64));
        }
        Ok(self.rule.stat(Kind::File, 1 + self.first + Self::number(name)?))
    }

    fn open_dir(&self, name: &[u8]) -> Answer<Box<dyn Dir>> {
        let (share, number) = (self.share(), Self::number(name)?);
        let count = share.min(self.count - number * share);
        // What `stat` said of it must still be so: a short last directory is counted as a whole one.
        let rule = Arc::clone(&self.rule);
        Ok(Box::new(RuleDir { rule, first: self.first + number * share, count }))
    }

    fn open_file(&self, name: &[u8]) -> Answer<Arc<dyn ReadFile>> {
        Ok(Arc::new(RuleFile { rule: Arc::clone(&self.rule), number: self.first + Self::number(name)? }))
    }

    fn read_link(&self, _: &[u8]) -> Answer<Name> {
        refused("read link")
    }

    fn xattrs_self(&self) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn xattrs(&self, _: &[u8], _: Kind) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn create_dir(&self, _: &[u8]) -> Answer<Box<dyn Dir>> {
        refused("create directory")
    }

    fn create_file(&self, _: &[u8]) -> Answer<Box<dyn WriteFile>> {
        refused("create file")
    }

    fn open_file_for_update(&self, _: &[u8]) -> Answer<Box<dyn WriteFile>> {
        refused("open file")
    }

    fn create_symlink(&self, _: &[u8], _: &[u8]) -> Answer<()> {
        refused("create link")
    }

    fn create_special(&self, _: &[u8], _: Kind, _: (u32, u32)) -> Answer<()> {
        refused("create special file")
    }

    fn hard_link(&self, _: &[u8], _: &dyn Dir, _: &[u8]) -> Answer<()> {
        refused("link")
    }

    fn rename(&self, _: &[u8], _: &[u8]) -> Answer<()> {
        refused("rename")
    }

    fn remove_all(&self, _: &[u8]) -> Answer<()> {
        refused("remove")
    }

    fn set_metadata(&self, _: &[u8], _: Kind, _: &Metadata) -> Answer<Vec<Loss>> {
        refused("set metadata")
    }

    fn set_metadata_self(&self, _: &Metadata) -> Answer<Vec<Loss>> {
        refused("set metadata")
    }

    fn sync_filesystem(&self) -> Answer<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[derive(Debug)]
struct RuleFile {
    rule: Arc<Rule>,
    number: u64,
}

impl ReadFile for RuleFile {
    fn stat(&self) -> Answer<Stat> {
        Ok(self.rule.stat(Kind::File, 1 + self.number))
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Answer<usize> {
        let length = (buf.len() as u64).min(self.rule.file_bytes.saturating_sub(offset_bytes)) as usize;
        let mut at = 0;
        while at < length {
            // Each mebibyte of each file begins elsewhere in the pool, and carries its own number: nothing is a duplicate.
            let place = offset_bytes + at as u64;
            let (block, within) = (place >> 20, (place & 0xf_ffff) as usize);
            let mark = (self.number << 24 | block).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let piece = (length - at).min((1 << 20) - within);
            let start = (mark >> 42) as usize % (POOL_BYTES - (1 << 20)) + within;
            buf[at..at + piece].copy_from_slice(&self.rule.pool[start..start + piece]);
            if within == 0 {
                let known = piece.min(8);
                buf[at..at + known].copy_from_slice(&mark.to_le_bytes()[..known]);
            }
            at += piece;
        }
        Ok(length)
    }

    fn next_extent(&self, offset_bytes: u64) -> Answer<Option<Extent>> {
        let length_bytes = self.rule.file_bytes.saturating_sub(offset_bytes);
        Ok((length_bytes > 0).then_some(Extent { offset_bytes, length_bytes, hole: false }))
    }

    fn xattrs(&self) -> Answer<Vec<(Name, Vec<u8>)>> {
        Ok(vec![])
    }

    fn read_once(&self, offset_bytes: u64, buf: &mut [u8]) -> Answer<usize> {
        self.read_at(offset_bytes, buf)
    }
}
