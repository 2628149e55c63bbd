//! The one asynchronous runtime of the process, under the cloud stores; made at the first request.

use super::errors::Failure;
use crate::{StoreError, StoreErrorKind};
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();

/// Two threads drive all connections: TLS at 4 GB/s a core leaves them idle beside compression.
pub(super) fn get() -> Result<&'static Runtime, Failure> {
    let made = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("longshore-store")
            .enable_all()
            .build()
            .map_err(|e| e.to_string())
    });
    made.as_ref().map_err(|e| {
        Failure::from(StoreError::new(StoreErrorKind::Unavailable, format!("cannot start threads for requests: {e}")))
    })
}
