//! What all stores of a process share, so that its jobs together leave room to others: bytes a second up and down, requests at once.
//!
//! Holds [`Limits`], which makes the layers. Promises that a change holds for requests under way and those who wait, and that zero is
//! no limit. Where the layers stand among the others says [`super`]. Does not know which stores there are, or who asks.

use super::{Limit, Permits, Rate, Throttle};
use crate::{Clock, Store};
use std::sync::Arc;

/// Limits that all stores share which were given this or a clone of it.
#[derive(Clone, Debug)]
pub struct Limits {
    up: Arc<Rate>,
    down: Arc<Rate>,
    requests: Arc<Permits>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { up: Rate::new(0), down: Rate::new(0), requests: Permits::new(usize::MAX) }
    }
}

impl Limits {
    /// Bytes a second that all together may send and fetch from now on.
    pub fn set_traffic(&self, up_bytes_per_second: u64, down_bytes_per_second: u64) {
        self.up.set(up_bytes_per_second);
        self.down.set(down_bytes_per_second);
    }

    /// Requests that all together may have under way at once from now on.
    pub fn set_requests(&self, at_once: usize) {
        self.requests.set_max(if at_once == 0 { usize::MAX } else { at_once });
    }

    /// The layer that bounds requests.
    #[must_use]
    pub fn of_requests<S: Store>(&self, store: S) -> Limit<S> {
        Limit::new(store, Arc::clone(&self.requests))
    }

    /// The layer that bounds traffic. All stores that share it have the same clock.
    #[must_use]
    pub fn of_traffic<S: Store>(&self, store: S, clock: Arc<dyn Clock>) -> Throttle<S> {
        Throttle::new(store, Arc::clone(&self.up), Arc::clone(&self.down), clock)
    }
}
