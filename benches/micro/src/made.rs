//! Bytes made from a seed: noise, prose, pages of a database, lines of a log.
//!
//! Promises the same bytes for the same seed and length, whatever the machine, however they are asked for. Real bytes they are not:
//! their words are drawn by Zipf's law from a made-up vocabulary, which compresses about as real ones do.

use longshore_store::{Rng, SeededRng};

/// Size of a database page.
pub const PAGE_BYTES: usize = 8192;
const PAGE_HEAD_BYTES: usize = 24;
/// Size and layout of a page, as its header says them.
const PAGE_MARK: u16 = 0x2004;
const WORDS: usize = 4096;

/// Chance that repeats itself: `SplitMix64`.
#[derive(Debug)]
pub struct Chance(SeededRng);

impl Chance {
    /// Begins at a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SeededRng::new(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let mut out = [0; 8];
        self.0.fill(&mut out);
        u64::from_le_bytes(out)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// A number of at least 0 and less than 1.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the normal distribution.
    pub fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.share(), self.share());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// Fills with bytes that do not compress, `offset_bytes` into the endless noise of a seed.
pub fn noise_at(seed: u64, offset_bytes: u64, out: &mut [u8]) {
    let mut reader = blake3::Hasher::new().update(b"noise").update(&seed.to_le_bytes()).finalize_xof();
    reader.set_position(offset_bytes);
    reader.fill(out);
}

/// Bytes that do not compress.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    noise_at(seed, 0, &mut out);
    out
}

/// A vocabulary, and words drawn from it as people do: few of them often.
#[derive(Debug)]
pub struct Words {
    words: Vec<Vec<u8>>,
    picks: Vec<u16>,
}

impl Words {
    /// The vocabulary of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        const PARTS: [&str; 32] = [
            "an", "ter", "ing", "re", "on", "sta", "con", "er", "al", "lo", "mi", "ne", "tion", "ver", "un", "ble", "ca", "de",
            "fo", "gra", "hu", "in", "ju", "ki", "la", "me", "no", "or", "pre", "qui", "ro", "se",
        ];
        let mut chance = Chance::new(seed ^ 0x776f_7264);
        let words =
            (0..WORDS).map(|_| (0..=chance.below(3)).flat_map(|_| PARTS[chance.below(32) as usize].bytes()).collect()).collect();
        // Word number n as often as 1/(n + 3).
        let weights: Vec<f64> = (0..WORDS).map(|n| 1.0 / (n as f64 + 3.0)).collect();
        let sum: f64 = weights.iter().sum();
        let mut picks = Vec::with_capacity(1 << 16);
        let mut reached = 0.0;
        for (number, weight) in weights.iter().enumerate() {
            reached += weight / sum * 65_536.0;
            while (picks.len() as f64) < reached {
                picks.push(number as u16);
            }
        }
        picks.resize(1 << 16, 0);
        Self { words, picks }
    }

    /// Draws one.
    pub fn draw(&self, chance: &mut Chance) -> &[u8] {
        &self.words[usize::from(self.picks[(chance.bits() >> 48) as usize])]
    }
}

/// Prose: words, commas, lines.
#[must_use]
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    let (words, mut chance) = (Words::new(1), Chance::new(seed));
    let mut out = Vec::with_capacity(length + 32);
    let mut line = 0;
    while out.len() < length {
        let word = words.draw(&mut chance);
        out.extend_from_slice(word);
        line += word.len() + 1;
        match chance.below(16) {
            0 => out.extend_from_slice(b", "),
            1 => out.extend_from_slice(b". "),
            _ if line > 88 => {
                out.push(b'\n');
                line = 0;
            }
            _ => out.push(b' '),
        }
    }
    out.truncate(length);
    out
}

/// One page of a database, as it was written by its `version`-th change: PostgreSQL's header (log position, checksum, where slots end and
/// rows begin, size and layout), an array of slots, and rows from the end of the page on, three quarters full.
pub fn page(seed: u64, number: u64, version: u64, words: &Words, out: &mut [u8; PAGE_BYTES]) {
    let mut chance = Chance::new(seed ^ number.wrapping_mul(0x9e37_79b9) ^ version.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    out.fill(0);
    out[..8].copy_from_slice(&(version << 40 | number).to_le_bytes());
    out[8..10].copy_from_slice(&(chance.bits() as u16).to_le_bytes());
    let (mut slot, mut end) = (PAGE_HEAD_BYTES, PAGE_BYTES);
    let mut row = Vec::with_capacity(256);
    while end > PAGE_BYTES / 4 {
        row.clear();
        row.extend_from_slice(&(number * 64 + slot as u64).to_be_bytes());
        row.extend_from_slice(&chance.bits().to_le_bytes());
        row.extend_from_slice(&(1_700_000_000 + chance.below(50_000_000)).to_be_bytes());
        for _ in 0..=chance.below(12) {
            row.extend_from_slice(words.draw(&mut chance));
            row.push(b' ');
        }
        end -= row.len();
        out[end..end + row.len()].copy_from_slice(&row);
        out[slot..slot + 2].copy_from_slice(&(end as u16).to_le_bytes());
        slot += 4;
    }
    for (at, word) in [(12, slot as u16), (14, end as u16), (16, PAGE_BYTES as u16), (18, PAGE_MARK)] {
        out[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
}

/// A lot of pages, one behind the other.
#[must_use]
pub fn pages(seed: u64, length: usize) -> Vec<u8> {
    let words = Words::new(1);
    let mut out = Vec::with_capacity(length + PAGE_BYTES);
    let mut one = [0; PAGE_BYTES];
    for number in 0..length.div_ceil(PAGE_BYTES) as u64 {
        page(seed, number, 0, &words, &mut one);
        out.extend_from_slice(&one);
    }
    out.truncate(length);
    out
}

/// Lines of a log, JSON with times, random ids and a message.
#[derive(Debug)]
pub struct Log {
    words: Words,
    chance: Chance,
    millis: u64,
}

impl Log {
    /// A log from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { words: Words::new(1), chance: Chance::new(seed), millis: 1_700_000_000_000 }
    }

    /// Appends lines until `out` has at least `length` bytes.
    pub fn fill(&mut self, out: &mut Vec<u8>, length: usize) {
        const LEVELS: [&str; 4] = ["info", "info", "debug", "warning"];
        while out.len() < length {
            self.millis += self.chance.below(40);
            let level = LEVELS[self.chance.below(4) as usize];
            let (pod, id) = (self.chance.below(40), self.chance.bits());
            let start = format!(
                "{{\"time\":{},\"level\":\"{level}\",\"pod\":\"worker-{pod}\",\"request\":\"{id:016x}\",\"message\":\"",
                self.millis
            );
            out.extend_from_slice(start.as_bytes());
            for _ in 0..4 + self.chance.below(10) {
                out.extend_from_slice(self.words.draw(&mut self.chance));
                out.push(b' ');
            }
            let end = format!("\",\"status\":{},\"millis\":{}}}\n", 200 + self.chance.below(3) * 100, self.chance.below(900));
            out.extend_from_slice(end.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex()[..16].to_owned()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let mut log = Vec::new();
        Log::new(3).fill(&mut log, 100_000);
        let found = [sum(&noise(3, 100_000)), sum(&text(3, 100_000)), sum(&pages(3, 100_000)), sum(&log)];
        assert_eq!(found, PINNED);
    }

    const PINNED: [&str; 4] = ["6fdc2f42ad6ded1e", "4e68b7849ed29eb5", "6ff0ff5e3432be08", "96c8081f0ee62f07"];

    #[test]
    fn pages_are_known_for_a_databases() {
        assert!(longshore_engine::chunker::pages::is_paged(&pages(3, 64 << 10)));
    }

    #[test]
    fn noise_is_one_stream() {
        let whole = noise(9, 10_000);
        let mut part = vec![0; 100];
        noise_at(9, 777, &mut part);
        assert_eq!(part, whole[777..877]);
    }

    #[test]
    fn a_page_changes_with_its_version_alone() {
        let words = Words::new(1);
        let (mut a, mut b, mut c) = ([0; PAGE_BYTES], [0; PAGE_BYTES], [0; PAGE_BYTES]);
        page(1, 5, 0, &words, &mut a);
        page(1, 5, 0, &words, &mut b);
        page(1, 5, 1, &words, &mut c);
        assert!(a == b && a != c);
    }
}
