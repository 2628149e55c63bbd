//! Listings of a folder, page by page.
//!
//! Promises byte order of whole keys, although directories sort their names: a directory counts as its name and a slash. Each
//! page reads the directories on its way again and keeps at most `limit + 1` names of each, so memory follows the page, not the
//! folder; time is (names in the folder / limit) × names, so ask for pages of thousands. Every directory that a page shows is synced
//! first: what a listing shows will still be there after a power loss.

use super::errno::no_sync_needed;
use super::{LocalStore, dir, errno};
use crate::{Entry, Key, Page, Rng, StoreError, StoreErrorKind, SystemRng};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;

struct Walk<'a> {
    store: &'a LocalStore,
    prefix: &'a str,
    after: Option<&'a str>,
    /// One more than asked for: to know whether there is more.
    wanted: usize,
    entries: Vec<Entry>,
}

pub(super) fn list(store: &LocalStore, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
    Key::check_prefix(prefix)?;
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut walk = Walk { store, prefix, after: after.map(Key::as_str), wanted: limit.saturating_add(1), entries: Vec::new() };
    let fd = match dir::descend(store.root.as_fd(), folder) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Page::default()),
        Err(e) => return Err(walk.failed(folder, e)),
    };
    let at = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    walk.directory(fd, &at)?;
    let more = walk.entries.len() > limit;
    walk.entries.truncate(limit);
    Ok(Page { entries: walk.entries, more })
}

impl Walk<'_> {
    /// Adds what lies below `at` (empty, or ending in a slash).
    fn directory(&mut self, fd: OwnedFd, at: &str) -> Result<(), StoreError> {
        self.refresh(&fd, at)?;
        let mut floor: Option<String> = None;
        loop {
            let (names, all) = self.names(&fd, at, floor.as_deref())?;
            floor = names.last().cloned();
            for name in names {
                if self.entries.len() >= self.wanted {
                    return Ok(());
                }
                let local = &name[at.len()..];
                if let Some(folder) = local.strip_suffix('/') {
                    match dir::step(fd.as_fd(), folder) {
                        Ok(below) => self.directory(below, &name)?,
                        Err(Errno::NOENT | Errno::NOTDIR) => {}
                        Err(e) => return Err(self.failed(&name, e)),
                    }
                } else {
                    self.file(&fd, local, &name)?;
                }
            }
            if all {
                return Ok(());
            }
        }
    }

    fn file(&mut self, fd: &OwnedFd, local: &str, name: &str) -> Result<(), StoreError> {
        match rustix::fs::statat(fd, local, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                let key = Key::new(name)?;
                self.entries.push(Entry { key, size_bytes: u64::try_from(stat.st_size).unwrap_or(0) });
                Ok(())
            }
            // Something else, or deleted meanwhile.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed(name, e)),
        }
    }

    /// The first `wanted` names after `floor`, whole keys, directories with a slash; and whether that is all.
    fn names(&self, fd: &OwnedFd, at: &str, floor: Option<&str>) -> Result<(Vec<String>, bool), StoreError> {
        let mut first: BinaryHeap<String> = BinaryHeap::new();
        let mut all = true;
        for entry in Dir::read_from(fd).map_err(|e| self.failed(at, e))? {
            let entry = entry.map_err(|e| self.failed(at, e))?;
            let Ok(local) = entry.file_name().to_str() else { continue };
            let mut name = format!("{at}{local}");
            // Not a key: `.`, `..`, `.tmp`, or a stranger's file.
            if local.starts_with('.') || Key::new(name.as_str()).is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(fd, local, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                known => known,
            };
            match kind {
                FileType::Directory => name.push('/'),
                FileType::RegularFile => {}
                _ => continue,
            }
            if !self.concerns(&name) || floor.is_some_and(|floor| name.as_str() <= floor) {
                continue;
            }
            first.push(name);
            if first.len() > self.wanted {
                first.pop();
                all = false;
            }
        }
        Ok((first.into_sorted_vec(), all))
    }

    /// Whether `name`, or some key below it when it is a directory, begins with the prefix and lies after `after`.
    fn concerns(&self, name: &str) -> bool {
        let folder = name.ends_with('/');
        let prefix = name.starts_with(self.prefix) || (folder && self.prefix.starts_with(name));
        prefix && self.after.is_none_or(|after| name > after || (folder && after.starts_with(name)))
    }

    /// Makes names durable, and on a network filesystem makes the client ask the server again.
    fn refresh(&self, fd: &OwnedFd, at: &str) -> Result<(), StoreError> {
        if self.store.settings.read_only {
            return Ok(());
        }
        if self.store.network {
            // An entry made and removed changes the directory, so no client may answer the reading below from its cache.
            let mut random = [0_u8; 8];
            SystemRng.fill(&mut random);
            let name = format!(".list-{:016x}", u64::from_le_bytes(random));
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(fd, name.as_str(), flags, Mode::RUSR | Mode::WUSR)
                .and_then(|_| rustix::fs::unlinkat(fd, name.as_str(), AtFlags::empty()));
            match made {
                // A reader without the right to write takes the listing as it is; whoever deletes has that right.
                Ok(()) | Err(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::NOSPC | Errno::DQUOT) => {}
                Err(e) => return Err(self.failed(at, e)),
            }
        }
        match (self.store.calls.sync)(fd.as_fd()) {
            Ok(()) | Err(Errno::ROFS) => Ok(()),
            Err(e) if no_sync_needed(e) => Ok(()),
            Err(e) => {
                // The kernel tells of a lost write once; were it forgotten here, the next put would believe its own sync.
                self.store.distrusted.store(true, Ordering::SeqCst);
                Err(self.failed(at, e))
            }
        }
    }

    fn failed(&self, at: &str, e: Errno) -> StoreError {
        // A listing that fails must never read as an empty one, so an absent file on the way is no "not found".
        let kind = match errno::kind(e) {
            StoreErrorKind::NotFound => StoreErrorKind::Io,
            kind => kind,
        };
        StoreError::new(kind, format!("cannot list a folder: folder={}/{at}", self.store.path.display())).with_source(e)
    }
}
