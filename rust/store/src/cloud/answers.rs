//! What the server answered, kept whole enough to decide by.
//!
//! The client library folds status codes into a few kinds (409 becomes "already exists", 400 and 503 one and the same). So every
//! answer but success is turned here into a [`ServerAnswer`], before the library sees it, and found again in the error's chain.

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use std::fmt;
use std::time::Duration;

/// More of an error's text is not read: it may be a page of HTML, or endless.
const BODY_BYTES_MAX: usize = 16 << 10;
/// A page of 1000 keys of 1024 bytes, each byte escaped, with room.
const LISTING_BYTES_MAX: usize = 16 << 20;
const MESSAGE_CHARS_MAX: usize = 200;

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerAnswer {
    /// HTTP status.
    pub(super) status: u16,
    /// S3's code, or empty.
    pub(super) code: String,
    /// S3's message, or empty.
    pub(super) message: String,
    /// How long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl ServerAnswer {
    /// Takes code and message from S3's XML; all else may hold an echo of the request, signature included.
    pub(super) fn parse(status: u16, body: &str) -> Self {
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            let (text, _) = rest.split_once(&format!("</{name}>"))?;
            Some(text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect::<String>())
        };
        Self {
            status,
            code: element("Code").unwrap_or_default(),
            message: element("Message").unwrap_or_default(),
            retry_after: None,
        }
    }
}

impl fmt::Display for ServerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status={}, code={}, message={:?}", self.status, self.code, self.message)
    }
}

impl std::error::Error for ServerAnswer {}

/// Makes clients whose failures tell all.
#[derive(Debug, Default)]
pub(super) struct Telling(ReqwestConnector);

impl HttpConnector for Telling {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(TellingService(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct TellingService(HttpClient);

#[async_trait]
impl HttpService for TellingService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let listing = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "list-type=2"));
        let response = self.0.execute(request).await?;
        let status = response.status();
        if status.is_success() && !listing {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let limit = if status.is_success() { LISTING_BYTES_MAX } else { BODY_BYTES_MAX };
        let mut stream = body.bytes_stream();
        let mut body = Vec::new();
        while let Some(part) = stream.next().await {
            match part {
                Ok(part) => body.extend_from_slice(&part[..part.len().min(limit - body.len())]),
                // A page cut on the way is no page; the text of a refusal is only read for its code.
                Err(e) if status.is_success() => return Err(e),
                Err(_) => break,
            }
            if body.len() == limit {
                break;
            }
        }
        if status.is_success() && is_whole_page(&String::from_utf8_lossy(&body)) {
            return Ok(HttpResponse::from_parts(parts, bytes::Bytes::from(body).into()));
        }
        // The other form of the header, a date, would need the server's clock.
        let retry_after = parts.headers.get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut answer = ServerAnswer::parse(status.as_u16(), &String::from_utf8_lossy(&body));
        answer.retry_after = retry_after.map(Duration::from_secs);
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// Whether this is a listing, whole, and says how to go on when there is more. The client library takes any XML, a proxy's login page
/// too, for an empty listing; and an empty listing is what data is deleted by.
fn is_whole_page(text: &str) -> bool {
    let truncated = text.contains("<IsTruncated>true</IsTruncated>");
    let page = text.contains("<ListBucketResult") && text.trim_end().ends_with("</ListBucketResult>");
    page && (!truncated || text.contains("<NextContinuationToken>"))
}
