//! Makes what was written durable while the rest is written.
//!
//! Without this a restore leaves all its writing to the disk for the end, where nothing else is left to do. A thread asks the filesystem
//! each time so much more was written, [`FLUSH_BYTES`] by default. Promises nothing by itself: the end asks once more. What fails here ends the job, because the
//! kernel tells of a lost page once. Knows nothing of files.

use super::Context;
use crate::error::Error;
use crate::seams::Handle;
use crate::volume::{Dir, VolumeError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes written between two calls: enough that the filesystem's journal ends few transactions more, and a tenth of a second's work of a disk.
pub(super) const FLUSH_BYTES: u64 = 256 << 20;

#[derive(Debug, Default)]
struct State {
    written_bytes: u64,
    due: bool,
    ended: bool,
}

/// What the writers tell the thread.
#[derive(Debug, Default)]
pub(super) struct Written {
    state: Mutex<State>,
    changed: Condvar,
}

impl Written {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more was written.
    pub fn add(&self, bytes: u64, flush_bytes: u64) {
        let mut state = self.state();
        state.written_bytes += bytes;
        if state.written_bytes >= flush_bytes {
            (state.written_bytes, state.due) = (0, true);
            self.changed.notify_one();
        }
    }

    /// Waits until a call is due; false at the end.
    fn wait(&self) -> bool {
        let mut state = self.state();
        while !state.due && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.due = false;
        !state.ended
    }
}

/// The thread, until it is dropped.
pub(super) struct Flushing<'a> {
    context: &'a Context,
    handle: Option<Box<dyn Handle>>,
}

impl<'a> Flushing<'a> {
    /// Starts it, where a restore has threads and is to be durable at its end.
    pub fn start(context: &'a Arc<Context>, root: &Arc<dyn Dir>) -> Self {
        if context.options.workers == 0 || !context.options.sync {
            return Self { context, handle: None };
        }
        let (shared, root) = (Arc::clone(context), Arc::clone(root));
        let body = Box::new(move || {
            while shared.written.wait() {
                if let Err(error) = root.sync_filesystem() {
                    shared.fail(not_durable(error));
                    return;
                }
            }
        });
        let handle = context.reader.repository().world.spawn.spawn("restore-flush", body);
        if let Err(error) = &handle {
            tracing::warn!(error = %error, "Everything is made durable at the end");
        }
        Self { context, handle: handle.ok() }
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.context.written.state().ended = true;
        self.context.written.changed.notify_one();
        if let Some(handle) = self.handle.take() {
            handle.join();
        }
    }
}

/// What is told when the filesystem refuses.
pub(super) fn not_durable(error: VolumeError) -> Error {
    Error::from(error).while_doing("make the restored files durable")
}
