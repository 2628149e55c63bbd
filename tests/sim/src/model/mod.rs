//! The protocol of docs/format.md chapter 12 as a model, of which every state is gone through.
//!
//! The rest of the simulator runs the engine and draws what happens; here nothing of the engine runs, and everything happens: writers, readers,
//! prunes, users and the store's faults, one call at a time, in every order, each free to stop for ever. [`scene`] says who meets, `play` and
//! `prune` what can happen next, [`explore()`] goes through it, `finish` sees what each state of the store leaves to those who come later, and
//! [`trial`] takes the rules away one by one. Promises that a rule nobody misses is named with the reason.
//! Does not know bytes, keys, damage or repairs, nor how the engine does what the protocol says: that is for the other rows.

pub mod explore;
pub mod rule;
pub mod scene;
pub mod trial;

mod choose;
mod finish;
mod mark;
mod play;
mod prune;
mod state;
mod tell;

pub use explore::{Explored, explore};
pub use rule::{Kept, Rule};
pub use scene::Scene;
