//! From a repository's URL to its store.

use crate::cloud::{S3Settings, S3Store};
use crate::{LocalSettings, LocalStore, Store, StoreError, StoreErrorKind};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a URL does not say.
#[derive(Clone, Debug, Default)]
pub struct OpenSettings {
    /// For a folder.
    pub local: LocalSettings,
    /// For a bucket; its `bucket` and `prefix` are taken from the URL.
    pub s3: S3Settings,
}

/// Opens `file:///folder`, `/folder` or `s3://bucket/prefix`, without any layer around it.
///
/// # Errors
/// [`StoreErrorKind::InvalidSettings`] if the URL or the settings make no sense, [`StoreErrorKind::Unsupported`] for a kind of store
/// that this version cannot use, else what opening it says.
pub fn open(url: &str, settings: &OpenSettings) -> Result<Arc<dyn Store>, StoreError> {
    let invalid = |message: &str| StoreError::new(StoreErrorKind::InvalidSettings, message.to_owned());
    if url.starts_with('/') {
        return Ok(Arc::new(LocalStore::open(url, settings.local)?));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(invalid("repository is no URL; write file:///folder, s3://bucket/prefix or an absolute path"));
    };
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        // Not repeated: it may hold a password.
        return Err(invalid("repository URL must not hold credentials, hand them in by a credentials file"));
    }
    match scheme {
        "file" => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(invalid("file URL must hold an absolute path: write file:///folder"));
            }
            let path =
                decode(path).ok_or_else(|| invalid("file URL holds a % that is not followed by two hex digits, or %00"))?;
            Ok(Arc::new(LocalStore::open(path, settings.local)?))
        }
        "s3" => {
            if rest.contains(['?', '#', '%']) {
                return Err(invalid("bucket URL may hold only a bucket and a prefix: write s3://bucket/prefix"));
            }
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let s3 = S3Settings { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..settings.s3.clone() };
            Ok(Arc::new(S3Store::open(s3)?))
        }
        "gs" | "az" => Err(StoreError::new(
            StoreErrorKind::Unsupported,
            format!(
                "this version cannot use stores of this kind yet; use s3:// (Google Cloud Storage speaks it too) or file://: kind={scheme}"
            ),
        )),
        _ => Err(StoreError::new(
            StoreErrorKind::InvalidSettings,
            format!("unknown kind of store; use file:// or s3://: kind={scheme:?}"),
        )),
    }
}

fn decode(text: &str) -> Option<PathBuf> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
            let decoded = u8::try_from(digit()? * 16 + digit()?).ok()?;
            out.push(decoded);
        } else {
            out.push(byte);
        }
    }
    (!out.contains(&0)).then(|| PathBuf::from(OsString::from_vec(out)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::CredentialsCell;

    fn kind(url: &str) -> Result<String, StoreErrorKind> {
        open(url, &OpenSettings::default()).map(|store| store.describe()).map_err(|e| e.kind())
    }

    #[test]
    fn opens_what_a_url_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("with space");
        let created =
            OpenSettings { local: LocalSettings { create: true, ..LocalSettings::default() }, ..OpenSettings::default() };
        open(&format!("file://{}/with%20space", folder.path().display()), &created).unwrap();
        assert!(path.is_dir());
        assert_eq!(kind(path.to_str().unwrap()).unwrap(), format!("file://{}", path.display()));
        assert_eq!(kind("s3://bucket/a/b/").unwrap(), "s3://bucket/a/b");
        assert_eq!(kind("s3://bucket").unwrap(), "s3://bucket/");
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for bad in [
            "",
            "repo",
            "file://relative",
            "file:///a%2",
            "file:///a%00b",
            "s3://",
            "s3:///prefix",
            "s3://bucket/a//b",
            "s3://bucket/../x",
            "s3://bucket?x=1",
            "s3://b u/x",
            "ftp://host/x",
        ] {
            assert_eq!(kind(bad), Err(StoreErrorKind::InvalidSettings), "{bad:?}");
        }
        assert_eq!(kind("gs://bucket"), Err(StoreErrorKind::Unsupported));
        assert_eq!(kind("az://container"), Err(StoreErrorKind::Unsupported));
        assert_eq!(kind("/no/such/folder"), Err(StoreErrorKind::NotFound));
    }

    #[test]
    fn tells_no_secret() {
        let error = open("s3://AKIAKEY:topsecret@bucket/x", &OpenSettings::default()).unwrap_err();
        assert!(!error.to_string().contains("topsecret") && !format!("{error:?}").contains("topsecret"));
        let credentials = CredentialsCell::new("AKIAKEY", "topsecret", Some("toptoken".to_owned()));
        let s3 = S3Settings {
            credentials,
            encryption: crate::cloud::Encryption::Customer("topkey".to_owned()),
            endpoint: Some("https://s3.example.org".to_owned()),
            ..S3Settings::default()
        };
        let settings = OpenSettings { s3, ..OpenSettings::default() };
        let text = format!("{settings:?} {:?}", open("s3://bucket/x", &settings));
        for secret in ["topsecret", "toptoken", "topkey", "AKIAKEY"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
