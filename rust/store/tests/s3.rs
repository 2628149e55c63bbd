//! The conformance suite on a real S3 server, named by `LONGSHORE_TEST_S3_ENDPOINT`, `_ACCESS_KEY`, `_SECRET_KEY` and `_BUCKET`.
//!
//! They are left out of `cargo test`, which says so; without a server they fail. Every run works below a fresh prefix and leaves nothing there that matters.

#![allow(clippy::panic, reason = "a test may fail loudly")]

use bytes::Bytes;
use longshore_store::cloud::{CredentialsCell, S3Settings, S3Store};
use longshore_store::layers::{Count, Counts, Retry, RetrySettings, Verb};
use longshore_store::{Key, ProbeReport, Put, Rng, Store, StoreErrorKind, SystemClock, SystemRng, probe, suite};
use std::sync::Arc;

fn settings(prefix: &str) -> S3Settings {
    let variable = |name: &str| {
        let name = format!("LONGSHORE_TEST_S3_{name}");
        std::env::var(&name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| panic!("no S3 server is named: set {name}"))
    };
    let (endpoint, access_key, secret_key, bucket) =
        (variable("ENDPOINT"), variable("ACCESS_KEY"), variable("SECRET_KEY"), variable("BUCKET"));
    let mut random = [0_u8; 6];
    SystemRng.fill(&mut random);
    let run: String = random.iter().map(|b| format!("{b:02x}")).collect();
    S3Settings {
        endpoint: Some(endpoint),
        bucket,
        prefix: format!("test/{run}/{prefix}"),
        allow_http: true,
        force_path_style: true,
        credentials: CredentialsCell::new(access_key, secret_key, None),
        ..S3Settings::default()
    }
}

#[test]
#[ignore = "needs an S3 server: tests/cluster/test_store_suite.py starts one and runs this"]
fn conforms() {
    let base = settings("suite");
    suite::assert_conforms(&|case| {
        let prefix = format!("{}/{case}", base.prefix);
        Arc::new(S3Store::open(S3Settings { prefix, ..base.clone() }).unwrap())
    });
}

#[test]
#[ignore = "needs an S3 server: tests/cluster/test_store_suite.py starts one and runs this"]
fn conforms_behind_retry() {
    let base = settings("retry");
    suite::assert_conforms(&|case| {
        let store = S3Store::open(S3Settings { prefix: format!("{}/{case}", base.prefix), ..base.clone() }).unwrap();
        Arc::new(Retry::new(store, RetrySettings::default(), Arc::new(SystemClock), Arc::new(SystemRng)))
    });
}

#[test]
#[ignore = "needs an S3 server: tests/cluster/test_store_suite.py starts one and runs this"]
fn can_hold_a_repository() {
    let base = settings("probe");
    let store = S3Store::open(base).unwrap();
    assert_eq!(probe(&store, &SystemRng).unwrap(), ProbeReport { can_delete: true });
    assert!(store.list("", None, 10).unwrap().entries.is_empty());
}

#[test]
#[ignore = "needs an S3 server: tests/cluster/test_store_suite.py starts one and runs this"]
fn wrong_credentials_are_denied_and_nothing_is_retried() {
    let base = settings("denied");
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
#[ignore = "needs an S3 server: tests/cluster/test_store_suite.py starts one and runs this"]
fn credentials_renewed_in_the_cell_reach_a_running_store() {
    let base = settings("renewed");
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
#[ignore = "needs an S3 server: tests/cluster/test_store_suite.py starts one and runs this"]
fn a_bucket_that_is_not_there_is_a_matter_of_settings() {
    let base = settings("absent");
    let store = S3Store::open(S3Settings { bucket: "longshore-no-such-bucket".to_owned(), ..base }).unwrap();
    let error = store.put_new(&Key::new("a").unwrap(), Bytes::new()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidSettings, "{error}");
    let error = store.list("", None, 1).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidSettings, "{error}");
}
