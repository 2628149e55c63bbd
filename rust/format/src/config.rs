//! The configuration of a repository: docs/format.md chapter 5.

use crate::envelope::Codec;
use crate::id::RepositoryId;
use crate::record::{RecordWriter, field_sv, field_text, field_uv, read_record};
use crate::seal::{self, ObjectType};
use crate::wire::{Reader, put_uv};
use crate::{FormatError, KNOWN_FEATURES, Keys, Result, limits};

/// How files are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The cutter's number. Readers need none; who writes must know it.
    pub cutter: u64,
    /// Smallest chunk in bytes, but for the last of a run.
    pub size_bytes_min: u32,
    /// Usual chunk in bytes, a power of two.
    pub size_bytes_usual: u32,
    /// Largest chunk in bytes.
    pub size_bytes_max: u32,
}

impl Default for Cut {
    fn default() -> Self {
        Self { cutter: CUTTER_SIEVE, size_bytes_min: 64 << 10, size_bytes_usual: 256 << 10, size_bytes_max: 1 << 20 }
    }
}

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its number; the highest holds.
    pub number: u32,
    /// The repository.
    pub repository: RepositoryId,
    /// How files are cut.
    pub cut: Cut,
    /// When the repository was made, nanoseconds; for people.
    pub created_nanos: i64,
    /// Program and version that made it.
    pub program: String,
}

/// What a configuration says without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigClear {
    /// The format version of the repository; proven when the configuration is opened.
    pub version: u8,
    /// Its number.
    pub number: u32,
    /// The repository.
    pub repository: RepositoryId,
}

/// The cutter of docs/format.md chapter 14.
pub const CUTTER_SIEVE: u64 = 2;

/// The store key of configuration `number`.
#[must_use]
pub fn config_key(number: u32) -> String {
    format!("config/{number:08x}")
}

impl Config {
    /// Seals it; the bytes go under [`config_key`].
    ///
    /// # Errors
    /// `Library`.
    pub fn encode(&self, keys: &Keys, salt: [u8; 32], codec: &mut Codec) -> Result<Vec<u8>> {
        let mut clear = self.number.to_le_bytes().to_vec();
        put_uv(&mut clear, 0);
        put_uv(&mut clear, 0);
        let mut record = RecordWriter::new();
        record.uv(1, self.cut.cutter).bytes(2, &self.created_nanos_field()).uv(3, u64::from(self.cut.size_bytes_min));
        record
            .bytes(4, self.program.as_bytes())
            .uv(5, u64::from(self.cut.size_bytes_usual))
            .uv(7, u64::from(self.cut.size_bytes_max));
        seal::seal_object(keys, ObjectType::Config, &config_key(self.number), salt, &clear, &record.finish(), codec)
    }

    fn created_nanos_field(&self) -> Vec<u8> {
        let mut out = Vec::new();
        crate::wire::put_sv(&mut out, self.created_nanos);
        out
    }

    /// Opens configuration `number`.
    ///
    /// # Errors
    /// `WrongKey`, Corrupt, Newer.
    pub fn decode(keys: &Keys, number: u32, bytes: &[u8], codec: &mut Codec) -> Result<Self> {
        let clear = read_config_clear(number, bytes)?;
        let payload = seal::open_object(keys, ObjectType::Config, &config_key(number), bytes, limits::RECORD_BYTES_MAX, codec)?;
        let (mut cutter, mut min, mut usual, mut max) = (0, 0, 0, 0);
        let mut config =
            Self { number, repository: clear.repository, cut: Cut::default(), created_nanos: 0, program: String::new() };
        read_record(&payload, "configuration", |tag, value| {
            match tag {
                1 => cutter = field_uv(value, "cutter")?,
                2 => config.created_nanos = field_sv(value, "time")?,
                3 => min = field_uv(value, "chunk size")?,
                4 => config.program = field_text(value, "program")?,
                5 => usual = field_uv(value, "chunk size")?,
                7 => max = field_uv(value, "chunk size")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let sane =
            min >= 4096 && min <= usual && usual <= max && max <= limits::CHUNK_BYTES_MAX as u64 && usual.is_power_of_two();
        if !sane {
            return Err(FormatError::corrupt(
                "configuration",
                format!("chunk sizes are out of order: min={min}, usual={usual}, max={max}"),
            ));
        }
        config.cut = Cut { cutter, size_bytes_min: min as u32, size_bytes_usual: usual as u32, size_bytes_max: max as u32 };
        Ok(config)
    }
}

/// Reads what a configuration says without a key, and refuses features that this version does not know.
///
/// # Errors
/// Corrupt, Newer.
pub fn read_config_clear(number: u32, bytes: &[u8]) -> Result<ConfigClear> {
    let clear = seal::read_clear(ObjectType::Config, bytes)?;
    let mut reader = Reader::new(clear.clear, "configuration");
    if reader.u32()? != number {
        return Err(reader.corrupt("it lies under another number"));
    }
    for _ in 0..reader.len_max(1024)? {
        let feature = reader.u16()?;
        if !KNOWN_FEATURES.contains(&feature) {
            return Err(FormatError::Newer(format!("feature is unknown: feature={feature}")));
        }
    }
    for _ in 0..reader.len_max(1024)? {
        reader.u16()?;
    }
    reader.finish()?;
    Ok(ConfigClear { version: clear.version, number, repository: clear.repository })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKey;

    #[test]
    fn configuration_round_trips_and_a_required_feature_is_refused() {
        let keys = Keys::derive(&MasterKey::new([1; 32]), RepositoryId([2; 16]));
        let mut codec = Codec::new().unwrap();
        let mut config = Config {
            number: 3,
            repository: RepositoryId([2; 16]),
            cut: Cut::default(),
            created_nanos: -5,
            program: "longshore 0".into(),
        };
        let bytes = config.encode(&keys, [1; 32], &mut codec).unwrap();
        assert_eq!(Config::decode(&keys, 3, &bytes, &mut codec).unwrap(), config);
        assert!(Config::decode(&keys, 4, &bytes, &mut codec).is_err());
        config.cut.cutter = 77;
        let bytes = config.encode(&keys, [1; 32], &mut codec).unwrap();
        assert_eq!(Config::decode(&keys, 3, &bytes, &mut codec).unwrap().cut.cutter, 77, "who only reads needs no cutter");
        let mut clear = 3u32.to_le_bytes().to_vec();
        clear.extend_from_slice(&[1, 1, 0, 0]);
        let newer = seal::seal_object(&keys, ObjectType::Config, "config/00000003", [1; 32], &clear, b"", &mut codec).unwrap();
        assert!(matches!(read_config_clear(3, &newer), Err(FormatError::Newer(_))));
    }
}
