//! How to reach a bucket, checked before the first request.

use super::answers::Telling;
use super::credentials::CredentialsCell;
use crate::{StoreError, StoreErrorKind};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Encryption at rest that the server does, on top of the repository's own.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket is set.
    #[default]
    Bucket,
    /// With keys of the server (`AES256`).
    Server,
    /// With a key of the key service (`aws:kms`); `None`: the account's default key.
    Kms(Option<String>),
    /// With a key sent along, 32 bytes in base64.
    Customer(String),
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bucket => "bucket",
            Self::Server => "AES256",
            Self::Kms(_) => "aws:kms",
            Self::Customer(_) => "customer key",
        })
    }
}

/// What guards a body on its way up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-64/NVME, the S3 default: hardware speed.
    #[default]
    Crc64Nvme,
    /// SHA-256, for servers that know no CRC-64.
    Sha256,
    /// None but TLS or the signature, for servers that refuse the header.
    None,
}

/// How to reach a bucket.
#[derive(Clone)]
pub struct S3Settings {
    /// `https://host[:port]`; `None`: Amazon's for the region.
    pub endpoint: Option<String>,
    /// Region; servers other than Amazon's mostly take any.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Where in the bucket; slashes at its ends do not count.
    pub prefix: String,
    /// `host/bucket/key` instead of `bucket.host/key`. Always so for an endpoint that is an address and a bucket with a dot.
    pub force_path_style: bool,
    /// Allow an endpoint without TLS.
    pub allow_http: bool,
    /// Believe any certificate.
    pub insecure_skip_tls_verify: bool,
    /// Certificates to believe besides the system's, PEM.
    pub ca_cert_pem: Option<Vec<u8>>,
    /// Encryption at rest.
    pub encryption: Encryption,
    /// Guard of bodies on their way up.
    pub checksum: Checksum,
    /// Send requests without a signature: public buckets, read only.
    pub anonymous: bool,
    /// Renewed by whoever owns them.
    pub credentials: CredentialsCell,
    /// To reach the server at all.
    pub connect_timeout: Duration,
    /// To be answered, and between two parts of a body.
    pub request_timeout: Duration,
    /// A body may take its length divided by this, on top of `request_timeout`. Dead connections are noticed by TCP within 30 s.
    pub slowest_bytes_per_second: u64,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            bucket: String::new(),
            prefix: String::new(),
            force_path_style: false,
            allow_http: false,
            insecure_skip_tls_verify: false,
            ca_cert_pem: None,
            encryption: Encryption::default(),
            checksum: Checksum::default(),
            anonymous: false,
            credentials: CredentialsCell::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            slowest_bytes_per_second: 32 << 10,
        }
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("encryption", &self.encryption)
            .field("checksum", &self.checksum)
            .finish_non_exhaustive()
    }
}

fn invalid(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidSettings, message)
}

impl S3Settings {
    /// The prefix, empty or ending in a slash.
    pub(super) fn checked_prefix(&self) -> Result<String, StoreError> {
        let prefix = self.prefix.trim_matches('/');
        if prefix.is_empty() {
            return Ok(String::new());
        }
        let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"/!-_.'()=+@:, ".contains(&b));
        let whole = prefix.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !plain || !whole || prefix.len() > 700 {
            return Err(invalid(format!(
                "prefix is not usable, choose one of letters, digits and - _ . ( ) = + @ : , joined by single slashes: prefix={prefix:?}"
            )));
        }
        Ok(format!("{prefix}/"))
    }

    /// Scheme and authority of the endpoint with the bucket in its place, and whether it is before the host.
    fn address(&self) -> Result<(Option<String>, bool), StoreError> {
        let good = |b: u8| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-') || b.is_ascii_uppercase() || b == b'_'
        };
        if self.bucket.is_empty() || self.bucket.len() > 255 || !self.bucket.bytes().all(good) {
            return Err(invalid(format!("bucket has no valid name: bucket={:?}", self.bucket)));
        }
        let mut path_style =
            self.force_path_style || self.bucket.contains(['.', '_']) || self.bucket.bytes().any(|b| b.is_ascii_uppercase());
        let Some(endpoint) = &self.endpoint else { return Ok((None, !path_style)) };
        let endpoint = endpoint.trim_end_matches('/');
        let (scheme, authority) = endpoint.split_once("://").unwrap_or(("", endpoint));
        if authority.contains('@') {
            // Not repeated: it may hold a password.
            return Err(invalid("endpoint must not hold credentials, hand them in by a credentials file".to_owned()));
        }
        if !matches!(scheme, "http" | "https") || authority.is_empty() || authority.contains(['/', '?', '#', ' ']) {
            return Err(invalid(format!("endpoint is not of the form https://host[:port]: endpoint={endpoint:?}")));
        }
        if scheme == "http" && !self.allow_http {
            return Err(invalid(format!("endpoint has no TLS; use https, or allow http explicitly: endpoint={endpoint:?}")));
        }
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        path_style |= authority.starts_with('[') || host == "localhost" || IpAddr::from_str(host).is_ok();
        let whole = if path_style { endpoint.to_owned() } else { format!("{scheme}://{}.{authority}", self.bucket) };
        Ok((Some(whole), !path_style))
    }

    pub(super) fn client(&self) -> Result<AmazonS3, StoreError> {
        let (endpoint, virtual_hosted) = self.address()?;
        let tls = endpoint.as_deref().is_none_or(|e| e.starts_with("https://"));
        // No timeout of the client's own: its "total" knows no body length and its "read" runs while a body still goes up. The
        // store bounds every call instead.
        let mut options = ClientOptions::new()
            .with_http1_only()
            .with_allow_http(self.allow_http)
            .with_allow_invalid_certificates(self.insecure_skip_tls_verify)
            .with_connect_timeout(self.connect_timeout)
            .with_timeout_disabled()
            .with_read_timeout_disabled()
            // Servers close idle connections after some 20 s; reusing one that is just being closed costs a retry.
            .with_pool_idle_timeout(Duration::from_secs(15));
        if let Some(pem) = &self.ca_cert_pem {
            let certificates = Certificate::from_pem_bundle(pem)
                .map_err(|e| invalid("CA certificate is not valid PEM".to_owned()).with_source(e))?;
            for certificate in certificates {
                options = options.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(if self.region.is_empty() { "us-east-1" } else { &self.region })
            .with_virtual_hosted_style_request(virtual_hosted)
            .with_allow_http(self.allow_http)
            .with_client_options(options)
            .with_http_connector(Telling::default())
            .with_credentials(Arc::new(self.credentials.clone()))
            .with_skip_signature(self.anonymous)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_disable_bulk_delete(true)
            .with_unsigned_payload(tls)
            .with_retry(RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() });
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        match self.checksum {
            Checksum::Crc64Nvme => builder = builder.with_checksum_algorithm(object_store::aws::Checksum::CRC64NVME),
            Checksum::Sha256 => builder = builder.with_checksum_algorithm(object_store::aws::Checksum::SHA256),
            Checksum::None => {}
        }
        let key = |name: &str| {
            AmazonS3ConfigKey::from_str(name).map_err(|e| invalid(format!("unknown setting: name={name}")).with_source(e))
        };
        builder = match &self.encryption {
            Encryption::Bucket => builder,
            Encryption::Server => builder.with_config(key("aws_server_side_encryption")?, "AES256"),
            Encryption::Kms(Some(id)) => builder.with_sse_kms_encryption(id),
            Encryption::Kms(None) => builder.with_config(key("aws_server_side_encryption")?, "aws:kms"),
            Encryption::Customer(base64) => builder.with_ssec_encryption(base64),
        };
        builder
            .build()
            .map_err(|e| invalid(format!("settings of the bucket are not usable: bucket={}", self.bucket)).with_source(e))
    }
}
