//! The simulator: the whole engine under a seed, on a stage where time, chance, disk and store are made up and break on purpose.
//!
//! Backups, prunes, restores, checks and deletions are the engine's own; only what it is handed is ours: [`stage`] (time and turns),
//! [`sea`] and [`link`] (the store and each process's way to it), [`volume`] (what is backed up). [`oracle`] knows what was acknowledged and
//! looks at every object that appears or goes; it shares no code with the engine. Every run is a function of its seed: the same
//! seed gives the same calls in the same order, and a seed that fails is kept in `seeds.txt` for ever.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a simulator that cannot go on stops loudly: its panics are failures of a test, never of a backup"
)]

pub mod age;
pub mod crash;
pub mod disk;
pub mod draw;
pub mod link;
pub mod making;
pub mod model;
pub mod museum;
pub mod oracle;
pub mod portrait;
pub mod power;
pub mod process;
pub mod real;
pub mod relic;
pub mod repair;
pub mod roles;
pub mod rot;
pub mod rows;
pub mod scene;
pub mod schedule;
pub mod sea;
pub mod stage;
pub mod trace;
pub mod volume;
