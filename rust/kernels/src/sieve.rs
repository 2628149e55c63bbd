//! Where a chunk may end: the first stage of the cutter of docs/format.md chapter 14.
//!
//! A [`Sieve`] looks at the eight bytes ahead of each position and lets about one position of 256 through. It needs no table and no
//! state, so the AVX2 kernel tests 32 positions at a time; the safe twin tests them one by one. Promises that both let the same
//! positions through, on any bytes. Does not know what happens at a position that was let through.

/// Bytes ahead of a position that decide about it.
pub const WINDOW_BYTES: usize = 8;
/// A sum is let through when it is, as a signed number, greater than this: one of 256 is. A window of zeros has the sum 0.
const PASS_ABOVE: i32 = 0x7eff_ffff;

/// The keyed first stage of the cutter.
#[derive(Clone)]
pub struct Sieve {
    low: u32,
    high: u32,
    wide: bool,
}

impl std::fmt::Debug for Sieve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sieve({})", if self.wide { "avx2" } else { "scalar" })
    }
}

impl Sieve {
    /// A sieve with its two secret multipliers, on the best kernel that this processor has.
    #[must_use]
    pub fn new(low: u32, high: u32) -> Self {
        #[cfg(target_arch = "x86_64")]
        let wide = std::arch::is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let wide = false;
        Self { low, high, wide }
    }

    /// The same sieve on the safe twin.
    #[must_use]
    pub fn scalar(&self) -> Self {
        Self { wide: false, ..*self }
    }

    /// The first position from `from` on, up to the end of `bytes`, that is let through. A position is the number of bytes ahead
    /// of it; those below eight are never let through.
    #[must_use]
    #[inline]
    pub fn next(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let start = from.max(WINDOW_BYTES) - WINDOW_BYTES;
        let run = bytes.get(start..)?;
        #[cfg(target_arch = "x86_64")]
        if self.wide {
            // SAFETY: `wide` is true only when the processor was found to have AVX2.
            return unsafe { avx2(self.low, self.high, run) }.map(|at| start + at);
        }
        scalar(self.low, self.high, run).map(|at| start + at)
    }
}

/// The safe twin.
fn scalar(low: u32, high: u32, run: &[u8]) -> Option<usize> {
    run.array_windows::<WINDOW_BYTES>().position(|w| passes(low, high, w)).map(|at| at + WINDOW_BYTES)
}

#[inline]
fn passes(low: u32, high: u32, window: &[u8; WINDOW_BYTES]) -> bool {
    let [a, b, c, d, e, f, g, h] = *window;
    let sum =
        u32::from_le_bytes([a, b, c, d]).wrapping_mul(low).wrapping_add(u32::from_le_bytes([e, f, g, h]).wrapping_mul(high));
    sum.cast_signed() > PASS_ABOVE
}

/// Positions that one step of the kernel tests, and the bytes that it looks at.
#[cfg(target_arch = "x86_64")]
const STEP: usize = 32;
#[cfg(target_arch = "x86_64")]
const STEP_BYTES: usize = STEP + WINDOW_BYTES - 1;

/// The kernel: eight unaligned loads give, lane by lane, the lower and upper half of each of 32 windows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(low: u32, high: u32, run: &[u8]) -> Option<usize> {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_movemask_epi8,
        _mm256_movemask_ps, _mm256_mullo_epi32, _mm256_or_si256, _mm256_set1_epi32,
    };
    let (k, l) = (_mm256_set1_epi32(low.cast_signed()), _mm256_set1_epi32(high.cast_signed()));
    let bound = _mm256_set1_epi32(PASS_ABOVE);
    let mut at = 0;
    while let Some(step) = run.get(at..at + STEP_BYTES) {
        let load = |n: usize| -> __m256i {
            // SAFETY: n is below 8, so the 32 bytes from n on end within the 39 bytes of `step`; the load needs no alignment.
            unsafe { _mm256_loadu_si256(step.as_ptr().add(n).cast()) }
        };
        let test = |n: usize| {
            let sum = _mm256_add_epi32(_mm256_mullo_epi32(load(n), k), _mm256_mullo_epi32(load(n + 4), l));
            _mm256_cmpgt_epi32(sum, bound)
        };
        let hits = [test(0), test(1), test(2), test(3)];
        let any = _mm256_or_si256(_mm256_or_si256(hits[0], hits[1]), _mm256_or_si256(hits[2], hits[3]));
        if _mm256_movemask_epi8(any) != 0 {
            // Lane j of test n is the window that begins at 4 j + n.
            let lanes = |n: usize| _mm256_movemask_ps(_mm256_castsi256_ps(hits[n])).cast_unsigned();
            let first = (0..4).filter(|n| lanes(*n) != 0).map(|n| 4 * lanes(n).trailing_zeros() as usize + n).min();
            return first.map(|first| at + first + WINDOW_BYTES);
        }
        at += STEP;
    }
    scalar(low, high, run.get(at..)?).map(|rest| at + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    fn all(sieve: &Sieve, bytes: &[u8]) -> Vec<usize> {
        std::iter::successors(sieve.next(bytes, 0), |at| sieve.next(bytes, at + 1)).collect()
    }

    /// The rule as docs/format.md says it, with nothing shared.
    fn by_the_book(low: u32, high: u32, bytes: &[u8]) -> Vec<usize> {
        (8..=bytes.len())
            .filter(|at| {
                let number =
                    |range: std::ops::Range<usize>| bytes[range].iter().rev().fold(0u128, |n, b| n << 8 | u128::from(*b));
                let sum = number(at - 8..at - 4) * u128::from(low) + number(at - 4..*at) * u128::from(high);
                sum >> 24 & 0xff == 0x7f
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_kernel_and_its_twin_are_the_rule(
            low: u32, high: u32, seed: u64, length in 0usize..3000, skip in 0usize..70, period in 1usize..40, kind in 0u8..4
        ) {
            let mut bytes = noise(seed, length);
            match kind {
                0 => bytes.fill(0),
                1 => bytes.fill(seed as u8),
                2 => (period..length).for_each(|at| bytes[at] = bytes[at - period]),
                _ => {}
            }
            let sieve = Sieve::new(low | 1, high | 1);
            let bytes = bytes.get(skip..).unwrap_or_default();
            let expected = by_the_book(low | 1, high | 1, bytes);
            prop_assert_eq!(&all(&sieve, bytes), &expected);
            prop_assert_eq!(&all(&sieve.scalar(), bytes), &expected);
        }
    }

    #[test]
    fn one_position_of_256_is_let_through_and_none_of_zeros() {
        let sieve = Sieve::new(0x9e37_79b1, 0x85eb_ca77);
        let found = all(&sieve, &noise(7, 1 << 20)).len();
        assert!((3600..4600).contains(&found), "{found}");
        assert_eq!(sieve.next(&vec![0; 100_000], 0), None);
        assert_eq!(sieve.next(&[1; 100], 200), None);
    }

    #[test]
    fn this_machine_tests_the_kernel_that_it_would_run() {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            assert!(format!("{:?}", Sieve::new(1, 1)).contains("avx2"));
        }
        assert!(format!("{:?}", Sieve::new(1, 1).scalar()).contains("scalar"));
    }
}
