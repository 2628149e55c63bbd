//! Which files were compressed as one stream when they were made: pictures, sound, films, compressed logs.
//!
//! Nobody changes a part of such a file, so small chunks of it buy no deduplication: it is cut into longer ones (docs/format.md chapter
//! 14). The evidence is how the file begins, so that two runs decide alike without a record. Promises nothing about files that carry no
//! mark: they are cut as usual. A wrong guess costs deduplication and nothing else. Archives whose members are compressed each by itself
//! are left out: two versions of a jar share most members.

/// Marks that stand at a fixed place.
const MARKS: &[(usize, &[u8])] = &[
    // Pictures: JPEG, PNG, GIF, TIFF in both orders.
    (0, &[0xff, 0xd8, 0xff]),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF8"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    // MP4, MOV, HEIF, AVIF: a first box of a few bytes that names the brand.
    (4, b"ftyp"),
    // Matroska and WebM, ASF (WMV), FLV, MPEG programme stream.
    (0, &[0x1a, 0x45, 0xdf, 0xa3]),
    (0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11]),
    (0, b"FLV\x01"),
    (0, &[0, 0, 1, 0xba]),
    // Sound: MP3 with a tag, Ogg, FLAC.
    (0, b"ID3"),
    (0, b"OggS"),
    (0, b"fLaC"),
    // One compressed stream: gzip by deflate, xz, Zstandard, bzip2, LZ4.
    (0, &[0x1f, 0x8b, 0x08]),
    (0, b"\xfd7zXZ\0"),
    (0, &[0x28, 0xb5, 0x2f, 0xfd]),
    (0, b"BZh"),
    (0, &[0x04, 0x22, 0x4d, 0x18]),
];

/// What a RIFF file may hold.
const RIFF: &[&[u8]] = &[b"WEBP", b"AVI ", b"WAVE"];
/// Length of a packet of an MPEG transport stream, each of which begins with 0x47.
const TRANSPORT_BYTES: usize = 188;

/// Whether a file that begins with `head` was compressed as one stream.
#[must_use]
pub fn is_media(head: &[u8]) -> bool {
    let has = |at: usize, mark: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(mark));
    MARKS.iter().any(|(at, mark)| has(*at, mark))
        || has(0, b"RIFF") && RIFF.iter().any(|kind| has(8, kind))
        || (0..4).all(|n| has(n * TRANSPORT_BYTES, b"G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_known_by_how_they_begin() {
        let riff: Vec<Vec<u8>> = RIFF.iter().map(|kind| [b"RIFFsize", *kind].concat()).collect();
        let marks = MARKS.iter().map(|(at, mark)| (*at, mark.to_vec())).chain(riff.into_iter().map(|mark| (0, mark)));
        for (at, mark) in marks {
            let mut head = vec![0x5a; 1 << 10];
            assert!(!is_media(&head));
            head[at..at + mark.len()].copy_from_slice(&mark);
            assert!(is_media(&head), "{mark:?}");
            assert!(!is_media(&head[..at + mark.len() - 1]), "{mark:?} cut short");
        }
        let mut stream = vec![0; 4 * TRANSPORT_BYTES];
        for n in 0..4 {
            assert!(!is_media(&stream), "{n} packets");
            stream[n * TRANSPORT_BYTES] = b'G';
        }
        assert!(is_media(&stream));
        for other in [&b"PK\x03\x04"[..], b"%PDF-1.7", b"\x7fELF", b"RIFFsizeRMID", b"SQLite format 3\0", b"", b"#!/bin/sh"] {
            assert!(!is_media(other), "{other:?}");
        }
    }
}
