//! Compression and the envelope around a payload: docs/format.md chapter 4.
//!
//! [`Codec`] owns the reusable contexts of one thread. An envelope is `u8` codec, `u32` payload length, payload. The level is the
//! caller's choice; what comes out is checked against the declared length.

use crate::{FormatError, Result};
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

/// Length of an envelope's head in bytes.
pub const ENVELOPE_BYTES: usize = 5;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Levels beyond ask for a window of more than 8 MiB.
pub const LEVEL_MAX: i32 = 19;
/// Faster levels gain nothing over storing raw.
pub const LEVEL_MIN: i32 = -7;
/// A level that only tells noise from the rest.
const LEVEL_SAMPLE: i32 = -5;
/// From this size on level 1 and what is quick look back over the whole payload and not only over its last 512 KiB.
const TUNED_FROM_BYTES: usize = 256 << 10;
const TUNED_WINDOW_LOG: u32 = 20;

/// How to compress one payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Store as it is.
    None,
    /// zstd at this level.
    Zstd(i32),
    /// zstd as quick as it goes before it stores much more.
    Quick,
}

/// How a context is set beside its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tuning {
    /// As zstd does at that level.
    Plain,
    /// Matches of 6 bytes, and a table of 2¹⁵ places; not of 7 bytes with 2¹⁴. Over frames of 1 MiB of code, libraries and documents
    /// that stores 3.5 % less in 5 % more of level 1's time. A table of 2¹⁶: 1 % less again, in 15 % more.
    Wide,
    /// Matches of 7 bytes, and a table of 2¹³ places, which stays in a core's first cache. Beside `Wide`, and with the decompression of
    /// the check before the upload, code and libraries take 8 % less time and store 4 to 5 % more, a log 15 % and 4 %, pages of a
    /// database 20 % and 7 %. Levels −1 to −3, which leave out Huffman's code, save as much again and store 14 to 26 % more; they
    /// and tables of 2¹², longer steps, and steps with Huffman's code were tried: per time saved each stores more than this.
    Quick,
}

impl Tuning {
    fn of(compression: Compression, level: i32, length_bytes: usize) -> Self {
        match compression {
            _ if length_bytes < TUNED_FROM_BYTES => Self::Plain,
            Compression::Quick => Self::Quick,
            _ if level == 1 => Self::Wide,
            _ => Self::Plain,
        }
    }

    /// Logarithm of the window, least match in bytes, logarithm of the table; 0: what the level says.
    fn parameters(self) -> (u32, u32, u32) {
        match self {
            Self::Plain => (0, 0, 0),
            Self::Wide => (TUNED_WINDOW_LOG, 6, 15),
            Self::Quick => (TUNED_WINDOW_LOG, 7, 13),
        }
    }
}

/// Compression contexts, reused for each payload of one thread. Each is made when it is first used: many jobs only read.
pub struct Codec {
    compress: Option<CCtx<'static>>,
    decompress: Option<DCtx<'static>>,
    level: i32,
    tuning: Tuning,
    /// Its own context for samples: a change of level costs a context its tables.
    sample: Option<CCtx<'static>>,
    /// What a compression wrote, before it is known to pay.
    compressed: Vec<u8>,
}

/// Lets every encoder of the process emit a wrong byte, as encoders have done.
#[cfg(feature = "testing")]
pub static WRONG_ENCODER: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn context(level: i32) -> Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or(FormatError::Library("create a compression context"))?;
    for parameter in [CParameter::ContentSizeFlag(false), CParameter::CompressionLevel(level)] {
        context.set_parameter(parameter).map_err(|_| FormatError::Library("set a compression parameter"))?;
    }
    Ok(context)
}

fn set(context: &mut CCtx<'static>, level: i32, tuning: Tuning) -> Result<()> {
    let (window, least, hash) = tuning.parameters();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        CParameter::MinMatch(least),
        CParameter::HashLog(hash),
    ] {
        context.set_parameter(parameter).map_err(|_| FormatError::Library("set a compression parameter"))?;
    }
    Ok(())
}

/// What is there, or else made now.
fn made<T>(slot: &mut Option<T>, make: impl FnOnce() -> Result<T>) -> Result<&mut T> {
    match slot {
        Some(there) => Ok(there),
        None => Ok(slot.insert(make()?)),
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codec({})", self.level)
    }
}

impl Codec {
    /// Contexts that are not made yet.
    ///
    /// # Errors
    /// None today; what uses it says `Library` when memory is short.
    pub fn new() -> Result<Self> {
        Ok(Self { compress: None, decompress: None, level: 1, tuning: Tuning::Plain, sample: None, compressed: Vec::new() })
    }

    /// About how many bytes `payload` would take: a quick look at the fastest level.
    ///
    /// # Errors
    /// `Library` when memory is short.
    pub fn estimate(&mut self, payload: &[u8]) -> Result<usize> {
        self.compressed.clear();
        self.compressed.reserve(zstd_safe::compress_bound(payload.len()));
        made(&mut self.sample, || context(LEVEL_SAMPLE))?
            .compress2(&mut self.compressed, payload)
            .map_err(|_| FormatError::Library("compress a sample"))
    }

    /// Appends an envelope with `payload`; falls back to raw when compression does not pay. Returns its length in bytes.
    ///
    /// # Errors
    /// `TooLarge` beyond 2³² − 1 bytes, `Library`.
    pub fn wrap(&mut self, payload: &[u8], compression: Compression, out: &mut Vec<u8>) -> Result<usize> {
        let length = u32::try_from(payload.len()).map_err(|_| FormatError::TooLarge {
            what: "payload",
            size: payload.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        let start = out.len();
        out.push(RAW);
        out.extend_from_slice(&length.to_le_bytes());
        let level = match compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(level.clamp(LEVEL_MIN, LEVEL_MAX)),
            Compression::Quick => Some(1),
        };
        if let Some(level) = level {
            let tuning = Tuning::of(compression, level, payload.len());
            let (was, compress) = ((self.level, self.tuning), made(&mut self.compress, || context(1))?);
            if was != (level, tuning) {
                set(compress, level, tuning)?;
                (self.level, self.tuning) = (level, tuning);
            }
            // With room for the worst case zstd writes without looking for the end, and into memory that nobody had to clear.
            self.compressed.clear();
            self.compressed.reserve(zstd_safe::compress_bound(payload.len()));
            if compress.compress2(&mut self.compressed, payload).is_ok_and(|written| written < payload.len()) {
                out.extend_from_slice(&self.compressed);
                out[start] = ZSTD;
                #[cfg(feature = "testing")]
                if WRONG_ENCODER.load(std::sync::atomic::Ordering::Relaxed) {
                    out[start + ENVELOPE_BYTES + self.compressed.len() / 2] ^= 1;
                }
                return Ok(out.len() - start);
            }
        }
        out.extend_from_slice(payload);
        Ok(out.len() - start)
    }

    /// Takes an envelope apart into `out`, which is replaced.
    ///
    /// # Errors
    /// Corrupt when the declared length does not hold, `TooLarge` beyond `limit`.
    pub fn unwrap(&mut self, envelope: &[u8], limit: usize, what: &'static str, out: &mut Vec<u8>) -> Result<()> {
        let raw = self.open(envelope, limit, what, out).map(|payload| payload.len()).map(|length| (envelope[0] == RAW, length));
        match raw {
            Ok((true, length)) => {
                out.clear();
                out.extend_from_slice(&envelope[ENVELOPE_BYTES..ENVELOPE_BYTES + length]);
                Ok(())
            }
            Ok((false, _)) => Ok(()),
            Err(error) => {
                out.clear();
                Err(error)
            }
        }
    }

    /// Takes an envelope apart without copying: a raw payload is a part of the envelope, a compressed one is put into `scratch`.
    ///
    /// # Errors
    /// Corrupt when the declared length does not hold, `TooLarge` beyond `limit`.
    pub fn open<'a>(
        &mut self,
        envelope: &'a [u8],
        limit: usize,
        what: &'static str,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let Some((head, body)) = envelope.split_first_chunk::<ENVELOPE_BYTES>() else {
            return Err(FormatError::corrupt(what, "envelope ends too early"));
        };
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > limit {
            return Err(FormatError::TooLarge { what, size: length as u64, limit: limit as u64 });
        }
        match head[0] {
            RAW if body.len() == length => Ok(body),
            RAW => Err(FormatError::corrupt(what, "payload has another length than declared")),
            ZSTD => {
                // Exactly one frame, nothing behind it: the one-shot call would accept several.
                if zstd_safe::find_frame_compressed_size(body).ok() != Some(body.len()) {
                    return Err(FormatError::corrupt(what, "compressed payload is not one zstd frame"));
                }
                // What is there is overwritten, so only what is missing has to be cleared.
                scratch.resize(length, 0);
                let make = || DCtx::try_create().ok_or(FormatError::Library("create a decompression context"));
                match made(&mut self.decompress, make)?.decompress(&mut scratch[..], body) {
                    Ok(written) if written == length => Ok(scratch),
                    _ => Err(FormatError::corrupt(what, "payload does not decompress to the declared length")),
                }
            }
            other => Err(FormatError::Newer(format!("{what} has an unknown codec: codec={other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_round_trip_and_incompressible_ones_stay_raw() {
        let mut codec = Codec::new().unwrap();
        let noise: Vec<u8> = (0..5000u32).flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
        let text = b"again and again ".repeat(1000);
        let long = text.repeat(TUNED_FROM_BYTES.div_ceil(text.len()));
        for (payload, raw) in [(&b""[..], true), (&b"x"[..], true), (&noise[..], true), (&text[..], false), (&long, false)] {
            for level in
                [Compression::None, Compression::Zstd(-3), Compression::Zstd(1), Compression::Quick, Compression::Zstd(3)]
            {
                let mut out = vec![9];
                let length = codec.wrap(payload, level, &mut out).unwrap();
                assert_eq!(length, out.len() - 1);
                assert_eq!(out[1] == 0, raw || level == Compression::None);
                let mut back = Vec::new();
                codec.unwrap(&out[1..], payload.len(), "test", &mut back).unwrap();
                assert_eq!(back, payload);
            }
        }
    }

    #[test]
    fn what_a_context_was_set_to_before_does_not_show() {
        // Words of a small vocabulary: each way of compressing finds something else in them.
        let words: Vec<String> = (0..4000u32).map(|i| blake3::hash(&i.to_le_bytes()).to_hex()[..7].to_owned()).collect();
        let pick = |i: u32| words[(i.wrapping_mul(2_654_435_761) >> 9) as usize % words.len()].as_str();
        let text = (0..60_000).map(pick).collect::<String>().into_bytes();
        let ways = [Compression::Zstd(1), Compression::Quick, Compression::Zstd(3), Compression::Zstd(-3)];
        let alone = ways.map(|way| {
            let mut out = Vec::new();
            Codec::new().unwrap().wrap(&text, way, &mut out).unwrap();
            out
        });
        let [wide, quick, _, fast] = &alone;
        assert!(wide.len() < quick.len() && quick.len() < fast.len());
        let (mut codec, mut out) = (Codec::new().unwrap(), Vec::new());
        for first in ways {
            for (way, alone) in ways.iter().zip(&alone) {
                for compression in [first, *way] {
                    out.clear();
                    codec.wrap(&text, compression, &mut out).unwrap();
                }
                assert_eq!(out, *alone, "{way:?} after {first:?}");
            }
        }
    }

    #[test]
    fn wrong_lengths_bombs_and_trailing_bytes_are_refused() {
        let mut codec = Codec::new().unwrap();
        let mut out = Vec::new();
        let mut back = Vec::new();
        codec.wrap(&[7; 100_000], Compression::Zstd(3), &mut out).unwrap();
        assert!(matches!(codec.unwrap(&out, 99_999, "test", &mut back), Err(FormatError::TooLarge { .. })));
        for declared in [0u32, 99_999, 100_001] {
            let mut bad = out.clone();
            bad[1..5].copy_from_slice(&declared.to_le_bytes());
            assert!(codec.unwrap(&bad, 1 << 20, "test", &mut back).is_err(), "{declared}");
            assert!(back.is_empty());
        }
        let mut two = out.clone();
        two.extend_from_slice(&out[5..]);
        assert!(codec.unwrap(&two, 1 << 20, "test", &mut back).is_err());
        assert!(codec.unwrap(&[0, 1], 10, "test", &mut back).is_err());
        assert!(codec.unwrap(&[2, 0, 0, 0, 0], 10, "test", &mut back).is_err());
    }
}
