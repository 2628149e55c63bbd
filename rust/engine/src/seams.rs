//! What the engine is handed: clock, randomness and threads.
//!
//! [`World`] bundles them. Production uses the system's; a simulator hands in its own and runs everything on one thread by asking
//! for no workers.

use crate::error::{Error, Result};
use longshore_format::id::{RandomName, SessionId};
pub use longshore_store::{Clock, Rng};
use std::fmt;
use std::sync::Arc;

/// A thread that can be waited for.
pub trait Handle: Send {
    /// Waits for its end; whether it ended without a panic.
    fn join(self: Box<Self>) -> bool;
}

/// Threads, handed in.
pub trait Spawn: Send + Sync + fmt::Debug {
    /// Starts a thread.
    ///
    /// # Errors
    /// When the system has no more of them.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Handle>>;
}

/// The operating system's threads.
#[derive(Debug)]
pub struct SystemSpawn;

struct SystemHandle(std::thread::JoinHandle<()>);

impl Handle for SystemHandle {
    fn join(self: Box<Self>) -> bool {
        self.0.join().is_ok()
    }
}

impl Spawn for SystemSpawn {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Handle>> {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map(|handle| -> Box<dyn Handle> { Box::new(SystemHandle(handle)) })
            .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))
    }
}

/// Everything that is not store or filesystem.
#[derive(Clone, Debug)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Threads.
    pub spawn: Arc<dyn Spawn>,
}

impl World {
    /// The operating system's.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(longshore_store::SystemClock),
            rng: Arc::new(longshore_store::SystemRng),
            spawn: Arc::new(SystemSpawn),
        }
    }

    /// A fresh salt.
    #[must_use]
    pub fn salt(&self) -> [u8; 32] {
        let mut out = [0; 32];
        self.rng.fill(&mut out);
        out
    }

    /// Fresh 16 bytes.
    #[must_use]
    pub fn random16(&self) -> [u8; 16] {
        let mut out = [0; 16];
        self.rng.fill(&mut out);
        out
    }

    /// A fresh session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId(self.random16())
    }

    /// A fresh name.
    #[must_use]
    pub fn name(&self) -> RandomName {
        RandomName(self.random16())
    }
}
