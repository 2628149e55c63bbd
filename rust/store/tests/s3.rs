//! The conformance suite on a real S3 server, named by `LONGSHORE_TEST_S3_ENDPOINT`, `_ACCESS_KEY`, `_SECRET_KEY` and `_BUCKET`.
//!
//! Without them each test says that it was skipped. Every run works below a fresh prefix and leaves nothing there that matters.

#![allow(clippy::print_stdout, reason = "a skip must be seen")]

use bytes::Bytes;
use longshore_store::cloud::{CredentialsCell, S3Settings, S3Store};
use longshore_store::layers::{Count, Counts, Retry, RetrySettings, Verb};
use longshore_store::{Key, ProbeReport, Put, Rng, Store, StoreErrorKind, SystemClock, SystemRng, probe, suite};
use std::sync::Arc;

fn settings(prefix: &str) -> Option<S3Settings> {
    let variable = |name: &str| std::env::var(format!("LONGSHORE_TEST_S3_{name}")).ok().filter(|value| !value.is_empty());
    let (Some(endpoint), Some(access_key), Some(secret_key), Some(bucket)) =
        (variable("ENDPOINT"), variable("ACCESS_KEY"), variable("SECRET_KEY"), variable("BUCKET"))
    else {
        println!("skipped: no S3 server; set LONGSHORE_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and _BUCKET");
        return None;
    };
    let mut random = [0_u8; 6];
    SystemRng.fill(&mut random);
    let run: String = random.iter().map(|b| format!("{b:02x}")).collect();
    Some(S3Settings {
        endpoint: Some(endpoint),
        bucket,
        prefix: format!("test/{run}/{prefix}"),
        allow_http: true,
        force_path_style: true,
        credentials: CredentialsCell::new(access_key, secret_key, None),
        ..S3Settings::default()
    })
}

#[test]
fn conforms() {
    let Some(base) = settings("suite") else { return };
    suite::assert_conforms(&|case| {
        let prefix = format!("{}/{case}", base.prefix);
        Arc::new(S3Store::open(S3Settings { prefix, ..base.clone() }).unwrap())
    });
}

#[test]
fn conforms_behind_retry() {
    let Some(base) = settings("retry") else { return };
    suite::assert_conforms(&|case| {
        let store = S3Store::open(S3Settings { prefix: format!("{}/{case}", base.prefix), ..base.clone() }).unwrap();
        Arc::new(Retry::new(store, RetrySettings::default(), Arc::new(SystemClock), Arc::new(SystemRng)))
    });
}

#[test]
fn can_hold_a_repository() {
    let Some(base) = settings("probe") else { return };
    let store = S3Store::open(base).unwrap();
    assert_eq!(probe(&store, &SystemRng).unwrap(), ProbeReport { can_delete: true });
    assert!(store.list("", None, 10).unwrap().entries.is_empty());
}

#[test]
fn wrong_credentials_are_denied_and_nothing_is_retried() {
    let Some(base) = settings("denied") else { return };
    let wrong = S3Settings { credentials: CredentialsCell::new("nobody", "nothing", None), ..base.clone() };
    let counts = Arc::new(Counts::default());
    let inner = Count::new(S3Store::open(wrong).unwrap(), counts.clone());
    let store = Retry::new(inner, RetrySettings::default(), Arc::new(SystemClock), Arc::new(SystemRng));
    let key = Key::new("packs/p").unwrap();
    for error in [
        store.put_new(&key, Bytes::new()).unwrap_err(),
        store.get(&key, 1).unwrap_err(),
        store.head(&key).unwrap_err(),
        store.list("", None, 1).unwrap_err(),
        store.delete(&key).unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("verb="), "{error}");
    }
    assert_eq!(counts.requests(), 5);
    // The same store goes on once the credentials are right: what a renewal does to a running job.
    assert_eq!(counts.verb(Verb::PutNew).errors, 1);
}

#[test]
fn credentials_renewed_in_the_cell_reach_a_running_store() {
    let Some(base) = settings("renewed") else { return };
    let right = (std::env::var("LONGSHORE_TEST_S3_ACCESS_KEY").unwrap(), std::env::var("LONGSHORE_TEST_S3_SECRET_KEY").unwrap());
    let cell = CredentialsCell::new("nobody", "nothing", None);
    let store = S3Store::open(S3Settings { credentials: cell.clone(), ..base }).unwrap();
    let key = Key::new("packs/p").unwrap();
    assert_eq!(store.put_new(&key, Bytes::from_static(b"x")).unwrap_err().kind(), StoreErrorKind::Denied);
    cell.set(right.0, right.1, None);
    assert_eq!(store.put_new(&key, Bytes::from_static(b"x")).unwrap(), Put::Created);
    store.delete(&key).unwrap();
}

#[test]
fn a_bucket_that_is_not_there_is_a_matter_of_settings() {
    let Some(base) = settings("absent") else { return };
    let store = S3Store::open(S3Settings { bucket: "longshore-no-such-bucket".to_owned(), ..base }).unwrap();
    let error = store.put_new(&Key::new("a").unwrap(), Bytes::new()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidSettings, "{error}");
    let error = store.list("", None, 1).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidSettings, "{error}");
}
