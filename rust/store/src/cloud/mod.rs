//! A store in an S3 bucket.
//!
//! Promises: objects are made with `If-None-Match: *` and never replaced; one call is one request (a put of up to 5 GiB is one PUT, a
//! page of a listing one GET) and is not retried here; no call outlives its time limit, which grows with its body, so a slow
//! line is no error. Over TLS bodies are not hashed for the signature (0.66 CPU-s a GiB) but carry a CRC-64 that the server checks.
//! Credentials can be renewed while requests run. No message holds a secret.
//!
//! Does not know: whether the server honours create-only; [`probe`](crate::probe) asks it.

mod answers;
mod credentials;
mod errors;
mod runtime;
mod settings;
#[cfg(test)]
mod tests;

pub use credentials::CredentialsCell;
pub use settings::{Checksum, Encryption, S3Settings};

use crate::{Entry, Key, Page, Put, Store, StoreError, StoreErrorKind};
use bytes::{Bytes, BytesMut};
use errors::{Failure, What};
use futures_util::StreamExt;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::future::Future;
use std::time::Duration;

/// Ten million objects that are none of ours below one prefix, or a server that never ends.
const STRANGE_PAGES_MAX: usize = 10_000;
/// The most keys that S3 puts on one page.
const PAGE_KEYS_MAX: usize = 1000;

/// A bucket, or a prefix in one.
pub struct S3Store {
    client: AmazonS3,
    settings: S3Settings,
    /// Empty, or ends in a slash.
    prefix: String,
}

impl S3Store {
    /// Prepares requests to the bucket of `settings`; sends none.
    ///
    /// # Errors
    /// [`StoreErrorKind::InvalidSettings`] naming what is wrong.
    pub fn open(settings: S3Settings) -> Result<Self, StoreError> {
        let client = settings.client()?;
        let prefix = settings.checked_prefix()?;
        Ok(Self { client, settings, prefix })
    }

    fn path(&self, key: &Key) -> Result<Path, StoreError> {
        Path::parse(format!("{}{key}", self.prefix))
            .map_err(|e| StoreError::new(StoreErrorKind::InvalidKey, format!("not a valid object key: key={key}")).with_source(e))
    }

    /// The time that a request with a body of `bytes` may take.
    fn patience(&self, bytes: u64) -> Duration {
        self.settings.request_timeout + Duration::from_secs(bytes / self.settings.slowest_bytes_per_second.max(1))
    }

    fn ask<T>(
        &self,
        what: What<'_>,
        patience: Duration,
        request: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Failure> {
        let generation = self.settings.credentials.generation();
        let answer = runtime::get()?.block_on(async { tokio::time::timeout(patience, request).await });
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let renewed = self.settings.credentials.generation() != generation;
                Err(errors::sort(&error, what, renewed, &self.describe()))
            }
            Err(_) => Err(errors::timed_out(what, patience, &self.describe())),
        }
    }

    /// Opens an object, checks its length by `check`, then reads it.
    fn read(
        &self,
        key: &Key,
        range: Option<GetRange>,
        check: impl FnOnce(u64) -> Result<u64, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let (path, what) = (self.path(key)?, What { verb: "GET", at: key.as_str() });
        let options = GetOptions { range, ..GetOptions::default() };
        let answer = self.ask(what, self.settings.request_timeout, self.client.get_opts(&path, options))?;
        let length = check(answer.range.end.saturating_sub(answer.range.start))?;
        let capacity = usize::try_from(length.min(64 << 20)).unwrap_or(0);
        let idle = self.settings.request_timeout;
        let body = self.ask(what, self.patience(length), async move {
            let mut stream = answer.into_stream();
            let mut body = BytesMut::with_capacity(capacity);
            loop {
                match tokio::time::timeout(idle, stream.next()).await {
                    Ok(Some(part)) => body.extend_from_slice(&part?),
                    Ok(None) => return Ok(body.freeze()),
                    Err(e) => return Err(object_store::Error::Generic { store: "S3", source: Box::new(e) }),
                }
            }
        })?;
        if body.len() as u64 != length {
            return Err(StoreError::new(
                StoreErrorKind::Truncated,
                format!(
                    "body has not the length that was announced: key={key}, size_bytes={}, announced_bytes={length}",
                    body.len()
                ),
            ));
        }
        Ok(body)
    }
}

impl Store for S3Store {
    fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let (path, what) = (self.path(key)?, What { verb: "PUT", at: key.as_str() });
        let patience = self.patience(body.len() as u64);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.ask(what, patience, self.client.put_opts(&path, PutPayload::from(body), options)) {
            Ok(_) => Ok(Put::Created),
            // 304 is what some servers say instead of 412.
            Err(failure) if matches!(failure.status, Some(412 | 304)) => Ok(Put::Exists),
            // Another put or delete of this key is under way and may yet fail: the object is there only if it is there.
            Err(failure) if failure.status == Some(409) => match self.head(key) {
                Ok(_) => Ok(Put::Exists),
                Err(e) if e.kind() == StoreErrorKind::NotFound => Err(failure.error),
                Err(e) => Err(e),
            },
            // An answer that cannot be understood says nothing of the effect.
            Err(failure) if failure.unclear => Err(StoreError::new(StoreErrorKind::Unavailable, failure.error.to_string())),
            Err(failure) => Err(failure.error),
        }
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.read(key, None, |size_bytes| {
            if size_bytes > limit_bytes {
                return Err(StoreError::new(
                    StoreErrorKind::TooLarge,
                    format!("object is longer than its limit: key={key}, size_bytes={size_bytes}, limit_bytes={limit_bytes}"),
                ));
            }
            Ok(size_bytes)
        })
    }

    fn get_range(&self, key: &Key, offset_bytes: u64, length_bytes: u64) -> Result<Bytes, StoreError> {
        let cut = |size: String| {
            StoreError::new(
                StoreErrorKind::Truncated,
                format!(
                    "object ends before the range: key={key}, offset_bytes={offset_bytes}, length_bytes={length_bytes}{size}"
                ),
            )
        };
        let Some(end) = offset_bytes.checked_add(length_bytes).filter(|&end| i64::try_from(end).is_ok()) else {
            // No object is so long; but an absent one is to be told as absent.
            self.head(key)?;
            return Err(cut(String::new()));
        };
        if length_bytes == 0 {
            // HTTP cannot ask for nothing.
            let size = self.head(key)?;
            return if offset_bytes <= size { Ok(Bytes::new()) } else { Err(cut(format!(", size_bytes={size}"))) };
        }
        self.read(key, Some(GetRange::Bounded(offset_bytes..end)), |got| {
            if got == length_bytes { Ok(got) } else { Err(cut(String::new())) }
        })
    }

    fn head(&self, key: &Key) -> Result<u64, StoreError> {
        let (path, what) = (self.path(key)?, What { verb: "HEAD", at: key.as_str() });
        match self.ask(what, self.settings.request_timeout, self.client.head(&path)) {
            Ok(meta) => Ok(meta.size),
            // Answers to HEAD have no body, so an expired token looks like any refusal, and an unknown key or bucket may look like an
            // absent object. A GET is told why.
            Err(failure) if matches!(failure.status, Some(400 | 403 | 404)) => {
                let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
                let what = What { verb: "GET", at: key.as_str() };
                match self.ask(what, self.settings.request_timeout, self.client.get_opts(&path, options)) {
                    Ok(answer) => Ok(answer.meta.size),
                    Err(failure) if failure.status == Some(416) => Ok(0),
                    Err(failure) => Err(failure.error),
                }
            }
            Err(failure) => Err(failure.error),
        }
    }

    fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        Key::check_prefix(prefix)?;
        let what = What { verb: "LIST", at: prefix };
        let whole = format!("{}{prefix}", self.prefix);
        let start = after.map(|after| format!("{}{after}", self.prefix));
        let mut last: Option<Key> = after.cloned();
        let mut page_token = None;
        for _ in 0..STRANGE_PAGES_MAX {
            let options = PaginatedListOptions {
                offset: start.clone(),
                max_keys: Some(limit.clamp(1, PAGE_KEYS_MAX)),
                page_token,
                ..PaginatedListOptions::default()
            };
            let scope = (!whole.is_empty()).then_some(whole.as_str());
            let answer = self.ask(what, self.settings.request_timeout, self.client.list_paginated(scope, options))?;
            let mut entries = Vec::with_capacity(answer.result.objects.len());
            for object in answer.result.objects {
                let name = object.location.as_ref().strip_prefix(&self.prefix);
                // A stranger's object, or a folder marker.
                let Some(key) = name.filter(|name| name.starts_with(prefix)).and_then(|name| Key::new(name).ok()) else {
                    continue;
                };
                if last.as_ref().is_some_and(|last| key <= *last) {
                    // A listing that repeats or goes back would end never, or show less than there is.
                    return Err(StoreError::new(
                        StoreErrorKind::Unsupported,
                        format!(
                            "store does not list in order of keys, choose another: key={key}, prefix={prefix}, store={}",
                            self.describe()
                        ),
                    ));
                }
                last = Some(key.clone());
                entries.push(Entry { key, size_bytes: object.size });
            }
            page_token = answer.page_token.filter(|token| !token.is_empty());
            // A page of nothing but strangers has no last key to go on from: ask for the next here.
            if !entries.is_empty() || page_token.is_none() {
                return Ok(Page { entries, more: page_token.is_some() });
            }
        }
        Err(StoreError::new(
            StoreErrorKind::Io,
            format!("listing goes on without end: prefix={prefix}, store={}", self.describe()),
        ))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let (path, what) = (self.path(key)?, What { verb: "DELETE", at: key.as_str() });
        match self.ask(what, self.settings.request_timeout, self.client.delete(&path)) {
            Ok(()) => Ok(()),
            Err(failure) if failure.error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }

    fn describe(&self) -> String {
        let at = self.settings.endpoint.as_deref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        format!("s3://{}/{}{at}", self.settings.bucket, self.prefix.trim_end_matches('/'))
    }
}

impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Store").field("at", &self.describe()).finish_non_exhaustive()
    }
}
