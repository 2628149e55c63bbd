//! A pack's header, read from its end: which frames the pack holds.
//!
//! Promises to try once more before a pack is blamed, and to allocate no more than a caller allows. What frames are for it does not know.

use super::{Repository, key};
use crate::error::{Error, ErrorKind, Result};
use longshore_format::envelope::Codec;
use longshore_format::id::PackName;
use longshore_format::pack::{self, Frame, TRAILER_BYTES};

/// Bytes read from the end of a pack in one request when its header is wanted.
const HEADER_READ_BYTES: u64 = 64 << 10;

/// A pack's salt and its frames.
type Header = ([u8; 32], Vec<Frame>);

impl Repository {
    /// Reads a pack's header: its salt and its frames.
    ///
    /// # Errors
    /// Corrupt, or what the store says.
    pub fn pack_header(&self, name: PackName, size_bytes: u64, codec: &mut Codec) -> Result<Header> {
        let within = self.pack_header_within(name, size_bytes, u32::MAX, codec)?;
        within.ok_or_else(|| Error::corrupt(format!("pack header is too long: pack={name}")))
    }

    /// The same, and none when the header is longer, as it is stored, than the caller has room for.
    pub(crate) fn pack_header_within(
        &self,
        name: PackName,
        size_bytes: u64,
        most: u32,
        codec: &mut Codec,
    ) -> Result<Option<Header>> {
        match self.try_pack_header(name, size_bytes, most, codec) {
            // Damage on the way is no damage of the pack.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::WrongKey) => {
                self.try_pack_header(name, size_bytes, most, codec)
            }
            done => done,
        }
    }

    fn try_pack_header(&self, name: PackName, size_bytes: u64, most: u32, codec: &mut Codec) -> Result<Option<Header>> {
        let object = key(name.key())?;
        let least = (pack::PREAMBLE_BYTES + TRAILER_BYTES) as u64;
        if size_bytes < least {
            return Err(Error::corrupt(format!("pack is shorter than any pack: pack={name}, size_bytes={size_bytes}")));
        }
        let preamble = self.store.get_range(&object, 0, pack::PREAMBLE_BYTES as u64)?;
        let (salt, pack_key) = pack::open_preamble(&self.keys, name, &preamble)?;
        let tail_start = size_bytes.saturating_sub(HEADER_READ_BYTES);
        let tail = self.store.get_range(&object, tail_start, size_bytes - tail_start)?;
        let Some((body, trailer)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(Error::corrupt(format!("pack ends too early: pack={name}")));
        };
        let trailer = pack::read_trailer(trailer, size_bytes)?;
        if trailer.header_bytes > most {
            return Ok(None);
        }
        let header_start = size_bytes - TRAILER_BYTES as u64 - u64::from(trailer.header_bytes);
        let mut sealed = if header_start >= tail_start {
            body[(header_start - tail_start) as usize..].to_vec()
        } else {
            self.store.get_range(&object, header_start, u64::from(trailer.header_bytes))?.to_vec()
        };
        Ok(Some((salt, pack::open_header(&pack_key, &salt, header_start, trailer, &mut sealed, codec)?)))
    }
}
