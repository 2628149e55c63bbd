//! Measurements of the engine from the inside.
//!
//! Holds what its programs share: data made from seeds ([`made`]), a volume that is only a rule ([`rule`]) and one that keeps nothing
//! ([`nowhere`]), and the list of what is measured ([`kernels`], [`whole`]). Promises
//! that the same seed gives the same bytes on every machine, so that figures of two commits speak of the same work. The programs:
//! `benches/kernels.rs` times each kernel, `bin/gate.rs` runs one of them once so that its instructions can be counted, `bin/limit.rs`
//! times the stages of a backup alone on real data, `bin/make-data.rs` writes the data of whole measurements, `bin/scale.rs` runs the
//! engine on volumes that exist only as a rule. Does not know other programs, nor how a figure is judged.

pub mod kernels;
pub mod made;
pub mod nowhere;
pub mod rule;
pub mod whole;

/// Why a measurement could not be made.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What a measurement gives, or why not.
pub type Result<T> = std::result::Result<T, Error>;
