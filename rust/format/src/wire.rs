//! Integers and byte strings on the wire: docs/format.md chapter 1.
//!
//! [`Reader`] never reads past its slice and never allocates; writers append to a `Vec<u8>`.

use crate::{FormatError, Result};

/// Appends an unsigned LEB128 number.
pub fn put_uv(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zigzag number.
pub fn put_sv(out: &mut Vec<u8>, value: i64) {
    put_uv(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uv(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads structures from a slice, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`; `what` names the structure in errors.
    #[must_use]
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// An error about the structure being read.
    #[must_use]
    pub fn corrupt(&self, why: impl Into<String>) -> FormatError {
        FormatError::corrupt(self.what, why)
    }

    /// Whether all was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Corrupt when there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.rest.len() {
            return Err(self.corrupt(format!("ends too early: wanted_bytes={count}, left_bytes={}", self.rest.len())));
        }
        let (head, tail) = self.rest.split_at(count);
        self.rest = tail;
        Ok(head)
    }

    /// The next bytes as an array.
    ///
    /// # Errors
    /// Corrupt when there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// Corrupt at the end.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A 16-bit number.
    ///
    /// # Errors
    /// Corrupt at the end.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32-bit number.
    ///
    /// # Errors
    /// Corrupt at the end.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit number.
    ///
    /// # Errors
    /// Corrupt at the end.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A LEB128 number, refused when longer than needed.
    ///
    /// # Errors
    /// Corrupt when it does not end, overflows or is not minimal.
    pub fn uv(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for i in 0..10 {
            let byte = self.u8()?;
            if i == 9 && byte > 1 {
                return Err(self.corrupt("number overflows 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                if byte == 0 && i > 0 {
                    return Err(self.corrupt("number is longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("number does not end"))
    }

    /// A LEB128 number that must not exceed `limit`.
    ///
    /// # Errors
    /// As [`Reader::uv`], and `TooLarge`.
    pub fn uv_max(&mut self, limit: u64) -> Result<u64> {
        let value = self.uv()?;
        if value > limit {
            return Err(FormatError::TooLarge { what: self.what, size: value, limit });
        }
        Ok(value)
    }

    /// The same for lengths and counts in memory.
    ///
    /// # Errors
    /// As [`Reader::uv_max`].
    pub fn len_max(&mut self, limit: usize) -> Result<usize> {
        Ok(self.uv_max(limit as u64)? as usize)
    }

    /// A 32-bit number written as LEB128.
    ///
    /// # Errors
    /// As [`Reader::uv_max`].
    pub fn uv32(&mut self) -> Result<u32> {
        Ok(self.uv_max(u64::from(u32::MAX))? as u32)
    }

    /// A zigzag number.
    ///
    /// # Errors
    /// As [`Reader::uv`].
    pub fn sv(&mut self) -> Result<i64> {
        let raw = self.uv()?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    /// A byte string of at most `limit` bytes.
    ///
    /// # Errors
    /// Corrupt or `TooLarge`.
    pub fn bytes_max(&mut self, limit: usize) -> Result<&'a [u8]> {
        let length = self.len_max(limit)?;
        self.take(length)
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// Corrupt when something is.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt(format!("bytes left over: left_bytes={}", self.rest.len()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(a: u64, b: i64, s: Vec<u8>) {
            let mut out = Vec::new();
            put_uv(&mut out, a);
            put_sv(&mut out, b);
            put_bytes(&mut out, &s);
            let mut reader = Reader::new(&out, "test");
            prop_assert_eq!(reader.uv().unwrap(), a);
            prop_assert_eq!(reader.sv().unwrap(), b);
            prop_assert_eq!(reader.bytes_max(1 << 20).unwrap(), &s[..]);
            reader.finish().unwrap();
        }

        #[test]
        fn what_is_read_is_what_would_be_written(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes, "test");
            if let Ok(value) = reader.uv() {
                let mut again = Vec::new();
                put_uv(&mut again, value);
                prop_assert_eq!(&bytes[..bytes.len() - reader.rest().len()], &again[..]);
            }
        }
    }

    #[test]
    fn refuses_what_is_too_long_or_too_large() {
        assert!(Reader::new(&[0x80, 0x00], "test").uv().is_err());
        assert!(Reader::new(&[0xff; 10], "test").uv().is_err());
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "test").uv().unwrap(), u64::MAX);
        assert!(Reader::new(&[5, 1, 2], "test").bytes_max(10).is_err());
        assert!(Reader::new(&[5, 1, 2, 3, 4, 5], "test").bytes_max(4).is_err());
    }
}
