//! Where a run of bytes is cut: docs/format.md chapter 14, cutter 1.
//!
//! Pure over slices: no I/O, no hashing of content. Promises that the cuts of a run depend only on its bytes, the key and the
//! sizes, however the bytes are handed in. Golden cut points are pinned below.

use longshore_format::Keys;
use longshore_format::config::Cut;

/// Blocks of this length, at multiples of it, that hold only zeros are not stored.
pub const ZERO_BLOCK_BYTES: usize = 64 << 10;
const WINDOW_BYTES: usize = 64;

/// The gear cutter with its secret table.
#[derive(Clone)]
pub struct Cutter {
    table: Box<[u64; 256]>,
    min: usize,
    usual: usize,
    max: usize,
    mask_before: u64,
    mask_after: u64,
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutter({}, {}, {})", self.min, self.usual, self.max)
    }
}

impl Cutter {
    /// The cutter of a repository.
    #[must_use]
    pub fn new(keys: &Keys, cut: Cut) -> Self {
        let mut bytes = [0u8; 2048];
        blake3::Hasher::new_keyed(keys.cut_data()).update(b"gear").finalize_xof().fill(&mut bytes);
        let mut table = Box::new([0; 256]);
        for (slot, word) in table.iter_mut().zip(bytes.chunks_exact(8)) {
            *slot = word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        let bits = cut.size_bytes_usual.trailing_zeros();
        let top = |n: u32| !0u64 << (64 - n);
        Self {
            table,
            min: cut.size_bytes_min as usize,
            usual: cut.size_bytes_usual as usize,
            max: cut.size_bytes_max as usize,
            mask_before: top(bits + 2),
            mask_after: top(bits - 2),
        }
    }

    /// Longest chunk in bytes.
    #[must_use]
    pub fn size_bytes_max(&self) -> usize {
        self.max
    }

    /// Length of the first chunk of `run`. When the run goes on behind the slice (`ended` is false), `run` must hold at least
    /// the longest chunk.
    #[must_use]
    pub fn first(&self, run: &[u8], ended: bool) -> usize {
        debug_assert!(ended || run.len() >= self.max, "a run that goes on must be longer than any chunk");
        if run.len() <= self.min {
            return run.len();
        }
        let end = run.len().min(self.max);
        let mut hash = 0u64;
        for byte in &run[self.min - WINDOW_BYTES..self.min - 1] {
            hash = (hash << 1).wrapping_add(self.table[*byte as usize]);
        }
        let turn = end.min(self.usual);
        if let Some(at) = self.scan(&run[self.min - 1..turn.max(self.min) - 1], &mut hash, self.mask_before) {
            return self.min + at;
        }
        if end > self.usual
            && let Some(at) = self.scan(&run[self.usual.max(self.min) - 1..end], &mut hash, self.mask_after)
        {
            return self.usual.max(self.min) + at;
        }
        end
    }

    #[inline]
    fn scan(&self, bytes: &[u8], hash: &mut u64, mask: u64) -> Option<usize> {
        let mut h = *hash;
        for (at, byte) in bytes.iter().enumerate() {
            h = (h << 1).wrapping_add(self.table[*byte as usize]);
            if h & mask == 0 {
                return Some(at);
            }
        }
        *hash = h;
        None
    }
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // The compiler turns the fold over fixed blocks into wide compares.
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| block.iter().fold(0, |a, b| a | b) == 0) && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_format::{MasterKey, RepositoryId};
    use proptest::prelude::*;

    fn cutter() -> Cutter {
        Cutter::new(&Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16])), Cut::default())
    }

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
        out
    }

    fn cuts(cutter: &Cutter, mut run: &[u8]) -> Vec<usize> {
        let mut out = Vec::new();
        while !run.is_empty() {
            let length = cutter.first(run, true);
            out.push(length);
            run = &run[length..];
        }
        out
    }

    /// The same rule, written as chapter 14 says it, byte by byte.
    fn slow(cutter: &Cutter, run: &[u8]) -> usize {
        let mut hash = 0u64;
        for (at, byte) in run.iter().enumerate() {
            let length = at + 1;
            if length + WINDOW_BYTES > cutter.min {
                hash = (hash << 1).wrapping_add(cutter.table[*byte as usize]);
            }
            let mask = if length < cutter.usual { cutter.mask_before } else { cutter.mask_after };
            if length >= cutter.min && hash & mask == 0 || length == cutter.max {
                return length;
            }
        }
        run.len()
    }

    #[test]
    fn cut_points_are_pinned() {
        let cutter = cutter();
        let found = cuts(&cutter, &noise(1, 4 << 20));
        assert_eq!(found, GOLDEN);
    }

    /// Sizes of the chunks of 4 MiB of noise; a change here is a change of format.
    const GOLDEN: &[usize] = &[
        310_228, 277_289, 265_295, 289_049, 123_954, 300_190, 321_261, 372_895, 75_846, 369_258, 385_346, 304_280, 289_991,
        148_418, 339_953, 21_051,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cuts_equal_the_rule(seed: u8, length in 0..(3usize << 20), zeros in 0..(1usize << 20)) {
            let cutter = cutter();
            let mut run = noise(seed, length);
            let quiet = zeros.min(run.len());
            run[..quiet].fill(7);
            let mut rest = &run[..];
            while !rest.is_empty() {
                let length = cutter.first(rest, true);
                prop_assert_eq!(length, slow(&cutter, rest));
                if rest.len() >= cutter.max {
                    prop_assert_eq!(length, cutter.first(&rest[..cutter.max], false), "what comes behind the largest size does not matter");
                }
                rest = &rest[length..];
            }
        }
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let cutter = cutter();
        let mut bytes = noise(3, 8 << 20);
        let before: std::collections::HashSet<Vec<u8>> = pieces(&cutter, &bytes).into_iter().map(<[u8]>::to_vec).collect();
        bytes.insert(1 << 20, 0x55);
        let known = pieces(&cutter, &bytes).into_iter().filter(|p| before.contains(*p)).map(<[u8]>::len).sum::<usize>();
        assert!(known > bytes.len() * 3 / 4, "{known} of {}", bytes.len());
    }

    fn pieces<'a>(cutter: &Cutter, mut run: &'a [u8]) -> Vec<&'a [u8]> {
        let mut out = Vec::new();
        while !run.is_empty() {
            let (head, tail) = run.split_at(cutter.first(run, true));
            out.push(head);
            run = tail;
        }
        out
    }
}
