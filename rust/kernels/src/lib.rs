//! The only crate with unsafe code: memory maps and vector kernels, each kernel beside a safe twin that it must equal.
//!
//! Promises a safe face. Knows nothing of repositories.

pub mod map;
pub mod sieve;
pub mod xattr;
