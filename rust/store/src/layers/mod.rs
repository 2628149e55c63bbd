//! Layers: each wraps a store, adds one thing, and keeps every promise of [`Store`](crate::Store).
//!
//! The usual order, from the engine outwards: [`Throttle`] over [`Retry`] over [`Limit`] over [`Count`] over the store; so what is
//! counted is what was really asked of the store, a request that waits to be retried holds no permit, and waiting for one's turn under a
//! low rate uses up no budget of retries: eight packs of 16 MiB that share 100 KB/s wait twenty minutes. A try again is not paid for.
//! Two [`Limit`]s stand there, one above the other: [`Limits`] bounds all stores together, the one below adapts to one bucket.

mod count;
mod fault;
mod limit;
mod limits;
mod read_only;
mod retry;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_pressure;
mod throttle;

pub use count::{Count, Counts, VerbCounts};
pub use fault::{Call, Effect, Fault, Plan, Script, random_failures};
pub use limit::{Limit, Permits};
pub use limits::Limits;
pub use read_only::ReadOnly;
pub use retry::{Retry, RetrySettings};
pub use throttle::{Rate, Throttle};

use std::fmt;

/// One of the six things that a store can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Store::put_new`](crate::Store::put_new)
    PutNew,
    /// [`Store::get`](crate::Store::get)
    Get,
    /// [`Store::get_range`](crate::Store::get_range)
    GetRange,
    /// [`Store::head`](crate::Store::head)
    Head,
    /// [`Store::list`](crate::Store::list)
    List,
    /// [`Store::delete`](crate::Store::delete)
    Delete,
}

impl Verb {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::PutNew, Self::Get, Self::GetRange, Self::Head, Self::List, Self::Delete];

    /// Its place in [`Verb::ALL`].
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PutNew => "put_new",
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
