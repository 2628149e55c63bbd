//! Records of tagged fields: docs/format.md chapter 1.
//!
//! A reader takes the fields that it knows; an unknown odd tag is refused, an unknown even one skipped.

use crate::wire::{Reader, put_bytes, put_sv, put_uv};
use crate::{FormatError, Result};

/// Builds a record; fields must be added in ascending order of tag.
#[derive(Debug, Default)]
pub struct RecordWriter {
    out: Vec<u8>,
    last_tag: u64,
}

impl RecordWriter {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field of bytes.
    pub fn bytes(&mut self, tag: u64, value: &[u8]) -> &mut Self {
        debug_assert!(tag >= self.last_tag, "fields ascend by tag");
        self.last_tag = tag;
        put_uv(&mut self.out, tag);
        put_bytes(&mut self.out, value);
        self
    }

    /// Adds a field that holds one unsigned number.
    pub fn uv(&mut self, tag: u64, value: u64) -> &mut Self {
        let mut field = Vec::with_capacity(10);
        put_uv(&mut field, value);
        self.bytes(tag, &field)
    }

    /// Adds a field that holds one signed number, zigzag.
    pub fn sv(&mut self, tag: u64, value: i64) -> &mut Self {
        let mut field = Vec::with_capacity(10);
        put_sv(&mut field, value);
        self.bytes(tag, &field)
    }

    /// The record's bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Calls `visit` with each field; `visit` returns whether it knew the tag.
///
/// # Errors
/// Corrupt on a descending tag or an unknown odd tag, and whatever `visit` says.
pub fn read_record<'a>(bytes: &'a [u8], what: &'static str, mut visit: impl FnMut(u64, &'a [u8]) -> Result<bool>) -> Result<()> {
    let mut reader = Reader::new(bytes, what);
    let mut last = 0;
    while !reader.is_empty() {
        let tag = reader.uv()?;
        if tag < last {
            return Err(reader.corrupt(format!("fields out of order: tag={tag}, before={last}")));
        }
        last = tag;
        let value = reader.bytes_max(bytes.len())?;
        if !visit(tag, value)? && tag % 2 == 1 {
            return Err(FormatError::Newer(format!("{what} has a field that must be understood: tag={tag}")));
        }
    }
    Ok(())
}

/// The one number that fills a field.
///
/// # Errors
/// Corrupt when it does not.
pub fn field_uv(value: &[u8], what: &'static str) -> Result<u64> {
    let mut reader = Reader::new(value, what);
    let number = reader.uv()?;
    reader.finish()?;
    Ok(number)
}

/// The one signed number that fills a field.
///
/// # Errors
/// Corrupt when it does not.
pub fn field_sv(value: &[u8], what: &'static str) -> Result<i64> {
    let mut reader = Reader::new(value, what);
    let number = reader.sv()?;
    reader.finish()?;
    Ok(number)
}

/// The array that fills a field.
///
/// # Errors
/// Corrupt when it does not.
pub fn field_array<const N: usize>(value: &[u8], what: &'static str) -> Result<[u8; N]> {
    let mut reader = Reader::new(value, what);
    let array = reader.array()?;
    reader.finish()?;
    Ok(array)
}

/// Text in a field.
///
/// # Errors
/// Corrupt when it is not UTF-8.
pub fn field_text(value: &[u8], what: &'static str) -> Result<String> {
    String::from_utf8(value.to_vec()).map_err(|_| FormatError::corrupt(what, "text is not utf-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_even_tags_are_skipped_and_odd_ones_refused() {
        let mut record = RecordWriter::new();
        record.uv(1, 7).bytes(4, b"later").sv(6, -3);
        let bytes = record.finish();
        let mut seen = Vec::new();
        read_record(&bytes, "test", |tag, value| {
            seen.push((tag, value.to_vec()));
            Ok(tag == 1)
        })
        .unwrap();
        assert_eq!(seen.len(), 3);
        let refused = read_record(&bytes, "test", |tag, _| Ok(tag != 1));
        assert!(matches!(refused, Err(FormatError::Newer(_))));
    }

    #[test]
    fn fields_out_of_order_are_refused() {
        let bytes = [4, 1, 0, 2, 1, 0];
        assert!(read_record(&bytes, "test", |_, _| Ok(true)).is_err());
    }
}
