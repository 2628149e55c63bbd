//! A segment of the index in memory: mapped from the cache, or held, whole or without its chunks.

use crate::error::Result;
use longshore_format::id::PackName;
use longshore_format::index::{FramePlace, PackRow, Segment, SegmentBuilder};
use longshore_format::pack::Frame;
use longshore_kernels::map::Map;
use std::collections::HashMap;

/// Sum behind a segment in the cache.
pub(super) const SUM_BYTES: usize = 32;

/// Bytes of a segment, mapped or held.
#[derive(Debug)]
pub(crate) enum SegmentBytes {
    Mapped(Map),
    Held(Vec<u8>),
}

impl AsRef<[u8]> for SegmentBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => {
                let all = map.as_ref();
                &all[..all.len().saturating_sub(SUM_BYTES)]
            }
            Self::Held(bytes) => bytes,
        }
    }
}

/// What is held of the segments of the store where there is no cache to map them from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    #[default]
    All,
    /// Packs and frames: nothing is found by the id of a chunk.
    Frames,
}

/// What a segment says of packs and frames.
pub(super) fn without_chunks(segment: &Segment<SegmentBytes>) -> Result<Segment<SegmentBytes>> {
    let mut builder = SegmentBuilder::new();
    let packs: HashMap<PackName, PackRow> = segment.packs().map(|row| (row.name, row)).collect();
    for row in segment.packs().filter(|row| row.size_bytes != 0) {
        builder.add_pack(row.name, row.salt, row.size_bytes, &[]);
    }
    for place in (0..).map_while(|row| segment.frame(row)) {
        let FramePlace { birth, birth_salt, kind, offset_bytes, stored_bytes, .. } = place;
        let frame = Frame { birth, birth_salt, kind, offset_bytes, stored_bytes, chunks: Vec::new() };
        if let Some(pack) = packs.get(&place.pack) {
            builder.add_pack(pack.name, pack.salt, pack.size_bytes, &[frame]);
        }
    }
    Ok(Segment::new(SegmentBytes::Held(builder.payload()?))?)
}
