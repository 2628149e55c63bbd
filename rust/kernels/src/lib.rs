//! The only crate with unsafe code: memory maps now, vector kernels beside their safe twins as they come.
//!
//! Promises a safe face. Knows nothing of repositories.

pub mod map;
