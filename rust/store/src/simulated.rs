//! A clock and a generator for simulations: the same seed gives the same run, and sleeping takes no time.

use crate::{Clock, Rng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A clock that goes only when somebody sleeps or turns it.
#[derive(Debug, Default)]
pub struct VirtualClock {
    nanos: AtomicU64,
}

impl VirtualClock {
    /// A clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns it on.
    pub fn advance(&self, duration: Duration) {
        self.nanos.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    fn wall_nanos(&self) -> i64 {
        i64::try_from(self.nanos.load(Ordering::SeqCst)).unwrap_or(i64::MAX)
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// A generator that repeats itself for the same seed. Predictable: never for keys.
#[derive(Debug)]
pub struct SeededRng {
    state: AtomicU64,
}

impl SeededRng {
    /// A generator that begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Rng for SeededRng {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            // SplitMix64.
            let mut x = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
            part.copy_from_slice(&x.to_le_bytes()[..part.len()]);
        }
    }
}
