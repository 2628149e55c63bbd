//! Real processes on real folders, killed by the kernel.
//!
//! What the rest of the simulator makes up is real here: files, locks, threads and SIGKILL. `victim` (`src/bin/victim.rs`) is a whole
//! process that does one [`jobs::Task`] on a [`place::Place`]; [`strace`] kills it at a call that a seed chooses; [`watched`] kills it when it has moved so many bytes; [`ledger`] shows
//! what is left in the folder to the oracle. [`kill`] and [`resume`] are rows of the table. A seed chooses the call, and the kernel what other threads had done by then.

#![expect(clippy::disallowed_methods, reason = "real files are made and looked at by other hands than the engine's")]

pub mod jobs;
pub mod kill;
pub mod ledger;
pub mod place;
pub mod resume;
pub mod scene;
pub mod strace;
pub mod watched;
