//! What a real server does not do on demand: a scripted one says it. The conformance suite runs on a real one in `tests/s3.rs`.

use super::*;
use crate::layers::{Retry, RetrySettings};
use crate::{SeededRng, SystemClock};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One answer: a status, headers, a body; or nothing but silence or a closed connection.
#[derive(Clone)]
enum Say {
    Answer(u16, &'static str, &'static str),
    /// Announces a longer body than it sends.
    Cut(&'static str),
    Hang,
    Close,
}

struct Server {
    settings: S3Settings,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers the n-th request with the n-th line of `script`, and all later ones with its last. `on_request` runs before the answer.
    fn start(script: Vec<Say>, on_request: impl Fn(usize, &CredentialsCell) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let credentials = CredentialsCell::new("AKIAKEY", "topsecret", None);
        let settings = S3Settings {
            endpoint: Some(endpoint),
            bucket: "bucket".to_owned(),
            prefix: "pre/fix".to_owned(),
            allow_http: true,
            credentials: credentials.clone(),
            request_timeout: Duration::from_millis(700),
            ..S3Settings::default()
        };
        let log = seen.clone();
        std::thread::spawn(move || {
            let mut count = 0;
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                serve(stream, &script, &mut count, &log, &credentials, &on_request);
            }
        });
        Self { settings, seen }
    }

    fn store(&self) -> S3Store {
        S3Store::open(self.settings.clone()).unwrap()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

// One request a connection: simple, and a client must bear it.
fn serve(
    stream: TcpStream,
    script: &[Say],
    count: &mut usize,
    log: &Mutex<Vec<String>>,
    credentials: &CredentialsCell,
    on_request: &impl Fn(usize, &CredentialsCell),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let say = script.get(*count).or(script.last()).unwrap().clone();
    log.lock().unwrap().push(head);
    on_request(*count, credentials);
    *count += 1;
    let mut stream = stream;
    match say {
        Say::Answer(status, headers, body) => {
            let length =
                if headers.contains("Content-Length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let _ = write!(stream, "HTTP/1.1 {status} X\r\n{length}Connection: close\r\n{headers}\r\n{body}");
        }
        Say::Cut(body) => {
            let _ = write!(
                stream,
                "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\nETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n{body}",
                body.len() + 10
            );
        }
        // Held open on a thread of its own, so that the next request is served.
        Say::Hang => drop(std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(5));
            drop(stream);
        })),
        Say::Close => {}
    }
}

const OBJECT: &str = "ETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";

fn key() -> Key {
    Key::new("packs/p").unwrap()
}

fn put(script: Vec<Say>) -> (Result<Put, StoreErrorKind>, usize, String) {
    let server = Server::start(script, |_, _| {});
    let result = server.store().put_new(&key(), Bytes::from_static(b"body"));
    let text = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    (result.map_err(|e| e.kind()), server.seen().len(), text)
}

fn refusal(status: u16, code: &'static str) -> Say {
    let body = format!("<Error><Code>{code}</Code><Message>why</Message><StringToSign>topsecret</StringToSign></Error>");
    Say::Answer(status, "", body.leak())
}

#[test]
fn a_put_is_one_conditional_request_with_a_checksum() {
    let server = Server::start(vec![Say::Answer(200, OBJECT, "")], |_, _| {});
    assert_eq!(server.store().put_new(&key(), Bytes::from_static(b"body")).unwrap(), Put::Created);
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    let head = seen[0].to_ascii_lowercase();
    assert!(head.starts_with("put /bucket/pre/fix/packs/p http/1.1\r\n"), "{head}");
    for wanted in
        ["if-none-match: *\r\n", "content-length: 4\r\n", "x-amz-checksum-crc64nvme: ", "authorization: aws4-hmac-sha256"]
    {
        assert!(head.contains(wanted), "{wanted:?} is not in {head}");
    }
}

#[test]
fn conflicts_are_told_apart() {
    assert_eq!(put(vec![refusal(412, "PreconditionFailed")]).0, Ok(Put::Exists));
    assert_eq!(put(vec![Say::Answer(304, "", "")]).0, Ok(Put::Exists));
    let conflict = || refusal(409, "ConditionalRequestConflict");
    // Another put is under way, and has not come to be: ask again later.
    assert_eq!(put(vec![conflict(), Say::Answer(404, "", "")]).0, Err(StoreErrorKind::Unavailable));
    // It has.
    assert_eq!(
        put(vec![
            conflict(),
            Say::Answer(200, "Content-Length: 4\r\nETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n", "")
        ])
        .0,
        Ok(Put::Exists)
    );
    assert_eq!(put(vec![conflict(), Say::Answer(503, "", "")]).0, Err(StoreErrorKind::Unavailable));
}

#[test]
fn refusals_are_sorted_by_what_to_do_and_never_retried_here() {
    for (status, code, wanted) in [
        (500, "InternalError", StoreErrorKind::Unavailable),
        (503, "SlowDown", StoreErrorKind::Unavailable),
        (429, "", StoreErrorKind::Unavailable),
        (400, "RequestTimeout", StoreErrorKind::Unavailable),
        (400, "BadDigest", StoreErrorKind::Unavailable),
        (400, "ExpiredToken", StoreErrorKind::Unavailable),
        (403, "AccessDenied", StoreErrorKind::Denied),
        (403, "RequestTimeTooSkewed", StoreErrorKind::Denied),
        (401, "", StoreErrorKind::Denied),
        (404, "NoSuchBucket", StoreErrorKind::InvalidSettings),
        (301, "PermanentRedirect", StoreErrorKind::InvalidSettings),
        (501, "NotImplemented", StoreErrorKind::Unsupported),
        (507, "XMinioStorageFull", StoreErrorKind::NoSpace),
        (403, "QuotaExceeded", StoreErrorKind::NoSpace),
        (418, "Teapot", StoreErrorKind::Io),
    ] {
        let (result, requests, text) = put(vec![refusal(status, code)]);
        assert_eq!((result, requests), (Err(wanted), 1), "{status} {code}: {text}");
        assert!(text.contains("verb=PUT") && text.contains("key=packs/p") && text.contains(code), "{text}");
        assert!(!text.contains("topsecret"), "{text}");
    }
}

#[test]
fn a_server_that_is_away_is_unavailable_soon() {
    for say in [Say::Hang, Say::Close] {
        let (result, requests, text) = put(vec![say]);
        assert_eq!((result, requests), (Err(StoreErrorKind::Unavailable), 1), "{text}");
    }
    let gone = S3Settings {
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        allow_http: true,
        bucket: "bucket".to_owned(),
        credentials: CredentialsCell::new("a", "b", None),
        ..S3Settings::default()
    };
    assert_eq!(S3Store::open(gone).unwrap().head(&key()).unwrap_err().kind(), StoreErrorKind::Unavailable);
}

#[test]
fn success_without_an_etag_says_nothing_of_the_effect() {
    assert_eq!(put(vec![Say::Answer(200, "", "<Error><Code>InternalError</Code></Error>")]).0, Err(StoreErrorKind::Unavailable));
}

#[test]
fn a_body_cut_on_the_way_is_never_returned() {
    let server = Server::start(vec![Say::Cut("half")], |_, _| {});
    assert_eq!(server.store().get(&key(), 1000).unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_range_that_is_not_the_one_asked_for_is_refused() {
    let wrong = "Content-Range: bytes 5-8/100\r\nETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    for say in [Say::Answer(206, wrong, "abcd"), Say::Answer(200, OBJECT, "abcdefgh")] {
        let server = Server::start(vec![say], |_, _| {});
        assert!(server.store().get_range(&key(), 0, 4).is_err());
    }
    let server = Server::start(vec![refusal(416, "InvalidRange")], |_, _| {});
    assert_eq!(server.store().get_range(&key(), 200, 4).unwrap_err().kind(), StoreErrorKind::Truncated);
}

#[test]
fn renewed_credentials_reach_the_next_request_and_excuse_the_last() {
    // The old key is withdrawn while a request is under way: 403 then is no reason to give up.
    let server = Server::start(vec![refusal(403, "InvalidAccessKeyId"), Say::Answer(200, OBJECT, "")], |n, credentials| {
        if n == 0 {
            credentials.set("AKIANEW", "newsecret", Some("newtoken".to_owned()));
        }
    });
    let settings = RetrySettings { first_pause: Duration::from_millis(1), ..RetrySettings::default() };
    let store = Retry::new(server.store(), settings, Arc::new(SystemClock), Arc::new(SeededRng::new(1)));
    assert_eq!(store.put_new(&key(), Bytes::from_static(b"body")).unwrap(), Put::Created);
    let seen = server.seen();
    assert_eq!(seen.len(), 2, "one retry a rotation");
    assert!(seen[0].contains("AKIAKEY") && seen[1].contains("AKIANEW") && seen[1].contains("newtoken"));
}

#[test]
fn no_credentials_is_told_as_such() {
    let server = Server::start(vec![Say::Close], |_, _| {});
    let store = S3Store::open(S3Settings { credentials: CredentialsCell::default(), ..server.settings.clone() }).unwrap();
    let error = store.head(&key()).unwrap_err();
    assert_eq!((error.kind(), server.seen().len()), (StoreErrorKind::Denied, 0), "{error}");
}

#[test]
fn an_expired_token_is_seen_behind_an_answer_without_body() {
    let server = Server::start(vec![Say::Answer(400, "", ""), refusal(400, "ExpiredToken")], |_, _| {});
    assert_eq!(server.store().head(&key()).unwrap_err().kind(), StoreErrorKind::Unavailable);
    let server = Server::start(vec![Say::Answer(404, "", ""), refusal(404, "InvalidAccessKeyId")], |_, _| {});
    assert_eq!(server.store().head(&key()).unwrap_err().kind(), StoreErrorKind::Denied, "an unknown key is no absent object");
}

fn listing(names: &[&str], token: Option<&str>) -> Say {
    let contents: String = names
        .iter()
        .map(|name| {
            format!("<Contents><Key>{name}</Key><Size>3</Size><LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>")
        })
        .collect();
    let token = token.map(|t| format!("<NextContinuationToken>{t}</NextContinuationToken>")).unwrap_or_default();
    Say::Answer(200, "", format!("<ListBucketResult>{contents}{token}</ListBucketResult>").leak())
}

#[test]
fn a_listing_that_is_out_of_order_or_starts_over_is_refused() {
    let list = |script: Vec<Say>, after: Option<&str>| {
        let after = after.map(|a| Key::new(a).unwrap());
        let page = Server::start(script, |_, _| {}).store().list("packs/", after.as_ref(), 10);
        page.map(|p| (p.entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>(), p.more)).map_err(|e| e.kind())
    };
    let (a, b) = ("pre/fix/packs/a", "pre/fix/packs/b");
    assert_eq!(list(vec![listing(&[a, b], Some("t"))], None), Ok((vec!["packs/a".into(), "packs/b".into()], true)));
    assert_eq!(list(vec![listing(&[b, a], None)], None), Err(StoreErrorKind::Unsupported));
    assert_eq!(list(vec![listing(&[a, a], None)], None), Err(StoreErrorKind::Unsupported));
    assert_eq!(list(vec![listing(&[a, b], None)], Some("packs/a")), Err(StoreErrorKind::Unsupported), "start-after was ignored");
    // Strangers are left out, and a page of nothing but strangers is not the end.
    let strangers = listing(&["pre/fix/packs/UPPER", "pre/fix/other/a", "elsewhere"], Some("t"));
    assert_eq!(list(vec![strangers, listing(&[b], None)], None), Ok((vec!["packs/b".into()], false)));
    assert!(list(vec![Say::Answer(200, "", "<html>hello</html")], None).is_err(), "no page must read as an empty one");
    assert!(list(vec![Say::Answer(200, "", "")], None).is_err());
    let cut = Say::Answer(200, "", "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>");
    assert!(list(vec![cut], None).is_err(), "more, but no way to ask for it");
    assert_eq!(
        list(vec![Say::Answer(200, "", "<Error><Code>InternalError</Code></Error>")], None),
        Err(StoreErrorKind::Unavailable)
    );
    assert!(list(vec![Say::Answer(200, "", "<html>log in</html>")], None).is_err());
}

#[test]
fn settings_are_checked_before_the_first_request() {
    let good = S3Settings { bucket: "bucket".to_owned(), ..S3Settings::default() };
    let open = |settings: S3Settings| S3Store::open(settings).map(|_| ()).map_err(|e| e.kind());
    assert_eq!(open(good.clone()), Ok(()));
    for bad in [
        S3Settings { bucket: String::new(), ..good.clone() },
        S3Settings { endpoint: Some("http://host".to_owned()), ..good.clone() },
        S3Settings { endpoint: Some("host:9000".to_owned()), ..good.clone() },
        S3Settings { endpoint: Some("https://user:pass@host".to_owned()), ..good.clone() },
        S3Settings { endpoint: Some("https://host/path".to_owned()), ..good.clone() },
        S3Settings { prefix: "a/../b".to_owned(), ..good.clone() },
        S3Settings { ca_cert_pem: Some(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----".to_vec()), ..good.clone() },
    ] {
        assert_eq!(open(bad.clone()), Err(StoreErrorKind::InvalidSettings), "{bad:?}");
    }
}
