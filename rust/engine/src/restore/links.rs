//! Files with several names: the first is restored as any file, the others are made when everything else is there.
//!
//! A name that cannot be linked is restored as a file of its own, and the loss of the link is named. Directories that hold such
//! names get their metadata afterwards, since making a name moves their modification time. Memory grows with the number of linked
//! names, and with nothing else.

use super::Context;
use super::file::{self, FileWork, Task};
use super::place::Directory;
use super::tally::LossKind;
use super::walk;
use crate::error::{Error, Result};
use crate::volume::{Name, VolumeError, VolumeErrorKind};
use longshore_format::tree::{Entry, Node};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The first name of a file that has several.
#[derive(Debug)]
pub(super) struct FirstName {
    directory: Arc<Directory>,
    name: Name,
    /// Set when the file is whole under this name.
    pub done: AtomicBool,
}

#[derive(Debug)]
struct LaterName {
    directory: Arc<Directory>,
    entry: Entry,
    exists: bool,
}

/// All of them in one restore.
#[derive(Debug, Default)]
pub(super) struct Links {
    first: HashMap<(u64, u64), Arc<FirstName>>,
    later: Vec<LaterName>,
}

impl Links {
    /// `None`: the entry has one name. `Some(Some(_))`: this is the first of several. `Some(None)`: a later one.
    pub fn meet(&mut self, directory: &Arc<Directory>, entry: &Entry) -> Option<Option<Arc<FirstName>>> {
        let key = (entry.link_device?, entry.inode);
        if self.first.contains_key(&key) {
            return Some(None);
        }
        let first =
            Arc::new(FirstName { directory: Arc::clone(directory), name: entry.name.clone(), done: AtomicBool::new(false) });
        directory.hold();
        self.first.insert(key, Arc::clone(&first));
        Some(Some(first))
    }

    /// Keeps a later name for the end.
    #[allow(clippy::unnecessary_wraps, reason = "the walk returns what this returns")]
    pub fn defer(&mut self, context: &Context, directory: &Arc<Directory>, entry: Entry, exists: bool) -> Result<()> {
        directory.hold();
        if let Node::File { size_bytes, .. } = entry.node {
            context.job.files_found.fetch_add(1, Relaxed);
            context.job.bytes_found.fetch_add(size_bytes, Relaxed);
        }
        self.later.push(LaterName { directory: Arc::clone(directory), entry, exists });
        Ok(())
    }

    /// Makes all later names.
    pub fn make(self, context: &Arc<Context>) -> Result<()> {
        for later in self.later {
            context.check()?;
            let key = (later.entry.link_device.unwrap_or(0), later.entry.inode);
            let linked = match self.first.get(&key) {
                Some(first) if first.done.load(Relaxed) => link(context, first, &later),
                _ => Err(VolumeError {
                    kind: VolumeErrorKind::NotFound,
                    call: "link: its first name was not restored",
                    errno: None,
                }),
            };
            let LaterName { directory, entry, exists } = later;
            match linked {
                Ok(()) => {
                    if let Node::File { size_bytes, .. } = entry.node {
                        file::count_done(context, size_bytes);
                    } else {
                        context.tally.others.fetch_add(1, Relaxed);
                    }
                }
                Err(error) if error.kind == VolumeErrorKind::NoSpace => {
                    let path = String::from_utf8_lossy(&directory.path(&entry.name)).into_owned();
                    return Err(Error::from(error).while_doing(path));
                }
                Err(error) => {
                    context.tally.lose(LossKind::Attribute, || directory.path(&entry.name), format!("hard link: {error}"));
                    let work = FileWork { entry, exists, link: None, pieces: None };
                    if matches!(work.entry.node, Node::File { .. }) {
                        directory.hold();
                        let groups = vec![(Arc::clone(&directory), vec![work])];
                        file::work(context, Task::Batch { groups, underway: None })?;
                    } else {
                        walk::other(context, &directory, &work)?;
                    }
                }
            }
            directory.release(context);
        }
        for first in self.first.into_values() {
            first.directory.release(context);
        }
        Ok(())
    }
}

fn link(context: &Context, first: &FirstName, later: &LaterName) -> std::result::Result<(), VolumeError> {
    let (source, target) = (first.directory.open(context)?, later.directory.open(context)?);
    let name = &later.entry.name;
    if !later.exists {
        match source.hard_link(&first.name, &*target, name) {
            Err(error) if error.kind == VolumeErrorKind::Exists => {}
            other => return other,
        }
    }
    let (wanted, there) = (source.stat(&first.name)?, target.stat(name)?);
    if (wanted.device, wanted.inode) == (there.device, there.inode) {
        return Ok(());
    }
    target.remove_all(name)?;
    source.hard_link(&first.name, &*target, name)
}
