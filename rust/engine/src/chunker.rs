//! Where a run of bytes is cut: docs/format.md chapter 14, cutter 2.
//!
//! Pure over slices: no I/O, no hashing of content. Promises that the cuts of a run depend only on its bytes, the key and the
//! sizes, however the bytes are handed in and whichever kernel runs. Golden cut points are pinned below.

pub mod media;
pub mod pages;

use crate::error::{Error, Result};
use longshore_format::config::{CUTTER_SIEVE, Cut};
use longshore_format::{FormatError, Keys};
use longshore_kernels::sieve::Sieve;

/// Blocks of this length, at multiples of it, that hold only zeros are not stored.
pub const ZERO_BLOCK_BYTES: usize = 64 << 10;
/// Bytes ahead of a position that decide whether it is cut there.
const WINDOW_BYTES: usize = 64;
/// What the sieve lets through: one position of 2⁸.
const SIEVE_BITS: u32 = 8;

/// The two-stage cutter with its keys.
#[derive(Clone)]
pub struct Cutter {
    sieve: Sieve,
    key: (u64, u64),
    min: usize,
    usual: usize,
    max: usize,
    limit_before: u64,
    limit_after: u64,
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutter({}, {}, {}, {:?})", self.min, self.usual, self.max, self.sieve)
    }
}

impl Cutter {
    /// The cutter of a repository.
    ///
    /// # Errors
    /// Newer when this version does not know the repository's cutter: it can read what is there, but what it wrote would never
    /// share a chunk with it.
    pub fn new(keys: &Keys, cut: Cut) -> Result<Self> {
        if cut.cutter != CUTTER_SIEVE {
            let error = FormatError::Newer(format!("cutter is unknown: cutter={}", cut.cutter));
            return Err(Error::from(error).while_doing("this repository can be read, but not written to"));
        }
        let mut bytes = [0u8; 24];
        blake3::Hasher::new_keyed(keys.cut_data()).update(b"sieve").finalize_xof().fill(&mut bytes);
        let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let bits = cut.size_bytes_usual.trailing_zeros();
        let limit = |bits: u32| 1u64 << (64 - (bits - SIEVE_BITS));
        Ok(Self {
            sieve: Sieve::new(word(0) as u32 | 1, (word(0) >> 32) as u32 | 1),
            key: (word(8), word(16)),
            min: cut.size_bytes_min as usize,
            usual: cut.size_bytes_usual as usize,
            max: cut.size_bytes_max as usize,
            limit_before: limit(bits + 1),
            limit_after: limit(bits - 3),
        })
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
        let end = run.len().min(self.max);
        let mut at = self.min;
        while at < end
            && let Some(found) = self.sieve.next(&run[..end], at)
        {
            let limit = if found < self.usual { self.limit_before } else { self.limit_after };
            if siphash(self.key, &run[found - WINDOW_BYTES..found]) < limit {
                return found;
            }
            // Not the next position: where one byte or a short pattern repeats, the sieve may let every position through.
            at = found + WINDOW_BYTES;
        }
        end
    }
}

/// How a file is cut, by the evidence of its first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// By content, into chunks of the usual sizes.
    #[default]
    Usual,
    /// Into fixed blocks: [`pages`].
    Pages,
    /// By content, into longer chunks: [`media`].
    Media,
}

impl Profile {
    /// Every one of them, each at the place of its number.
    const ALL: [Self; 3] = [Self::Usual, Self::Pages, Self::Media];

    /// What the first bytes of a file say.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        if pages::is_paged(head) {
            Self::Pages
        } else if media::is_media(head) {
            Self::Media
        } else {
            Self::Usual
        }
    }

    /// Its number, for a record.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The profile of a number; none when no profile has it.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// The cutters of a repository, one for each way to cut by content.
#[derive(Clone, Debug)]
pub struct Cutters {
    usual: Cutter,
    media: Cutter,
}

impl Cutters {
    /// The cutters of a repository.
    ///
    /// # Errors
    /// As [`Cutter::new`].
    pub fn new(keys: &Keys, cut: Cut) -> Result<Self> {
        let half = 1 << (cut.size_bytes_max / 2).max(1).ilog2();
        let longer = Cut { size_bytes_min: cut.size_bytes_usual, size_bytes_usual: half.max(cut.size_bytes_usual), ..cut };
        Ok(Self { usual: Cutter::new(keys, cut)?, media: Cutter::new(keys, longer)? })
    }

    /// Longest chunk in bytes, whatever the profile.
    #[must_use]
    pub fn size_bytes_max(&self) -> usize {
        self.usual.size_bytes_max()
    }

    /// Length of the first chunk of `run`, which begins at offset `at` of its file; for the rest as [`Cutter::first`].
    #[must_use]
    pub fn first(&self, profile: Profile, run: &[u8], at: u64, ended: bool) -> usize {
        match profile {
            Profile::Usual => self.usual.first(run, ended),
            Profile::Media => self.media.first(run, ended),
            Profile::Pages => run.len().min(pages::BLOCK_BYTES - (at % pages::BLOCK_BYTES as u64) as usize),
        }
    }
}

/// SipHash-2-4 of whole words.
fn siphash((k0, k1): (u64, u64), bytes: &[u8]) -> u64 {
    let mut v = [k0 ^ 0x736f_6d65_7073_6575, k1 ^ 0x646f_7261_6e64_6f6d, k0 ^ 0x6c79_6765_6e65_7261, k1 ^ 0x7465_6462_7974_6573];
    let (words, _) = bytes.as_chunks::<8>();
    let last = (bytes.len() as u64) << 56;
    for word in words.iter().map(|w| u64::from_le_bytes(*w)).chain(std::iter::once(last)) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
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

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]))
    }

    fn cutter() -> Cutter {
        Cutter::new(&keys(), Cut::default()).unwrap()
    }

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
        out
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

    fn sizes(cutter: &Cutter, run: &[u8]) -> Vec<usize> {
        pieces(cutter, run).iter().map(|piece| piece.len()).collect()
    }

    /// The same rule, written as chapter 14 says it, position by position, with nothing of the cutter but its keys.
    fn by_the_book(cutter: &Cutter, min: usize, bits: u32, run: &[u8]) -> usize {
        #[expect(deprecated, reason = "the standard library's SipHash-2-4 is the oracle")]
        let hash = |window: &[u8]| {
            use std::hash::Hasher;
            let mut hasher = std::hash::SipHasher::new_with_keys(cutter.key.0, cutter.key.1);
            hasher.write(window);
            hasher.finish()
        };
        let mut secret = [0; 24];
        blake3::Hasher::new_keyed(keys().cut_data()).update(b"sieve").finalize_xof().fill(&mut secret);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u128, |n, b| n << 8 | u128::from(*b));
        let (a, b) = (number(&secret[..4]) | 1, number(&secret[4..8]) | 1);
        let mut from = min;
        for n in 1..=run.len() {
            if n == 1 << 20 {
                return n;
            }
            if n < from {
                continue;
            }
            let sum = number(&run[n - 8..n - 4]) * a + number(&run[n - 4..n]) * b;
            if sum >> 24 & 0xff == 0x7f {
                let limit = if n < 1 << bits { 1u64 << (71 - bits) } else { 1 << (75 - bits) };
                if hash(&run[n - 64..n]) < limit {
                    return n;
                }
                from = n + 64;
            }
        }
        run.len()
    }

    #[test]
    fn cut_points_are_pinned() {
        assert_eq!(sizes(&cutter(), &noise(1, 4 << 20)), GOLDEN);
        let text: Vec<u8> = (0..60_000u32).flat_map(|n| format!("line {n} of a text\n").into_bytes()).collect();
        assert_eq!(sizes(&cutter(), &text), GOLDEN_TEXT);
        assert_eq!(sizes(&Cutters::new(&keys(), Cut::default()).unwrap().media, &noise(1, 4 << 20)), GOLDEN_MEDIA);
    }

    /// Sizes of the chunks of 4 MiB of noise, the same cut as media, and of numbered lines: who cuts elsewhere shares nothing with what is stored.
    const GOLDEN: &[usize] = &[
        286_385, 147_846, 123_891, 84_945, 283_791, 342_779, 202_788, 183_026, 290_238, 194_056, 364_494, 119_113, 82_620,
        288_424, 138_943, 407_575, 297_544, 300_261, 55_585,
    ];
    const GOLDEN_MEDIA: &[usize] = &[434_231, 835_406, 423_109, 583_103, 347_503, 509_987, 539_419, 521_546];
    const GOLDEN_TEXT: &[usize] = &[85_739, 114_150, 427_269, 329_067, 292_665];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cuts_equal_the_rule(seed: u8, length in 0..(3usize << 20), quiet in 0..(1usize << 20), fill: u8, period in 0usize..100) {
            let cutters = Cutters::new(&keys(), Cut::default()).unwrap();
            let (cutter, min, bits) = if seed % 2 == 0 { (cutters.usual, 64 << 10, 18) } else { (cutters.media, 256 << 10, 19) };
            let mut run = noise(seed, length);
            let quiet = quiet.min(run.len());
            run[..quiet].fill(fill);
            if period > 0 {
                (quiet + period..run.len()).for_each(|at| run[at] = run[at - period]);
            }
            let twin = Cutter { sieve: cutter.sieve.scalar(), ..cutter.clone() };
            let mut rest = &run[..];
            while !rest.is_empty() {
                let length = cutter.first(rest, true);
                prop_assert_eq!(length, by_the_book(&cutter, min, bits, rest));
                prop_assert_eq!(length, twin.first(rest, true));
                if rest.len() >= cutter.max {
                    prop_assert_eq!(length, cutter.first(&rest[..cutter.max], false), "what comes behind the largest size does not matter");
                }
                rest = &rest[length..];
            }
        }
    }

    #[test]
    fn chunks_of_noise_are_as_long_as_promised() {
        let cutter = cutter();
        let sizes = sizes(&cutter, &noise(9, 64 << 20));
        let mean = (64 << 20) / sizes.len();
        assert!((230 << 10..300 << 10).contains(&mean), "{mean}");
        assert!(sizes[..sizes.len() - 1].iter().all(|size| (64 << 10..=1 << 20).contains(size)));
    }

    #[test]
    fn media_are_cut_into_longer_chunks_and_numbers_name_profiles() {
        let cutters = Cutters::new(&keys(), Cut::default()).unwrap();
        let sizes = sizes(&cutters.media, &noise(9, 64 << 20));
        let mean = (64 << 20) / sizes.len();
        assert!((480 << 10..620 << 10).contains(&mean), "{mean}");
        assert!(sizes[..sizes.len() - 1].iter().all(|size| (256 << 10..=1 << 20).contains(size)));
        for profile in Profile::ALL {
            assert_eq!(Profile::numbered(profile.number()), Some(profile));
        }
        assert_eq!((Profile::numbered(3), Profile::of(b"BZh9"), Profile::of(b"text")), (None, Profile::Media, Profile::Usual));
        let odd = Cut { size_bytes_min: 4096, size_bytes_usual: 1 << 16, size_bytes_max: (1 << 16) + 1, ..Cut::default() };
        let odd = Cutters::new(&keys(), odd).unwrap();
        assert_eq!((odd.media.min, odd.media.usual, odd.media.max), (1 << 16, 1 << 16, (1 << 16) + 1));
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

    #[test]
    fn another_key_cuts_elsewhere_and_an_unknown_cutter_is_refused() {
        let bytes = noise(4, 2 << 20);
        let other = Keys::derive(&MasterKey::new([1; 32]), RepositoryId([3; 16]));
        assert_ne!(sizes(&cutter(), &bytes), sizes(&Cutter::new(&other, Cut::default()).unwrap(), &bytes));
        let error = Cutter::new(&keys(), Cut { cutter: 1, ..Cut::default() }).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::NewerFormat, "{error}");
    }
}
