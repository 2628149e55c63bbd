//! Stores from settings, with their layers.
//!
//! A folder is made only when a repository is. Reading-only is a layer and not a promise. A job has a retry layer of its own, so that
//! cancelling it also ends its waiting for a store that does not answer; other calls give up after half a minute.

use crate::counts::of_stores;
use crate::errors::{raise, usage};
use longshore_engine::seams::World;
use longshore_engine::{Error, ErrorKind};
use longshore_store::cloud::{Checksum, CredentialsCell, Encryption, S3Settings, S3Store};
use longshore_store::layers::{Count, Limit, Limits, Permits, ReadOnly, Retry, RetrySettings};
use longshore_store::{LocalSettings, LocalStore, Store as _, StoreErrorKind};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Requests under way at once to one bucket, over all its jobs.
const S3_REQUESTS_MAX: usize = 32;
/// With how many of them it begins.
const S3_REQUESTS_FIRST: usize = 8;
const CALL_RETRY_BUDGET: Duration = Duration::from_secs(30);
/// Between two tries of such a call: within its budget there are ten at least, so that chance does not spend them.
const CALL_LONGEST_PAUSE: Duration = Duration::from_secs(3);

pub type Inner = Arc<dyn longshore_store::Store>;

enum Place {
    Folder {
        path: PathBuf,
        read_only: bool,
    },
    /// Requests go over one client however often it is opened.
    Bucket {
        client: Inner,
        credentials: CredentialsCell,
    },
}

/// Where a repository lies or will lie.
#[pyclass(frozen, module = "longshore._native")]
pub struct Store(Arc<Place>);

/// A store as a repository uses it.
#[derive(Clone)]
pub struct Opened {
    place: Arc<Place>,
    base: Inner,
    /// What all jobs together may send, fetch and ask, those of other repositories with the same limits included.
    limits: Limits,
}

impl Store {
    /// Opens it; a folder is made only with `create`.
    pub fn open(&self, create: bool, limits: Limits) -> impl FnOnce() -> Result<Opened, Error> + Send + 'static {
        let place = Arc::clone(&self.0);
        move || {
            let base = match &*place {
                Place::Folder { path, read_only } => {
                    let settings = LocalSettings { create: create && !read_only, read_only: *read_only };
                    let folder = LocalStore::open(path, settings).map_err(|error| match error.kind() {
                        StoreErrorKind::NotFound => Error::new(
                            ErrorKind::RepositoryNotFound,
                            format!("there is no repository here, the folder is absent: repository=file://{}", path.display()),
                        )
                        .with_next_step("check the address, or make one with: longshore repo init"),
                        _ => error.into(),
                    })?;
                    protect(Count::new(folder, of_stores()), *read_only)
                }
                Place::Bucket { client, .. } => Arc::clone(client),
            };
            Ok(Opened { place, base, limits })
        }
    }
}

fn protect(store: impl longshore_store::Store + 'static, read_only: bool) -> Inner {
    if read_only { Arc::new(ReadOnly::new(store)) } else { Arc::new(store) }
}

impl Opened {
    fn retrying(&self, settings: RetrySettings, cancelled: &Arc<AtomicBool>) -> Retry<Limit<Inner>> {
        let World { clock, rng, .. } = World::system();
        let limited = self.limits.of_requests(Arc::clone(&self.base));
        Retry::new(limited, settings, clock, rng).with_cancel(Arc::clone(cancelled))
    }

    /// What bounds it.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// For a call that somebody waits for.
    pub fn for_call(&self, cancelled: &Arc<AtomicBool>) -> Inner {
        let settings = RetrySettings { budget: CALL_RETRY_BUDGET, longest_pause: CALL_LONGEST_PAUSE, ..RetrySettings::default() };
        Arc::new(self.retrying(settings, cancelled))
    }

    /// For a job, which may ride out a quarter of an hour, and keeps to the rates.
    pub fn for_job(&self, cancelled: &Arc<AtomicBool>) -> Inner {
        let retrying = self.retrying(RetrySettings::default(), cancelled);
        let clock = World::system().clock;
        Arc::new(self.limits.of_traffic(retrying, clock).with_cancel(Arc::clone(cancelled)))
    }

    /// Threads that send: a folder's disk is busy with two, a bucket's latency wants more.
    pub fn upload_threads(&self) -> usize {
        match &*self.place {
            Place::Folder { .. } => 2,
            Place::Bucket { .. } => 8,
        }
    }

    /// Threads that fetch ahead of a restore's workers.
    pub fn fetch_threads(&self) -> usize {
        match &*self.place {
            Place::Folder { .. } => 1,
            Place::Bucket { .. } => 16,
        }
    }

    /// New credentials for running jobs too.
    pub fn set_credentials(&self, access_key: &str, secret_key: &str, session_token: Option<String>) -> Result<(), Error> {
        match &*self.place {
            Place::Bucket { credentials, .. } => {
                credentials.set(access_key, secret_key, session_token);
                Ok(())
            }
            Place::Folder { .. } => Err(Error::new(ErrorKind::Usage, "a folder takes no credentials")),
        }
    }
}

#[pymethods]
impl Store {
    /// A folder.
    #[staticmethod]
    #[pyo3(signature = (path, *, read_only))]
    fn folder(py: Python<'_>, path: PathBuf, read_only: bool) -> PyResult<Self> {
        if !path.is_absolute() {
            return Err(usage(
                py,
                format!("a repository's folder must be an absolute path: path={}", path.display()),
                "write file:///folder",
            ));
        }
        Ok(Self(Arc::new(Place::Folder { path, read_only })))
    }

    /// A bucket behind the S3 protocol. Sends no request.
    #[staticmethod]
    #[pyo3(signature = (*, bucket, prefix, region, endpoint_url, force_path_style, allow_http, insecure_skip_tls_verify, ca_cert_pem,
        server_side_encryption, kms_key_id, customer_key_base64, checksum_algorithm, read_only, credentials))]
    #[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "named on the Python side")]
    fn s3(
        py: Python<'_>,
        bucket: String,
        prefix: String,
        region: Option<String>,
        endpoint_url: Option<String>,
        force_path_style: bool,
        allow_http: bool,
        insecure_skip_tls_verify: bool,
        ca_cert_pem: Option<String>,
        server_side_encryption: Option<&str>,
        kms_key_id: Option<String>,
        customer_key_base64: Option<String>,
        checksum_algorithm: Option<&str>,
        read_only: bool,
        credentials: Option<(String, String, Option<String>)>,
    ) -> PyResult<Self> {
        let encryption = match (server_side_encryption.unwrap_or(""), kms_key_id, customer_key_base64) {
            (_, None, Some(key)) => Encryption::Customer(key),
            ("", None, None) => Encryption::Bucket,
            ("AES256", None, None) => Encryption::Server,
            ("" | "aws:kms", key, None) => Encryption::Kms(key),
            (other, ..) => {
                return Err(usage(
                    py,
                    format!("these kinds of server-side encryption do not go together: server_side_encryption={other:?}"),
                    "use AES256, or aws:kms with or without a key id, or a customer key alone",
                ));
            }
        };
        let checksum = match checksum_algorithm.unwrap_or("CRC64NVME").to_ascii_uppercase().as_str() {
            "CRC64NVME" => Checksum::Crc64Nvme,
            // Servers that know no CRC-64 are asked for what they all know.
            "CRC32" | "CRC32C" | "SHA1" | "SHA256" => Checksum::Sha256,
            "" | "NONE" => Checksum::None,
            other => {
                return Err(usage(
                    py,
                    format!("unknown checksum algorithm: checksum={other:?}"),
                    "use CRC64NVME, SHA256 or none",
                ));
            }
        };
        let cell = CredentialsCell::default();
        if let Some((access_key, secret_key, session_token)) = credentials {
            cell.set(access_key, secret_key, session_token);
        }
        let settings = S3Settings {
            endpoint: endpoint_url,
            region: region.unwrap_or_default(),
            bucket,
            prefix,
            force_path_style,
            allow_http,
            insecure_skip_tls_verify,
            ca_cert_pem: ca_cert_pem.map(String::into_bytes),
            encryption,
            checksum,
            credentials: cell.clone(),
            ..S3Settings::default()
        };
        let store = py.detach(|| S3Store::open(settings)).map_err(|error| raise(py, &error.into()))?;
        let permits = Permits::adaptive(S3_REQUESTS_FIRST, S3_REQUESTS_MAX);
        let client = protect(Limit::new(Count::new(store, of_stores()), permits), read_only);
        Ok(Self(Arc::new(Place::Bucket { client, credentials: cell })))
    }

    /// New credentials, for jobs that run too.
    fn set_credentials(&self, py: Python<'_>, access_key: &str, secret_key: &str, session_token: Option<String>) -> PyResult<()> {
        match &*self.0 {
            Place::Bucket { credentials, .. } => {
                credentials.set(access_key, secret_key, session_token);
                Ok(())
            }
            Place::Folder { .. } => Err(usage(py, "a folder takes no credentials", "leave them out")),
        }
    }

    fn __repr__(&self) -> String {
        match &*self.0 {
            Place::Folder { path, .. } => format!("Store(file://{})", path.display()),
            Place::Bucket { client, .. } => format!("Store({})", client.describe()),
        }
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Store>()
}
