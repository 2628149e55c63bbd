//! Failures of requests, sorted by what the caller does next.

use super::answers::ServerAnswer;
use super::credentials::NoCredentials;
use crate::{StoreError, StoreErrorKind};
use object_store::client::HttpError;
use std::error::Error;
use std::time::Duration;

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct What<'a> {
    pub(super) verb: &'static str,
    /// Key or prefix.
    pub(super) at: &'a str,
}

/// An error, and what decides special cases.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) status: Option<u16>,
    /// The server answered, but not in a way that says whether it did what it was asked.
    pub(super) unclear: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, status: None, unclear: false }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Sorts an error of the client library. `renewed`: credentials changed while the request ran.
pub(super) fn sort(error: &object_store::Error, what: What<'_>, renewed: bool, store: &str) -> Failure {
    let What { verb, at } = what;
    let mut chain: Option<&(dyn Error + 'static)> = Some(error);
    let mut transport = false;
    let mut innermost = String::new();
    while let Some(link) = chain {
        if let Some(answer) = link.downcast_ref::<ServerAnswer>() {
            let (kind, advice) = judge(answer, verb, renewed);
            let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
            let text = format!("store refused a request{advice}: verb={verb}, key={at}, {answer}, store={store}");
            let error = StoreError::new(kind, text).with_retry_after(answer.retry_after);
            return Failure { error, status: Some(answer.status), unclear: false };
        }
        if link.is::<NoCredentials>() {
            return StoreError::new(StoreErrorKind::Denied, format!("{link}: verb={verb}, key={at}, store={store}")).into();
        }
        transport |= link.is::<HttpError>() || link.is::<tokio::time::error::Elapsed>();
        innermost = link.to_string();
        chain = link.source();
    }
    if innermost.contains("invalid peer certificate") {
        let text =
            format!("certificate of the store is not trusted; name its CA: {innermost}: verb={verb}, key={at}, store={store}");
        return StoreError::new(StoreErrorKind::InvalidSettings, text).into();
    }
    if transport {
        let text = format!("store does not answer: {innermost}: verb={verb}, key={at}, store={store}");
        return StoreError::new(StoreErrorKind::Unavailable, text).into();
    }
    let text = format!("store gave an answer that makes no sense: {innermost}: verb={verb}, key={at}, store={store}");
    Failure { error: StoreError::new(StoreErrorKind::Io, text), status: None, unclear: true }
}

/// A request that took too long.
pub(super) fn timed_out(what: What<'_>, patience: Duration, store: &str) -> Failure {
    let What { verb, at } = what;
    let text =
        format!("store does not answer in time: verb={verb}, key={at}, patience_seconds={}, store={store}", patience.as_secs());
    StoreError::new(StoreErrorKind::Unavailable, text).into()
}

fn judge(answer: &ServerAnswer, verb: &str, renewed: bool) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind as Kind;
    // By code first: servers differ in the status they send with it.
    match answer.code.as_str() {
        // New ones are on their way; until then this is an outage.
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
            return (Kind::Unavailable, "credentials have expired and wait for renewal");
        }
        "RequestTimeTooSkewed" => return (Kind::Denied, "clock of this machine and that of the store differ, set it"),
        "SlowDown"
        | "RequestTimeout"
        | "InternalError"
        | "ServiceUnavailable"
        | "OperationAborted"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded" => return (Kind::Unavailable, ""),
        // The body was damaged on its way; another try sends it again.
        "BadDigest" | "IncompleteBody" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            return (Kind::Unavailable, "body was damaged on its way");
        }
        // Some servers send these with 404, which must not read as an absent object.
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "AccountProblem"
        | "AllAccessDisabled" => {
            return match (renewed, verb) {
                (true, _) => (Kind::Unavailable, "credentials were renewed meanwhile"),
                (false, "DELETE") => (Kind::Denied, "check the credentials and whether they may delete"),
                (false, _) => (Kind::Denied, "check the credentials and what they may do"),
            };
        }
        "NoSuchBucket" => return (Kind::InvalidSettings, "make the bucket, or name another"),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            return (Kind::InvalidSettings, "check the region");
        }
        "InvalidBucketName" => return (Kind::InvalidSettings, ""),
        "QuotaExceeded"
        | "ServiceQuotaExceeded"
        | "StorageLimitExceeded"
        | "InsufficientStorage"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientCapacity" => return (Kind::NoSpace, "make room, or raise the quota"),
        "NotImplemented" | "MethodNotAllowed" => return (Kind::Unsupported, "store cannot do this, choose another"),
        "EntityTooLarge" => return (Kind::Unsupported, "store takes no object of this size"),
        _ => {}
    }
    match answer.status {
        404 if matches!(answer.code.as_str(), "" | "NoSuchKey" | "NotFound" | "NoSuchVersion") => (Kind::NotFound, ""),
        // Something else is absent, the user of the access key say; it must not read as an absent object.
        404 if renewed => (Kind::Unavailable, "credentials were renewed meanwhile"),
        404 => (Kind::Denied, "check the credentials and what they may do"),
        401 | 403 if renewed => (Kind::Unavailable, "credentials were renewed meanwhile"),
        401 | 403 if verb == "DELETE" => (Kind::Denied, "credentials may not delete"),
        401 | 403 => (Kind::Denied, "check the credentials and what they may do"),
        416 => (Kind::Truncated, ""),
        // A conflict is another request under way.
        408 | 409 | 425 | 429 => (Kind::Unavailable, ""),
        301 | 302 | 307 | 308 => (Kind::InvalidSettings, "check endpoint and region"),
        405 | 501 => (Kind::Unsupported, "store cannot do this, choose another"),
        507 => (Kind::NoSpace, "make room, or raise the quota"),
        500..=599 => (Kind::Unavailable, ""),
        _ => (Kind::Io, ""),
    }
}
