//! The operating system's clock and randomness: the only place in the engine that asks for them.
//!
//! Everything else takes a [`Clock`] or an [`Rng`], so that a whole backup can run in a seeded simulation.

use crate::{Clock, Rng};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        // Never negative: the kernel's monotonic clock starts at zero.
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn wall_nanos(&self) -> i64 {
        let now = clock_gettime(ClockId::Realtime);
        now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The kernel's random number generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            match getrandom(&mut out[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    #[expect(
                        clippy::panic,
                        reason = "predictable keys are worse than a failed job, and the trait has no way to say no"
                    )]
                    {
                        panic!("kernel gives no randomness: {e}");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_fill_all() {
        let (mut a, mut b) = ([0_u8; 300], [0_u8; 300]);
        SystemRng.fill(&mut a);
        SystemRng.fill(&mut b);
        assert_ne!(a, b);
        assert!(a[256..].iter().any(|&x| x != 0), "a draw longer than 256 bytes may be cut short by a signal");
    }

    #[test]
    fn time_goes_on() {
        let before = SystemClock.monotonic();
        SystemClock.sleep(Duration::from_millis(2));
        assert!(SystemClock.monotonic() - before >= Duration::from_millis(2));
        assert!(SystemClock.wall_nanos() > 1_600_000_000_000_000_000);
    }
}
