//! A disk that loses power: what a folder may hold afterwards, given what was asked of it before.
//!
//! Promised by a sync of a file: its bytes. Promised by a sync of a directory: the names in it, and the going of names, up to then. Nothing
//! else is: bytes that were not synced may be there, in part, as zeros or not at all; names may have come or gone in any
//! order, each for itself. That is less than any common filesystem keeps. A folder whose own name was not synced goes with all in it.

use crate::draw::Draw;
use crate::trace::Op;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
enum Target {
    Directory,
    File(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// What it held when it was synced.
    synced: Vec<u8>,
    /// How long it ever was since.
    longest: usize,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    /// Names that came, or went, in order.
    changes: Vec<(String, Option<Target>)>,
    synced: usize,
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    All,
    /// Nothing is.
    Nothing,
    /// Each thing for itself, as a seed decides.
    Some(u64),
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Disk {
    files: Vec<File>,
    open: BTreeMap<String, usize>,
    directories: BTreeMap<String, Directory>,
}

impl Default for Disk {
    fn default() -> Self {
        let directories = BTreeMap::from([(String::new(), Directory::default())]);
        Self { files: vec![], open: BTreeMap::new(), directories }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Disk {
    fn change(&mut self, path: &str, to: Option<Target>) {
        let (folder, name) = split(path);
        self.directories.entry(folder.to_owned()).or_default().changes.push((name.to_owned(), to));
    }

    /// Does what was asked.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MakeDir(path) => {
                self.directories.insert(path.clone(), Directory::default());
                self.change(path, Some(Target::Directory));
            }
            Op::Create(path) => {
                self.files.push(File::default());
                self.open.insert(path.clone(), self.files.len() - 1);
                self.change(path, Some(Target::File(self.files.len() - 1)));
            }
            Op::Write(path, bytes) => {
                if let Some(file) = self.open.get(path) {
                    self.files[*file].bytes.extend(bytes);
                }
            }
            Op::WriteAt(path, offset, bytes) => {
                if let Some(file) = self.open.get(path) {
                    let (file, from) = (&mut self.files[*file], *offset as usize);
                    file.bytes.resize(file.bytes.len().max(from + bytes.len()), 0);
                    file.bytes[from..from + bytes.len()].copy_from_slice(bytes);
                    file.longest = file.longest.max(file.bytes.len());
                }
            }
            Op::Truncate(path, length) => {
                if let Some(file) = self.open.get(path) {
                    self.files[*file].bytes.resize(*length as usize, 0);
                }
            }
            Op::Sync(path) => {
                if let Some(directory) = self.directories.get_mut(path) {
                    directory.synced = directory.changes.len();
                } else if let Some(file) = self.open.get(path) {
                    let file = &mut self.files[*file];
                    (file.synced, file.longest) = (file.bytes.clone(), file.bytes.len());
                }
            }
            Op::Link(from, to) => {
                if let Some(file) = self.open.get(from).copied() {
                    self.change(to, Some(Target::File(file)));
                }
            }
            Op::Unlink(path) => self.change(path, None),
            Op::Say(_) => {}
        }
    }

    /// The files that a power cut leaves, by path, with the folders.
    #[must_use]
    pub fn cut(&self, loss: Loss) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
        let mut draw = Draw::new(if let Loss::Some(seed) = loss { seed } else { 0 }, 0xd15c);
        let stays = |draw: &mut Draw| match loss {
            Loss::All => false,
            Loss::Nothing => true,
            Loss::Some(_) => draw.in_thousand(500),
        };
        let mut bytes: Vec<Option<Vec<u8>>> = vec![None; self.files.len()];
        let (mut out, mut folders, mut todo) = (BTreeMap::new(), vec![], vec![String::new()]);
        while let Some(folder) = todo.pop() {
            let Some(directory) = self.directories.get(&folder) else { continue };
            let mut names: BTreeMap<&str, Target> = BTreeMap::new();
            for (number, (name, to)) in directory.changes.iter().enumerate() {
                if number >= directory.synced && !stays(&mut draw) {
                    continue;
                }
                match to {
                    Some(target) => names.insert(name, *target),
                    None => names.remove(name.as_str()),
                };
            }
            for (name, target) in names {
                let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                match target {
                    Target::Directory => {
                        folders.push(path.clone());
                        todo.push(path);
                    }
                    Target::File(file) => {
                        let content = bytes[file].get_or_insert_with(|| left(&self.files[file], loss, &mut draw));
                        out.insert(path, content.clone());
                    }
                }
            }
        }
        (out, folders)
    }
}

/// What is left of a file: what was synced, and of the rest a part, zeros, or nothing; or a length that it had before it was cut.
fn left(file: &File, loss: Loss, draw: &mut Draw) -> Vec<u8> {
    let (mut bytes, synced) = (file.bytes.clone(), file.synced.len());
    if bytes == file.synced && file.longest <= bytes.len() || loss == Loss::Nothing {
        return bytes;
    }
    match if loss == Loss::All { 0 } else { draw.below(5) } {
        0 => bytes.clone_from(&file.synced),
        1 => bytes.truncate(synced + draw.below((bytes.len().saturating_sub(synced)).max(1) as u64) as usize),
        2 => bytes.iter_mut().skip(synced).for_each(|byte| *byte = 0),
        3 => bytes.resize(bytes.len().max(file.longest), 0),
        _ => {}
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_was_cut_and_bytes_at_a_place_are_sure_when_synced() {
        let mut disk = Disk::default();
        let ops = [
            Op::Create("t".into()),
            Op::Sync(String::new()),
            Op::WriteAt("t".into(), 2, b"cd".to_vec()),
            Op::WriteAt("t".into(), 0, b"ab".to_vec()),
            Op::Sync("t".into()),
            Op::WriteAt("t".into(), 4, b"efgh".to_vec()),
            Op::Truncate("t".into(), 3),
        ];
        ops.iter().for_each(|op| disk.apply(op));
        assert_eq!(disk.cut(Loss::Nothing).0["t"], b"abc");
        assert_eq!(disk.cut(Loss::All).0["t"], b"abcd");
        let left: std::collections::BTreeSet<_> = (0..200).map(|seed| disk.cut(Loss::Some(seed)).0["t"].clone()).collect();
        assert!(left.contains(b"abc\0\0\0\0\0".as_slice()), "the length of before it was cut: {left:?}");
        disk.apply(&Op::Sync("t".into()));
        assert_eq!(disk.cut(Loss::All).0["t"], b"abc");
    }

    #[test]
    fn only_what_was_synced_is_sure() {
        let mut disk = Disk::default();
        let ops = [
            Op::MakeDir("d".into()),
            Op::Sync(String::new()),
            Op::Create("t".into()),
            Op::Write("t".into(), b"abc".to_vec()),
            Op::Sync("t".into()),
            Op::Write("t".into(), b"def".to_vec()),
            Op::Link("t".into(), "d/o".into()),
        ];
        ops.iter().for_each(|op| disk.apply(op));
        assert_eq!(disk.cut(Loss::All), (BTreeMap::new(), vec!["d".to_owned()]));
        assert_eq!(disk.cut(Loss::Nothing).0["d/o"], b"abcdef");
        disk.apply(&Op::Sync("d".into()));
        disk.apply(&Op::Unlink("d/o".into()));
        assert_eq!(disk.cut(Loss::All).0["d/o"], b"abc");
        assert!(!disk.cut(Loss::Nothing).0.contains_key("d/o"));
        let left: std::collections::BTreeSet<_> = (0..200).map(|seed| disk.cut(Loss::Some(seed)).0.get("d/o").cloned()).collect();
        assert!(left.contains(&None) && left.contains(&Some(b"abc\0\0\0".to_vec())) && !left.contains(&Some(b"ab".to_vec())));
    }
}
