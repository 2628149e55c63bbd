//! Whether the volume is what a backup waits for.
//!
//! Those who read or walk time their calls of the volume with a [`Watch`] and tell a [`Gauge`] what they took. Promises to forget: what is
//! slow now may be fast in a second, and the other way round. Does not know what is done about it.

use crate::seams::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A call that takes longer is worth having others wait beside it. From a warm page cache a small file takes 10 to 20 µs, from a disk 100 µs
/// and more, over a network from 500 µs on.
const SLOW_NANOS: u64 = 150_000;
/// What memory needs to copy bytes is no sign of a slow volume.
const NANOS_PER_KIB: u64 = 500;

/// How long a small file, a listing or a look makes one wait: a mean that forgets.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicU64);

impl Gauge {
    /// Adds what some of them took, and how many bytes were copied. Of two at once one may be forgotten.
    pub fn note(&self, waited_nanos: u64, files: u64, bytes: u64) {
        if let Some(each) = waited_nanos.saturating_sub((bytes >> 10) * NANOS_PER_KIB).checked_div(files) {
            let before = self.0.load(Relaxed);
            // Whoever loses the processor in the midst of a call finds that one slow: three in a row it takes.
            self.0.store(before - before / 4 + each.min(2 * SLOW_NANOS) / 4, Relaxed);
        }
    }

    /// Whether it is on the way there, and worth a closer look.
    pub fn may_be_slow(&self) -> bool {
        self.0.load(Relaxed) > SLOW_NANOS / 4
    }

    /// Whether the volume is what a backup waits for.
    pub fn is_slow(&self) -> bool {
        self.0.load(Relaxed) > SLOW_NANOS
    }
}

/// Does something; and how many nanoseconds it took.
pub(super) fn timed<T>(clock: &dyn Clock, work: impl FnOnce() -> T) -> (T, u64) {
    let begun = clock.monotonic();
    let done = work();
    let took = clock.monotonic().saturating_sub(begun);
    (done, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

/// How long one thread waits for the volume.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    nanos: Arc<AtomicU64>,
}

impl Watch {
    /// Nothing was timed yet.
    pub fn new(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), nanos: Arc::default() }
    }

    /// Does something and adds how long it took.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, nanos) = timed(&*self.clock, work);
        self.nanos.fetch_add(nanos, Relaxed);
        done
    }

    /// How long all that was timed took.
    pub fn nanos(&self) -> u64 {
        self.nanos.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_slow_when_files_take_long_and_not_when_they_are_long() {
        let gauge = Gauge::default();
        gauge.note(64 * 20_000, 64, 64 << 10);
        assert!(!gauge.is_slow());
        // A mebibyte in half a millisecond is memory.
        (0..8).for_each(|_| gauge.note(500_000, 1, 1 << 20));
        assert!(!gauge.is_slow());
        (0..2).for_each(|_| gauge.note(64 * 50_000_000, 64, 64 << 10));
        assert!(!gauge.is_slow() && gauge.may_be_slow(), "twice may be chance");
        gauge.note(64 * 500_000, 64, 64 << 10);
        assert!(gauge.is_slow());
        (0..8).for_each(|_| gauge.note(64 * 20_000, 64, 64 << 10));
        assert!(!gauge.is_slow());
        gauge.note(1, 0, 0);
    }
}
