//! What is backed up: small made-up volumes of which the truth is kept beside.
//!
//! [`Tree`] is how truth, the oracle's reading of a snapshot and a restored directory are compared: kinds, modes, link targets, lengths and
//! hashes of contents by path. Does not know the engine but by its seam to filesystems.

use crate::draw::Draw;
use crate::portrait::{Portrait, portrait};
use longshore_engine::volume::made_up::MadeUpFs;
use longshore_engine::volume::{Dir, Fs, Kind, Metadata, RootOptions, Time};
use std::collections::BTreeMap;
use std::path::Path;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A directory with its mode.
    Directory(u64),
    /// A file: mode, length, hash of the content.
    File(u64, u64, [u8; 32]),
    /// A link: its target.
    Link(Vec<u8>),
    /// Anything else: kind as in docs/format.md chapter 9.
    Other(u8),
}

/// Everything below a root (which is not in it), by path.
pub type Tree = BTreeMap<Vec<u8>, Thing>;

/// As long as the packer wants noise to be that it seals alone.
const NOISE_BYTES: usize = 33 << 10;
/// Where the volume lies in its filesystem.
pub const ROOT: &str = "volume";

/// Bytes made of a seed; every third content compresses well.
#[must_use]
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    if seed.is_multiple_of(3) {
        for at in 64..length {
            out[at] = out[at % 64];
        }
    }
    out
}

/// A volume and its truth.
#[derive(Debug)]
pub struct Volume {
    /// The filesystem that holds it.
    pub fs: MadeUpFs,
    truth: Tree,
    turn: i64,
}

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

impl Volume {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let fs = MadeUpFs::default();
        fs.root().create_dir(ROOT.as_bytes()).unwrap();
        Self { fs, truth: Tree::new(), turn: 0 }
    }

    /// A volume of `files` files of up to `most` bytes.
    #[must_use]
    pub fn random(draw: &mut Draw, files: u64, most: u64) -> Self {
        let mut volume = Self::new();
        for number in 0..files {
            let length = draw.magnitude(1, most);
            volume.put(&format!("d{}/f{number}", number % 2), draw.below(1 << 20), length as usize);
        }
        volume
    }

    fn directory(&self) -> Box<dyn Dir> {
        self.fs.open_root(Path::new(ROOT), RootOptions::default()).unwrap()
    }

    /// Writes a file anew; `path` has at most one directory.
    pub fn put(&mut self, path: &str, seed: u64, length: usize) {
        self.write(path, &content(seed, length));
    }

    /// Writes a file that does not compress and is long enough to get a frame of its own.
    pub fn put_noise(&mut self, number: u64, seed: u64) {
        // Contents of other seeds may compress.
        self.put(&format!("noise{number}"), 3 * seed + 1, NOISE_BYTES);
    }

    /// Writes a file of one byte many times.
    pub fn fill(&mut self, path: &str, byte: u8, length: usize) {
        self.write(path, &vec![byte; length]);
    }

    fn write(&mut self, path: &str, bytes: &[u8]) {
        let mut dir = self.directory();
        let name = match path.split_once('/') {
            None => path,
            Some((folder, name)) => {
                if dir.stat(folder.as_bytes()).is_err() {
                    dir.create_dir(folder.as_bytes()).unwrap();
                    self.truth.insert(folder.as_bytes().to_vec(), Thing::Directory(0o700));
                }
                dir = dir.open_dir(folder.as_bytes()).unwrap();
                name
            }
        };
        dir.remove_all(name.as_bytes()).unwrap();
        let length = bytes.len();
        let file = dir.create_file(name.as_bytes()).unwrap();
        file.write_at(0, bytes).unwrap();
        self.turn += 1;
        let mtime = Time { secs: 1_700_000_000 + self.turn, nanos: 5 };
        file.set_metadata(&Metadata { mode: 0o640, uid: 0, gid: 0, mtime, xattrs: vec![] }).unwrap();
        self.truth.insert(path.as_bytes().to_vec(), Thing::File(0o640, length as u64, *blake3::hash(bytes).as_bytes()));
    }

    /// Adds a little of everything that is no plain file: a link, a pipe, a second name, attributes of a file and of a directory.
    pub fn adorn(&mut self) {
        let root = self.directory();
        self.put("d0/plain", 77, 3000);
        let folder = root.open_dir(b"d0").unwrap();
        root.create_symlink(b"link", b"d0/plain").unwrap();
        root.create_special(b"pipe", Kind::Fifo, (0, 0)).unwrap();
        folder.hard_link(b"plain", &*root, b"second").unwrap();
        let mtime = Time { secs: -7, nanos: 999_999_999 };
        let xattrs = vec![(b"user.colour".to_vec(), vec![7; 40]), (b"user.empty".to_vec(), vec![])];
        let metadata = Metadata { mode: 0o4751, uid: 1234, gid: 4321, mtime, xattrs };
        folder.set_metadata(b"plain", Kind::File, &metadata).unwrap();
        root.set_metadata(b"pipe", Kind::Fifo, &Metadata { mode: 0o620, xattrs: vec![], ..metadata.clone() }).unwrap();
        root.set_metadata(b"d0", Kind::Directory, &Metadata { mode: 0o2750, ..metadata }).unwrap();
        let plain = Thing::File(0o4751, 3000, *blake3::hash(&content(77, 3000)).as_bytes());
        self.truth.insert(b"d0/plain".to_vec(), plain.clone());
        self.truth.insert(b"second".to_vec(), plain);
        self.truth.insert(b"link".to_vec(), Thing::Link(b"d0/plain".to_vec()));
        self.truth.insert(b"pipe".to_vec(), Thing::Other(6));
        self.truth.insert(b"d0".to_vec(), Thing::Directory(0o2750));
    }

    /// All that can be read of it now.
    #[must_use]
    pub fn portrait(&self) -> Portrait {
        portrait(&*self.directory())
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &str) {
        let dir = self.directory();
        match path.split_once('/') {
            None => dir.remove_all(path.as_bytes()).unwrap(),
            Some((folder, name)) => dir.open_dir(folder.as_bytes()).unwrap().remove_all(name.as_bytes()).unwrap(),
        }
        self.truth.remove(path.as_bytes());
    }

    /// Changes a few files, as an hour would.
    pub fn live(&mut self, draw: &mut Draw, files: u64, most: u64) {
        for _ in 0..=draw.below(2) {
            let number = draw.below(files);
            let path = format!("d{}/f{number}", number % 2);
            if draw.in_thousand(150) && self.truth.contains_key(path.as_bytes()) {
                self.remove(&path);
            } else {
                let length = draw.magnitude(1, most);
                self.put(&path, draw.below(1 << 40), length as usize);
            }
        }
    }

    /// What is there.
    #[must_use]
    pub fn truth(&self) -> &Tree {
        &self.truth
    }
}

impl Default for Volume {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a directory as it is.
#[must_use]
pub fn look(dir: &dyn Dir) -> Tree {
    let mut out = Tree::new();
    look_below(dir, b"", &mut out);
    out
}

fn look_below(dir: &dyn Dir, at: &[u8], out: &mut Tree) {
    for name in dir.names().unwrap() {
        let stat = dir.stat(&name).unwrap();
        let path = joined(at, &name);
        let thing = match stat.kind {
            Kind::Directory => {
                look_below(&*dir.open_dir(&name).unwrap(), &path, out);
                Thing::Directory(u64::from(stat.mode))
            }
            Kind::File => {
                let mut bytes = vec![0; stat.size_bytes as usize];
                let read = dir.open_file(&name).unwrap().read_at(0, &mut bytes).unwrap();
                assert_eq!(read, bytes.len());
                Thing::File(u64::from(stat.mode), stat.size_bytes, *blake3::hash(&bytes).as_bytes())
            }
            Kind::Symlink => Thing::Link(dir.read_link(&name).unwrap()),
            Kind::BlockDevice => Thing::Other(4),
            Kind::CharDevice => Thing::Other(5),
            Kind::Fifo => Thing::Other(6),
            Kind::Socket => Thing::Other(7),
        };
        out.insert(path, thing);
    }
}

/// The first difference of two trees, in words.
#[must_use]
pub fn difference(wanted: &Tree, found: &Tree) -> Option<String> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for (path, thing) in wanted {
        match found.get(path) {
            None => return Some(format!("not there: {}", text(path))),
            Some(other) if other != thing => return Some(format!("other than it was: {}: {other:?}, not {thing:?}", text(path))),
            Some(_) => {}
        }
    }
    found.keys().find(|path| !wanted.contains_key(*path)).map(|path| format!("never was: {}", text(path)))
}
