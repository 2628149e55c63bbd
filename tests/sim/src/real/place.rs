//! A folder of real files: a repository, a cache, volumes, what was restored; and how two directories are compared.
//!
//! Reads and compares with nothing of the engine. Knows no jobs.

use crate::draw::Draw;
use crate::volume::{Thing, Tree, content, difference};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Where the parts of a trial lie.
#[derive(Clone, Debug)]
pub struct Place(pub PathBuf);

impl Place {
    /// The repository's folder.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.0.join("repository")
    }

    /// The cache's folder.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// Where a restore goes.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.0.join("target")
    }
}

/// A folder in memory where there is one: nothing here asks whether a disk keeps its word, and a trial takes milliseconds.
///
/// # Panics
/// When no folder can be made.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for trials can be made")
}

/// Copies a directory with all below it: content and modes, links as links.
///
/// # Errors
/// As the filesystem.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&old, &new)?;
        } else if kind.is_symlink() {
            symlink(std::fs::read_link(&old)?, &new)?;
        } else {
            std::fs::copy(&old, &new)?;
        }
    }
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())
}

/// Owner, time of change in nanoseconds and number of names of what lies at a path.
type Facts = (u32, u32, i128, u64);

/// A directory as it was at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Kinds, modes, contents.
    pub tree: Tree,
    facts: BTreeMap<Vec<u8>, Facts>,
}

impl Sight {
    /// Looks.
    ///
    /// # Errors
    /// As the filesystem.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let mut sight = Self::default();
        sight.look(directory, b"")?;
        Ok(sight)
    }

    fn look(&mut self, directory: &Path, at: &[u8]) -> io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let (path, stat) = (entry.path(), entry.metadata()?);
            let name = entry.file_name();
            let key = if at.is_empty() { name.as_bytes().to_vec() } else { [at, b"/", name.as_bytes()].concat() };
            let mode = u64::from(stat.mode() & 0o7777);
            let thing = if stat.is_dir() {
                self.look(&path, &key)?;
                Thing::Directory(mode)
            } else if stat.is_symlink() {
                Thing::Link(std::fs::read_link(&path)?.as_os_str().as_bytes().to_vec())
            } else {
                let bytes = std::fs::read(&path)?;
                Thing::File(mode, bytes.len() as u64, *blake3::hash(&bytes).as_bytes())
            };
            let names = if stat.is_dir() { 0 } else { stat.nlink() };
            let changed = i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec());
            self.facts.insert(key.clone(), (stat.uid(), stat.gid(), changed, names));
            self.tree.insert(key, thing);
        }
        Ok(())
    }

    /// Lengths of all files, under each name that they have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tree.values().map(|thing| if let Thing::File(_, length, _) = thing { *length } else { 0 }).sum()
    }

    /// The first difference of a restored directory, in words.
    #[must_use]
    pub fn difference(&self, found: &Self) -> Option<String> {
        difference(&self.tree, &found.tree).or_else(|| {
            let other = self.facts.iter().find(|(path, facts)| found.facts.get(*path) != Some(facts));
            other.map(|(path, facts)| {
                let path_text = String::from_utf8_lossy(path);
                format!("owner, time or names other than they were: {path_text}: {:?}, not {facts:?}", found.facts.get(path))
            })
        })
    }
}

/// Writes files below a directory: `small` of them of up to 40 KB, with a link, a second name and an empty directory, and one of `large_bytes`.
///
/// # Errors
/// As the filesystem.
pub fn fill(directory: &Path, draw: &mut Draw, small: u64, large_bytes: usize) -> io::Result<()> {
    for folder in ["a", "b/deep", "empty"] {
        std::fs::create_dir_all(directory.join(folder))?;
    }
    for number in 0..small {
        let folder = draw.one_of(&["", "a", "b", "b/deep"]);
        let bytes = content(draw.below(1 << 40), draw.magnitude(1, 40_000) as usize);
        std::fs::write(directory.join(folder).join(format!("f{number}")), bytes)?;
    }
    if large_bytes > 0 {
        std::fs::write(directory.join("large"), content(1 + 3 * draw.below(1 << 40), large_bytes))?;
    }
    symlink("a/../b", directory.join("link"))?;
    std::fs::write(directory.join("a/twice"), content(draw.below(1 << 40), 500))?;
    std::fs::hard_link(directory.join("a/twice"), directory.join("b/again"))
}

/// Changes what [`fill`] wrote, as a day would: some files are other, one is gone, one is new, the large one differs in its middle.
///
/// # Errors
/// As the filesystem.
pub fn live(directory: &Path, draw: &mut Draw) -> io::Result<()> {
    for folder in ["", "a", "b", "b/deep"] {
        let mut names: Vec<PathBuf> = std::fs::read_dir(directory.join(folder))?
            .map(|entry| entry.map(|entry| entry.path()))
            .filter(|path| path.as_ref().is_ok_and(|p| p.file_name().is_some_and(|n| n.as_bytes().starts_with(b"f"))))
            .collect::<io::Result<_>>()?;
        names.sort();
        for path in names {
            match draw.below(6) {
                0 => std::fs::remove_file(&path)?,
                1 | 2 => std::fs::write(&path, content(draw.below(1 << 40), draw.magnitude(1, 40_000) as usize))?,
                _ => {}
            }
        }
    }
    std::fs::write(directory.join(format!("f-new-{}", draw.below(1000))), content(draw.below(1 << 40), 3000))?;
    let large = directory.join("large");
    if large.exists() {
        let mut bytes = std::fs::read(&large)?;
        let at = draw.below(bytes.len() as u64 / 2) as usize;
        let other = content(1 + 3 * draw.below(1 << 40), 300_000.min(bytes.len() / 2));
        bytes[at..at + other.len()].copy_from_slice(&other);
        std::fs::write(large, bytes)?;
    }
    Ok(())
}

/// Names below a directory that begin with a dot: what is written before it gets its name.
///
/// # Errors
/// As the filesystem.
pub fn unfinished(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut out = vec![];
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            out.extend(unfinished(&entry.path())?);
        } else if entry.file_name().as_bytes().starts_with(b".") || directory.file_name() == Some(OsStr::new(".tmp")) {
            out.push(entry.path());
        }
    }
    Ok(out)
}
