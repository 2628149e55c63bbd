//! What opens a repository, from bytes; wiped when it goes, never printed.

use crate::errors::{raise, usage};
use longshore_engine::seams::World;
use longshore_engine::{Error, ErrorKind};
use longshore_format::keys::Unlock;
use pyo3::prelude::*;
use zeroize::{Zeroize, Zeroizing};

/// The secret of a key file, or a passphrase.
#[pyclass(frozen, module = "longshore._native")]
pub struct Key(pub Unlock);

#[pymethods]
impl Key {
    /// Reads the text of a key file.
    #[staticmethod]
    fn from_file_text(py: Python<'_>, text: &[u8]) -> PyResult<Self> {
        // What is in the file is no part of the message: it may be somebody's secret.
        let wrong = "key file is not one line of longshore-key-1: and 64 hexadecimal digits";
        std::str::from_utf8(text)
            .ok()
            .and_then(|text| Unlock::from_key_file(text).ok())
            .map(Self)
            .ok_or_else(|| usage(py, wrong, "name the file that was written when the repository was made"))
    }

    /// Takes 32 bytes.
    #[staticmethod]
    fn from_secret(py: Python<'_>, secret: &[u8]) -> PyResult<Self> {
        match <[u8; 32]>::try_from(secret) {
            Ok(mut bytes) => {
                let key = Self(Unlock::Secret(bytes));
                bytes.zeroize();
                Ok(key)
            }
            Err(_) => Err(usage(
                py,
                format!("a repository's secret is 32 bytes long: length_bytes={}", secret.len()),
                "hand over 32 random bytes",
            )),
        }
    }

    /// Takes a passphrase, as it is.
    #[staticmethod]
    fn from_passphrase(py: Python<'_>, passphrase: &[u8]) -> PyResult<Self> {
        if passphrase.is_empty() {
            return Err(usage(py, "passphrase is empty", "choose one that nobody guesses, or use a key file"));
        }
        Ok(Self(Unlock::Passphrase(passphrase.to_vec())))
    }

    /// A new secret from the system's randomness.
    #[staticmethod]
    fn generate() -> Self {
        let mut secret = World::system().salt();
        let key = Self(Unlock::Secret(secret));
        secret.zeroize();
        key
    }

    /// Whether it is a passphrase.
    #[getter]
    fn is_passphrase(&self) -> bool {
        matches!(self.0, Unlock::Passphrase(_))
    }

    /// The text of a key file that holds it.
    fn to_file_text(&self, py: Python<'_>) -> PyResult<String> {
        match &self.0 {
            Unlock::Secret(secret) => Ok(Zeroizing::new(Unlock::to_key_file(secret)).to_string()),
            Unlock::Passphrase(_) => Err(raise(py, &Error::new(ErrorKind::Usage, "a passphrase is not kept in a key file"))),
        }
    }

    fn __repr__(&self) -> &'static str {
        match &self.0 {
            Unlock::Secret(_) => "Key(secret=***)",
            Unlock::Passphrase(_) => "Key(passphrase=***)",
        }
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Key>()
}
