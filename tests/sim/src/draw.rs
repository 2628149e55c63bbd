//! Chance under a seed: what a schedule, a fault or a volume draws.
//!
//! Promises the same numbers for the same seed on every machine. Predictable: never for keys.

/// A generator (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// A generator for a seed and a purpose, so that two purposes of one seed draw apart.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut draw = Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        draw.0 = draw.number();
        draw
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True so many times in a thousand.
    pub fn in_thousand(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// A number from `least` to `most`, every order of magnitude as likely as another.
    pub fn magnitude(&mut self, least: u64, most: u64) -> u64 {
        let (low, high) = ((least.max(1) as f64).ln(), (most.max(1) as f64).ln());
        let share = (self.number() >> 11) as f64 / (1_u64 << 53) as f64;
        (low + (high - low) * share).exp() as u64
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
