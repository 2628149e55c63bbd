//! Files with several names: the first is restored as any file, each other is made as soon as the file is whole.
//!
//! Of a first name only its place is kept, as a row of a table, since nothing says how many names are still to come: about 80 bytes and the
//! name. A later name that comes by before its file is whole waits in a list of [`WAITING_MAX`] at most; when that is full the walk waits
//! for the workers. A name that cannot be linked is restored as a file of its own, and the loss of the link is named. Directories that hold
//! first names get their metadata when all links are made, so that they can be entered until then; those of waiting names, behind them.

use super::Context;
use super::place::Directory;
use crate::volume::{Name, VolumeError, VolumeErrorKind};
use longshore_format::tree::{Entry, Node};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Later names that wait for their file, and what their entries may take.
const WAITING_MAX: usize = 1024;
const WAITING_BYTES_MAX: usize = 4 << 20;

/// The number of a file that has several names, in the order in which the walk met them.
pub(super) type LinkNumber = u32;

/// Which files with several names are whole.
#[derive(Debug, Default)]
pub(super) struct Whole(Mutex<Vec<u64>>);

impl Whole {
    pub fn set(&self, number: LinkNumber) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let word = number as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (number % 64);
    }

    fn has(&self, number: LinkNumber) -> bool {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Where a first name stands: a row of the directories, and where its name begins in all their names.
#[derive(Debug)]
struct FirstName {
    directory: u32,
    name_start: usize,
}

/// A name that is to be linked.
#[derive(Debug)]
pub(super) struct LaterName {
    pub number: LinkNumber,
    pub directory: Arc<Directory>,
    pub entry: Entry,
    pub exists: bool,
}

/// What an entry is among the names of its file.
pub(super) enum Meeting {
    /// It has one name.
    Only,
    /// The first of several.
    First(LinkNumber),
    /// A later one.
    Later(LinkNumber),
}

/// All of them in one restore.
#[derive(Debug, Default)]
pub(super) struct Links {
    numbers: HashMap<(u64, u64), LinkNumber>,
    first: Vec<FirstName>,
    names: Vec<u8>,
    directories: Vec<Arc<Directory>>,
    waiting: Vec<LaterName>,
    waiting_bytes: usize,
}

fn size_bytes(entry: &Entry) -> usize {
    let items = match &entry.node {
        Node::File { content, .. } => std::mem::size_of_val(content.as_slice()),
        Node::Symlink { target } => target.len(),
        _ => 0,
    };
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    size_of::<LaterName>() + entry.name.len() + items + xattrs
}

impl Links {
    /// Looks whether the file of an entry was met before. `row` is that of its directory, once it has one.
    pub fn meet(&mut self, directory: &Arc<Directory>, row: &mut Option<u32>, entry: &Entry) -> Meeting {
        let Some(device) = entry.link_device else { return Meeting::Only };
        let key = (device, entry.inode);
        if let Some(number) = self.numbers.get(&key) {
            return Meeting::Later(*number);
        }
        // Beyond what numbers hold, links come back as files: nobody has memory for so many.
        let (Ok(number), Ok(next)) = (u32::try_from(self.first.len()), u32::try_from(self.directories.len())) else {
            return Meeting::Only;
        };
        let row = *row.get_or_insert_with(|| {
            directory.hold();
            self.directories.push(Arc::clone(directory));
            next
        });
        self.first.push(FirstName { directory: row, name_start: self.names.len() });
        self.names.extend_from_slice(&entry.name);
        self.numbers.insert(key, number);
        Meeting::First(number)
    }

    /// Keeps a later name until its file is whole.
    pub fn wait(&mut self, later: LaterName) {
        later.directory.hold();
        self.waiting_bytes += size_bytes(&later.entry);
        self.waiting.push(later);
    }

    /// Whether no more may wait.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// Whether it is not worth while to go on without waiting.
    pub fn is_half_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX / 2 || self.waiting_bytes >= WAITING_BYTES_MAX / 2
    }

    /// Whether anything waits.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those that wait: of files that are whole, or all. Each holds its directory.
    pub fn take(&mut self, context: &Context, all: bool) -> Vec<LaterName> {
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|later| all || context.linked.has(later.number));
        self.waiting_bytes = left.iter().map(|later| size_bytes(&later.entry)).sum();
        self.waiting = left;
        taken
    }

    /// Whether a later name can be made now.
    pub fn is_due(context: &Context, number: LinkNumber) -> bool {
        context.linked.has(number)
    }

    /// Gives a file its later name.
    pub fn make(&self, context: &Context, later: &LaterName) -> Result<(), VolumeError> {
        let none = VolumeError { kind: VolumeErrorKind::NotFound, call: "link: its first name was not restored", errno: None };
        if !context.linked.has(later.number) {
            return Err(none);
        }
        let (directory, first_name) = self.place(later.number).ok_or(none)?;
        let (source, target) = (directory.open(context)?, later.directory.open(context)?);
        let name = &later.entry.name;
        if !later.exists {
            match source.hard_link(&first_name, &*target, name) {
                Err(error) if error.kind == VolumeErrorKind::Exists => {}
                other => return other,
            }
        }
        let (wanted, there) = (source.stat(&first_name)?, target.stat(name)?);
        if (wanted.device, wanted.inode) == (there.device, there.inode) {
            return Ok(());
        }
        target.remove_all(name)?;
        source.hard_link(&first_name, &*target, name)
    }

    fn place(&self, number: LinkNumber) -> Option<(&Arc<Directory>, Name)> {
        let first = self.first.get(number as usize)?;
        let end = self.first.get(number as usize + 1).map_or(self.names.len(), |next| next.name_start);
        Some((self.directories.get(first.directory as usize)?, self.names.get(first.name_start..end)?.to_vec()))
    }

    /// Lets go of the directories of first names.
    pub fn release(self, context: &Context) {
        for directory in self.directories {
            directory.release(context);
        }
    }
}
