//! Directories of the target while a restore is in them.
//!
//! A [`Directory`] counts what is still to be done in it and gets its metadata when that is nothing, children before parents. Its
//! descriptor may be closed at any time and is opened again from the nearest open ancestor, so a chain of any depth needs a bounded
//! number of them. No recursion over depth, not even in drop.

use super::Context;
use super::tally::{LossKind, with_mode};
use crate::volume::{Dir, Kind, Loss, Metadata, Name, VolumeError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Directories kept open; beyond, those far from the work are closed.
pub(super) const OPEN_DIRECTORIES_MAX: usize = 256;
/// How many of a chain that is opened again stay open: the walk comes back through them next.
const REOPENED_KEPT: usize = 64;

/// A directory in the target.
#[derive(Debug)]
pub(super) struct Directory {
    parent: Option<Arc<Directory>>,
    name: Name,
    slot: Mutex<Option<Arc<dyn Dir>>>,
    metadata: Option<Metadata>,
    pending: AtomicUsize,
}

impl Drop for Directory {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut last| last.parent.take());
        }
    }
}

impl Directory {
    pub fn root(dir: Arc<dyn Dir>, metadata: Option<Metadata>) -> Arc<Self> {
        Arc::new(Self { parent: None, name: Vec::new(), slot: Mutex::new(Some(dir)), metadata, pending: AtomicUsize::new(1) })
    }

    /// A child that was just opened; counts as pending in its parent until it is complete itself.
    pub fn child(context: &Context, parent: &Arc<Self>, name: Name, dir: Arc<dyn Dir>, metadata: Metadata) -> Arc<Self> {
        parent.hold();
        context.open_directories.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            parent: Some(Arc::clone(parent)),
            name,
            slot: Mutex::new(Some(dir)),
            metadata: Some(metadata),
            pending: AtomicUsize::new(1),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<dyn Dir>>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more thing is to be done in it.
    pub fn hold(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Closes its descriptor; the root's stays.
    pub fn close(&self, context: &Context) {
        if self.parent.is_some() && self.slot().take().is_some() {
            context.open_directories.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Path of an entry in it, from the target.
    pub fn path(&self, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&at.name);
            at = parent;
        }
        names.retain(|n| !n.is_empty());
        names.reverse();
        names.join(&b'/')
    }

    /// Its open descriptor.
    pub fn open(self: &Arc<Self>, context: &Context) -> Result<Arc<dyn Dir>, VolumeError> {
        if let Some(dir) = &*self.slot() {
            return Ok(Arc::clone(dir));
        }
        let mut chain = vec![self];
        let mut dir = loop {
            let Some(parent) = chain.last().and_then(|at| at.parent.as_ref()) else {
                // The root is never closed.
                return Err(VolumeError { kind: crate::volume::VolumeErrorKind::Io, call: "open root", errno: None });
            };
            if let Some(dir) = &*parent.slot() {
                break Arc::clone(dir);
            }
            chain.push(parent);
        };
        while let Some(at) = chain.pop() {
            dir = Arc::from(dir.open_dir(&at.name)?);
            let room = context.open_directories.load(Ordering::Relaxed) < OPEN_DIRECTORIES_MAX;
            if room && chain.len() < REOPENED_KEPT && at.slot().replace(Arc::clone(&dir)).is_none() {
                context.open_directories.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(dir)
    }

    /// One thing less is to be done. Who brings it to nothing gives the directory its metadata, and so on upwards.
    pub fn release(self: &Arc<Self>, context: &Context) {
        let mut at = self;
        while at.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            at.finish(context);
            match &at.parent {
                Some(parent) => at = parent,
                None => return,
            }
        }
    }

    fn finish(self: &Arc<Self>, context: &Context) {
        if let Some(metadata) = &self.metadata {
            let (allowed, dropped) = context.options.policy.filter(metadata, Kind::Directory);
            name_losses(context, self, b"", LossKind::Dropped, dropped);
            match self.open(context).and_then(|dir| dir.set_metadata_self(&allowed)) {
                Ok(losses) => name_losses(context, self, b"", LossKind::Attribute, losses),
                Err(error) => context.tally.lose(LossKind::Attribute, || self.path(b""), error.to_string()),
            }
        }
        self.close(context);
    }
}

/// Counts and names what an entry did not get.
pub(super) fn name_losses(context: &Context, directory: &Directory, name: &[u8], kind: LossKind, losses: Vec<Loss>) {
    for loss in losses {
        context.tally.lose(kind, || directory.path(name), format!("{}: {}", loss.what, loss.why));
    }
}

/// Lets us work in a directory that was there before; its true mode comes at the end. Refusals show at the first entry.
pub(super) fn make_writable(dir: &dyn Dir) {
    if let Ok(stat) = dir.stat_self()
        && stat.mode & 0o700 != 0o700
        && let Ok(xattrs) = dir.xattrs_self()
    {
        let _ = dir.set_metadata_self(&with_mode(&stat, stat.mode | 0o700, xattrs));
    }
}
