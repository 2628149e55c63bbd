//! The data path: where format and store meet.

pub mod volume;
