//! The only crate with unsafe code: memory maps, vector kernels, each beside a safe twin that it must equal, and one system call that
//! no library wraps.
//!
//! Promises a safe face. Knows nothing of repositories.

pub mod ioprio;
pub mod map;
pub mod sieve;
pub mod xattr;
