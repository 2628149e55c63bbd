//! The data path: where format and store meet.
//!
//! Arrows in here point down only: `repair → check`; `backup, restore, check, prune → statcache, journal, packer → repository → job → error`; `chunker`, `priority`, `system`
//! and `volume` are leaves.
//! Clock, randomness, filesystem, store and threads are handed in ([`seams::World`], [`volume::Fs`], `Store`).

pub mod backup;
pub mod browse;
pub mod check;
pub mod chunker;
pub mod error;
pub mod job;
mod journal;
pub mod packer;
pub mod priority;
pub mod prune;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod running;
pub mod seams;
mod statcache;
mod system;
pub mod volume;

pub use error::{Error, ErrorKind, Result};
